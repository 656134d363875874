/* frames: thin over zmq_msg_t, so that nothing above this room sees ZeroMQ's rules about messages:
 * a part is initialised when it is counted in n, and closed exactly once. */
#include "proto/frames.h"

#include "base/err.h"

#include <string.h>

void frames_init(struct frames *f)
{
    f->n = 0;
}

void frames_close(struct frames *f)
{
    for (int i = 0; i < f->n; i++)
        zmq_msg_close(&f->part[i]);
    f->n = 0;
}

void frames_move(struct frames *dst, struct frames *src)
{
    for (int i = 0; i < src->n; i++) {
        zmq_msg_init(&dst->part[i]);
        zmq_msg_move(&dst->part[i], &src->part[i]);
        zmq_msg_close(&src->part[i]);
    }
    dst->n = src->n;
    src->n = 0;
}

/* ZeroMQ's accessors take the message without const though they only read it. */
static zmq_msg_t *part_of(const struct frames *f, int part)
{
    return (zmq_msg_t *)(uintptr_t)&f->part[part];
}

const void *frames_data(const struct frames *f, int part)
{
    return zmq_msg_data(part_of(f, part));
}

size_t frames_size(const struct frames *f, int part)
{
    return zmq_msg_size(part_of(f, part));
}

static void release(void *data, void *hint)
{
    (void)data;
    wirebuf_unref(hint);
}

int frames_push_buf(struct frames *f, struct wirebuf *b, size_t bytes)
{
    int rc = ERR_LIMIT;
    if (f->n < LIMIT_FRAMES && bytes <= wirebuf_capacity(b)) {
        rc = ERR_NOMEM;
        if (zmq_msg_init_data(&f->part[f->n], wirebuf_data(b), bytes, release, b) == 0) {
            f->n++;
            return 0;
        }
    }
    wirebuf_unref(b);
    return rc;
}

int frames_push_borrowed(struct frames *f, void *data, size_t bytes,
                         void (*release_fn)(void *data, void *hint), void *hint)
{
    if (f->n >= LIMIT_FRAMES)
        return ERR_LIMIT;
    if (zmq_msg_init_data(&f->part[f->n], data, bytes, release_fn, hint) != 0)
        return ERR_NOMEM;
    f->n++;
    return 0;
}

int frames_push_copy(struct frames *f, const void *data, size_t bytes)
{
    void *at = frames_push_space(f, bytes);
    if (!at)
        return f->n < LIMIT_FRAMES ? ERR_NOMEM : ERR_LIMIT;
    if (bytes)
        memcpy(at, data, bytes);
    return 0;
}

void *frames_push_space(struct frames *f, size_t bytes)
{
    if (f->n >= LIMIT_FRAMES || zmq_msg_init_size(&f->part[f->n], bytes) != 0)
        return NULL;
    return zmq_msg_data(&f->part[f->n++]);
}
