/* upcycle: a dense model made sparse without changing its function: every expert is the layer's FFN
 * (Komatsuzaki et al., "Sparse Upcycling", arXiv 2212.05055). Inside the tool only: the command
 * (upcycle.c), the new config (upcycle_config.c), the tensors (upcycle_write.c). */
#ifndef TOOLS_UPCYCLE_H
#define TOOLS_UPCYCLE_H

#include "model/weights.h"
#include "tools/copy.h"

struct upcycle {
    /* As the options give them. */
    const char *out, *form, *domains, *sizes, *seed, *counts_path, *default_domain;
    int64_t per_domain, n_sparse, n_expert, top_k, shard_size;
    int own_embeddings; /* every domain gets an embedding table of its own */

    struct model *dense;
    struct model_desc desc; /* of the model to write */
    json_t *config;         /* its config.json */
    uint64_t *counts;       /* [vocab] how often each token occurs, or NULL */
    struct copy copy;
    struct err *err;
};

/* upcycle_config makes u->config and u->desc from the dense model and the options. ERR_USAGE when
 * the form cannot hold this model, in words. */
int upcycle_config(struct upcycle *u);
/* upcycle_write writes the checkpoint to u->out. */
int upcycle_write(struct upcycle *u);

#endif
