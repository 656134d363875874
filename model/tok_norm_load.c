/* The `normalizer` of tokenizer.json, and the same operations made by hand for formats that have
 * them built in. An unknown type, or a type with an unknown field's value, is refused by name. */
#include "model/tok_load.h"
#include "model/tok_norm.h"

static struct tok_norm_op *op_new(struct tok_norm *norm, enum tok_norm_kind kind, struct err *err)
{
    if (norm->n == TOK_NORM_OPS) {
        err_set(err, ERR_LIMIT, "tokenizer: more than %d normalizers are not supported",
                TOK_NORM_OPS);
        return NULL;
    }
    struct tok_norm_op *op = &norm->op[norm->n++];
    op->kind = kind;
    return op;
}

int tok_norm_add_replace(struct tok_norm *norm, const char *from, const char *to, struct err *err)
{
    struct tok_norm_op *op = op_new(norm, NORM_REPLACE, err);
    int r = op ? tok_split_literal(&op->pattern, from, strlen(from), err) : ERR_LIMIT;
    if (!r && tok_text_add(&op->content, to, strlen(to)))
        r = tok_nomem(err);
    return r;
}

static int add_regex(struct tok_norm *norm, const char *from, const char *to, struct err *err)
{
    struct tok_norm_op *op = op_new(norm, NORM_REPLACE, err);
    int r = op ? tok_split_regex(&op->pattern, from, strlen(from), true, err) : ERR_LIMIT;
    if (!r && tok_text_add(&op->content, to, strlen(to)))
        r = tok_nomem(err);
    return r;
}

int tok_norm_add_squeeze(struct tok_norm *norm, struct err *err)
{
    int r = add_regex(norm, "\\A +| +\\z", "", err);
    return r ? r : add_regex(norm, " {2,}", " ", err);
}

int tok_norm_add_prepend(struct tok_norm *norm, const char *what, struct err *err)
{
    struct tok_norm_op *op = op_new(norm, NORM_PREPEND, err);
    if (!op)
        return ERR_LIMIT;
    return tok_text_add(&op->content, what, strlen(what)) ? tok_nomem(err) : 0;
}

int tok_norm_add_charsmap(struct tok_norm *norm, const char *map, size_t n, struct err *err)
{
    int r = tok_charsmap_check(map, n, err);
    struct tok_norm_op *op = r ? NULL : op_new(norm, NORM_CHARSMAP, err);
    if (!op)
        return r ? r : ERR_LIMIT;
    return tok_text_add(&op->content, map, n) ? tok_nomem(err) : 0;
}

static int load_replace(struct tok_norm *norm, json_t *json, struct err *err)
{
    struct tok_norm_op *op = op_new(norm, NORM_REPLACE, err);
    struct tok_str content;
    int r = op ? load_pattern(json, &op->pattern, err) : ERR_LIMIT;
    r = r ? r : load_string(json, "content", &content, err);
    if (!r && tok_text_add(&op->content, content.p, content.n))
        r = tok_nomem(err);
    return r;
}

static int load_prepend(struct tok_norm *norm, json_t *json, struct err *err)
{
    struct tok_norm_op *op = op_new(norm, NORM_PREPEND, err);
    struct tok_str what;
    int r = op ? load_string(json, "prepend", &what, err) : ERR_LIMIT;
    if (!r && tok_text_add(&op->content, what.p, what.n))
        r = tok_nomem(err);
    return r;
}

static int load_strip(struct tok_norm *norm, json_t *json, struct err *err)
{
    struct tok_norm_op *op = op_new(norm, NORM_STRIP, err);
    int r = op ? load_bool(json, "strip_left", -1, &op->left, err) : ERR_LIMIT;
    return r ? r : load_bool(json, "strip_right", -1, &op->right, err);
}

static int load_charsmap(struct tok_norm *norm, json_t *json, struct err *err)
{
    struct tok_str coded;
    struct tok_text map = {0};
    int r = load_string(json, "precompiled_charsmap", &coded, err);
    r = r ? r : load_base64(coded, &map, err);
    r = r ? r : tok_norm_add_charsmap(norm, map.p, map.n, err);
    tok_text_fini(&map);
    return r;
}

static int load_one(struct tok_norm *norm, json_t *json, int depth, struct err *err)
{
    static const struct {
        const char *type;
        enum tok_norm_kind kind;
    } plain[] = {{"NFC", NORM_NFC},
                 {"NFD", NORM_NFD},
                 {"NFKC", NORM_NFKC},
                 {"NFKD", NORM_NFKD},
                 {"Lowercase", NORM_LOWERCASE}};
    const char *type = load_type(json, "normalizer", err);
    if (!type)
        return ERR_MODEL;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i].type) == 0)
            return op_new(norm, plain[i].kind, err) ? 0 : ERR_LIMIT;
    if (strcmp(type, "Replace") == 0)
        return load_replace(norm, json, err);
    if (strcmp(type, "Prepend") == 0)
        return load_prepend(norm, json, err);
    if (strcmp(type, "Strip") == 0)
        return load_strip(norm, json, err);
    if (strcmp(type, "Precompiled") == 0)
        return load_charsmap(norm, json, err);
    if (strcmp(type, "Sequence") != 0)
        return err_set(err, ERR_MODEL, "tokenizer: normalizer '%s' is not supported", type);
    json_t *list;
    int r = load_list(json, "normalizers", depth, &list, err);
    for (size_t i = 0; !r && i < json_array_size(list); i++)
        r = load_one(norm, json_array_get(list, i), depth + 1, err);
    return r;
}

int tok_norm_load(struct tok_norm *norm, json_t *json, const uint8_t *flag, struct err *err)
{
    norm->flag = flag;
    return !json || json_is_null(json) ? 0 : load_one(norm, json, 0, err);
}
