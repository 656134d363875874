/* zap: the answer to ZeroMQ's question whether a peer may connect (ZAP, rfc.zeromq.org/spec/27).
 * One a ZeroMQ context; hung into the loop of the worker whose keys it knows. Without it ZeroMQ
 * would accept every key. */
#ifndef PROTO_ZAP_H
#define PROTO_ZAP_H

#include "base/err.h"
#include "proto/keys.h"
#include <ev.h>

#define ZAP_DOMAIN "sigmoe"

struct zap;
/* keys must outlive it. ERR_NET when the context has one already. */
int zap_open(void *zmq_context, struct ev_loop *loop, const struct wire_keys *keys,
             struct zap **out, struct err *err);
void zap_close(struct zap *z); /* NULL is fine */
/* Peers turned away since. */
uint64_t zap_refused(const struct zap *z);

#endif
