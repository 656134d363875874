/* msg_build: from our structs to frames. Nothing is checked here: a builder is called by our own
 * code, and what it builds is held against the same rules by the receiver (and by the round-trip
 * tests). */
#include "proto/msg.h"
#include "proto/sigmoe.pb-c.h"

#include <stdio.h>

/* The fingerprint travels in the order in which its hex is printed. */
static void hash_store(struct hash128 h, uint8_t out[16])
{
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(h.hi >> (56 - 8 * i));
        out[8 + i] = (uint8_t)(h.lo >> (56 - 8 * i));
    }
}

static int push_header(struct frames *out, const Sigmoe__Header *header)
{
    size_t bytes = sigmoe__header__get_packed_size(header);
    if (bytes > LIMIT_HEADER_BYTES)
        return ERR_LIMIT;
    uint8_t *at = frames_push_space(out, bytes);
    if (!at)
        return ERR_NOMEM;
    sigmoe__header__pack(header, at);
    return 0;
}

int msg_build_hello(struct frames *out, const struct msg_hello *m)
{
    uint8_t fingerprint[16];
    hash_store(m->fingerprint, fingerprint);
    Sigmoe__Hello hello = SIGMOE__HELLO__INIT;
    hello.version = WIRE_VERSION;
    hello.fingerprint = (ProtobufCBinaryData){sizeof(fingerprint), fingerprint};
    hello.incarnation = m->incarnation;
    hello.name = (char *)(uintptr_t)m->name;
    hello.numerics = (char *)(uintptr_t)m->numerics;
    hello.dtype = (uint32_t)m->dtype;
    hello.n_layer = (uint32_t)m->n_layer;
    hello.n_expert = (uint32_t)m->n_expert;
    hello.d_wire = (uint32_t)m->d_wire;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_HELLO;
    header.hello = &hello;
    return push_header(out, &header);
}

int msg_build_welcome(struct frames *out, const struct msg_welcome *m)
{
    uint8_t fingerprint[16];
    hash_store(m->fingerprint, fingerprint);
    Sigmoe__Welcome welcome = SIGMOE__WELCOME__INIT;
    welcome.version = WIRE_VERSION;
    welcome.fingerprint = (ProtobufCBinaryData){sizeof(fingerprint), fingerprint};
    welcome.incarnation = m->incarnation;
    welcome.epoch = m->epoch;
    welcome.name = (char *)(uintptr_t)m->name;
    welcome.numerics = (char *)(uintptr_t)m->numerics;
    welcome.dtype = (uint32_t)m->dtype;
    welcome.credits = (uint32_t)m->credits;
    welcome.row_limit = (uint32_t)m->row_limit;
    welcome.threads = (uint32_t)m->threads;
    welcome.resident = m->resident;
    welcome.available = m->available;
    welcome.fp8 = m->fp8;
    welcome.held = (ProtobufCBinaryData){m->held_bytes, (uint8_t *)(uintptr_t)m->held};
    if (m->offer.name[0]) {
        welcome.door = (char *)(uintptr_t)m->offer.name;
        welcome.door_token =
            (ProtobufCBinaryData){SHM_TOKEN_BYTES, (uint8_t *)(uintptr_t)m->offer.token};
    }
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_WELCOME;
    header.welcome = &welcome;
    return push_header(out, &header);
}

int msg_build_request(struct frames *out, const struct msg_request *m, struct wirebuf *rows,
                      size_t rows_bytes, struct wirebuf *row_index, size_t index_bytes)
{
    Sigmoe__ExpertRequest request = SIGMOE__EXPERT_REQUEST__INIT;
    request.call = m->call;
    request.epoch = m->epoch;
    request.budget_us = m->budget_us;
    request.layer = (uint32_t)m->layer;
    request.batch = (uint32_t)m->batch;
    request.dtype = (uint32_t)m->dtype;
    request.reply_dtype = m->reply_dtype == DTYPE_FP8 ? DTYPE_FP8 : 0;
    request.n_row = (uint32_t)m->n_row;
    request.d_wire = (uint32_t)m->d_wire;
    request.n_seg_expert = request.n_seg_count = (size_t)m->n_seg;
    request.seg_expert = (uint32_t *)(uintptr_t)m->seg_expert;
    request.seg_count = (uint32_t *)(uintptr_t)m->seg_count;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_REQUEST;
    header.request = &request;
    int rc = push_header(out, &header);
    if (rc == 0)
        rc = frames_push_buf(out, rows, rows_bytes);
    else
        wirebuf_unref(rows);
    if (rc == 0)
        rc = frames_push_buf(out, row_index, index_bytes);
    else
        wirebuf_unref(row_index);
    if (rc)
        frames_close(out);
    return rc;
}

int msg_build_reply(struct frames *out, const struct msg_reply *m, struct wirebuf *rows,
                    size_t rows_bytes)
{
    Sigmoe__ExpertReply reply = SIGMOE__EXPERT_REPLY__INIT;
    reply.call = m->call;
    reply.layer = (uint32_t)m->layer;
    reply.dtype = (uint32_t)m->dtype;
    reply.n_assign = (uint32_t)m->n_assign;
    reply.d_wire = (uint32_t)m->d_wire;
    reply.queue_ns = m->queue_ns;
    reply.compute_ns = m->compute_ns;
    reply.handle_ns = m->handle_ns;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_REPLY;
    header.reply = &reply;
    int rc = push_header(out, &header);
    if (rc == 0)
        rc = frames_push_buf(out, rows, rows_bytes);
    else
        wirebuf_unref(rows);
    if (rc)
        frames_close(out);
    return rc;
}

int msg_build_not_held(struct frames *out, const struct msg_not_held *m)
{
    Sigmoe__NotHeld not_held = SIGMOE__NOT_HELD__INIT;
    not_held.call = m->call;
    not_held.epoch = m->epoch;
    not_held.layer = (uint32_t)m->layer;
    not_held.n_expert = (size_t)m->n_expert;
    not_held.expert = (uint32_t *)(uintptr_t)m->expert;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_NOT_HELD;
    header.not_held = &not_held;
    return push_header(out, &header);
}

int msg_build_ping(struct frames *out, const struct msg_ping *m)
{
    Sigmoe__Ping ping = SIGMOE__PING__INIT;
    ping.nonce = m->nonce;
    ping.epoch = m->epoch;
    ping.reply = m->reply;
    ping.resident = m->resident;
    ping.available = m->available;
    ping.queued = (uint32_t)m->queued;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_PING;
    header.ping = &ping;
    return push_header(out, &header);
}

/* line_of: a text may quote what a user or a peer wrote; on the wire it is one printable line. */
static void line_of(const char *text, char *out, size_t size)
{
    snprintf(out, size, "%s", text);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

int msg_build_assign(struct frames *out, const struct msg_assign *m)
{
    Sigmoe__Assign assign = SIGMOE__ASSIGN__INIT;
    assign.plan = m->plan;
    assign.drop = m->drop;
    assign.held = (ProtobufCBinaryData){m->held_bytes, (uint8_t *)(uintptr_t)m->held};
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_ASSIGN;
    header.assign = &assign;
    return push_header(out, &header);
}

int msg_build_assigned(struct frames *out, const struct msg_assigned *m)
{
    char text[sizeof(m->text)];
    line_of(m->text, text, sizeof(text));
    Sigmoe__Assigned assigned = SIGMOE__ASSIGNED__INIT;
    assigned.plan = m->plan;
    assigned.state = (uint32_t)m->state;
    assigned.loaded = (uint32_t)m->loaded;
    assigned.total = (uint32_t)m->total;
    assigned.epoch = m->epoch;
    assigned.text = text;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_ASSIGNED;
    header.assigned = &assigned;
    return push_header(out, &header);
}

int msg_build_fetch(struct frames *out, const struct msg_fetch *m)
{
    Sigmoe__Fetch fetch = SIGMOE__FETCH__INIT;
    fetch.call = m->call;
    fetch.layer = (uint32_t)m->layer;
    fetch.expert = (uint32_t)m->expert;
    fetch.part = (uint32_t)m->part;
    fetch.offset = m->offset;
    fetch.bytes = (uint32_t)m->bytes;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_FETCH;
    header.fetch = &fetch;
    return push_header(out, &header);
}

int msg_build_chunk(struct frames *out, const struct msg_chunk *m, struct wirebuf *data)
{
    Sigmoe__Chunk chunk = SIGMOE__CHUNK__INIT;
    chunk.call = m->call;
    chunk.dtype = (uint32_t)m->dtype;
    chunk.rows = (uint32_t)m->rows;
    chunk.cols = (uint32_t)m->cols;
    chunk.offset = m->offset;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_CHUNK;
    header.chunk = &chunk;
    int rc = push_header(out, &header);
    if (rc == 0)
        rc = frames_push_buf(out, data, m->bytes);
    else
        wirebuf_unref(data);
    if (rc)
        frames_close(out);
    return rc;
}

int msg_build_error(struct frames *out, uint64_t call, enum wire_error code, const char *text)
{
    char cut[sizeof(((struct msg_error *)0)->text)];
    line_of(text, cut, sizeof(cut));
    Sigmoe__Error error = SIGMOE__ERROR__INIT;
    error.call = call;
    error.code = (uint32_t)code;
    error.text = cut;
    Sigmoe__Header header = SIGMOE__HEADER__INIT;
    header.kind_case = SIGMOE__HEADER__KIND_ERROR;
    header.error = &error;
    return push_header(out, &header);
}
