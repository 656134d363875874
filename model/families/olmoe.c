/* olmoe: every layer sparse; q and k normalised over their whole width before they are cut into
 * heads; softmax weights of the chosen experts left as they are unless norm_topk_prob says
 * otherwise. */
#include "model/families/families.h"

static int configure(struct model_desc *desc, const struct config *config, struct err *err)
{
    if (config_has(config, "clip_qkv"))
        return err_set(err, ERR_MODEL,
                       "%s: \"clip_qkv\" is set; clamped q, k and v are not computed here",
                       config->path);
    if (desc->n_head * desc->d_head != desc->d_model)
        return err_set(err, ERR_MODEL,
                       "%s: %d heads of %d do not make up the hidden size %d, as olmoe requires",
                       config->path, desc->n_head, desc->d_head, desc->d_model);
    desc->qk_norm = QK_NORM_FULL;
    int rc = family_attention_bias(desc, config, err);
    if (rc == 0)
        rc = config_bool_or(config, "norm_topk_prob", 0, &desc->gate_normalise, err);
    return rc ? rc : family_experts(desc, config, "num_experts", "intermediate_size", err);
}

const struct model_family family_olmoe = {
    .model_type = "olmoe",
    .absent = {.max_context = 4096, .norm_eps = 1e-5, .rope_theta = 1e4, .bos = -1, .eos = 50279},
    .name = {NAMES_DECODER, NAMES_QK_NORM, NAMES_EXPERTS},
    .configure = configure,
};
