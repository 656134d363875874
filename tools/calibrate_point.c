/* calibrate_point: one point of a curve. Beside each sample the pace of the CPU is measured
 * (tools/pace.h), and of all samples two numbers are kept: what it takes undisturbed, and how much
 * more it takes as the pace's piece does. A mean or a median of the samples would be that of the
 * minute in which it was measured, and what slows a product to a third slows a read by a third.
 *
 * All points are met in several passes, some seconds apart, so that each is met at several paces.
 * A line is laid through its samples as Theil and Sen do (the median of the slopes of all pairs,
 * Sen 1968), which single samples in which the system did something else do not turn; pairs weigh
 * as much as their paces are apart (Jaeckel 1972). Where few are, points of a curve are neighbours:
 * the slope of the one before weighs beside them. */
#include "tools/calibrate.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>

#define SAMPLES_LEAST 2 /* in a pass */
#define SAMPLES_PASS  (CALIBRATE_SAMPLES / CALIBRATE_PASSES)
#define PAIR_APART    0.25 /* of what the piece took: nearer ones tell no slope */
/* A neighbour's slope counts as so many pairs a sample that are undisturbed and not: nothing where
 * there are such pairs. */
#define NEIGHBOUR_WEIGHT 0.25
#define FEEL_MOST        1.5
#define UNDISTURBED_S    1.0 /* watched for it */
#define UNDISTURBED      0.1 /* the quantile that is taken for it */

struct calibrate_point {
    int n;
    double ns[CALIBRATE_SAMPLES];
    double more[CALIBRATE_SAMPLES]; /* what the piece took beyond undisturbed, over that */
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double middle(double *x, int n)
{
    qsort(x, (size_t)n, sizeof(*x), by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

double calibrate_middle(const double *x, int n)
{
    double sorted[CALIBRATE_SAMPLES];
    n = n < CALIBRATE_SAMPLES ? n : CALIBRATE_SAMPLES;
    for (int i = 0; i < n; i++)
        sorted[i] = x[i];
    return middle(sorted, n);
}

/* ---- the pace ---- */

struct pieces {
    struct calibrate *c;
    double rate[CALIBRATE_THREADS];
};

static void one_piece(void *arg, int begin, int end, int thread)
{
    struct pieces *p = arg;
    (void)thread;
    for (int i = begin; i < end; i++)
        p->rate[i] = 1 / pace_piece_ns(p->c->piece[i]);
}

/* What the piece takes now, of a team's threads that share their work. */
static double piece_now(struct calibrate *c, struct team *team)
{
    struct pieces p = {.c = c};
    int n = team_size(team) < CALIBRATE_THREADS ? team_size(team) : CALIBRATE_THREADS;
    double sum = 0;
    team_run(team, one_piece, &p, n, 1);
    for (int i = 0; i < n; i++)
        sum += p.rate[i];
    return n / sum;
}

double calibrate_more(struct calibrate *c, struct team *team)
{
    return piece_now(c, team) / c->cost.piece_ns - 1;
}

int calibrate_points_begin(struct calibrate *c, struct err *err)
{
    int n = 0, most = 1 << 15;
    c->point = calloc(CALIBRATE_POINTS, sizeof(*c->point));
    double *ns = malloc((size_t)most * sizeof(*ns));
    for (int i = 0; i < CALIBRATE_THREADS; i++)
        if (!(c->piece[i] = pace_piece_create(c->kernels)))
            n = most;
    if (!c->point || !ns || n == most) {
        free(ns);
        return err_set(err, ERR_NOMEM, "no memory for the points of curves");
    }
    int64_t until = clock_now(&clock_real) + (int64_t)(UNDISTURBED_S * (double)NS_PER_S);
    while (n < most && (n < 16 || clock_now(&clock_real) < until))
        ns[n++] = piece_now(c, c->team);
    qsort(ns, (size_t)n, sizeof(*ns), by_value);
    c->cost.piece_ns = ns[(int)(UNDISTURBED * n)];
    free(ns);
    return 0;
}

void calibrate_points_end(struct calibrate *c)
{
    for (int i = 0; i < CALIBRATE_THREADS; i++)
        pace_piece_destroy(c->piece[i]);
    free(c->point);
}

/* ---- a point ---- */

struct slope {
    double slope, weight;
};

static int by_slope(const void *a, const void *b)
{
    return by_value(&((const struct slope *)a)->slope, &((const struct slope *)b)->slope);
}

static double weighted_middle(struct slope *s, int n)
{
    double half = 0;
    qsort(s, (size_t)n, sizeof(*s), by_slope);
    for (int i = 0; i < n; i++)
        half += s[i].weight / 2;
    int i = 0;
    while (i < n - 1 && (half -= s[i].weight) > 0)
        i++;
    return s[i].slope;
}

struct measured calibrate_fit(const double *ns, const double *more, int n, double *feel)
{
    static struct slope slope[CALIBRATE_SAMPLES * (CALIBRATE_SAMPLES - 1) / 2 + 1];
    double at[CALIBRATE_SAMPLES];
    int n_slope = 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++) {
            double apart = more[i] - more[k];
            if (fabs(apart) > PAIR_APART * (1 + fmin(more[i], more[k])))
                slope[n_slope++] = (struct slope){(ns[i] - ns[k]) / apart, fabs(apart)};
        }
    for (int i = 0; i < n; i++)
        at[i] = ns[i] / (1 + *feel * more[i]);
    slope[n_slope++] = (struct slope){*feel * middle(at, n), n * NEIGHBOUR_WEIGHT};
    double felt = fmax(0, weighted_middle(slope, n_slope));
    for (int i = 0; i < n; i++)
        at[i] = ns[i] - felt * more[i];
    double free_ns = middle(at, n);
    *feel = felt < FEEL_MOST * free_ns ? felt / free_ns : FEEL_MOST;
    for (int i = 0; i < n; i++)
        at[i] = ns[i] / (1 + *feel * more[i]);
    free_ns = middle(at, n);
    return (struct measured){free_ns, free_ns * *feel};
}

struct measured measure(struct calibrate *c, struct team *team, int cold, measure_fn *fn, void *arg)
{
    static const struct measured failed = {-1, 0};
    if (c->next_point == CALIBRATE_POINTS || fn(arg) < 0)
        return failed;
    struct calibrate_point *p = &c->point[c->next_point++];
    int64_t until = clock_now(&clock_real) + c->budget_ns / CALIBRATE_PASSES;
    for (int n = 0; n < SAMPLES_PASS && (n < SAMPLES_LEAST || clock_now(&clock_real) < until);
         n++) {
        if (n % cold == 0)
            calibrate_sweep(c);
        double before = calibrate_more(c, team), ns = fn(arg);
        if (ns < 0)
            return failed;
        double more = (before + calibrate_more(c, team)) / 2;
        if (p->n == CALIBRATE_SAMPLES)
            continue;
        p->ns[p->n] = ns;
        p->more[p->n++] = more;
    }
    return calibrate_fit(p->ns, p->more, p->n, &c->feel);
}
