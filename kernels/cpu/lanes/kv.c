/* kv: rows of K and V go to their pages, which lie as packed weights do (kernels.h): of K a row is
 * a row of the matrix, of V a k. f32 is copied, bf16 rounded to nearest even; i8 is divided by
 * max |x| / 127 of the row and head and rounded, ties to even, and a row that is not finite has a
 * scale that is not a number. What pads the head is written as zeros; positions of a page other
 * than the rows' own are not touched. */
#include "base/limits.h"
#include "kernels/cpu/lanes/attention.h"
#include "kernels/cpu/lanes/tail.h"
#include <math.h>

/* One row of one head as its page holds it: [k_padded(d_head)] of the layout's dtype. */
struct row {
    union {
        float f32[LIMIT_D_HEAD + K_BLOCK];
        uint16_t bf16[LIMIT_D_HEAD + K_BLOCK];
        int8_t i8[LIMIT_D_HEAD + K_BLOCK];
    } x;
    float scale;
};

static void quantise(const float *x, size_t d_head, struct row *row)
{
    vec top = v_zero(), odd = v_zero();
    for (size_t d = 0; d < d_head; d += LANES) {
        vec v = t_load_f32(x + d, t_count(d, d_head));
        top = v_max(top, v_abs(v));
        odd = v_fma(v, v_zero(), odd); /* a NaN, from one or from an infinity */
    }
    row->scale = v_max_lane(top) * (1.0f / 127.0f);
    int none = !(row->scale > 0.0f), finite = v_sum(odd) == 0.0f;
    for (size_t d = 0; d < d_head; d += LANES) {
        int c = t_count(d, d_head);
        float q[LANES] = {0};
        if (finite && !none) {
            vec most = v_set1(127.0f), v = v_div(t_load_f32(x + d, c), v_set1(row->scale));
            v = v_max(v_sub(v_zero(), most), v_min(most, v_round(v)));
            v_store(q, v);
        }
        for (int i = 0; i < c; i++) {
            row->x.i8[d + (size_t)i] = (int8_t)q[i];
        }
    }
    if (!finite) {
        row->scale = NAN;
    }
}

static void row_make(const struct kv_layout *l, const float *x, struct row *row)
{
    size_t d_head = (size_t)l->d_head, size = dtype_bytes(l->dtype);
    size_t pad = (size_t)k_padded(l->d_head) - d_head;
    memset((char *)&row->x + d_head * size, 0, pad * size);
    if (l->dtype == DTYPE_I8) {
        quantise(x, d_head, row);
        return;
    }
    for (size_t d = 0; d < d_head; d += LANES) {
        int c = t_count(d, d_head);
        t_store(&row->x, l->dtype, d, t_load_f32(x + d, c), c);
    }
}

/* A row of K: position `at` of a page. Pairs of bf16 stay together. */
static void write_k(const struct kv_layout *l, void *page, int at, const struct row *row)
{
    int pad = k_padded(l->d_head), pair = l->dtype == DTYPE_BF16 ? 2 : 1;
    size_t first = kv_element(l->dtype, pad, at, 0);
    for (int d = 0; d < pad; d += pair) {
        size_t to = first + (size_t)(d / pair * pair) * PANEL;
        if (l->dtype == DTYPE_BF16) {
            memcpy((uint16_t *)page + to, row->x.bf16 + d, 2 * sizeof row->x.bf16[0]);
        } else if (l->dtype == DTYPE_I8) {
            ((int8_t *)page)[to] = row->x.i8[d];
        } else {
            ((float *)page)[to] = row->x.f32[d];
        }
    }
}

/* A row of V: k `at` of a page, sixteen columns a panel. */
static void write_v(const struct kv_layout *l, void *page, int at, const struct row *row)
{
    int pad = k_padded(l->d_head);
    for (int d = 0; d < pad; d += PANEL) {
        size_t to = kv_element(l->dtype, KV_PAGE, d, at);
        if (l->dtype == DTYPE_BF16) {
            for (int i = 0; i < PANEL; i++) {
                ((uint16_t *)page)[to + 2 * (size_t)i] = row->x.bf16[d + i];
            }
        } else if (l->dtype == DTYPE_I8) {
            memcpy((int8_t *)page + to, row->x.i8 + d, PANEL);
        } else {
            memcpy((float *)page + to, row->x.f32 + d, PANEL * sizeof(float));
        }
    }
}

static void write_scale(const struct kv_layout *l, void *page, int at, const struct row *row)
{
    if (l->dtype == DTYPE_I8) {
        memcpy((char *)page + kv_scale_at(l) + (size_t)at * sizeof(float), &row->scale,
               sizeof row->scale);
    }
}

void LANES_NAME(kv_write)(const struct kv_layout *l, void *k_base, void *v_base, size_t page_stride,
                          const struct attn_span *span, const float *k, size_t ldk, const float *v,
                          size_t ldv)
{
    struct row row;
    int n = (span->end - span->begin) * l->n_kv_head;
    for (int i = 0; i < n; i++) {
        size_t r = (size_t)(i / l->n_kv_head);
        int h = i % l->n_kv_head, pos = span->pos + i / l->n_kv_head, at = pos % KV_PAGE;
        size_t to = kv_offset(l, page_stride, span->page, pos, h);
        size_t col = (size_t)h * (size_t)l->d_head;
        row_make(l, k + r * ldk + col, &row);
        write_k(l, (char *)k_base + to, at, &row);
        write_scale(l, (char *)k_base + to, at, &row);
        row_make(l, v + r * ldv + col, &row);
        write_v(l, (char *)v_base + to, at, &row);
        write_scale(l, (char *)v_base + to, at, &row);
    }
}
