/* tok_trie: byte strings to numbers, walked a byte at a time. Two users: added tokens (the longest
 * that begins here) and Unigram (all that begin here). Edges live in one hash table keyed by
 * (node, byte), which takes any fan-out in one probe and is a few lines. */
#ifndef MODEL_TOK_TRIE_H
#define MODEL_TOK_TRIE_H

#include "model/tok_buf.h"

struct tok_edge {
    uint32_t key;   /* node << 8 | byte */
    uint32_t child; /* 0: free slot */
};
struct tok_trie {
    int32_t *value; /* [n_node] -1: no string ends here; node 0 is the root */
    size_t n_node, cap;
    struct tok_edge *edge;
    size_t n_edge, mask;
};

void tok_trie_fini(struct tok_trie *trie);
/* tok_trie_add: a zeroed trie is empty. A string that is there keeps its value unless `replace`. */
int tok_trie_add(struct tok_trie *trie, const char *p, size_t n, int32_t value, bool replace,
                 struct err *err);
static inline size_t tok_trie_hash(uint32_t key)
{
    return (size_t)(key * 0x9e3779b97f4a7c15u >>
                    32); /* Fibonacci hashing: the upper bits are good */
}
/* tok_trie_step: the child of `node` by `byte`, 0 when there is none. */
static inline uint32_t tok_trie_step(const struct tok_trie *trie, uint32_t node, char byte)
{
    uint32_t key = node << 8 | (unsigned char)byte;
    for (size_t i = tok_trie_hash(key);; i++) {
        const struct tok_edge *edge = &trie->edge[i & trie->mask];
        if (edge->child == 0 || edge->key == key)
            return edge->child;
    }
}

#endif
