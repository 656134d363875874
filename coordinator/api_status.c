/* api_status: what a server says of itself: models and their domains, health, readiness, version,
 * configuration. */
#include "coordinator/api.h"

#include <stdio.h>
#include <string.h>

/* ---- models ---------------------------------------------------------------------------------- */

/* The model as such (domain -1), or with one domain pinned. */
static json_t *model_of(const struct api *api, int domain)
{
    const struct model_desc *d = &api->model->desc;
    char id[600];
    snprintf(id, sizeof id, domain < 0 ? "%s%.0s" : "%s:%s", api->model_name,
             domain < 0 ? "" : d->domain[domain].name);
    json_t *meta = json_pack(
        "{s:s,s:i,s:i,s:i,s:I,s:i,s:i,s:i}", "family", d->family, "n_vocab", d->vocab,
        "n_ctx_train", d->max_context, "n_embd", d->d_model, "n_params",
        (json_int_t)(desc_dense_params(d) +
                     desc_expert_params(d) * (uint64_t)d->n_expert * (uint64_t)desc_n_sparse(d)),
        "n_layer", d->n_layer, "n_expert", d->n_expert, "n_expert_used", d->top_k);
    json_t *model = json_pack("{s:s,s:s,s:I,s:s,s:i,s:o}", "id", id, "object", "model", "created",
                              (json_int_t)api->created, "owned_by", "sigmoe", "max_model_len",
                              d->max_context, "meta", meta);
    if (domain >= 0) {
        json_object_set_new(model, "parent", json_string(api->model_name));
        json_object_set_new(model, "domain", json_string(d->domain[domain].name));
    }
    return model;
}

void api_models(struct api *api, const struct api_request *r)
{
    const struct model_desc *d = &api->model->desc;
    if (strcmp(r->http->path, "/v1/models") != 0) {
        json_t *body = json_pack("{s:s}", "model", r->http->path + 11);
        struct api_request named = {r->x, r->http, body};
        char name[320];
        int domain = -1;
        if (body == NULL || api_model_read(api, &named, &domain, name, sizeof name) == 0) {
            api_json(api, r->x, model_of(api, domain));
        }
        json_decref(body);
        return;
    }
    json_t *list = json_array();
    for (int i = -1; i < d->n_domain; i++) {
        json_array_append_new(list, model_of(api, i));
    }
    api_json(api, r->x, json_pack("{s:s,s:o}", "object", "list", "data", list));
}

/* ---- health ---------------------------------------------------------------------------------- */

void api_health(struct api *api, const struct api_request *r)
{
    api_json(api, r->x, json_pack("{s:s}", "status", "ok"));
}

void api_ready(struct api *api, const struct api_request *r)
{
    struct service_view v;
    service_view_get(api->service, &v);
    if (v.n_uncovered > 0) {
        api_fail(api, r->x, 503, NULL, "not_ready",
                 "%d experts are held by no worker that answers (%d of %d answer)", v.n_uncovered,
                 v.workers_alive, v.n_worker);
        return;
    }
    api_json(api, r->x,
             json_pack("{s:s,s:i,s:i}", "status", "ready", "workers", v.n_worker, "workers_alive",
                       v.workers_alive));
}

void api_version(struct api *api, const struct api_request *r)
{
    api_json(api, r->x, json_pack("{s:s}", "version", SIGMOE_VERSION));
}

void api_server_info(struct api *api, const struct api_request *r)
{
    const struct model_desc *d = &api->model->desc;
    struct service_view v;
    char fingerprint[40];
    service_view_get(api->service, &v);
    hash_hex(api->model->fingerprint, fingerprint);
    json_t *domains = json_array();
    for (int i = 0; i < d->n_domain; i++) {
        json_array_append_new(domains, json_string(d->domain[i].name));
    }
    json_t *limits = json_pack("{s:i,s:i,s:i,s:i,s:i}", "n", api->n_choice_max, "prompts",
                               api->prompts_max, "sequences", api->sequences_max, "logprobs",
                               SERVICE_TOP_MAX, "context", d->max_context);
    api_json(api, r->x,
             json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:b,s:o,s:o,s:f}",
                       "version", SIGMOE_VERSION, "model", api->model_name, "family", d->family,
                       "fingerprint", fingerprint, "precision", api->precision, "activations",
                       api->activations, "kernels", api->kernels->name, "numerics", api->numerics,
                       "route", api->route != NULL ? api->route : "model", "layers", d->n_layer,
                       "experts", d->n_expert, "top_k", d->top_k, "workers", v.n_worker,
                       "chat_template", api->chat != NULL, "domains", domains, "limits", limits,
                       "uptime_s", (double)(clock_now(&clock_real) - api->start_ns) / 1e9));
}
