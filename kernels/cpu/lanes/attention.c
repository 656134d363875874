/* attention: softmax(scale q K^T) V over a paged KV cache, for any mixture of rows: prompts in
 * chunks, single tokens of many sequences, one token of a very long one.
 *
 * For each row and query head, with [lo, hi) the positions it may see:
 *     the range is cut at multiples of KV_SPLIT absolute positions; each piece s gives
 *         (m_s, l_s, o_s)                  (attention_split.c)
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
#if defined(LANES_TILES)
#include "kernels/cpu/amx/tile.h"
#endif

#define TILE_ITEMS   ATTN_GROUP
#define TILE_LEAST   16                          /* however wide the head */
#define TILE_FLOATS  (TILE_LEAST * LIMIT_D_HEAD) /* of q, and of o */
#define SPREAD_BELOW 64 /* a span with fewer units than this spreads its splits */
/* Slots of scratch at most; spans beyond it stay whole. It bounds the scratch of any call. */
#define SLOT_MAX ((size_t)1 << 17)
/* The fewest items that use the tile unit. One row of a tile costs as much as sixteen, and i8 is
 * widened first, so a few go by lanes; a unit that is a numerics class of its own computes all. */
#if defined(LANES_TILES) && LANES_TILES == 1
#define TILES_FROM    1
#define TILES_FROM_I8 1
#else
#define TILES_FROM    4
#define TILES_FROM_I8 5
#endif

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
    c.items = TILE_FLOATS / k_padded(a->kv.d_head) / TILE_LEAST * TILE_LEAST;
    c.items = c.items > TILE_ITEMS ? TILE_ITEMS : c.items;
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

/* ---- merge and output ---- */

/* The running total of an item over its splits. */
struct total {
    float m, l;
    float *o; /* [d_head] */
};

/* What sixteen items merge with: their totals' factors and those of their pieces. */
struct factors {
    float top[LANES], a[LANES], b[LANES], l[LANES];
};

/* The factors of n totals (m, l) and pieces (m_s, l_s). */
static void factors_of(const float *m, const float *l, const float *m_s, const float *l_s, int n,
                       struct factors *f)
{
    vec all = v_load_n(m, n), piece = v_load_n(m_s, n), top = v_max(all, piece);
    vec a = v_exp(v_sub(all, top)), b = v_exp(v_sub(piece, top));
    v_store(f->top, top);
    v_store(f->a, a);
    v_store(f->b, b);
    v_store(f->l, v_fma(v_load_n(l, n), a, v_mul(v_load_n(l_s, n), b)));
}

static void merge_values(float *total, const float *o, float a, float b, int d_head)
{
    vec va = v_set1(a), vb = v_set1(b);
    for (int d = 0; d < d_head; d += LANES) {
        int c = t_count((size_t)d, (size_t)d_head);
        /* A zero has no sign: it depends on the pages a neighbour sees. */
        vec add = v_mul(v_add(t_load_f32(o + d, c), v_zero()), vb);
        t_store_f32(total + d, v_fma(t_load_f32(total + d, c), va, add), c);
    }
}

static void merge(struct total *t, float m, float l, const float *o, int d_head)
{
    struct factors f;
    factors_of(&t->m, &t->l, &m, &l, 1, &f);
    merge_values(t->o, o, f.a[0], f.b[0], d_head);
    t->m = f.top[0];
    t->l = f.l[0];
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
        /* A zero has no sign here either: the first split comes as it is. */
        vec o = v_add(t_load_f32(t->o + d, c), v_zero());
        t_store(a->out, a->out_dtype, at + d, v_div(o, l), c);
    }
    if (head == a->n_head - 1) {
        size_t pad = (size_t)k_padded((int)((size_t)a->n_head * d_head));
        t_zero(a->out, a->out_dtype, at + d_head,
               (size_t)row * a->ldo + (pad < a->ldo ? pad : a->ldo));
    }
}

/* ---- stage 0 ---- */

/* Rows [row, row_end) and query heads [head, head_end) of one KV head: at most call.items items,
 * and what they need on the way. Rows of o, and of q where it is f32, are a line more than the head
 * apart, so that they do not share the sets of the cache. */
struct work {
    int row, row_end, head, head_end;
    int n, tiles;
    size_t ld;
    int lo[TILE_ITEMS], hi[TILE_ITEMS];
    float m[TILE_ITEMS], l[TILE_ITEMS];             /* of a split */
    float total_m[TILE_ITEMS], total_l[TILE_ITEMS]; /* of those before */
    _Alignas(64) float q[TILE_FLOATS + TILE_ITEMS * LANES];
    float o[2 * TILE_FLOATS];       /* of a split, and fifteen rows more */
    float total_o[2 * TILE_FLOATS]; /* the same */
};

/* Query i as the lanes take it, and as tiles do. */
static void query_lanes(const struct attn *a, struct work *t, int i, const float *q)
{
    size_t d_head = (size_t)a->kv.d_head, pad = (size_t)k_padded(a->kv.d_head);
    for (size_t d = 0; d < pad; d += LANES) {
        vec x = d < d_head ? t_load_f32(q + d, t_count(d, d_head)) : v_zero();
        if (a->kv.dtype != DTYPE_F32) {
            uint16_t h[LANES];
            v_store_bf16(h, x);
            x = v_load_bf16(h);
        }
        v_store(t->q + (size_t)i * t->ld + d, x);
    }
}

#if defined(LANES_TILES)
static void query_tiles(const struct attn *a, struct work *t, int i, const float *q)
{
    size_t d_head = (size_t)a->kv.d_head, pad = (size_t)k_padded(a->kv.d_head);
    size_t tile = (size_t)(i / TILE_DIM) * TILE_DIM * pad, row = (size_t)(i % TILE_DIM) * K_BLOCK;
    uint16_t *out = (uint16_t *)(void *)t->q + tile + row;
    for (size_t d = 0; d < pad; d += LANES) {
        vec x = d < d_head ? t_load_f32(q + d, t_count(d, d_head)) : v_zero();
        v_store_bf16(out + d / K_BLOCK * TILE_DIM * K_BLOCK + d % K_BLOCK, x);
    }
}
#endif

/* Where query i lies. */
static const float *query_at(const struct attn *a, const struct work *t, int i)
{
    int heads = t->head_end - t->head, head = t->head + i % heads;
    return a->q + (size_t)(t->row + i / heads) * a->ldq + (size_t)(head * a->kv.d_head);
}

#define QUERIES_AHEAD 8
static void tile_fill(const struct attn *a, const struct attn_span *s, struct work *t)
{
    int heads = t->head_end - t->head;
    t->n = (t->row_end - t->row) * heads;
    t->ld = (size_t)k_padded(a->kv.d_head) + LANES;
#if defined(LANES_TILES)
    t->tiles =
        a->kv.dtype != DTYPE_F32 && t->n >= (a->kv.dtype == DTYPE_I8 ? TILES_FROM_I8 : TILES_FROM);
#else
    t->tiles = 0;
#endif
    for (int i = 0; i < t->n; i++) {
        t->lo[i] = row_lo(a, s, t->row + i / heads);
        t->hi[i] = row_hi(s, t->row + i / heads);
        if (i + QUERIES_AHEAD < t->n) {
            const float *ahead = query_at(a, t, i + QUERIES_AHEAD);
            for (int d = 0; d < a->kv.d_head; d += LANES) {
                __builtin_prefetch(ahead + d);
            }
        }
#if defined(LANES_TILES)
        if (t->tiles) {
            query_tiles(a, t, i, query_at(a, t, i));
            continue;
        }
#endif
        query_lanes(a, t, i, query_at(a, t, i));
    }
}

/* The slot of a row, head and split: o [d_head], and m, l on its last line. */
static float *slot_of(const struct call *call, const struct cut *c, int split, int row, int head)
{
    size_t at = (size_t)(split - c->split) * (size_t)c->n_row + (size_t)(row - c->span->begin);
    at = c->slot + at * (size_t)call->a->n_head + (size_t)head;
    return (float *)call->a->scratch + at * call->slot_floats;
}

static int sees(const struct work *t, int item, int split)
{
    return t->lo[item] < (split + 1) * KV_SPLIT && t->hi[item] > split * KV_SPLIT;
}

/* The pages of a split that hold [lo, hi), as the KV head sees them. */
static struct attn_split split_of(const struct attn *a, const struct attn_span *span, int kv_head,
                                  int split, int lo, int hi)
{
    int begin = split * KV_SPLIT, end = begin + KV_SPLIT;
    struct attn_split s = {.pos = (lo > begin ? lo : begin) / KV_PAGE * KV_PAGE};
    for (int pos = s.pos; pos < (hi < end ? hi : end); pos += KV_PAGE, s.n_page++) {
        size_t at = kv_offset(&a->kv, a->kv_page_stride, span->page, pos, kv_head);
        s.k[s.n_page] = (const unsigned char *)a->k_base + at;
        s.v[s.n_page] = (const unsigned char *)a->v_base + at;
    }
    return s;
}

static void slot_write(const struct call *call, float *slot, const struct work *t, int item,
                       const float *o)
{
    float *ml = slot + call->slot_floats - LANES;
    memcpy(slot, o, (size_t)call->a->kv.d_head * sizeof *o);
    ml[0] = t->m[item];
    ml[1] = t->l[item];
}

/* A split's pieces into the totals of the items that see it. */
static void tile_merge(const struct attn *a, int split, struct work *t)
{
    for (int begin = 0; begin < t->n; begin += LANES) {
        int n = t->n - begin < LANES ? t->n - begin : LANES;
        struct factors f;
        factors_of(t->total_m + begin, t->total_l + begin, t->m + begin, t->l + begin, n, &f);
        for (int k = 0; k < n; k++) {
            int i = begin + k;
            if (sees(t, i, split)) {
                merge_values(t->total_o + (size_t)i * t->ld, t->o + (size_t)i * t->ld, f.a[k],
                             f.b[k], a->kv.d_head);
                t->total_m[i] = f.top[k];
                t->total_l[i] = f.l[k];
            }
        }
    }
}

/* What one split gives a tile. */
static void tile_pass(const struct call *call, const struct cut *c, int split, const struct work *t,
                      float *m, float *l, float *o)
{
    const struct attn *a = call->a;
    struct attn_group g = {.n = t->n,
                           .tiles = t->tiles,
                           .q = t->q,
                           .ldq = t->ld,
                           .lo = t->lo,
                           .hi = t->hi,
                           .m = m,
                           .l = l,
                           .o = o,
                           .ldo = t->ld};
    struct attn_split s =
        split_of(a, c->span, t->head / call->group, split, t->lo[0], t->hi[t->n - 1]);
    LANES_NAME(attn_split)(a, &s, &g);
}

/* One split of a tile: to its slots, or merged into its totals. */
static void tile_split(const struct call *call, const struct cut *c, int split, struct work *t)
{
    int heads = t->head_end - t->head;
    if (!sees(t, 0, split) && !sees(t, t->n - 1, split)) {
        return;
    }
    tile_pass(call, c, split, t, t->m, t->l, t->o);
    for (int i = 0; c->n_slot > 0 && i < t->n; i++) {
        if (sees(t, i, split)) {
            slot_write(call, slot_of(call, c, split, t->row + i / heads, t->head + i % heads), t, i,
                       t->o + (size_t)i * t->ld);
        }
    }
    if (c->n_slot == 0) {
        tile_merge(call->a, split, t);
    }
}

/* The totals before split `split`, or with it: what all see first is the total as it is, since a
 * merge with nothing changes no bit but the sign of a zero. Returns the next split. */
static int tile_first(const struct call *call, const struct cut *c, int split, struct work *t)
{
    if (sees(t, 0, split) && sees(t, t->n - 1, split)) {
        tile_pass(call, c, split, t, t->total_m, t->total_l, t->total_o);
        return split + 1;
    }
    for (int i = 0; i < t->n; i++) {
        state_reset(&t->total_m[i], &t->total_l[i], t->total_o + (size_t)i * t->ld,
                    call->a->kv.d_head);
    }
    return split;
}

/* All splits of a tile, to the output. */
static void tile_whole(const struct call *call, const struct cut *c, struct work *t)
{
    const struct attn *a = call->a;
    int heads = t->head_end - t->head, hi = row_hi(c->span, t->row_end - 1);
    int split = tile_first(call, c, t->lo[0] / KV_SPLIT, t);
    for (; split * KV_SPLIT < hi; split++) {
        tile_split(call, c, split, t);
    }
    for (int i = 0; i < t->n; i++) {
        struct total total = {t->total_m[i], t->total_l[i], t->total_o + (size_t)i * t->ld};
        finish(a, t->row + i / heads, t->head + i % heads, &total);
    }
}

/* Unit u of a span: [n_split if it spreads][n_kv_head][n_tile], so that neighbours share K and V.
 */
static void run_unit(const struct call *call, const struct cut *c, int u)
{
    int n_kv_head = call->a->kv.n_kv_head, kv_head = u / c->n_tile % n_kv_head;
    int split = c->split + u / c->n_tile / n_kv_head, head_end = (kv_head + 1) * call->group;
    struct work t;
    t.row = c->span->begin + u % c->n_tile * call->tile_rows;
    t.row_end = t.row + call->tile_rows < c->span->end ? t.row + call->tile_rows : c->span->end;
    for (t.head = kv_head * call->group; t.head < head_end; t.head = t.head_end) {
        t.head_end = head_end - t.head > call->items ? t.head + call->items : head_end;
        tile_fill(call->a, c->span, &t);
        if (c->n_slot > 0) {
            tile_split(call, c, split, &t);
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
#if defined(LANES_TILES)
    tile_open();
#endif
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
#if defined(LANES_TILES)
    tile_close();
#endif
}
