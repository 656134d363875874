/* pack_quant: the layout of integer weights, as kernels.h states it, in numbers. For the packing
 * and for the kernels that walk a panel. */
#ifndef KERNELS_PACK_QUANT_H
#define KERNELS_PACK_QUANT_H

#include "kernels/kernels.h"

/* Bytes of a group's scales, and of 32 k of a panel. */
#define SCALE_BYTES (PANEL * 2)
static inline size_t quant_block_bytes(enum dtype dtype)
{
    return dtype == DTYPE_I8 ? (size_t)PANEL * K_BLOCK : (size_t)PANEL * K_BLOCK / 2;
}

static inline size_t quant_panel_bytes(enum dtype dtype, int k, int group)
{
    return (size_t)quant_groups(k, group) * SCALE_BYTES +
           (size_t)(k_padded(k) / K_BLOCK) * quant_block_bytes(dtype);
}

/* Where k = k0 (a multiple of 32) of a panel lies, behind its group's scales. */
static inline size_t quant_block_at(enum dtype dtype, int group, int k0)
{
    return (size_t)(k0 / group + 1) * SCALE_BYTES +
           (size_t)(k0 / K_BLOCK) * quant_block_bytes(dtype);
}

/* Where the scales of the group that begins at k0 lie. */
static inline size_t quant_scale_at(enum dtype dtype, int group, int k0)
{
    return quant_block_at(dtype, group, k0) - SCALE_BYTES;
}

void unpack_quant_row(const struct packed *w, int row, float *out);

#endif
