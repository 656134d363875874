/* api_status: what a server says of itself: models, health, readiness, metrics (Prometheus text).
 */
#include "coordinator/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void api_models(struct api *api, struct http_exchange *x, const char *id)
{
    const struct model_desc *d = &api->model->desc;
    if (id != NULL && strcmp(id, api->model_name) != 0) {
        api_fail(x, 404, "model", "the model here is \"%s\"", api->model_name);
        return;
    }
    json_t *meta =
        json_pack("{s:i,s:i,s:i,s:i,s:i}", "n_vocab", d->vocab, "n_ctx_train", d->max_context,
                  "n_embd", d->d_model, "n_expert", d->n_expert, "n_expert_used", d->top_k);
    json_t *model = json_pack("{s:s,s:s,s:I,s:s,s:i,s:o}", "id", api->model_name, "object", "model",
                              "created", (json_int_t)api->created, "owned_by", "sigmoe",
                              "max_model_len", d->max_context, "meta", meta);
    if (id != NULL) {
        api_json(x, model);
        return;
    }
    json_t *list = json_array();
    json_array_append_new(list, model);
    api_json(x, json_pack("{s:s,s:o}", "object", "list", "data", list));
}

void api_health(struct api *api, struct http_exchange *x)
{
    (void)api;
    api_json(x, json_pack("{s:s}", "status", "ok"));
}

void api_ready(struct api *api, struct http_exchange *x)
{
    struct service_view v;
    service_view_get(api->service, &v);
    if (v.n_uncovered > 0) {
        api_fail(x, 503, NULL, "%d experts are held by no worker that answers (%d of %d answer)",
                 v.n_uncovered, v.workers_alive, v.n_worker);
        return;
    }
    api_json(x, json_pack("{s:s,s:i,s:i}", "status", "ready", "workers", v.n_worker,
                          "workers_alive", v.workers_alive));
}

static void metric(FILE *f, const char *name, const char *type, const char *help, double value)
{
    fprintf(f, "# HELP sigmoe_%s %s\n# TYPE sigmoe_%s %s\nsigmoe_%s %.17g\n", name, help, name,
            type, name, value);
}

static void histogram_ttft(FILE *f, const struct api_counts *n)
{
    const char *name = "sigmoe_time_to_first_token_seconds";
    fprintf(f, "# HELP %s From the request to its first token.\n# TYPE %s histogram\n", name, name);
    uint64_t sum = 0;
    double bound = 0.001;
    for (int b = 0; b < 15; b++, bound *= 2) {
        sum += n->ttft_bucket[b];
        fprintf(f, "%s_bucket{le=\"%g\"} %llu\n", name, bound, (unsigned long long)sum);
    }
    fprintf(f, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n", name,
            (unsigned long long)n->ttft_count, name, n->ttft_sum_s, name,
            (unsigned long long)n->ttft_count);
}

static void counters(FILE *f, const struct api_counts *n, const struct service_view *v)
{
    fprintf(f, "# HELP sigmoe_requests_total Choices that ended, by reason.\n"
               "# TYPE sigmoe_requests_total counter\n");
    for (int r = FINISH_STOP; r <= FINISH_ERROR; r++) {
        fprintf(f, "sigmoe_requests_total{finish_reason=\"%s\"} %llu\n",
                finish_name((enum finish)r), (unsigned long long)n->finished[r]);
    }
    fprintf(f,
            "# HELP sigmoe_tokens_total Tokens taken in and generated.\n"
            "# TYPE sigmoe_tokens_total counter\n"
            "sigmoe_tokens_total{kind=\"prompt\"} %llu\n"
            "sigmoe_tokens_total{kind=\"generated\"} %llu\n",
            (unsigned long long)n->prompt_tokens, (unsigned long long)n->generated_tokens);
    fprintf(f,
            "# HELP sigmoe_wire_bytes_total Payload to and from workers.\n"
            "# TYPE sigmoe_wire_bytes_total counter\n"
            "sigmoe_wire_bytes_total{direction=\"sent\"} %llu\n"
            "sigmoe_wire_bytes_total{direction=\"received\"} %llu\n",
            (unsigned long long)v->engine.time.bytes_sent,
            (unsigned long long)v->engine.time.bytes_received);
}

void api_metrics(struct api *api, struct http_exchange *x)
{
    struct service_view v;
    service_view_get(api->service, &v);
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (f == NULL) {
        api_fail(x, 500, NULL, "no memory for the metrics");
        return;
    }
    const struct engine_stats *e = &v.engine;
    metric(f, "requests_running", "gauge", "Sequences being computed.", e->running);
    metric(f, "requests_waiting", "gauge", "Sequences that wait for room.", e->waiting);
    metric(f, "kv_cache_usage_ratio", "gauge", "Share of KV pages in use.",
           e->kv_pages > 0 ? 1.0 - (double)e->kv_pages_free / e->kv_pages : 0);
    metric(f, "workers", "gauge", "Workers known.", v.n_worker);
    metric(f, "workers_up", "gauge", "Workers that answer.", v.workers_alive);
    metric(f, "experts_uncovered", "gauge", "Experts no worker holds.", v.n_uncovered);
    metric(f, "worker_failures_total", "counter", "Workers lost.", (double)v.pool.workers_lost);
    metric(f, "expert_replans_total", "counter", "Calls planned again.", (double)v.pool.replans);
    metric(f, "expert_local_slots_total", "counter", "Slots the coordinator computed itself.",
           (double)v.pool.local_slots);
    metric(f, "steps_total", "counter", "Batches computed.", (double)e->steps);
    metric(f, "step_seconds_total", "counter", "Time in batches.", (double)e->step_ns / 1e9);
    metric(f, "expert_wait_seconds_total", "counter", "Of it, waiting for experts.",
           (double)e->wait_ns / 1e9);
    counters(f, &api->counts, &v);
    histogram_ttft(f, &api->counts);
    if (fclose(f) == 0) {
        http_respond(x, 200, "text/plain; version=0.0.4", text, size);
    } else {
        api_fail(x, 500, NULL, "no memory for the metrics");
    }
    free(text);
}
