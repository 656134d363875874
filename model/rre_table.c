/* rre_table: see rre_table.h. */
#include "model/rre_table.h"

#include "base/hash.h"
#include "base/limits.h"

#include <stdlib.h>
#include <string.h>

/* Tokens for each expert of a group from which on one without any is no accident: drawn tables have
 * none, and a vocabulary trimmed to these many leaves one with a chance of n exp(-32). */
#define TOKENS_ENOUGH 32

struct token_key {
    uint64_t count, key; /* count 0 when there are no counts */
    int32_t token;
};

static uint64_t token_key(const struct rre_table *t, uint32_t name_hash, uint32_t token, uint32_t j)
{
    const uint32_t word[4] = {(uint32_t)t->layer, name_hash, token, j};
    unsigned char bytes[16];
    for (int i = 0; i < 16; i++)
        bytes[i] = (unsigned char)(word[i / 4] >> (8 * (i % 4)) & 0xff);
    return hash_bytes64(t->seed, strlen(t->seed), hash_bytes64(bytes, sizeof(bytes), 0));
}

/* Descending count, then the key, then the id. */
static int key_order(const void *pa, const void *pb)
{
    const struct token_key *a = pa, *b = pb;
    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return a->token < b->token ? -1 : 1;
}

static void even_by_tokens(const struct rre_table *t, const struct token_key *order, uint16_t *row)
{
    for (int i = 0; i < t->vocab; i++)
        row[(size_t)order[i].token * (size_t)t->top_k] = (uint16_t)(i % t->n_expert);
}

/* A heap of experts, the smallest (sum, expert) on top. */
struct load {
    uint64_t sum;
    uint16_t expert;
};

static int load_less(const struct load *a, const struct load *b)
{
    return a->sum < b->sum || (a->sum == b->sum && a->expert < b->expert);
}

static void sink(struct load *heap, int n)
{
    for (int i = 0, child = 1; child < n; i = child, child = 2 * i + 1) {
        if (child + 1 < n && load_less(&heap[child + 1], &heap[child]))
            child++;
        if (!load_less(&heap[child], &heap[i]))
            return;
        struct load swap = heap[i];
        heap[i] = heap[child];
        heap[child] = swap;
    }
}

static void even_by_counts(const struct rre_table *t, const struct token_key *order, uint16_t *row,
                           struct load *heap)
{
    for (int e = 0; e < t->n_expert; e++)
        heap[e] = (struct load){0, (uint16_t)e};
    for (int i = 0; i < t->vocab; i++) {
        row[(size_t)order[i].token * (size_t)t->top_k] = heap[0].expert;
        heap[0].sum += order[i].count + 1;
        sink(heap, t->n_expert);
    }
}

static int coprime(int a, int b)
{
    while (b) {
        int rest = a % b;
        a = b;
        b = rest;
    }
    return a == 1;
}

/* The other entries of a token: steps of one stride that meets every expert before it comes back.
 */
static void strides(const struct rre_table *t, uint32_t name_hash, uint16_t *row, int *stride)
{
    int n = t->n_expert, n_stride = 0;
    for (int s = 1; s < n; s++)
        if (coprime(s, n))
            stride[n_stride++] = s;
    for (int token = 0; token < t->vocab; token++) {
        uint16_t *entry = row + (size_t)token * (size_t)t->top_k;
        int step = stride[token_key(t, name_hash, (uint32_t)token, 1) % (uint64_t)n_stride];
        for (int j = 1; j < t->top_k; j++)
            entry[j] = (uint16_t)((entry[0] + j * step) % n);
    }
}

int rre_table_draw(const struct rre_table *t, uint16_t *row, struct err *err)
{
    if (t->vocab < 1 || t->vocab > LIMIT_VOCAB || t->n_expert < 1 || t->n_expert > LIMIT_EXPERTS ||
        t->top_k < 1 || t->top_k > t->n_expert || t->top_k > LIMIT_TOP_K)
        return err_set(err, ERR_USAGE,
                       "domain '%s': %d of %d experts for each of %d tokens cannot be drawn",
                       t->domain, t->top_k, t->n_expert, t->vocab);
    struct token_key *order = malloc((size_t)t->vocab * sizeof(*order));
    struct load *heap = malloc((size_t)t->n_expert * sizeof(*heap));
    int *stride = malloc((size_t)t->n_expert * sizeof(*stride));
    int rc = order && heap && stride
                 ? 0
                 : err_set(err, ERR_NOMEM, "no memory to draw the table of domain '%s'", t->domain);
    if (rc == 0) {
        uint32_t name_hash = (uint32_t)hash_bytes64(t->domain, strlen(t->domain), 0);
        for (int i = 0; i < t->vocab; i++)
            order[i] = (struct token_key){t->count ? t->count[i] : 0,
                                          token_key(t, name_hash, (uint32_t)i, 0), i};
        qsort(order, (size_t)t->vocab, sizeof(*order), key_order);
        if (t->count)
            even_by_counts(t, order, row, heap);
        else
            even_by_tokens(t, order, row);
        if (t->top_k > 1)
            strides(t, name_hash, row, stride);
    }
    free(order);
    free(heap);
    free(stride);
    return rc;
}

static int token_check(const uint16_t *entry, int n_expert, int top_k)
{
    for (int j = 0; j < top_k; j++) {
        if (entry[j] >= n_expert)
            return j + 1;
        for (int i = 0; i < j; i++)
            if (entry[i] == entry[j])
                return -1;
    }
    return 0;
}

int rre_table_check(const uint16_t *row, int vocab, int n_expert, int top_k, const char *what,
                    const char *domain, struct err *err)
{
    uint8_t used[LIMIT_EXPERTS] = {0};
    int n_used = 0;
    for (int token = 0; token < vocab; token++) {
        const uint16_t *entry = row + (size_t)token * (size_t)top_k;
        int bad = token_check(entry, n_expert, top_k);
        if (bad > 0)
            return err_set(err, ERR_MODEL,
                           "%s: domain '%s' gives token %d expert %d, its group has experts 0-%d",
                           what, domain, token, entry[bad - 1], n_expert - 1);
        if (bad < 0)
            return err_set(err, ERR_MODEL, "%s: domain '%s' gives token %d the same expert twice",
                           what, domain, token);
        for (int j = 0; j < top_k; j++) {
            n_used += !used[entry[j]];
            used[entry[j]] = 1;
        }
    }
    if (n_used == n_expert || vocab < TOKENS_ENOUGH * n_expert)
        return 0;
    int idle = 0;
    while (used[idle])
        idle++;
    return err_set(err, ERR_MODEL,
                   "%s: the table is unbalanced: domain '%s' gives none of %d tokens to expert %d, "
                   "and uses %d of its group of %d",
                   what, domain, vocab, idle, n_used, n_expert);
}
