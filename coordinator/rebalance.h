/* rebalance: from one placement to another while requests run. The one state machine for everything
 * that changes who holds what: a new placement, a worker that joins, a worker that is drained.
 *
 *   IDLE -> LOADING      rebalance_start: workers are told what to load; the old placement serves
 *   LOADING -> SWITCHED  all that gain have loaded and their tables say so: the new placement is
 *                        planned for from the next dispatch on, with a new epoch
 *   SWITCHED -> DROPPING no call of an older epoch is out: workers are told to drop what they lose
 *   DROPPING -> IDLE     all have dropped, and their tables say so; who retires has left: done
 *   LOADING -> UNDOING   a worker failed, died or took too long, or somebody cancelled: the gains
 *                        are dropped again; the old placement never stopped serving
 *   UNDOING -> IDLE      failed, with the reason
 *
 * Every state has a deadline. What does not drop in time keeps its copies, which are not planned
 * for: that costs memory, not correctness, and is said. Belongs to the thread of the pool. */
#ifndef COORDINATOR_REBALANCE_H
#define COORDINATOR_REBALANCE_H

#include "coordinator/domain_rules.h"

enum rebalance_state {
    REBALANCE_IDLE,
    REBALANCE_LOADING,
    REBALANCE_SWITCHED,
    REBALANCE_DROPPING,
    REBALANCE_UNDOING,
    REBALANCE_STATE_COUNT
};
const char *rebalance_state_name(enum rebalance_state state);

struct rebalance_config {
    struct pool *pool;
    const struct clock *clock;
    int64_t load_timeout_ns;   /* 0: 10 minutes */
    int64_t switch_timeout_ns; /* 0: 60 s */
    int64_t drop_timeout_ns;   /* 0: 60 s */
};

struct rebalance;
int rebalance_create(const struct rebalance_config *config, struct rebalance **out,
                     struct err *err);
void rebalance_destroy(struct rebalance *r);

/* rebalance_set_rules: every target is made to obey these from now on (coordinator/domain_rules.h);
 * they outlive r or the next call. NULL, as at first: none. */
void rebalance_set_rules(struct rebalance *r, const struct domain_rules *rules);

/* rebalance_start: towards `target` (copied; workers are the pool's indices), then retire[n_retire]
 * leave. `why` is for logs and the status. ERR_AGAIN: one is under way. ERR_USAGE: an expert of a
 * sparse layer has no holder and no rule that says so, a worker does not exist, is down or is to be
 * retired and holds. */
int rebalance_start(struct rebalance *r, const struct placement *target, const int32_t *retire,
                    int n_retire, const char *why, struct err *err);
/* rebalance_cancel: back to the placement before, while LOADING; later it is too late (ERR_USAGE).
 */
int rebalance_cancel(struct rebalance *r, struct err *err);
/* rebalance_tick takes the arrows that are due. Call it after pool_poll or a step. */
void rebalance_tick(struct rebalance *r);

struct rebalance_info {
    enum rebalance_state state;
    char why[128];
    int loaded, total;   /* experts, over all workers */
    int moves;           /* copies that the target has and the pool had not */
    int64_t since_ns;    /* in this state */
    int64_t deadline_ns; /* of this state; 0 when idle */
    uint64_t done, failed;
    uint64_t epoch;     /* of the placement in use */
    double load_per_s;  /* experts a second that the busiest worker of the last change loaded; 0 */
    struct err outcome; /* of the last one; code 0: it was done, or there was none */
};
void rebalance_info_get(const struct rebalance *r, struct rebalance_info *out);

struct pool *rebalance_pool(const struct rebalance *r);

/* rebalance_drain plans where the experts of `worker` go, the least laden first, and starts:
 * whatever only it holds is given to others. ERR_USAGE: it is the only one. */
int rebalance_drain(struct rebalance *r, int worker, struct err *err);

/* rebalance_join gives a worker that has just come its share: experts of the most laden workers,
 * until it holds as many as they do, layer by layer; what it holds already counts. ERR_AGAIN: it
 * has not been welcomed yet. */
int rebalance_join(struct rebalance *r, int worker, struct err *err);

#endif
