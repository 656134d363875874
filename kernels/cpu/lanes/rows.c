/* rows: what happens to one row between the large products: rotation, softmax, sums, conversion and
 * the activations. Each element (or each of sixteen lanes) sees the same operations on every
 * instruction set; loops of plain C hold only operations IEEE defines (no contraction: the build
 * turns it off), so the compiler may widen them as it likes. */
#include "base/limits.h"
#include "kernels/cpu/lanes/int_rows.h"
#include "kernels/cpu/lanes/lanes.h"
#include "kernels/cpu/lanes/tail.h"
#include "kernels/cpu/lanes/vmath.h"

/* ---- rope: (a, b) -> (a cos - b sin, b cos + a sin), halves or adjacent pairs ---- */

static void rotate_halves(float *restrict a, float *restrict b, int n, const float *restrict c,
                          const float *restrict s)
{
    for (int i = 0; i < n; i++) {
        float x = a[i], y = b[i];
        a[i] = x * c[i] - y * s[i];
        b[i] = y * c[i] + x * s[i];
    }
}

static void rotate_pairs(float *restrict x, int n, const float *restrict c, const float *restrict s)
{
    for (int i = 0; i < n; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * c[i] - b * s[i];
        x[2 * i + 1] = b * c[i] + a * s[i];
    }
}

void LANES_NAME(rope)(float *x, int n_head, int d_head, int d_rot, int interleaved,
                      const float *cosine, const float *sine)
{
    for (int h = 0; h < n_head; h++) {
        float *head = x + (size_t)h * (size_t)d_head;
        if (interleaved) {
            rotate_pairs(head, d_rot / 2, cosine, sine);
        } else {
            rotate_halves(head, head + d_rot / 2, d_rot / 2, cosine, sine);
        }
    }
}

/* ---- softmax: e^(x - max) / sum; the sum over sixteen lanes, then the tree of v_sum ---- */

static float max_of(const float *x, size_t n)
{
    float max = x[0];
    vec top = v_set1(max);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        top = v_max(top, v_load(x + i));
    }
    max = v_max_lane(top);
    for (; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    return max;
}

void LANES_NAME(softmax)(float *x, int n_value)
{
    if (n_value <= 0) {
        return;
    }
    size_t n = (size_t)n_value;
    vec max = v_set1(max_of(x, n)), sum = v_zero();
    for (size_t i = 0; i < n; i += LANES) {
        int c = t_count(i, n);
        t_store_f32(x + i, v_exp(v_sub(t_load_f32(x + i, c), max)), c);
        sum = v_add(sum, t_load_f32(x + i, c));
    }
    vec total = v_set1(v_sum(sum));
    for (size_t i = 0; i < n; i += LANES) {
        int c = t_count(i, n);
        t_store_f32(x + i, v_div(t_load_f32(x + i, c), total), c);
    }
}

/* ---- sums ---- */

void LANES_NAME(add)(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] + y[i];
    }
}

/* Lines of the next row's slots, 2 * LANES elements each a slot, from element i on. */
INLINE void slots_ahead(const struct slots *s, size_t i)
{
    size_t at = i * dtype_bytes(s->dtype), end = at + 2 * LANES * dtype_bytes(s->dtype);
    for (int k = 0; k < s->n; k++) {
        for (size_t line = at; s->next[k] && line < end; line += 64) {
            __builtin_prefetch((const char *)s->next[k] + line);
        }
    }
}

/* c elements of x from i on. */
INLINE vec slots_sum(const struct slots *s, const float *weight, const void *const *row, int n_row,
                     size_t i, int c, const enum dtype dtype)
{
    vec sum = v_zero();
    for (int k = 0; k < n_row; k++) {
        sum = v_fma(v_set1(weight[k]), t_load(row[k], dtype, i, c), sum);
    }
    return s->plus ? v_add(sum, t_load_f32(s->plus + i, c)) : sum;
}

INLINE void slots_add(float *x, const struct slots *s, size_t d, const enum dtype dtype)
{
    float weight[LIMIT_TOP_K];
    const void *row[LIMIT_TOP_K];
    int n = 0;
    size_t i = 0;
    for (int k = 0; k < s->n; k++) {
        weight[n] = s->weight[k];
        row[n] = s->row[k];
        n += s->row[k] != NULL;
    }
    for (; i + 2 * LANES <= d; i += 2 * LANES) {
        if (s->next) {
            slots_ahead(s, i);
        }
        vec a = slots_sum(s, weight, row, n, i, LANES, dtype);
        vec b = slots_sum(s, weight, row, n, i + LANES, LANES, dtype);
        v_store(x + i, v_add(v_load(x + i), a));
        v_store(x + i + LANES, v_add(v_load(x + i + LANES), b));
    }
    for (; i < d; i += LANES) {
        int c = t_count(i, d);
        vec a = slots_sum(s, weight, row, n, i, c, dtype);
        t_store_f32(x + i, v_add(t_load_f32(x + i, c), a), c);
    }
}

void LANES_NAME(combine)(float *x, const struct slots *s, size_t d)
{
    if (s->dtype == DTYPE_BF16) {
        slots_add(x, s, d, DTYPE_BF16);
    } else {
        slots_add(x, s, d, DTYPE_F32);
    }
}

float LANES_NAME(dot)(const float *x, const float *y, size_t n)
{
    vec sum = v_zero();
    for (size_t i = 0; i < n; i += LANES) {
        int c = t_count(i, n);
        sum = v_fma(t_load_f32(x + i, c), t_load_f32(y + i, c), sum);
    }
    return v_sum(sum);
}

/* ---- convert: f32, bf16 and f16; widening is exact, narrowing rounds to nearest even ---- */

/* A half's bits as a float, without a branch, so that the loop over it widens: exponent and
 * mantissa move to their place, except in a denormal, whose value is its mantissa times 2^-24. */
INLINE float widen_f16(uint16_t h)
{
    uint32_t exp_man = h & 0x7fffu, sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t normal = (exp_man << 13) + (112u << 23);
    normal += exp_man >= 0x7c00u ? 112u << 23 : 0u;
    float small = (float)(int32_t)exp_man * 0x1p-24f, f;
    uint32_t u;
    memcpy(&u, &small, 4);
    u = (exp_man < 0x400u ? u : normal) | sign;
    memcpy(&f, &u, 4);
    return f;
}

/* Round to nearest even on the integer side: no rounding mode, no flushed denormal. */
static uint16_t narrow_f16(float f)
{
    uint32_t u, sign;
    memcpy(&u, &f, 4);
    sign = (u >> 16) & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u);
    }
    if (u >= 0x477ff000u) { /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    }
    uint32_t exp = u >> 23, shift = exp < 113 ? 126 - exp : 13;
    if (shift > 25) {
        return (uint16_t)sign;
    }
    uint32_t man = exp < 113 ? (u & 0x7fffffu) | 0x800000u : u - (112u << 23);
    uint32_t half = 1u << (shift - 1), rest = man & ((1u << shift) - 1);
    uint32_t h = man >> shift;
    h += rest > half || (rest == half && (h & 1u));
    return (uint16_t)(sign | h);
}

static void convert_from_f16(const uint16_t *src, void *dst, enum dtype dst_dtype, size_t n)
{
    float wide[LANES] = {0};
    for (size_t i = 0; i < n; i += LANES) {
        int c = t_count(i, n);
        for (int j = 0; j < c; j++) {
            wide[j] = widen_f16(src[i + (size_t)j]);
        }
        t_store(dst, dst_dtype, i, v_load(wide), c);
    }
}

static void convert_to_f16(const void *src, enum dtype src_dtype, uint16_t *dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float f = src_dtype == DTYPE_BF16 ? bf16_to_f32(((const uint16_t *)src)[i])
                                          : ((const float *)src)[i];
        dst[i] = narrow_f16(f);
    }
}

void LANES_NAME(convert)(const void *src, enum dtype src_dtype, void *dst, enum dtype dst_dtype,
                         size_t n)
{
    if (src_dtype == dst_dtype) {
        memcpy(dst, src, n * dtype_bytes(src_dtype));
    } else if (src_dtype == DTYPE_F16) {
        convert_from_f16(src, dst, dst_dtype, n);
    } else if (dst_dtype == DTYPE_F16) {
        convert_to_f16(src, src_dtype, dst, n);
    } else {
        for (size_t i = 0; i < n; i += LANES) {
            int c = t_count(i, n);
            t_store(dst, dst_dtype, i, t_load(src, src_dtype, i, c), c);
        }
    }
}

void LANES_NAME(ints)(const void *x, int k_pad, void *out)
{
    int_row(x, k_pad, out, int_row_scales(out, k_pad));
}

/* ---- activations ---- */

void LANES_NAME(act_mul)(enum act act, float alpha, float limit, const float *gate, const float *up,
                         int n_value, void *out, enum dtype out_dtype)
{
    size_t n = (size_t)n_value;
    vec va = v_set1(alpha), vl = v_set1(limit);
    for (size_t i = 0; i < n; i += LANES) {
        int c = t_count(i, n);
        vec u = t_load_f32(up + i, c);
        vec y = gate ? v_act_mul(act, va, vl, t_load_f32(gate + i, c), u) : v_act(act, va, vl, u);
        t_store(out, out_dtype, i, y, c);
    }
}
