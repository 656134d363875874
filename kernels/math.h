/* math: scalar exp and its kin with the very roundings of the lane versions (kernels/cpu/lanes),
 * for code that has one value at hand, such as a gate. libm's differ from machine to machine. */
#ifndef KERNELS_MATH_H
#define KERNELS_MATH_H

/* k_expf: e^x, at most 2 ulp off; 0 below -87.3, +inf above 88.7, NaN stays. */
float k_expf(float x);
float k_sigmoidf(float x); /* 1 / (1 + e^-x) */
float k_tanhf(float x);
float k_softplusf(float x); /* log(1 + e^x), computed in double and rounded once */

#endif
