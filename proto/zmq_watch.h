/* zmq_watch: a ZeroMQ socket as one more watcher of a libev loop. ZMQ_FD tells that something may
 * have changed, by an edge, and any call on the socket may swallow the edge. So the descriptor only
 * wakes the loop; what is there is asked of ZMQ_EVENTS before each sleep, which an idle watcher
 * keeps from happening, and after each. A socket that ZeroMQ has said is empty stays so until its
 * descriptor wakes the loop or somebody calls it; until then it is not asked, since each question
 * is two system calls. */
#ifndef PROTO_ZMQ_WATCH_H
#define PROTO_ZMQ_WATCH_H

#include <ev.h>

/* on_turn is called in a turn of the loop in which something may be there: it receives what is,
 * within its own budget. */
typedef void zmq_watch_fn(void *user);

struct zmq_watch {
    void *zmq;
    struct ev_loop *loop;
    zmq_watch_fn *on_turn;
    void *user;
    int maybe; /* something may be there */
    ev_io wake;
    ev_prepare prepare;
    ev_check check;
    ev_idle idle;
};

/* zmq_watch_start hangs the watcher, which must not move, into the loop; zmq_watch_stop before the
 * socket is closed. */
void zmq_watch_start(struct zmq_watch *w, struct ev_loop *loop, void *zmq, zmq_watch_fn *on_turn,
                     void *user);
void zmq_watch_stop(struct zmq_watch *w);
/* zmq_watch_called: the socket was called other than by on_turn. */
void zmq_watch_called(struct zmq_watch *w);
/* zmq_has_input: a message is there; also makes ZeroMQ read its mail. */
int zmq_has_input(void *zmq);

#endif
