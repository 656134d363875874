/* loader: experts read and packed on a thread of their own, so that a worker that is told to hold
 * more goes on serving. One order at a time; a new order takes the place of the old. The loader
 * never drops an expert: that is the loop's to do, who alone knows that nobody computes with it. */
#ifndef WORKER_LOADER_H
#define WORKER_LOADER_H

#include "base/err.h"
#include "model/weights.h"

#include <ev.h>
#include <stdint.h>

struct loader;

/* How far the order is. */
struct loader_view {
    int loaded, total;
    int running;    /* the thread works on it */
    struct err err; /* what ended it early; code 0: nothing */
};

/* loader_create: `changed` is called on the loop's thread when experts were loaded or the order has
 * ended. The thread starts with the first order. NULL: no memory. */
struct loader *loader_create(struct expert_set *set, struct ev_loop *loop,
                             void (*changed)(void *user), void *user);
/* loader_destroy waits for the expert at hand. NULL is fine. */
void loader_destroy(struct loader *l);
/* loader_order: load item[n] of (layer, expert) pairs, in that order. Copies them. An order that
 * runs is given up first, which waits for the expert at hand. */
int loader_order(struct loader *l, const int32_t (*item)[2], int n, struct err *err);
/* loader_stop gives up what runs; on return the thread touches the set no more. */
void loader_stop(struct loader *l);
void loader_view_get(struct loader *l, struct loader_view *out);

#endif
