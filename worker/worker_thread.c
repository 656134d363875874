/* worker_thread: a worker on a thread and a loop of its own, for whoever has none to lend: the
 * measurement of what the wire costs (sigmoe calibrate), tests. */
#include "worker/worker.h"

#include "proto/sock.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct worker_thread {
    pthread_t id;
    const struct worker_config *config; /* until started */
    void *zmq_context;
    struct ev_loop *loop;
    ev_async stop;
    char endpoint[LIMIT_NAME_BYTES];
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    int started, rc;
    struct err err;
};

static void on_stop(struct ev_loop *loop, ev_async *watcher, int revents)
{
    (void)watcher;
    (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

static void tell_started(struct worker_thread *t, int rc, const struct err *err)
{
    pthread_mutex_lock(&t->lock);
    t->rc = rc;
    t->err = *err;
    t->started = 1;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void *thread_main(void *arg)
{
    struct worker_thread *t = arg;
    struct worker *w = NULL;
    struct err err = {0};
    int rc = worker_create(t->config, t->zmq_context, t->loop, &w, &err);
    if (rc == 0)
        snprintf(t->endpoint, sizeof(t->endpoint), "%s", worker_endpoint(w));
    tell_started(t, rc, &err);
    if (rc == 0) {
        ev_run(t->loop, 0);
        worker_finish(w);
    }
    worker_destroy(w);
    return NULL;
}

/* thread_begin leaves signals to the threads that the program chose for them. */
static int thread_begin(struct worker_thread *t)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&t->id, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static void thread_free(struct worker_thread *t)
{
    if (t->loop) {
        ev_async_stop(t->loop, &t->stop);
        ev_loop_destroy(t->loop);
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int worker_thread_start(const struct worker_config *config, void *zmq_context,
                        struct worker_thread **out, struct err *err)
{
    struct worker_thread *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(err, ERR_NOMEM, "no memory for a worker thread");
    t->config = config;
    t->zmq_context = zmq_context;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    t->loop = ev_loop_new(EVFLAG_AUTO);
    if (!t->loop) {
        thread_free(t);
        return err_set(err, ERR_NOMEM, "no event loop for a worker thread");
    }
    ev_async_init(&t->stop, on_stop);
    ev_async_start(t->loop, &t->stop);
    if (thread_begin(t)) {
        thread_free(t);
        return err_set(err, ERR_NOMEM, "the system refuses a thread for a worker");
    }
    pthread_mutex_lock(&t->lock);
    while (!t->started)
        pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
    t->config = NULL;
    if (t->rc) {
        int rc = err_set(err, t->rc, "%s", t->err.text);
        pthread_join(t->id, NULL);
        thread_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

const char *worker_thread_endpoint(const struct worker_thread *t)
{
    return t->endpoint;
}

void worker_thread_stop(struct worker_thread *t)
{
    if (!t)
        return;
    ev_async_send(t->loop, &t->stop);
    pthread_join(t->id, NULL);
    thread_free(t);
}
