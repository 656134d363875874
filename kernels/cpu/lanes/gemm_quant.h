/* gemm_quant: rows times panels of integer weights, THE SUM with a scale a group. Integers become
 * floats in registers, exactly; the scales' multiplication is the fused one that adds a group to c,
 * one for up to 128 k. A micro-tile keeps a third sum, the group's, so it has fewer rows than one
 * of float weights. Included by gemm.h. */
#ifndef KERNELS_GEMM_QUANT_H
#define KERNELS_GEMM_QUANT_H

#include "kernels/pack_quant.h"

/* 4 x 2 x (e, o, g) = 24 of AVX-512's 32 registers; 3 x 1 x 3 = 9 of AVX2's 16. Two do for a
 * sanitizer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define QUANT_ROWS 2
#elif TILE_ROWS == 6 && PART_LANES == 16
#define QUANT_ROWS 4
#elif TILE_ROWS == 6
#define QUANT_ROWS 3
#else
#define QUANT_ROWS 2
#endif

/* Where in a column's four bytes the integer of k lies: bits to the right of it. */
INLINE int quant_shift(enum dtype dtype, int k)
{
    return k % QUAD * 8 + (dtype == DTYPE_I4 ? k / QUAD % 2 * 4 : 0);
}

/* quad: the columns of one part, four bytes each. quant_value: the integers of one k of it; `shift`
 * is a constant after inlining. */
#if PART_LANES == 8
typedef __m256i quad;
INLINE quad load_quads(const unsigned char *w)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)w);
}
INLINE part quant_value(quad q, enum dtype dtype, const int shift)
{
    const int bits = dtype == DTYPE_I8 ? 8 : 4;
    return _mm256_cvtepi32_ps(
        _mm256_srai_epi32(_mm256_slli_epi32(q, 32 - bits - shift), 32 - bits));
}
INLINE part load_scale(const unsigned char *s)
{
    return v_widen8((const uint16_t *)(const void *)s);
}
#elif TILE_ROWS == 6
typedef __m512i quad;
INLINE quad load_quads(const unsigned char *w)
{
    return _mm512_loadu_si512(w);
}
INLINE part quant_value(quad q, enum dtype dtype, const int shift)
{
    /* A permutation looks at the low four bits of each index: a table of the sixteen values. */
    const __m512 value = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
    if (dtype == DTYPE_I4)
        return _mm512_permutexvar_ps(_mm512_srli_epi32(q, (unsigned)shift), value);
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(q, (unsigned)(24 - shift)), 24));
}
INLINE part load_scale(const unsigned char *s)
{
    return v_load_bf16((const uint16_t *)(const void *)s);
}
#else
typedef vec_bits quad;
INLINE quad load_quads(const unsigned char *w)
{
    quad q;
    memcpy(&q, w, sizeof q);
    return q;
}
INLINE part quant_value(quad q, enum dtype dtype, const int shift)
{
    const int bits = dtype == DTYPE_I8 ? 8 : 4;
    return __builtin_convertvector((vec_ints)(q << (32 - bits - shift)) >> (32 - bits), vec);
}
INLINE part load_scale(const unsigned char *s)
{
    return v_load_bf16((const uint16_t *)(const void *)s);
}
#endif

/* Part j of a panel begins so many bytes into each line, and into the scales. */
#define PART_BYTE(j)  ((size_t)((j) % PARTS) * PART_LANES * QUAD)
#define PART_SCALE(j) ((size_t)((j) % PARTS) * PART_LANES * 2)

/* Unpacking leaves the load ports idle and a processor looks only some hundred bytes ahead of it,
 * so one or two rows ask for what comes next themselves. */
#define QUANT_AHEAD 2048
INLINE void quant_ahead(const unsigned char *w, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const void *)((uintptr_t)w + QUANT_AHEAD + i));
}

/* What a micro-tile meets of the weights: one group of n_block blocks of the parts from `first` on;
 * at and scale[j] point at its first line and its scales in part j's panel. */
struct quant_stretch {
    const unsigned char *at[4], *scale[4];
    int first, n_block;
};

/* One micro-tile over one group: c += scale * (x w). */
INLINE void quant_tile(const float *x, size_t ldx, const struct quant_stretch *w, enum dtype dtype,
                       float *const *c, size_t ldc, const int n_row, const int n_part)
{
    const int line_k = quant_line_k(dtype);
    part g[QUANT_ROWS][4];
    const unsigned char *at[4];
#pragma GCC unroll 8
    for (int j = 0; j < n_part; j++) {
        at[j] = w->at[j] + PART_BYTE(w->first + j);
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++)
            g[r][j] = p_zero();
    }
    for (int b = 0; b < w->n_block; b++) {
        part e[QUANT_ROWS][4], o[QUANT_ROWS][4];
        if (n_row <= 2)
            for (int j = 0; j < n_part; j++)
                quant_ahead(at[j], quant_block_bytes(dtype));
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++)
                e[r][j] = o[r][j] = p_zero();
        }
        for (int line = 0; line < K_BLOCK; line += line_k, x += line_k) {
            quad q[4];
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++) {
                q[j] = load_quads(at[j]);
                at[j] += LINE_BYTES;
            }
#pragma GCC unroll 8
            for (int k = 0; k < line_k; k += 2) {
                part we[4], wo[4];
#pragma GCC unroll 8
                for (int j = 0; j < n_part; j++) {
                    we[j] = quant_value(q[j], dtype, quant_shift(dtype, k));
                    wo[j] = quant_value(q[j], dtype, quant_shift(dtype, k + 1));
                }
#pragma GCC unroll 8
                for (int r = 0; r < n_row; r++) {
                    const float *at_x = x + (size_t)r * ldx + k;
                    part xe = p_set1(at_x[0]), xo = p_set1(at_x[1]);
#pragma GCC unroll 8
                    for (int j = 0; j < n_part; j++) {
                        e[r][j] = p_fma(xe, we[j], e[r][j]);
                        o[r][j] = p_fma(xo, wo[j], o[r][j]);
                    }
                }
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++) {
                g[r][j] = p_add(g[r][j], p_add(e[r][j], o[r][j]));
            }
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < n_part; j++) {
        part scale = load_scale(w->scale[j] + PART_SCALE(w->first + j));
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
            float *at_c = c[j] + (size_t)r * ldc;
            p_store(at_c, p_fma(scale, g[r][j], p_load(at_c)));
        }
    }
}

#define QUANT_CASE(rows)                                                                           \
    case rows:                                                                                     \
        quant_tile(x, ldx, w, dtype, c, ldc, rows, n_part);                                        \
        break

INLINE void quant_rows(const float *x, size_t ldx, const struct quant_stretch *w, enum dtype dtype,
                       float *const *c, size_t ldc, int n_row, const int n_part)
{
    switch (n_row) {
        QUANT_CASE(1);
        QUANT_CASE(2);
#if QUANT_ROWS >= 3
        QUANT_CASE(3);
#endif
#if QUANT_ROWS >= 4
        QUANT_CASE(4);
#endif
    default:
        break;
    }
}

/* One group of k of some panels; at, scale: offsets into a panel. */
struct quant_group {
    const unsigned char *const *panel;
    size_t at, scale;
    int n_block;
};

/* n_part parts from `first` on against every row, over one group. */
INLINE void quant_parts(const float *x, size_t ldx, int n_row, const struct quant_group *group,
                        int first, enum dtype dtype, float *c, size_t ldc, const int n_part)
{
    struct quant_stretch w = {.first = first, .n_block = group->n_block};
    for (int j = 0; j < n_part; j++) {
        w.at[j] = group->panel[(first + j) / PARTS] + group->at;
        w.scale[j] = group->panel[(first + j) / PARTS] + group->scale;
    }
    int n_tile = (n_row + QUANT_ROWS - 1) / QUANT_ROWS;
    for (int t = 0, r = 0; t < n_tile; t++) {
        int n = (n_row - r + n_tile - t - 1) / (n_tile - t);
        float *at[4];
        for (int j = 0; j < n_part; j++)
            at[j] = c + (size_t)r * ldc + (size_t)(first + j) * PART_LANES;
        quant_rows(x + (size_t)r * ldx, ldx, &w, dtype, at, ldc, n, n_part);
        r += n;
    }
}

INLINE void quant_group(const float *x, size_t ldx, int n_row, const struct quant_group *group,
                        int n_panel, enum dtype dtype, float *c, size_t ldc)
{
    int n_all = n_panel * PARTS, j = 0;
    for (; n_row == 1 && j + 4 <= n_all; j += 4)
        quant_parts(x, ldx, n_row, group, j, dtype, c, ldc, 4);
    for (; n_row <= 2 && j + 2 <= n_all; j += 2)
        quant_parts(x, ldx, n_row, group, j, dtype, c, ldc, 2);
    for (; j + TILE_PARTS <= n_all; j += TILE_PARTS)
        quant_parts(x, ldx, n_row, group, j, dtype, c, ldc, TILE_PARTS);
    for (; j < n_all; j++)
        quant_parts(x, ldx, n_row, group, j, dtype, c, ldc, 1);
}

/* A chunk of widened rows is whole groups; a group that no chunk holds is cut at no other place
 * than its end, so the widest group must fit: GEMM_X_FLOATS / GEMM_ROWS less the padding. */
INLINE void gemm_quant(const struct gemm_rows *rows, const struct packed *w,
                       const unsigned char *const *panel, int n_panel, float *c, size_t ldc,
                       enum dtype dtype)
{
    _Alignas(64) float x[GEMM_X_FLOATS];
    int k_pad = k_padded(w->k);
    int chunk = GEMM_X_FLOATS / rows->n - LANES;
    if (rows->n > QUANT_ROWS)
        chunk = min_int(chunk, CHUNK_REUSED);
    chunk = min_int(chunk / w->group * w->group, (k_pad + w->group - 1) / w->group * w->group);
    size_t ldx = (size_t)chunk + LANES;
    for (int r = 0; r < rows->n; r++)
        memset(c + (size_t)r * ldc, 0, (size_t)n_panel * PANEL * sizeof *c);
    for (int k0 = 0; k0 < k_pad; k0 += chunk) {
        int n_k = min_int(chunk, k_pad - k0);
        widen_rows(rows, k0, n_k, x, ldx);
        for (int k = 0; k < n_k; k += w->group) {
            struct quant_group group = {.panel = panel,
                                        .at = quant_block_at(w, k0 + k),
                                        .scale = quant_scale_at(w, k0 + k),
                                        .n_block = min_int(w->group, n_k - k) / K_BLOCK};
            quant_group(x + k, ldx, rows->n, &group, n_panel, dtype, c, ldc);
        }
    }
}

#endif
