/* replica: who computes an expert that several workers hold. Part of plan_build, on the live path:
 * no memory, no state; what it decides depends on its arguments alone. */
#ifndef ROUTER_REPLICA_H
#define ROUTER_REPLICA_H

#include "router/plan.h"

/* A run of an expert's slots that one worker computes. */
struct share {
    int32_t worker, count;
    int32_t cursor; /* the plan's: where its next assignment goes, within its part */
};

/* replica_ways: the most shares that replica_share makes of `count` slots; over all experts, no
 * more than one each and one for every PLAN_SPLIT_ROWS_MIN slots. */
int replica_ways(const struct plan_input *in, int32_t count, int n_holder);
/* replica_share writes the shares of `count` slots of an expert, by ascending worker, and returns
 * how many: 1, or up to PLAN_SPLIT_WAYS of at least in->split_rows each. holder [n_holder], at
 * least one, ascending, below in->n_worker; worker_count [n_worker]: assignments so far, without
 * this expert's. */
int replica_share(const struct plan_input *in, int expert, int32_t count, const int32_t *holder,
                  int n_holder, const int32_t *worker_count, struct share *share);

#endif
