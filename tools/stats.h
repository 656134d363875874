/* stats: figures of samples that reports state: percentiles by nearest rank, means, Student's t. */
#ifndef TOOLS_STATS_H
#define TOOLS_STATS_H

#include <stddef.h>

/* A growing list of samples; `failed` is set when memory ran out and a sample was lost. */
struct samples {
    double *at;
    size_t n, n_max;
    int failed;
};
void samples_add(struct samples *s, double value);
void samples_free(struct samples *s);

struct summary {
    size_t n;
    double mean, min, max, p50, p90, p95, p99;
};
/* samples_summary sorts the samples. Percentile q is the smallest sample with at least q of the
 * samples at or below it (nearest rank): always a value that was measured. n 0: all 0. */
void samples_summary(struct samples *s, struct summary *out);
/* percentile of sorted x [n]; 0 < q <= 1. */
double percentile(const double *x, size_t n, double q);

/* student_quantile: t with P(|T| <= t) = confidence at `df` degrees of freedom, df >= 1. */
double student_quantile(double confidence, double df);
/* mean_interval: mean of x [n] and half the width of its confidence interval (Student; n < 2: half
 * is 0 and says nothing). */
void mean_interval(const double *x, int n, double confidence, double *mean, double *half);

#endif
