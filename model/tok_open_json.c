/* tokenizer.json. Vocabulary and merges are read as they pass (tok_json.h); all else is small and
 * goes through jansson. The file's parts are located first, because the vocabulary can only be
 * stored once the pre-tokenizer says whether it is one of bytes. */
#include "model/tok_impl.h"
#include "model/tok_load.h"
#include <stdio.h>

struct parts {
    struct tok_str added, norm, pre, post, dec, model;
};
struct model {
    struct tok_str type, vocab, merges, unk;
    bool fuse_unk, byte_fallback, ignore_merges;
    int64_t unk_id;
};

static int part_of(struct parts *parts, struct tok_str key, struct tok_str **out)
{
    const struct {
        const char *name;
        struct tok_str *part;
    } known[] = {{"added_tokens", &parts->added}, {"normalizer", &parts->norm},
                 {"pre_tokenizer", &parts->pre},  {"post_processor", &parts->post},
                 {"decoder", &parts->dec},        {"model", &parts->model}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (key.n == strlen(known[i].name) && memcmp(key.p, known[i].name, key.n) == 0) {
            *out = known[i].part;
            return 1;
        }
    return 0;
}

/* locate finds the top-level parts. truncation and padding are the caller's business in a server.
 */
static int locate(struct tok_json *json, struct parts *parts, struct err *err)
{
    bool first = true;
    struct tok_str key, skipped;
    int r;
    while ((r = tok_json_member(json, &first, &key, err)) > 0) {
        struct tok_str *part = &skipped;
        if (part_of(parts, key, &part) && part->p)
            return err_set(err, ERR_MODEL, "%s: a part is there twice; the file is damaged",
                           json->file);
        r = tok_json_skip(json, part, err);
        if (r)
            return r;
    }
    r = r ? r : tok_json_end(json, err);
    if (!r && !parts->model.p)
        r = err_set(err, ERR_MODEL, "%s: there is no \"model\"; is this a tokenizer.json?",
                    json->file);
    return r;
}

static int tree(struct tok_str part, const char *file, json_t **out, struct err *err)
{
    json_error_t why;
    *out = NULL;
    if (!part.p)
        return 0;
    *out =
        json_loadb(part.p, part.n, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &why);
    return *out ? 0 : err_set(err, ERR_MODEL, "%s: %s; the file is damaged", file, why.text);
}

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

static int model_member(struct tok_json *json, struct model *m, struct tok_str key, struct err *err)
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

static int read_model(struct tok_json *json, struct model *m, struct err *err)
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

static int unk_of(struct tokenizer *tok, const struct tok_json *json, const struct model *m,
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

static int read_bpe(struct tokenizer *tok, const struct tok_json *json, const struct model *m,
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

static int read_unigram(struct tokenizer *tok, const struct tok_json *json, const struct model *m,
                        struct err *err)
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

static int read_added(struct tokenizer *tok, json_t *list, struct err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *json = json_array_get(list, i), *id = json_object_get(json, "id");
        struct tok_added_token token = {0};
        struct tok_str text;
        int r = load_string(json, "content", &text, err);
        r = r ? r : load_bool(json, "single_word", 0, &token.single_word, err);
        r = r ? r : load_bool(json, "lstrip", 0, &token.lstrip, err);
        r = r ? r : load_bool(json, "rstrip", 0, &token.rstrip, err);
        r = r ? r : load_bool(json, "normalized", 1, &token.normalized, err);
        r = r ? r : load_bool(json, "special", 0, &token.special, err);
        if (!r && !json_is_integer(id))
            r = err_set(err, ERR_MODEL, "tokenizer: an added token without an id");
        if (r)
            return r;
        if (text.n == 0)
            continue;
        /* a token that the model has keeps the model's id, whatever is written here */
        int64_t have = tok_vocab_raw(&tok->vocab, text.p, text.n);
        if (have < 0) {
            have = json_integer_value(id);
            r = tok_vocab_add_odd(&tok->vocab, text.p, text.n, have, err);
        }
        token.id = (int32_t)have;
        r = r ? r : tok_add_added(tok, token, err);
        if (r)
            return r;
    }
    return 0;
}

static int stages(struct tokenizer *tok, const char *file, const struct parts *parts,
                  struct err *err)
{
    json_t *norm = NULL, *pre = NULL, *dec = NULL;
    int r = tree(parts->norm, file, &norm, err);
    r = r ? r : tok_norm_load(&tok->norm, norm, tok->flag, err);
    r = r ? r : tree(parts->pre, file, &pre, err);
    r = r ? r : tok_pre_load(&tok->pre, pre, tok->flag, err);
    r = r ? r : tree(parts->dec, file, &dec, err);
    r = r ? r : tok_decoder_load(&tok->dec, dec, tok->flag, err);
    json_decref(norm);
    json_decref(pre);
    json_decref(dec);
    return r;
}

static int added_and_post(struct tokenizer *tok, const char *file, const struct parts *parts,
                          struct err *err)
{
    json_t *added = NULL, *post = NULL;
    int r = tree(parts->added, file, &added, err);
    r = r ? r : read_added(tok, added, err);
    r = r ? r : tree(parts->post, file, &post, err);
    r = r ? r : tok_post_load(tok, post, err);
    json_decref(added);
    json_decref(post);
    return r;
}

int tok_open_json(struct tokenizer *tok, const char *file, const char *bytes, size_t n,
                  struct err *err)
{
    struct tok_json json, inner = {0};
    struct parts parts = {0};
    struct model m = {0};
    tok_json_init(&json, file, bytes, n);
    int r = locate(&json, &parts, err);
    r = r ? r : stages(tok, file, &parts, err);
    if (r)
        goto out;
    enter(&inner, &json, parts.model);
    r = read_model(&inner, &m, err);
    if (r)
        goto out;
    tok_vocab_init(&tok->vocab, tok_pre_byte_space(&tok->pre));
    /* files from before the field carry no type; the vocabulary's shape tells */
    bool unigram = m.type.p ? is(m.type, "\"Unigram\"") : *m.vocab.p == '[';
    if (m.type.p && !unigram && !is(m.type, "\"BPE\""))
        r = err_set(err, ERR_MODEL, "%s: model type %.*s is not supported (BPE and Unigram are)",
                    file, (int)(m.type.n < 32 ? m.type.n : 32), m.type.p);
    else
        r = unigram ? read_unigram(tok, &json, &m, err) : read_bpe(tok, &json, &m, err);
    r = r ? r : added_and_post(tok, file, &parts, err);
out:
    tok_json_fini(&inner);
    tok_json_fini(&json);
    return r;
}
