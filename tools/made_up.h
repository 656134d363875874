/* made_up: tokens for counts. Where a source tells only how often each expert was chosen, tokens of
 * one slot are made up so that any stretch of them has the counts' proportions. */
#ifndef TOOLS_MADE_UP_H
#define TOOLS_MADE_UP_H

#include "tools/import.h"

/* made_up_tokens writes a whole file: spec's layers and experts (top_k becomes 1), count [n_layer,
 * n_expert] >= 0. As many tokens as the fullest layer counts, at most 65536; a layer that counts
 * nothing has empty slots. */
int made_up_tokens(struct import *import, struct routes_spec *spec, const double *count,
                   struct err *err);

#endif
