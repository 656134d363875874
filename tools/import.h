/* import: what other programs recorded of their routing, as route files. One importer a format;
 * each learns the shape from what it reads, begins the file and writes runs. Input is from
 * anywhere: sizes are checked before they are believed, and a refusal names the file and the place.
 */
#ifndef TOOLS_IMPORT_H
#define TOOLS_IMPORT_H

#include "base/err.h"
#include "router/routes.h"

/* Where an import goes, and what the user said about it. */
struct import {
    const char *from, *to;
    const char *model;            /* name to write down; NULL: what the source says */
    const char *domain;           /* label of what has none; NULL: none */
    int top_k;                    /* csv: slots a token; 0: 1 */
    int n_expert;                 /* 0: what the source says, or its highest id and 1 */
    int recover;                  /* routes: read a file that was cut off */
    struct routes_writer *writer; /* once begun */
    int64_t n_token;
};

struct import_kind {
    const char *name, *about;
    int (*run)(struct import *import, struct err *err);
};
/* import_find: NULL when there is no such kind; import_at: the i-th, NULL behind the last. */
const struct import_kind *import_find(const char *name);
const struct import_kind *import_at(int i);
/* import_guess: the kind a file's name suggests, or NULL. */
const struct import_kind *import_guess(const char *path);

/* import_plain refuses files that are compressed, in words that say how to unpack them. */
int import_plain(const char *path, struct err *err);

/* import_run reads import->from and leaves a whole file under import->to, or nothing. */
int import_run(const struct import_kind *kind, struct import *import, struct err *err);

/* For the importers. import_begin makes the writer; import_label gives a domain's index, -1 for
 * NULL; import_put writes a run and counts it. */
int import_begin(struct import *import, const struct routes_spec *spec, struct err *err);
int import_label(struct import *import, const char *label, int *out, struct err *err);
int import_put(struct import *import, const struct routes_run *run, const int32_t *token,
               const int32_t *expert, const float *weight, size_t ld, struct err *err);

int import_scores(struct import *import, struct err *err);
int import_routes(struct import *import, struct err *err);
int import_csv(struct import *import, struct err *err);
int import_esft(struct import *import, struct err *err);
int import_sglang(struct import *import, struct err *err);
int import_vllm(struct import *import, struct err *err);

#endif
