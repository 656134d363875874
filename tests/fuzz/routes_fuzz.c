/* routes_fuzz: any bytes as a route file. What is refused must say why; what passes keeps what the
 * reader promises (ids within bounds, runs that add up), and comes back the same when written
 * again. Nearly every mutation breaks a checksum, so the input is read twice: as it is, and with
 * its checksums put right, which is what someone would send who means harm. */
#include "router/routes_format.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/router/routes_memory.h"

#include <stdio.h>

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "routes_fuzz: %s\n", what);
    abort();
}

static void check_block(const struct routes_spec *spec, const struct routes_block *b)
{
    int64_t n = 0, slots = (int64_t)b->n_token * spec->top_k * spec->n_layer;
    for (int i = 0; i < b->n_run; i++) {
        require(b->run[i].n_token > 0 && b->run[i].first_pos >= 0, "an empty run");
        require(b->run[i].domain < spec->n_domain, "a run of no domain");
        n += b->run[i].n_token;
    }
    require(n == b->n_token, "runs that do not add up");
    for (int64_t i = 0; i < slots; i++)
        require(b->expert[i] >= -1 && b->expert[i] < spec->n_expert, "an expert out of range");
}

/* copy writes what r holds into out, run by run. */
static int copy(struct routes_reader *r, struct memory *out)
{
    const struct routes_spec *spec = routes_spec_of(r);
    struct routes_sink sink = memory_sink(out);
    struct routes_writer *w;
    struct routes_block b;
    struct err err = {0};
    if (routes_writer_create(&sink, spec, &w, &err))
        return -1;
    for (int i = 0; i < routes_n_block(r); i++) {
        if (routes_read(r, i, &b, &err)) {
            require(err.text[0] != '\0', "refused without a word");
            routes_abandon(w);
            return -1;
        }
        check_block(spec, &b);
        size_t ld = (size_t)b.n_token * (size_t)spec->top_k, at = 0;
        for (int k = 0; k < b.n_run; at += (size_t)b.run[k++].n_token) {
            size_t from = at * (size_t)spec->top_k;
            if (routes_write(w, &b.run[k], b.token ? b.token + at : NULL, b.expert + from,
                             b.weight ? b.weight + from : NULL, ld, &err)) {
                routes_abandon(w); /* labels may stand twice in a file that was made by hand */
                return -1;
            }
        }
    }
    return routes_finish(w, &err);
}

static void read_both(const uint8_t *data, size_t size)
{
    struct memory m = {.bytes = (uint8_t *)(uintptr_t)data, .n = size}, again = {0};
    struct routes_source source = memory_source(&m);
    struct routes_reader *r;
    struct err err = {0};
    if (routes_reader_create(&source, "input", &r, &err) == 0) {
        int64_t n_token = routes_n_token(r);
        if (copy(r, &again) == 0) {
            struct routes_reader *second;
            struct routes_source copied = memory_source(&again);
            require(routes_reader_create(&copied, "copy", &second, &err) == 0, "a copy is refused");
            require(routes_n_token(second) == n_token, "a copy of another length");
            routes_close(second);
        }
        routes_close(r);
    } else {
        require(err.text[0] != '\0', "refused without a word");
    }
    free(again.bytes);
    if (routes_reader_recover(&source, "input", &r, NULL) == 0)
        routes_close(r);
}

static void heal(uint8_t *bytes, size_t size)
{
    if (size < HEADER_FIXED_BYTES + TRAILER_BYTES)
        return;
    uint64_t at = get_u32(bytes + 12), index = get_u64(bytes + size - TRAILER_BYTES);
    if (at < 8 || at > size || index > size - TRAILER_BYTES - 8)
        return;
    put_u64(bytes + at - 8, routes_checksum(bytes, at - 8));
    while (size - at > BLOCK_HEAD_BYTES && get_u32(bytes + at) == BLOCK_WORD) {
        uint64_t n = (uint64_t)get_u32(bytes + at + 16) + BLOCK_HEAD_BYTES;
        if (n > size - at)
            break;
        put_u64(bytes + at + BLOCK_SUM_AT, 0);
        put_u64(bytes + at + BLOCK_SUM_AT, routes_checksum(bytes + at, n));
        at += n;
    }
    uint64_t end = size - TRAILER_BYTES - 8;
    put_u64(bytes + end, routes_checksum(bytes + index, end - index));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_both(data, size);
    uint8_t *healed = malloc(size + 1);
    if (!healed)
        return 0;
    memcpy(healed, data, size);
    heal(healed, size);
    read_both(healed, size);
    free(healed);
    return 0;
}
