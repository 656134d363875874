/* api_live: `GET /sigmoe/status`, the cluster as it is now, for the web page, `sigmoe chat` and
 * people with curl; and the page's own files, from memory. Figures called recent are over the last
 * `window_s` seconds (ten, less after the start); the others are since the start.
 *
 *   {"model": "olmoe", "family": "olmoe", "version": "0.1.0", "uptime_s": 12.5, "ready": true,
 *    "layers": 16, "sparse_layers": [0, 1, ..], "experts": 64, "top_k": 8, "context": 4096,
 *    "window_s": 10.0,
 *    "tokens_per_s": {"prompt": 120.0, "generated": 35.5},        recent
 *    "tokens": {"prompt": 900, "generated": 4000},
 *    "requests": {"running": 1, "waiting": 0,                     sequences
 *                 "finished": 17, "refused": 0},
 *    "kv": {"dtype": "bf16", "bytes": 4194304,  memory of all pages
 *           "pages": 256, "free": 250,         not needed by a running sequence
 *           "cached": 40,                      of these kept for prompts that begin alike
 *           "lookup_tokens": 900, "hit_tokens": 512,   of prompts; found in the prefix cache
 *           "evictions": 3, "preemptions": 0},
 *    "workers": [{"name": "w0", "endpoint": "tcp://..", "state": "up" or "down",
 *                 "experts": 512,              pairs of layer and expert it holds
 *                 "outstanding": 1,            calls
 *                 "calls": 99, "failures": 0,
 *                 "rows": 1234,                of (token, slot) it has computed
 *                 "bytes_sent": 1, "bytes_received": 1,  of requests to it and replies from it
 *                 "rtt_ms": 0.21,              a call's time on the wire, smoothed
 *                 "recent_rows": 40, "share": 0.5,   share of all recent rows
 *                 "resident_bytes": 99, "available_bytes": 99}, ..],  memory, as it said last; 0:
 * not "coordinator": {"rows": 0, "recent_rows": 0, "share": 0.0},   experts it computed itself
 *    "uncovered": 0,                           pairs of layer and expert that no worker holds
 *    "chat": true,                             whether it has a template for conversations
 *    "domains": [{"name": "zh", "first": 0, "experts": 8,    whose experts are first, ...
 *                 "requests": 3, "prompt_tokens": 99, "generated_tokens": 50}, ..],
 *    "load": [[3, 0, ..], ..],                 recent: [sparse layer][expert] times chosen
 *    "load_total": [[9, 1, ..], ..]} */
#include "coordinator/api.h"

#include <stdlib.h>
#include <string.h>

static json_t *load_of(const struct meter_view *v, int total)
{
    json_t *layers = json_array();
    for (int l = 0; l < v->n_sparse; l++) {
        json_t *row = json_array();
        for (int e = 0; e < v->n_expert; e++) {
            int i = l * v->n_expert + e;
            json_array_append_new(
                row, json_integer(total ? (json_int_t)v->load[i] : (json_int_t)v->recent_load[i]));
        }
        json_array_append_new(layers, row);
    }
    return layers;
}

static json_t *sparse_layers(const struct model_desc *d)
{
    json_t *list = json_array();
    for (int l = 0; l < d->n_layer; l++) {
        if (d->layer[l].sparse) {
            json_array_append_new(list, json_integer(l));
        }
    }
    return list;
}

static double share(uint64_t part, uint64_t all)
{
    return all > 0 ? (double)part / (double)all : 0.0;
}

static json_t *worker_of(const struct meter_worker *w, uint64_t all)
{
    const struct pool_worker_info *i = &w->info;
    return json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:I,s:I,s:I,s:I,s:I,s:f,s:I,s:f,s:I,s:I}", "name",
                     i->name, "endpoint", i->endpoint, "via", i->via, "state",
                     i->alive ? "up" : "down", "experts", i->n_held, "outstanding", i->outstanding,
                     "calls", (json_int_t)i->calls, "failures", (json_int_t)i->failures, "rows",
                     (json_int_t)i->answered, "bytes_sent", (json_int_t)i->bytes_sent,
                     "bytes_received", (json_int_t)i->bytes_received, "rtt_ms",
                     (double)i->rtt_ns / 1e6, "recent_rows", (json_int_t)w->recent, "share",
                     share(w->recent, all), "resident_bytes", (json_int_t)i->resident_bytes,
                     "available_bytes", (json_int_t)i->available_bytes);
}

/* The workers, and what the coordinator computed because nobody else could. */
static void add_workers(json_t *o, const struct meter_view *v)
{
    uint64_t all = v->recent_local;
    for (int i = 0; i < v->n_worker; i++) {
        all += v->worker[i].recent;
    }
    json_t *list = json_array();
    for (int i = 0; i < v->n_worker; i++) {
        json_array_append_new(list, worker_of(&v->worker[i], all));
    }
    json_object_set_new(o, "workers", list);
    json_object_set_new(o, "coordinator",
                        json_pack("{s:I,s:I,s:f}", "rows", (json_int_t)v->pool.local_slots,
                                  "recent_rows", (json_int_t)v->recent_local, "share",
                                  share(v->recent_local, all)));
    json_object_set_new(o, "uncovered", json_integer(v->n_uncovered));
}

static json_t *requests_of(const struct api_counts *n, const struct engine_stats *e)
{
    uint64_t finished = 0;
    for (int r = FINISH_STOP; r <= FINISH_ERROR; r++) {
        finished += n->finished[r];
    }
    return json_pack("{s:i,s:i,s:I,s:I}", "running", e->running, "waiting", e->waiting, "finished",
                     (json_int_t)finished, "refused", (json_int_t)n->refused);
}

/* free counts cached pages too: nobody has to wait for them. */
static json_t *kv_of(const struct engine_stats *e)
{
    return json_pack("{s:s,s:I,s:i,s:i,s:i,s:I,s:I,s:I,s:I}", "dtype", dtype_name(e->kv_dtype),
                     "bytes", (json_int_t)e->kv_bytes, "pages", e->kv_pages, "free",
                     e->kv_pages_free, "cached", e->kv_pages_cached, "lookup_tokens",
                     (json_int_t)e->cache_lookup_tokens, "hit_tokens",
                     (json_int_t)e->cache_hit_tokens, "evictions", (json_int_t)e->cache_evictions,
                     "preemptions", (json_int_t)e->preemptions);
}

static json_t *domains_of(const struct api *api)
{
    const struct model_desc *d = &api->model->desc;
    struct domain_stats *n = calloc((size_t)d->n_domain + 1, sizeof *n);
    json_t *list = json_array();
    int count = n != NULL ? service_domains_get(api->service, n, d->n_domain) : 0;
    for (int i = 0; i < count; i++) {
        json_array_append_new(list, json_pack("{s:s,s:i,s:i,s:I,s:I,s:I}", "name",
                                              d->domain[i].name, "first", (int)d->domain[i].first,
                                              "experts", (int)d->domain[i].n_expert, "requests",
                                              (json_int_t)n[i].requests, "prompt_tokens",
                                              (json_int_t)n[i].prompt_tokens, "generated_tokens",
                                              (json_int_t)n[i].generated_tokens));
    }
    free(n);
    return list;
}

void api_live(struct api *api, const struct api_request *r)
{
    const struct model_desc *d = &api->model->desc;
    struct meter_view v;
    struct err err = {0};
    if (meter_read(service_meter(api->service), &v, &err) != 0) {
        api_fail_err(api, r->x, &err);
        return;
    }
    double window = v.window_s > 0 ? v.window_s : 1;
    json_t *o = json_pack(
        "{s:s,s:s,s:s,s:f,s:b,s:i,s:o,s:i,s:i,s:i,s:f,s:{s:f,s:f},s:o,s:o}", "model",
        api->model_name, "family", d->family, "version", SIGMOE_VERSION, "uptime_s",
        (double)(clock_now(&clock_real) - api->start_ns) / 1e9, "ready", v.n_uncovered == 0,
        "layers", d->n_layer, "sparse_layers", sparse_layers(d), "experts", d->n_expert, "top_k",
        d->top_k, "context", d->max_context, "window_s", v.window_s, "tokens_per_s", "prompt",
        (double)v.recent_prompt / window, "generated", (double)v.recent_generated / window,
        "requests", requests_of(&api->counts, &v.engine), "kv", kv_of(&v.engine));
    add_workers(o, &v);
    json_object_set_new(o, "tokens",
                        json_pack("{s:I,s:I}", "prompt", (json_int_t)v.engine.prompt_tokens,
                                  "generated", (json_int_t)v.engine.generated_tokens));
    json_object_set_new(o, "chat", json_boolean(api->chat != NULL));
    json_object_set_new(o, "domains", domains_of(api));
    json_object_set_new(o, "load", load_of(&v, 0));
    json_object_set_new(o, "load_total", load_of(&v, 1));
    meter_view_fini(&v);
    http_header(r->x, "Cache-Control", "no-store");
    api_json(api, r->x, o);
}

/* ---- the page -------------------------------------------------------------------------------- */

const struct api_asset *api_asset_get(const struct api *api, const char *path)
{
    for (int i = 0; i < api->n_asset; i++) {
        if (strcmp(api->asset[i].path, path) == 0) {
            return &api->asset[i];
        }
    }
    return NULL;
}

/* Nothing from elsewhere is loaded or run, and no other page may frame this one. */
void api_asset_send(struct api *api, struct http_exchange *x, const struct api_asset *asset)
{
    api->counts.status[200]++;
    http_header(x, "Cache-Control", "no-cache");
    http_header(x, "X-Content-Type-Options", "nosniff");
    http_header(x, "Content-Security-Policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                "connect-src 'self'; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'");
    http_respond(x, 200, asset->type, asset->data, asset->n);
}
