/* weights: the dense half of a model in one mapping. One function (dense_layout) walks the model
 * twice: without memory it counts bytes and jobs, with memory it hands out the pieces and writes
 * the jobs; so the sum and the offsets cannot disagree. */
#include "model/weights.h"
#include "base/arena.h"
#include "model/pack_job.h"

#include <stdio.h>
#include <stdlib.h>

#define ALIGN ((size_t)64)

struct dense_store {
    struct dense_weights w; /* first: what callers hold */
    void *slab;
    size_t slab_bytes;
};

struct layout {
    const struct model_desc *desc;
    const struct checkpoint *ck; /* NULL: count from the description alone */
    enum dtype dtype;
    unsigned char *base; /* NULL while counting */
    size_t used;
    struct pack_job *job; /* NULL while counting */
    int n_job;
    uint64_t src_bytes;
    int rc; /* the first failure; all that follows does nothing */
    struct err *err;
};

static void *take(struct layout *l, size_t bytes)
{
    size_t begin = (l->used + ALIGN - 1) & ~(ALIGN - 1);
    if (l->rc == 0 && (bytes == 0 || add_size(begin, bytes, &l->used) != 0))
        l->rc = err_set(l->err, ERR_LIMIT, "the size of the dense weights overflows");
    return l->base && l->rc == 0 ? l->base + begin : NULL;
}

/* source adds the job that fills rows [row, ...) of `data` from the tensor of a role. */
static void source(struct layout *l, enum role role, int layer, void *data, enum dtype dtype, int n,
                   int k, int row)
{
    const struct tensor *t;
    if (!l->ck)
        return;
    if (l->rc == 0)
        l->rc = checkpoint_role(l->ck, l->desc, role, layer, 0, &t, l->err);
    if (l->rc)
        return;
    int n_row = k ? (int)t->dim[0] : (int)t->dim[t->n_dim - 1];
    if (l->job)
        l->job[l->n_job] = (struct pack_job){t, data, dtype, n, k, row, n_row};
    l->n_job++;
    l->src_bytes += t->bytes;
}

static int has(const struct layout *l, enum role role, int layer)
{
    int rows, cols;
    return desc_tensor_shape(l->desc, role, layer, &rows, &cols) == 0;
}

/* vector: f32 [n], or NULL where the model has none. A [1, n] matrix counts as a vector. */
static const float *vector(struct layout *l, enum role role, int layer)
{
    int rows, cols;
    if (desc_tensor_shape(l->desc, role, layer, &rows, &cols) != 0)
        return NULL;
    int n = cols ? cols : rows;
    float *data = take(l, (size_t)n * sizeof(float));
    source(l, role, layer, data, DTYPE_F32, n, 0, 0);
    return data;
}

static struct packed matrix(struct layout *l, enum role role, int layer, enum dtype dtype)
{
    int n, k;
    if (desc_tensor_shape(l->desc, role, layer, &n, &k) != 0)
        return (struct packed){0};
    void *data = take(l, packed_bytes(dtype, n, k));
    source(l, role, layer, data, dtype, n, k, 0);
    return (struct packed){data, dtype, n, k};
}

/* qkv fuses the three projections, q first, so that one product computes all of them. */
static void qkv(struct layout *l, int layer, struct layer_weights *w)
{
    const struct model_desc *d = l->desc;
    int d_q = d->n_head * d->d_head, d_kv = d->n_kv_head * d->d_head, n = d_q + 2 * d_kv;
    void *data = take(l, packed_bytes(l->dtype, n, d->d_model));
    source(l, ROLE_Q, layer, data, l->dtype, n, d->d_model, 0);
    source(l, ROLE_K, layer, data, l->dtype, n, d->d_model, d_q);
    source(l, ROLE_V, layer, data, l->dtype, n, d->d_model, d_q + d_kv);
    w->qkv = (struct packed){data, l->dtype, n, d->d_model};
    if (!has(l, ROLE_Q_BIAS, layer))
        return;
    float *bias = take(l, (size_t)n * sizeof(float));
    source(l, ROLE_Q_BIAS, layer, bias, DTYPE_F32, n, 0, 0);
    source(l, ROLE_K_BIAS, layer, bias, DTYPE_F32, n, 0, d_q);
    source(l, ROLE_V_BIAS, layer, bias, DTYPE_F32, n, 0, d_q + d_kv);
    w->qkv_bias = bias;
}

static void layer_layout(struct layout *l, int layer, struct layer_weights *w)
{
    w->attn_norm = vector(l, ROLE_ATTN_NORM, layer);
    w->attn_norm_bias = vector(l, ROLE_ATTN_NORM_BIAS, layer);
    qkv(l, layer, w);
    w->q_norm = vector(l, ROLE_Q_NORM, layer);
    w->k_norm = vector(l, ROLE_K_NORM, layer);
    w->sinks = vector(l, ROLE_SINKS, layer);
    w->o = matrix(l, ROLE_O, layer, l->dtype);
    w->o_bias = vector(l, ROLE_O_BIAS, layer);
    w->ffn_norm = vector(l, ROLE_FFN_NORM, layer);
    w->ffn_norm_bias = vector(l, ROLE_FFN_NORM_BIAS, layer);
    w->dense.gate = matrix(l, ROLE_GATE_PROJ, layer, l->dtype);
    w->dense.up = matrix(l, ROLE_UP_PROJ, layer, l->dtype);
    w->dense.down = matrix(l, ROLE_DOWN_PROJ, layer, l->dtype);
    w->dense.gate_bias = vector(l, ROLE_GATE_PROJ_BIAS, layer);
    w->dense.up_bias = vector(l, ROLE_UP_PROJ_BIAS, layer);
    w->dense.down_bias = vector(l, ROLE_DOWN_PROJ_BIAS, layer);
    /* The choice of experts is the one place where a rounding becomes another result: always f32.
     */
    w->router = matrix(l, ROLE_ROUTER, layer, DTYPE_F32);
    w->router_bias = vector(l, ROLE_ROUTER_BIAS, layer);
    w->shared.gate = matrix(l, ROLE_SHARED_GATE, layer, l->dtype);
    w->shared.up = matrix(l, ROLE_SHARED_UP, layer, l->dtype);
    w->shared.down = matrix(l, ROLE_SHARED_DOWN, layer, l->dtype);
    w->shared_router = vector(l, ROLE_SHARED_ROUTER, layer);
}

/* lm_head: a tied one is packed from the embedding, which stays in the mapping for the look-up. */
static struct packed lm_head(struct layout *l)
{
    const struct model_desc *d = l->desc;
    void *data = take(l, packed_bytes(l->dtype, d->vocab, d->d_model));
    source(l, d->tied ? ROLE_EMBED : ROLE_LM_HEAD, 0, data, l->dtype, d->vocab, d->d_model, 0);
    return (struct packed){data, l->dtype, d->vocab, d->d_model};
}

static int dense_layout(struct layout *l, struct dense_weights *w)
{
    l->used = 0;
    l->n_job = 0;
    l->src_bytes = 0;
    for (int i = 0; i < l->desc->n_layer; i++)
        layer_layout(l, i, &w->layer[i]);
    w->final_norm = vector(l, ROLE_FINAL_NORM, 0);
    w->final_norm_bias = vector(l, ROLE_FINAL_NORM_BIAS, 0);
    w->lm_head = lm_head(l);
    return l->rc;
}

uint64_t weights_dense_bytes(const struct model_desc *desc, enum precision precision)
{
    struct layout l = {.desc = desc, .dtype = precision_dtype(precision)};
    struct dense_weights w = {.layer = calloc((size_t)desc->n_layer, sizeof(*w.layer))};
    int rc = w.layer ? dense_layout(&l, &w) : ERR_NOMEM;
    free(w.layer);
    return rc ? 0 : l.used;
}

static int store_create(struct layout *l, struct dense_store *store, struct err *err)
{
    const struct tensor *embed;
    int rc = checkpoint_role(l->ck, l->desc, ROLE_EMBED, 0, 0, &embed, err);
    if (rc)
        return rc;
    store->w.embed = embed->data;
    store->w.embed_dtype = embed->dtype;
    store->w.layer = calloc((size_t)l->desc->n_layer, sizeof(*store->w.layer));
    if (!store->w.layer)
        return err_set(err, ERR_NOMEM, "no memory for %d layers", l->desc->n_layer);
    rc = dense_layout(l, &store->w);
    if (rc == 0)
        rc = memory_check(l->used, "the dense weights",
                          "use --precision bf16 or a machine with more", err);
    if (rc)
        return rc;
    l->job = calloc((size_t)l->n_job, sizeof(*l->job));
    store->slab = l->base = mem_map(l->used);
    store->slab_bytes = l->used;
    store->w.bytes = l->used;
    if (!l->job || !l->base)
        return err_set(err, ERR_NOMEM, "no memory for %zu bytes of dense weights", l->used);
    return dense_layout(l, &store->w);
}

int weights_load_dense(const struct model *model, enum precision precision, struct team *team,
                       struct dense_weights **out, struct err *err)
{
    struct layout l = {
        .desc = &model->desc, .ck = model->ck, .dtype = precision_dtype(precision), .err = err};
    if (model->desc.gate == GATE_TABLE || model->desc.learned_pos)
        return err_set(err, ERR_MODEL, "%s: a %s model is not computed by this build", model->dir,
                       model->desc.family);
    struct dense_store *store = calloc(1, sizeof(*store));
    if (!store)
        return err_set(err, ERR_NOMEM, "no memory for the dense weights of %s", model->dir);
    int rc = store_create(&l, store, err);
    if (rc == 0) {
        struct progress progress;
        progress_start(&progress, "dense weights", l.src_bytes);
        pack_jobs_run(l.job, l.n_job, model->ck, team, &progress);
        progress_end(&progress);
        *out = &store->w;
    } else {
        weights_free_dense(&store->w);
    }
    free(l.job);
    return rc;
}

void weights_free_dense(struct dense_weights *w)
{
    if (!w)
        return;
    struct dense_store *store = (struct dense_store *)w;
    if (store->slab)
        mem_unmap(store->slab, store->slab_bytes);
    free(w->layer);
    free(store);
}
