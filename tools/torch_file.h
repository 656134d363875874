/* torch_file: tensors of whole numbers out of a file of torch.save, without torch and without
 * running what a pickle may run: the archive's entries must be stored plainly, and of the pickle
 * only what dictionaries, lists, numbers, texts and tensors are made of is understood. Anything
 * else is refused. */
#ifndef TOOLS_TORCH_FILE_H
#define TOOLS_TORCH_FILE_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

#define TORCH_DIMS_MAX 4

struct torch_tensor {
    int n_dim;
    int64_t dim[TORCH_DIMS_MAX];
    double *value; /* [product of dim], row-major; the caller's to free */
};
/* torch_file_tensor reads the tensor under `key` of the dictionary that the file holds. ERR_MODEL,
 * naming `path`, when the file is something else or has no such tensor of numbers. */
int torch_file_tensor(const char *path, const char *key, struct torch_tensor *out, struct err *err);
/* torch_bytes_tensor: the same from a file's bytes; `path` is used in messages. */
int torch_bytes_tensor(const uint8_t *zip, size_t n, const char *path, const char *key,
                       struct torch_tensor *out, struct err *err);

#endif
