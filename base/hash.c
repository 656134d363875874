/* hash: XXH3 with 128 bits from libxxhash: faster than memory can be read, and wide enough that two
 * checkpoints never meet by chance. It defends against accidents, not against an attacker. */
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

struct hash_stream {
    XXH3_state_t *state;
};

static struct hash128 from_xxh(XXH128_hash_t h)
{
    return (struct hash128){.lo = h.low64, .hi = h.high64};
}

struct hash128 hash_bytes(const void *data, size_t bytes)
{
    return from_xxh(XXH3_128bits(data, bytes));
}

uint64_t hash_bytes64(const void *data, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}

struct hash_stream *hash_stream_create(void)
{
    struct hash_stream *stream = malloc(sizeof(*stream));
    if (!stream)
        return NULL;
    stream->state = XXH3_createState();
    if (!stream->state || XXH3_128bits_reset(stream->state) != XXH_OK) {
        hash_stream_destroy(stream);
        return NULL;
    }
    return stream;
}

void hash_stream_update(struct hash_stream *stream, const void *data, size_t bytes)
{
    if (bytes)
        XXH3_128bits_update(stream->state, data, bytes);
}

struct hash128 hash_stream_digest(const struct hash_stream *stream)
{
    return from_xxh(XXH3_128bits_digest(stream->state));
}

void hash_stream_destroy(struct hash_stream *stream)
{
    if (!stream)
        return;
    XXH3_freeState(stream->state);
    free(stream);
}

void hash_hex(struct hash128 hash, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)hash.hi, (unsigned long long)hash.lo);
}

int hash_equal(struct hash128 a, struct hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}
