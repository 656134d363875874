/* attention_split: up to 512 positions of one KV head against a group of query heads.
 *
 *     s[j] = scale * THE SUM of q and k[j]       (times k's scale first, where KV is i8)
 *     s[j] = cap * tanh(s[j] / cap)              where there is a cap
 *     m    = max_j s[j]                          j in the item's range only
 *     e[j] = exp(s[j] - m); 0 outside the range
 *     l    = sum of e[j]                         lane j % 16 of sum j / 16 % 4, j ascending; then
 *                                                ((0 + 1) + (2 + 3)) and v_sum's tree
 *     o    = THE SUM over j of p[j] and v[j]     p = bf16(e), or bf16(e times v's scale), or e in
 * f32
 *
 * with q rounded to bf16 unless KV is f32, and o's sum over whole pages, from the split's first to
 * its last: pages an item does not see add zeros, so it does not matter how many of them there are.
 * (Softmax by pieces that are merged: Milakov and Gimelshein 2018, Dao et al. 2022; a piece is a
 * whole split here, so that within it nothing is scaled twice.) This is the whole definition for an
 * item; nothing in it knows how many items there are.
 *
 * What lies outside an item's range may be a NaN or another row's future, and zero times NaN is not
 * zero. So V of pages that some item sees in part is looked through; in the rare case that it holds
 * something that is not finite, each item gets a copy of its own, without what it does not see.
 *
 * Roof: in decode the bytes of KV; in prefill 4 * d_head FLOP an item and position, on tiles beside
 * one exp for each. */
#include "kernels/cpu/lanes/attention.h"
#include "kernels/cpu/lanes/attention_sum.h"
#include "kernels/cpu/lanes/vmath.h"
#include <math.h>
#if defined(LANES_TILES)
#include "kernels/cpu/amx/attention_tiles.h"
#endif

/* Rows of scores are not a power of two apart: they would share the sets of the cache. */
#define LD_SCORE (KV_SPLIT + LANES)
#define LD_P     (KV_SPLIT + 2 * LANES)

/* One group at one split. */
struct pass {
    const struct attn *a;
    const struct attn_split *s;
    const struct attn_group *g;
    enum dtype dtype;
    int d_pad, n_panel; /* panels of V's columns */
    float *score;       /* [n, LD_SCORE]; then p of lanes, in place */
    uint16_t *p;        /* [n, LD_P], of tiles */
};

static size_t v_panel_bytes(const struct pass *p)
{
    return KV_PAGE * PANEL * dtype_bytes(p->dtype);
}

static size_t k_panel_bytes(const struct pass *p)
{
    return (size_t)p->d_pad * PANEL * dtype_bytes(p->dtype);
}

/* ---- products ---- */

static void scores(const struct pass *p)
{
    const struct attn_split *s = p->s;
    for (int i = 0; i < s->n_page; i++) {
        const void *ahead = i + 1 < s->n_page ? s->k[i + 1] : s->v[0];
#if defined(LANES_TILES)
        if (p->g->tiles) {
            struct tiles t = {.a = p->g->q,
                              .lda = p->g->ldq,
                              .n_part = 1,
                              .n_block = p->d_pad / K_BLOCK,
                              .first = 1,
                              .c = p->score + i * KV_PAGE,
                              .ldc = LD_SCORE,
                              .ahead = p->g->n <= LANES ? ahead : NULL};
            tiles_panels(&t, p->g->n, p->dtype, &s->k[i], k_panel_bytes(p), KV_PAGE / PANEL);
            continue;
        }
#endif
        struct sum sum = {.x = p->g->q,
                          .ldx = p->g->ldq,
                          .n = p->g->n,
                          .dtype = p->dtype,
                          .w = s->k[i],
                          .panel = k_panel_bytes(p),
                          .n_panel = KV_PAGE / PANEL,
                          .n_block = p->d_pad / K_BLOCK,
                          .first = 1,
                          .c = p->score + i * KV_PAGE,
                          .ldc = LD_SCORE,
                          .ahead = ahead};
        sum_lanes(&sum);
    }
}

/* Items [item, item + n) of o, panels [panel, panel + n_panel), (+)= p times pages [page, page +
 * n_page), whose panels v points at. */
struct value_range {
    int item, n, panel, n_panel, page, n_page;
};

static void value_product(const struct pass *p, const struct value_range *r,
                          const unsigned char *const *v, int first)
{
    float *o = p->g->o + (size_t)r->item * p->g->ldo + (size_t)r->panel * PANEL;
#if defined(LANES_TILES)
    if (p->g->tiles) {
        struct tiles t = {.a = p->p + (size_t)r->item * LD_P + r->page * KV_PAGE,
                          .lda = LD_P,
                          .n_part = r->n_page,
                          .n_block = KV_PAGE / K_BLOCK,
                          .first = first,
                          .c = o,
                          .ldc = p->g->ldo};
        tiles_panels(&t, r->n, p->dtype, v, v_panel_bytes(p), r->n_panel);
        return;
    }
#endif
    for (int i = 0; i < r->n_page; i++) {
        struct sum sum = {.x = p->score + (size_t)r->item * LD_SCORE + (r->page + i) * KV_PAGE,
                          .ldx = LD_SCORE,
                          .n = r->n,
                          .dtype = p->dtype,
                          .w = v[i],
                          .panel = v_panel_bytes(p),
                          .n_panel = r->n_panel,
                          .n_block = KV_PAGE / K_BLOCK,
                          .first = first && i == 0,
                          .c = o,
                          .ldc = p->g->ldo,
                          .ahead = i + 1 < r->n_page ? (const char *)v[i + 1] : NULL};
        sum_lanes(&sum);
    }
}

/* ---- softmax ---- */

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

/* The largest lane; of what NaN does to it nothing depends, since e is NaN then. */
INLINE float soft_lane(vec a)
{
#if defined(__AVX512F__) && defined(__AVX512BW__)
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a),
                             _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
#else
    return v_max_lane(a);
#endif
}

/* What a pass makes of scores, as constants after inlining. */
struct soft_kind {
    int f32, i8, capped, tiles;
};

/* A row's scores, and its range within the pages. */
struct soft {
    vec scale, cap;
    int lo, hi;
    float *s;    /* [n_vec * LANES]; then p, unless it goes to the tile unit */
    uint16_t *p; /* the tile unit's */
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

/* Products to scores, of vector w; a vector at an edge of the range is `cut`. */
INLINE vec soft_score(const struct soft *f, const struct soft_kind kind, int w, const int cut)
{
    vec x = v_load(f->s + w * LANES);
    if (kind.i8) {
        x = v_mul(x, scale_of(f, f->pass->s->k, w));
    }
    x = v_mul(x, f->scale);
    if (kind.capped) {
        x = v_mul(f->cap, v_tanh(v_div(x, f->cap)));
    }
    x = cut ? keep_range(f, w, x, v_set1(-INFINITY)) : x;
    v_store(f->s + w * LANES, x);
    return x;
}

/* Scores to p, of vector w; returns e. */
INLINE vec soft_exp(const struct soft *f, const struct soft_kind kind, int w, vec top,
                    const int cut)
{
    vec x = v_sub(v_load(f->s + w * LANES), top), e = kind.f32 ? v_exp(x) : v_exp_soft(x);
    e = cut ? keep_range(f, w, e, v_zero()) : e;
    vec p = e;
    if (kind.i8) {
        p = v_mul(e, scale_of(f, f->pass->s->v, w));
        p = cut ? keep_range(f, w, p, v_zero()) : p;
    }
    if (kind.tiles) {
        v_store_bf16(f->p + w * LANES, p);
    } else if (kind.f32) {
        v_store(f->s + w * LANES, p);
    } else {
        uint16_t h[LANES];
        v_store_bf16(h, p);
        v_store(f->s + w * LANES, v_load_bf16(h));
    }
    return e;
}

/* Zeros in elements [from, to) of p. */
static void p_zero(const struct pass *p, int row, int from, int to)
{
    if (p->g->tiles) {
        memset(p->p + (size_t)row * LD_P + from, 0, (size_t)(to - from) * sizeof *p->p);
    } else {
        memset(p->score + (size_t)row * LD_SCORE + from, 0, (size_t)(to - from) * sizeof(float));
    }
}

/* Pages that the row sees whole go four vectors at a time; the first and the last may be cut. */
#define SOFT_WIDE (KV_PAGE / LANES)
INLINE float soft_top(const struct soft *f, const struct soft_kind kind, int begin, int end)
{
    vec top[SOFT_WIDE] = {v_set1(-INFINITY), v_set1(-INFINITY), v_set1(-INFINITY),
                          v_set1(-INFINITY)};
    for (int w = begin; w < end; w += SOFT_WIDE) {
        int cut = w * LANES < f->lo || (w + SOFT_WIDE) * LANES > f->hi;
        if (cut) {
            for (int i = 0; i < SOFT_WIDE; i++) {
                top[i] = v_max(top[i], soft_score(f, kind, w + i, 1));
            }
        } else {
#pragma GCC unroll 4
            for (int i = 0; i < SOFT_WIDE; i++) {
                top[i] = v_max(top[i], soft_score(f, kind, w + i, 0));
            }
        }
    }
    return soft_lane(v_max(v_max(top[0], top[1]), v_max(top[2], top[3])));
}

INLINE float soft_sum(const struct soft *f, const struct soft_kind kind, int begin, int end,
                      float m)
{
    vec sum[SOFT_WIDE] = {v_zero(), v_zero(), v_zero(), v_zero()}, top = v_set1(m);
    for (int w = begin; w < end; w += SOFT_WIDE) {
        int cut = w * LANES < f->lo || (w + SOFT_WIDE) * LANES > f->hi;
        if (cut) {
            for (int i = 0; i < SOFT_WIDE; i++) {
                sum[i] = v_add(sum[i], soft_exp(f, kind, w + i, top, 1));
            }
        } else {
#pragma GCC unroll 4
            for (int i = 0; i < SOFT_WIDE; i++) {
                sum[i] = v_add(sum[i], soft_exp(f, kind, w + i, top, 0));
            }
        }
    }
    return v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
}

INLINE void softmax_row(const struct pass *p, int row, const struct soft_kind kind)
{
    const struct attn_group *g = p->g;
    int n = p->s->n_page * KV_PAGE, lo = g->lo[row] - p->s->pos, hi = g->hi[row] - p->s->pos;
    struct soft f = {.scale = v_set1(p->a->scale),
                     .cap = v_set1(p->a->softcap),
                     .lo = lo > 0 ? lo : 0,
                     .hi = hi < n ? hi : n,
                     .s = p->score + (size_t)row * LD_SCORE,
                     .p = p->p + (size_t)row * LD_P,
                     .pass = p};
    if (f.lo >= f.hi) {
        g->m[row] = -INFINITY;
        g->l[row] = 0.0f;
        p_zero(p, row, 0, n);
        return;
    }
    int begin = f.lo / KV_PAGE, end = (f.hi + KV_PAGE - 1) / KV_PAGE;
    g->m[row] = soft_top(&f, kind, begin * SOFT_WIDE, end * SOFT_WIDE);
    g->l[row] = soft_sum(&f, kind, begin * SOFT_WIDE, end * SOFT_WIDE, g->m[row]);
    p_zero(p, row, 0, begin * KV_PAGE);
    p_zero(p, row, end * KV_PAGE, n);
}

#define SOFT_ROWS(f32, i8, capped, tiles)                                                          \
    for (int row = 0; row < p->g->n; row++) {                                                      \
        const struct soft_kind kind = {f32, i8, capped, tiles};                                    \
        softmax_row(p, row, kind);                                                                 \
    }

static void softmax_f32(const struct pass *p, int capped)
{
    SOFT_ROWS(1, 0, capped, 0)
}

static void softmax_i8(const struct pass *p, int capped)
{
    SOFT_ROWS(0, 1, capped, p->g->tiles)
}

static void softmax_capped(const struct pass *p)
{
    SOFT_ROWS(0, 0, 1, p->g->tiles)
}

static void softmax_bf16(const struct pass *p)
{
    if (p->g->tiles) {
        SOFT_ROWS(0, 0, 0, 1)
    } else {
        SOFT_ROWS(0, 0, 0, 0)
    }
}

static void softmax_rows(const struct pass *p)
{
    int capped = p->a->softcap != 0.0f;
    if (p->dtype == DTYPE_F32) {
        softmax_f32(p, capped);
    } else if (p->dtype == DTYPE_I8) {
        softmax_i8(p, capped);
    } else if (capped) {
        softmax_capped(p);
    } else {
        softmax_bf16(p);
    }
    for (int row = p->g->n; p->g->tiles && row % LANES != 0; row++) {
        p_zero(p, row, 0, p->s->n_page * KV_PAGE);
    }
}

/* ---- values ---- */

/* Whether n floats or bf16 are finite, all of them. */
static int all_finite(const void *v, enum dtype dtype, size_t n)
{
    const uint32_t *u = v;
    size_t words = n * dtype_bytes(dtype) / sizeof *u;
    uint32_t bad = 0;
    if (dtype == DTYPE_BF16) {
        for (size_t i = 0; i < words; i++) {
            bad |= (uint32_t)((u[i] & 0x7f80u) == 0x7f80u);
            bad |= (uint32_t)((u[i] & 0x7f800000u) == 0x7f800000u);
        }
    } else {
        for (size_t i = 0; i < words; i++) {
            bad |= (uint32_t)((u[i] & 0x7f800000u) == 0x7f800000u);
        }
    }
    return !bad;
}

/* Whether zeros of p may meet V: integers are always finite. */
static int zeros_are_safe(const struct pass *p)
{
    const struct attn_group *g = p->g;
    for (int i = 0; i < p->s->n_page && p->dtype != DTYPE_I8; i++) {
        int pos = p->s->pos + i * KV_PAGE;
        int seen = g->lo[g->n - 1] <= pos && g->hi[0] >= pos + KV_PAGE;
        size_t n = (size_t)p->n_panel * PANEL * KV_PAGE;
        if (!seen && !all_finite(p->s->v[i], p->dtype, n)) {
            return 0;
        }
    }
    return 1;
}

/* A panel of V with zeros at positions outside [lo, hi) of its page. */
static void panel_copy(const unsigned char *v, enum dtype dtype, int lo, int hi, unsigned char *out)
{
    size_t size = dtype_bytes(dtype);
    memcpy(out, v, KV_PAGE * PANEL * size);
    for (int k = 0; k < KV_PAGE; k++) {
        for (int col = 0; (k < lo || k >= hi) && col < PANEL; col++) {
            memset(out + kv_element(dtype, KV_PAGE, col, k) * size, 0, size);
        }
    }
}

static void values_apart(const struct pass *p)
{
    _Alignas(64) unsigned char copy[KV_PAGE * PANEL * sizeof(float)];
    for (int i = 0; i < p->s->n_page * p->g->n * p->n_panel; i++) {
        int panel = i % p->n_panel, page = i / p->n_panel % p->s->n_page;
        int item = i / p->n_panel / p->s->n_page, pos = p->s->pos + page * KV_PAGE;
        struct value_range r = {item, 1, panel, 1, page, 1};
        const unsigned char *v = copy;
        panel_copy(p->s->v[page] + (size_t)panel * v_panel_bytes(p), p->dtype, p->g->lo[item] - pos,
                   p->g->hi[item] - pos, copy);
        value_product(p, &r, &v, page == 0);
    }
}

void LANES_NAME(attn_split)(const struct attn *a, const struct attn_split *s,
                            const struct attn_group *g)
{
    _Alignas(64) float score[ATTN_GROUP * LD_SCORE];
    struct pass p = {.a = a,
                     .s = s,
                     .g = g,
                     .dtype = a->kv.dtype,
                     .d_pad = k_padded(a->kv.d_head),
                     .n_panel = (a->kv.d_head + PANEL - 1) / PANEL,
                     .score = score};
#if defined(LANES_TILES)
    _Alignas(64) uint16_t tiles_p[(ATTN_GROUP + LANES) * LD_P]; /* read in tiles */
    p.p = tiles_p;
#endif
    scores(&p);
    softmax_rows(&p);
    if (zeros_are_safe(&p)) {
        struct value_range all = {0, g->n, 0, p.n_panel, 0, s->n_page};
        value_product(&p, &all, s->v, 1);
    } else {
        values_apart(&p);
    }
}
