/* sim_heap: events in order of time, a binary heap; ties in order of making, so that a run is the
 * same on every machine. */
#include "tools/sim/sim_state.h"

#include <stdlib.h>

static int before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void heap_push(struct heap *h, int64_t at_ns, enum event_kind kind, void *what, uint64_t version)
{
    if (h->n == h->n_max) {
        size_t n_max = h->n_max ? h->n_max * 2 : 1024;
        struct event *at = realloc(h->at, n_max * sizeof(*at));
        if (!at) {
            h->failed = 1;
            return;
        }
        h->at = at;
        h->n_max = n_max;
    }
    struct event e = {at_ns, h->order++, kind, what, version};
    size_t i = h->n++;
    while (i > 0 && before(&e, &h->at[(i - 1) / 2])) {
        h->at[i] = h->at[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->at[i] = e;
}

int heap_pop(struct heap *h, struct event *out)
{
    if (h->n == 0)
        return 0;
    *out = h->at[0];
    struct event e = h->at[--h->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && before(&h->at[child + 1], &h->at[child]))
            child++;
        if (!before(&h->at[child], &e))
            break;
        h->at[i] = h->at[child];
        i = child;
    }
    if (h->n > 0)
        h->at[i] = e;
    return 1;
}

void heap_free(struct heap *h)
{
    free(h->at);
    *h = (struct heap){0};
}
