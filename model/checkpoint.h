/* checkpoint: the tensors of a safetensors checkpoint, one file or a sharded index, read-only by
 * mmap. Every header is validated before a tensor is handed out: size cap, UTF-8 JSON without
 * duplicate keys, known dtypes, shape product and offsets by checked arithmetic, no overlap, no
 * gap, full coverage of the file, shard names without a path. Format: huggingface/safetensors
 * README. */
#ifndef MODEL_CHECKPOINT_H
#define MODEL_CHECKPOINT_H

#include "base/dtype.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/limits.h"
#include "model/desc.h"
#include <stddef.h>
#include <stdint.h>

struct checkpoint;

struct tensor {
    const char *name;
    enum dtype dtype;       /* DTYPE_NONE for a type we can list but not compute with */
    const char *dtype_name; /* as in the file: "BF16", "I64" */
    int n_dim;
    uint64_t dim[LIMIT_ST_DIMS];
    const void *data; /* inside the mapping, valid while the checkpoint is open */
    uint64_t bytes;
    int shard;
};

/* checkpoint_open maps DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json
 * names. Nothing is read but the headers. ERR_MODEL or ERR_IO with a text. */
int checkpoint_open(const char *dir, struct checkpoint **out, struct err *err);
void checkpoint_close(struct checkpoint *ck);
size_t checkpoint_n_tensor(const struct checkpoint *ck);
const struct tensor *checkpoint_at(const struct checkpoint *ck, size_t i); /* ordered by name */
const struct tensor *checkpoint_find(const struct checkpoint *ck, const char *name); /* or NULL */
int checkpoint_n_shard(const struct checkpoint *ck);
const char *checkpoint_shard_name(const struct checkpoint *ck, int shard);
uint64_t checkpoint_bytes(const struct checkpoint *ck); /* of all files, headers included */
/* checkpoint_want asks the kernel to read a tensor's pages ahead; it does not wait. */
void checkpoint_want(const struct checkpoint *ck, const struct tensor *t);
/* checkpoint_done tells the kernel that a tensor's pages will not be read again, so that a packed
 * copy and the file's pages do not both count as resident. */
void checkpoint_done(const struct checkpoint *ck, const struct tensor *t);

/* checkpoint_role finds a tensor by role and checks that its shape is what `desc` says and its
 * dtype is one of f32, bf16, f16; u16 for a table. */
int checkpoint_role(const struct checkpoint *ck, const struct model_desc *desc, enum role role,
                    int layer, int expert, const struct tensor **out, struct err *err);

/* model_fingerprint: what Hello compares. XXH3 over the canonical config fields and, for each
 * shard, the header bytes (names, shapes, offsets) and a sample of the data (first and last 4 KiB
 * of every tensor), so that two checkpoints of one shape with other weights differ. Fast: no full
 * read. */
int model_fingerprint(const char *dir, const struct model_desc *desc, const struct checkpoint *ck,
                      struct hash128 *out, struct err *err);

/* A writer, for synth and the tools after it: tensors are declared first, then their bytes are
 * streamed in that order; shards are cut at shard_bytes; written to a temporary folder beside `dir`
 * and renamed by writer_commit, so nothing half-written stays behind. */
struct ck_writer;
int ck_writer_open(const char *dir, uint64_t shard_bytes, struct ck_writer **out, struct err *err);
int ck_writer_declare(struct ck_writer *w, const char *name, enum dtype dtype, int n_dim,
                      const uint64_t *dim, struct err *err);
/* ck_writer_begin ends the declarations; ck_writer_data appends bytes of the tensors in order. */
int ck_writer_begin(struct ck_writer *w, struct err *err);
int ck_writer_data(struct ck_writer *w, const void *data, size_t bytes, struct err *err);
/* ck_writer_file writes a small file (config.json) beside the shards. */
int ck_writer_file(struct ck_writer *w, const char *name, const void *data, size_t bytes,
                   struct err *err);
/* ck_writer_finish completes the tensors, index included, so that the folder at ck_writer_path can
 * be opened as a checkpoint before it gets its name; files may still be added. ck_writer_commit
 * does it where nobody did. */
int ck_writer_finish(struct ck_writer *w, struct err *err);
const char *ck_writer_path(const struct ck_writer *w);
int ck_writer_commit(struct ck_writer *w, struct err *err); /* destroys w in any case */
void ck_writer_abort(struct ck_writer *w);

#endif
