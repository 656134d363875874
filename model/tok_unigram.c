/* See tok_unigram.h. */
#include "model/tok_unigram.h"
#include <math.h>
#include <stdlib.h>

#define UNK_PENALTY 10.0

struct tok_node { /* the best path that ends at a byte position */
    double score;
    size_t begin; /* of its last token; NOWHERE: no path yet */
    int32_t id;
};
#define NOWHERE SIZE_MAX

void tok_unigram_init(struct tok_unigram *uni, const struct tok_vocab *vocab, int32_t unk,
                      bool byte_fallback)
{
    memset(uni, 0, sizeof *uni);
    uni->vocab = vocab;
    uni->unk = unk;
    uni->byte_fallback = byte_fallback;
    uni->score_min = INFINITY;
}

void tok_unigram_fini(struct tok_unigram *uni)
{
    tok_trie_fini(&uni->trie);
    tok_ids_fini(&uni->ids);
    free(uni->score);
    free(uni->node);
    memset(uni, 0, sizeof *uni);
}

int tok_unigram_add(struct tok_unigram *uni, int32_t id, double score, struct err *err)
{
    if (tok_grow((void **)&uni->score, &uni->cap, (size_t)id + 1, sizeof *uni->score))
        return tok_nomem(err);
    while (uni->n_score <= (size_t)id)
        uni->score[uni->n_score++] = 0;
    uni->score[id] = score;
    uni->score_min = score < uni->score_min ? score : uni->score_min;
    struct tok_str s = tok_vocab_key_of(uni->vocab, id);
    return s.n ? tok_trie_add(&uni->trie, s.p, s.n, id, true, err) : 0;
}

void tok_unigram_finish(struct tok_unigram *uni)
{
    uni->all_bytes = true;
    for (int b = 0; b < 256; b++) {
        static const char hex[] = "0123456789ABCDEF";
        char name[] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        uni->byte_id[b] = tok_vocab_key(uni->vocab, name, sizeof name);
        uni->all_bytes = uni->all_bytes && uni->byte_id[b] >= 0;
    }
}

static void relax(struct tok_node *node, double score, size_t begin, int32_t id)
{
    if (node->begin == NOWHERE || score > node->score)
        *node = (struct tok_node){score, begin, id};
}

/* forward fills node[0..n]: for each position the best way to arrive there. */
static void forward(const struct tok_unigram *uni, const char *p, size_t n, struct tok_node *node)
{
    for (size_t i = 0; i <= n; i++)
        node[i] = (struct tok_node){0, NOWHERE, -1};
    for (size_t i = 0, len; i < n; i += len) {
        bool single = false;
        uint32_t at = 0;
        len = utf8_len(p[i]);
        for (size_t j = i;
             uni->trie.edge && j < n && (at = tok_trie_step(&uni->trie, at, p[j])) != 0; j++) {
            int32_t id = uni->trie.value[at];
            if (id < 0)
                continue;
            relax(&node[j + 1], uni->score[id] + node[i].score, i, id);
            single = single || j + 1 - i == len;
        }
        if (!single)
            relax(&node[i + len], uni->score_min - UNK_PENALTY + node[i].score, i, uni->unk);
    }
}

/* emit gives the ids of one stretch of the best path; a stretch that is no token becomes bytes or
 * the unknown token. Ids are collected backwards, so bytes are too. */
static int emit(struct tok_unigram *uni, const char *p, size_t n, struct err *err)
{
    int32_t id = tok_vocab_key(uni->vocab, p, n);
    if (id >= 0)
        return tok_ids_add(&uni->ids, id) ? tok_nomem(err) : 0;
    bool bytes = uni->byte_fallback;
    for (size_t i = 0; bytes && !uni->all_bytes && i < n; i++)
        bytes = uni->byte_id[(unsigned char)p[i]] >= 0;
    for (size_t i = n; bytes && i > 0; i--)
        if (tok_ids_add(&uni->ids, uni->byte_id[(unsigned char)p[i - 1]]))
            return tok_nomem(err);
    if (bytes)
        return 0;
    if (uni->unk < 0)
        return err_set(err, ERR_MODEL,
                       "tokenizer: the text has a character that no token covers and "
                       "the vocabulary has no unknown token (unk_id); add one");
    return tok_ids_add(&uni->ids, uni->unk) ? tok_nomem(err) : 0;
}

int tok_unigram_encode(struct tok_unigram *uni, const char *p, size_t n, struct tok_ids *out,
                       struct err *err)
{
    if (n == 0)
        return 0;
    if (tok_grow((void **)&uni->node, &uni->node_cap, n + 1, sizeof *uni->node))
        return tok_nomem(err);
    forward(uni, p, n, uni->node);
    uni->ids.n = 0;
    for (size_t end = n; end > 0;) {
        size_t begin = uni->node[end].begin;
        bool unk = uni->unk >= 0 && uni->node[end].id == uni->unk;
        while (unk && begin > 0 && uni->node[begin].id == uni->unk)
            begin = uni->node[begin].begin;
        int r = emit(uni, p + begin, end - begin, err);
        if (r)
            return r;
        end = begin;
    }
    for (size_t i = uni->ids.n; i > 0; i--)
        if (tok_ids_add(out, uni->ids.id[i - 1]))
            return tok_nomem(err);
    return 0;
}
