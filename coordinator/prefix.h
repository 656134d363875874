/* prefix: which pages of the KV cache hold which tokens, so that a sequence that begins like an
 * earlier one takes over its pages instead of computing them. A tree: a node is one full page, its
 * way from the root the tokens of all positions up to the page's last. It is a radix tree whose
 * edges are all one page long: a page cannot be cut, so there is nothing to split or to join, and
 * children are found through one hash table keyed by (parent, tokens). Keys are compared token by
 * token, so two prompts of one hash are no danger. A node's number is its page's number: as many
 * nodes as pages exist from the beginning, and nothing is allocated afterwards.
 *
 * A node is referenced by the sequences that use its page. One that no sequence uses stays, on a
 * list from the least to the most recently used, until its page is wanted. A sequence references
 * all of its way and lets go of the deepest page first, so a node always comes before its parent on
 * that list: what is evicted has no children. Knows pages as numbers only. */
#ifndef COORDINATOR_PREFIX_H
#define COORDINATOR_PREFIX_H

#include "base/err.h"
#include "kernels/kernels.h"
#include <stdint.h>

/* No page: the root, or nothing found. */
#define PREFIX_NONE (-1)

struct prefix_node {
    int32_t token[KV_PAGE];
    uint64_t kind;         /* of the way from the root */
    int32_t parent;        /* page, or PREFIX_NONE */
    int32_t next;          /* in its bucket */
    int32_t before, after; /* on the list of nodes without a user */
    int32_t n_user;        /* sequences that reference it */
    int32_t in;            /* whether the page is in the tree */
};

struct prefix {
    struct prefix_node *node; /* [n_page] */
    int32_t *bucket;          /* [mask + 1] first node, or PREFIX_NONE */
    uint32_t mask;
    int n_page, n_in, n_idle; /* pages; of them in the tree; of these without a user */
    int32_t oldest, newest;
    uint64_t evictions;
};

/* prefix_create: for pages 0 to n_page - 1, none in the tree. ERR_NOMEM. */
int prefix_create(int n_page, struct prefix **out, struct err *err);
void prefix_destroy(struct prefix *p);
/* prefix_find: the page that follows `parent` with these KV_PAGE tokens, or PREFIX_NONE. kind: what
 * keys and values depend on besides tokens and positions; pages of two kinds are never one. */
int32_t prefix_find(const struct prefix *p, int32_t parent, uint64_t kind, const int32_t *token);
/* prefix_insert puts a page that is not in the tree there, with one user. When the tree has such a
 * page already that one gets one more user instead. Returns which page it is. The parent must be in
 * the tree, with a user. */
int32_t prefix_insert(struct prefix *p, int32_t parent, uint64_t kind, const int32_t *token,
                      int32_t page);
void prefix_use(struct prefix *p, int32_t page);
/* prefix_leave: one user less. Users of a page leave it before they leave its parent. */
void prefix_leave(struct prefix *p, int32_t page);
/* prefix_evict takes the least recently used page without a user out of the tree: the page, or
 * PREFIX_NONE when all have one. */
int32_t prefix_evict(struct prefix *p);

#endif
