/* gate: the published gates, one function each, on one row. Sums run over experts and slots in
 * ascending order with one accumulator and exponentials are k_expf, so that slots and weights are
 * the same bits on every machine: they decide which experts run. A NaN score loses against every
 * number, so that ids stay valid whatever the logits are; its weight stays NaN and shows in the
 * output. */
#include "router/gate.h"
#include "kernels/kernels.h"
#include "kernels/math.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#define SIGMOID_SUM_EPS 1e-20f /* DeepSeek-V3's published gate adds it to the sum it divides by */

void gate_spec_from(struct gate_spec *spec, const struct model_desc *desc)
{
    *spec = (struct gate_spec){
        .kind = desc->gate,
        .n_expert = desc->n_expert,
        .top_k = desc->top_k,
        .normalise = desc->gate_normalise,
        .scale = desc->gate_scale,
        .n_group = desc->n_group,
        .topk_group = desc->topk_group,
        .n_domain = desc->n_domain,
        .domain = desc->domain,
    };
}

static int check_groups(const struct gate_spec *spec, struct err *err)
{
    if (spec->kind != GATE_SIGMOID)
        return err_set(err, ERR_MODEL, "gate: %d groups, but only the sigmoid gate has groups",
                       spec->n_group);
    if (spec->n_expert % spec->n_group != 0)
        return err_set(err, ERR_MODEL, "gate: %d groups do not divide %d experts", spec->n_group,
                       spec->n_expert);
    if (spec->topk_group < 1 || spec->topk_group > spec->n_group)
        return err_set(err, ERR_MODEL, "gate: the best %d of %d groups cannot be chosen",
                       spec->topk_group, spec->n_group);
    if (spec->n_expert / spec->n_group * spec->topk_group < spec->top_k)
        return err_set(err, ERR_MODEL, "gate: %d groups of %d experts are fewer than top-%d",
                       spec->topk_group, spec->n_expert / spec->n_group, spec->top_k);
    return 0;
}

static struct domain_desc group_of(const struct gate_spec *spec, int domain)
{
    return spec->n_domain ? spec->domain[domain] : (struct domain_desc){.n_expert = spec->n_expert};
}

static const uint16_t *table_at(const struct gate_spec *spec, int domain, int32_t token)
{
    size_t row = (size_t)domain * (size_t)spec->n_table + (size_t)token;
    return spec->table + row * (size_t)spec->top_k;
}

static int check_table(const struct gate_spec *spec, struct err *err)
{
    if (!spec->table || spec->n_table < 1 || spec->n_table > LIMIT_VOCAB)
        return err_set(err, ERR_MODEL, "gate: a table gate needs its table, got %d tokens",
                       spec->n_table);
    for (int d = 0; d < (spec->n_domain ? spec->n_domain : 1); d++) {
        struct domain_desc group = group_of(spec, d);
        if (group.first < 0 || group.n_expert < spec->top_k ||
            group.n_expert > spec->n_expert - group.first)
            return err_set(
                err, ERR_MODEL, "gate: group %d cannot give top-%d of experts %d-%d of %d", d,
                spec->top_k, group.first, group.first + group.n_expert - 1, spec->n_expert);
        const uint16_t *row = table_at(spec, d, 0);
        for (int64_t i = 0; i < (int64_t)spec->n_table * spec->top_k; i++)
            if (row[i] >= group.n_expert)
                return err_set(err, ERR_MODEL, "gate: the table names expert %d of %d for token %d",
                               row[i], group.n_expert, (int)(i / spec->top_k));
    }
    return 0;
}

int gate_check(const struct gate_spec *spec, struct err *err)
{
    if (spec->kind < GATE_SOFTMAX_TOPK || spec->kind > GATE_TABLE)
        return err_set(err, ERR_MODEL, "gate: unknown kind %d", (int)spec->kind);
    if (spec->n_expert < 1 || spec->n_expert > LIMIT_EXPERTS)
        return err_set(err, ERR_MODEL, "gate: %d experts; 1 to %d are possible", spec->n_expert,
                       LIMIT_EXPERTS);
    if (spec->top_k < 1 || spec->top_k > spec->n_expert || spec->top_k > LIMIT_TOP_K)
        return err_set(err, ERR_MODEL, "gate: top-%d of %d experts cannot be chosen; at most %d",
                       spec->top_k, spec->n_expert,
                       spec->n_expert < LIMIT_TOP_K ? spec->n_expert : LIMIT_TOP_K);
    if (!isfinite(spec->scale) || spec->scale == 0)
        return err_set(err, ERR_MODEL, "gate: scale %g would erase the experts",
                       (double)spec->scale);
    if (spec->bias && spec->kind != GATE_SIGMOID)
        return err_set(err, ERR_MODEL, "gate: only the sigmoid gate has a selection bias");
    if (spec->kind == GATE_TABLE)
        return check_table(spec, err);
    return spec->n_group > 1 ? check_groups(spec, err) : 0;
}

static void softmax(const float *z, int n, float *p)
{
    float most = z[0], sum = 0;
    for (int i = 1; i < n; i++)
        most = z[i] > most ? z[i] : most;
    for (int i = 0; i < n; i++) {
        p[i] = k_expf(z[i] - most);
        sum += p[i];
    }
    for (int i = 0; i < n; i++)
        p[i] /= sum;
}

/* The rows: z [n_expert] -> expert, weight [top_k]. */

static void softmax_topk_row(const struct gate_spec *spec, const float *z, int32_t *expert,
                             float *weight, float *p)
{
    softmax(z, spec->n_expert, p);
    topk(p, spec->n_expert, spec->top_k, expert, weight);
}

static void topk_softmax_row(const struct gate_spec *spec, const float *z, int32_t *expert,
                             float *weight)
{
    float chosen[LIMIT_TOP_K];
    topk(z, spec->n_expert, spec->top_k, expert, chosen);
    softmax(chosen, spec->top_k, weight);
}

/* group_score: the sum of the two best choices c of a group; of its only one, if it has one. */
static float group_score(const float *c, int n)
{
    float best = -INFINITY, second = -INFINITY;
    for (int i = 0; i < n; i++) {
        float s = c[i]; /* a NaN is greater than nothing */
        if (s > best) {
            second = best;
            best = s;
        } else if (s > second) {
            second = s;
        }
    }
    return n > 1 ? best + second : best;
}

/* groups_limit takes the losing groups out of the choice. */
static void groups_limit(const struct gate_spec *spec, float *c)
{
    float score[LIMIT_EXPERTS];
    int n_each = spec->n_expert / spec->n_group;
    for (int g = 0; g < spec->n_group; g++)
        score[g] = group_score(c + g * n_each, n_each);
    for (int g = 0; g < spec->n_group; g++) {
        int n_better = 0;
        for (int h = 0; h < spec->n_group; h++)
            n_better += score[h] > score[g] || (score[h] == score[g] && h < g);
        for (int i = 0; n_better >= spec->topk_group && i < n_each; i++)
            c[g * n_each + i] = -INFINITY;
    }
}

static void sigmoid_row(const struct gate_spec *spec, const float *z, int32_t *expert,
                        float *weight, float *scratch)
{
    float *s = scratch, *c = scratch + spec->n_expert;
    for (int e = 0; e < spec->n_expert; e++) {
        s[e] = k_sigmoidf(z[e]);
        c[e] = spec->bias ? s[e] + spec->bias[e] : s[e];
    }
    if (spec->n_group > 1)
        groups_limit(spec, c);
    topk(c, spec->n_expert, spec->top_k, expert, weight);
    for (int k = 0; k < spec->top_k; k++)
        weight[k] = s[expert[k]];
}

static void table_row(const struct gate_spec *spec, int32_t token, int32_t domain, int32_t *expert,
                      float *weight)
{
    assert(token >= 0 && token < spec->n_table && domain >= 0);
    const uint16_t *entry = table_at(spec, domain, token);
    int32_t first = spec->n_domain ? spec->domain[domain].first : 0;
    for (int k = 0; k < spec->top_k; k++) {
        expert[k] = first + entry[k];
        weight[k] = 1.0f / (float)spec->top_k;
    }
}

static void weights_finish(const struct gate_spec *spec, float *weight)
{
    float sum = 0;
    for (int k = 0; k < spec->top_k; k++)
        sum += weight[k];
    if (spec->kind == GATE_SIGMOID)
        sum += SIGMOID_SUM_EPS;
    for (int k = 0; k < spec->top_k; k++) {
        if (spec->normalise)
            weight[k] /= sum;
        weight[k] *= spec->scale;
    }
}

void gate_select(const struct gate_spec *spec, const float *logits, const int32_t *token,
                 const int32_t *domain, int n_row, int32_t *slot_expert, float *slot_weight,
                 float *scratch)
{
    for (int row = 0; row < n_row; row++) {
        const float *z = logits ? logits + (ptrdiff_t)row * spec->n_expert : NULL;
        int32_t *expert = slot_expert + (ptrdiff_t)row * spec->top_k;
        float *weight = slot_weight + (ptrdiff_t)row * spec->top_k;
        switch (spec->kind) {
        case GATE_SOFTMAX_TOPK:
            softmax_topk_row(spec, z, expert, weight, scratch);
            break;
        case GATE_TOPK_SOFTMAX:
            topk_softmax_row(spec, z, expert, weight);
            break;
        case GATE_SIGMOID:
            sigmoid_row(spec, z, expert, weight, scratch);
            break;
        case GATE_TABLE:
            table_row(spec, token[row], spec->n_domain ? domain[row] : 0, expert, weight);
            break;
        }
        weights_finish(spec, weight);
    }
}
