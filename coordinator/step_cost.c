/* step_cost: see step_cost.h. */
#include "coordinator/step_cost.h"

#include <math.h>

#define EXACT        16
#define EXACT_LOG2   4
#define PER_DOUBLING 4
#define MEAN_OF      4.0
#define OUTLIER      2.0
#define GUESS_GROWTH 0.1

static int log2_of(int n)
{
    int log = 0;
    while (n > 1) {
        n /= 2;
        log++;
    }
    return log;
}

static int bucket_of(int n_row)
{
    if (n_row <= EXACT) {
        return n_row - 1;
    }
    int log = log2_of(n_row), rest = n_row - (1 << log);
    int bucket = EXACT + PER_DOUBLING * (log - EXACT_LOG2) + ((rest * PER_DOUBLING) >> log);
    return bucket < STEP_COST_BUCKETS ? bucket : STEP_COST_BUCKETS - 1;
}

/* The fewest rows of a bucket. */
static int rows_of(int bucket)
{
    if (bucket < EXACT) {
        return bucket + 1;
    }
    int base = 1 << (EXACT_LOG2 + (bucket - EXACT) / PER_DOUBLING);
    return base + (bucket - EXACT) % PER_DOUBLING * (base / PER_DOUBLING);
}

void step_cost_add(struct step_cost *c, int n_row, int64_t ns)
{
    int b = bucket_of(n_row);
    double mean = c->ns[b], got = (double)ns;
    if (mean <= 0) {
        c->ns[b] = got;
    } else {
        got = got < OUTLIER * mean ? got : OUTLIER * mean;
        c->ns[b] = mean + (got - mean) / MEAN_OF;
    }
    c->seen[b] = ++c->step;
}

static int known(const struct step_cost *c, int bucket, uint64_t age_max)
{
    return c->ns[bucket] > 0 && c->step - c->seen[bucket] < age_max;
}

double step_cost_ns(const struct step_cost *c, int n_row, uint64_t age_max)
{
    int at = bucket_of(n_row), below = at, above = at;
    while (below >= 0 && !known(c, below, age_max)) {
        below--;
    }
    while (above < STEP_COST_BUCKETS && !known(c, above, age_max)) {
        above++;
    }
    if (below < 0) {
        return above < STEP_COST_BUCKETS ? c->ns[above] : 0;
    }
    if (below == at) {
        return c->ns[at];
    }
    double low = rows_of(below), rows = n_row;
    if (above == STEP_COST_BUCKETS) {
        return c->ns[below] * (1 + GUESS_GROWTH * log2(rows / low));
    }
    double high = rows_of(above);
    return c->ns[below] + (c->ns[above] - c->ns[below]) * (rows - low) / (high - low);
}

uint64_t step_cost_age(const struct step_cost *c, int n_row)
{
    int b = bucket_of(n_row);
    return c->ns[b] > 0 ? c->step - c->seen[b] : UINT64_MAX;
}
