/* gemm: the one place where rows meet weights. c [n_row, n_panel * PANEL] = rows times panels by
 * THE SUM of kernels.h, for a handful of rows and panels that a unit of matmul or of the FFN
 * consists of.
 *
 * Rows are widened to f32 in a scratch on the stack, one chunk of k at a time, since every panel of
 * the group reads them again and a broadcast from memory is then the whole cost of an x. Within a
 * chunk a micro-tile of up to TILE_ROWS rows and TILE_PARTS weight vectors keeps the even and odd
 * sums in registers and adds them to c, in memory, after each 32 k; so the tile's shape never
 * enters the arithmetic. One row streams its panels from memory; many rows find a chunk of a panel
 * in L1. Registers: 6 x 2 x (e, o) = 24 of AVX-512's 32; 6 x 1 x (e, o) = 12 of AVX2's 16. */
#ifndef KERNELS_GEMM_H
#define KERNELS_GEMM_H

#include "kernels/kernels.h"
#include "kernels/vec.h"

/* Rows [0, n) of x: row i lies at x + index(i) * ld elements, index(i) = row[i] or i. */
struct gemm_rows {
    const void *x;
    size_t ld;
    const int32_t *row; /* NULL: the identity */
    int n;
    enum dtype dtype;
    unsigned char *scratch; /* [GEMM_SCRATCH] of gemm_arrange */
    int arranged;           /* scratch holds the rows as tiles or integers */
    int made;               /* x holds rows made integers, as kernels.ints leaves them */
    /* Panel 0 of the next call, whose others lie to it as this one's do; NULL: it is not known. */
    const unsigned char *after;
};

/* How a product of so many rows by a matrix is cut. A unit of work is unit_rows by unit_panels; in
 * it, `rows` rows at a time are arranged once and meet `panels` panels a call of gemm. */
struct gemm_cut {
    int rows, panels;
    int unit_rows, unit_panels;
};

/* Limits of a call that goes by lanes, and of c: [rows][panels * PANEL] of any cut fits. */
#define LANES_ROWS   48
#define LANES_PANELS 4
#if defined(LANES_TILES)
#define GEMM_PANELS 8
#define GEMM_C      (256 * 2 * PANEL)
#else
#define GEMM_PANELS 8
#define GEMM_C      (LANES_ROWS * GEMM_PANELS * PANEL)
#endif
/* A chunk of k of a micro-tile's panels (bf16: 16 KiB) that several row tiles find in L1. */
#define CHUNK_REUSED 256
/* Up to this many rows weights are read about once, whatever is done. */
#define FEW_ROWS      8
#define GEMM_X_FLOATS (LANES_ROWS * (CHUNK_REUSED + LANES))
/* Rows made integers: 48 of 4096 k. */
#define INT_SCRATCH ((size_t)256 << 10)
#define INT_UNIT    16   /* panels a unit of many rows */
#define INT_FIRST   1024 /* bytes of a panel that are asked for before its unit begins */

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define PART_LANES 16
#define TILE_ROWS  6
#define TILE_PARTS 2
#elif defined(__AVX2__) && defined(__FMA__)
#define PART_LANES 8
#define TILE_ROWS  6
#define TILE_PARTS 1
#else
#define PART_LANES 16
#define TILE_ROWS  2
#define TILE_PARTS 1
#endif
#define PARTS (PANEL / PART_LANES)

/* part: the registers of a micro-tile are one machine register each, so AVX2 halves a panel. */
#if PART_LANES == 8
typedef __m256 part;
INLINE part p_zero(void)
{
    return _mm256_setzero_ps();
}
INLINE part p_set1(float a)
{
    return _mm256_set1_ps(a);
}
INLINE part p_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
INLINE void p_store(float *p, part a)
{
    _mm256_storeu_ps(p, a);
}
INLINE part p_add(part a, part b)
{
    return _mm256_add_ps(a, b);
}
INLINE part p_fma(part a, part b, part c)
{
    return _mm256_fmadd_ps(a, b, c);
}
INLINE void p_load_pairs(const uint16_t *p, part *even, part *odd)
{
    __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)p);
    *even = _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
    *odd = _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32((int)0xffff0000u)));
}
#else
typedef vec part;
#define p_zero       v_zero
#define p_set1       v_set1
#define p_load       v_load
#define p_store      v_store
#define p_add        v_add
#define p_fma        v_fma
#define p_load_pairs v_load_pairs
#endif

/* Weights of k = 2p and 2p + 1, for the columns of one part. Both dtypes keep a pair of k within a
 * fixed number of bytes: 64 for bf16 (pairs side by side), 128 for f32 (two lines). */
INLINE void load_weights(const unsigned char *w, enum dtype dtype, part *even, part *odd)
{
    if (dtype == DTYPE_BF16) {
        p_load_pairs((const uint16_t *)(const void *)w, even, odd);
    } else {
        *even = p_load((const float *)(const void *)w);
        *odd = p_load((const float *)(const void *)w + PANEL);
    }
}

INLINE size_t pair_bytes(enum dtype dtype)
{
    return 2 * PANEL * dtype_bytes(dtype);
}

/* One micro-tile over n_block blocks of 32 k: c += x w. n_row and n_part are constants after
 * inlining, so e and o become registers. */
INLINE void micro_tile(const float *x, size_t ldx, const unsigned char *const *w, enum dtype dtype,
                       int n_block, float *const *c, size_t ldc, const int n_row, const int n_part)
{
    size_t step = pair_bytes(dtype), at = 0;
    for (int b = 0; b < n_block; b++) {
        part e[TILE_ROWS][4], o[TILE_ROWS][4];
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++)
                e[r][j] = o[r][j] = p_zero();
        }
#pragma GCC unroll 4
        for (int p = 0; p < K_BLOCK / 2; p++, at += step, x += 2) {
            part we[4], wo[4];
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++)
                load_weights(w[j] + at, dtype, &we[j], &wo[j]);
#pragma GCC unroll 8
            for (int r = 0; r < n_row; r++) {
                part xe = p_set1(x[(size_t)r * ldx]), xo = p_set1(x[(size_t)r * ldx + 1]);
#pragma GCC unroll 8
                for (int j = 0; j < n_part; j++) {
                    e[r][j] = p_fma(xe, we[j], e[r][j]);
                    o[r][j] = p_fma(xo, wo[j], o[r][j]);
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++) {
                float *at_c = c[j] + (size_t)r * ldc;
                p_store(at_c, p_add(p_load(at_c), p_add(e[r][j], o[r][j])));
            }
        }
    }
}

#define MICRO_CASE(rows)                                                                           \
    case rows:                                                                                     \
        micro_tile(x, ldx, w, dtype, n_block, c, ldc, rows, n_part);                               \
        break

INLINE void micro_rows(const float *x, size_t ldx, const unsigned char *const *w, enum dtype dtype,
                       int n_block, float *const *c, size_t ldc, int n_row, const int n_part)
{
    switch (n_row) {
        MICRO_CASE(1);
        MICRO_CASE(2);
#if TILE_ROWS == 6
        MICRO_CASE(3);
        MICRO_CASE(4);
        MICRO_CASE(5);
        MICRO_CASE(6);
#endif
    default:
        break;
    }
}

INLINE int min_int(int a, int b)
{
    return a < b ? a : b;
}

/* All rows of the scratch against n_part parts. Rows are split evenly: 8 are 4 + 4, not 6 + 2. */
INLINE void parts_times_rows(const float *x, size_t ldx, int n_row, const unsigned char *const *w,
                             enum dtype dtype, int n_block, float *const *c, size_t ldc,
                             const int n_part)
{
    int n_tile = (n_row + TILE_ROWS - 1) / TILE_ROWS;
    for (int t = 0, r = 0; t < n_tile; t++) {
        int n = (n_row - r + n_tile - t - 1) / (n_tile - t);
        float *at[4];
        for (int j = 0; j < n_part; j++)
            at[j] = c[j] + (size_t)r * ldc;
        micro_rows(x + (size_t)r * ldx, ldx, w, dtype, n_block, at, ldc, n, n_part);
        r += n;
    }
}

/* Elements [k0, k0 + n_k) of every row, as f32, n_k a multiple of 32. */
INLINE void widen_rows(const struct gemm_rows *rows, int k0, int n_k, float *x, size_t ldx)
{
    for (int i = 0; i < rows->n; i++) {
        size_t index = (size_t)(rows->row ? rows->row[i] : i);
        size_t from = index * rows->ld + (size_t)k0;
        float *out = x + (size_t)i * ldx;
        for (int k = 0; k < n_k; k += LANES) {
            if (rows->dtype == DTYPE_BF16)
                v_store(out + k, v_load_bf16((const uint16_t *)rows->x + from + (size_t)k));
            else
                v_store(out + k, v_load((const float *)rows->x + from + (size_t)k));
        }
    }
}

INLINE void chunk_times_panels(const float *x, size_t ldx, int n_row, int n_block,
                               const unsigned char *const *panel, int n_panel, size_t w_offset,
                               enum dtype dtype, float *c, size_t ldc)
{
    int n_all = n_panel * PARTS, j = 0;
    const unsigned char *w[GEMM_PANELS * PARTS];
    float *at[GEMM_PANELS * PARTS];
    for (int i = 0; i < n_all; i++) {
        /* Half a panel is 32 bytes on, for both dtypes. */
        w[i] = panel[i / PARTS] + w_offset + (size_t)(i % PARTS) * 32;
        at[i] = c + (size_t)i * PART_LANES;
    }
    if (n_row == 1) {
        for (; j + 4 <= n_all; j += 4)
            micro_tile(x, ldx, w + j, dtype, n_block, at + j, ldc, 1, 4);
    }
    /* Two rows need two parts for chains enough to hide an FMA's latency. */
    for (; n_row <= 2 && j + 2 <= n_all; j += 2)
        parts_times_rows(x, ldx, n_row, w + j, dtype, n_block, at + j, ldc, 2);
    for (; j + TILE_PARTS <= n_all; j += TILE_PARTS)
        parts_times_rows(x, ldx, n_row, w + j, dtype, n_block, at + j, ldc, TILE_PARTS);
    for (; j < n_all; j++)
        parts_times_rows(x, ldx, n_row, w + j, dtype, n_block, at + j, ldc, 1);
}

INLINE void gemm_dtype(const struct gemm_rows *rows, int k_pad, const unsigned char *const *panel,
                       int n_panel, float *c, size_t ldc, enum dtype dtype)
{
    _Alignas(64) float x[GEMM_X_FLOATS];
    int chunk = min_int((GEMM_X_FLOATS / rows->n - LANES) / K_BLOCK * K_BLOCK, k_pad);
    if (rows->n > TILE_ROWS)
        chunk = min_int(chunk, CHUNK_REUSED);
    size_t ldx = (size_t)chunk + LANES;
    for (int r = 0; r < rows->n; r++)
        memset(c + (size_t)r * ldc, 0, (size_t)n_panel * PANEL * sizeof *c);
    for (int k0 = 0; k0 < k_pad; k0 += chunk) {
        int n_k = min_int(chunk, k_pad - k0);
        widen_rows(rows, k0, n_k, x, ldx);
        chunk_times_panels(x, ldx, rows->n, n_k / K_BLOCK, panel, n_panel,
                           (size_t)(k0 / 2) * pair_bytes(dtype), dtype, c, ldc);
    }
}

#include "kernels/cpu/lanes/gemm_quant.h"

#include "kernels/cpu/lanes/gemm_int.h"

/* gemm_lanes: rows->n <= LANES_ROWS, n_panel <= GEMM_PANELS; panel[i] points at k = 0 of a panel of
 * w, or of another matrix of its dtype, depth and group. c [rows->n, ldc], ldc >= n_panel * PANEL.
 */
static void gemm_lanes(const struct gemm_rows *rows, const struct packed *w,
                       const unsigned char *const *panel, int n_panel, float *c, size_t ldc)
{
    int k_pad = k_padded(w->k);
    switch (w->dtype) {
    case DTYPE_I8:
        if (w->int_rows)
            gemm_int(rows, w, panel, n_panel, c, ldc);
        else
            gemm_quant(rows, w, panel, n_panel, c, ldc, DTYPE_I8);
        break;
    case DTYPE_I4:
        if (w->int_rows)
            gemm_int(rows, w, panel, n_panel, c, ldc);
        else
            gemm_quant(rows, w, panel, n_panel, c, ldc, DTYPE_I4);
        break;
    case DTYPE_BF16:
        gemm_dtype(rows, k_pad, panel, n_panel, c, ldc, DTYPE_BF16);
        break;
    default:
        gemm_dtype(rows, k_pad, panel, n_panel, c, ldc, DTYPE_F32);
    }
}

/* Rows that a unit makes integers, which are worth as many panels as leave units enough; and one or
 * two rows meet GEMM_PANELS at once. */
INLINE struct gemm_cut ints_cut(const struct packed *w, int few_panels, int n_row)
{
    int fit = min_int(ints_fit(k_padded(w->k)), LANES_ROWS);
    int few = 2 * few_panels > GEMM_PANELS ? 2 * few_panels : GEMM_PANELS;
    return (struct gemm_cut){.rows = fit ? fit : LANES_ROWS,
                             .panels = GEMM_PANELS,
                             .unit_rows = 2 * LANES_ROWS,
                             .unit_panels = n_row <= FEW_ROWS ? few : INT_UNIT};
}

/* Few rows read each weight once, so a unit is few panels: streams from memory, and units enough
 * for many threads. */
INLINE struct gemm_cut lanes_cut(const struct packed *w, int few_panels, int n_row)
{
    int few = n_row <= FEW_ROWS;
    if (w->int_rows)
        return ints_cut(w, few_panels, n_row);
    return (struct gemm_cut){.rows = LANES_ROWS,
                             .panels = few ? few_panels : LANES_PANELS,
                             .unit_rows = 2 * LANES_ROWS,
                             .unit_panels = few ? few_panels : LANES_PANELS};
}

INLINE void lanes_arrange(struct gemm_rows *rows, const struct packed *w)
{
    if (w->int_rows)
        ints_arrange(rows, w);
}

#if defined(LANES_TILES)
#include "kernels/cpu/amx/gemm_tiles.h"
#define gemm         gemm_tiles
#define gemm_begin   tile_open
#define gemm_cut_of  tiles_cut
#define gemm_arrange tiles_arrange
#define gemm_made    tiles_made
#define GEMM_SCRATCH TILES_SCRATCH
INLINE void gemm_end(void)
{
    tile_close();
    v_stream_end();
}
/* A tile that crosses a page costs twice its time. */
#define GEMM_ALIGN 4096
/* Rows of integers that a unit makes. */
#define GEMM_MADE TILES_MAX
#else
#define gemm         gemm_lanes
#define gemm_cut_of  lanes_cut
#define gemm_arrange lanes_arrange
#define GEMM_SCRATCH INT_SCRATCH
#define GEMM_ALIGN   64
#define GEMM_MADE    1
INLINE int gemm_made(const struct packed *w, int n_row)
{
    (void)w;
    (void)n_row;
    return 0;
}
INLINE void gemm_begin(void) {}
INLINE void gemm_end(void)
{
    v_stream_end();
}
#endif

/* Panel j of a packed matrix, at k = 0. */
INLINE const unsigned char *panel_at(const struct packed *w, int j)
{
    return (const unsigned char *)w->data + (size_t)j * panel_bytes(w);
}

/* gemm_ahead asks for what few rows meet first of panels [first, last), while they are arranged. */
INLINE void gemm_ahead(const struct packed *w, int n_row, int first, int last)
{
    if (!w->int_rows || n_row > FEW_ROWS)
        return;
    size_t line = quant_block_at(w, 0);
    for (int j = first; j < min_int(last, first + GEMM_PANELS); j++) {
        const unsigned char *panel = panel_at(w, j);
        for (size_t i = 0; i < SCALE_AHEAD; i += LINE_BYTES)
            __builtin_prefetch(panel + i);
        for (size_t i = 0; i < INT_FIRST; i += LINE_BYTES)
            __builtin_prefetch(panel + line + i);
    }
}

#endif
