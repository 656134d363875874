/* pack: one layer's experts into the slots of some workers, as even in time as can be found
 * quickly. Three steps: how many copies each expert gets (always one more for whoever has the most
 * load a copy), the copies one after another, heaviest first, to the worker that would then end
 * first, and swaps that relieve the worker that ends last. No worker holds an expert twice. The
 * strategies of placement are what they hand to this. */
#ifndef ROUTER_PACK_H
#define ROUTER_PACK_H

#include "base/arena.h"
#include "router/balance.h"

struct pack {
    int n_item;
    const int32_t *item;  /* [n_item] expert ids */
    const double *weight; /* [n_expert] load of each, by expert id */
    int n_bin;
    const int32_t *bin;                  /* [n_bin] workers */
    const struct balance_worker *worker; /* by worker id */
    const struct balance_table *table;   /* where a worker's slots lie */
    int n_copy;                          /* copies to place, from n_item to the bins' slots */
    int32_t *slot; /* [table->n_slot] the layer's row of the table, of which the bins' slots
                      are written */
};
struct pack_space;

/* pack_space_carve: room for any problem of a table's size. NULL when the arena is full. */
struct pack_space *pack_space_carve(int n_expert, int n_worker, int n_slot, struct arena *mem);
size_t pack_space_bytes(int n_expert, int n_worker, int n_slot);
/* pack_solve needs n_item <= n_copy <= the bins' slots, and no bin with more slots than items. */
void pack_solve(const struct pack *p, struct pack_space *space);
/* pack_improve starts from what the slots hold: copies that became too many make room for those
 * that became too few, then swaps until the last bin is within `close` of the mean. Few slots
 * change. n_copy is not looked at. */
void pack_improve(const struct pack *p, struct pack_space *space, double close);

#endif
