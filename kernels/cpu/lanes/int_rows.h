/* int_rows: rows of bf16 made integers of 8 bits, as THE INTEGER SUM of kernels.h says: each
 * ROW_GROUP of k by its largest magnitude. Which groups are nothing or not finite is told from the
 * bits of bf16, so no instruction set's minimum or maximum of floats is asked. */
#ifndef KERNELS_INT_ROWS_H
#define KERNELS_INT_ROWS_H

#include "kernels/pack_quant.h"
#include "kernels/vec.h"

#include "base/dtype.h"
#include <math.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) || defined(__AVX2__) && defined(__FMA__)
INLINE unsigned int_top16(__m256i m)
{
    __m128i h = _mm_max_epu16(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    /* The least of the complements is what x86 finds across lanes. */
    __m128i least = _mm_minpos_epu16(_mm_xor_si128(h, _mm_set1_epi16(-1)));
    return ~(unsigned)_mm_cvtsi128_si32(least) & 0xffffu;
}
#endif

/* int_top: bits of the largest magnitude of x [n], n a multiple of 32. int_round: q = x * by, to
 * the nearest, ties to even; |x * by| < 127.5. */
#if defined(__AVX512F__) && defined(__AVX512BW__)
INLINE unsigned int_top(const uint16_t *x, int n)
{
    __m512i top = _mm512_setzero_si512(), magnitude = _mm512_set1_epi16(0x7fff);
    for (int i = 0; i < n; i += 32)
        top = _mm512_max_epu16(top, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    return int_top16(
        _mm256_max_epu16(_mm512_castsi512_si256(top), _mm512_extracti64x4_epi64(top, 1)));
}
INLINE void int_round(const uint16_t *x, int n, float by, int8_t *q)
{
    vec f = v_set1(by);
    for (int i = 0; i < n; i += 32) {
        vec even, odd;
        v_load_pairs(x + i, &even, &odd);
        __m512i e = _mm512_cvtps_epi32(_mm512_mul_ps(even, f));
        __m512i o = _mm512_cvtps_epi32(_mm512_mul_ps(odd, f));
        __m512i words = _mm512_mask_blend_epi16(0xaaaaaaaau, e, _mm512_slli_epi32(o, 16));
        _mm256_storeu_si256((__m256i *)(void *)(q + i), _mm512_cvtepi16_epi8(words));
    }
}
#elif defined(__AVX2__) && defined(__FMA__)
INLINE unsigned int_top(const uint16_t *x, int n)
{
    __m256i top = _mm256_setzero_si256(), magnitude = _mm256_set1_epi16(0x7fff);
    for (int i = 0; i < n; i += 16) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        top = _mm256_max_epu16(top, _mm256_and_si256(v, magnitude));
    }
    return int_top16(top);
}
/* Sixteen k as words. */
INLINE __m256i int_words(const uint16_t *x, __m256 by)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)x);
    __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
    __m256 odd = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u)));
    __m256i e = _mm256_cvtps_epi32(_mm256_mul_ps(even, by));
    __m256i o = _mm256_cvtps_epi32(_mm256_mul_ps(odd, by));
    return _mm256_blend_epi16(e, _mm256_slli_epi32(o, 16), 0xaa);
}
INLINE void int_round(const uint16_t *x, int n, float by, int8_t *q)
{
    __m256 f = _mm256_set1_ps(by);
    for (int i = 0; i < n; i += 32) {
        __m256i bytes = _mm256_packs_epi16(int_words(x + i, f), int_words(x + i + 16, f));
        _mm256_storeu_si256((__m256i *)(void *)(q + i), _mm256_permute4x64_epi64(bytes, 0xd8));
    }
}
#else
INLINE unsigned int_top(const uint16_t *x, int n)
{
    unsigned top = 0;
    for (int i = 0; i < n; i++) {
        unsigned magnitude = x[i] & 0x7fffu;
        top = magnitude > top ? magnitude : top;
    }
    return top;
}
INLINE void int_round(const uint16_t *x, int n, float by, int8_t *q)
{
    for (int i = 0; i < n; i += LANES) {
        float f[LANES];
        v_store(f, v_round(v_mul(v_load_bf16(x + i), v_set1(by))));
        for (int j = 0; j < LANES; j++)
            q[i + j] = (int8_t)f[j];
    }
}
#endif

/* One group: q [n], n a multiple of 32 up to ROW_GROUP; returns its scale. */
INLINE float int_row_group(const uint16_t *x, int n, int8_t *q)
{
    unsigned bits = int_top(x, n);
    if (bits < INT_TOP_LEAST || bits >= INT_TOP_INFINITE) {
        for (int i = 0; i < n; i++)
            q[i] = 0;
        return bits < INT_TOP_LEAST ? 0.0f : NAN;
    }
    float top = bf16_to_f32((uint16_t)bits);
    int_round(x, n, 127.0f / top, q);
    return top / 127.0f;
}

/* int_row: x [n_k] of one row, from a multiple of ROW_GROUP on, n_k a multiple of 32: q [n_k] and
 * scale, one a ROW_GROUP. What is behind n_k in the last group counts as zeros. */
INLINE void int_row(const uint16_t *x, int n_k, int8_t *q, float *scale)
{
    for (int k = 0; k < n_k; k += ROW_GROUP) {
        int n = n_k - k < ROW_GROUP ? n_k - k : ROW_GROUP;
        scale[k / ROW_GROUP] = int_row_group(x + k, n, q + k);
    }
}

/* int_row_scales: of a row made integers that lies where its bf16 would (kernels.ints). */
INLINE float *int_row_scales(void *row, int k_pad)
{
    return (float *)(void *)((unsigned char *)row + k_pad);
}

/* int_row_sums: sum [n_k / 32], of q over each 32 k. */
#if defined(__AVX512VNNI__)
INLINE void int_row_sums(const int8_t *q, int n_k, int32_t *sum)
{
    const __m512i ones = _mm512_set1_epi8(1),
                  order = _mm512_setr_epi32(0, 8, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    for (int k = 0; k < n_k; k += 128) {
        int left = n_k - k;
        __mmask16 first = left >= 64 ? 0xffffu : 0xffu;
        __mmask16 second = left >= 128 ? 0xffffu : left > 64 ? 0xffu : 0;
        __m512i a = _mm512_maskz_loadu_epi32(first, q + k);
        __m512i b = _mm512_maskz_loadu_epi32(second, q + k + 64);
        /* Lanes 0..7 are a block, 8..15 the next. */
        a = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, a);
        b = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, b);
        __m512i s = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        s = _mm512_add_epi32(s, _mm512_shuffle_epi32(s, _MM_PERM_BADC));
        s = _mm512_add_epi32(s, _mm512_shuffle_i64x2(s, s, 0xb1));
        /* s0, s2 in the first 128 bits, s1, s3 in the third. */
        __m128i four = _mm512_castsi512_si128(_mm512_permutexvar_epi32(order, s));
        _mm_mask_storeu_epi32(sum + k / 32, (__mmask8)((1u << (left < 128 ? left / 32 : 4)) - 1),
                              four);
    }
}
#else
INLINE void int_row_sums(const int8_t *q, int n_k, int32_t *sum)
{
    for (int k = 0; k < n_k; k += 32) {
        int32_t s = 0;
        for (int i = 0; i < 32; i++)
            s += q[k + i];
        sum[k / 32] = s;
    }
}
#endif

#endif
