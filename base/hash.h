/* hash: the one non-cryptographic hash we use, XXH3, with 128 bits for fingerprints of logits,
 * frames and checkpoints, with 64 where a format says so. Hex is how people see it. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t lo, hi;
};

struct hash_stream; /* heap; for data that comes in pieces */

struct hash128 hash_bytes(const void *data, size_t bytes);
uint64_t hash_bytes64(const void *data, size_t bytes, uint64_t seed);
struct hash_stream *hash_stream_create(void);
void hash_stream_update(struct hash_stream *stream, const void *data, size_t bytes);
struct hash128 hash_stream_digest(const struct hash_stream *stream);
void hash_stream_destroy(struct hash_stream *stream);
/* hash_hex writes 32 digits and a NUL. */
void hash_hex(struct hash128 hash, char out[33]);
int hash_equal(struct hash128 a, struct hash128 b);

#endif
