/* pack_quant: the layout of integer weights, as kernels.h states it, in numbers. For the packing
 * and for the kernels that walk a panel. */
#ifndef KERNELS_PACK_QUANT_H
#define KERNELS_PACK_QUANT_H

#include "kernels/kernels.h"

/* Consecutive k of one column that lie side by side in a line: what one multiply-add of bytes
 * takes. */
#define QUAD 4
/* A line: the quads of all columns of a panel. i4: two quads a byte. */
#define LINE_BYTES ((size_t)PANEL * QUAD)
/* Bytes of a group's scales. */
#define SCALE_BYTES ((size_t)PANEL * 2)

/* bf16 bits of magnitudes: below the first a group is zeros, so that 127 / top is finite and top /
 * 127 no denormal (2^-118); from the second on it is not finite. */
#define INT_TOP_LEAST    0x0480u
#define INT_TOP_INFINITE 0x7f80u

/* k of a line, and lines of 32 k. */
static inline int quant_line_k(enum dtype dtype)
{
    return dtype == DTYPE_I8 ? QUAD : 2 * QUAD;
}
static inline size_t quant_block_bytes(enum dtype dtype)
{
    return (size_t)(K_BLOCK / quant_line_k(dtype)) * LINE_BYTES;
}

/* Where the integers of a panel begin: behind all scales, in a line of their own. */
static inline size_t quant_scales_bytes(int k, int group)
{
    return ((size_t)quant_groups(k, group) * SCALE_BYTES + 63) / 64 * 64;
}

static inline size_t quant_panel_bytes(enum dtype dtype, int k, int group)
{
    return quant_scales_bytes(k, group) +
           (size_t)(k_padded(k) / K_BLOCK) * quant_block_bytes(dtype);
}

/* Where k = k0 (a multiple of 32) of a panel of w lies. */
static inline size_t quant_block_at(const struct packed *w, int k0)
{
    return quant_scales_bytes(w->k, w->group) +
           (size_t)(k0 / K_BLOCK) * quant_block_bytes(w->dtype);
}

/* Where the scales of the group that k0 is in lie. */
static inline size_t quant_scale_at(const struct packed *w, int k0)
{
    return (size_t)(k0 / w->group) * SCALE_BYTES;
}

void unpack_quant_row(const struct packed *w, int row, float *out);

#endif
