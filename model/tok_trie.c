/* See tok_trie.h. Node numbers fit 24 bits, which bounds a trie at 16 million bytes of strings. */
#include "model/tok_trie.h"
#include <stdlib.h>

#define NODES_MAX (1u << 24)

void tok_trie_fini(struct tok_trie *trie)
{
    free(trie->value);
    free(trie->edge);
    memset(trie, 0, sizeof *trie);
}

static void edge_put(struct tok_trie *trie, uint32_t key, uint32_t child)
{
    size_t i = tok_trie_hash(key);
    while (trie->edge[i & trie->mask].child)
        i++;
    trie->edge[i & trie->mask] = (struct tok_edge){key, child};
}

static int edge_room(struct tok_trie *trie)
{
    if (trie->edge && (trie->n_edge + 1) * 2 <= trie->mask + 1)
        return 0;
    size_t size = trie->edge ? (trie->mask + 1) * 2 : 1024,
           old_size = trie->edge ? trie->mask + 1 : 0;
    struct tok_edge *old = trie->edge, *edge = calloc(size, sizeof *edge);
    if (!edge)
        return ERR_NOMEM;
    trie->edge = edge;
    trie->mask = size - 1;
    for (size_t i = 0; i < old_size; i++)
        if (old[i].child)
            edge_put(trie, old[i].key, old[i].child);
    free(old);
    return 0;
}

static int node_new(struct tok_trie *trie)
{
    if (trie->n_node == NODES_MAX ||
        tok_grow((void **)&trie->value, &trie->cap, trie->n_node + 1, sizeof *trie->value))
        return ERR_NOMEM;
    trie->value[trie->n_node++] = -1;
    return 0;
}

int tok_trie_add(struct tok_trie *trie, const char *p, size_t n, int32_t value, bool replace,
                 struct err *err)
{
    if (edge_room(trie) || (trie->n_node == 0 && node_new(trie)))
        return tok_nomem(err);
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t child = tok_trie_step(trie, node, p[i]);
        if (!child) {
            if (trie->n_node == NODES_MAX)
                return err_set(err, ERR_LIMIT,
                               "tokenizer: the vocabulary has more than 16 million "
                               "different prefixes; it is not supported");
            child = (uint32_t)trie->n_node;
            if (node_new(trie) || edge_room(trie))
                return tok_nomem(err);
            edge_put(trie, node << 8 | (unsigned char)p[i], child);
            trie->n_edge++;
        }
        node = child;
    }
    if (trie->value[node] < 0 || replace)
        trie->value[node] = value;
    return 0;
}
