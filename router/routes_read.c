/* routes_read: the strict reader. Everything is checked against the header, the limits and the size
 * of the file before it is believed; what a block claims decides nothing until its checksum agrees.
 * One block is held at a time. */
#include "base/dtype.h"
#include "router/routes_format.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct place {
    uint64_t offset;
    int64_t first; /* index of its first token in the file */
    uint32_t n_token, bytes;
};

struct routes_reader {
    struct routes_source source;
    char name[256];
    struct routes_spec spec;
    uint64_t header_bytes;
    struct place *block; /* [n_block] */
    int n_block;
    int64_t n_token;
    uint8_t *bytes; /* of the block in hand */
    size_t n_bytes;
    struct routes_run *run; /* [BLOCK_TOKENS_MAX] */
    int32_t *token, *expert;
    float *weight;
    size_t n_slot; /* room of expert and weight */
};

static int refuse(const struct routes_reader *r, uint64_t offset, const char *what, struct err *err)
{
    return err_set(err, ERR_MODEL, "%s: at byte %llu: %s", r->name, (unsigned long long)offset,
                   what);
}

static int get(struct routes_reader *r, uint64_t offset, void *out, size_t n, struct err *err)
{
    if (offset > r->source.size || n > r->source.size - offset)
        return refuse(r, offset, "the file ends in the middle", err);
    return r->source.read_at(r->source.self, offset, out, n, err);
}

static int name_get(char out[ROUTES_NAME_MAX], const uint8_t *bytes)
{
    memcpy(out, bytes, ROUTES_NAME_MAX);
    int n = 0;
    while (n < ROUTES_NAME_MAX && out[n])
        n++;
    int padded = n < ROUTES_NAME_MAX;
    for (int i = n; i < ROUTES_NAME_MAX; i++)
        padded &= out[i] == 0;
    return padded ? 0 : -1;
}

static int spec_check(struct routes_reader *r, const uint8_t *h, struct err *err)
{
    uint32_t n_layer = get_u32(h + 16), n_expert = get_u32(h + 20), top_k = get_u32(h + 24);
    uint32_t flags = get_u32(h + 28);
    if (get_u32(h + 8) != ROUTES_VERSION)
        return err_set(err, ERR_MODEL, "%s: version %u of the format; this build reads %d", r->name,
                       get_u32(h + 8), ROUTES_VERSION);
    if (n_layer < 1 || n_layer > LIMIT_LAYERS || n_expert < 1 || n_expert > LIMIT_EXPERTS ||
        top_k < 1 || top_k > LIMIT_TOP_K || top_k > n_expert)
        return err_set(err, ERR_MODEL,
                       "%s: %u layers, top %u of %u experts; at most %d, top %d of %d are possible",
                       r->name, n_layer, top_k, n_expert, LIMIT_LAYERS, LIMIT_TOP_K, LIMIT_EXPERTS);
    if (flags & ~(uint32_t)(FLAG_WEIGHT | FLAG_TOKEN))
        return refuse(r, 28, "unknown flags", err);
    if (get_u32(h + 12) != routes_header_bytes((int)n_layer))
        return refuse(r, 12, "the header's size does not fit its layers", err);
    if (name_get(r->spec.model, h + 32))
        return refuse(r, 32, "the model's name is not closed by zeros", err);
    r->spec.n_layer = (int)n_layer;
    r->spec.n_expert = (int)n_expert;
    r->spec.top_k = (int)top_k;
    r->spec.has_weight = (flags & FLAG_WEIGHT) != 0;
    r->spec.has_token = (flags & FLAG_TOKEN) != 0;
    return 0;
}

static int header_read(struct routes_reader *r, struct err *err)
{
    uint8_t h[HEADER_FIXED_BYTES + 2 * LIMIT_LAYERS + 16];
    int rc = get(r, 0, h, r->source.size < 8 ? (size_t)r->source.size : 8, err);
    if (rc == 0 && (r->source.size < 8 || memcmp(h, HEADER_MAGIC, 8) != 0))
        return refuse(r, 0, "this is no route file", err);
    if (rc == 0)
        rc = get(r, 0, h, HEADER_FIXED_BYTES, err);
    if (rc == 0)
        rc = spec_check(r, h, err);
    if (rc)
        return rc;
    size_t n = routes_header_bytes(r->spec.n_layer), end = HEADER_FIXED_BYTES;
    rc = get(r, 0, h, n, err);
    if (rc)
        return rc;
    if (get_u64(h + n - 8) != routes_checksum(h, n - 8))
        return refuse(r, n - 8, "the header's checksum is wrong", err);
    for (int i = 0; i < r->spec.n_layer; i++, end += 2) {
        r->spec.layer[i] = (int32_t)get_u16(h + end);
        if (r->spec.layer[i] >= LIMIT_LAYERS || (i > 0 && r->spec.layer[i] <= r->spec.layer[i - 1]))
            return refuse(r, end, "layers do not ascend, or are too many", err);
    }
    for (; end < n - 8; end++)
        if (h[end])
            return refuse(r, end, "a byte that must be zero is not", err);
    r->header_bytes = n;
    return 0;
}

/* place_check: block i as the index or its own head claims it, against what a block can be. */
static int place_check(struct routes_reader *r, int i, const struct place *p, struct err *err)
{
    uint64_t begin = i ? r->block[i - 1].offset + r->block[i - 1].bytes : r->header_bytes;
    if (p->offset != begin)
        return refuse(r, p->offset, "blocks do not follow one another", err);
    if (p->n_token < 1 || p->n_token > BLOCK_TOKENS_MAX ||
        p->bytes < BLOCK_HEAD_BYTES + routes_payload_bytes(&r->spec, 1, (int)p->n_token, 0))
        return refuse(r, p->offset, "a block's size does not fit its tokens", err);
    if ((uint64_t)p->n_token * (uint64_t)r->spec.top_k * (uint64_t)r->spec.n_layer > SLOTS_MAX)
        return refuse(r, p->offset, "a block has too many slots", err);
    return 0;
}

static int blocks_reserve(struct routes_reader *r, int n, struct err *err)
{
    struct place *block = realloc(r->block, ((size_t)n + 1) * sizeof(*block));
    if (!block)
        return err_set(err, ERR_NOMEM, "%s: no memory for the index of %d blocks", r->name, n);
    r->block = block;
    return 0;
}

static int index_blocks(struct routes_reader *r, const uint8_t *at, uint32_t n, uint64_t index_at,
                        struct err *err)
{
    int rc = blocks_reserve(r, (int)n, err);
    for (int i = 0; rc == 0 && i < (int)n; i++, at += INDEX_BLOCK_BYTES) {
        struct place p = {get_u64(at), r->n_token, get_u32(at + 8), get_u32(at + 12)};
        rc = place_check(r, i, &p, err);
        r->block[i] = p;
        r->n_token += p.n_token;
        r->n_block = i + 1;
    }
    if (rc)
        return rc;
    uint64_t end = n ? r->block[n - 1].offset + r->block[n - 1].bytes : r->header_bytes;
    return end == index_at ? 0
                           : refuse(r, end, "the blocks do not end where the index begins", err);
}

static int index_domains(struct routes_reader *r, const uint8_t *at, uint32_t n, struct err *err)
{
    r->spec.domain = calloc((size_t)n + 1, sizeof(*r->spec.domain));
    if (!r->spec.domain)
        return err_set(err, ERR_NOMEM, "%s: no memory for %u labels", r->name, n);
    r->spec.n_domain = (int)n;
    for (uint32_t i = 0; i < n; i++)
        if (name_get(r->spec.domain[i], at + (size_t)i * ROUTES_NAME_MAX))
            return refuse(r, r->source.size, "a domain's label is not closed by zeros", err);
    return 0;
}

/* index_read: size is that of the whole index, known to lie within the file. */
static int index_read(struct routes_reader *r, uint64_t index_at, uint64_t size, struct err *err)
{
    if (size > SIZE_MAX / 2 || size < INDEX_FIXED_BYTES + 8)
        return refuse(r, index_at, "the index is too short", err);
    uint8_t *bytes = malloc((size_t)size);
    if (!bytes)
        return err_set(err, ERR_NOMEM, "%s: no memory for an index of %llu bytes", r->name,
                       (unsigned long long)size);
    int rc = get(r, index_at, bytes, (size_t)size, err);
    uint64_t n_block = 0, n_domain = 0;
    if (rc == 0) {
        n_block = get_u32(bytes + 4);
        n_domain = get_u32(bytes + 8);
        if (get_u32(bytes) != INDEX_WORD || get_u32(bytes + 12) != 0)
            rc = refuse(r, index_at, "this is no index", err);
        else if (get_u64(bytes + size - 8) != routes_checksum(bytes, (size_t)size - 8))
            rc = refuse(r, index_at, "the index's checksum is wrong", err);
        else if (n_domain > ROUTES_DOMAINS_MAX || n_block > INT32_MAX / 2 ||
                 size != INDEX_FIXED_BYTES + n_block * INDEX_BLOCK_BYTES +
                             n_domain * ROUTES_NAME_MAX + 8)
            rc = refuse(r, index_at, "the index's size does not fit its blocks", err);
    }
    const uint8_t *at = bytes + INDEX_FIXED_BYTES;
    if (rc == 0)
        rc = index_blocks(r, at, (uint32_t)n_block, index_at, err);
    if (rc == 0)
        rc = index_domains(r, at + n_block * INDEX_BLOCK_BYTES, (uint32_t)n_domain, err);
    if (rc == 0 && get_u64(bytes + 16) != (uint64_t)r->n_token)
        rc = refuse(r, index_at + 16, "the index's tokens do not add up", err);
    free(bytes);
    return rc;
}

static int index_find(struct routes_reader *r, struct err *err)
{
    uint8_t t[TRAILER_BYTES];
    uint64_t end = r->source.size;
    if (end >= r->header_bytes + TRAILER_BYTES) {
        int rc = get(r, end - TRAILER_BYTES, t, TRAILER_BYTES, err);
        if (rc)
            return rc;
    }
    if (end < r->header_bytes + TRAILER_BYTES || memcmp(t + 8, INDEX_MAGIC, 8) != 0)
        return err_set(err, ERR_MODEL,
                       "%s: the file has no index at its end: it was cut off, or is still being "
                       "recorded; sigmoe trace convert --recover reads what is whole",
                       r->name);
    uint64_t index_at = get_u64(t);
    if (index_at < r->header_bytes || index_at > end - TRAILER_BYTES)
        return refuse(r, end - TRAILER_BYTES, "the index lies outside the file", err);
    return index_read(r, index_at, end - TRAILER_BYTES - index_at, err);
}

static int buffer_reserve(struct routes_reader *r, const struct place *p, struct err *err)
{
    size_t slots = (size_t)p->n_token * (size_t)r->spec.top_k * (size_t)r->spec.n_layer;
    if (p->bytes > r->n_bytes) {
        free(r->bytes);
        r->n_bytes = 0;
        r->bytes = malloc(p->bytes);
        r->n_bytes = r->bytes ? p->bytes : 0;
    }
    if (slots > r->n_slot) {
        free(r->expert);
        free(r->weight);
        r->n_slot = 0;
        r->expert = malloc(slots * sizeof(*r->expert));
        r->weight = malloc(slots * sizeof(*r->weight));
        r->n_slot = r->expert && r->weight ? slots : 0;
    }
    if (r->n_bytes < p->bytes || r->n_slot < slots)
        return err_set(err, ERR_NOMEM, "%s: no memory for a block of %u tokens", r->name,
                       p->n_token);
    return 0;
}

static int runs_decode(struct routes_reader *r, const struct place *p, const uint8_t *at, int n_run,
                       int known_domains, struct err *err)
{
    uint64_t n_token = 0;
    for (int i = 0; i < n_run; i++, at += RUN_BYTES) {
        uint32_t domain = get_u16(at + 24), flags = get_u16(at + 26), n = get_u32(at + 20);
        uint64_t where = p->offset + BLOCK_HEAD_BYTES + (uint64_t)i * RUN_BYTES;
        if (flags & ~(uint32_t)(FLAG_BEGINS | FLAG_ENDS) || get_u32(at + 28) != 0)
            return refuse(r, where, "a run has unknown flags", err);
        if (domain != NO_DOMAIN && (domain >= ROUTES_DOMAINS_MAX ||
                                    (known_domains && domain >= (uint32_t)r->spec.n_domain)))
            return refuse(r, where, "a run is of a domain that has no label", err);
        if (get_u32(at + 16) > LIMIT_CONTEXT || n < 1 || n > p->n_token)
            return refuse(r, where, "a run's positions are out of range", err);
        n_token += n;
        r->run[i] = (struct routes_run){.seq = get_u64(at),
                                        .time_us = get_u64(at + 8),
                                        .first_pos = (int32_t)get_u32(at + 16),
                                        .n_token = (int32_t)n,
                                        .domain = domain == NO_DOMAIN ? -1 : (int32_t)domain,
                                        .begins = (flags & FLAG_BEGINS) != 0,
                                        .ends = (flags & FLAG_ENDS) != 0};
    }
    return n_token == p->n_token ? 0 : refuse(r, p->offset, "the runs' tokens do not add up", err);
}

/* tokens_decode, experts_decode, weights_decode return the bytes they took, or negative. */

static int64_t tokens_decode(struct routes_reader *r, const uint8_t *at, int n, uint64_t where,
                             struct err *err)
{
    for (int i = 0; r->spec.has_token && i < n; i++) {
        uint32_t id = get_u32(at + (size_t)i * 4);
        if (id > INT32_MAX)
            return refuse(r, where + (uint64_t)i * 4, "a token id is out of range", err);
        r->token[i] = (int32_t)id;
    }
    return r->spec.has_token ? (int64_t)n * 4 : 0;
}

static int64_t experts_decode(struct routes_reader *r, const uint8_t *at, int n, int has_empty,
                              uint64_t where, struct err *err)
{
    int64_t slots = (int64_t)n * r->spec.top_k;
    int bits = routes_bits(r->spec.n_expert, has_empty);
    int64_t bytes = (slots * bits + 7) / 8;
    for (int l = 0; l < r->spec.n_layer; l++)
        if (routes_unpack(at + l * bytes, slots, bits, r->spec.n_expert, has_empty,
                          r->expert + l * slots))
            return err_set(err, ERR_MODEL,
                           "%s: at byte %llu: layer %d names an expert that is not one of %d",
                           r->name, (unsigned long long)where + (unsigned long long)(l * bytes),
                           r->spec.layer[l], r->spec.n_expert);
    return bytes * r->spec.n_layer;
}

static int64_t weights_decode(struct routes_reader *r, const uint8_t *at, int n, uint64_t where,
                              struct err *err)
{
    int64_t slots = (int64_t)n * r->spec.top_k * r->spec.n_layer;
    if (!r->spec.has_weight)
        return 0;
    for (int64_t i = 0; i < slots; i++) {
        r->weight[i] = f16_to_f32((uint16_t)get_u16(at + i * 2));
        if (!isfinite(r->weight[i]))
            return refuse(r, where + (uint64_t)i * 2, "a weight is no number", err);
    }
    return slots * 2;
}

/* head_check: a block's head against its place and its checksum; the bytes are in r->bytes. */
static int head_check(struct routes_reader *r, const struct place *p, struct err *err)
{
    const uint8_t *b = r->bytes;
    uint32_t n_run = get_u32(b + 4), flags = get_u32(b + 12);
    if (get_u32(b) != BLOCK_WORD || get_u32(b + 20) != 0 || flags & ~(uint32_t)FLAG_EMPTY)
        return refuse(r, p->offset, "this is no block", err);
    if (n_run < 1 || n_run > p->n_token || get_u32(b + 8) != p->n_token ||
        get_u32(b + 16) != p->bytes - BLOCK_HEAD_BYTES ||
        routes_payload_bytes(&r->spec, (int)n_run, (int)p->n_token, (int)flags) !=
            p->bytes - BLOCK_HEAD_BYTES)
        return refuse(r, p->offset, "a block's size does not fit its tokens", err);
    uint64_t sum = get_u64(b + BLOCK_SUM_AT);
    memset(r->bytes + BLOCK_SUM_AT, 0, 8);
    if (sum != routes_checksum(b, p->bytes))
        return refuse(r, p->offset, "a block's checksum is wrong", err);
    return 0;
}

static int block_decode(struct routes_reader *r, const struct place *p, int known_domains,
                        struct routes_block *out, struct err *err)
{
    int rc = buffer_reserve(r, p, err);
    if (rc == 0)
        rc = get(r, p->offset, r->bytes, p->bytes, err);
    if (rc == 0)
        rc = head_check(r, p, err);
    if (rc)
        return rc;
    int n = (int)p->n_token, n_run = (int)get_u32(r->bytes + 4);
    int has_empty = (int)get_u32(r->bytes + 12);
    int64_t at = BLOCK_HEAD_BYTES, took;
    rc = runs_decode(r, p, r->bytes + at, n_run, known_domains, err);
    if (rc)
        return rc;
    at += (int64_t)n_run * RUN_BYTES;
    if ((took = tokens_decode(r, r->bytes + at, n, p->offset + (uint64_t)at, err)) < 0)
        return (int)took;
    at += took;
    took = experts_decode(r, r->bytes + at, n, has_empty, p->offset + (uint64_t)at, err);
    if (took < 0)
        return (int)took;
    at += took;
    if ((took = weights_decode(r, r->bytes + at, n, p->offset + (uint64_t)at, err)) < 0)
        return (int)took;
    *out = (struct routes_block){.n_run = n_run,
                                 .n_token = n,
                                 .run = r->run,
                                 .token = r->spec.has_token ? r->token : NULL,
                                 .expert = r->expert,
                                 .weight = r->spec.has_weight ? r->weight : NULL};
    return 0;
}

/* scan: the blocks of a file without an index, as far as they are whole. */
static int scan(struct routes_reader *r, struct err *err)
{
    uint8_t head[BLOCK_HEAD_BYTES];
    struct routes_block block;
    uint64_t at = r->header_bytes;
    int n_domain = 0;
    for (int rc = 0; rc == 0;) {
        struct err why = {0};
        if (r->source.size - at < BLOCK_HEAD_BYTES || get(r, at, head, sizeof(head), &why))
            break;
        struct place p = {at, r->n_token, get_u32(head + 8), 0};
        uint64_t bytes = (uint64_t)get_u32(head + 16) + BLOCK_HEAD_BYTES;
        if (get_u32(head) != BLOCK_WORD || bytes > r->source.size - at || bytes > UINT32_MAX)
            break;
        p.bytes = (uint32_t)bytes;
        if (r->n_block % 256 == 0 && (rc = blocks_reserve(r, r->n_block + 256, err)) != 0)
            return rc;
        if (place_check(r, r->n_block, &p, &why) || block_decode(r, &p, 0, &block, &why))
            break;
        for (int i = 0; i < block.n_run; i++)
            n_domain = block.run[i].domain >= n_domain ? block.run[i].domain + 1 : n_domain;
        r->block[r->n_block++] = p;
        r->n_token += p.n_token;
        at += bytes;
    }
    r->spec.domain = calloc((size_t)n_domain + 1, sizeof(*r->spec.domain));
    if (!r->spec.domain)
        return err_set(err, ERR_NOMEM, "%s: no memory for %d labels", r->name, n_domain);
    for (int i = 0; i < n_domain; i++)
        snprintf(r->spec.domain[i], ROUTES_NAME_MAX, "domain-%d", i);
    r->spec.n_domain = n_domain;
    return 0;
}

static int create(const struct routes_source *source, const char *name, int recover,
                  struct routes_reader **out, struct err *err)
{
    struct routes_reader *r = calloc(1, sizeof(*r));
    if (!r)
        return err_set(err, ERR_NOMEM, "no memory to read %s", name);
    r->source = *source;
    snprintf(r->name, sizeof(r->name), "%s", name);
    r->run = calloc(BLOCK_TOKENS_MAX, sizeof(*r->run));
    r->token = calloc(BLOCK_TOKENS_MAX, sizeof(*r->token));
    int rc = r->run && r->token ? 0 : err_set(err, ERR_NOMEM, "no memory to read %s", name);
    if (rc == 0)
        rc = header_read(r, err);
    if (rc == 0)
        rc = recover ? scan(r, err) : index_find(r, err);
    if (rc) {
        r->source.close = NULL;
        routes_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

int routes_reader_create(const struct routes_source *source, const char *name,
                         struct routes_reader **out, struct err *err)
{
    return create(source, name, 0, out, err);
}

int routes_reader_recover(const struct routes_source *source, const char *name,
                          struct routes_reader **out, struct err *err)
{
    return create(source, name, 1, out, err);
}

void routes_close(struct routes_reader *r)
{
    if (!r)
        return;
    if (r->source.close)
        r->source.close(r->source.self);
    free(r->spec.domain);
    free(r->block);
    free(r->bytes);
    free(r->run);
    free(r->token);
    free(r->expert);
    free(r->weight);
    free(r);
}

const struct routes_spec *routes_spec_of(const struct routes_reader *r)
{
    return &r->spec;
}

int64_t routes_n_token(const struct routes_reader *r)
{
    return r->n_token;
}

int routes_n_block(const struct routes_reader *r)
{
    return r->n_block;
}

int64_t routes_block_first(const struct routes_reader *r, int i)
{
    return r->block[i].first;
}

int routes_block_of(const struct routes_reader *r, int64_t index)
{
    int low = 0, high = r->n_block - 1;
    if (index < 0 || index >= r->n_token)
        return -1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (r->block[middle].first <= index)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

int routes_read(struct routes_reader *r, int i, struct routes_block *out, struct err *err)
{
    if (i < 0 || i >= r->n_block)
        return err_set(err, ERR_USAGE, "%s: block %d of %d", r->name, i, r->n_block);
    return block_decode(r, &r->block[i], 1, out, err);
}
