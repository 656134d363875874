/* plan: from slots and a placement to what each worker gets. Each row travels once to a worker,
 * however many of its experts the worker holds; each worker's assignments are sorted by expert,
 * then by row, so that they arrive as segments. Pure: no I/O, no clock; memory from the caller's
 * arena. */
#ifndef ROUTER_PLAN_H
#define ROUTER_PLAN_H

#include "base/arena.h"
#include "base/err.h"
#include "router/placement.h"
#include <stdint.h>

/* What one worker gets. */
struct plan_part {
    int worker;
    int n_row;    /* rows sent */
    int32_t *row; /* [n_row] ascending row ids of the micro-batch */
    int n_seg;
    int32_t *seg_expert; /* [n_seg] ascending */
    int32_t *seg_count;  /* [n_seg] assignments of each */
    int n_assign;
    int32_t *assign_row;  /* [n_assign] index into row[] (position among the rows sent) */
    int32_t *assign_slot; /* [n_assign] row * top_k + k: where the result belongs */
};

struct plan {
    int n_part;
    struct plan_part *part; /* ascending worker */
    int n_orphan;           /* slots whose expert nobody holds */
    int32_t *orphan_slot;   /* [n_orphan] ascending */
};

/* How one of several holders is chosen. A worker's load is its assignments in this plan so far plus
 * `load`; ties go to the lowest worker. Whoever computes, the rows are the same bits. */
enum replica_choice {
    REPLICA_FIRST,        /* the lowest worker */
    REPLICA_LEAST_LOADED, /* the smallest load */
    REPLICA_ROUND_ROBIN,  /* in turn: (seed + layer + expert) modulo the holders */
    REPLICA_TWO_CHOICES,  /* the less loaded of two drawn at (seed, layer, expert) */
    REPLICA_BY_SPEED,     /* the smallest load / speed once it has this expert's rows */
    REPLICA_LOCAL         /* the nearest by `distance`, among equals the smallest load */
};
#define PLAN_SPLIT_ROWS_MIN 8 /* smaller pieces never pay: a weight is read for each */
#define PLAN_SPLIT_WAYS     8 /* an expert is cut into at most so many pieces */

struct plan_input {
    const struct placement *placement;
    int layer, n_row, top_k;
    const int32_t *slot_expert; /* [n_row, top_k]; negative: no expert in this slot */
    const int32_t *only_slot;   /* plan just these slots (a re-plan), or NULL for all */
    int n_only;
    enum replica_choice choice;
    const int32_t *load;     /* [n_worker] assignments outstanding before this plan, or NULL */
    const float *speed;      /* [n_worker] relative, > 0, or NULL: all alike */
    const int32_t *distance; /* [n_worker] from this coordinator, or NULL: all alike */
    uint64_t seed;           /* what varies random choices: the batch */
    /* An expert with several holders is cut, under LEAST_LOADED and BY_SPEED, into pieces of at
     * least so many rows that fill up the workers that would end first; 0: never. A piece is a
     * run of ascending slots; it costs one more reading of the weights, so it pays where rows and
     * not weights bound the work. */
    int split_rows;
    int n_worker; /* bound of worker ids */
};

/* plan_build: arrays live until the arena is reset. An expert's rows all go to one holder (its
 * weights are then read once) unless split_rows says otherwise. ERR_NOMEM when the arena is full,
 * with nothing changed but it. */
int plan_build(struct plan *plan, const struct plan_input *in, struct arena *mem, struct err *err);
/* plan_arena_bytes: enough for any plan of this size. */
size_t plan_arena_bytes(int n_row, int top_k, int n_expert, int n_worker);

#endif
