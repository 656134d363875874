/* See tok_model.h. */
#include "model/tok_model.h"
#include <stdio.h>

static bool is(struct tok_str s, const char *what)
{
    return s.n == strlen(what) && memcmp(s.p, what, s.n) == 0;
}

/* A scalar of the model: the raw bytes of its value are compared, for there are few. */
static int flag_of(struct tok_json *json, bool *out, struct err *err)
{
    struct tok_str v;
    int r = tok_json_skip(json, &v, err);
    if (r)
        return r;
    if (!is(v, "true") && !is(v, "false") && !is(v, "null"))
        return err_set(err, ERR_MODEL, "%s: a switch of the model is '%.*s', not true or false",
                       json->file, (int)(v.n < 32 ? v.n : 32), v.p);
    *out = is(v, "true");
    return 0;
}

static int model_member(struct tok_json *json, struct tok_model *m, struct tok_str key,
                        struct err *err)
{
    struct tok_str v;
    int r;
    if (is(key, "fuse_unk"))
        return flag_of(json, &m->fuse_unk, err);
    if (is(key, "byte_fallback"))
        return flag_of(json, &m->byte_fallback, err);
    if (is(key, "ignore_merges"))
        return flag_of(json, &m->ignore_merges, err);
    if (is(key, "unk_id") && tok_json_peek(json) != 'n')
        return tok_json_int(json, &m->unk_id, err);
    struct tok_str *part = is(key, "vocab")       ? &m->vocab
                           : is(key, "merges")    ? &m->merges
                           : is(key, "type")      ? &m->type
                           : is(key, "unk_token") ? &m->unk
                                                  : NULL;
    bool fixed = is(key, "dropout") || is(key, "continuing_subword_prefix") ||
                 is(key, "end_of_word_suffix") || is(key, "unk_id");
    char name[40];
    snprintf(name, sizeof name, "%.*s", (int)(key.n < 39 ? key.n : 39), key.p);
    r = tok_json_skip(json, &v, err);
    if (r)
        return r;
    if (part) {
        *part = v;
        return 0;
    }
    if (fixed && (is(v, "null") || is(v, "\"\"") || is(v, "0.0") || is(v, "0")))
        return 0;
    return err_set(err, ERR_MODEL, "%s: the model's \"%s\": %.*s is not supported", json->file,
                   name, (int)(v.n < 32 ? v.n : 32), v.p);
}

int tok_model_read(struct tok_json *json, struct tok_model *m, struct err *err)
{
    bool first = true;
    struct tok_str key;
    int r;
    m->unk_id = -1;
    while ((r = tok_json_member(json, &first, &key, err)) > 0) {
        r = model_member(json, m, key, err);
        if (r)
            return r;
    }
    if (r)
        return r;
    if (!m->vocab.p)
        return err_set(err, ERR_MODEL, "%s: the model has no vocabulary", json->file);
    return 0;
}

/* A reader over one part that reports offsets of the whole file. */
static void enter(struct tok_json *part, const struct tok_json *json, struct tok_str bytes)
{
    tok_json_init(part, json->file, bytes.p, bytes.n);
    part->start = json->start;
}

static int read_vocab(struct tokenizer *tok, struct tok_json *json, struct err *err)
{
    bool first = true;
    struct tok_str key;
    int64_t id;
    int r;
    while ((r = tok_json_member(json, &first, &key, err)) > 0) {
        size_t n = key.n;
        const char *p = key.p;
        r = tok_json_int(json, &id, err);
        r = r ? r : tok_vocab_add(&tok->vocab, p, n, id, err);
        if (r)
            return r;
    }
    return r;
}

/* A merge is "a b" or ["a","b"]; both halves and the whole must be tokens. */
struct halves {
    struct tok_text text; /* both, as the file spells them, behind each other */
    struct tok_text key;
    size_t left;
};

static int read_halves(struct tok_json *json, struct halves *h, struct err *err)
{
    struct tok_str s;
    bool first = true;
    int r;
    h->text.n = 0;
    if (tok_json_peek(json) == '[') {
        for (int i = 0; (r = tok_json_element(json, &first, err)) > 0; i++) {
            if (i == 2)
                return err_set(err, ERR_MODEL, "%s: a merge has more than two parts", json->file);
            h->left = h->text.n;
            r = tok_json_string(json, &s, err);
            if (r)
                return r;
            if (tok_text_add(&h->text, s.p, s.n))
                return tok_nomem(err);
        }
        return r;
    }
    r = tok_json_string(json, &s, err);
    if (r)
        return r;
    const char *space = memchr(s.p, ' ', s.n);
    if (!space || memchr(space + 1, ' ', s.n - (size_t)(space + 1 - s.p)))
        return err_set(err, ERR_MODEL, "%s: the merge '%.*s' is not two parts with a space between",
                       json->file, (int)(s.n < 64 ? s.n : 64), s.p);
    h->left = (size_t)(space - s.p);
    if (tok_text_add(&h->text, s.p, h->left) ||
        tok_text_add(&h->text, space + 1, s.n - h->left - 1))
        return tok_nomem(err);
    return 0;
}

static int add_merge(struct tokenizer *tok, const char *file, struct halves *h, uint32_t rank,
                     struct err *err)
{
    const char *p = h->text.p;
    size_t n = h->text.n, left = h->left;
    if (tok->vocab.byte_space && n) {
        if (tok_text_room(&h->key, n))
            return tok_nomem(err);
        h->key.n = 0;
        int64_t a = bytes_of_chars(h->key.p, p, left);
        int64_t b = a < 0 ? -1 : bytes_of_chars(h->key.p + a, p + left, n - left);
        p = h->key.p;
        n = b < 0 ? 0 : (size_t)(a + b);
        left = b < 0 ? 0 : (size_t)a;
    }
    int32_t l = tok_vocab_key(&tok->vocab, p, left);
    int32_t r = n > left ? tok_vocab_key(&tok->vocab, p + left, n - left) : -1;
    int32_t whole = tok_vocab_key(&tok->vocab, p, n);
    if (l < 0 || r < 0 || whole < 0)
        return err_set(err, ERR_MODEL,
                       "%s: merge %u of '%.*s' uses a token that is not in the vocabulary", file,
                       rank, (int)(h->text.n < 64 ? h->text.n : 64), h->text.p ? h->text.p : "");
    return tok_bpe_merge(&tok->bpe, l, r, whole, rank, err);
}

static int read_merges(struct tokenizer *tok, struct tok_json *json, struct err *err)
{
    struct halves h = {{0}, {0}, 0};
    bool first = true;
    int r;
    for (uint32_t rank = 0; (r = tok_json_element(json, &first, err)) > 0; rank++) {
        r = read_halves(json, &h, err);
        r = r ? r : add_merge(tok, json->file, &h, rank, err);
        if (r)
            break;
    }
    tok_text_fini(&h.text);
    tok_text_fini(&h.key);
    return r;
}

static int unk_of(struct tokenizer *tok, const struct tok_json *json, const struct tok_model *m,
                  struct err *err)
{
    struct tok_json part;
    struct tok_str s;
    if (!m->unk.p || is(m->unk, "null"))
        return 0;
    enter(&part, json, m->unk);
    int r = tok_json_string(&part, &s, err);
    if (!r)
        tok->bpe.unk = tok_vocab_key(&tok->vocab, s.p, s.n);
    if (!r && tok->bpe.unk < 0 && s.n)
        r = err_set(err, ERR_MODEL, "%s: the unknown token '%.*s' is not in the vocabulary",
                    json->file, (int)(s.n < 64 ? s.n : 64), s.p);
    tok_json_fini(&part);
    return r;
}

static int read_bpe(struct tokenizer *tok, const struct tok_json *json, const struct tok_model *m,
                    struct err *err)
{
    struct tok_json part;
    if (!m->merges.p)
        return err_set(err, ERR_MODEL, "%s: a BPE model without merges", json->file);
    /* an entry takes about 24 bytes in the file; the tables grow if the guess is low */
    int r = tok_vocab_reserve(&tok->vocab, m->vocab.n / 24, err);
    enter(&part, json, m->vocab);
    r = r ? r : read_vocab(tok, &part, err);
    tok_json_fini(&part);
    r = r ? r : tok_bpe_init(&tok->bpe, &tok->vocab, m->merges.n / 24, err);
    if (r)
        return r;
    tok->bpe.fuse_unk = m->fuse_unk;
    tok->bpe.byte_fallback = m->byte_fallback;
    tok->bpe.ignore_merges = m->ignore_merges;
    enter(&part, json, m->merges);
    r = read_merges(tok, &part, err);
    tok_json_fini(&part);
    r = r ? r : unk_of(tok, json, m, err);
    return r ? r : tok_bpe_finish(&tok->bpe, err);
}

/* [["token", score], …]; the place is the id. */
static int read_scores(struct tokenizer *tok, struct tok_json *json, struct err *err)
{
    bool first = true;
    struct tok_str s;
    int r;
    for (int32_t id = 0; (r = tok_json_element(json, &first, err)) > 0; id++) {
        bool inner = true;
        double score = 0;
        r = tok_json_element(json, &inner, err);
        r = r == 1 ? tok_json_string(json, &s, err) : r ? r : ERR_MODEL;
        r = r ? r : tok_vocab_add(&tok->vocab, s.p, s.n, id, err);
        if (!r)
            r = tok_json_element(json, &inner, err) == 1 ? tok_json_double(json, &score, err)
                                                         : ERR_MODEL;
        if (!r)
            r = tok_json_element(json, &inner, err);
        if (r)
            return err_set(err, ERR_MODEL,
                           "%s: token %d of the Unigram vocabulary is not [text, score]",
                           json->file, id);
        r = tok_unigram_add(&tok->uni, id, score, err);
        if (r)
            return r;
    }
    return r;
}

static int read_unigram(struct tokenizer *tok, const struct tok_json *json,
                        const struct tok_model *m, struct err *err)
{
    struct tok_json part;
    if (tok->vocab.byte_space)
        return err_set(err, ERR_MODEL, "%s: a Unigram model behind ByteLevel is not supported",
                       json->file);
    tok->unigram = true;
    tok_unigram_init(&tok->uni, &tok->vocab, (int32_t)m->unk_id, m->byte_fallback);
    enter(&part, json, m->vocab);
    int r = read_scores(tok, &part, err);
    tok_json_fini(&part);
    if (!r && m->unk_id >= 0 && !tok_vocab_has(&tok->vocab, m->unk_id))
        r = err_set(err, ERR_MODEL, "%s: unk_id %lld is not in the vocabulary", json->file,
                    (long long)m->unk_id);
    if (!r)
        tok_unigram_finish(&tok->uni);
    return r;
}

int tok_model_build(struct tokenizer *tok, const struct tok_json *json, const struct tok_model *m,
                    struct err *err)
{
    /* files from before the field carry no type; the vocabulary's shape tells */
    bool unigram = m->type.p ? is(m->type, "\"Unigram\"") : *m->vocab.p == '[';
    if (m->type.p && !unigram && !is(m->type, "\"BPE\""))
        return err_set(err, ERR_MODEL, "%s: model type %.*s is not supported (BPE and Unigram are)",
                       json->file, (int)(m->type.n < 32 ? m->type.n : 32), m->type.p);
    return unigram ? read_unigram(tok, json, m, err) : read_bpe(tok, json, m, err);
}
