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
 * order of operations is the same. */
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

/* How one span is cut. Ranges half-open. */
struct cut {
    const struct attn_span *span;
    int n_row, tile_rows, n_tile; /* rows a tile, tiles */
    int split, n_split;           /* splits [split, split + n_split) hold all that its rows see */
    int spread;                   /* its splits are units and have slots */
    size_t slot;                  /* its first slot: [n_split, n_row, n_head] */
    int unit[2];                  /* units of each stage */
};

/* ---- the cut of a call ---- */

static int row_hi(const struct attn_span *s, int row)
{
    return s->pos + (row - s->begin) + 1;
}

static int row_lo(const struct attn *a, const struct attn_span *s, int row)
{
    int hi = row_hi(s, row);
    return a->window > 0 && hi > a->window ? hi - a->window : 0;
}

/* Items a pass takes at once: limited by the state that lies on the stack. */
static int tile_items(int d_head)
{
    int n = TILE_FLOATS / d_head;
    return n > TILE_ITEMS ? TILE_ITEMS : n < TILE_LEAST ? TILE_LEAST : n;
}

/* The cut of span i, given the slots taken by those before it. */
static struct cut cut_span(const struct attn *a, int i, size_t slot)
{
    const struct attn_span *s = &a->span[i];
    int rows = tile_items(a->kv.d_head) / (a->n_head / a->kv.n_kv_head);
    struct cut c = {.span = s, .n_row = s->end - s->begin, .slot = slot};
    if (c.n_row <= 0) {
        return c;
    }
    c.tile_rows = rows > 0 ? rows : 1;
    c.n_tile = (c.n_row + c.tile_rows - 1) / c.tile_rows;
    c.split = row_lo(a, s, s->begin) / KV_SPLIT;
    c.n_split = (row_hi(s, s->end - 1) - 1) / KV_SPLIT + 1 - c.split;
    c.unit[0] = c.n_tile * a->kv.n_kv_head;
    size_t slots = (size_t)c.n_split * (size_t)c.n_row * (size_t)a->n_head;
    if (c.n_split > 1 && c.unit[0] < SPREAD_BELOW && slot + slots <= SLOT_MAX) {
        c.spread = 1;
        c.unit[0] *= c.n_split;
        c.unit[1] = c.n_row * a->kv.n_kv_head;
    }
    return c;
}

static size_t cut_slots(const struct attn *a, const struct cut *c)
{
    return c->spread ? (size_t)c->n_split * (size_t)c->n_row * (size_t)a->n_head : 0;
}

/* Scratch: m, l of all slots, then o of all slots, each o on cache lines of its own. */
struct slots {
    float *ml; /* [n_slot, 2] */
    float *o;  /* [n_slot, d_pad] */
    size_t d_pad, bytes;
};

static struct slots slots_of(const struct attn *a)
{
    size_t n = 0;
    for (int i = 0; i < a->n_span; i++) {
        struct cut c = cut_span(a, i, n);
        n += cut_slots(a, &c);
    }
    struct slots s = {.d_pad = ((size_t)a->kv.d_head + LANES - 1) / LANES * LANES};
    size_t ml = (n * 2 + LANES - 1) / LANES * LANES;
    s.bytes = (ml + n * s.d_pad) * sizeof(float);
    s.ml = a->scratch;
    s.o = s.ml ? s.ml + ml : NULL;
    return s;
}

size_t LANES_NAME(attn_scratch_bytes)(const struct attn *a)
{
    return slots_of(a).bytes;
}

int LANES_NAME(attn_units)(const struct attn *a, int stage)
{
    int n = 0;
    size_t slot = 0;
    for (int i = 0; i < a->n_span; i++) {
        struct cut c = cut_span(a, i, slot);
        n += c.unit[stage];
        slot += cut_slots(a, &c);
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

/* Rows [row, row_end) and query heads [head, head_end) of one KV head: at most tile_items items. */
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

static size_t slot_of(const struct attn *a, const struct cut *c, int split, int row, int head)
{
    size_t at = (size_t)(split - c->split) * (size_t)c->n_row + (size_t)(row - c->span->begin);
    return c->slot + at * (size_t)a->n_head + (size_t)head;
}

static int sees(const struct attn_item *item, int split)
{
    return item->lo < (split + 1) * KV_SPLIT && item->hi > split * KV_SPLIT;
}

/* One split of a tile, to its slots. */
static void tile_spread(const struct attn *a, const struct cut *c, const struct slots *slots,
                        int split, const struct tile *t)
{
    struct attn_item item[TILE_ITEMS];
    int heads = t->head_end - t->head, n = tile_fill(a, c->span, t, item);
    for (int i = 0; i < n; i++) {
        size_t slot = slot_of(a, c, split, t->row + i / heads, t->head + i % heads);
        item[i].o = slots->o + slot * slots->d_pad;
    }
    split_pass(a, c->span, t->head / (a->n_head / a->kv.n_kv_head), split, item, n);
    for (int i = 0; i < n; i++) {
        size_t slot = slot_of(a, c, split, t->row + i / heads, t->head + i % heads);
        slots->ml[2 * slot] = item[i].m;
        slots->ml[2 * slot + 1] = item[i].l;
    }
}

/* All splits of a tile, to the output. */
static void tile_whole(const struct attn *a, const struct cut *c, const struct tile *t)
{
    float o[STATE_FLOATS], sum[STATE_FLOATS];
    struct attn_item item[TILE_ITEMS];
    struct total total[TILE_ITEMS];
    int heads = t->head_end - t->head, n = tile_fill(a, c->span, t, item), d_head = a->kv.d_head;
    for (int i = 0; i < n; i++) {
        item[i].o = o + i * d_head;
        total[i].o = sum + i * d_head;
        state_reset(&total[i].m, &total[i].l, total[i].o, d_head);
    }
    int split = row_lo(a, c->span, t->row) / KV_SPLIT, hi = row_hi(c->span, t->row_end - 1);
    for (; split * KV_SPLIT < hi; split++) {
        split_pass(a, c->span, t->head / (a->n_head / a->kv.n_kv_head), split, item, n);
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

/* Unit u of a span: [n_split if spread][n_kv_head][n_tile], so that neighbours share K and V. */
static void run_unit(const struct attn *a, const struct cut *c, const struct slots *slots, int u)
{
    int group = a->n_head / a->kv.n_kv_head, most = tile_items(a->kv.d_head);
    int at = u % c->n_tile, kv_head = u / c->n_tile % a->kv.n_kv_head;
    int split = c->split + u / c->n_tile / a->kv.n_kv_head, head_end = (kv_head + 1) * group;
    struct tile t = {.row = c->span->begin + at * c->tile_rows};
    t.row_end = t.row + c->tile_rows < c->span->end ? t.row + c->tile_rows : c->span->end;
    for (t.head = kv_head * group; t.head < head_end; t.head = t.head_end) {
        t.head_end = head_end - t.head > most ? t.head + most : head_end;
        if (c->spread) {
            tile_spread(a, c, slots, split, &t);
        } else {
            tile_whole(a, c, &t);
        }
    }
}

/* ---- stage 1 ---- */

/* Unit u of a spread span: one row and the query heads of one KV head. */
static void merge_unit(const struct attn *a, const struct cut *c, const struct slots *slots, int u)
{
    float o[LIMIT_D_HEAD];
    int group = a->n_head / a->kv.n_kv_head, row = c->span->begin + u / a->kv.n_kv_head;
    int first = row_lo(a, c->span, row) / KV_SPLIT;
    int last = (row_hi(c->span, row) - 1) / KV_SPLIT;
    for (int i = 0; i < group; i++) {
        int head = u % a->kv.n_kv_head * group + i;
        struct total t = {.o = o};
        state_reset(&t.m, &t.l, t.o, a->kv.d_head);
        for (int split = first; split <= last; split++) {
            size_t s = slot_of(a, c, split, row, head);
            merge(&t, slots->ml[2 * s], slots->ml[2 * s + 1], slots->o + s * slots->d_pad,
                  a->kv.d_head);
        }
        finish(a, row, head, &t);
    }
}

void LANES_NAME(attn)(const struct attn *a, int stage, int unit_begin, int unit_end)
{
    struct slots slots = slots_of(a);
    size_t slot = 0;
    int base = 0;
    for (int i = 0; i < a->n_span && base < unit_end; i++) {
        struct cut c = cut_span(a, i, slot);
        int begin = unit_begin > base ? unit_begin - base : 0;
        int end = unit_end - base < c.unit[stage] ? unit_end - base : c.unit[stage];
        for (int u = begin; u < end; u++) {
            if (stage == 0) {
                run_unit(a, &c, &slots, u);
            } else {
                merge_unit(a, &c, &slots, u);
            }
        }
        base += c.unit[stage];
        slot += cut_slots(a, &c);
    }
}
