/* routes: a file of which experts each token chose, layer by layer (docs/TRACE.md has the bytes).
 * Compact (ids packed to the bits that the number of experts needs), seekable (an index of blocks
 * at the end), checksummed block by block, versioned. Written as it is recorded, sequences
 * interleaved; read block by block. Reader and writer see bytes through callbacks, so that the same
 * code runs on files, on memory and under a fuzzer.
 *
 * Everything from a file is checked before it is used: ERR_MODEL, one line, with the offset. */
#ifndef ROUTER_ROUTES_H
#define ROUTER_ROUTES_H

#include "base/err.h"
#include "base/limits.h"
#include <stddef.h>
#include <stdint.h>

#define ROUTES_VERSION      1
#define ROUTES_NAME_MAX     128 /* bytes of a model's or a domain's name, NUL included */
#define ROUTES_DOMAINS_MAX  LIMIT_DOMAINS
#define ROUTES_BLOCK_TOKENS 1024 /* tokens that a writer gathers before it writes a block */

/* What a whole file is about. */
struct routes_spec {
    char model[ROUTES_NAME_MAX];
    int n_layer, n_expert, top_k; /* n_layer: sparse layers recorded */
    int has_weight, has_token;
    int32_t layer[LIMIT_LAYERS]; /* [n_layer] which layers of the model they are, ascending */
    int n_domain;
    char (*domain)[ROUTES_NAME_MAX]; /* [n_domain]; a reader owns its own */
};

/* Consecutive tokens of one sequence. */
struct routes_run {
    uint64_t seq;      /* identifies the sequence within the file */
    int32_t domain;    /* index of its label; -1: none */
    int32_t first_pos; /* position of its first token in the sequence */
    int32_t n_token;
    int begins, ends; /* the sequence's first token is in it; its last one is */
    uint64_t time_us; /* when it was computed, since the recording began; 0: unknown */
};

/* A decoded block; arrays belong to the reader and live until its next call. */
struct routes_block {
    int n_run, n_token;
    const struct routes_run *run; /* [n_run]; their tokens follow one another */
    const int32_t *token;         /* [n_token], or NULL */
    const int32_t *expert;        /* [n_layer, n_token, top_k]; -1: empty slot */
    const float *weight;          /* [n_layer, n_token, top_k], or NULL */
};

/* Where bytes come from. read_at fills out with exactly n bytes at offset. close, by routes_close;
 * may be NULL. */
struct routes_source {
    void *self;
    uint64_t size;
    int (*read_at)(void *self, uint64_t offset, void *out, size_t n, struct err *err);
    void (*close)(void *self);
};
struct routes_reader;
/* routes_reader_create checks the header and the index; `name` is used in messages. On failure the
 * source stays the caller's to close. routes_open: of a file. */
int routes_reader_create(const struct routes_source *source, const char *name,
                         struct routes_reader **out, struct err *err);
int routes_open(const char *path, struct routes_reader **out, struct err *err);
/* The same of a file that has no index: its blocks in order, up to the first that is not whole. */
int routes_reader_recover(const struct routes_source *source, const char *name,
                          struct routes_reader **out, struct err *err);
int routes_open_cut_off(const char *path, struct routes_reader **out, struct err *err);
void routes_close(struct routes_reader *r);
const struct routes_spec *routes_spec_of(const struct routes_reader *r);
int64_t routes_n_token(const struct routes_reader *r);
int routes_n_block(const struct routes_reader *r);
/* routes_block_of: the block that holds token `index` of the file, or -1. */
int routes_block_of(const struct routes_reader *r, int64_t index);
/* routes_block_first: index of the first token of block i. */
int64_t routes_block_first(const struct routes_reader *r, int i);
/* routes_read decodes block i. */
int routes_read(struct routes_reader *r, int i, struct routes_block *out, struct err *err);

/* Where bytes go, in order. end, when the writer is gone: whole says whether the file is; may be
 * NULL. */
struct routes_sink {
    void *self;
    int (*write)(void *self, const void *bytes, size_t n, struct err *err);
    int (*end)(void *self, int whole, struct err *err);
};
struct routes_writer;
/* routes_writer_create writes the header. spec is copied, its domains too; more can be added. */
int routes_writer_create(const struct routes_sink *sink, const struct routes_spec *spec,
                         struct routes_writer **out, struct err *err);
/* routes_create: into a new file, which is called PATH.part until it is whole. */
int routes_create(const char *path, const struct routes_spec *spec, struct routes_writer **out,
                  struct err *err);
/* routes_writer_domain: the index of a label, added if it is new; negative on failure. */
int routes_writer_domain(struct routes_writer *w, const char *label, struct err *err);
/* routes_write adds one run. token [n_token] or NULL; expert, weight [n_layer, n_token, top_k],
 * strides of a layer in slots (ld >= n_token * top_k); weight may be NULL when the file has none.
 * A run longer than a block is cut. An id outside the spec is refused with nothing written. */
int routes_write(struct routes_writer *w, const struct routes_run *run, const int32_t *token,
                 const int32_t *expert, const float *weight, size_t ld, struct err *err);
/* routes_finish writes the last block and the index. The writer is gone after it, failed or not;
 * routes_abandon drops it, and the file with it. */
int routes_finish(struct routes_writer *w, struct err *err);
void routes_abandon(struct routes_writer *w);

#endif
