/* npy_read: base64 text of a NumPy file of whole numbers with three dimensions, as vLLM returns
 * routing: [token, layer, k]. Strict: anything else is refused. */
#ifndef TOOLS_NPY_READ_H
#define TOOLS_NPY_READ_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

struct npy {
    int n, n_layer, top_k;
    int32_t *id; /* [n, n_layer, top_k]; the caller's to free */
};
/* npy_read: ids must lie from 0 to below `limit`; `what` names the source in messages. */
int npy_read(const char *base64, size_t length, int limit, const char *what, struct npy *out,
             struct err *err);

#endif
