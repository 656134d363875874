/* transport_zmq: the pool's transport over ZeroMQ and, to workers on this host, shared memory. One
 * socket a link, all on one private libev loop that runs only inside recv and wait, on the caller's
 * thread; what arrives waits in a line until the pool asks for it. A link's messages leave the line
 * when the link is closed: nothing of an old connection is ever seen on a new one.
 *
 * Memory takes the messages with tensors and ZeroMQ all others, and those that find no room. A
 * worker says things in an order that matters (what it answers before a Ping's answer), so what
 * came through memory is taken before what came by ZeroMQ. When a memory's other side ends without
 * a word its process is dead, and the link is gone at once; when it takes its leave, or writes what
 * cannot be, the link goes on over ZeroMQ.
 *
 * A worker rings only where it is awaited: the coordinator sleeps through the first of two replies
 * that it needs both of, and a CPU that workers share with it goes on computing. */
#include "base/log.h"
#include "base/spin.h"
#include "coordinator/pool.h"
#include "proto/shm.h"
#include "proto/sock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOKS    32        /* at memory, between two looks at the clock */
#define FRESH_NS NS_PER_MS /* what a turn of the loop found is all there was, so long after it */

struct zmq_link {
    struct transport_zmq *owner;
    struct sock *sock; /* NULL: closed */
    int index;
    struct shm_link *shm; /* NULL: none */
    ev_io bell;
    int up;      /* the worker has taken the memory */
    int quiet;   /* what it pushes is not waited for: it need not ring */
    int gone;    /* its process has ended: to be told */
    int spoiled; /* never again */
    char endpoint[LIMIT_NAME_BYTES];
};

struct arrived {
    int link;
    struct frames frames;
};

struct transport_zmq {
    struct transport interface;
    void *zmq_context;
    const struct wire_keys *keys;
    int insecure;
    const struct clock *clock;
    struct ev_loop *loop;
    ev_timer timer;
    struct spin spin;
    int no_shm;
    int n_gone;
    struct zmq_link **link; /* [n_link] */
    int n_link;
    struct sock **beside; /* [n_beside], on the loop */
    int n_beside;
    struct arrived *ring; /* [n_ring], a power of two; [head, head + n_arrived) filled */
    size_t n_ring, head, n_arrived;
    int64_t found_ns; /* when a turn of the loop found what is not told yet; 0: nothing is there */
    uint64_t bytes_sent, bytes_received; /* of sockets closed since */
};

static struct arrived *ring_at(struct transport_zmq *t, size_t i)
{
    return &t->ring[(t->head + i) & (t->n_ring - 1)];
}

/* Grows the ring when it is full. A message whose place cannot be had is dropped: its call meets
 * its deadline. */
static int ring_reserve(struct transport_zmq *t)
{
    if (t->n_arrived < t->n_ring) {
        return 0;
    }
    size_t n = t->n_ring ? 2 * t->n_ring : 64;
    struct arrived *ring = calloc(n, sizeof(*ring));
    if (!ring) {
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < t->n_arrived; i++) {
        ring[i].link = ring_at(t, i)->link;
        frames_move(&ring[i].frames, &ring_at(t, i)->frames);
    }
    free(t->ring);
    t->ring = ring;
    t->n_ring = n;
    t->head = 0;
    return 0;
}

static void arrive(struct zmq_link *l, struct frames *f)
{
    struct transport_zmq *t = l->owner;
    if (ring_reserve(t)) {
        return;
    }
    struct arrived *a = ring_at(t, t->n_arrived++);
    a->link = l->index;
    frames_init(&a->frames);
    frames_move(&a->frames, f);
}

/* ---- memory ---- */

static void shm_drop(struct zmq_link *l, int bye)
{
    struct transport_zmq *t = l->owner;
    struct shm_stats stats;
    if (!l->shm) {
        return;
    }
    shm_stats_get(l->shm, &stats);
    t->bytes_sent += stats.bytes_sent;
    t->bytes_received += stats.bytes_received;
    ev_io_stop(t->loop, &l->bell);
    shm_close(l->shm, bye);
    l->shm = NULL;
    l->up = 0;
}

/* What the worker wrote cannot be: it is not believed again. */
static void shm_spoiled(struct zmq_link *l, const char *why)
{
    log_warn("pool", "worker at %s: shared memory: %s; rows travel by ZeroMQ from now on",
             l->endpoint, why);
    l->spoiled = 1;
    shm_drop(l, 1);
}

/* shm_take: all that came through the link's memory, in order. */
static void shm_take(struct zmq_link *l)
{
    struct err err = {0};
    struct frames f;
    int rc = 1;
    while (l->up && rc > 0) {
        frames_init(&f);
        rc = shm_recv(l->shm, &f, &err);
        if (rc > 0) {
            arrive(l, &f);
        }
        frames_close(&f);
    }
    if (rc == ERR_PROTO) {
        shm_spoiled(l, err.text);
    }
}

static void on_bell(struct ev_loop *loop, ev_io *w, int revents)
{
    struct zmq_link *l = w->data;
    enum shm_event event = shm_wake(l->shm);
    (void)loop;
    (void)revents;
    if (event == SHM_UP) {
        l->up = 1;
        log_info("pool", "worker at %s: rows travel through shared memory", l->endpoint);
    } else if (event == SHM_BYE || event == SHM_GONE) {
        int dead = event == SHM_GONE && l->up;
        shm_take(l);
        shm_drop(l, 0);
        l->gone = dead;
        l->owner->n_gone += dead;
    }
}

static void zmq_offered(void *self, int index, const struct shm_offer *offer, size_t to_bytes,
                        size_t from_bytes)
{
    struct transport_zmq *t = self;
    struct zmq_link *l = t->link[index];
    struct err err = {0};
    if (t->no_shm || l->shm || l->spoiled) {
        return;
    }
    if (shm_connect(offer, to_bytes, from_bytes, &l->shm, &err)) {
        log_info("pool", "worker at %s: rows travel by ZeroMQ: %s", l->endpoint, err.text);
        return;
    }
    ev_io_init(&l->bell, on_bell, shm_fd(l->shm), EV_READ);
    l->bell.data = l;
    ev_io_start(t->loop, &l->bell);
}

static const char *zmq_via(void *self, int index)
{
    const struct transport_zmq *t = self;
    return index < t->n_link && t->link[index]->up ? "shm" : NULL;
}

static int is_awaited(const struct zmq_link *l)
{
    return l->up && !l->quiet;
}

static void zmq_awaited(void *self, int index, int yes)
{
    struct transport_zmq *t = self;
    if (index < t->n_link) {
        t->link[index]->quiet = !yes;
    }
}

/* shm_ready_any: 1: the memory of some link that is waited for has a message. */
static int shm_ready_any(const struct transport_zmq *t)
{
    for (int i = 0; i < t->n_link; i++) {
        if (is_awaited(t->link[i]) && shm_ready(t->link[i]->shm)) {
            return 1;
        }
    }
    return 0;
}

static int shm_any(const struct transport_zmq *t)
{
    for (int i = 0; i < t->n_link; i++) {
        if (is_awaited(t->link[i])) {
            return 1;
        }
    }
    return 0;
}

static void shm_take_all(struct transport_zmq *t)
{
    for (int i = 0; i < t->n_link; i++) {
        if (t->link[i]->up) {
            shm_take(t->link[i]);
        }
    }
}

/* shm_park_all: 1: a message is there, do not sleep. */
static int shm_park_all(struct transport_zmq *t)
{
    int ready = 0;
    for (int i = 0; i < t->n_link; i++) {
        if (is_awaited(t->link[i])) {
            ready |= shm_park(t->link[i]->shm);
        }
    }
    return ready;
}

static void shm_unpark_all(struct transport_zmq *t)
{
    for (int i = 0; i < t->n_link; i++) {
        if (t->link[i]->up) {
            shm_unpark(t->link[i]->shm);
        }
    }
}

/* ---- ZeroMQ ---- */

static void on_message(void *user, struct sock *sock, const struct sock_peer *from,
                       struct frames *f)
{
    struct zmq_link *l = user;
    (void)sock;
    (void)from;
    shm_take(l);
    arrive(l, f);
    l->owner->found_ns = clock_now(l->owner->clock);
}

static int links_reserve(struct transport_zmq *t, int index, struct err *err)
{
    while (t->n_link <= index) {
        struct zmq_link **link = realloc(t->link, (size_t)(t->n_link + 1) * sizeof(*link));
        struct zmq_link *l = calloc(1, sizeof(*l));
        t->link = link ? link : t->link;
        if (!link || !l) {
            free(l);
            return err_set(err, ERR_NOMEM, "no memory for link %d", index);
        }
        *l = (struct zmq_link){.owner = t, .index = t->n_link};
        t->link[t->n_link++] = l;
    }
    return 0;
}

static struct sock *beside_at(const struct transport_zmq *t, const char *endpoint)
{
    for (int i = 0; i < t->n_beside; i++) {
        if (strcmp(sock_endpoint(t->beside[i]), endpoint) == 0) {
            return t->beside[i];
        }
    }
    return NULL;
}

static int zmq_link_open(void *self, int index, const char *endpoint, struct err *err)
{
    struct transport_zmq *t = self;
    struct sock_config config = {.kind = SOCK_CALL,
                                 .endpoint = endpoint,
                                 .keys = t->keys,
                                 .insecure = t->insecure,
                                 .beside = beside_at(t, endpoint)};
    int rc = links_reserve(t, index, err);
    if (rc) {
        return rc;
    }
    snprintf(t->link[index]->endpoint, sizeof(t->link[index]->endpoint), "%s", endpoint);
    return sock_open(t->zmq_context, t->loop, &config, on_message, t->link[index],
                     &t->link[index]->sock, err);
}

static void ring_purge(struct transport_zmq *t, int index)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->n_arrived; i++) {
        struct arrived *a = ring_at(t, i), *to = ring_at(t, kept);
        if (a->link == index) {
            frames_close(&a->frames);
        } else if (kept++ != i) {
            to->link = a->link;
            frames_move(&to->frames, &a->frames);
        }
    }
    t->n_arrived = kept;
}

static void zmq_link_close(void *self, int index)
{
    struct transport_zmq *t = self;
    struct sock_stats stats;
    if (index >= t->n_link || !t->link[index]->sock) {
        return;
    }
    sock_stats_get(t->link[index]->sock, &stats);
    t->bytes_sent += stats.bytes_sent;
    t->bytes_received += stats.bytes_received;
    shm_drop(t->link[index], 1);
    t->n_gone -= t->link[index]->gone;
    t->link[index]->gone = 0;
    sock_close(t->link[index]->sock);
    t->link[index]->sock = NULL;
    ring_purge(t, index);
}

static int zmq_link_send(void *self, int index, struct frames *f)
{
    struct transport_zmq *t = self;
    if (index >= t->n_link || !t->link[index]->sock) {
        return ERR_GONE;
    }
    struct zmq_link *l = t->link[index];
    int rc = l->up && f->n > 1 ? shm_send(l->shm, f) : ERR_AGAIN;
    if (rc == ERR_PROTO) {
        shm_spoiled(l, "the ring's words make no sense");
    }
    return rc == 0 ? 0 : sock_send(l->sock, NULL, f);
}

/* first_gone: a link whose end is to be told; that is done with it. */
static int first_gone(struct transport_zmq *t)
{
    int i = 0;
    while (!t->link[i]->gone) {
        i++;
    }
    t->link[i]->gone = 0;
    t->n_gone--;
    return i;
}

static const char *zmq_trouble(void *self, int index)
{
    struct transport_zmq *t = self;
    return index < t->n_link && t->link[index]->sock ? sock_trouble(t->link[index]->sock) : NULL;
}

/* turn asks the loop for messages, which asks the kernel several things; after the last message of
 * a turn there is no use in another at once. */
static void turn(struct transport_zmq *t)
{
    int64_t found_ns = t->found_ns;
    t->found_ns = 0;
    if (found_ns == 0 || clock_now(t->clock) - found_ns > FRESH_NS) {
        ev_run(t->loop, EVRUN_NOWAIT);
    }
}

static int zmq_recv_any(void *self, int *index, struct frames *f)
{
    struct transport_zmq *t = self;
    if (t->n_arrived == 0) {
        shm_take_all(t);
    }
    if (t->n_arrived == 0) {
        turn(t);
    }
    if (t->n_arrived == 0 && t->n_gone > 0) {
        *index = first_gone(t);
        return ERR_GONE;
    }
    if (t->n_arrived == 0) {
        return 0;
    }
    struct arrived *a = ring_at(t, 0);
    *index = a->link;
    frames_move(f, &a->frames);
    t->head = (t->head + 1) & (t->n_ring - 1);
    t->n_arrived--;
    return 1;
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)w;
    (void)revents;
}

/* look_for polls memory, at most until spin_until: 1 when a message is there. */
static int look_for(struct transport_zmq *t, int64_t spin_until)
{
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (shm_ready_any(t)) {
                return 1;
            }
            spin_relax();
        }
    } while (clock_now(t->clock) < spin_until);
    return 0;
}

static int spin(struct transport_zmq *t, int64_t now, int64_t until_ns)
{
    int64_t ns = shm_any(t) ? spin_begin(&t->spin) : 0;
    if (ns <= 0) {
        return shm_ready_any(t);
    }
    int paid = look_for(t, now + ns < until_ns ? now + ns : until_ns);
    spin_end(&t->spin, paid);
    return paid;
}

static void sleep_once(struct transport_zmq *t, int64_t now, int64_t until_ns)
{
    ev_now_update(t->loop);
    ev_timer_set(&t->timer, (double)(until_ns - now) / (double)NS_PER_S, 0.0);
    ev_timer_start(t->loop, &t->timer);
    ev_run(t->loop, EVRUN_ONCE);
    ev_timer_stop(t->loop, &t->timer);
}

static void zmq_wait(void *self, int64_t until_ns)
{
    struct transport_zmq *t = self;
    int64_t now = clock_now(t->clock);
    if (t->n_arrived > 0 || t->n_gone > 0 || spin(t, now, until_ns)) {
        return;
    }
    now = clock_now(t->clock);
    while (t->n_arrived == 0 && t->n_gone == 0 && now < until_ns) {
        int ready = shm_park_all(t);
        if (!ready) {
            sleep_once(t, now, until_ns);
        }
        shm_unpark_all(t);
        if (ready || shm_ready_any(t)) {
            return;
        }
        now = clock_now(t->clock);
    }
}

int transport_zmq_create(void *zmq_context, const struct clock *clock, const struct wire_keys *keys,
                         int insecure, struct transport_zmq **out, struct err *err)
{
    struct transport_zmq *t = calloc(1, sizeof(*t));
    if (!t || !(t->loop = ev_loop_new(EVFLAG_NOENV))) {
        free(t);
        return err_set(err, ERR_NOMEM, "no event loop for the workers' connections");
    }
    t->interface = (struct transport){.self = t,
                                      .open = zmq_link_open,
                                      .close = zmq_link_close,
                                      .send = zmq_link_send,
                                      .recv = zmq_recv_any,
                                      .wait = zmq_wait,
                                      .awaited = zmq_awaited,
                                      .trouble = zmq_trouble,
                                      .offered = zmq_offered,
                                      .via = zmq_via};
    t->keys = keys;
    t->insecure = insecure;
    t->zmq_context = zmq_context;
    t->clock = clock;
    ev_init(&t->timer, on_timer);
    *out = t;
    return 0;
}

void transport_zmq_set_spin(struct transport_zmq *t, int spin_us)
{
    t->spin.ns = spin_us * NS_PER_US;
}

void transport_zmq_set_shm(struct transport_zmq *t, int on)
{
    t->no_shm = !on;
}

struct transport *transport_zmq_interface(struct transport_zmq *t)
{
    return &t->interface;
}

struct ev_loop *transport_zmq_loop(struct transport_zmq *t)
{
    return t->loop;
}

int transport_zmq_beside(struct transport_zmq *t, struct sock *serve)
{
    struct sock **beside = realloc(t->beside, (size_t)(t->n_beside + 1) * sizeof(*beside));
    if (!beside) {
        return ERR_NOMEM;
    }
    t->beside = beside;
    t->beside[t->n_beside++] = serve;
    return 0;
}

void transport_zmq_bytes(const struct transport_zmq *t, uint64_t *sent, uint64_t *received)
{
    *sent = t->bytes_sent;
    *received = t->bytes_received;
    for (int i = 0; i < t->n_link; i++) {
        struct sock_stats stats;
        if (t->link[i]->sock) {
            sock_stats_get(t->link[i]->sock, &stats);
            *sent += stats.bytes_sent;
            *received += stats.bytes_received;
        }
        if (t->link[i]->shm) {
            struct shm_stats shm;
            shm_stats_get(t->link[i]->shm, &shm);
            *sent += shm.bytes_sent;
            *received += shm.bytes_received;
        }
    }
}

void transport_zmq_destroy(struct transport_zmq *t)
{
    if (!t) {
        return;
    }
    for (int i = 0; i < t->n_link; i++) {
        zmq_link_close(t, i);
        free(t->link[i]);
    }
    ev_loop_destroy(t->loop);
    free(t->link);
    free(t->beside);
    free(t->ring);
    free(t);
}
