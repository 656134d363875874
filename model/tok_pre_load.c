/* The `pre_tokenizer` of tokenizer.json. */
#include "model/tok_load.h"
#include "model/tok_pre.h"

static int load_behavior(json_t *json, enum tok_behavior fallback, enum tok_behavior *out,
                         struct err *err)
{
    static const char *const name[] = {
        [CUT_ISOLATED] = "Isolated",        [CUT_REMOVED] = "Removed",
        [CUT_CONTIGUOUS] = "Contiguous",    [CUT_WITH_PREVIOUS] = "MergedWithPrevious",
        [CUT_WITH_NEXT] = "MergedWithNext",
    };
    json_t *value = json_object_get(json, "behavior");
    *out = fallback;
    if (!value)
        return 0;
    const char *s = json_is_string(value) ? json_string_value(value) : "?";
    for (int i = 0; i <= CUT_WITH_NEXT; i++)
        if (strcmp(s, name[i]) == 0) {
            *out = (enum tok_behavior)i;
            return 0;
        }
    return err_set(err, ERR_MODEL, "tokenizer: split behavior '%s' is not supported", s);
}

static int load_split(struct tok_pre_op *op, json_t *json, struct err *err)
{
    int r = load_pattern(json, &op->split, err);
    r = r ? r : load_behavior(json, CUT_ISOLATED, &op->behavior, err);
    return r ? r : load_bool(json, "invert", 0, &op->invert, err);
}

static int load_digits(struct tok_pre_op *op, json_t *json, struct err *err)
{
    bool each;
    int r = load_bool(json, "individual_digits", 0, &each, err);
    op->behavior = each ? CUT_ISOLATED : CUT_CONTIGUOUS;
    return r;
}

static int load_byte_level(struct tok_pre_op *op, json_t *json, struct err *err)
{
    int r = load_bool(json, "add_prefix_space", 1, &op->prefix_space, err);
    r = r ? r : load_bool(json, "use_regex", 1, &op->cuts, err);
    tok_split_gpt2(&op->split);
    return r;
}

static int load_metaspace(struct tok_pre_op *op, json_t *json, struct err *err)
{
    struct tok_str mark;
    bool prefix;
    const char *scheme = json_string_value(json_object_get(json, "prepend_scheme"));
    int r = load_char(json, "replacement", &mark, err);
    r = r ? r : load_bool(json, "add_prefix_space", 1, &prefix, err);
    r = r ? r : load_bool(json, "split", 1, &op->cuts, err);
    if (r)
        return r;
    scheme = scheme ? scheme : prefix ? "always" : "never";
    if (!prefix && strcmp(scheme, "never") != 0)
        return err_set(err, ERR_MODEL,
                       "tokenizer: Metaspace has add_prefix_space false but "
                       "prepend_scheme '%s'",
                       scheme);
    if (strcmp(scheme, "always") == 0)
        op->scheme = PREPEND_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        op->scheme = PREPEND_FIRST;
    else if (strcmp(scheme, "never") == 0)
        op->scheme = PREPEND_NEVER;
    else
        return err_set(err, ERR_MODEL, "tokenizer: prepend_scheme '%s' is not supported", scheme);
    op->behavior = CUT_WITH_NEXT;
    if (tok_text_add(&op->replacement, mark.p, mark.n))
        return tok_nomem(err);
    return tok_split_literal(&op->split, mark.p, mark.n, err);
}

static int load_kind(struct tok_pre_op *op, const char *type, json_t *json, struct err *err)
{
    if (strcmp(type, "Split") == 0) {
        op->kind = PRE_SPLIT;
        return load_split(op, json, err);
    }
    if (strcmp(type, "Digits") == 0) {
        op->kind = PRE_DIGITS;
        return load_digits(op, json, err);
    }
    if (strcmp(type, "Punctuation") == 0) {
        op->kind = PRE_PUNCT;
        return load_behavior(json, CUT_ISOLATED, &op->behavior, err);
    }
    if (strcmp(type, "Whitespace") == 0 || strcmp(type, "WhitespaceSplit") == 0) {
        op->kind = type[10] ? PRE_WHITESPACE_SPLIT : PRE_WHITESPACE;
        op->behavior = CUT_REMOVED;
        op->invert = op->kind == PRE_WHITESPACE; /* there the matches are what stays */
        return 0;
    }
    if (strcmp(type, "Metaspace") == 0) {
        op->kind = PRE_METASPACE;
        return load_metaspace(op, json, err);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        op->kind = PRE_BYTELEVEL;
        return load_byte_level(op, json, err);
    }
    return err_set(err, ERR_MODEL, "tokenizer: pre-tokenizer '%s' is not supported", type);
}

static int load_one(struct tok_pre *pre, json_t *json, int depth, struct err *err)
{
    const char *type = load_type(json, "pre-tokenizer", err);
    if (!type)
        return ERR_MODEL;
    if (strcmp(type, "Sequence") == 0) {
        json_t *list;
        int r = load_list(json, "pretokenizers", depth, &list, err);
        for (size_t i = 0; !r && i < json_array_size(list); i++)
            r = load_one(pre, json_array_get(list, i), depth + 1, err);
        return r;
    }
    if (tok_pre_byte_space(pre))
        return err_set(err, ERR_MODEL,
                       "tokenizer: a pre-tokenizer ('%s') behind ByteLevel is not "
                       "supported",
                       type);
    if (pre->n == TOK_PRE_OPS)
        return err_set(err, ERR_LIMIT, "tokenizer: more than %d pre-tokenizers are not supported",
                       TOK_PRE_OPS);
    return load_kind(&pre->op[pre->n++], type, json, err);
}

int tok_pre_load(struct tok_pre *pre, json_t *json, const uint8_t *flag, struct err *err)
{
    pre->flag = flag;
    return !json || json_is_null(json) ? 0 : load_one(pre, json, 0, err);
}
