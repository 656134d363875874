/* loader: see loader.h. The thread is joined at the end of each order: orders are rare, and a
 * thread that does not exist needs no state machine. It takes the time that nobody else wants
 * (SCHED_IDLE): requests that are answered meanwhile need the processor at once, an expert that
 * arrives needs it sometime. A thread that is merely nice finishes its turn, milliseconds, before
 * one that wakes is let in; a step wakes somebody twice a layer. */
#include "worker/loader.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define NICE 19

struct loader {
    struct expert_set *set;
    struct ev_loop *loop;
    ev_async wake;
    void (*changed)(void *user);
    void *user;
    int32_t (*item)[2]; /* [total] */
    int total, started;
    pthread_t thread;
    atomic_int loaded, stop, ended;
    struct err err; /* written by the thread before `ended` */
};

static void on_wake(struct ev_loop *loop, ev_async *watcher, int revents)
{
    (void)loop;
    (void)revents;
    struct loader *l = watcher->data;
    l->changed(l->user);
}

struct loader *loader_create(struct expert_set *set, struct ev_loop *loop,
                             void (*changed)(void *user), void *user)
{
    struct loader *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->set = set;
    l->loop = loop;
    l->changed = changed;
    l->user = user;
    ev_async_init(&l->wake, on_wake);
    l->wake.data = l;
    ev_async_start(loop, &l->wake);
    return l;
}

/* give_way: of the calling thread. */
static void give_way(void)
{
    struct sched_param none = {0};
    pthread_setname_np(pthread_self(), "loader");
    if (pthread_setschedparam(pthread_self(), SCHED_IDLE, &none))
        setpriority(PRIO_PROCESS, 0, NICE); /* of this thread, on Linux */
}

static void *load_all(void *arg)
{
    struct loader *l = arg;
    give_way();
    for (int i = 0; i < l->total && !atomic_load(&l->stop); i++) {
        if (expert_set_load(l->set, l->item[i][0], l->item[i][1], &l->err))
            break;
        atomic_fetch_add(&l->loaded, 1);
        ev_async_send(l->loop, &l->wake);
    }
    atomic_store(&l->ended, 1);
    ev_async_send(l->loop, &l->wake);
    return NULL;
}

void loader_stop(struct loader *l)
{
    if (!l->started)
        return;
    atomic_store(&l->stop, 1);
    pthread_join(l->thread, NULL);
    l->started = 0;
}

void loader_destroy(struct loader *l)
{
    if (!l)
        return;
    loader_stop(l);
    ev_async_stop(l->loop, &l->wake);
    free(l->item);
    free(l);
}

int loader_order(struct loader *l, const int32_t (*item)[2], int n, struct err *err)
{
    loader_stop(l);
    int32_t(*copy)[2] = malloc((size_t)n * sizeof(*copy) + 1);
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for an order of %d experts", n);
    memcpy(copy, item, (size_t)n * sizeof(*copy));
    free(l->item);
    l->item = copy;
    l->total = n;
    atomic_store(&l->loaded, 0);
    atomic_store(&l->stop, 0);
    atomic_store(&l->ended, 0);
    err_clear(&l->err);
    if (n == 0) {
        atomic_store(&l->ended, 1);
        return 0;
    }
    if (pthread_create(&l->thread, NULL, load_all, l)) {
        atomic_store(&l->ended, 1);
        return err_set(err, ERR_NOMEM, "the system refuses a thread to load experts");
    }
    l->started = 1;
    return 0;
}

void loader_view_get(struct loader *l, struct loader_view *out)
{
    int ended = atomic_load(&l->ended);
    *out = (struct loader_view){
        .loaded = atomic_load(&l->loaded), .total = l->total, .running = l->started && !ended};
    if (ended)
        out->err = l->err;
}
