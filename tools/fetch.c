/* fetch: see fetch.h. One tensor at a time; `job` says which. Every message moves it on:
 *
 *     ask:      pieces not yet asked for -> Fetch to a worker that holds the expert, PIECES a
 * worker on_chunk: bytes into place; all there -> the loop ends on_error, on_not_held, silence: the
 * worker is left out of this tensor (silence: for good), its pieces are asked for again
 *
 * A piece belongs to the call that asked for it: what answers another call is dropped. */
#include "tools/fetch.h"

#include "base/clock.h"
#include "proto/sock.h"

#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECES     4 /* asked of one worker at once */
#define HELLO_S    0.2
#define WELCOME_NS (15 * NS_PER_S)
#define PING_NS    NS_PER_S
#define SILENT_NS  (6 * NS_PER_S)

struct piece {
    uint64_t call, offset; /* call 0: free */
    int bytes;
};

struct link {
    struct fetch_client *client;
    char endpoint[256];
    struct sock *sock;
    uint8_t *held;              /* bitmap of Welcome */
    int welcome, lost, refused; /* refused: for the tensor at hand */
    int64_t heard_ns;
    struct piece piece[PIECES];
};

struct job {
    struct msg_fetch fetch; /* layer, expert, part; bytes 0: only the shape */
    unsigned char *data;
    uint64_t bytes, next, done; /* asked for up to next; done: bytes in place */
    struct fetch_shape shape;
    int active, finished;
};

struct fetch_client {
    const struct model_desc *desc;
    struct wire_shape shape;
    void *zmq;
    struct ev_loop *loop;
    ev_timer timer;
    struct link *link;
    int n_link, turn;
    uint64_t call, incarnation;
    struct hash128 fingerprint;
    enum dtype precision;
    int64_t began_ns;
    struct job job;
    struct piece *again; /* pieces of lost workers [n_again] */
    int n_again;
    struct wire_keys *keys; /* NULL: none */
    int insecure;
    struct err *err;
    int rc;
};

static int64_t now(void)
{
    return clock_now(&clock_real);
}

static void fail(struct fetch_client *c, int rc)
{
    if (c->rc == 0)
        c->rc = rc;
    ev_break(c->loop, EVBREAK_ALL);
}

/* ---- Hello ---------------------------------------------------------------------------------- */

static void hello_send(struct fetch_client *c, struct link *l)
{
    struct msg_hello m = {.incarnation = c->incarnation,
                          .name = "sigmoe extract",
                          .numerics = "none",
                          .dtype = DTYPE_F32,
                          .n_layer = c->desc->n_layer,
                          .n_expert = c->desc->n_expert,
                          .d_wire = c->desc->d_model};
    struct frames f;
    frames_init(&f);
    if (msg_build_hello(&f, &m) == 0 && sock_send(l->sock, NULL, &f) == ERR_AGAIN)
        frames_close(&f); /* not connected yet; said again soon */
}

static int welcome_check(struct fetch_client *c, const struct link *l, const struct msg_welcome *m)
{
    char ours[33], theirs[33];
    for (int i = 0; i < c->n_link; i++) {
        if (!c->link[i].welcome)
            continue;
        if (hash_equal(c->fingerprint, m->fingerprint))
            return 0;
        hash_hex(c->fingerprint, ours);
        hash_hex(m->fingerprint, theirs);
        return err_set(c->err, ERR_MODEL, "worker %s holds model %s, worker %s holds %s",
                       c->link[i].endpoint, ours, l->endpoint, theirs);
    }
    c->fingerprint = m->fingerprint;
    c->precision = m->dtype;
    return 0;
}

static void on_welcome(struct fetch_client *c, struct link *l, const struct msg_welcome *m)
{
    if (l->welcome)
        return;
    int rc = welcome_check(c, l, m);
    l->held = rc == 0 ? malloc(m->held_bytes) : NULL;
    if (rc == 0 && !l->held)
        rc = err_set(c->err, ERR_NOMEM, "no memory for a table of experts");
    if (rc) {
        fail(c, rc);
        return;
    }
    memcpy(l->held, m->held, m->held_bytes);
    l->welcome = 1;
    int n = 0;
    for (int i = 0; i < c->n_link; i++)
        n += c->link[i].welcome;
    if (n == c->n_link)
        ev_break(c->loop, EVBREAK_ALL);
}

/* ---- pieces --------------------------------------------------------------------------------- */

static int holds(const struct fetch_client *c, const struct link *l)
{
    size_t bit =
        (size_t)c->job.fetch.layer * (size_t)c->desc->n_expert + (size_t)c->job.fetch.expert;
    return l->welcome && !l->lost && !l->refused && l->held[bit / 8] >> bit % 8 & 1;
}

/* piece_next: what to ask for: first what a lost worker owed. 0 when all is asked for. */
static int piece_next(struct fetch_client *c, struct piece *out)
{
    struct job *j = &c->job;
    if (c->n_again > 0) {
        *out = c->again[--c->n_again];
        return 1;
    }
    if (j->bytes == 0 ? j->next > 0 : j->next >= j->bytes)
        return 0;
    uint64_t left = j->bytes - j->next;
    *out = (struct piece){.offset = j->next,
                          .bytes = (int)(left < LIMIT_CHUNK_BYTES ? left : LIMIT_CHUNK_BYTES)};
    j->next += j->bytes ? (uint64_t)out->bytes : 1;
    return 1;
}

/* owes_but: the worker owes another piece than this one. */
static int owes_but(const struct link *l, const struct piece *but)
{
    for (int i = 0; i < PIECES; i++)
        if (l->piece[i].call && &l->piece[i] != but)
            return 1;
    return 0;
}

/* piece_again keeps a piece for another worker; there are never more than all links' together. */
static void piece_again(struct fetch_client *c, struct piece *p)
{
    if (p->call)
        c->again[c->n_again++] = *p;
    p->call = 0;
}

static void pieces_drop(struct fetch_client *c, struct link *l)
{
    for (int i = 0; i < PIECES; i++)
        piece_again(c, &l->piece[i]);
}

static int piece_send(struct fetch_client *c, struct link *l, struct piece *slot)
{
    if (!piece_next(c, slot))
        return 0;
    struct msg_fetch m = c->job.fetch;
    m.call = slot->call = ++c->call;
    m.offset = slot->offset;
    m.bytes = slot->bytes;
    struct frames f;
    frames_init(&f);
    int rc = msg_build_fetch(&f, &m);
    if (!owes_but(l, slot))
        l->heard_ns = now(); /* silence counts from here */
    if (rc == 0 && sock_send(l->sock, NULL, &f) == 0)
        return 1;
    frames_close(&f);
    piece_again(c, slot);
    return 0;
}

/* ask sends what may be sent, worker after worker. With no holder left the tensor cannot be had. */
static void ask(struct fetch_client *c)
{
    int n_holder = 0;
    for (int i = 0; i < c->n_link && c->job.active; i++) {
        struct link *l = &c->link[(c->turn + i) % c->n_link];
        if (!holds(c, l))
            continue;
        n_holder++;
        for (int k = 0; k < PIECES; k++)
            if (l->piece[k].call == 0 && !piece_send(c, l, &l->piece[k]))
                break;
    }
    if (n_holder == 0 && c->job.active)
        fail(c, err_set(c->err, ERR_NET,
                        "no worker gives expert %d of layer %d; start one that holds it",
                        c->job.fetch.expert, c->job.fetch.layer));
}

static struct piece *piece_of(struct link *l, uint64_t call)
{
    for (int i = 0; call && i < PIECES; i++)
        if (l->piece[i].call == call)
            return &l->piece[i];
    return NULL;
}

static int chunk_check(struct fetch_client *c, const struct link *l, const struct piece *p,
                       const struct msg_chunk *m)
{
    if (m->offset == p->offset && m->bytes == (size_t)p->bytes)
        return 0;
    return err_set(c->err, ERR_PROTO,
                   "worker %s sends %zu bytes from %llu, asked were %d from %llu", l->endpoint,
                   m->bytes, (unsigned long long)m->offset, p->bytes,
                   (unsigned long long)p->offset);
}

static void on_chunk(struct fetch_client *c, struct link *l, const struct msg_chunk *m)
{
    struct job *j = &c->job;
    struct piece *p = piece_of(l, m->call);
    if (!p || !j->active)
        return;
    int rc = chunk_check(c, l, p, m);
    if (rc) {
        fail(c, rc);
        return;
    }
    j->shape = (struct fetch_shape){m->dtype, m->rows, m->cols};
    if (m->bytes)
        memcpy(j->data + m->offset, m->data, m->bytes);
    j->done += m->bytes;
    p->call = 0;
    if (j->done == j->bytes) {
        j->active = 0;
        j->finished = 1;
        ev_break(c->loop, EVBREAK_ALL);
    } else {
        ask(c);
    }
}

/* on_refusal: an Error or NotHeld about a piece. Busy: again, a little later; anything else: not
 * from this worker. */
static void on_refusal(struct fetch_client *c, struct link *l, uint64_t call, int busy)
{
    struct piece *p = piece_of(l, call);
    if (!p)
        return;
    piece_again(c, p);
    if (!busy) {
        l->refused = 1;
        pieces_drop(c, l);
        ask(c);
    }
}

static void on_error(struct fetch_client *c, struct link *l, const struct msg_error *m)
{
    if (!l->welcome) {
        fail(c, err_set(c->err, ERR_NET, "worker %s: %s", l->endpoint, m->text));
        return;
    }
    if (m->code == WIRE_NO_HELLO)
        hello_send(c, l);
    else if (m->code != WIRE_BUSY && piece_of(l, m->call))
        err_set(c->err, ERR_NET, "worker %s: %s", l->endpoint,
                m->text); /* the cause, if all fails */
    on_refusal(c, l, m->call, m->code == WIRE_BUSY || m->code == WIRE_NO_HELLO);
}

static void on_message(void *user, struct sock *sock, const struct sock_peer *from,
                       struct frames *f)
{
    struct link *l = user;
    struct fetch_client *c = l->client;
    struct msg m = {0};
    struct err why = {0};
    (void)sock;
    (void)from;
    if (msg_parse(f, &c->shape, &m, NULL, &why) != 0) {
        fail(c, err_set(c->err, ERR_PROTO, "worker %s: %s", l->endpoint, why.text));
        return;
    }
    l->heard_ns = now();
    if (m.kind == MSG_WELCOME)
        on_welcome(c, l, &m.u.welcome);
    else if (m.kind == MSG_CHUNK)
        on_chunk(c, l, &m.u.chunk);
    else if (m.kind == MSG_NOT_HELD)
        on_refusal(c, l, m.u.not_held.call, 0);
    else if (m.kind == MSG_ERROR)
        on_error(c, l, &m.u.error);
    msg_free(&m);
}

/* ---- time ----------------------------------------------------------------------------------- */

/* ping: a worker that keeps a slow rate is not silent; one whose connection is lost is. */
static void ping(struct link *l)
{
    struct msg_ping m = {.nonce = 1};
    struct frames f;
    frames_init(&f);
    if (msg_build_ping(&f, &m) == 0 && sock_send(l->sock, NULL, &f) == ERR_AGAIN)
        frames_close(&f);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct fetch_client *c = timer->data;
    (void)loop;
    (void)revents;
    for (int i = 0; i < c->n_link; i++) {
        struct link *l = &c->link[i];
        if (!l->welcome && now() - c->began_ns > WELCOME_NS) {
            const char *why = sock_trouble(l->sock);
            fail(c, err_set(c->err, ERR_NET, "worker %s does not answer: %s", l->endpoint,
                            why ? why : "is it running?"));
            return;
        }
        if (!l->welcome)
            hello_send(c, l);
        else if (!l->lost && owes_but(l, NULL) && now() - l->heard_ns > SILENT_NS) {
            l->lost = 1;
            pieces_drop(c, l);
        } else if (!l->lost && owes_but(l, NULL) && now() - l->heard_ns > PING_NS)
            ping(l);
    }
    if (c->job.active)
        ask(c);
}

static int loop_run(struct fetch_client *c, struct err *err)
{
    c->err = err;
    c->rc = 0;
    ev_timer_set(&c->timer, 0.0, HELLO_S);
    ev_timer_start(c->loop, &c->timer);
    ev_run(c->loop, 0);
    ev_timer_stop(c->loop, &c->timer);
    return c->rc;
}

/* ---- life ----------------------------------------------------------------------------------- */

static int links_open(struct fetch_client *c, const char *list, struct err *err)
{
    int rc = 0;
    for (int i = 0; i < c->n_link && rc == 0; i++) {
        struct link *l = &c->link[i];
        size_t n = strcspn(list, ",");
        if (n == 0 || n >= sizeof(l->endpoint))
            return err_set(err, ERR_USAGE,
                           "--from: endpoint %d is empty or too long; write "
                           "tcp://host:port,tcp://host:port",
                           i + 1);
        memcpy(l->endpoint, list, n);
        l->client = c;
        list += n + 1;
        struct sock_config config = {
            .kind = SOCK_CALL, .endpoint = l->endpoint, .keys = c->keys, .insecure = c->insecure};
        rc = endpoint_check(l->endpoint, err);
        if (rc == 0)
            rc = sock_open(c->zmq, c->loop, &config, on_message, l, &l->sock, err);
    }
    return rc;
}

static void shape_set(struct fetch_client *c)
{
    const struct model_desc *d = c->desc;
    c->shape = (struct wire_shape){.n_layer = d->n_layer,
                                   .n_expert = d->n_expert,
                                   .d_wire = d->d_model,
                                   .row_limit = LIMIT_ROWS,
                                   .top_k = d->top_k,
                                   .dtype = DTYPE_F32};
}

int fetch_open(const char *list, const struct model_desc *desc, const char *key, int insecure,
               struct fetch_client **out, struct err *err)
{
    struct fetch_client *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory for the workers");
    c->n_link = 1;
    for (const char *p = list; *p; p++)
        c->n_link += *p == ',';
    c->desc = desc;
    c->incarnation = incarnation_new();
    c->began_ns = now();
    shape_set(c);
    c->insecure = insecure;
    c->zmq = zmq_ctx_new();
    c->loop = ev_loop_new(EVFLAG_AUTO);
    ev_timer_init(&c->timer, on_timer, 0.0, HELLO_S);
    c->timer.data = c;
    int rc = 0;
    if (c->n_link > LIMIT_WORKERS)
        rc = err_set(err, ERR_USAGE, "--from names %d workers, at most %d are possible", c->n_link,
                     LIMIT_WORKERS);
    if (rc == 0) {
        c->link = calloc((size_t)c->n_link, sizeof(*c->link));
        c->again = calloc((size_t)c->n_link * PIECES, sizeof(*c->again));
    }
    if (rc == 0 && (!c->link || !c->again || !c->zmq || !c->loop))
        rc = err_set(err, ERR_NOMEM, "no memory for %d workers", c->n_link);
    if (rc == 0 && key)
        rc = wire_keys_open(key, NULL, &c->keys, err);
    if (rc == 0)
        rc = links_open(c, list, err);
    if (rc == 0)
        rc = loop_run(c, err);
    if (rc)
        fetch_close(c);
    else
        *out = c;
    return rc;
}

void fetch_close(struct fetch_client *c)
{
    if (!c)
        return;
    for (int i = 0; c->link && i < c->n_link; i++) {
        if (c->link[i].sock)
            sock_close(c->link[i].sock);
        free(c->link[i].held);
    }
    if (c->loop)
        ev_loop_destroy(c->loop);
    if (c->zmq)
        zmq_ctx_term(c->zmq);
    wire_keys_close(c->keys);
    free(c->link);
    free(c->again);
    free(c);
}

struct hash128 fetch_fingerprint(const struct fetch_client *c)
{
    return c->fingerprint;
}

enum dtype fetch_precision(const struct fetch_client *c)
{
    return c->precision;
}

/* ---- tensors -------------------------------------------------------------------------------- */

static enum fetch_part part_of(enum role role)
{
    switch (role) {
    case ROLE_EXPERT_GATE:
        return FETCH_GATE;
    case ROLE_EXPERT_UP:
        return FETCH_UP;
    case ROLE_EXPERT_DOWN:
        return FETCH_DOWN;
    case ROLE_EXPERT_GATE_BIAS:
        return FETCH_GATE_BIAS;
    case ROLE_EXPERT_UP_BIAS:
        return FETCH_UP_BIAS;
    default:
        return FETCH_DOWN_BIAS;
    }
}

static int job_run(struct fetch_client *c, enum role role, int layer, int expert, void *data,
                   uint64_t bytes, struct err *err)
{
    c->job = (struct job){.fetch = {.layer = layer, .expert = expert, .part = part_of(role)},
                          .data = data,
                          .bytes = bytes,
                          .active = 1};
    c->n_again = 0;
    c->turn = (c->turn + 1) % c->n_link;
    for (int i = 0; i < c->n_link; i++) {
        c->link[i].refused = 0;
        memset(c->link[i].piece, 0, sizeof(c->link[i].piece));
    }
    struct err why = {0};
    int rc = loop_run(c, &why);
    if (rc)
        return err_set(err, rc, "%s", why.text);
    return c->job.finished ? 0 : err_set(err, ERR_NET, "the workers were left before the end");
}

int fetch_tensor_shape(struct fetch_client *c, enum role role, int layer, int expert,
                       struct fetch_shape *out, struct err *err)
{
    int rc = job_run(c, role, layer, expert, NULL, 0, err);
    if (rc == 0)
        *out = c->job.shape;
    return rc;
}

int fetch_tensor(struct fetch_client *c, enum role role, int layer, int expert, void *data,
                 uint64_t bytes, struct err *err)
{
    return job_run(c, role, layer, expert, data, bytes, err);
}
