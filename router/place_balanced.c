/* place_balanced: pack (pack.h) over all workers of a layer. Three ways to see the same problem:
 *   balanced       workers are alike, an expert costs its rows;
 *   capacity       workers end when load / speed says so;
 *   fewest-active  an expert costs being read at all: when a step has few rows for each expert, a
 *                  worker's time is the number of different experts that are chosen there. With l
 *                  rows expected for it a step, an expert is chosen with probability 1 - exp(-l).
 */
#include "router/balance_table.h"
#include "router/pack.h"
#include "router/place.h"

#include <math.h>

/* active_weights: loads [n_expert] of a layer to probabilities of being chosen in a step. */
static void active_weights(const struct balance_input *in, const double *load, double *weight)
{
    double sum = 0, slots = in->slots_a_step > 0 ? in->slots_a_step : in->n_expert;
    for (int e = 0; e < in->n_expert; e++)
        sum += load[e];
    for (int e = 0; e < in->n_expert; e++)
        weight[e] = sum > 0 ? 1 - exp(-load[e] / sum * slots) : 0;
}

static int place(const struct balance_input *in, int by_speed, int by_active,
                 struct balance_table *out, struct arena *mem, struct err *err)
{
    struct balance_table table;
    int rc = balance_table_carve(in, &table, mem, err);
    if (rc)
        return rc;
    size_t mark = arena_mark(mem);
    int most = in->n_expert > in->n_worker ? in->n_expert : in->n_worker;
    int32_t *id = arena_alloc(mem, (size_t)most * sizeof(*id));
    double *weight = arena_alloc(mem, (size_t)in->n_expert * sizeof(*weight));
    struct balance_worker *worker = arena_alloc(mem, (size_t)in->n_worker * sizeof(*worker));
    struct pack_space *space = pack_space_carve(in->n_expert, in->n_worker, table.n_slot, mem);
    if (!id || !weight || !worker || !space) {
        arena_release(mem, mark);
        return err_set(err, ERR_NOMEM, "no memory to balance %d experts over %d workers",
                       in->n_expert, in->n_worker);
    }
    for (int i = 0; i < most; i++)
        id[i] = i;
    for (int w = 0; w < in->n_worker; w++) {
        worker[w] = in->worker[w];
        worker[w].speed = by_speed ? worker[w].speed : 1;
    }
    for (int layer = 0; layer < in->n_layer; layer++) {
        const double *load = in->load + (size_t)layer * (size_t)in->n_expert;
        if (by_active)
            active_weights(in, load, weight);
        struct pack p = {.n_item = in->n_expert,
                         .item = id,
                         .weight = by_active ? weight : load,
                         .n_bin = in->n_worker,
                         .bin = id,
                         .worker = worker,
                         .table = &table,
                         .n_copy = balance_n_copy(in, &table),
                         .slot = balance_row(&table, layer)};
        pack_solve(&p, space);
    }
    arena_release(mem, mark);
    *out = table;
    return 0;
}

int place_balanced(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                   struct err *err)
{
    return place(in, 0, 0, out, mem, err);
}

int place_capacity(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                   struct err *err)
{
    return place(in, 1, 0, out, mem, err);
}

int place_fewest_active(const struct balance_input *in, struct balance_table *out,
                        struct arena *mem, struct err *err)
{
    return place(in, 1, 1, out, mem, err);
}
