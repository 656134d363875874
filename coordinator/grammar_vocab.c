/* grammar_vocab: see grammar_vocab.h. Special tokens are no text and stay outside; so do the tokens
 * that end a text, which the walk allows by their ids. */
#include "coordinator/grammar_vocab.h"

#include <stdlib.h>
#include <string.h>

bool grammar_vocab_is_eos(const struct grammar_vocab *v, int32_t id)
{
    for (size_t i = 0; i < v->n_eos; i++) {
        if (v->eos[i] == id) {
            return true;
        }
    }
    return false;
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for a grammar's vocabulary");
}

static int read_eos(struct grammar_vocab *v, const struct tokenizer *tok, struct err *err)
{
    size_t n;
    const int32_t *id = tokenizer_eos_ids(tok, &n);
    int32_t one = tokenizer_eos(tok);
    v->eos = calloc(n + 1, sizeof *v->eos);
    if (v->eos == NULL) {
        return no_memory(err);
    }
    for (size_t i = 0; i < n; i++) {
        v->eos[v->n_eos++] = id[i];
    }
    if (one >= 0 && !grammar_vocab_is_eos(v, one)) {
        v->eos[v->n_eos++] = one;
    }
    return 0;
}

/* The bytes of all tokens, one behind the other. */
static int read_bytes(struct grammar_vocab *v, const struct tokenizer *tok, struct err *err)
{
    struct tok_text all = {0};
    int rc = 0;
    v->begin = calloc((size_t)v->n_id + 1, sizeof *v->begin);
    if (v->begin == NULL) {
        return no_memory(err);
    }
    for (int32_t id = 0; id < v->n_id && rc == 0; id++) {
        if (!tokenizer_is_special(tok, id) && !grammar_vocab_is_eos(v, id)) {
            rc = tokenizer_token_bytes(tok, id, &all, err);
        }
        if (all.n - v->begin[id] > GRAMMAR_TOKEN_BYTES_MAX) {
            all.n = v->begin[id];
        }
        v->begin[id + 1] = all.n;
    }
    v->bytes = all.p;
    return rc;
}

struct spelling {
    const char *p;
    uint32_t n;
    int32_t id;
};

static int by_bytes(const void *x, const void *y)
{
    const struct spelling *a = x, *b = y;
    int c = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    c = c != 0 ? c : (a->n > b->n) - (a->n < b->n);
    return c != 0 ? c : (a->id > b->id) - (a->id < b->id);
}

static struct spelling *sorted(struct grammar_vocab *v)
{
    struct spelling *s = calloc((size_t)v->n_id + 1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    for (int32_t id = 0; id < v->n_id; id++) {
        size_t n = v->begin[id + 1] - v->begin[id];
        if (n > 0) {
            s[v->n_token++] = (struct spelling){v->bytes + v->begin[id], (uint32_t)n, id};
        }
    }
    qsort(s, v->n_token, sizeof *s, by_bytes);
    return s;
}

static uint32_t shared(const struct spelling *a, const struct spelling *b)
{
    uint32_t n = 0;
    while (n < a->n && n < b->n && a->p[n] == b->p[n]) {
        n++;
    }
    return n;
}

/* Every token adds the nodes that the one before it in order does not have. path[d] is the open
 * node of depth d; a node's subtree ends where the path leaves it. */
static void add_nodes(struct grammar_vocab *v, const struct spelling *s, uint32_t path[])
{
    uint32_t depth = 0;
    v->node[v->n_node++] = (struct grammar_node){0};
    path[0] = 0;
    for (uint32_t i = 0; i < v->n_token; i++) {
        uint32_t keep = i > 0 ? shared(&s[i - 1], &s[i]) : 0;
        for (; depth > keep; depth--) {
            v->node[path[depth]].next = v->n_node;
        }
        for (; depth < s[i].n; depth++) {
            path[depth + 1] = v->n_node;
            v->node[v->n_node++] =
                (struct grammar_node){0, i, (uint16_t)(depth + 1), (uint8_t)s[i].p[depth]};
        }
        v->order[i] = s[i].id;
        v->depth_max = depth > v->depth_max ? depth : v->depth_max;
    }
    for (; depth > 0; depth--) {
        v->node[path[depth]].next = v->n_node;
    }
    v->node[0].next = v->n_node;
    v->node[v->n_node] = (struct grammar_node){v->n_node, v->n_token, 0, 0};
}

static int build_trie(struct grammar_vocab *v, struct err *err)
{
    struct spelling *s = sorted(v);
    uint32_t *path = calloc(GRAMMAR_TOKEN_BYTES_MAX + 1, sizeof *path);
    size_t n_node = 2;
    int rc = s == NULL || path == NULL ? no_memory(err) : 0;
    for (uint32_t i = 0; rc == 0 && i < v->n_token; i++) {
        n_node += s[i].n - (i > 0 ? shared(&s[i - 1], &s[i]) : 0);
    }
    if (rc == 0 && n_node > UINT32_MAX) {
        rc =
            err_set(err, ERR_LIMIT, "a vocabulary of %zu distinct beginnings is too large", n_node);
    }
    if (rc == 0) {
        v->node = calloc(n_node, sizeof *v->node);
        v->order = calloc((size_t)v->n_token + 1, sizeof *v->order);
        rc = v->node == NULL || v->order == NULL ? no_memory(err) : 0;
    }
    if (rc == 0) {
        add_nodes(v, s, path);
    }
    free(path);
    free(s);
    return rc;
}

/* A text can always be finished when every byte that may be wanted is a token of its own. */
static int check_bytes(struct grammar_vocab *v, struct err *err)
{
    bool have[256] = {false};
    for (uint32_t i = 1; i < v->n_node; i = v->node[i].next) {
        have[v->node[i].byte] = v->node[i].token < v->node[i + 1].token;
    }
    for (int c = 0x20; c < 0x7f; c++) {
        if (!have[c]) {
            return err_set(err, ERR_MODEL,
                           "the vocabulary has no token for '%c' alone, so it cannot spell JSON; "
                           "ask without response_format",
                           c);
        }
    }
    for (int c = 0x80; c < 0xf5; c++) {
        v->ascii |= !have[c] && c != 0xc0 && c != 0xc1;
    }
    return 0;
}

int grammar_vocab_create(const struct tokenizer *tok, struct grammar_vocab **out, struct err *err)
{
    struct grammar_vocab *v = calloc(1, sizeof *v);
    if (v == NULL) {
        return no_memory(err);
    }
    atomic_init(&v->refs, 1);
    v->n_id = tokenizer_vocab_size(tok);
    int rc = read_eos(v, tok, err);
    rc = rc == 0 ? read_bytes(v, tok, err) : rc;
    rc = rc == 0 ? build_trie(v, err) : rc;
    rc = rc == 0 ? check_bytes(v, err) : rc;
    if (rc != 0) {
        grammar_vocab_unref(v);
        return rc;
    }
    *out = v;
    return 0;
}

void grammar_vocab_ref(struct grammar_vocab *v)
{
    atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
}

void grammar_vocab_unref(struct grammar_vocab *v)
{
    if (v == NULL || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    free(v->begin);
    free(v->bytes);
    free(v->order);
    free(v->node);
    free(v->eos);
    free(v);
}
