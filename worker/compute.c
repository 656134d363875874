/* compute: y = experts(x) for the requests of one layer. The rows of all requests are laid into one
 * padded matrix, their segments are merged by expert, so that an expert's weights are read once for
 * everybody, and the grouped product runs over the team. A row's bits do not depend on its
 * neighbours (kernels/kernels.h), so merging changes nothing but the time.
 *
 * What lies where, for two requests A and B that share expert 5:
 *     x      [rows of A | rows of B], each k_padded(d) wide
 *     y      [expert 2 of A | expert 5 of A, of B | expert 7 of B]   merged order, ascending expert
 *     A.out  [expert 2 | expert 5]                                   the request's own order
 * Alone, a request's own order is the merged order: then y is its `out`. */
#include "worker/worker.h"

#include "base/arena.h"
#include "worker/gpu.h"

#include <stdlib.h>
#include <string.h>

#define ROW_BYTES_ALIGN 64
#define COPY_CHUNK      32

/* Memory that grows and stays: the first large batches set its size. */
struct scratch {
    void *at;
    size_t bytes;
};

struct compute {
    const struct model_desc *desc;
    const struct kernels *kernels;
    struct team *team;
    struct gpu *gpu; /* NULL: the team computes */
    enum dtype dtype;
    size_t element_bytes;
    int ldx, ldh; /* elements from row to row of x and h */
    struct scratch x, x_ints, h, y, row;
    struct ffn_segment *seg; /* [n_expert] */
    int *end;                /* [n_expert] where an expert's next assignment goes */
};

int compute_create(const struct model *model, enum precision precision, const struct kernels *k,
                   struct team *team, struct compute **out, struct err *err)
{
    const struct model_desc *desc = &model->desc;
    if (desc->n_expert <= 0)
        return err_set(err, ERR_MODEL, "%s is a dense model: it has no experts to compute",
                       model->dir);
    struct compute *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory for the experts' scratch");
    c->desc = desc;
    c->kernels = k;
    c->team = team;
    c->dtype = precision_dtype(precision);
    c->element_bytes = dtype_bytes(c->dtype);
    c->ldx = k_padded(desc->d_model);
    c->ldh = k_padded(desc->d_ff_expert);
    c->seg = calloc((size_t)desc->n_expert, sizeof(*c->seg));
    c->end = calloc((size_t)desc->n_expert, sizeof(*c->end));
    if (!c->seg || !c->end) {
        compute_destroy(c);
        return err_set(err, ERR_NOMEM, "no memory for segments of %d experts", desc->n_expert);
    }
    team_flush_denormals();
    *out = c;
    return 0;
}

void compute_destroy(struct compute *c)
{
    if (!c)
        return;
    struct scratch *all[] = {&c->x, &c->x_ints, &c->h, &c->y, &c->row};
    for (int i = 0; i < (int)(sizeof(all) / sizeof(*all)); i++)
        mem_unmap(all[i]->at, all[i]->bytes);
    free(c->seg);
    free(c->end);
    free(c);
}

void compute_on(struct compute *c, struct gpu *gpu)
{
    c->gpu = gpu;
}

/* scratch_reserve: [n, width] elements; what was there is lost. Grows by halves so that slowly
 * growing batches do not map anew each time. */
static int scratch_reserve(struct scratch *s, int64_t n, int width, size_t element_bytes,
                           struct err *err)
{
    size_t bytes;
    if (mul_size((size_t)n, (size_t)width, &bytes) || mul_size(bytes, element_bytes, &bytes))
        return err_set(err, ERR_LIMIT, "a batch of %lld rows is too large", (long long)n);
    if (bytes <= s->bytes)
        return 0;
    size_t grown = s->bytes + s->bytes / 2;
    if (grown < bytes)
        grown = bytes;
    void *at = mem_map(grown);
    if (!at)
        return err_set(err, ERR_NOMEM, "no memory for a batch: %zu MiB of scratch refused",
                       grown >> 20);
    mem_unmap(s->at, s->bytes);
    *s = (struct scratch){at, grown};
    return 0;
}

/* ---- rows in ---- */

struct copy_job {
    const unsigned char *src;
    unsigned char *dst;
    size_t bytes, stride; /* of a row on the wire, and padded */
};

static void copy_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct copy_job *job = arg;
    for (int i = begin; i < end; i++) {
        unsigned char *row = job->dst + (size_t)i * job->stride;
        memcpy(row, job->src + (size_t)i * job->bytes, job->bytes);
        memset(row + job->bytes, 0, job->stride - job->bytes);
    }
}

/* rows_fit: the request's rows can be read where they lie. */
static int rows_fit(const struct compute *c, const struct compute_item *item)
{
    return c->ldx == c->desc->d_model && (uintptr_t)item->rows % ROW_BYTES_ALIGN == 0;
}

static const void *rows_gather(struct compute *c, const struct compute_item *item, int n)
{
    if (n == 1 && rows_fit(c, item))
        return item->rows;
    struct copy_job job = {.dst = c->x.at,
                           .bytes = (size_t)c->desc->d_model * c->element_bytes,
                           .stride = (size_t)c->ldx * c->element_bytes};
    for (int i = 0; i < n; i++) {
        job.src = item[i].rows;
        team_run(c->team, copy_rows, &job, item[i].n_row, COPY_CHUNK);
        job.dst += (size_t)item[i].n_row * job.stride;
    }
    return c->x.at;
}

struct ints_job {
    const struct kernels *kernels;
    const unsigned char *x;
    unsigned char *out;
    int k_pad;
    size_t stride; /* bytes from row to row of both */
};

static void ints_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct ints_job *job = arg;
    for (int i = begin; i < end; i++)
        job->kernels->ints(job->x + (size_t)i * job->stride, job->k_pad,
                           job->out + (size_t)i * job->stride);
}

/* rows_ints: the rows made integers, once for all experts; NULL: not asked for, or no memory, and
 * then the product makes them. */
static const void *rows_ints(struct compute *c, const void *x, int64_t n_row)
{
    struct err err = {0};
    if (c->gpu || !c->kernels->ints || !c->seg[0].w->up.int_rows || n_row < INTS_ROWS ||
        scratch_reserve(&c->x_ints, n_row, c->ldx, c->element_bytes, &err))
        return NULL;
    struct ints_job job = {.kernels = c->kernels,
                           .x = x,
                           .out = c->x_ints.at,
                           .k_pad = c->ldx,
                           .stride = (size_t)c->ldx * c->element_bytes};
    team_run(c->team, ints_rows, &job, (int)n_row, COPY_CHUNK);
    return job.out;
}

/* ---- segments ---- */

/* segments_merge counts each expert's assignments over all items and lays the segments out in
 * ascending order of expert; c->end[expert] is then where its first assignment goes. */
static int segments_merge(struct compute *c, const struct expert_set *set,
                          const struct compute_item *item, int n)
{
    memset(c->end, 0, (size_t)c->desc->n_expert * sizeof(*c->end));
    for (int i = 0; i < n; i++)
        for (int s = 0; s < item[i].n_seg; s++)
            c->end[item[i].seg_expert[s]] += (int)item[i].seg_count[s];
    int n_seg = 0, begin = 0;
    for (int e = 0; e < c->desc->n_expert; e++) {
        int count = c->end[e];
        if (count == 0)
            continue;
        c->seg[n_seg++] = (struct ffn_segment){
            .w = expert_set_get(set, item[0].layer, e), .begin = begin, .end = begin + count};
        c->end[e] = begin;
        begin += count;
    }
    return n_seg;
}

/* segments_fill writes the row of x of each assignment in merged order. */
static void segments_fill(struct compute *c, const struct compute_item *item, int n)
{
    int32_t *row = c->row.at;
    int32_t first_row = 0;
    for (int i = 0; i < n; i++) {
        const int32_t *index = item[i].row_index;
        for (int s = 0; s < item[i].n_seg; s++) {
            int *end = &c->end[item[i].seg_expert[s]];
            for (uint32_t j = 0; j < item[i].seg_count[s]; j++)
                row[(*end)++] = first_row + *index++;
        }
        first_row += item[i].n_row;
    }
}

/* results_scatter gives each item its rows in its own order: each of its segments is one block of
 * y. It walks the items backwards, because c->end points behind the last item's block. */
static void results_scatter(struct compute *c, const struct compute_item *item, int n)
{
    size_t bytes = (size_t)c->desc->d_model * c->element_bytes;
    const unsigned char *y = c->y.at;
    for (int i = n; i-- > 0;) {
        unsigned char *out = item[i].out;
        for (int s = 0; s < item[i].n_seg; s++) {
            int count = (int)item[i].seg_count[s], *end = &c->end[item[i].seg_expert[s]];
            *end -= count;
            memcpy(out, y + (size_t)*end * bytes, (size_t)count * bytes);
            out += (size_t)count * bytes;
        }
    }
}

/* ---- the product ---- */

struct ffn_job {
    const struct kernels *kernels;
    const struct ffn *ffn;
    int stage;
};

static void ffn_units(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct ffn_job *job = arg;
    job->kernels->ffn(job->ffn, job->stage, begin, end);
}

static void product(struct compute *c, const struct ffn *ffn)
{
    for (int stage = 0; stage < 2; stage++) {
        struct ffn_job job = {c->kernels, ffn, stage};
        team_run(c->team, ffn_units, &job, c->kernels->ffn_units(ffn, stage), 1);
    }
}

static int64_t rows_of(const struct compute_item *item, int n)
{
    int64_t n_row = 0;
    for (int i = 0; i < n; i++)
        n_row += item[i].n_row;
    return n_row;
}

static int reserve(struct compute *c, const struct compute_item *item, int n, struct err *err)
{
    int64_t n_row = rows_of(item, n), n_assign = 0;
    for (int i = 0; i < n; i++) {
        for (int s = 0; s < item[i].n_seg; s++)
            n_assign += item[i].seg_count[s];
    }
    if (n_row > INT32_MAX || n_assign > INT32_MAX)
        return err_set(err, ERR_LIMIT, "a batch of %lld assignments is too large",
                       (long long)n_assign);
    int rc = scratch_reserve(&c->row, n_assign, 1, sizeof(int32_t), err);
    if (!rc && !c->gpu)
        rc = scratch_reserve(&c->h, n_assign, c->ldh, c->element_bytes, err);
    if (!rc && (n > 1 || !rows_fit(c, item)))
        rc = scratch_reserve(&c->x, n_row, c->ldx, c->element_bytes, err);
    if (!rc && n > 1)
        rc = scratch_reserve(&c->y, n_assign, c->desc->d_model, c->element_bytes, err);
    return rc;
}

int compute_run(struct compute *c, const struct expert_set *set, const struct compute_item *item,
                int n, struct err *err)
{
    const struct model_desc *desc = c->desc;
    if (n < 1)
        return 0;
    int rc = reserve(c, item, n, err);
    if (rc)
        return rc;
    struct ffn ffn = {.act = desc->act,
                      .act_alpha = desc->act_alpha,
                      .act_limit = desc->act_limit,
                      .d_model = desc->d_model,
                      .d_ff = desc->d_ff_expert,
                      .seg = c->seg,
                      .n_seg = segments_merge(c, set, item, n),
                      .x = rows_gather(c, item, n),
                      .ldx = (size_t)c->ldx,
                      .row = c->row.at,
                      .h = c->h.at,
                      .y = n == 1 ? item->out : c->y.at,
                      .y_dtype = c->dtype,
                      .ldy = (size_t)desc->d_model};
    segments_fill(c, item, n);
    if (ffn.n_seg > 0)
        ffn.x_ints = rows_ints(c, ffn.x, rows_of(item, n));
    if (c->gpu)
        rc = gpu_ffn(c->gpu, &ffn, (int)rows_of(item, n), c->team, err);
    else
        product(c, &ffn);
    if (n > 1 && rc == 0)
        results_scatter(c, item, n);
    return rc;
}
