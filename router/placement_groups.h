/* placement_groups: experts in groups (the domains of a model) dealt out so that each group lies on
 * few workers: a request then talks to few, and a domain's workers can be pinned, scaled and
 * drained as one. The opposite, every group over all workers, is placement_round_robin, since a
 * group's experts are numbered one behind the other. */
#ifndef ROUTER_PLACEMENT_GROUPS_H
#define ROUTER_PLACEMENT_GROUPS_H

#include <stdint.h>

/* placement_colocated: the experts of part `part` of n_part, ascending, into out [<= n_expert];
 * returns how many. Group g has experts [group_end[g - 1], group_end[g]). With no more parts than
 * groups, a group is never cut: the largest first, each to the part with the fewest experts so far.
 * With more parts, each group gets parts of its own, the next part always to the group with the
 * most experts a part, and is cut evenly; parts beyond one an expert stay empty. Ties go to the
 * lower number. n_group <= LIMIT_DOMAINS. */
int placement_colocated(const int32_t *group_end, int n_group, int part, int n_part, int32_t *out);

#endif
