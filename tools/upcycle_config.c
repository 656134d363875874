/* upcycle_config: from a dense config.json to a sparse one. What the dense family takes for an
 * absent key is written out, because another family would take something else. At the end the new
 * config is read back and compared with the dense model, field by field: a form that would compute
 * another function is refused here, before a byte is written. */
#include "model/json.h"
#include "tools/hf_files.h"
#include "tools/upcycle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX ((size_t)4 << 20)
#define SHARED_WIDTH     8 /* of qwen2_moe's shared expert, all zeros */

static int config_load(struct upcycle *u)
{
    char path[4352], *text;
    size_t bytes;
    snprintf(path, sizeof(path), "%s/config.json", u->dense->dir);
    int rc = file_read(path, CONFIG_BYTES_MAX, &text, &bytes, u->err);
    if (rc)
        return rc;
    rc = json_parse_object(text, bytes, CONFIG_BYTES_MAX, path, &u->config, u->err);
    free(text);
    return rc;
}

static void set_int(json_t *root, const char *key, int64_t value)
{
    json_object_set_new(root, key, json_integer(value));
}

static void set_text(json_t *root, const char *key, const char *value)
{
    json_object_set_new(root, key, json_string(value));
}

static int absent(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);
    return !value || json_is_null(value);
}

/* defaults_write makes explicit what the dense family assumes. */
static void defaults_write(json_t *root, const struct model_desc *d)
{
    const struct family_defaults *family = &desc_family(d)->absent;
    set_int(root, "num_key_value_heads", d->n_kv_head);
    if (absent(root, "head_dim"))
        set_int(root, "head_dim", d->d_head);
    if (absent(root, "max_position_embeddings"))
        set_int(root, "max_position_embeddings", d->max_context);
    if (absent(root, "rms_norm_eps") && d->norm == NORM_RMS)
        json_object_set_new(root, "rms_norm_eps", json_real(family->norm_eps));
    if (absent(root, "rope_theta") && absent(root, "rope_parameters") && d->rope.d_rot > 0)
        json_object_set_new(root, "rope_theta", json_real(family->rope_theta));
    if (absent(root, "tie_word_embeddings"))
        json_object_set_new(root, "tie_word_embeddings", json_boolean(d->tied));
    if (!json_object_get(root, "bos_token_id") && d->bos >= 0)
        set_int(root, "bos_token_id", d->bos);
    if (!json_object_get(root, "eos_token_id") && d->n_eos > 0)
        set_int(root, "eos_token_id", d->eos[0]);
}

static void names_write(json_t *root, const char *model_type, const char *architecture)
{
    set_text(root, "model_type", model_type);
    json_object_set_new(root, "architectures", json_pack("[s]", architecture));
}

/* sparse_count: how many layers become sparse; the upper half and at most 8 unless told. */
static int sparse_count(struct upcycle *u, int *out)
{
    int n_layer = u->dense->desc.n_layer;
    if (u->n_sparse > n_layer)
        return err_set(u->err, ERR_USAGE, "--sparse-layers is %lld, but %s has only %d layers",
                       (long long)u->n_sparse, u->dense->dir, n_layer);
    int half = n_layer > 1 ? n_layer / 2 : 1;
    *out = u->n_sparse ? (int)u->n_sparse : half < 8 ? half : 8;
    return 0;
}

/* ---- domains -------------------------------------------------------------------------------- */

/* size_next: the next number of --domain-sizes, or --experts-per-domain when it is not given. */
static int size_next(struct upcycle *u, const char **at, const char *domain, int *out)
{
    *out = (int)u->per_domain;
    if (!u->sizes)
        return 0;
    char *end;
    long n = strtol(*at, &end, 10);
    if (end == *at || n < 1 || n > LIMIT_EXPERTS || (*end != ',' && *end != '\0'))
        return err_set(u->err, ERR_USAGE,
                       "--domain-sizes gives no number of experts in 1..%d for domain %s at "
                       "\"%.20s\"",
                       LIMIT_EXPERTS, domain, *at);
    *at = end + (*end == ',');
    *out = (int)n;
    return 0;
}

static int domains_write(struct upcycle *u, json_t *root)
{
    json_t *list = json_array();
    const char *sizes = u->sizes ? u->sizes : "";
    int rc = 0;
    json_object_set_new(root, "domains", list);
    for (const char *at = u->domains; rc == 0; at++) {
        char name[64], quoted[JSON_QUOTE];
        size_t n = strcspn(at, ",");
        snprintf(name, sizeof(name), "%.*s", (int)(n < sizeof(name) ? n : sizeof(name) - 1), at);
        int size, slot = u->own_embeddings ? (int)json_array_size(list) : 0;
        if (n == 0 || n > 31 || json_array_size(list) >= LIMIT_DOMAINS)
            return err_set(u->err, ERR_USAGE,
                           "--domains wants names of 1 to 31 letters, at most %d of them, "
                           "separated by commas; not \"%s\"",
                           LIMIT_DOMAINS, json_quote(at, quoted));
        rc = size_next(u, &sizes, name, &size);
        if (rc == 0)
            json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "name", name, "num_experts",
                                                  size, "embedding_slot", slot));
        at += n;
        if (*at == '\0')
            break;
    }
    if (rc == 0 && *sizes != '\0')
        rc = err_set(u->err, ERR_USAGE, "--domain-sizes has more numbers than --domains has names");
    return rc;
}

static int rre_write(struct upcycle *u, json_t *root, int n_sparse)
{
    const struct model_desc *d = &u->dense->desc;
    if (!u->domains)
        return err_set(u->err, ERR_USAGE,
                       "--domains is missing: the names of the groups, such as zh,en,code");
    if (u->n_expert)
        return err_set(u->err, ERR_USAGE,
                       "--experts is for a learned gate; here it is --experts-per-domain");
    hf_files_name(root);
    set_text(root, "block", d->block);
    set_int(root, "num_dense_layers", d->n_layer - n_sparse);
    set_int(root, "expert_intermediate_size", d->d_ff);
    set_int(root, "num_experts_per_tok", u->top_k ? u->top_k : 1);
    set_text(root, "routing_seed", u->seed);
    int rc = domains_write(u, root);
    if (rc)
        return rc;
    const json_t *list = json_object_get(root, "domains");
    set_int(root, "num_embedding_slots", u->own_embeddings ? (int64_t)json_array_size(list) : 1);
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "name"));
    set_text(root, "default_domain", u->default_domain ? u->default_domain : first);
    return 0;
}

/* ---- learned gates -------------------------------------------------------------------------- */

/* form_fits: each dense family has one form whose layers can hold all that its own layers do. */
static int form_fits(const struct upcycle *u, const char *family, int n_sparse)
{
    const struct model_desc *d = &u->dense->desc;
    if (u->domains || u->sizes || u->counts_path || u->own_embeddings || u->default_domain)
        return err_set(u->err, ERR_USAGE,
                       "--form %s routes by a learned gate: --domains, --domain-sizes, "
                       "--default-domain, --token-counts and --own-embeddings are for --form rre",
                       u->form);
    if (strcmp(d->family, family) != 0)
        return err_set(u->err, ERR_USAGE,
                       "--form %s holds a %s model, %s is a %s; llama becomes mixtral, qwen2 "
                       "qwen2_moe, qwen3 qwen3_moe, and any of them rre",
                       u->form, family, u->dense->dir, d->family);
    if (strcmp(u->form, "mixtral") == 0 && n_sparse != d->n_layer)
        return err_set(u->err, ERR_USAGE,
                       "all layers of a mixtral are sparse: --sparse-layers must be %d, or be left "
                       "out",
                       d->n_layer);
    return 0;
}

static void dense_layers_write(json_t *root, int n_dense)
{
    json_t *list = json_array();
    for (int i = 0; i < n_dense; i++)
        json_array_append_new(list, json_integer(i));
    json_object_set_new(root, "mlp_only_layers", list);
    set_int(root, "decoder_sparse_step", 1);
}

static int gated_write(struct upcycle *u, json_t *root, int n_sparse)
{
    const struct model_desc *d = &u->dense->desc;
    int64_t n_expert = u->n_expert ? u->n_expert : 8;
    int mixtral = strcmp(u->form, "mixtral") == 0, qwen2 = strcmp(u->form, "qwen2_moe") == 0;
    if (mixtral && u->n_sparse == 0)
        n_sparse = d->n_layer;
    int rc = form_fits(u, mixtral ? "llama" : qwen2 ? "qwen2" : "qwen3", n_sparse);
    if (rc)
        return rc;
    set_int(root, "num_experts_per_tok", u->top_k ? u->top_k : 2);
    set_int(root, mixtral ? "num_local_experts" : "num_experts", n_expert);
    names_write(root, u->form,
                mixtral ? "MixtralForCausalLM"
                : qwen2 ? "Qwen2MoeForCausalLM"
                        : "Qwen3MoeForCausalLM");
    if (mixtral) {
        json_object_set_new(root, "sliding_window", json_null());
        json_object_del(root, "attention_bias");
        json_object_del(root, "mlp_bias");
        return 0;
    }
    set_int(root, "moe_intermediate_size", d->d_ff);
    json_object_set_new(root, "norm_topk_prob", json_true());
    if (qwen2)
        set_int(root, "shared_expert_intermediate_size", SHARED_WIDTH);
    dense_layers_write(root, d->n_layer - n_sparse);
    return 0;
}

/* ---- all forms ------------------------------------------------------------------------------ */

static int same_layers(const struct model_desc *a, const struct model_desc *b)
{
    for (int i = 0; i < a->n_layer; i++)
        if (a->layer[i].window != b->layer[i].window)
            return 0;
    return 1;
}

/* function_same: whatever a dense layer computes with is what the new config says. */
static int function_same(const struct model_desc *a, const struct model_desc *b)
{
    const struct rope_params *r = &a->rope, *s = &b->rope;
    return a->n_layer == b->n_layer && a->d_model == b->d_model && a->n_head == b->n_head &&
           a->n_kv_head == b->n_kv_head && a->d_head == b->d_head && a->vocab == b->vocab &&
           a->max_context == b->max_context && a->norm == b->norm && a->norm_eps == b->norm_eps &&
           a->qk_norm == b->qk_norm && a->qkv_bias == b->qkv_bias && a->o_bias == b->o_bias &&
           a->mlp_bias == b->expert_bias && a->attn_scale == b->attn_scale && a->act == b->act &&
           a->tied == b->tied && a->ffn_plain == b->ffn_plain && a->d_ff == b->d_ff_expert &&
           r->d_rot == s->d_rot && r->theta == s->theta && r->scaling == s->scaling &&
           r->factor == s->factor && same_layers(a, b);
}

int upcycle_config(struct upcycle *u)
{
    int n_sparse, rc = config_load(u);
    if (rc == 0)
        rc = sparse_count(u, &n_sparse);
    if (rc)
        return rc;
    defaults_write(u->config, &u->dense->desc);
    if (strcmp(u->form, "rre") == 0)
        rc = rre_write(u, u->config, n_sparse);
    else
        rc = gated_write(u, u->config, n_sparse);
    if (rc)
        return rc;
    char *text = json_dumps(u->config, JSON_REAL_PRECISION(15));
    if (!text)
        return err_set(u->err, ERR_NOMEM, "no memory for the config of %s", u->out);
    rc = desc_from_config(text, strlen(text), "the new config.json", &u->desc, u->err);
    free(text);
    if (rc == 0 && !function_same(&u->dense->desc, &u->desc))
        rc = err_set(u->err, ERR_USAGE,
                     "%s computes something that --form %s has no words for (biases, positions or "
                     "a window); use --form rre",
                     u->dense->dir, u->form);
    return rc;
}
