/* norm: y = w * (x / sqrt(mean(x^2) + eps))                       RMSNorm, Zhang and Sennrich 2019
 *       y = w * ((x - mean) / sqrt(var + eps)) + b                LayerNorm, Ba et al. 2016
 *
 * x [d] f32; y [d] f32 or bf16, followed by zeros up to d_pad, as the next matmul wants its rows.
 * Order of the sums: lane l takes elements l, l + 16, ..., ascending, by fma; then the tree of
 * v_sum. Square root and division are IEEE's, so every instruction set rounds alike. The order of
 * the products (weight last) is that of transformers. y may be x where both are f32. */
#include "kernels/cpu/lanes/lanes.h"
#include "kernels/cpu/lanes/tail.h"
#include <math.h>

static float sum_of_squares(const float *x, size_t n)
{
    vec sum = v_zero();
    for (size_t i = 0; i < n; i += LANES) {
        vec a = t_load_f32(x + i, t_count(i, n));
        sum = v_fma(a, a, sum);
    }
    return v_sum(sum);
}

void LANES_NAME(rmsnorm)(const float *x, const float *weight, float eps, int d, void *out,
                         enum dtype out_dtype, int d_pad)
{
    size_t n = (size_t)d;
    float mean = sum_of_squares(x, n) / (float)d;
    vec inv = v_set1(1.0f / sqrtf(mean + eps));
    for (size_t i = 0; i < n; i += LANES) {
        int c = t_count(i, n);
        vec y = v_mul(t_load_f32(weight + i, c), v_mul(t_load_f32(x + i, c), inv));
        t_store(out, out_dtype, i, y, c);
    }
    t_zero(out, out_dtype, n, (size_t)d_pad);
}

static float mean_of(const float *x, size_t n)
{
    vec sum = v_zero();
    for (size_t i = 0; i < n; i += LANES) {
        sum = v_add(sum, t_load_f32(x + i, t_count(i, n)));
    }
    return v_sum(sum) / (float)n;
}

/* mean((x - mean)^2); the lanes behind the row's end count as zero, not as -mean. */
static float variance_of(const float *x, float mean, size_t n)
{
    vec sum = v_zero();
    for (size_t i = 0; i < n; i += LANES) {
        int c = t_count(i, n);
        float away[LANES];
        v_store(away, v_sub(t_load_f32(x + i, c), v_set1(mean)));
        vec a = t_load_f32(away, c);
        sum = v_fma(a, a, sum);
    }
    return v_sum(sum) / (float)n;
}

void LANES_NAME(layernorm)(const float *x, const float *weight, const float *bias, float eps, int d,
                           void *out, enum dtype out_dtype, int d_pad)
{
    size_t n = (size_t)d;
    float mean = mean_of(x, n);
    vec inv = v_set1(1.0f / sqrtf(variance_of(x, mean, n) + eps));
    for (size_t i = 0; i < n; i += LANES) {
        int c = t_count(i, n);
        vec y = v_mul(v_sub(t_load_f32(x + i, c), v_set1(mean)), inv);
        y = v_mul(t_load_f32(weight + i, c), y);
        if (bias) {
            y = v_add(y, t_load_f32(bias + i, c));
        }
        t_store(out, out_dtype, i, y, c);
    }
    t_zero(out, out_dtype, n, (size_t)d_pad);
}
