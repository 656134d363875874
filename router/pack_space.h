/* pack_space: what the steps of pack share; see pack.h. A bin's slots are filled from the front. */
#ifndef ROUTER_PACK_SPACE_H
#define ROUTER_PACK_SPACE_H

#include "router/pack.h"

struct pack_space {
    int32_t *copies;   /* [n_expert] copies an expert has */
    double *each;      /* [n_expert] load of one copy */
    int32_t *order;    /* [n_slot] items, heaviest copies first */
    int32_t *heap;     /* [max(n_expert, n_worker)] of items, later of bins, class by class */
    int32_t *taken;    /* [n_worker] bins that have a copy of the expert in hand */
    int32_t *filled;   /* [n_worker] by bin: slots taken */
    int32_t *class_of; /* [n_worker] by bin */
    int32_t *class_begin, *class_n; /* [n_worker] by class: its stretch of heap */
    double *work;                   /* [n_worker] by bin: load */
    double *pace;                   /* [n_worker] by bin: 1 / speed */
};

/* pack_slots: a bin's slots and how many they are. */
static inline int32_t *pack_slots(const struct pack *p, int bin, int *n)
{
    int worker = p->bin[bin];
    *n = p->table->begin[worker + 1] - p->table->begin[worker];
    return p->slot + p->table->begin[worker];
}

/* pack_holds: whether a bin has a copy among its first n slots. */
static inline int pack_holds(const int32_t *slot, int n, int32_t expert)
{
    for (int i = 0; i < n; i++)
        if (slot[i] == expert)
            return 1;
    return 0;
}

/* pack_weigh counts copies, and from them each, work and pace, as the slots stand. */
void pack_weigh(const struct pack *p, struct pack_space *space);
/* pack_refine swaps until the bin that ends last cannot be relieved or is within `close` of the
 * mean (0.01: one hundredth later); work and pace are kept. */
void pack_refine(const struct pack *p, struct pack_space *space, double close);

#endif
