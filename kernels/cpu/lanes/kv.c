/* kv: rows of K and V go to their pages. K of a page and KV head is transposed, [d_head][KV_PAGE],
 * so that a query meets sixteen positions a lane vector; V is [KV_PAGE][d_head], so that a weight
 * meets sixteen columns. f32 is copied, bf16 rounded to nearest even. Positions of a page other
 * than the rows' own are not touched. */
#include "kernels/cpu/lanes/attention.h"
#include "kernels/cpu/lanes/tail.h"

/* Rows [0, n) of k [n, ldk] to columns [at, at + n) of a transposed page. */
static void write_k(const struct kv_layout *l, void *page, int at, const float *k, size_t ldk,
                    int n)
{
    for (int d = 0; d < l->d_head; d++) {
        size_t to = (size_t)d * KV_PAGE + (size_t)at;
        for (int i = 0; i < n; i++) {
            float x = k[(size_t)i * ldk + (size_t)d];
            if (l->dtype == DTYPE_BF16) {
                ((uint16_t *)page)[to + (size_t)i] = f32_to_bf16(x);
            } else {
                ((float *)page)[to + (size_t)i] = x;
            }
        }
    }
}

/* Rows [0, n) of v [n, ldv] to rows [at, at + n) of a page. */
static void write_v(const struct kv_layout *l, void *page, int at, const float *v, size_t ldv,
                    int n)
{
    size_t d_head = (size_t)l->d_head;
    for (int i = 0; i < n; i++) {
        size_t to = (size_t)(at + i) * d_head;
        for (size_t d = 0; d < d_head; d += LANES) {
            int c = t_count(d, d_head);
            t_store(page, l->dtype, to + d, t_load_f32(v + (size_t)i * ldv + d, c), c);
        }
    }
}

void LANES_NAME(kv_write)(const struct kv_layout *l, void *k_base, void *v_base, size_t page_stride,
                          const struct attn_span *span, const float *k, size_t ldk, const float *v,
                          size_t ldv)
{
    int n_row = span->end - span->begin;
    for (int row = 0, n; row < n_row; row += n) {
        int pos = span->pos + row, at = pos % KV_PAGE;
        n = n_row - row < KV_PAGE - at ? n_row - row : KV_PAGE - at;
        for (int h = 0; h < l->n_kv_head; h++) {
            size_t to = kv_offset(l, page_stride, span->page, pos, h);
            size_t col = (size_t)h * (size_t)l->d_head;
            write_k(l, (char *)k_base + to, at, k + (size_t)row * ldk + col, ldk, n);
            write_v(l, (char *)v_base + to, at, v + (size_t)row * ldv + col, ldv, n);
        }
    }
}
