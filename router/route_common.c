/* route_common: what every routing strategy may rely on, checked once, and what several use. Random
 * numbers are Philox at (seed; what is decided about), so that a row's draw does not depend on its
 * batch. */
#include "base/limits.h"
#include "base/rng.h"
#include "kernels/math.h"
#include "router/route.h"

#include <math.h>

#define CAPACITY_FACTOR 1.25
#define DRAWS_A_LAYER   (1u << 16) /* more than any row makes */

double route_draw(const struct route_input *in, int row, uint32_t n)
{
    uint64_t id = in->row_id ? in->row_id[row] : (uint64_t)row;
    return rng_uniform(in->seed, id, (uint64_t)in->layer * DRAWS_A_LAYER + n);
}

double route_draw_id(const struct route_input *in, uint32_t kind, uint64_t id, uint32_t n)
{
    uint64_t stream = ~(((uint64_t)kind << 32) + (uint64_t)in->layer);
    return rng_uniform(in->seed, stream, id * DRAWS_A_LAYER + n);
}

void route_weights(const struct route_input *in, float *slot_weight)
{
    for (int64_t i = 0; i < (int64_t)in->n_row * in->top_k; i++)
        slot_weight[i] = in->gate_weight ? in->gate_weight[i] : 1.0f / (float)in->top_k;
}

void route_scores(const struct route_input *in, int row, float *score)
{
    const float *z = in->logits + (size_t)row * (size_t)in->n_expert;
    float most = z[0], sum = 0;
    for (int e = 1; e < in->n_expert; e++)
        most = z[e] > most ? z[e] : most;
    for (int e = 0; e < in->n_expert; e++) {
        score[e] = k_expf(z[e] - most);
        sum += score[e];
    }
    for (int e = 0; e < in->n_expert; e++)
        score[e] /= sum;
}

int32_t route_capacity(const struct route_input *in)
{
    double factor = in->capacity_factor > 0 ? in->capacity_factor : CAPACITY_FACTOR;
    double each = ceil(factor * in->n_row * in->top_k / in->n_expert);
    return each < 1 ? 1 : each < in->n_row ? (int32_t)each : in->n_row;
}

int route_need(const void *input, const char *strategy, const char *what, struct err *err)
{
    if (input)
        return 0;
    return err_set(err, ERR_USAGE, "routing '%s' needs %s, which this input does not have",
                   strategy, what);
}

int route_no_memory(const struct route_input *in, struct err *err)
{
    return err_set(err, ERR_NOMEM, "routing %d rows over %d experts needs %zu bytes of its arena",
                   in->n_row, in->n_expert,
                   strategy_route_bytes(in->n_row, in->top_k, in->n_expert));
}

static int check_sizes(const struct route_input *in, struct err *err)
{
    if (in->n_expert < 1 || in->n_expert > LIMIT_EXPERTS || in->top_k < 1 ||
        in->top_k > LIMIT_TOP_K || in->top_k > in->n_expert)
        return err_set(err, ERR_LIMIT, "routing to the top %d of %d experts is impossible",
                       in->top_k, in->n_expert);
    if (in->n_row < 0 || in->n_row > LIMIT_ROWS || in->layer < 0 || in->layer >= LIMIT_LAYERS)
        return err_set(err, ERR_LIMIT, "routing %d rows of layer %d; at most %d rows, layers to %d",
                       in->n_row, in->layer, LIMIT_ROWS, LIMIT_LAYERS - 1);
    return 0;
}

int strategy_route(const struct strategy *s, const struct route_input *in, int32_t *slot_expert,
                   float *slot_weight, struct route_stats *stats, struct arena *mem,
                   struct err *err)
{
    struct route_stats none;
    int rc = check_sizes(in, err);
    for (int64_t i = 0; !rc && in->gate_expert && i < (int64_t)in->n_row * in->top_k; i++)
        if (in->gate_expert[i] >= in->n_expert)
            rc = err_set(err, ERR_LIMIT, "row %d names expert %d of %d", (int)(i / in->top_k),
                         (int)in->gate_expert[i], in->n_expert);
    if (rc)
        return rc;
    stats = stats ? stats : &none;
    *stats = (struct route_stats){0};
    size_t mark = arena_mark(mem);
    rc = s->route(in, slot_expert, slot_weight, stats, mem, err);
    arena_release(mem, mark);
    return rc;
}

size_t strategy_route_bytes(int n_row, int top_k, int n_expert)
{
    size_t rows = (size_t)n_row, experts = (size_t)n_expert;
    return rows * experts * sizeof(float) + rows * (16 + (size_t)top_k * 8) + experts * 32 +
           16 * 64;
}
