/* See tok_bpe.h: the table, words cut into symbols, and the cache of words; tok_merge.c merges. */
#include "model/tok_bpe.h"
#include "base/arena.h"
#include "base/limits.h"
#include "model/tok_merge.h"
#include <stdlib.h>

#define CACHE_BITS 16
#define CACHE_KEY  30
#define CACHE_IDS  8

struct tok_word { /* one cache line */
    uint8_t n, n_id;
    char key[CACHE_KEY];
    int32_t id[CACHE_IDS];
};
_Static_assert(sizeof(struct tok_word) == 64, "a cache line");

static int merge_resize(struct tok_bpe *bpe, size_t size)
{
    /* large pages: encoding jumps about in these tables, and 4 KiB pages would miss the TLB */
    struct tok_merge *old = bpe->merge, *merge = mem_map(size * sizeof *merge);
    size_t old_size = old ? bpe->mask + 1 : 0;
    if (!merge)
        return ERR_NOMEM;
    for (size_t i = 0; i < size; i++)
        merge[i] = (struct tok_merge){.pair = TOK_NO_PAIR};
    bpe->merge = merge;
    bpe->mask = size - 1;
    for (size_t j = 0; j < old_size; j++) {
        if (old[j].pair == TOK_NO_PAIR)
            continue;
        size_t i = tok_pair_hash(old[j].pair) >> 8 & bpe->mask;
        while (merge[i].pair != TOK_NO_PAIR)
            i = (i + 1) & bpe->mask;
        merge[i] = old[j];
    }
    if (old)
        mem_unmap(old, old_size * sizeof *old);
    return 0;
}

int tok_bpe_init(struct tok_bpe *bpe, const struct tok_vocab *vocab, size_t n_merge,
                 struct err *err)
{
    memset(bpe, 0, sizeof *bpe);
    bpe->vocab = vocab;
    bpe->unk = -1;
    size_t size = 256;
    while (size / 2 < n_merge && size < (size_t)LIMIT_VOCAB * 16)
        size *= 2;
    bpe->scratch = tok_symbols_create();
    bpe->cache = mem_map(sizeof *bpe->cache << CACHE_BITS);
    if (!bpe->scratch || !bpe->cache || merge_resize(bpe, size))
        return tok_nomem(err);
    return 0;
}

void tok_bpe_fini(struct tok_bpe *bpe)
{
    tok_symbols_destroy(bpe->scratch);
    tok_ids_fini(&bpe->word);
    if (bpe->cache)
        mem_unmap(bpe->cache, sizeof *bpe->cache << CACHE_BITS);
    if (bpe->merge)
        mem_unmap(bpe->merge, (bpe->mask + 1) * sizeof *bpe->merge);
    free(bpe->byte_rank);
    memset(bpe, 0, sizeof *bpe);
}

int tok_bpe_merge(struct tok_bpe *bpe, int32_t left, int32_t right, int32_t id, uint32_t rank,
                  struct err *err)
{
    if (bpe->n_merge >= (size_t)LIMIT_VOCAB * 8)
        return err_set(err, ERR_LIMIT, "tokenizer: more than %d merges are not supported",
                       LIMIT_VOCAB * 8);
    if ((bpe->n_merge + 1) * 5 > (bpe->mask + 1) * 3 && merge_resize(bpe, (bpe->mask + 1) * 2))
        return tok_nomem(err);
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t i = tok_pair_hash(pair) >> 8 & bpe->mask;
    while (bpe->merge[i].pair != TOK_NO_PAIR && bpe->merge[i].pair != pair)
        i = (i + 1) & bpe->mask;
    bpe->n_merge += bpe->merge[i].pair == TOK_NO_PAIR;
    bpe->merge[i] =
        (struct tok_merge){pair, rank, id}; /* a pair listed twice: the last one counts */
    return 0;
}

int tok_bpe_merge_splits(struct tok_bpe *bpe, int32_t id, uint32_t rank, struct err *err)
{
    struct tok_str s = tok_vocab_key_of(bpe->vocab, id);
    for (size_t i = 1; i < s.n; i++) {
        if (((unsigned char)s.p[i] & 0xc0) == 0x80)
            continue; /* inside a character */
        int32_t left = tok_vocab_key(bpe->vocab, s.p, i);
        int32_t right = left < 0 ? -1 : tok_vocab_key(bpe->vocab, s.p + i, s.n - i);
        int r = right < 0 ? 0 : tok_bpe_merge(bpe, left, right, id, rank, err);
        if (r)
            return r;
    }
    return 0;
}

static const char space_mark[] = "\xe2\x96\x81"; /* U+2581, SentencePiece's space */

/* find_cut: a merge whose right side begins with U+2581 and whose left side does not end with it
 * would join across a word's beginning. Most vocabularies have none. */
static bool find_cut(const struct tok_bpe *bpe)
{
    if (bpe->ignore_merges || bpe->vocab->byte_space ||
        tok_vocab_key(bpe->vocab, space_mark, 3) < 0)
        return false;
    for (size_t i = 0; i <= bpe->mask; i++) {
        if (bpe->merge[i].pair == TOK_NO_PAIR)
            continue;
        struct tok_str a = tok_vocab_key_of(bpe->vocab, (int32_t)(bpe->merge[i].pair >> 32));
        struct tok_str b = tok_vocab_key_of(bpe->vocab, (int32_t)(uint32_t)bpe->merge[i].pair);
        bool begins = b.n >= 3 && memcmp(b.p, space_mark, 3) == 0;
        if (begins && !(a.n >= 3 && memcmp(a.p + a.n - 3, space_mark, 3) == 0))
            return false;
    }
    return true;
}

int tok_bpe_finish(struct tok_bpe *bpe, struct err *err)
{
    bpe->all_bytes = true;
    for (int b = 0; b < 256; b++) {
        char byte = (char)b, name[8];
        const char *hex = "0123456789ABCDEF";
        memcpy(name, "<0x00>", 7);
        name[3] = hex[b >> 4];
        name[4] = hex[b & 15];
        bpe->byte_id[b] = bpe->vocab->byte_space ? tok_vocab_key(bpe->vocab, &byte, 1)
                                                 : tok_vocab_key(bpe->vocab, name, 6);
        bpe->all_bytes = bpe->all_bytes && bpe->byte_id[b] >= 0;
        if (b < 128)
            bpe->ascii_id[b] = tok_vocab_key(bpe->vocab, &byte, 1);
    }
    bpe->cut_at_space = find_cut(bpe);
    if (!bpe->vocab->byte_space)
        return 0;
    bpe->byte_rank = malloc(sizeof *bpe->byte_rank << 16);
    if (!bpe->byte_rank)
        return tok_nomem(err);
    for (int i = 0; i < 1 << 16; i++) {
        int32_t a = bpe->byte_id[i >> 8], b = bpe->byte_id[i & 255], id;
        bpe->byte_rank[i] = a < 0 || b < 0 ? TOK_NO_RANK : tok_rank_of(bpe, a, b, &id);
    }
    return 0;
}

/* add_char appends the symbols of one character that is no token. `unk` counts characters waiting
 * to become one unknown token. */
static int add_unknown(struct tok_bpe *bpe, const char *p, size_t n, bool *unk, struct tok_ids *ids)
{
    bool bytes = bpe->byte_fallback;
    for (size_t i = 0; bytes && i < n && !bpe->all_bytes; i++)
        bytes = bpe->byte_id[(unsigned char)p[i]] >= 0;
    for (size_t i = 0; bytes && i < n; i++)
        if (tok_ids_add(ids, bpe->byte_id[(unsigned char)p[i]]))
            return ERR_NOMEM;
    if (bytes || bpe->unk < 0)
        return 0;
    if (*unk && !bpe->fuse_unk && tok_ids_add(ids, bpe->unk))
        return ERR_NOMEM;
    *unk = true;
    return 0;
}

/* to_symbols cuts a word into the ids it starts from. */
static int to_symbols(struct tok_bpe *bpe, const char *p, size_t n, struct tok_ids *ids)
{
    bool unk = false;
    ids->n = 0;
    if (tok_grow((void **)&ids->id, &ids->cap, n, sizeof *ids->id))
        return ERR_NOMEM;
    if (bpe->vocab->byte_space && bpe->all_bytes) {
        for (size_t i = 0; i < n; i++)
            ids->id[i] = bpe->byte_id[(unsigned char)p[i]];
        ids->n = n;
        return 0;
    }
    for (size_t i = 0, len; i < n; i += len) {
        int32_t id;
        if (bpe->vocab->byte_space) {
            len = 1;
            id = bpe->byte_id[(unsigned char)p[i]];
        } else {
            len = utf8_len(p[i]);
            id = len == 1 ? bpe->ascii_id[(unsigned char)p[i]]
                          : tok_vocab_key(bpe->vocab, p + i, len);
        }
        if (id < 0) {
            if (add_unknown(bpe, p + i, len, &unk, ids))
                return ERR_NOMEM;
            continue;
        }
        if (unk && tok_ids_add(ids, bpe->unk))
            return ERR_NOMEM;
        unk = false;
        if (tok_ids_add(ids, id))
            return ERR_NOMEM;
    }
    return unk ? tok_ids_add(ids, bpe->unk) : 0;
}

static int encode_word(struct tok_bpe *bpe, const char *p, size_t n, struct tok_ids *out,
                       struct err *err)
{
    if (bpe->ignore_merges) {
        int32_t id = tok_vocab_key(bpe->vocab, p, n);
        if (id >= 0)
            return tok_ids_add(out, id) ? tok_nomem(err) : 0;
    }
    struct tok_word *word = NULL;
    if (n <= CACHE_KEY) {
        word = &bpe->cache[tok_hash(p, n, 0) >> (64 - CACHE_BITS)];
        if (word->n == n && memcmp(word->key, p, n) == 0)
            return tok_ids_add_n(out, word->id, word->n_id) ? tok_nomem(err) : 0;
    }
    struct tok_ids *ids = &bpe->word;
    if (to_symbols(bpe, p, n, ids))
        return tok_nomem(err);
    if (ids->n > TOK_SHORT_MAX)
        return tok_merge_long(bpe, ids, out) ? tok_nomem(err) : 0;
    bool plain = bpe->vocab->byte_space && bpe->all_bytes;
    size_t n_id = tok_merge_short(bpe, ids->id, ids->n, plain ? p : NULL);
    if (word && n_id <= CACHE_IDS) {
        word->n = (uint8_t)n;
        word->n_id = (uint8_t)n_id;
        memcpy(word->key, p, n);
        memcpy(word->id, ids->id, n_id * sizeof *word->id);
    }
    return tok_ids_add_n(out, ids->id, n_id) ? tok_nomem(err) : 0;
}

int tok_bpe_encode(struct tok_bpe *bpe, const char *p, size_t n, struct tok_ids *out,
                   struct err *err)
{
    size_t begin = 0;
    if (n == 0)
        return 0;
    if (bpe->cut_at_space) {
        /* words end before a U+2581 that follows something else */
        for (size_t i = 1; i + 3 <= n; i++) {
            if (p[i] != space_mark[0] || memcmp(p + i, space_mark, 3) != 0 ||
                (i >= 3 && memcmp(p + i - 3, space_mark, 3) == 0))
                continue;
            int r = encode_word(bpe, p + begin, i - begin, out, err);
            if (r)
                return r;
            begin = i;
        }
    }
    return encode_word(bpe, p + begin, n - begin, out, err);
}
