/* attention_sum: THE SUM of kernels.h between the rows of a group and the panels of a KV page, on
 * lanes. It is gemm's product, with two differences: the rows are f32 already, and what is read
 * next is fetched meanwhile, since in decode each byte of KV is used once or a few times and a pass
 * would wait for memory. Six rows times two panels keep 24 sums in AVX-512's registers; one or two
 * rows take four panels, for chains enough to hide an FMA's latency. */
#ifndef KERNELS_CPU_LANES_ATTENTION_SUM_H
#define KERNELS_CPU_LANES_ATTENTION_SUM_H

#include "kernels/kernels.h"
#include "kernels/vec.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define SUM_ROWS 6 /* a micro-tile's */
#define SUM_WIDE 4 /* panels of one or two rows; more rows: half */
#else
#define SUM_ROWS 2
#define SUM_WIDE 2
#endif

/* c [n, n_panel * PANEL] (+)= x [n, 32 n_block] times n_panel panels. */
struct sum {
    const float *x;
    size_t ldx;
    int n;
    enum dtype dtype;
    const unsigned char *w; /* of the first panel */
    size_t panel;           /* bytes from panel to panel */
    int n_panel, n_block;
    int first; /* c starts at zero */
    float *c;
    size_t ldc;
    const char *ahead; /* to be fetched, as much as is read here; or NULL */
};

INLINE size_t sum_pair_bytes(enum dtype dtype)
{
    return 2 * PANEL * dtype_bytes(dtype);
}

/* Sixteen integers of 8 bits as floats. */
INLINE vec sum_load_i8(const unsigned char *p)
{
#if defined(__AVX512F__) && defined(__AVX512BW__)
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
#elif defined(__AVX2__) && defined(__FMA__)
    __m128i a = _mm_loadl_epi64((const __m128i *)(const void *)p);
    __m128i b = _mm_loadl_epi64((const __m128i *)(const void *)(p + 8));
    return v_make(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a)),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)));
#else
    float f[LANES];
    for (int i = 0; i < LANES; i++) {
        f[i] = (float)(int8_t)p[i];
    }
    return v_load(f);
#endif
}

INLINE void sum_load_pair(const unsigned char *w, const enum dtype dtype, vec *even, vec *odd)
{
    if (dtype == DTYPE_BF16) {
        v_load_pairs((const uint16_t *)(const void *)w, even, odd);
    } else if (dtype == DTYPE_I8) {
        *even = sum_load_i8(w);
        *odd = sum_load_i8(w + PANEL);
    } else {
        *even = v_load((const float *)(const void *)w);
        *odd = v_load((const float *)(const void *)w + PANEL);
    }
}

/* Rows [r, r + n) and panels [j, j + wide); n, wide and dtype are constants after inlining. */
INLINE void sum_micro(const struct sum *s, const enum dtype dtype, int r, const int n, int j,
                      const int wide, const char *ahead)
{
    const size_t step = sum_pair_bytes(dtype);
    const unsigned char *w = s->w + (size_t)j * s->panel;
    const float *x = s->x + (size_t)r * s->ldx;
    float *c = s->c + (size_t)r * s->ldc + (size_t)j * PANEL;
    for (int b = 0; b < s->n_block; b++) {
        vec e[SUM_ROWS][SUM_WIDE], o[SUM_ROWS][SUM_WIDE];
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
#pragma GCC unroll 4
            for (int p = 0; p < wide; p++) {
                e[i][p] = o[i][p] = v_zero();
            }
        }
#pragma GCC unroll 2
        for (int k = 0; k < K_BLOCK / 2; k++, w += step, x += 2) {
            vec we[SUM_WIDE], wo[SUM_WIDE];
#pragma GCC unroll 4
            for (int p = 0; p < wide; p++) {
                sum_load_pair(w + (size_t)p * s->panel, dtype, &we[p], &wo[p]);
            }
            if (ahead) {
                for (size_t at = 0; at < step * (size_t)wide; at += 64) {
                    __builtin_prefetch(ahead + at, 0, 2);
                }
                ahead += step * (size_t)wide;
            }
#pragma GCC unroll 8
            for (int i = 0; i < n; i++) {
                vec xe = v_set1(x[(size_t)i * s->ldx]), xo = v_set1(x[(size_t)i * s->ldx + 1]);
#pragma GCC unroll 4
                for (int p = 0; p < wide; p++) {
                    e[i][p] = v_fma(xe, we[p], e[i][p]);
                    o[i][p] = v_fma(xo, wo[p], o[i][p]);
                }
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
#pragma GCC unroll 4
            for (int p = 0; p < wide; p++) {
                float *at = c + (size_t)i * s->ldc + p * PANEL;
                vec old = s->first && b == 0 ? v_zero() : v_load(at);
                v_store(at, v_add(old, v_add(e[i][p], o[i][p])));
            }
        }
    }
}

/* All panels of a few rows. */
INLINE void sum_panels(const struct sum *s, const enum dtype dtype, int r, const int n,
                       const int wide)
{
    const char *ahead = r == 0 ? s->ahead : NULL;
    size_t read = sum_pair_bytes(dtype) * (K_BLOCK / 2) * (size_t)s->n_block;
    int j = 0;
    for (; j + wide <= s->n_panel; j += wide) {
        sum_micro(s, dtype, r, n, j, wide, ahead ? ahead + (size_t)j * read : NULL);
    }
    for (; j < s->n_panel; j++) {
        sum_micro(s, dtype, r, n, j, 1, ahead ? ahead + (size_t)j * read : NULL);
    }
}

#define SUM_CASE(rows, wide)                                                                       \
    case rows:                                                                                     \
        sum_panels(s, dtype, r, rows, wide);                                                       \
        break

INLINE void sum_rows(const struct sum *s, const enum dtype dtype, int r, int n)
{
    switch (n) {
        SUM_CASE(1, SUM_WIDE);
#if SUM_ROWS == 6
        SUM_CASE(2, SUM_WIDE);
        SUM_CASE(3, SUM_WIDE / 2);
        SUM_CASE(4, SUM_WIDE / 2);
        SUM_CASE(5, SUM_WIDE / 2);
        SUM_CASE(6, SUM_WIDE / 2);
#else
        SUM_CASE(2, SUM_WIDE / 2);
#endif
    default:
        break;
    }
}

/* Rows are split evenly: eight are four and four, not six and two. */
INLINE void sum_dtype(const struct sum *s, const enum dtype dtype)
{
    int n_tile = (s->n + SUM_ROWS - 1) / SUM_ROWS;
    for (int t = 0, r = 0; t < n_tile; t++) {
        int n = (s->n - r + n_tile - t - 1) / (n_tile - t);
        sum_rows(s, dtype, r, n);
        r += n;
    }
}

static void sum_lanes(const struct sum *s)
{
    switch (s->dtype) {
    case DTYPE_BF16:
        sum_dtype(s, DTYPE_BF16);
        break;
    case DTYPE_I8:
        sum_dtype(s, DTYPE_I8);
        break;
    default:
        sum_dtype(s, DTYPE_F32);
    }
}

#endif
