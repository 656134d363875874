/* transport_zmq: the pool's transport over ZeroMQ. One socket a link, all on one private libev loop
 * that runs only inside recv and wait, on the caller's thread; what the sockets hand in waits in a
 * ring until the pool asks for it. A link's messages leave the ring when the link is closed:
 * nothing of an old connection is ever seen on a new one. */
#include "coordinator/pool.h"
#include "proto/sock.h"

#include <stdlib.h>

struct zmq_link {
    struct transport_zmq *owner;
    struct sock *sock; /* NULL: closed */
    int index;
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
    int64_t spin_ns;
    struct zmq_link **link; /* [n_link] */
    int n_link;
    struct arrived *ring; /* [n_ring], a power of two; [head, head + n_arrived) filled */
    size_t n_ring, head, n_arrived;
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

static void on_message(void *user, struct sock *sock, const struct sock_peer *from,
                       struct frames *f)
{
    struct zmq_link *l = user;
    struct transport_zmq *t = l->owner;
    (void)sock;
    (void)from;
    if (ring_reserve(t)) {
        return;
    }
    struct arrived *a = ring_at(t, t->n_arrived++);
    a->link = l->index;
    frames_init(&a->frames);
    frames_move(&a->frames, f);
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

static int zmq_link_open(void *self, int index, const char *endpoint, struct err *err)
{
    struct transport_zmq *t = self;
    struct sock_config config = {
        .kind = SOCK_CALL, .endpoint = endpoint, .keys = t->keys, .insecure = t->insecure};
    int rc = links_reserve(t, index, err);
    if (rc) {
        return rc;
    }
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
    return sock_send(t->link[index]->sock, NULL, f);
}

static const char *zmq_trouble(void *self, int index)
{
    struct transport_zmq *t = self;
    return index < t->n_link && t->link[index]->sock ? sock_trouble(t->link[index]->sock) : NULL;
}

static int zmq_recv_any(void *self, int *index, struct frames *f)
{
    struct transport_zmq *t = self;
    if (t->n_arrived == 0) {
        ev_run(t->loop, EVRUN_NOWAIT);
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

static void zmq_wait(void *self, int64_t until_ns)
{
    struct transport_zmq *t = self;
    int64_t now = clock_now(t->clock), spin_until = now + t->spin_ns;
    while (t->n_arrived == 0 && now < until_ns && now < spin_until) {
        ev_run(t->loop, EVRUN_NOWAIT);
        now = clock_now(t->clock);
    }
    while (t->n_arrived == 0 && now < until_ns) {
        ev_now_update(t->loop);
        ev_timer_set(&t->timer, (double)(until_ns - now) / (double)NS_PER_S, 0.0);
        ev_timer_start(t->loop, &t->timer);
        ev_run(t->loop, EVRUN_ONCE);
        ev_timer_stop(t->loop, &t->timer);
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
                                      .trouble = zmq_trouble};
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
    t->spin_ns = spin_us * NS_PER_US;
}

struct transport *transport_zmq_interface(struct transport_zmq *t)
{
    return &t->interface;
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
    free(t->ring);
    free(t);
}
