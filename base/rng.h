/* rng: random numbers that depend on a seed and a counter alone (Philox-4x32-10, Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so that a draw has the same value
 * whatever the batch, the thread or the order it is made in. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

/* rng_block: four words from (key, counter). */
void rng_block(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, uint32_t out[4]);
/* rng_uniform: one double in [0, 1) with 53 random bits at (seed, stream, index). */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* rng_normal_fill: n standard normal floats (Box-Muller) at (seed, stream), elements
 * [first, first + n); element i has the same value whatever the range asked for. */
void rng_normal_fill(uint64_t seed, uint64_t stream, uint64_t first, float *out, uint64_t n);

#endif
