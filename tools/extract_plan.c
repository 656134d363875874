/* extract_plan: which domains, embedding slots and form the submodel has, and its config.json. A
 * single group of one expert has nothing to route: it is written as the dense family of its block,
 * which every tool loads. */
#include "model/json.h"
#include "tools/extract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((size_t)4 << 20)

static int domain_add(struct extract *u, const char *name, size_t n)
{
    char text[64];
    snprintf(text, sizeof(text), "%.*s", (int)(n < sizeof(text) ? n : sizeof(text) - 1), name);
    int found = desc_domain_find(&u->full->desc, text, u->err);
    if (found < 0)
        return found;
    for (int i = 0; i < u->n_domain; i++)
        if (u->domain[i] == found)
            return err_set(u->err, ERR_USAGE, "--domain names %s twice", text);
    int at = u->n_domain++;
    for (; at > 0 && u->domain[at - 1] > found; at--)
        u->domain[at] = u->domain[at - 1];
    u->domain[at] = found;
    return 0;
}

int extract_domains(struct extract *u)
{
    const struct model_desc *d = &u->full->desc;
    if (d->n_domain == 0)
        return err_set(u->err, ERR_USAGE,
                       "%s is a %s: its tokens choose among all experts, so no part of it computes "
                       "the same; extraction is for models with domains (pangu_sigma)",
                       u->dir, d->family);
    u->domain = calloc((size_t)d->n_domain, sizeof(*u->domain));
    u->slot = calloc((size_t)d->n_slot, sizeof(*u->slot));
    if (!u->domain || !u->slot)
        return err_set(u->err, ERR_NOMEM, "no memory for %d domains", d->n_domain);
    int rc = 0;
    for (const char *at = u->domains; rc == 0; at++) {
        size_t n = strcspn(at, ",");
        rc = domain_add(u, at, n);
        at += n;
        if (*at == '\0')
            break;
    }
    return rc;
}

/* slots_choose: the embedding slots of the kept domains, in ascending order; returns how many. */
static int slots_choose(struct extract *u)
{
    int n = 0;
    for (int slot = 0; slot < u->full->desc.n_slot; slot++) {
        int used = 0;
        for (int i = 0; i < u->n_domain; i++)
            used |= u->full->desc.domain[u->domain[i]].slot == slot;
        if (used)
            u->slot[n++] = slot;
    }
    return n;
}

static void collapse_choose(struct extract *u)
{
    const struct model_desc *d = &u->full->desc;
    if (u->n_domain != 1 || d->domain[u->domain[0]].n_expert != 1)
        return;
    if (u->no_collapse)
        u->why_not = "--no-collapse was given";
    else if (strcmp(d->block, "pangu_alpha") == 0)
        u->why_not = "no standard family has the pangu_alpha block";
    else if (d->d_ff > 0 && d->d_ff != d->d_ff_expert)
        u->why_not = "its experts are not as wide as its dense layers";
    u->collapsed = !u->why_not;
}

static void domains_write(struct extract *u, json_t *root)
{
    const struct model_desc *d = &u->full->desc;
    json_t *list = json_array();
    int n_slot = slots_choose(u), has_default = 0;
    for (int i = 0; i < u->n_domain; i++) {
        const struct domain_desc *domain = &d->domain[u->domain[i]];
        int slot = 0;
        while (u->slot[slot] != domain->slot)
            slot++;
        has_default |= u->domain[i] == d->default_domain;
        json_array_append_new(list,
                              json_pack("{s:s, s:i, s:i}", "name", domain->name, "num_experts",
                                        domain->n_expert, "embedding_slot", slot));
    }
    int first = has_default ? d->default_domain : u->domain[0];
    json_object_set_new(root, "domains", list);
    json_object_set_new(root, "num_embedding_slots", json_integer(n_slot));
    json_object_set_new(root, "default_domain", json_string(d->domain[first].name));
}

static void dense_write(struct extract *u, json_t *root)
{
    static const char *const keys[] = {
        "block",   "num_dense_layers",    "expert_intermediate_size", "num_experts_per_tok",
        "domains", "num_embedding_slots", "default_domain",           "routing_seed",
        "auto_map"};
    const struct model_desc *d = &u->full->desc;
    slots_choose(u);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        json_object_del(root, keys[i]);
    json_object_set_new(root, "model_type", json_string(d->block));
    json_object_set_new(root, "intermediate_size", json_integer(d->d_ff_expert));
    json_object_set_new(root, "architectures",
                        json_pack("[s]", strcmp(d->block, "llama") == 0   ? "LlamaForCausalLM"
                                         : strcmp(d->block, "qwen2") == 0 ? "Qwen2ForCausalLM"
                                                                          : "Qwen3ForCausalLM"));
}

static void dtype_write(const struct extract *u, json_t *root)
{
    const char *key = json_object_get(root, "dtype") ? "dtype" : "torch_dtype";
    if (u->dtype != DTYPE_NONE)
        json_object_set_new(root, key, json_string(u->dtype == DTYPE_F32 ? "float32" : "bfloat16"));
}

static int config_load(struct extract *u)
{
    char path[4352], *text;
    size_t bytes;
    snprintf(path, sizeof(path), "%s/config.json", u->dir);
    int rc = file_read(path, CONFIG_BYTES_MAX, &text, &bytes, u->err);
    if (rc)
        return rc;
    rc = json_parse_object(text, bytes, CONFIG_BYTES_MAX, path, &u->config, u->err);
    free(text);
    return rc;
}

int extract_plan(struct extract *u)
{
    int rc = config_load(u);
    if (rc)
        return rc;
    collapse_choose(u);
    if (u->collapsed)
        dense_write(u, u->config);
    else
        domains_write(u, u->config);
    dtype_write(u, u->config);
    if (u->kept) {
        json_object_set_new(u->config, "vocab_size", json_integer(u->n_kept));
        extract_ids(u, u->config);
    }
    char *text = json_dumps(u->config, JSON_REAL_PRECISION(15));
    if (!text)
        return err_set(u->err, ERR_NOMEM, "no memory for the config of %s", u->out);
    rc = desc_from_config(text, strlen(text), "the submodel's config.json", &u->desc, u->err);
    free(text);
    return rc;
}
