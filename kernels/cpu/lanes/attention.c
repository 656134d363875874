/* attention: softmax(scale q K^T) V over a paged KV cache, for any mixture of rows: prompts in
 * chunks, single tokens of many sequences, one token of a very long one.
 *
 * For each row and query head, with [lo, hi) the positions it may see:
 *     the range is cut at multiples of KV_SPLIT absolute positions; each piece s gives
 *         (m_s, l_s, o_s)                  page by page, ascending (attention_page.c)
 *     pieces are merged ascending, from M = -inf, L = 0, O = 0:
 *         N = max(M, m); a = exp(M - N); b = exp(m - N)
 *         L = fma(L, a, l * b);  O = fma(O, a, o * b);  M = N
 *     a sink joins M and L as a score whose value is zero;  out = O / L.
 *
 * None of it depends on what shares the call, so a row has the same bits alone, in a tile, in any
 * chunking of its prompt and on any number of threads.
 *
 * A unit is a tile of rows of one span, and one KV head. A span with few of these (decode) spreads
 * its splits over units too (stage 0 writes each (m, l, o) to scratch, stage 1 merges); a span with
 * many (prefill) goes through its splits within the unit and needs no scratch and no stage 1. The
 * order of operations is the same.
 *
 * PRECOND: n_head % n_kv_head == 0; 1 <= d_head <= LIMIT_D_HEAD; scratch 64-byte aligned. */
#include "kernels/cpu/lanes/attention.h"
#include "base/limits.h"
#include "kernels/cpu/lanes/tail.h"
#include "kernels/cpu/lanes/vmath.h"
#include <math.h>

#define TILE_ITEMS   24   /* four groups of six share a page while it is in the first cache */
#define TILE_FLOATS  3072 /* their o: 12 KiB, beside the page */
#define TILE_LEAST   6    /* one group, however wide the head */
#define STATE_FLOATS (TILE_LEAST * LIMIT_D_HEAD)
#define SPREAD_BELOW 64 /* a span with fewer units than this spreads its splits */
/* Slots of scratch at most; spans beyond it stay whole. It bounds the scratch of any call. */
#define SLOT_MAX ((size_t)1 << 17)

/* What all spans of a call share. */
struct call {
    const struct attn *a;
    int group;          /* query heads a KV head */
    int items;          /* a pass takes at once: limited by the state that lies on the stack */
    int tile_rows;      /* rows a tile */
    size_t slot_floats; /* o, padded to lines of its own, then m and l on one more */
};

/* How one span is cut. Ranges half-open. */
struct cut {
    const struct attn_span *span;
    int n_row, n_tile;
    int split, n_split; /* splits [split, split + n_split) hold all that its rows see */
    int unit[2];        /* units of each stage */
    size_t slot;        /* its first slot, if it spreads its splits: [n_split, n_row, n_head] */
    size_t n_slot;      /* 0: its splits stay within the unit */
};

/* ---- the cut of a call ---- */

static struct call call_of(const struct attn *a)
{
    struct call c = {.a = a, .group = a->n_head / a->kv.n_kv_head};
    c.items = TILE_FLOATS / a->kv.d_head;
    c.items = c.items > TILE_ITEMS ? TILE_ITEMS : c.items < TILE_LEAST ? TILE_LEAST : c.items;
    c.tile_rows = c.items > c.group ? c.items / c.group : 1;
    c.slot_floats = ((size_t)a->kv.d_head + LANES - 1) / LANES * LANES + LANES;
    return c;
}

static int row_hi(const struct attn_span *s, int row)
{
    return s->pos + (row - s->begin) + 1;
}

static int row_lo(const struct attn *a, const struct attn_span *s, int row)
{
    int hi = row_hi(s, row);
    return a->window > 0 && hi > a->window ? hi - a->window : 0;
}

/* The cut of span i, given the slots taken by those before it. */
static struct cut cut_span(const struct call *call, int i, size_t slot)
{
    const struct attn *a = call->a;
    const struct attn_span *s = &a->span[i];
    struct cut c = {.span = s, .n_row = s->end - s->begin, .n_tile = 1, .slot = slot};
    if (c.n_row <= 0) {
        return c;
    }
    if (c.n_row > 1) {
        c.n_tile = (c.n_row + call->tile_rows - 1) / call->tile_rows;
    }
    c.split = row_lo(a, s, s->begin) / KV_SPLIT;
    c.n_split = (row_hi(s, s->end - 1) - 1) / KV_SPLIT + 1 - c.split;
    c.unit[0] = c.n_tile * a->kv.n_kv_head;
    size_t n_slot = (size_t)c.n_split * (size_t)c.n_row * (size_t)a->n_head;
    if (c.n_split > 1 && c.unit[0] < SPREAD_BELOW && slot + n_slot <= SLOT_MAX) {
        c.n_slot = n_slot;
        c.unit[0] *= c.n_split;
        c.unit[1] = c.n_row * a->kv.n_kv_head;
    }
    return c;
}

size_t LANES_NAME(attn_scratch_bytes)(const struct attn *a)
{
    struct call call = call_of(a);
    size_t slot = 0;
    for (int i = 0; i < a->n_span; i++) {
        slot += cut_span(&call, i, slot).n_slot;
    }
    return slot * call.slot_floats * sizeof(float);
}

int LANES_NAME(attn_units)(const struct attn *a, int stage)
{
    struct call call = call_of(a);
    int n = 0;
    size_t slot = 0;
    for (int i = 0; i < a->n_span; i++) {
        struct cut c = cut_span(&call, i, slot);
        n += c.unit[stage];
        slot += c.n_slot;
    }
    return n;
}

/* ---- one split ---- */

static void state_reset(float *m, float *l, float *o, int d_head)
{
    *m = -INFINITY;
    *l = 0.0f;
    memset(o, 0, (size_t)d_head * sizeof *o);
}

static const void *kv_of(const struct attn *a, const void *base, const struct attn_span *span,
                         int pos, int kv_head)
{
    return (const char *)base + kv_offset(&a->kv, a->kv_page_stride, span->page, pos, kv_head);
}

/* Fills m, l and o of items [0, n) of KV head `kv_head` from the positions of one split. */
static void split_pass(const struct attn *a, const struct attn_span *span, int kv_head, int split,
                       struct attn_item *item, int n)
{
    int lo = item[0].lo, hi = item[n - 1].hi, end = (split + 1) * KV_SPLIT;
    int page = (lo > split * KV_SPLIT ? lo : split * KV_SPLIT) / KV_PAGE;
    hi = hi < end ? hi : end;
    for (int i = 0; i < n; i++) {
        state_reset(&item[i].m, &item[i].l, item[i].o, a->kv.d_head);
    }
    for (int pos = page * KV_PAGE; pos < hi; pos += KV_PAGE) {
        struct attn_page p = {.pos = pos};
        p.k = kv_of(a, a->k_base, span, pos, kv_head);
        p.v = kv_of(a, a->v_base, span, pos, kv_head);
        p.next_k = pos + KV_PAGE < hi ? kv_of(a, a->k_base, span, pos + KV_PAGE, kv_head) : NULL;
        LANES_NAME(attn_page)(a, &p, item, n);
    }
}

/* ---- merge and output ---- */

static float exp_of(float x)
{
    float e[LANES];
    v_store(e, v_exp(v_set1(x)));
    return e[0];
}

/* The running total of an item over its splits. */
struct total {
    float m, l;
    float *o; /* [d_head] */
};

static void merge(struct total *t, float m, float l, const float *o, int d_head)
{
    float top = t->m > m ? t->m : m;
    float a = exp_of(t->m - top), b = exp_of(m - top);
    vec va = v_set1(a), vb = v_set1(b);
    for (int d = 0; d < d_head; d += LANES) {
        int c = t_count((size_t)d, (size_t)d_head);
        vec add = v_mul(t_load_f32(o + d, c), vb);
        t_store_f32(t->o + d, v_fma(t_load_f32(t->o + d, c), va, add), c);
    }
    float lb[LANES];
    v_store(lb, v_fma(v_set1(t->l), va, v_mul(v_set1(l), vb)));
    t->l = lb[0];
    t->m = top;
}

/* Sink, division, and the head's place in the row; the last head also zeroes what follows up to the
 * next matmul's k, where the row has room for it. */
static void finish(const struct attn *a, int row, int head, struct total *t)
{
    size_t d_head = (size_t)a->kv.d_head, at = (size_t)row * a->ldo + (size_t)head * d_head;
    if (a->sink) {
        static const float nothing[LIMIT_D_HEAD];
        merge(t, a->sink[head], 1.0f, nothing, a->kv.d_head);
    }
    vec l = v_set1(t->l);
    for (size_t d = 0; d < d_head; d += LANES) {
        int c = t_count(d, d_head);
        t_store(a->out, a->out_dtype, at + d, v_div(t_load_f32(t->o + d, c), l), c);
    }
    if (head == a->n_head - 1) {
        size_t pad = (size_t)k_padded((int)((size_t)a->n_head * d_head));
        t_zero(a->out, a->out_dtype, at + d_head,
               (size_t)row * a->ldo + (pad < a->ldo ? pad : a->ldo));
    }
}

/* ---- stage 0 ---- */

/* Rows [row, row_end) and query heads [head, head_end) of one KV head: at most call.items items. */
struct tile {
    int row, row_end, head, head_end;
};

static int tile_fill(const struct attn *a, const struct attn_span *s, const struct tile *t,
                     struct attn_item *item)
{
    int n = 0;
    for (int row = t->row; row < t->row_end; row++) {
        for (int head = t->head; head < t->head_end; head++, n++) {
            item[n].q = a->q + (size_t)row * a->ldq + (size_t)head * (size_t)a->kv.d_head;
            item[n].lo = row_lo(a, s, row);
            item[n].hi = row_hi(s, row);
        }
    }
    return n;
}

/* The slot of a row, head and split: o [d_head], and m, l on its last line. */
static float *slot_of(const struct call *call, const struct cut *c, int split, int row, int head)
{
    size_t at = (size_t)(split - c->split) * (size_t)c->n_row + (size_t)(row - c->span->begin);
    at = c->slot + at * (size_t)call->a->n_head + (size_t)head;
    return (float *)call->a->scratch + at * call->slot_floats;
}

static int sees(const struct attn_item *item, int split)
{
    return item->lo < (split + 1) * KV_SPLIT && item->hi > split * KV_SPLIT;
}

/* One split of a tile, to its slots. */
static void tile_spread(const struct call *call, const struct cut *c, int split,
                        const struct tile *t)
{
    const struct attn *a = call->a;
    struct attn_item item[TILE_ITEMS];
    int heads = t->head_end - t->head, n = tile_fill(a, c->span, t, item);
    for (int i = 0; i < n; i++) {
        item[i].o = slot_of(call, c, split, t->row + i / heads, t->head + i % heads);
    }
    split_pass(a, c->span, t->head / call->group, split, item, n);
    for (int i = 0; i < n; i++) {
        float *ml = item[i].o + call->slot_floats - LANES;
        ml[0] = item[i].m;
        ml[1] = item[i].l;
    }
}

/* All splits of a tile, to the output. */
static void tile_whole(const struct call *call, const struct cut *c, const struct tile *t)
{
    float o[STATE_FLOATS], sum[STATE_FLOATS];
    struct attn_item item[TILE_ITEMS];
    struct total total[TILE_ITEMS];
    const struct attn *a = call->a;
    int heads = t->head_end - t->head, n = tile_fill(a, c->span, t, item), d_head = a->kv.d_head;
    for (int i = 0; i < n; i++) {
        item[i].o = o + i * d_head;
        total[i].o = sum + i * d_head;
        state_reset(&total[i].m, &total[i].l, total[i].o, d_head);
    }
    int split = row_lo(a, c->span, t->row) / KV_SPLIT, hi = row_hi(c->span, t->row_end - 1);
    for (; split * KV_SPLIT < hi; split++) {
        split_pass(a, c->span, t->head / call->group, split, item, n);
        for (int i = 0; i < n; i++) {
            if (sees(&item[i], split)) {
                merge(&total[i], item[i].m, item[i].l, item[i].o, d_head);
            }
        }
    }
    for (int i = 0; i < n; i++) {
        finish(a, t->row + i / heads, t->head + i % heads, &total[i]);
    }
}

/* Unit u of a span: [n_split if it spreads][n_kv_head][n_tile], so that neighbours share K and V.
 */
static void run_unit(const struct call *call, const struct cut *c, int u)
{
    int n_kv_head = call->a->kv.n_kv_head, kv_head = u / c->n_tile % n_kv_head;
    int split = c->split + u / c->n_tile / n_kv_head, head_end = (kv_head + 1) * call->group;
    struct tile t = {.row = c->span->begin + u % c->n_tile * call->tile_rows};
    t.row_end = t.row + call->tile_rows < c->span->end ? t.row + call->tile_rows : c->span->end;
    for (t.head = kv_head * call->group; t.head < head_end; t.head = t.head_end) {
        t.head_end = head_end - t.head > call->items ? t.head + call->items : head_end;
        if (c->n_slot > 0) {
            tile_spread(call, c, split, &t);
        } else {
            tile_whole(call, c, &t);
        }
    }
}

/* ---- stage 1 ---- */

/* Unit u of a span that spreads: one row and the query heads of one KV head. */
static void merge_unit(const struct call *call, const struct cut *c, int u)
{
    const struct attn *a = call->a;
    float o[LIMIT_D_HEAD];
    int row = c->span->begin + u / a->kv.n_kv_head, head = u % a->kv.n_kv_head * call->group;
    int first = row_lo(a, c->span, row) / KV_SPLIT;
    int last = (row_hi(c->span, row) - 1) / KV_SPLIT;
    for (int end = head + call->group; head < end; head++) {
        struct total t = {.o = o};
        state_reset(&t.m, &t.l, t.o, a->kv.d_head);
        for (int split = first; split <= last; split++) {
            const float *slot = slot_of(call, c, split, row, head);
            const float *ml = slot + call->slot_floats - LANES;
            merge(&t, ml[0], ml[1], slot, a->kv.d_head);
        }
        finish(a, row, head, &t);
    }
}

void LANES_NAME(attn)(const struct attn *a, int stage, int unit_begin, int unit_end)
{
    struct call call = call_of(a);
    size_t slot = 0;
    int base = 0;
    for (int i = 0; i < a->n_span && base < unit_end; i++) {
        struct cut c = cut_span(&call, i, slot);
        int end = unit_end - base < c.unit[stage] ? unit_end - base : c.unit[stage];
        for (int u = unit_begin > base ? unit_begin - base : 0; u < end; u++) {
            if (stage == 0) {
                run_unit(&call, &c, u);
            } else {
                merge_unit(&call, &c, u);
            }
        }
        base += c.unit[stage];
        slot += c.n_slot;
    }
}
