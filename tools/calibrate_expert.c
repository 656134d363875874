/* calibrate_expert: worker/compute.c on random rows. A batch is a fixed part and, for each expert,
 * a part that depends on its rows: both follow from batches of one expert and of several with the
 * same rows each. Experts are met in turn, so that their weights come from memory as they do when
 * a worker holds many. */
#include "tools/calibrate.h"

#include "base/clock.h"
#include "base/rng.h"
#include "worker/worker.h"

#include <stdlib.h>

#define EXPERTS_MAX 32
#define MANY        8

struct bench {
    struct calibrate *c;
    struct expert_set *set;
    struct compute *compute;
    int n_expert, n_seg, rows, next;
    unsigned char *x, *y; /* [MANY * rows_max, d_model] */
    int32_t *index;
    struct err *err;
};

static double run_batch(void *arg)
{
    struct bench *b = arg;
    uint32_t expert[MANY], count[MANY];
    for (int i = 0; i < b->n_seg; i++) {
        expert[i] = (uint32_t)((b->next + i) % b->n_expert);
        count[i] = (uint32_t)b->rows;
    }
    /* Segments ascend: a group that wraps begins again at the first expert. */
    if (b->next + b->n_seg > b->n_expert)
        for (int i = 0; i < b->n_seg; i++)
            expert[i] = (uint32_t)i;
    b->next = ((int)expert[b->n_seg - 1] + 1) % b->n_expert;
    struct compute_item item = {.layer = b->c->sparse,
                                .n_seg = b->n_seg,
                                .seg_expert = expert,
                                .seg_count = count,
                                .rows = b->x,
                                .n_row = b->n_seg * b->rows,
                                .row_index = b->index,
                                .out = b->y};
    int64_t from = clock_now(&clock_real);
    if (compute_run(b->compute, b->set, &item, 1, b->err))
        return -1;
    return (double)(clock_now(&clock_real) - from);
}

static int bench_open(struct bench *b)
{
    struct calibrate *c = b->c;
    const struct model_desc *d = &c->model->desc;
    int rc = expert_set_create(c->model, c->precision, &b->set, b->err);
    rc = rc ? rc
            : compute_create(c->model, c->precision, c->kernels, c->worker_team, &b->compute,
                             b->err);
    b->n_expert = d->n_expert < EXPERTS_MAX ? d->n_expert : EXPERTS_MAX;
    for (int e = 0; rc == 0 && e < b->n_expert; e++)
        rc = expert_set_load(b->set, c->sparse, e, b->err);
    if (rc)
        return rc;
    size_t n_row = (size_t)MANY * (size_t)c->rows_max, n = n_row * (size_t)d->d_model;
    enum dtype dtype = precision_dtype(c->precision);
    float *x = malloc(n * sizeof(*x));
    b->x = malloc(n * dtype_bytes(dtype));
    b->y = malloc(n * dtype_bytes(dtype));
    b->index = malloc(n_row * sizeof(*b->index));
    if (!x || !b->x || !b->y || !b->index) {
        free(x);
        return err_set(b->err, ERR_NOMEM, "no memory to measure experts on %zu rows", n_row);
    }
    rng_normal_fill(1, 1, 0, x, n);
    c->kernels->convert(x, DTYPE_F32, b->x, dtype, n);
    free(x);
    for (size_t i = 0; i < n_row; i++)
        b->index[i] = (int32_t)i;
    return 0;
}

static void bench_close(struct bench *b)
{
    compute_destroy(b->compute);
    expert_set_destroy(b->set);
    free(b->x);
    free(b->y);
    free(b->index);
}

static int curve(struct bench *b)
{
    struct cost_model *cost = &b->c->cost;
    int rows[COST_POINTS], n = calibrate_rows(b->c->rows_max, rows), n_call = 0;
    double call = 0;
    struct team *team = b->c->worker_team;
    int many = b->n_expert < MANY ? b->n_expert : MANY;
    cost->expert.n = 0;
    for (int i = 0; i < n; i++) {
        b->rows = rows[i];
        b->n_seg = 1;
        struct measured one = measure(b->c, team, b->n_expert, run_batch, b);
        b->n_seg = rows[i] > 64 && many > 2 ? 2 : many;
        struct measured all =
            b->n_seg > 1 ? measure(b->c, team, b->n_expert / b->n_seg, run_batch, b) : one;
        if (one.ns < 0 || all.ns < 0)
            return ERR_NOMEM;
        /* What another expert adds; noise must not make it vanish. */
        double each = b->n_seg > 1 ? (all.ns - one.ns) / (b->n_seg - 1) : one.ns;
        each = each > one.ns ? one.ns : each < one.ns / 4 ? one.ns / 4 : each;
        cost_curve_add_felt(&cost->expert, rows[i], each, each * all.felt_ns / all.ns);
        if (rows[i] <= 8) {
            call += one.ns - each;
            n_call++;
        }
    }
    cost->expert_call_ns = call / n_call;
    return 0;
}

int calibrate_expert(struct calibrate *c, struct err *err)
{
    struct bench b = {.c = c, .err = err};
    int rc = bench_open(&b);
    rc = rc ? rc : curve(&b);
    bench_close(&b);
    return rc;
}
