/* math: exp, tanh, erf and the activations on a device, operation for operation what
 * kernels/cpu/lanes/vmath.h computes on lanes and kernels/math.c for one value. Nothing here is
 * fused but where it says fma: the file is compiled with --fmad=false, and with denormals flushed.
 */
#ifndef KERNELS_CUDA_MATH_CUH
#define KERNELS_CUDA_MATH_CUH

#include "kernels/kernels.h"
#include "kernels/math_coef.h"

/* As the CPU's instructions choose: the second where they do not compare. */
static __device__ inline float pick_max(float a, float b)
{
    return a > b ? a : b;
}
static __device__ inline float pick_min(float a, float b)
{
    return a < b ? a : b;
}

/* 2^n, n an integer in [-126, 127]. */
static __device__ inline float exp2_int(float n)
{
    return __int_as_float((__float2int_rn(n) + 127) << 23);
}

static __device__ inline float d_exp(float x)
{
    if (x != x)
        return x;
    float xc = pick_max(EXP_LO, pick_min(EXP_HI, x));
    float n = rintf(xc * LOG2_E);
    float r = __fmaf_rn(n, -LN2_HI, xc);
    r = __fmaf_rn(n, -LN2_LO, r);
    float q = __fmaf_rn(EXP_Q4, r, EXP_Q3);
    q = __fmaf_rn(q, r, EXP_Q2);
    q = __fmaf_rn(q, r, EXP_Q1);
    q = __fmaf_rn(q, r, EXP_Q0);
    float p = __fmaf_rn(r * r, q, r) + 1.0f;
    float half = rintf(n * 0.5f);
    float low = p * exp2_int(half), scale = exp2_int(n - half);
    /* What a flushing unit flushes, exactly: the product is exact in double. */
    if ((double)low * (double)scale < 0x1p-126)
        return 0.0f;
    return low * scale;
}

static __device__ inline float d_sigmoid(float x)
{
    return __fdiv_rn(1.0f, 1.0f + d_exp(0.0f - x));
}

static __device__ inline float d_tanh(float x)
{
    float a = fabsf(x), z = x * x;
    float p = __fmaf_rn(TANH_P4, z, TANH_P3);
    p = __fmaf_rn(p, z, TANH_P2);
    p = __fmaf_rn(p, z, TANH_P1);
    p = __fmaf_rn(p, z, TANH_P0);
    if (TANH_CUT > a)
        return __fmaf_rn(p * z, x, x);
    float e = d_exp(a + a);
    return copysignf(1.0f - __fdiv_rn(2.0f, e + 1.0f), x);
}

static __device__ inline float d_erf(float x)
{
    float a = fabsf(x), z = x * x;
    if (1.0f > a) {
        float p = __fmaf_rn(ERF_P6, z, ERF_P5);
        p = __fmaf_rn(p, z, ERF_P4);
        p = __fmaf_rn(p, z, ERF_P3);
        p = __fmaf_rn(p, z, ERF_P2);
        p = __fmaf_rn(p, z, ERF_P1);
        p = __fmaf_rn(p, z, ERF_P0);
        return __fmaf_rn(p, x, x);
    }
    float t = pick_min(4.0f, a);
    float r = __fmaf_rn(ERF_R7, t, ERF_R6);
    r = __fmaf_rn(r, t, ERF_R5);
    r = __fmaf_rn(r, t, ERF_R4);
    r = __fmaf_rn(r, t, ERF_R3);
    r = __fmaf_rn(r, t, ERF_R2);
    r = __fmaf_rn(r, t, ERF_R1);
    r = __fmaf_rn(r, t, ERF_R0);
    return copysignf(1.0f - d_exp(r), x);
}

static __device__ inline float d_act(enum act act, float alpha, float limit, float g)
{
    float half = 0.5f * g;
    switch (act) {
    case ACT_SILU:
        return g * d_sigmoid(g);
    case ACT_GELU:
        return half * (1.0f + d_erf(g * SQRT_HALF));
    case ACT_GELU_TANH:
        return half * (1.0f + d_tanh(SQRT_2_PI * __fmaf_rn(GELU_CUBE, g * g * g, g)));
    case ACT_RELU2: {
        float r = pick_max(0.0f, g);
        return r * r;
    }
    case ACT_SWIGLU_CLAMP: {
        float c = pick_min(limit, g);
        return c * d_sigmoid(alpha * c);
    }
    }
    return g;
}

static __device__ inline float d_act_mul(enum act act, float alpha, float limit, float g, float u)
{
    float a = d_act(act, alpha, limit, g);
    if (act == ACT_SWIGLU_CLAMP)
        u = pick_max(0.0f - limit, pick_min(limit, u)) + 1.0f;
    return a * u;
}

#endif
