/* dtype: element types of tensors, in files, in memory and on the wire. */
#ifndef BASE_DTYPE_H
#define BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* DTYPE_U16, I32 and I64 are of files: nothing is computed with them. I8 and I4 are of packed
 * weights only (kernels.h): integers with a bf16 scale a group, two of I4 a byte. FP8 is of rows
 * that travel (below). */
enum dtype {
    DTYPE_NONE = 0,
    DTYPE_F32 = 1,
    DTYPE_BF16 = 2,
    DTYPE_F16 = 3,
    DTYPE_U16 = 4,
    DTYPE_I8 = 5,
    DTYPE_I4 = 6,
    DTYPE_I32 = 7,
    DTYPE_I64 = 8,
    DTYPE_FP8 = 9,
    DTYPE_COUNT
};

/* Of one element; 0 for I4 and FP8, which have none of their own. */
static inline size_t dtype_bytes(enum dtype t)
{
    if (t == DTYPE_I8 || t == DTYPE_I64)
        return t == DTYPE_I8 ? 1 : 8;
    return t == DTYPE_F32 || t == DTYPE_I32                        ? 4
           : (t == DTYPE_BF16 || t == DTYPE_F16 || t == DTYPE_U16) ? 2
                                                                   : 0;
}

static inline const char *dtype_name(enum dtype t)
{
    static const char *const name[DTYPE_COUNT] = {"none", "f32",  "bf16", "f16", "u16",
                                                  "int8", "int4", "i32",  "i64", "fp8"};
    return t > DTYPE_NONE && t < DTYPE_COUNT ? name[t] : name[DTYPE_NONE];
}

/* A row in fp8: d codes (e4m3 without infinities: sign, 4 bits of exponent with bias 7, 3 of
 * mantissa; 0x7f and 0xff are NaN), then a byte for each FP8_GROUP of them. An element is its code
 * times 2^(byte - 135); in a group whose byte is below FP8_LEAST all are 0, in one of FP8_NAN all
 * are NaN. So every string of bytes is a row, and each element is exact in bf16. */
#define FP8_GROUP 128
#define FP8_LEAST 32
#define FP8_NAN   255
static inline size_t fp8_row_bytes(size_t d)
{
    return d + (d + FP8_GROUP - 1) / FP8_GROUP;
}
/* wire_row_bytes: of d elements as they travel. */
static inline size_t wire_row_bytes(enum dtype t, size_t d)
{
    return t == DTYPE_FP8 ? fp8_row_bytes(d) : d * dtype_bytes(t);
}

static inline float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* Round to nearest even; a NaN stays a NaN (quiet). */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)((u >> 16) | 0x40u);
    }
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* IEEE half to single, exact (denormals included). */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 0x3ffu, u;
    float f;
    if (exp == 31) {
        u = sign | 0x7f800000u | man << 13;
    } else if (exp != 0) {
        u = sign | (exp + 112) << 23 | man << 13;
    } else if (man == 0) {
        u = sign;
    } else {
        exp = 113;
        while (!(man & 0x400u)) {
            man <<= 1;
            exp--;
        }
        u = sign | exp << 23 | (man & 0x3ffu) << 13;
    }
    memcpy(&f, &u, 4);
    return f;
}

#endif
