/* api_metrics: Prometheus text (exposition format 0.0.4). Names are sigmoe_ + base unit, counters
 * end in _total, ratios over time are left to PromQL; series a worker, a worker and layer, a layer
 * and a domain are bounded by the cluster and the model. docs/API.md lists them. */
#include "coordinator/api_metrics.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void metric_family(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(FILE *f, const char *name, const char *type, const char *help, double value)
{
    metric_family(f, name, type, help);
    fprintf(f, "%s %.17g\n", name, value);
}

void metric_label(FILE *f, const char *text)
{
    for (; *text != 0; text++) {
        if (*text == '\\' || *text == '"') {
            fputc('\\', f);
        }
        if (*text == '\n') {
            fputs("\\n", f);
        } else {
            fputc(*text, f);
        }
    }
}

static void bucket(FILE *f, const char *name, const char *model, const char *bound, uint64_t n)
{
    fprintf(f, "%s_bucket{le=\"%s\"", name, bound);
    if (model != NULL) {
        fputs(",model_name=\"", f);
        metric_label(f, model);
        fputc('"', f);
    }
    fprintf(f, "} %" PRIu64 "\n", n);
}

static void summary(FILE *f, const char *name, const char *of, const char *model, double value)
{
    fprintf(f, "%s%s", name, of);
    if (model != NULL) {
        fputs("{model_name=\"", f);
        metric_label(f, model);
        fputs("\"}", f);
    }
    fprintf(f, " %.17g\n", value);
}

void metric_histogram(FILE *f, const char *name, const char *help, const char *model,
                      const struct histogram *h)
{
    uint64_t sum = 0;
    double bound = h->first;
    metric_family(f, name, "histogram", help);
    for (int b = 0; b < h->n; b++, bound *= h->factor) {
        char text[32];
        snprintf(text, sizeof text, "%g", bound);
        sum += h->bucket[b];
        bucket(f, name, model, text, sum);
    }
    bucket(f, name, model, "+Inf", h->count);
    summary(f, name, "_sum", model, h->sum);
    summary(f, name, "_count", model, (double)h->count);
}

/* ---- the server ------------------------------------------------------------------------------ */

static void about_requests(FILE *f, const struct api *api, const struct engine_stats *e)
{
    const struct api_counts *c = &api->counts;
    one(f, "sigmoe_requests_running", "gauge", "Sequences being computed.", e->running);
    one(f, "sigmoe_requests_waiting", "gauge", "Sequences that wait for room.", e->waiting);
    one(f, "sigmoe_http_jobs", "gauge", "Requests under way.", c->running);
    metric_family(f, "sigmoe_requests_total", "counter", "Choices that ended, by reason.");
    for (int r = FINISH_STOP; r <= FINISH_ERROR; r++) {
        fprintf(f, "sigmoe_requests_total{finish_reason=\"%s\"} %" PRIu64 "\n",
                finish_name((enum finish)r), c->finished[r]);
    }
    one(f, "sigmoe_requests_refused_total", "counter",
        "Generation requests answered with an error before they began.", (double)c->refused);
    metric_family(f, "sigmoe_http_responses_total", "counter", "Responses, by status.");
    for (int s = 0; s < (int)(sizeof c->status / sizeof *c->status); s++) {
        if (c->status[s] > 0) {
            fprintf(f, "sigmoe_http_responses_total{code=\"%d\"} %" PRIu64 "\n", s, c->status[s]);
        }
    }
    metric_family(f, "sigmoe_tokens_total", "counter",
                  "Tokens computed of prompts, and generated.");
    fprintf(f,
            "sigmoe_tokens_total{kind=\"prompt\"} %" PRIu64
            "\nsigmoe_tokens_total{kind=\"generated\"} %" PRIu64 "\n",
            e->prompt_tokens, e->generated_tokens);
    metric_histogram(f, "sigmoe_time_to_first_token_seconds", "From a request to its first token.",
                     NULL, &c->ttft);
    metric_histogram(f, "sigmoe_inter_token_latency_seconds", "Between the tokens of a sequence.",
                     NULL, &c->inter_token);
    metric_histogram(f, "sigmoe_request_duration_seconds", "From a request to its last token.",
                     NULL, &c->duration);
    metric_histogram(f, "sigmoe_request_queue_seconds", "From a request to its first computation.",
                     NULL, &c->queue);
    metric_histogram(f, "sigmoe_request_prompt_tokens", "Tokens of a prompt.", NULL,
                     &c->prompt_tokens);
    metric_histogram(f, "sigmoe_request_generated_tokens", "Tokens of a choice.", NULL,
                     &c->generated_tokens);
}

static void about_engine(FILE *f, const struct engine_stats *e)
{
    const struct dispatch_time *t = &e->time;
    one(f, "sigmoe_kv_pages", "gauge", "Pages of the KV cache.", e->kv_pages);
    one(f, "sigmoe_kv_bytes", "gauge", "Memory of the KV cache, used or not.", (double)e->kv_bytes);
    one(f, "sigmoe_kv_pages_free", "gauge", "Of them not in use by a running sequence.",
        e->kv_pages_free);
    one(f, "sigmoe_kv_pages_cached", "gauge", "Of these kept for prompts that begin alike.",
        e->kv_pages_cached);
    one(f, "sigmoe_kv_cache_usage_ratio", "gauge", "Share of KV pages in use.",
        e->kv_pages > 0 ? 1.0 - (double)e->kv_pages_free / e->kv_pages : 0);
    one(f, "sigmoe_prefix_cache_lookup_tokens_total", "counter",
        "Tokens of prompts that could have been found in the prefix cache.",
        (double)e->cache_lookup_tokens);
    one(f, "sigmoe_prefix_cache_hit_tokens_total", "counter", "Of them found, and not computed.",
        (double)e->cache_hit_tokens);
    one(f, "sigmoe_prefix_cache_evictions_total", "counter",
        "Pages whose contents were given up for others.", (double)e->cache_evictions);
    one(f, "sigmoe_preemptions_total", "counter",
        "Times that a sequence lost its KV pages to an older one, to be computed again.",
        (double)e->preemptions);
    one(f, "sigmoe_steps_total", "counter", "Batches computed.", (double)e->steps);
    one(f, "sigmoe_rows_total", "counter", "Rows of all batches.", (double)e->rows);
    one(f, "sigmoe_speculated_tokens_total", "counter", "Guessed tokens that were computed.",
        (double)e->proposed);
    one(f, "sigmoe_speculated_tokens_accepted_total", "counter", "Of them right.",
        (double)e->accepted);
    one(f, "sigmoe_step_seconds_total", "counter", "Time in batches.", (double)e->step_ns / 1e9);
    one(f, "sigmoe_expert_wait_seconds_total", "counter",
        "Of it with nothing to compute, experts away.", (double)e->wait_ns / 1e9);
    one(f, "sigmoe_expert_dispatches_total", "counter", "Micro-batches sent to experts.",
        (double)e->dispatches);
    one(f, "sigmoe_expert_away_seconds_total", "counter",
        "Sum over them, from sending to the last row.", (double)e->away_ns / 1e9);
    metric_family(
        f, "sigmoe_expert_phase_seconds_total", "counter",
        "Time of calls: building messages, on the wire, queued and computed at the slowest "
        "worker.");
    fprintf(f,
            "sigmoe_expert_phase_seconds_total{phase=\"serialise\"} %.9g\n"
            "sigmoe_expert_phase_seconds_total{phase=\"wire\"} %.9g\n"
            "sigmoe_expert_phase_seconds_total{phase=\"queue\"} %.9g\n"
            "sigmoe_expert_phase_seconds_total{phase=\"compute\"} %.9g\n",
            (double)t->serialise_ns / 1e9, (double)t->wire_ns / 1e9, (double)t->queue_ns / 1e9,
            (double)t->compute_ns / 1e9);
}

/* ---- the cluster ----------------------------------------------------------------------------- */

/* One series a worker; `value` picks it. */
static void per_worker(FILE *f, const struct meter_view *v, const char *name, const char *type,
                       const char *help, double (*value)(const struct pool_worker_info *w))
{
    metric_family(f, name, type, help);
    for (int i = 0; i < v->n_worker; i++) {
        fprintf(f, "%s{worker=\"", name);
        metric_label(f, v->worker[i].info.name);
        fprintf(f, "\"} %.17g\n", value(&v->worker[i].info));
    }
}

static double up(const struct pool_worker_info *w)
{
    return w->alive;
}
static double shared(const struct pool_worker_info *w)
{
    return strcmp(w->via, "shm") == 0;
}

static double calls(const struct pool_worker_info *w)
{
    return (double)w->calls;
}
static double failures(const struct pool_worker_info *w)
{
    return (double)w->failures;
}
static double outstanding(const struct pool_worker_info *w)
{
    return w->outstanding;
}
static double held(const struct pool_worker_info *w)
{
    return w->n_held;
}
static double resident(const struct pool_worker_info *w)
{
    return (double)w->resident_bytes;
}
static double available(const struct pool_worker_info *w)
{
    return (double)w->available_bytes;
}
static double rtt(const struct pool_worker_info *w)
{
    return (double)w->rtt_ns / 1e9;
}
static double compute(const struct pool_worker_info *w)
{
    return (double)w->compute_ns / 1e9;
}

/* Two workers of one name would be one series twice, which Prometheus refuses: they are numbered.
 */
static void name_apart(struct meter_view *v)
{
    for (int i = 0; i < v->n_worker; i++) {
        for (int k = 0; k < i; k++) {
            if (strcmp(v->worker[i].info.name, v->worker[k].info.name) == 0) {
                size_t n = strlen(v->worker[i].info.name), max = LIMIT_NAME_BYTES - 12;
                n = n < max ? n : max;
                snprintf(v->worker[i].info.name + n, 12, "#%d", i);
            }
        }
    }
}

static void wire_bytes(FILE *f, const struct meter_view *v)
{
    metric_family(f, "sigmoe_wire_bytes_total", "counter",
                  "Of requests to a worker and replies from it.");
    for (int i = 0; i < v->n_worker; i++) {
        for (int back = 0; back < 2; back++) {
            const struct pool_worker_info *w = &v->worker[i].info;
            fputs("sigmoe_wire_bytes_total{worker=\"", f);
            metric_label(f, w->name);
            fprintf(f, "\",direction=\"%s\"} %" PRIu64 "\n", back ? "received" : "sent",
                    back ? w->bytes_received : w->bytes_sent);
        }
    }
}

static void expert_tokens(FILE *f, const struct meter_view *v, const struct model_desc *d)
{
    metric_family(f, "sigmoe_expert_tokens_total", "counter",
                  "Rows of (token, slot) that a worker computed, by layer.");
    for (int i = 0; i < v->n_worker; i++) {
        for (int l = 0; l < d->n_layer; l++) {
            if (d->layer[l].sparse) {
                fputs("sigmoe_expert_tokens_total{worker=\"", f);
                metric_label(f, v->worker[i].info.name);
                fprintf(f, "\",layer=\"%d\"} %" PRIu64 "\n", l, v->worker[i].by_layer[l]);
            }
        }
    }
}

/* The hottest expert against the mean, over the last seconds; 1 is even, 0 is no load. */
static void imbalance(FILE *f, const struct meter_view *v, const struct model_desc *d)
{
    metric_family(f, "sigmoe_expert_imbalance_ratio", "gauge",
                  "Load of a layer's hottest expert over the mean of all, last ten seconds.");
    for (int l = 0, s = 0; l < d->n_layer; l++) {
        uint64_t sum = 0, top = 0;
        if (!d->layer[l].sparse) {
            continue;
        }
        for (int e = 0; e < v->n_expert; e++) {
            uint32_t n = v->recent_load[s * v->n_expert + e];
            sum += n;
            top = n > top ? n : top;
        }
        fprintf(f, "sigmoe_expert_imbalance_ratio{layer=\"%d\"} %.9g\n", l,
                sum > 0 ? (double)top * v->n_expert / (double)sum : 0.0);
        s++;
    }
}

static void about_cluster(FILE *f, struct meter_view *v, const struct model_desc *d)
{
    const struct pool_stats *p = &v->pool;
    int alive = 0;
    for (int i = 0; i < v->n_worker; i++) {
        alive += v->worker[i].info.alive;
    }
    one(f, "sigmoe_workers", "gauge", "Workers known.", v->n_worker);
    one(f, "sigmoe_workers_up", "gauge", "Workers that answer.", alive);
    one(f, "sigmoe_experts_uncovered", "gauge", "Pairs of layer and expert no worker holds.",
        v->n_uncovered);
    one(f, "sigmoe_workers_lost_total", "counter", "Workers given up.", (double)p->workers_lost);
    one(f, "sigmoe_expert_replans_total", "counter", "Calls planned again.", (double)p->replans);
    metric_family(f, "sigmoe_expert_retries_total", "counter", "Of calls, by what was wrong.");
    fprintf(f,
            "sigmoe_expert_retries_total{reason=\"not_held\"} %" PRIu64
            "\nsigmoe_expert_retries_total{reason=\"timeout\"} %" PRIu64 "\n",
            p->not_held, p->timeouts);
    one(f, "sigmoe_expert_local_slots_total", "counter", "Rows the coordinator computed itself.",
        (double)p->local_slots);
    name_apart(v);
    per_worker(f, v, "sigmoe_worker_up", "gauge", "Whether it answers.", up);
    per_worker(f, v, "sigmoe_worker_shared_memory", "gauge",
               "Whether rows pass through shared memory.", shared);
    per_worker(f, v, "sigmoe_worker_experts", "gauge", "Pairs of layer and expert it holds.", held);
    per_worker(f, v, "sigmoe_worker_resident_bytes", "gauge",
               "Memory its process has, as it said last; 0: it did not.", resident);
    per_worker(f, v, "sigmoe_worker_available_bytes", "gauge",
               "Memory it may take besides, as it said last; 0: it did not.", available);
    per_worker(f, v, "sigmoe_worker_calls_outstanding", "gauge", "Calls it has not answered.",
               outstanding);
    per_worker(f, v, "sigmoe_worker_calls_total", "counter", "Calls sent.", calls);
    per_worker(f, v, "sigmoe_worker_failures_total", "counter", "Calls it failed.", failures);
    per_worker(f, v, "sigmoe_worker_rtt_seconds", "gauge", "A call's time on the wire, smoothed.",
               rtt);
    per_worker(f, v, "sigmoe_worker_compute_seconds_total", "counter",
               "Time it computed, as it reports.", compute);
    wire_bytes(f, v);
    expert_tokens(f, v, d);
    imbalance(f, v, d);
}

static void about_placement(FILE *f, struct api *api)
{
    struct control_view v;
    control_view_get(api->control, &v);
    metric_family(f, "sigmoe_rebalance_state", "gauge", "1 at the state that the placement is in.");
    for (int i = 0; i < REBALANCE_STATE_COUNT; i++) {
        fprintf(f, "sigmoe_rebalance_state{state=\"%s\"} %d\n",
                rebalance_state_name((enum rebalance_state)i), i == (int)v.state);
    }
    metric_family(f, "sigmoe_rebalances_total", "counter",
                  "Changes of the placement, by their end.");
    fprintf(f,
            "sigmoe_rebalances_total{outcome=\"done\"} %" PRIu64
            "\nsigmoe_rebalances_total{outcome=\"undone\"} %" PRIu64 "\n",
            v.done, v.undone);
    one(f, "sigmoe_rebalance_interval_seconds", "gauge",
        "How often a plan is made without being asked; 0: never.", v.every_s);
    metric_family(f, "sigmoe_rebalance_plans_total", "counter",
                  "Plans made without being asked, by what became of them.");
    fprintf(f,
            "sigmoe_rebalance_plans_total{outcome=\"moved\"} %" PRIu64
            "\nsigmoe_rebalance_plans_total{outcome=\"left_alone\"} %" PRIu64
            "\nsigmoe_rebalance_plans_total{outcome=\"failed\"} %" PRIu64 "\n",
            v.auto_started, v.auto_refused, v.auto_plans - v.auto_started - v.auto_refused);
    metric_family(
        f, "sigmoe_placement_imbalance_ratio", "gauge",
        "(max - mean) / mean of the workers' work when a plan was last made: as it was, and as "
        "planned.");
    fprintf(f,
            "sigmoe_placement_imbalance_ratio{placement=\"in_use\"} %.9g\n"
            "sigmoe_placement_imbalance_ratio{placement=\"planned\"} %.9g\n",
            v.imbalance, v.imbalance_planned);
    one(f, "sigmoe_domains_drained", "gauge",
        "Domains whose experts no worker is to hold; the coordinator computes them.",
        v.drained_domains);
}

static void about_domains(FILE *f, const struct api *api)
{
    const struct model_desc *d = &api->model->desc;
    struct domain_stats *n = calloc((size_t)d->n_domain + 1, sizeof *n);
    int count = n != NULL ? service_domains_get(api->service, n, d->n_domain) : 0;
    if (count > 0) {
        metric_family(f, "sigmoe_domain_requests_total", "counter", "Sequences, by domain.");
        for (int i = 0; i < count; i++) {
            fprintf(f, "sigmoe_domain_requests_total{domain=\"%s\"} %" PRIu64 "\n",
                    d->domain[i].name, n[i].requests);
        }
        metric_family(f, "sigmoe_domain_tokens_total", "counter", "Tokens, by domain.");
        for (int i = 0; i < count; i++) {
            fprintf(f,
                    "sigmoe_domain_tokens_total{domain=\"%s\",kind=\"prompt\"} %" PRIu64
                    "\nsigmoe_domain_tokens_total{domain=\"%s\",kind=\"generated\"} %" PRIu64 "\n",
                    d->domain[i].name, n[i].prompt_tokens, d->domain[i].name,
                    n[i].generated_tokens);
        }
    }
    free(n);
}

/* ---- the process ----------------------------------------------------------------------------- */

static double open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = -3; /* . and .. and the folder itself */
    while (dir != NULL && readdir(dir) != NULL) {
        n++;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return n > 0 ? n : 0;
}

static double resident_bytes(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%*s %ld", &pages) != 1) {
        pages = 0;
    }
    if (f != NULL) {
        fclose(f);
    }
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void about_process(FILE *f, const struct api *api)
{
    struct timespec cpu = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    one(f, "process_cpu_seconds_total", "counter", "CPU time of the coordinator.",
        (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9);
    one(f, "process_resident_memory_bytes", "gauge", "Memory in RAM.", resident_bytes());
    one(f, "process_open_fds", "gauge", "Open file descriptors.", open_files());
    one(f, "process_start_time_seconds", "gauge", "Unix time of the start.", (double)api->created);
    metric_family(f, "sigmoe_build_info", "gauge", "What runs, as labels.");
    fputs("sigmoe_build_info{version=\"" SIGMOE_VERSION "\",model=\"", f);
    metric_label(f, api->model_name);
    fputs("\",kernels=\"", f);
    metric_label(f, api->kernels->name);
    fprintf(f, "\",precision=\"%s\",activations=\"%s\"} 1\n", api->precision, api->activations);
}

void api_metrics(struct api *api, const struct api_request *r)
{
    struct meter_view v;
    struct err err = {0};
    struct service_view now;
    char *text = NULL;
    size_t size = 0;
    if (meter_read(service_meter(api->service), &v, &err) != 0) {
        api_fail_err(api, r->x, &err);
        return;
    }
    FILE *f = open_memstream(&text, &size);
    if (f != NULL) {
        service_view_get(api->service, &now);
        about_process(f, api);
        about_requests(f, api, &now.engine);
        about_engine(f, &now.engine);
        if (v.n_sparse > 0) {
            about_cluster(f, &v, &api->model->desc);
            about_placement(f, api);
        }
        about_domains(f, api);
        metrics_as_vllm(f, api, &now.engine);
    }
    meter_view_fini(&v);
    if (f != NULL && fclose(f) == 0) {
        api->counts.status[200]++;
        http_respond(r->x, 200, "text/plain; version=0.0.4; charset=utf-8", text, size);
    } else {
        api_fail(api, r->x, 500, NULL, NULL, "no memory for the metrics");
    }
    free(text);
}
