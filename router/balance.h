/* balance: from observed loads to a table that says which worker holds which expert. A table is a
 * list of slots a worker: a slot is room for one expert's weights in one layer. Slots a worker may
 * differ, and so may speed, memory and host. Pure; memory from the caller's arena.
 *
 * A replicated expert's rows are split over its holders (router/plan.h, split_rows): the figures
 * here assume the best split unless they say otherwise. */
#ifndef ROUTER_BALANCE_H
#define ROUTER_BALANCE_H

#include "base/arena.h"
#include "base/err.h"
#include "router/placement.h"
#include <stddef.h>
#include <stdint.h>

struct balance_worker {
    double speed;          /* relative: rows a second, in any unit; > 0 */
    int n_slot;            /* experts a layer that it has room for; 0: a share (balance_slots) */
    int host;              /* workers of one host have a fast link between them */
    uint64_t memory_bytes; /* for experts, all layers together; 0: unknown */
};

struct balance_input {
    int n_layer, n_expert, n_worker;
    const double *load;                  /* [n_layer, n_expert] >= 0 */
    const struct balance_worker *worker; /* [n_worker] */
    int n_redundant; /* copies a layer beyond one of each expert; negative: as many as the workers'
                        slots hold */
    int n_group;     /* hierarchical, eplb: groups of consecutive experts that should share a
                        host; 0: none */
    int n_domain;    /* domain-colocated: */
    const double *domain_load; /* [n_domain, n_layer, n_expert], or NULL */
    double slots_a_step;   /* fewest-active: slots (rows x top_k) of one step of a layer; 0: as many
                              as experts */
    uint64_t expert_bytes; /* of one expert in one layer, for memory bounds and moves */
};

/* Worker w's slots are [begin[w], begin[w + 1]); a layer's slots stand side by side. */
struct balance_table {
    int n_layer, n_expert, n_worker;
    int n_slot;      /* slots a layer, all workers together */
    int32_t *begin;  /* [n_worker + 1] */
    int32_t *expert; /* [n_layer, n_slot]; -1: empty slot */
};

/* balance_check refuses what cannot be placed: no workers, loads or speeds that are no numbers,
 * fewer slots than experts, more slots than experts x workers, more redundancy than slots. */
int balance_check(const struct balance_input *in, struct err *err);
/* balance_slots: how many slots each worker gets, n_slot [n_worker]: those asked for; with
 * n_redundant < 0, all that its memory holds where that is known; otherwise a part of n_expert +
 * n_redundant in proportion to speed. A worker never gets more than its memory or n_expert holds.
 */
int balance_slots(const struct balance_input *in, int32_t *n_slot, struct err *err);
/* balance_arena_bytes: enough for any placement strategy on this input, its table included. */
size_t balance_arena_bytes(const struct balance_input *in);
/* balance_redundant_parse: how people write n_redundant: "8" copies a layer, "12.5%" of the
 * experts, "all": as many as fit (-1). */
int balance_redundant_parse(const char *text, int n_expert, int *out, struct err *err);

/* How a replicated expert's rows are divided over its holders when figures are computed. */
enum balance_split {
    SPLIT_EVEN, /* each copy the same share: what published balancers assume */
    SPLIT_BEST  /* as the live plan does: fills up the worker that would end first */
};
/* balance_worker_load: what each worker gets in one layer, work [n_worker], when `load` [n_expert]
 * flows over the table. scratch: balance_load_scratch bytes, 8-byte
 * aligned. */
void balance_worker_load(const struct balance_table *table, int layer, const double *load,
                         const struct balance_worker *worker, enum balance_split split,
                         double *work, void *scratch);
size_t balance_load_scratch(const struct balance_table *table);
/* balance_excess: (max - mean) / mean relative to speed in each layer of loads [n_layer, n_expert],
 * into excess [n_layer] (may be NULL); returns their mean. scratch: balance_excess_scratch bytes.
 */
double balance_excess(const struct balance_table *table, const double *load,
                      const struct balance_worker *worker, enum balance_split split, double *excess,
                      void *scratch);
size_t balance_excess_scratch(const struct balance_table *table);

/* Moving from one table to another. */
struct balance_cost {
    uint64_t expert_bytes;
    double bytes_per_s;   /* at which one worker loads experts while it serves; > 0 */
    double row_s;         /* of a worker of speed 1 for one slot of one layer; > 0 */
    double window_slots;  /* slots of one layer that the loads were observed over; > 0 */
    double horizon_slots; /* slots of one layer expected before the next plan */
    double slowdown;      /* part of a worker's speed that loading costs it; 0..1 */
};
struct balance_moves {
    int n_move;                /* copies that a worker gains */
    int n_refused;             /* layers kept as they are since moving does not pay back */
    int n_broken;              /* of the changed: layers in which nobody holds some expert now */
    int n_changed;             /* layers that change */
    uint64_t bytes;            /* n_move * expert_bytes */
    uint64_t bytes_worker_max; /* what the busiest worker loads */
    double load_s;             /* until it has loaded it */
    double gain_s, cost_s;     /* of the layers that change, within the horizon */
};
/* balance_settle makes `next` cheap to reach from `current` (same begin[], n_layer, n_expert). In
 * each layer it weighs three: to stay; to go to `next`, workers that are alike being relabelled so
 * that most experts stay where they are; or to improve `current` by the few changes that help most.
 * The one with the best gain less cost within the horizon is left in `next`; a layer for which only
 * staying pays, though another would be more even, counts as refused: refused [n_layer] 0/1, may be
 * NULL. cost NULL: relabel and count only. A layer of `current` in which an expert is missing is
 * never kept. mem: balance_settle_bytes. */
int balance_settle(const struct balance_table *current, struct balance_table *next,
                   const struct balance_input *in, const struct balance_cost *cost,
                   uint8_t *refused, struct balance_moves *out, struct arena *mem, struct err *err);
size_t balance_settle_bytes(const struct balance_table *table);

/* balance_table_from: a table of what a placement says, as many slots a worker as it holds in its
 * fullest layer (begin is given the same for every layer). balance_to_placement: a placement with
 * epoch 1, the caller's to destroy. */
int balance_table_from(const struct placement *p, int n_worker, struct balance_table *out,
                       struct arena *mem, struct err *err);
int balance_to_placement(const struct balance_table *table, struct placement **out,
                         struct err *err);

#endif
