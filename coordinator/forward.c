/* forward: the layer, stage by stage; see forward.h. Each stage is cut into units for the team:
 * panels for the products, rows for the rest. Rounding happens at the same places in every mode:
 * the residual stream is f32, what enters a product is the run's dtype, the gate alone stays in
 * f32. */
#include "coordinator/forward.h"
#include "coordinator/experiment.h"

#include "coordinator/trace.h"
#include "kernels/math.h"
#include <stdlib.h>

/* Rows a chunk of the row-wise stages: fewer are not worth waking a thread for. */
#define ROW_CHUNK 8

struct row_job {
    const struct forward *f;
    struct micro *m;
    const struct layer_weights *w;
    int layer;
};

static void run_matmul_units(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct forward *f = ((void **)arg)[0];
    f->k->matmul(((void **)arg)[1], begin, end);
}

static void run_matmul(const struct forward *f, struct matmul *mm)
{
    void *arg[2] = {(void *)(uintptr_t)f, mm};
    team_run(f->team, run_matmul_units, arg, f->k->matmul_units(mm), 1);
}

/* y [n_row, ldy] = a W^T + bias for all rows of the micro-batch. ints: the rows of a made integers,
 * or NULL. */
static void project_into(const struct forward *f, const struct micro *m, const void *a,
                         const void *ints, size_t ld_a, const struct packed *w, const float *bias,
                         float *y, size_t ldy)
{
    struct matmul mm = {.x = a,
                        .x_ints = ints,
                        .ldx = ld_a,
                        .n_row = m->n_row,
                        .w = w,
                        .bias = bias,
                        .y = y,
                        .y_dtype = DTYPE_F32,
                        .ldy = ldy};
    run_matmul(f, &mm);
}

/* Where rows that meet w are made integers, once for all units; NULL: they are not. */
static void *ints_for(const struct forward *f, const struct micro *m, const struct packed *w)
{
    return w->int_rows && f->k->ints != NULL && m->n_row >= INTS_ROWS ? m->ints : NULL;
}

static void run_rows(const struct forward *f, struct micro *m, const struct layer_weights *w,
                     int layer, team_fn *fn)
{
    struct row_job job = {f, m, w, layer};
    team_run(f->team, fn, &job, m->n_row, ROW_CHUNK);
}

static void norm_row(const struct forward *f, const float *x, const float *weight,
                     const float *bias, void *out, enum dtype dtype, size_t d_pad)
{
    const struct model_desc *d = f->desc;
    if (d->norm == NORM_RMS) {
        f->k->rmsnorm(x, weight, d->norm_eps, d->d_model, out, dtype, (int)d_pad);
    } else {
        f->k->layernorm(x, weight, bias, d->norm_eps, d->d_model, out, dtype, (int)d_pad);
    }
}

static void *row_at(void *base, size_t row, size_t ld, enum dtype dtype)
{
    return (char *)base + row * ld * dtype_bytes(dtype);
}

/* Row r of a, ld elements from row to row, to the same row of `ints`. */
static void ints_row(const struct forward *f, void *a, size_t r, size_t ld, void *ints)
{
    f->k->ints(row_at(a, r, ld, f->dtype), (int)ld, row_at(ints, r, ld, f->dtype));
}

/* ---- embedding ------------------------------------------------------------------------------- */

static int slot_of(const struct forward *f, int32_t domain)
{
    return f->desc->n_domain > 0 ? f->desc->domain[domain].slot : 0;
}

/* Row `at` of an embedding, as dtype. */
static void embedding_row(const struct forward *f, const struct embedding *e, size_t at, void *out,
                          enum dtype dtype)
{
    size_t d = (size_t)f->desc->d_model;
    const char *from = (const char *)e->data + at * d * dtype_bytes(e->dtype);
    f->k->convert(from, e->dtype, out, dtype, d);
}

static void embed_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    const struct forward *f = j->f;
    struct micro *m = j->m;
    size_t d = (size_t)f->desc->d_model, vocab = (size_t)f->desc->vocab;
    for (int r = begin; r < end; r++) {
        float *x = m->x + (size_t)r * d, *pos = m->proj + (size_t)r * d;
        size_t slot = (size_t)slot_of(f, m->domain[r]);
        embedding_row(f, &f->weights->embed, slot * vocab + (size_t)m->token[r], x, DTYPE_F32);
        if (f->desc->learned_pos) {
            embedding_row(f, &f->weights->positions, (size_t)m->pos[r], pos, DTYPE_F32);
            f->k->add(x, pos, d);
        }
    }
}

void forward_embed(const struct forward *f, struct micro *m)
{
    size_t d = (size_t)f->desc->d_model;
    run_rows(f, m, NULL, -1, embed_rows);
    trace_rows(f, m, -1, "embed", m->x, d * 4, d * 4);
}

/* ---- attention ------------------------------------------------------------------------------- */

/* Row r of the stream behind a layer's first norm, and as the integers that its products meet. */
static void attn_norm_row(const struct forward *f, struct micro *m, const struct layer_weights *w,
                          size_t r)
{
    void *ints = ints_for(f, m, &w->qkv);
    norm_row(f, m->x + r * (size_t)f->desc->d_model, w->attn_norm, w->attn_norm_bias,
             row_at(m->a, r, m->ld_a, f->dtype), f->dtype, m->ld_a);
    if (ints != NULL) {
        ints_row(f, m->a, r, m->ld_a, ints);
    }
}

static void attn_norm_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    for (int r = begin; r < end; r++) {
        attn_norm_row(j->f, j->m, j->w, (size_t)r);
    }
}

/* The layer whose first norm can follow when `layer` is through with a row, while the row is at
 * hand; NULL: none. */
static const struct layer_weights *layer_ahead(const struct forward *f, int layer)
{
    const struct layer_weights *next = &f->weights->layer[layer + 1];
    return layer + 1 < f->desc->n_layer && next->q.data == NULL ? next : NULL;
}

/* Layer `layer` is through with all rows, and what layer_ahead names is done. */
static void layer_done(const struct forward *f, struct micro *m, int layer)
{
    m->normed = layer_ahead(f, layer) != NULL ? layer + 1 : 0;
    trace_rows(f, m, layer, "ffn", m->x, (size_t)f->desc->d_model * 4,
               (size_t)f->desc->d_model * 4);
}

static void att_ints_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    for (int r = begin; r < end; r++) {
        ints_row(j->f, j->m->att, (size_t)r, j->m->ld_att, j->m->ints);
    }
}

static void qk_norm_heads(const struct forward *f, float *x, int n_head, const float *weight)
{
    const struct model_desc *d = f->desc;
    if (d->qk_norm == QK_NORM_FULL) {
        int width = n_head * d->d_head;
        f->k->rmsnorm(x, weight, d->norm_eps, width, x, DTYPE_F32, width);
        return;
    }
    for (int h = 0; h < n_head; h++) {
        float *head = x + (size_t)(h * d->d_head);
        f->k->rmsnorm(head, weight, d->norm_eps, d->d_head, head, DTYPE_F32, d->d_head);
    }
}

/* Queries and keys of some rows: their norms and their rotation. */
static void qk_rows(const struct row_job *j, int begin, int end)
{
    const struct model_desc *d = j->f->desc;
    size_t width = (size_t)((d->n_head + 2 * d->n_kv_head) * d->d_head);
    size_t half = (size_t)(d->rope.d_rot / 2);
    for (int r = begin; r < end; r++) {
        float *q = j->m->qkv + (size_t)r * width, *k = q + (size_t)(d->n_head * d->d_head);
        const float *cos = j->m->cos + (size_t)r * half, *sin = j->m->sin + (size_t)r * half;
        if (d->qk_norm != QK_NORM_NONE) {
            qk_norm_heads(j->f, q, d->n_head, j->w->q_norm);
            qk_norm_heads(j->f, k, d->n_kv_head, j->w->k_norm);
        }
        if (d->rope.d_rot > 0) {
            j->f->k->rope(q, d->n_head, d->d_head, d->rope.d_rot, d->rope.interleaved, cos, sin);
            j->f->k->rope(k, d->n_kv_head, d->d_head, d->rope.d_rot, d->rope.interleaved, cos, sin);
        }
    }
}

/* Positions that a thread writes at once: a panel of keys, whose rows stay in its cache from their
 * norm to the page. */
#define KV_ROWS PANEL

static int kv_pieces(const struct attn_span *s)
{
    int end = s->pos + (s->end - s->begin);
    return (end + KV_ROWS - 1) / KV_ROWS - s->pos / KV_ROWS;
}

/* Piece i of a span, cut at multiples of KV_ROWS. */
static struct attn_span kv_piece(const struct attn_span *s, int i)
{
    int first = (s->pos / KV_ROWS + i) * KV_ROWS, begin = first > s->pos ? first : s->pos;
    struct attn_span piece = *s;
    piece.pos = begin;
    piece.begin = s->begin + (begin - s->pos);
    piece.end = s->begin + (first + KV_ROWS - s->pos);
    piece.end = piece.end < s->end ? piece.end : s->end;
    return piece;
}

static int kv_units(const struct micro *m)
{
    int n = 0;
    for (int s = 0; s < m->n_span; s++) {
        n += kv_pieces(&m->span[s]);
    }
    return n;
}

/* Units [begin, end): the pieces of all spans, in order; each from the products of its rows to the
 * cache, while it is at hand. */
static void kv_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    const struct model_desc *d = j->f->desc;
    struct kv *kv = j->f->kv;
    size_t width = (size_t)((d->n_head + 2 * d->n_kv_head) * d->d_head);
    for (int s = 0, base = 0; s < j->m->n_span && base < end; s++) {
        const struct attn_span *span = &j->m->span[s];
        int n = kv_pieces(span);
        for (int i = begin > base ? begin - base : 0; i < n && base + i < end; i++) {
            struct attn_span piece = kv_piece(span, i);
            qk_rows(j, piece.begin, piece.end);
            const float *k =
                j->m->qkv + (size_t)piece.begin * width + (size_t)(d->n_head * d->d_head);
            const float *v = k + (size_t)(d->n_kv_head * d->d_head);
            j->f->k->kv_write(&kv->layout, kv_k(kv, j->layer), kv_v(kv, j->layer), kv->page_bytes,
                              &piece, k, width, v, width);
        }
        base += n;
    }
}

struct attn_job {
    const struct kernels *k;
    const struct attn *a;
    int stage;
};

static void attn_units(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct attn_job *j = arg;
    j->k->attn(j->a, j->stage, begin, end);
}

static int attend(const struct forward *f, struct micro *m, const struct layer_weights *w,
                  int layer, struct err *err)
{
    const struct model_desc *d = f->desc;
    struct attn a = {.kv = f->kv->layout,
                     .k_base = kv_k(f->kv, layer),
                     .v_base = kv_v(f->kv, layer),
                     .kv_page_stride = f->kv->page_bytes,
                     .n_head = d->n_head,
                     .scale = d->attn_scale,
                     .window = d->layer[layer].window,
                     .softcap = d->attn_softcap,
                     .sink = w->sinks,
                     .q = m->qkv,
                     .ldq = (size_t)((d->n_head + 2 * d->n_kv_head) * d->d_head),
                     .span = m->span,
                     .n_span = m->n_span,
                     .out = m->att,
                     .out_dtype = f->dtype,
                     .ldo = m->ld_att};
    size_t need = f->k->attn_scratch_bytes(&a);
    if (need > m->attn_scratch_bytes) {
        void *p = aligned_alloc(64, (need + need / 4 + 63) / 64 * 64);
        if (p == NULL) {
            return err_set(err, ERR_NOMEM, "no memory for %zu KiB of attention scratch",
                           need >> 10);
        }
        free(m->attn_scratch);
        m->attn_scratch = p;
        m->attn_scratch_bytes = (need + need / 4 + 63) / 64 * 64;
    }
    a.scratch = m->attn_scratch;
    for (int stage = 0; stage < 2; stage++) {
        struct attn_job job = {f->k, &a, stage};
        team_run(f->team, attn_units, &job, f->k->attn_units(&a, stage), 1);
    }
    return 0;
}

/* What enters a query layer: the stream behind the final norm. */
static void final_norm_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    const struct dense_weights *w = j->f->weights;
    size_t d = (size_t)j->f->desc->d_model;
    for (int r = begin; r < end; r++) {
        float *x = j->m->x + (size_t)r * d;
        norm_row(j->f, x, w->final_norm, w->final_norm_bias, x, DTYPE_F32, d);
    }
}

static void query_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    for (int r = begin; r < end; r++) {
        embedding_row(j->f, &j->f->weights->queries, (size_t)j->m->pos[r],
                      row_at(j->m->a, (size_t)r, j->m->ld_a, j->f->dtype), j->f->dtype);
    }
}

/* Queries of a query layer, from positions alone, into their place in qkv. */
static void query_layer_begin(const struct forward *f, struct micro *m,
                              const struct layer_weights *w, int layer, size_t ld_qkv)
{
    run_rows(f, m, w, layer, final_norm_rows);
    run_rows(f, m, w, layer, query_rows);
    project_into(f, m, m->a, NULL, m->ld_a, &w->q, w->q_bias, m->qkv, ld_qkv);
}

void forward_keys(const struct forward *f, struct micro *m, int layer)
{
    const struct layer_weights *w = &f->weights->layer[layer];
    const struct model_desc *desc = f->desc;
    size_t ld_qkv = (size_t)((desc->n_head + 2 * desc->n_kv_head) * desc->d_head);
    if (w->q.data != NULL) {
        query_layer_begin(f, m, w, layer, ld_qkv);
    }
    if (m->normed != layer || layer == 0) {
        run_rows(f, m, w, layer, attn_norm_rows);
    }
    project_into(f, m, m->a, ints_for(f, m, &w->qkv), m->ld_a, &w->qkv, w->qkv_bias,
                 m->qkv + (ld_qkv - (size_t)w->qkv.n), ld_qkv);
    struct row_job job = {f, m, w, layer};
    team_run(f->team, kv_rows, &job, kv_units(m), 1);
}

int forward_attention(const struct forward *f, struct micro *m, int layer, struct err *err)
{
    const struct layer_weights *w = &f->weights->layer[layer];
    int rc = attend(f, m, w, layer, err);
    if (rc != 0) {
        return rc;
    }
    void *ints = ints_for(f, m, &w->o);
    if (ints != NULL) {
        run_rows(f, m, w, layer, att_ints_rows);
    }
    project_into(f, m, m->att, ints, m->ld_att, &w->o, w->o_bias, m->proj, (size_t)w->o.n);
    return 0;
}

/* ---- feed-forward ---------------------------------------------------------------------------- */

static void ffn_norm_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    size_t d = (size_t)j->f->desc->d_model;
    struct micro *m = j->m;
    for (int r = begin; r < end; r++) {
        float *x = m->x + (size_t)r * d, *a32 = m->a32 + (size_t)r * m->ld_a;
        j->f->k->add(x, m->proj + (size_t)r * d, d);
        norm_row(j->f, x, j->w->ffn_norm, j->w->ffn_norm_bias, a32, DTYPE_F32, m->ld_a);
        if (j->f->dtype != DTYPE_F32) {
            j->f->k->convert(a32, DTYPE_F32, row_at(m->a, (size_t)r, m->ld_a, j->f->dtype),
                             j->f->dtype, m->ld_a);
        }
    }
}

void forward_ffn_norm(const struct forward *f, struct micro *m, int layer)
{
    run_rows(f, m, &f->weights->layer[layer], layer, ffn_norm_rows);
    size_t d = (size_t)f->desc->d_model;
    trace_rows(f, m, layer, "attention", m->x, d * 4, d * 4);
}

struct ffn_job {
    const struct kernels *k;
    const struct ffn *ffn;
    int stage;
};

static void ffn_units(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct ffn_job *j = arg;
    j->k->ffn(j->ffn, j->stage, begin, end);
}

/* y [n_row, d_model] f32 = one FFN over all rows. */
static void one_ffn(const struct forward *f, struct micro *m, const struct ffn_weights *w, int d_ff,
                    float *y)
{
    struct ffn_segment seg = {w, 0, m->n_row};
    struct ffn ffn = {.act = f->desc->act,
                      .act_alpha = f->desc->act_alpha,
                      .act_limit = f->desc->act_limit,
                      .d_model = f->desc->d_model,
                      .d_ff = d_ff,
                      .seg = &seg,
                      .n_seg = 1,
                      .x = m->a,
                      .ldx = m->ld_a,
                      .h = m->h,
                      .y = y,
                      .y_dtype = DTYPE_F32,
                      .ldy = (size_t)f->desc->d_model};
    for (int stage = 0; stage < 2; stage++) {
        struct ffn_job job = {f->k, &ffn, stage};
        team_run(f->team, ffn_units, &job, f->k->ffn_units(&ffn, stage), 1);
    }
}

static void dense_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    size_t d = (size_t)j->f->desc->d_model;
    const struct layer_weights *next = layer_ahead(j->f, j->layer);
    for (int r = begin; r < end; r++) {
        j->f->k->add(j->m->x + (size_t)r * d, j->m->proj + (size_t)r * d, d);
        if (next != NULL) {
            attn_norm_row(j->f, j->m, next, (size_t)r);
        }
    }
}

void forward_dense(const struct forward *f, struct micro *m, int layer)
{
    const struct layer_weights *w = &f->weights->layer[layer];
    one_ffn(f, m, &w->dense, f->desc->d_ff, m->proj);
    run_rows(f, m, w, layer, dense_rows);
    layer_done(f, m, layer);
}

struct gate_job {
    const struct gate_spec *spec;
    struct micro *m;
};

static void gate_rows(void *arg, int begin, int end, int thread)
{
    struct gate_job *j = arg;
    struct micro *m = j->m;
    size_t n = (size_t)j->spec->n_expert, at = (size_t)begin * (size_t)j->spec->top_k;
    gate_select(j->spec, m->router + (size_t)begin * n, m->token + begin, m->domain + begin,
                end - begin, m->slot_expert + at, m->slot_weight + at,
                m->router_scratch + (size_t)thread * 2 * n);
}

void forward_gate(const struct forward *f, struct micro *m, int layer)
{
    const struct layer_weights *w = &f->weights->layer[layer];
    struct gate_spec spec;
    gate_spec_from(&spec, f->desc);
    spec.bias = w->router_bias;
    spec.table = w->table;
    spec.n_table = f->desc->vocab;
    if (spec.kind != GATE_TABLE) {
        project_into(f, m, m->a32, NULL, m->ld_a, &w->router, NULL, m->router, (size_t)w->router.n);
    }
    struct gate_job job = {&spec, m};
    team_run(f->team, gate_rows, &job, m->n_row, ROW_CHUNK);
    if (f->experiment != NULL) {
        struct experiment_rows rows = {.n_row = m->n_row,
                                       .layer = layer,
                                       .logits = spec.kind != GATE_TABLE ? m->router : NULL,
                                       .token = m->token,
                                       .pos = m->pos,
                                       .domain = f->desc->n_domain > 0 ? m->domain : NULL};
        experiment_route(f->experiment, &rows, m->slot_expert, m->slot_weight);
    }
    size_t k = (size_t)f->desc->top_k;
    trace_rows(f, m, layer, "gate", m->slot_expert, k * 4, k * 4);
    trace_rows(f, m, layer, "weights", m->slot_weight, k * 4, k * 4);
}

static void scale_row(float *y, float s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] *= s;
    }
}

static void shared_gate_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    size_t d = (size_t)j->f->desc->d_model;
    for (int r = begin; r < end; r++) {
        float z = j->f->k->dot(j->m->a32 + (size_t)r * j->m->ld_a, j->w->shared_router, d);
        scale_row(j->m->shared + (size_t)r * d, k_sigmoidf(z), d);
    }
}

void forward_shared(const struct forward *f, struct micro *m, int layer)
{
    const struct layer_weights *w = &f->weights->layer[layer];
    if (w->shared.up.data == NULL) {
        return;
    }
    one_ffn(f, m, &w->shared, f->desc->d_ff_shared, m->shared);
    if (f->desc->shared_gated) {
        run_rows(f, m, w, layer, shared_gate_rows);
    }
}

static void combine_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    struct row_job *j = arg;
    struct micro *m = j->m;
    size_t d = (size_t)j->f->desc->d_model, top_k = (size_t)j->f->desc->top_k;
    const struct layer_weights *next = layer_ahead(j->f, j->layer);
    for (int r = begin; r < end; r++) {
        size_t at = (size_t)r * top_k;
        struct slots slots = {.n = (int)top_k,
                              .weight = m->slot_weight + at,
                              .row = m->slot_row + at,
                              .next = r + 1 < end ? m->slot_row + at + top_k : NULL,
                              .dtype = j->f->dtype};
        if (j->w->shared.up.data != NULL) {
            slots.plus = m->shared + (size_t)r * d;
        }
        j->f->k->combine(m->x + (size_t)r * d, &slots, d);
        if (next != NULL) {
            attn_norm_row(j->f, m, next, (size_t)r);
        }
    }
}

void forward_combine(const struct forward *f, struct micro *m, int layer)
{
    run_rows(f, m, &f->weights->layer[layer], layer, combine_rows);
    layer_done(f, m, layer);
}

/* ---- head ------------------------------------------------------------------------------------ */

/* Rows [begin, end) of a, all of one slot. */
static void head_product(const struct forward *f, const struct micro *m, int slot, int begin,
                         int end, float *logits)
{
    size_t vocab = (size_t)f->desc->vocab;
    struct matmul mm = {.x = row_at(m->a, (size_t)begin, m->ld_a, f->dtype),
                        .ldx = m->ld_a,
                        .n_row = end - begin,
                        .w = &f->weights->lm_head[slot],
                        .y = logits + (size_t)begin * vocab,
                        .y_dtype = DTYPE_F32,
                        .ldy = vocab};
    run_matmul(f, &mm);
}

void forward_logits(const struct forward *f, struct micro *m, const int32_t *row, int n,
                    float *logits)
{
    size_t d = (size_t)f->desc->d_model;
    for (int i = 0; i < n; i++) {
        const float *x = m->x + (size_t)row[i] * d;
        void *a = row_at(m->a, (size_t)i, m->ld_a, f->dtype);
        if (f->desc->query_layer) { /* its norm came before the layer; padding of a stays zero */
            f->k->convert(x, DTYPE_F32, a, f->dtype, d);
        } else {
            norm_row(f, x, f->weights->final_norm, f->weights->final_norm_bias, a, f->dtype,
                     m->ld_a);
        }
    }
    for (int begin = 0, end = 0; begin < n; begin = end) {
        int slot = slot_of(f, m->domain[row[begin]]);
        while (end < n && slot_of(f, m->domain[row[end]]) == slot) {
            end++;
        }
        head_product(f, m, slot, begin, end, logits);
    }
}
