/* llama: dense, grouped queries, RMSNorm, SwiGLU. Biases only where the config asks for them. */
#include "model/families/families.h"

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    int rc = family_attention_bias(desc, config, err);
    return rc ? rc : config_bool_or(config, "mlp_bias", 0, &desc->mlp_bias, err);
}

const struct model_family family_llama = {
    .model_type = "llama",
    .absent = {.max_context = 2048, .norm_eps = 1e-6, .rope_theta = 1e4, .bos = 1, .eos = 2},
    .name = {NAMES_DECODER, NAMES_DENSE_FFN},
    .configure = configure,
};
