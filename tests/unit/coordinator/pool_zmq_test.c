/* pool over ZeroMQ: the same claims over inproc, ipc and tcp, against workers that are a thread
 * with a socket each and answer as the simulation's do. What is tested is transport_zmq under the
 * pool; what the pool does in the face of every fault, pool_sim_test has shown. */
#include "sim.h"

#include "base/log.h"
#include "proto/sock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_EXPERT 8
#define D_MODEL  96
#define N_ROW    40
#define TOP_K    2

/* ---- a worker ---- */

struct echo {
    pthread_t thread;
    struct ev_loop *loop;
    ev_async stop;
    struct sock *sock;
    struct wire_shape shape;
    struct hash128 fingerprint;
    struct wirebuf_pool *bufs;
    struct sock_peer greeted; /* the one peer that said Hello */
};

static void echo_send(struct echo *e, const struct sock_peer *to, struct frames *f)
{
    if (sock_send(e->sock, to, f)) {
        frames_close(f);
    }
}

static void echo_hello(struct echo *e, const struct sock_peer *from)
{
    const uint8_t held[1] = {0xff};
    struct msg_welcome m = {.fingerprint = e->fingerprint,
                            .incarnation = 5,
                            .epoch = 1,
                            .name = "echo",
                            .numerics = "sim",
                            .dtype = e->shape.dtype,
                            .credits = 4,
                            .row_limit = 16,
                            .held = held,
                            .held_bytes = 1};
    struct frames f;
    frames_init(&f);
    e->greeted = *from;
    if (msg_build_welcome(&f, &m) == 0) {
        echo_send(e, from, &f);
    }
}

static void echo_request(struct echo *e, const struct sock_peer *from, const struct msg_request *r)
{
    size_t bytes = (size_t)r->n_assign * D_MODEL * 4;
    struct wirebuf *b = wirebuf_get(e->bufs, bytes);
    struct msg_reply m = {.call = r->call,
                          .layer = r->layer,
                          .n_assign = r->n_assign,
                          .d_wire = D_MODEL,
                          .dtype = e->shape.dtype};
    struct frames f;
    frames_init(&f);
    sim_local(&e->shape, r, wirebuf_data(b), NULL);
    if (msg_build_reply(&f, &m, b, bytes) == 0) {
        echo_send(e, from, &f);
    }
}

static void echo_message(void *user, struct sock *sock, const struct sock_peer *from,
                         struct frames *in)
{
    struct echo *e = user;
    struct msg m;
    struct frames f;
    (void)sock;
    int known =
        e->greeted.bytes == from->bytes && memcmp(e->greeted.id, from->id, from->bytes) == 0;
    if (msg_parse(in, &e->shape, &m, NULL, NULL)) {
        return;
    }
    frames_init(&f);
    if (m.kind == MSG_HELLO) {
        echo_hello(e, from);
    } else if (m.kind == MSG_REQUEST && known) {
        echo_request(e, from, &m.u.request);
    } else if (m.kind == MSG_REQUEST) {
        if (msg_build_error(&f, m.u.request.call, WIRE_NO_HELLO, "Hello first") == 0) {
            echo_send(e, from, &f);
        }
    } else if (m.kind == MSG_PING) {
        struct msg_ping pong = {.nonce = m.u.ping.nonce, .reply = 1, .epoch = 1};
        if (msg_build_ping(&f, &pong) == 0) {
            echo_send(e, from, &f);
        }
    }
    msg_free(&m);
}

static void *echo_main(void *arg)
{
    ev_run(((struct echo *)arg)->loop, 0);
    return NULL;
}

static void on_stop(struct ev_loop *loop, ev_async *w, int revents)
{
    (void)w;
    (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

/* `endpoint` is rewritten to the one bound. */
static struct echo *echo_start(void *zmq, char *endpoint, const struct wire_shape *shape,
                               struct hash128 fingerprint)
{
    struct echo *e = calloc(1, sizeof(*e));
    struct sock_config config = {.kind = SOCK_SERVE, .endpoint = endpoint};
    struct err err = {0};
    e->loop = ev_loop_new(EVFLAG_NOENV);
    e->shape = *shape;
    e->fingerprint = fingerprint;
    e->bufs = wirebuf_pool_create();
    ev_async_init(&e->stop, on_stop);
    ev_async_start(e->loop, &e->stop);
    /* A port just freed may need a moment. */
    for (int i = 0; sock_open(zmq, e->loop, &config, echo_message, e, &e->sock, &err); i++) {
        if (i == 100) {
            fail_msg("%s", err.text);
        }
        err_clear(&err);
        usleep(20000);
    }
    snprintf(endpoint, LIMIT_NAME_BYTES, "%s", sock_endpoint(e->sock));
    pthread_create(&e->thread, NULL, echo_main, e);
    return e;
}

static void echo_stop(struct echo *e)
{
    ev_async_send(e->loop, &e->stop);
    pthread_join(e->thread, NULL);
    sock_close(e->sock);
    ev_async_stop(e->loop, &e->stop);
    ev_loop_destroy(e->loop);
    wirebuf_pool_destroy(e->bufs);
    free(e);
}

/* ---- a cluster of two, each holding everything ---- */

struct cluster {
    void *zmq;
    struct model *model;
    struct wire_shape shape;
    char endpoint[2][LIMIT_NAME_BYTES];
    struct echo *echo[2];
    struct transport_zmq *transport;
    struct pool *pool;
};

static void name_endpoint(const char *transport, char *out)
{
    static int n; /* names must differ within one process */
    n++;
    if (strcmp(transport, "tcp") == 0) {
        snprintf(out, LIMIT_NAME_BYTES, "tcp://127.0.0.1:0");
    } else if (strcmp(transport, "ipc") == 0) {
        snprintf(out, LIMIT_NAME_BYTES, "ipc:///tmp/sigmoe-pool-%d-%d.sock", (int)getpid(), n);
    } else {
        snprintf(out, LIMIT_NAME_BYTES, "inproc://pool-%d", n);
    }
}

static struct cluster *cluster_open(const char *transport, int64_t ping_interval_ns, int spin_us)
{
    struct cluster *c = calloc(1, sizeof(*c));
    struct err err = {0};
    c->zmq = zmq_ctx_new();
    c->model = calloc(1, sizeof(*c->model));
    c->model->fingerprint = (struct hash128){1, 2};
    c->model->desc.n_layer = 1;
    c->model->desc.n_expert = N_EXPERT;
    c->model->desc.top_k = TOP_K;
    c->model->desc.d_model = D_MODEL;
    c->model->desc.layer[0].sparse = 1;
    c->shape = (struct wire_shape){1, N_EXPERT, D_MODEL, LIMIT_ROWS, TOP_K, DTYPE_F32, 0};
    for (int i = 0; i < 2; i++) {
        name_endpoint(transport, c->endpoint[i]);
        c->echo[i] = echo_start(c->zmq, c->endpoint[i], &c->shape, c->model->fingerprint);
    }
    assert_int_equal(transport_zmq_create(c->zmq, &clock_real, NULL, 0, &c->transport, &err), 0);
    transport_zmq_set_spin(c->transport, spin_us);
    struct pool_config config = {.model = c->model,
                                 .precision = PRECISION_F32,
                                 .numerics = "sim",
                                 .clock = &clock_real,
                                 .transport = transport_zmq_interface(c->transport),
                                 .ping_interval_ns = ping_interval_ns,
                                 .ping_timeout_ns = 20 * ping_interval_ns,
                                 .choice = REPLICA_LEAST_LOADED,
                                 .local = sim_local,
                                 .local_user = &c->shape};
    const char *endpoint[2] = {c->endpoint[0], c->endpoint[1]};
    assert_int_equal(pool_create(&config, &c->pool, &err), 0);
    if (pool_connect(c->pool, endpoint, 2, &err)) {
        fail_msg("%s", err.text);
    }
    return c;
}

static void cluster_close(struct cluster *c)
{
    pool_destroy(c->pool);
    transport_zmq_destroy(c->transport);
    for (int i = 0; i < 2; i++) {
        if (c->echo[i]) {
            echo_stop(c->echo[i]);
        }
    }
    zmq_ctx_term(c->zmq);
    free(c->model);
    free(c);
}

struct batch {
    struct dispatch d;
    int32_t slot_expert[N_ROW * TOP_K];
    float rows[N_ROW][D_MODEL];
    const void *slot_row[N_ROW * TOP_K];
};

static void batch_begin(struct cluster *c, struct batch *b, int number)
{
    struct err err = {0};
    b->d = (struct dispatch){.batch = number,
                             .n_row = 1 + number % N_ROW,
                             .top_k = TOP_K,
                             .slot_expert = b->slot_expert,
                             .rows = b->rows,
                             .ld_row = D_MODEL,
                             .slot_row = b->slot_row};
    for (int i = 0; i < N_ROW; i++) {
        b->slot_expert[i * TOP_K] = (i + number) % N_EXPERT;
        b->slot_expert[i * TOP_K + 1] = (i + number + 1 + i % 3) % N_EXPERT;
        for (int j = 0; j < D_MODEL; j++) {
            b->rows[i][j] = (float)(i * D_MODEL + j + number);
        }
    }
    if (pool_dispatch(c->pool, &b->d, &err)) {
        fail_msg("%s", err.text);
    }
}

static void batch_end(struct cluster *c, struct batch *b)
{
    float expected[D_MODEL];
    int64_t until = clock_now(&clock_real) + 60 * NS_PER_S;
    while (!b->d.done && clock_now(&clock_real) < until) {
        pool_wait(c->pool, until);
    }
    assert_int_equal(b->d.done, 1);
    assert_int_equal(b->d.status, 0);
    for (int i = 0; i < b->d.n_row * TOP_K; i++) {
        sim_expert(&c->shape, 0, b->slot_expert[i], b->rows[i / TOP_K], expected);
        assert_memory_equal(b->slot_row[i], expected, sizeof(expected));
    }
    dispatch_release(c->pool, &b->d);
}

static void run_batches(struct cluster *c, int n)
{
    static struct batch batch[2];
    batch_begin(c, &batch[0], 0);
    for (int i = 1; i <= n; i++) {
        batch_begin(c, &batch[i % 2], i);
        batch_end(c, &batch[(i - 1) % 2]);
    }
    batch_end(c, &batch[n % 2]);
}

static int n_alive(const struct cluster *c)
{
    struct pool_worker_info info[2];
    pool_worker_info_get(c->pool, 0, &info[0]);
    pool_worker_info_get(c->pool, 1, &info[1]);
    return info[0].alive + info[1].alive;
}

static void wait_alive(const struct cluster *c, int n)
{
    int64_t until = clock_now(&clock_real) + 30 * NS_PER_S;
    while (n_alive(c) != n && clock_now(&clock_real) < until) {
        pool_wait(c->pool, clock_now(&clock_real) + 10 * NS_PER_MS);
    }
    assert_int_equal(n_alive(c), n);
}

/* ---- claims ---- */

static void pool_is_right_over(void **state)
{
    struct pool_stats stats;
    uint64_t sent, received;
    for (int spin_us = 0; spin_us <= 50; spin_us += 50) {
        struct cluster *c = cluster_open(*state, NS_PER_S, spin_us);
        run_batches(c, 150);
        pool_stats_get(c->pool, &stats);
        transport_zmq_bytes(c->transport, &sent, &received);
        assert_int_equal(stats.dispatches, 151);
        assert_int_equal(stats.local_slots + stats.replans + stats.workers_lost, 0);
        assert_true(received > 151 * 20 * TOP_K * D_MODEL * 4 / 2);
        assert_true(sent > 0 && sent < received);
        cluster_close(c);
    }
}

static void pool_goes_on_when_a_worker_stops_and_takes_it_back_over(void **state)
{
    struct cluster *c = cluster_open(*state, 50 * NS_PER_MS, 0);
    static struct batch batch;
    run_batches(c, 10);
    batch_begin(c, &batch, 39); /* perhaps in flight when it stops */
    echo_stop(c->echo[0]);
    c->echo[0] = NULL;
    batch_end(c, &batch);
    run_batches(c, 10);
    wait_alive(c, 1);
    run_batches(c, 10);
    c->echo[0] = echo_start(c->zmq, c->endpoint[0], &c->shape, c->model->fingerprint);
    wait_alive(c, 2);
    assert_true(placement_epoch(pool_placement(c->pool)) >= 3);
    run_batches(c, 10);
    cluster_close(c);
}

static void pool_goes_on_when_a_worker_restarts_over(void **state)
{
    struct cluster *c = cluster_open(*state, 50 * NS_PER_MS, 0);
    for (int i = 0; i < 4; i++) {
        static struct batch batch;
        batch_begin(c, &batch, 39);
        echo_stop(c->echo[i % 2]);
        c->echo[i % 2] = echo_start(c->zmq, c->endpoint[i % 2], &c->shape, c->model->fingerprint);
        batch_end(c, &batch);
        run_batches(c, 5);
    }
    wait_alive(c, 2);
    cluster_close(c);
}

static void pool_gives_up_on_an_address_where_nobody_is(void **state)
{
    (void)state;
    struct cluster *c = cluster_open("ipc", NS_PER_S, 0);
    struct pool_config config = {.model = c->model,
                                 .precision = PRECISION_F32,
                                 .clock = &clock_real,
                                 .transport = transport_zmq_interface(c->transport),
                                 .connect_timeout_ns = 100 * NS_PER_MS};
    const char *nobody = "ipc:///tmp/sigmoe-pool-nobody.sock", *bad = "udp://here";
    struct err err = {0};
    pool_destroy(c->pool);
    c->pool = NULL;
    assert_int_equal(pool_create(&config, &c->pool, &err), 0);
    assert_int_equal(pool_connect(c->pool, &nobody, 1, &err), ERR_NET);
    assert_non_null(strstr(err.text, "no worker answers at ipc:///tmp/sigmoe-pool-nobody.sock"));
    pool_destroy(c->pool);
    assert_int_equal(pool_create(&config, &c->pool, &err), 0);
    assert_int_equal(pool_connect(c->pool, &bad, 1, NULL), ERR_USAGE);
    cluster_close(c);
}

int main(void)
{
    static char inproc[] = "inproc", ipc[] = "ipc", tcp[] = "tcp";
    const struct CMUnitTest tests[] = {
        {"pool_is_right_over_inproc", pool_is_right_over, NULL, NULL, inproc},
        {"pool_is_right_over_ipc", pool_is_right_over, NULL, NULL, ipc},
        {"pool_is_right_over_tcp", pool_is_right_over, NULL, NULL, tcp},
        {"pool_goes_on_when_a_worker_stops_and_takes_it_back_over_inproc",
         pool_goes_on_when_a_worker_stops_and_takes_it_back_over, NULL, NULL, inproc},
        {"pool_goes_on_when_a_worker_stops_and_takes_it_back_over_ipc",
         pool_goes_on_when_a_worker_stops_and_takes_it_back_over, NULL, NULL, ipc},
        {"pool_goes_on_when_a_worker_stops_and_takes_it_back_over_tcp",
         pool_goes_on_when_a_worker_stops_and_takes_it_back_over, NULL, NULL, tcp},
        {"pool_goes_on_when_a_worker_restarts_over_inproc",
         pool_goes_on_when_a_worker_restarts_over, NULL, NULL, inproc},
        {"pool_goes_on_when_a_worker_restarts_over_ipc", pool_goes_on_when_a_worker_restarts_over,
         NULL, NULL, ipc},
        {"pool_goes_on_when_a_worker_restarts_over_tcp", pool_goes_on_when_a_worker_restarts_over,
         NULL, NULL, tcp},
        cmocka_unit_test(pool_gives_up_on_an_address_where_nobody_is),
    };
    log_set_level(LOG_ERROR); /* deaths are part of these tests */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
