/* assign: what a coordinator tells this worker to hold, carried out while it serves. */
#ifndef WORKER_ASSIGN_H
#define WORKER_ASSIGN_H

#include "proto/msg.h"
#include "worker/peers.h"

struct worker;
struct assign;

/* assign_create: NULL when memory is out. */
struct assign *assign_create(struct worker *w);
void assign_destroy(struct assign *a);
/* assign_take begins (or, when it is the one at hand, reports on) an Assign and answers it. */
void assign_take(struct assign *a, const struct sock_peer *from, const struct msg_assign *m);

#endif
