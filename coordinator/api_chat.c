/* api_chat: from a conversation to token ids, by the model's own chat template. What a template may
 * see is what its authors meant it to see: messages, tools, plain values. It never comes from a
 * request. */
#include "coordinator/api.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- messages -------------------------------------------------------------------------------- */

/* A content of parts becomes their text: templates expect one. NULL: some part is not text. */
static json_t *join_parts(const json_t *parts)
{
    struct tok_text t = {0};
    json_t *part, *joined = NULL;
    size_t i, n = 0;
    json_array_foreach(parts, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *words = json_object_get(part, "text");
        if (type == NULL || strcmp(type, "text") != 0 || !json_is_string(words)) {
            return NULL;
        }
        n += json_string_length(words);
    }
    t.p = malloc(n + 1);
    json_array_foreach(parts, i, part)
    {
        const json_t *words = json_object_get(part, "text");
        if (t.p != NULL) {
            memcpy(t.p + t.n, json_string_value(words), json_string_length(words));
            t.n += json_string_length(words);
        }
    }
    joined = json_stringn(t.p != NULL ? t.p : "", t.n);
    free(t.p);
    return joined;
}

/* Clients send a call's arguments as a text; templates expect the object in it. */
static void parse_arguments(json_t *message)
{
    json_t *call;
    size_t i;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        json_t *f = json_object_get(call, "function"), *args = json_object_get(f, "arguments");
        json_t *parsed = json_is_string(args) ? json_loadb(json_string_value(args),
                                                           json_string_length(args), 0, NULL)
                                              : NULL;
        if (json_is_object(parsed)) {
            json_object_set_new(f, "arguments", parsed);
        } else {
            json_decref(parsed);
        }
    }
}

/* 0, or what is wrong with it. */
static const char *fix_message(json_t *m)
{
    json_t *content = json_object_get(m, "content");
    if (!json_is_object(m) || !json_is_string(json_object_get(m, "role"))) {
        return "needs a role";
    }
    if (content == NULL || json_is_null(content)) {
        /* Only who made calls may say nothing; templates test for None. */
        return json_object_get(m, "tool_calls") != NULL || content != NULL ? NULL
                                                                           : "needs a content";
    }
    if (json_is_array(content)) {
        json_t *joined = join_parts(content);
        if (joined == NULL) {
            return "has a part that is not text";
        }
        json_object_set_new(m, "content", joined);
    } else if (!json_is_string(content)) {
        return "has a content that is neither text nor parts";
    }
    return NULL;
}

/* A new array, or NULL having answered. */
static json_t *read_messages(struct api *api, const struct api_request *r)
{
    const json_t *list = json_object_get(r->body, "messages");
    if (!json_is_array(list) || json_array_size(list) == 0) {
        api_fail(api, r->x, 400, "messages", NULL, "messages must be a non-empty list");
        return NULL;
    }
    json_t *out = json_deep_copy(list), *m;
    size_t i;
    json_array_foreach(out, i, m)
    {
        const char *wrong = fix_message(m);
        if (wrong != NULL) {
            api_fail(api, r->x, 400, "messages", NULL, "message %zu %s", i, wrong);
            json_decref(out);
            return NULL;
        }
        parse_arguments(m);
    }
    return out;
}

/* ---- rendering ------------------------------------------------------------------------------- */

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

/* chat_template_kwargs, and reasoning_effort, which some templates know by that name. New, or NULL.
 */
static json_t *extra_of(const json_t *body)
{
    const json_t *given = json_object_get(body, "chat_template_kwargs");
    json_t *effort = json_object_get(body, "reasoning_effort");
    json_t *extra = json_is_object(given) ? json_copy((json_t *)(uintptr_t)given) : json_object();
    if (json_is_string(effort) && json_object_get(extra, "reasoning_effort") == NULL) {
        json_object_set(extra, "reasoning_effort", effort);
    }
    return extra;
}

static int render(struct api *api, const json_t *body, enum api_tool_choice choice,
                  const json_t *messages, char **text, size_t *n, struct err *err)
{
    char bos[256], eos[256];
    const json_t *tools = json_object_get(body, "tools");
    const json_t *ask = json_object_get(body, "add_generation_prompt");
    const json_t *go_on = json_object_get(body, "continue_final_message");
    if (tools != NULL && !json_is_null(tools) && !json_is_array(tools)) {
        return err_set(err, ERR_USAGE, "tools must be a list");
    }
    json_t *values = extra_of(body);
    struct chat_input in = {
        .messages = messages,
        .tools = choice != CHOICE_NONE && json_array_size(tools) > 0 ? tools : NULL,
        .extra = values,
        .add_generation_prompt = !json_is_false(ask) && !json_is_true(go_on),
        .continue_final_message = json_is_true(go_on),
        .bos_token = special_text(api, tokenizer_bos(api->tok), bos, sizeof bos),
        .eos_token = special_text(api, tokenizer_eos(api->tok), eos, sizeof eos),
        .now = (long long)time(NULL)};
    struct chat_limits limits = {0};
    int rc = chat_render(api->chat, &in, &limits, text, n, err);
    json_decref(values);
    return rc;
}

int api_chat_ids(struct api *api, const struct api_request *r, enum api_tool_choice choice,
                 struct tok_ids *ids, char **text_out, int *turn)
{
    struct err err = {0};
    char *text = NULL;
    size_t n = 0;
    if (api->chat == NULL) {
        api_fail(api, r->x, 400, "messages", "no_chat_template",
                 "this model has no chat template; use /v1/completions with a prompt");
        return -1;
    }
    json_t *messages = read_messages(api, r);
    if (messages == NULL) {
        return -1;
    }
    /* The template writes the special tokens itself. */
    unsigned flags =
        TOK_PARSE_SPECIAL |
        (json_is_true(json_object_get(r->body, "add_special_tokens")) ? TOK_ADD_SPECIAL : 0);
    int rc = render(api, r->body, choice, messages, &text, &n, &err);
    if (rc == 0) {
        rc = api_ids_of_text(api, text, n, flags, 1, ids, &err);
    }
    if (rc == 0 && turn != NULL) {
        *turn = api_last_turn(api, messages, text, n, flags, ids);
    }
    json_decref(messages);
    if (rc == 0 && ids->n == 0) {
        rc = err_set(&err, ERR_USAGE, "the conversation is empty");
    }
    if (rc == 0 && text_out != NULL) {
        *text_out = text;
        return 0;
    }
    free(text);
    if (rc != 0) {
        tok_ids_fini(ids);
        /* A value that the request itself sets is refused by its name. */
        int extra = strncmp(err.text, "chat_template_kwargs", 20) == 0;
        api_fail(api, r->x, api_status_of(&err), extra ? "chat_template_kwargs" : "messages",
                 err.code == ERR_LIMIT ? "context_length_exceeded" : NULL, "%s", err.text);
    }
    return rc == 0 ? 0 : -1;
}

/* ---- routes ---------------------------------------------------------------------------------- */

void api_chat(struct api *api, const struct api_request *r)
{
    struct api_params p;
    struct tok_ids ids = {0};
    if (api_params_read(api, r, 1, &p) != 0) {
        return;
    }
    int turn = 0;
    if (api_chat_ids(api, r, p.tool_choice, &ids, NULL, &turn) == 0) {
        int before = (int)ids.n;
        api_truncate(&ids, p.truncate);
        turn -= before - (int)ids.n;
        p.generation.domain_from = turn > 0 ? turn : 0;
        api_job_start(api, r->x, 1, &p, &ids, 1);
    }
    api_params_fini(&p);
}

/* What a conversation becomes, without answering it. */
void api_render(struct api *api, const struct api_request *r)
{
    struct tok_ids ids = {0};
    char *text = NULL;
    const json_t *choice = json_object_get(r->body, "tool_choice");
    int none = json_is_string(choice) && strcmp(json_string_value(choice), "none") == 0;
    if (api_template_read(api, r) != 0) {
        return;
    }
    if (api_chat_ids(api, r, none ? CHOICE_NONE : CHOICE_AUTO, &ids, &text, NULL) != 0) {
        return;
    }
    api_json(api, r->x,
             json_pack("{s:s,s:o,s:I}", "prompt", text, "prompt_token_ids",
                       api_json_of_ids(ids.id, ids.n), "count", (json_int_t)ids.n));
    tok_ids_fini(&ids);
    free(text);
}
