/* Post-processors: what is put around an encoded text. For one text (no pairs in a language model)
 * every kind comes down to ids before and ids after; ByteLevel only moves offsets, which we do not
 * keep. */
#include "model/tok_impl.h"
#include "model/tok_load.h"

static int add_checked(struct tokenizer *tok, struct tok_ids *to, json_t *id, struct err *err)
{
    if (!json_is_integer(id) || !tok_vocab_has(&tok->vocab, json_integer_value(id)))
        return err_set(err, ERR_MODEL,
                       "tokenizer: the post-processor adds a token that is not in the "
                       "vocabulary");
    return tok_ids_add(to, (int32_t)json_integer_value(id)) ? tok_nomem(err) : 0;
}

static int add_template_token(struct tokenizer *tok, struct tok_ids *to, json_t *tokens,
                              json_t *item, struct err *err)
{
    const char *name = json_string_value(json_object_get(item, "id"));
    json_t *ids = json_object_get(json_object_get(tokens, name ? name : ""), "ids");
    if (!json_is_array(ids))
        return err_set(err, ERR_MODEL,
                       "tokenizer: the post-processor's token '%s' is not among its "
                       "special_tokens",
                       name ? name : "?");
    int r = 0;
    for (size_t i = 0; !r && i < json_array_size(ids); i++)
        r = add_checked(tok, to, json_array_get(ids, i), err);
    return r;
}

/* wrap puts new ids outside of what is already around the text. */
static int wrap(struct tokenizer *tok, struct tok_ids *before, const struct tok_ids *after,
                struct err *err)
{
    if (tok_ids_add_n(before, tok->before.id, tok->before.n) ||
        tok_ids_add_n(&tok->after, after->id, after->n))
        return tok_nomem(err);
    struct tok_ids old = tok->before;
    tok->before = *before;
    *before = old;
    return 0;
}

static int load_template(struct tokenizer *tok, json_t *json, struct err *err)
{
    json_t *single = json_object_get(json, "single"),
           *tokens = json_object_get(json, "special_tokens");
    struct tok_ids before = {0}, after = {0};
    int n_text = 0, r = 0;
    for (size_t i = 0; !r && i < json_array_size(single); i++) {
        json_t *item = json_array_get(single, i), *special = json_object_get(item, "SpecialToken");
        if (special)
            r = add_template_token(tok, n_text ? &after : &before, tokens, special, err);
        else if (json_object_get(item, "Sequence"))
            n_text++;
        else
            r = err_set(err, ERR_MODEL,
                        "tokenizer: the post-processor's template has an unknown part");
    }
    if (!r && n_text != 1)
        r = err_set(err, ERR_MODEL,
                    "tokenizer: the post-processor's template has the text %d times", n_text);
    r = r ? r : wrap(tok, &before, &after, err);
    tok_ids_fini(&before);
    tok_ids_fini(&after);
    return r;
}

/* Roberta and Bert: cls text sep, each written ["token", id]. */
static int load_cls_sep(struct tokenizer *tok, json_t *json, struct err *err)
{
    struct tok_ids before = {0}, after = {0};
    int r = add_checked(tok, &before, json_array_get(json_object_get(json, "cls"), 1), err);
    r = r ? r : add_checked(tok, &after, json_array_get(json_object_get(json, "sep"), 1), err);
    r = r ? r : wrap(tok, &before, &after, err);
    tok_ids_fini(&before);
    tok_ids_fini(&after);
    return r;
}

static int load_one(struct tokenizer *tok, json_t *json, int depth, struct err *err)
{
    const char *type = load_type(json, "post-processor", err);
    if (!type)
        return ERR_MODEL;
    if (strcmp(type, "ByteLevel") == 0)
        return 0;
    if (strcmp(type, "TemplateProcessing") == 0)
        return load_template(tok, json, err);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        return load_cls_sep(tok, json, err);
    if (strcmp(type, "Sequence") != 0)
        return err_set(err, ERR_MODEL, "tokenizer: post-processor '%s' is not supported", type);
    json_t *list;
    int r = load_list(json, "processors", depth, &list, err);
    for (size_t i = 0; !r && i < json_array_size(list); i++)
        r = load_one(tok, json_array_get(list, i), depth + 1, err);
    return r;
}

int tok_post_load(struct tokenizer *tok, json_t *json, struct err *err)
{
    return !json || json_is_null(json) ? 0 : load_one(tok, json, 0, err);
}
