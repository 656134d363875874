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

/* gemm_tiles: as gemm_lanes, whose bits it has where a tile unit computes THE SUM. */
static void gemm_tiles(const struct gemm_rows *rows, int k_pad, const unsigned char *const *panel,
                       int n_panel, float *c, size_t ldc)
{
    if (rows->dtype != DTYPE_BF16 || rows->n < LANES_TILES) {
        gemm_lanes(rows, k_pad, panel, n_panel, c, ldc);
        return;
    }
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
