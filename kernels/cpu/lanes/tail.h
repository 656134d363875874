/* tail: loads and stores of up to sixteen elements of any float dtype. The last elements of a row
 * go through the same lanes and the same operations as the others, padded with zeros in a register,
 * so a row's bits do not depend on where it ends and nothing outside it is touched. */
#ifndef KERNELS_CPU_LANES_TAIL_H
#define KERNELS_CPU_LANES_TAIL_H

#include "base/dtype.h"
#include "kernels/vec.h"

/* Elements of the vector that starts at i. */
INLINE int t_count(size_t i, size_t n)
{
    return n - i < LANES ? (int)(n - i) : LANES;
}

INLINE vec t_load_f32(const float *p, int n)
{
    return n == LANES ? v_load(p) : v_load_n(p, n);
}

INLINE vec t_load_bf16(const uint16_t *p, int n)
{
    if (n == LANES) {
        return v_load_bf16(p);
    }
    uint16_t h[LANES] = {0};
    memcpy(h, p, (size_t)n * sizeof *h);
    return v_load_bf16(h);
}

/* f32 or bf16. */
INLINE vec t_load(const void *p, enum dtype dtype, size_t i, int n)
{
    return dtype == DTYPE_BF16 ? t_load_bf16((const uint16_t *)p + i, n)
                               : t_load_f32((const float *)p + i, n);
}

INLINE void t_store_f32(float *p, vec a, int n)
{
    if (n == LANES) {
        v_store(p, a);
    } else {
        v_store_n(p, a, n);
    }
}

INLINE void t_store_bf16(uint16_t *p, vec a, int n)
{
    uint16_t h[LANES];
    if (n == LANES) {
        v_store_bf16(p, a);
        return;
    }
    v_store_bf16(h, a);
    memcpy(p, h, (size_t)n * sizeof *h);
}

/* f32 or bf16. */
INLINE void t_store(void *p, enum dtype dtype, size_t i, vec a, int n)
{
    if (dtype == DTYPE_BF16) {
        t_store_bf16((uint16_t *)p + i, a, n);
    } else {
        t_store_f32((float *)p + i, a, n);
    }
}

/* Zeros in elements [begin, end) of f32 or bf16. */
INLINE void t_zero(void *p, enum dtype dtype, size_t begin, size_t end)
{
    size_t bytes = dtype_bytes(dtype);
    if (begin < end) {
        memset((char *)p + begin * bytes, 0, (end - begin) * bytes);
    }
}

#endif
