/* attention_tiles: THE SUM between the items of a pass and the panels of KV pages, on tile
 * registers. A part is two row tiles, which meet two panels, so each tile loaded is used twice; two
 * panels meet every part in turn, so that the later parts find them in the first cache, and i8 is
 * made bf16 once for all (exactly). A block of 32 k of a panel is a tile as it lies; queries lie as
 * tiles too, weights row by row. Included by kernels/cpu/lanes/attention_split.c. */
#ifndef KERNELS_ATTENTION_TILES_H
#define KERNELS_ATTENTION_TILES_H

#include "base/limits.h"
#include "kernels/cpu/amx/tile.h"
#include "kernels/cpu/lanes/attention_pass.h"

#define TILE_SIZE ((size_t)TILE_DIM * TILE_BYTES)
/* bf16 of two panels of i8: of K, a whole head deep; of V, a split deep. */
#define TILES_DEEP (LIMIT_D_HEAD > KV_SPLIT ? LIMIT_D_HEAD : KV_SPLIT)

/* Up to two panels: stretches of n_block tiles each. */
struct tile_panels {
    int cols, n_part, n_block;
    const unsigned char *b[SPLIT_PAGES];     /* stretches of the first panel */
    size_t panel;                            /* bytes to the second panel's */
    const unsigned char *ahead[SPLIT_PAGES]; /* what comes after each stretch, or NULL */
};

/* c [up to 32 rows, cols * PANEL] (+)= a times the stretches [part, part_end) of panels. */
struct tiles {
    const uint16_t *a; /* elements apart: rows, tiles of one row of tiles, rows of tiles */
    size_t lda, step, below;
    const struct tile_panels *w;
    int part, part_end;
    int first; /* c starts at zero */
    float *c;
    size_t ldc;
    int fetch; /* what comes after, meanwhile */
};

INLINE void tiles_fetch(const unsigned char *ahead, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 64) {
        __builtin_prefetch(ahead + at, 0, 2);
    }
}

INLINE void tiles_product(const struct tiles *t, const int rows, const int cols)
{
    TILE_REGISTERS;
    const struct tile_panels *w = t->w;
    size_t stride = t->ldc * sizeof *t->c, from = t->lda * sizeof *t->a;
    float *c0 = t->c, *c1 = t->c + TILE_DIM * t->ldc;
    const uint16_t *a0 = t->a, *a1 = t->a + t->below;
    if (t->first) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    } else {
        tile_load(0, c0, stride);
        if (cols == 2) {
            tile_load(1, c0 + PANEL, stride);
        }
        if (rows == 2) {
            tile_load(2, c1, stride);
        }
        if (rows == 2 && cols == 2) {
            tile_load(3, c1 + PANEL, stride);
        }
    }
    for (int p = t->part; p < t->part_end; p++) {
        const unsigned char *b = w->b[p], *ahead = t->fetch ? w->ahead[p] : NULL;
        for (int i = 0; i < w->n_block; i++, b += TILE_SIZE, a0 += t->step, a1 += t->step) {
            if (ahead) {
                tiles_fetch(ahead, (size_t)cols * TILE_SIZE);
                ahead += (size_t)cols * TILE_SIZE;
            }
            tile_load(4, a0, from);
            tile_load(6, b, TILE_BYTES);
            tile_dp(0, 4, 6);
            if (cols == 2) {
                tile_load(7, b + w->panel, TILE_BYTES);
                tile_dp(1, 4, 7);
            }
            if (rows == 2) {
                tile_load(5, a1, from);
                tile_dp(2, 5, 6);
            }
            if (rows == 2 && cols == 2) {
                tile_dp(3, 5, 7);
            }
        }
    }
    tile_store(0, c0, stride);
    if (cols == 2) {
        tile_store(1, c0 + PANEL, stride);
    }
    if (rows == 2) {
        tile_store(2, c1, stride);
    }
    if (rows == 2 && cols == 2) {
        tile_store(3, c1 + PANEL, stride);
    }
}

static void tiles_run(const struct tiles *t, int n)
{
    if (n > TILE_DIM && t->w->cols == 2) {
        tiles_product(t, 2, 2);
    } else if (n > TILE_DIM) {
        tiles_product(t, 2, 1);
    } else if (t->w->cols == 2) {
        tiles_product(t, 1, 2);
    } else {
        tiles_product(t, 1, 1);
    }
}

/* n_block tiles of an i8 panel as bf16: the even k of a pair and the odd side by side. */
static void tiles_widen(const unsigned char *w, int n_block, uint16_t *out,
                        const unsigned char *ahead)
{
    for (int pair = 0; pair < n_block * TILE_DIM; pair++, w += 2 * PANEL, out += 2 * PANEL) {
        if (ahead && pair % 2 == 0) {
            __builtin_prefetch(ahead + (size_t)pair * 2 * PANEL, 0, 2);
        }
        vec even = sum_load_i8(w), odd = sum_load_i8(w + PANEL);
#if defined(__AVX512F__) && defined(__AVX512BW__)
        __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
        _mm512_storeu_si512(out,
                            _mm512_mask_blend_epi16(0xaaaaaaaau, low, _mm512_castps_si512(odd)));
#else
        uint16_t e[PANEL], o[PANEL];
        v_store_bf16(e, even);
        v_store_bf16(o, odd);
        for (int i = 0; i < PANEL; i++) {
            out[2 * i] = e[i];
            out[2 * i + 1] = o[i];
        }
#endif
    }
}

/* Room for two panels of bf16. */
struct tiles_wide {
    _Alignas(64) uint16_t x[2 * TILES_DEEP * PANEL];
};

/* Panels j and, up to n_panel, j + 1, `panel` bytes apart; stretches [0, n_part) begin at w. Behind
 * the last panel comes `next`, or NULL. */
static void tiles_take(struct tile_panels *t, enum dtype dtype, const unsigned char *const *w,
                       size_t panel, int j, int n_panel, const unsigned char *next,
                       struct tiles_wide *wide)
{
    size_t deep = (size_t)t->n_block * TILE_SIZE;
    t->cols = n_panel - j < 2 ? 1 : 2;
    t->panel = dtype == DTYPE_I8 ? deep * (size_t)t->n_part : panel;
    for (int i = 0; i < t->n_part; i++) {
        const unsigned char *from = w[i] + (size_t)j * panel;
        t->ahead[i] = j + 2 < n_panel ? from + 2 * panel : next;
        if (dtype != DTYPE_I8) {
            t->b[i] = from;
            continue;
        }
        t->b[i] = (const unsigned char *)wide->x + (size_t)i * deep;
        for (int col = 0; col < t->cols; col++) {
            size_t to = (size_t)col * t->panel + (size_t)i * deep, at = (size_t)col * panel;
            tiles_widen(from + at, t->n_block, wide->x + to / sizeof *wide->x,
                        t->ahead[i] ? t->ahead[i] + at : NULL);
        }
        t->ahead[i] = NULL;
    }
}

/* Scores of page i. */
static void tiles_scores(const struct pass *p, int i, const void *ahead)
{
    struct tiles_wide wide;
    struct tile_panels w = {.n_part = 1, .n_block = p->d_pad / K_BLOCK};
    size_t row_tile = (size_t)w.n_block * TILE_DIM * K_BLOCK;
    for (int j = 0; j < KV_PAGE / PANEL; j += 2) {
        tiles_take(&w, p->dtype, &p->s->k[i], k_panel_bytes(p), j, KV_PAGE / PANEL, ahead, &wide);
        for (int k = 0; k < p->n_part; k++) {
            const struct part *part = &p->part[k];
            if (i < part->page || i >= part->page + part->n_page) {
                continue;
            }
            struct tiles t = {
                .a = (const uint16_t *)p->g->q + (size_t)(part->item / TILE_DIM) * row_tile,
                .lda = K_BLOCK,
                .step = TILE_DIM * K_BLOCK,
                .below = row_tile,
                .w = &w,
                .part_end = 1,
                .first = 1,
                .c = p->score + (size_t)part->item * LD_SCORE + i * KV_PAGE + j * PANEL,
                .ldc = LD_SCORE,
                .fetch = k == 0};
            tiles_run(&t, part->n);
        }
    }
}

/* o of the parts (+)= p times their pages of V. */
static void tiles_values(const struct pass *p, const struct values *r)
{
    struct tiles_wide wide;
    struct tile_panels w = {.n_part = p->s->n_page, .n_block = KV_PAGE / K_BLOCK};
    for (int j = 0; j < r->n_panel; j += 2) {
        tiles_take(&w, p->dtype, r->v, v_panel_bytes(p), j, r->n_panel, NULL, &wide);
        for (int k = 0; k < r->n_part; k++) {
            const struct part *part = &r->part[k];
            size_t row = (size_t)part->item;
            struct tiles t = {.a = (const uint16_t *)(const void *)p->score + row * LD_P +
                                   (size_t)(part->page * KV_PAGE),
                              .lda = LD_P,
                              .step = K_BLOCK,
                              .below = TILE_DIM * LD_P,
                              .w = &w,
                              .part = part->page,
                              .part_end = part->page + part->n_page,
                              .first = r->first,
                              .c = p->g->o + row * p->g->ldo + (size_t)((r->panel + j) * PANEL),
                              .ldc = p->g->ldo,
                              .fetch = k == 0};
            tiles_run(&t, part->n);
        }
    }
}

#endif
