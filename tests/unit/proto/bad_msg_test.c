/* bad_msg: every rule of docs/WIRE.md has a message here that breaks it and nothing else, with the
 * words of the refusal and whose fault it is. A message is a good draft, changed in one place. */
#include "proto/msg.h"

#include "proto/sigmoe.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct wire_shape shape = {
    .n_layer = 3, .n_expert = 10, .d_wire = 4, .row_limit = 5, .top_k = 2, .dtype = DTYPE_BF16};

/* ---- bad messages ---- */

/* A message that breaks one rule: a good one, changed in one place. */
struct draft {
    Sigmoe__Header header;
    Sigmoe__Hello hello;
    Sigmoe__Welcome welcome;
    Sigmoe__ExpertRequest request;
    Sigmoe__ExpertReply reply;
    Sigmoe__NotHeld not_held;
    Sigmoe__Ping ping;
    Sigmoe__Error error;
    Sigmoe__Assign assign;
    Sigmoe__Assigned assigned;
    Sigmoe__Fetch fetch;
    Sigmoe__Chunk chunk;
    uint8_t fingerprint[16], held[4];
    uint32_t expert[16], count[16];
    int32_t index[16];
    char text[600];
    size_t n_frame, rows_bytes, index_bytes;
};

static void draft_init(struct draft *d)
{
    *d = (struct draft){.header = SIGMOE__HEADER__INIT,
                        .hello = SIGMOE__HELLO__INIT,
                        .welcome = SIGMOE__WELCOME__INIT,
                        .request = SIGMOE__EXPERT_REQUEST__INIT,
                        .reply = SIGMOE__EXPERT_REPLY__INIT,
                        .not_held = SIGMOE__NOT_HELD__INIT,
                        .ping = SIGMOE__PING__INIT,
                        .error = SIGMOE__ERROR__INIT,
                        .assign = SIGMOE__ASSIGN__INIT,
                        .assigned = SIGMOE__ASSIGNED__INIT,
                        .fetch = SIGMOE__FETCH__INIT,
                        .chunk = SIGMOE__CHUNK__INIT,
                        .expert = {0, 4, 9},
                        .count = {5, 1, 3},
                        .index = {0, 1, 2, 3, 4, 2, 4, 0, 1}};
    d->hello.version = d->welcome.version = WIRE_VERSION;
    d->hello.incarnation = d->welcome.incarnation = 1;
    d->hello.fingerprint = d->welcome.fingerprint = (ProtobufCBinaryData){16, d->fingerprint};
    d->hello.dtype = d->welcome.dtype = DTYPE_BF16;
    d->hello.n_layer = 3;
    d->hello.n_expert = 10;
    d->hello.d_wire = 4;
    d->welcome.credits = 8;
    d->welcome.row_limit = 5;
    d->welcome.held = d->assign.held = (ProtobufCBinaryData){4, d->held}; /* 30 bits */
    d->assign.plan = d->assigned.plan = 5;
    d->assigned.state = ASSIGN_LOADING;
    d->assigned.loaded = 2;
    d->assigned.total = 3;
    d->assigned.text = d->text;
    d->request.call = d->reply.call = d->not_held.call = 77;
    d->fetch.call = d->chunk.call = 77;
    d->fetch.layer = 2;
    d->fetch.expert = 9;
    d->fetch.part = FETCH_DOWN;
    d->fetch.offset = 8;
    d->fetch.bytes = LIMIT_CHUNK_BYTES;
    d->chunk.dtype = DTYPE_BF16;
    d->chunk.rows = 6;
    d->chunk.cols = 4; /* 48 bytes, of which frame 1 has the last 40 */
    d->chunk.offset = 8;
    d->request.layer = d->reply.layer = d->not_held.layer = 2;
    d->request.dtype = d->reply.dtype = DTYPE_BF16;
    d->request.d_wire = d->reply.d_wire = 4;
    d->request.n_row = d->reply.n_assign = 5;
    d->request.n_seg_expert = d->request.n_seg_count = d->not_held.n_expert = 3;
    d->request.seg_expert = d->not_held.expert = d->expert;
    d->request.seg_count = d->count;
    d->error.call = 77;
    d->error.code = WIRE_BUSY;
    d->error.text = d->text;
    d->rows_bytes = 40;
    d->index_bytes = 36;
}

static void draft_frames(struct draft *d, enum msg_kind kind, struct frames *f)
{
    static const uint8_t zeros[256];
    static const size_t n_frame[] = {0, 1, 1, 3, 2, 1, 1, 1, 1, 1, 1, 2};
    uint8_t bytes[1024];
    d->header.kind_case = (Sigmoe__Header__KindCase)kind;
    switch (kind) {
    case MSG_HELLO:
        d->header.hello = &d->hello;
        break;
    case MSG_WELCOME:
        d->header.welcome = &d->welcome;
        break;
    case MSG_REQUEST:
        d->header.request = &d->request;
        break;
    case MSG_REPLY:
        d->header.reply = &d->reply;
        break;
    case MSG_NOT_HELD:
        d->header.not_held = &d->not_held;
        break;
    case MSG_PING:
        d->header.ping = &d->ping;
        break;
    case MSG_ERROR:
        d->header.error = &d->error;
        break;
    case MSG_ASSIGN:
        d->header.assign = &d->assign;
        break;
    case MSG_ASSIGNED:
        d->header.assigned = &d->assigned;
        break;
    case MSG_FETCH:
        d->header.fetch = &d->fetch;
        break;
    case MSG_CHUNK:
        d->header.chunk = &d->chunk;
        break;
    }
    frames_init(f);
    assert_true(sigmoe__header__get_packed_size(&d->header) <= sizeof(bytes));
    assert_int_equal(frames_push_copy(f, bytes, sigmoe__header__pack(&d->header, bytes)), 0);
    size_t n = d->n_frame ? d->n_frame : n_frame[kind];
    if (n > 1)
        assert_int_equal(frames_push_copy(f, zeros, d->rows_bytes), 0);
    if (n > 2)
        assert_int_equal(frames_push_copy(f, d->index, d->index_bytes), 0);
    for (size_t i = 3; i < n; i++)
        assert_int_equal(frames_push_copy(f, "", 0), 0);
}

#define BAD(kind_, fault_, words_, change_)                                                        \
    do {                                                                                           \
        struct draft draft, *d = &draft;                                                           \
        draft_init(d);                                                                             \
        change_;                                                                                   \
        refuse(d, kind_, &shape, fault_, words_, __LINE__);                                        \
    } while (0)

static void refuse(struct draft *d, enum msg_kind kind, const struct wire_shape *s,
                   enum wire_error fault, const char *words, int line)
{
    struct frames f;
    struct msg m;
    struct err err = {0};
    uint64_t call = 1;
    draft_frames(d, kind, &f);
    int rc = msg_parse(&f, s, &m, &call, &err);
    if (rc != ERR_PROTO || m.fault != fault || m.kind != kind || !strstr(err.text, words) ||
        strchr(err.text, '\n'))
        fail_msg("line %d: rc %d, fault %d, kind %d: '%s' (wanted '%s')", line, rc, m.fault, m.kind,
                 err.text, words);
    int named = kind == MSG_REQUEST || kind == MSG_REPLY || kind == MSG_NOT_HELD;
    if (named && d->request.call && d->reply.call && d->not_held.call)
        assert_int_equal(call, 77);
    frames_close(&f);
}

static void drafts_are_good_before_they_are_changed(void **state)
{
    (void)state;
    for (enum msg_kind kind = MSG_HELLO; kind <= MSG_CHUNK; kind++) {
        struct draft d;
        struct frames f;
        struct msg m;
        draft_init(&d);
        draft_frames(&d, kind, &f);
        assert_int_equal(msg_parse(&f, &shape, &m, NULL, NULL), 0);
        assert_int_equal(m.kind, kind);
        msg_free(&m);
        frames_close(&f);
    }
}

static void bad_hello_is_refused(void **state)
{
    (void)state;
    BAD(MSG_HELLO, WIRE_VERSION_BAD, "Hello.version is 2, this side speaks 1",
        (d->hello.version = 2, d->hello.n_layer = 0)); /* the version is judged first */
    BAD(MSG_HELLO, WIRE_VERSION_BAD, "version is 0", d->hello.version = 0);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello has 2 frames; it must have 1", d->n_frame = 2);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.fingerprint has 15 bytes", d->hello.fingerprint.len = 15);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.fingerprint has 0 bytes", d->hello.fingerprint.len = 0);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.incarnation is 0", d->hello.incarnation = 0);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.name has 300 bytes; at most 255",
        (memset(d->text, 'n', 300), d->hello.name = d->text));
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.name has a control character at byte 2",
        (memcpy(d->text, "ab\n", 4), d->hello.name = d->text));
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.numerics has 40 bytes; at most 31",
        (memset(d->text, 'n', 40), d->hello.numerics = d->text));
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.dtype is 3; rows travel as 1 (f32) or 2 (bf16)",
        d->hello.dtype = DTYPE_F16);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.dtype is 0", d->hello.dtype = 0);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.n_layer is 0", d->hello.n_layer = 0);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.n_layer is 513", d->hello.n_layer = LIMIT_LAYERS + 1);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.n_expert is 4097", d->hello.n_expert = 4097);
    BAD(MSG_HELLO, WIRE_MALFORMED, "Hello.d_wire is 4294967295", d->hello.d_wire = UINT32_MAX);
}

static void bad_welcome_is_refused(void **state)
{
    (void)state;
    BAD(MSG_WELCOME, WIRE_VERSION_BAD, "Welcome.version is 9", d->welcome.version = 9);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome has 3 frames", d->n_frame = 3);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.fingerprint has 3 bytes",
        d->welcome.fingerprint.len = 3);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.incarnation is 0", d->welcome.incarnation = 0);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.name has a control character",
        (memcpy(d->text, "\x7f", 2), d->welcome.name = d->text));
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.numerics has 32 bytes",
        (memset(d->text, 'n', 32), d->welcome.numerics = d->text));
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.dtype is 77", d->welcome.dtype = 77);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.credits is 0", d->welcome.credits = 0);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.credits is 65537", d->welcome.credits = 65537);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.row_limit is 0", d->welcome.row_limit = 0);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.row_limit is 8193", d->welcome.row_limit = 8193);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.threads is 65537", d->welcome.threads = 65537);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.held has 3 bytes; 3 layers of 10 experts need 4",
        d->welcome.held.len = 3);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.held has 0 bytes", d->welcome.held.len = 0);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "bits set behind the last expert", d->held[3] = 0x40);
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.door has 64 bytes; at most 63",
        (memset(d->text, 'n', 64), d->welcome.door = d->text));
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.door has a control character",
        (memcpy(d->text, "\x1b", 2), d->welcome.door = d->text));
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.door_token has 0 bytes; it must have 16",
        (memcpy(d->text, "x", 2), d->welcome.door = d->text));
    BAD(MSG_WELCOME, WIRE_MALFORMED, "Welcome.door_token has 3 bytes; it must have 0",
        (d->welcome.door_token = (ProtobufCBinaryData){3, (uint8_t *)d->text}));
    struct draft d;
    draft_init(&d);
    d.header.kind_case = SIGMOE__HEADER__KIND_WELCOME;
    size_t bytes = (size_t)LIMIT_LAYERS * LIMIT_EXPERTS / 8 + 1;
    d.welcome.held = (ProtobufCBinaryData){bytes, calloc(1, bytes)};
    d.header.welcome = &d.welcome;
    struct frames f;
    struct msg m;
    struct err err = {0};
    frames_init(&f);
    sigmoe__header__pack(&d.header,
                         frames_push_space(&f, sigmoe__header__get_packed_size(&d.header)));
    assert_int_equal(msg_parse(&f, NULL, &m, NULL, &err), ERR_PROTO);
    assert_non_null(strstr(err.text, "Welcome.held has 262145 bytes; at most"));
    frames_close(&f);
    free(d.welcome.held.data);
}

static void bad_request_is_refused(void **state)
{
    (void)state;
    enum msg_kind k = MSG_REQUEST;
    BAD(k, WIRE_MALFORMED, "ExpertRequest.call is 0", d->request.call = 0);
    BAD(k, WIRE_MALFORMED, "ExpertRequest.layer is 3; it must be from 0 to 2",
        d->request.layer = 3);
    BAD(k, WIRE_MALFORMED, "ExpertRequest.batch is 4294967295", d->request.batch = UINT32_MAX);
    BAD(k, WIRE_DTYPE, "ExpertRequest.dtype is 1 (f32); Hello agreed on bf16",
        d->request.dtype = DTYPE_F32);
    BAD(k, WIRE_DTYPE, "dtype is 99 (unknown)", d->request.dtype = 99);
    BAD(k, WIRE_MALFORMED, "ExpertRequest.d_wire is 5; rows of this model have 4",
        d->request.d_wire = 5);
    BAD(k, WIRE_MALFORMED, "ExpertRequest.n_row is 0; it must be from 1 to 5",
        d->request.n_row = 0);
    BAD(k, WIRE_MALFORMED, "ExpertRequest.n_row is 6; it must be from 1 to 5",
        d->request.n_row = 6);
    BAD(k, WIRE_MALFORMED, "n_row is 4294967295", d->request.n_row = UINT32_MAX);
    BAD(k, WIRE_MALFORMED, "seg_count has 2 entries, seg_expert 3", d->request.n_seg_count = 2);
    BAD(k, WIRE_MALFORMED, "seg_expert has 0 experts",
        d->request.n_seg_count = d->request.n_seg_expert = 0);
    BAD(k, WIRE_MALFORMED, "seg_expert has 11 experts; it must have from 1 to 10",
        d->request.n_seg_count = d->request.n_seg_expert = 11);
    BAD(k, WIRE_MALFORMED, "seg_expert[2] is 10; experts of this model are below 10",
        d->expert[2] = 10);
    BAD(k, WIRE_MALFORMED, "seg_expert[2] is 4294967295", d->expert[2] = UINT32_MAX);
    BAD(k, WIRE_MALFORMED, "seg_expert[1] is 0 after 0; experts must ascend", d->expert[1] = 0);
    BAD(k, WIRE_MALFORMED, "seg_expert[2] is 3 after 4", d->expert[2] = 3);
    BAD(k, WIRE_MALFORMED, "seg_count[1] is 0; it must be from 1 to n_row, 5", d->count[1] = 0);
    BAD(k, WIRE_MALFORMED, "seg_count[0] is 6", d->count[0] = 6);
    BAD(k, WIRE_MALFORMED, "11 assignments; 5 rows of a top-2 model have at most 10",
        d->count[1] = 3);
    BAD(k, WIRE_MALFORMED, "ExpertRequest has 1 frames; it must have 3", d->n_frame = 1);
    BAD(k, WIRE_MALFORMED, "ExpertRequest has 2 frames", d->n_frame = 2);
    BAD(k, WIRE_MALFORMED, "ExpertRequest has 4 frames", d->n_frame = 4);
    BAD(k, WIRE_MALFORMED, "has 6 frames or more", d->n_frame = 6);
    BAD(k, WIRE_MALFORMED, "frame 1 has 39 bytes; rows [5, 4] has 40", d->rows_bytes = 39);
    BAD(k, WIRE_MALFORMED, "frame 1 has 41 bytes", d->rows_bytes = 41);
    BAD(k, WIRE_MALFORMED, "frame 1 has 0 bytes", d->rows_bytes = 0);
    BAD(k, WIRE_MALFORMED, "frame 2 has 32 bytes; row indices [9, 1] has 36", d->index_bytes = 32);
    BAD(k, WIRE_MALFORMED, "row index 5 of assignment 3 is not below n_row, 5", d->index[3] = 5);
    BAD(k, WIRE_MALFORMED, "row index -1 of assignment 8", d->index[8] = -1);
}

/* Where both sides know fp8: rows of 4 codes and a byte. */
static void bad_fp8_rows_are_refused(void **state)
{
    (void)state;
    struct wire_shape fp8 = shape;
    struct draft x;
    fp8.fp8 = 1;
    BAD(MSG_REQUEST, WIRE_DTYPE, "ExpertRequest.dtype is 9 (fp8); Hello agreed on bf16",
        d->request.dtype = DTYPE_FP8);
    BAD(MSG_REQUEST, WIRE_DTYPE, "ExpertRequest.reply_dtype is 9 (fp8); Hello agreed on bf16",
        d->request.reply_dtype = DTYPE_FP8);
    BAD(MSG_REPLY, WIRE_DTYPE, "ExpertReply.dtype is 9 (fp8)", d->reply.dtype = DTYPE_FP8);
    draft_init(&x);
    x.request.reply_dtype = DTYPE_F32;
    refuse(&x, MSG_REQUEST, &fp8, WIRE_DTYPE, "ExpertRequest.reply_dtype is 1 (f32)", __LINE__);
    draft_init(&x);
    x.request.dtype = x.reply.dtype = DTYPE_FP8;
    refuse(&x, MSG_REQUEST, &fp8, WIRE_MALFORMED, "frame 1 has 40 bytes; rows [5, 4] has 25",
           __LINE__);
    refuse(&x, MSG_REPLY, &fp8, WIRE_MALFORMED, "frame 1 has 40 bytes; rows [5, 4] has 25",
           __LINE__);
    x.rows_bytes = 20;
    refuse(&x, MSG_REQUEST, &fp8, WIRE_MALFORMED, "frame 1 has 20 bytes", __LINE__);
    fp8.d_wire = LIMIT_D_MODEL;
    fp8.row_limit = LIMIT_ROWS;
    fp8.top_k = LIMIT_TOP_K;
    x.reply.d_wire = LIMIT_D_MODEL;
    x.reply.n_assign = LIMIT_ROWS * LIMIT_TOP_K;
    refuse(&x, MSG_REPLY, &fp8, WIRE_MALFORMED, "is more than 1073741824 bytes", __LINE__);
}

/* Rows that pass every other rule and would still be two gibibytes. */
static void rows_beyond_the_largest_frame_are_refused(void **state)
{
    (void)state;
    struct wire_shape wide = {.n_layer = 3,
                              .n_expert = 10,
                              .d_wire = LIMIT_D_MODEL,
                              .row_limit = LIMIT_ROWS,
                              .top_k = 2,
                              .dtype = DTYPE_F32};
    struct draft d;
    draft_init(&d);
    d.request.dtype = DTYPE_F32;
    d.request.d_wire = LIMIT_D_MODEL;
    d.request.n_row = LIMIT_ROWS;
    refuse(&d, MSG_REQUEST, &wide, WIRE_MALFORMED,
           "rows [8192, 65536] is more than 1073741824 bytes", __LINE__);
}

static void bad_reply_is_refused(void **state)
{
    (void)state;
    enum msg_kind k = MSG_REPLY;
    BAD(k, WIRE_MALFORMED, "ExpertReply.call is 0", d->reply.call = 0);
    BAD(k, WIRE_MALFORMED, "ExpertReply.layer is 3", d->reply.layer = 3);
    BAD(k, WIRE_DTYPE, "ExpertReply.dtype is 1 (f32)", d->reply.dtype = 1);
    BAD(k, WIRE_MALFORMED, "ExpertReply.d_wire is 0", d->reply.d_wire = 0);
    BAD(k, WIRE_MALFORMED, "ExpertReply.n_assign is 0", d->reply.n_assign = 0);
    BAD(k, WIRE_MALFORMED, "ExpertReply.n_assign is 16385", d->reply.n_assign = 16385);
    BAD(k, WIRE_MALFORMED, "ExpertReply has 1 frames; it must have 2", d->n_frame = 1);
    BAD(k, WIRE_MALFORMED, "ExpertReply has 3 frames", d->n_frame = 3);
    BAD(k, WIRE_MALFORMED, "frame 1 has 40 bytes; rows [4, 4] has 32", d->reply.n_assign = 4);
}

static void bad_small_messages_are_refused(void **state)
{
    (void)state;
    BAD(MSG_NOT_HELD, WIRE_MALFORMED, "NotHeld.call is 0", d->not_held.call = 0);
    BAD(MSG_NOT_HELD, WIRE_MALFORMED, "NotHeld has 2 frames", d->n_frame = 2);
    BAD(MSG_NOT_HELD, WIRE_MALFORMED, "NotHeld.layer is 3", d->not_held.layer = 3);
    BAD(MSG_NOT_HELD, WIRE_MALFORMED, "NotHeld.expert has 0 experts", d->not_held.n_expert = 0);
    BAD(MSG_NOT_HELD, WIRE_MALFORMED, "NotHeld.expert[1] is 10", d->expert[1] = 10);
    BAD(MSG_NOT_HELD, WIRE_MALFORMED, "experts must ascend", d->expert[1] = 0);
    BAD(MSG_PING, WIRE_MALFORMED, "Ping has 2 frames", d->n_frame = 2);
    BAD(MSG_PING, WIRE_MALFORMED, "Ping.queued is 2147483648", d->ping.queued = 1u << 31);
    BAD(MSG_ERROR, WIRE_MALFORMED, "Error has 2 frames", d->n_frame = 2);
    BAD(MSG_ERROR, WIRE_MALFORMED, "Error.code is 0", d->error.code = 0);
    BAD(MSG_ERROR, WIRE_MALFORMED, "Error.code is 8", d->error.code = 8);
    BAD(MSG_ERROR, WIRE_MALFORMED, "Error.text has 512 bytes", memset(d->text, 'e', 512));
    BAD(MSG_ERROR, WIRE_MALFORMED, "Error.text has a control character",
        memcpy(d->text, "\x1b[2J", 5));
}

static void bad_assignments_are_refused(void **state)
{
    (void)state;
    BAD(MSG_ASSIGN, WIRE_MALFORMED, "Assign.plan is 0", d->assign.plan = 0);
    BAD(MSG_ASSIGN, WIRE_MALFORMED, "Assign has 2 frames", d->n_frame = 2);
    BAD(MSG_ASSIGN, WIRE_MALFORMED, "Assign.held has 3 bytes", d->assign.held.len = 3);
    BAD(MSG_ASSIGN, WIRE_MALFORMED, "Assign.held has bits set behind", d->held[3] = 0x40);
    BAD(MSG_ASSIGNED, WIRE_MALFORMED, "Assigned.plan is 0", d->assigned.plan = 0);
    BAD(MSG_ASSIGNED, WIRE_MALFORMED, "Assigned has 2 frames", d->n_frame = 2);
    BAD(MSG_ASSIGNED, WIRE_MALFORMED, "Assigned.state is 0", d->assigned.state = 0);
    BAD(MSG_ASSIGNED, WIRE_MALFORMED, "Assigned.state is 4", d->assigned.state = 4);
    BAD(MSG_ASSIGNED, WIRE_MALFORMED, "Assigned.total is 31", d->assigned.total = 31);
    BAD(MSG_ASSIGNED, WIRE_MALFORMED, "Assigned.loaded is 4", d->assigned.loaded = 4);
    BAD(MSG_ASSIGNED, WIRE_MALFORMED, "Assigned.text has 256 bytes", memset(d->text, 'e', 256));
}

static void bad_pieces_are_refused(void **state)
{
    (void)state;
    BAD(MSG_FETCH, WIRE_MALFORMED, "Fetch.call is 0", d->fetch.call = 0);
    BAD(MSG_FETCH, WIRE_MALFORMED, "Fetch has 2 frames", d->n_frame = 2);
    BAD(MSG_FETCH, WIRE_MALFORMED, "Fetch.layer is 3", d->fetch.layer = 3);
    BAD(MSG_FETCH, WIRE_MALFORMED, "Fetch.expert is 10", d->fetch.expert = 10);
    BAD(MSG_FETCH, WIRE_MALFORMED, "Fetch.part is 0", d->fetch.part = 0);
    BAD(MSG_FETCH, WIRE_MALFORMED, "Fetch.part is 7", d->fetch.part = 7);
    BAD(MSG_FETCH, WIRE_MALFORMED, "Fetch.bytes is 1048577", d->fetch.bytes++);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "Chunk.call is 0", d->chunk.call = 0);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "Chunk.dtype is 0", d->chunk.dtype = 0);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "Chunk.dtype is 4", d->chunk.dtype = DTYPE_U16);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "Chunk.rows is 0", d->chunk.rows = 0);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "Chunk.rows is 1048577", d->chunk.rows = LIMIT_D_FF + 1);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "Chunk.cols is 1048577", d->chunk.cols = LIMIT_D_FF + 1);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "Chunk has 1 frames", d->n_frame = 1);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "Chunk has 3 frames", d->n_frame = 3);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "not within a tensor of 48", d->chunk.offset = 9);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "not within a tensor of 48", d->chunk.offset = UINT64_MAX);
    BAD(MSG_CHUNK, WIRE_MALFORMED, "not within a tensor of 12", d->chunk.cols = 0);
}

static void a_piece_above_its_limit_is_refused(void **state)
{
    (void)state;
    struct frames f;
    struct msg m;
    struct err err = {0};
    struct wirebuf_pool *pool = wirebuf_pool_create();
    struct wirebuf *data = wirebuf_get(pool, LIMIT_CHUNK_BYTES + 1);
    assert_non_null(data);
    memset(wirebuf_data(data), 0, LIMIT_CHUNK_BYTES + 1);
    struct msg_chunk chunk = {
        .call = 77, .dtype = DTYPE_F32, .rows = 1024, .cols = 1024, .bytes = LIMIT_CHUNK_BYTES + 1};
    frames_init(&f);
    assert_int_equal(msg_build_chunk(&f, &chunk, data), 0);
    assert_int_equal(msg_parse(&f, &shape, &m, NULL, &err), ERR_PROTO);
    assert_non_null(strstr(err.text, "Chunk: frame 1 has 1048577 bytes; at most 1048576"));
    frames_close(&f);
    wirebuf_pool_destroy(pool);
}

static void what_needs_hello_is_refused_before_it(void **state)
{
    (void)state;
    static const enum msg_kind kinds[] = {MSG_REQUEST,  MSG_REPLY, MSG_NOT_HELD, MSG_ASSIGN,
                                          MSG_ASSIGNED, MSG_FETCH, MSG_CHUNK};
    static const char *const words[] = {"ExpertRequest came before", "ExpertReply came before",
                                        "NotHeld came before",       "Assign came before",
                                        "Assigned came before",      "Fetch came before",
                                        "Chunk came before"};
    for (int i = 0; i < 7; i++) {
        struct draft d;
        draft_init(&d);
        refuse(&d, kinds[i], NULL, WIRE_NO_HELLO, words[i], __LINE__);
    }
}

/* ---- bad envelopes ---- */

static void refuse_header(const void *bytes, size_t n, const char *words, int line)
{
    struct frames f;
    struct msg m;
    struct err err = {0};
    uint64_t call = 1;
    frames_init(&f);
    assert_int_equal(frames_push_copy(&f, bytes, n), 0);
    int rc = msg_parse(&f, &shape, &m, &call, &err);
    if (rc != ERR_PROTO || m.fault != WIRE_MALFORMED || call != 0 || !strstr(err.text, words))
        fail_msg("line %d: rc %d, fault %d: '%s'", line, rc, m.fault, err.text);
    frames_close(&f);
}

static void bad_envelope_is_refused(void **state)
{
    (void)state;
    struct frames none;
    struct msg m;
    struct err err = {0};
    frames_init(&none);
    assert_int_equal(msg_parse(&none, NULL, &m, NULL, &err), ERR_PROTO);
    assert_non_null(strstr(err.text, "without frames"));
    refuse_header("", 0, "the header has 0 bytes; it must have from 1 to 1048576", __LINE__);
    uint8_t *big = calloc(1, LIMIT_HEADER_BYTES + 1);
    refuse_header(big, LIMIT_HEADER_BYTES + 1, "the header has 1048577 bytes", __LINE__);
    refuse_header("\xff\xff\xff", 3, "is no protobuf", __LINE__);
    refuse_header("\x0a\x7f", 2, "is no protobuf", __LINE__);     /* a length beyond the end */
    refuse_header("\x1a\x02\x08", 3, "is no protobuf", __LINE__); /* a message cut short */
    refuse_header("\x78\x01", 2, "of no kind", __LINE__);         /* only a field of later times */
    /* A list that unpacks to far more than its bytes: 2 bytes a field become a record each. */
    for (size_t i = 0; i + 1 < LIMIT_HEADER_BYTES; i += 2)
        memcpy(big + i, "\x7a\x00", 2);
    refuse_header(big, LIMIT_HEADER_BYTES, "is no protobuf", __LINE__);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_are_good_before_they_are_changed),
        cmocka_unit_test(bad_hello_is_refused),
        cmocka_unit_test(bad_welcome_is_refused),
        cmocka_unit_test(bad_request_is_refused),
        cmocka_unit_test(bad_fp8_rows_are_refused),
        cmocka_unit_test(rows_beyond_the_largest_frame_are_refused),
        cmocka_unit_test(bad_reply_is_refused),
        cmocka_unit_test(bad_small_messages_are_refused),
        cmocka_unit_test(bad_assignments_are_refused),
        cmocka_unit_test(bad_pieces_are_refused),
        cmocka_unit_test(a_piece_above_its_limit_is_refused),
        cmocka_unit_test(what_needs_hello_is_refused_before_it),
        cmocka_unit_test(bad_envelope_is_refused),
    };
    return cmocka_run_group_tests_name("bad_msg", tests, NULL, NULL);
}
