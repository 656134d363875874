/* attention_tiles: THE SUM between the rows of a group and the panels of KV pages, on tile
 * registers. Rows are bf16 and lie row by row, so a tile of them is loaded with their stride; a
 * block of 32 k of a panel is a tile as it lies (i8 is made bf16 first, exactly). Two row tiles
 * meet two panels, so each tile loaded is used twice. Included by
 * kernels/cpu/lanes/attention_split.c. */
#ifndef KERNELS_ATTENTION_TILES_H
#define KERNELS_ATTENTION_TILES_H

#include "base/limits.h"
#include "kernels/cpu/amx/tile.h"
#include "kernels/cpu/lanes/attention.h"

#define TILE_SIZE ((size_t)TILE_DIM * TILE_BYTES)
/* bf16 of two panels of i8: of K, a whole head deep; of V, a split deep. */
#define TILES_DEEP (LIMIT_D_HEAD > KV_SPLIT ? LIMIT_D_HEAD : KV_SPLIT)

/* c [16 or 32 rows, two panels or one] (+)= a times n_part stretches of n_block blocks each; b[i]
 * points at a stretch of the first panel. */
struct tiles {
    const uint16_t *a;
    size_t lda; /* elements */
    const unsigned char *b[SPLIT_PAGES];
    size_t panel; /* bytes to the second panel */
    int n_part, n_block;
    int first; /* c starts at zero */
    float *c;
    size_t ldc;
    const char *ahead; /* to be fetched, as much as is read here; or NULL */
};

INLINE void tiles_fetch(const char *ahead, size_t bytes)
{
    if (ahead) {
        for (size_t at = 0; at < bytes; at += 64) {
            __builtin_prefetch(ahead + at, 0, 2);
        }
    }
}

INLINE void tiles_product(const struct tiles *t, const int rows, const int cols)
{
    TILE_REGISTERS;
    size_t stride = t->ldc * sizeof *t->c, from = t->lda * sizeof *t->a;
    float *c0 = t->c, *c1 = t->c + TILE_DIM * t->ldc;
    const uint16_t *a0 = t->a, *a1 = t->a + TILE_DIM * t->lda;
    const char *ahead = t->ahead;
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
    for (int p = 0; p < t->n_part; p++) {
        const unsigned char *b = t->b[p];
        for (int i = 0; i < t->n_block; i++, b += TILE_SIZE, a0 += K_BLOCK, a1 += K_BLOCK) {
            tiles_fetch(ahead, (size_t)cols * TILE_SIZE);
            ahead = ahead ? ahead + (size_t)cols * TILE_SIZE : NULL;
            tile_load(4, a0, from);
            tile_load(6, b, TILE_BYTES);
            tile_dp(0, 4, 6);
            if (cols == 2) {
                tile_load(7, b + t->panel, TILE_BYTES);
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

static void tiles_run(const struct tiles *t, int n, int cols)
{
    if (n > TILE_DIM && cols == 2) {
        tiles_product(t, 2, 2);
    } else if (n > TILE_DIM) {
        tiles_product(t, 2, 1);
    } else if (cols == 2) {
        tiles_product(t, 1, 2);
    } else {
        tiles_product(t, 1, 1);
    }
}

/* n_block tiles of an i8 panel as bf16: the even k of a pair and the odd side by side. */
static void tiles_widen(const unsigned char *w, int n_block, uint16_t *out)
{
    for (int pair = 0; pair < n_block * TILE_DIM; pair++, w += 2 * PANEL, out += 2 * PANEL) {
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

/* Every panel in turn, two at a time. w[i] is the first panel of stretch i. */
static void tiles_panels(struct tiles *t, int n, enum dtype dtype, const unsigned char *const *w,
                         size_t panel, int n_panel)
{
    _Alignas(64) uint16_t wide[2 * TILES_DEEP * PANEL];
    const char *ahead = t->ahead;
    float *c = t->c;
    size_t deep = (size_t)t->n_block * TILE_SIZE, read = deep * (size_t)t->n_part;
    for (int j = 0; j < n_panel; j += 2) {
        int cols = n_panel - j < 2 ? 1 : 2;
        t->c = c + j * PANEL;
        t->panel = dtype == DTYPE_I8 ? deep * (size_t)t->n_part : panel;
        for (int i = 0; i < t->n_part; i++) {
            const unsigned char *from = w[i] + (size_t)j * panel;
            t->b[i] = dtype == DTYPE_I8 ? (const unsigned char *)wide + (size_t)i * deep : from;
            for (int col = 0; dtype == DTYPE_I8 && col < cols; col++) {
                size_t to = (size_t)col * t->panel + (size_t)i * deep;
                tiles_widen(from + (size_t)col * panel, t->n_block, wide + to / sizeof *wide);
            }
        }
        t->ahead = ahead && dtype != DTYPE_I8 ? ahead + (size_t)j * read : NULL;
        tiles_run(t, n, cols);
    }
}

#endif
