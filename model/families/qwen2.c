/* qwen2: dense Llama with biases on q, k and v (not on o), and a sliding window in the upper layers
 * where the config switches it on. */
#include "model/families/families.h"

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    int window;
    desc->qkv_bias = 1;
    int rc = family_window_used(config, &window, err);
    if (rc == 0)
        rc = family_window_from(desc, config, window, err);
    return rc ? rc : family_layer_types(desc, config, window, err);
}

const struct model_family family_qwen2 = {
    .model_type = "qwen2",
    .absent = {.n_kv_head = 32,
               .max_context = 32768,
               .norm_eps = 1e-6,
               .rope_theta = 1e4,
               .bos = -1,
               .eos = -1},
    .name = {NAMES_DECODER, NAMES_DENSE_FFN},
    .configure = configure,
};
