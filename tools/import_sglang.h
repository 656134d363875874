/* import_sglang: what the two halves of that importer share: the records of a dump in the modes
 * per_pass and per_token. */
#ifndef TOOLS_IMPORT_SGLANG_H
#define TOOLS_IMPORT_SGLANG_H

#include "tools/import.h"
#include "tools/torch_file.h"

struct sglang_records {
    const struct torch_file *file;
    const struct pickle_node *list; /* at least one */
    struct torch_tensor map;        /* [layers, copies] the expert of each copy, below n_expert */
    int n_expert;
};

/* import_sglang_tokens: mode per_token. */
int import_sglang_tokens(struct import *import, const struct sglang_records *records,
                         struct err *err);

#endif
