/* api_reply: a job's response: one JSON object, or server-sent events. What clients rely on: the
 * role comes in a chunk of its own, a choice's last chunk has an empty delta and the reason, the
 * usage comes behind all reasons, [DONE] is the end, also of a failure. */
#include "coordinator/api_job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- figures --------------------------------------------------------------------------------- */

static json_t *usage_of(const struct api_job *j)
{
    json_int_t prompt = 0, generated = 0, cached = 0;
    for (int i = 0; i < j->n_prompt; i++) {
        prompt += (json_int_t)j->prompt[i].ids.n;
        cached += j->prompt[i].n_cached;
    }
    for (int i = 0; i < j->n_prompt * j->n_choice; i++) {
        generated += j->choice[i].n_token;
    }
    return json_pack("{s:I,s:I,s:I,s:{s:I}}", "prompt_tokens", prompt, "completion_tokens",
                     generated, "total_tokens", prompt + generated, "prompt_tokens_details",
                     "cached_tokens", cached);
}

static const char *domain_of(const struct api_job *j, int prompt)
{
    int domain = j->prompt[prompt].domain;
    return domain >= 0 ? j->api->model->desc.domain[domain].name : NULL;
}

/* Who computed the request's rows of (token, slot). */
static json_t *computed_by(const struct api_job *j)
{
    json_t *list = json_array();
    uint64_t all = 0;
    for (int i = 0; i < j->n_rows; i++) {
        all += j->rows[i];
    }
    for (int i = 0; i < j->n_rows; i++) {
        char name[LIMIT_NAME_BYTES] = "coordinator";
        if (j->rows[i] == 0) {
            continue;
        }
        if (i > 0) {
            meter_worker_name(service_meter(j->api->service), i - 1, name, sizeof name);
        }
        json_array_append_new(list, json_pack("{s:s,s:I,s:f}", "worker", name, "rows",
                                              (json_int_t)j->rows[i], "share",
                                              (double)j->rows[i] / (double)all));
    }
    return list;
}

/* What is ours alone: the domain and how it was found, who computed, how long it took. */
static json_t *sigmoe_of(const struct api_job *j)
{
    int64_t now = clock_now(&clock_real);
    json_t *o =
        json_pack("{s:o,s:{s:f,s:f}}", "computed_by", computed_by(j), "seconds", "first_token",
                  j->first_ns > 0 ? (double)(j->first_ns - j->start_ns) / 1e9 : 0.0, "total",
                  (double)(now - j->start_ns) / 1e9);
    if (domain_of(j, 0) != NULL) {
        json_t *domains = json_array();
        for (int i = 0; i < j->n_prompt; i++) {
            json_array_append_new(domains, json_pack("{s:s?,s:O?}", "domain", domain_of(j, i),
                                                     "scores", j->prompt[i].scores));
        }
        json_object_set_new(o, "domains", domains);
    }
    return o;
}

/* ---- one object ------------------------------------------------------------------------------ */

static json_t *envelope(const struct api_job *j, json_t *choices)
{
    const char *object = !j->chat       ? "text_completion"
                         : j->streaming ? "chat.completion.chunk"
                                        : "chat.completion";
    char fingerprint[40];
    hash_hex(j->api->model->fingerprint, fingerprint);
    fingerprint[16] = 0;
    json_t *o = json_pack("{s:s,s:s,s:I,s:s,s:s+,s:o}", "id", j->id, "object", object, "created",
                          (json_int_t)j->created, "model", j->model, "system_fingerprint", "fp_",
                          fingerprint, "choices", choices);
    if (domain_of(j, 0) != NULL) {
        json_object_set_new(o, "domain", json_string(domain_of(j, 0)));
    }
    return o;
}

static const char *reason_of(const struct api_choice *c)
{
    if (c->finish == FINISH_STOP && !c->job->named && json_array_size(c->tools.call) > 0) {
        return "tool_calls";
    }
    return finish_name(c->finish);
}

static json_t *stop_reason(const struct api_choice *c)
{
    return c->stop_text != NULL ? json_string(c->stop_text)
           : c->stop_token >= 0 ? json_integer(c->stop_token)
                                : json_null();
}

static json_t *text_of(const struct api_choice *c)
{
    json_t *s = json_stringn(c->text.p != NULL ? c->text.p : "", c->text.n);
    return s != NULL ? s : json_string("");
}

static void named_call_id(const struct api_choice *c, char *out, size_t size)
{
    snprintf(out, size, "call_%s_%d", c->job->id, c->index);
}

static json_t *message_of(const struct api_choice *c)
{
    const struct api_job *j = c->job;
    if (j->named) {
        char id[80];
        named_call_id(c, id, sizeof id);
        return json_pack("{s:s,s:n,s:n,s:[{s:s,s:s,s:{s:s,s:o}}]}", "role", "assistant", "content",
                         "refusal", "tool_calls", "id", id, "type", "function", "function", "name",
                         j->tool_name, "arguments", text_of(c));
    }
    int calls = json_array_size(c->tools.call) > 0;
    json_t *m = json_pack("{s:s,s:o,s:n}", "role", "assistant", "content",
                          calls && c->text.n == 0 ? json_null() : text_of(c), "refusal");
    if (calls) {
        json_object_set(m, "tool_calls", c->tools.call);
    }
    return m;
}

/* Fields of a choice that only come when asked for. */
static void add_extras(const struct api_choice *c, json_t *one, int whole)
{
    const struct api_job *j = c->job;
    const struct api_prompt *p = &j->prompt[c->prompt];
    if (j->token_ids) {
        json_object_set_new(one, "token_ids", api_json_of_ids(c->token.id, c->token.n));
    }
    if (j->token_ids && !j->chat && whole) {
        json_object_set_new(one, "prompt_token_ids", api_json_of_ids(p->ids.id, p->ids.n));
    }
    if (p->logprobs != NULL && !j->chat) {
        json_object_set(one, "prompt_logprobs", p->logprobs);
    }
}

static void add_routes(const struct api_choice *c, json_t *one)
{
    if (c->routes != NULL) {
        json_object_set_new(one, "routed_experts", json_string(c->routes));
    }
}

static json_t *choice_of(const struct api_choice *c)
{
    json_t *one =
        json_pack("{s:i,s:o,s:o,s:s,s:o}", "index", c->index, c->job->chat ? "message" : "text",
                  c->job->chat ? message_of(c) : text_of(c), "logprobs", logprobs_of(c),
                  "finish_reason", reason_of(c), "stop_reason", stop_reason(c));
    add_extras(c, one, 1);
    add_routes(c, one);
    return one;
}

void reply_whole(struct api_job *j)
{
    json_t *choices = json_array();
    for (int i = 0; i < j->n_prompt * j->n_choice; i++) {
        json_array_append_new(choices, choice_of(&j->choice[i]));
    }
    json_t *o = envelope(j, choices);
    json_object_set_new(o, "usage", usage_of(j));
    json_object_set_new(o, "sigmoe", sigmoe_of(j));
    if (j->chat && j->token_ids) {
        json_object_set_new(o, "prompt_token_ids",
                            api_json_of_ids(j->prompt[0].ids.id, j->prompt[0].ids.n));
    }
    if (j->chat && j->prompt[0].logprobs != NULL) {
        json_object_set(o, "prompt_logprobs", j->prompt[0].logprobs);
    }
    j->answered = 1;
    api_json(j->api, j->x, o);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void begin_stream(struct api_job *j)
{
    if (!j->streaming) {
        j->streaming = 1;
        j->api->counts.status[200]++;
        http_header(j->x, "Cache-Control", "no-cache");
        http_header(j->x, "X-Accel-Buffering", "no");
        http_stream_begin(j->x, 200, "text/event-stream");
    }
}

static void send_event(struct api_job *j, json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    j->wrote_ns = clock_now(&clock_real);
    if (text != NULL && http_stream_write(j->x, "data: ", 6) == 0 &&
        http_stream_write(j->x, text, strlen(text)) == 0) {
        http_stream_write(j->x, "\n\n", 2);
    }
    free(text);
}

static void send_done(struct api_job *j)
{
    j->answered = 1;
    http_stream_write(j->x, "data: [DONE]\n\n", 14);
    http_stream_end(j->x);
}

/* A chunk of one choice, which is taken over. last: nothing but the usage follows. */
static void send_chunk(struct api_choice *c, json_t *one, int first, int last)
{
    struct api_job *j = c->job;
    json_t *choices = json_array();
    json_array_append_new(choices, one);
    begin_stream(j);
    json_t *o = envelope(j, choices);
    if (j->usage_always) {
        json_object_set_new(o, "usage", usage_of(j));
    } else if (j->include_usage) {
        json_object_set_new(o, "usage", json_null());
    }
    if (first && j->token_ids && j->chat) {
        json_object_set_new(
            o, "prompt_token_ids",
            api_json_of_ids(j->prompt[c->prompt].ids.id, j->prompt[c->prompt].ids.n));
    }
    if (last && !j->include_usage) {
        json_object_set_new(o, "sigmoe", sigmoe_of(j));
    }
    send_event(j, o);
}

/* What a chunk says of a chat choice, by name `delta`, or of a completion's, by name `text`. */
static json_t *chunk_of(const struct api_choice *c, json_t *delta, const char *reason, int logprobs)
{
    return json_pack("{s:i,s:o,s:o,s:s?}", "index", c->index, c->job->chat ? "delta" : "text",
                     delta, "logprobs", logprobs ? logprobs_of(c) : json_null(), "finish_reason",
                     reason);
}

static void send_role(struct api_choice *c)
{
    json_t *delta = json_pack("{s:s,s:s}", "role", "assistant", "content", "");
    send_chunk(c, chunk_of(c, delta, NULL, 0), 1, 0);
}

/* New calls of a choice, whole, as a delta; or the next piece of a named call's arguments. */
static void add_calls(struct api_choice *c, json_t *delta)
{
    const struct api_job *j = c->job;
    json_t *list = json_array();
    if (j->named) {
        char id[80];
        named_call_id(c, id, sizeof id);
        json_t *call = json_pack("{s:i,s:{s:o}}", "index", 0, "function", "arguments", text_of(c));
        if (c->n_call++ == 0) {
            json_object_set_new(call, "id", json_string(id));
            json_object_set_new(call, "type", json_string("function"));
            json_object_set_new(json_object_get(call, "function"), "name",
                                json_string(j->tool_name));
        }
        json_array_append_new(list, call);
    }
    for (size_t n = json_array_size(c->tools.call); !j->named && (size_t)c->n_call < n;
         c->n_call++) {
        json_t *call = json_copy(json_array_get(c->tools.call, (size_t)c->n_call));
        json_object_set_new(call, "index", json_integer(c->n_call));
        json_array_append_new(list, call);
    }
    if (json_array_size(list) > 0) {
        json_object_set(delta, "tool_calls", list);
    }
    json_decref(list);
}

static int has_news(const struct api_choice *c)
{
    return c->text.n > 0 || (size_t)c->n_call < json_array_size(c->tools.call) ||
           (c->job->token_ids && c->token.n > 0) || json_array_size(c->tokens) > 0 ||
           json_array_size(c->content) > 0;
}

void reply_text(struct api_choice *c)
{
    const struct api_job *j = c->job;
    int first = !c->started;
    c->started = 1;
    if (first && j->chat) {
        send_role(c);
    }
    if (!has_news(c)) {
        return;
    }
    json_t *delta = j->chat ? json_object() : text_of(c);
    if (j->chat) {
        add_calls(c, delta);
        if (!j->named && (c->text.n > 0 || json_object_size(delta) == 0)) {
            json_object_set_new(delta, "content", text_of(c));
        }
    }
    json_t *one = chunk_of(c, delta, NULL, 1);
    add_extras(c, one, first && !j->chat);
    send_chunk(c, one, 0, 0);
    c->text.n = 0;
    c->token.n = 0;
    if (j->n_logprobs >= 0) {
        logprobs_reset(c);
    }
}

void reply_finish(struct api_choice *c)
{
    struct api_job *j = c->job;
    json_t *delta = j->chat ? json_object() : json_string("");
    json_t *one = chunk_of(c, delta, reason_of(c), 0);
    json_object_set_new(one, "stop_reason", stop_reason(c));
    add_extras(c, one, 0);
    add_routes(c, one);
    send_chunk(c, one, 0, j->n_open == 0);
}

void reply_end(struct api_job *j)
{
    if (j->include_usage) {
        json_t *o = envelope(j, json_array());
        json_object_set_new(o, "usage", usage_of(j));
        json_object_set_new(o, "sigmoe", sigmoe_of(j));
        send_event(j, o);
    }
    send_done(j);
}

/* The code of an event is the status that a response would have had. */
void reply_error(struct api_job *j)
{
    int status = api_status_of(&j->err);
    j->answered = 1;
    if (!j->streaming) {
        j->api->counts.refused++;
        api_fail_err(j->api, j->x, &j->err);
        return;
    }
    send_event(j, json_pack("{s:{s:s,s:s,s:n,s:i}}", "error", "message", j->err.text, "type",
                            api_error_type(status), "param", "code", status));
    send_done(j);
}

void reply_ping(struct api_job *j)
{
    begin_stream(j);
    j->wrote_ns = clock_now(&clock_real);
    http_stream_write(j->x, ": ping\n\n", 8);
}
