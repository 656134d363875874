/* families: what the family files share: the names that nearly all decoders have, and readers for
 * the keys that several families mean alike. A family file is then a page: its names, its defaults,
 * and what is particular about it. Source of every default and rule: transformers 4.57.1,
 * src/transformers/models/NAME/{configuration,modeling}_NAME.py. */
#ifndef MODEL_FAMILIES_H
#define MODEL_FAMILIES_H

#include "model/config.h"
#include "model/desc.h"

extern const struct model_family family_llama, family_qwen2, family_qwen3, family_mixtral,
    family_olmoe, family_qwen2_moe, family_qwen3_moe, family_pangu_alpha, family_pangu_sigma;

#define LAYER "model.layers.%d."

/* clang-format off */
#define NAMES_DECODER                                                                              \
    [ROLE_EMBED] = "model.embed_tokens.weight",                                                    \
    [ROLE_FINAL_NORM] = "model.norm.weight",                                                       \
    [ROLE_LM_HEAD] = "lm_head.weight",                                                             \
    [ROLE_ATTN_NORM] = LAYER "input_layernorm.weight",                                             \
    [ROLE_FFN_NORM] = LAYER "post_attention_layernorm.weight",                                     \
    [ROLE_Q] = LAYER "self_attn.q_proj.weight",                                                    \
    [ROLE_K] = LAYER "self_attn.k_proj.weight",                                                    \
    [ROLE_V] = LAYER "self_attn.v_proj.weight",                                                    \
    [ROLE_O] = LAYER "self_attn.o_proj.weight",                                                    \
    [ROLE_Q_BIAS] = LAYER "self_attn.q_proj.bias",                                                 \
    [ROLE_K_BIAS] = LAYER "self_attn.k_proj.bias",                                                 \
    [ROLE_V_BIAS] = LAYER "self_attn.v_proj.bias",                                                 \
    [ROLE_O_BIAS] = LAYER "self_attn.o_proj.bias"

#define NAMES_QK_NORM                                                                              \
    [ROLE_Q_NORM] = LAYER "self_attn.q_norm.weight",                                               \
    [ROLE_K_NORM] = LAYER "self_attn.k_norm.weight"

#define NAMES_DENSE_FFN                                                                            \
    [ROLE_GATE_PROJ] = LAYER "mlp.gate_proj.weight",                                               \
    [ROLE_UP_PROJ] = LAYER "mlp.up_proj.weight",                                                   \
    [ROLE_DOWN_PROJ] = LAYER "mlp.down_proj.weight",                                               \
    [ROLE_GATE_PROJ_BIAS] = LAYER "mlp.gate_proj.bias",                                            \
    [ROLE_UP_PROJ_BIAS] = LAYER "mlp.up_proj.bias",                                                \
    [ROLE_DOWN_PROJ_BIAS] = LAYER "mlp.down_proj.bias"

/* LayerNorm's biases, and what stands for rotation: learned embeddings of the position. */
#define NAMES_PANGU_ALPHA                                                                          \
    [ROLE_FINAL_NORM_BIAS] = "model.norm.bias",                                                    \
    [ROLE_ATTN_NORM_BIAS] = LAYER "input_layernorm.bias",                                          \
    [ROLE_FFN_NORM_BIAS] = LAYER "post_attention_layernorm.bias",                                  \
    [ROLE_POS_EMBED] = "model.embed_positions.weight",                                             \
    [ROLE_QUERY_EMBED] = "model.query_positions.weight"

#define NAMES_EXPERTS                                                                              \
    [ROLE_ROUTER] = LAYER "mlp.gate.weight",                                                       \
    [ROLE_EXPERT_GATE] = LAYER "mlp.experts.%d.gate_proj.weight",                                  \
    [ROLE_EXPERT_UP] = LAYER "mlp.experts.%d.up_proj.weight",                                      \
    [ROLE_EXPERT_DOWN] = LAYER "mlp.experts.%d.down_proj.weight"

#define NAMES_ROUTED_EXPERTS                                                                       \
    [ROLE_ROUTING_TABLE] = LAYER "mlp.routing_table",                                              \
    [ROLE_EXPERT_GATE] = LAYER "mlp.experts.%d.gate_proj.weight",                                  \
    [ROLE_EXPERT_UP] = LAYER "mlp.experts.%d.up_proj.weight",                                      \
    [ROLE_EXPERT_DOWN] = LAYER "mlp.experts.%d.down_proj.weight",                                  \
    [ROLE_EXPERT_GATE_BIAS] = LAYER "mlp.experts.%d.gate_proj.bias",                               \
    [ROLE_EXPERT_UP_BIAS] = LAYER "mlp.experts.%d.up_proj.bias",                                   \
    [ROLE_EXPERT_DOWN_BIAS] = LAYER "mlp.experts.%d.down_proj.bias"
/* clang-format on */

/* family_attention_bias: "attention_bias" (default false) puts biases on q, k, v and o. */
int family_attention_bias(struct model_desc *desc, const struct config *config, struct err *err);
/* family_experts: expert count under `n_key`, width under `d_ff_key`, "num_experts_per_tok";
 * softmax, then top-k; every layer sparse. No experts (0): a dense model. */
int family_experts(struct model_desc *desc, const struct config *config, const char *n_key,
                   const char *d_ff_key, struct err *err);
/* family_sparse_step: layer i is sparse unless "mlp_only_layers" names it or i + 1 is no multiple
 * of "decoder_sparse_step". */
int family_sparse_step(struct model_desc *desc, const struct config *config, struct err *err);
/* family_window_all: every layer attends to the last `window` positions; 0: to all. */
void family_window_all(struct model_desc *desc, int window);
/* family_window_used: "sliding_window" (default 4096) where "use_sliding_window" is true, else 0.
 */
int family_window_used(const struct config *config, int *window, struct err *err);
/* family_window_from: the window holds from layer "max_window_layers" (default 28) upward. */
int family_window_from(struct model_desc *desc, const struct config *config, int window,
                       struct err *err);
/* family_layer_types: "layer_types", where there, says for each layer whether the window holds. */
int family_layer_types(struct model_desc *desc, const struct config *config, int window,
                       struct err *err);

#endif
