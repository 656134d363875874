/* See tok_merge.h. Three ways to one result: a linear search for the lowest rank in short words,
 * whose arrays fit a few cache lines; a heap in long ones; and very long ones in windows that fit
 * the second cache, since a heap of millions jumps about in memory. Words of Chinese are long (a
 * clause has no spaces), so the middle one matters more than in English.
 *
 * Why windows give the same ids. Two sides of a cut merge independently of each other until a merge
 * takes the pair that lies across it: which pair is next on one side does not depend on the other.
 * So if nothing ever merges across, the whole is both sides' results in a row; and as each token's
 * symbols merge independently too, whether something does is seen from the symbols of the two
 * tokens at the cut alone: merged by themselves, they become these two tokens or something else.
 * A cut is put between tokens some way before a window's end, where what follows hardly matters any
 * more, and is tried like that; one that does not hold is put further back, before a window twice
 * as long, and they stay so long until that place is behind. That ends at the latest with one
 * window for all. */
#include "model/tok_merge.h"

#include <stdlib.h>

#define WINDOW 4096 /* symbols */
#define MARGIN 8    /* tokens before a window's end */
#define NONE   UINT32_MAX

struct symbol {
    int32_t id;
    uint32_t prev, next; /* index; NONE at the ends */
    uint32_t rank;       /* of the pair (this, next); TOK_NO_RANK: none */
    int32_t merged;      /* what the pair becomes */
};

/* Symbols in a chain; the first one is never merged away, and a symbol's index is where it began.
 */
struct chain {
    struct symbol *symbol;
    size_t cap, n;
    uint64_t *heap; /* rank << 32 | index; smallest first */
    size_t n_heap, heap_cap;
};

struct tok_symbols {
    struct chain window, pair;
    uint32_t *length; /* of the tokens put out, in symbols */
    size_t n_token, length_cap;
};

struct tok_symbols *tok_symbols_create(void)
{
    return calloc(1, sizeof(struct tok_symbols));
}

static void chain_fini(struct chain *c)
{
    free(c->symbol);
    free(c->heap);
}

void tok_symbols_destroy(struct tok_symbols *s)
{
    if (!s)
        return;
    chain_fini(&s->window);
    chain_fini(&s->pair);
    free(s->length);
    free(s);
}

/* ---- short -------------------------------------------------------------------------------- */

/* rank[i] belongs to (i, i+1). */
size_t tok_merge_short(const struct tok_bpe *bpe, int32_t *id, size_t n, const char *bytes)
{
    uint32_t rank[TOK_SHORT_MAX + 1];
    int32_t merged = -1;
    size_t pairs = n ? n - 1 : 0;
    for (size_t i = 0; i < pairs; i++) {
        const unsigned char *b = (const unsigned char *)bytes + i;
        rank[i] =
            bytes ? bpe->byte_rank[b[0] << 8 | b[1]] : tok_rank_of(bpe, id[i], id[i + 1], &merged);
    }
    while (pairs > 0) {
        uint32_t best = TOK_NO_RANK;
        for (size_t i = 0; i < pairs; i++)
            best = rank[i] < best ? rank[i] : best;
        if (best == TOK_NO_RANK)
            break;
        size_t at = 0;
        while (rank[at] != best)
            at++;
        tok_rank_of(bpe, id[at], id[at + 1], &merged);
        id[at] = merged;
        memmove(id + at + 1, id + at + 2, (pairs - at - 1) * sizeof *id);
        memmove(rank + at, rank + at + 1, (pairs - at - 1) * sizeof *rank);
        pairs--;
        if (at < pairs)
            rank[at] = tok_rank_of(bpe, id[at], id[at + 1], &merged);
        if (at > 0)
            rank[at - 1] = tok_rank_of(bpe, id[at - 1], id[at], &merged);
    }
    return n ? pairs + 1 : 0;
}

/* ---- long -------------------------------------------------------------------------------- */

static int heap_push(struct chain *c, uint64_t key)
{
    if (tok_grow((void **)&c->heap, &c->heap_cap, c->n_heap + 1, sizeof *c->heap))
        return ERR_NOMEM;
    size_t i = c->n_heap++;
    for (; i > 0 && c->heap[(i - 1) / 2] > key; i = (i - 1) / 2)
        c->heap[i] = c->heap[(i - 1) / 2];
    c->heap[i] = key;
    return 0;
}

static uint64_t heap_pop(struct chain *c)
{
    uint64_t top = c->heap[0], key = c->heap[--c->n_heap];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < c->n_heap; i = child) {
        child += child + 1 < c->n_heap && c->heap[child + 1] < c->heap[child];
        if (c->heap[child] >= key)
            break;
        c->heap[i] = c->heap[child];
    }
    c->heap[i] = key;
    return top;
}

/* update looks the pair (i, next) up anew and queues it. What the queue still holds of the old pair
 * is recognised by its rank when it comes up. */
static int update(const struct tok_bpe *bpe, struct chain *c, uint32_t i)
{
    struct symbol *a = &c->symbol[i];
    a->rank =
        a->next == NONE ? TOK_NO_RANK : tok_rank_of(bpe, a->id, c->symbol[a->next].id, &a->merged);
    return a->rank == TOK_NO_RANK ? 0 : heap_push(c, (uint64_t)a->rank << 32 | i);
}

/* chain_merge: the same result as tok_merge_short in n log n, n > 0. */
static int chain_merge(const struct tok_bpe *bpe, struct chain *c, const int32_t *id, size_t n)
{
    if (tok_grow((void **)&c->symbol, &c->cap, n, sizeof *c->symbol))
        return ERR_NOMEM;
    c->n = n;
    c->n_heap = 0;
    for (size_t i = 0; i < n; i++)
        c->symbol[i] = (struct symbol){id[i], i ? (uint32_t)i - 1 : NONE,
                                       i + 1 < n ? (uint32_t)i + 1 : NONE, TOK_NO_RANK, -1};
    for (size_t i = 0; i < n; i++)
        if (update(bpe, c, (uint32_t)i))
            return ERR_NOMEM;
    while (c->n_heap > 0) {
        uint64_t key = heap_pop(c);
        struct symbol *a = &c->symbol[(uint32_t)key];
        if (a->rank != key >> 32)
            continue;
        struct symbol *b = &c->symbol[a->next];
        a->id = a->merged;
        a->next = b->next;
        b->rank = TOK_NO_RANK;
        if (b->next != NONE)
            c->symbol[b->next].prev = (uint32_t)key;
        if (update(bpe, c, (uint32_t)key) || (a->prev != NONE && update(bpe, c, a->prev)))
            return ERR_NOMEM;
    }
    return 0;
}

/* ---- very long ---------------------------------------------------------------------------- */

static uint32_t end_of(const struct chain *c, uint32_t i)
{
    return c->symbol[i].next != NONE ? c->symbol[i].next : (uint32_t)c->n;
}

/* put_out appends the window's tokens but for the last `keep`, or the last half of them. Returns
 * the symbols they took, or ERR_NOMEM. */
static int64_t put_out(struct tok_symbols *s, size_t keep, struct tok_ids *out)
{
    const struct chain *c = &s->window;
    size_t n = 0;
    for (uint32_t i = 0; i != NONE; i = c->symbol[i].next)
        n++;
    n -= keep < n / 2 ? keep : n / 2;
    if (tok_grow((void **)&s->length, &s->length_cap, s->n_token + n, sizeof *s->length))
        return ERR_NOMEM;
    uint32_t at = 0;
    for (; n > 0; n--) {
        if (tok_ids_add(out, c->symbol[at].id))
            return ERR_NOMEM;
        s->length[s->n_token++] = end_of(c, at) - at;
        at = end_of(c, at);
    }
    return at;
}

/* cut_holds: the last token put out, whose symbols end at id[at], and the window's first, whose
 * symbols begin there, stay apart. 1, 0 or ERR_NOMEM. */
static int cut_holds(const struct tok_bpe *bpe, struct tok_symbols *s, const int32_t *id, size_t at)
{
    if (s->n_token == 0)
        return 1;
    struct chain *c = &s->pair;
    uint32_t left = s->length[s->n_token - 1];
    if (chain_merge(bpe, c, id + at - left, (size_t)left + end_of(&s->window, 0)))
        return ERR_NOMEM;
    return c->symbol[0].next == left && c->symbol[left].next == NONE;
}

/* take_back takes the last tokens, at most n, from out. Returns the symbols they took. */
static size_t take_back(struct tok_symbols *s, size_t n, struct tok_ids *out)
{
    size_t symbols = 0;
    for (; n > 0 && s->n_token > 0; n--) {
        symbols += s->length[--s->n_token];
        out->n--;
    }
    return symbols;
}

int tok_merge_long(const struct tok_bpe *bpe, const struct tok_ids *ids, struct tok_ids *out)
{
    struct tok_symbols *s = bpe->scratch;
    size_t at = 0, window = WINDOW, margin = MARGIN, failed = 0; /* failed: the furthest cut */
    s->n_token = 0;
    while (at < ids->n) {
        size_t n = ids->n - at < window ? ids->n - at : window;
        if (chain_merge(bpe, &s->window, ids->id + at, n))
            return ERR_NOMEM;
        int holds = cut_holds(bpe, s, ids->id, at);
        int64_t taken = holds == 1 ? put_out(s, at + n < ids->n ? margin : 0, out) : holds;
        if (taken < 0)
            return ERR_NOMEM;
        at += (size_t)taken;
        if (taken > 0 && at > failed) {
            window = WINDOW;
            margin = MARGIN;
        } else if (taken == 0) {
            window *= 2;
        }
        if (!holds) {
            failed = at > failed ? at : failed;
            at -= take_back(s, margin, out);
            margin *= 2;
        }
    }
    return 0;
}
