/* api_job: one request under way, from its generations' events to its response; see api_job.h. */
#include "coordinator/api_job.h"
#include "coordinator/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of all choices of a request that asks for its routes. */
#define ROUTE_BYTES_MAX (64 << 20)

/* ---- events ---------------------------------------------------------------------------------- */

static struct api_choice *choice_at(struct api_prompt *p, int choice)
{
    return &p->job->choice[p->index * p->job->n_choice + choice];
}

static double seconds_since(int64_t from)
{
    return (double)(clock_now(&clock_real) - from) / 1e9;
}

static void on_start(void *user, int choice)
{
    struct api_prompt *p = user;
    (void)choice;
    if (p->job->n_started++ == 0) {
        histogram_add(&p->job->api->counts.queue, seconds_since(p->job->start_ns));
    }
}

static void on_domain(void *user, int domain, const double *score, int n_domain)
{
    struct api_prompt *p = user;
    p->domain = domain;
    if (score == NULL || p->scores != NULL) {
        return;
    }
    p->scores = json_object();
    for (int i = 0; i < n_domain; i++) {
        json_object_set_new(p->scores, p->job->api->model->desc.domain[i].name,
                            json_real(score[i]));
    }
}

static void on_prompt(void *user, const struct position_logprob *entry, int n)
{
    struct api_prompt *p = user;
    struct api_job *j = p->job;
    if (n + 1 != (int)p->ids.n) {
        return;
    }
    for (int k = 0; j->echo && j->n_logprobs >= 0 && k < j->n_choice; k++) {
        logprobs_echo(choice_at(p, k), p, entry);
    }
    if (j->prompt_logprobs >= 0) {
        p->logprobs = logprobs_of_prompt(j, p, entry);
    }
}

static void on_cached(void *user, int n_token)
{
    struct api_prompt *p = user;
    p->n_cached = n_token;
}

static void count_token(struct api_choice *c)
{
    struct api_job *j = c->job;
    int64_t now = clock_now(&clock_real);
    if (j->first_ns == 0) {
        j->first_ns = now;
        histogram_add(&j->api->counts.ttft, (double)(now - j->start_ns) / 1e9);
    }
    if (c->n_token++ > 0) {
        histogram_add(&j->api->counts.inter_token, (double)(now - c->last_ns) / 1e9);
    }
    c->last_ns = now;
}

static void keep_token(struct api_choice *c, int32_t token)
{
    struct tok_ids *ids = &c->token;
    if (ids->n == ids->cap) {
        size_t cap = 2 * ids->cap + 64;
        int32_t *id = realloc(ids->id, cap * sizeof *id);
        if (id == NULL) {
            return;
        }
        ids->id = id;
        ids->cap = cap;
    }
    ids->id[ids->n++] = token;
}

static void on_token(void *user, int choice, int32_t token, const char *text, size_t n,
                     size_t offset, const struct position_logprob *logprob)
{
    struct api_prompt *p = user;
    struct api_choice *c = choice_at(p, choice);
    struct api_job *j = p->job;
    if (j->answered) {
        return; /* another choice failed: the client was told */
    }
    count_token(c);
    if (logprob != NULL && j->n_logprobs >= 0) {
        logprobs_add(c, token, offset, logprob);
    }
    if (j->token_ids) {
        keep_token(c, token);
    }
    tool_reader_push(&c->tools, text, n, &c->text);
    if (j->stream) {
        reply_text(c);
    }
}

static void add_rows(struct api_job *j, const struct generation_end *end)
{
    if (end->n_rows > j->n_rows) {
        uint64_t *rows = realloc(j->rows, (size_t)end->n_rows * sizeof *rows);
        if (rows == NULL) {
            return;
        }
        memset(rows + j->n_rows, 0, (size_t)(end->n_rows - j->n_rows) * sizeof *rows);
        j->rows = rows;
        j->n_rows = end->n_rows;
    }
    for (int i = 0; i < end->n_rows; i++) {
        j->rows[i] += end->rows[i];
    }
}

static void keep_end(struct api_choice *c, const struct generation_end *end)
{
    struct api_job *j = c->job;
    const struct model_desc *d = &j->api->model->desc;
    c->done = 1;
    c->finish = end->reason;
    c->stop_text = end->stop >= 0 ? j->stop[end->stop] : NULL;
    c->stop_token = end->stop_token;
    add_rows(j, end);
    if (end->route != NULL) {
        c->routes = npy_base64(end->route, end->n_route, d->n_layer, d->top_k, end->route_bytes);
    }
    j->n_open--;
    j->api->counts.finished[end->reason]++;
    histogram_add(&j->api->counts.generated_tokens, c->n_token);
}

static void on_done(void *user, int choice, const struct generation_end *end)
{
    struct api_prompt *p = user;
    struct api_choice *c = choice_at(p, choice);
    struct api_job *j = p->job;
    keep_end(c, end);
    if (j->answered) {
        return;
    }
    if (end->err != NULL) {
        j->err = *end->err;
        reply_error(j);
        return;
    }
    tool_reader_push(&c->tools, end->text, end->n_text, &c->text);
    tool_reader_end(&c->tools, &c->text);
    if (j->stream) {
        reply_text(c);
        reply_finish(c);
    }
    if (j->n_open == 0) {
        histogram_add(&j->api->counts.duration, seconds_since(j->start_ns));
        if (j->stream) {
            reply_end(j);
        } else {
            reply_whole(j);
        }
    }
}

void api_ping(struct api *api)
{
    int64_t now = clock_now(&clock_real);
    for (struct api_job *j = api->job; j != NULL; j = j->next) {
        if (j->stream && !j->answered &&
            (double)(now - j->wrote_ns) / (double)NS_PER_S >= api->ping_s) {
            reply_ping(j);
        }
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void choice_free(struct api_choice *c)
{
    tok_text_fini(&c->text);
    tok_ids_fini(&c->token);
    tool_reader_fini(&c->tools);
    logprobs_free(c);
    free(c->routes);
}

static void job_free(struct api_job *j)
{
    for (int i = 0; j->prompt != NULL && i < j->n_prompt; i++) {
        struct api_prompt *p = &j->prompt[i];
        if (p->generation != NULL) {
            generation_drop(p->generation);
        }
        tok_ids_fini(&p->ids);
        json_decref(p->scores);
        json_decref(p->logprobs);
    }
    for (int i = 0; j->choice != NULL && i < j->n_prompt * j->n_choice; i++) {
        choice_free(&j->choice[i]);
    }
    for (int i = 0; i < 16; i++) {
        free(j->stop[i]);
    }
    free(j->prompt);
    free(j->choice);
    free(j->rows);
    free(j);
}

/* The client has its answer, or has gone: what still runs ends now, and its pages come back. */
static void on_close(void *user, int complete)
{
    struct api_job *j = user;
    struct api *api = j->api;
    (void)complete;
    for (int i = 0; i < j->n_prompt * j->n_choice; i++) {
        api->counts.finished[FINISH_ABORT] += !j->choice[i].done;
    }
    api->counts.running--;
    *(j->prev != NULL ? &j->prev->next : &api->job) = j->next;
    if (j->next != NULL) {
        j->next->prev = j->prev;
    }
    job_free(j);
}

static int copy_params(struct api_job *j, const struct api_params *p)
{
    j->stream = p->stream;
    j->include_usage = p->include_usage;
    j->usage_always = p->usage_always;
    j->echo = p->echo;
    j->n_logprobs = p->n_logprobs;
    j->prompt_logprobs = p->prompt_logprobs;
    j->token_ids = p->token_ids;
    j->tokens_as_ids = p->tokens_as_ids;
    j->named = p->tool_choice == CHOICE_NAMED;
    snprintf(j->tool_name, sizeof j->tool_name, "%s", p->tool_name != NULL ? p->tool_name : "");
    snprintf(j->model, sizeof j->model, "%s", p->model);
    for (int i = 0; i < p->generation.n_stop; i++) {
        j->stop[i] = strdup(p->stop[i]);
        if (j->stop[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

static enum api_tool_style style_for(const struct api_job *j, const struct api_params *p)
{
    return !j->chat || p->tool_choice == CHOICE_NONE || j->named ? TOOLS_NONE
           : p->tool_choice == CHOICE_REQUIRED                   ? TOOLS_OBJECT
                                                                 : j->api->tool_style;
}

static struct api_job *job_create(struct api *api, struct http_exchange *x, int chat,
                                  const struct api_params *p, int n_prompt)
{
    struct api_job *j = calloc(1, sizeof *j);
    if (j == NULL) {
        return NULL;
    }
    j->api = api;
    j->x = x;
    j->chat = chat;
    j->n_choice = p->generation.n_choice;
    j->n_prompt = n_prompt;
    j->n_open = n_prompt * j->n_choice;
    j->created = (long long)time(NULL);
    j->start_ns = j->wrote_ns = clock_now(&clock_real);
    snprintf(j->id, sizeof j->id, "%s-%llx%08llx", chat ? "chatcmpl" : "cmpl",
             (unsigned long long)api->created, (unsigned long long)api->next_id++);
    j->prompt = calloc((size_t)n_prompt, sizeof *j->prompt);
    j->choice = calloc((size_t)j->n_open, sizeof *j->choice);
    if (j->prompt == NULL || j->choice == NULL || copy_params(j, p) != 0) {
        job_free(j);
        return NULL;
    }
    for (int i = 0; i < j->n_open; i++) {
        struct api_choice *c = &j->choice[i];
        c->job = j;
        c->index = i;
        c->prompt = i / j->n_choice;
        tool_reader_init(&c->tools, style_for(j, p), j->id);
        if (j->n_logprobs >= 0) {
            logprobs_reset(c);
        }
    }
    return j;
}

/* Echo: the prompt's text begins every choice of it. */
static void echo_prompt(struct api_job *j, int i)
{
    struct api_prompt *p = &j->prompt[i];
    struct tok_text t = {0};
    tokenizer_decode(j->api->tok, p->ids.id, p->ids.n, TOK_SKIP_SPECIAL, &t, NULL);
    for (size_t k = 0; k < t.n; k++) {
        p->n_char += ((unsigned char)t.p[k] & 0xc0) != 0x80;
    }
    for (int k = 0; k < j->n_choice; k++) {
        text_add(&choice_at(p, k)->text, t.p, t.n);
    }
    tok_text_fini(&t);
}

/* How much may be generated: the last token is drawn from the position before it, so one more than
 * the context has room for. ERR_LIMIT with OpenAI's words, which clients look for. */
static int fit_context(const struct api_job *j, struct generation_params *g, struct err *err)
{
    int context = j->api->model->desc.max_context, left = context - g->n_prompt + 1;
    if (g->max_tokens < 0) {
        /* As many as fit, also into the cache. */
        struct service_view v;
        service_view_get(j->api->service, &v);
        int64_t room = (int64_t)v.engine.kv_pages * KV_PAGE - g->n_prompt + 1;
        g->max_tokens = left <= 0 || room <= 0 ? 0 : room < left ? (int)room : left;
    }
    if (left < 0 || g->max_tokens > left) {
        return err_set(err, ERR_LIMIT,
                       "This model's maximum context length is %d tokens. However, you requested "
                       "%lld tokens (%d in the prompt, %d in the completion).",
                       context, (long long)g->n_prompt + g->max_tokens, g->n_prompt, g->max_tokens);
    }
    return 0;
}

static int fit_routes(const struct api_job *j, const struct generation_params *g, struct err *err)
{
    const struct model_desc *d = &j->api->model->desc;
    double bytes = (double)(g->n_prompt + g->max_tokens) * d->n_layer * d->top_k *
                   route_bytes_for(d) * j->n_choice * j->n_prompt;
    if (g->routes && d->n_expert == 0) {
        return err_set(err, ERR_USAGE, "return_routed_experts: this model has no experts");
    }
    return g->routes && bytes > ROUTE_BYTES_MAX
               ? err_set(err, ERR_USAGE,
                         "return_routed_experts: %.0f MB for this request, at most %d MB are "
                         "returned; lower max_tokens or n",
                         bytes / 1e6, ROUTE_BYTES_MAX / 1000000)
               : 0;
}

static int begin(struct api_job *j, int i, const struct api_params *params, struct err *err)
{
    static const struct generation_handlers handlers = {.on_start = on_start,
                                                        .on_domain = on_domain,
                                                        .on_cached = on_cached,
                                                        .on_prompt = on_prompt,
                                                        .on_token = on_token,
                                                        .on_done = on_done};
    struct api_prompt *p = &j->prompt[i];
    struct generation_params g = params->generation;
    g.prompt = p->ids.id;
    g.n_prompt = (int)p->ids.n;
    int rc = fit_context(j, &g, err);
    if (rc == 0) {
        rc = fit_routes(j, &g, err);
    }
    struct request check = {
        .prompt = g.prompt, .n_prompt = g.n_prompt, .max_tokens = g.max_tokens, .domain = g.domain};
    rc = rc != 0 ? rc : request_check(&check, &j->api->model->desc, err);
    return rc != 0 ? rc : service_generate(j->api->service, &g, &handlers, p, &p->generation, err);
}

static void take_prompts(struct api_job *j, struct tok_ids *prompt)
{
    for (int i = 0; i < j->n_prompt; i++) {
        j->prompt[i] = (struct api_prompt){.job = j, .index = i, .ids = prompt[i], .domain = -1};
        histogram_add(&j->api->counts.prompt_tokens, (double)prompt[i].n);
        memset(&prompt[i], 0, sizeof prompt[i]);
    }
}

static void link_job(struct api_job *j)
{
    struct api *api = j->api;
    j->next = api->job;
    if (api->job != NULL) {
        api->job->prev = j;
    }
    api->job = j;
    api->counts.running++;
    http_on_close(j->x, on_close, j);
}

/* What is wrong with a request now is its prompt, in the main. */
static void refuse(struct api *api, struct http_exchange *x, int chat, const struct err *err)
{
    api->counts.refused++;
    api_fail(api, x, api_status_of(err), chat ? "messages" : "prompt",
             err->code == ERR_LIMIT ? "context_length_exceeded" : NULL, "%s", err->text);
}

void api_job_start(struct api *api, struct http_exchange *x, int chat, const struct api_params *p,
                   struct tok_ids *prompt, int n_prompt)
{
    struct err err = {0};
    struct api_job *j = NULL;
    int rc = 0;
    if ((int64_t)n_prompt * p->generation.n_choice > api->sequences_max) {
        rc = err_set(&err, ERR_USAGE,
                     "%d prompts with n %d are more than the %d sequences that a request may have",
                     n_prompt, p->generation.n_choice, api->sequences_max);
    } else if ((j = job_create(api, x, chat, p, n_prompt)) == NULL) {
        rc = err_set(&err, ERR_NOMEM, "no memory for a request");
    }
    if (j == NULL) {
        for (int i = 0; i < n_prompt; i++) {
            tok_ids_fini(&prompt[i]);
        }
        refuse(api, x, chat, &err);
        return;
    }
    take_prompts(j, prompt);
    for (int i = 0; rc == 0 && i < n_prompt; i++) {
        if (p->echo) {
            echo_prompt(j, i);
        }
        rc = begin(j, i, p, &err);
    }
    if (rc != 0) {
        job_free(j);
        refuse(api, x, chat, &err);
        return;
    }
    link_job(j);
}
