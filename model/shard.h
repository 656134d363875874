/* shard: one safetensors file, mapped and validated. Inside the room only: checkpoint.c makes a set
 * of shards into a checkpoint, fingerprint.c hashes their headers.
 *
 * The format (huggingface/safetensors README): 8 bytes little-endian n; n bytes of JSON
 * {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__": {str: str}}; then
 * the data, to the end of the file. Accepted is only what has one reading: no duplicate name, no
 * unknown key, each tensor exactly as long as its shape says, the tensors side by side from the
 * first byte of the data to the last. */
#ifndef MODEL_SHARD_H
#define MODEL_SHARD_H

#include "model/checkpoint.h"

struct shard {
    char name[256]; /* file name within the folder */
    int fd;
    const unsigned char *map; /* the whole file, read-only */
    size_t bytes;
    size_t data_begin; /* 8 + n */
    struct tensor *tensor;
    size_t n_tensor;
    char *names; /* storage of the tensors' names */
};

struct checkpoint {
    struct shard *shard;
    int n_shard;
    const struct tensor **tensor; /* of all shards, ordered by name */
    size_t n_tensor;
};

/* shard_open maps DIR/NAME and checks all of the above; `index` goes into the tensors. When it
 * fails nothing is owed. */
int shard_open(const char *dir, const char *name, int index, struct shard *out, struct err *err);
void shard_close(struct shard *shard);

#endif
