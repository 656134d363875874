/* rng: Philox-4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011) and two distributions on it. The normal
 * distribution uses its own logarithm and circle functions: libm picks FMA variants by CPU, and a
 * synthetic checkpoint must have the same bytes on every machine. Arithmetic is double, so that the
 * polynomials' errors (under 1e-12) vanish in the rounding to float. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

#define PHILOX_M0     0xD2511F53u
#define PHILOX_M1     0xCD9E8D57u
#define PHILOX_W0     0x9E3779B9u
#define PHILOX_W1     0xBB67AE85u
#define PHILOX_ROUNDS 10

void rng_block(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_lo, c1 = (uint32_t)(counter_lo >> 32);
    uint32_t c2 = (uint32_t)counter_hi, c3 = (uint32_t)(counter_hi >> 32);
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * c0, p1 = (uint64_t)PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t w[4];
    rng_block(seed, stream, index, w);
    uint64_t bits = ((uint64_t)w[0] << 32 | w[1]) >> 11;
    return (double)bits * 0x1p-53;
}

/* natural_log for x > 0: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), then
 * ln m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172. */
static double natural_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    /* Subtracting the bits of sqrt(1/2) makes the exponent field step at sqrt(1/2) * 2^e. */
    uint64_t step = bits - 0x3FE6A09E667F3BCDull;
    int64_t e = (int64_t)step >> 52;
    bits = (step & 0x000FFFFFFFFFFFFFull) + 0x3FE6A09E667F3BCDull;
    double m;
    memcpy(&m, &bits, sizeof(m));
    double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 1.0 / 15;
    p = p * z + 1.0 / 13;
    p = p * z + 1.0 / 11;
    p = p * z + 1.0 / 9;
    p = p * z + 1.0 / 7;
    p = p * z + 1.0 / 5;
    p = p * z + 1.0 / 3;
    p = p * z + 1.0;
    return 2.0 * s * p + (double)e * 0.693147180559945309417;
}

/* circle: cosine and sine of a quarter turn's fraction t in (0, 1), by their Taylor series around
 * the middle of the quarter, where both are within pi/4 of zero argument. */
static void circle(double t, double *cosine, double *sine)
{
    double x = (t - 0.5) * 1.57079632679489661923, z = x * x;
    double s = 1.0 / 6227020800.0;
    s = s * z - 1.0 / 39916800.0;
    s = s * z + 1.0 / 362880.0;
    s = s * z - 1.0 / 5040.0;
    s = s * z + 1.0 / 120.0;
    s = s * z - 1.0 / 6.0;
    s = (s * z + 1.0) * x;
    double c = 1.0 / 479001600.0;
    c = c * z - 1.0 / 3628800.0;
    c = c * z + 1.0 / 40320.0;
    c = c * z - 1.0 / 720.0;
    c = c * z + 1.0 / 24.0;
    c = c * z - 1.0 / 2.0;
    c = c * z + 1.0;
    /* Rotate by the eighth of a turn that was taken off. */
    *cosine = (c - s) * 0.70710678118654752440;
    *sine = (c + s) * 0.70710678118654752440;
}

/* box_muller turns two words into two normals. The top two bits of the angle choose the quarter. */
static void box_muller(uint32_t radius_word, uint32_t angle_word, float out[2])
{
    double u = ((double)radius_word + 0.5) * 0x1p-32;
    double t = ((double)(angle_word & 0x3FFFFFFFu) + 0.5) * 0x1p-30;
    double r = sqrt(-2.0 * natural_log(u)), c, s;
    circle(t, &c, &s);
    double flip = angle_word >> 31 ? -r : r;
    double x = angle_word >> 30 & 1 ? -s : c, y = angle_word >> 30 & 1 ? c : s;
    out[0] = (float)(flip * x);
    out[1] = (float)(flip * y);
}

void rng_normal_fill(uint64_t seed, uint64_t stream, uint64_t first, float *out, uint64_t n)
{
    uint64_t done = 0;
    while (done < n) {
        uint64_t index = first + done;
        uint64_t skip = index % 4, take = 4 - skip;
        if (take > n - done)
            take = n - done;
        uint32_t w[4];
        float block[4];
        rng_block(seed, stream, index / 4, w);
        box_muller(w[0], w[1], block);
        box_muller(w[2], w[3], block + 2);
        memcpy(out + done, block + skip, take * sizeof(float));
        done += take;
    }
}
