/* zmq_watch: see zmq_watch.h. */
#include "proto/zmq_watch.h"

#include <zmq.h>

int zmq_has_input(void *zmq)
{
    int events = 0;
    size_t size = sizeof(events);
    return zmq_getsockopt(zmq, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN);
}

static void on_wake(struct ev_loop *loop, ev_io *w, int revents)
{
    struct zmq_watch *watch = w->data;
    (void)loop;
    (void)revents;
    watch->maybe = 1;
}

static void on_idle(struct ev_loop *loop, ev_idle *w, int revents)
{
    (void)loop;
    (void)w;
    (void)revents;
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
    struct zmq_watch *watch = w->data;
    (void)revents;
    watch->maybe = watch->maybe && zmq_has_input(watch->zmq);
    if (watch->maybe)
        ev_idle_start(loop, &watch->idle);
}

static void on_check(struct ev_loop *loop, ev_check *w, int revents)
{
    struct zmq_watch *watch = w->data;
    (void)revents;
    ev_idle_stop(loop, &watch->idle);
    if (watch->maybe)
        watch->on_turn(watch->user);
}

void zmq_watch_start(struct zmq_watch *w, struct ev_loop *loop, void *zmq, zmq_watch_fn *on_turn,
                     void *user)
{
    int fd = -1;
    size_t size = sizeof(fd);
    w->zmq = zmq;
    w->loop = loop;
    w->on_turn = on_turn;
    w->user = user;
    w->maybe = 1;
    zmq_getsockopt(zmq, ZMQ_FD, &fd, &size);
    ev_io_init(&w->wake, on_wake, fd, EV_READ);
    ev_prepare_init(&w->prepare, on_prepare);
    ev_check_init(&w->check, on_check);
    ev_idle_init(&w->idle, on_idle);
    /* What has arrived is received before other check watchers act on it, and a wake says first
     * that something may be there. */
    ev_set_priority(&w->wake, EV_MAXPRI);
    ev_set_priority(&w->check, EV_MAXPRI - 1);
    w->wake.data = w->prepare.data = w->check.data = w;
    ev_io_start(loop, &w->wake);
    ev_prepare_start(loop, &w->prepare);
    ev_check_start(loop, &w->check);
}

void zmq_watch_called(struct zmq_watch *w)
{
    w->maybe = 1;
}

void zmq_watch_stop(struct zmq_watch *w)
{
    ev_io_stop(w->loop, &w->wake);
    ev_prepare_stop(w->loop, &w->prepare);
    ev_check_stop(w->loop, &w->check);
    ev_idle_stop(w->loop, &w->idle);
}
