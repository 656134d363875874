/* placement_rules: what operators say of groups of experts (a domain's, as a rule): on which
 * workers a group may lie and how many copies each of its experts has. A rule is applied to a table
 * that somebody else made, so whoever plans need not know of rules. Pure. */
#ifndef ROUTER_PLACEMENT_RULES_H
#define ROUTER_PLACEMENT_RULES_H

#include "router/placement.h"

struct placement_rule {
    int32_t first, n_expert; /* experts [first, first + n_expert) of every sparse layer */
    int n_copy;              /* of each; more than there are workers for: one a worker; 0: none */
    const uint8_t *allowed;  /* [n_worker] 1: may hold them */
};

/* placement_rules_apply changes as little of `p` as the rules ask for: holders that are allowed
 * stay while copies are wanted, missing copies go to the allowed workers that have least in the
 * layer. A rule that wants copies and has no worker leaves its experts as they are. sparse
 * [n_layer] 0/1. ERR_LIMIT: a group outside the table; ERR_NOMEM. */
int placement_rules_apply(struct placement *p, const uint8_t *sparse, int n_worker,
                          const struct placement_rule *rule, int n_rule, struct err *err);

#endif
