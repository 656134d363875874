/* math_coef: the constants that the scalar and the lane versions of exp, tanh and erf share. */
#ifndef KERNELS_MATH_COEF_H
#define KERNELS_MATH_COEF_H

/* exp: beyond these bounds the result is 0 or infinite anyway. */
#define EXP_LO (-87.5f)
#define EXP_HI 89.0f
#define LOG2_E 0x1.715476p+0f
/* ln 2 in two parts; the first has so few bits that n times it is exact. */
#define LN2_HI 0x1.62p-1f
#define LN2_LO 0x1.c85fe0p-10f
/* e^r = 1 + r + r^2 Q(r), |r| <= ln2 / 2: 3.1e-9 relative before rounding. */
#define EXP_Q0 0.49999994f
#define EXP_Q1 0.1666652f
#define EXP_Q2 0.041668393f
#define EXP_Q3 0.008368781f
#define EXP_Q4 0.0013814467f

/* tanh: x + x^3 P(x^2) below the cut: 4.1e-9. */
#define TANH_CUT 0.625f
#define TANH_P0  -0.33333284f
#define TANH_P1  0.13331491f
#define TANH_P2  -0.053743497f
#define TANH_P3  0.020650588f
#define TANH_P4  -0.0057170456f

/* erf: x + x P(x^2), |x| < 1: 1.2e-9; log erfc on [1, 4]: 2.1e-11 of erf. */
#define ERF_P0 0.12837917f
#define ERF_P1 -0.37612626f
#define ERF_P2 0.112836033f
#define ERF_P3 -0.026854444f
#define ERF_P4 0.0051895357f
#define ERF_P5 -0.0008020842f
#define ERF_P6 7.889123e-05f
#define ERF_R0 0.00018846817f
#define ERF_R1 -1.1295803f
#define ERF_R2 -0.6332164f
#define ERF_R3 -0.1084221f
#define ERF_R4 0.02521034f
#define ERF_R5 -0.004205285f
#define ERF_R6 0.00044147269f
#define ERF_R7 -2.1697617e-05f

/* GELU (Hendrycks and Gimpel, 2016): x Phi(x), and its tanh form. */
#define SQRT_HALF 0.70710678f
#define SQRT_2_PI 0.79788456f
#define GELU_CUBE 0.044715f

#endif
