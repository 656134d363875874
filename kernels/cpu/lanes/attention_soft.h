/* attention_soft: softmax between the two products of a pass: scores to weights and, for each item,
 * the largest score and the sum of the weights; the definition is in attention_split.c. A row is
 * read twice: for its largest score, and for the weights. Roof: an exp for each item and position.
 */
#ifndef KERNELS_CPU_LANES_ATTENTION_SOFT_H
#define KERNELS_CPU_LANES_ATTENTION_SOFT_H

#include "kernels/cpu/lanes/attention_pass.h"
#include "kernels/cpu/lanes/vmath.h"
#include <math.h>

/* e^x for x <= 0, of which eight bits are kept: x = n ln2 + r, |r| <= ln2 / 2, a polynomial in r
 * within 2^-17.5 (a minimax fit) and 2^n. n + 127 lies in the last bits of t, whose unit is one. x
 * below -87 counts as -87; a NaN stays. */
#define SOFT_LO   -87.0f
#define SOFT_UNIT (0x1.8p23f + 127.0f)
#define SOFT_LN2  0x1.62e43p-1f
#define SOFT_P2   0x1.0006b4p-1f
#define SOFT_P3   0x1.571caap-3f
#define SOFT_P4   0x1.5225b6p-5f
INLINE vec v_exponent(vec t)
{
#if defined(__AVX512F__) && defined(__AVX512BW__)
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23));
#elif defined(__AVX2__) && defined(__FMA__)
    return v_make(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t.a), 23)),
                  _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t.b), 23)));
#else
    return (vec)((vec_bits)t << 23);
#endif
}
INLINE vec v_exp_soft(vec x)
{
    x = v_max(v_set1(SOFT_LO), x);
    vec t = v_fma(x, v_set1(LOG2_E), v_set1(SOFT_UNIT)), n = v_sub(t, v_set1(SOFT_UNIT));
    vec r = v_fma(n, v_set1(-SOFT_LN2), x);
    vec p = v_fma(v_set1(SOFT_P4), r, v_set1(SOFT_P3));
    p = v_fma(p, r, v_set1(SOFT_P2));
    p = v_fma(p, r, v_set1(1.0f));
    p = v_fma(p, r, v_set1(1.0f));
    return v_mul(p, v_exponent(t));
}

/* What a pass makes of scores, as constants after inlining. */
struct soft_kind {
    int f32, i8, capped, tiles;
    int rising; /* the scale is positive and nothing else is done to products */
};

/* A row's scores, and its range within the pages. */
struct soft {
    vec scale, cap;
    int lo, hi;
    float *s; /* [n_page * KV_PAGE]; then p, in place */
    const struct pass *pass;
};

/* Lanes of vector w that lie in [lo, hi) keep x, the others get `other`. */
INLINE vec keep_range(const struct soft *f, int w, vec x, vec other)
{
    const float ramp[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vec at = v_add(v_load(ramp), v_set1((float)(w * LANES)));
    x = v_select_gt(v_set1((float)f->hi), at, x, other);
    return v_select_gt(at, v_set1((float)f->lo - 0.5f), x, other);
}

INLINE vec scale_of(const struct soft *f, const unsigned char *const *base, int w)
{
    const int per_page = KV_PAGE / LANES;
    const unsigned char *scale = base[w / per_page] + kv_scale_at(&f->pass->a->kv);
    return v_load((const float *)(const void *)scale + w % per_page * LANES);
}

/* Products to scores, of vector w. */
INLINE vec soft_score(const struct soft *f, const struct soft_kind kind, int w)
{
    vec x = v_load(f->s + w * LANES);
    if (kind.i8) {
        x = v_mul(x, scale_of(f, f->pass->s->k, w));
    }
    x = v_mul(x, f->scale);
    if (kind.capped) {
        x = v_mul(f->cap, v_tanh(v_div(x, f->cap)));
    }
    return x;
}

/* Pages that the row sees whole go four vectors at a time; the first and the last may be cut. */
#define SOFT_WIDE (KV_PAGE / LANES)

/* The largest scores of a page, from vector w; of products, where their order is the same. Scores
 * with a cap are kept, others cost less to find again than to write. */
INLINE void soft_page_top(const struct soft *f, const struct soft_kind kind, int w, const int cut,
                          vec *top)
{
#pragma GCC unroll 4
    for (int i = 0; i < SOFT_WIDE; i++) {
        vec x = kind.rising ? v_load(f->s + (w + i) * LANES) : soft_score(f, kind, w + i);
        if (kind.capped) {
            v_store(f->s + (w + i) * LANES, x);
        }
        x = cut ? keep_range(f, w + i, x, v_set1(-INFINITY)) : x;
        top[i] = v_max(top[i], x);
    }
}

/* The weights of a page, from vector w, and their sums. What is written lies at or before what has
 * been read. */
INLINE void soft_page_exp(const struct soft *f, const struct soft_kind kind, int w, const int cut,
                          vec top, vec *sum)
{
    vec p[SOFT_WIDE];
#pragma GCC unroll 4
    for (int i = 0; i < SOFT_WIDE; i++) {
        vec x = kind.capped ? v_load(f->s + (w + i) * LANES) : soft_score(f, kind, w + i);
        vec e = kind.f32 ? v_exp(v_sub(x, top)) : v_exp_soft(v_sub(x, top));
        e = cut ? keep_range(f, w + i, e, v_zero()) : e;
        p[i] = e;
        if (kind.i8) {
            p[i] = v_mul(e, scale_of(f, f->pass->s->v, w + i));
            p[i] = cut ? keep_range(f, w + i, p[i], v_zero()) : p[i];
        }
        sum[i] = v_add(sum[i], e);
    }
#pragma GCC unroll 2
    for (int i = 0; i < SOFT_WIDE; i += 2) {
        uint16_t pair[2 * LANES];
        float *s = f->s + (w + i) * LANES;
        if (kind.tiles) {
            v_store_bf16_2((uint16_t *)(void *)f->s + (w + i) * LANES, p[i], p[i + 1]);
        } else if (kind.f32) {
            v_store(s, p[i]);
            v_store(s + LANES, p[i + 1]);
        } else {
            v_store_bf16_2(pair, p[i], p[i + 1]);
            v_store(s, v_load_bf16(pair));
            v_store(s + LANES, v_load_bf16(pair + LANES));
        }
    }
}

/* Zeros in elements [from, to) of a row of p. */
static void p_zero(const struct pass *p, int row, int from, int to)
{
    size_t size = p->g->tiles ? sizeof(uint16_t) : sizeof(float);
    memset((char *)(p->score + (size_t)row * LD_SCORE) + (size_t)from * size, 0,
           (size_t)(to - from) * size);
}

INLINE int soft_cut(const struct soft *f, int w)
{
    return w * LANES < f->lo || (w + SOFT_WIDE) * LANES > f->hi;
}

INLINE float soft_top(const struct soft *f, const struct soft_kind kind, int begin, int end)
{
    vec top[SOFT_WIDE] = {v_set1(-INFINITY), v_set1(-INFINITY), v_set1(-INFINITY),
                          v_set1(-INFINITY)};
    for (int w = begin; w < end; w += SOFT_WIDE) {
        if (soft_cut(f, w)) {
            soft_page_top(f, kind, w, 1, top);
        } else {
            soft_page_top(f, kind, w, 0, top);
        }
    }
    float m = v_max_lane(v_max(v_max(top[0], top[1]), v_max(top[2], top[3])));
    return kind.rising ? m * f->pass->a->scale : m;
}

INLINE float soft_exp(const struct soft *f, const struct soft_kind kind, int begin, int end,
                      float m)
{
    vec sum[SOFT_WIDE] = {v_zero(), v_zero(), v_zero(), v_zero()}, top = v_set1(m);
    for (int w = begin; w < end; w += SOFT_WIDE) {
        if (soft_cut(f, w)) {
            soft_page_exp(f, kind, w, 1, top, sum);
        } else {
            soft_page_exp(f, kind, w, 0, top, sum);
        }
    }
    return v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
}

/* A row's range within the pages of the split, empty or not. */
INLINE struct soft soft_of(const struct pass *p, int row)
{
    int n = p->s->n_page * KV_PAGE;
    int lo = p->g->lo[row] - p->s->pos, hi = p->g->hi[row] - p->s->pos;
    return (struct soft){.scale = v_set1(p->a->scale),
                         .cap = v_set1(p->a->softcap),
                         .lo = lo > 0 ? lo : 0,
                         .hi = hi < n ? hi : n,
                         .s = p->score + (size_t)row * LD_SCORE,
                         .pass = p};
}

INLINE void soft_row_top(const struct pass *p, int row, const struct soft_kind kind)
{
    struct soft f = soft_of(p, row);
    int begin = f.lo / KV_PAGE, end = (f.hi + KV_PAGE - 1) / KV_PAGE;
    p->g->m[row] = f.lo < f.hi ? soft_top(&f, kind, begin * SOFT_WIDE, end * SOFT_WIDE) : -INFINITY;
}

/* A row whose largest score is there, and whose part sees pages [page, page_end). */
INLINE void soft_row_exp(const struct pass *p, int row, int page, int page_end,
                         const struct soft_kind kind)
{
    const struct attn_group *g = p->g;
    struct soft f = soft_of(p, row);
    if (f.lo >= f.hi) {
        g->l[row] = 0.0f;
        p_zero(p, row, page * KV_PAGE, page_end * KV_PAGE);
        return;
    }
    int begin = f.lo / KV_PAGE, end = (f.hi + KV_PAGE - 1) / KV_PAGE;
    g->l[row] = soft_exp(&f, kind, begin * SOFT_WIDE, end * SOFT_WIDE, g->m[row]);
    p_zero(p, row, page * KV_PAGE, begin * KV_PAGE);
    p_zero(p, row, end * KV_PAGE, page_end * KV_PAGE);
}

/* A few rows' largest scores, then their weights: no row waits for its own, and all are still in
 * the first cache. */
#define SOFT_TURN 4
#define SOFT_ROWS(f32, i8, capped, tiles, rising)                                                  \
    const struct soft_kind kind = {f32, i8, capped, tiles, rising};                                \
    for (int row = t->item, end = row; row < t->item + t->n; row = end) {                          \
        end = row + SOFT_TURN < t->item + t->n ? row + SOFT_TURN : t->item + t->n;                 \
        for (int r = row; r < end; r++) {                                                          \
            soft_row_top(p, r, kind);                                                              \
        }                                                                                          \
        for (int r = row; r < end; r++) {                                                          \
            soft_row_exp(p, r, t->page, t->page + t->n_page, kind);                                \
        }                                                                                          \
    }

static void softmax_f32(const struct pass *p, const struct part *t, int capped)
{
    SOFT_ROWS(1, 0, capped, 0, 0)
}

static void softmax_i8(const struct pass *p, const struct part *t)
{
    if (p->g->tiles) {
        SOFT_ROWS(0, 1, 0, 1, 0)
    } else {
        SOFT_ROWS(0, 1, 0, 0, 0)
    }
}

static void softmax_capped(const struct pass *p, const struct part *t)
{
    SOFT_ROWS(0, p->dtype == DTYPE_I8, 1, p->g->tiles, 0)
}

static void softmax_bf16(const struct pass *p, const struct part *t)
{
    if (p->g->tiles && p->a->scale > 0.0f) {
        SOFT_ROWS(0, 0, 0, 1, 1)
    } else if (p->g->tiles) {
        SOFT_ROWS(0, 0, 0, 1, 0)
    } else {
        SOFT_ROWS(0, 0, 0, 0, 0)
    }
}

static void softmax_part(const struct pass *p, const struct part *t)
{
    int capped = p->a->softcap != 0.0f;
    if (p->dtype == DTYPE_F32) {
        softmax_f32(p, t, capped);
    } else if (capped) {
        softmax_capped(p, t);
    } else if (p->dtype == DTYPE_I8) {
        softmax_i8(p, t);
    } else {
        softmax_bf16(p, t);
    }
}

#endif
