/* zap: see zap.h. A REP socket, watched as sock.c watches its own: its descriptor is an edge and
 * only wakes the loop, what is there is asked for before and after each sleep. */
#include "proto/zap.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define ENDPOINT "inproc://zeromq.zap.01"
/* version, request id, domain, address, identity, mechanism, credentials (spec 27) */
#define N_PART     7
#define PART_BYTES 256
/* A door that is knocked at without end is told in the log once for so many times. */
#define LOG_EVERY 64

struct zap {
    void *zmq;
    struct ev_loop *loop;
    const struct wire_keys *keys;
    ev_io wake;
    ev_prepare prepare;
    ev_check check;
    ev_idle idle;
    uint64_t refused;
};

struct question {
    char part[N_PART][PART_BYTES];
    size_t n[N_PART];
};

/* take: 1 and a question (well-formed when *whole), 0 when there is none. */
static int take(struct zap *z, struct question *q, int *whole)
{
    int more = 1, i = 0;
    *whole = 1;
    for (; more; i++) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, z->zmq, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return i > 0;
        }
        more = zmq_msg_more(&part);
        size_t n = zmq_msg_size(&part);
        *whole &= i < N_PART && n < PART_BYTES;
        if (*whole) {
            memcpy(q->part[i], zmq_msg_data(&part), n);
            q->part[i][n] = 0;
            q->n[i] = n;
        }
        zmq_msg_close(&part);
    }
    *whole &= i == N_PART;
    return 1;
}

static int may_enter(const struct zap *z, const struct question *q)
{
    return strcmp(q->part[0], "1.0") == 0 && strcmp(q->part[2], ZAP_DOMAIN) == 0 &&
           strcmp(q->part[5], "CURVE") == 0 && q->n[6] == WIRE_KEY_BYTES &&
           wire_keys_allow(z->keys, (const uint8_t *)q->part[6]);
}

static void tell_refused(struct zap *z, const struct question *q)
{
    char text[WIRE_KEY_TEXT] = "none";
    if (q->n[6] == WIRE_KEY_BYTES)
        wire_key_text((const uint8_t *)q->part[6], text);
    if (z->refused++ % LOG_EVERY == 0)
        log_warn("wire", "refused a peer whose key is not allowed: address=%s key=%s refused=%llu",
                 q->part[3], text, (unsigned long long)z->refused);
}

static void answer(struct zap *z, const struct question *q, int ok)
{
    const char *part[6] = {"1.0", q->part[1], ok ? "200" : "400", ok ? "OK" : "not allowed",
                           "",    ""};
    for (int i = 0; i < 6; i++) {
        size_t n = i == 1 ? q->n[1] : strlen(part[i]);
        zmq_send(z->zmq, part[i], n, ZMQ_DONTWAIT | (i < 5 ? ZMQ_SNDMORE : 0));
    }
}

static int has_input(struct zap *z)
{
    int events = 0;
    size_t size = sizeof(events);
    return zmq_getsockopt(z->zmq, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN);
}

static void on_wake(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    (void)w;
    (void)revents;
}

static void on_idle(struct ev_loop *loop, ev_idle *w, int revents)
{
    (void)loop;
    (void)w;
    (void)revents;
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
    struct zap *z = w->data;
    (void)revents;
    if (has_input(z))
        ev_idle_start(loop, &z->idle);
}

static void on_check(struct ev_loop *loop, ev_check *w, int revents)
{
    struct zap *z = w->data;
    struct question q = {0};
    int whole;
    (void)revents;
    ev_idle_stop(loop, &z->idle);
    while (has_input(z) && take(z, &q, &whole)) {
        int ok = whole && may_enter(z, &q);
        if (!ok)
            tell_refused(z, &q);
        answer(z, &q, ok);
        memset(&q, 0, sizeof(q));
    }
}

int zap_open(void *zmq_context, struct ev_loop *loop, const struct wire_keys *keys,
             struct zap **out, struct err *err)
{
    struct zap *z = calloc(1, sizeof(*z));
    int fd = -1, linger = 0;
    size_t size = sizeof(fd);
    if (!z)
        return err_set(err, ERR_NOMEM, "no memory for the check of keys");
    z->loop = loop;
    z->keys = keys;
    z->zmq = zmq_socket(zmq_context, ZMQ_REP);
    if (!z->zmq || zmq_setsockopt(z->zmq, ZMQ_LINGER, &linger, sizeof(linger)) != 0 ||
        zmq_bind(z->zmq, ENDPOINT) != 0 || zmq_getsockopt(z->zmq, ZMQ_FD, &fd, &size) != 0) {
        int rc = err_set(err, ERR_NET, "keys cannot be checked: %s", zmq_strerror(zmq_errno()));
        if (z->zmq)
            zmq_close(z->zmq);
        free(z);
        return rc;
    }
    ev_io_init(&z->wake, on_wake, fd, EV_READ);
    ev_prepare_init(&z->prepare, on_prepare);
    ev_check_init(&z->check, on_check);
    ev_idle_init(&z->idle, on_idle);
    z->prepare.data = z->check.data = z;
    ev_io_start(loop, &z->wake);
    ev_prepare_start(loop, &z->prepare);
    ev_check_start(loop, &z->check);
    *out = z;
    return 0;
}

void zap_close(struct zap *z)
{
    if (!z)
        return;
    ev_io_stop(z->loop, &z->wake);
    ev_prepare_stop(z->loop, &z->prepare);
    ev_check_stop(z->loop, &z->check);
    ev_idle_stop(z->loop, &z->idle);
    zmq_close(z->zmq);
    free(z);
}

uint64_t zap_refused(const struct zap *z)
{
    return z ? z->refused : 0;
}
