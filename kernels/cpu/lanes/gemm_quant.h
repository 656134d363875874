/* gemm_quant: rows times panels of integer weights, THE SUM with a scale a group. Integers become
 * floats in registers, exactly; the scales' multiplication is the fused one that adds a group to c,
 * one for up to 128 k. A micro-tile keeps a third sum, the group's, so it has fewer rows than one
 * of float weights. Included by gemm.h. */
#ifndef KERNELS_GEMM_QUANT_H
#define KERNELS_GEMM_QUANT_H

#include "kernels/pack_quant.h"

/* 4 x 2 x (e, o, g) = 24 of AVX-512's 32 registers; 3 x 1 x 3 = 9 of AVX2's 16. */
#if TILE_ROWS == 6 && PART_LANES == 16
#define QUANT_ROWS 4
#elif TILE_ROWS == 6
#define QUANT_ROWS 3
#else
#define QUANT_ROWS 2
#endif

/* The even and the odd k of one pair, for the columns of one part; w points at the part's first
 * byte. */
#if PART_LANES == 8
INLINE __m256i q_bytes(const unsigned char *w)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)w));
}
INLINE void load_quant(const unsigned char *w, enum dtype dtype, part *even, part *odd)
{
    if (dtype == DTYPE_I8) {
        __m128i e = _mm_loadl_epi64((const __m128i *)(const void *)w);
        __m128i o = _mm_loadl_epi64((const __m128i *)(const void *)(w + PANEL));
        *even = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(e));
        *odd = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(o));
    } else {
        __m256i b = q_bytes(w);
        *even = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(b, 28), 28));
        *odd = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(b, 24), 28));
    }
}
INLINE part load_scale(const unsigned char *s)
{
    return v_widen8((const uint16_t *)(const void *)s);
}
#elif TILE_ROWS == 6
INLINE void load_quant(const unsigned char *w, enum dtype dtype, part *even, part *odd)
{
    __m128i b = _mm_loadu_si128((const __m128i *)(const void *)w);
    if (dtype == DTYPE_I8) {
        __m128i o = _mm_loadu_si128((const __m128i *)(const void *)(w + PANEL));
        *even = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b));
        *odd = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(o));
    } else {
        /* A permutation looks at the low four bits of each index: a table of the sixteen values. */
        const __m512 value = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
        __m512i i = _mm512_cvtepu8_epi32(b);
        *even = _mm512_permutexvar_ps(i, value);
        *odd = _mm512_permutexvar_ps(_mm512_srli_epi32(i, 4), value);
    }
}
INLINE part load_scale(const unsigned char *s)
{
    return v_load_bf16((const uint16_t *)(const void *)s);
}
#else
INLINE void load_quant(const unsigned char *w, enum dtype dtype, part *even, part *odd)
{
    float e[PANEL], o[PANEL];
    for (int i = 0; i < PANEL; i++) {
        if (dtype == DTYPE_I8) {
            e[i] = (float)(int8_t)w[i];
            o[i] = (float)(int8_t)w[PANEL + i];
        } else {
            e[i] = (float)((w[i] & 15) ^ 8) - 8.0f;
            o[i] = (float)((w[i] >> 4) ^ 8) - 8.0f;
        }
    }
    *even = p_load(e);
    *odd = p_load(o);
}
INLINE part load_scale(const unsigned char *s)
{
    return v_load_bf16((const uint16_t *)(const void *)s);
}
#endif

/* Part j of a panel begins so many bytes into each row of PANEL bytes, and into the scales. */
#define PART_BYTE(j)  ((size_t)((j) % PARTS) * PART_LANES)
#define PART_SCALE(j) ((size_t)((j) % PARTS) * PART_LANES * 2)

/* Unpacking leaves the load ports idle and a processor looks only some hundred bytes ahead of it,
 * so one or two rows ask for what comes next themselves. */
#define QUANT_AHEAD 2048
INLINE void quant_ahead(const unsigned char *w, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const void *)((uintptr_t)w + QUANT_AHEAD + i));
}

/* One micro-tile over one group of n_block blocks: c += scale * (x w). w[j] points at the group's
 * scales of part j's panel. */
INLINE void quant_tile(const float *x, size_t ldx, const unsigned char *const *w, int first_part,
                       enum dtype dtype, int n_block, float *const *c, size_t ldc, const int n_row,
                       const int n_part)
{
    const size_t step = dtype == DTYPE_I8 ? 2 * PANEL : PANEL;
    part g[QUANT_ROWS][4];
    const unsigned char *at[4];
#pragma GCC unroll 8
    for (int j = 0; j < n_part; j++) {
        at[j] = w[j] + SCALE_BYTES + PART_BYTE(first_part + j);
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++)
            g[r][j] = p_zero();
    }
    for (int b = 0; b < n_block; b++) {
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
#pragma GCC unroll 4
        for (int p = 0; p < K_BLOCK / 2; p++, x += 2) {
            part we[4], wo[4];
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++) {
                load_quant(at[j], dtype, &we[j], &wo[j]);
                at[j] += step;
            }
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
                g[r][j] = p_add(g[r][j], p_add(e[r][j], o[r][j]));
            }
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < n_part; j++) {
        part scale = load_scale(w[j] + PART_SCALE(first_part + j));
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
            float *at_c = c[j] + (size_t)r * ldc;
            p_store(at_c, p_fma(scale, g[r][j], p_load(at_c)));
        }
    }
}

#define QUANT_CASE(rows)                                                                           \
    case rows:                                                                                     \
        quant_tile(x, ldx, w, first_part, dtype, n_block, c, ldc, rows, n_part);                   \
        break

INLINE void quant_rows(const float *x, size_t ldx, const unsigned char *const *w, int first_part,
                       enum dtype dtype, int n_block, float *const *c, size_t ldc, int n_row,
                       const int n_part)
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

/* n_part parts from first_part on against every row, over one group. */
INLINE void quant_parts(const float *x, size_t ldx, int n_row, const unsigned char *const *panel,
                        size_t w_offset, int first_part, enum dtype dtype, int n_block, float *c,
                        size_t ldc, const int n_part)
{
    const unsigned char *w[4];
    for (int j = 0; j < n_part; j++)
        w[j] = panel[(first_part + j) / PARTS] + w_offset;
    int n_tile = (n_row + QUANT_ROWS - 1) / QUANT_ROWS;
    for (int t = 0, r = 0; t < n_tile; t++) {
        int n = (n_row - r + n_tile - t - 1) / (n_tile - t);
        float *at[4];
        for (int j = 0; j < n_part; j++)
            at[j] = c + (size_t)r * ldc + (size_t)(first_part + j) * PART_LANES;
        quant_rows(x + (size_t)r * ldx, ldx, w, first_part, dtype, n_block, at, ldc, n, n_part);
        r += n;
    }
}

INLINE void quant_group(const float *x, size_t ldx, int n_row, int n_block,
                        const unsigned char *const *panel, int n_panel, size_t w_offset,
                        enum dtype dtype, float *c, size_t ldc)
{
    int n_all = n_panel * PARTS, j = 0;
    for (; n_row == 1 && j + 4 <= n_all; j += 4)
        quant_parts(x, ldx, n_row, panel, w_offset, j, dtype, n_block, c, ldc, 4);
    for (; n_row <= 2 && j + 2 <= n_all; j += 2)
        quant_parts(x, ldx, n_row, panel, w_offset, j, dtype, n_block, c, ldc, 2);
    for (; j + TILE_PARTS <= n_all; j += TILE_PARTS)
        quant_parts(x, ldx, n_row, panel, w_offset, j, dtype, n_block, c, ldc, TILE_PARTS);
    for (; j < n_all; j++)
        quant_parts(x, ldx, n_row, panel, w_offset, j, dtype, n_block, c, ldc, 1);
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
        for (int k = 0; k < n_k; k += w->group)
            quant_group(x + k, ldx, rows->n, min_int(w->group, n_k - k) / K_BLOCK, panel, n_panel,
                        quant_scale_at(dtype, w->group, k0 + k), dtype, c, ldc);
    }
}

#endif
