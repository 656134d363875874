/* amx: matrix products on tile units, of rows of bf16 (AMX-BF16) and of rows made integers
 * (AMX-INT8), which are exact on any unit; everything else of its tables is AVX-512's. Whether a
 * unit computes THE SUM is not taken from its manual: it is asked at start. */
#ifndef KERNELS_AMX_H
#define KERNELS_AMX_H

#include "kernels/kernels.h"

/* kernels_amx computes THE SUM, and uses tiles where rows are many. kernels_amx_own is for a unit
 * that rounds otherwise: tiles for every row count, so still batch-invariant, and a numerics class
 * of its own. kernels_tile_sim is kernels_amx_own with simulated tiles, which do compute THE SUM.
 * Builds for a sanitizer have no kernels_amx_own. */
extern const struct kernels kernels_amx, kernels_amx_own, kernels_tile_sim;

/* A product of tiles: c [16, 16] += a [16, 32] b, b [16 pairs][16 columns][2]. */
typedef void tile_block_fn(const uint16_t *a, const uint16_t *b, float *c);

/* tile_block: on the tile unit. PRECOND: the CPU has one and the process may use it. */
tile_block_fn tile_block;

/* tile_block_is_sum compares products of some hundred random blocks with THE SUM, bit by bit:
 * ordinary values, wide exponents, denormals, and sums that cancel. 1: equal. A few milliseconds.
 */
int tile_block_is_sum(tile_block_fn *fn);

#endif
