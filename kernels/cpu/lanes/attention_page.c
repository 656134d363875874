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

/* e of a group over a page: [GROUP][KV_PAGE]. */
typedef float page_row[KV_PAGE];

INLINE vec load_kv(const void *p, int bf16, size_t i)
{
    return bf16 ? v_load_bf16((const uint16_t *)p + i) : v_load((const float *)p + i);
}

/* What all groups of a page share. In decode each byte of KV is used once or a few times and the
 * pass would wait for memory, were not the next on its way: the first group fetches V while it uses
 * K, and the next page's K while it uses V. */
struct pass {
    const void *k, *v;
    const void *ahead_k, *ahead_v; /* NULL: nothing to fetch */
    int d_head, bf16;
};

/* Elements [i, i + n) of what is ahead; spread over the steps, since a burst would only queue. */
INLINE void fetch(const void *ahead, const int bf16, size_t i, const int n)
{
    if (ahead) {
        const char *p = (const char *)ahead + i * (bf16 ? 2 : 4);
        for (int b = 0; b < n * (bf16 ? 2 : 4); b += 64) {
            __builtin_prefetch(p + b);
        }
    }
}

/* ---- scores ---- */

/* Positions [at, at + 16 WIDE) of n items. */
INLINE void score_block(const int n, const int bf16, const struct pass *p,
                        const struct attn_item *item, page_row *s, int at)
{
    vec acc[GROUP][WIDE];
    const float *q[GROUP];
    for (int i = 0; i < n; i++) {
        q[i] = item[i].q;
        for (int w = 0; w < WIDE; w++) {
            acc[i][w] = v_zero();
        }
    }
    for (int d = 0; d < p->d_head; d++) {
        vec x[WIDE];
        fetch(p->ahead_v, bf16, (size_t)(at * p->d_head + d * WIDE * LANES), WIDE * LANES);
        for (int w = 0; w < WIDE; w++) {
            x[w] = load_kv(p->k, bf16, (size_t)d * KV_PAGE + (size_t)(at + w * LANES));
        }
        for (int i = 0; i < n; i++) {
            vec b = v_set1(q[i][d]);
            for (int w = 0; w < WIDE; w++) {
                acc[i][w] = v_fma(b, x[w], acc[i][w]);
            }
        }
    }
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < WIDE; w++) {
            v_store(&s[i][at + w * LANES], acc[i][w]);
        }
    }
}

INLINE void score_group(const int n, const int bf16, const struct pass *p,
                        const struct attn_item *item, page_row *s)
{
    for (int at = 0; at < KV_PAGE; at += WIDE * LANES) {
        score_block(n, bf16, p, item, s, at);
    }
}

/* ---- softmax over the page ---- */

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

/* ---- values ---- */

/* Positions [lo, hi) of a page. */
struct range {
    int lo, hi;
};

/* Columns [d, d + 16 w_n) of o += sum over j in [lo, hi) of e[j] v[j]. */
INLINE void value_block(const int n, const int w_n, const int bf16, const struct pass *p,
                        const struct attn_item *item, page_row *e, struct range r, int d)
{
    vec acc[GROUP][WIDE];
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < w_n; w++) {
            acc[i][w] = v_load(item[i].o + d + w * LANES);
        }
    }
    for (int j = r.lo; j < r.hi; j++) {
        vec x[WIDE];
        fetch(p->ahead_k, bf16, (size_t)(d * KV_PAGE + j * w_n * LANES), w_n * LANES);
        for (int w = 0; w < w_n; w++) {
            x[w] = load_kv(p->v, bf16, (size_t)j * (size_t)p->d_head + (size_t)(d + w * LANES));
        }
        for (int i = 0; i < n; i++) {
            vec b = v_set1(e[i][j]);
            for (int w = 0; w < w_n; w++) {
                acc[i][w] = v_fma(b, x[w], acc[i][w]);
            }
        }
    }
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < w_n; w++) {
            v_store(item[i].o + d + w * LANES, acc[i][w]);
        }
    }
}

/* The last d_head % 16 columns: their lanes are loaded one row at a time, so that nothing behind
 * the last row of a page is read. */
static void value_tail(int n, const struct pass *p, const struct attn_item *item, page_row *e,
                       struct range r, int d)
{
    vec acc[GROUP];
    int c = p->d_head - d;
    for (int i = 0; i < n; i++) {
        acc[i] = v_load_n(item[i].o + d, c);
    }
    for (int j = r.lo; j < r.hi; j++) {
        size_t at = (size_t)j * (size_t)p->d_head + (size_t)d;
        vec x = t_load(p->v, p->bf16 ? DTYPE_BF16 : DTYPE_F32, at, c);
        for (int i = 0; i < n; i++) {
            acc[i] = v_fma(v_set1(e[i][j]), x, acc[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        v_store_n(item[i].o + d, acc[i], c);
    }
}

INLINE void value_group(const int n, const int bf16, const struct pass *p,
                        const struct attn_item *item, page_row *e, struct range r)
{
    int d = 0;
    for (; d + WIDE * LANES <= p->d_head; d += WIDE * LANES) {
        value_block(n, WIDE, bf16, p, item, e, r, d);
    }
    for (; d + LANES <= p->d_head; d += LANES) {
        value_block(n, 1, bf16, p, item, e, r, d);
    }
    if (d < p->d_head) {
        value_tail(n, p, item, e, r, d);
    }
}

/* ---- groups ---- */

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

static void scores(int n, const struct pass *p, const struct attn_item *item, page_row *s)
{
#define SCORE(N) p->bf16 ? score_group(N, 1, p, item, s) : score_group(N, 0, p, item, s)
    EACH_GROUP(n, SCORE)
}

static void values(int n, const struct pass *p, const struct attn_item *item, page_row *e,
                   struct range r)
{
#define VALUE(N) p->bf16 ? value_group(N, 1, p, item, e, r) : value_group(N, 0, p, item, e, r)
    if (r.lo < r.hi) {
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
static void group_pass(const struct attn *a, const struct pass *p, int pos, struct attn_item *item,
                       int n)
{
    page_row s[GROUP];
    struct range own[GROUP], all = {0, KV_PAGE};
    scores(n, p, item, s);
    for (int i = 0; i < n; i++) {
        own[i].lo = at_least(item[i].lo - pos, 0);
        own[i].hi = at_most(item[i].hi - pos, KV_PAGE);
        all.lo = at_least(all.lo, own[i].lo);
        all.hi = at_most(all.hi, own[i].hi);
        page_softmax(a, &item[i], s[i], own[i].lo, own[i].hi);
    }
    if (all.lo > all.hi) {
        all.lo = all.hi = KV_PAGE;
    }
    for (int i = 0; i < n; i++) {
        struct range before = {own[i].lo, at_most(all.lo, own[i].hi)};
        values(1, p, &item[i], &s[i], before);
    }
    values(n, p, item, s, all);
    for (int i = 0; i < n; i++) {
        struct range after = {all.hi, own[i].hi};
        values(1, p, &item[i], &s[i], after);
    }
}

void LANES_NAME(attn_page)(const struct attn *a, const struct attn_page *page,
                           struct attn_item *item, int n)
{
    struct pass p = {.k = page->k,
                     .v = page->v,
                     .ahead_k = page->next_k,
                     .ahead_v = page->v,
                     .d_head = a->kv.d_head,
                     .bf16 = a->kv.dtype == DTYPE_BF16};
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
        group_pass(a, &p, page->pos, item, take);
        p.ahead_k = p.ahead_v = NULL;
        item += take;
        n -= take;
    }
}
