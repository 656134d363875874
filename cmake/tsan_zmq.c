/* tsan_zmq: tells the thread sanitizer what libzmq promises. A message that is received was sent
 * before, but libzmq is not instrumented, so over inproc, where the very buffer is handed over,
 * every read would look like a race with the sender's writes. The linker sends our calls through
 * here
 * (--wrap, thread-sanitizer builds only); the address of the data is what both sides name. Messages
 * that libzmq copies need no word: their bytes are written by code that is not watched. */
#include <sanitizer/tsan_interface.h>
#include <zmq.h>

int __real_zmq_msg_send(zmq_msg_t *msg, void *socket, int flags);
int __wrap_zmq_msg_send(zmq_msg_t *msg, void *socket, int flags);
int __real_zmq_msg_recv(zmq_msg_t *msg, void *socket, int flags);
int __wrap_zmq_msg_recv(zmq_msg_t *msg, void *socket, int flags);

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
