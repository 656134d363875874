/* sim_bench: see sim_bench.h. */
#include "sim_bench.h"

#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

#define HOUR_NS (3600 * NS_PER_S)

static int or_default(int value, int otherwise)
{
    return value ? value : otherwise;
}

static void make_model(struct bench *b, const struct bench_config *c)
{
    b->model = calloc(1, sizeof(*b->model));
    struct model_desc *desc = &b->model->desc;
    desc->n_layer = or_default(c->n_layer, 2);
    desc->n_expert = or_default(c->n_expert, 6);
    desc->top_k = or_default(c->top_k, 2);
    desc->d_model = or_default(c->d_model, 5);
    for (int i = 0; i < desc->n_layer; i++) {
        desc->layer[i].sparse = 1;
    }
    strcpy(b->model->dir, "/models/tiny");
    b->model->fingerprint = (struct hash128){0x77f0, 0x1234};
    b->shape = (struct wire_shape){.n_layer = desc->n_layer,
                                   .n_expert = desc->n_expert,
                                   .d_wire = desc->d_model,
                                   .row_limit = LIMIT_ROWS,
                                   .top_k = desc->top_k,
                                   .dtype = DTYPE_BF16};
}

/* Expert e of every layer is with workers e, e + 1, ... (as many as replicas), modulo their number.
 */
static uint8_t *make_held(const struct bench *b, int n_worker, int replicas)
{
    int n_expert = b->shape.n_expert, n_cell = b->shape.n_layer * n_expert;
    uint8_t *held = calloc((size_t)n_worker, (size_t)n_cell);
    for (int cell = 0; cell < n_cell; cell++) {
        for (int r = 0; r < replicas; r++) {
            held[(cell % n_expert + r) % n_worker * n_cell + cell] = 1;
        }
    }
    return held;
}

struct bench *bench_open(const struct bench_config *config)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct sim_config sim = config->sim;
    make_model(b, config);
    sim.shape = b->shape;
    sim.fingerprint = b->model->fingerprint;
    sim.n_worker = or_default(sim.n_worker, 2);
    sim.credits = or_default(sim.credits, 2);
    sim.row_limit = or_default(sim.row_limit, 64);
    uint8_t *held = make_held(b, sim.n_worker, or_default(config->replicas, 1));
    sim.held = held;
    b->sim = sim_create(&sim);
    free(held);
    sim_faults(b->sim, 0);
    sim_ways(b->sim, 0)->fp8 = 1;
    b->rows = config->rows;
    struct pool_config pool = {.model = b->model,
                               .precision = PRECISION_BF16,
                               .numerics = "sim",
                               .rows = config->rows,
                               .k = kernels_of(ISA_PORTABLE),
                               .clock = sim_clock(b->sim),
                               .transport = sim_transport(b->sim),
                               .call_timeout_ns =
                                   config->call_timeout_ns ? config->call_timeout_ns : 2 * NS_PER_S,
                               .ping_interval_ns = 100 * NS_PER_MS,
                               .ping_timeout_ns = NS_PER_S,
                               .choice = config->choice,
                               .local = config->local ? sim_local : NULL,
                               .local_user = &b->shape,
                               .seed = 1};
    b->rc = pool_create(&pool, &b->pool, &b->err);
    if (b->rc == 0) {
        b->rc = pool_connect(b->pool, sim_endpoints(), sim.n_worker, &b->err);
    }
    sim_faults(b->sim, 1);
    return b;
}

void bench_close(struct bench *b)
{
    pool_destroy(b->pool);
    sim_destroy(b->sim);
    free(b->model);
    free(b);
}

/* A row as it is after its way through fp8. */
static void round_row(const struct bench *b, const void *row, void *out)
{
    const struct kernels *k = kernels_of(ISA_PORTABLE);
    size_t d = (size_t)b->shape.d_wire;
    uint8_t *fp8 = malloc(fp8_row_bytes(d));
    k->fp8_encode(row, d, fp8);
    k->fp8_decode(fp8, d, out);
    free(fp8);
}

/* What any worker, or this process, makes of a row. */
static void expect(struct bench *b, int layer, int expert, const void *row, void *out)
{
    uint16_t *sent = malloc((size_t)b->shape.d_wire * 2);
    if (b->rows != WIRE_ROWS_OWN) {
        round_row(b, row, sent);
    } else {
        memcpy(sent, row, (size_t)b->shape.d_wire * 2);
    }
    sim_expert(&b->shape, layer, expert, sent, out);
    if (b->rows == WIRE_ROWS_FP8_BOTH) {
        round_row(b, out, out);
    }
    free(sent);
}

/* Rows lie further apart than they are wide; a row's experts are distinct, as a gate's are; some
 * slots are empty. */
void work_make(struct bench *b, struct work *w, int layer, int n_row, int batch)
{
    int k = b->shape.top_k, n_slot = n_row * k;
    size_t ld = (size_t)b->shape.d_wire + 3, row = (size_t)b->shape.d_wire * 2;
    *w = (struct work){0};
    w->rows = malloc((size_t)n_row * ld * 2);
    w->expected = calloc((size_t)n_slot, row);
    w->slot_expert = calloc((size_t)n_slot, sizeof(*w->slot_expert));
    w->slot_row = calloc((size_t)n_slot, sizeof(*w->slot_row));
    for (size_t i = 0; i < (size_t)n_row * ld * 2; i++) {
        w->rows[i] = (unsigned char)sim_random(b->sim, 256);
    }
    for (int i = 0; i < n_slot; i++) {
        int first = i - i % k, expert, again;
        do {
            expert = (int)sim_random(b->sim, (uint64_t)b->shape.n_expert);
            again = 0;
            for (int j = first; j < i; j++) {
                again |= w->slot_expert[j] == expert;
            }
        } while (again);
        w->slot_expert[i] = sim_random(b->sim, 10) ? expert : -1;
        if (w->slot_expert[i] >= 0) {
            expect(b, layer, expert, w->rows + (size_t)(i / k) * ld * 2,
                   w->expected + (size_t)i * row);
        }
    }
    w->d = (struct dispatch){.layer = layer,
                             .batch = batch,
                             .n_row = n_row,
                             .top_k = k,
                             .slot_expert = w->slot_expert,
                             .rows = w->rows,
                             .ld_row = ld,
                             .slot_row = w->slot_row};
}

void work_spoil(struct bench *b, struct work *w)
{
    memset(w->rows, 0xee, (size_t)w->d.n_row * ((size_t)b->shape.d_wire + 3) * 2);
    free(w->rows);
    w->rows = NULL;
}

int work_right(const struct bench *b, const struct work *w)
{
    size_t row = (size_t)b->shape.d_wire * 2;
    for (int i = 0; i < w->d.n_row * w->d.top_k; i++) {
        if (w->slot_expert[i] < 0
                ? w->slot_row[i] != NULL
                : !w->slot_row[i] ||
                      memcmp(w->slot_row[i], w->expected + (size_t)i * row, row) != 0) {
            return 0;
        }
    }
    return 1;
}

void work_free(struct bench *b, struct work *w)
{
    dispatch_release(b->pool, &w->d);
    free(w->rows);
    free(w->expected);
    free(w->slot_expert);
    free(w->slot_row);
}

int bench_run(struct bench *b, struct work *w)
{
    int64_t until = clock_now(sim_clock(b->sim)) + HOUR_NS;
    int n = 0;
    while (!w->d.done && clock_now(sim_clock(b->sim)) < until) {
        n += pool_wait(b->pool, until);
    }
    return n + pool_poll(b->pool);
}

int bench_do(struct bench *b, int layer, int n_row, int *right, struct err *err)
{
    struct work w;
    work_make(b, &w, layer, n_row, 0);
    int rc = pool_dispatch(b->pool, &w.d, err);
    if (rc == 0) {
        bench_run(b, &w);
        rc = w.d.done ? w.d.status : ERR_TIMEOUT;
        *err = w.d.err;
        work_spoil(b, &w);
    }
    *right = rc == 0 && work_right(b, &w);
    work_free(b, &w);
    return rc;
}

struct pool_stats bench_stats(const struct bench *b)
{
    struct pool_stats stats;
    pool_stats_get(b->pool, &stats);
    return stats;
}
