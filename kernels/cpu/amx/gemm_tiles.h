/* gemm_tiles: rows times panels on tile registers, bf16 only; f32, and too few rows, go by lanes.
 * A block of 32 k of a packed panel is a tile as it lies; rows are gathered into tiles in a
 * scratch, 512 k at a time, which stays in the first-level cache while every panel of the group
 * meets it. Two row tiles meet two panels: four sums stay in registers along k (C is 0..3, A 4 and
 * 5, B 6 and 7), so each tile loaded is used twice. One TDPBF16PS is one step of THE SUM for 16 x
 * 16 results. Included by kernels/cpu/lanes/gemm.h where LANES_TILES is the fewest rows that use
 * tiles. */
#ifndef KERNELS_GEMM_TILES_H
#define KERNELS_GEMM_TILES_H

#include "kernels/cpu/amx/tile.h"

#define TILES_K      512
#define TILES_ROWS   (2 * TILE_DIM)
#define TILE_SIZE    ((size_t)TILE_DIM * TILE_BYTES)
#define TILES_PANELS 2

/* What one call of a product below works on: n_block blocks of 32 k. a[i]: tiles of 16 rows each,
 * one after the other; w[j]: a panel; c: the first result, ldc_bytes from row to row. */
struct tiles {
    const unsigned char *a[2];
    const unsigned char *w[TILES_PANELS];
    int n_block;
    int first; /* c starts at zero */
    float *c;
    size_t ldc;
};

/* 32 rows, two panels. */
static void tiles_2x2(const struct tiles *t)
{
    TILE_REGISTERS;
    float *c0 = t->c, *c1 = t->c + TILE_DIM * t->ldc;
    size_t stride = t->ldc * sizeof *t->c;
    if (t->first) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    } else {
        tile_load(0, c0, stride);
        tile_load(1, c0 + PANEL, stride);
        tile_load(2, c1, stride);
        tile_load(3, c1 + PANEL, stride);
    }
    for (size_t b = 0, at = 0; b < (size_t)t->n_block; b++, at += TILE_SIZE) {
        tile_load(4, t->a[0] + at, TILE_BYTES);
        tile_load(6, t->w[0] + at, TILE_BYTES);
        tile_load(7, t->w[1] + at, TILE_BYTES);
        tile_load(5, t->a[1] + at, TILE_BYTES);
        tile_dp(0, 4, 6);
        tile_dp(1, 4, 7);
        tile_dp(2, 5, 6);
        tile_dp(3, 5, 7);
    }
    tile_store(0, c0, stride);
    tile_store(1, c0 + PANEL, stride);
    tile_store(2, c1, stride);
    tile_store(3, c1 + PANEL, stride);
}

/* 16 rows, two panels. */
static void tiles_1x2(const struct tiles *t)
{
    TILE_REGISTERS;
    size_t stride = t->ldc * sizeof *t->c;
    if (t->first) {
        tile_zero(0);
        tile_zero(1);
    } else {
        tile_load(0, t->c, stride);
        tile_load(1, t->c + PANEL, stride);
    }
    for (size_t b = 0, at = 0; b < (size_t)t->n_block; b++, at += TILE_SIZE) {
        tile_load(4, t->a[0] + at, TILE_BYTES);
        tile_load(6, t->w[0] + at, TILE_BYTES);
        tile_load(7, t->w[1] + at, TILE_BYTES);
        tile_dp(0, 4, 6);
        tile_dp(1, 4, 7);
    }
    tile_store(0, t->c, stride);
    tile_store(1, t->c + PANEL, stride);
}

/* 16 rows, one panel: the last of an odd number. */
static void tiles_1x1(const struct tiles *t)
{
    TILE_REGISTERS;
    size_t stride = t->ldc * sizeof *t->c;
    if (t->first)
        tile_zero(0);
    else
        tile_load(0, t->c, stride);
    for (size_t b = 0, at = 0; b < (size_t)t->n_block; b++, at += TILE_SIZE) {
        tile_load(4, t->a[0] + at, TILE_BYTES);
        tile_load(6, t->w[0] + at, TILE_BYTES);
        tile_dp(0, 4, 6);
    }
    tile_store(0, t->c, stride);
}

/* Rows [r0, r0 + n_row) of the call, k [k0, k0 + n_k), as tiles: a [row tile][n_k / 32][16][32].
 * Rows that are not there are zero. */
static void tiles_gather(const struct gemm_rows *rows, int r0, int n_row, int k0, int n_k,
                         uint16_t *a)
{
    int n_tile = (n_row + TILE_DIM - 1) / TILE_DIM;
    size_t tile = TILE_SIZE / sizeof *a, width = TILE_BYTES / sizeof *a;
    for (int r = 0; r < n_tile * TILE_DIM; r++) {
        uint16_t *out = a + (size_t)(r / TILE_DIM) * (size_t)(n_k / K_BLOCK) * tile +
                        (size_t)(r % TILE_DIM) * width;
        if (r >= n_row) {
            for (int k = 0; k < n_k; k += K_BLOCK, out += tile)
                memset(out, 0, TILE_BYTES);
            continue;
        }
        size_t index = (size_t)(rows->row ? rows->row[r0 + r] : r0 + r);
        const uint16_t *x = (const uint16_t *)rows->x + index * rows->ld + (size_t)k0;
        for (int k = 0; k < n_k; k += K_BLOCK, out += tile)
            memcpy(out, x + k, TILE_BYTES);
    }
}

/* One chunk of k of up to 32 rows against every panel. */
static void tiles_chunk(struct tiles *t, int n_row, const unsigned char *const *panel, int n_panel,
                        size_t w_offset, float *c)
{
    int two = n_row > TILE_DIM;
    for (int j = 0; j < n_panel; j += TILES_PANELS) {
        int pair = j + 1 < n_panel;
        t->w[0] = panel[j] + w_offset;
        t->w[1] = pair ? panel[j + 1] + w_offset : NULL;
        t->c = c + (size_t)j * PANEL;
        if (two && pair) {
            tiles_2x2(t);
        } else if (pair) {
            tiles_1x2(t);
        } else {
            tiles_1x1(t);
            if (two) {
                struct tiles below = *t;
                below.a[0] = t->a[1];
                below.c = t->c + TILE_DIM * t->ldc;
                tiles_1x1(&below);
            }
        }
    }
}

/* ---- integer weights ---- */

/* As many k of rows and of two panels, made bf16, stay in the first-level cache. */
#define TILES_QUANT_K 128

/* One pair of k of a panel as a row of a tile: 16 x (even, odd) in bf16, exact. */
INLINE void quant_pair(const unsigned char *w, enum dtype dtype, uint16_t *out)
{
#if defined(__AVX512F__) && defined(__AVX512BW__)
    __m128i b = _mm_loadu_si128((const __m128i *)(const void *)w);
    __m512i pair;
    if (dtype == DTYPE_I8) {
        __m128i o = _mm_loadu_si128((const __m128i *)(const void *)(w + PANEL));
        __m512i even = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)));
        __m512i odd = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(o)));
        pair = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(even, 16), odd);
    } else {
        /* bf16 of 0..7, -8..-1, for the low half of a lane and for the high one. */
        const __m512i low =
            _mm512_setr_epi32(0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100,
                              0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80);
        __m512i i = _mm512_cvtepu8_epi32(b);
        __m512i even = _mm512_permutexvar_epi32(i, low);
        __m512i odd = _mm512_permutexvar_epi32(_mm512_srli_epi32(i, 4), low);
        pair = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
    }
    _mm512_storeu_si512(out, pair);
#else
    float e[PANEL], o[PANEL];
    for (size_t j = 0; j < PARTS; j++) {
        part even, odd;
        load_quant(w + j * PART_LANES, dtype, &even, &odd);
        p_store(e + j * PART_LANES, even);
        p_store(o + j * PART_LANES, odd);
    }
    for (int i = 0; i < PANEL; i++) {
        uint32_t even, odd;
        memcpy(&even, &e[i], 4);
        memcpy(&odd, &o[i], 4);
        out[2 * i] = (uint16_t)(even >> 16);
        out[2 * i + 1] = (uint16_t)(odd >> 16);
    }
#endif
}

/* k [k0, k0 + n_k) of one panel as tiles: b [n_k / 32][16][32]. */
static void quant_tiles(const unsigned char *panel, const struct packed *w, enum dtype dtype,
                        int k0, int n_k, uint16_t *b)
{
    const size_t step = quant_block_bytes(dtype) / TILE_DIM;
    for (int k = 0; k < n_k; k += K_BLOCK) {
        const unsigned char *from = panel + quant_block_at(dtype, w->group, k0 + k);
        for (int p = 0; p < TILE_DIM; p++, from += step, b += 2 * PANEL)
            quant_pair(from, dtype, b);
    }
}

/* c += scale * sum of one group, n_row rows of one panel. sum [*, 2 * PANEL]. */
INLINE void quant_scale_add(const unsigned char *scale, const float *sum, int n_row, float *c,
                            size_t ldc)
{
    vec s = v_load_bf16((const uint16_t *)(const void *)scale);
    for (int r = 0; r < n_row; r++)
        v_store(c + (size_t)r * ldc,
                v_fma(s, v_load(sum + (size_t)r * 2 * PANEL), v_load(c + (size_t)r * ldc)));
}

/* What one chunk of k of all rows meets: two panels (or one), as integers and made bf16. */
struct quant_pair_of {
    const unsigned char *panel[2];
    const uint16_t *b[2];
    int n; /* panels */
};

/* Up to 32 rows, one chunk of k, one or two panels; a: the rows' tiles of the chunk. */
INLINE void quant_chunk(const struct quant_pair_of *q, const struct packed *w, enum dtype dtype,
                        int k0, int n_k, const unsigned char *a, int n_row, float *c, size_t ldc)
{
    _Alignas(64) float sum[TILES_ROWS * 2 * PANEL];
    size_t row_tile = (size_t)(n_k / K_BLOCK) * TILE_SIZE;
    for (int k = 0; k < n_k; k += w->group) {
        size_t at = (size_t)(k / K_BLOCK) * TILE_SIZE;
        struct tiles t = {.n_block = min_int(w->group, n_k - k) / K_BLOCK,
                          .first = 1,
                          .c = sum,
                          .ldc = 2 * PANEL};
        t.a[0] = a + at;
        t.a[1] = a + row_tile + at;
        t.w[0] = (const unsigned char *)q->b[0] + at;
        t.w[1] = (const unsigned char *)q->b[1] + at;
        if (n_row > TILE_DIM && q->n == 2) {
            tiles_2x2(&t);
        } else if (q->n == 2) {
            tiles_1x2(&t);
        } else {
            tiles_1x1(&t);
            if (n_row > TILE_DIM) {
                t.a[0] = t.a[1];
                t.c = sum + TILE_DIM * t.ldc;
                tiles_1x1(&t);
            }
        }
        for (int j = 0; j < q->n; j++)
            quant_scale_add(q->panel[j] + quant_scale_at(dtype, w->group, k0 + k), sum + j * PANEL,
                            n_row, c + j * PANEL, ldc);
    }
}

/* Each chunk of a panel is made bf16 once for all rows. */
static void gemm_tiles_quant(const struct gemm_rows *rows, const struct packed *w,
                             const unsigned char *const *panel, int n_panel, float *c, size_t ldc,
                             enum dtype dtype)
{
    _Alignas(64) uint16_t a[GEMM_ROWS * QUANT_GROUP_MAX], b[2][QUANT_GROUP_MAX * PANEL];
    int chunk = w->group > TILES_QUANT_K ? w->group : TILES_QUANT_K / w->group * w->group;
    int k_pad = k_padded(w->k);
    for (int r = 0; r < rows->n; r++)
        memset(c + (size_t)r * ldc, 0, (size_t)n_panel * PANEL * sizeof *c);
    for (int k0 = 0; k0 < k_pad; k0 += chunk) {
        int n_k = min_int(chunk, k_pad - k0);
        size_t row_tile = (size_t)(n_k / K_BLOCK) * TILE_SIZE;
        tiles_gather(rows, 0, rows->n, k0, n_k, a);
        for (int j = 0; j < n_panel; j += TILES_PANELS) {
            struct quant_pair_of q = {.b = {b[0], b[1]}, .n = min_int(TILES_PANELS, n_panel - j)};
            for (int i = 0; i < q.n; i++) {
                q.panel[i] = panel[j + i];
                quant_tiles(panel[j + i], w, dtype, k0, n_k, b[i]);
            }
            for (int r0 = 0; r0 < rows->n; r0 += TILES_ROWS)
                quant_chunk(&q, w, dtype, k0, n_k,
                            (const unsigned char *)a + (size_t)(r0 / TILE_DIM) * row_tile,
                            min_int(TILES_ROWS, rows->n - r0),
                            c + (size_t)r0 * ldc + (size_t)j * PANEL, ldc);
        }
    }
}

/* gemm_tiles: as gemm_lanes, whose bits it has where a tile unit computes THE SUM. */
static void gemm_tiles(const struct gemm_rows *rows, const struct packed *w,
                       const unsigned char *const *panel, int n_panel, float *c, size_t ldc)
{
    if (rows->dtype != DTYPE_BF16 || rows->n < LANES_TILES) {
        gemm_lanes(rows, w, panel, n_panel, c, ldc);
        return;
    }
    if (w->dtype == DTYPE_I8) {
        gemm_tiles_quant(rows, w, panel, n_panel, c, ldc, DTYPE_I8);
        return;
    }
    if (w->dtype == DTYPE_I4) {
        gemm_tiles_quant(rows, w, panel, n_panel, c, ldc, DTYPE_I4);
        return;
    }
    int k_pad = k_padded(w->k);
    _Alignas(64) uint16_t a[TILES_ROWS * TILES_K];
    for (int r0 = 0; r0 < rows->n; r0 += TILES_ROWS) {
        int n_row = min_int(TILES_ROWS, rows->n - r0);
        for (int k0 = 0; k0 < k_pad; k0 += TILES_K) {
            int n_k = min_int(TILES_K, k_pad - k0);
            tiles_gather(rows, r0, n_row, k0, n_k, a);
            struct tiles t = {.n_block = n_k / K_BLOCK, .first = k0 == 0, .ldc = ldc};
            t.a[0] = (const unsigned char *)a;
            t.a[1] = t.a[0] + (size_t)t.n_block * TILE_SIZE;
            tiles_chunk(&t, n_row, panel, n_panel, (size_t)(k0 / 2) * pair_bytes(DTYPE_BF16),
                        c + (size_t)r0 * ldc);
        }
    }
}

#endif
