/* packed_cache: packed weights on disk, so that a process that starts again maps what another has
 * packed. One file holds one slab: the dense weights, or one expert; so workers with any part of
 * the experts share a cache, and whoever packs an expert first writes it for all.
 *
 * A file is a page of header and the slab as it lies in memory. The header carries the model's
 * fingerprint and a hash of where everything lies in the slab (pack_jobs_hash), so a file of
 * another model, precision, version or layout is stale; stale and damaged files are packed and
 * written again. Files appear whole, by rename. */
#ifndef MODEL_PACKED_CACHE_H
#define MODEL_PACKED_CACHE_H

#include "model/weights.h"

/* What a file must be for. layer and expert -1: the dense weights. */
struct packed_key {
    const struct model *model;
    enum precision precision;
    int layer, expert;
    uint64_t layout; /* pack_jobs_hash */
    uint64_t bytes;  /* of the slab */
};

/* packed_cache_get maps the slab of a key, read-only and read from the disk, on huge pages where
 * the file system keeps files in such (ext4 from Linux 6.16, xfs); NULL where the cache is off, has
 * no such file or one that does not fit, which is said once a process. */
void *packed_cache_get(const struct packed_key *key);
/* packed_cache_put writes `slab` and returns it mapped from the file, NULL where the cache is off
 * or it could not be written, which is said once a process: the caller goes on with its own. */
void *packed_cache_put(const struct packed_key *key, const void *slab);
void packed_cache_unmap(void *slab, uint64_t bytes);

/* packed_cache_verify reads every file of the model's cache and compares all bytes with what was
 * written. Prints a line for each damaged one and a sum. Returns how many are damaged or negative.
 */
struct packed_check {
    int n_file, n_stale, n_damaged;
    uint64_t bytes;
};
int packed_cache_verify(const struct model *model, struct packed_check *out, struct err *err);

#endif
