/* api_prompt: from what clients send as a prompt (a text, token ids, several of either) to token
 * ids; and tokenization as a service of its own, in vLLM's shape and llama.cpp's. */
#include "coordinator/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- ids ------------------------------------------------------------------------------------- */

int api_ids_of_json(const json_t *list, struct tok_ids *out)
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

json_t *api_json_of_ids(const int32_t *id, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_integer(id[i]));
    }
    return list;
}

int api_ids_of_text(struct api *api, const char *text, size_t n, unsigned flags, int bounded,
                    struct tok_ids *out, struct err *err)
{
    size_t context = (size_t)api->model->desc.max_context;
    /* Normalisers may shorten a text, but not by this much. */
    if (bounded && n / 16 / (api->token_bytes_max + 1) > context) {
        return err_set(err, ERR_LIMIT, "a prompt of %zu bytes is past the model's context of %zu",
                       n, context);
    }
    return tokenizer_encode(api->tok, text, n, flags, out, err);
}

void api_truncate(struct tok_ids *ids, int n)
{
    if (n > 0 && ids->n > (size_t)n) {
        memmove(ids->id, ids->id + (ids->n - (size_t)n), (size_t)n * sizeof *ids->id);
        ids->n = (size_t)n;
    }
}

/* ---- completions ----------------------------------------------------------------------------- */

/* One prompt: text or a list of ids. */
static int read_one(struct api *api, const json_t *v, const struct api_params *p,
                    struct tok_ids *out, struct err *err)
{
    unsigned flags = TOK_PARSE_SPECIAL | (p->add_special ? TOK_ADD_SPECIAL : 0);
    int rc = -1;
    if (json_is_string(v) && json_string_length(v) > 0) {
        rc = api_ids_of_text(api, json_string_value(v), json_string_length(v), flags,
                             p->truncate == 0, out, err);
        if (rc != 0) {
            return rc;
        }
    } else if (json_is_array(v)) {
        rc = api_ids_of_json(v, out);
    }
    api_truncate(out, p->truncate);
    return rc == 0 && out->n > 0
               ? 0
               : err_set(err, ERR_USAGE,
                         "prompt must be a non-empty text, a list of token ids, or a list of "
                         "either");
}

static int read_prompts(struct api *api, const json_t *v, int many, const struct api_params *p,
                        struct tok_ids *ids, size_t n, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = read_one(api, many ? json_array_get(v, i) : v, p, &ids[i], err);
    }
    for (size_t i = 0; rc != 0 && i < n; i++) {
        tok_ids_fini(&ids[i]);
    }
    return rc;
}

void api_completions(struct api *api, const struct api_request *r)
{
    const json_t *v = json_object_get(r->body, "prompt");
    int many = json_is_array(v) && json_array_size(v) > 0 && !json_is_integer(json_array_get(v, 0));
    size_t n = many ? json_array_size(v) : 1;
    struct api_params p;
    struct err err = {0};
    if (n > (size_t)api->prompts_max) {
        api_fail(api, r->x, 400, "prompt", NULL, "%zu prompts in one request, at most %d are taken",
                 n, api->prompts_max);
        return;
    }
    if (api_params_read(api, r, 0, &p) != 0) {
        return;
    }
    struct tok_ids *ids = calloc(n, sizeof *ids);
    if (ids == NULL) {
        api_fail(api, r->x, 500, NULL, NULL, "no memory for %zu prompts", n);
    } else if (read_prompts(api, v, many, &p, ids, n, &err) != 0) {
        api_fail(api, r->x, api_status_of(&err), "prompt",
                 err.code == ERR_LIMIT ? "context_length_exceeded" : NULL, "%s", err.text);
    } else {
        api_job_start(api, r->x, 0, &p, ids, (int)n);
    }
    free(ids);
    api_params_fini(&p);
}

/* ---- tokenization ---------------------------------------------------------------------------- */

static json_t *spellings(const struct api *api, const struct tok_ids *ids)
{
    json_t *list = json_array();
    for (size_t i = 0; i < ids->n; i++) {
        size_t n = 0;
        const char *p = tokenizer_token(api->tok, ids->id[i], &n);
        json_t *s = p != NULL ? json_stringn(p, n) : NULL;
        json_array_append_new(list, s != NULL ? s : json_string(""));
    }
    return list;
}

/* The answer to millions of ids: written as text, since a JSON value each would take a hundred
 * times the memory, and every stream waits meanwhile. */
static void send_ids(struct api *api, struct http_exchange *x, const struct tok_ids *ids)
{
    size_t room = 96 + 12 * ids->n, n;
    char *text = malloc(room);
    if (text == NULL) {
        api_fail(api, x, 500, NULL, NULL, "no memory for %zu token ids", ids->n);
        return;
    }
    n = (size_t)snprintf(text, room, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", ids->n,
                         api->model->desc.max_context);
    for (size_t i = 0; i < ids->n; i++) {
        char digits[12];
        int k = (int)sizeof digits;
        uint32_t v = (uint32_t)ids->id[i];
        do {
            digits[--k] = (char)('0' + v % 10);
            v /= 10;
        } while (v > 0);
        memcpy(text + n, digits + k, sizeof digits - (size_t)k);
        n += sizeof digits - (size_t)k;
        text[n++] = i + 1 < ids->n ? ',' : ']';
    }
    n -= ids->n > 0; /* the last bracket is written again */
    memcpy(text + n, "]}", 2);
    api->counts.status[200]++;
    http_respond(x, 200, "application/json", text, n + 2);
    free(text);
}

/* A field that is true or false, or absent; *bad is its name when it is neither. */
static int flag(const json_t *body, const char *name, int absent, const char **bad)
{
    const json_t *v = json_object_get(body, name);
    if (v == NULL || json_is_null(v)) {
        return absent;
    }
    *bad = json_is_boolean(v) ? *bad : name;
    return json_is_true(v);
}

void api_tokenize(struct api *api, const struct api_request *r)
{
    const json_t *text = json_object_get(r->body, "prompt");
    const json_t *content = json_object_get(r->body, "content");
    struct tok_ids ids = {0};
    struct err err = {0};
    const char *bad = NULL;
    int spelled = flag(r->body, "return_token_strs", 0, &bad);
    /* llama.cpp's form adds nothing unless asked to. */
    int special = text != NULL ? flag(r->body, "add_special_tokens", 1, &bad)
                               : flag(r->body, "add_special", 0, &bad);
    if (bad != NULL) {
        api_fail(api, r->x, 400, bad, NULL, "%s must be true or false", bad);
        return;
    }
    if (json_object_get(r->body, "messages") != NULL) {
        if (api_template_read(api, r) != 0 ||
            api_chat_ids(api, r, CHOICE_AUTO, &ids, NULL, NULL) != 0) {
            return;
        }
    } else {
        text = text != NULL ? text : content;
        if (!json_is_string(text)) {
            api_fail(api, r->x, 400, "prompt", NULL, "prompt must be a text");
            return;
        }
        unsigned flags = TOK_PARSE_SPECIAL | (special ? TOK_ADD_SPECIAL : 0);
        if (api_ids_of_text(api, json_string_value(text), json_string_length(text), flags, 0, &ids,
                            &err) != 0) {
            tok_ids_fini(&ids);
            api_fail_err(api, r->x, &err);
            return;
        }
    }
    if (spelled) {
        api_json(api, r->x,
                 json_pack("{s:I,s:i,s:o,s:o}", "count", (json_int_t)ids.n, "max_model_len",
                           api->model->desc.max_context, "tokens", api_json_of_ids(ids.id, ids.n),
                           "token_strs", spellings(api, &ids)));
    } else {
        send_ids(api, r->x, &ids);
    }
    tok_ids_fini(&ids);
}

void api_detokenize(struct api *api, const struct api_request *r)
{
    struct tok_ids ids = {0};
    struct tok_text text = {0};
    struct err err = {0};
    const json_t *list = json_object_get(r->body, "tokens");
    if (!json_is_array(list) || api_ids_of_json(list, &ids) != 0) {
        api_fail(api, r->x, 400, "tokens", NULL, "tokens must be a list of token ids");
        return;
    }
    if (tokenizer_decode(api->tok, ids.id, ids.n, 0, &text, &err) != 0) {
        api_fail_err(api, r->x, &err);
    } else {
        json_t *s = json_stringn(text.p != NULL ? text.p : "", text.n);
        api_json(api, r->x, json_pack("{s:O,s:o}", "prompt", s, "content", s));
    }
    tok_ids_fini(&ids);
    tok_text_fini(&text);
}

static void set_token(const struct api *api, json_t *o, const char *name, int32_t id)
{
    size_t n = 0;
    const char *p = id >= 0 ? tokenizer_token(api->tok, id, &n) : NULL;
    json_object_set_new(o, name, p != NULL ? json_stringn(p, n) : json_null());
}

/* What evaluation harnesses ask for to tokenize here what they would have tokenized there. */
void api_tokenizer_info(struct api *api, const struct api_request *r)
{
    const char *template = tokenizer_chat_template(api->tok);
    json_t *o = json_pack("{s:s,s:i,s:i,s:s?}", "tokenizer_class", "PreTrainedTokenizerFast",
                          "vocab_size", (int)tokenizer_vocab_size(api->tok), "model_max_length",
                          api->model->desc.max_context, "chat_template", template);
    int32_t eos = tokenizer_eos(api->tok);
    set_token(api, o, "bos_token", tokenizer_bos(api->tok));
    set_token(api, o, "eos_token", eos);
    set_token(api, o, "pad_token", eos);
    api_json(api, r->x, o);
}
