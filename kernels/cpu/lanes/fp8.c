/* fp8: rows as they travel with --wire-dtype fp8 (base/dtype.h has the format): bytes with a power
 * of two a group. The scale is chosen by the bits of the group's largest magnitude, top = 1.m *
 * 2^E: by 2^(E - 8) it comes to lie in [256, 512), and rounds to at most 448, the largest code,
 * unless it is above 464; then the scale is twice that. So nothing saturates (but magnitudes near
 * the end of bf16's range, where there is no larger byte), and a scale costs no bit of mantissa.
 *
 * Loops of plain C that compilers widen: each element sees the same exact operations of f32 and of
 * integers on every instruction set, and no operation's result depends on whether denormals are
 * flushed. Below FP8_LEAST whole groups are zeros, which keeps every scale and its inverse normal.
 */
#include "kernels/cpu/lanes/lanes.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
/* An exponent byte's scale is 2^(byte - BIAS): 127 of f32, and 8, the exponent of code 0x78. */
#define BIAS 135

INLINE float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

INLINE uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* By masks: compilers make branches of ?: here and widen no loop over them. */
INLINE uint32_t select_bits(int which, uint32_t yes, uint32_t no)
{
    uint32_t mask = 0u - (uint32_t)which;
    return (yes & mask) | (no & ~mask);
}

/* ---- bf16 to fp8 ---- */

/* The byte of a group whose largest magnitude has the bits `top`: its exponent, one more where the
 * mantissa, of 7 bits, is above that of 464 = 2^8 * (1 + 104/128). */
INLINE uint8_t exponent_of(uint32_t top)
{
    if (top >= 0x7f80u)
        return FP8_NAN;
    uint32_t e = (top + 23u) >> 7;
    return (uint8_t)(e < FP8_LEAST ? 0 : e > FP8_NAN - 1 ? FP8_NAN - 1 : e);
}

/* y >= 0, at most 512: to e4m3. From 2^-6 on the mantissa is cut to 3 bits, half to even; below
 * that codes are multiples of 2^-9, which is what adding 2^14 leaves of an f32. */
INLINE uint32_t code_of(float y)
{
    uint32_t u = bits_of(y);
    uint32_t normal = ((u + 0x7ffffu + ((u >> 20) & 1u)) >> 20) - (120u << 3);
    uint32_t small = bits_of(y + 0x1p14f) & 0xfu;
    uint32_t code = select_bits(u < 121u << 23, small, normal);
    return code < 0x7eu ? code : 0x7eu;
}

INLINE void encode_group(const uint16_t *restrict x, size_t n, uint8_t *restrict code,
                         uint8_t *exponent)
{
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t magnitude = x[i] & 0x7fffu;
        top = magnitude > top ? magnitude : top;
    }
    uint8_t e = exponent_of(top);
    *exponent = e;
    if (e < FP8_LEAST || e == FP8_NAN) {
        memset(code, 0, n);
        return;
    }
    float inverse = float_of((uint32_t)(127 + BIAS - e) << 23);
    for (size_t i = 0; i < n; i++) {
        float y = float_of((uint32_t)(x[i] & 0x7fffu) << 16) * inverse;
        code[i] = (uint8_t)(code_of(y) | ((uint32_t)x[i] >> 8 & 0x80u));
    }
}

void LANES_NAME(fp8_encode)(const uint16_t *x, size_t d, uint8_t *row)
{
    uint8_t *exponent = row + d;
    size_t i = 0;
    for (; i + FP8_GROUP <= d; i += FP8_GROUP)
        encode_group(x + i, FP8_GROUP, row + i, exponent++);
    if (i < d)
        encode_group(x + i, d - i, row + i, exponent);
}

/* ---- fp8 to bf16 ---- */

/* A code has four significant bits, and its exponent stays that of a normal f32 under any scale of
 * FP8_LEAST on: the product is exact, and its lower 16 bits are zero. */
INLINE uint16_t element_of(uint8_t code, float scale)
{
    uint32_t magnitude = code & 0x7fu;
    float normal = float_of((magnitude + (120u << 3)) << 20);
    float small = (float)(int32_t)magnitude * 0x1p-9f; /* exponent 0 */
    float value = float_of(select_bits(magnitude < 8, bits_of(small), bits_of(normal)));
    uint32_t u = bits_of(value * scale) >> 16 | (uint32_t)(code & 0x80u) << 8;
    return (uint16_t)select_bits(magnitude == 0x7fu, 0x7fc0u, u);
}

INLINE void decode_group(const uint8_t *restrict code, size_t n, uint8_t exponent,
                         uint16_t *restrict x)
{
    if (exponent < FP8_LEAST || exponent == FP8_NAN) {
        for (size_t i = 0; i < n; i++)
            x[i] = exponent == FP8_NAN ? 0x7fc0u : 0;
        return;
    }
    float scale = float_of((uint32_t)(127 + exponent - BIAS) << 23);
    for (size_t i = 0; i < n; i++)
        x[i] = element_of(code[i], scale);
}

void LANES_NAME(fp8_decode)(const uint8_t *row, size_t d, uint16_t *x)
{
    const uint8_t *exponent = row + d;
    size_t i = 0;
    for (; i + FP8_GROUP <= d; i += FP8_GROUP)
        decode_group(row + i, FP8_GROUP, *exponent++, x + i);
    if (i < d)
        decode_group(row + i, d - i, *exponent, x + i);
}
