/* amx_check: holds a tile unit against THE SUM before it is used. The published operation is what
 * we rely on, but a unit is hardware of some stepping under some hypervisor: a difference in one
 * bit would break the promise that all instruction sets agree, and would show up as nothing else.
 */
#include "kernels/cpu/amx.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define N_BLOCK 256
#define DIM     16

/* xorshift64* (Marsaglia 2003, Vigna 2016): the check needs variety, not quality. */
static uint32_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)(*state * 0x2545f4914f6cdd1dull >> 32);
}

/* A bf16 with an exponent in [low, low + span), sign and fraction random. */
static uint16_t random_bf16(uint64_t *state, uint32_t low, uint32_t span)
{
    uint32_t r = random_next(state), exponent = low + (r >> 8) % span;
    return (uint16_t)((r & 1) << 15 | exponent << 7 | (r >> 1 & 0x7f));
}

struct block {
    uint16_t a[DIM * 32], b[DIM * 32];
    float c[DIM * DIM];
};

/* Kinds of blocks, by the biased exponents of a, b and c. Denormals and underflow need blocks of
 * their own: beside an ordinary product they vanish in its last bit. */
struct kind {
    uint32_t a, a_span, b, b_span, c, c_span;
    int cancel; /* every second pair of products is the one before with its sign turned */
};

static const struct kind kinds[] = {
    {120, 10, 120, 10, 120, 10, 0}, /* around 1 */
    {90, 70, 90, 70, 90, 70, 0},    /* wide */
    {0, 2, 120, 12, 0, 6, 0},       /* denormal operands, c among them */
    {60, 8, 60, 8, 0, 6, 0},        /* products and sums around the smallest normal */
    {124, 4, 124, 4, 110, 4, 1},    /* sums that cancel to their last bits */
};
#define N_KIND ((int)(sizeof kinds / sizeof *kinds))

static void block_fill(struct block *block, const struct kind *kind, uint64_t *state)
{
    for (int i = 0; i < DIM * 32; i++) {
        block->a[i] = random_bf16(state, kind->a, kind->a_span);
        block->b[i] = random_bf16(state, kind->b, kind->b_span);
    }
    for (int i = 0; i < DIM * DIM; i++)
        block->c[i] = bf16_to_f32(random_bf16(state, kind->c, kind->c_span));
    for (int i = 0; kind->cancel && i + 3 < DIM * 32; i += 4) {
        block->a[i + 2] = block->a[i] ^ 0x8000u;
        block->a[i + 3] = block->a[i + 1] ^ 0x8000u;
    }
    for (int pair = 1; kind->cancel && pair < DIM; pair += 2)
        memcpy(block->b + pair * 32, block->b + (pair - 1) * 32, 32 * sizeof *block->b);
}

static void block_sum(const struct block *block, float *c)
{
    for (int m = 0; m < DIM; m++) {
        for (int n = 0; n < DIM; n++) {
            float e = 0.0f, o = 0.0f;
            for (int k = 0; k < DIM; k++) {
                const uint16_t *x = block->a + m * 32 + 2 * k, *w = block->b + (k * DIM + n) * 2;
                e = fmaf(bf16_to_f32(x[0]), bf16_to_f32(w[0]), e);
                o = fmaf(bf16_to_f32(x[1]), bf16_to_f32(w[1]), o);
            }
            c[m * DIM + n] = block->c[m * DIM + n] + (e + o);
        }
    }
}

int tile_block_is_sum(tile_block_fn *fn)
{
    unsigned mxcsr = _mm_getcsr();
    _mm_setcsr(mxcsr | 0x8040u); /* FTZ, DAZ: the tile unit's fixed mode, and THE SUM's */
    uint64_t state = 0x9e3779b97f4a7c15ull;
    int equal = 1;
    for (int i = 0; i < N_BLOCK && equal; i++) {
        struct block block;
        float expected[DIM * DIM];
        block_fill(&block, &kinds[i % N_KIND], &state);
        block_sum(&block, expected);
        fn(block.a, block.b, block.c);
        equal = memcmp(block.c, expected, sizeof expected) == 0;
    }
    _mm_setcsr(mxcsr);
    return equal;
}

#endif
