/* tok_bpe: byte pair encoding. A word is cut into symbols (bytes, or characters with byte
 * fallback); then, as long as there is one, the adjacent pair of the lowest rank is merged, the
 * leftmost first among equals (Sennrich et al., ACL 2016). One engine serves the rank lists of
 * tokenizer.json and the score order of SentencePiece and llama2.c, whose scores become ranks at
 * open.
 *
 * The merge table is the hot structure: an open-addressing hash from a pair of ids to (rank, id).
 */
#ifndef MODEL_TOK_BPE_H
#define MODEL_TOK_BPE_H

#include "model/tok_vocab.h"

struct tok_merge {
    uint64_t pair; /* left << 32 | right; TOK_NO_PAIR: free */
    uint32_t rank;
    int32_t id;
};
#define TOK_NO_PAIR UINT64_MAX
#define TOK_NO_RANK UINT32_MAX

struct tok_symbols; /* scratch of long words */
struct tok_word;    /* the word cache */

struct tok_bpe {
    const struct tok_vocab *vocab;
    struct tok_merge *merge;
    size_t n_merge, mask;
    bool byte_fallback, ignore_merges, fuse_unk;
    int32_t unk;           /* -1: none; characters without a token vanish, as in the reference */
    int32_t byte_id[256];  /* byte space: the symbol; else: the token "<0x..>" */
    bool all_bytes;        /* every byte_id is there */
    int32_t ascii_id[128]; /* character space: the symbol of each ASCII character, or -1 */
    uint32_t *byte_rank;   /* byte space: [256 * 256] rank of two bytes */
    bool cut_at_space;     /* no merge crosses into a U+2581, so words may be cut before it */
    struct tok_symbols *scratch;
    struct tok_ids word; /* scratch: the symbols of the word at hand */
    struct tok_word *cache;
};

/* tok_bpe_init: vocab is complete and outlives bpe. Then tok_bpe_merge for each merge, then
 * tok_bpe_finish. tok_bpe_fini at any time. */
int tok_bpe_init(struct tok_bpe *bpe, const struct tok_vocab *vocab, size_t n_merge,
                 struct err *err);
int tok_bpe_merge(struct tok_bpe *bpe, int32_t left, int32_t right, int32_t id, uint32_t rank,
                  struct err *err);
int tok_bpe_finish(struct tok_bpe *bpe, struct err *err);
void tok_bpe_fini(struct tok_bpe *bpe);
/* tok_bpe_merge_splits adds every pair of tokens that joins to token id, at rank: what "merge the
 * best-scored neighbour" means in SentencePiece. */
int tok_bpe_merge_splits(struct tok_bpe *bpe, int32_t id, uint32_t rank, struct err *err);

/* tok_bpe_encode appends the ids of one word, p[0..n): bytes in byte space, else valid UTF-8. */
int tok_bpe_encode(struct tok_bpe *bpe, const char *p, size_t n, struct tok_ids *out,
                   struct err *err);

#endif
