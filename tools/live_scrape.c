/* live_scrape: samples are kept as they come, and turned into slices at the end: what counters grew
 * by between two samples belongs to the slices in between. */
#include "tools/live_scrape.h"

#include "base/clock.h"

#include <curl/curl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BODY_MAX   (64 << 20)
#define TIMEOUT_MS 5000L
#define SETTLE_NS  (600 * NS_PER_MS)

struct sample {
    int64_t at_ns;
    double waiting, bytes, wait_s, step_s, lookup, hit;
    double *rows, *outstanding; /* [n_worker] */
    int n_worker;
};

struct live_scrape {
    char url[1024], key[1100];
    struct curl_slist *fields;
    CURL *easy;
    int64_t every_ns, start_ns;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int stop;
    struct sample *sample; /* [n] */
    int n, n_max;
    json_t *first, *last; /* whole status, for each expert's load */
};

struct body {
    char *text;
    size_t n;
};

static size_t on_bytes(char *bytes, size_t size, size_t n, void *user)
{
    struct body *b = user;
    size_t total = size * n;
    char *text = total <= BODY_MAX - b->n ? realloc(b->text, b->n + total + 1) : NULL;
    if (!text)
        return 0;
    b->text = text;
    memcpy(text + b->n, bytes, total);
    b->n += total;
    text[b->n] = 0;
    return total;
}

/* fetch: the text of a page, the caller's to free, or NULL. */
static char *fetch(struct live_scrape *s, const char *path)
{
    char url[1100];
    struct body body = {0};
    long status = 0;
    snprintf(url, sizeof(url), "%s%s", s->url, path);
    curl_easy_setopt(s->easy, CURLOPT_URL, url);
    curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, s->fields);
    curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, &body);
    curl_easy_setopt(s->easy, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
    curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1L);
    CURLcode rc = curl_easy_perform(s->easy);
    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    if (rc == CURLE_OK && status == 200 && body.text)
        return body.text;
    free(body.text);
    return NULL;
}

/* The sum of all series of a name in Prometheus' text. */
static double metric(const char *text, const char *name)
{
    double sum = 0;
    size_t n = strlen(name);
    for (const char *at = text; at; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, name, n) != 0 || (at[n] != ' ' && at[n] != '{'))
            continue;
        const char *end = at[n] == '{' ? strstr(at, "} ") : at + n;
        if (end)
            sum += strtod(end + 1 + (*end == '}'), NULL);
    }
    return sum;
}

static void take_workers(struct sample *x, const json_t *status)
{
    const json_t *list = json_object_get(status, "workers"), *w;
    size_t i;
    x->n_worker = (int)json_array_size(list);
    x->rows = calloc((size_t)x->n_worker + 1, sizeof(double));
    x->outstanding = calloc((size_t)x->n_worker + 1, sizeof(double));
    if (!x->rows || !x->outstanding) {
        x->n_worker = 0;
        return;
    }
    json_array_foreach(list, i, w)
    {
        x->rows[i] = json_number_value(json_object_get(w, "rows"));
        x->outstanding[i] = json_number_value(json_object_get(w, "outstanding"));
        x->bytes += json_number_value(json_object_get(w, "bytes_sent")) +
                    json_number_value(json_object_get(w, "bytes_received"));
    }
}

/* 0: a sample was kept; -1: the server has no such page. */
static int sample_take(struct live_scrape *s)
{
    char *text = fetch(s, "/sigmoe/status");
    json_t *status = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    if (!json_is_object(status) || !json_is_array(json_object_get(status, "workers"))) {
        json_decref(status);
        return -1;
    }
    if (s->n == s->n_max) {
        int n_max = s->n_max ? s->n_max * 2 : 256;
        struct sample *more = realloc(s->sample, (size_t)n_max * sizeof(*more));
        if (!more) {
            json_decref(status);
            return -1;
        }
        s->sample = more;
        s->n_max = n_max;
    }
    struct sample x = {.at_ns = clock_now(&clock_real) - s->start_ns};
    x.waiting = json_number_value(json_object_get(json_object_get(status, "requests"), "waiting"));
    take_workers(&x, status);
    char *metrics = fetch(s, "/metrics");
    if (metrics) {
        x.wait_s = metric(metrics, "sigmoe_expert_wait_seconds_total");
        x.step_s = metric(metrics, "sigmoe_step_seconds_total");
        x.lookup = metric(metrics, "sigmoe_prefix_cache_lookup_tokens_total");
        x.hit = metric(metrics, "sigmoe_prefix_cache_hit_tokens_total");
    }
    free(metrics);
    s->sample[s->n++] = x;
    if (!s->first)
        s->first = json_incref(status);
    json_decref(s->last);
    s->last = status;
    return 0;
}

static void *loop(void *arg)
{
    struct live_scrape *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t ns = until.tv_nsec + s->every_ns % NS_PER_S;
        until.tv_sec += s->every_ns / NS_PER_S + ns / NS_PER_S;
        until.tv_nsec = ns % NS_PER_S;
        pthread_cond_timedwait(&s->changed, &s->lock, &until);
        pthread_mutex_unlock(&s->lock);
        sample_take(s);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void scrape_free(struct live_scrape *s)
{
    for (int i = 0; i < s->n; i++) {
        free(s->sample[i].rows);
        free(s->sample[i].outstanding);
    }
    free(s->sample);
    json_decref(s->first);
    json_decref(s->last);
    curl_easy_cleanup(s->easy);
    curl_slist_free_all(s->fields);
    free(s);
}

int live_scrape_start(const char *url, const char *key, int64_t every_ns, struct live_scrape **out,
                      struct err *err)
{
    *out = NULL;
    struct live_scrape *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory to watch the cluster");
    snprintf(s->url, sizeof(s->url), "%.1000s", url);
    s->every_ns = every_ns;
    s->start_ns = clock_now(&clock_real);
    s->easy = curl_easy_init();
    if (key) {
        snprintf(s->key, sizeof(s->key), "Authorization: Bearer %.1000s", key);
        s->fields = curl_slist_append(NULL, s->key);
    }
    if (!s->easy || sample_take(s) != 0) {
        scrape_free(s);
        return 0;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
    if (pthread_create(&s->thread, NULL, loop, s)) {
        scrape_free(s);
        return err_set(err, ERR_NOMEM, "the system refuses a thread to watch the cluster");
    }
    *out = s;
    return 0;
}

/* ---- what it comes to ---- */

/* The part of [a, b] that lies within a slice. */
static double overlap(const struct load_slice *slice, double a, double b)
{
    double from = a > slice->begin_s ? a : slice->begin_s;
    double to = b < slice->end_s ? b : slice->end_s;
    return to > from && b > a ? (to - from) / (b - a) : 0;
}

static void spread(const struct sample *x, const struct sample *y, struct load_result *r)
{
    double a = (double)x->at_ns / (double)NS_PER_S, b = (double)y->at_ns / (double)NS_PER_S;
    double sum = 0, max = 0;
    int n = x->n_worker < y->n_worker ? x->n_worker : y->n_worker;
    for (int i = 0; i < n; i++) {
        double rows = y->rows[i] - x->rows[i];
        sum += rows;
        max = rows > max ? rows : max;
    }
    for (int i = 0; i < r->n_slice; i++) {
        double part = overlap(&r->slice[i], a, b);
        if (part <= 0)
            continue;
        r->slice[i].waiting = y->waiting;
        r->slice[i].bytes += part * (y->bytes - x->bytes);
        r->slice[i].stall_s += part * (y->wait_s - x->wait_s);
        if (max > 0) {
            r->slice[i].mean += part * sum / n;
            r->slice[i].max += part * max;
        }
    }
}

static void take_heat(const struct live_scrape *s, struct load_result *r)
{
    const json_t *a = json_object_get(s->first, "load_total"),
                 *b = json_object_get(s->last, "load_total");
    int n_layer = (int)json_array_size(b), n_expert = (int)json_array_size(json_array_get(b, 0));
    if (n_layer < 1 || n_expert < 1)
        return;
    r->heat = calloc((size_t)n_layer * (size_t)n_expert, sizeof(double));
    if (!r->heat)
        return;
    r->n_layer = n_layer;
    r->n_expert = n_expert;
    for (int l = 0; l < n_layer; l++)
        for (int e = 0; e < n_expert; e++)
            r->heat[l * n_expert + e] =
                json_number_value(json_array_get(json_array_get(b, (size_t)l), (size_t)e)) -
                json_number_value(json_array_get(json_array_get(a, (size_t)l), (size_t)e));
}

void live_scrape_stop(struct live_scrape *s, struct load_result *r)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = 1;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    /* A coordinator refreshes its view twice a second: the last one is waited for. */
    nanosleep(&(struct timespec){.tv_nsec = SETTLE_NS}, NULL);
    sample_take(s);
    for (int i = 1; i < s->n; i++)
        spread(&s->sample[i - 1], &s->sample[i], r);
    const struct sample *first = &s->sample[0], *last = &s->sample[s->n - 1];
    r->n_worker = last->n_worker;
    r->worker_slots = calloc((size_t)r->n_worker + 1, sizeof(double));
    for (int i = 0; r->worker_slots && i < r->n_worker; i++)
        r->worker_slots[i] = last->rows[i] - (i < first->n_worker ? first->rows[i] : 0);
    r->step_s = last->step_s - first->step_s;
    r->wait_s = last->wait_s - first->wait_s;
    r->lookup_tokens = (uint64_t)(last->lookup - first->lookup);
    r->hit_tokens = (uint64_t)(last->hit - first->hit);
    r->bytes_sent = (uint64_t)(last->bytes - first->bytes);
    take_heat(s, r);
    scrape_free(s);
}
