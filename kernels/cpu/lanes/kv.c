/* kv: rows of K and V go to their pages, which lie as packed weights do (kernels.h): of K a row is
 * a row of the matrix, of V a k. f32 is copied, bf16 rounded to nearest even; i8 is divided by
 * max |x| / 127 of the row and head and rounded, ties to even, and a row that is not finite has a
 * scale that is not a number. What pads the head is written as zeros; positions of a page other
 * than the rows' own are not touched, since another thread may be writing them.
 *
 * A row of K has an element, or a pair, on every line of its panel. So the rows of one panel are
 * made first and go to its lines together, and the lines are asked for while rows are made. Roof:
 * the bytes of the rows; of a single row, those lines. */
#include "base/limits.h"
#include "kernels/cpu/lanes/attention.h"
#include "kernels/cpu/lanes/tail.h"
#include <math.h>

/* Up to PANEL rows of one head as their page holds them: [k_padded(d_head)] of the layout's dtype.
 */
#define LD_ROW (LIMIT_D_HEAD + K_BLOCK)
struct rows {
    union {
        uint32_t words[PANEL][LD_ROW]; /* f32, or a pair of bf16 */
        uint16_t bf16[PANEL][2 * LD_ROW];
        int8_t i8[PANEL][4 * LD_ROW];
    } x;
    float scale[PANEL];
    int n;
};

/* Sixteen integers within -127..127. */
INLINE void store_i8(int8_t *out, vec q)
{
#if defined(__AVX512F__) && defined(__AVX512BW__)
    __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(q));
    _mm_storeu_si128((__m128i *)(void *)out, bytes);
#else
    float f[LANES];
    v_store(f, q);
    for (int i = 0; i < LANES; i++) {
        out[i] = (int8_t)f[i];
    }
#endif
}

/* x to integers and, up to the next sixteen, zeros; returns the scale. */
static float quantise(const float *x, size_t d_head, int8_t *out)
{
    vec top = v_zero(), odd = v_zero();
    for (size_t d = 0; d < d_head; d += LANES) {
        vec v = t_load_f32(x + d, t_count(d, d_head));
        top = v_max(top, v_abs(v));
        odd = v_fma(v, v_zero(), odd); /* a NaN, from one or from an infinity */
    }
    float scale = v_max_lane(top) * (1.0f / 127.0f);
    int none = !(scale > 0.0f), finite = v_sum(odd) == 0.0f;
    for (size_t d = 0; d < d_head; d += LANES) {
        int c = t_count(d, d_head);
        vec q = v_zero(), most = v_set1(127.0f);
        if (finite && !none) {
            q = v_div(t_load_f32(x + d, c), v_set1(scale));
            q = v_max(v_sub(v_zero(), most), v_min(most, v_round(q)));
        }
        store_i8(out + d, q);
    }
    return finite ? scale : NAN;
}

static void row_make(const struct kv_layout *l, const float *x, struct rows *rows, int i)
{
    size_t d_head = (size_t)l->d_head, size = dtype_bytes(l->dtype);
    size_t pad = (size_t)k_padded(l->d_head) - d_head;
    memset((char *)rows->x.words[i] + d_head * size, 0, pad * size);
    if (l->dtype == DTYPE_I8) {
        rows->scale[i] = quantise(x, d_head, rows->x.i8[i]);
        return;
    }
    for (size_t d = 0; d < d_head; d += LANES) {
        int c = t_count(d, d_head);
        if (l->dtype == DTYPE_BF16) {
            t_store_bf16(rows->x.bf16[i] + d, t_load_f32(x + d, c), c);
        } else {
            t_store_f32((float *)rows->x.words[i] + d, t_load_f32(x + d, c), c);
        }
    }
}

/* Column by column: n rows of n_col elements to lines of PANEL. */
INLINE void words_turn(const struct rows *rows, int n_col, const int n, uint32_t *to)
{
    for (int d = 0; d < n_col; d++, to += PANEL) {
        for (int i = 0; i < n; i++) {
            to[i] = rows->x.words[i][d];
        }
    }
}

#if defined(__AVX512F__) && defined(__AVX512BW__)
/* Four words of rows i, i + 4, i + 8 and i + 12 from column d on. */
INLINE __m512i words_of(const struct rows *rows, int i, int d)
{
    __m512i v = _mm512_setzero_si512();
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(rows->x.words[i] + d)), 0);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(rows->x.words[i + 4] + d)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(rows->x.words[i + 8] + d)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(rows->x.words[i + 12] + d)), 3);
}

/* words_turn of PANEL rows; n_col is a multiple of four. */
static void panel_turn(const struct rows *rows, int n_col, uint32_t *to)
{
    for (int d = 0; d < n_col; d += 4, to += 4 * PANEL) {
        __m512i a = words_of(rows, 0, d), b = words_of(rows, 1, d);
        __m512i c = words_of(rows, 2, d), e = words_of(rows, 3, d);
        __m512i ab = _mm512_unpacklo_epi32(a, b), ce = _mm512_unpacklo_epi32(c, e);
        _mm512_storeu_si512(to, _mm512_unpacklo_epi64(ab, ce));
        _mm512_storeu_si512(to + PANEL, _mm512_unpackhi_epi64(ab, ce));
        ab = _mm512_unpackhi_epi32(a, b);
        ce = _mm512_unpackhi_epi32(c, e);
        _mm512_storeu_si512(to + 2 * PANEL, _mm512_unpacklo_epi64(ab, ce));
        _mm512_storeu_si512(to + 3 * PANEL, _mm512_unpackhi_epi64(ab, ce));
    }
}
#else
static void panel_turn(const struct rows *rows, int n_col, uint32_t *to)
{
    words_turn(rows, n_col, PANEL, to);
}
#endif

INLINE void bytes_turn(const struct rows *rows, int n_col, const int n, int8_t *to)
{
    for (int d = 0; d < n_col; d++, to += PANEL) {
        for (int i = 0; i < n; i++) {
            to[i] = rows->x.i8[i][d];
        }
    }
}

/* Rows of K: positions from `at` on, of one panel of a page. Pairs of bf16 stay together. */
static void write_k(const struct kv_layout *l, void *page, int at, const struct rows *rows)
{
    int pad = k_padded(l->d_head), n_col = l->dtype == DTYPE_BF16 ? pad / 2 : pad, n = rows->n;
    char *to = (char *)page + kv_element(l->dtype, pad, at, 0) * dtype_bytes(l->dtype);
    if (l->dtype == DTYPE_I8 && n == PANEL) {
        bytes_turn(rows, n_col, PANEL, (int8_t *)to);
    } else if (l->dtype == DTYPE_I8) {
        bytes_turn(rows, n_col, n, (int8_t *)to);
    } else if (n == PANEL) {
        panel_turn(rows, n_col, (uint32_t *)(void *)to);
    } else {
        words_turn(rows, n_col, n, (uint32_t *)(void *)to);
    }
}

/* Sixteen columns of the even or the odd k of a pair, which touch nothing of the other. */
INLINE void half_write(uint16_t *to, vec x)
{
    uint16_t h[LANES];
    v_store_bf16(h, x);
#if defined(__AVX512F__) && defined(__AVX512BW__)
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)h));
    _mm512_mask_storeu_epi16(to, 0x55555555u, wide);
#else
    for (int i = 0; i < PANEL; i++) {
        to[2 * i] = h[i];
    }
#endif
}

/* Sixteen columns of a row of V from d on, zeros behind d_head. */
INLINE vec v_columns(const struct kv_layout *l, const float *v, int d)
{
    int left = l->d_head - d;
    return left >= LANES ? v_load(v + d) : left > 0 ? v_load_n(v + d, left) : v_zero();
}

/* Rows of V as bf16: position `at` of a page and those behind it, two at once where they are a
 * pair, sixteen columns a panel. */
static void write_v_bf16(const struct kv_layout *l, uint16_t *page, int at, int n, const float *v,
                         size_t ldv)
{
    int pad = k_padded(l->d_head);
    for (int pair, end = at + n; at < end; at += 1 + pair, v += (size_t)(1 + pair) * ldv) {
        pair = at % 2 == 0 && at + 1 < end;
        for (int d = 0; d < pad; d += PANEL) {
            uint16_t *to = page + kv_element(DTYPE_BF16, KV_PAGE, d, at);
            if (pair) {
                v_store_pairs(to, v_columns(l, v, d), v_columns(l, v + ldv, d));
            } else {
                half_write(to, v_columns(l, v, d));
            }
        }
    }
}

/* The same of rows that are made already, f32 or integers. */
static void write_v(const struct kv_layout *l, void *page, int at, const struct rows *rows)
{
    int pad = k_padded(l->d_head);
    for (int i = 0; i < rows->n; i++) {
        for (int d = 0; d < pad; d += PANEL) {
            size_t to = kv_element(l->dtype, KV_PAGE, d, at + i);
            if (l->dtype == DTYPE_I8) {
                memcpy((int8_t *)page + to, rows->x.i8[i] + d, PANEL);
            } else {
                memcpy((float *)page + to, rows->x.words[i] + d, PANEL * sizeof(float));
            }
        }
    }
}

static void write_scales(const struct kv_layout *l, void *page, int at, const struct rows *rows)
{
    if (l->dtype == DTYPE_I8) {
        memcpy((char *)page + kv_scale_at(l) + (size_t)at * sizeof(float), rows->scale,
               (size_t)rows->n * sizeof(float));
    }
}

/* The panel of K that holds position `at` will be written. */
static void panel_ahead(const struct kv_layout *l, const void *page, int at)
{
    size_t size = dtype_bytes(l->dtype), bytes = (size_t)k_padded(l->d_head) * PANEL * size;
    const char *p = (const char *)page + (size_t)(at / PANEL) * bytes;
    for (size_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(p + i, 1);
    }
}

void LANES_NAME(kv_write)(const struct kv_layout *l, void *k_base, void *v_base, size_t page_stride,
                          const struct attn_span *span, const float *k, size_t ldk, const float *v,
                          size_t ldv)
{
    struct rows rows;
    int n_row = span->end - span->begin;
    for (int r = 0; r < n_row; r += rows.n) {
        int pos = span->pos + r, at = pos % KV_PAGE, left = PANEL - at % PANEL;
        rows.n = n_row - r < left ? n_row - r : left;
        for (int h = 0; h < l->n_kv_head; h++) {
            size_t to = kv_offset(l, page_stride, span->page, pos, h),
                   col = (size_t)(h * l->d_head);
            char *k_page = (char *)k_base + to, *v_page = (char *)v_base + to;
            if (h + 1 < l->n_kv_head) {
                panel_ahead(l, k_page + kv_head_bytes(l), at);
            }
            for (int i = 0; i < rows.n; i++) {
                row_make(l, k + (size_t)(r + i) * ldk + col, &rows, i);
            }
            write_k(l, k_page, at, &rows);
            write_scales(l, k_page, at, &rows);
            if (l->dtype == DTYPE_BF16) {
                write_v_bf16(l, (uint16_t *)(void *)v_page, at, rows.n, v + (size_t)r * ldv + col,
                             ldv);
                continue;
            }
            for (int i = 0; i < rows.n; i++) {
                row_make(l, v + (size_t)(r + i) * ldv + col, &rows, i);
            }
            write_v(l, v_page, at, &rows);
            write_scales(l, v_page, at, &rows);
        }
    }
}
