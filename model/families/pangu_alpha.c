/* pangu_alpha: dense; LayerNorm before each half, biases everywhere, positions learned and added to
 * the embedding, FFNs of two matrices. The last layer is a query layer: it reads the stream behind
 * the final norm, and its queries are projected from an embedding of the position alone, past its
 * own first norm. Read from the public ports (MindSpore's pangu_alpha, and its PyTorch ports),
 * whose wpe, wqe, ln_f, ln_1 and ln_2 are our embed_positions, query_positions, norm,
 * input_layernorm and post_attention_layernorm. */
#include "model/families/families.h"

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    double eps = 0;
    int rc = config_real_or(config, "layer_norm_eps", 1e-5, 0, 1, &eps, err);
    if (rc == 0)
        rc = config_bool_or(config, "query_layer", 1, &desc->query_layer, err);
    desc->norm = NORM_LAYER;
    desc->norm_eps = (float)eps;
    desc->qkv_bias = desc->o_bias = desc->mlp_bias = 1;
    desc->ffn_plain = 1;
    desc->learned_pos = 1;
    desc->rope = (struct rope_params){0};
    return rc;
}

const struct model_family family_pangu_alpha = {
    .model_type = "pangu_alpha",
    .absent = {.max_context = 1024,
               .norm_eps = 1e-5,
               .rope_theta = 1e4,
               .bos = -1,
               .eos = -1,
               .act = "gelu_pytorch_tanh",
               .tied = 1},
    .name = {NAMES_DECODER, NAMES_DENSE_FFN, NAMES_PANGU_ALPHA},
    .configure = configure,
};
