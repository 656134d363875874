/* api_job: one request under way, from its generations' events to its response, streamed or whole.
 * A job lives exactly as long as its exchange: it is freed in on_close, which the HTTP server calls
 * once whatever happens; if the client is gone by then its generations are cancelled. */
#include "coordinator/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One choice of the response. */
struct api_choice {
    struct api_job *job;
    int index, prompt;    /* place among all choices; which prompt */
    struct tok_text text; /* all of it when not streamed */
    int n_token, done, started;
    enum finish finish;
    /* Completions' logprobs, four arrays side by side; chat's, one array of objects. */
    json_t *tokens, *token_logprobs, *top_logprobs, *text_offset, *content;
    size_t offset; /* characters told so far */
};

struct api_prompt {
    struct api_job *job;
    int index;
    struct tok_ids ids;
    struct generation *generation;
};

struct api_job {
    struct api *api;
    struct http_exchange *x;
    int chat, stream, include_usage, echo, n_logprobs, n_choice, n_prompt;
    int n_open, streaming, answered;
    char id[48];
    long long created;
    int64_t start_ns;
    struct api_prompt *prompt; /* [n_prompt] */
    struct api_choice *choice; /* [n_prompt * n_choice] */
    struct err err;
};

/* ---- pieces of text -------------------------------------------------------------------------- */

static int text_add(struct tok_text *t, const char *p, size_t n)
{
    if (t->n + n > t->cap) {
        size_t cap = 2 * t->cap + n + 256;
        char *grown = realloc(t->p, cap);
        if (grown == NULL) {
            return -1;
        }
        t->p = grown;
        t->cap = cap;
    }
    if (n > 0) {
        memcpy(t->p + t->n, p, n);
    }
    t->n += n;
    return 0;
}

static size_t characters(const char *p, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        count += ((unsigned char)p[i] & 0xc0) != 0x80;
    }
    return count;
}

/* The token as clients print it: its text, or "bytes:\xe4\xbd" where it is not whole characters. */
static json_t *token_text(const struct api *api, int32_t token, size_t *n_char, json_t **bytes)
{
    struct tok_text t = {0};
    tokenizer_token_bytes(api->tok, token, &t, NULL);
    if (bytes != NULL) {
        *bytes = json_array();
        for (size_t i = 0; i < t.n; i++) {
            json_array_append_new(*bytes, json_integer((unsigned char)t.p[i]));
        }
    }
    *n_char = characters(t.p, t.n);
    json_t *s = json_stringn(t.p != NULL ? t.p : "", t.n);
    if (s == NULL) {
        char text[6 + 4 * 64 + 1] = "bytes:";
        for (size_t i = 0, at = 6; i < t.n && i < 64; i++, at += 4) {
            snprintf(text + at, 5, "\\x%02x", (unsigned char)t.p[i]);
        }
        s = json_string(text);
    }
    tok_text_fini(&t);
    return s;
}

/* ---- logprobs -------------------------------------------------------------------------------- */

static void logprobs_reset(struct api_choice *c)
{
    json_decref(c->tokens);
    json_decref(c->token_logprobs);
    json_decref(c->top_logprobs);
    json_decref(c->text_offset);
    json_decref(c->content);
    c->tokens = json_array();
    c->token_logprobs = json_array();
    c->top_logprobs = json_array();
    c->text_offset = json_array();
    c->content = json_array();
}

static json_t *chat_entry(const struct api *api, const struct token_logprob *t)
{
    size_t n;
    json_t *bytes, *text = token_text(api, t->token, &n, &bytes);
    return json_pack("{s:o,s:f,s:o}", "token", text, "logprob", t->logprob, "bytes", bytes);
}

static void add_chat_logprob(struct api_choice *c, const struct position_logprob *p)
{
    const struct api *api = c->job->api;
    json_t *entry = chat_entry(api, &p->at), *top = json_array();
    for (int i = 0; i < p->n_top; i++) {
        json_array_append_new(top, chat_entry(api, &p->top[i]));
    }
    json_object_set_new(entry, "top_logprobs", top);
    json_array_append_new(c->content, entry);
}

/* p NULL: the prompt's first token, which has no probability. */
static void add_text_logprob(struct api_choice *c, int32_t token, const struct position_logprob *p)
{
    const struct api *api = c->job->api;
    size_t n, ignored;
    json_t *text = token_text(api, token, &n, NULL), *top = p != NULL ? json_object() : json_null();
    for (int i = 0; p != NULL && i < p->n_top; i++) {
        json_t *key = token_text(api, p->top[i].token, &ignored, NULL);
        json_object_set_new(top, json_string_value(key), json_real(p->top[i].logprob));
        json_decref(key);
    }
    if (p != NULL) {
        /* The chosen token is in the map even when it is not among the likeliest. */
        json_object_set_new(top, json_string_value(text), json_real(p->at.logprob));
    }
    json_array_append_new(c->tokens, text);
    json_array_append_new(c->token_logprobs, p != NULL ? json_real(p->at.logprob) : json_null());
    json_array_append_new(c->top_logprobs, top);
    json_array_append_new(c->text_offset, json_integer((json_int_t)c->offset));
    c->offset += n;
}

static json_t *logprobs_of(const struct api_choice *c)
{
    if (c->job->n_logprobs < 0) {
        return json_null();
    }
    if (c->job->chat) {
        return json_pack("{s:O,s:n}", "content", c->content, "refusal");
    }
    return json_pack("{s:O,s:O,s:O,s:O}", "text_offset", c->text_offset, "token_logprobs",
                     c->token_logprobs, "tokens", c->tokens, "top_logprobs", c->top_logprobs);
}

/* ---- responses ------------------------------------------------------------------------------- */

static json_t *usage_of(const struct api_job *j)
{
    int prompt = 0, generated = 0;
    for (int i = 0; i < j->n_prompt; i++) {
        prompt += (int)j->prompt[i].ids.n;
    }
    for (int i = 0; i < j->n_prompt * j->n_choice; i++) {
        generated += j->choice[i].n_token;
    }
    return json_pack("{s:i,s:i,s:i}", "prompt_tokens", prompt, "completion_tokens", generated,
                     "total_tokens", prompt + generated);
}

static json_t *envelope(const struct api_job *j, json_t *choices, json_t *usage)
{
    const char *object = !j->chat       ? "text_completion"
                         : j->streaming ? "chat.completion.chunk"
                                        : "chat.completion";
    json_t *o = json_pack("{s:s,s:s,s:I,s:s,s:o}", "id", j->id, "object", object, "created",
                          (json_int_t)j->created, "model", j->api->model_name, "choices", choices);
    if (usage != NULL) {
        json_object_set_new(o, "usage", usage);
    }
    return o;
}

static void answer_whole(struct api_job *j)
{
    json_t *choices = json_array();
    for (int i = 0; i < j->n_prompt * j->n_choice; i++) {
        struct api_choice *c = &j->choice[i];
        json_t *text = json_stringn(c->text.p != NULL ? c->text.p : "", c->text.n);
        json_t *one = j->chat ? json_pack("{s:i,s:{s:s,s:o},s:o,s:s}", "index", i, "message",
                                          "role", "assistant", "content", text, "logprobs",
                                          logprobs_of(c), "finish_reason", finish_name(c->finish))
                              : json_pack("{s:i,s:o,s:o,s:s}", "index", i, "text", text, "logprobs",
                                          logprobs_of(c), "finish_reason", finish_name(c->finish));
        json_array_append_new(choices, one);
    }
    j->answered = 1;
    api_json(j->x, envelope(j, choices, usage_of(j)));
}

static void send_event(struct api_job *j, json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (text != NULL && http_stream_write(j->x, "data: ", 6) == 0 &&
        http_stream_write(j->x, text, strlen(text)) == 0) {
        http_stream_write(j->x, "\n\n", 2);
    }
    free(text);
}

static void begin_stream(struct api_job *j)
{
    if (!j->streaming) {
        j->streaming = 1;
        http_header(j->x, "Cache-Control", "no-cache");
        http_header(j->x, "X-Accel-Buffering", "no");
        http_stream_begin(j->x, 200, "text/event-stream");
    }
}

/* One chunk of one choice. reason NULL: it goes on. */
static void send_chunk(struct api_choice *c, const char *text, size_t n, const char *reason,
                       int with_logprobs)
{
    struct api_job *j = c->job;
    begin_stream(j);
    json_t *logprobs = with_logprobs ? logprobs_of(c) : json_null();
    json_t *one;
    if (j->chat) {
        json_t *delta = json_object();
        if (!c->started) {
            json_object_set_new(delta, "role", json_string("assistant"));
        }
        if (!c->started || n > 0) {
            json_object_set_new(delta, "content", json_stringn(text, n));
        }
        one = json_pack("{s:i,s:o,s:o,s:s?}", "index", c->index, "delta", delta, "logprobs",
                        logprobs, "finish_reason", reason);
    } else {
        one = json_pack("{s:i,s:o,s:o,s:s?}", "index", c->index, "text", json_stringn(text, n),
                        "logprobs", logprobs, "finish_reason", reason);
    }
    c->started = 1;
    json_t *choices = json_array();
    json_array_append_new(choices, one);
    send_event(j, envelope(j, choices, j->include_usage ? json_null() : NULL));
    if (with_logprobs && j->n_logprobs >= 0) {
        logprobs_reset(c);
    }
}

static void end_stream(struct api_job *j)
{
    if (j->include_usage) {
        send_event(j, envelope(j, json_array(), usage_of(j)));
    }
    j->answered = 1;
    http_stream_write(j->x, "data: [DONE]\n\n", 14);
    http_stream_end(j->x);
}

/* A failure: as a status while that is still possible, as an event afterwards. */
static void answer_error(struct api_job *j)
{
    j->answered = 1;
    if (!j->streaming) {
        api_fail_err(j->x, &j->err);
        return;
    }
    send_event(j, json_pack("{s:{s:s,s:s,s:n,s:i}}", "error", "message", j->err.text, "type",
                            "server_error", "param", "code", 500));
    http_stream_write(j->x, "data: [DONE]\n\n", 14);
    http_stream_end(j->x);
}

/* ---- events ---------------------------------------------------------------------------------- */

static struct api_choice *choice_at(struct api_prompt *p, int choice)
{
    return &p->job->choice[p->index * p->job->n_choice + choice];
}

static void count_first_token(struct api_job *j)
{
    struct api_counts *n = &j->api->counts;
    double s = (double)(clock_now(&clock_real) - j->start_ns) / 1e9, bound = 0.001;
    int b = 0;
    for (; b < 15 && s > bound; b++, bound *= 2) {
    }
    n->ttft_bucket[b]++;
    n->ttft_count++;
    n->ttft_sum_s += s;
}

static void on_prompt(void *user, const struct position_logprob *entry, int n)
{
    struct api_prompt *p = user;
    for (int k = 0; k < p->job->n_choice; k++) {
        struct api_choice *c = choice_at(p, k);
        add_text_logprob(c, p->ids.id[0], NULL);
        for (int i = 0; i < n; i++) {
            add_text_logprob(c, p->ids.id[i + 1], &entry[i]);
        }
    }
}

static void on_token(void *user, int choice, int32_t token, const char *text, size_t n,
                     const struct position_logprob *logprob)
{
    struct api_prompt *p = user;
    struct api_choice *c = choice_at(p, choice);
    struct api_job *j = p->job;
    if (j->answered) {
        return; /* another choice failed: the client was told */
    }
    if (c->n_token++ == 0) {
        count_first_token(j);
    }
    j->api->counts.generated_tokens++;
    if (logprob != NULL && j->chat) {
        add_chat_logprob(c, logprob);
    } else if (logprob != NULL) {
        add_text_logprob(c, token, logprob);
    }
    if (!j->stream) {
        text_add(&c->text, text, n);
    } else if (n > 0 || logprob != NULL) {
        /* An echoed prompt, if any, goes before the first text. */
        if (c->text.n > 0) {
            text_add(&c->text, text, n);
            send_chunk(c, c->text.p, c->text.n, NULL, 1);
            c->text.n = 0;
        } else {
            send_chunk(c, text, n, NULL, 1);
        }
    }
}

static void on_done(void *user, int choice, enum finish reason, const char *text, size_t n,
                    int stop, const struct err *err)
{
    struct api_prompt *p = user;
    struct api_choice *c = choice_at(p, choice);
    struct api_job *j = p->job;
    (void)stop;
    c->done = 1;
    c->finish = reason;
    j->n_open--;
    j->api->counts.finished[reason]++;
    if (err != NULL) {
        j->err = *err;
    }
    if (j->answered) {
        return;
    }
    if (err != NULL) {
        answer_error(j);
        return;
    }
    text_add(&c->text, text, n);
    if (j->stream) {
        if (c->text.n > 0 || !c->started) {
            send_chunk(c, c->text.p != NULL ? c->text.p : "", c->text.n, NULL, 1);
        }
        send_chunk(c, "", 0, finish_name(reason), 0);
    }
    if (j->n_open == 0) {
        if (j->stream) {
            end_stream(j);
        } else {
            answer_whole(j);
        }
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void job_free(struct api_job *j)
{
    for (int i = 0; j->prompt != NULL && i < j->n_prompt; i++) {
        if (j->prompt[i].generation != NULL) {
            generation_drop(j->prompt[i].generation);
        }
        tok_ids_fini(&j->prompt[i].ids);
    }
    for (int i = 0; j->choice != NULL && i < j->n_prompt * j->n_choice; i++) {
        struct api_choice *c = &j->choice[i];
        tok_text_fini(&c->text);
        json_decref(c->tokens);
        json_decref(c->token_logprobs);
        json_decref(c->top_logprobs);
        json_decref(c->text_offset);
        json_decref(c->content);
    }
    free(j->prompt);
    free(j->choice);
    free(j);
}

static void on_close(void *user, int complete)
{
    struct api_job *j = user;
    (void)complete;
    j->api->counts.running--;
    job_free(j);
}

static struct api_job *job_create(struct api *api, struct http_exchange *x, int chat,
                                  const struct api_params *p, int n_prompt)
{
    struct api_job *j = calloc(1, sizeof *j);
    if (j == NULL) {
        return NULL;
    }
    *j = (struct api_job){.api = api,
                          .x = x,
                          .chat = chat,
                          .stream = p->stream,
                          .include_usage = p->include_usage,
                          .echo = p->echo,
                          .n_logprobs = p->n_logprobs,
                          .n_choice = p->generation.n_choice,
                          .n_prompt = n_prompt,
                          .created = (long long)time(NULL),
                          .start_ns = clock_now(&clock_real)};
    j->n_open = n_prompt * j->n_choice;
    snprintf(j->id, sizeof j->id, "%s-%llx%08llx", chat ? "chatcmpl" : "cmpl",
             (unsigned long long)api->created, (unsigned long long)api->next_id++);
    j->prompt = calloc((size_t)n_prompt, sizeof *j->prompt);
    j->choice = calloc((size_t)j->n_open, sizeof *j->choice);
    if (j->prompt == NULL || j->choice == NULL) {
        job_free(j);
        return NULL;
    }
    for (int i = 0; i < j->n_open; i++) {
        j->choice[i].job = j;
        j->choice[i].index = i;
        j->choice[i].prompt = i / j->n_choice;
        if (j->n_logprobs >= 0) {
            logprobs_reset(&j->choice[i]);
        }
    }
    return j;
}

/* Echo: the prompt's text begins every choice of it. */
static void echo_prompt(struct api_job *j, int i)
{
    struct api_prompt *p = &j->prompt[i];
    for (int k = 0; k < j->n_choice; k++) {
        tokenizer_decode(j->api->tok, p->ids.id, p->ids.n, TOK_SKIP_SPECIAL, &choice_at(p, k)->text,
                         NULL);
    }
}

static int begin(struct api_job *j, int i, const struct api_params *params, struct err *err)
{
    static const struct generation_handlers handlers = {
        .on_prompt = on_prompt, .on_token = on_token, .on_done = on_done};
    struct api_prompt *p = &j->prompt[i];
    struct generation_params g = params->generation;
    int left = j->api->model->desc.max_context - (int)p->ids.n + 1;
    g.prompt = p->ids.id;
    g.n_prompt = (int)p->ids.n;
    g.max_tokens = g.max_tokens < 0 ? (left > 0 ? left : 0) : g.max_tokens;
    struct request check = {.prompt = g.prompt, .n_prompt = g.n_prompt, .max_tokens = g.max_tokens};
    int rc = request_check(&check, &j->api->model->desc, err);
    return rc != 0 ? rc : service_generate(j->api->service, &g, &handlers, p, &p->generation, err);
}

int api_job_start(struct api *api, struct http_exchange *x, int chat, const struct api_params *p,
                  struct tok_ids *prompt, int n_prompt)
{
    struct api_job *j = job_create(api, x, chat, p, n_prompt);
    struct err err = {0};
    int rc = j == NULL ? err_set(&err, ERR_NOMEM, "no memory for a request") : 0;
    for (int i = 0; i < n_prompt; i++) {
        if (j == NULL) {
            tok_ids_fini(&prompt[i]);
            continue;
        }
        j->prompt[i] = (struct api_prompt){.job = j, .index = i, .ids = prompt[i]};
        api->counts.prompt_tokens += prompt[i].n;
        memset(&prompt[i], 0, sizeof prompt[i]);
    }
    for (int i = 0; rc == 0 && i < n_prompt; i++) {
        if (p->echo) {
            echo_prompt(j, i);
        }
        rc = begin(j, i, p, &err);
    }
    if (p->generation.grammar != NULL) {
        grammar_unref(p->generation.grammar);
    }
    if (rc != 0) {
        if (j != NULL) {
            job_free(j);
        }
        api->counts.refused++;
        api_fail_err(x, &err);
        return -1;
    }
    api->counts.running++;
    http_on_close(x, on_close, j);
    return 0;
}
