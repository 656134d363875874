/* torch_file: tensors of whole numbers out of a file of torch.save, without torch and without
 * running what a pickle may run: the archive's entries must be stored plainly, and of the pickle
 * only what dictionaries, lists, numbers, texts and tensors are made of is understood. Anything
 * else is refused. */
#ifndef TOOLS_TORCH_FILE_H
#define TOOLS_TORCH_FILE_H

#include "base/err.h"
#include "tools/pickle.h"
#include <stddef.h>
#include <stdint.h>

#define TORCH_DIMS_MAX 4

struct torch_tensor {
    int n_dim;
    int64_t dim[TORCH_DIMS_MAX];
    double *value; /* [product of dim], row-major; the caller's to free */
};
struct torch_file;
/* torch_file_open: ERR_MODEL, naming `path`, when the file is something else. */
int torch_file_open(const char *path, struct torch_file **out, struct err *err);
void torch_file_close(struct torch_file *f);
/* torch_file_root: what was saved; lives as long as f. */
const struct pickle_node *torch_file_root(const struct torch_file *f);
/* torch_file_tensor reads the tensor under `key` of a dictionary of the file. ERR_MODEL when there
 * is no such tensor of numbers. */
int torch_file_tensor(const struct torch_file *f, const struct pickle_node *dict, const char *key,
                      struct torch_tensor *out, struct err *err);
/* torch_bytes_tensor: of the dictionary that a file's bytes hold; `path` is used in messages. */
int torch_bytes_tensor(const uint8_t *zip, size_t n, const char *path, const char *key,
                       struct torch_tensor *out, struct err *err);

#endif
