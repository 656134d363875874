/* load: counting and the figures of unevenness. Sums run in ascending order with one accumulator,
 * so that a figure is the same wherever it is computed from the same counts. */
#include "router/load.h"
#include "base/arena.h"
#include "base/limits.h"

#include <math.h>
#include <string.h>

#define BUCKETS_MAX 65536

static double relative(const double *load, const double *speed, int i)
{
    return speed ? load[i] / speed[i] : load[i];
}

static double entropy_of(const double *load, const double *speed, int n, double sum)
{
    double h = 0;
    for (int i = 0; i < n; i++) {
        double share = relative(load, speed, i) / sum;
        if (share > 0)
            h -= share * log(share);
    }
    return h / log((double)n);
}

void load_figures(const double *load, const double *speed, int n, struct load_figures *out)
{
    double sum = 0, work = 0, power = 0, square = 0;
    *out = (struct load_figures){.entropy = 1};
    for (int i = 0; i < n; i++) {
        double x = relative(load, speed, i);
        out->max = x > out->max ? x : out->max;
        sum += x;
        work += load[i];
        power += speed ? speed[i] : 1.0;
    }
    if (n < 1 || !(work > 0))
        return;
    out->mean = work / power;
    out->max_over_mean = out->max / out->mean;
    out->excess = out->max_over_mean - 1;
    double plain = sum / n;
    for (int i = 0; i < n; i++) {
        double off = relative(load, speed, i) - plain;
        square += off * off;
    }
    out->cv = sqrt(square / n) / plain;
    if (n > 1)
        out->entropy = entropy_of(load, speed, n, sum);
}

/* window_parts: bytes of the counts and of the slots' totals; -1 when a number is out of range. */
static int window_parts(int n_layer, int n_expert, int n_bucket, size_t *counts, size_t *totals)
{
    if (n_layer < 1 || n_layer > LIMIT_LAYERS || n_expert < 1 || n_expert > LIMIT_EXPERTS ||
        n_bucket < 1 || n_bucket > BUCKETS_MAX)
        return -1;
    size_t cells = (size_t)n_layer * (size_t)n_expert;
    *totals = (size_t)n_bucket * sizeof(uint64_t);
    return mul_size(cells * sizeof(uint32_t), (size_t)n_bucket, counts);
}

size_t load_window_bytes(int n_layer, int n_expert, int n_bucket)
{
    size_t counts, totals;
    return window_parts(n_layer, n_expert, n_bucket, &counts, &totals) ? 0 : totals + counts;
}

int load_window_init(struct load_window *w, int n_layer, int n_expert, int n_bucket, void *memory,
                     struct err *err)
{
    size_t counts, totals;
    if (window_parts(n_layer, n_expert, n_bucket, &counts, &totals))
        return err_set(err, ERR_LIMIT,
                       "a window of %d buckets of %d layers x %d experts; at most %d of %d x %d "
                       "are possible",
                       n_bucket, n_layer, n_expert, BUCKETS_MAX, LIMIT_LAYERS, LIMIT_EXPERTS);
    memset(memory, 0, totals + counts);
    *w = (struct load_window){.n_layer = n_layer, .n_expert = n_expert, .n_bucket = n_bucket};
    w->n_slot = memory;
    w->count = (uint32_t *)(w->n_slot + n_bucket);
    return 0;
}

static uint32_t *bucket_at(const struct load_window *w, int bucket, int layer)
{
    size_t row = (size_t)bucket * (size_t)w->n_layer + (size_t)layer;
    return w->count + row * (size_t)w->n_expert;
}

int load_window_add(struct load_window *w, int layer, const int32_t *slot_expert, int64_t n_slot,
                    struct err *err)
{
    if (layer < 0 || layer >= w->n_layer)
        return err_set(err, ERR_LIMIT, "loads of layer %d; the window has %d", layer, w->n_layer);
    for (int64_t i = 0; i < n_slot; i++)
        if (slot_expert[i] >= w->n_expert)
            return err_set(err, ERR_LIMIT, "slot %lld names expert %d of %d", (long long)i,
                           (int)slot_expert[i], w->n_expert);
    uint32_t *count = bucket_at(w, w->bucket, layer);
    uint64_t n = 0;
    for (int64_t i = 0; i < n_slot; i++) {
        if (slot_expert[i] < 0)
            continue;
        count[slot_expert[i]]++;
        n++;
    }
    w->n_slot[w->bucket] += n;
    return 0;
}

void load_window_advance(struct load_window *w)
{
    size_t cells = (size_t)w->n_layer * (size_t)w->n_expert;
    w->bucket = (w->bucket + 1) % w->n_bucket;
    memset(bucket_at(w, w->bucket, 0), 0, cells * sizeof(uint32_t));
    w->n_slot[w->bucket] = 0;
}

uint64_t load_window_sum(const struct load_window *w, int n_last, double *load)
{
    size_t cells = (size_t)w->n_layer * (size_t)w->n_expert;
    uint64_t n = 0;
    memset(load, 0, cells * sizeof(double));
    for (int i = 0; i < n_last && i < w->n_bucket; i++) {
        int bucket = (w->bucket - i + w->n_bucket) % w->n_bucket;
        const uint32_t *count = bucket_at(w, bucket, 0);
        for (size_t cell = 0; cell < cells; cell++)
            load[cell] += count[cell];
        n += w->n_slot[bucket];
    }
    return n;
}
