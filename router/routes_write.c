/* routes_write: gathers tokens until a block is full, then encodes and writes it. What was written
 * is never touched again, so a sink may be a pipe, and a recording that is cut off has whole blocks
 * up to there. */
#include "router/routes_format.h"

#include <stdlib.h>
#include <string.h>

struct place {
    uint64_t offset;
    uint32_t n_token, bytes;
};

struct routes_writer {
    struct routes_sink sink;
    struct routes_spec spec;
    uint64_t offset;
    int64_t n_total;
    struct place *block;
    int n_block, block_room, domain_room;
    /* The block being gathered: experts and weights lie [n_layer, ROUTES_BLOCK_TOKENS, top_k]. */
    struct routes_run run[ROUTES_BLOCK_TOKENS];
    int n_run, n_token, has_empty;
    int32_t token[ROUTES_BLOCK_TOKENS];
    int32_t *expert;
    uint16_t *half;
    uint8_t *bytes; /* a whole block, encoded */
};

static int emit(struct routes_writer *w, const void *bytes, size_t n, struct err *err)
{
    int rc = w->sink.write(w->sink.self, bytes, n, err);
    if (rc == 0)
        w->offset += n;
    return rc;
}

static int spec_check(const struct routes_spec *spec, struct err *err)
{
    int64_t slots = (int64_t)spec->n_layer * spec->top_k * ROUTES_BLOCK_TOKENS;
    if (spec->n_layer < 1 || spec->n_layer > LIMIT_LAYERS || spec->n_expert < 1 ||
        spec->n_expert > LIMIT_EXPERTS || spec->top_k < 1 || spec->top_k > LIMIT_TOP_K ||
        spec->top_k > spec->n_expert || slots > SLOTS_MAX || spec->n_domain > ROUTES_DOMAINS_MAX)
        return err_set(err, ERR_LIMIT,
                       "a route file of %d layers, top %d of %d experts, %d domains is impossible",
                       spec->n_layer, spec->top_k, spec->n_expert, spec->n_domain);
    for (int i = 0; i < spec->n_layer; i++)
        if (spec->layer[i] < 0 || spec->layer[i] >= LIMIT_LAYERS ||
            (i > 0 && spec->layer[i] <= spec->layer[i - 1]))
            return err_set(err, ERR_LIMIT, "layers of a route file must ascend; layer %d is %d", i,
                           spec->layer[i]);
    return 0;
}

static int header_write(struct routes_writer *w, struct err *err)
{
    uint8_t h[HEADER_FIXED_BYTES + 2 * LIMIT_LAYERS + 16] = {0};
    size_t n = routes_header_bytes(w->spec.n_layer);
    memcpy(h, HEADER_MAGIC, 8);
    put_u32(h + 8, ROUTES_VERSION);
    put_u32(h + 12, (uint32_t)n);
    put_u32(h + 16, (uint32_t)w->spec.n_layer);
    put_u32(h + 20, (uint32_t)w->spec.n_expert);
    put_u32(h + 24, (uint32_t)w->spec.top_k);
    put_u32(h + 28,
            (w->spec.has_weight ? FLAG_WEIGHT : 0u) | (w->spec.has_token ? FLAG_TOKEN : 0u));
    memcpy(h + 32, w->spec.model, strnlen(w->spec.model, ROUTES_NAME_MAX - 1));
    for (int i = 0; i < w->spec.n_layer; i++)
        put_u16(h + HEADER_FIXED_BYTES + 2 * (size_t)i, (uint32_t)w->spec.layer[i]);
    put_u64(h + n - 8, routes_checksum(h, n - 8));
    return emit(w, h, n, err);
}

static int buffers_alloc(struct routes_writer *w, struct err *err)
{
    size_t slots = (size_t)w->spec.n_layer * (size_t)w->spec.top_k * ROUTES_BLOCK_TOKENS;
    size_t payload = routes_payload_bytes(&w->spec, ROUTES_BLOCK_TOKENS, ROUTES_BLOCK_TOKENS, 1);
    w->expert = malloc(slots * sizeof(*w->expert));
    w->half = w->spec.has_weight ? malloc(slots * sizeof(*w->half)) : NULL;
    w->bytes = malloc(payload + BLOCK_HEAD_BYTES);
    if (!w->expert || !w->bytes || (w->spec.has_weight && !w->half))
        return err_set(err, ERR_NOMEM, "no memory to record routes: %zu bytes", payload);
    return 0;
}

static void writer_free(struct routes_writer *w)
{
    free(w->spec.domain);
    free(w->block);
    free(w->expert);
    free(w->half);
    free(w->bytes);
    free(w);
}

int routes_writer_create(const struct routes_sink *sink, const struct routes_spec *spec,
                         struct routes_writer **out, struct err *err)
{
    int rc = spec_check(spec, err);
    if (rc)
        return rc;
    struct routes_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, ERR_NOMEM, "no memory to record routes");
    w->sink = *sink;
    w->spec = *spec;
    w->spec.domain = NULL;
    w->spec.n_domain = 0;
    rc = buffers_alloc(w, err);
    for (int i = 0; rc == 0 && i < spec->n_domain; i++) {
        int at = routes_writer_domain(w, spec->domain[i], err);
        rc = at < 0 ? at : 0;
    }
    if (rc == 0)
        rc = header_write(w, err);
    if (rc) {
        writer_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

int routes_writer_domain(struct routes_writer *w, const char *label, struct err *err)
{
    for (int i = 0; i < w->spec.n_domain; i++)
        if (strncmp(w->spec.domain[i], label, ROUTES_NAME_MAX - 1) == 0)
            return i;
    if (w->spec.n_domain == ROUTES_DOMAINS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d domains in one route file",
                       ROUTES_DOMAINS_MAX);
    if (w->spec.n_domain == w->domain_room) {
        int room = w->domain_room ? 2 * w->domain_room : 16;
        char(*grown)[ROUTES_NAME_MAX] = realloc(w->spec.domain, (size_t)room * sizeof(*grown));
        if (!grown)
            return err_set(err, ERR_NOMEM, "no memory for %d domains", room);
        w->spec.domain = grown;
        w->domain_room = room;
    }
    memset(w->spec.domain[w->spec.n_domain], 0, ROUTES_NAME_MAX);
    memcpy(w->spec.domain[w->spec.n_domain], label, strnlen(label, ROUTES_NAME_MAX - 1));
    return w->spec.n_domain++;
}

static size_t runs_encode(const struct routes_writer *w, uint8_t *at)
{
    for (int i = 0; i < w->n_run; i++, at += RUN_BYTES) {
        const struct routes_run *run = &w->run[i];
        put_u64(at, run->seq);
        put_u64(at + 8, run->time_us);
        put_u32(at + 16, (uint32_t)run->first_pos);
        put_u32(at + 20, (uint32_t)run->n_token);
        put_u16(at + 24, run->domain < 0 ? NO_DOMAIN : (uint32_t)run->domain);
        put_u16(at + 26, (run->begins ? FLAG_BEGINS : 0u) | (run->ends ? FLAG_ENDS : 0u));
        put_u32(at + 28, 0);
    }
    return (size_t)w->n_run * RUN_BYTES;
}

/* block_encode fills w->bytes; returns how many. */
static size_t block_encode(struct routes_writer *w)
{
    uint8_t *b = w->bytes, *at = b + BLOCK_HEAD_BYTES;
    const struct routes_spec *spec = &w->spec;
    int bits = routes_bits(spec->n_expert, w->has_empty);
    int64_t slots = (int64_t)w->n_token * spec->top_k;
    size_t ld = (size_t)ROUTES_BLOCK_TOKENS * (size_t)spec->top_k;
    at += runs_encode(w, at);
    for (int i = 0; spec->has_token && i < w->n_token; i++, at += 4)
        put_u32(at, (uint32_t)w->token[i]);
    for (int l = 0; l < spec->n_layer; l++, at += (slots * bits + 7) / 8)
        routes_pack(w->expert + (size_t)l * ld, slots, bits, spec->n_expert, at);
    for (int l = 0; spec->has_weight && l < spec->n_layer; l++)
        for (int64_t i = 0; i < slots; i++, at += 2)
            put_u16(at, w->half[(size_t)l * ld + (size_t)i]);
    memset(b, 0, BLOCK_HEAD_BYTES);
    put_u32(b, BLOCK_WORD);
    put_u32(b + 4, (uint32_t)w->n_run);
    put_u32(b + 8, (uint32_t)w->n_token);
    put_u32(b + 12, w->has_empty ? FLAG_EMPTY : 0);
    put_u32(b + 16, (uint32_t)(at - b - BLOCK_HEAD_BYTES));
    put_u64(b + BLOCK_SUM_AT, routes_checksum(b, (size_t)(at - b)));
    return (size_t)(at - b);
}

static int block_write(struct routes_writer *w, struct err *err)
{
    if (w->n_token == 0)
        return 0;
    if (w->n_block == w->block_room) {
        int room = w->block_room ? 2 * w->block_room : 64;
        struct place *grown = realloc(w->block, (size_t)room * sizeof(*grown));
        if (!grown)
            return err_set(err, ERR_NOMEM, "no memory for the index of %d blocks", room);
        w->block = grown;
        w->block_room = room;
    }
    uint64_t offset = w->offset;
    size_t n = block_encode(w);
    int rc = emit(w, w->bytes, n, err);
    if (rc)
        return rc;
    w->block[w->n_block++] = (struct place){offset, (uint32_t)w->n_token, (uint32_t)n};
    w->n_total += w->n_token;
    w->n_token = w->n_run = w->has_empty = 0;
    return 0;
}

static int run_check(const struct routes_writer *w, const struct routes_run *run,
                     const int32_t *token, const int32_t *expert, const float *weight, size_t ld,
                     struct err *err)
{
    size_t slots = (size_t)run->n_token * (size_t)w->spec.top_k;
    if (run->n_token < 1 || run->first_pos < 0 || run->first_pos > LIMIT_CONTEXT - run->n_token ||
        run->domain >= w->spec.n_domain || ld < slots)
        return err_set(err, ERR_LIMIT, "a run of %d tokens from position %d, domain %d of %d",
                       run->n_token, run->first_pos, run->domain, w->spec.n_domain);
    if ((w->spec.has_token && !token) || (w->spec.has_weight && !weight))
        return err_set(err, ERR_USAGE, "the route file holds %s, this run has none",
                       token ? "weights" : "token ids");
    for (int i = 0; w->spec.has_token && i < run->n_token; i++)
        if (token[i] < 0)
            return err_set(err, ERR_LIMIT, "token id %d", token[i]);
    for (int l = 0; l < w->spec.n_layer; l++)
        for (size_t i = 0; i < slots; i++)
            if (expert[(size_t)l * ld + i] >= w->spec.n_expert)
                return err_set(err, ERR_LIMIT, "layer %d names expert %d of %d", w->spec.layer[l],
                               expert[(size_t)l * ld + i], w->spec.n_expert);
    return 0;
}

/* gather copies tokens [first, first + n) of a run, which the block has room for. */
static void gather(struct routes_writer *w, int first, int n, const int32_t *token,
                   const int32_t *expert, const float *weight, size_t ld)
{
    size_t k = (size_t)w->spec.top_k, slots = (size_t)n * k, from = (size_t)first * k;
    for (int i = 0; w->spec.has_token && i < n; i++)
        w->token[w->n_token + i] = token[first + i];
    for (int l = 0; l < w->spec.n_layer; l++) {
        size_t to = ((size_t)l * ROUTES_BLOCK_TOKENS + (size_t)w->n_token) * k;
        const int32_t *e = expert + (size_t)l * ld + from;
        for (size_t i = 0; i < slots; i++) {
            w->expert[to + i] = e[i];
            w->has_empty |= e[i] < 0;
            if (w->spec.has_weight)
                w->half[to + i] = e[i] < 0 ? 0 : routes_half(weight[(size_t)l * ld + from + i]);
        }
    }
}

int routes_write(struct routes_writer *w, const struct routes_run *run, const int32_t *token,
                 const int32_t *expert, const float *weight, size_t ld, struct err *err)
{
    int rc = run_check(w, run, token, expert, weight, ld, err);
    for (int done = 0; rc == 0 && done < run->n_token;) {
        int room = ROUTES_BLOCK_TOKENS - w->n_token, left = run->n_token - done;
        int n = left < room ? left : room;
        gather(w, done, n, token, expert, weight, ld);
        struct routes_run part = *run;
        part.first_pos += done;
        part.n_token = n;
        part.begins = run->begins && done == 0;
        part.ends = run->ends && n == left;
        w->run[w->n_run++] = part;
        w->n_token += n;
        done += n;
        if (w->n_token == ROUTES_BLOCK_TOKENS)
            rc = block_write(w, err);
    }
    return rc;
}

static int index_write(struct routes_writer *w, struct err *err)
{
    size_t n = INDEX_FIXED_BYTES + (size_t)w->n_block * INDEX_BLOCK_BYTES +
               (size_t)w->spec.n_domain * ROUTES_NAME_MAX + 8;
    uint8_t *b = calloc(1, n + TRAILER_BYTES), *at = b ? b + INDEX_FIXED_BYTES : NULL;
    if (!b)
        return err_set(err, ERR_NOMEM, "no memory for the index of %d blocks", w->n_block);
    put_u32(b, INDEX_WORD);
    put_u32(b + 4, (uint32_t)w->n_block);
    put_u32(b + 8, (uint32_t)w->spec.n_domain);
    put_u64(b + 16, (uint64_t)w->n_total);
    for (int i = 0; i < w->n_block; i++, at += INDEX_BLOCK_BYTES) {
        put_u64(at, w->block[i].offset);
        put_u32(at + 8, w->block[i].n_token);
        put_u32(at + 12, w->block[i].bytes);
    }
    if (w->spec.n_domain > 0)
        memcpy(at, w->spec.domain, (size_t)w->spec.n_domain * ROUTES_NAME_MAX);
    put_u64(b + n - 8, routes_checksum(b, n - 8));
    put_u64(b + n, w->offset);
    memcpy(b + n + 8, INDEX_MAGIC, 8);
    int rc = emit(w, b, n + TRAILER_BYTES, err);
    free(b);
    return rc;
}

int routes_finish(struct routes_writer *w, struct err *err)
{
    int rc = block_write(w, err);
    if (rc == 0)
        rc = index_write(w, err);
    if (w->sink.end) {
        int ended = w->sink.end(w->sink.self, rc == 0, rc == 0 ? err : NULL);
        rc = rc ? rc : ended;
    }
    writer_free(w);
    return rc;
}

void routes_abandon(struct routes_writer *w)
{
    if (!w)
        return;
    if (w->sink.end)
        w->sink.end(w->sink.self, 0, NULL);
    writer_free(w);
}
