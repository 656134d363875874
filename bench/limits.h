/* limits: what this machine gives, measured beside what is held against it: a plain read (two
 * streams a thread), and multiply-adds in registers with the widest instructions of an instruction
 * set: f32, or bf16 products of tiles where the set is AMX; and for rows of integers products of
 * bytes, of tiles or VNNI. Unit functions of a team; included by benchmarks. */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include "kernels/kernels.h"
#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define READ_UNIT  (4u << 20)
#define FMA_STEPS  200000
#define FMA_CHAINS 16

struct probe {
    const unsigned char *data;
    enum isa isa;
    int bytes;             /* multiply-adds of bytes, where the set has them */
    _Atomic uint64_t sink; /* keeps the work from being dropped */
};

/* Two streams from the two halves; `words` is a register of the instruction set. */
#define READ_BODY(words, p, bytes)                                                                 \
    size_t n = (bytes) / sizeof(words) / 2;                                                        \
    const words *a = (const words *)(const void *)(p), *b = a + n;                                 \
    words s = {0}, t = {0};                                                                        \
    for (size_t i = 0; i < n; i++) {                                                               \
        s ^= a[i];                                                                                 \
        t ^= b[i];                                                                                 \
    }                                                                                              \
    s ^= t;                                                                                        \
    uint64_t sum = 0;                                                                              \
    for (size_t i = 0; i < sizeof s / sizeof s[0]; i++)                                            \
        sum ^= s[i];                                                                               \
    return sum

typedef uint64_t words16 __attribute__((vector_size(16), may_alias));
typedef uint64_t words32 __attribute__((vector_size(32), may_alias));
typedef uint64_t words64 __attribute__((vector_size(64), may_alias));

static uint64_t read_plain(const unsigned char *p, size_t bytes)
{
    READ_BODY(words16, p, bytes);
}

/* FMA_CHAINS independent vectors, enough for any latency times throughput in use. */
static float fma_plain(void)
{
    float acc[FMA_CHAINS * 4];
    for (int i = 0; i < FMA_CHAINS * 4; i++)
        acc[i] = (float)i;
    for (int k = 0; k < FMA_STEPS; k++) {
        for (int i = 0; i < FMA_CHAINS * 4; i++)
            acc[i] = fmaf(acc[i], 0.999f, 0.5f);
    }
    float sum = 0.0f;
    for (int i = 0; i < FMA_CHAINS * 4; i++)
        sum += acc[i];
    return sum;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t read_avx512(const unsigned char *p, size_t bytes)
{
    READ_BODY(words64, p, bytes);
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const unsigned char *p, size_t bytes)
{
    READ_BODY(words32, p, bytes);
}

__attribute__((target("avx512f"))) static float fma_avx512(void)
{
    __m512 acc[FMA_CHAINS], m = _mm512_set1_ps(0.999f), a = _mm512_set1_ps(0.5f);
    for (int i = 0; i < FMA_CHAINS; i++)
        acc[i] = _mm512_set1_ps((float)i);
    for (int k = 0; k < FMA_STEPS; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < FMA_CHAINS; i++)
            acc[i] = _mm512_fmadd_ps(acc[i], m, a);
    }
    for (int i = 1; i < FMA_CHAINS; i++)
        acc[0] = _mm512_add_ps(acc[0], acc[i]);
    return _mm512_cvtss_f32(acc[0]);
}

#define AVX2_CHAINS 12
__attribute__((target("avx2,fma"))) static float fma_avx2(void)
{
    __m256 acc[AVX2_CHAINS], m = _mm256_set1_ps(0.999f), a = _mm256_set1_ps(0.5f);
    for (int i = 0; i < AVX2_CHAINS; i++)
        acc[i] = _mm256_set1_ps((float)i);
    for (int k = 0; k < FMA_STEPS; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < AVX2_CHAINS; i++)
            acc[i] = _mm256_fmadd_ps(acc[i], m, a);
    }
    for (int i = 1; i < AVX2_CHAINS; i++)
        acc[0] = _mm256_add_ps(acc[0], acc[i]);
    return _mm256_cvtss_f32(acc[0]);
}
#endif

#if defined(__x86_64__)
#define TILE_STEPS 100000
/* Four independent sums, as the kernels keep. */
#define TILE_PRODUCTS(op)                                                                          \
    __asm__ volatile(op " %%tmm6, %%tmm4, %%tmm0\n\t" op " %%tmm7, %%tmm4, %%tmm1\n\t" op          \
                        " %%tmm6, %%tmm5, %%tmm2\n\t" op " %%tmm7, %%tmm5, %%tmm3"                 \
                     :                                                                             \
                     :                                                                             \
                     : "memory")
/* LDTILECFG's operand: palette 1, eight tiles of 16 rows of 64 bytes. */
static float tiles_in_registers(int bytes)
{
    static const unsigned char config[64] = {
        [0] = 1,   [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64,
        [26] = 64, [28] = 64, [30] = 64, [48] = 16, [49] = 16, [50] = 16,
        [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};
    __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
    for (int k = 0; k < TILE_STEPS && !bytes; k++)
        TILE_PRODUCTS("tdpbf16ps");
    for (int k = 0; k < TILE_STEPS && bytes; k++)
        TILE_PRODUCTS("tdpbssd");
    __asm__ volatile("tilerelease" : : : "memory");
    return 0.0f;
}

__attribute__((target("avx512f,avx512vnni"))) static float bytes_avx512(void)
{
    __m512i acc[FMA_CHAINS], m = _mm512_set1_epi8(3), a = _mm512_set1_epi8(-2);
    for (int i = 0; i < FMA_CHAINS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (int k = 0; k < FMA_STEPS; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < FMA_CHAINS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], m, a);
        __asm__ volatile("" : "+v"(m)); /* or the sums of constants are known beforehand */
    }
    for (int i = 1; i < FMA_CHAINS; i++)
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    return (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(acc[0]));
}
#endif

static void read_units(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct probe *probe = arg;
    uint64_t sum = 0;
    const unsigned char *p = probe->data + (size_t)begin * READ_UNIT;
    size_t n = (size_t)(end - begin) * READ_UNIT;
#if defined(__x86_64__)
    if (probe->isa >= ISA_AVX512)
        sum = read_avx512(p, n);
    else if (probe->isa == ISA_AVX2)
        sum = read_avx2(p, n);
    else
#endif
        sum = read_plain(p, n);
    probe->sink ^= sum;
}

/* Operations of one unit of the multiply-add probe. */
static double probe_flop(const struct probe *probe)
{
    int lanes = FMA_CHAINS * 4;
    enum isa isa = probe->isa;
#if defined(__x86_64__)
    if (isa == ISA_AMX)
        return 4.0 * TILE_STEPS * 2 * 16 * 16 * (probe->bytes ? 64 : 32);
    if (isa == ISA_AVX512 && probe->bytes)
        return 2.0 * FMA_CHAINS * 64 * FMA_STEPS;
    lanes = isa >= ISA_AVX512 ? FMA_CHAINS * 16 : isa == ISA_AVX2 ? AVX2_CHAINS * 8 : lanes;
#endif
    (void)isa;
    return 2.0 * lanes * FMA_STEPS;
}

static void fma_units(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct probe *probe = arg;
    for (int i = begin; i < end; i++) {
        float sum;
#if defined(__x86_64__)
        if (probe->isa == ISA_AMX)
            sum = tiles_in_registers(probe->bytes);
        else if (probe->isa >= ISA_AVX512 && probe->bytes)
            sum = bytes_avx512();
        else if (probe->isa >= ISA_AVX512)
            sum = fma_avx512();
        else if (probe->isa == ISA_AVX2)
            sum = fma_avx2();
        else
#endif
            sum = fma_plain();
        probe->sink ^= (uint64_t)(sum > 1.0f);
    }
}

#endif
