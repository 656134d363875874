/* pangu_sigma: layers of any dense block, the upper ones sparse by Random Routed Experts: a table
 * of (domain, token id) instead of a learned gate; docs/PANGU_SIGMA.md. */
#include "model/domains.h"
#include "model/families/families.h"

static int sparse_read(struct model_desc *desc, const struct config *config, struct err *err)
{
    int n_dense = 0;
    int rc = config_int(config, "num_dense_layers", 0, desc->n_layer, &n_dense, err);
    if (rc == 0 && n_dense == desc->n_layer)
        return err_set(
            err, ERR_MODEL,
            "%s: \"num_dense_layers\" is %d of %d layers; a model without a sparse layer "
            "is a %s",
            config->path, n_dense, desc->n_layer, desc->block);
    for (int i = 0; i < desc->n_layer; i++)
        desc->layer[i].sparse = i >= n_dense;
    if (rc == 0)
        rc = config_int_or(config, "num_experts_per_tok", 1, 1, LIMIT_TOP_K, &desc->top_k, err);
    if (rc == 0 && !config_has(config, "expert_intermediate_size"))
        return config_int(config, "intermediate_size", 1, LIMIT_D_FF, &desc->d_ff_expert, err);
    return rc ? rc
              : config_int(config, "expert_intermediate_size", 1, LIMIT_D_FF, &desc->d_ff_expert,
                           err);
}

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    desc->gate = GATE_TABLE;
    desc->expert_bias = desc->mlp_bias;
    int rc = sparse_read(desc, config, err);
    return rc ? rc : domains_read(desc, config, err);
}

static const struct model_family *const blocks[] = {&family_llama, &family_qwen2, &family_qwen3,
                                                    &family_pangu_alpha, NULL};

const struct model_family family_pangu_sigma = {
    .model_type = "pangu_sigma",
    .block = blocks,
    .name = {NAMES_DECODER, NAMES_QK_NORM, NAMES_DENSE_FFN, NAMES_PANGU_ALPHA,
             NAMES_ROUTED_EXPERTS},
    .configure = configure,
};
