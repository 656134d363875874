/* msg_fuzz: any frames into msg_parse. What is refused must say why and own nothing; what passes is
 * read as the worker and the pool read it, without checks, and must come back the same when built
 * again.
 *
 * The input: a byte (bit 0: parse with a shape), then frames, each a 16-bit little-endian length
 * and so many bytes (the last may be shorter). */
#include "proto/msg.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct wire_shape shape = {.n_layer = 3,
                                        .n_expert = 10,
                                        .d_wire = 4,
                                        .row_limit = 8,
                                        .top_k = 3,
                                        .dtype = DTYPE_BF16,
                                        .fp8 = 1};

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "msg_fuzz: %s\n", what);
    abort();
}

static void frames_cut(struct frames *f, const uint8_t *data, size_t size)
{
    frames_init(f);
    while (size >= 2 && f->n < LIMIT_FRAMES) {
        size_t n = (size_t)data[0] | (size_t)data[1] << 8;
        data += 2;
        size -= 2;
        if (n > size)
            n = size;
        require(frames_push_copy(f, data, n) == 0, "no memory");
        data += n;
        size -= n;
    }
}

static uint64_t sum_rows(const void *rows, int n, int d_wire, enum dtype dtype)
{
    const uint8_t *x = rows;
    uint64_t sum = 0;
    for (size_t i = 0; i < (size_t)n * wire_row_bytes(dtype, (size_t)d_wire); i++)
        sum += x[i];
    return sum;
}

/* use_request does what compute does: indexes without checks. */
static uint64_t use_request(const struct msg_request *m)
{
    uint64_t sum = sum_rows(m->rows, m->n_row, m->d_wire, m->dtype);
    int held[10] = {0}, n_assign = 0;
    for (int s = 0; s < m->n_seg; s++) {
        held[m->seg_expert[s]]++;
        n_assign += (int)m->seg_count[s];
    }
    require(n_assign == m->n_assign, "n_assign is not the sum of seg_count");
    for (int e = 0; e < 10; e++)
        require(held[e] <= 1, "an expert twice");
    for (int i = 0; i < n_assign; i++)
        sum += ((const uint8_t *)
                    m->rows)[(size_t)m->row_index[i] * wire_row_bytes(m->dtype, (size_t)m->d_wire)];
    require(m->reply_dtype == DTYPE_BF16 || m->reply_dtype == DTYPE_FP8, "another reply_dtype");
    return sum;
}

static struct wirebuf *copy_of(struct wirebuf_pool *pool, const void *data, size_t bytes)
{
    struct wirebuf *b = wirebuf_get(pool, bytes);
    require(b != NULL, "no memory");
    memcpy(wirebuf_data(b), data, bytes);
    return b;
}

static int build(struct frames *out, const struct msg *m)
{
    struct wirebuf_pool *pool = wirebuf_pool_create();
    const struct msg_request *r = &m->u.request;
    size_t index_bytes = (size_t)r->n_assign * 4,
           rows_bytes = (size_t)r->n_row * wire_row_bytes(r->dtype, 4);
    int rc = -1;
    frames_init(out);
    switch (m->kind) {
    case MSG_HELLO:
        rc = msg_build_hello(out, &m->u.hello);
        break;
    case MSG_WELCOME:
        rc = msg_build_welcome(out, &m->u.welcome);
        break;
    case MSG_REQUEST:
        rc = msg_build_request(out, r, copy_of(pool, r->rows, rows_bytes), rows_bytes,
                               copy_of(pool, r->row_index, index_bytes), index_bytes);
        break;
    case MSG_REPLY:
        rows_bytes = (size_t)m->u.reply.n_assign * wire_row_bytes(m->u.reply.dtype, 4);
        rc = msg_build_reply(out, &m->u.reply, copy_of(pool, m->u.reply.rows, rows_bytes),
                             rows_bytes);
        break;
    case MSG_NOT_HELD:
        rc = msg_build_not_held(out, &m->u.not_held);
        break;
    case MSG_PING:
        rc = msg_build_ping(out, &m->u.ping);
        break;
    case MSG_ERROR:
        rc = msg_build_error(out, m->u.error.call, m->u.error.code, m->u.error.text);
        break;
    case MSG_ASSIGN:
        rc = msg_build_assign(out, &m->u.assign);
        break;
    case MSG_ASSIGNED:
        rc = msg_build_assigned(out, &m->u.assigned);
        break;
    case MSG_FETCH:
        rc = msg_build_fetch(out, &m->u.fetch);
        break;
    case MSG_CHUNK:
        rc = msg_build_chunk(out, &m->u.chunk, copy_of(pool, m->u.chunk.data, m->u.chunk.bytes));
        break;
    }
    wirebuf_pool_destroy(pool);
    return rc;
}

/* same_again: built, parsed and built once more, the frames are equal. */
static void same_again(const struct msg *m, const struct wire_shape *s)
{
    struct frames a, b;
    struct msg again;
    require(build(&a, m) == 0, "what passed cannot be built");
    require(msg_parse(&a, s, &again, NULL, NULL) == 0, "what was built does not pass");
    require(again.kind == m->kind, "another kind");
    require(build(&b, &again) == 0 && a.n == b.n, "another number of frames");
    for (int i = 0; i < a.n; i++)
        require(frames_size(&a, i) == frames_size(&b, i) &&
                    memcmp(frames_data(&a, i), frames_data(&b, i), frames_size(&a, i)) == 0,
                "another frame");
    msg_free(&again);
    frames_close(&a);
    frames_close(&b);
}

static void use(const struct msg *m)
{
    volatile uint64_t sink = 0;
    if (m->kind == MSG_REQUEST)
        sink += use_request(&m->u.request);
    if (m->kind == MSG_REPLY)
        sink += sum_rows(m->u.reply.rows, m->u.reply.n_assign, m->u.reply.d_wire, m->u.reply.dtype);
    if (m->kind == MSG_NOT_HELD)
        for (int i = 0; i < m->u.not_held.n_expert; i++)
            sink += m->u.not_held.expert[i];
    if (m->kind == MSG_CHUNK) {
        const struct msg_chunk *c = &m->u.chunk;
        uint64_t total =
            (uint64_t)c->rows * (uint64_t)(c->cols ? c->cols : 1) * dtype_bytes(c->dtype);
        require(c->bytes <= LIMIT_CHUNK_BYTES && c->offset + c->bytes <= total, "a piece outside");
        for (size_t i = 0; i < c->bytes; i++)
            sink += ((const uint8_t *)c->data)[i];
    }
    if (m->kind == MSG_WELCOME)
        for (size_t i = 0; i < m->u.welcome.held_bytes; i++)
            sink += m->u.welcome.held[i];
    (void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frames f;
    struct msg m;
    struct err err = {0};
    uint64_t call = 0;
    if (size < 1)
        return 0;
    const struct wire_shape *s = data[0] & 1 ? &shape : NULL;
    frames_cut(&f, data + 1, size - 1);
    if (msg_parse(&f, s, &m, &call, &err) == 0) {
        use(&m);
        same_again(&m, s);
        msg_free(&m);
    } else {
        require(err.code == ERR_PROTO && err.text[0] && m.fault >= WIRE_MALFORMED &&
                    m.fault <= WIRE_INTERNAL && m.parsed == NULL,
                "a refusal without words or fault");
    }
    frames_close(&f);
    return 0;
}
