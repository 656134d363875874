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
#include "kernels/cpu/lanes/attention_pass.h"
#include "kernels/cpu/lanes/attention_soft.h"
#include "kernels/cpu/lanes/attention_sum.h"
#if defined(LANES_TILES)
#include "kernels/cpu/amx/attention_tiles.h"
#endif

/* ---- products ---- */

static void lanes_scores(const struct pass *p, int i, const void *ahead)
{
    for (int k = 0; k < p->n_part; k++) {
        const struct part *part = &p->part[k];
        if (i < part->page || i >= part->page + part->n_page) {
            continue;
        }
        struct sum sum = {.x = (const float *)p->g->q + (size_t)part->item * p->g->ldq,
                          .ldx = p->g->ldq,
                          .n = part->n,
                          .dtype = p->dtype,
                          .w = p->s->k[i],
                          .panel = k_panel_bytes(p),
                          .n_panel = KV_PAGE / PANEL,
                          .n_block = p->d_pad / K_BLOCK,
                          .first = 1,
                          .c = p->score + (size_t)part->item * LD_SCORE + i * KV_PAGE,
                          .ldc = LD_SCORE,
                          .ahead = ahead};
        sum_lanes(&sum);
        ahead = NULL;
    }
}

static void scores(const struct pass *p)
{
    const struct attn_split *s = p->s;
    for (int i = 0; i < s->n_page; i++) {
        const void *ahead = i + 1 < s->n_page ? s->k[i + 1] : s->v[0];
#if defined(LANES_TILES)
        if (p->g->tiles) {
            tiles_scores(p, i, ahead);
            continue;
        }
#endif
        lanes_scores(p, i, ahead);
    }
}

static void lanes_values(const struct pass *p, const struct values *r, const struct part *part)
{
    for (int i = part->page; i < part->page + part->n_page; i++) {
        struct sum sum = {.x = p->score + (size_t)part->item * LD_SCORE + i * KV_PAGE,
                          .ldx = LD_SCORE,
                          .n = part->n,
                          .dtype = p->dtype,
                          .w = r->v[i],
                          .panel = v_panel_bytes(p),
                          .n_panel = r->n_panel,
                          .n_block = KV_PAGE / K_BLOCK,
                          .first = r->first && i == part->page,
                          .c = p->g->o + (size_t)part->item * p->g->ldo + r->panel * PANEL,
                          .ldc = p->g->ldo,
                          .ahead =
                              i + 1 < part->page + part->n_page ? (const char *)r->v[i + 1] : NULL};
        sum_lanes(&sum);
    }
}

static void values(const struct pass *p, const struct values *r)
{
#if defined(LANES_TILES)
    if (p->g->tiles) {
        tiles_values(p, r);
        return;
    }
#endif
    for (int k = 0; k < r->n_part; k++) {
        lanes_values(p, r, &r->part[k]);
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

static void values_apart(const struct pass *p, const struct part *part, int item)
{
    _Alignas(64) unsigned char copy[KV_PAGE * PANEL * sizeof(float)];
    const unsigned char *v[SPLIT_PAGES] = {copy, copy, copy, copy, copy, copy, copy, copy};
    for (int i = 0; i < part->n_page * p->n_panel; i++) {
        int panel = i % p->n_panel, page = part->page + i / p->n_panel;
        int pos = p->s->pos + page * KV_PAGE;
        struct part one = {item, 1, page, 1};
        struct values r = {&one, 1, panel, 1, v, page == part->page};
        panel_copy(p->s->v[page] + (size_t)panel * v_panel_bytes(p), p->dtype, p->g->lo[item] - pos,
                   p->g->hi[item] - pos, copy);
        values(p, &r);
    }
}

/* ---- the pass ---- */

/* The items from `item` on and the pages that they see. */
static struct part part_of(const struct attn_split *s, const struct attn_group *g, int item)
{
    struct part t = {.item = item, .n = g->n - item < PART_ITEMS ? g->n - item : PART_ITEMS};
    int lo = g->lo[item] - s->pos, hi = g->hi[item + t.n - 1] - s->pos;
    int end = (hi + KV_PAGE - 1) / KV_PAGE;
    t.page = lo > 0 ? lo / KV_PAGE : 0;
    end = end < s->n_page ? end : s->n_page;
    t.n_page = end > t.page ? end - t.page : 0;
    return t;
}

void LANES_NAME(attn_split)(const struct attn *a, const struct attn_split *s,
                            const struct attn_group *g)
{
    _Alignas(64) float score[(ATTN_GROUP + LANES) * LD_SCORE]; /* read in tiles */
    struct pass p = {.a = a,
                     .s = s,
                     .g = g,
                     .dtype = a->kv.dtype,
                     .d_pad = k_padded(a->kv.d_head),
                     .n_panel = (a->kv.d_head + PANEL - 1) / PANEL,
                     .score = score};
    for (int item = 0; item < g->n; item += PART_ITEMS) {
        p.part[p.n_part++] = part_of(s, g, item);
    }
    scores(&p);
    for (int k = 0; k < p.n_part; k++) {
        softmax_part(&p, &p.part[k]);
    }
    if (zeros_are_safe(&p)) {
        struct values all = {p.part, p.n_part, 0, p.n_panel, s->v, 1};
        values(&p, &all);
        return;
    }
    for (int item = 0; item < g->n; item++) {
        values_apart(&p, &p.part[item / PART_ITEMS], item);
    }
}
