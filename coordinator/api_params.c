/* api_params: the fields of a request that say how to generate, each checked once for type and
 * range. Field names, defaults and meanings are OpenAI's, with vLLM's additions; docs/API.md lists
 * them. */
#include "coordinator/api.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STOP_BYTES_MAX 1024

struct reader {
    struct api *api;
    struct http_exchange *x;
    const json_t *body;
    int failed; /* the answer was given */
};

static const json_t *field(const struct reader *r, const char *name)
{
    const json_t *v = json_object_get(r->body, name);
    return r->failed || v == NULL || json_is_null(v) ? NULL : v;
}

static void refuse(struct reader *r, const char *name, const char *what)
{
    if (!r->failed) {
        r->failed = 1;
        api_fail(r->api, r->x, 400, name, NULL, "%s must be %s", name, what);
    }
}

static double number(struct reader *r, const char *name, double absent, double min, double max,
                     const char *what)
{
    const json_t *v = field(r, name);
    if (v == NULL) {
        return absent;
    }
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= min && d <= max)) {
        refuse(r, name, what);
        return absent;
    }
    return d;
}

static int64_t integer(struct reader *r, const char *name, int64_t absent, int64_t min, int64_t max,
                       const char *what)
{
    const json_t *v = field(r, name);
    if (v == NULL) {
        return absent;
    }
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max) {
        refuse(r, name, what);
        return absent;
    }
    return json_integer_value(v);
}

static int boolean(struct reader *r, const char *name, int absent)
{
    const json_t *v = field(r, name);
    if (v == NULL) {
        return absent;
    }
    if (!json_is_boolean(v)) {
        refuse(r, name, "true or false");
        return absent;
    }
    return json_is_true(v);
}

static void read_stops(struct reader *r, struct api_params *p)
{
    const json_t *v = field(r, "stop");
    size_t n = v == NULL ? 0 : json_is_string(v) ? 1 : json_array_size(v);
    if (v != NULL && ((!json_is_string(v) && !json_is_array(v)) || n > 16)) {
        refuse(r, "stop", "a string or a list of at most 16 strings");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_string(v) ? v : json_array_get(v, i);
        if (!json_is_string(s) || json_string_length(s) == 0 ||
            json_string_length(s) > STOP_BYTES_MAX ||
            strlen(json_string_value(s)) != json_string_length(s)) {
            refuse(r, "stop", "strings of 1 to 1024 bytes without NUL");
            return;
        }
        p->stop[p->generation.n_stop++] = json_string_value(s);
    }
    p->generation.stop = p->stop;
}

static void read_stop_tokens(struct reader *r, struct api_params *p)
{
    const json_t *v = field(r, "stop_token_ids");
    if (v == NULL) {
        return;
    }
    if (!json_is_array(v) || json_array_size(v) > 64) {
        refuse(r, "stop_token_ids", "a list of at most 64 token ids");
        return;
    }
    size_t i;
    const json_t *e;
    json_array_foreach(v, i, e)
    {
        if (!json_is_integer(e) || json_integer_value(e) < 0 ||
            json_integer_value(e) > LIMIT_VOCAB) {
            refuse(r, "stop_token_ids", "a list of token ids");
            return;
        }
        p->stop_token[p->generation.n_stop_token++] = (int32_t)json_integer_value(e);
    }
    p->generation.stop_token = p->stop_token;
}

static void read_bias(struct reader *r, struct api_params *p)
{
    const json_t *v = field(r, "logit_bias");
    if (v == NULL) {
        return;
    }
    if (!json_is_object(v) || json_object_size(v) > 1024) {
        refuse(r, "logit_bias", "an object of at most 1024 token ids and biases");
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        char *end;
        long id = strtol(key, &end, 10);
        double bias = json_number_value(value);
        if (key[0] < '0' || key[0] > '9' || *end != 0 || id < 0 || id > LIMIT_VOCAB ||
            !json_is_number(value) || !(fabs(bias) <= 100)) {
            refuse(r, "logit_bias", "token ids with biases between -100 and 100");
            return;
        }
        p->bias[p->generation.sampling.n_bias++] = (struct logit_bias){(int32_t)id, (float)bias};
    }
    p->generation.sampling.bias = p->bias;
}

static void read_logprobs(struct reader *r, int chat, struct api_params *p)
{
    p->n_logprobs = -1;
    if (chat) {
        int64_t top = integer(r, "top_logprobs", -1, 0, SERVICE_TOP_MAX, "between 0 and 20");
        if (boolean(r, "logprobs", 0)) {
            p->n_logprobs = top > 0 ? (int)top : 0;
        } else if (top > 0) {
            refuse(r, "top_logprobs", "used together with logprobs: true");
        }
    } else {
        p->n_logprobs =
            (int)integer(r, "logprobs", -1, 0, SERVICE_TOP_MAX, "an integer between 0 and 20");
    }
    p->prompt_logprobs =
        (int)integer(r, "prompt_logprobs", -1, 0, SERVICE_TOP_MAX, "an integer between 0 and 20");
    if (p->prompt_logprobs >= 0 && p->stream) {
        refuse(r, "prompt_logprobs", "asked for without stream");
    }
    p->generation.prompt_logprobs = p->prompt_logprobs >= 0 || (p->echo && p->n_logprobs >= 0);
    p->generation.n_top = p->n_logprobs > p->prompt_logprobs ? p->n_logprobs : p->prompt_logprobs;
}

static void read_stream(struct reader *r, struct api_params *p)
{
    p->stream = boolean(r, "stream", 0);
    const json_t *v = field(r, "stream_options");
    if (v == NULL) {
        return;
    }
    if (!p->stream || !json_is_object(v)) {
        refuse(r, "stream_options", "an object, used together with stream: true");
        return;
    }
    const json_t *usage = json_object_get(v, "include_usage");
    const json_t *always = json_object_get(v, "continuous_usage_stats");
    if ((usage != NULL && !json_is_boolean(usage)) ||
        (always != NULL && !json_is_boolean(always))) {
        refuse(r, "stream_options", "an object of true or false");
    }
    p->include_usage = json_is_true(usage);
    p->usage_always = p->include_usage && json_is_true(always);
}

/* ---- what the text must look like ------------------------------------------------------------ */

/* `from`: the field that asks. */
static void grammar_of(struct reader *r, const char *from, const json_t *schema,
                       struct api_params *p)
{
    struct api *api = r->api;
    struct err err = {0};
    int rc = 0;
    if (r->failed) {
        return;
    }
    if (p->generation.grammar != NULL) {
        refuse(r, from,
               "the only one of response_format, structured_outputs and a "
               "required tool call");
        return;
    }
    if (api->grammar_vocab == NULL) {
        rc = grammar_vocab_create(api->tok, &api->grammar_vocab, &err);
    }
    if (rc == 0 && schema == NULL) {
        rc = grammar_vocab_json_object(api->grammar_vocab, &p->generation.grammar, &err);
    } else if (rc == 0) {
        rc = grammar_vocab_json_schema(api->grammar_vocab, schema, &p->generation.grammar, &err);
    }
    if (rc != 0) {
        /* A vocabulary that cannot spell JSON is the model's nature, not our fault. */
        err.code = err.code == ERR_MODEL ? ERR_USAGE : err.code;
        r->failed = 1;
        api_fail(api, r->x, api_status_of(&err), from, NULL, "%s", err.text);
    }
}

static void read_format(struct reader *r, struct api_params *p)
{
    const json_t *v = field(r, "response_format");
    const char *type = json_string_value(json_object_get(v, "type"));
    if (v == NULL || (type != NULL && strcmp(type, "text") == 0)) {
        return;
    }
    if (type != NULL && strcmp(type, "json_object") == 0) {
        grammar_of(r, "response_format", NULL, p);
    } else if (type != NULL && strcmp(type, "json_schema") == 0) {
        const json_t *schema = json_object_get(json_object_get(v, "json_schema"), "schema");
        if (json_is_object(schema) || json_is_boolean(schema)) {
            grammar_of(r, "response_format", schema, p);
        } else {
            refuse(r, "response_format",
                   "{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{..}}}");
        }
    } else {
        refuse(r, "response_format", "an object of type text, json_object or json_schema");
    }
}

/* vLLM's form: {"json": schema} or {"json_object": true}, and its older guided_json. A schema may
 * be a text. */
static void read_structured(struct reader *r, struct api_params *p)
{
    const json_t *v = field(r, "structured_outputs"), *schema = field(r, "guided_json");
    const char *from = v != NULL ? "structured_outputs" : "guided_json";
    json_t *parsed = NULL;
    if (v != NULL && json_is_true(json_object_get(v, "json_object"))) {
        grammar_of(r, from, NULL, p);
        return;
    }
    if (v != NULL) {
        schema = json_object_get(v, "json");
        if (schema == NULL) {
            refuse(r, "structured_outputs", "an object with json (a schema) or json_object: true");
            return;
        }
    }
    if (json_is_string(schema)) {
        parsed = json_loadb(json_string_value(schema), json_string_length(schema),
                            JSON_REJECT_DUPLICATES, NULL);
        schema = parsed;
        if (parsed == NULL) {
            refuse(r, from, "a JSON schema");
        }
    }
    if (schema != NULL) {
        grammar_of(r, from, schema, p);
    }
    json_decref(parsed);
}

/* ---- tools ----------------------------------------------------------------------------------- */

static const json_t *tool_function(const json_t *tools, const char *name)
{
    size_t i;
    const json_t *tool;
    json_array_foreach(tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        const char *is = json_string_value(json_object_get(f, "name"));
        if (is != NULL && (name == NULL || strcmp(is, name) == 0)) {
            return f;
        }
    }
    return NULL;
}

static int check_tools(struct reader *r, const json_t *tools)
{
    size_t i;
    const json_t *tool;
    int bad = !json_is_array(tools) || json_array_size(tools) > 128;
    json_array_foreach(tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        const json_t *parameters = json_object_get(f, "parameters");
        bad |= !json_is_string(json_object_get(f, "name")) ||
               (parameters != NULL && !json_is_object(parameters));
    }
    if (bad) {
        refuse(r, "tools",
               "a list of at most 128 {\"type\":\"function\",\"function\":{\"name\":..}}");
    }
    return bad;
}

/* One object {"name": .., "arguments": {..}} of any tool. */
static void require_any(struct reader *r, struct api_params *p)
{
    json_t *any = json_array();
    size_t i;
    const json_t *tool;
    json_array_foreach(p->tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        json_t *parameters = json_object_get(f, "parameters");
        parameters =
            parameters != NULL ? json_incref(parameters) : json_pack("{s:s}", "type", "object");
        json_array_append_new(
            any, json_pack("{s:s,s:{s:{s:O},s:o},s:[s,s],s:b}", "type", "object", "properties",
                           "name", "const", json_object_get(f, "name"), "arguments", parameters,
                           "required", "name", "arguments", "additionalProperties", 0));
    }
    json_t *schema = json_pack("{s:o}", "anyOf", any);
    grammar_of(r, "tools", schema, p);
    json_decref(schema);
}

static void require_named(struct reader *r, struct api_params *p)
{
    const json_t *f = tool_function(p->tools, p->tool_name);
    const json_t *parameters = json_object_get(f, "parameters");
    if (f == NULL) {
        refuse(r, "tool_choice", "the name of one of the tools");
        return;
    }
    p->tool_choice = CHOICE_NAMED;
    p->tool_name = json_string_value(json_object_get(f, "name"));
    grammar_of(r, "tools", parameters, p);
}

static void read_tools(struct reader *r, struct api_params *p)
{
    const json_t *tools = field(r, "tools"), *choice = field(r, "tool_choice");
    const char *word = json_string_value(choice);
    if (tools != NULL && check_tools(r, tools)) {
        return;
    }
    p->tools = json_array_size(tools) > 0 ? tools : NULL;
    p->tool_choice = p->tools != NULL ? CHOICE_AUTO : CHOICE_NONE;
    if (choice == NULL || (word != NULL && strcmp(word, "auto") == 0)) {
        return;
    }
    if (word != NULL && strcmp(word, "none") == 0) {
        p->tool_choice = CHOICE_NONE;
    } else if (p->tools == NULL) {
        refuse(r, "tool_choice", "used together with tools");
    } else if (word != NULL && strcmp(word, "required") == 0 && json_array_size(tools) == 1) {
        require_named(r, p);
    } else if (word != NULL && strcmp(word, "required") == 0) {
        p->tool_choice = CHOICE_REQUIRED;
        require_any(r, p);
    } else if (json_is_object(choice)) {
        p->tool_name =
            json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
        if (p->tool_name == NULL) {
            refuse(r, "tool_choice", "{\"type\":\"function\",\"function\":{\"name\":..}}");
        } else {
            require_named(r, p);
        }
    } else {
        refuse(r, "tool_choice", "none, auto, required, or the name of a function in an object");
    }
}

/* What api_chat.c gives to the template. */
static void read_template(struct reader *r)
{
    const json_t *extra = field(r, "chat_template_kwargs");
    int go_on = boolean(r, "continue_final_message", 0);
    const char *key;
    json_t *v;
    if (extra != NULL && !json_is_object(extra)) {
        refuse(r, "chat_template_kwargs", "an object of plain values");
    }
    json_object_foreach((json_t *)(uintptr_t)extra, key, v)
    {
        if (json_is_object(v) || json_is_array(v)) {
            refuse(r, "chat_template_kwargs", "an object of plain values");
        }
    }
    if (boolean(r, "add_generation_prompt", !go_on) && go_on) {
        refuse(r, "continue_final_message",
               "asked for without add_generation_prompt, which it excludes");
    }
}

int api_template_read(struct api *api, const struct api_request *q)
{
    struct reader r = {api, q->x, q->body, 0};
    boolean(&r, "add_special_tokens", 0);
    read_template(&r);
    return r.failed ? -1 : 0;
}

/* ---- the model and its domains --------------------------------------------------------------- */

static int no_model(struct api *api, struct http_exchange *x, const char *why)
{
    api_fail(api, x, 404, "model", "model_not_found", "the model here is \"%s\"%s%s",
             api->model_name, why[0] != 0 ? ": " : "", why);
    return -1;
}

/* The id of the model, alone or with ":domain". */
static int read_model_id(struct api *api, const struct api_request *r, const char *id, int *domain)
{
    size_t n = strlen(api->model_name);
    struct err err = {0};
    if (strncmp(id, api->model_name, n) != 0 || (id[n] != 0 && id[n] != ':')) {
        return no_model(api, r->x, "");
    }
    if (id[n] == ':' && desc_domain_read(&api->model->desc, id + n + 1, domain, &err) != 0) {
        return no_model(api, r->x, err.text);
    }
    return 0;
}

int api_model_read(struct api *api, const struct api_request *r, int *domain, char *name,
                   size_t size)
{
    const json_t *model = json_object_get(r->body, "model");
    const json_t *field = json_object_get(r->body, "domain");
    const char *header = http_field_get(r->http, "x-sigmoe-domain");
    struct err err = {0};
    int asked = DOMAIN_AUTO;
    *domain = DOMAIN_AUTO;
    snprintf(name, size, "%s", api->model_name);
    if (json_is_string(model)) {
        if (read_model_id(api, r, json_string_value(model), domain) != 0) {
            return -1;
        }
        snprintf(name, size, "%s", json_string_value(model));
    } else if (model != NULL && !json_is_null(model)) {
        api_fail(api, r->x, 400, "model", NULL, "model must be a text");
        return -1;
    }
    if (field != NULL && !json_is_null(field) && !json_is_string(field)) {
        api_fail(api, r->x, 400, "domain", NULL, "domain must be a text");
        return -1;
    }
    const char *text = json_is_string(field) ? json_string_value(field) : header;
    if (text != NULL && strcmp(text, "auto") != 0 &&
        desc_domain_read(&api->model->desc, text, &asked, &err) != 0) {
        api_fail(api, r->x, 400, "domain", "unknown_domain", "%s", err.text);
        return -1;
    }
    if (asked != DOMAIN_AUTO && *domain != DOMAIN_AUTO && asked != *domain) {
        api_fail(api, r->x, 400, "domain", NULL, "the model's id says one domain, domain another");
        return -1;
    }
    *domain = asked != DOMAIN_AUTO ? asked : *domain;
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* Fields of old interfaces that would change what is generated. */
static void refuse_unsupported(struct reader *r)
{
    const json_t *best = field(r, "best_of"), *suffix = field(r, "suffix");
    const json_t *n = field(r, "n");
    if (best != NULL && json_integer_value(best) != (n != NULL ? json_integer_value(n) : 1)) {
        refuse(r, "best_of", "absent or the same as n");
    }
    if (suffix != NULL && json_string_length(suffix) > 0) {
        refuse(r, "suffix", "absent: this server continues texts only");
    }
    if (boolean(r, "use_beam_search", 0)) {
        refuse(r, "use_beam_search", "false: this server samples");
    }
    if (field(r, "chat_template") != NULL) {
        refuse(r, "chat_template", "absent: a template is code, and only the model's own is run");
    }
}

static void read_sampling(struct reader *r, struct sampling *s)
{
    int64_t own = (int64_t)(r->api->next_id * 0x9e3779b97f4a7c15ULL >> 1) ^ r->api->start_ns;
    *s = (struct sampling){
        .temperature = (float)number(r, "temperature", 1, 0, 2, "between 0 and 2"),
        .top_p = (float)number(r, "top_p", 1, 1e-9, 1, "above 0 and at most 1"),
        .top_k = (int)integer(r, "top_k", 0, -1, LIMIT_VOCAB, "a count; 0 or -1: all"),
        .min_p = (float)number(r, "min_p", 0, 0, 1, "between 0 and 1"),
        .repetition_penalty =
            (float)number(r, "repetition_penalty", 1, 1e-3, 1e3, "between 0.001 and 1000"),
        .presence_penalty = (float)number(r, "presence_penalty", 0, -2, 2, "between -2 and 2"),
        .frequency_penalty = (float)number(r, "frequency_penalty", 0, -2, 2, "between -2 and 2"),
        .seed = (uint64_t)integer(r, "seed", own, INT64_MIN, INT64_MAX, "an integer")};
    s->top_k = s->top_k < 0 ? 0 : s->top_k;
}

static void read_lengths(struct reader *r, int chat, struct api_params *p)
{
    struct generation_params *g = &p->generation;
    const char *count = "a count of tokens within the model's context";
    int context = r->api->model->desc.max_context;
    /* -1: as many as the context leaves; the job knows the prompt. */
    int64_t tokens = integer(r, "max_tokens", chat ? -1 : 16, 0, context, count);
    g->max_tokens = (int)integer(r, "max_completion_tokens", tokens, 0, context, count);
    g->min_tokens = (int)integer(r, "min_tokens", 0, 0, context, count);
    if (g->max_tokens >= 0 && g->min_tokens > g->max_tokens) {
        refuse(r, "min_tokens", "at most max_tokens");
    }
    p->truncate = (int)integer(r, "truncate_prompt_tokens", 0, -1, LIMIT_CONTEXT,
                               "a count of tokens, or -1: as many as the context takes");
    p->truncate = p->truncate < 0 ? r->api->model->desc.max_context : p->truncate;
    g->n_choice =
        (int)integer(r, "n", 1, 1, r->api->n_choice_max, "a count within the server's limit");
}

int api_params_read(struct api *api, const struct api_request *q, int chat, struct api_params *p)
{
    struct reader r = {api, q->x, q->body, 0};
    struct generation_params *g = &p->generation;
    memset(p, 0, sizeof *p);
    if (api_model_read(api, q, &g->domain, p->model, sizeof p->model) != 0) {
        return -1;
    }
    read_lengths(&r, chat, p);
    read_sampling(&r, &g->sampling);
    g->ignore_eos = boolean(&r, "ignore_eos", 0);
    g->skip_special = boolean(&r, "skip_special_tokens", 1);
    g->include_stop = boolean(&r, "include_stop_str_in_output", 0);
    g->routes = boolean(&r, "return_routed_experts", 0);
    p->token_ids = boolean(&r, "return_token_ids", 0);
    p->tokens_as_ids = boolean(&r, "return_tokens_as_token_ids", 0);
    p->add_special = boolean(&r, "add_special_tokens", !chat);
    p->echo = boolean(&r, "echo", 0);
    if (p->echo && chat) {
        refuse(&r, "echo", "asked for from /v1/completions only");
    }
    refuse_unsupported(&r);
    read_stops(&r, p);
    read_stop_tokens(&r, p);
    read_bias(&r, p);
    read_stream(&r, p);
    read_logprobs(&r, chat, p);
    read_format(&r, p);
    read_structured(&r, p);
    if (chat) {
        read_tools(&r, p);
        read_template(&r);
    }
    if (r.failed) {
        api_params_fini(p);
        return -1;
    }
    return 0;
}

void api_params_fini(struct api_params *p)
{
    grammar_unref(p->generation.grammar);
    p->generation.grammar = NULL;
}
