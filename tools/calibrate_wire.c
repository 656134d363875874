/* calibrate_wire: a real worker on a thread, a real pool, real messages: a dispatch of n rows that
 * all go to that worker. The pool says what building took, and the round trip less the worker's own
 * time, half of which is one way for half of the bytes. Before each the coordinator computes as
 * long as a layer's attention takes: a worker that has waited so long has parked, and waking it is
 * part of the way when it serves.
 *
 * What it takes is brought to what it would on a CPU that nobody slows, by the pace meanwhile; that
 * messages feel it as the gate does, of the stages the one most like them, is taken for granted.
 *
 * Where both ends share CPUs it matters which thread spends what: each side has a ZeroMQ context of
 * its own, as processes have, and the CPU time of their threads is read beside the clock. */
#include "tools/calibrate.h"

#include "coordinator/pool.h"
#include "worker/worker.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define EXPERTS_HELD 8
#define ROWS_MAX     512
#define ALONE_NS     3e6

#define DISPATCHES 21
#define PASSES     8 /* over all numbers of rows */
#define SHARE_ROWS 16

struct bench {
    struct calibrate *c;
    void *zmq, *zmq_worker; /* the same one for inproc */
    struct worker_thread *worker;
    struct transport_zmq *transport;
    struct pool *pool;
    char path[64]; /* of an ipc socket */
    char numerics[NUMERICS_BYTES];
    unsigned char *rows;
    int32_t *slot_expert;
    const void **slot_row;
    int n_row, n_held;
    /* Of the last dispatch. */
    double gather_ns, wire_ns, compute_ns, bytes_out, bytes_in, alone_ns;
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
                 strcmp(c->transport, "inproc") == 0 ? "inproc://calibrate" : "tcp://127.0.0.1:*");
    struct worker_config wc = {.listen = endpoint,
                               .model = c->model,
                               .precision = c->precision,
                               .kernels = c->kernels,
                               .n_thread = c->worker_threads,
                               .spin_us = -1,
                               .no_shm = strcmp(c->transport, "shm") != 0,
                               .held = held};
    int rc = worker_thread_start(&wc, b->zmq_worker, &b->worker, b->err);
    free(held);
    return rc;
}

static int bench_open(struct bench *b)
{
    struct calibrate *c = b->c;
    const struct model_desc *d = &c->model->desc;
    b->zmq = zmq_ctx_new();
    b->zmq_worker = strcmp(c->transport, "inproc") == 0 ? b->zmq : zmq_ctx_new();
    int rc = b->zmq && b->zmq_worker ? worker_open(b)
                                     : err_sys(b->err, ERR_NOMEM, "cannot start ZeroMQ");
    rc = rc ? rc : transport_zmq_create(b->zmq, &clock_real, NULL, 0, &b->transport, b->err);
    if (rc)
        return rc;
    struct pool_config pc = {.model = c->model,
                             .precision = c->precision,
                             .numerics =
                                 model_numerics(c->model, c->precision, c->kernels, b->numerics),
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
    if (b->zmq_worker && b->zmq_worker != b->zmq)
        zmq_ctx_term(b->zmq_worker);
    if (b->zmq)
        zmq_ctx_term(b->zmq);
    if (strcmp(b->c->transport, "ipc") == 0)
        unlink(b->path);
    free(b->rows);
    free(b->slot_expert);
    free(b->slot_row);
}

static double cpu_ns(clockid_t clock)
{
    struct timespec t = {0};
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* What a coordinator does between two layers' rows, at most a few milliseconds of it. */
static void compute_alone(struct bench *b)
{
    double ns = cost_at(&b->c->cost.attn, b->n_row), from_ns = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
    int64_t until = clock_now(&clock_real) + (int64_t)(ns < ALONE_NS ? ns : ALONE_NS);
    while (clock_now(&clock_real) < until) {
    }
    b->alone_ns += cpu_ns(CLOCK_THREAD_CPUTIME_ID) - from_ns;
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
    b->compute_ns = (double)x.time.compute_ns;
    double wire_ns = (double)x.time.wire_ns;
    int bad = x.status;
    if (bad)
        err_set(b->err, bad, "%s", x.err.text);
    dispatch_release(b->pool, &x);
    return bad ? -1 : wire_ns;
}

/* ---- whose time it is ---- */

/* io_cpu_ns: CPU time of ZeroMQ's threads in this process; negative where the system does not tell.
 */
static double io_cpu_ns(void)
{
    double sum = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks)
        return -1;
    for (struct dirent *d; (d = readdir(tasks));) {
        char path[320], name[32] = "";
        double ns = 0;
        snprintf(path, sizeof(path), "/proc/self/task/%.200s/comm", d->d_name);
        FILE *f = fopen(path, "r");
        if (!f)
            continue;
        int is_io = fgets(name, sizeof(name), f) && strncmp(name, "ZMQbg/IO", 8) == 0;
        fclose(f);
        snprintf(path, sizeof(path), "/proc/self/task/%.200s/schedstat", d->d_name);
        f = is_io ? fopen(path, "r") : NULL;
        if (is_io && (!f || fscanf(f, "%lf", &ns) != 1))
            ns = -1e300;
        if (f)
            fclose(f);
        sum += ns;
    }
    closedir(tasks);
    return sum;
}

struct spent {
    double io, mine, all;
};

static struct spent spent_now(const struct bench *b)
{
    return (struct spent){io_cpu_ns(), cpu_ns(CLOCK_THREAD_CPUTIME_ID) - b->alone_ns,
                          cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - b->alone_ns};
}

/* Of one dispatch. Medians: what disturbs a way is the system, and in a simulation that is
 * simulated. */
struct point {
    double bytes_out, bytes_in;
    double wire_ns, gather_ns;
    double io_ns, mine_ns, answer_ns; /* CPU time: threads that move messages, coordinator, worker
                                         besides computing; io_ns 0: not told */
};

static int point_take(struct bench *b, struct point *p)
{
    double wire[DISPATCHES], gather[DISPATCHES], compute_ns = 0;
    double more[2] = {0};
    if (run_dispatch(b) < 0)
        return ERR_NET;
    more[0] = calibrate_more(b->c, b->c->team);
    struct spent from = spent_now(b);
    for (int i = 0; i < DISPATCHES; i++) {
        wire[i] = run_dispatch(b);
        if (wire[i] < 0)
            return ERR_NET;
        gather[i] = b->gather_ns;
        compute_ns += b->compute_ns / DISPATCHES;
    }
    struct spent to = spent_now(b);
    more[1] = calibrate_more(b->c, b->c->team);
    double to_free = 1 / (1 + b->c->cost.other_feel * (more[0] + more[1]) / 2);
    double gather_ns = calibrate_middle(gather, DISPATCHES), io_ns = (to.io - from.io) / DISPATCHES;
    double mine_ns = (to.mine - from.mine) / DISPATCHES;
    double theirs_ns = (to.all - from.all) / DISPATCHES - mine_ns - io_ns;
    *p = (struct point){b->bytes_out,
                        b->bytes_in,
                        to_free * calibrate_middle(wire, DISPATCHES),
                        to_free * gather_ns,
                        to_free * fmax(0, io_ns),
                        to_free * fmax(0, mine_ns - gather_ns),
                        to_free * fmax(0, theirs_ns - compute_ns * team_size(b->c->worker_team))};
    return 0;
}

/* Who spends what. Who wakes whom is that of the largest number of rows up to SHARE_ROWS: of a
 * step's, not of a prompt's. */
static void add(const struct cost_model *cost, struct cost_curve *curve, double bytes, double ns)
{
    cost_curve_add_felt(curve, bytes, ns, ns * cost->other_feel);
}

static void share_point(struct cost_model *cost, const struct point *p, int rows)
{
    if (!(p->io_ns > 0))
        return; /* nothing is told, or there is no such thread */
    double bytes = (p->bytes_out + p->bytes_in) / 2, mine_ns = p->mine_ns / 2;
    add(cost, &cost->hop, bytes, p->io_ns / 4);
    add(cost, &cost->send, bytes, mine_ns);
    add(cost, &cost->take, bytes, mine_ns);
    add(cost, &cost->answer, bytes, p->answer_ns);
    /* There and back: four hops, and six threads that were asleep. */
    if (rows <= SHARE_ROWS)
        cost->wake_ns = fmax(0, p->wire_ns - p->io_ns - mine_ns) / 6;
}

#define POINTS 6
static const int point_rows[POINTS] = {1, 4, 16, 64, 256, ROWS_MAX};

static double middle_of(const struct point *first, size_t offset)
{
    double x[PASSES];
    for (int p = 0; p < PASSES; p++)
        x[p] = *(const double *)(const void *)((const char *)&first[p * POINTS] + offset);
    return calibrate_middle(x, PASSES);
}

/* All points in each of several passes, as for stages; the middle of what each came to. */
static int points_take(struct bench *b, struct point *point)
{
    struct point all[PASSES * POINTS];
    for (int i = 0; i < PASSES * POINTS; i++) {
        b->n_row = point_rows[i % POINTS];
        if (point_take(b, &all[i]))
            return ERR_NET;
    }
    for (int i = 0; i < POINTS; i++) {
        const struct point *p = &all[i];
        point[i] = (struct point){p->bytes_out,
                                  p->bytes_in,
                                  middle_of(p, offsetof(struct point, wire_ns)),
                                  middle_of(p, offsetof(struct point, gather_ns)),
                                  middle_of(p, offsetof(struct point, io_ns)),
                                  middle_of(p, offsetof(struct point, mine_ns)),
                                  middle_of(p, offsetof(struct point, answer_ns))};
    }
    return 0;
}

static int curves(struct bench *b)
{
    struct cost_model *cost = &b->c->cost;
    struct point point[POINTS];
    cost->gather.n = cost->one_way.n = cost->hop.n = 0;
    cost->send.n = cost->take.n = cost->answer.n = 0;
    int rc = points_take(b, point);
    if (rc)
        return rc;
    for (int i = 0; i < POINTS; i++) {
        const struct point *p = &point[i];
        add(cost, &cost->gather, p->bytes_out, p->gather_ns);
        add(cost, &cost->one_way, (p->bytes_out + p->bytes_in) / 2, p->wire_ns / 2);
        share_point(cost, p, point_rows[i]);
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
