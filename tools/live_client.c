/* live_client: see live_client.h. Latency counts from the moment a request was due, so what this
 * client is late by is part of it (and is told). A chunk with text is taken for a token's arrival;
 * how many tokens there were is what the server says in `usage`, where it does. */
#include "tools/live_client.h"

#include "base/clock.h"
#include "base/rng.h"
#include "tools/sim/prompt.h"
#include "tools/sse.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS         50
#define BODY_MAX        2048 /* of an error answer, kept for its words */
#define STREAM_PROMPT   UINT64_C(0x70726f6d7074)
#define STATUS_TOO_BUSY 429

struct live {
    struct live_config config;
    struct load_result *out;
    struct err *err;
    CURLM *multi;
    struct curl_slist *fields;
    char url[1100];
    int64_t start_ns;
    int next, open;
    struct call *first; /* running, linked */
};

struct call {
    struct live *live;
    struct load_request *request;
    CURL *easy;
    char *body; /* sent */
    struct sse sse;
    char said[BODY_MAX]; /* an answer that is no stream, or an error event */
    size_t n_said;
    char why[CURL_ERROR_SIZE];
    int n_usage, done, broken;
    struct call *before, *after;
};

static int64_t now_ns(const struct live *l)
{
    return clock_now(&clock_real) - l->start_ns;
}

static void keep_error(struct live *l, const char *words)
{
    if (!l->out->error[0])
        snprintf(l->out->error, sizeof(l->out->error), "%.250s", words);
}

/* ---- what comes ---- */

static struct load_slice *slice_at(struct live *l, int64_t at_ns)
{
    int64_t each = l->config.duration_ns / l->out->n_slice + 1, i = at_ns / each;
    return i >= 0 && i < l->out->n_slice ? &l->out->slice[i] : NULL;
}

static void token_came(struct call *k)
{
    struct live *l = k->live;
    struct load_request *r = k->request;
    int64_t now = now_ns(l);
    if (r->n_got == 0)
        r->first_ns = now;
    else if (r->due_ns >= l->config.warmup_ns)
        samples_add(&l->out->gap_ms, (double)(now - r->last_ns) / (double)NS_PER_MS);
    r->last_ns = now;
    r->n_got++;
    struct load_slice *slice = slice_at(l, now);
    if (slice)
        slice->tokens++;
    if (now >= l->config.warmup_ns && now < l->config.duration_ns)
        l->out->tokens++;
}

static const char *error_words(const json_t *o)
{
    const json_t *e = json_object_get(o, "error");
    const char *words = json_string_value(json_object_get(e, "message"));
    words = words ? words : json_string_value(e);
    return words ? words : json_string_value(json_object_get(o, "message"));
}

static int on_event(void *user, const char *data, size_t n)
{
    struct call *k = user;
    if (n >= 6 && memcmp(data, "[DONE]", 6) == 0) {
        k->done = 1;
        return 0;
    }
    json_t *o = json_loadb(data, n, JSON_ALLOW_NUL, NULL); /* a token may be a zero byte */
    const char *words = error_words(o);
    if (!json_is_object(o) || words) {
        snprintf(k->said, sizeof(k->said), "%s", words ? words : "an event that is no JSON");
        k->broken = 1;
    }
    const json_t *text = json_object_get(json_array_get(json_object_get(o, "choices"), 0), "text");
    if (json_string_length(text) > 0)
        token_came(k);
    const json_t *usage = json_object_get(json_object_get(o, "usage"), "completion_tokens");
    if (json_is_integer(usage))
        k->n_usage = (int)json_integer_value(usage);
    json_decref(o);
    return 0;
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *user)
{
    struct call *k = user;
    size_t total = size * n;
    long status = 0;
    curl_easy_getinfo(k->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status == 200)
        return sse_feed(&k->sse, bytes, total, on_event, k, NULL) ? 0 : total;
    size_t room = sizeof(k->said) - 1 - k->n_said, take = total < room ? total : room;
    memcpy(k->said + k->n_said, bytes, take);
    k->n_said += take;
    return total;
}

/* ---- requests ---- */

static json_t *prompt_ids(const struct live *l, const struct load_request *r, int index)
{
    int32_t *token = malloc((size_t)r->n_prompt * sizeof(*token));
    json_t *list = token ? json_array() : NULL;
    if (list)
        prompt_fill(l->config.arrivals, index, l->config.seed, l->config.vocab, token);
    for (int i = 0; list && i < r->n_prompt; i++)
        json_array_append_new(list, json_integer(token[i]));
    free(token);
    return list;
}

static json_t *prompt_text(const struct live *l, const struct load_request *r, int index)
{
    const struct live_config *c = &l->config;
    if (!c->text) { /* a short common word is one token in nearly every vocabulary */
        size_t n = (size_t)r->n_prompt * 4;
        char *text = malloc(n + 1);
        if (!text)
            return NULL;
        for (size_t i = 0; i < n; i += 4)
            memcpy(text + i, " the", 4);
        json_t *s = json_stringn(text, n);
        free(text);
        return s;
    }
    size_t want = (size_t)((double)r->n_prompt * c->chars_per_token);
    want = want < 1 ? 1 : want < c->n_text ? want : c->n_text;
    double u = rng_uniform(c->seed, STREAM_PROMPT, (uint64_t)index);
    size_t at = (size_t)(u * (double)(c->n_text - want + 1)), end = at + want;
    while (at > 0 && (c->text[at] & 0xC0) == 0x80) /* whole characters only */
        at--;
    while (end > at && end < c->n_text && (c->text[end] & 0xC0) == 0x80)
        end--;
    return json_stringn(c->text + at, end - at);
}

static char *body_of(const struct live *l, const struct load_request *r, int index)
{
    const struct live_config *c = &l->config;
    json_t *prompt = c->vocab > 0 && !c->text ? prompt_ids(l, r, index) : prompt_text(l, r, index);
    json_t *o = json_pack("{s:s, s:o, s:i, s:b, s:{s:b}, s:b, s:f, s:I}", "model", c->model,
                          "prompt", prompt, "max_tokens", (int)r->n_output, "stream", 1,
                          "stream_options", "include_usage", 1, "ignore_eos", 1, "temperature", 0.0,
                          "seed", (json_int_t)index);
    if (o && c->n_domain > 0)
        json_object_set_new(o, "domain", json_string(c->domain[r->domain % c->n_domain]));
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return text;
}

static void call_free(struct call *k)
{
    if (!k)
        return;
    curl_easy_cleanup(k->easy);
    sse_fini(&k->sse);
    free(k->body);
    free(k);
}

static struct call *call_new(struct live *l, int index)
{
    struct call *k = calloc(1, sizeof(*k));
    if (!k)
        return NULL;
    k->live = l;
    k->request = &l->out->request[index];
    k->body = body_of(l, k->request, index);
    k->easy = k->body ? curl_easy_init() : NULL;
    if (!k->easy) {
        call_free(k);
        return NULL;
    }
    CURL *e = k->easy;
    curl_easy_setopt(e, CURLOPT_URL, l->url);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, l->fields);
    curl_easy_setopt(e, CURLOPT_POSTFIELDS, k->body);
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(k->body));
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, k);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, k->why);
    curl_easy_setopt(e, CURLOPT_PRIVATE, k);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
    return k;
}

static void call_link(struct call *k)
{
    struct live *l = k->live;
    k->after = l->first;
    if (l->first)
        l->first->before = k;
    l->first = k;
    l->open++;
}

/* call_drop: a request that ended, or that the server should cancel. */
static void call_drop(struct call *k)
{
    struct live *l = k->live;
    if (k->before)
        k->before->after = k->after;
    else
        l->first = k->after;
    if (k->after)
        k->after->before = k->before;
    curl_multi_remove_handle(l->multi, k->easy);
    call_free(k);
    l->open--;
}

static int launch_due(struct live *l)
{
    const struct arrivals *a = l->config.arrivals;
    while (l->next < a->n && a->at[l->next].at_ns <= now_ns(l)) {
        struct call *k = call_new(l, l->next);
        if (!k || curl_multi_add_handle(l->multi, k->easy) != CURLM_OK) {
            call_free(k);
            return err_set(l->err, ERR_NOMEM, "no memory for request %d", l->next);
        }
        call_link(k);
        l->next++;
    }
    return 0;
}

/* Half characters and special tokens make no text of their own: they count when the last one of the
 * request came. */
static void tokens_without_text(struct live *l, struct load_request *r, int n)
{
    struct load_slice *slice = slice_at(l, r->last_ns);
    r->n_got += n;
    if (slice)
        slice->tokens += n;
    if (r->last_ns >= l->config.warmup_ns && r->last_ns < l->config.duration_ns)
        l->out->tokens += (uint64_t)n;
}

static void call_ended(struct call *k, CURLcode code)
{
    struct live *l = k->live;
    struct load_request *r = k->request;
    long status = 0;
    curl_easy_getinfo(k->easy, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK && status == 200 && k->done && !k->broken) {
        r->status = REQUEST_OK;
        if (k->n_usage > r->n_got && r->n_got > 0)
            tokens_without_text(l, r, k->n_usage - r->n_got);
        return;
    }
    r->status = status == STATUS_TOO_BUSY ? REQUEST_REJECTED : REQUEST_FAILED;
    char words[BODY_MAX + 64];
    json_t *o = k->n_said > 0 ? json_loadb(k->said, k->n_said, 0, NULL) : NULL;
    const char *said = error_words(o);
    if (code != CURLE_OK)
        snprintf(words, sizeof(words), "%s", k->why[0] ? k->why : curl_easy_strerror(code));
    else if (status != 200)
        snprintf(words, sizeof(words), "status %ld: %s", status, said ? said : k->said);
    else
        snprintf(words, sizeof(words), "%s",
                 k->said[0] ? k->said : "the stream ended without [DONE]");
    keep_error(l, words);
    json_decref(o);
}

static void reap(struct live *l)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(l->multi, &left));) {
        if (m->msg != CURLMSG_DONE)
            continue;
        struct call *k = NULL;
        CURL *easy = m->easy_handle;
        CURLcode code = m->data.result;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&k);
        call_ended(k, code);
        call_drop(k);
    }
}

/* ---- run ---- */

static int set_up(struct live *l)
{
    const struct live_config *c = &l->config;
    struct load_result *r = l->out;
    char key[1100];
    snprintf(l->url, sizeof(l->url), "%.1000s/v1/completions", c->url);
    snprintf(key, sizeof(key), "Authorization: Bearer %.1000s", c->key ? c->key : "");
    l->multi = curl_multi_init();
    l->fields = curl_slist_append(NULL, "Content-Type: application/json");
    struct curl_slist *more = l->fields ? curl_slist_append(l->fields, "Expect:") : NULL;
    if (more && c->key)
        more = curl_slist_append(more, key);
    r->n_request = c->arrivals->n;
    r->n_slice = c->n_slice;
    r->warmup_ns = c->warmup_ns;
    r->duration_ns = c->duration_ns;
    r->request = calloc((size_t)r->n_request, sizeof(*r->request));
    r->slice = calloc((size_t)r->n_slice, sizeof(*r->slice));
    if (!l->multi || !more || !r->request || !r->slice)
        return err_set(l->err, ERR_NOMEM, "no memory for %d requests", r->n_request);
    for (int i = 0; i < r->n_request; i++) {
        const struct arrival *a = &c->arrivals->at[i];
        r->request[i] = (struct load_request){.due_ns = a->at_ns,
                                              .n_prompt = a->n_prompt,
                                              .n_output = a->n_output,
                                              .domain = a->domain,
                                              .status = REQUEST_UNFINISHED};
    }
    int64_t each = c->duration_ns / r->n_slice + 1;
    for (int i = 0; i < r->n_slice; i++)
        r->slice[i] = (struct load_slice){.begin_s = (double)(i * each) / (double)NS_PER_S,
                                          .end_s = (double)((i + 1) * each) / (double)NS_PER_S,
                                          .busy = -1,
                                          .balancedness = -1};
    return 0;
}

static int wait_ms(const struct live *l)
{
    if (l->next >= l->config.arrivals->n)
        return POLL_MS;
    int64_t left = l->config.arrivals->at[l->next].at_ns - now_ns(l);
    int64_t ms = (left + NS_PER_MS - 1) / NS_PER_MS;
    return ms < 0 ? 0 : ms > POLL_MS ? POLL_MS : (int)ms;
}

static void show_progress(const struct live *l, int64_t now)
{
    if (l->config.progress && isatty(STDERR_FILENO))
        fprintf(stderr, "\r%.0f of %.0f s, %d sent, %d running \033[K",
                (double)now / (double)NS_PER_S, (double)l->config.duration_ns / (double)NS_PER_S,
                l->next, l->open);
}

static int run(struct live *l)
{
    int64_t stop_ns = l->config.duration_ns + l->config.drain_ns, ticked_ns = -NS_PER_S;
    int rc = 0, running;
    while (rc == 0 && (l->open > 0 || l->next < l->config.arrivals->n)) {
        int64_t now = now_ns(l);
        if (now > stop_ns || (l->config.stop && *l->config.stop))
            break;
        rc = launch_due(l);
        if (rc == 0 && curl_multi_perform(l->multi, &running) != CURLM_OK)
            rc = err_set(l->err, ERR_NET, "libcurl cannot go on");
        reap(l);
        if (now - ticked_ns >= POLL_MS * NS_PER_MS) {
            ticked_ns = now;
            struct load_slice *slice = slice_at(l, now);
            if (slice)
                slice->running = l->open;
            if (l->config.tick)
                l->config.tick(l->config.user, now);
            show_progress(l, now);
        }
        if (rc == 0)
            curl_multi_poll(l->multi, NULL, 0, wait_ms(l), NULL);
    }
    if (l->config.progress && isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    return rc;
}

static void tear_down(struct live *l)
{
    while (l->first)
        call_drop(l->first);
    if (l->multi)
        curl_multi_cleanup(l->multi);
    curl_slist_free_all(l->fields);
}

static int64_t cpu_now(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

int live_run(const struct live_config *config, struct load_result *out, struct err *err)
{
    struct live l = {.config = *config, .out = out, .err = err};
    *out = (struct load_result){0};
    int rc = set_up(&l);
    int64_t cpu_from_ns = cpu_now();
    l.start_ns = clock_now(&clock_real);
    rc = rc ? rc : run(&l);
    out->end_ns = out->wall_ns = now_ns(&l);
    out->cpu_ns = cpu_now() - cpu_from_ns;
    tear_down(&l);
    if (rc)
        load_result_free(out);
    return rc;
}
