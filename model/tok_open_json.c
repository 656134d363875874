/* tokenizer.json, but for its model (tok_model.c): small parts that go through jansson. All parts
 * are located first, because the vocabulary can only be stored once the pre-tokenizer says whether
 * it is one of bytes; the file is 10 to 30 MB, so the model is taken apart in the same pass. */
#include "model/tok_impl.h"
#include "model/tok_load.h"
#include "model/tok_model.h"

struct parts {
    struct tok_str added, norm, pre, post, dec;
    struct tok_model model;
};

static int part_of(struct parts *parts, struct tok_str key, struct tok_str **out)
{
    const struct {
        const char *name;
        struct tok_str *part;
    } known[] = {{"added_tokens", &parts->added},
                 {"normalizer", &parts->norm},
                 {"pre_tokenizer", &parts->pre},
                 {"post_processor", &parts->post},
                 {"decoder", &parts->dec}};
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
        bool model = key.n == 5 && memcmp(key.p, "model", 5) == 0;
        if (model && parts->model.vocab.p)
            return err_set(err, ERR_MODEL, "%s: there are two models; the file is damaged",
                           json->file);
        r = model ? tok_model_read(json, &parts->model, err) : tok_json_skip(json, part, err);
        if (r)
            return r;
    }
    r = r ? r : tok_json_end(json, err);
    if (!r && !parts->model.vocab.p)
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
    struct tok_json json;
    struct parts parts = {0};
    tok_json_init(&json, file, bytes, n);
    int r = locate(&json, &parts, err);
    r = r ? r : stages(tok, file, &parts, err);
    if (!r) {
        tok_vocab_init(&tok->vocab, tok_pre_byte_space(&tok->pre));
        r = tok_model_build(tok, &json, &parts.model, err);
    }
    r = r ? r : added_and_post(tok, file, &parts, err);
    tok_json_fini(&json);
    return r;
}
