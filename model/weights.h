/* weights: tensors of a checkpoint packed for the kernels. Two halves that never meet in one
 * process unless it does both jobs: the dense weights (coordinator) and a set of experts (worker).
 * Packing reads the mapping once, tensor by tensor, and lets the pages go. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "base/err.h"
#include "base/hash.h"
#include "base/report.h"
#include "base/team.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/desc.h"

/* precision of a run: what matmul weights and inputs, KV cache and wire are. */
enum precision { PRECISION_BF16, PRECISION_F32 };
static inline enum dtype precision_dtype(enum precision p)
{
    return p == PRECISION_F32 ? DTYPE_F32 : DTYPE_BF16;
}

/* activations: what rows are where they meet weights that are integers (kernels/kernels.h): made
 * integers too, or bf16 as they come. Nothing else depends on it: floats' products, wire, files. */
enum activations { ACTIVATIONS_INT8, ACTIVATIONS_BF16 };
int activations_parse(const char *text, enum activations *out, struct err *err);

/* A checkpoint opened: what both halves start from. */
struct model {
    char dir[4096];
    struct model_desc desc;
    struct checkpoint *ck;
    struct hash128 fingerprint;
    char packed_dir[4096 + 64];   /* see model_packed_cache; "": none */
    enum activations activations; /* for what is loaded afterwards; int8 until it is set */
};
/* model_open: desc_load, checkpoint_open, every tensor the description needs is there with the
 * right shape (by name only: no data is read), fingerprint. */
int model_open(const char *dir, struct model **out, struct err *err);
/* model_open_dense: the same, but tensors of experts may be missing; the fingerprint is then zero,
 * for it covers them. What computes such an expert says that its tensor is missing. */
int model_open_dense(const char *dir, struct model **out, struct err *err);
void model_close(struct model *model);
/* model_packed_cache: where packed weights are kept between runs, so that the next start maps them:
 * "off"; "auto", the folder `packed` in the checkpoint's; or a folder, in which every model gets
 * one of its own. For what is loaded afterwards. */
int model_packed_cache(struct model *model, const char *where, struct err *err);
/* model_int_rows: does a run of this precision make rows integers? model_activations: what rows are
 * where they meet the weights: "int8", "bf16" or "f32". */
int model_int_rows(const struct model *model, enum precision precision);
const char *model_activations(const struct model *model, enum precision precision);
/* model_numerics: the class of bits of a run: the kernels' and, where rows are made integers,
 * "+int8". numerics_activations: which of both a class in bf16 is; a process that differs in it was
 * started with another --activations. */
#define NUMERICS_BYTES 32
const char *model_numerics(const struct model *model, enum precision precision,
                           const struct kernels *k, char text[NUMERICS_BYTES]);
const char *numerics_activations(const char *numerics);
/* model_check_tables reads the routing tables: ERR_MODEL for what no draw could have made
 * (model/rre_table.h). weights_load_dense does it too; this is for who wants to know before. */
int model_check_tables(const struct model *model, struct err *err);

struct layer_weights {
    const float *attn_norm, *attn_norm_bias, *ffn_norm, *ffn_norm_bias; /* [d_model] */
    struct packed qkv;     /* [(n_head + 2 n_kv_head) * d_head, d_model], q then k then v */
    const float *qkv_bias; /* or NULL */
    struct packed q;       /* of a query layer: [n_head * d_head, d_model]; qkv is then k and v */
    const float *q_bias;
    struct packed o; /* [d_model, n_head * d_head] */
    const float *o_bias;
    const float *q_norm, *k_norm; /* see qk_norm_kind */
    const float *sinks;           /* [n_head] */
    struct ffn_weights dense;     /* when the layer is dense */
    struct packed router;         /* f32 [n_expert, d_model], when sparse */
    const uint16_t *table;        /* [n_domain, vocab, top_k], in the mapping; GATE_TABLE */
    const float *router_bias;     /* [n_expert] selection bias */
    struct ffn_weights shared;    /* shared expert; data NULL where there is none */
    const float *shared_router;   /* [d_model] */
};

/* Row-major [*, d_model], read in place; data NULL where the model has none. */
struct embedding {
    const void *data;
    enum dtype dtype;
};

struct dense_weights {
    struct embedding embed;     /* [n_slot * vocab, d_model] */
    struct embedding positions; /* [max_context, d_model] */
    struct embedding queries;   /* [max_context, d_model] */
    const float *final_norm, *final_norm_bias;
    struct packed *lm_head;      /* [n_slot] of [vocab, d_model] */
    struct layer_weights *layer; /* [n_layer] */
    uint64_t bytes;
};
/* weights_load_dense packs all but the experts. Shows progress. The model outlives the weights
 * (embeddings and routing tables are read in place). */
int weights_load_dense(const struct model *model, enum precision precision, struct team *team,
                       struct dense_weights **out, struct err *err);
void weights_free_dense(struct dense_weights *w);

/* weights_dense_bytes, weights_expert_bytes: what the loaders below will map, from the description
 * alone, so that a plan can be made without a checkpoint. 0 when the sizes overflow. */
uint64_t weights_dense_bytes(const struct model_desc *desc, enum precision precision);
uint64_t weights_expert_bytes(const struct model_desc *desc, enum precision precision);

/* expert_home: where packed experts lie when not in this process's memory: a device's. The slab is
 * made here as always, handed over and forgotten; expert_set_get's pointers are then the home's. */
struct expert_home {
    void *user;
    /* take: room for `bytes` with what `data` has; NULL and err. 64-byte aligned. */
    void *(*take)(void *user, const void *data, size_t bytes, struct err *err);
    void (*give)(void *user, void *at, size_t bytes);
    uint64_t (*available)(void *user); /* bytes that it may take now */
};

/* expert_set: the experts a process holds. Experts load one by one; `get` is a table lookup. */
struct expert_set;
/* expert_set_create holds nothing yet. */
int expert_set_create(const struct model *model, enum precision precision, struct expert_set **out,
                      struct err *err);
void expert_set_destroy(struct expert_set *set);
/* expert_set_home: what is loaded from now on lies there. Before the first load; the home outlives
 * the set. */
void expert_set_home(struct expert_set *set, const struct expert_home *home);
/* expert_set_load packs one expert of one sparse layer (nothing to do if it is held). Safe beside
 * concurrent `get` of others; loads themselves are by one thread. */
int expert_set_load(struct expert_set *set, int layer, int expert, struct err *err);
/* expert_set_beside: what is loaded from now on is loaded beside others that compute: their pace
 * goes before that of the load and before huge pages. */
void expert_set_beside(struct expert_set *set);
/* expert_set_load_many: experts[n] in every sparse layer, using the team, with progress. What was
 * loaded before a failure stays held. */
int expert_set_load_many(struct expert_set *set, const int32_t *experts, int n, struct team *team,
                         struct err *err);
/* expert_set_detach takes one expert out of the set (NULL: it was not in); no computation may be
 * using it. Its memory goes with expert_free, before the set is destroyed: giving megabytes back
 * takes a while. expert_set_drop does both. */
struct expert;
struct expert *expert_set_detach(struct expert_set *set, int layer, int expert);
void expert_free(struct expert_set *set, struct expert *e);
/* expert_free_some gives back at most about `bytes` (> 0) of a detached expert, for who must not be
 * kept: 0 when that was the last and `e` is gone, 1 when more is left. */
int expert_free_some(struct expert_set *set, struct expert *e, size_t bytes);
void expert_set_drop(struct expert_set *set, int layer, int expert);
/* expert_set_get: the packed expert or NULL when it is not held. */
const struct ffn_weights *expert_set_get(const struct expert_set *set, int layer, int expert);
uint64_t expert_set_bytes(const struct expert_set *set);
int expert_set_count(const struct expert_set *set);
/* expert_set_mapped: how many of them lie in mapped files of the packed cache. */
int expert_set_mapped(const struct expert_set *set);

#endif
