/* vmath: exp and its kin on sixteen lanes, and the activations made of them. Operation for
 * operation what kernels/math.c computes for one value; polynomials are minimax fits (Remez) of our
 * own, the error of each is in math.c. One activation function serves the fused FFN and act_mul, so
 * that both give the same bits. */
#ifndef KERNELS_VMATH_H
#define KERNELS_VMATH_H

#include "kernels/kernels.h"
#include "kernels/math_coef.h"
#include "kernels/vec.h"

/* e^x: x = n ln2 + r, |r| <= ln2 / 2 (Cody and Waite, Software Manual for the Elementary Functions,
 * 1980); n reaches 128, and the result may be below 2^-126 (flushed).
 * The clamps keep NaN, which v_max would drop were it the first argument. */
INLINE vec v_exp(vec x)
{
    vec xc = v_max(v_set1(EXP_LO), v_min(v_set1(EXP_HI), x));
    vec n = v_round(v_mul(xc, v_set1(LOG2_E)));
    vec r = v_fma(n, v_set1(-LN2_HI), xc);
    r = v_fma(n, v_set1(-LN2_LO), r);
    vec q = v_fma(v_set1(EXP_Q4), r, v_set1(EXP_Q3));
    q = v_fma(q, r, v_set1(EXP_Q2));
    q = v_fma(q, r, v_set1(EXP_Q1));
    q = v_fma(q, r, v_set1(EXP_Q0));
    vec p = v_add(v_fma(v_mul(r, r), q, r), v_set1(1.0f));
    return v_times_exp2(p, v_max(n, v_set1(-127.0f)));
}

/* 1 / (1 + e^-x) */
INLINE vec v_sigmoid(vec x)
{
    vec one = v_set1(1.0f);
    return v_div(one, v_add(one, v_exp(v_sub(v_zero(), x))));
}

/* |x| < 0.625: x + x^3 P(x^2); else 1 - 2 / (e^2|x| + 1), with the sign of x. */
INLINE vec v_tanh(vec x)
{
    vec a = v_abs(x), z = v_mul(x, x), one = v_set1(1.0f);
    vec p = v_fma(v_set1(TANH_P4), z, v_set1(TANH_P3));
    p = v_fma(p, z, v_set1(TANH_P2));
    p = v_fma(p, z, v_set1(TANH_P1));
    p = v_fma(p, z, v_set1(TANH_P0));
    vec low = v_fma(v_mul(p, z), x, x);
    vec e = v_exp(v_add(a, a));
    vec high = v_sub(one, v_div(v_set1(2.0f), v_add(e, one)));
    return v_select_gt(v_set1(TANH_CUT), a, low, v_copysign(high, x));
}

/* |x| < 1: x + x P(x^2); else 1 - e^R(|x|), R a fit of log erfc on [1, 4]; erf(4) rounds to 1. */
INLINE vec v_erf(vec x)
{
    vec a = v_abs(x), z = v_mul(x, x), one = v_set1(1.0f);
    vec p = v_fma(v_set1(ERF_P6), z, v_set1(ERF_P5));
    p = v_fma(p, z, v_set1(ERF_P4));
    p = v_fma(p, z, v_set1(ERF_P3));
    p = v_fma(p, z, v_set1(ERF_P2));
    p = v_fma(p, z, v_set1(ERF_P1));
    p = v_fma(p, z, v_set1(ERF_P0));
    vec low = v_fma(p, x, x);
    vec t = v_min(v_set1(4.0f), a);
    vec r = v_fma(v_set1(ERF_R7), t, v_set1(ERF_R6));
    r = v_fma(r, t, v_set1(ERF_R5));
    r = v_fma(r, t, v_set1(ERF_R4));
    r = v_fma(r, t, v_set1(ERF_R3));
    r = v_fma(r, t, v_set1(ERF_R2));
    r = v_fma(r, t, v_set1(ERF_R1));
    r = v_fma(r, t, v_set1(ERF_R0));
    vec high = v_sub(one, v_exp(r));
    return v_select_gt(one, a, low, v_copysign(high, x));
}

/* act(g) alone: what a plain MLP applies, and the gate's half of the gated forms. */
INLINE vec v_act(enum act act, vec alpha, vec limit, vec g)
{
    vec half = v_mul(v_set1(0.5f), g);
    switch (act) {
    case ACT_SILU:
        return v_mul(g, v_sigmoid(g));
    case ACT_GELU:
        return v_mul(half, v_add(v_set1(1.0f), v_erf(v_mul(g, v_set1(SQRT_HALF)))));
    case ACT_GELU_TANH: {
        vec cube = v_mul(v_mul(g, g), g);
        vec inner = v_mul(v_set1(SQRT_2_PI), v_fma(v_set1(GELU_CUBE), cube, g));
        return v_mul(half, v_add(v_set1(1.0f), v_tanh(inner)));
    }
    case ACT_RELU2: {
        vec r = v_max(v_zero(), g);
        return v_mul(r, r);
    }
    case ACT_SWIGLU_CLAMP: {
        vec c = v_min(limit, g);
        return v_mul(c, v_sigmoid(v_mul(alpha, c)));
    }
    }
    return g;
}

/* act(g) * u; for ACT_SWIGLU_CLAMP g * sigmoid(alpha g) * (u + 1) of the clamped values. */
INLINE vec v_act_mul(enum act act, vec alpha, vec limit, vec g, vec u)
{
    vec a = v_act(act, alpha, limit, g);
    if (act == ACT_SWIGLU_CLAMP) {
        vec low = v_sub(v_zero(), limit);
        u = v_add(v_max(low, v_min(limit, u)), v_set1(1.0f));
    }
    return v_mul(a, u);
}

#endif
