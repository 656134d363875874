/* api_metrics_vllm: the figures that dashboards and autoscalers made for vLLM read, by vLLM's names
 * and with its label model_name. The same counts as under our own names (docs/API.md has both side
 * by side); nothing is counted for these alone. */
#include "coordinator/api_metrics.h"

#include <inttypes.h>

static void one_series(FILE *f, const char *name, const char *model, double value)
{
    fprintf(f, "%s{model_name=\"", name);
    metric_label(f, model);
    fprintf(f, "\"} %.17g\n", value);
}

static void about_engine(FILE *f, const char *model, const struct engine_stats *e)
{
    const struct {
        const char *name, *type, *help;
        double value;
    } row[] = {
        {"vllm:num_requests_running", "gauge", "sigmoe_requests_running.", e->running},
        {"vllm:num_requests_waiting", "gauge", "sigmoe_requests_waiting.", e->waiting},
        {"vllm:kv_cache_usage_perc", "gauge", "sigmoe_kv_cache_usage_ratio: 1 is full.",
         e->kv_pages > 0 ? 1.0 - (double)e->kv_pages_free / e->kv_pages : 0},
        {"vllm:prefix_cache_queries_total", "counter", "sigmoe_prefix_cache_lookup_tokens_total.",
         (double)e->cache_lookup_tokens},
        {"vllm:prefix_cache_hits_total", "counter", "sigmoe_prefix_cache_hit_tokens_total.",
         (double)e->cache_hit_tokens},
        {"vllm:num_preemptions_total", "counter", "sigmoe_preemptions_total.",
         (double)e->preemptions},
        {"vllm:generation_tokens_total", "counter", "sigmoe_tokens_total, generated.",
         (double)e->generated_tokens},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        metric_family(f, row[i].name, row[i].type, row[i].help);
        one_series(f, row[i].name, model, row[i].value);
    }
}

static void about_requests(FILE *f, const char *model, const struct api_counts *c)
{
    /* As there, tokens found in the prefix cache are tokens of a prompt. */
    metric_family(f, "vllm:prompt_tokens_total", "counter", "Tokens of prompts, cached ones too.");
    one_series(f, "vllm:prompt_tokens_total", model, c->prompt_tokens.sum);
    metric_family(f, "vllm:request_success_total", "counter", "sigmoe_requests_total.");
    for (int r = FINISH_STOP; r <= FINISH_ERROR; r++) {
        fprintf(f, "vllm:request_success_total{finished_reason=\"%s\",model_name=\"",
                finish_name((enum finish)r));
        metric_label(f, model);
        fprintf(f, "\"} %" PRIu64 "\n", c->finished[r]);
    }
    const struct {
        const char *name, *help;
        const struct histogram *h;
    } row[] = {
        {"vllm:time_to_first_token_seconds", "sigmoe_time_to_first_token_seconds.", &c->ttft},
        {"vllm:inter_token_latency_seconds", "sigmoe_inter_token_latency_seconds.",
         &c->inter_token},
        {"vllm:time_per_output_token_seconds", "The same by its older name.", &c->inter_token},
        {"vllm:e2e_request_latency_seconds", "sigmoe_request_duration_seconds.", &c->duration},
        {"vllm:request_queue_time_seconds", "sigmoe_request_queue_seconds.", &c->queue},
        {"vllm:request_prompt_tokens", "sigmoe_request_prompt_tokens.", &c->prompt_tokens},
        {"vllm:request_generation_tokens", "sigmoe_request_generated_tokens.",
         &c->generated_tokens},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        metric_histogram(f, row[i].name, row[i].help, model, row[i].h);
    }
}

void metrics_as_vllm(FILE *f, const struct api *api, const struct engine_stats *e)
{
    about_engine(f, api->model_name, e);
    about_requests(f, api->model_name, &api->counts);
}
