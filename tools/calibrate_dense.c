/* calibrate_dense: stages of coordinator/forward.c, one by one, and attention again over long
 * contexts: the differences are what a position costs a prompt's rows, and what a sequence costs
 * that gives one row far from its beginning. Layers are met in turn, as in a step, so that weights
 * come from where they come from then. */
#include "tools/calibrate.h"

#include "base/clock.h"
#include "coordinator/forward.h"
#include "coordinator/sampler.h"

#include <stdlib.h>
#include <string.h>

#define CONTEXT      1024 /* positions, if the model has so many */
#define DECODE_SPANS 8    /* sequences that decode over it together */
#define FEEL_MOST    1.5  /* of what is left after a subtraction */
#define HEAD_ROWS    64   /* rows at once, as the engine has them; more are as many times that */

struct bench {
    struct calibrate *c;
    struct kv kv;
    struct forward f;
    struct dense_weights *weights;
    struct micro *m;
    struct sched_span *span; /* [rows_max] */
    struct seq *seq;         /* [rows_max] */
    int32_t *page, *zeros, *row;
    void *rows; /* what workers would have answered */
    float *logits;
    struct sample_candidate *candidates;
    int n, layer; /* rows; next layer */
    int failed;
    struct err *err;
};

/* ---- life ---- */

static int reserve(struct bench *b, int n_page)
{
    const struct model_desc *d = &b->c->model->desc;
    size_t rows = (size_t)b->c->rows_max, e = dtype_bytes(b->f.dtype);
    b->span = calloc(rows, sizeof(*b->span));
    b->seq = calloc(rows, sizeof(*b->seq));
    b->page = calloc((size_t)n_page, sizeof(*b->page));
    b->zeros = calloc(rows + CONTEXT, sizeof(*b->zeros));
    b->row = calloc(rows, sizeof(*b->row));
    b->rows = calloc(rows * (size_t)d->top_k * (size_t)d->d_model, e);
    b->logits = malloc(HEAD_ROWS * (size_t)d->vocab * sizeof(float));
    b->candidates = malloc((size_t)d->vocab * sizeof(*b->candidates));
    if (!b->span || !b->seq || !b->page || !b->zeros || !b->row || !b->rows || !b->logits ||
        !b->candidates)
        return err_set(b->err, ERR_NOMEM, "no memory to measure %d rows", b->c->rows_max);
    int rc = kv_take(&b->kv, n_page, b->page);
    if (rc == 0) /* pages that were never written are all the same one */
        memset(b->kv.memory, 0, b->kv.bytes);
    return rc;
}

static int bench_open(struct bench *b)
{
    struct calibrate *c = b->c;
    const struct model_desc *d = &c->model->desc;
    int rc = weights_load_dense(c->model, c->precision, c->team, &b->weights, b->err);
    enum dtype dtype = precision_dtype(c->precision);
    int n_page = c->rows_max + DECODE_SPANS * kv_pages_for(CONTEXT + c->rows_max);
    rc = rc ? rc : kv_init(&b->kv, d, dtype, n_page, b->err);
    if (rc)
        return rc;
    b->f = (struct forward){.desc = d,
                            .weights = b->weights,
                            .k = c->kernels,
                            .dtype = dtype,
                            .team = c->team,
                            .kv = &b->kv};
    rc = micro_create(&b->f, c->rows_max, &b->m, b->err);
    rc = rc ? rc : reserve(b, n_page);
    for (int i = 0; rc == 0 && i < c->rows_max * d->top_k; i++)
        b->m->slot_row[i] = (char *)b->rows + (size_t)i * (size_t)d->d_model * dtype_bytes(dtype);
    return rc;
}

static void bench_close(struct bench *b)
{
    micro_destroy(b->m);
    kv_fini(&b->kv);
    weights_free_dense(b->weights);
    free(b->span);
    free(b->seq);
    free(b->page);
    free(b->zeros);
    free(b->row);
    free(b->rows);
    free(b->logits);
    free(b->candidates);
}

/* fill: n_span sequences of `rows` rows each from position pos on, on pages of their own. */
static void fill(struct bench *b, int n_span, int rows, int pos)
{
    int pages = kv_pages_for(pos + rows);
    for (int i = 0; i < n_span; i++) {
        b->seq[i] = (struct seq){.id = (uint64_t)i + 1,
                                 .token = b->zeros,
                                 .n_prompt = pos + rows,
                                 .n_token = pos + rows,
                                 .n_done = pos,
                                 .page = b->page + i * pages,
                                 .n_page = pages};
        b->span[i] = (struct sched_span){&b->seq[i], i * rows, (i + 1) * rows, pos, 0};
    }
    b->n = n_span * rows;
    micro_fill(&b->f, b->m, b->span, n_span, 0, b->n);
    forward_embed(&b->f, b->m);
    forward_keys(&b->f, b->m, 0); /* normed rows, for layers that find them so */
}

/* The next layer that is sparse (or dense) in turn. */
static int next_layer(struct bench *b, int sparse)
{
    const struct model_desc *d = &b->c->model->desc;
    do
        b->layer = (b->layer + 1) % d->n_layer;
    while (d->layer[b->layer].sparse != sparse);
    return b->layer;
}

/* ---- stages ---- */

static double since(int64_t from_ns)
{
    return (double)(clock_now(&clock_real) - from_ns);
}

static double run_attention(void *arg)
{
    struct bench *b = arg;
    int layer = next_layer(b, 1);
    if (!b->weights->layer[layer].q.data)
        b->m->normed = layer; /* by the layer before it, in its combine */
    int64_t from = clock_now(&clock_real);
    forward_keys(&b->f, b->m, layer);
    if (forward_attention(&b->f, b->m, layer, b->err))
        return -1;
    return since(from);
}

static double run_gate(void *arg)
{
    struct bench *b = arg;
    int layer = next_layer(b, 1);
    int64_t from = clock_now(&clock_real);
    forward_ffn_norm(&b->f, b->m, layer);
    forward_gate(&b->f, b->m, layer);
    return since(from);
}

static double run_dense(void *arg)
{
    struct bench *b = arg;
    int layer = next_layer(b, 0);
    int64_t from = clock_now(&clock_real);
    forward_ffn_norm(&b->f, b->m, layer);
    forward_dense(&b->f, b->m, layer);
    return since(from);
}

static double run_shared(void *arg)
{
    struct bench *b = arg;
    int layer = next_layer(b, 1);
    int64_t from = clock_now(&clock_real);
    forward_shared(&b->f, b->m, layer);
    return since(from);
}

static double run_combine(void *arg)
{
    struct bench *b = arg;
    int layer = next_layer(b, 1);
    int64_t from = clock_now(&clock_real);
    forward_combine(&b->f, b->m, layer);
    return since(from);
}

/* The LM head and a greedy draw of every row, at most HEAD_ROWS. */
static double run_head(void *arg)
{
    struct bench *b = arg;
    const struct sampling greedy = SAMPLING_DEFAULT;
    const struct sample_history none = {NULL, NULL};
    int vocab = b->c->model->desc.vocab;
    int64_t from = clock_now(&clock_real);
    for (int i = 0; i < b->n; i++)
        b->row[i] = i;
    forward_logits(&b->f, b->m, b->row, b->n, b->logits);
    for (int i = 0; i < b->n; i++)
        sample(&greedy, &none, b->logits + (size_t)i * (size_t)vocab, vocab, 0, 0, b->candidates);
    return since(from);
}

/* ---- curves ---- */

/* How many layers are met before one is met again. */
static int layers(const struct bench *b, int sparse)
{
    const struct model_desc *d = &b->c->model->desc;
    return sparse ? desc_n_sparse(d) : d->n_layer - desc_n_sparse(d);
}

static struct measured attention(struct bench *b)
{
    return measure(b->c, b->c->team, layers(b, 1), run_attention, b);
}

static int one_curve(struct bench *b, measure_fn *fn, struct cost_curve *curve)
{
    int cold = fn == run_head ? 1 : layers(b, fn != run_dense);
    int most = fn == run_head && b->c->rows_max > HEAD_ROWS ? HEAD_ROWS : b->c->rows_max;
    int tiles = fn != run_gate && fn != run_combine;
    int rows[COST_POINTS], n = (tiles ? calibrate_rows : calibrate_rows_few)(most, rows);
    curve->n = 0;
    for (int i = 0; i < n; i++) {
        fill(b, rows[i], 1, 0);
        struct measured m = measure(b->c, b->c->team, cold, fn, b);
        if (m.ns < 0)
            return ERR_NOMEM;
        cost_curve_add_felt(curve, rows[i], m.ns, m.felt_ns);
    }
    return 0;
}

/* A row and position of context: the same rows far from the beginning, less the same at it. A
 * row alone is measured on DECODE_SPANS sequences, whose caches are met in turn. */
/* (all - less) / n of work, nothing where noise makes it negative. */
static void curve_add_less(struct cost_curve *curve, double x, struct measured all,
                           struct measured less, double n)
{
    double ns = (all.ns - less.ns) / n, felt = (all.felt_ns - less.felt_ns) / n;
    double most = FEEL_MOST * (ns > 0 ? ns : 0);
    cost_curve_add_felt(curve, x, ns > 0 ? ns : 0, felt < 0 ? 0 : felt > most ? most : felt);
}

static int context_curve(struct bench *b)
{
    struct cost_curve *curve = &b->c->cost.context;
    int most = b->c->model->desc.max_context;
    static const int rows[] = {1, 4, 16, 64, 256};
    curve->n = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && rows[i] <= b->c->rows_max; i++) {
        int pos = most > CONTEXT + rows[i] ? CONTEXT : most - rows[i];
        int n_span = rows[i] == 1 ? DECODE_SPANS : 1;
        if (pos < 1 || n_span * rows[i] > b->c->rows_max)
            break;
        fill(b, n_span, rows[i], 0);
        struct measured near = attention(b);
        fill(b, n_span, rows[i], pos);
        struct measured far = attention(b);
        if (near.ns < 0 || far.ns < 0)
            return ERR_NOMEM;
        curve_add_less(curve, rows[i], far, near, (double)pos * rows[i] * n_span);
    }
    return curve->n > 0 ? 0 : err_set(b->err, ERR_MODEL, "a context of %d is too short", most);
}

/* Attention of one sequence, less its context. */
static int attention_curve(struct bench *b)
{
    struct cost_model *cost = &b->c->cost;
    int rows[COST_POINTS], n = calibrate_rows(b->c->rows_max, rows);
    cost->attn.n = 0;
    for (int i = 0; i < n && rows[i] <= b->c->model->desc.max_context; i++) {
        fill(b, 1, rows[i], 0);
        struct measured m = attention(b);
        if (m.ns < 0)
            return ERR_NOMEM;
        double less = cost_at(&cost->context, rows[i]) * rows[i] * (rows[i] + 1) / 2;
        double ns = less < m.ns / 2 ? m.ns - less : m.ns / 2;
        cost_curve_add_felt(&cost->attn, rows[i], ns, ns * m.felt_ns / m.ns);
    }
    return 0;
}

/* What a sequence costs that gives one row, by how far it is: DECODE_SPANS of them beside each
 * other, less what as many rows cost. */
static int decode_curve(struct bench *b)
{
    static const int at[] = {0, 32, 64, 128, 256, 512, CONTEXT};
    struct cost_model *cost = &b->c->cost;
    int n_span = b->c->rows_max < DECODE_SPANS ? b->c->rows_max : DECODE_SPANS;
    cost->decode.n = 0;
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        if (at[i] + 1 >= b->c->model->desc.max_context)
            break;
        fill(b, n_span, 1, at[i]);
        struct measured m = attention(b);
        if (m.ns < 0)
            return ERR_NOMEM;
        struct work rest = cost_work(&cost->attn, n_span);
        curve_add_less(&cost->decode, at[i], m, (struct measured){rest.ns, rest.felt_ns}, n_span);
    }
    cost->span_ns = cost->decode.y[0];
    return 0;
}

static int all_curves(struct bench *b)
{
    const struct model_desc *d = &b->c->model->desc;
    struct cost_model *cost = &b->c->cost;
    int rc = context_curve(b);
    rc = rc ? rc : attention_curve(b);
    rc = rc ? rc : decode_curve(b);
    rc = rc ? rc : one_curve(b, run_gate, &cost->gate);
    if (rc == 0 && d->d_ff_shared > 0)
        rc = one_curve(b, run_shared, &cost->shared);
    if (rc == 0 && desc_n_sparse(d) < d->n_layer)
        rc = one_curve(b, run_dense, &cost->dense);
    rc = rc ? rc : one_curve(b, run_combine, &cost->combine);
    return rc ? rc : one_curve(b, run_head, &cost->head);
}

int calibrate_dense(struct calibrate *c, struct err *err)
{
    struct bench b = {.c = c, .err = err};
    int rc = bench_open(&b);
    rc = rc ? rc : all_curves(&b);
    bench_close(&b);
    return rc;
}
