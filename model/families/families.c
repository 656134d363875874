/* families: readers for keys that several families mean alike; see families.h. */
#include "model/families/families.h"
#include "model/json.h"

#include <string.h>

int family_attention_bias(struct model_desc *desc, const struct config *config, struct err *err)
{
    int rc = config_bool_or(config, "attention_bias", 0, &desc->qkv_bias, err);
    desc->o_bias = desc->qkv_bias;
    return rc;
}

int family_experts(struct model_desc *desc, const struct config *config, const char *n_key,
                   const char *d_ff_key, struct err *err)
{
    int rc = config_int(config, n_key, 0, LIMIT_EXPERTS, &desc->n_expert, err);
    if (rc || desc->n_expert == 0)
        return rc;
    rc = config_int(config, "num_experts_per_tok", 1, LIMIT_TOP_K, &desc->top_k, err);
    if (rc)
        return rc;
    if (desc->top_k > desc->n_expert)
        return err_set(err, ERR_MODEL, "%s: \"num_experts_per_tok\" is %d, but \"%s\" is only %d",
                       config->path, desc->top_k, n_key, desc->n_expert);
    desc->gate = GATE_SOFTMAX_TOPK;
    for (int i = 0; i < desc->n_layer; i++)
        desc->layer[i].sparse = 1;
    return config_int(config, d_ff_key, 1, LIMIT_D_FF, &desc->d_ff_expert, err);
}

int family_sparse_step(struct model_desc *desc, const struct config *config, struct err *err)
{
    int step, n_dense = LIMIT_LAYERS;
    int32_t dense[LIMIT_LAYERS];
    int rc = config_int_or(config, "decoder_sparse_step", 1, 1, LIMIT_LAYERS, &step, err);
    if (rc == 0)
        rc = config_ints(config, "mlp_only_layers", 0, LIMIT_LAYERS - 1, dense, &n_dense, err);
    if (rc)
        return rc;
    for (int i = 0; i < desc->n_layer; i++)
        desc->layer[i].sparse = desc->n_expert > 0 && (i + 1) % step == 0;
    for (int i = 0; i < n_dense; i++)
        if (dense[i] < desc->n_layer)
            desc->layer[dense[i]].sparse = 0;
    return 0;
}

void family_window_all(struct model_desc *desc, int window)
{
    for (int i = 0; i < desc->n_layer; i++)
        desc->layer[i].window = window;
}

int family_window_used(const struct config *config, int *window, struct err *err)
{
    int used, size = 0;
    int rc = config_bool_or(config, "use_sliding_window", 0, &used, err);
    if (rc)
        return rc;
    /* A null window is none; an absent one is the class default. */
    int absent = json_object_get(config->root, "sliding_window") ? 0 : 4096;
    if (used)
        rc = config_int_or(config, "sliding_window", absent, 1, LIMIT_CONTEXT, &size, err);
    if (rc == 0)
        *window = size;
    return rc;
}

int family_window_from(struct model_desc *desc, const struct config *config, int window,
                       struct err *err)
{
    int first;
    int rc = config_int_or(config, "max_window_layers", 28, 0, LIMIT_LAYERS, &first, err);
    if (rc)
        return rc;
    for (int i = 0; i < desc->n_layer; i++)
        desc->layer[i].window = i >= first ? window : 0;
    return 0;
}

/* layer_type_window: the window of a layer of the named type; negative when we do not compute it.
 */
static int layer_type_window(const char *type, int window)
{
    if (strcmp(type, "full_attention") == 0)
        return 0;
    return strcmp(type, "sliding_attention") == 0 && window > 0 ? window : -1;
}

int family_layer_types(struct model_desc *desc, const struct config *config, int window,
                       struct err *err)
{
    const json_t *types;
    int rc = config_strings(config, "layer_types", &types, err);
    if (rc || !types)
        return rc;
    if (json_array_size(types) != (size_t)desc->n_layer)
        return err_set(err, ERR_MODEL, "%s: \"layer_types\" has %zu entries for %d layers",
                       config->path, json_array_size(types), desc->n_layer);
    for (int i = 0; i < desc->n_layer; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        char quoted[JSON_QUOTE];
        desc->layer[i].window = layer_type_window(type, window);
        if (desc->layer[i].window < 0)
            return err_set(err, ERR_MODEL, "%s: \"layer_types\" wants \"%s\" in layer %d%s",
                           config->path, json_quote(type, quoted), i,
                           strcmp(type, "sliding_attention") == 0
                               ? ", but no sliding window is in use"
                               : "; only full_attention and sliding_attention are computed");
    }
    return 0;
}
