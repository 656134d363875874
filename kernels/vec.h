/* vec: sixteen f32 lanes, the same on every instruction set. Kernels are written once against this
 * header and compiled for each; sixteen is the width everywhere (four SSE, two AVX2, one AVX-512
 * register), so lane l always sees elements l, l + 16, ... and reductions round alike.
 * Included only by sources under kernels/cpu, which are compiled with the flags of their ISA. */
#ifndef KERNELS_VEC_H
#define KERNELS_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LANES  16
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512BW__)

typedef __m512 vec;
INLINE vec v_set1(float a)
{
    return _mm512_set1_ps(a);
}
INLINE vec v_zero(void)
{
    return _mm512_setzero_ps();
}
INLINE vec v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void v_store(float *p, vec a)
{
    _mm512_storeu_ps(p, a);
}
INLINE vec v_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
INLINE vec v_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
INLINE vec v_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
INLINE vec v_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
INLINE vec v_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* a > b ? a : b, so a NaN in b stays and one in a goes: the x86 rule, kept everywhere. */
INLINE vec v_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
INLINE vec v_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
/* a > b ? yes : no, lane by lane; a NaN on either side chooses `no`. */
INLINE vec v_select_gt(vec a, vec b, vec yes, vec no)
{
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), yes);
}
INLINE vec v_abs(vec a)
{
    return _mm512_abs_ps(a);
}
/* The magnitude of a with the sign of b. */
INLINE vec v_copysign(vec a, vec b)
{
    __m512i sign = _mm512_set1_epi32((int)0x80000000u);
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(sign, _mm512_castps_si512(b), _mm512_castps_si512(a), 0xca));
}
/* 16 bf16 to f32, exact. */
INLINE vec v_load_bf16(const uint16_t *p)
{
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
/* Integers to f32, exact below 2^24. */
INLINE vec v_load_int(const int32_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(p));
}
/* 32 bf16 as 16 pairs: the even and the odd elements, widened. */
INLINE void v_load_pairs(const uint16_t *p, vec *even, vec *odd)
{
    __m512i w = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000u)));
}
/* The integer work of exp, a times 2^n: 0.5 < a < 2 or a NaN, n an integer in [-127, 128]. */
INLINE vec v_times_exp2(vec a, vec n)
{
    return _mm512_scalef_ps(a, n);
}
INLINE vec v_round(vec a)
{
    return _mm512_roundscale_ps(a, 8);
}
/* bf16 in the upper half of each lane, anything in the lower: rounded to nearest even, NaN stays
 * NaN. */
INLINE __m512i v_bf16_high(vec a)
{
    __m512i u = _mm512_castps_si512(a), one = _mm512_set1_epi32(1);
    __m512i r = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
    r = _mm512_mask_add_epi32(r, _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000)), r, one);
    return _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), u,
                                _mm512_set1_epi32(0x400000));
}
INLINE void v_store_bf16(uint16_t *p, vec a)
{
    __m512i words = _mm512_srli_epi32(v_bf16_high(a), 16);
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(words));
}
/* The reverse of v_load_pairs, rounded as v_store_bf16 does. */
INLINE void v_store_pairs(uint16_t *p, vec even, vec odd)
{
    __m512i low = _mm512_srli_epi32(v_bf16_high(even), 16);
    _mm512_storeu_si512(p, _mm512_mask_blend_epi16(0xaaaaaaaau, low, v_bf16_high(odd)));
}

#elif defined(__AVX2__) && defined(__FMA__)

typedef struct {
    __m256 a, b;
} vec;
INLINE vec v_make(__m256 a, __m256 b)
{
    vec r = {a, b};
    return r;
}
INLINE vec v_set1(float x)
{
    return v_make(_mm256_set1_ps(x), _mm256_set1_ps(x));
}
INLINE vec v_zero(void)
{
    return v_make(_mm256_setzero_ps(), _mm256_setzero_ps());
}
INLINE vec v_load(const float *p)
{
    return v_make(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
INLINE void v_store(float *p, vec x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
INLINE vec v_add(vec x, vec y)
{
    return v_make(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
INLINE vec v_sub(vec x, vec y)
{
    return v_make(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
INLINE vec v_mul(vec x, vec y)
{
    return v_make(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
INLINE vec v_div(vec x, vec y)
{
    return v_make(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b));
}
INLINE vec v_fma(vec x, vec y, vec z)
{
    return v_make(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
INLINE vec v_max(vec x, vec y)
{
    return v_make(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b));
}
INLINE vec v_min(vec x, vec y)
{
    return v_make(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b));
}
INLINE __m256 v_select_gt8(__m256 a, __m256 b, __m256 yes, __m256 no)
{
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
INLINE vec v_select_gt(vec a, vec b, vec yes, vec no)
{
    return v_make(v_select_gt8(a.a, b.a, yes.a, no.a), v_select_gt8(a.b, b.b, yes.b, no.b));
}
INLINE vec v_abs(vec x)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return v_make(_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b));
}
INLINE __m256 v_copysign8(__m256 a, __m256 b)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b));
}
INLINE vec v_copysign(vec x, vec y)
{
    return v_make(v_copysign8(x.a, y.a), v_copysign8(x.b, y.b));
}
INLINE __m256 v_widen8(const uint16_t *p)
{
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
INLINE vec v_load_bf16(const uint16_t *p)
{
    return v_make(v_widen8(p), v_widen8(p + 8));
}
INLINE vec v_load_int(const int32_t *p)
{
    const __m256i *q = (const __m256i *)(const void *)p;
    return v_make(_mm256_cvtepi32_ps(_mm256_loadu_si256(q)),
                  _mm256_cvtepi32_ps(_mm256_loadu_si256(q + 1)));
}
INLINE void v_load_pairs(const uint16_t *p, vec *even, vec *odd)
{
    __m256i w0 = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i w1 = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16));
    __m256i hi = _mm256_set1_epi32((int)0xffff0000u);
    *even = v_make(_mm256_castsi256_ps(_mm256_slli_epi32(w0, 16)),
                   _mm256_castsi256_ps(_mm256_slli_epi32(w1, 16)));
    *odd = v_make(_mm256_castsi256_ps(_mm256_and_si256(w0, hi)),
                  _mm256_castsi256_ps(_mm256_and_si256(w1, hi)));
}
/* 2^n for n in lanes given as floats holding integers in [-126, 127]. */
INLINE __m256 v_exp2i8(__m256 n)
{
    __m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(i, 23));
}
INLINE vec v_exp2i(vec n)
{
    return v_make(v_exp2i8(n.a), v_exp2i8(n.b));
}
INLINE vec v_round(vec x)
{
    return v_make(_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8));
}
INLINE __m256i v_bf16_words(__m256 a)
{
    __m256i u = _mm256_castps_si256(a), top = _mm256_srli_epi32(u, 16);
    __m256i lsb = _mm256_and_si256(top, _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(
        _mm256_add_epi32(u, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
    __m256 is_nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(r, nan, _mm256_castps_si256(is_nan));
}
INLINE void v_store_bf16(uint16_t *p, vec x)
{
    __m256i packed = _mm256_packus_epi32(v_bf16_words(x.a), v_bf16_words(x.b));
    packed = _mm256_permute4x64_epi64(packed, 0xd8);
    _mm256_storeu_si256((__m256i *)(void *)p, packed);
}
INLINE __m256i v_pair_words(__m256 even, __m256 odd)
{
    return _mm256_or_si256(v_bf16_words(even), _mm256_slli_epi32(v_bf16_words(odd), 16));
}
INLINE void v_store_pairs(uint16_t *p, vec even, vec odd)
{
    _mm256_storeu_si256((__m256i *)(void *)p, v_pair_words(even.a, odd.a));
    _mm256_storeu_si256((__m256i *)(void *)(p + 16), v_pair_words(even.b, odd.b));
}

#else

/* Vector types of the compiler, which gcc and clang lower to whatever registers there are. */
#include <math.h>

typedef float vec __attribute__((vector_size(64)));
typedef uint32_t vec_bits __attribute__((vector_size(64)));
typedef int32_t vec_ints __attribute__((vector_size(64)));
typedef uint16_t vec_halves __attribute__((vector_size(32)));

INLINE vec v_set1(float a)
{
    return (vec){a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a};
}
INLINE vec v_zero(void)
{
    return (vec){0};
}
INLINE vec v_load(const float *p)
{
    vec r;
    memcpy(&r, p, sizeof r);
    return r;
}
INLINE void v_store(float *p, vec a)
{
    memcpy(p, &a, sizeof a);
}
INLINE vec v_add(vec a, vec b)
{
    return a + b;
}
INLINE vec v_sub(vec a, vec b)
{
    return a - b;
}
INLINE vec v_mul(vec a, vec b)
{
    return a * b;
}
INLINE vec v_div(vec a, vec b)
{
    return a / b;
}
/* x86 without FMA calls libm sixteen times: one copy of that is enough, and compiles sooner. */
#if defined(__x86_64__)
__attribute__((noinline, unused)) static vec v_fma(vec a, vec b, vec c)
#else
INLINE vec v_fma(vec a, vec b, vec c)
#endif
{
    vec r;
    for (int i = 0; i < LANES; i++) {
        r[i] = fmaf(a[i], b[i], c[i]);
    }
    return r;
}
INLINE vec v_select_gt(vec a, vec b, vec yes, vec no)
{
    vec_bits m = (vec_bits)(a > b);
    return (vec)(((vec_bits)yes & m) | ((vec_bits)no & ~m));
}
INLINE vec v_max(vec a, vec b)
{
    return v_select_gt(a, b, a, b);
}
INLINE vec v_min(vec a, vec b)
{
    return v_select_gt(b, a, a, b);
}
INLINE vec v_abs(vec a)
{
    return (vec)((vec_bits)a & 0x7fffffffu);
}
INLINE vec v_copysign(vec a, vec b)
{
    return (vec)(((vec_bits)a & 0x7fffffffu) | ((vec_bits)b & 0x80000000u));
}
INLINE vec v_load_bf16(const uint16_t *p)
{
    vec_halves h;
    memcpy(&h, p, sizeof h);
    return (vec)(__builtin_convertvector(h, vec_bits) << 16);
}
INLINE vec v_load_int(const int32_t *p)
{
    vec_ints i;
    memcpy(&i, p, sizeof i);
    return __builtin_convertvector(i, vec);
}
INLINE void v_load_pairs(const uint16_t *p, vec *even, vec *odd)
{
    vec_bits w;
    memcpy(&w, p, sizeof w);
    *even = (vec)(w << 16);
    *odd = (vec)(w & 0xffff0000u);
}
INLINE vec v_exp2i(vec n)
{
    return (vec)((__builtin_convertvector(n, vec_ints) + 127) << 23);
}
/* Adding 2^23 leaves no bits behind the point; beyond that there are none, and NaN stays. */
INLINE vec v_round(vec a)
{
    vec big = v_set1(0x1p23f), shift = v_copysign(big, a);
    return v_select_gt(big, v_abs(a), v_copysign((a + shift) - shift, a), a);
}
INLINE vec_bits v_bf16_words(vec a)
{
    vec_bits u = (vec_bits)a, nan = (vec_bits)(a != a);
    vec_bits r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (nan & ((u >> 16) | 0x40u)) | (~nan & r);
}
INLINE void v_store_bf16(uint16_t *p, vec a)
{
    vec_halves h = __builtin_convertvector(v_bf16_words(a), vec_halves);
    memcpy(p, &h, sizeof h);
}
INLINE void v_store_pairs(uint16_t *p, vec even, vec odd)
{
    vec_bits words = v_bf16_words(even) | v_bf16_words(odd) << 16;
    memcpy(p, &words, sizeof words);
}

#endif

#if !(defined(__AVX512F__) && defined(__AVX512BW__))
/* The same in two factors, neither too large nor too small, of which only the second may lead out
 * of the range of f32: the bits of the one instruction above. */
INLINE vec v_times_exp2(vec a, vec n)
{
    vec half = v_round(v_mul(n, v_set1(0.5f)));
    return v_mul(v_mul(a, v_exp2i(half)), v_exp2i(v_sub(n, half)));
}
#endif

/* v_sum: the fixed tree ((l, l+8), (l, l+4), (l, l+2), (l, l+1)); v_max_lane: the same of v_max, so
 * that a NaN may go or stay. */
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define V_TREE(name, op)                                                                           \
    INLINE float name(vec a)                                                                       \
    {                                                                                              \
        __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));            \
        __m256 h = _mm256_##op##_ps(_mm512_castps512_ps256(a), high);                              \
        __m128 q = _mm_##op##_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));          \
        q = _mm_##op##_ps(q, _mm_movehl_ps(q, q));                                                 \
        return _mm_cvtss_f32(_mm_##op##_ss(q, _mm_movehdup_ps(q)));                                \
    }
#else
#define V_TREE_add(a, b) ((a) + (b))
#define V_TREE_max(a, b) ((a) > (b) ? (a) : (b))
#define V_TREE(name, op)                                                                           \
    INLINE float name(vec a)                                                                       \
    {                                                                                              \
        float f[LANES];                                                                            \
        v_store(f, a);                                                                             \
        for (int w = LANES / 2; w > 0; w /= 2) {                                                   \
            for (int i = 0; i < w; i++) {                                                          \
                f[i] = V_TREE_##op(f[i], f[i + w]);                                                \
            }                                                                                      \
        }                                                                                          \
        return f[0];                                                                               \
    }
#endif
V_TREE(v_sum, add)
V_TREE(v_max_lane, max)
/* 32 values, none of them denormal, as bf16. */
INLINE void v_store_bf16_2(uint16_t *p, vec a, vec b)
{
#if defined(__AVX512BF16__)
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
#else
    v_store_bf16(p, a);
    v_store_bf16(p + LANES, b);
#endif
}
/* Whole lines past the caches, p at a line's beginning; other threads see them after v_stream_end.
 */
INLINE void v_stream(float *p, vec a)
{
#if defined(__AVX512F__) && defined(__AVX512BW__)
    _mm512_stream_ps(p, a);
#else
    v_store(p, a);
#endif
}
INLINE void v_stream_bf16_2(uint16_t *p, vec a, vec b)
{
#if defined(__AVX512BF16__)
    _mm512_stream_si512((__m512i *)(void *)p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
#else
    v_store_bf16_2(p, a, b);
#endif
}
INLINE void v_stream_end(void)
{
#if defined(__AVX512F__) && defined(__AVX512BW__)
    _mm_sfence();
#endif
}
/* Partial vectors: the first n lanes, the others zero; and their store. */
INLINE vec v_load_n(const float *p, int n)
{
    float f[LANES] = {0};
    memcpy(f, p, (size_t)n * sizeof *f);
    return v_load(f);
}
INLINE void v_store_n(float *p, vec a, int n)
{
    float f[LANES];
    v_store(f, a);
    memcpy(p, f, (size_t)n * sizeof *f);
}

#endif
