/* api_fuzz: any bytes as the body of a request to each route that takes one. Every request gets
 * exactly one answer: an error in OpenAI's form or a response that is JSON or a stream of events of
 * it; and what reaches the engine is within the bounds that the engine relies on.
 *
 * The input: a byte (which route; whether the engine refuses), then the body. HTTP and the engine
 * are stood in for here: this file defines the functions that the API calls of them. The engine's
 * answer to every request is a few fixed tokens. */
#include "coordinator/api.h"
#include "coordinator/choice.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT       256
#define GENERATIONS   64
#define SEQUENCES_MAX 64

static const char template[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}<tool_call>{% endif %}{{ x }}";

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "api_fuzz: %s\n", what);
    abort();
}

/* ---- HTTP ------------------------------------------------------------------------------------ */

struct http_exchange {
    void (*on_close)(void *user, int complete);
    void *user;
    int answers, streaming, ended;
    struct tok_text stream;
};

static json_t *parsed(const char *text, size_t n)
{
    return json_loadb(text, n, JSON_ALLOW_NUL, NULL);
}

static void require_error(const json_t *value)
{
    const json_t *error = json_object_get(value, "error");
    require(json_string_length(json_object_get(error, "message")) > 0, "an error without words");
    require(json_is_string(json_object_get(error, "type")), "an error without a type");
    require(json_object_get(error, "param") && json_object_get(error, "code"), "param and code");
}

const char *http_field_get(const struct http_request *r, const char *name)
{
    (void)r;
    (void)name;
    return NULL;
}

void http_on_close(struct http_exchange *x, void (*fn)(void *user, int complete), void *user)
{
    x->on_close = fn;
    x->user = user;
}

int http_header(struct http_exchange *x, const char *name, const char *value)
{
    require(x->answers == 0, "a field behind the answer");
    require(strpbrk(name, "\r\n:") == NULL && strpbrk(value, "\r\n") == NULL, "a field's bytes");
    return 0;
}

void http_respond(struct http_exchange *x, int status, const char *type, const void *body, size_t n)
{
    require(x->answers++ == 0, "a second answer");
    require(type != NULL && strcmp(type, "application/json") == 0, "not JSON");
    json_t *value = parsed(body, n);
    require(json_is_object(value), "a body that is no JSON object");
    require(status == 200 || status == 400 || status == 404 || status == 429, "another status");
    if (status != 200)
        require_error(value);
    json_decref(value);
}

void http_stream_begin(struct http_exchange *x, int status, const char *type)
{
    require(x->answers++ == 0, "a stream behind an answer");
    require(status == 200 && strcmp(type, "text/event-stream") == 0, "another kind of stream");
    x->streaming = 1;
}

int http_stream_write(struct http_exchange *x, const void *data, size_t n)
{
    require(x->streaming && !x->ended, "a write outside of the stream");
    struct tok_text *t = &x->stream;
    if (t->n + n > t->cap) {
        t->cap = 2 * (t->n + n);
        t->p = realloc(t->p, t->cap);
        require(t->p != NULL, "no memory");
    }
    memcpy(t->p + t->n, data, n);
    t->n += n;
    return 0;
}

void http_stream_end(struct http_exchange *x)
{
    require(x->streaming && !x->ended, "an end outside of the stream");
    x->ended = 1;
}

/* Events are "data: {..}\n\n" and the last is [DONE]. */
static void check_stream(const struct tok_text *t)
{
    static const char done[] = "data: [DONE]\n\n";
    size_t at = 0;
    require(t->n >= sizeof done - 1 &&
                memcmp(t->p + t->n - (sizeof done - 1), done, sizeof done - 1) == 0,
            "a stream without [DONE]");
    while (at < t->n - (sizeof done - 1)) {
        const char *end = memmem(t->p + at, t->n - at, "\n\n", 2);
        require(end != NULL && memcmp(t->p + at, "data: ", 6) == 0, "no event");
        json_t *value = parsed(t->p + at + 6, (size_t)(end - t->p) - at - 6);
        require(json_is_object(value), "an event that is no JSON object");
        json_decref(value);
        at = (size_t)(end - t->p) + 2;
    }
}

/* ---- the engine ------------------------------------------------------------------------------ */

struct generation {
    struct generation_handlers handlers;
    void *user;
    int n_choice, n_prompt, max_tokens, n_top, prompt_logprobs, n_stop, dropped;
};

static struct generation generation[GENERATIONS];
static int n_generation, refuses;

static void check_params(const struct generation_params *p)
{
    const struct sampling *s = &p->sampling;
    require(p->n_prompt >= 1 && p->n_prompt <= CONTEXT, "a prompt's length");
    for (int i = 0; i < p->n_prompt; i++)
        require(p->prompt[i] >= 0 && p->prompt[i] < 640, "a token outside of the vocabulary");
    require(p->max_tokens >= 0 && p->n_prompt + p->max_tokens - 1 <= CONTEXT, "past the context");
    require(p->n_choice >= 1 && p->n_choice <= 16, "choices");
    require(p->min_tokens >= 0 && p->n_top >= -1 && p->n_top <= SERVICE_TOP_MAX, "counts");
    require(s->temperature >= 0 && s->temperature <= 2 && s->top_p > 0 && s->top_p <= 1, "bounds");
    require(s->top_k >= 0 && s->min_p >= 0 && s->min_p <= 1, "bounds");
    require(isfinite(s->repetition_penalty) && s->repetition_penalty > 0, "a penalty");
    require(fabsf(s->presence_penalty) <= 2 && fabsf(s->frequency_penalty) <= 2, "a penalty");
    require(s->n_bias >= 0 && s->n_bias <= 1024, "biases");
    for (int i = 0; i < s->n_bias; i++)
        require(s->bias[i].token >= 0 && fabsf(s->bias[i].bias) <= 100, "a bias");
    require(p->n_stop >= 0 && p->n_stop <= 16 && p->n_stop_token <= 64, "stops");
    for (int i = 0; i < p->n_stop; i++)
        require(p->stop[i][0] != 0 && strlen(p->stop[i]) <= 4096, "a stop string's length");
}

int service_generate(struct service *s, const struct generation_params *params,
                     const struct generation_handlers *handlers, void *user,
                     struct generation **out, struct err *err)
{
    (void)s;
    check_params(params);
    if (refuses || n_generation == GENERATIONS)
        return err_set(err, ERR_AGAIN, "too many requests are waiting");
    struct generation *g = &generation[n_generation++];
    *g = (struct generation){*handlers,
                             user,
                             params->n_choice,
                             params->n_prompt,
                             params->max_tokens,
                             params->n_top,
                             params->prompt_logprobs,
                             params->n_stop,
                             0};
    *out = g;
    return 0;
}

void generation_drop(struct generation *g)
{
    require(!g->dropped, "dropped twice");
    g->dropped = 1;
}

static struct position_logprob logprob_of(int32_t token, int n_top)
{
    struct position_logprob p = {.at = {token, -1.5}, .rank = 2, .n_top = n_top > 0 ? n_top : 0};
    for (int i = 0; i < p.n_top; i++)
        p.top[i] = (struct token_logprob){(token + i) % 640, -1.0 - i};
    return p;
}

static void tell_prompt(const struct generation *g)
{
    struct position_logprob *entry = calloc((size_t)g->n_prompt, sizeof *entry);
    require(entry != NULL, "no memory");
    for (int i = 0; i + 1 < g->n_prompt; i++)
        entry[i] = logprob_of(i, g->n_top);
    g->handlers.on_prompt(g->user, entry, g->n_prompt - 1);
    free(entry);
}

/* Half of a character, words, what looks like a call: what texts are made of. */
static void tell_choice(const struct generation *g, int choice)
{
    static const char *const text[] = {"", "a ", "\xe4\xbd\xa0", "<tool_call>{\"name\":", "\n"};
    int n = g->max_tokens < 5 ? g->max_tokens : 5;
    g->handlers.on_start(g->user, choice);
    if (choice == 0 && g->prompt_logprobs)
        tell_prompt(g);
    for (int i = 0; i < n && !g->dropped; i++) {
        struct position_logprob p = logprob_of(100 * i, g->n_top);
        g->handlers.on_token(g->user, choice, 100 * i, text[i], strlen(text[i]), (size_t)i,
                             g->n_top >= 0 ? &p : NULL);
    }
    struct generation_end end = {.reason = g->n_stop > 0 ? FINISH_STOP : FINISH_LENGTH,
                                 .text = "b",
                                 .n_text = 1,
                                 .stop = g->n_stop > 0 ? 0 : -1,
                                 .stop_token = -1};
    g->handlers.on_done(g->user, choice, &end);
}

void service_view_get(struct service *s, struct service_view *out)
{
    (void)s;
    memset(out, 0, sizeof *out);
}

int service_domains_get(struct service *s, struct domain_stats *out, int n_max)
{
    (void)s;
    (void)out;
    (void)n_max;
    return 0;
}

struct meter *service_meter(struct service *s)
{
    (void)s;
    return NULL;
}

void outbox_post(struct outbox *o, struct event *e)
{
    (void)o;
    (void)e;
    require(0, "an event without an engine");
}

/* ---- the target ------------------------------------------------------------------------------ */

static struct api *api_get(void)
{
    static struct api api;
    static struct model model;
    static struct chat_template *chat;
    struct err err = {0};
    if (api.model != NULL)
        return &api;
    require(tokenizer_open(FUZZ_TOKENIZER, &api.tok, &err) == 0, err.text);
    require(chat_template_compile(template, &chat, &err) == 0, err.text);
    snprintf(model.desc.family, sizeof model.desc.family, "olmoe");
    model.desc.vocab = 640;
    model.desc.max_context = CONTEXT;
    model.desc.n_layer = 1;
    api.model_name = "fuzz";
    api.n_choice_max = 16;
    api.prompts_max = 32;
    api.sequences_max = SEQUENCES_MAX;
    api.precision = "bf16";
    api.created = 1700000000;
    api.chat = chat;
    api.service = (struct service *)(void *)&api; /* never looked into */
    api.model = &model;
    api_open(&api);
    api.tool_style = TOOLS_TAG;
    return &api;
}

static void finish(struct http_exchange *x)
{
    for (int i = 0; i < n_generation; i++)
        for (int k = 0; k < generation[i].n_choice && !generation[i].dropped; k++)
            tell_choice(&generation[i], k);
    require(x->answers == 1, "no answer");
    require(!x->streaming || x->ended, "a stream without an end");
    if (x->streaming)
        check_stream(&x->stream);
    if (x->on_close != NULL)
        x->on_close(x->user, 1);
    for (int i = 0; i < n_generation; i++)
        require(generation[i].dropped, "a generation that is not dropped");
    free(x->stream.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const path[] = {"/v1/completions", "/v1/chat/completions", "/tokenize",
                                       "/detokenize", "/v1/chat/completions/render"};
    if (size < 1)
        return 0;
    struct http_exchange x = {0};
    struct http_request r = {.method = "POST",
                             .path = path[data[0] % 5],
                             .query = "",
                             .body = (const char *)data + 1,
                             .n_body = size - 1,
                             .peer = "127.0.0.1:1"};
    n_generation = 0;
    refuses = data[0] >= 0xf0;
    api_handle(api_get(), &x, &r);
    finish(&x);
    return 0;
}
