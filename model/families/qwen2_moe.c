/* qwen2_moe: sparse layers with a shared expert beside the routed ones, its output times
 * sigmoid(g . x); some layers may be dense. Biases on q, k and v.
 * The window holds from max_window_layers upward, as the config's documentation and the flash path
 * of transformers have it (its eager path masks all layers alike). */
#include "model/families/families.h"

#define SHARED LAYER "mlp.shared_expert."

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    int window;
    int rc = config_bool_or(config, "qkv_bias", 1, &desc->qkv_bias, err);
    if (rc == 0)
        rc = family_window_used(config, &window, err);
    if (rc == 0)
        rc = family_window_from(desc, config, window, err);
    if (rc == 0)
        rc = config_bool_or(config, "norm_topk_prob", 0, &desc->gate_normalise, err);
    if (rc == 0)
        rc = family_experts(desc, config, "num_experts", "moe_intermediate_size", err);
    if (rc == 0)
        rc = family_sparse_step(desc, config, err);
    desc->shared_gated = 1;
    return rc ? rc
              : config_int(config, "shared_expert_intermediate_size", 1, LIMIT_D_FF,
                           &desc->d_ff_shared, err);
}

const struct model_family family_qwen2_moe = {
    .model_type = "qwen2_moe",
    .absent = {.n_kv_head = 16,
               .max_context = 32768,
               .norm_eps = 1e-6,
               .rope_theta = 1e4,
               .bos = -1,
               .eos = -1},
    .name =
        {NAMES_DECODER, NAMES_DENSE_FFN,
         NAMES_EXPERTS, [ROLE_SHARED_GATE] = SHARED "gate_proj.weight",
         [ROLE_SHARED_UP] = SHARED "up_proj.weight", [ROLE_SHARED_DOWN] = SHARED "down_proj.weight",
         [ROLE_SHARED_ROUTER] = LAYER "mlp.shared_expert_gate.weight"},
    .configure = configure,
};
