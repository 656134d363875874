/* control: what an operator tells a running coordinator, carried out on the engine's thread, which
 * owns the pool. Commands come as JSON objects on the loop's thread and answers go back to it:
 *
 *   {"do": "status"}
 *   {"do": "drain", "worker": NAME or ENDPOINT}
 *   {"do": "join", "endpoint": ENDPOINT}            then, once it is welcomed, its share is moved
 *   {"do": "rebalance", "placement": {...}}         a placement file; workers by name or endpoint
 *   {"do": "cancel"}
 *
 * An answer is {"ok": true, ...} or {"ok": false, "error": TEXT}. A change is begun by its command
 * and goes on after the answer; "status" tells how far it is. */
#ifndef COORDINATOR_CONTROL_H
#define COORDINATOR_CONTROL_H

#include "coordinator/rebalance.h"

#include <ev.h>
#include <jansson.h>

struct control;
/* control_create: pool NULL for a dense model, of which only the status can be asked. */
int control_create(struct pool *pool, const struct clock *clock, struct ev_loop *loop,
                   struct control **out, struct err *err);
/* control_destroy: the engine's thread has ended; what still waits is answered with nothing. */
void control_destroy(struct control *c);
/* control_tick carries out what has come and moves the rebalancer on. Engine's thread. */
void control_tick(void *control);
/* control_submit takes `command` over. `done` is called once on the loop's thread with the answer,
 * which is borrowed. 0 or ERR_NOMEM. */
int control_submit(struct control *c, json_t *command,
                   void (*done)(void *user, const json_t *answer), void *user);

#endif
