/* frames: one multipart message in hand. Frame 0 is the protobuf header; tensors follow, raw,
 * little-endian, and are never copied: a received frame is used where ZeroMQ put it, a sent frame
 * points at the caller's buffer until ZeroMQ (on its own thread) releases it. */
#ifndef PROTO_FRAMES_H
#define PROTO_FRAMES_H

#include "base/limits.h"
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

struct frames {
    int n;
    zmq_msg_t part[LIMIT_FRAMES];
};

void frames_init(struct frames *f);
/* frames_close releases every part; f is empty after it. */
void frames_close(struct frames *f);
/* frames_move: dst, which is empty, takes what src has; src is empty after it. */
void frames_move(struct frames *dst, struct frames *src);
/* frames_data: 8-byte aligned (proto/sock.h sees to it for what is received). Small frames lie
 * inside struct frames itself: the address holds until f is moved or closed. */
const void *frames_data(const struct frames *f, int part);
size_t frames_size(const struct frames *f, int part);

/* wirebuf: reference-counted, 64-byte aligned slabs for frames to be sent, recycled without a
 * system call. A slab returns to its pool when the last reference goes, on whichever thread. */
struct wirebuf_pool;
struct wirebuf;
struct wirebuf_pool *wirebuf_pool_create(void);
/* wirebuf_pool_destroy waits for nothing: slabs still out free the pool with the last of them. */
void wirebuf_pool_destroy(struct wirebuf_pool *pool);
/* wirebuf_get: a slab of at least `bytes`, one reference; NULL when memory is out. */
struct wirebuf *wirebuf_get(struct wirebuf_pool *pool, size_t bytes);
void *wirebuf_data(struct wirebuf *b);
size_t wirebuf_capacity(const struct wirebuf *b);
void wirebuf_ref(struct wirebuf *b);
void wirebuf_unref(struct wirebuf *b); /* NULL is fine */
/* frames_push_buf appends a frame of the first `bytes` of b and takes over one reference. Returns 0
 * or ERR_LIMIT/ERR_NOMEM, the reference being dropped in any case. */
int frames_push_buf(struct frames *f, struct wirebuf *b, size_t bytes);
/* frames_push_borrowed appends a frame of memory that is another's; `release` is called when the
 * frame is closed: by frames_close on its thread, or on ZeroMQ's if it was sent. */
int frames_push_borrowed(struct frames *f, void *data, size_t bytes,
                         void (*release)(void *data, void *hint), void *hint);
/* frames_push_copy appends a copy of small data. */
int frames_push_copy(struct frames *f, const void *data, size_t bytes);
/* frames_push_space appends a frame of `bytes` for the caller to fill; NULL when full or out of
 * memory. The address holds until f is moved (ZeroMQ keeps small messages inside struct frames). */
void *frames_push_space(struct frames *f, size_t bytes);

#endif
