/* choice: see choice.h. */
#include "coordinator/choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- events ---------------------------------------------------------------------------------- */

struct event *event_create(enum event_kind kind, const struct choice *c, const char *text, size_t n)
{
    struct event *e = calloc(1, sizeof *e + n);
    if (e == NULL) {
        return NULL;
    }
    e->kind = kind;
    e->generation = c->shared->generation;
    e->choice = c->index;
    e->n_text = n;
    if (text != NULL && n > 0) {
        memcpy(e->text, text, n);
    }
    return e;
}

void event_destroy(struct event *e)
{
    if (e != NULL) {
        free(e->prompt);
        free(e->score);
        free((void *)(uintptr_t)e->end.rows);
        free((void *)(uintptr_t)e->end.route);
        free(e);
    }
}

/* ---- logprobs -------------------------------------------------------------------------------- */

/* The likeliest n tokens and `token` itself, all as log softmax of logits. */
static void logprob_of(const float *logits, int vocab, int32_t token, int n_top,
                       struct position_logprob *out)
{
    int32_t index[SERVICE_TOP_MAX];
    float value[SERVICE_TOP_MAX];
    int n = n_top < vocab ? n_top : vocab;
    double sum = 0.0;
    float top = logits[0];
    for (int i = 1; i < vocab; i++) {
        top = logits[i] > top ? logits[i] : top;
    }
    for (int i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - (double)top);
    }
    double norm = (double)top + log(sum);
    topk(logits, vocab, n, index, value);
    out->at = (struct token_logprob){token, (double)logits[token] - norm};
    out->rank = 1;
    for (int i = 0; i < vocab; i++) {
        out->rank += logits[i] > logits[token];
    }
    out->n_top = n;
    for (int i = 0; i < n; i++) {
        out->top[i] = (struct token_logprob){index[i], (double)value[i] - norm};
    }
}

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct choice *c = user;
    const struct choice_shared *s = c->shared;
    int n_top = s->n_top > 0 ? s->n_top : 0;
    if (c->prompt != NULL && pos + 1 < s->n_prompt) {
        logprob_of(logits, vocab, s->prompt[pos + 1], n_top, &c->prompt[pos]);
    }
    if (pos + 1 == s->n_prompt && c->prompt != NULL) {
        struct event *e = event_create(EVENT_PROMPT, c, NULL, 0);
        if (e != NULL) {
            e->prompt = c->prompt;
            e->n_prompt = s->n_prompt - 1;
            c->prompt = NULL;
        }
        outbox_post(s->outbox, e);
    }
    if (s->n_top >= 0 && pos + 1 >= s->n_prompt) {
        /* The engine draws from these logits next, before it takes others. */
        memcpy(s->raw, logits, (size_t)vocab * sizeof *logits);
    }
}

/* ---- who computed, and which experts --------------------------------------------------------- */

static void on_start(void *user)
{
    struct choice *c = user;
    outbox_post(c->shared->outbox, event_create(EVENT_START, c, NULL, 0));
}

static int rows_grow(struct choice *c, int n)
{
    uint64_t *rows = realloc(c->rows, (size_t)n * sizeof *rows);
    if (rows == NULL) {
        return -1;
    }
    memset(rows + c->n_rows, 0, (size_t)(n - c->n_rows) * sizeof *rows);
    c->rows = rows;
    c->n_rows = n;
    return 0;
}

static void on_computed(void *user, const int32_t *slot_expert, const int16_t *slot_worker,
                        int n_slot)
{
    struct choice *c = user;
    for (int i = 0; i < n_slot; i++) {
        int at = slot_worker[i] + 1;
        if (slot_expert[i] >= 0 && (at < c->n_rows || rows_grow(c, at + 1) == 0)) {
            c->rows[at]++;
        }
    }
}

int route_bytes_for(const struct model_desc *desc)
{
    return desc->n_expert <= 256 ? 1 : desc->n_expert <= 65536 ? 2 : 4;
}

static void on_route(void *user, int pos, int layer, const int32_t *slot_expert,
                     const float *slot_weight, int top_k)
{
    struct choice *c = user;
    const struct model_desc *d = c->shared->desc;
    size_t each = (size_t)route_bytes_for(d);
    (void)slot_weight;
    unsigned char *to =
        c->route + ((size_t)pos * (size_t)d->n_layer + (size_t)layer) * (size_t)top_k * each;
    for (int k = 0; k < top_k; k++) {
        uint32_t expert = slot_expert[k] >= 0 ? (uint32_t)slot_expert[k] : 0;
        for (size_t b = 0; b < each; b++) {
            *to++ = (unsigned char)(expert >> (8 * b));
        }
    }
    c->n_route = pos + 1 > c->n_route ? pos + 1 : c->n_route;
}

/* Every choice has the same prompt, hence the same domain: the first one tells. */
static void on_domain(void *user, int domain, const double *score, int n_domain)
{
    struct choice *c = user;
    struct event *e = event_create(EVENT_DOMAIN, c, NULL, 0);
    if (e != NULL) {
        e->domain = domain;
        e->n_domain = n_domain;
        e->score = score != NULL ? malloc((size_t)n_domain * sizeof *score) : NULL;
        if (e->score != NULL) {
            memcpy(e->score, score, (size_t)n_domain * sizeof *score);
        }
    }
    outbox_post(c->shared->outbox, e);
}

/* What the first choice found; the others find what it computed. */
static void on_cached(void *user, int n_position)
{
    struct choice *c = user;
    struct event *e = event_create(EVENT_CACHED, c, NULL, 0);
    if (e != NULL) {
        e->n_cached = n_position;
    }
    outbox_post(c->shared->outbox, e);
}

/* ---- what may be drawn ----------------------------------------------------------------------- */

static void on_mask(void *user, float *logits, int vocab)
{
    struct choice *c = user;
    const struct choice_shared *s = c->shared;
    if (c->state != NULL) {
        grammar_mask(c->state, logits, vocab);
    }
    if (c->n_generated < s->min_tokens) {
        for (int i = 0; i < s->desc->n_eos; i++) {
            logits[s->desc->eos[i]] = -INFINITY;
        }
        for (int i = 0; i < s->n_stop_token; i++) {
            if (s->stop_token[i] >= 0 && s->stop_token[i] < vocab) {
                logits[s->stop_token[i]] = -INFINITY;
            }
        }
    }
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static int is_stop_token(const struct choice_shared *s, int32_t token)
{
    for (int i = 0; i < s->n_stop_token; i++) {
        if (s->stop_token[i] == token) {
            return 1;
        }
    }
    return 0;
}

static int is_eos(const struct choice_shared *s, int32_t token)
{
    for (int i = 0; !s->ignore_eos && i < s->desc->n_eos; i++) {
        if (s->desc->eos[i] == token) {
            return 1;
        }
    }
    return 0;
}

static int on_token(void *user, int32_t token)
{
    struct choice *c = user;
    const struct choice_shared *s = c->shared;
    const char *text = "";
    size_t n = 0;
    size_t offset = c->n_char;
    c->n_generated++;
    int ends = is_eos(s, token);
    if (!ends && is_stop_token(s, token)) {
        c->stop_token = token;
        ends = 1;
    }
    if (!ends && detok_push(c->detok, token, &text, &n, NULL) != 0) {
        n = 0;
    }
    for (size_t i = 0; i < n; i++) {
        c->n_char += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    if (c->n_generated < s->min_tokens) {
        stops_pass(&c->stops, text, n);
    } else if ((c->stop_hit = stops_push(&c->stops, text, n)) >= 0) {
        ends = 1;
    }
    if (c->state != NULL && grammar_accept(c->state, token) != 0) {
        ends = 1;
    }
    text = stops_released(&c->stops, &n);
    struct event *e = event_create(EVENT_TOKEN, c, text, n);
    if (e != NULL) {
        e->token = token;
        e->offset = offset;
        if (s->n_top >= 0) {
            e->has_logprob = 1;
            logprob_of(s->raw, s->desc->vocab, token, s->n_top, &e->logprob);
        }
    }
    outbox_post(s->outbox, e);
    return ends;
}

/* What is still held: half a character left by the last token, and what might have become a stop
 * string. A stop string that was completed took its own tail away already. */
static void release_held(struct choice *c, struct tok_text *out)
{
    const char *text = "";
    size_t n = 0;
    if (c->stop_hit >= 0 || detok_flush(c->detok, &text, &n, NULL) != 0) {
        return;
    }
    stops_push(&c->stops, text, n);
    for (int half = 0; half < 2; half++) {
        text = stops_released(&c->stops, &n);
        char *grown = n > 0 ? realloc(out->p, out->n + n) : NULL;
        if (grown != NULL) {
            memcpy(grown + out->n, text, n);
            out->p = grown;
            out->n += n;
        }
        stops_flush(&c->stops);
    }
}

/* Positions that the sequence has; guesses behind them were computed too. */
static int routes_known(const struct choice *c)
{
    int n = c->shared->n_prompt + (c->n_generated > 0 ? c->n_generated - 1 : 0);
    return c->n_route < n ? c->n_route : n;
}

static void post_done(struct choice *c, enum finish reason, const struct err *err)
{
    struct tok_text rest = {0};
    release_held(c, &rest);
    struct event *e = event_create(EVENT_DONE, c, rest.p, rest.n);
    tok_text_fini(&rest);
    if (e != NULL) {
        e->err = err != NULL ? *err : (struct err){0};
        e->end = (struct generation_end){.reason = reason,
                                         .stop = c->stop_hit,
                                         .stop_token = c->stop_token,
                                         .rows = c->rows,
                                         .n_rows = c->n_rows,
                                         .route = c->route,
                                         .n_route = routes_known(c),
                                         .route_bytes = route_bytes_for(c->shared->desc)};
        c->rows = NULL;
        c->route = NULL;
    }
    c->done = 1;
    outbox_post(c->shared->outbox, e);
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    post_done(user, reason, err);
}

/* ---- life ------------------------------------------------------------------------------------ */

int choice_init(struct choice *c, struct choice_shared *shared, int index,
                const struct generation_params *params, struct err *err)
{
    memset(c, 0, sizeof *c);
    c->shared = shared;
    c->index = index;
    c->stop_hit = c->stop_token = -1;
    unsigned flags = TOK_CONTINUE | (params->skip_special ? TOK_SKIP_SPECIAL : 0);
    int rc = detok_create(shared->tok, flags, &c->detok, err);
    if (rc == 0) {
        rc = stops_init(&c->stops, params->stop, params->n_stop, params->include_stop, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (shared->routes) {
        const struct model_desc *d = shared->desc;
        size_t n = (size_t)(params->n_prompt + params->max_tokens) * (size_t)d->n_layer;
        c->route = calloc(n * (size_t)d->top_k, (size_t)route_bytes_for(d));
    }
    if (params->prompt_logprobs && index == 0) {
        c->prompt = calloc((size_t)params->n_prompt, sizeof *c->prompt);
    }
    if (shared->grammar != NULL) {
        c->state = grammar_state_create(shared->grammar);
    }
    if ((shared->routes && c->route == NULL) || (shared->grammar != NULL && c->state == NULL) ||
        (params->prompt_logprobs && index == 0 && c->prompt == NULL)) {
        return err_set(err, ERR_NOMEM, "no memory for a request");
    }
    return 0;
}

void choice_fini(struct choice *c)
{
    detok_destroy(c->detok);
    stops_fini(&c->stops);
    grammar_state_destroy(c->state);
    free(c->rows);
    free(c->route);
    free(c->prompt);
}

struct request choice_request(struct choice *c)
{
    const struct choice_shared *s = c->shared;
    int masks = c->state != NULL || s->min_tokens > 0;
    return (struct request){.prompt = s->prompt,
                            .n_prompt = s->n_prompt,
                            .max_tokens = s->max_tokens,
                            .sampling = s->sampling,
                            .choice = (uint64_t)c->index,
                            .domain = s->domain,
                            .domain_from = s->domain_from,
                            .ignore_eos = s->ignore_eos,
                            .all_logits = c->prompt != NULL,
                            .user = c,
                            .on_domain = c->index == 0 ? on_domain : NULL,
                            .on_start = on_start,
                            .on_cached = c->index == 0 ? on_cached : NULL,
                            .on_computed = on_computed,
                            .on_route = c->route != NULL ? on_route : NULL,
                            .on_logits = s->n_top >= 0 || c->prompt != NULL ? on_logits : NULL,
                            .on_mask = masks ? on_mask : NULL,
                            .on_token = on_token,
                            .on_done = on_done};
}

void choice_refused(struct choice *c, const struct err *err)
{
    post_done(c, FINISH_ERROR, err);
}
