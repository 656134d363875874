/* tsan_zmq: tells the thread sanitizer what libzmq promises: a message that is received was sent
 * before, and its memory is freed after everyone has closed it. libzmq is not instrumented, so over
 * inproc, where the very buffer is handed over, every read would look like a race with the sender's
 * writes. The linker sends our calls through here (--wrap, thread-sanitizer builds only); the
 * address of the data is what both sides name. Small messages that libzmq copies need no word:
 * their bytes are written by code that is not watched. */
#include <sanitizer/tsan_interface.h>
#include <stdlib.h>
#include <zmq.h>

int __real_zmq_msg_send(zmq_msg_t *msg, void *socket, int flags);
int __wrap_zmq_msg_send(zmq_msg_t *msg, void *socket, int flags);
int __real_zmq_msg_recv(zmq_msg_t *msg, void *socket, int flags);
int __wrap_zmq_msg_recv(zmq_msg_t *msg, void *socket, int flags);
int __real_zmq_msg_close(zmq_msg_t *msg);
int __wrap_zmq_msg_close(zmq_msg_t *msg);
int __real_zmq_msg_init_data(zmq_msg_t *msg, void *data, size_t bytes, zmq_free_fn *fn, void *hint);
int __wrap_zmq_msg_init_data(zmq_msg_t *msg, void *data, size_t bytes, zmq_free_fn *fn, void *hint);

struct owner {
    zmq_free_fn *fn;
    void *hint;
};

int __wrap_zmq_msg_send(zmq_msg_t *msg, void *socket, int flags)
{
    __tsan_release(zmq_msg_data(msg));
    return __real_zmq_msg_send(msg, socket, flags);
}

int __wrap_zmq_msg_recv(zmq_msg_t *msg, void *socket, int flags)
{
    int rc = __real_zmq_msg_recv(msg, socket, flags);
    if (rc >= 0)
        __tsan_acquire(zmq_msg_data(msg));
    return rc;
}

int __wrap_zmq_msg_close(zmq_msg_t *msg)
{
    __tsan_release(zmq_msg_data(msg));
    return __real_zmq_msg_close(msg);
}

static void give_back(void *data, void *hint)
{
    struct owner owner = *(struct owner *)hint;
    free(hint);
    __tsan_acquire(data);
    if (owner.fn)
        owner.fn(data, owner.hint);
}

int __wrap_zmq_msg_init_data(zmq_msg_t *msg, void *data, size_t bytes, zmq_free_fn *fn, void *hint)
{
    struct owner *owner = malloc(sizeof(*owner));
    if (!owner)
        return -1;
    *owner = (struct owner){fn, hint};
    int rc = __real_zmq_msg_init_data(msg, data, bytes, give_back, owner);
    if (rc != 0)
        free(owner);
    return rc;
}
