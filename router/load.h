/* load: how much work each expert had, over a sliding window of traffic, and how uneven a set of
 * loads is. A load is a number of slots (token, k) that chose an expert. Time is the caller's: a
 * window is a ring of buckets, and the caller says when the next one begins. */
#ifndef ROUTER_LOAD_H
#define ROUTER_LOAD_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

/* How uneven n loads are. All zeros: max 0, excess 0, cv 0, entropy 1. */
struct load_figures {
    double max, mean;
    double max_over_mean;
    double excess;  /* (max - mean) / mean: the share of time that the mean worker waits */
    double cv;      /* coefficient of variation: standard deviation / mean */
    double entropy; /* of the shares, divided by log(n): 1 when even, 0 when one has all */
};
/* load_figures of load [n]; speed [n] positive, or NULL: each load is divided by its speed first,
 * and the mean is then the sum of loads over the sum of speeds, which no split can beat. */
void load_figures(const double *load, const double *speed, int n, struct load_figures *out);

struct load_window {
    int n_layer, n_expert, n_bucket;
    int bucket;       /* the one being filled */
    uint32_t *count;  /* [n_bucket, n_layer, n_expert] */
    uint64_t *n_slot; /* [n_bucket] observed in each */
};
/* load_window_bytes: what load_window_init carves from `memory`, which the caller owns, 8-byte
 * aligned. 0 when a number is out of range. */
size_t load_window_bytes(int n_layer, int n_expert, int n_bucket);
int load_window_init(struct load_window *w, int n_layer, int n_expert, int n_bucket, void *memory,
                     struct err *err);
/* load_window_add counts slots of one layer; negative ids are empty slots. An id or a layer outside
 * the window is refused with nothing counted. */
int load_window_add(struct load_window *w, int layer, const int32_t *slot_expert, int64_t n_slot,
                    struct err *err);
/* load_window_advance begins the next bucket and forgets the oldest one. */
void load_window_advance(struct load_window *w);
/* load_window_sum: the last n_last buckets (the one being filled counts as one) into
 * load [n_layer, n_expert]; returns how many slots they hold. */
uint64_t load_window_sum(const struct load_window *w, int n_last, double *load);

#endif
