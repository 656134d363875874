/* cost: curves and rooflines. A product of n rows with a matrix costs the larger of reading the
 * matrix and multiplying; attention reads the keys and values of each span once for all rows of the
 * span that a block of rows shares. */
#include "tools/sim/cost.h"

#include <stdio.h>
#include <string.h>

/* Rows of a span that share one pass over its keys (kernels/cpu/lanes/attention.c blocks rows). */
#define SPAN_BLOCK 16

static double line_at(const struct cost_curve *c, const double *y, double x)
{
    if (c->n == 0)
        return 0;
    if (x <= c->x[0] || c->n == 1)
        return y[0];
    int hi = 1;
    while (hi < c->n - 1 && c->x[hi] < x)
        hi++;
    double slope = (y[hi] - y[hi - 1]) / (c->x[hi] - c->x[hi - 1]);
    double at = y[hi] + (x - c->x[hi]) * slope;
    return at > 0 ? at : 0;
}

double cost_at(const struct cost_curve *c, double x)
{
    return line_at(c, c->y, x);
}

int cost_curve_add_felt(struct cost_curve *c, double x, double y, double felt)
{
    if (c->n == COST_POINTS || (c->n > 0 && x <= c->x[c->n - 1]) || !(y >= 0) || !(felt >= 0))
        return ERR_LIMIT;
    c->x[c->n] = x;
    c->felt[c->n] = felt;
    c->y[c->n++] = y;
    return 0;
}

int cost_curve_add(struct cost_curve *c, double x, double y)
{
    return cost_curve_add_felt(c, x, y, y);
}

struct work cost_work(const struct cost_curve *c, double x)
{
    return (struct work){line_at(c, c->y, x), line_at(c, c->felt, x), 0};
}

struct work work_plus(struct work a, struct work b)
{
    return (struct work){a.ns + b.ns, a.felt_ns + b.felt_ns, a.memory_ns + b.memory_ns};
}

struct work work_times(struct work a, double k)
{
    return (struct work){a.ns * k, a.felt_ns * k, a.memory_ns * k};
}

double cost_pace_mean(const struct cost_pace *p)
{
    double sum = 0;
    int n = p->n_cpu * p->n_bin;
    for (int i = 0; i < n; i++)
        sum += (double)p->bin[i / p->n_bin][i % p->n_bin];
    return n > 0 && sum > 0 ? n / sum : 1;
}

static double precision_bytes(enum precision p)
{
    return (double)dtype_bytes(precision_dtype(p));
}

double cost_expert_flop(const struct model_desc *d)
{
    return 6.0 * d->d_model * d->d_ff_expert;
}

double cost_expert_bytes(const struct model_desc *d, enum precision p)
{
    return 3.0 * d->d_model * d->d_ff_expert * precision_bytes(p);
}

static double attn_params(const struct model_desc *d)
{
    return (double)d->d_model * d->d_head * (2.0 * d->n_head + 2.0 * d->n_kv_head);
}

double cost_dense_bytes(const struct model_desc *d, enum precision p)
{
    double ffn = d->n_expert > 0 ? 3.0 * d->d_model * d->d_ff_shared : 3.0 * d->d_model * d->d_ff;
    return (attn_params(d) + ffn) * precision_bytes(p);
}

/* A curve of a product with `params` weights: rows 1, 2, 4 ... 8192. */
static void curve_of(struct cost_curve *c, const struct hardware *h, double params, double bytes)
{
    c->n = 0;
    if (params <= 0)
        return;
    for (int rows = 1; rows <= LIMIT_ROWS; rows *= 2) {
        double read = params * bytes / h->bytes_s, compute = 2.0 * params * rows / h->flop_s;
        double ns = h->overhead_ns + 1e9 * (read > compute ? read : compute);
        cost_curve_add(c, rows, ns);
    }
    /* The corner between the two limits must be a point, or powers of two cut it. */
    double corner = bytes * h->flop_s / (2.0 * h->bytes_s);
    for (int i = 1; i < c->n && c->n < COST_POINTS; i++) {
        if (corner <= c->x[i - 1] || corner >= c->x[i])
            continue;
        memmove(&c->x[i + 1], &c->x[i], (size_t)(c->n - i) * sizeof(double));
        memmove(&c->y[i + 1], &c->y[i], (size_t)(c->n - i) * sizeof(double));
        memmove(&c->felt[i + 1], &c->felt[i], (size_t)(c->n - i) * sizeof(double));
        c->x[i] = corner;
        c->y[i] = c->felt[i] = h->overhead_ns + 1e9 * params * bytes / h->bytes_s;
        c->n++;
        break;
    }
}

/* A row meets one position of its context: keys and values read by each block of the span's rows;
 * four FLOP a value and head. */
static void context_of(struct cost_curve *c, const struct hardware *h, const struct model_desc *d,
                       double bytes)
{
    double kv = 2.0 * d->n_kv_head * d->d_head * bytes, flop = 4.0 * d->n_head * d->d_head;
    c->n = 0;
    for (int rows = 1; rows <= SPAN_BLOCK; rows *= 2) {
        double read = kv / rows / h->bytes_s, compute = flop / h->flop_s;
        cost_curve_add(c, rows, 1e9 * (read > compute ? read : compute));
    }
    cost_curve_add(c, 2.0 * SPAN_BLOCK, c->y[c->n - 1]);
}

void cost_roofline(struct cost_model *cost, const struct model_desc *d, enum precision p,
                   const struct hardware *coordinator, const struct hardware *worker)
{
    double bytes = precision_bytes(p);
    *cost = (struct cost_model){.coordinator = *coordinator, .worker = *worker, .other_feel = 1};
    curve_of(&cost->attn, coordinator, attn_params(d), bytes);
    context_of(&cost->context, coordinator, d, bytes);
    curve_of(&cost->gate, coordinator, (double)d->d_model * d->n_expert, 4);
    curve_of(&cost->dense, coordinator, 3.0 * d->d_model * d->d_ff, bytes);
    curve_of(&cost->shared, coordinator, 3.0 * d->d_model * d->d_ff_shared, bytes);
    curve_of(&cost->head, coordinator, (double)d->d_model * d->vocab, bytes);
    curve_of(&cost->expert, worker, 3.0 * d->d_model * d->d_ff_expert, bytes);
    /* Slots' rows are read once and summed into the residual. */
    double row_s = (d->top_k * bytes + 8) * d->d_model / coordinator->bytes_s;
    cost_curve_add(&cost->combine, 1, coordinator->overhead_ns + 1e9 * row_s);
    cost_curve_add(&cost->combine, 1025, coordinator->overhead_ns + 1e9 * row_s * 1025);
    cost->expert_call_ns = worker->overhead_ns;
    cost_curve_add(&cost->gather, 0, coordinator->message_ns);
    cost_curve_add(&cost->gather, 1e6, coordinator->message_ns + 1e15 / coordinator->bytes_s);
    cost_curve_add(&cost->one_way, 0, worker->latency_ns);
    cost_curve_add(&cost->one_way, 1e6, worker->latency_ns + 1e15 / worker->link_s);
    cost->receive_ns = coordinator->message_ns;
    cost->link_s = coordinator->link_s;
    cost->wire_bytes = bytes;
    snprintf(cost->source, sizeof(cost->source), "roofline");
}

/* Published peaks and, for the CPU, what this project's kernels reached on two cores; the overheads
 * are those of one kernel launch or one wake-up. */
static const struct {
    const char *name;
    struct hardware hw;
} known[] = {
    {"cpu-2core", {3.0e12, 21e9, 5e3, 3.8e9, 60e3, 8e3}},
    {"cpu-16core", {24e12, 160e9, 5e3, 3.1e9, 20e3, 5e3}},
    {"cpu-64core", {90e12, 500e9, 6e3, 12.5e9, 12e3, 4e3}},
    {"l40s", {180e12, 780e9, 8e3, 25e9, 10e3, 3e3}},
    {"a100", {250e12, 1.8e12, 8e3, 25e9, 8e3, 3e3}},
    {"h100", {700e12, 3.0e12, 8e3, 50e9, 6e3, 2e3}},
};

const struct hardware *hardware_find(const char *name)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].name, name) == 0)
            return &known[i].hw;
    return NULL;
}

const char *hardware_names(void)
{
    return "cpu-2core, cpu-16core, cpu-64core, l40s, a100, h100";
}
