/* strategy: what a load-test compares and what serves, behind one interface, each in a small file
 * and chosen by name. Three kinds:
 *   route    which experts a token goes to (router/route_*.c); the model's own gate or an
 *            experiment. An experiment changes what the model says, and every report says so.
 *   place    which worker holds which expert (router/place_*.c); the output stays the same.
 *   replica  which of several holders computes (router/plan.c); the output stays the same.
 * All are pure: slots and tables in, slots and tables out, memory from the caller, and random ones
 * depend on the seed and on what they decide about (layer, row), not on the batch or on order. */
#ifndef ROUTER_STRATEGY_H
#define ROUTER_STRATEGY_H

#include "base/arena.h"
#include "base/err.h"
#include "router/balance.h"
#include "router/gate.h"
#include "router/plan.h"
#include <stddef.h>
#include <stdint.h>

enum strategy_kind { STRATEGY_ROUTE, STRATEGY_PLACE, STRATEGY_REPLICA };

/* What a routing strategy may look at. Inputs that a strategy needs and does not find are refused
 * in words, so a trace without scores cannot be replayed through a strategy that ranks by them. */
struct route_input {
    int n_expert, top_k, n_row;
    int layer;
    uint64_t seed;
    const struct gate_spec *gate; /* of this layer; `model` needs it when there are logits */
    const float *logits;          /* [n_row, n_expert] router logits, or NULL */
    const int32_t *gate_expert;   /* [n_row, top_k] what the model's gate chose (a trace), or
                                     NULL; negative: empty */
    const float *gate_weight;     /* [n_row, top_k], or NULL: 1 / top_k each */
    const int32_t *token;         /* [n_row] token ids, or NULL */
    const int32_t *domain;        /* [n_row] domain of each row, or NULL */
    const uint64_t *row_id;       /* [n_row] what identifies a row to random draws (for example
                                     sequence << 32 | position); NULL: its index */
    /* What strategies are tuned with; 0: the default in brackets. */
    double zipf_exponent;    /* zipf [1.0] */
    double hot_share;        /* k-hot: part of the slots that hot experts get [0.9] */
    int n_hot;               /* k-hot: how many are hot [top_k] */
    double domain_share;     /* zipf, k-hot: part of the slots that follow the hot experts of the
                                row's own domain, not those of all [0] */
    double capacity_factor;  /* capacity-*, expert-choice: slots an expert takes, over an even share
                                of this batch [1.25] */
    int n_group, topk_group; /* group-limited [8, 4] */
    int n_domain;            /* rre: groups of experts [1] */
    const uint16_t *domain_table; /* rre: [n_domain, n_table, top_k] expert ids, or NULL: a hash of
                                     (seed, layer, token) within the domain's equal share */
    int n_table;                  /* rre: token ids the table knows */
};
struct route_stats {
    int64_t n_dropped; /* slots left empty that a token was due */
    int64_t n_moved;   /* slots that went to a later choice */
};

/* A strategy of any kind; the members of other kinds are NULL or 0. */
struct strategy {
    enum strategy_kind kind;
    const char *name;   /* "expert-choice" */
    const char *about;  /* one line for help pages */
    int changes_output; /* the model says something else than with its own gate */
    /* route writes slot_expert, slot_weight [n_row, top_k] (expert -1, weight 0: empty slot) and
     * stats (may be NULL). Scratch is carved from mem and released; strategy_route_bytes says how
     * much. On failure outputs are unspecified. */
    int (*route)(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                 struct route_stats *stats, struct arena *mem, struct err *err);
    /* place: see balance.h. */
    int (*place)(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                 struct err *err);
    enum replica_choice choice;
};

/* strategy_find: NULL when no strategy of that kind has the name. strategy_at: the i-th of a kind,
 * NULL behind the last. */
const struct strategy *strategy_find(enum strategy_kind kind, const char *name);
const struct strategy *strategy_at(enum strategy_kind kind, size_t i);
/* strategy_get is strategy_find with words: ERR_USAGE, the nearest name and the list. `option` is
 * what the user wrote the name behind ("--placement"). */
int strategy_get(enum strategy_kind kind, const char *option, const char *name,
                 const struct strategy **out, struct err *err);
/* strategy_list writes one line a strategy, name and what it does, for help pages; cut at size. */
void strategy_list(enum strategy_kind kind, char *out, size_t size);
/* strategy_route checks what every strategy relies on (sizes within limits, ids that are given
 * within n_expert) and calls s->route. What only one needs it refuses itself. */
int strategy_route(const struct strategy *s, const struct route_input *in, int32_t *slot_expert,
                   float *slot_weight, struct route_stats *stats, struct arena *mem,
                   struct err *err);
/* strategy_route_bytes: an arena of this size is enough for any routing strategy. */
size_t strategy_route_bytes(int n_row, int top_k, int n_expert);

#endif
