/* api_prompt: from what clients send as a prompt (a text, token ids, several of either, or
 * messages) to token ids; and tokenization as a service of its own, in vLLM's shape and
 * llama.cpp's. */
#include "coordinator/api.h"

#include <stdlib.h>
#include <string.h>

static int ids_from_json(const json_t *list, struct tok_ids *out)
{
    size_t n = json_array_size(list), i;
    const json_t *e;
    out->id = malloc((n + 1) * sizeof *out->id);
    if (out->id == NULL) {
        return -1;
    }
    out->cap = n + 1;
    json_array_foreach(list, i, e)
    {
        if (!json_is_integer(e) || json_integer_value(e) < 0 ||
            json_integer_value(e) > LIMIT_VOCAB) {
            tok_ids_fini(out);
            return -1;
        }
        out->id[out->n++] = (int32_t)json_integer_value(e);
    }
    return 0;
}

static int ids_from_text(const struct api *api, const json_t *text, unsigned flags,
                         struct tok_ids *out, struct err *err)
{
    return tokenizer_encode(api->tok, json_string_value(text), json_string_length(text), flags, out,
                            err);
}

/* One prompt: text or a list of ids. */
static int read_one(const struct api *api, const json_t *v, unsigned flags, struct tok_ids *out,
                    struct err *err)
{
    int rc = json_is_string(v)  ? ids_from_text(api, v, flags, out, err)
             : json_is_array(v) ? ids_from_json(v, out)
                                : -1;
    if (rc == 0 && out->n == 0) {
        rc = -1;
    }
    return rc == 0 ? 0
                   : err_set(err, ERR_USAGE,
                             "prompt must be a non-empty text, a list of token ids, or a list of "
                             "either");
}

void api_completions(struct api *api, struct http_exchange *x, const json_t *body)
{
    struct api_params p;
    if (api_params_read(api, x, body, 0, &p) != 0) {
        return;
    }
    const json_t *v = json_object_get(body, "prompt");
    int many = json_is_array(v) && json_array_size(v) > 0 && !json_is_integer(json_array_get(v, 0));
    size_t n = many ? json_array_size(v) : 1;
    unsigned flags = TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL;
    if (n > (size_t)api->prompts_max) {
        api_fail(x, 400, "prompt", "%zu prompts in one request, at most %d are taken", n,
                 api->prompts_max);
        return;
    }
    struct tok_ids *ids = calloc(n, sizeof *ids);
    struct err err = {0};
    int rc = ids == NULL ? err_set(&err, ERR_NOMEM, "no memory for %zu prompts", n) : 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = read_one(api, many ? json_array_get(v, i) : v, flags, &ids[i], &err);
    }
    if (rc == 0) {
        api_job_start(api, x, 0, &p, ids, (int)n);
    } else {
        for (size_t i = 0; ids != NULL && i < n; i++) {
            tok_ids_fini(&ids[i]);
        }
        if (p.generation.grammar != NULL) {
            grammar_unref(p.generation.grammar);
        }
        api_fail_err(x, &err);
    }
    free(ids);
}

/* ---- chat ------------------------------------------------------------------------------------ */

/* Messages are objects with a role; content is text, null, or a list of text parts, which are
 * joined: templates expect text. Returns a new array, or NULL having answered. */
static json_t *read_messages(struct http_exchange *x, const json_t *body)
{
    const json_t *list = json_object_get(body, "messages");
    if (!json_is_array(list) || json_array_size(list) == 0) {
        api_fail(x, 400, "messages", "messages must be a non-empty list");
        return NULL;
    }
    json_t *out = json_deep_copy(list), *m;
    size_t i;
    json_array_foreach(out, i, m)
    {
        json_t *content = json_object_get(m, "content"), *part;
        size_t k;
        if (!json_is_object(m) || !json_is_string(json_object_get(m, "role")) ||
            (content != NULL && !json_is_string(content) && !json_is_null(content) &&
             !json_is_array(content))) {
            api_fail(x, 400, "messages", "message %zu needs a role and a content of text", i);
            json_decref(out);
            return NULL;
        }
        if (!json_is_array(content)) {
            continue;
        }
        json_t *joined = json_string("");
        json_array_foreach(content, k, part)
        {
            const char *type = json_string_value(json_object_get(part, "type"));
            const char *words = json_string_value(json_object_get(part, "text"));
            if (type == NULL || strcmp(type, "text") != 0 || words == NULL) {
                api_fail(x, 400, "messages", "message %zu has a part that is not text", i);
                json_decref(joined);
                json_decref(out);
                return NULL;
            }
            json_t *more = json_sprintf("%s%s", json_string_value(joined), words);
            json_decref(joined);
            joined = more;
        }
        json_object_set_new(m, "content", joined);
    }
    return out;
}

static const char *special_text(const struct api *api, int32_t id, char *out, size_t size)
{
    size_t n = 0;
    const char *p = tokenizer_token(api->tok, id, &n);
    if (p == NULL || n >= size) {
        n = 0;
    } else {
        memcpy(out, p, n);
    }
    out[n] = 0;
    return out;
}

/* Scalars that a template may see (enable_thinking and the like); nothing else passes. */
static int extra_is_plain(const json_t *extra)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)extra, key, v)
    {
        if (json_is_object(v) || json_is_array(v)) {
            return 0;
        }
    }
    return 1;
}

static int render(struct api *api, const json_t *body, const json_t *messages, struct tok_ids *ids,
                  struct err *err)
{
    char bos[256], eos[256], *text = NULL;
    size_t n = 0;
    const json_t *tools = json_object_get(body, "tools");
    const json_t *extra = json_object_get(body, "chat_template_kwargs");
    const json_t *ask = json_object_get(body, "add_generation_prompt");
    if ((extra != NULL && !json_is_null(extra) &&
         (!json_is_object(extra) || !extra_is_plain(extra))) ||
        (tools != NULL && !json_is_null(tools) && !json_is_array(tools))) {
        return err_set(err, ERR_USAGE,
                       "tools must be a list, chat_template_kwargs an object of plain values");
    }
    struct chat_input in = {
        .messages = messages,
        .tools = json_is_array(tools) && json_array_size(tools) > 0 ? tools : NULL,
        .extra = json_is_object(extra) ? extra : NULL,
        .add_generation_prompt = !json_is_false(ask),
        .continue_final_message = json_is_true(json_object_get(body, "continue_final_message")),
        .bos_token = special_text(api, tokenizer_bos(api->tok), bos, sizeof bos),
        .eos_token = special_text(api, tokenizer_eos(api->tok), eos, sizeof eos),
        .now = api->created};
    struct chat_limits limits = {0};
    int rc = chat_render(api->chat, &in, &limits, &text, &n, err);
    if (rc == 0) {
        /* The template writes the special tokens itself. */
        rc = tokenizer_encode(api->tok, text, n, TOK_PARSE_SPECIAL, ids, err);
    }
    free(text);
    return rc == 0 && ids->n == 0 ? err_set(err, ERR_USAGE, "the conversation is empty") : rc;
}

void api_chat(struct api *api, struct http_exchange *x, const json_t *body)
{
    struct api_params p;
    if (api->chat == NULL) {
        api_fail(x, 400, "messages",
                 "this model has no chat template; use /v1/completions with a prompt");
        return;
    }
    if (api_params_read(api, x, body, 1, &p) != 0) {
        return;
    }
    struct err err = {0};
    struct tok_ids ids = {0};
    json_t *messages = read_messages(x, body);
    int rc = messages == NULL ? -1 : render(api, body, messages, &ids, &err);
    json_decref(messages);
    if (rc == 0) {
        api_job_start(api, x, 1, &p, &ids, 1);
        return;
    }
    tok_ids_fini(&ids);
    if (p.generation.grammar != NULL) {
        grammar_unref(p.generation.grammar);
    }
    if (messages != NULL) {
        api_fail_err(x, &err);
    }
}

/* ---- tokenization ---------------------------------------------------------------------------- */

void api_tokenize(struct api *api, struct http_exchange *x, const json_t *body)
{
    const json_t *text = json_object_get(body, "prompt");
    text = text != NULL ? text : json_object_get(body, "content");
    const json_t *special = json_object_get(body, "add_special_tokens");
    struct tok_ids ids = {0};
    struct err err = {0};
    if (!json_is_string(text)) {
        api_fail(x, 400, "prompt", "prompt must be a text");
        return;
    }
    unsigned flags = TOK_PARSE_SPECIAL | (json_is_false(special) ? 0 : TOK_ADD_SPECIAL);
    if (ids_from_text(api, text, flags, &ids, &err) != 0) {
        tok_ids_fini(&ids);
        api_fail_err(x, &err);
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < ids.n; i++) {
        json_array_append_new(list, json_integer(ids.id[i]));
    }
    api_json(x, json_pack("{s:i,s:i,s:o}", "count", (int)ids.n, "max_model_len",
                          api->model->desc.max_context, "tokens", list));
    tok_ids_fini(&ids);
}

void api_detokenize(struct api *api, struct http_exchange *x, const json_t *body)
{
    struct tok_ids ids = {0};
    struct tok_text text = {0};
    struct err err = {0};
    const json_t *list = json_object_get(body, "tokens");
    if (!json_is_array(list) || ids_from_json(list, &ids) != 0) {
        api_fail(x, 400, "tokens", "tokens must be a list of token ids");
        return;
    }
    if (tokenizer_decode(api->tok, ids.id, ids.n, 0, &text, &err) != 0) {
        api_fail_err(x, &err);
    } else {
        json_t *s = json_stringn(text.p != NULL ? text.p : "", text.n);
        api_json(x, json_pack("{s:O,s:o}", "prompt", s, "content", s));
    }
    tok_ids_fini(&ids);
    tok_text_fini(&text);
}
