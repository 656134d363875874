/* prefix: see prefix.h. */
#include "coordinator/prefix.h"

#include "base/hash.h"
#include <stdlib.h>
#include <string.h>

#define TOKEN_BYTES (KV_PAGE * sizeof(int32_t))

int prefix_create(int n_page, struct prefix **out, struct err *err)
{
    struct prefix *p = calloc(1, sizeof *p);
    uint32_t n_bucket = 16;
    while (n_bucket < (uint32_t)n_page && n_bucket < 1u << 30) {
        n_bucket *= 2;
    }
    if (p != NULL) {
        p->node = calloc((size_t)n_page, sizeof *p->node);
        p->bucket = malloc((size_t)n_bucket * sizeof *p->bucket);
    }
    if (p == NULL || p->node == NULL || p->bucket == NULL) {
        prefix_destroy(p);
        return err_set(err, ERR_NOMEM, "no memory for a prefix cache of %d pages", n_page);
    }
    memset(p->bucket, 0xff, (size_t)n_bucket * sizeof *p->bucket); /* PREFIX_NONE */
    p->mask = n_bucket - 1;
    p->n_page = n_page;
    p->oldest = p->newest = PREFIX_NONE;
    *out = p;
    return 0;
}

void prefix_destroy(struct prefix *p)
{
    if (p != NULL) {
        free(p->node);
        free(p->bucket);
        free(p);
    }
}

static int32_t *bucket_of(const struct prefix *p, int32_t parent, uint64_t kind,
                          const int32_t *token)
{
    uint64_t seed = kind * 0x9e3779b97f4a7c15u + (uint32_t)parent;
    return &p->bucket[hash_bytes64(token, TOKEN_BYTES, seed) & p->mask];
}

int32_t prefix_find(const struct prefix *p, int32_t parent, uint64_t kind, const int32_t *token)
{
    int32_t at = *bucket_of(p, parent, kind, token);
    for (; at != PREFIX_NONE; at = p->node[at].next) {
        const struct prefix_node *n = &p->node[at];
        if (n->parent == parent && n->kind == kind && memcmp(n->token, token, TOKEN_BYTES) == 0) {
            break;
        }
    }
    return at;
}

/* ---- the list of nodes without a user -------------------------------------------------------- */

static void list_add(struct prefix *p, int32_t page)
{
    struct prefix_node *n = &p->node[page];
    n->before = p->newest;
    n->after = PREFIX_NONE;
    *(p->newest != PREFIX_NONE ? &p->node[p->newest].after : &p->oldest) = page;
    p->newest = page;
    p->n_idle++;
}

static void list_remove(struct prefix *p, int32_t page)
{
    const struct prefix_node *n = &p->node[page];
    *(n->before != PREFIX_NONE ? &p->node[n->before].after : &p->oldest) = n->after;
    *(n->after != PREFIX_NONE ? &p->node[n->after].before : &p->newest) = n->before;
    p->n_idle--;
}

void prefix_use(struct prefix *p, int32_t page)
{
    if (p->node[page].n_user++ == 0) {
        list_remove(p, page);
    }
}

void prefix_leave(struct prefix *p, int32_t page)
{
    if (--p->node[page].n_user == 0) {
        list_add(p, page);
    }
}

/* ---- growing and shrinking ------------------------------------------------------------------- */

int32_t prefix_insert(struct prefix *p, int32_t parent, uint64_t kind, const int32_t *token,
                      int32_t page)
{
    int32_t there = prefix_find(p, parent, kind, token);
    if (there != PREFIX_NONE) {
        prefix_use(p, there);
        return there;
    }
    struct prefix_node *n = &p->node[page];
    int32_t *bucket = bucket_of(p, parent, kind, token);
    memcpy(n->token, token, TOKEN_BYTES);
    n->kind = kind;
    n->parent = parent;
    n->n_user = n->in = 1;
    n->next = *bucket;
    *bucket = page;
    p->n_in++;
    return page;
}

int32_t prefix_evict(struct prefix *p)
{
    int32_t page = p->oldest;
    if (page == PREFIX_NONE) {
        return page;
    }
    struct prefix_node *n = &p->node[page];
    int32_t *at = bucket_of(p, n->parent, n->kind, n->token);
    while (*at != page) {
        at = &p->node[*at].next;
    }
    *at = n->next;
    list_remove(p, page);
    n->in = 0;
    p->n_in--;
    p->evictions++;
    return page;
}
