/* fetch: tensors of experts from running workers (Fetch and Chunk of docs/WIRE.md). Each tensor is
 * asked for in pieces, some at once, of the workers that hold its expert, in turn; a worker that
 * falls silent is left out and its pieces are asked of another. */
#ifndef TOOLS_FETCH_H
#define TOOLS_FETCH_H

#include "base/hash.h"
#include "model/weights.h"
#include "proto/msg.h"

struct fetch_client;

/* fetch_open connects to "tcp://a,tcp://b" and says Hello as a guest of the model `desc`. All
 * workers must answer within some seconds and have one fingerprint. key: a file of keys
 * (proto/keys.h), or NULL. ERR_NET, ERR_USAGE, ERR_MODEL.
 */
int fetch_open(const char *list, const struct model_desc *desc, const char *key, int insecure,
               struct fetch_client **out, struct err *err);
void fetch_close(struct fetch_client *c);
struct hash128 fetch_fingerprint(const struct fetch_client *c);
enum dtype fetch_precision(const struct fetch_client *c); /* what the workers compute in */

/* fetch_shape: what a tensor is; cols 0: a vector. */
struct fetch_shape {
    enum dtype dtype;
    int rows, cols;
};
int fetch_tensor_shape(struct fetch_client *c, enum role role, int layer, int expert,
                       struct fetch_shape *out, struct err *err);
/* fetch_tensor: its bytes into data [bytes], which must be all of it. */
int fetch_tensor(struct fetch_client *c, enum role role, int layer, int expert, void *data,
                 uint64_t bytes, struct err *err);

#endif
