/* msg_parse: the only place that trusts nothing. The rules are docs/WIRE.md's, checked in its
 * order: the envelope (frame count, header size, memory to unpack), then the fields of the one
 * kind, then the tensor frames against the fields. Each refusal names the message, the field and
 * the values, and says in `fault` whose fault it is, so that the receiver can answer with it. */
#include "proto/msg.h"
#include "proto/parse_mem.h"
#include "proto/sigmoe.pb-c.h"

#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor frames are little-endian");

#define THREADS_MAX 65536

struct parse {
    const struct frames *f;
    const struct wire_shape *shape;
    struct msg *out;
    struct err *err;
};

__attribute__((format(printf, 3, 4))) static int bad(struct parse *p, enum wire_error fault,
                                                     const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    p->out->fault = fault;
    return err_set(p->err, ERR_PROTO, "%s", text);
}

/* ---- fields that several kinds share ---- */

/* in_range: value of a field that must lie in [min, max]. */
static int in_range(struct parse *p, const char *field, uint32_t value, int min, int max, int *out)
{
    if (value < (uint32_t)min || value > (uint32_t)max)
        return bad(p, WIRE_MALFORMED, "%s is %u; it must be from %d to %d", field, value, min, max);
    *out = (int)value;
    return 0;
}

/* copy_text: a name for logs and tables, so of printable bytes. */
static int copy_text(struct parse *p, const char *field, const char *text, char *out, size_t size)
{
    size_t n = strlen(text);
    if (n >= size)
        return bad(p, WIRE_MALFORMED, "%s has %zu bytes; at most %zu are allowed", field, n,
                   size - 1);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return bad(p, WIRE_MALFORMED, "%s has a control character at byte %zu", field, i);
    memcpy(out, text, n + 1);
    return 0;
}

static int read_hash(struct parse *p, const char *field, const ProtobufCBinaryData *data,
                     struct hash128 *out)
{
    if (data->len != 16)
        return bad(p, WIRE_MALFORMED, "%s has %zu bytes; it must have 16", field, data->len);
    *out = (struct hash128){0};
    for (int i = 0; i < 8; i++) {
        out->hi = out->hi << 8 | data->data[i];
        out->lo = out->lo << 8 | data->data[8 + i];
    }
    return 0;
}

static int read_dtype(struct parse *p, const char *field, uint32_t value, enum dtype *out)
{
    if (value != DTYPE_F32 && value != DTYPE_BF16)
        return bad(p, WIRE_MALFORMED, "%s is %u; rows travel as 1 (f32) or 2 (bf16)", field, value);
    *out = (enum dtype)value;
    return 0;
}

/* The version comes before any other field: they may mean something else in another version. */
static int check_version(struct parse *p, const char *message, uint32_t version)
{
    if (version != WIRE_VERSION)
        return bad(p, WIRE_VERSION_BAD,
                   "%s.version is %u, this side speaks %d; run the same release on both sides",
                   message, version, WIRE_VERSION);
    return 0;
}

static int check_n_frame(struct parse *p, const char *message, int n)
{
    if (p->f->n != n)
        return bad(p, WIRE_MALFORMED, "%s has %d frames%s; it must have %d", message, p->f->n,
                   p->f->n == LIMIT_FRAMES ? " or more" : "", n);
    return 0;
}

/* check_tensor: a frame of rows x cols elements of dtype, neither shorter nor longer. */
static int check_tensor(struct parse *p, const char *message, int frame, const char *what, int rows,
                        int cols, enum dtype dtype)
{
    size_t bytes, have = frames_size(p->f, frame);
    if (mul_size((size_t)rows, wire_row_bytes(dtype, (size_t)cols), &bytes) ||
        bytes > LIMIT_PAYLOAD_BYTES)
        return bad(p, WIRE_MALFORMED, "%s: %s [%d, %d] is more than %ld bytes", message, what, rows,
                   cols, LIMIT_PAYLOAD_BYTES);
    if (have != bytes)
        return bad(p, WIRE_MALFORMED, "%s: frame %d has %zu bytes; %s [%d, %d] has %zu", message,
                   frame, have, what, rows, cols, bytes);
    return 0;
}

/* read_row_dtype: what Hello agreed on, or fp8 where that may be. */
static int read_row_dtype(struct parse *p, const char *field, uint32_t dtype, enum dtype *out)
{
    if (dtype != (uint32_t)p->shape->dtype && !(p->shape->fp8 && dtype == DTYPE_FP8))
        return bad(p, WIRE_DTYPE, "%s is %u (%s); Hello agreed on %s", field, dtype,
                   dtype < DTYPE_COUNT ? dtype_name((enum dtype)dtype) : "unknown",
                   dtype_name(p->shape->dtype));
    *out = (enum dtype)dtype;
    return 0;
}

static int check_d_wire(struct parse *p, const char *message, uint32_t d_wire)
{
    if (d_wire != (uint32_t)p->shape->d_wire)
        return bad(p, WIRE_MALFORMED, "%s.d_wire is %u; rows of this model have %d", message,
                   d_wire, p->shape->d_wire);
    return 0;
}

/* check_experts: ids of this model, ascending, each once. */
static int check_experts(struct parse *p, const char *field, const uint32_t *expert, size_t n)
{
    if (n < 1 || n > (size_t)p->shape->n_expert)
        return bad(p, WIRE_MALFORMED, "%s has %zu experts; it must have from 1 to %d", field, n,
                   p->shape->n_expert);
    for (size_t i = 0; i < n; i++) {
        if (expert[i] >= (uint32_t)p->shape->n_expert)
            return bad(p, WIRE_MALFORMED, "%s[%zu] is %u; experts of this model are below %d",
                       field, i, expert[i], p->shape->n_expert);
        if (i && expert[i] <= expert[i - 1])
            return bad(p, WIRE_MALFORMED, "%s[%zu] is %u after %u; experts must ascend", field, i,
                       expert[i], expert[i - 1]);
    }
    return 0;
}

/* ---- the kinds ---- */

static int parse_hello(struct parse *p, const Sigmoe__Hello *in)
{
    struct msg_hello *m = &p->out->u.hello;
    int rc = check_version(p, "Hello", in->version);
    rc = rc ? rc : check_n_frame(p, "Hello", 1);
    rc = rc ? rc : read_hash(p, "Hello.fingerprint", &in->fingerprint, &m->fingerprint);
    if (!rc && in->incarnation == 0)
        rc = bad(p, WIRE_MALFORMED, "Hello.incarnation is 0; it must be a random number");
    m->incarnation = in->incarnation;
    rc = rc ? rc : copy_text(p, "Hello.name", in->name, m->name, sizeof(m->name));
    rc = rc ? rc : copy_text(p, "Hello.numerics", in->numerics, m->numerics, sizeof(m->numerics));
    rc = rc ? rc : read_dtype(p, "Hello.dtype", in->dtype, &m->dtype);
    rc = rc ? rc : in_range(p, "Hello.n_layer", in->n_layer, 1, LIMIT_LAYERS, &m->n_layer);
    rc = rc ? rc : in_range(p, "Hello.n_expert", in->n_expert, 1, LIMIT_EXPERTS, &m->n_expert);
    rc = rc ? rc : in_range(p, "Hello.d_wire", in->d_wire, 1, LIMIT_D_MODEL, &m->d_wire);
    return rc;
}

/* check_held: one bit an expert, and none behind the last. */
static int check_held(struct parse *p, const char *message, const ProtobufCBinaryData *held)
{
    size_t max = (size_t)LIMIT_LAYERS * LIMIT_EXPERTS / 8;
    if (!p->shape) {
        if (held->len > max)
            return bad(p, WIRE_MALFORMED, "%s.held has %zu bytes; at most %zu are allowed", message,
                       held->len, max);
        return 0;
    }
    size_t n_bit = (size_t)p->shape->n_layer * (size_t)p->shape->n_expert, want = (n_bit + 7) / 8;
    if (held->len != want)
        return bad(p, WIRE_MALFORMED, "%s.held has %zu bytes; %d layers of %d experts need %zu",
                   message, held->len, p->shape->n_layer, p->shape->n_expert, want);
    if (n_bit % 8 && held->data[want - 1] >> (n_bit % 8))
        return bad(p, WIRE_MALFORMED, "%s.held has bits set behind the last expert", message);
    return 0;
}

/* read_offer: a name and a token, or neither. */
static int read_offer(struct parse *p, const Sigmoe__Welcome *in, struct shm_offer *out)
{
    size_t want = in->door[0] ? SHM_TOKEN_BYTES : 0;
    int rc = copy_text(p, "Welcome.door", in->door, out->name, sizeof(out->name));
    if (!rc && in->door_token.len != want)
        rc = bad(p, WIRE_MALFORMED, "Welcome.door_token has %zu bytes; it must have %zu",
                 in->door_token.len, want);
    if (!rc && want)
        memcpy(out->token, in->door_token.data, want);
    return rc;
}

static int parse_welcome(struct parse *p, const Sigmoe__Welcome *in)
{
    struct msg_welcome *m = &p->out->u.welcome;
    int rc = check_version(p, "Welcome", in->version);
    rc = rc ? rc : check_n_frame(p, "Welcome", 1);
    rc = rc ? rc : read_hash(p, "Welcome.fingerprint", &in->fingerprint, &m->fingerprint);
    if (!rc && in->incarnation == 0)
        rc = bad(p, WIRE_MALFORMED, "Welcome.incarnation is 0; it must be a random number");
    m->incarnation = in->incarnation;
    m->epoch = in->epoch;
    rc = rc ? rc : copy_text(p, "Welcome.name", in->name, m->name, sizeof(m->name));
    rc = rc ? rc : copy_text(p, "Welcome.numerics", in->numerics, m->numerics, sizeof(m->numerics));
    rc = rc ? rc : read_dtype(p, "Welcome.dtype", in->dtype, &m->dtype);
    rc = rc ? rc : in_range(p, "Welcome.credits", in->credits, 1, LIMIT_CREDITS, &m->credits);
    rc = rc ? rc : in_range(p, "Welcome.row_limit", in->row_limit, 1, LIMIT_ROWS, &m->row_limit);
    rc = rc ? rc : in_range(p, "Welcome.threads", in->threads, 0, THREADS_MAX, &m->threads);
    rc = rc ? rc : check_held(p, "Welcome", &in->held);
    rc = rc ? rc : read_offer(p, in, &m->offer);
    m->held = in->held.data;
    m->held_bytes = in->held.len;
    m->resident = in->resident;
    m->available = in->available;
    m->fp8 = in->fp8 != 0;
    return rc;
}

/* read_segments: counts in range and their sum, which is n_assign. A row has top_k slots, so no
 * request can have more assignments than n_row * top_k; this bounds what the receiver allocates. */
static int read_segments(struct parse *p, const Sigmoe__ExpertRequest *in, struct msg_request *m)
{
    if (in->n_seg_count != in->n_seg_expert)
        return bad(p, WIRE_MALFORMED, "ExpertRequest.seg_count has %zu entries, seg_expert %zu",
                   in->n_seg_count, in->n_seg_expert);
    int rc = check_experts(p, "ExpertRequest.seg_expert", in->seg_expert, in->n_seg_expert);
    if (rc)
        return rc;
    int64_t n_assign = 0, n_slot = (int64_t)m->n_row * p->shape->top_k;
    for (size_t i = 0; i < in->n_seg_count; i++) {
        if (in->seg_count[i] < 1 || in->seg_count[i] > (uint32_t)m->n_row)
            return bad(p, WIRE_MALFORMED,
                       "ExpertRequest.seg_count[%zu] is %u; it must be from 1 to n_row, %d", i,
                       in->seg_count[i], m->n_row);
        n_assign += in->seg_count[i];
    }
    if (n_assign > n_slot)
        return bad(p, WIRE_MALFORMED,
                   "ExpertRequest: %lld assignments; %d rows of a top-%d model have at most %lld",
                   (long long)n_assign, m->n_row, p->shape->top_k, (long long)n_slot);
    m->n_seg = (int)in->n_seg_expert;
    m->n_assign = (int)n_assign;
    m->seg_expert = in->seg_expert;
    m->seg_count = in->seg_count;
    return 0;
}

static int check_row_index(struct parse *p, const int32_t *index, int n, int n_row)
{
    for (int i = 0; i < n; i++)
        if (index[i] < 0 || index[i] >= n_row)
            return bad(p, WIRE_MALFORMED,
                       "ExpertRequest: row index %d of assignment %d is not below n_row, %d",
                       index[i], i, n_row);
    return 0;
}

static int parse_request(struct parse *p, const Sigmoe__ExpertRequest *in)
{
    struct msg_request *m = &p->out->u.request;
    const struct wire_shape *s = p->shape;
    if (in->call == 0)
        return bad(p, WIRE_MALFORMED, "ExpertRequest.call is 0; calls are counted from 1");
    m->call = in->call;
    m->epoch = in->epoch;
    m->budget_us = in->budget_us;
    int rc = in_range(p, "ExpertRequest.layer", in->layer, 0, s->n_layer - 1, &m->layer);
    rc = rc ? rc : in_range(p, "ExpertRequest.batch", in->batch, 0, INT32_MAX, &m->batch);
    rc = rc ? rc : read_row_dtype(p, "ExpertRequest.dtype", in->dtype, &m->dtype);
    rc = rc ? rc
            : read_row_dtype(p, "ExpertRequest.reply_dtype",
                             in->reply_dtype ? in->reply_dtype : (uint32_t)s->dtype,
                             &m->reply_dtype);
    rc = rc ? rc : check_d_wire(p, "ExpertRequest", in->d_wire);
    m->d_wire = s->d_wire;
    rc = rc ? rc : in_range(p, "ExpertRequest.n_row", in->n_row, 1, s->row_limit, &m->n_row);
    rc = rc ? rc : read_segments(p, in, m);
    rc = rc ? rc : check_n_frame(p, "ExpertRequest", 3);
    rc = rc ? rc : check_tensor(p, "ExpertRequest", 1, "rows", m->n_row, m->d_wire, m->dtype);
    rc = rc ? rc : check_tensor(p, "ExpertRequest", 2, "row indices", m->n_assign, 1, DTYPE_I32);
    if (rc)
        return rc;
    m->rows = frames_data(p->f, 1);
    m->row_index = frames_data(p->f, 2);
    return check_row_index(p, m->row_index, m->n_assign, m->n_row);
}

static int parse_reply(struct parse *p, const Sigmoe__ExpertReply *in)
{
    struct msg_reply *m = &p->out->u.reply;
    const struct wire_shape *s = p->shape;
    if (in->call == 0)
        return bad(p, WIRE_MALFORMED, "ExpertReply.call is 0; calls are counted from 1");
    m->call = in->call;
    m->queue_ns = in->queue_ns;
    m->compute_ns = in->compute_ns;
    m->handle_ns = in->handle_ns;
    int rc = in_range(p, "ExpertReply.layer", in->layer, 0, s->n_layer - 1, &m->layer);
    rc = rc ? rc : read_row_dtype(p, "ExpertReply.dtype", in->dtype, &m->dtype);
    rc = rc ? rc : check_d_wire(p, "ExpertReply", in->d_wire);
    m->d_wire = s->d_wire;
    rc = rc ? rc
            : in_range(p, "ExpertReply.n_assign", in->n_assign, 1, LIMIT_ROWS * s->top_k,
                       &m->n_assign);
    rc = rc ? rc : check_n_frame(p, "ExpertReply", 2);
    rc = rc ? rc : check_tensor(p, "ExpertReply", 1, "rows", m->n_assign, m->d_wire, m->dtype);
    if (rc)
        return rc;
    m->rows = frames_data(p->f, 1);
    return 0;
}

static int parse_not_held(struct parse *p, const Sigmoe__NotHeld *in)
{
    struct msg_not_held *m = &p->out->u.not_held;
    if (in->call == 0)
        return bad(p, WIRE_MALFORMED, "NotHeld.call is 0; calls are counted from 1");
    m->call = in->call;
    m->epoch = in->epoch;
    int rc = check_n_frame(p, "NotHeld", 1);
    rc = rc ? rc : in_range(p, "NotHeld.layer", in->layer, 0, p->shape->n_layer - 1, &m->layer);
    rc = rc ? rc : check_experts(p, "NotHeld.expert", in->expert, in->n_expert);
    m->n_expert = (int)in->n_expert;
    m->expert = in->expert;
    return rc;
}

static int parse_ping(struct parse *p, const Sigmoe__Ping *in)
{
    struct msg_ping *m = &p->out->u.ping;
    m->nonce = in->nonce;
    m->epoch = in->epoch;
    m->reply = in->reply != 0;
    m->resident = in->resident;
    m->available = in->available;
    int rc = check_n_frame(p, "Ping", 1);
    return rc ? rc : in_range(p, "Ping.queued", in->queued, 0, INT32_MAX, &m->queued);
}

static int parse_error(struct parse *p, const Sigmoe__Error *in)
{
    struct msg_error *m = &p->out->u.error;
    int code = 0;
    m->call = in->call;
    int rc = check_n_frame(p, "Error", 1);
    rc = rc ? rc : in_range(p, "Error.code", in->code, WIRE_MALFORMED, WIRE_INTERNAL, &code);
    rc = rc ? rc : copy_text(p, "Error.text", in->text, m->text, sizeof(m->text));
    m->code = (enum wire_error)code;
    return rc;
}

static int parse_assign(struct parse *p, const Sigmoe__Assign *in)
{
    struct msg_assign *m = &p->out->u.assign;
    if (in->plan == 0)
        return bad(p, WIRE_MALFORMED, "Assign.plan is 0; plans are counted from 1");
    m->plan = in->plan;
    m->drop = in->drop != 0;
    m->held = in->held.data;
    m->held_bytes = in->held.len;
    int rc = check_n_frame(p, "Assign", 1);
    return rc ? rc : check_held(p, "Assign", &in->held);
}

static int parse_assigned(struct parse *p, const Sigmoe__Assigned *in)
{
    struct msg_assigned *m = &p->out->u.assigned;
    int state = 0, most = p->shape->n_layer * p->shape->n_expert;
    if (in->plan == 0)
        return bad(p, WIRE_MALFORMED, "Assigned.plan is 0; plans are counted from 1");
    m->plan = in->plan;
    m->epoch = in->epoch;
    int rc = check_n_frame(p, "Assigned", 1);
    rc = rc ? rc : in_range(p, "Assigned.state", in->state, ASSIGN_LOADING, ASSIGN_FAILED, &state);
    m->state = (enum assign_state)state;
    rc = rc ? rc : in_range(p, "Assigned.total", in->total, 0, most, &m->total);
    rc = rc ? rc : in_range(p, "Assigned.loaded", in->loaded, 0, m->total, &m->loaded);
    return rc ? rc : copy_text(p, "Assigned.text", in->text, m->text, sizeof(m->text));
}

static int parse_fetch(struct parse *p, const Sigmoe__Fetch *in)
{
    struct msg_fetch *m = &p->out->u.fetch;
    int part = 0;
    if (in->call == 0)
        return bad(p, WIRE_MALFORMED, "Fetch.call is 0; calls are counted from 1");
    m->call = in->call;
    m->offset = in->offset;
    int rc = check_n_frame(p, "Fetch", 1);
    rc = rc ? rc : in_range(p, "Fetch.layer", in->layer, 0, p->shape->n_layer - 1, &m->layer);
    rc = rc ? rc : in_range(p, "Fetch.expert", in->expert, 0, p->shape->n_expert - 1, &m->expert);
    rc = rc ? rc : in_range(p, "Fetch.part", in->part, FETCH_GATE, FETCH_DOWN_BIAS, &part);
    rc = rc ? rc : in_range(p, "Fetch.bytes", in->bytes, 0, LIMIT_CHUNK_BYTES, &m->bytes);
    m->part = (enum fetch_part)part;
    return rc;
}

static int parse_chunk(struct parse *p, const Sigmoe__Chunk *in)
{
    struct msg_chunk *m = &p->out->u.chunk;
    if (in->call == 0)
        return bad(p, WIRE_MALFORMED, "Chunk.call is 0; calls are counted from 1");
    if (in->dtype != DTYPE_F32 && in->dtype != DTYPE_BF16 && in->dtype != DTYPE_F16)
        return bad(p, WIRE_MALFORMED, "Chunk.dtype is %u; it must be 1 (f32), 2 (bf16) or 3 (f16)",
                   in->dtype);
    m->call = in->call;
    m->dtype = (enum dtype)in->dtype;
    int rc = in_range(p, "Chunk.rows", in->rows, 1, LIMIT_D_FF, &m->rows);
    rc = rc ? rc : in_range(p, "Chunk.cols", in->cols, 0, LIMIT_D_FF, &m->cols);
    rc = rc ? rc : check_n_frame(p, "Chunk", 2);
    if (rc)
        return rc;
    uint64_t total = (uint64_t)m->rows * (uint64_t)(m->cols ? m->cols : 1) * dtype_bytes(m->dtype);
    m->bytes = frames_size(p->f, 1);
    if (m->bytes > LIMIT_CHUNK_BYTES)
        return bad(p, WIRE_MALFORMED, "Chunk: frame 1 has %zu bytes; at most %d are allowed",
                   m->bytes, LIMIT_CHUNK_BYTES);
    if (in->offset > total || m->bytes > total - in->offset)
        return bad(p, WIRE_MALFORMED,
                   "Chunk: %zu bytes from byte %llu are not within a tensor of %llu", m->bytes,
                   (unsigned long long)in->offset, (unsigned long long)total);
    m->offset = in->offset;
    m->data = frames_data(p->f, 1);
    return 0;
}

/* ---- the envelope ---- */

static uint64_t call_of(const Sigmoe__Header *h)
{
    switch (h->kind_case) {
    case SIGMOE__HEADER__KIND_REQUEST:
        return h->request->call;
    case SIGMOE__HEADER__KIND_REPLY:
        return h->reply->call;
    case SIGMOE__HEADER__KIND_NOT_HELD:
        return h->not_held->call;
    case SIGMOE__HEADER__KIND_ERROR:
        return h->error->call;
    case SIGMOE__HEADER__KIND_FETCH:
        return h->fetch->call;
    case SIGMOE__HEADER__KIND_CHUNK:
        return h->chunk->call;
    default:
        return 0;
    }
}

static int parse_kind(struct parse *p, const Sigmoe__Header *h)
{
    static const char *const early = "%s came before Hello and Welcome; say Hello first";
    switch (h->kind_case) {
    case SIGMOE__HEADER__KIND_HELLO:
        p->out->kind = MSG_HELLO;
        return parse_hello(p, h->hello);
    case SIGMOE__HEADER__KIND_WELCOME:
        p->out->kind = MSG_WELCOME;
        return parse_welcome(p, h->welcome);
    case SIGMOE__HEADER__KIND_REQUEST:
        p->out->kind = MSG_REQUEST;
        return p->shape ? parse_request(p, h->request)
                        : bad(p, WIRE_NO_HELLO, early, "ExpertRequest");
    case SIGMOE__HEADER__KIND_REPLY:
        p->out->kind = MSG_REPLY;
        return p->shape ? parse_reply(p, h->reply) : bad(p, WIRE_NO_HELLO, early, "ExpertReply");
    case SIGMOE__HEADER__KIND_NOT_HELD:
        p->out->kind = MSG_NOT_HELD;
        return p->shape ? parse_not_held(p, h->not_held) : bad(p, WIRE_NO_HELLO, early, "NotHeld");
    case SIGMOE__HEADER__KIND_PING:
        p->out->kind = MSG_PING;
        return parse_ping(p, h->ping);
    case SIGMOE__HEADER__KIND_ERROR:
        p->out->kind = MSG_ERROR;
        return parse_error(p, h->error);
    case SIGMOE__HEADER__KIND_ASSIGN:
        p->out->kind = MSG_ASSIGN;
        return p->shape ? parse_assign(p, h->assign) : bad(p, WIRE_NO_HELLO, early, "Assign");
    case SIGMOE__HEADER__KIND_ASSIGNED:
        p->out->kind = MSG_ASSIGNED;
        return p->shape ? parse_assigned(p, h->assigned) : bad(p, WIRE_NO_HELLO, early, "Assigned");
    case SIGMOE__HEADER__KIND_FETCH:
        p->out->kind = MSG_FETCH;
        return p->shape ? parse_fetch(p, h->fetch) : bad(p, WIRE_NO_HELLO, early, "Fetch");
    case SIGMOE__HEADER__KIND_CHUNK:
        p->out->kind = MSG_CHUNK;
        return p->shape ? parse_chunk(p, h->chunk) : bad(p, WIRE_NO_HELLO, early, "Chunk");
    default:
        return bad(p, WIRE_MALFORMED, "the header is of no kind this version knows");
    }
}

/* needs_memory: kinds whose struct points into the unpacked header. */
static int needs_memory(enum msg_kind kind)
{
    return kind == MSG_WELCOME || kind == MSG_REQUEST || kind == MSG_NOT_HELD || kind == MSG_ASSIGN;
}

int msg_parse(const struct frames *frames, const struct wire_shape *shape, struct msg *out,
              uint64_t *call_out, struct err *err)
{
    struct parse p = {.f = frames, .shape = shape, .out = out, .err = err};
    out->kind = 0;
    out->fault = 0;
    out->parsed = NULL;
    if (call_out)
        *call_out = 0;
    if (frames->n < 1)
        return bad(&p, WIRE_MALFORMED, "a message without frames");
    size_t bytes = frames_size(frames, 0);
    if (bytes < 1 || bytes > LIMIT_HEADER_BYTES)
        return bad(&p, WIRE_MALFORMED, "the header has %zu bytes; it must have from 1 to %d", bytes,
                   LIMIT_HEADER_BYTES);
    struct parse_mem *mem = parse_mem_create(bytes);
    if (!mem) {
        out->fault = WIRE_INTERNAL;
        return err_set(err, ERR_NOMEM, "no memory to read a header of %zu bytes", bytes);
    }
    Sigmoe__Header *header =
        sigmoe__header__unpack(parse_mem_allocator(mem), bytes, frames_data(frames, 0));
    if (!header) {
        parse_mem_destroy(mem);
        return bad(&p, WIRE_MALFORMED, "the header of %zu bytes is no protobuf of this wire",
                   bytes);
    }
    if (call_out)
        *call_out = call_of(header);
    int rc = parse_kind(&p, header);
    if (rc == 0 && needs_memory(out->kind))
        out->parsed = mem;
    else
        parse_mem_destroy(mem);
    return rc;
}

void msg_free(struct msg *m)
{
    parse_mem_destroy(m->parsed);
    m->parsed = NULL;
}
