/* tok_unigram: the segmentation of highest total score under a unigram language model (Kudo, ACL
 * 2018), by Viterbi over byte positions, as SentencePiece and the reference do it: a character that
 * no token covers costs ten below the worst score; neighbours of that kind fuse into one unknown
 * token, or become byte tokens. */
#ifndef MODEL_TOK_UNIGRAM_H
#define MODEL_TOK_UNIGRAM_H

#include "model/tok_trie.h"
#include "model/tok_vocab.h"

struct tok_node;

struct tok_unigram {
    const struct tok_vocab *vocab;
    struct tok_trie trie;
    double *score; /* by id */
    size_t n_score, cap;
    double score_min;
    int32_t unk; /* -1: none */
    bool byte_fallback;
    int32_t byte_id[256];
    bool all_bytes;
    struct tok_node *node; /* scratch */
    size_t node_cap;
    struct tok_ids ids;
};

/* tok_unigram_init: vocab outlives it. tok_unigram_add for each token that is already in vocab,
 * then tok_unigram_finish. */
void tok_unigram_init(struct tok_unigram *uni, const struct tok_vocab *vocab, int32_t unk,
                      bool byte_fallback);
int tok_unigram_add(struct tok_unigram *uni, int32_t id, double score, struct err *err);
void tok_unigram_finish(struct tok_unigram *uni);
void tok_unigram_fini(struct tok_unigram *uni);
/* tok_unigram_encode appends the ids of p[0..n), valid UTF-8. */
int tok_unigram_encode(struct tok_unigram *uni, const char *p, size_t n, struct tok_ids *out,
                       struct err *err);

#endif
