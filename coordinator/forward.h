/* forward: the dense half of the model, stage by stage, for one micro-batch of rows. Each function
 * is one stage of the paper's layer; coordinator/engine.c decides when it runs. Between
 * forward_gate and forward_combine the rows are away at the experts. Rows are independent: what a
 * row gets does not depend on the others.
 *
 *   embed -> for each layer: keys -> attention -> gate -> (experts | dense FFN) -> combine ->
 * logits
 *
 * What a position leaves to later ones are its keys and values alone. So behind those of the last
 * layer only rows whose logits are wanted go on (micro_keep_tails): of a prompt one. */
#ifndef COORDINATOR_FORWARD_H
#define COORDINATOR_FORWARD_H

#include "coordinator/kv.h"
#include "coordinator/pool.h"
#include "coordinator/sched.h"
#include "kernels/kernels.h"
#include "model/weights.h"
#include "router/gate.h"

struct trace;      /* coordinator/trace.h */
struct experiment; /* coordinator/experiment.h */

/* What all micro-batches share; owned by the engine. */
struct forward {
    const struct model_desc *desc;
    const struct dense_weights *weights;
    const struct kernels *k;
    enum dtype dtype; /* of matmul inputs, KV cache and wire */
    struct team *team;
    struct kv *kv;
    struct trace *trace;           /* NULL: off */
    struct experiment *experiment; /* NULL: the model's own gate */
};

/* One micro-batch and its buffers, sized for n_row_max rows at creation. */
struct micro {
    int n_row, n_row_max, n_span;
    int for_logits;         /* the engine's: nobody asks for more than logits of the last layer */
    struct attn_span *span; /* [n_span], rows counted within this micro-batch */
    struct seq **span_seq;  /* [n_span] */
    int32_t *token, *pos;   /* [n_row] */
    int32_t *domain;        /* [n_row] index; 0 in models without domains */
    int32_t *step_row;      /* [n_row] its row of the step */
    int32_t *tail;          /* [n_span] the engine's: rows for micro_keep_tails */
    float *cos, *sin;       /* [n_row, d_rot / 2] */
    float *x;               /* [n_row, d_model] residual stream */
    int normed; /* the layer whose first norm has followed the layer before it, in `a`; or 0 */
    void *a;    /* [n_row, ld_a] normed row, matmul dtype, padded: also what the wire gets */
    float *a32; /* the same in f32 (== a when the dtype is f32) */
    size_t ld_a;
    float *qkv; /* [n_row, (n_head + 2 n_kv_head) d_head] */
    void *att;  /* [n_row, ld_att] */
    size_t ld_att;
    void *ints;    /* [n_row, ld_a or ld_att] the rows of one product as integers (kernels.ints) */
    float *proj;   /* [n_row, d_model] */
    float *shared; /* [n_row, d_model] */
    void *h;       /* [n_row, k_padded(widest dense FFN)] */
    float *router, *router_scratch; /* [n_row, n_expert], [threads, 2 n_expert] */
    int32_t *slot_expert;           /* [n_row, top_k] */
    float *slot_weight;
    const void **slot_row;
    int16_t *slot_worker; /* [n_row, top_k] who computed it, see pool.h */
    void *attn_scratch;
    size_t attn_scratch_bytes;
    void *memory;
    size_t memory_bytes;
    /* The engine's: where this micro-batch stands. */
    int layer, state;
    struct dispatch dispatch;
};

/* micro_create: ERR_NOMEM with the size in words. */
int micro_create(const struct forward *f, int n_row_max, struct micro **out, struct err *err);
/* micro_touch: the memory of the first n_row rows is there when this returns. */
void micro_touch(const struct forward *f, struct micro *m, int n_row);
void micro_destroy(struct micro *m);
/* micro_fill takes rows [begin, end) of the step's spans: tokens, positions, rotation angles. */
void micro_fill(const struct forward *f, struct micro *m, const struct sched_span *span, int n_span,
                int begin, int end);
/* micro_keep_tails leaves the last m->tail[s] rows (0: none) of each span s. Rows are numbered
 * anew; they keep token, position, domain, stream, queries, normed row and slots. */
void micro_keep_tails(const struct forward *f, struct micro *m);

void forward_embed(const struct forward *f, struct micro *m);
/* forward_keys: (before a query layer: the final norm,) norm unless it is done, q k v, rotation,
 * cache write. */
void forward_keys(const struct forward *f, struct micro *m, int layer);
/* forward_attention, when the keys of all that its rows look at are written: attention and
 * its output. ERR_NOMEM when scratch for a longer context cannot be had. */
int forward_attention(const struct forward *f, struct micro *m, int layer, struct err *err);
/* forward_ffn_norm: x += what attention gave; x -> a, a32 by the layer's second norm. */
void forward_ffn_norm(const struct forward *f, struct micro *m, int layer);
/* forward_dense: the dense FFN and its residual, and with it, as forward_combine, the norm that
 * forward_keys of the next layer begins with. */
void forward_dense(const struct forward *f, struct micro *m, int layer);
/* forward_gate: router logits to slots. */
void forward_gate(const struct forward *f, struct micro *m, int layer);
/* forward_shared: the shared expert, while the routed ones are away. */
void forward_shared(const struct forward *f, struct micro *m, int layer);
/* forward_combine: x += sum over slots in slot order of weight times row, plus the shared expert.
 */
void forward_combine(const struct forward *f, struct micro *m, int layer);
/* forward_logits: final norm and LM head of rows row[n] (n <= n_row) -> logits [n, vocab] f32. Rows
 * of one embedding slot side by side are one product: sort them. */
void forward_logits(const struct forward *f, struct micro *m, const int32_t *row, int n,
                    float *logits);

#endif
