/* math: the scalar twins of kernels/cpu/lanes/vmath.h: the same operations in the same order, every
 * multiply-add an explicit fmaf, so that a gate's probability has the bits an attention kernel's
 * would. k_expf holds with and without flushed
 * denormals, since routers call it too. */
#include "kernels/math.h"

#include "kernels/math_coef.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

/* 2^n, n an integer in [-126, 127]. */
static float exp2_int(float n)
{
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline __attribute__((always_inline)) float exp_of(float x)
{
    if (x != x)
        return x;
    float xc = x < EXP_HI ? x : EXP_HI;
    xc = xc > EXP_LO ? xc : EXP_LO;
    float n = nearbyintf(xc * LOG2_E);
    float r = fmaf(n, -LN2_HI, xc);
    r = fmaf(n, -LN2_LO, r);
    float q = fmaf(EXP_Q4, r, EXP_Q3);
    q = fmaf(q, r, EXP_Q2);
    q = fmaf(q, r, EXP_Q1);
    q = fmaf(q, r, EXP_Q0);
    float p = fmaf(r * r, q, r) + 1.0f;
    float half = nearbyintf(n * 0.5f);
    float low = p * exp2_int(half), scale = exp2_int(n - half);
    /* What a flushing unit would flush, exactly: the product is exact in double. */
    if ((double)low * (double)scale < 0x1p-126)
        return 0.0f;
    return low * scale;
}

/* fmaf and nearbyintf are calls without the instructions, and a gate of many experts asks for many
 * exponentials. */
#if defined(__x86_64__)
__attribute__((target("fma,sse4.1"))) static float exp_fma(float x)
{
    return exp_of(x);
}
float k_expf(float x)
{
    return __builtin_cpu_supports("fma") ? exp_fma(x) : exp_of(x);
}
#else
float k_expf(float x)
{
    return exp_of(x);
}
#endif

float k_sigmoidf(float x)
{
    return 1.0f / (1.0f + k_expf(0.0f - x));
}

float k_tanhf(float x)
{
    float a = fabsf(x), z = x * x;
    if (a < TANH_CUT) {
        float p = fmaf(TANH_P4, z, TANH_P3);
        p = fmaf(p, z, TANH_P2);
        p = fmaf(p, z, TANH_P1);
        p = fmaf(p, z, TANH_P0);
        return fmaf(p * z, x, x);
    }
    return copysignf(1.0f - 2.0f / (k_expf(a + a) + 1.0f), x);
}

float k_softplusf(float x)
{
    /* Split so that neither side overflows. */
    double d = (double)x;
    return (float)(d > 0.0 ? d + log1p(exp(-d)) : log1p(exp(d)));
}
