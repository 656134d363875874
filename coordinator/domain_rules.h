/* domain_rules: what operators have said of a model's domains: on which workers a domain's experts
 * lie (pinned), how many copies each has (scaled), that no worker holds any (drained: the
 * coordinator computes them itself, slower, with the same bits). Rules name workers, so they hold
 * over leaving and coming back; every placement that a coordinator goes to is made to obey them
 * (coordinator/rebalance.h). Belongs to the thread of the pool. */
#ifndef COORDINATOR_DOMAIN_RULES_H
#define COORDINATOR_DOMAIN_RULES_H

#include "coordinator/pool.h"

#include <jansson.h>

struct domain_rules;

/* domain_rules_create: no rules yet. desc outlives them. */
int domain_rules_create(const struct model_desc *desc, struct domain_rules **out, struct err *err);
int domain_rules_copy(const struct domain_rules *rules, struct domain_rules **out, struct err *err);
void domain_rules_destroy(struct domain_rules *rules);

/* domain_rules_change takes over what a command says, all of it or nothing:
 *   {"pin": {DOMAIN: [WORKER, ...]}, "unpin": [DOMAIN, ...], "scale": {DOMAIN: N},
 *    "drain": [DOMAIN, ...], "undrain": [DOMAIN, ...], "confirm": true}
 * Workers by name or endpoint. A scale of 0 forgets the number. ERR_USAGE: no such domain or
 * worker, copies that do not fit, or a drain without "confirm". */
int domain_rules_change(struct domain_rules *rules, const json_t *command, const struct pool *pool,
                        struct err *err);

/* domain_rules_apply makes `target` obey, on workers that are up and not among retire[n_retire].
 * A domain all of whose workers are away stays as it is. ERR_USAGE: it would lose its last pinned
 * worker to `retire`. */
int domain_rules_apply(const struct domain_rules *rules, const struct pool *pool,
                       const int32_t *retire, int n_retire, struct placement *target,
                       struct err *err);
/* domain_rules_ruled: does a rule say where the expert lies? domain_rules_drained: nowhere? Any
 * expert of a model without domains: no. rules may be NULL. */
int domain_rules_ruled(const struct domain_rules *rules, int expert);
int domain_rules_drained(const struct domain_rules *rules, int expert);
/* domain_rules_any: is there a rule at all? domain_rules_n_drained: domains that no worker holds.
 */
int domain_rules_any(const struct domain_rules *rules);
int domain_rules_n_drained(const struct domain_rules *rules);
/* domain_rules_settled: the placement obeys. A domain that came back from being drained has its
 * copies then, and is as free as one of which nothing was ever said. */
void domain_rules_settled(struct domain_rules *rules);

/* domain_rules_status: a list of {"name", "state": "served" | "partly" | "drained" | "away",
 * "copies": fewest of an expert, "workers": [NAME, ...], "pinned": [NAME, ...], "scale": N}. */
json_t *domain_rules_status(const struct domain_rules *rules, const struct pool *pool);

/* pool_worker_named: of the pool, by name or endpoint, retired ones too; -1: none. */
int pool_worker_named(const struct pool *pool, const char *name);

#endif
