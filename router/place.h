/* place: the placement strategies, as strategy.c lists them. Each makes a table for an input
 * (balance.h); out and scratch are carved from mem, and the scratch is released again. */
#ifndef ROUTER_PLACE_H
#define ROUTER_PLACE_H

#include "router/balance.h"

int place_contiguous(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                     struct err *err);
int place_round_robin(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                      struct err *err);
int place_domain(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                 struct err *err);
int place_balanced(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                   struct err *err);
int place_capacity(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                   struct err *err);
int place_fewest_active(const struct balance_input *in, struct balance_table *out,
                        struct arena *mem, struct err *err);
int place_hierarchical(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                       struct err *err);
int place_eplb(const struct balance_input *in, struct balance_table *out, struct arena *mem,
               struct err *err);

#endif
