/* msg: build and check of each message. The only place that parses: whoever holds a `struct msg`
 * may rely on every rule of docs/WIRE.md (sizes match frames, ids in range of the limits and of
 * `shape`, counts add up), so that code behind it indexes without checks. */
#ifndef PROTO_MSG_H
#define PROTO_MSG_H

#include "base/dtype.h"
#include "base/err.h"
#include "base/hash.h"
#include "proto/frames.h"
#include "proto/shm_offer.h"
#include <stdint.h>

#define WIRE_VERSION 1
/* Requests a coordinator may have outstanding at a worker. */
#define LIMIT_CREDITS 65536

enum msg_kind {
    MSG_HELLO = 1,
    MSG_WELCOME,
    MSG_REQUEST,
    MSG_REPLY,
    MSG_NOT_HELD,
    MSG_PING,
    MSG_ERROR,
    MSG_ASSIGN,
    MSG_ASSIGNED,
    MSG_FETCH,
    MSG_CHUNK
};

/* Whose fault an Error is. */
enum wire_error {
    WIRE_MALFORMED = 1, /* the message breaks the rules */
    WIRE_VERSION_BAD = 2,
    WIRE_FINGERPRINT = 3, /* another model */
    WIRE_DTYPE = 4,       /* another precision */
    WIRE_NO_HELLO = 5,    /* a request before Hello: say Hello again */
    WIRE_BUSY = 6,        /* more requests outstanding than credits */
    WIRE_INTERNAL = 7     /* the worker failed */
};

/* What the model at hand allows; a message is checked against it. */
struct wire_shape {
    int n_layer, n_expert, d_wire, row_limit, top_k;
    enum dtype dtype;
    int fp8; /* rows may also travel as that (base/dtype.h); dtype is bf16 */
};

struct msg_hello {
    struct hash128 fingerprint;
    uint64_t incarnation;
    char name[LIMIT_NAME_BYTES], numerics[32];
    enum dtype dtype;
    int n_layer, n_expert, d_wire;
};
struct msg_welcome {
    struct hash128 fingerprint;
    uint64_t incarnation, epoch;
    char name[LIMIT_NAME_BYTES], numerics[32];
    enum dtype dtype;
    int credits, row_limit, threads;
    const uint8_t *held; /* bitmap, see proto; points into the message's parse memory */
    size_t held_bytes;
    struct shm_offer offer;
    uint64_t resident, available; /* bytes of memory it has, may take besides; 0: untold */
    int fp8;                      /* rows may travel as that, both ways */
};
/* Frame 1: rows [n_row, d_wire] of dtype (wire_row_bytes), unpadded, 8-byte aligned. Frame 2: int32
 * row index of each assignment [n_assign], segment after segment, each < n_row. */
struct msg_request {
    uint64_t call, epoch, budget_us;
    int layer, batch, n_row, d_wire, n_seg, n_assign;
    enum dtype dtype, reply_dtype;
    const uint32_t *seg_expert, *seg_count; /* [n_seg]; experts ascending, counts > 0 */
    const void *rows;
    const int32_t *row_index;
};
/* Frame 1: [n_assign, d_wire] of dtype, in the request's assignment order. */
struct msg_reply {
    uint64_t call, queue_ns, compute_ns, handle_ns;
    int layer, n_assign, d_wire;
    enum dtype dtype;
    const void *rows;
};
struct msg_not_held {
    uint64_t call, epoch;
    int layer, n_expert;
    const uint32_t *expert;
};
struct msg_ping {
    uint64_t nonce, epoch, resident, available;
    int reply, queued;
};
/* What a worker shall hold: bitmap as in Welcome. Without `drop` it loads what it lacks; with it,
 * it also drops the rest. */
struct msg_assign {
    uint64_t plan;
    int drop;
    const uint8_t *held; /* points into the message's parse memory */
    size_t held_bytes;
};
enum assign_state {
    ASSIGN_NONE, /* never on the wire: nothing heard yet */
    ASSIGN_LOADING,
    ASSIGN_DONE,
    ASSIGN_FAILED
};
/* How far a worker is with a plan. */
struct msg_assigned {
    uint64_t plan, epoch;
    enum assign_state state;
    int loaded, total;
    char text[256]; /* why it failed */
};
/* Which tensor of an expert. */
enum fetch_part {
    FETCH_GATE = 1,
    FETCH_UP,
    FETCH_DOWN,
    FETCH_GATE_BIAS,
    FETCH_UP_BIAS,
    FETCH_DOWN_BIAS
};
/* A piece of an expert's tensor, as the checkpoint stores it; bytes 0 asks only what it is. */
struct msg_fetch {
    uint64_t call, offset;
    int layer, expert, bytes;
    enum fetch_part part;
};
/* Frame 1: `bytes` from `offset` of a tensor [rows, cols] (cols 0: [rows]); they lie within it. */
struct msg_chunk {
    uint64_t call, offset;
    enum dtype dtype; /* f32, bf16 or f16 */
    int rows, cols;
    size_t bytes;
    const void *data;
};
struct msg_error {
    uint64_t call;
    enum wire_error code;
    char text[512];
};

struct msg {
    enum msg_kind kind;
    union {
        struct msg_hello hello;
        struct msg_welcome welcome;
        struct msg_request request;
        struct msg_reply reply;
        struct msg_not_held not_held;
        struct msg_ping ping;
        struct msg_error error;
        struct msg_assign assign;
        struct msg_assigned assigned;
        struct msg_fetch fetch;
        struct msg_chunk chunk;
    } u;
    enum wire_error fault; /* set when msg_parse fails: the code of the Error to answer with */
    void *parsed;          /* private: the protobuf tree, freed by msg_free */
};

/* msg_parse checks frames against the rules and `shape` (NULL before a Hello: only Hello, Welcome,
 * Ping and Error pass then; a coordinator knows its model and gives its shape with the Welcome,
 * whose `held` is checked against it). Pointers in *out live while `out` does and `frames` is not
 * moved: move first, then parse. ERR_PROTO with a line that names the message, the field and the
 * values, or ERR_NOMEM. On failure nothing is owed, but out->fault says whose fault it is,
 * out->kind what it was (0: nothing known) and *call_out (may be NULL) has the call id if there was
 * one to read, so that an Error can name them. */
int msg_parse(const struct frames *frames, const struct wire_shape *shape, struct msg *out,
              uint64_t *call_out, struct err *err);
void msg_free(struct msg *m);

/* Builders append frames to `out`, which is empty. Tensor frames come as wirebufs whose reference
 * is taken over (in any case). 0 or ERR_NOMEM / ERR_LIMIT, `out` being empty then. What lies in a
 * wirebuf may be on the wire from here on: it is not written again. */
int msg_build_hello(struct frames *out, const struct msg_hello *m);
int msg_build_welcome(struct frames *out, const struct msg_welcome *m);
int msg_build_request(struct frames *out, const struct msg_request *m, struct wirebuf *rows,
                      size_t rows_bytes, struct wirebuf *row_index, size_t index_bytes);
int msg_build_reply(struct frames *out, const struct msg_reply *m, struct wirebuf *rows,
                    size_t rows_bytes);
int msg_build_not_held(struct frames *out, const struct msg_not_held *m);
int msg_build_ping(struct frames *out, const struct msg_ping *m);
int msg_build_assign(struct frames *out, const struct msg_assign *m);
/* The text is cut and made printable, as an Error's is. */
int msg_build_assigned(struct frames *out, const struct msg_assigned *m);
int msg_build_fetch(struct frames *out, const struct msg_fetch *m);
int msg_build_chunk(struct frames *out, const struct msg_chunk *m, struct wirebuf *data);
int msg_build_error(struct frames *out, uint64_t call, enum wire_error code, const char *text);

#endif
