/* shm: a connection beside a ZeroMQ one, for two processes of one user on one host: two rings
 * (proto/ring.h) in a memory both map, and a Unix socket that passes the memory, rings the other
 * side's bell when it sleeps, and tells when it is gone.
 *
 * The serving side has a door: an abstract socket whose name it tells over ZeroMQ together with a
 * token. The calling side comes in, each side asks the kernel whether the other is of its own user,
 * the caller hands over sealed memory and the token, and the server says that it is up. An abstract
 * name reaches no other host, so that it cannot be found says that the two are on different ones.
 *
 * The socket carries single bytes, never data:
 *     caller -> server   key (struct shm_key, with the memory's descriptor)
 *     server -> caller   'U'  up: from here on both sides may push
 *     either             'D'  the bell
 *     either             'B'  bye: I leave on purpose, go on over ZeroMQ
 * An end without 'B' is a death. */
#ifndef PROTO_SHM_H
#define PROTO_SHM_H

#include "base/err.h"
#include "proto/frames.h"
#include "proto/shm_offer.h"
#include <ev.h>

#define SHM_RING_MIN ((size_t)64 << 10)
#define SHM_RING_MAX ((size_t)64 << 20)

/* ---- a link: either side's end ---- */

struct shm_link;
/* shm_connect makes the memory, of rings with room for about so many bytes each way (rounded up,
 * within SHM_RING_MIN and _MAX), and hands it over. ERR_NET: there is no such door here; else what
 * the system refuses. Until shm_wake says SHM_UP nothing may be sent. */
int shm_connect(const struct shm_offer *offer, size_t to_bytes, size_t from_bytes,
                struct shm_link **out, struct err *err);
/* shm_close: bye says that it is on purpose. Frames that lie in the memory stay good. NULL is fine.
 */
void shm_close(struct shm_link *link, int bye);
/* shm_fd: readable when shm_wake has something to say. */
int shm_fd(const struct shm_link *link);
enum shm_event {
    SHM_NOTHING, /* a bell, or nothing at all */
    SHM_UP,
    SHM_BYE, /* the other side goes on without; what it pushed before may be popped */
    SHM_GONE /* the other side has ended */
};
enum shm_event shm_wake(struct shm_link *link);
/* shm_send copies the frames into the ring, rings if need be and releases them. ERR_AGAIN: no room;
 * ERR_PROTO: the other side has spoiled its words: close the link. The frames are left then. */
int shm_send(struct shm_link *link, struct frames *f);
/* shm_recv: as ring_pop. */
int shm_recv(struct shm_link *link, struct frames *f, struct err *err);
int shm_ready(const struct shm_link *link);
/* shm_park before sleeping on shm_fd: 1: do not, something is there. shm_unpark after it. */
int shm_park(struct shm_link *link);
void shm_unpark(struct shm_link *link);
struct shm_stats {
    uint64_t bytes_sent, bytes_received, messages_sent, messages_received;
    uint64_t refused; /* sends that found no room */
};
void shm_stats_get(const struct shm_link *link, struct shm_stats *out);

/* ---- the door ---- */

struct shm_door;
/* on_link: somebody of our user came in with this token. 0: the link is taken, and is up; else it
 * is closed. */
typedef int shm_door_fn(void *user, const uint8_t token[SHM_TOKEN_BYTES], struct shm_link *link);
int shm_door_open(struct ev_loop *loop, shm_door_fn *on_link, void *user, struct shm_door **out,
                  struct err *err);
void shm_door_close(struct shm_door *door); /* NULL is fine */
const char *shm_door_name(const struct shm_door *door);
/* shm_token_new: random. */
void shm_token_new(uint8_t out[SHM_TOKEN_BYTES]);

/* ---- between the two files of this noun ---- */

/* The first datagram of a caller; the memory's descriptor comes with it. */
struct shm_key {
    char magic[8]; /* SHM_MAGIC */
    uint8_t token[SHM_TOKEN_BYTES];
    uint64_t to_bytes, from_bytes; /* of the rings, as the caller sees them */
};
#define SHM_MAGIC "sigmoe1"
/* shm_accept makes the server's end from what came; takes both descriptors over in any case. */
int shm_accept(const struct shm_key *key, int memory_fd, int socket_fd, struct shm_link **out,
               struct err *err);
/* shm_same_user: the process at the other end of a Unix socket runs as our user. */
int shm_same_user(int fd);

#endif
