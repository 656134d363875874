/* sock: a ZeroMQ socket on a libev loop, with the traps of facts taken care of in one place: ZMQ_FD
 * is edge-triggered, so events are re-read after every send and receive and the socket is drained
 * until EAGAIN within a budget; ROUTER is mandatory and never waits; high-water marks are small;
 * LINGER is short; message sizes are capped before allocation; routing ids are the ROUTER's own,
 * fresh for each connection, so that nobody can come back under an id that a dead connection still
 * holds. */
#ifndef PROTO_SOCK_H
#define PROTO_SOCK_H

#include "base/err.h"
#include "proto/frames.h"
#include "proto/keys.h"
#include <ev.h>

enum sock_kind {
    SOCK_SERVE, /* ROUTER, binds: a worker */
    SOCK_CALL   /* DEALER, connects to one worker: a coordinator */
};

/* An address of a peer at a SOCK_SERVE: its routing id. */
struct sock_peer {
    uint8_t bytes;
    uint8_t id[255];
};

struct sock;
struct sock_config {
    enum sock_kind kind;
    const char *endpoint; /* inproc://, ipc://, tcp://; a SOCK_CALL's may end in #KEY, see keys.h */
    /* Encrypts and asks for keys; outlives the socket. NULL: in the clear, and then an endpoint
     * that other hosts reach is refused unless `insecure`. Of no meaning for inproc. */
    const struct wire_keys *keys;
    int insecure;
    /* Of a SOCK_CALL: a SOCK_SERVE on the same loop that is to be its peer, while that one lives,
     * by proto/here.h and without ZeroMQ; or NULL. */
    struct sock *beside;
    int hwm;                   /* messages each way; 0: default 64 */
    int64_t message_bytes_max; /* cap on one frame; 0: LIMIT_PAYLOAD_BYTES */
};

/* on_message is called from the loop for each complete message; `from` is NULL at a SOCK_CALL. It
 * may take the frames with frames_move; what it leaves is closed. It may send, but not close the
 * socket. A message of more than LIMIT_FRAMES frames comes with the first LIMIT_FRAMES. Received
 * frames are 8-byte aligned. */
typedef void sock_fn(void *user, struct sock *sock, const struct sock_peer *from, struct frames *f);

/* sock_open binds or connects and hangs itself into `loop`. A port in use: ERR_NET, in words.
 * Binding tcp port 0 or "*" picks a free port: sock_endpoint tells which. */
int sock_open(void *zmq_context, struct ev_loop *loop, const struct sock_config *config,
              sock_fn *on_message, void *user, struct sock **out, struct err *err);
void sock_close(struct sock *sock);
const char *sock_endpoint(const struct sock *sock);
/* sock_send takes the frames over unless it returns ERR_AGAIN, which leaves them whole with the
 * caller: the peer's queue is full, or a SOCK_CALL is not connected (yet, or any more). ERR_GONE: a
 * SOCK_SERVE has no such peer. 0 says that ZeroMQ has it, not that it arrives. Never waits. `to` is
 * NULL at a SOCK_CALL. */
int sock_send(struct sock *sock, const struct sock_peer *to, struct frames *f);
/* sock_trouble: why a SOCK_CALL is not connected, as far as its peer's side of the handshake says:
 * a line, or NULL. */
const char *sock_trouble(struct sock *sock);
/* sock_is_encrypted: keys were asked for and are used. */
int sock_is_encrypted(const struct sock *sock);
/* Bytes and messages moved, for metrics; peers turned away for their keys. */
struct sock_stats {
    uint64_t bytes_sent, bytes_received, messages_sent, messages_received, refused;
};
void sock_stats_get(const struct sock *sock, struct sock_stats *out);

/* endpoint_check: a well-formed inproc, ipc or tcp endpoint; ERR_USAGE says what is wrong else. */
int endpoint_check(const char *endpoint, struct err *err);
/* endpoint_is_local: no other host can reach it. */
int endpoint_is_local(const char *endpoint);
/* endpoint_split copies an endpoint without the key behind it to address [LIMIT_NAME_BYTES];
 * 1 and the key when there is one, 0 when there is none. The endpoint is a checked one. */
int endpoint_split(const char *endpoint, char *address, uint8_t *key);
/* incarnation_new: 64 random bits of the kernel. */
uint64_t incarnation_new(void);

#endif
