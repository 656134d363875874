/* grammar_vocab: a vocabulary as a trie of bytes, so that a beginning which many tokens share is
 * tested once. Nodes lie in preorder: a walk is one pass over an array, and what cannot follow is
 * skipped by one jump. Immutable once made. */
#ifndef COORDINATOR_GRAMMAR_VOCAB_H
#define COORDINATOR_GRAMMAR_VOCAB_H

#include "coordinator/grammar.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define GRAMMAR_TOKEN_BYTES_MAX 512 /* longer tokens are never offered */

struct grammar_node {
    uint32_t next;  /* the first node behind this subtree */
    uint32_t token; /* its tokens are order[token .. the next node's token) */
    uint16_t depth; /* bytes up to here; the root 0 */
    uint8_t byte;
};

struct grammar_vocab {
    atomic_int refs;
    int32_t n_id;
    size_t *begin; /* [n_id + 1] into bytes; empty: never offered */
    char *bytes;
    int32_t *order; /* [n_token] ids, by their bytes */
    uint32_t n_token, n_node, depth_max;
    struct grammar_node *node; /* [n_node + 1], the last one only ends lists */
    int32_t *eos;              /* [n_eos] */
    size_t n_eos;
    bool ascii; /* not every byte above ASCII is a token */
};

bool grammar_vocab_is_eos(const struct grammar_vocab *v, int32_t id);

#endif
