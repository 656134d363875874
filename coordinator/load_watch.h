/* load_watch: what the balancer knows of traffic: how often each expert was chosen lately and how
 * fast each worker was seen to be. Counts fade: what lies a half-life back counts half, so there is
 * no edge at which a burst falls out of a window. Belongs to the engine's thread; whoever plans on
 * another one is given a copy. */
#ifndef COORDINATOR_LOAD_WATCH_H
#define COORDINATOR_LOAD_WATCH_H

#include "coordinator/pool.h"
#include "model/desc.h"

struct load_watch;

/* load_watch_create for the sparse layers of a model; half_life_ns > 0. */
int load_watch_create(const struct model_desc *desc, int64_t half_life_ns, struct load_watch **out,
                      struct err *err);
void load_watch_destroy(struct load_watch *w);

/* load_watch_sample takes note of counters that only grow: load [n_sparse, n_expert] (engine_load)
 * and what the workers of `pool` (may be NULL) have answered. load_watch_tick does so once a second
 * and is cheap before. */
void load_watch_sample(struct load_watch *w, const uint64_t *load, const struct pool *pool,
                       int64_t now_ns);
void load_watch_tick(struct load_watch *w, const uint64_t *load, const struct pool *pool,
                     int64_t now_ns);

/* load_watch_loads: faded slots into load [n_sparse, n_expert]; returns the faded seconds that they
 * were counted over. */
double load_watch_loads(const struct load_watch *w, double *load);
/* load_watch_speed: slots a second of computing of a worker; 0: too few seen to say. */
double load_watch_speed(const struct load_watch *w, int worker);

#endif
