/* copy: a checkpoint made from another one, tensor by tensor; what upcycle and extract share. Bytes
 * go through a ck_writer in pieces, so memory stays bounded whatever the model's size; SIGINT and
 * SIGTERM are asked for between pieces and end the copy like an error: nothing half-written stays.
 */
#ifndef TOOLS_COPY_H
#define TOOLS_COPY_H

#include "base/report.h"
#include "model/checkpoint.h"

#include <jansson.h>
#include <signal.h>

struct copy {
    struct ck_writer *writer;
    struct progress progress;
    uint64_t bytes; /* of all declared tensors */
    sigset_t stop, old;
    struct err *err;
};

/* copy_open begins the temporary folder beside `out` and blocks the two signals. Then copy_declare
 * for every tensor, copy_begin, and copy_data in the order of the declarations; files at any time.
 * copy_close is due after a copy_open that succeeded. */
int copy_open(struct copy *c, const char *out, int64_t shard_bytes, struct err *err);
int copy_declare(struct copy *c, const char *name, enum dtype dtype, int n_dim,
                 const uint64_t *dim);
int copy_begin(struct copy *c, const char *label);
int copy_data(struct copy *c, const void *data, uint64_t bytes);
/* copy_data_end wipes the progress bar. */
void copy_data_end(struct copy *c);
/* copy_interrupted: ERR_IO with a text once a signal has come; for long work between pieces. */
int copy_interrupted(struct copy *c);
/* copy_text, copy_json write a small file; copy_json takes over `root` (NULL: out of memory).
 * copy_file copies DIR/NAME where it is there. */
int copy_text(struct copy *c, const char *name, const char *text);
int copy_json(struct copy *c, const char *name, json_t *root);
int copy_file(struct copy *c, const char *dir, const char *name);
/* copy_companions copies what lies beside the weights and is not changed: tokenizer, chat template,
 * generation config, licence. `but` lists names to leave out, or is NULL; both lists end in NULL.
 */
int copy_companions(struct copy *c, const char *dir, const char *const *but);
/* copy_close commits when rc is 0 and removes everything when it is not; returns the outcome. */
int copy_close(struct copy *c, int rc);

#endif
