/* rre_table: the fixed random table of Random Routed Experts, which gives each token id its experts
 * within a domain's group. Drawn once, from a seed in words, and stored in the checkpoint; never
 * drawn at load. Pure functions; docs/PANGU_SIGMA.md states the draw. */
#ifndef MODEL_RRE_TABLE_H
#define MODEL_RRE_TABLE_H

#include "base/err.h"
#include <stdint.h>

/* What the row of one domain in one layer depends on. */
struct rre_table {
    const char *seed;   /* "routing_seed" */
    const char *domain; /* its name */
    int layer;          /* number of the layer in the model */
    int vocab, n_expert, top_k;
    const uint64_t *count; /* [vocab] how often a token occurs: balance by that; NULL: by tokens */
};

/* rre_table_draw writes the row [vocab, top_k] of a domain. ERR_NOMEM, or ERR_USAGE for sizes that
 * cannot work (top_k > n_expert). */
int rre_table_draw(const struct rre_table *t, uint16_t *row, struct err *err);
/* rre_table_check refuses a stored row [vocab, top_k] with an entry that is no expert of a group of
 * n_expert, with equal entries of one token, or with an expert that no token has although there are
 * tokens enough (32 an expert; with fewer, a trimmed vocabulary may have left one idle). ERR_MODEL,
 * naming `what` (the tensor) and the domain. */
int rre_table_check(const uint16_t *row, int vocab, int n_expert, int top_k, const char *what,
                    const char *domain, struct err *err);

#endif
