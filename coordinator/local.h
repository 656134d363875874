/* local: experts computed by the coordinator itself, from its own mapping of the checkpoint, when
 * no worker is left that holds them. The worker's own code, hence the same bits; slower, since an
 * expert is packed at its first use. Nothing is loaded until then. */
#ifndef COORDINATOR_LOCAL_H
#define COORDINATOR_LOCAL_H

#include "proto/msg.h"
#include "worker/worker.h"

struct local;
int local_create(const struct model *model, enum precision precision, const struct kernels *k,
                 struct team *team, struct local **out, struct err *err);
void local_destroy(struct local *l);
/* local_compute: request -> out [n_assign, d_wire]; the shape pool_config.local asks for. */
int local_compute(void *local, const struct msg_request *request, void *out, struct err *err);

#endif
