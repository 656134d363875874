/* stats: see stats.h. Student's distribution by the incomplete beta function (continued fraction,
 * Lentz), inverted by bisection: no table, any degrees of freedom. */
#include "tools/stats.h"

#include <math.h>
#include <stdlib.h>

void samples_add(struct samples *s, double value)
{
    if (s->n == s->n_max) {
        size_t n_max = s->n_max ? s->n_max * 2 : 1024;
        double *at = realloc(s->at, n_max * sizeof(*at));
        if (!at) {
            s->failed = 1;
            return;
        }
        s->at = at;
        s->n_max = n_max;
    }
    s->at[s->n++] = value;
}

void samples_free(struct samples *s)
{
    free(s->at);
    *s = (struct samples){0};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double percentile(const double *x, size_t n, double q)
{
    if (n == 0)
        return 0;
    double rank = ceil(q * (double)n - 1e-9);
    size_t i = rank < 1 ? 0 : (size_t)rank - 1;
    return x[i < n ? i : n - 1];
}

void samples_summary(struct samples *s, struct summary *out)
{
    *out = (struct summary){.n = s->n};
    if (s->n == 0)
        return;
    qsort(s->at, s->n, sizeof(*s->at), by_value);
    double sum = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += s->at[i];
    out->mean = sum / (double)s->n;
    out->min = s->at[0];
    out->max = s->at[s->n - 1];
    out->p50 = percentile(s->at, s->n, 0.50);
    out->p90 = percentile(s->at, s->n, 0.90);
    out->p95 = percentile(s->at, s->n, 0.95);
    out->p99 = percentile(s->at, s->n, 0.99);
}

/* Continued fraction of the incomplete beta function. */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double h = d;
    for (int m = 1; m < 300; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        for (int k = 0; k < 2; k++) {
            double t = k == 0 ? even : odd;
            d = 1 + t * d;
            c = 1 + t / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            h *= d * c;
        }
        if (fabs(d * c - 1) < 1e-14)
            break;
    }
    return h;
}

static double beta_incomplete(double a, double b, double x)
{
    if (x <= 0 || x >= 1)
        return x <= 0 ? 0 : 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2))
        return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double student_quantile(double confidence, double df)
{
    double lo = 0, hi = 1e6;
    for (int i = 0; i < 200; i++) {
        double t = 0.5 * (lo + hi);
        double outside = beta_incomplete(df / 2, 0.5, df / (df + t * t));
        if (1 - outside < confidence)
            lo = t;
        else
            hi = t;
    }
    return 0.5 * (lo + hi);
}

void mean_interval(const double *x, int n, double confidence, double *mean, double *half)
{
    double sum = 0, square = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    *mean = n > 0 ? sum / n : 0;
    for (int i = 0; i < n; i++)
        square += (x[i] - *mean) * (x[i] - *mean);
    *half = n < 2 ? 0 : student_quantile(confidence, n - 1) * sqrt(square / (n - 1) / n);
}
