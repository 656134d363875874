/* meter: the last ten seconds of a server, for people who look at it while it works: tokens a
 * second, which experts were chosen, who computed. The engine's thread takes a sample of its
 * counters twice a second; any thread may ask for the newest one and what was added since the
 * oldest. Nothing in the engine's path waits for it: the lock is held for a copy. */
#ifndef COORDINATOR_METER_H
#define COORDINATOR_METER_H

#include "coordinator/engine.h"

struct meter;

struct meter_config {
    const struct engine *engine;
    const struct pool *pool; /* NULL for a dense model */
    const struct model_desc *desc;
    const struct clock *clock;
};
int meter_create(const struct meter_config *config, struct meter **out, struct err *err);
void meter_destroy(struct meter *m);
/* meter_tick samples when it is time; on the engine's thread, after steps and while idle. */
void meter_tick(struct meter *m);

struct meter_worker {
    struct pool_worker_info info;
    uint64_t recent;    /* slots it answered within the window */
    uint64_t *by_layer; /* [n_layer] slots it answered, ever */
};

struct meter_view {
    double window_s; /* what the recent figures are over; 0 before the second sample */
    struct engine_stats engine;
    struct pool_stats pool;
    uint64_t recent_prompt, recent_generated; /* tokens within the window */
    uint64_t recent_local;                    /* slots the coordinator computed itself */
    int n_sparse, n_expert, n_layer, n_worker, n_uncovered;
    uint32_t *recent_load;       /* [n_sparse, n_expert] times chosen within the window */
    uint64_t *load;              /* [n_sparse, n_expert] ever */
    struct meter_worker *worker; /* [n_worker] */
};
/* meter_read: from any thread. The view is the caller's; meter_view_fini frees what it holds. */
int meter_read(struct meter *m, struct meter_view *out, struct err *err);
/* meter_worker_name: of worker i, for people; from any thread. */
void meter_worker_name(struct meter *m, int i, char *out, size_t size);
void meter_view_fini(struct meter_view *v);

#endif
