/* client: the other side of a worker under test: a world with one worker, on a thread of its own or
 * turned by the test, and clients that speak for coordinators and keep what they are answered. */
#ifndef TESTS_WORKER_CLIENT_H
#define TESTS_WORKER_CLIENT_H

#include "base/clock.h"
#include "proto/msg.h"
#include "proto/sock.h"
#include "tests/unit/worker/world.h"
#include "worker/worker.h"

#include <unistd.h>

#define WAIT_NS   (60 * NS_PER_S)
#define INBOX_MAX 64

struct inbox {
    struct frames frames;
    struct msg msg;
};

struct client {
    struct sock *sock;
    struct ev_loop *loop;
    struct wire_shape shape;
    struct inbox inbox[INBOX_MAX];
    int n_inbox;
};

struct world {
    void *zmq;
    struct model *model;
    struct worker_config config;
    struct worker_thread *thread; /* the worker on a thread, or */
    struct worker *worker;        /* on this one, */
    struct ev_loop *loop;         /* with this loop */
    char endpoint[LIMIT_NAME_BYTES];
    struct wirebuf_pool *bufs;
    struct expert_set *set; /* what the test computes with */
    struct compute *compute;
};

/* ---- set-up ---- */

static inline void world_open_in(struct world *w, const char *listen, const uint8_t *held,
                                 int threaded, int credits, enum precision precision)
{
    struct err err = {0};
    memset(w, 0, sizeof(*w));
    w->zmq = zmq_ctx_new();
    w->model = world_model("mixtral");
    w->bufs = wirebuf_pool_create();
    w->config = (struct worker_config){.listen = listen,
                                       .model = w->model,
                                       .precision = precision,
                                       .kernels = world_kernels(),
                                       .n_thread = 2,
                                       .spin_us = 0,
                                       .credits = credits,
                                       .held = held};
    int rc;
    if (threaded) {
        rc = worker_thread_start(&w->config, w->zmq, &w->thread, &err);
    } else {
        w->loop = ev_loop_new(EVFLAG_AUTO);
        rc = worker_create(&w->config, w->zmq, w->loop, &w->worker, &err);
    }
    if (rc)
        fail_msg("%s", err.text);
    snprintf(w->endpoint, sizeof(w->endpoint), "%s",
             threaded ? worker_thread_endpoint(w->thread) : worker_endpoint(w->worker));
    assert_int_equal(expert_set_create(w->model, precision, &w->set, &err), 0);
    assert_int_equal(held_load(w->set, &w->model->desc, NULL, NULL, &err), 0);
    assert_int_equal(
        compute_create(w->model, precision, w->config.kernels, NULL, &w->compute, &err), 0);
}

static inline void world_open(struct world *w, const char *listen, const uint8_t *held,
                              int threaded, int credits)
{
    world_open_in(w, listen, held, threaded, credits, PRECISION_F32);
}

static inline void world_close(struct world *w)
{
    worker_thread_stop(w->thread);
    worker_destroy(w->worker);
    if (w->loop)
        ev_loop_destroy(w->loop);
    wirebuf_pool_destroy(w->bufs);
    compute_destroy(w->compute);
    expert_set_destroy(w->set);
    model_close(w->model);
    zmq_ctx_term(w->zmq);
}

static inline void on_message(void *user, struct sock *sock, const struct sock_peer *from,
                              struct frames *f)
{
    (void)sock;
    struct client *c = user;
    struct err err = {0};
    assert_null(from);
    assert_true(c->n_inbox < INBOX_MAX);
    struct inbox *in = &c->inbox[c->n_inbox++];
    frames_init(&in->frames);
    frames_move(&in->frames, f);
    if (msg_parse(&in->frames, &c->shape, &in->msg, NULL, &err) != 0)
        fail_msg("the worker's message: %s", err.text);
}

static inline void client_open(struct world *w, struct client *c)
{
    const struct model_desc *desc = &w->model->desc;
    struct err err = {0};
    memset(c, 0, sizeof(*c));
    c->shape = (struct wire_shape){.n_layer = desc->n_layer,
                                   .n_expert = desc->n_expert,
                                   .d_wire = desc->d_model,
                                   .row_limit = LIMIT_ROWS,
                                   .top_k = desc->top_k,
                                   .dtype = precision_dtype(w->config.precision),
                                   .fp8 = w->config.precision == PRECISION_BF16};
    c->loop = ev_loop_new(EVFLAG_AUTO);
    struct sock_config config = {.kind = SOCK_CALL, .endpoint = w->endpoint};
    if (sock_open(w->zmq, c->loop, &config, on_message, c, &c->sock, &err) != 0)
        fail_msg("%s", err.text);
}

static inline void client_clear(struct client *c)
{
    for (int i = 0; i < c->n_inbox; i++) {
        msg_free(&c->inbox[i].msg);
        frames_close(&c->inbox[i].frames);
    }
    c->n_inbox = 0;
}

static inline void client_close(struct client *c)
{
    client_clear(c);
    sock_close(c->sock);
    ev_loop_destroy(c->loop);
}

static inline void turn(struct world *w, struct client *c)
{
    if (w->loop)
        ev_run(w->loop, EVRUN_NOWAIT);
    if (c)
        ev_run(c->loop, EVRUN_NOWAIT);
}

static inline void client_send(struct world *w, struct client *c, struct frames *f)
{
    int64_t end_ns = clock_now(&clock_real) + WAIT_NS;
    int rc;
    while ((rc = sock_send(c->sock, NULL, f)) == ERR_AGAIN && clock_now(&clock_real) < end_ns) {
        turn(w, c);
        usleep(100);
    }
    assert_int_equal(rc, 0);
}

/* client_wait until n messages are in the box; returns the last. */
static inline const struct msg *client_wait(struct world *w, struct client *c, int n)
{
    int64_t end_ns = clock_now(&clock_real) + WAIT_NS;
    while (c->n_inbox < n && clock_now(&clock_real) < end_ns) {
        turn(w, c);
        usleep(20);
    }
    assert_int_equal(c->n_inbox, n);
    return &c->inbox[n - 1].msg;
}

/* ---- messages ---- */

static inline struct msg_hello hello_of(const struct world *w)
{
    const struct model_desc *desc = &w->model->desc;
    struct msg_hello m = {.fingerprint = w->model->fingerprint,
                          .incarnation = 77,
                          .name = "test",
                          .numerics = "sum32",
                          .dtype = precision_dtype(w->config.precision),
                          .n_layer = desc->n_layer,
                          .n_expert = desc->n_expert,
                          .d_wire = desc->d_model};
    return m;
}

static inline void send_hello(struct world *w, struct client *c, const struct msg_hello *m)
{
    struct frames f;
    frames_init(&f);
    assert_int_equal(msg_build_hello(&f, m), 0);
    client_send(w, c, &f);
}

static inline const struct msg_welcome *greet(struct world *w, struct client *c)
{
    struct msg_hello m = hello_of(w);
    send_hello(w, c, &m);
    const struct msg *answer = client_wait(w, c, c->n_inbox + 1);
    if (answer->kind != MSG_WELCOME)
        fail_msg("no Welcome but %s", answer->u.error.text);
    return &answer->u.welcome;
}

static inline void frames_request(struct world *w, struct frames *f, const struct world_request *r,
                                  uint64_t call, int layer, uint64_t budget_us)
{
    struct msg_request m = {.call = call,
                            .epoch = 1,
                            .budget_us = budget_us,
                            .layer = layer,
                            .n_row = r->n_row,
                            .d_wire = w->model->desc.d_model,
                            .n_seg = r->n_seg,
                            .n_assign = r->n_assign,
                            .dtype = DTYPE_F32,
                            .seg_expert = r->seg_expert,
                            .seg_count = r->seg_count};
    size_t index_bytes = (size_t)r->n_assign * sizeof(int32_t);
    struct wirebuf *rows = wirebuf_get(w->bufs, r->rows_bytes);
    struct wirebuf *index = wirebuf_get(w->bufs, index_bytes);
    memcpy(wirebuf_data(rows), r->rows, r->rows_bytes);
    memcpy(wirebuf_data(index), r->row_index, index_bytes);
    frames_init(f);
    assert_int_equal(msg_build_request(f, &m, rows, r->rows_bytes, index, index_bytes), 0);
}

static inline void send_request(struct world *w, struct client *c, const struct world_request *r,
                                uint64_t call, int layer)
{
    struct frames f;
    frames_request(w, &f, r, call, layer, 0);
    client_send(w, c, &f);
}

static inline void request_make(struct world *w, struct world_request *r, int n_row, uint64_t seed,
                                const uint8_t *held)
{
    world_request_make(r, &w->model->desc, DTYPE_F32, n_row, seed, held, 0);
}

/* assert_reply: to `call`, with the rows that compute_run gives here. */
static inline void assert_reply(struct world *w, const struct msg *m, const struct world_request *r,
                                uint64_t call, int layer)
{
    if (m->kind == MSG_ERROR)
        fail_msg("%s", m->u.error.text);
    assert_int_equal(m->kind, MSG_REPLY);
    const struct msg_reply *reply = &m->u.reply;
    assert_int_equal(reply->call, call);
    assert_int_equal(reply->layer, layer);
    assert_int_equal(reply->n_assign, r->n_assign);
    assert_true(reply->queue_ns + reply->compute_ns <= reply->handle_ns);
    assert_true(reply->compute_ns > 0);
    size_t bytes = (size_t)r->n_assign * (size_t)w->model->desc.d_model * sizeof(float);
    void *want = malloc(bytes);
    struct compute_item item = {.layer = layer,
                                .n_seg = r->n_seg,
                                .seg_expert = r->seg_expert,
                                .seg_count = r->seg_count,
                                .rows = r->rows,
                                .n_row = r->n_row,
                                .row_index = r->row_index,
                                .out = want};
    assert_int_equal(compute_run(w->compute, w->set, &item, 1, NULL), 0);
    assert_memory_equal(reply->rows, want, bytes);
    free(want);
}

static inline void assert_error(const struct msg *m, uint64_t call, enum wire_error code,
                                const char *words)
{
    assert_int_equal(m->kind, MSG_ERROR);
    assert_int_equal(m->u.error.call, call);
    assert_int_equal(m->u.error.code, code);
    if (!strstr(m->u.error.text, words))
        fail_msg("'%s' lacks '%s'", m->u.error.text, words);
}

/* ---- one worker and one client that it has welcomed ---- */

static inline void world_begin(struct world *w, struct client *c, const char *listen,
                               const uint8_t *held, int threaded, int credits)
{
    world_open(w, listen, held, threaded, credits);
    client_open(w, c);
    greet(w, c);
    client_clear(c);
}

static inline void world_end(struct world *w, struct client *c)
{
    client_close(c);
    world_close(w);
}

#endif
