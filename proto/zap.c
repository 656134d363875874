/* zap: see zap.h. */
#include "proto/zap.h"

#include "base/log.h"
#include "proto/zmq_watch.h"

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
    const struct wire_keys *keys;
    struct zmq_watch watch;
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

static void on_turn(void *user)
{
    struct zap *z = user;
    struct question q = {0};
    int whole;
    while (zmq_has_input(z->zmq) && take(z, &q, &whole)) {
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
    int linger = 0;
    if (!z)
        return err_set(err, ERR_NOMEM, "no memory for the check of keys");
    z->keys = keys;
    z->zmq = zmq_socket(zmq_context, ZMQ_REP);
    if (!z->zmq || zmq_setsockopt(z->zmq, ZMQ_LINGER, &linger, sizeof(linger)) != 0 ||
        zmq_bind(z->zmq, ENDPOINT) != 0) {
        int rc = err_set(err, ERR_NET, "keys cannot be checked: %s", zmq_strerror(zmq_errno()));
        if (z->zmq)
            zmq_close(z->zmq);
        free(z);
        return rc;
    }
    zmq_watch_start(&z->watch, loop, z->zmq, on_turn, z);
    *out = z;
    return 0;
}

void zap_close(struct zap *z)
{
    if (!z)
        return;
    zmq_watch_stop(&z->watch);
    zmq_close(z->zmq);
    free(z);
}

uint64_t zap_refused(const struct zap *z)
{
    return z ? z->refused : 0;
}
