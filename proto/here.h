/* here: a connection whose two ends hang on one loop, so that one thread serves both: messages are
 * handed over in memory. ZeroMQ asks the kernel some forty things for a request and its answer, and
 * threads that wait for the next piece of work fall asleep meanwhile. */
#ifndef PROTO_HERE_H
#define PROTO_HERE_H

#include "base/err.h"
#include "proto/frames.h"
#include <ev.h>

/* An end: a serving one has any number of connections, a calling one its own. Used by the thread of
 * its loop alone. */
struct here;
/* on_turn is called once a turn of the loop: it receives what is there, within its own budget. */
typedef void here_turn_fn(void *user);

/* here_create: an end without connections; NULL: no memory. hwm: messages that may wait in one
 * direction of a connection. */
struct here *here_create(struct ev_loop *loop, int hwm, here_turn_fn *on_turn, void *user);
/* here_close: what this end has sent still arrives. Not from its own on_turn. */
void here_close(struct here *end);
/* here_connect joins a calling end without a connection to a serving end of the same loop: 0 or
 * ERR_NOMEM. */
int here_connect(struct here *call, struct here *serve);
/* here_send takes the frames over unless it returns ERR_AGAIN: as many wait as may, or a calling
 * end's other end is gone. ERR_GONE: a serving end has no such connection. `id` is of no meaning at
 * a calling end. */
int here_send(struct here *end, uint32_t id, struct frames *f);
/* here_recv: 1 and the next message, in f, which is empty; 0: none. *id: which connection of a
 * serving end. */
int here_recv(struct here *end, uint32_t *id, struct frames *f);

#endif
