/* See tok_load.h. */
#include "model/tok_load.h"

const char *load_type(json_t *json, const char *what, struct err *err)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type)
        err_set(err, ERR_MODEL, "tokenizer: a %s without a \"type\"; the file is damaged", what);
    return type;
}

int load_string(json_t *json, const char *key, struct tok_str *out, struct err *err)
{
    json_t *value = json_object_get(json, key);
    if (!json_is_string(value))
        return err_set(err, ERR_MODEL, "tokenizer: \"%s\" must be a string", key);
    *out = (struct tok_str){json_string_value(value), json_string_length(value)};
    return 0;
}

int load_bool(json_t *json, const char *key, int fallback, bool *out, struct err *err)
{
    json_t *value = json_object_get(json, key);
    if ((!value || json_is_null(value)) && fallback >= 0) {
        *out = fallback > 0;
        return 0;
    }
    if (!json_is_boolean(value))
        return err_set(err, ERR_MODEL, "tokenizer: \"%s\" must be true or false", key);
    *out = json_is_true(value);
    return 0;
}

int load_list(json_t *json, const char *key, int depth, json_t **out, struct err *err)
{
    json_t *list = json_object_get(json, key);
    if (!json_is_array(list))
        return err_set(err, ERR_MODEL, "tokenizer: \"%s\" of a Sequence must be a list", key);
    if (depth >= 8)
        return err_set(err, ERR_LIMIT,
                       "tokenizer: Sequences nested deeper than 8 are not supported");
    *out = list;
    return 0;
}

int load_pattern(json_t *json, struct tok_split *split, struct err *err)
{
    json_t *pattern = json_object_get(json, "pattern"), *regex = json_object_get(pattern, "Regex");
    json_t *string = json_object_get(pattern, "String");
    if (json_is_string(regex))
        return tok_split_regex(split, json_string_value(regex), json_string_length(regex), true,
                               err);
    if (json_is_string(string))
        return tok_split_literal(split, json_string_value(string), json_string_length(string), err);
    return err_set(err, ERR_MODEL,
                   "tokenizer: \"pattern\" must be {\"Regex\": …} or {\"String\": …}");
}

int load_char(json_t *json, const char *key, struct tok_str *out, struct err *err)
{
    int r = load_string(json, key, out, err);
    if (!r && (out->n == 0 || utf8_len(out->p[0]) != out->n))
        r = err_set(err, ERR_MODEL, "tokenizer: \"%s\" must be one character", key);
    return r;
}

int load_base64(struct tok_str coded, struct tok_text *out, struct err *err)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    int have = 0;
    while (coded.n > 0 && coded.p[coded.n - 1] == '=')
        coded.n--;
    for (size_t i = 0; i < coded.n; i++) {
        const char *at = coded.p[i] ? strchr(alphabet, coded.p[i]) : NULL;
        if (!at)
            return err_set(err, ERR_MODEL, "tokenizer: a precompiled_charsmap is not base64");
        bits = bits << 6 | (uint32_t)(at - alphabet);
        have += 6;
        if (have < 8)
            continue;
        have -= 8;
        char byte = (char)(bits >> have & 0xff);
        if (tok_text_add(out, &byte, 1))
            return tok_nomem(err);
    }
    return 0;
}
