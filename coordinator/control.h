/* control: what an operator tells a running coordinator, carried out on the engine's thread, which
 * owns the pool. Commands come as JSON objects on the loop's thread and answers go back to it:
 *
 *   {"do": "status"}
 *   {"do": "drain", "worker": NAME or ENDPOINT}
 *   {"do": "join", "endpoint": ENDPOINT}            then, once it is welcomed, its share is moved
 *   {"do": "rebalance", "placement": {...}}         a placement file; workers by name or endpoint
 *   {"do": "rebalance", "place": NAME, "redundant": TEXT, "horizon": SECONDS, "force": BOOL,
 *    "dry_run": BOOL}                               planned from the live load; all may be left out
 *   {"do": "domains", ...}                          coordinator/domain_rules.h
 *   {"do": "cancel"}
 *
 * An answer is {"ok": true, ...} or {"ok": false, "error": TEXT}. A change is begun by its command
 * and goes on after the answer; "status" tells how far it is. A plan is answered when it is made:
 * {"ok": true, "plan": {"pays", "started", "reason", "before", "after", "moves", "bytes", ...}}.
 *
 * With rebalance_every_ns the clock asks for such a plan too, and what does not pay back is left
 * alone. */
#ifndef COORDINATOR_CONTROL_H
#define COORDINATOR_CONTROL_H

#include "coordinator/engine.h"
#include "coordinator/rebalance.h"

#include <ev.h>
#include <jansson.h>

struct control_config {
    struct pool *pool; /* NULL for a dense model, of which only the status can be asked */
    const struct engine *engine;
    const struct model_desc *desc;
    enum precision precision;
    const struct clock *clock;
    struct ev_loop *loop;
    int64_t rebalance_every_ns; /* 0: only when an operator asks */
};

struct control;
int control_create(const struct control_config *config, struct control **out, struct err *err);
/* control_destroy: the engine's thread has ended; what still waits is answered with nothing. */
void control_destroy(struct control *c);
/* control_tick carries out what has come and moves the rebalancer on. Engine's thread. */
void control_tick(void *control);
/* control_submit takes `command` over. `done` is called once on the loop's thread with the answer,
 * which is borrowed. 0 or ERR_NOMEM. */
int control_submit(struct control *c, json_t *command,
                   void (*done)(void *user, const json_t *answer), void *user);

/* A copy of the figures as of the last tick; any thread. */
struct control_view {
    enum rebalance_state state;
    uint64_t done, undone; /* changes */
    uint64_t auto_plans, auto_started, auto_refused;
    double every_s;                      /* 0: off */
    double imbalance, imbalance_planned; /* of the last plan; 0 before one */
    int drained_domains;
};
void control_view_get(struct control *c, struct control_view *out);

#endif
