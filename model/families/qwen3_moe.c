/* qwen3_moe: qwen3's attention with routed experts and no shared one; some layers may be dense. A
 * window, where used, holds in all layers: this family has no max_window_layers. */
#include "model/families/families.h"

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    int window;
    desc->qk_norm = QK_NORM_HEAD;
    int rc = family_attention_bias(desc, config, err);
    if (rc == 0)
        rc = family_window_used(config, &window, err);
    if (rc)
        return rc;
    family_window_all(desc, window);
    rc = config_bool_or(config, "norm_topk_prob", 0, &desc->gate_normalise, err);
    if (rc == 0)
        rc = family_experts(desc, config, "num_experts", "moe_intermediate_size", err);
    return rc ? rc : family_sparse_step(desc, config, err);
}

const struct model_family family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .absent = {.n_kv_head = 4,
               .max_context = 32768,
               .norm_eps = 1e-6,
               .rope_theta = 1e4,
               .bos = -1,
               .eos = -1},
    .name = {NAMES_DECODER, NAMES_QK_NORM, NAMES_DENSE_FFN, NAMES_EXPERTS},
    .configure = configure,
};
