/* msg: what is built is parsed back the same. */
#include "proto/msg.h"

#include "proto/sigmoe.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct wire_shape shape = {
    .n_layer = 3, .n_expert = 10, .d_wire = 4, .row_limit = 5, .top_k = 2, .dtype = DTYPE_BF16};

static void parse_ok(const struct frames *f, const struct wire_shape *s, struct msg *out)
{
    struct err err = {0};
    if (msg_parse(f, s, out, NULL, &err) != 0)
        fail_msg("%s", err.text);
}

static void hello_comes_back(void **state)
{
    (void)state;
    struct msg_hello in = {.fingerprint = {.lo = 0x0123456789abcdef, .hi = 0xfedcba9876543210},
                           .incarnation = UINT64_MAX,
                           .name = "h\xc3\xa9llo",
                           .numerics = "sum32",
                           .dtype = DTYPE_F32,
                           .n_layer = LIMIT_LAYERS,
                           .n_expert = LIMIT_EXPERTS,
                           .d_wire = LIMIT_D_MODEL};
    struct frames f;
    struct msg m;
    frames_init(&f);
    assert_int_equal(msg_build_hello(&f, &in), 0);
    parse_ok(&f, NULL, &m);
    assert_int_equal(m.kind, MSG_HELLO);
    assert_true(hash_equal(m.u.hello.fingerprint, in.fingerprint));
    assert_int_equal(m.u.hello.incarnation, in.incarnation);
    assert_string_equal(m.u.hello.name, in.name);
    assert_string_equal(m.u.hello.numerics, in.numerics);
    assert_int_equal(m.u.hello.dtype, in.dtype);
    assert_int_equal(m.u.hello.n_layer, in.n_layer);
    assert_int_equal(m.u.hello.n_expert, in.n_expert);
    assert_int_equal(m.u.hello.d_wire, in.d_wire);
    msg_free(&m);
    /* The fingerprint's bytes travel in the order of its hex. */
    Sigmoe__Header *h = sigmoe__header__unpack(NULL, frames_size(&f, 0), frames_data(&f, 0));
    char hex[33], bytes[33];
    hash_hex(in.fingerprint, hex);
    for (int i = 0; i < 16; i++)
        snprintf(bytes + 2 * i, 3, "%02x", h->hello->fingerprint.data[i]);
    assert_string_equal(bytes, hex);
    sigmoe__header__free_unpacked(h, NULL);
    frames_close(&f);
}

static void largest_welcome_comes_back(void **state)
{
    (void)state;
    size_t held_bytes = (size_t)LIMIT_LAYERS * LIMIT_EXPERTS / 8;
    uint8_t *held = malloc(held_bytes);
    for (size_t i = 0; i < held_bytes; i++)
        held[i] = (uint8_t)(i * 7);
    struct msg_welcome in = {.fingerprint = {1, 2},
                             .resident = 7,
                             .available = UINT64_MAX,
                             .fp8 = 1,
                             .incarnation = 5,
                             .epoch = 6,
                             .name = "w3",
                             .numerics = "sum32",
                             .dtype = DTYPE_BF16,
                             .credits = LIMIT_CREDITS,
                             .row_limit = LIMIT_ROWS,
                             .threads = 0,
                             .held = held,
                             .held_bytes = held_bytes,
                             .offer = {"sigmoe-door", {1, 2, 3, [15] = 9}}};
    struct wire_shape big = {.n_layer = LIMIT_LAYERS, .n_expert = LIMIT_EXPERTS};
    struct frames f;
    struct msg m;
    frames_init(&f);
    assert_int_equal(msg_build_welcome(&f, &in), 0);
    for (int i = 0; i < 2; i++) {
        parse_ok(&f, i ? &big : NULL, &m);
        assert_int_equal(m.kind, MSG_WELCOME);
        assert_int_equal(m.u.welcome.epoch, 6);
        assert_true(m.u.welcome.resident == 7 && m.u.welcome.available == UINT64_MAX);
        assert_int_equal(m.u.welcome.credits, in.credits);
        assert_int_equal(m.u.welcome.fp8, 1);
        assert_int_equal(m.u.welcome.row_limit, in.row_limit);
        assert_int_equal(m.u.welcome.held_bytes, held_bytes);
        assert_memory_equal(m.u.welcome.held, held, held_bytes);
        assert_string_equal(m.u.welcome.offer.name, "sigmoe-door");
        assert_memory_equal(m.u.welcome.offer.token, in.offer.token, SHM_TOKEN_BYTES);
        msg_free(&m);
    }
    frames_close(&f);
    free(held);
}

static struct wirebuf *buf_of(struct wirebuf_pool *pool, const void *data, size_t bytes)
{
    struct wirebuf *b = wirebuf_get(pool, bytes);
    assert_non_null(b);
    memcpy(wirebuf_data(b), data, bytes);
    return b;
}

static void request_and_reply_come_back(void **state)
{
    (void)state;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    uint16_t rows[5 * 4];
    for (int i = 0; i < 20; i++)
        rows[i] = (uint16_t)(i * 1000);
    const uint32_t expert[3] = {0, 4, 9}, count[3] = {5, 1, 3};
    const int32_t index[9] = {0, 1, 2, 3, 4, 2, 4, 0, 1};
    struct msg_request in = {.call = UINT64_MAX,
                             .epoch = 3,
                             .budget_us = 12345678901,
                             .layer = 2,
                             .batch = 1,
                             .n_row = 5,
                             .d_wire = 4,
                             .n_seg = 3,
                             .n_assign = 9,
                             .dtype = DTYPE_BF16,
                             .seg_expert = expert,
                             .seg_count = count};
    struct frames f;
    struct msg m;
    uint64_t call = 0;
    frames_init(&f);
    assert_int_equal(msg_build_request(&f, &in, buf_of(pool, rows, sizeof(rows)), sizeof(rows),
                                       buf_of(pool, index, sizeof(index)), sizeof(index)),
                     0);
    assert_int_equal(f.n, 3);
    assert_int_equal(msg_parse(&f, &shape, &m, &call, NULL), 0);
    assert_int_equal(call, in.call);
    assert_int_equal(m.kind, MSG_REQUEST);
    assert_int_equal(m.u.request.call, in.call);
    assert_int_equal(m.u.request.epoch, 3);
    assert_int_equal(m.u.request.budget_us, in.budget_us);
    assert_int_equal(m.u.request.layer, 2);
    assert_int_equal(m.u.request.batch, 1);
    assert_int_equal(m.u.request.n_row, 5);
    assert_int_equal(m.u.request.n_assign, 9);
    assert_memory_equal(m.u.request.seg_expert, expert, sizeof(expert));
    assert_memory_equal(m.u.request.seg_count, count, sizeof(count));
    assert_memory_equal(m.u.request.rows, rows, sizeof(rows));
    assert_memory_equal(m.u.request.row_index, index, sizeof(index));
    msg_free(&m);
    frames_close(&f);

    struct msg_reply reply = {.call = 7,
                              .layer = 1,
                              .n_assign = 5,
                              .d_wire = 4,
                              .dtype = DTYPE_BF16,
                              .queue_ns = 1,
                              .compute_ns = 2,
                              .handle_ns = UINT64_MAX};
    assert_int_equal(msg_build_reply(&f, &reply, buf_of(pool, rows, sizeof(rows)), sizeof(rows)),
                     0);
    parse_ok(&f, &shape, &m);
    assert_int_equal(m.kind, MSG_REPLY);
    assert_int_equal(m.u.reply.call, 7);
    assert_int_equal(m.u.reply.n_assign, 5);
    assert_int_equal(m.u.reply.handle_ns, UINT64_MAX);
    assert_memory_equal(m.u.reply.rows, rows, sizeof(rows));
    msg_free(&m);
    frames_close(&f);
    wirebuf_pool_destroy(pool);
}

/* Rows of 4 codes and an exponent byte each, and a reply asked for as such. */
static void fp8_rows_come_back_where_they_may(void **state)
{
    (void)state;
    struct wire_shape fp8 = shape;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    const uint8_t rows[2 * 5] = {0x38, 0xb8, 0x7f, 0x01, 135, 0xff, 0x00, 0x80, 0x10, 255};
    const uint32_t expert = 4, count = 2;
    const int32_t index[2] = {0, 1};
    struct msg_request in = {.call = 7,
                             .n_row = 2,
                             .d_wire = 4,
                             .n_seg = 1,
                             .n_assign = 2,
                             .dtype = DTYPE_FP8,
                             .reply_dtype = DTYPE_FP8,
                             .seg_expert = &expert,
                             .seg_count = &count};
    struct msg_reply reply = {.call = 7, .n_assign = 2, .d_wire = 4, .dtype = DTYPE_FP8};
    struct frames f, g;
    struct msg m;
    fp8.fp8 = 1;
    frames_init(&f);
    frames_init(&g);
    assert_int_equal(msg_build_request(&f, &in, buf_of(pool, rows, 10), 10,
                                       buf_of(pool, index, sizeof(index)), sizeof(index)),
                     0);
    assert_int_equal(msg_build_reply(&g, &reply, buf_of(pool, rows, 10), 10), 0);
    parse_ok(&f, &fp8, &m);
    assert_int_equal(m.u.request.dtype, DTYPE_FP8);
    assert_int_equal(m.u.request.reply_dtype, DTYPE_FP8);
    assert_memory_equal(m.u.request.rows, rows, 10);
    msg_free(&m);
    parse_ok(&g, &fp8, &m);
    assert_int_equal(m.u.reply.dtype, DTYPE_FP8);
    assert_memory_equal(m.u.reply.rows, rows, 10);
    msg_free(&m);
    assert_int_equal(msg_parse(&f, &shape, &m, NULL, NULL), ERR_PROTO);
    assert_int_equal(m.fault, WIRE_DTYPE);
    assert_int_equal(msg_parse(&g, &shape, &m, NULL, NULL), ERR_PROTO);
    assert_int_equal(m.fault, WIRE_DTYPE);
    frames_close(&f);
    frames_close(&g);
    wirebuf_pool_destroy(pool);
}

static void small_messages_come_back(void **state)
{
    (void)state;
    const uint32_t expert[2] = {3, 8};
    struct msg_not_held not_held = {
        .call = 9, .epoch = 10, .layer = 1, .n_expert = 2, .expert = expert};
    struct msg_ping ping = {.nonce = 11,
                            .epoch = 12,
                            .reply = 1,
                            .queued = INT32_MAX,
                            .resident = UINT64_MAX,
                            .available = 13};
    struct frames f;
    struct msg m;
    uint64_t call = 0;
    frames_init(&f);
    assert_int_equal(msg_build_not_held(&f, &not_held), 0);
    assert_int_equal(msg_parse(&f, &shape, &m, &call, NULL), 0);
    assert_int_equal(call, 9);
    assert_int_equal(m.u.not_held.n_expert, 2);
    assert_memory_equal(m.u.not_held.expert, expert, sizeof(expert));
    msg_free(&m);
    frames_close(&f);
    assert_int_equal(msg_build_ping(&f, &ping), 0);
    parse_ok(&f, NULL, &m);
    assert_int_equal(m.u.ping.nonce, 11);
    assert_int_equal(m.u.ping.epoch, 12);
    assert_int_equal(m.u.ping.reply, 1);
    assert_int_equal(m.u.ping.queued, INT32_MAX);
    assert_true(m.u.ping.resident == UINT64_MAX && m.u.ping.available == 13);
    msg_free(&m);
    frames_close(&f);
    char text[2000];
    memset(text, 'x', sizeof(text));
    memcpy(text, "a\nb\x1b[31m", 8);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(msg_build_error(&f, 13, WIRE_BUSY, text), 0);
    parse_ok(&f, NULL, &m);
    assert_int_equal(m.u.error.call, 13);
    assert_int_equal(m.u.error.code, WIRE_BUSY);
    assert_int_equal(strlen(m.u.error.text), sizeof(m.u.error.text) - 1);
    assert_int_equal(strncmp(m.u.error.text, "a?b?[31m", 8), 0);
    msg_free(&m);
    frames_close(&f);
}

static void assignments_come_back(void **state)
{
    (void)state;
    static const uint8_t held[4] = {0x81, 0x42, 0x24, 0x18};
    struct frames f;
    struct msg m;
    frames_init(&f);
    struct msg_assign assign = {.plan = 7, .drop = 1, .held = held, .held_bytes = sizeof(held)};
    assert_int_equal(msg_build_assign(&f, &assign), 0);
    parse_ok(&f, &shape, &m);
    assert_int_equal(m.kind, MSG_ASSIGN);
    assert_int_equal(m.u.assign.plan, 7);
    assert_int_equal(m.u.assign.drop, 1);
    assert_memory_equal(m.u.assign.held, held, sizeof(held));
    msg_free(&m);
    frames_close(&f);
    struct msg_assigned assigned = {.plan = 7,
                                    .epoch = 9,
                                    .state = ASSIGN_FAILED,
                                    .loaded = 4,
                                    .total = 6,
                                    .text = "no\nmemory"};
    assert_int_equal(msg_build_assigned(&f, &assigned), 0);
    parse_ok(&f, &shape, &m);
    assert_int_equal(m.kind, MSG_ASSIGNED);
    assert_int_equal(m.u.assigned.epoch, 9);
    assert_int_equal(m.u.assigned.state, ASSIGN_FAILED);
    assert_int_equal(m.u.assigned.loaded, 4);
    assert_int_equal(m.u.assigned.total, 6);
    assert_string_equal(m.u.assigned.text, "no?memory");
    msg_free(&m);
    frames_close(&f);
}

static void pieces_come_back(void **state)
{
    (void)state;
    struct frames f;
    struct msg m;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    frames_init(&f);
    struct msg_fetch fetch = {.call = 5,
                              .layer = 1,
                              .expert = 9,
                              .part = FETCH_UP_BIAS,
                              .offset = 1ull << 40,
                              .bytes = 6};
    assert_int_equal(msg_build_fetch(&f, &fetch), 0);
    parse_ok(&f, &shape, &m);
    assert_int_equal(m.kind, MSG_FETCH);
    assert_int_equal(m.u.fetch.call, 5);
    assert_int_equal(m.u.fetch.layer, 1);
    assert_int_equal(m.u.fetch.expert, 9);
    assert_int_equal(m.u.fetch.part, FETCH_UP_BIAS);
    assert_int_equal(m.u.fetch.offset, 1ull << 40);
    assert_int_equal(m.u.fetch.bytes, 6);
    msg_free(&m);
    frames_close(&f);
    struct wirebuf *data = wirebuf_get(pool, 6);
    assert_non_null(data);
    memcpy(wirebuf_data(data), "piece", 6);
    struct msg_chunk chunk = {
        .call = 5, .dtype = DTYPE_F16, .rows = 3, .cols = 0, .offset = 0, .bytes = 6};
    assert_int_equal(msg_build_chunk(&f, &chunk, data), 0);
    parse_ok(&f, &shape, &m);
    assert_int_equal(m.kind, MSG_CHUNK);
    assert_int_equal(m.u.chunk.dtype, DTYPE_F16);
    assert_int_equal(m.u.chunk.rows, 3);
    assert_int_equal(m.u.chunk.cols, 0);
    assert_int_equal(m.u.chunk.bytes, 6);
    assert_memory_equal(m.u.chunk.data, "piece", 6);
    msg_free(&m);
    frames_close(&f);
    wirebuf_pool_destroy(pool);
}

static void builders_drop_what_they_took_when_they_fail(void **state)
{
    (void)state;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    struct frames f;
    frames_init(&f);
    struct msg_request m = {.call = 1};
    struct wirebuf *rows = wirebuf_get(pool, 10), *index = wirebuf_get(pool, 5000);
    assert_int_equal(msg_build_request(&f, &m, rows, 1 << 20, index, 8), ERR_LIMIT);
    assert_int_equal(f.n, 0);
    rows = wirebuf_get(pool, 10);
    index = wirebuf_get(pool, 5000);
    assert_int_equal(msg_build_request(&f, &m, rows, 10, index, 1 << 20), ERR_LIMIT);
    assert_int_equal(f.n, 0);
    struct msg_welcome big = {.held_bytes = LIMIT_HEADER_BYTES,
                              .held = calloc(1, LIMIT_HEADER_BYTES)};
    assert_int_equal(msg_build_welcome(&f, &big), ERR_LIMIT);
    assert_int_equal(f.n, 0);
    free((void *)(uintptr_t)big.held);
    wirebuf_pool_destroy(pool); /* asan's leak check says whether both came home */
}

/* A field that a later release adds is skipped, not refused. */
static void unknown_fields_are_skipped(void **state)
{
    (void)state;
    struct msg_ping in = {.nonce = 11};
    struct frames f, g;
    struct msg m;
    frames_init(&f);
    frames_init(&g);
    assert_int_equal(msg_build_ping(&f, &in), 0);
    uint8_t bytes[64];
    size_t n = frames_size(&f, 0);
    memcpy(bytes, frames_data(&f, 0), n);
    memcpy(bytes + n, "\xa2\x06\x05later", 8); /* field 100, bytes */
    assert_int_equal(frames_push_copy(&g, bytes, n + 8), 0);
    parse_ok(&g, NULL, &m);
    assert_int_equal(m.u.ping.nonce, 11);
    msg_free(&m);
    frames_close(&f);
    frames_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_comes_back),
        cmocka_unit_test(largest_welcome_comes_back),
        cmocka_unit_test(request_and_reply_come_back),
        cmocka_unit_test(fp8_rows_come_back_where_they_may),
        cmocka_unit_test(small_messages_come_back),
        cmocka_unit_test(assignments_come_back),
        cmocka_unit_test(pieces_come_back),
        cmocka_unit_test(builders_drop_what_they_took_when_they_fail),
        cmocka_unit_test(unknown_fields_are_skipped),
    };
    return cmocka_run_group_tests_name("msg", tests, NULL, NULL);
}
