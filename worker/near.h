/* near: coordinators on this host, which share memory with this worker (proto/shm.h). A peer that
 * said Hello over ZeroMQ is told of the door in its Welcome; when it comes in with its token,
 * requests and results travel through the memory, and everything else goes on over ZeroMQ. */
#ifndef WORKER_NEAR_H
#define WORKER_NEAR_H

#include "proto/frames.h"
#include "proto/shm_offer.h"

#include <stdint.h>

struct worker;
struct peer;
struct near;
struct near_link;

/* near_create: NULL when there is no door to be had, which is logged: ZeroMQ does it all then.
 * spin_us: how long the loop looks at the memory before it sleeps. */
struct near *near_create(struct worker *w, int spin_us);
void near_destroy(struct near *near);
/* near_offer: what to tell this peer. Left empty when it should stay with ZeroMQ. */
void near_offer(struct near *near, struct peer *peer, struct shm_offer *out);
/* near_drain takes what the peer pushed: before a message that came by ZeroMQ is acted on, so that
 * the order in which it spoke is kept. */
void near_drain(struct near *near, struct peer *peer);
/* near_send: 0 and the frames are gone; else they are the caller's to send by ZeroMQ. */
int near_send(struct near *near, struct peer *peer, struct frames *f);
/* near_token_is: is it this peer's? */
int near_token_is(const struct near_link *l, const uint8_t token[SHM_TOKEN_BYTES]);
/* near_forget: the peer of this link goes. NULL is fine. */
void near_forget(struct near_link *l);
struct near_stats {
    uint64_t bytes_in, bytes_out;
    int n_link;
};
void near_stats_get(const struct near *near, struct near_stats *out);

#endif
