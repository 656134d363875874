/* qwen3: dense, q and k normalised head by head before rotation, head width a value of its own. */
#include "model/families/families.h"

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    int window;
    desc->qk_norm = QK_NORM_HEAD;
    int rc = family_attention_bias(desc, config, err);
    if (rc == 0)
        rc = family_window_used(config, &window, err);
    if (rc == 0)
        rc = family_window_from(desc, config, window, err);
    return rc ? rc : family_layer_types(desc, config, window, err);
}

const struct model_family family_qwen3 = {
    .model_type = "qwen3",
    .absent = {.n_kv_head = 32,
               .d_head = 128,
               .max_context = 32768,
               .norm_eps = 1e-6,
               .rope_theta = 1e4,
               .bos = -1,
               .eos = -1},
    .name = {NAMES_DECODER, NAMES_QK_NORM, NAMES_DENSE_FFN},
    .configure = configure,
};
