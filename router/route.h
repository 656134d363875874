/* route: the routing strategies, as strategy.c lists them, and what they share. Inputs were checked
 * by strategy_route. */
#ifndef ROUTER_ROUTE_H
#define ROUTER_ROUTE_H

#include "router/strategy.h"

#define ROUTE_PARAMETERS                                                                           \
    const struct route_input *in, int32_t *slot_expert, float *slot_weight,                        \
        struct route_stats *stats, struct arena *mem, struct err *err
int route_model(ROUTE_PARAMETERS);
int route_uniform(ROUTE_PARAMETERS);
int route_hash(ROUTE_PARAMETERS);
int route_rre(ROUTE_PARAMETERS);
int route_zipf(ROUTE_PARAMETERS);
int route_k_hot(ROUTE_PARAMETERS);
int route_expert_choice(ROUTE_PARAMETERS);
int route_capacity_drop(ROUTE_PARAMETERS);
int route_capacity_overflow(ROUTE_PARAMETERS);
int route_group_limited(ROUTE_PARAMETERS);
int route_one_per_group(ROUTE_PARAMETERS);

/* route_draw: in [0, 1), by seed, row, layer and the number of the draw. */
double route_draw(const struct route_input *in, int row, uint32_t n);
/* route_draw_id: the same for what is not a row: a token, a domain, a rank; kind keeps them apart.
 */
double route_draw_id(const struct route_input *in, uint32_t kind, uint64_t id, uint32_t n);
enum { ROUTE_DRAW_TOKEN = 1, ROUTE_DRAW_RANK, ROUTE_DRAW_DOMAIN };
/* route_weights: the gate's own weights where they are known, else 1 / top_k each. */
void route_weights(const struct route_input *in, float *slot_weight);
/* route_scores: softmax of a row's logits, score [n_expert]. */
void route_scores(const struct route_input *in, int row, float *score);
/* route_capacity: slots that an expert takes of this batch, at least 1. */
int32_t route_capacity(const struct route_input *in);
/* route_need refuses in words when an input that a strategy lives on is not there. */
int route_need(const void *input, const char *strategy, const char *what, struct err *err);
int route_no_memory(const struct route_input *in, struct err *err);

#endif
