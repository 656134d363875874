/* tok_merge: the merging of a word's symbols, by what tok_bpe.h holds. */
#ifndef MODEL_TOK_MERGE_H
#define MODEL_TOK_MERGE_H

#include "model/tok_bpe.h"

/* Up to this many symbols the linear search wins over the heap (measured on Chinese clauses). */
#define TOK_SHORT_MAX 96

static inline size_t tok_pair_hash(uint64_t pair)
{
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ h >> 32) * 0x85ebca6bu;
}

/* tok_rank_of: the pair's rank, and in *id what it becomes; TOK_NO_RANK: it does not merge. */
static inline uint32_t tok_rank_of(const struct tok_bpe *bpe, int32_t left, int32_t right,
                                   int32_t *id)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (size_t i = tok_pair_hash(pair) >> 8 & bpe->mask;; i = (i + 1) & bpe->mask) {
        const struct tok_merge *m = &bpe->merge[i];
        if (m->pair == pair) {
            *id = m->id;
            return m->rank;
        }
        if (m->pair == TOK_NO_PAIR)
            return TOK_NO_RANK;
    }
}

struct tok_symbols *tok_symbols_create(void); /* NULL: memory */
void tok_symbols_destroy(struct tok_symbols *s);

/* tok_merge_short merges id[0..n) in place, n up to TOK_SHORT_MAX, and returns how many are left.
 * bytes: where the symbols are those of bytes[0..n), else NULL. */
size_t tok_merge_short(const struct tok_bpe *bpe, int32_t *id, size_t n, const char *bytes);
/* tok_merge_long appends to out what id[0..n) becomes, n of any size. */
int tok_merge_long(const struct tok_bpe *bpe, const struct tok_ids *ids, struct tok_ids *out);

#endif
