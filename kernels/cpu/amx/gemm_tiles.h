/* gemm_tiles: rows times panels on tile registers, rows of bf16 here, rows made integers in
 * gemm_tiles_int.h; f32, and too few rows, go by lanes. A block of 32 k of a packed panel is a tile
 * as it lies; rows are arranged into pairs of tiles once a unit, all of k deep, in a scratch that
 * stays in the second-level cache while every panel of the unit meets it. Two row tiles meet two
 * panels: four sums stay in registers along k (C is 0..3, A 4 and 5, B 6 and 7), so each tile
 * loaded is used twice. One TDPBF16PS is one step of THE SUM for 16 x 16 results. The scratch
 * begins at a page: a tile that crosses one is loaded in twice the time. Software prefetching of
 * the next panels was tried and dropped: it cost more than it hid. Included by
 * kernels/cpu/lanes/gemm.h where LANES_TILES is the fewest rows that use tiles.
 */
#ifndef KERNELS_GEMM_TILES_H
#define KERNELS_GEMM_TILES_H

#include "kernels/cpu/amx/tile.h"

#define TILES_K       2048 /* of rows too deep to be arranged whole */
#define TILES_ROWS    (2 * TILE_DIM)
#define TILE_SIZE     ((size_t)TILE_DIM * TILE_BYTES)
#define TILES_PANELS  2
#define TILES_MAX     256 /* rows arranged at once */
#define TILES_SCRATCH (1u << 20)
#define TILES_UNIT    32 /* panels a unit */
#define TILES_GATHER  (8 * K_BLOCK)

#include "kernels/cpu/amx/gemm_tiles_int.h"

/* The fewest rows made integers that use tiles. */
#if defined(TILES_SIMULATED)
#define BYTE_ROWS(dtype) 1
#else
#define BYTE_ROWS(dtype) ((dtype) == DTYPE_I8 ? 6 : 12)
#endif

/* Few rows of a kind go by lanes. */
INLINE int by_tiles(const struct packed *w, int n_row)
{
    if (w->int_rows)
        return n_row >= BYTE_ROWS(w->dtype);
    return row_dtype(w) == DTYPE_BF16 && n_row >= LANES_TILES;
}

/* Whether rows that are made integers already are taken as such, however few a unit has. */
INLINE int tiles_made(const struct packed *w, int n_row)
{
    return w->int_rows && by_tiles(w, n_row);
}

/* Rows that fit the scratch at full depth; 0: not even a pair of tiles. */
INLINE int tiles_fit(int k_pad)
{
    size_t fit = TILES_SCRATCH / ((size_t)k_pad * TILE_BYTES / K_BLOCK) / TILES_ROWS * TILES_ROWS;
    return fit < TILES_MAX ? (int)fit : TILES_MAX;
}

INLINE struct gemm_cut tiles_cut(const struct packed *w, int few_panels, int n_row)
{
    if (!by_tiles(w, n_row))
        return lanes_cut(w, few_panels, n_row);
    int fit = w->int_rows ? byte_fit(k_padded(w->k)) : tiles_fit(k_padded(w->k));
    return (struct gemm_cut){.rows = fit ? fit : TILES_MAX,
                             .panels = TILES_PANELS,
                             .unit_rows = TILES_MAX,
                             .unit_panels = TILES_UNIT};
}

/* What one call of a product below works on: n_block blocks of 32 k. a[i]: tiles of 16 rows each,
 * one after the other; w[j]: a panel; c: the first result, ldc_bytes from row to row. */
struct tiles {
    const unsigned char *a;
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
        tile_load(4, t->a + 2 * at, TILE_BYTES);
        tile_load(6, t->w[0] + at, TILE_BYTES);
        tile_load(7, t->w[1] + at, TILE_BYTES);
        tile_load(5, t->a + 2 * at + TILE_SIZE, TILE_BYTES);
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
        tile_load(4, t->a + 2 * at, TILE_BYTES);
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
        tile_load(4, t->a + 2 * at, TILE_BYTES);
        tile_load(6, t->w[0] + at, TILE_BYTES);
        tile_dp(0, 4, 6);
    }
    tile_store(0, t->c, stride);
}

/* k [k0, k0 + n_k) of rows as pairs of tiles: a [n_row / 32][n_k / 32][2][16][32]. Rows that are
 * not there are zero; a whole tile of them is left out. */
static void tiles_gather(const struct gemm_rows *rows, int k0, int n_k, unsigned char *a)
{
    int end = (rows->n + TILE_DIM - 1) / TILE_DIM * TILE_DIM;
    size_t pair_row = (size_t)(n_k / K_BLOCK) * 2 * TILE_SIZE;
    for (int first = 0; first < end; first += TILES_ROWS) {
        unsigned char *pair = a + (size_t)(first / TILES_ROWS) * pair_row;
        int last = min_int(first + TILES_ROWS, end);
        /* Some lines of each row at a time: the tiles they go to stay in the cache until full. */
        for (int k = 0; k < n_k; k += TILES_GATHER) {
            int n = min_int(TILES_GATHER, n_k - k) / K_BLOCK;
            for (int r = first; r < last; r++) {
                unsigned char *out =
                    pair + (size_t)(k / K_BLOCK) * 2 * TILE_SIZE + (size_t)(r - first) * TILE_BYTES;
                if (r >= rows->n) {
                    for (int i = 0; i < n; i++, out += 2 * TILE_SIZE)
                        memset(out, 0, TILE_BYTES);
                    continue;
                }
                size_t index = (size_t)(rows->row ? rows->row[r] : r);
                const uint16_t *x = (const uint16_t *)rows->x + index * rows->ld + (size_t)(k0 + k);
                for (int i = 0; i < n; i++, out += 2 * TILE_SIZE)
                    memcpy(out, x + i * K_BLOCK, TILE_BYTES);
            }
        }
    }
}

/* All k of the rows at once, where they fit: every panel meets the same tiles. */
static void tiles_arrange(struct gemm_rows *rows, const struct packed *w)
{
    int k_pad = k_padded(w->k);
    if (!rows->made && !by_tiles(w, rows->n)) {
        lanes_arrange(rows, w);
        return;
    }
    if (w->int_rows) {
        byte_arrange(rows, w);
        return;
    }
    rows->arranged = tiles_fit(k_pad) > 0;
    if (rows->arranged)
        tiles_gather(rows, 0, k_pad, rows->scratch);
}

/* The tiles of the first 32 rows from k0 on; *step: bytes to those of the next 32. */
static const unsigned char *tiles_of(const struct gemm_rows *rows, int k_pad, int k0, int n_k,
                                     size_t *step)
{
    *step = (size_t)((rows->arranged ? k_pad : n_k) / K_BLOCK) * 2 * TILE_SIZE;
    if (rows->arranged)
        return rows->scratch + (size_t)(k0 / K_BLOCK) * 2 * TILE_SIZE;
    tiles_gather(rows, k0, n_k, rows->scratch);
    return rows->scratch;
}

/* Up to 32 rows against one or two panels. */
INLINE void tiles_some(struct tiles *t, int n_row, int n_panel)
{
    if (n_row > TILE_DIM && n_panel == 2) {
        tiles_2x2(t);
    } else if (n_panel == 2) {
        tiles_1x2(t);
    } else {
        tiles_1x1(t);
        if (n_row > TILE_DIM) {
            struct tiles below = *t;
            below.a = t->a + TILE_SIZE;
            below.c = t->c + TILE_DIM * t->ldc;
            tiles_1x1(&below);
        }
    }
}

#include "kernels/cpu/amx/gemm_tiles_quant.h"

/* gemm_tiles: as gemm_lanes, whose bits it has where a tile unit computes THE SUM; up to
 * TILES_PANELS panels where it goes by tiles. */
static void gemm_tiles(const struct gemm_rows *rows, const struct packed *w,
                       const unsigned char *const *panel, int n_panel, float *c, size_t ldc)
{
    if (!rows->made && !by_tiles(w, rows->n)) {
        gemm_lanes(rows, w, panel, n_panel, c, ldc);
        return;
    }
    if (w->int_rows) {
        gemm_tiles_int(rows, w, panel, n_panel, c, ldc);
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
    int k_pad = k_padded(w->k), chunk = rows->arranged ? k_pad : TILES_K;
    for (int k0 = 0; k0 < k_pad; k0 += chunk) {
        int n_k = min_int(chunk, k_pad - k0);
        size_t step, w_offset = (size_t)(k0 / 2) * pair_bytes(DTYPE_BF16);
        const unsigned char *a = tiles_of(rows, k_pad, k0, n_k, &step);
        struct tiles t = {.n_block = n_k / K_BLOCK, .first = k0 == 0, .ldc = ldc};
        t.w[0] = panel[0] + w_offset;
        t.w[1] = panel[n_panel - 1] + w_offset;
        for (int r0 = 0; r0 < rows->n; r0 += TILES_ROWS, a += step) {
            t.a = a;
            t.c = c + (size_t)r0 * ldc;
            tiles_some(&t, rows->n - r0, n_panel);
        }
    }
}

#endif
