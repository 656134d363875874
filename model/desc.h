/* desc: an architecture is a description. config.json becomes this plain struct of
 * hyper-parameters; one generic forward pass (coordinator/forward.c) reads it. Everything in it has
 * been checked against base/limits.h and for consistency: code behind it needs no checks of its
 * own. */
#ifndef MODEL_DESC_H
#define MODEL_DESC_H

#include "base/dtype.h"
#include "base/err.h"
#include "base/limits.h"
#include "kernels/kernels.h"
#include <stdint.h>

enum norm_kind { NORM_RMS, NORM_LAYER };

/* How q and k are normalised before rotation. */
enum qk_norm_kind {
    QK_NORM_NONE,
    QK_NORM_HEAD /* [d_head] each head */,
    QK_NORM_FULL /* [n_head*d_head] */
};

/* How logits become slots; router/gate.h computes them. */
enum gate_kind {
    GATE_SOFTMAX_TOPK, /* p = softmax(z); T = topk(p); w = p_T, normalised if gate_normalise */
    GATE_TOPK_SOFTMAX, /* T = topk(z); w = softmax(z_T) */
    GATE_SIGMOID,      /* s = sigmoid(z); T = topk(s + bias) within the best groups; w = s_T */
    GATE_TABLE         /* T = table[domain, token id]; w = 1 / top_k */
};

/* quant_kind: how a class of matrices is stored: integers of dtype (I8, I4) with a scale for each
 * group of k; dtype NONE: floats. */
struct quant_kind {
    enum dtype dtype;
    int group;
};

#define QUANT_CONFIG_MAX 8

/* One layer. */
struct layer_desc {
    int sparse; /* experts (1) or one dense FFN (0) */
    int window; /* sliding window in positions, 0: full attention */
};

/* A domain of a model routed by Random Routed Experts (docs/PANGU_SIGMA.md): it owns experts
 * [first, first + n_expert) of every sparse layer and reads embedding table `slot`. Domains stand
 * in the order of config.json, groups one behind the other. */
struct domain_desc {
    char name[32]; /* [a-z0-9][a-z0-9_-]{0,30}, unique, never "auto" */
    int32_t first, n_expert, slot;
};

/* A request's domain when nobody named one: found out from its prompt. */
#define DOMAIN_AUTO (-1)

/* A plain value of 50 KB (most of it the domains): copy it freely, but not for every row. */
struct model_desc {
    char family[32];   /* "qwen3_moe" */
    const char *block; /* static: the family whose block the layers have; = family unless the model
                        * is a pangu_sigma, then "llama", "qwen2", "qwen3" or "pangu_alpha" */
    int n_layer, d_model, n_head, n_kv_head, d_head, vocab, max_context;
    struct layer_desc layer[LIMIT_LAYERS];

    enum norm_kind norm;
    float norm_eps;
    enum qk_norm_kind qk_norm;
    int qkv_bias, o_bias, mlp_bias;
    float attn_scale; /* on q k^T */
    float attn_softcap;
    int attn_sinks;
    struct rope_params rope; /* d_rot 0: no rotation */
    int learned_pos;         /* ROLE_POS_EMBED of its position is added to a token's embedding */
    int query_layer; /* the last layer's queries come from ROLE_QUERY_EMBED of the position; the
                      * final norm stands before that layer and nothing is normed behind it */

    enum act act;
    float act_alpha, act_limit;
    int ffn_plain; /* FFNs and experts of two matrices, down(act(up x)); 0: of three */
    int d_ff;      /* of dense layers; 0 when there is none */

    int n_expert, top_k; /* 0 for a dense model */
    int d_ff_expert;
    int expert_bias;  /* experts have biases, as mlp_bias says of dense FFNs */
    int d_ff_shared;  /* shared expert(s) as one FFN; 0: none */
    int shared_gated; /* times sigmoid(g . x) */
    enum gate_kind gate;
    int gate_normalise; /* divide slot weights by their sum */
    int gate_bias;      /* a selection bias tensor exists */
    int n_group, topk_group;
    float gate_scale; /* routed_scaling_factor, on the slot weights; 1 */

    /* Random Routed Experts; n_domain 0: the model has no domains. */
    int n_domain, default_domain;
    int n_slot; /* embedding tables (and LM heads) of `vocab` rows, stacked; 1 without domains */
    struct domain_desc domain[LIMIT_DOMAINS];

    int tied; /* LM head = embedding */
    int32_t bos, eos[8];
    int n_eos;
    /* Of experts; of attention, dense FFNs and shared experts; of the LM head. Filled by
     * model_open, which looks at the tensors. */
    struct quant_kind quant_expert, quant_dense, quant_head;
    struct quant_kind quant_config[QUANT_CONFIG_MAX]; /* those that config.json names */
    int n_quant_config;
    enum dtype stored; /* torch_dtype of the config, the tensors decide */
};

/* desc_from_config reads config.json text (bytes long) of any family in model/families. The family
 * is found by model_type. Unknown scalings, absurd sizes, missing keys: ERR_MODEL, in words, naming
 * `path`. `path` is used in messages only. */
int desc_from_config(const char *text, size_t bytes, const char *path, struct model_desc *desc,
                     struct err *err);
/* desc_load: the same from DIR/config.json (and bos/eos from DIR/generation_config.json if there).
 */
int desc_load(const char *dir, struct model_desc *desc, struct err *err);

/* desc_domain_find: the index of a domain; ERR_USAGE when there is none of that name, with the
 * nearest and the list, or when the model has no domains. desc_domain_read: the same of what a user
 * writes, where "auto" is DOMAIN_AUTO. */
int desc_domain_find(const struct model_desc *desc, const char *name, struct err *err);
int desc_domain_read(const struct model_desc *desc, const char *text, int *domain, struct err *err);
/* desc_expert_domain: whose expert it is; -1 without domains. */
int desc_expert_domain(const struct model_desc *desc, int expert);

/* Roles of tensors. A family names each (printf patterns with the layer, then the expert). */
enum role {
    ROLE_EMBED,
    ROLE_FINAL_NORM,
    ROLE_FINAL_NORM_BIAS,
    ROLE_POS_EMBED,
    ROLE_QUERY_EMBED,
    ROLE_LM_HEAD,
    ROLE_ATTN_NORM,
    ROLE_ATTN_NORM_BIAS,
    ROLE_FFN_NORM,
    ROLE_FFN_NORM_BIAS,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_O,
    ROLE_Q_BIAS,
    ROLE_K_BIAS,
    ROLE_V_BIAS,
    ROLE_O_BIAS,
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_SINKS,
    ROLE_GATE_PROJ,
    ROLE_UP_PROJ,
    ROLE_DOWN_PROJ,
    ROLE_GATE_PROJ_BIAS,
    ROLE_UP_PROJ_BIAS,
    ROLE_DOWN_PROJ_BIAS,
    ROLE_ROUTER,
    ROLE_ROUTER_BIAS,
    ROLE_ROUTING_TABLE,
    ROLE_EXPERT_GATE,
    ROLE_EXPERT_UP,
    ROLE_EXPERT_DOWN,
    ROLE_EXPERT_GATE_BIAS,
    ROLE_EXPERT_UP_BIAS,
    ROLE_EXPERT_DOWN_BIAS,
    ROLE_SHARED_GATE,
    ROLE_SHARED_UP,
    ROLE_SHARED_DOWN,
    ROLE_SHARED_ROUTER,
    ROLE_COUNT
};
/* role_is_global: one tensor a model, not one a layer; role_is_expert: one for each expert of a
 * layer; role_is_table: integers (U16), not weights. */
int role_is_global(enum role role);
int role_is_expert(enum role role);
int role_is_table(enum role role);

struct config; /* model/config.h: typed, checked access to config.json */

/* What transformers assumes for a key that config.json leaves out (the family's Config class).
 * Sizes that only a guess could supply have no default here: they must be in the file. */
struct family_defaults {
    int n_kv_head; /* 0: n_head */
    int d_head;    /* 0: d_model / n_head */
    int max_context;
    double norm_eps, rope_theta;
    int bos, eos;    /* -1: none */
    const char *act; /* NULL: "silu" */
    int tied;
};

/* A family: the file model/families/NAME.c holds one of these. */
struct model_family {
    const char *model_type; /* "olmoe" */
    struct family_defaults absent;
    const char *name[ROLE_COUNT]; /* "model.layers.%d.self_attn.q_proj.weight"; NULL: has none */
    /* The families whose block this one may have, named by "block" (the first by default); NULL:
     * the block is its own. Defaults of absent keys are the block's. */
    const struct model_family *const *block;
    /* configure fills what is particular from the parsed config (see model/config.h) after the
     * common fields are read, and the block's configure has run. */
    int (*configure)(struct model_desc *desc, const struct config *config, struct err *err);
};

/* desc_family returns the family of a description (never NULL for one that was read). */
const struct model_family *desc_family(const struct model_desc *desc);
/* desc_tensor_name writes the name of a tensor; returns 0, or -1 when the family has no such role.
 */
int desc_tensor_name(const struct model_desc *desc, enum role role, int layer, int expert,
                     char *out, size_t size);
/* desc_tensor_shape: rows and columns (1-D tensors: cols 0) that the tensor must have. 0, or -1
 * when this model has no such tensor in that layer. A routing table has n_domain rows of vocab *
 * top_k. */
int desc_tensor_shape(const struct model_desc *desc, enum role role, int layer, int *rows,
                      int *cols);
/* desc_tensor_dims: the dimensions as the file has them (a routing table of top_k > 1 has three);
 * returns how many, or -1. */
int desc_tensor_dims(const struct model_desc *desc, enum role role, int layer,
                     uint64_t dim[LIMIT_ST_DIMS]);
/* desc_each_tensor calls fn for every tensor the model has, in the order in which we write them:
 * the embedding, layer by layer (an expert's side by side), the final norm, the LM head.
 * Stops at the first result that is not 0 and returns it. */
typedef int desc_tensor_fn(void *arg, enum role role, int layer, int expert);
int desc_each_tensor(const struct model_desc *desc, desc_tensor_fn *fn, void *arg);
/* Parameters of one expert, and of everything but experts (a tied LM head counts once; a routing
 * table has none). */
uint64_t desc_expert_params(const struct model_desc *desc);
uint64_t desc_dense_params(const struct model_desc *desc);
int desc_n_sparse(const struct model_desc *desc);

#endif
