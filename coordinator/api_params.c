/* api_params: the fields of a request that say how to generate, each checked once for type and
 * range. Field names, defaults and meanings are OpenAI's, with vLLM's additions (top_k, min_p,
 * ignore_eos, min_tokens, repetition_penalty, stop_token_ids, skip_special_tokens,
 * include_stop_str_in_output). */
#include "coordinator/api.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct reader {
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
        api_fail(r->x, 400, name, "%s must be %s", name, what);
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
            strlen(json_string_value(s)) != json_string_length(s)) {
            refuse(r, "stop", "non-empty strings without NUL");
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
        if (*key == 0 || *end != 0 || id < 0 || id > LIMIT_VOCAB || !json_is_number(value) ||
            !(fabs(bias) <= 100)) {
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
        p->n_logprobs = (int)integer(r, "logprobs", -1, 0, SERVICE_TOP_MAX, "between 0 and 20");
    }
    p->generation.n_top = p->n_logprobs;
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
    p->include_usage = json_is_true(json_object_get(v, "include_usage"));
}

static void read_format(const struct api *api, struct reader *r, struct api_params *p)
{
    const json_t *v = field(r, "response_format");
    const char *type = json_string_value(json_object_get(v, "type"));
    struct err err = {0};
    if (v == NULL || (type != NULL && strcmp(type, "text") == 0)) {
        return;
    }
    int rc;
    if (type != NULL && strcmp(type, "json_object") == 0) {
        rc = grammar_json_object(api->tok, &p->generation.grammar, &err);
    } else if (type != NULL && strcmp(type, "json_schema") == 0) {
        const json_t *outer = json_object_get(v, "json_schema");
        const json_t *schema = json_object_get(outer, "schema");
        if (!json_is_object(schema)) {
            refuse(r, "response_format",
                   "{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{..}}}");
            return;
        }
        rc = grammar_json_schema(api->tok, schema, &p->generation.grammar, &err);
    } else {
        refuse(r, "response_format", "an object of type text, json_object or json_schema");
        return;
    }
    if (rc != 0 && !r->failed) {
        r->failed = 1;
        api_fail_err(r->x, &err);
    }
}

static int check_model(const struct api *api, struct reader *r)
{
    const json_t *v = field(r, "model");
    if (v != NULL && (!json_is_string(v) || strcmp(json_string_value(v), api->model_name) != 0)) {
        r->failed = 1;
        api_fail(r->x, 404, "model", "the model here is \"%s\"", api->model_name);
    }
    return r->failed;
}

int api_params_read(const struct api *api, struct http_exchange *x, const json_t *body, int chat,
                    struct api_params *p)
{
    struct reader r = {x, body, 0};
    memset(p, 0, sizeof *p);
    if (check_model(api, &r)) {
        return -1;
    }
    struct generation_params *g = &p->generation;
    g->domain = DOMAIN_AUTO;
    int context = api->model->desc.max_context;
    const char *limit = "between 0 and the model's context";
    /* -1: as many as the context leaves; the job knows the prompt. */
    int64_t tokens = integer(&r, "max_tokens", chat ? -1 : 16, 0, context, limit);
    g->max_tokens = (int)integer(&r, "max_completion_tokens", tokens, 0, context, limit);
    g->min_tokens = (int)integer(&r, "min_tokens", 0, 0, context, limit);
    g->n_choice =
        (int)integer(&r, "n", 1, 1, api->n_choice_max, "between 1 and the server's limit");
    g->sampling = (struct sampling){
        .temperature = (float)number(&r, "temperature", 1, 0, 2, "between 0 and 2"),
        .top_p = (float)number(&r, "top_p", 1, 1e-9, 1, "above 0 and at most 1"),
        .top_k = (int)integer(&r, "top_k", 0, -1, LIMIT_VOCAB, "a count; 0 or -1: all"),
        .min_p = (float)number(&r, "min_p", 0, 0, 1, "between 0 and 1"),
        .repetition_penalty = (float)number(&r, "repetition_penalty", 1, 1e-3, 1e3, "above 0"),
        .presence_penalty = (float)number(&r, "presence_penalty", 0, -2, 2, "between -2 and 2"),
        .frequency_penalty = (float)number(&r, "frequency_penalty", 0, -2, 2, "between -2 and 2"),
        .seed = (uint64_t)integer(&r, "seed", (int64_t)(api->next_id * 0x9e3779b97f4a7c15ULL >> 1),
                                  INT64_MIN, INT64_MAX, "an integer")};
    g->sampling.top_k = g->sampling.top_k < 0 ? 0 : g->sampling.top_k;
    g->ignore_eos = boolean(&r, "ignore_eos", 0);
    g->skip_special = boolean(&r, "skip_special_tokens", 1);
    g->include_stop = boolean(&r, "include_stop_str_in_output", 0);
    p->echo = !chat && boolean(&r, "echo", 0);
    read_stops(&r, p);
    read_stop_tokens(&r, p);
    read_bias(&r, p);
    read_logprobs(&r, chat, p);
    read_stream(&r, p);
    if (!r.failed) {
        read_format(api, &r, p);
    }
    g->prompt_logprobs = p->echo && p->n_logprobs >= 0;
    return r.failed ? -1 : 0;
}
