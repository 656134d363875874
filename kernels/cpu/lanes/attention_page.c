/* attention_page: one page of 64 positions against a tile of query heads.
 *
 *     s[j] = scale * sum_d q[d] k[d][j]          d ascending by fma from 0, position j in a lane
 *     s[j] = cap * tanh(s[j] / cap)              where there is a cap
 *     M    = max(m, max_j s[j])                  j in the item's range only
 *     e[j] = exp(s[j] - M)
 *     l    = l * exp(m - M) + sum_j e[j]         lanes of ((e0 + e1) + (e2 + e3)), then v_sum's
 * tree o[d] = o[d] * exp(m - M), then fma(e[j], v[j][d], o[d]) for j ascending
 *
 * (online softmax: Milakov and Gimelshein 2018; by blocks: Dao et al. 2022.) This is the whole
 * definition for an item; nothing in it knows how many items there are. Items are taken in groups
 * that share each load of K and V, as many as the registers hold: 6 x 64 scores with AVX-512, 2 x
 * 32 with AVX2. A position outside an item's range is never multiplied, not even by zero, since
 * what lies there may be a NaN or another row's future.
 *
 * Roof: in decode 2 * 64 * d_head elements of KV a page, memory-bound; in prefill 4 * 64 * d_head
 * flops an item and page, FMA-bound. */
#include "kernels/cpu/lanes/attention.h"
#include "kernels/cpu/lanes/tail.h"
#include "kernels/cpu/lanes/vmath.h"
#include <math.h>

#if defined(__AVX512F__)
#define GROUP 6 /* items that share a load */
#define WIDE  4 /* lane vectors of positions, or of V's columns, at once */
#else
#define GROUP 2
#define WIDE  2
#endif
#define UNROLL _Pragma("GCC unroll 8")

/* e of a group over a page: [GROUP][KV_PAGE]. */
typedef float page_row[KV_PAGE];

INLINE vec load_kv(const void *p, int bf16, size_t i)
{
    return bf16 ? v_load_bf16((const uint16_t *)p + i) : v_load((const float *)p + i);
}

/* ---- scores
 * --------------------------------------------------------------------------------------- */

INLINE void score_block(const int n, const int bf16, const void *k, int d_head,
                        const struct attn_item *item, page_row *s, int at)
{
    vec acc[GROUP][WIDE];
    const float *q[GROUP];
    UNROLL for (int i = 0; i < n; i++)
    {
        q[i] = item[i].q;
        UNROLL for (int w = 0; w < WIDE; w++)
        {
            acc[i][w] = v_zero();
        }
    }
    for (int d = 0; d < d_head; d++) {
        vec x[WIDE];
        UNROLL for (int w = 0; w < WIDE; w++)
        {
            x[w] = load_kv(k, bf16, (size_t)d * KV_PAGE + (size_t)(at + w * LANES));
        }
        UNROLL for (int i = 0; i < n; i++)
        {
            vec b = v_set1(q[i][d]);
            UNROLL for (int w = 0; w < WIDE; w++)
            {
                acc[i][w] = v_fma(b, x[w], acc[i][w]);
            }
        }
    }
    UNROLL for (int i = 0; i < n; i++)
    {
        UNROLL for (int w = 0; w < WIDE; w++)
        {
            v_store(&s[i][at + w * LANES], acc[i][w]);
        }
    }
}

INLINE void score_group(const int n, const int bf16, const void *k, int d_head,
                        const struct attn_item *item, page_row *s)
{
    for (int at = 0; at < KV_PAGE; at += WIDE * LANES) {
        score_block(n, bf16, k, d_head, item, s, at);
    }
}

/* ---- softmax over the page
 * ------------------------------------------------------------------------ */

static void rescale(float *o, int d_head, float by)
{
    for (int d = 0; d < d_head; d++) {
        o[d] = o[d] * by;
    }
}

INLINE vec cap_score(vec s, float cap)
{
    vec c = v_set1(cap);
    return v_mul(c, v_tanh(v_div(s, c)));
}

/* Turns the products of an item into e, and moves its m, l and o to the new maximum. [lo, hi) is
 * its range within the page, not empty. */
static void page_softmax(const struct attn *a, struct attn_item *item, float *s, int lo, int hi)
{
    vec x[KV_PAGE / LANES], scale = v_set1(a->scale);
    for (int w = 0; w < KV_PAGE / LANES; w++) {
        x[w] = v_mul(v_load(s + w * LANES), scale);
        if (a->softcap != 0.0f) {
            x[w] = cap_score(x[w], a->softcap);
        }
    }
    if (lo > 0 || hi < KV_PAGE) {
        for (int w = 0; w < KV_PAGE / LANES; w++) {
            v_store(s + w * LANES, x[w]);
        }
        for (int j = 0; j < KV_PAGE; j++) {
            s[j] = j < lo || j >= hi ? -INFINITY : s[j];
        }
        for (int w = 0; w < KV_PAGE / LANES; w++) {
            x[w] = v_load(s + w * LANES);
        }
    }
    float top = v_max_lane(v_max(v_max(x[0], x[1]), v_max(x[2], x[3])));
    top = top > item->m ? top : item->m;
    for (int w = 0; w < KV_PAGE / LANES; w++) {
        x[w] = v_exp(v_sub(x[w], v_set1(top)));
        v_store(s + w * LANES, x[w]);
    }
    if (top != item->m) { /* else the factor is e^0, exactly one */
        float by[LANES];
        v_store(by, v_exp(v_set1(item->m - top)));
        item->l = item->l * by[0];
        rescale(item->o, a->kv.d_head, by[0]);
        item->m = top;
    }
    item->l = item->l + v_sum(v_add(v_add(x[0], x[1]), v_add(x[2], x[3])));
}

/* ---- values
 * --------------------------------------------------------------------------------------- */

/* Columns [d, d + 16 w) of o += sum over j in [lo, hi) of e[j] v[j]. */
INLINE void value_block(const int n, const int w_n, const int bf16, const void *v, int d_head,
                        const struct attn_item *item, page_row *e, int lo, int hi, int d)
{
    vec acc[GROUP][WIDE];
    UNROLL for (int i = 0; i < n; i++)
    {
        UNROLL for (int w = 0; w < w_n; w++)
        {
            acc[i][w] = v_load(item[i].o + d + w * LANES);
        }
    }
    for (int j = lo; j < hi; j++) {
        vec x[WIDE];
        UNROLL for (int w = 0; w < w_n; w++)
        {
            x[w] = load_kv(v, bf16, (size_t)j * (size_t)d_head + (size_t)(d + w * LANES));
        }
        UNROLL for (int i = 0; i < n; i++)
        {
            vec b = v_set1(e[i][j]);
            UNROLL for (int w = 0; w < w_n; w++)
            {
                acc[i][w] = v_fma(b, x[w], acc[i][w]);
            }
        }
    }
    UNROLL for (int i = 0; i < n; i++)
    {
        UNROLL for (int w = 0; w < w_n; w++)
        {
            v_store(item[i].o + d + w * LANES, acc[i][w]);
        }
    }
}

/* The last d_head % 16 columns: their lanes are loaded one row at a time, so that nothing behind
 * the last row of a page is read. */
static void value_tail(int n, int bf16, const void *v, int d_head, const struct attn_item *item,
                       page_row *e, int lo, int hi, int d)
{
    vec acc[GROUP];
    int c = d_head - d;
    for (int i = 0; i < n; i++) {
        acc[i] = v_load_n(item[i].o + d, c);
    }
    for (int j = lo; j < hi; j++) {
        size_t at = (size_t)j * (size_t)d_head + (size_t)d;
        vec x =
            bf16 ? t_load_bf16((const uint16_t *)v + at, c) : v_load_n((const float *)v + at, c);
        for (int i = 0; i < n; i++) {
            acc[i] = v_fma(v_set1(e[i][j]), x, acc[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        v_store_n(item[i].o + d, acc[i], c);
    }
}

INLINE void value_group(const int n, const int bf16, const void *v, int d_head,
                        const struct attn_item *item, page_row *e, int lo, int hi)
{
    int d = 0;
    for (; d + WIDE * LANES <= d_head; d += WIDE * LANES) {
        value_block(n, WIDE, bf16, v, d_head, item, e, lo, hi, d);
    }
    for (; d + LANES <= d_head; d += LANES) {
        value_block(n, 1, bf16, v, d_head, item, e, lo, hi, d);
    }
    if (d < d_head) {
        value_tail(n, bf16, v, d_head, item, e, lo, hi, d);
    }
}

/* ---- groups
 * --------------------------------------------------------------------------------------- */

/* The number of items is a constant within each case: accumulators live in registers only then. */
#define EACH_GROUP(n, call)                                                                        \
    switch (n) {                                                                                   \
    case 1:                                                                                        \
        call(1);                                                                                   \
        break;                                                                                     \
    case 2:                                                                                        \
        call(2);                                                                                   \
        break;                                                                                     \
        CASES_ABOVE_2(call)                                                                        \
    default:                                                                                       \
        break;                                                                                     \
    }
#if GROUP == 6
#define CASES_ABOVE_2(call)                                                                        \
    case 3:                                                                                        \
        call(3);                                                                                   \
        break;                                                                                     \
    case 4:                                                                                        \
        call(4);                                                                                   \
        break;                                                                                     \
    case 5:                                                                                        \
        call(5);                                                                                   \
        break;                                                                                     \
    case 6:                                                                                        \
        call(6);                                                                                   \
        break;
#else
#define CASES_ABOVE_2(call)
#endif

static void scores(int n, int bf16, const void *k, int d_head, const struct attn_item *item,
                   page_row *s)
{
#define SCORE(N)                                                                                   \
    bf16 ? score_group(N, 1, k, d_head, item, s) : score_group(N, 0, k, d_head, item, s)
    EACH_GROUP(n, SCORE)
}

static void values(int n, int bf16, const void *v, int d_head, const struct attn_item *item,
                   page_row *e, int lo, int hi)
{
#define VALUE(N)                                                                                   \
    bf16 ? value_group(N, 1, v, d_head, item, e, lo, hi)                                           \
         : value_group(N, 0, v, d_head, item, e, lo, hi)
    if (lo < hi) {
        EACH_GROUP(n, VALUE)
    }
}

static int at_least(int a, int b)
{
    return a > b ? a : b;
}

static int at_most(int a, int b)
{
    return a < b ? a : b;
}

/* Items [0, n) of one group, each of which sees some of the page. Where their ranges differ (the
 * diagonal of a prefill, the edge of a window) the positions common to all are taken together and
 * each item's own before and after them, so that an item still goes through its range ascending. */
static void group_pass(const struct attn *a, const struct attn_page *page, struct attn_item *item,
                       int n)
{
    page_row s[GROUP];
    int lo[GROUP], hi[GROUP], first = 0, last = KV_PAGE;
    int d_head = a->kv.d_head, bf16 = a->kv.dtype == DTYPE_BF16;
    scores(n, bf16, page->k, d_head, item, s);
    for (int i = 0; i < n; i++) {
        lo[i] = at_least(item[i].lo - page->pos, 0);
        hi[i] = at_most(item[i].hi - page->pos, KV_PAGE);
        first = at_least(first, lo[i]);
        last = at_most(last, hi[i]);
        page_softmax(a, &item[i], s[i], lo[i], hi[i]);
    }
    if (first > last) {
        first = last = KV_PAGE;
    }
    for (int i = 0; i < n; i++) {
        values(1, bf16, page->v, d_head, &item[i], &s[i], lo[i], at_most(first, hi[i]));
    }
    values(n, bf16, page->v, d_head, item, s, first, last);
    for (int i = 0; i < n; i++) {
        values(1, bf16, page->v, d_head, &item[i], &s[i], at_least(last, lo[i]), hi[i]);
    }
}

void LANES_NAME(attn_page)(const struct attn *a, const struct attn_page *page,
                           struct attn_item *item, int n)
{
    int end = page->pos + KV_PAGE;
    while (n > 0 && item[0].hi <= page->pos) {
        item++;
        n--;
    }
    while (n > 0 && item[n - 1].lo >= end) {
        n--;
    }
    /* Groups as equal as can be: eight heads are four and four, not six and two. */
    for (int group = (n + GROUP - 1) / GROUP; group > 0; group--) {
        int take = (n + group - 1) / group;
        group_pass(a, page, item, take);
        item += take;
        n -= take;
    }
}
