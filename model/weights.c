/* weights: the dense half of a model in one mapping. One function (dense_layout) walks the model
 * twice: without memory it counts bytes and jobs, with memory it hands out the pieces and writes
 * the jobs; so the sum and the offsets cannot disagree. */
#include "model/weights.h"
#include "base/arena.h"
#include "model/pack_job.h"
#include "model/packed_cache.h"

#include <stdio.h>
#include <stdlib.h>

#define ALIGN ((size_t)64)

struct dense_store {
    struct dense_weights w; /* first: what callers hold */
    void *slab;
    size_t slab_bytes;
    int mapped; /* from the packed cache */
};

struct layout {
    const struct model_desc *desc;
    const struct checkpoint *ck; /* NULL: count from the description alone */
    enum dtype dtype;
    int int_rows;        /* integer matrices meet rows of integers */
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

static const struct tensor *tensor_of(struct layout *l, enum role role, int layer)
{
    const struct tensor *t = NULL;
    if (l->ck && l->rc == 0)
        l->rc = checkpoint_role(l->ck, l->desc, role, layer, 0, &t, l->err);
    return l->rc ? NULL : t;
}

static struct packed packed_of(struct layout *l, enum role role, enum dtype dtype, int n, int k)
{
    size_t bytes;
    struct packed w = quant_packed(l->desc, role, dtype, n, k, &bytes);
    w.data = take(l, bytes);
    w.int_rows = l->int_rows && quant_integers(w.dtype);
    return w;
}

static void add_job(struct layout *l, struct pack_job job)
{
    if (l->job)
        l->job[l->n_job] = job;
    l->n_job++;
}

/* source adds the job that fills rows [row, ...) of `data` from the tensor of a role. */
static void source(struct layout *l, enum role role, int layer, void *data, enum dtype dtype, int n,
                   int k, int row)
{
    struct pack_job job = {.data = data, .dtype = dtype, .n = n, .k = k, .row = row};
    int found =
        l->ck && l->rc == 0 ? quant_find(l->ck, l->desc, role, layer, 0, &job.quant, l->err) : 0;
    if (found < 0)
        l->rc = found;
    job.src = found > 0 ? job.quant.packed : tensor_of(l, role, layer);
    if (!job.src)
        return;
    job.n_row = k ? (int)job.src->dim[0] : (int)job.src->dim[job.src->n_dim - 1];
    add_job(l, job);
    l->src_bytes += job.src->bytes;
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
    struct packed w = packed_of(l, role, dtype, n, k);
    source(l, role, layer, (void *)(uintptr_t)w.data, w.dtype, n, k, 0);
    return w;
}

/* qkv fuses the three projections, q first, so that one product computes all of them; in a query
 * layer q has an input of its own. */
static void qkv(struct layout *l, int layer, struct layer_weights *w)
{
    const struct model_desc *d = l->desc;
    int apart = d->query_layer && layer == d->n_layer - 1;
    int d_q = apart ? 0 : d->n_head * d->d_head, d_kv = d->n_kv_head * d->d_head;
    int n = d_q + 2 * d_kv;
    if (apart) {
        w->q = matrix(l, ROLE_Q, layer, l->dtype);
        w->q_bias = vector(l, ROLE_Q_BIAS, layer);
    }
    w->qkv = packed_of(l, ROLE_K, l->dtype, n, d->d_model);
    void *data = (void *)(uintptr_t)w->qkv.data;
    if (!apart)
        source(l, ROLE_Q, layer, data, w->qkv.dtype, n, d->d_model, 0);
    source(l, ROLE_K, layer, data, w->qkv.dtype, n, d->d_model, d_q);
    source(l, ROLE_V, layer, data, w->qkv.dtype, n, d->d_model, d_q + d_kv);
    if (!has(l, ROLE_Q_BIAS, layer))
        return;
    float *bias = take(l, (size_t)n * sizeof(float));
    if (!apart)
        source(l, ROLE_Q_BIAS, layer, bias, DTYPE_F32, n, 0, 0);
    source(l, ROLE_K_BIAS, layer, bias, DTYPE_F32, n, 0, d_q);
    source(l, ROLE_V_BIAS, layer, bias, DTYPE_F32, n, 0, d_q + d_kv);
    w->qkv_bias = bias;
}

/* table: read in place. */
static const uint16_t *table(struct layout *l, int layer)
{
    const struct tensor *t =
        has(l, ROLE_ROUTING_TABLE, layer) ? tensor_of(l, ROLE_ROUTING_TABLE, layer) : NULL;
    return t ? t->data : NULL;
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
    w->table = table(l, layer);
    w->router_bias = vector(l, ROLE_ROUTER_BIAS, layer);
    w->shared.gate = matrix(l, ROLE_SHARED_GATE, layer, l->dtype);
    w->shared.up = matrix(l, ROLE_SHARED_UP, layer, l->dtype);
    w->shared.down = matrix(l, ROLE_SHARED_DOWN, layer, l->dtype);
    w->shared_router = vector(l, ROLE_SHARED_ROUTER, layer);
}

/* lm_heads: one product a slot. A tied one is packed from the embedding, which stays in the mapping
 * for the look-up. */
static void lm_heads(struct layout *l, struct packed *head)
{
    const struct model_desc *d = l->desc;
    if (!d->tied && d->n_slot == 1) {
        head[0] = matrix(l, ROLE_LM_HEAD, 0, l->dtype);
        return;
    }
    const struct tensor *t = tensor_of(l, d->tied ? ROLE_EMBED : ROLE_LM_HEAD, 0);
    for (int slot = 0; slot < d->n_slot; slot++) {
        void *data = take(l, packed_bytes(l->dtype, d->vocab, d->d_model));
        head[slot] =
            (struct packed){.data = data, .dtype = l->dtype, .n = d->vocab, .k = d->d_model};
        if (t)
            add_job(l, (struct pack_job){.src = t,
                                         .data = data,
                                         .dtype = l->dtype,
                                         .n = d->vocab,
                                         .k = d->d_model,
                                         .n_row = d->vocab,
                                         .src_row = slot * d->vocab});
    }
    l->src_bytes += t ? t->bytes : 0;
}

static struct embedding embedding(struct layout *l, enum role role)
{
    const struct tensor *t = has(l, role, 0) ? tensor_of(l, role, 0) : NULL;
    return t ? (struct embedding){t->data, t->dtype} : (struct embedding){NULL, DTYPE_NONE};
}

static int dense_layout(struct layout *l, struct dense_weights *w)
{
    l->used = 0;
    l->n_job = 0;
    l->src_bytes = 0;
    w->embed = embedding(l, ROLE_EMBED);
    w->positions = embedding(l, ROLE_POS_EMBED);
    w->queries = embedding(l, ROLE_QUERY_EMBED);
    for (int i = 0; i < l->desc->n_layer; i++)
        layer_layout(l, i, &w->layer[i]);
    w->final_norm = vector(l, ROLE_FINAL_NORM, 0);
    w->final_norm_bias = vector(l, ROLE_FINAL_NORM_BIAS, 0);
    lm_heads(l, w->lm_head);
    return l->rc;
}

static int arrays_create(const struct model_desc *desc, struct dense_weights *w)
{
    w->layer = calloc((size_t)desc->n_layer, sizeof(*w->layer));
    w->lm_head = calloc((size_t)desc->n_slot, sizeof(*w->lm_head));
    return w->layer && w->lm_head ? 0 : ERR_NOMEM;
}

static void arrays_free(struct dense_weights *w)
{
    free(w->layer);
    free(w->lm_head);
}

uint64_t weights_dense_bytes(const struct model_desc *desc, enum precision precision)
{
    struct layout l = {.desc = desc, .dtype = precision_dtype(precision)};
    struct dense_weights w = {.bytes = 0};
    int rc = arrays_create(desc, &w);
    rc = rc ? rc : dense_layout(&l, &w);
    arrays_free(&w);
    return rc ? 0 : l.used;
}

static int store_create(struct layout *l, struct dense_store *store, struct err *err)
{
    if (arrays_create(l->desc, &store->w) != 0)
        return err_set(err, ERR_NOMEM, "no memory for %d layers", l->desc->n_layer);
    int rc = dense_layout(l, &store->w);
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

static void slab_free(struct dense_store *store)
{
    if (store->mapped)
        packed_cache_unmap(store->slab, store->slab_bytes);
    else
        mem_unmap(store->slab, store->slab_bytes);
    store->slab = NULL;
}

/* slab_replace hangs the weights on another slab of the same layout. */
static int slab_replace(struct layout *l, struct dense_store *store, void *map)
{
    slab_free(store);
    store->slab = l->base = map;
    store->mapped = 1;
    return dense_layout(l, &store->w);
}

static int store_pack(struct layout *l, const struct model *model, struct team *team,
                      struct err *err)
{
    struct progress progress;
    progress_start(&progress, "dense weights", l->src_bytes);
    int rc = pack_jobs_run(l->job, l->n_job, model->ck, team, &progress, err);
    progress_end(&progress);
    return rc;
}

/* store_fill: from the packed cache, or packed and put there. */
static int store_fill(struct layout *l, const struct model *model, enum precision precision,
                      struct team *team, struct dense_store *store, struct err *err)
{
    struct packed_key key = {model, precision, -1, -1, 0, store->slab_bytes};
    if (!model->packed_dir[0])
        return store_pack(l, model, team, err);
    key.layout = pack_jobs_hash(l->job, l->n_job, l->base, pack_layout_hash());
    void *map = packed_cache_get(&key);
    int rc = map ? 0 : store_pack(l, model, team, err);
    if (!map && rc == 0)
        map = packed_cache_put(&key, store->slab);
    return map ? slab_replace(l, store, map) : rc;
}

int weights_load_dense(const struct model *model, enum precision precision, struct team *team,
                       struct dense_weights **out, struct err *err)
{
    struct layout l = {.desc = &model->desc,
                       .ck = model->ck,
                       .dtype = precision_dtype(precision),
                       .int_rows = model_int_rows(model, precision),
                       .err = err};
    struct dense_store *store = calloc(1, sizeof(*store));
    if (!store)
        return err_set(err, ERR_NOMEM, "no memory for the dense weights of %s", model->dir);
    int rc = model_check_tables(model, err);
    if (rc == 0)
        rc = store_create(&l, store, err);
    if (rc == 0)
        rc = store_fill(&l, model, precision, team, store, err);
    if (rc == 0)
        *out = &store->w;
    else
        weights_free_dense(&store->w);
    free(l.job);
    return rc;
}

void weights_free_dense(struct dense_weights *w)
{
    if (!w)
        return;
    struct dense_store *store = (struct dense_store *)w;
    if (store->slab)
        slab_free(store);
    arrays_free(w);
    free(store);
}
