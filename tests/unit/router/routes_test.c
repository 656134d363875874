/* routes: what was written is read, in any order; what was cut, bent or never finished is refused
 * in words, byte by byte. */
#include "base/rng.h"
#include "router/routes_format.h"
#include "tests/unit/router/routes_memory.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define SEED     9
#define N_TOKEN  3000
#define N_LAYER  3
#define TOP_K    4
#define N_EXPERT 60
#define N_SLOT   (N_TOKEN * TOP_K)

/* 3000 tokens of 3 layers, as runs of 1 to 700 tokens of different sequences. */
struct traffic {
    struct routes_spec spec;
    int32_t token[N_TOKEN], expert[N_LAYER * N_SLOT];
    float weight[N_LAYER * N_SLOT];
};

static uint32_t draw(uint64_t *at, uint32_t below)
{
    uint32_t r[4];
    rng_block(SEED, 3, (*at)++, r);
    return r[0] % below;
}

static void traffic_init(struct traffic *t, int with_empty)
{
    uint64_t at = 0;
    memset(t, 0, sizeof(*t));
    t->spec = (struct routes_spec){.model = "test model",
                                   .n_layer = N_LAYER,
                                   .n_expert = N_EXPERT,
                                   .top_k = TOP_K,
                                   .has_weight = 1,
                                   .has_token = 1,
                                   .layer = {1, 2, 5}};
    for (int i = 0; i < N_TOKEN; i++)
        t->token[i] = (int32_t)draw(&at, 100000);
    for (int i = 0; i < N_LAYER * N_SLOT; i++) {
        t->expert[i] = (int32_t)draw(&at, N_EXPERT);
        t->weight[i] = (float)draw(&at, 2049) / 2048; /* exact as a half */
        if (with_empty && draw(&at, 50) == 0) {
            t->expert[i] = -1;
            t->weight[i] = 0;
        }
    }
}

/* run_at: the run that token `first` begins; run lengths are a fixed sequence. */
static struct routes_run run_at(int first, int i)
{
    static const int lengths[] = {1, 700, 13, 1024, 2, 255};
    int n = lengths[i % 6], left = N_TOKEN - first;
    return (struct routes_run){.seq = (uint64_t)i + 1000000000000u,
                               .domain = i % 3 - 1,
                               .first_pos = i * 7,
                               .n_token = n < left ? n : left,
                               .begins = 1,
                               .ends = i % 2,
                               .time_us = (uint64_t)i * 10};
}

static int traffic_write(struct traffic *t, struct memory *m, struct err *err)
{
    struct routes_writer *w;
    struct routes_sink sink = memory_sink(m);
    int rc = routes_writer_create(&sink, &t->spec, &w, err);
    if (rc)
        return rc;
    assert_int_equal(routes_writer_domain(w, "law", err), 0);
    assert_int_equal(routes_writer_domain(w, "code", err), 1);
    assert_int_equal(routes_writer_domain(w, "law", err), 0);
    for (int first = 0, i = 0; rc == 0 && first < N_TOKEN; i++) {
        struct routes_run run = run_at(first, i);
        rc = routes_write(w, &run, t->token + first, t->expert + first * TOP_K,
                          t->weight + first * TOP_K, N_SLOT, err);
        first += run.n_token;
    }
    if (rc) {
        routes_abandon(w);
        return rc;
    }
    return routes_finish(w, err);
}

static void block_equals(const struct traffic *t, const struct routes_block *b, int64_t first)
{
    assert_memory_equal(b->token, t->token + first, (size_t)b->n_token * 4);
    for (int l = 0; l < N_LAYER; l++) {
        size_t slots = (size_t)b->n_token * TOP_K;
        size_t from = (size_t)l * N_SLOT + (size_t)first * TOP_K;
        assert_memory_equal(b->expert + (size_t)l * slots, t->expert + from, slots * 4);
        assert_memory_equal(b->weight + (size_t)l * slots, t->weight + from, slots * 4);
    }
}

static void what_is_written_is_read_in_any_order(void **state)
{
    (void)state;
    static struct traffic t;
    for (int with_empty = 0; with_empty < 2; with_empty++) {
        struct memory m = {0};
        struct routes_reader *r;
        struct routes_block b;
        traffic_init(&t, with_empty);
        assert_int_equal(traffic_write(&t, &m, NULL), 0);
        struct routes_source source = memory_source(&m);
        assert_int_equal(routes_reader_create(&source, "m", &r, NULL), 0);
        const struct routes_spec *spec = routes_spec_of(r);
        assert_string_equal(spec->model, "test model");
        assert_int_equal(spec->layer[2], 5);
        assert_int_equal(spec->n_domain, 2);
        assert_string_equal(spec->domain[1], "code");
        assert_int_equal(routes_n_token(r), N_TOKEN);
        assert_int_equal(routes_n_block(r), 3);
        for (int i = 2; i >= 0; i--) {
            assert_int_equal(routes_read(r, i, &b, NULL), 0);
            block_equals(&t, &b, routes_block_first(r, i));
        }
        assert_int_equal(routes_block_of(r, 1023), 0);
        assert_int_equal(routes_block_of(r, 1024), 1);
        assert_int_equal(routes_block_of(r, N_TOKEN - 1), 2);
        assert_int_equal(routes_block_of(r, N_TOKEN), -1);
        assert_int_equal(routes_block_of(r, -1), -1);
        assert_int_equal(routes_read(r, 3, &b, NULL), ERR_USAGE);
        routes_close(r);
        free(m.bytes);
    }
}

static void a_run_that_is_cut_by_blocks_begins_and_ends_once(void **state)
{
    (void)state;
    static struct traffic t;
    struct memory m = {0};
    struct routes_reader *r;
    struct routes_block b;
    traffic_init(&t, 0);
    assert_int_equal(traffic_write(&t, &m, NULL), 0);
    struct routes_source source = memory_source(&m);
    assert_int_equal(routes_reader_create(&source, "m", &r, NULL), 0);
    /* Runs: 1, 700, 13, 1024 (of which 310 and 714 tokens), 2, 255, ... */
    assert_int_equal(routes_read(r, 0, &b, NULL), 0);
    assert_int_equal(b.n_run, 4);
    assert_int_equal(b.run[0].domain, -1);
    assert_int_equal(b.run[3].n_token, 310);
    assert_int_equal(b.run[3].begins, 1);
    assert_int_equal(b.run[3].ends, 0);
    assert_int_equal(routes_read(r, 1, &b, NULL), 0);
    assert_int_equal(b.run[0].seq, 1000000000003u);
    assert_int_equal(b.run[0].n_token, 714);
    assert_int_equal(b.run[0].first_pos, 21 + 310);
    assert_int_equal(b.run[0].begins, 0);
    assert_int_equal(b.run[0].ends, 1);
    assert_int_equal(b.run[0].time_us, 30);
    assert_int_equal(b.run[0].domain, -1);
    routes_close(r);
    free(m.bytes);
}

static void ids_take_the_bits_they_need_and_no_more(void **state)
{
    (void)state;
    assert_int_equal(routes_bits(64, 0), 6);
    assert_int_equal(routes_bits(64, 1), 7);
    assert_int_equal(routes_bits(65, 0), 7);
    assert_int_equal(routes_bits(1, 0), 1);
    assert_int_equal(routes_bits(4096, 1), 13);
    struct routes_spec spec = {.n_layer = 26, .n_expert = 64, .top_k = 6};
    assert_int_equal(routes_payload_bytes(&spec, 0, 1000, 0), 117000);
    static const int32_t id[] = {5, 0, 63, 32, -1, 1};
    int32_t back[6];
    uint8_t bytes[6] = {0};
    routes_pack(id, 6, 7, 64, bytes);
    assert_int_equal(routes_unpack(bytes, 6, 7, 64, 1, back), 0);
    assert_memory_equal(id, back, sizeof(id));
    assert_int_equal(routes_unpack(bytes, 6, 7, 64, 0, back), -1); /* no empty slots here */
    bytes[5] |= 0x80;                                              /* a filling bit */
    assert_int_equal(routes_unpack(bytes, 6, 7, 64, 1, back), -1);
}

static void halves_round_to_even_and_stay_finite(void **state)
{
    (void)state;
    static const struct {
        float x;
        uint16_t half;
    } cases[] = {{0, 0},
                 {1, 0x3C00},
                 {-2, 0xC000},
                 {65504, 0x7BFF},
                 {1e9f, 0x7BFF},
                 {-1e9f, 0xFBFF},
                 {5.9604645e-8f, 1},
                 {2.9802322e-8f, 0},
                 {6.1035156e-5f, 0x0400},
                 {1.0f + 1.0f / 2048, 0x3C00},
                 {1.0f + 3.0f / 2048, 0x3C02},
                 {6.097555e-5f, 0x03FF}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_int_equal(routes_half(cases[i].x), cases[i].half);
    assert_int_equal(routes_half(NAN), 0);
    assert_int_equal(routes_half(INFINITY), 0x7BFF);
}

/* A file of one small block, of which every byte matters. */
static void small_write(struct memory *m)
{
    struct routes_spec spec = {
        .model = "s", .n_layer = 2, .n_expert = 5, .top_k = 2, .has_weight = 1, .layer = {0, 1}};
    static const int32_t expert[] = {0, 1, 2, 3, 4, 0, 1, -1, 3, 4, 0, 2};
    static const float weight[] = {1, 0.5f, 1, 0.5f, 1, 0.5f, 1, 0.5f, 1, 0.5f, 1, 0.5f};
    struct routes_run run = {.seq = 1, .domain = 0, .n_token = 3, .begins = 1, .ends = 1};
    struct routes_sink sink = memory_sink(m);
    struct routes_writer *w;
    assert_int_equal(routes_writer_create(&sink, &spec, &w, NULL), 0);
    assert_int_equal(routes_writer_domain(w, "d", NULL), 0);
    assert_int_equal(routes_write(w, &run, NULL, expert, weight, 6, NULL), 0);
    assert_int_equal(routes_finish(w, NULL), 0);
}

static int read_all(struct memory *m, struct err *err)
{
    struct routes_reader *r;
    struct routes_block b;
    struct routes_source source = memory_source(m);
    int rc = routes_reader_create(&source, "m", &r, err);
    if (rc)
        return rc;
    for (int i = 0; rc == 0 && i < routes_n_block(r); i++)
        rc = routes_read(r, i, &b, err);
    routes_close(r);
    return rc;
}

static void every_changed_byte_and_every_cut_is_noticed(void **state)
{
    (void)state;
    struct memory m = {0};
    small_write(&m);
    assert_int_equal(read_all(&m, NULL), 0);
    for (size_t i = 0; i < m.n; i++)
        for (int bit = 0; bit < 8; bit += 7) {
            struct err err = {0};
            m.bytes[i] ^= (uint8_t)(1 << bit);
            assert_int_equal(read_all(&m, &err), ERR_MODEL);
            assert_true(strlen(err.text) > 10);
            m.bytes[i] ^= (uint8_t)(1 << bit);
        }
    size_t whole = m.n;
    for (m.n = 0; m.n < whole; m.n++) {
        struct err err = {0};
        assert_int_equal(read_all(&m, &err), ERR_MODEL);
        assert_int_equal(strncmp(err.text, "m: ", 3), 0);
    }
    free(m.bytes);
}

/* What the checksums do not protect from: a file that someone made so. */
static void heal(struct memory *m)
{
    size_t header = get_u32(m->bytes + 12), index = (size_t)get_u64(m->bytes + m->n - 16);
    uint8_t *block = m->bytes + header;
    put_u64(m->bytes + header - 8, routes_checksum(m->bytes, header - 8));
    size_t bytes = get_u32(block + 16) + BLOCK_HEAD_BYTES;
    put_u64(block + BLOCK_SUM_AT, 0);
    put_u64(block + BLOCK_SUM_AT, routes_checksum(block, bytes));
    size_t size = m->n - 16 - index;
    put_u64(m->bytes + m->n - 24, routes_checksum(m->bytes + index, size - 8));
}

static void well_formed_nonsense_is_refused_in_words(void **state)
{
    (void)state;
    static const struct {
        int from_block; /* offsets count from: 0 the header, 1 the block, 2 the index */
        size_t at;
        uint8_t byte;
        const char *says;
    } cases[] = {
        {0, 0, 'X', "m: at byte 0: this is no route file"},
        {0, 8, 2, "m: version 2 of the format; this build reads 1"},
        {0, 20, 0, "m: 2 layers, top 2 of 0 experts"},
        {0, 24, 6, "m: 2 layers, top 6 of 5 experts"},
        {0, 28, 8, "m: at byte 28: unknown flags"},
        {0, 162, 0, "m: at byte 162: layers do not ascend"},
        {0, 165, 1, "m: at byte 165: a byte that must be zero is not"},
        {1, 4, 4, "m: at byte 176: a block's size does not fit its tokens"},
        {1, 12, 2, "m: at byte 176: this is no block"},
        {1, 32 + 20, 4, "m: at byte 208: a run's positions are out of range"},
        {1, 32 + 20, 2, "m: at byte 176: the runs' tokens do not add up"},
        {1, 32 + 24, 1, "m: at byte 208: a run is of a domain that has no label"},
        {1, 32 + 26, 7, "m: at byte 208: a run has unknown flags"},
        {1, 32 + 32, 0x3F, "m: at byte 240: layer 0 names an expert that is not one of 5"},
        {1, 32 + 32 + 6 + 1, 0x7C, "m: at byte 246: a weight is no number"},
        {2, 4, 2, "the index's size does not fit its blocks"},
        {2, 16, 9, "the index's tokens do not add up"},
        {2, 24, 1, "m: at byte 1: blocks do not follow one another"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct memory m = {0};
        struct err err = {0};
        small_write(&m);
        size_t index = (size_t)get_u64(m.bytes + m.n - 16), block = get_u32(m.bytes + 12);
        size_t base = cases[i].from_block == 0 ? 0 : cases[i].from_block == 1 ? block : index;
        m.bytes[base + cases[i].at] = cases[i].byte;
        heal(&m);
        assert_int_equal(read_all(&m, &err), ERR_MODEL);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says: %s", i, err.text);
        free(m.bytes);
    }
}

static void a_recording_that_was_cut_off_gives_its_whole_blocks(void **state)
{
    (void)state;
    static struct traffic t;
    struct memory m = {0};
    struct routes_reader *r;
    struct routes_block b;
    struct err err = {0};
    traffic_init(&t, 1);
    assert_int_equal(traffic_write(&t, &m, NULL), 0);
    size_t whole = m.n;
    m.n -= m.n / 4;
    struct routes_source source = memory_source(&m);
    assert_int_equal(routes_reader_create(&source, "m", &r, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "--recover"));
    assert_int_equal(routes_reader_recover(&source, "m", &r, NULL), 0);
    assert_int_equal(routes_n_block(r), 2);
    assert_int_equal(routes_n_token(r), 2048);
    assert_string_equal(routes_spec_of(r)->domain[0], "domain-0");
    assert_int_equal(routes_read(r, 1, &b, NULL), 0);
    block_equals(&t, &b, 1024);
    routes_close(r);
    m.n = whole;
    source = memory_source(&m);
    assert_int_equal(routes_reader_recover(&source, "m", &r, NULL), 0);
    assert_int_equal(routes_n_token(r), N_TOKEN);
    routes_close(r);
    free(m.bytes);
}

static void bad_runs_are_refused_with_nothing_written(void **state)
{
    (void)state;
    static struct traffic t;
    struct memory m = {0};
    struct err err = {0};
    struct routes_writer *w;
    struct routes_sink sink = memory_sink(&m);
    traffic_init(&t, 0);
    assert_int_equal(routes_writer_create(&sink, &t.spec, &w, NULL), 0);
    struct routes_run run = run_at(0, 0);
    run.n_token = 700;
    t.expert[N_SLOT + 9] = N_EXPERT;
    assert_int_equal(routes_write(w, &run, t.token, t.expert, t.weight, N_SLOT, &err), ERR_LIMIT);
    assert_string_equal(err.text, "layer 2 names expert 60 of 60");
    t.expert[N_SLOT + 9] = 0;
    assert_int_equal(routes_write(w, &run, NULL, t.expert, t.weight, N_SLOT, NULL), ERR_USAGE);
    assert_int_equal(routes_write(w, &run, t.token, t.expert, NULL, N_SLOT, NULL), ERR_USAGE);
    run.domain = 2;
    assert_int_equal(routes_write(w, &run, t.token, t.expert, t.weight, N_SLOT, NULL), ERR_LIMIT);
    assert_int_equal(routes_finish(w, NULL), 0);
    struct routes_source source = memory_source(&m);
    struct routes_reader *r;
    assert_int_equal(routes_reader_create(&source, "m", &r, NULL), 0);
    assert_int_equal(routes_n_token(r), 0);
    routes_close(r);
    free(m.bytes);
    t.spec.layer[1] = 1;
    assert_int_equal(routes_writer_create(&sink, &t.spec, &w, NULL), ERR_LIMIT);
    t.spec.top_k = 61;
    assert_int_equal(routes_writer_create(&sink, &t.spec, &w, NULL), ERR_LIMIT);
}

static void every_failing_write_is_told(void **state)
{
    (void)state;
    static struct traffic t;
    traffic_init(&t, 0);
    for (int i = 1; i <= 5; i++) {
        struct memory m = {.fail_at = i};
        struct err err = {0};
        int rc = traffic_write(&t, &m, &err);
        assert_int_equal(rc, ERR_IO);
        free(m.bytes);
    }
}

static void files_get_their_name_when_they_are_whole(void **state)
{
    (void)state;
    char path[] = "/tmp/routes-test-XXXXXX", part[64];
    struct routes_spec spec = {.n_layer = 1, .n_expert = 2, .top_k = 1};
    struct routes_writer *w;
    struct routes_reader *r;
    static const int32_t expert[] = {1};
    struct routes_run run = {.domain = -1, .n_token = 1};
    int fd = mkstemp(path);
    close(fd);
    unlink(path);
    snprintf(part, sizeof(part), "%s.part", path);
    assert_int_equal(routes_create(path, &spec, &w, NULL), 0);
    assert_int_equal(routes_write(w, &run, NULL, expert, NULL, 1, NULL), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(access(part, F_OK), 0);
    routes_abandon(w);
    assert_int_not_equal(access(part, F_OK), 0);
    assert_int_equal(routes_create(path, &spec, &w, NULL), 0);
    assert_int_equal(routes_write(w, &run, NULL, expert, NULL, 1, NULL), 0);
    assert_int_equal(routes_finish(w, NULL), 0);
    assert_int_equal(routes_open(path, &r, NULL), 0);
    assert_int_equal(routes_n_token(r), 1);
    routes_close(r);
    unlink(path);
    assert_int_equal(routes_open(path, &r, NULL), ERR_IO);
    assert_int_equal(routes_open("/tmp", &r, NULL), ERR_IO);
    assert_int_equal(routes_create("/nowhere/at/all", &spec, &w, NULL), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_in_any_order),
        cmocka_unit_test(a_run_that_is_cut_by_blocks_begins_and_ends_once),
        cmocka_unit_test(ids_take_the_bits_they_need_and_no_more),
        cmocka_unit_test(halves_round_to_even_and_stay_finite),
        cmocka_unit_test(every_changed_byte_and_every_cut_is_noticed),
        cmocka_unit_test(well_formed_nonsense_is_refused_in_words),
        cmocka_unit_test(a_recording_that_was_cut_off_gives_its_whole_blocks),
        cmocka_unit_test(bad_runs_are_refused_with_nothing_written),
        cmocka_unit_test(every_failing_write_is_told),
        cmocka_unit_test(files_get_their_name_when_they_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
