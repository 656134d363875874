/* mixtral: every layer sparse, the chosen experts' softmax weights always divided by their sum. Its
 * experts have names of their own: w1 is the gate, w3 up, w2 down. A sliding window, where given,
 * holds in all layers. */
#include "model/families/families.h"

#define BLOCK LAYER "block_sparse_moe."

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    int window;
    int rc = config_int_or(config, "sliding_window", 0, 1, LIMIT_CONTEXT, &window, err);
    if (rc)
        return rc;
    family_window_all(desc, window);
    desc->gate_normalise = 1;
    return family_experts(desc, config, "num_local_experts", "intermediate_size", err);
}

const struct model_family family_mixtral = {
    .model_type = "mixtral",
    .absent = {.n_kv_head = 8,
               .max_context = 131072,
               .norm_eps = 1e-5,
               .rope_theta = 1e6,
               .bos = 1,
               .eos = 2},
    .name = {NAMES_DECODER, [ROLE_ROUTER] = BLOCK "gate.weight",
             [ROLE_EXPERT_GATE] = BLOCK "experts.%d.w1.weight",
             [ROLE_EXPERT_UP] = BLOCK "experts.%d.w3.weight",
             [ROLE_EXPERT_DOWN] = BLOCK "experts.%d.w2.weight"},
    .configure = configure,
};
