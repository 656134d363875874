/* quant_product: products of integer weights, with rows as they came or made integers: what must
 * come out by THE SUM or THE INTEGER SUM, row by row alone and in company, and of the FFN that is
 * made of three of them. Each check goes over every table of this CPU. */
#ifndef TESTS_UNIT_KERNELS_QUANT_PRODUCT_H
#define TESTS_UNIT_KERNELS_QUANT_PRODUCT_H

#include "matrix.h"

/* What meets the weights: bf16, or the rows made integers, which are exact on any unit. */
enum rows_kind { ROWS_BF16, ROWS_INT };

struct product {
    enum dtype dtype;
    int n, k, group, n_row;
};

/* The rows made integers by the caller; NULL where the kernels or the weights do not take them. */
static inline void *ints_of(const struct kernels *f, const struct packed *w, const void *x,
                            size_t ldx, int n_row)
{
    size_t bytes = ldx * sizeof(uint16_t);
    unsigned char *out = f->ints && w->int_rows ? aligned_alloc(64, bytes * (size_t)n_row) : NULL;
    for (int r = 0; out && r < n_row; r++)
        f->ints((const unsigned char *)x + (size_t)r * bytes, k_padded(w->k),
                out + (size_t)r * bytes);
    return out;
}

/* Units one by one, from the last on. Rows that the caller made integers give the same bits. */
static inline void product_run(const struct kernels *f, const struct packed *w, const void *x,
                               size_t ldx, int n_row, float *y)
{
    struct matmul m = {.x = x,
                       .ldx = ldx,
                       .n_row = n_row,
                       .w = w,
                       .y = y,
                       .y_dtype = DTYPE_F32,
                       .ldy = (size_t)w->n};
    for (int i = f->matmul_units(&m) - 1; i >= 0; i--)
        f->matmul(&m, i, i + 1);
    void *ints = ints_of(f, w, x, ldx, n_row);
    if (!ints)
        return;
    size_t bytes = (size_t)n_row * (size_t)w->n * sizeof(float);
    m.x_ints = ints;
    m.y = malloc(bytes);
    f->matmul(&m, 0, f->matmul_units(&m));
    assert_memory_equal(m.y, y, bytes);
    free(m.y);
    free(ints);
}

static inline void product_weights(struct quant_weights *q, uint64_t stream,
                                   const struct product *p, enum rows_kind kind)
{
    weights_make_quant(q, stream, p->dtype, p->n, p->k, p->group);
    q->w.packed.int_rows = kind == ROWS_INT;
}

static inline void quant_weights_free(struct quant_weights *q)
{
    free(q->scale);
    weights_free(&q->w);
}

/* Column j of one row. */
static inline float product_plain(const struct quant_weights *q, const uint16_t *x, int j,
                                  enum rows_kind kind)
{
    const struct packed *p = &q->w.packed;
    const float *w = q->w.plain + (size_t)j * (size_t)p->k, *scale = q->scale + j * q->n_group;
    return kind == ROWS_INT ? int_sum(x, w, scale, p->k, p->group)
                            : sum32_quant(x, w, scale, p->k, p->group);
}

/* Tile units may add rows of bf16 in an order of their own. */
static inline int has_the_sum(const struct kernels *f, enum rows_kind kind)
{
    return kind == ROWS_INT || strcmp(f->numerics, "sum32") == 0;
}

static inline void product_check(const struct product *p, uint64_t stream, enum rows_kind kind)
{
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    struct quant_weights q;
    struct guard gx;
    size_t ldx = (size_t)k_padded(p->k) + (kind == ROWS_INT ? 32 : 0);
    size_t bytes = (size_t)p->n_row * (size_t)p->n * sizeof(float);
    product_weights(&q, stream, p, kind);
    const uint16_t *x = rows_make(&gx, stream + 1, DTYPE_BF16, p->n_row, p->k, ldx);
    float *want = malloc(bytes);
    for (int r = 0; r < p->n_row; r++)
        for (int j = 0; j < p->n; j++)
            want[r * p->n + j] = product_plain(&q, x + (size_t)r * ldx, j, kind);
    for (int t = 0; t < n_table; t++) {
        struct guard gy;
        float *y = guard_alloc(&gy, bytes);
        product_run(table[t], &q.w.packed, x, ldx, p->n_row, y);
        if (has_the_sum(table[t], kind) && memcmp(y, want, bytes) != 0)
            fail_msg("%s: n %d, k %d, %d rows, %s, groups of %d", table[t]->name, p->n, p->k,
                     p->n_row, dtype_name(p->dtype), p->group);
        guard_free(&gy);
    }
    free(want);
    guard_free(&gx);
    quant_weights_free(&q);
}

static inline void every_row_count_check(uint64_t stream, enum rows_kind kind)
{
    for (int n_row = 1; n_row <= 70; n_row += SHARE) {
        struct product p = {n_row % 2 ? DTYPE_I8 : DTYPE_I4, 50, 200, n_row % 3 ? 32 : 128, n_row};
        product_check(&p, stream + (uint64_t)n_row * 4, kind);
    }
}

/* Each row of 69 by itself has the bits that it has among them. */
static inline void company_check(uint64_t stream, enum rows_kind kind)
{
    enum { N = 83, K = 555, ROWS = 69, LD = 576 };
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    static float together[ROWS * N], alone[N];
    for (int t = 0; t < 2 * n_table; t++) {
        struct quant_weights q;
        struct guard gx;
        struct product p = {t % 2 ? DTYPE_I8 : DTYPE_I4, N, K, t % 2 ? 128 : 32, ROWS};
        product_weights(&q, stream, &p, kind);
        const uint16_t *x = rows_make(&gx, stream + 1, DTYPE_BF16, ROWS, K, LD);
        product_run(table[t / 2], &q.w.packed, x, LD, ROWS, together);
        for (int r = 0; r < ROWS; r++) {
            product_run(table[t / 2], &q.w.packed, x + r * LD, LD, 1, alone);
            assert_memory_equal(alone, together + r * N, sizeof alone);
        }
        guard_free(&gx);
        quant_weights_free(&q);
    }
}

/* The FFN [d, ff] of one expert, its rows in three segments, is its products and act_mul one after
 * the other, the down weights of int8 whatever the others are. */
static inline void ffn_check_one(const struct kernels *f, enum dtype dtype, int d, int ff,
                                 int n_row, enum rows_kind kind)
{
    struct product in = {dtype, ff, d, 32, n_row}, out = {DTYPE_I8, d, ff, 128, n_row};
    struct quant_weights gate, up, down;
    struct guard gx;
    size_t ld = (size_t)k_padded(d), ldh = (size_t)k_padded(ff);
    size_t rows = (size_t)n_row, n_h = rows * (size_t)ff, n_y = rows * (size_t)d;
    product_weights(&gate, 61, &in, kind);
    product_weights(&up, 62, &in, kind);
    product_weights(&down, 63, &out, kind);
    const uint16_t *x = rows_make(&gx, 64, DTYPE_BF16, n_row, d, ld);
    float *g = malloc(n_h * sizeof *g), *u = malloc(n_h * sizeof *u);
    float *want = malloc(n_y * sizeof *want), *y = malloc(n_y * sizeof *y);
    uint16_t *h = aligned_alloc(64, rows * ldh * sizeof *h);
    uint16_t *scratch = aligned_alloc(64, rows * ldh * sizeof *scratch);
    product_run(f, &gate.w.packed, x, ld, n_row, g);
    product_run(f, &up.w.packed, x, ld, n_row, u);
    memset(h, 0, rows * ldh * sizeof *h);
    memset(scratch, 0, rows * ldh * sizeof *scratch);
    for (size_t r = 0; r < rows; r++)
        f->act_mul(ACT_SILU, 0, 0, g + r * (size_t)ff, u + r * (size_t)ff, ff, h + r * ldh,
                   DTYPE_BF16);
    product_run(f, &down.w.packed, h, ldh, n_row, want);
    struct ffn_weights w = {.gate = gate.w.packed, .up = up.w.packed, .down = down.w.packed};
    struct ffn_segment seg[3] = {{&w, 0, 1}, {&w, 1, 8}, {&w, 8, n_row}};
    struct ffn ffn = {.act = ACT_SILU,
                      .d_model = d,
                      .d_ff = ff,
                      .seg = seg,
                      .n_seg = 3,
                      .x = x,
                      .ldx = ld,
                      .h = scratch,
                      .y = y,
                      .y_dtype = DTYPE_F32,
                      .ldy = (size_t)d};
    for (int stage = 0; stage < 2; stage++)
        f->ffn(&ffn, stage, 0, f->ffn_units(&ffn, stage));
    assert_memory_equal(y, want, n_y * sizeof *want);
    void *ints = ints_of(f, &up.w.packed, x, ld, n_row);
    ffn.x_ints = ints;
    memset(y, 0, n_y * sizeof *y);
    for (int stage = 0; ints && stage < 2; stage++)
        f->ffn(&ffn, stage, 0, f->ffn_units(&ffn, stage));
    assert_true(!ints || memcmp(y, want, n_y * sizeof *want) == 0);
    void *own[] = {g, u, want, y, h, scratch, ints};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        free(own[i]);
    quant_weights_free(&gate);
    quant_weights_free(&up);
    quant_weights_free(&down);
    guard_free(&gx);
}

static inline void ffn_check(int d, int ff, int n_row, enum rows_kind kind)
{
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    for (int t = 0; t < 2 * n_table; t++)
        ffn_check_one(table[t / 2], t % 2 ? DTYPE_I8 : DTYPE_I4, d, ff, n_row, kind);
}

#endif
