/* matrix: random matrices for the tests of products, THE SUM in plain C, and every table that this
 * CPU can run, the simulated tiles among them. */
#ifndef TESTS_UNIT_KERNELS_MATRIX_H
#define TESTS_UNIT_KERNELS_MATRIX_H

#include "guard.h"

#include "base/rng.h"
#include "base/sanitizer.h"
#include "kernels/kernels.h"
#include <math.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include "kernels/cpu/amx.h"
#endif

#define SEED      20261124u
#define MAX_TABLE 8

/* Plain C is slow, and many times so under the address sanitizer, which looks for other mistakes
 * than those of digits: a seventh of the cases shows it every path. */
#if SANITIZER_ADDRESS
#define SHARE 7
#else
#define SHARE 1
#endif

static inline int tables_get(const struct kernels *out[MAX_TABLE])
{
    int n = 0;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *k = kernels_of((enum isa)isa);
        if (k)
            out[n++] = k;
    }
#if defined(__x86_64__)
    out[n++] = &kernels_tile_sim;
#endif
    return n;
}

/* A number in [low, high] at a place of its own. */
static inline int pick(uint64_t stream, uint64_t index, int low, int high)
{
    return low + (int)(rng_uniform(SEED, stream, index) * (high - low + 1));
}

/* Normal values, and among them what rounding is hard on: zeros of both signs, denormals, values
 * whose products underflow, and large ones that cancel. */
static inline void values_fill(uint64_t stream, float *out, size_t n)
{
    rng_normal_fill(SEED, stream, 0, out, n);
    for (size_t i = 0; i < n; i++) {
        switch (pick(stream + 1000000, i, 0, 40)) {
        case 0:
            out[i] = i % 2 ? 0.0f : -0.0f;
            break;
        case 1:
            out[i] *= 0x1p-128f;
            break;
        case 2:
            out[i] *= 0x1p-70f;
            break;
        case 3:
            out[i] = i % 2 ? 4096.0f : -4096.0f;
            break;
        default:
            break;
        }
    }
}

/* One element of a matrix of dtype, as f32. */
static inline float element(const void *m, enum dtype dtype, size_t i)
{
    return dtype == DTYPE_BF16 ? bf16_to_f32(((const uint16_t *)m)[i]) : ((const float *)m)[i];
}

static inline void put(void *m, enum dtype dtype, size_t i, float v)
{
    if (dtype == DTYPE_BF16)
        ((uint16_t *)m)[i] = f32_to_bf16(v);
    else
        ((float *)m)[i] = v;
}

/* W [n, k] as the kernels take it; `plain` is the same values, row-major f32. */
struct weights {
    struct packed packed;
    float *plain;
    struct guard guard;
};

static inline void weights_make(struct weights *w, uint64_t stream, enum dtype dtype, int n, int k)
{
    size_t count = (size_t)n * (size_t)k;
    w->plain = malloc(count * sizeof(float));
    values_fill(stream, w->plain, count);
    size_t bytes = packed_bytes(dtype, n, k);
    void *data = guard_alloc(&w->guard, bytes);
    memset(data, 0, bytes);
    for (size_t i = 0; i < count && dtype == DTYPE_BF16; i++)
        w->plain[i] = bf16_to_f32(f32_to_bf16(w->plain[i]));
    pack_rows(data, dtype, n, k, 0, n, w->plain, DTYPE_F32, (size_t)k);
    w->packed = (struct packed){.data = data, .dtype = dtype, .n = n, .k = k};
}

/* weights_make_quant: integers with a scale a group; `plain` is the integers, `scale` the scales. A
 * scale among them is zero, another would underflow. */
struct quant_weights {
    struct weights w;
    float *scale; /* [n, quant_groups] */
    int n_group;
};

static inline void weights_make_quant(struct quant_weights *q, uint64_t stream, enum dtype dtype,
                                      int n, int k, int group)
{
    size_t count = (size_t)n * (size_t)k;
    q->n_group = quant_groups(k, group);
    size_t n_scale = (size_t)n * (size_t)q->n_group;
    int8_t *ints = malloc(count);
    uint16_t *scale = malloc(n_scale * 2);
    q->w.plain = malloc(count * sizeof(float));
    q->scale = malloc(n_scale * sizeof(float));
    int most = dtype == DTYPE_I8 ? 127 : 7, least = dtype == DTYPE_I8 ? -127 : -8;
    for (size_t i = 0; i < count; i++) {
        ints[i] = (int8_t)pick(stream, i, least, most);
        q->w.plain[i] = (float)ints[i];
    }
    for (size_t i = 0; i < n_scale; i++) {
        float s = (float)(rng_uniform(SEED, stream + 5, i) * 0.02);
        scale[i] = f32_to_bf16(i % 31 == 7 ? 0.0f : i % 37 == 9 ? s * 0x1p-120f : s);
        q->scale[i] = bf16_to_f32(scale[i]);
    }
    size_t bytes = packed_quant_bytes(dtype, n, k, group);
    void *data = guard_alloc(&q->w.guard, bytes);
    memset(data, 0, bytes);
    struct quant_rows src = {ints, (size_t)k, scale, (size_t)q->n_group};
    pack_quant_rows(data, dtype, n, k, group, 0, n, &src);
    q->w.packed = (struct packed){.data = data, .dtype = dtype, .n = n, .k = k, .group = group};
    free(ints);
    free(scale);
}

static inline void weights_free(struct weights *w)
{
    guard_free(&w->guard);
    free(w->plain);
}

/* Rows [n_row, ld] of dtype in guarded memory: values up to k, zeros to k_padded(k), and NaN
 * behind, which no kernel may read into a result. */
static inline void *rows_make(struct guard *g, uint64_t stream, enum dtype dtype, int n_row, int k,
                              size_t ld)
{
    unsigned char *x = guard_alloc(g, (size_t)n_row * ld * dtype_bytes(dtype));
    float *v = malloc((size_t)k * sizeof *v);
    for (int r = 0; r < n_row; r++) {
        values_fill(stream * 1000 + (uint64_t)r, v, (size_t)k);
        for (size_t i = 0; i < ld; i++) {
            float f = i < (size_t)k ? v[i] : i < (size_t)k_padded(k) ? 0.0f : NAN;
            put(x, dtype, (size_t)r * ld + i, f);
        }
    }
    free(v);
    return x;
}

/* THE SUM of kernels.h, word for word. x: one row; w: one row of plain weights. */
static inline float sum32(const void *x, enum dtype dtype, const float *w, int k)
{
    float c = 0.0f;
    for (int b = 0; b < k; b += K_BLOCK) {
        float e = 0.0f, o = 0.0f;
        for (int p = 0; p < K_BLOCK / 2; p++) {
            int i = b + 2 * p;
            float xe = i < k ? element(x, dtype, (size_t)i) : 0.0f;
            float xo = i + 1 < k ? element(x, dtype, (size_t)i + 1) : 0.0f;
            e = fmaf(xe, i < k ? w[i] : 0.0f, e);
            o = fmaf(xo, i + 1 < k ? w[i + 1] : 0.0f, o);
        }
        c = c + (e + o);
    }
    return c;
}

/* THE SUM with a scale a group. */
static inline float sum32_quant(const uint16_t *x, const float *w, const float *scale, int k,
                                int group)
{
    float c = 0.0f;
    for (int k0 = 0; k0 < k; k0 += group) {
        int n = k - k0 < group ? k - k0 : group;
        c = fmaf(scale[k0 / group], sum32(x + k0, DTYPE_BF16, w + k0, n), c);
    }
    return c;
}

/* One ROW_GROUP of a row as THE INTEGER SUM has it. */
static inline float int_group_plain(const uint16_t *x, int n, int *q)
{
    float top = 0.0f;
    int finite = 1;
    for (int i = 0; i < n; i++) {
        float v = fabsf(bf16_to_f32(x[i]));
        finite &= isfinite(v) != 0;
        top = v > top ? v : top;
    }
    for (int i = 0; i < n; i++)
        q[i] = finite && top >= 0x1p-118f ? (int)nearbyintf(bf16_to_f32(x[i]) * (127.0f / top)) : 0;
    return !finite ? NAN : top < 0x1p-118f ? 0.0f : top / 127.0f;
}

/* THE INTEGER SUM of kernels.h, word for word. */
static inline float int_sum(const uint16_t *x, const float *w, const float *scale, int k, int group)
{
    float c = 0.0f;
    for (int k0 = 0; k0 < k; k0 += ROW_GROUP) {
        int q[ROW_GROUP], n = k - k0 < ROW_GROUP ? k - k0 : ROW_GROUP;
        float sx = int_group_plain(x + k0, n, q), g = 0.0f;
        for (int i = 0; i < n;) {
            int part = (k0 + i) / group, d = 0;
            for (; i < n && (k0 + i) / group == part; i++)
                d += q[i] * (int)w[k0 + i];
            g = fmaf(scale[part], (float)d, g);
        }
        c = fmaf(sx, g, c);
    }
    return c;
}

/* The same product in double, and the sum of magnitudes that bounds its f32 error. */
static inline double sum_double(const void *x, enum dtype dtype, const float *w, int k, double *mag)
{
    double c = 0.0;
    *mag = 0.0;
    for (int i = 0; i < k; i++) {
        double t = (double)element(x, dtype, (size_t)i) * (double)w[i];
        c += t;
        *mag += fabs(t);
    }
    return c;
}

#endif
