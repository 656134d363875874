/* loadtest_live: options to an open-loop test of a running server, one run for each load and seed.
 */
#include "base/clock.h"
#include "model/json.h"
#include "tools/live_client.h"
#include "tools/live_scrape.h"
#include "tools/loadtest.h"
#include "tools/openai.h"

#include <curl/curl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES_MAX ((size_t)256 << 20)
#define DOMAINS_MAX    64
#define SLICES_MAX     60
#define SLICE_NS_MIN   NS_PER_S
#define SCRAPE_NS_MIN  (NS_PER_S / 2)

struct options {
    struct traffic traffic;
    const char *url, *key_file, *model, *prompt_file, *domains;
    double chars;
    int64_t vocab;
};

struct server {
    struct openai *client;
    char key[512], model[256];
    int vocab;
    char *text; /* of --prompt-file */
    size_t n_text;
    char domain_text[1024];
    const char *domain[DOMAINS_MAX];
    int n_domain;
};

static volatile sig_atomic_t stopped;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

static const char about[] =
    "Sends requests to a running server when they are due, whether or not earlier ones have ended\n"
    "(open loop), and measures what a client sees: time to first token, time a token, gaps, whole\n"
    "requests, goodput under an SLO, errors. Latency counts from the moment a request was due. "
    "From\n"
    "a sigmoe coordinator the cluster's own view is read beside it.\n"
    "Needs /v1/completions with streaming. Prompts are random token ids where the server tells "
    "its\n"
    "vocabulary, else text.\n"
    "\n"
    "  sigmoe loadtest live http://127.0.0.1:8000 --rate 1,2,4 --duration 60 --html live.html\n"
    "  sigmoe loadtest live host:8000 --arrivals azure.csv --rate 2 --slo-ttft 500 --slo-tpot 50";

static int parse(int argc, char **argv, struct options *o, struct err *err)
{
    *o = (struct options){.chars = 4};
    struct opt opts[TRAFFIC_OPTIONS + 8] = {
        {"model", 'm', OPT_STR, &o->model, "NAME", "to ask for (the first the server lists)", 0, 0},
        {"api-key-file", 0, OPT_STR, &o->key_file, "FILE", "its first line is the key", 0, 0},
        {"vocab", 0, OPT_INT, &o->vocab, "N", "prompts are token ids below N (as the server says)",
         0, 10000000},
        {"prompt-file", 0, OPT_STR, &o->prompt_file, "FILE",
         "prompts are windows of this text instead", 0, 0},
        {"chars-per-token", 0, OPT_FLOAT, &o->chars, "X", "of that text (4)", 0.1, 100},
        {"domain-names", 0, OPT_STR, &o->domains, "NAME,...",
         "that requests name, in the order of --mix", 0, 0},
    };
    int n = 0, n_pos = 1;
    while (opts[n].name)
        n++;
    traffic_options(&o->traffic, opts + n);
    const struct opt_command cmd = {"loadtest live", "sigmoe loadtest live URL [options]", about,
                                    opts};
    int rc = opt_parse(&cmd, argc, argv, &o->url, &n_pos, err);
    if (rc == 0 && n_pos != 1)
        rc = err_set(err, ERR_USAGE, "which server? sigmoe loadtest live http://HOST:PORT");
    return rc ? rc : traffic_check(&o->traffic, err);
}

static int read_key(const struct options *o, struct server *s, struct err *err)
{
    char *text;
    size_t bytes;
    if (!o->key_file)
        return 0;
    int rc = file_read(o->key_file, 1 << 16, &text, &bytes, err);
    if (rc)
        return rc;
    text[strcspn(text, "\r\n")] = 0;
    snprintf(s->key, sizeof(s->key), "%.511s", text);
    free(text);
    return s->key[0] ? 0 : err_set(err, ERR_USAGE, "%s holds no key", o->key_file);
}

/* Which model, and how large its vocabulary is where the server says so. */
static int ask_models(const struct options *o, struct server *s, struct err *err)
{
    json_t *list = NULL;
    int rc = openai_get(s->client, "/v1/models", &list, err);
    if (rc)
        return rc;
    const json_t *data = json_object_get(list, "data"), *m, *found = json_array_get(data, 0);
    size_t i;
    json_array_foreach(data, i, m)
    {
        const char *id = json_string_value(json_object_get(m, "id"));
        if (o->model && id && strcmp(id, o->model) == 0)
            found = m;
    }
    const char *id = o->model ? o->model : json_string_value(json_object_get(found, "id"));
    const json_t *vocab = json_object_get(json_object_get(found, "meta"), "n_vocab");
    if (!id)
        rc = err_set(err, ERR_PROTO, "%s lists no model; give --model", o->url);
    else
        snprintf(s->model, sizeof(s->model), "%.255s", id);
    s->vocab = o->vocab > 0 ? (int)o->vocab : (int)json_integer_value(vocab);
    json_decref(list);
    return rc;
}

static int server_open(const struct options *o, struct server *s, struct err *err)
{
    int rc = read_key(o, s, err);
    rc = rc ? rc : openai_open(o->url, s->key[0] ? s->key : NULL, &s->client, err);
    rc = rc ? rc : ask_models(o, s, err);
    if (rc == 0 && o->prompt_file)
        rc = file_read(o->prompt_file, TEXT_BYTES_MAX, &s->text, &s->n_text, err);
    if (rc == 0 && o->prompt_file && s->n_text == 0)
        rc = err_set(err, ERR_USAGE, "%s is empty", o->prompt_file);
    if (rc == 0 && o->domains) {
        snprintf(s->domain_text, sizeof(s->domain_text), "%.1023s", o->domains);
        s->n_domain = list_split(s->domain_text, s->domain, DOMAINS_MAX);
        if (s->n_domain < 1)
            rc = err_set(err, ERR_USAGE, "--domain-names is no list of at most %d names",
                         DOMAINS_MAX);
    }
    return rc;
}

static void server_close(struct server *s)
{
    openai_close(s->client);
    free(s->text);
}

static int slices_of(double duration_s)
{
    double n = duration_s * (double)NS_PER_S / (double)SLICE_NS_MIN;
    return n < 1 ? 1 : n > SLICES_MAX ? SLICES_MAX : (int)n;
}

static int run_one(const struct options *o, const struct server *s, double rate, uint64_t seed,
                   int detail, json_t *report, struct err *err)
{
    const struct traffic *t = &o->traffic;
    struct arrivals arrivals;
    struct load_result result;
    struct live_scrape *scrape = NULL;
    int rc = traffic_arrivals(t, rate, seed, &arrivals, err);
    if (rc)
        return rc;
    if (arrivals.n_block > 0 && (s->text || s->vocab < 1)) {
        arrivals_free(&arrivals);
        return err_set(err, ERR_USAGE,
                       "prompts that begin alike are made of token ids: give --vocab, and no "
                       "--prompt-file");
    }
    struct live_config config = {.url = openai_url(s->client),
                                 .key = s->key[0] ? s->key : NULL,
                                 .model = s->model,
                                 .vocab = s->vocab,
                                 .text = s->text,
                                 .n_text = s->n_text,
                                 .chars_per_token = o->chars,
                                 .domain = s->domain,
                                 .n_domain = s->n_domain,
                                 .arrivals = &arrivals,
                                 .warmup_ns = (int64_t)(t->warmup_s * (double)NS_PER_S),
                                 .duration_ns = (int64_t)(t->duration_s * (double)NS_PER_S),
                                 .drain_ns = (int64_t)(t->drain_s * (double)NS_PER_S),
                                 .n_slice = slices_of(t->duration_s),
                                 .seed = seed,
                                 .stop = &stopped,
                                 .progress = 1};
    int64_t every_ns = config.duration_ns / config.n_slice;
    rc = live_scrape_start(config.url, config.key,
                           every_ns > SCRAPE_NS_MIN ? every_ns : SCRAPE_NS_MIN, &scrape, err);
    rc = rc ? rc : live_run(&config, &result, err);
    if (rc == 0) {
        live_scrape_stop(scrape, &result);
        struct run_label label = {.rate = rate > 0 ? rate : arrivals.n / t->duration_s,
                                  .seed = seed};
        rc = report_add(report, &label, &result, detail, err);
        load_result_free(&result);
    } else if (scrape) {
        struct load_result none = {0};
        live_scrape_stop(scrape, &none);
        load_result_free(&none);
    }
    arrivals_free(&arrivals);
    return rc;
}

static int run_all(const struct options *o, const struct server *s, json_t *report, struct err *err)
{
    const struct traffic *t = &o->traffic;
    int rc = 0;
    for (int i = 0; rc == 0 && i < t->n_rate && !stopped; i++)
        for (int64_t k = 0; rc == 0 && k < t->seeds && !stopped; k++)
            rc = run_one(o, s, t->rate[i], (uint64_t)(t->seed + k), k == 0, report, err);
    return rc;
}

int loadtest_live(int argc, char **argv)
{
    struct options o;
    struct server s = {0};
    struct err err = {0};
    json_t *report = NULL;
    int rc = parse(argc, argv, &o, &err);
    if (rc == 1)
        return 0;
    if (rc == 0 && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        rc = err_set(&err, ERR_NOMEM, "libcurl cannot start");
    rc = rc ? rc : server_open(&o, &s, &err);
    if (rc == 0) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        json_t *settings = json_pack("{s:s, s:s, s:s}", "server", openai_url(s.client), "model",
                                     s.model, "prompts",
                                     s.text        ? o.prompt_file
                                     : s.vocab > 0 ? "random token ids"
                                                   : "a repeated word");
        traffic_settings(&o.traffic, settings);
        report = report_create("live", s.model, &o.traffic.slo, settings);
        rc = run_all(&o, &s, report, &err);
    }
    if (rc == 0 && stopped)
        rc = err_set(&err, ERR_AGAIN, "interrupted; no report is written");
    rc = rc ? rc : traffic_report(&o.traffic, report, &err);
    if (rc)
        fprintf(stderr, "sigmoe loadtest live: %s\n", err.text);
    json_decref(report);
    server_close(&s);
    return err_exit_code(rc);
}
