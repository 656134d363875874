/* gpu_check: see gpu_check.h. Only what gpu.h and kernels.h promise is used, so it compiles without
 * CUDA too. */
#include "worker/gpu_check.h"

#include "base/arena.h"
#include "base/rng.h"
#include "base/team.h"

#include <stdlib.h>
#include <string.h>

#define N_MATRIX 3 /* gate, up, down */
#define SEED     20261127

/* What a case is made of. Freed whole, however far it came. */
struct made {
    const struct gpu_case *c;
    struct gpu *g;
    int n_assign;
    struct ffn_weights *host, *there; /* [n_expert] */
    size_t bytes[N_MATRIX];           /* of a matrix */
    struct ffn_segment *seg;          /* [n_expert] */
    int32_t *row;                     /* [n_assign] */
    void *x, *h, *y_host, *y_there;
    size_t x_bytes, h_bytes, y_bytes;
    uint64_t n_drawn;
};

/* Within -scale to scale. */
static float random_float(struct made *m, float scale)
{
    return ((float)rng_uniform(SEED, 0, m->n_drawn++) * 2.0f - 1.0f) * scale;
}

static struct packed *matrix_of(struct ffn_weights *w, int i)
{
    return i == 0 ? &w->gate : i == 1 ? &w->up : &w->down;
}

static const float **bias_of(struct ffn_weights *w, int i)
{
    return i == 0 ? &w->gate_bias : i == 1 ? &w->up_bias : &w->down_bias;
}

static int integers(enum dtype dtype)
{
    return dtype == DTYPE_I8 || dtype == DTYPE_I4;
}

/* shape_of: what matrix i is; its bytes, 0 where there is none. */
static size_t shape_of(const struct gpu_case *c, int i, struct packed *out)
{
    enum dtype dtype = i == 2 ? c->down : c->up;
    int group = integers(dtype) ? c->group : 0;
    if (i == 0 && c->plain)
        return 0;
    *out = (struct packed){.dtype = dtype,
                           .n = i == 2 ? c->d_model : c->d_ff,
                           .k = i == 2 ? c->d_ff : c->d_model,
                           .group = group,
                           .int_rows = group && c->int_rows};
    return group ? packed_quant_bytes(dtype, out->n, out->k, group)
                 : packed_bytes(dtype, out->n, out->k);
}

/* row_pack makes up one row of w and packs it; x [k], q [k], scale [k / 32 + 1] are scratch. */
static void row_pack(struct made *m, const struct packed *w, void *data, int row, float *x,
                     int8_t *q, uint16_t *scale)
{
    for (int k = 0; k < w->k; k++)
        x[k] = random_float(m, m->c->tiny ? 0x1p-63f : 0.25f);
    if (!w->group) {
        pack_rows(data, w->dtype, w->n, w->k, row, 1, x, DTYPE_F32, (size_t)w->k);
        return;
    }
    quantise_row(x, w->k, w->dtype, w->group, q, scale);
    struct quant_rows rows = {q, (size_t)w->k, scale, (size_t)quant_groups(w->k, w->group)};
    pack_quant_rows(data, w->dtype, w->n, w->k, w->group, row, 1, &rows);
}

static int matrix_fill(struct made *m, const struct packed *w, void *data)
{
    size_t k = (size_t)w->k;
    float *x = malloc(k * sizeof(*x));
    int8_t *q = malloc(k);
    uint16_t *scale = malloc((k / K_BLOCK + 1) * sizeof(*scale));
    int rc = x && q && scale ? 0 : ERR_NOMEM;
    for (int row = 0; row < w->n && rc == 0; row++)
        row_pack(m, w, data, row, x, q, scale);
    free(x);
    free(q);
    free(scale);
    return rc;
}

static int matrix_make(struct made *m, int expert, int i, struct err *err)
{
    struct packed w = {0};
    const struct expert_home *home = gpu_home(m->g);
    m->bytes[i] = shape_of(m->c, i, &w);
    if (!m->bytes[i])
        return 0;
    void *data = mem_map(m->bytes[i]);
    w.data = data;
    *matrix_of(&m->host[expert], i) = w;
    if (!data || matrix_fill(m, &w, data))
        return err_set(err, ERR_NOMEM, "no memory to check a device");
    w.data = home->take(home->user, data, m->bytes[i], err);
    *matrix_of(&m->there[expert], i) = w;
    if (!w.data || !m->c->biased)
        return w.data ? 0 : ERR_NOMEM;
    float *bias = calloc((size_t)w.n, sizeof(*bias));
    for (int j = 0; bias && j < w.n; j++)
        bias[j] = random_float(m, 0.5f);
    *bias_of(&m->host[expert], i) = bias;
    if (!bias)
        return err_set(err, ERR_NOMEM, "no memory to check a device");
    *bias_of(&m->there[expert], i) = home->take(home->user, bias, (size_t)w.n * sizeof(*bias), err);
    return *bias_of(&m->there[expert], i) ? 0 : ERR_NOMEM;
}

/* Rows to experts, so that some have none and others many. */
static int chosen(const struct gpu_case *c, int row, int expert)
{
    return (row * 5 + expert * 3) % c->n_expert < c->top_k;
}

static void rows_make(struct made *m)
{
    const struct gpu_case *c = m->c;
    size_t ldx = (size_t)k_padded(c->d_model);
    for (int r = 0; r < c->n_row; r++)
        for (int k = 0; k < c->d_model; k++) {
            float v = random_float(m, c->tiny ? 0x1p-60f : 2.0f);
            size_t at = (size_t)r * ldx + (size_t)k;
            if (c->up == DTYPE_F32)
                ((float *)m->x)[at] = v;
            else
                ((uint16_t *)m->x)[at] = f32_to_bf16(v);
        }
    for (int e = 0; e < c->n_expert; e++)
        for (int r = 0; r < c->n_row; r++)
            if (chosen(c, r, e))
                m->row[m->n_assign++] = r;
}

static int make(struct made *m, struct err *err)
{
    const struct gpu_case *c = m->c;
    size_t n_expert = (size_t)c->n_expert, most = (size_t)c->n_row * n_expert;
    size_t element = c->up == DTYPE_F32 ? 4 : 2;
    m->x_bytes = (size_t)c->n_row * (size_t)k_padded(c->d_model) * element;
    m->h_bytes = most * (size_t)k_padded(c->d_ff) * element;
    m->y_bytes = most * (size_t)c->d_model * dtype_bytes(c->y);
    m->host = calloc(n_expert, sizeof(*m->host));
    m->there = calloc(n_expert, sizeof(*m->there));
    m->seg = calloc(n_expert, sizeof(*m->seg));
    m->row = calloc(most, sizeof(*m->row));
    m->x = mem_map(m->x_bytes);
    m->h = mem_map(m->h_bytes);
    m->y_host = mem_map(m->y_bytes);
    m->y_there = mem_map(m->y_bytes);
    if (!m->host || !m->there || !m->seg || !m->row || !m->x || !m->h || !m->y_host || !m->y_there)
        return err_set(err, ERR_NOMEM, "no memory to check a device");
    for (int e = 0; e < c->n_expert; e++)
        for (int i = 0; i < N_MATRIX; i++) {
            int rc = matrix_make(m, e, i, err);
            if (rc)
                return rc;
        }
    rows_make(m);
    return 0;
}

static void unmap(void *at, size_t bytes)
{
    if (at)
        mem_unmap(at, bytes);
}

static void made_free(struct made *m)
{
    const struct expert_home *home = gpu_home(m->g);
    for (int e = 0; m->host && m->there && e < m->c->n_expert; e++)
        for (int i = 0; i < N_MATRIX; i++) {
            struct packed *host = matrix_of(&m->host[e], i), *there = matrix_of(&m->there[e], i);
            unmap((void *)(uintptr_t)host->data, m->bytes[i]);
            if (there->data)
                home->give(home->user, (void *)(uintptr_t)there->data, m->bytes[i]);
            const float *bias = *bias_of(&m->there[e], i);
            if (bias)
                home->give(home->user, (void *)(uintptr_t)bias, (size_t)there->n * sizeof(*bias));
            free((void *)(uintptr_t)*bias_of(&m->host[e], i));
        }
    unmap(m->x, m->x_bytes);
    unmap(m->h, m->h_bytes);
    unmap(m->y_host, m->y_bytes);
    unmap(m->y_there, m->y_bytes);
    free(m->host);
    free(m->there);
    free(m->seg);
    free(m->row);
}

/* segments of the experts that have rows, with their weights here or there. */
static int segments(struct made *m, const struct ffn_weights *w)
{
    int n_seg = 0, begin = 0;
    for (int e = 0; e < m->c->n_expert; e++) {
        int end = begin;
        for (int r = 0; r < m->c->n_row; r++)
            end += chosen(m->c, r, e);
        if (end > begin)
            m->seg[n_seg++] = (struct ffn_segment){&w[e], begin, end};
        begin = end;
    }
    return n_seg;
}

static int differ(const struct made *m, struct err *err)
{
    const struct gpu_case *c = m->c;
    size_t element = dtype_bytes(c->y), n = (size_t)m->n_assign * (size_t)c->d_model;
    const unsigned char *a = m->y_host, *b = m->y_there;
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i * element, b + i * element, element) != 0)
            return err_set(
                err, ERR_MODEL,
                "%s computes other bits than this CPU: %s and %s of %d by %d, row %zu of "
                "%d, column %zu; it cannot be used",
                gpu_name(m->g), dtype_name(c->up), dtype_name(c->down), c->d_ff, c->d_model,
                i / (size_t)c->d_model, m->n_assign, i % (size_t)c->d_model);
    return 0;
}

static int compare(struct made *m, struct err *err)
{
    const struct gpu_case *c = m->c;
    const struct kernels *k = kernels_of(ISA_PORTABLE);
    struct ffn f = {.act = c->act,
                    .act_alpha = 1.702f,
                    .act_limit = 7.0f,
                    .d_model = c->d_model,
                    .d_ff = c->d_ff,
                    .seg = m->seg,
                    .n_seg = segments(m, m->host),
                    .x = m->x,
                    .ldx = (size_t)k_padded(c->d_model),
                    .row = m->row,
                    .h = m->h,
                    .y = m->y_host,
                    .y_dtype = c->y,
                    .ldy = (size_t)c->d_model};
    team_flush_denormals();
    for (int stage = 0; stage < 2; stage++)
        k->ffn(&f, stage, 0, k->ffn_units(&f, stage));
    segments(m, m->there);
    f.y = m->y_there;
    f.h = NULL;
    int rc = gpu_ffn(m->g, &f, c->n_row, NULL, err);
    return rc ? rc : differ(m, err);
}

int gpu_agrees(struct gpu *g, const struct gpu_case *c, struct err *err)
{
    struct made m = {.c = c, .g = g};
    int rc = make(&m, err);
    rc = rc ? rc : compare(&m, err);
    made_free(&m);
    return rc;
}

int gpu_check(struct gpu *g, struct err *err)
{
    static const struct gpu_case cases[] = {
        {.up = DTYPE_BF16, .down = DTYPE_BF16, .y = DTYPE_BF16},
        {.up = DTYPE_BF16, .down = DTYPE_BF16, .y = DTYPE_F32, .tiny = 1},
        {.up = DTYPE_F32, .down = DTYPE_F32, .y = DTYPE_F32},
        {.up = DTYPE_I8, .down = DTYPE_I8, .group = 32, .int_rows = 1, .y = DTYPE_BF16},
        {.up = DTYPE_I4, .down = DTYPE_I8, .group = 128, .int_rows = 1, .y = DTYPE_BF16},
        {.up = DTYPE_I8, .down = DTYPE_I4, .group = 32, .y = DTYPE_BF16},
    };
    int rc = 0;
    for (int i = 0; i < (int)(sizeof(cases) / sizeof(*cases)) && rc == 0; i++) {
        struct gpu_case c = cases[i];
        c.act = ACT_SILU;
        c.d_model = 160;
        c.d_ff = 96;
        c.n_expert = 3;
        c.n_row = 21;
        c.top_k = 2;
        rc = gpu_agrees(g, &c, err);
    }
    return rc;
}
