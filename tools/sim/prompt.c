/* prompt: see prompt.h. */
#include "tools/sim/prompt.h"

#include "base/rng.h"

#define STREAM_OWN   UINT64_C(0x70726f6d7074)
#define STREAM_BLOCK UINT64_C(0x626c6f636b)

/* Names may be any number: their streams must lie apart all the same. */
#define SPREAD UINT64_C(0x9e3779b97f4a7c15)

void prompt_fill(const struct arrivals *a, int index, uint64_t seed, int vocab, int32_t *token)
{
    const struct arrival *r = &a->at[index];
    for (int i = 0; i < r->n_prompt; i++) {
        int block = a->block_tokens > 0 ? i / a->block_tokens : 0;
        uint64_t stream = STREAM_OWN + (uint64_t)index, at = (uint64_t)i;
        if (block < r->n_block) {
            stream = STREAM_BLOCK + (uint64_t)a->block[r->first_block + block] * SPREAD;
            at = (uint64_t)(i % a->block_tokens);
        }
        token[i] = (int32_t)(rng_uniform(seed, stream, at) * vocab);
    }
}
