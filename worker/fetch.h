/* fetch: pieces of the tensors of experts that this worker holds, as its checkpoint stores them,
 * given to who puts a submodel together. Serving comes first: a piece is sent when no request waits
 * (or has made it wait long enough), and no faster than a rate. */
#ifndef WORKER_FETCH_H
#define WORKER_FETCH_H

#include "proto/msg.h"
#include "worker/peers.h"

struct worker;
struct fetch;

/* fetch_create: bytes_s is the rate; 0: nothing is given away. NULL when memory is out. */
struct fetch *fetch_create(struct worker *w, int64_t bytes_s);
void fetch_destroy(struct fetch *f);
/* fetch_take queues a Fetch, or answers at once what is wrong with it. */
void fetch_take(struct fetch *f, const struct sock_peer *from, const struct msg_fetch *m);

#endif
