/* calibrate_wire: a real worker on a thread, a real pool, real messages: a dispatch of n rows that
 * all go to that worker. The pool says what building took, and the round trip less the worker's own
 * time, half of which is one way for half of the bytes. Before each the coordinator computes as
 * long as a layer's attention takes: a worker that has waited so long has parked, and waking it is
 * part of the way when it serves. */
#include "tools/calibrate.h"

#include "coordinator/pool.h"
#include "worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#define EXPERTS_HELD 8
#define ROWS_MAX     512
#define ALONE_NS     3e6

struct bench {
    struct calibrate *c;
    void *zmq;
    struct worker_thread *worker;
    struct transport_zmq *transport;
    struct pool *pool;
    char path[64]; /* of an ipc socket */
    unsigned char *rows;
    int32_t *slot_expert;
    const void **slot_row;
    int n_row, n_held;
    /* Of the last dispatch. */
    double gather_ns, wire_ns, bytes_out, bytes_in;
    struct err *err;
};

static int worker_open(struct bench *b)
{
    struct calibrate *c = b->c;
    const struct model_desc *d = &c->model->desc;
    char endpoint[80];
    b->n_held = d->n_expert < EXPERTS_HELD ? d->n_expert : EXPERTS_HELD;
    uint8_t *held = calloc((size_t)d->n_layer, (size_t)d->n_expert);
    if (!held)
        return err_set(b->err, ERR_NOMEM, "no memory for a worker's table");
    memset(held + (size_t)c->sparse * (size_t)d->n_expert, 1, (size_t)b->n_held);
    snprintf(b->path, sizeof(b->path), "/tmp/sigmoe-calibrate-%d", (int)getpid());
    if (strcmp(c->transport, "ipc") == 0)
        snprintf(endpoint, sizeof(endpoint), "ipc://%s", b->path);
    else
        snprintf(endpoint, sizeof(endpoint), "%s",
                 strcmp(c->transport, "tcp") == 0 ? "tcp://127.0.0.1:*" : "inproc://calibrate");
    struct worker_config wc = {.listen = endpoint,
                               .model = c->model,
                               .precision = c->precision,
                               .kernels = c->kernels,
                               .n_thread = c->worker_threads,
                               .spin_us = -1,
                               .held = held};
    int rc = worker_thread_start(&wc, b->zmq, &b->worker, b->err);
    free(held);
    return rc;
}

static int bench_open(struct bench *b)
{
    struct calibrate *c = b->c;
    const struct model_desc *d = &c->model->desc;
    b->zmq = zmq_ctx_new();
    int rc = b->zmq ? worker_open(b) : err_sys(b->err, ERR_NOMEM, "cannot start ZeroMQ");
    rc = rc ? rc : transport_zmq_create(b->zmq, &clock_real, NULL, 0, &b->transport, b->err);
    if (rc)
        return rc;
    struct pool_config pc = {.model = c->model,
                             .precision = c->precision,
                             .numerics = c->kernels->numerics,
                             .clock = &clock_real,
                             .transport = transport_zmq_interface(b->transport)};
    const char *endpoint = worker_thread_endpoint(b->worker);
    rc = pool_create(&pc, &b->pool, b->err);
    rc = rc ? rc : pool_connect(b->pool, &endpoint, 1, b->err);
    size_t slots = (size_t)ROWS_MAX * (size_t)d->top_k;
    b->rows = calloc(ROWS_MAX, (size_t)d->d_model * 4);
    b->slot_expert = malloc(slots * sizeof(*b->slot_expert));
    b->slot_row = malloc(slots * sizeof(*b->slot_row));
    if (rc == 0 && (!b->rows || !b->slot_expert || !b->slot_row))
        rc = err_set(b->err, ERR_NOMEM, "no memory to measure the wire");
    for (size_t i = 0; rc == 0 && i < slots; i++) /* one slot a row: as many bytes back as out */
        b->slot_expert[i] =
            i % (size_t)d->top_k == 0 ? (int32_t)(i / (size_t)d->top_k) % b->n_held : -1;
    return rc;
}

static void bench_close(struct bench *b)
{
    pool_destroy(b->pool);
    transport_zmq_destroy(b->transport);
    worker_thread_stop(b->worker);
    if (b->zmq)
        zmq_ctx_term(b->zmq);
    if (strcmp(b->c->transport, "ipc") == 0)
        unlink(b->path);
    free(b->rows);
    free(b->slot_expert);
    free(b->slot_row);
}

/* What a coordinator does between two layers' rows, at most a few milliseconds of it. */
static void compute_alone(const struct bench *b)
{
    double ns = cost_at(&b->c->cost.attn, b->n_row);
    int64_t until = clock_now(&clock_real) + (int64_t)(ns < ALONE_NS ? ns : ALONE_NS);
    while (clock_now(&clock_real) < until) {
    }
}

static double run_dispatch(void *arg)
{
    struct bench *b = arg;
    const struct model_desc *d = &b->c->model->desc;
    struct dispatch x = {.layer = b->c->sparse,
                         .n_row = b->n_row,
                         .top_k = d->top_k,
                         .slot_expert = b->slot_expert,
                         .rows = b->rows,
                         .ld_row = (size_t)d->d_model,
                         .slot_row = b->slot_row};
    compute_alone(b);
    if (pool_dispatch(b->pool, &x, b->err))
        return -1;
    while (!x.done)
        pool_wait(b->pool, clock_now(&clock_real) + NS_PER_S);
    b->gather_ns = (double)x.time.serialise_ns;
    b->bytes_out = (double)x.time.bytes_sent;
    b->bytes_in = (double)x.time.bytes_received;
    double wire_ns = (double)x.time.wire_ns;
    int bad = x.status;
    if (bad)
        err_set(b->err, bad, "%s", x.err.text);
    dispatch_release(b->pool, &x);
    return bad ? -1 : wire_ns;
}

static double run_gather(void *arg)
{
    double ns = run_dispatch(arg);
    return ns < 0 ? ns : ((struct bench *)arg)->gather_ns;
}

static int curves(struct bench *b)
{
    struct cost_model *cost = &b->c->cost;
    static const int rows[] = {1, 4, 16, 64, 256, ROWS_MAX};
    cost->gather.n = cost->one_way.n = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        b->n_row = rows[i];
        double wire = measure(b->c, run_dispatch, b), gather = measure(b->c, run_gather, b);
        if (wire < 0 || gather < 0)
            return ERR_NET;
        cost_curve_add(&cost->gather, b->bytes_out, gather);
        cost_curve_add(&cost->one_way, (b->bytes_out + b->bytes_in) / 2, wire / 2);
    }
    cost->receive_ns = 0; /* within the round trip */
    cost->wire_bytes = (double)dtype_bytes(precision_dtype(b->c->precision));
    const struct cost_curve *w = &cost->one_way;
    double slope = (w->y[w->n - 1] - w->y[0]) / (w->x[w->n - 1] - w->x[0]);
    cost->link_s = slope > 1e-4 ? 1e9 / slope : 1e13;
    return 0;
}

int calibrate_wire(struct calibrate *c, struct err *err)
{
    struct bench b = {.c = c, .err = err};
    int rc = bench_open(&b);
    rc = rc ? rc : curves(&b);
    bench_close(&b);
    return rc;
}
