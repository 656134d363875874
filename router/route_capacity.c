/* route_capacity: limits on what one expert takes of a batch, capacity_factor times an even share.
 *   expert-choice      experts choose rows (Zhou et al., 2022): each takes the rows with its
 * highest scores; a row may get few experts or none, and keeps its top_k best; capacity-drop rows
 * choose, first choices of all rows before second ones (GShard, 2020); slots over an expert's
 * capacity stay empty; capacity-overflow  as before, but such a slot goes to the row's next best
 * expert with room, with the slot's weight. */
#include "kernels/kernels.h"
#include "router/route.h"

#include <string.h>

/* keep_best puts (expert, score) among a row's slots, best first; the worst falls out. */
static void keep_best(const struct route_input *in, int32_t *expert, float *weight, int32_t e,
                      float score)
{
    int at = in->top_k - 1;
    if (expert[at] >= 0 && !(score > weight[at]))
        return;
    for (; at > 0 && (expert[at - 1] < 0 || score > weight[at - 1]); at--) {
        expert[at] = expert[at - 1];
        weight[at] = weight[at - 1];
    }
    expert[at] = e;
    weight[at] = score;
}

int route_expert_choice(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                        struct route_stats *stats, struct arena *mem, struct err *err)
{
    size_t rows = (size_t)in->n_row, experts = (size_t)in->n_expert;
    size_t n = rows * (size_t)in->top_k;
    int32_t take = route_capacity(in);
    int rc = route_need(in->logits, "expert-choice", "router logits", err);
    if (rc || in->n_row == 0)
        return rc;
    float *score = arena_alloc(mem, rows * experts * sizeof(*score));
    float *column = arena_alloc(mem, rows * sizeof(*column));
    float *best = arena_alloc(mem, rows * sizeof(*best));
    int32_t *row_of = arena_alloc(mem, rows * sizeof(*row_of));
    if (!score || !column || !best || !row_of)
        return route_no_memory(in, err);
    memset(slot_expert, -1, n * sizeof(*slot_expert));
    memset(slot_weight, 0, n * sizeof(*slot_weight));
    for (int row = 0; row < in->n_row; row++)
        route_scores(in, row, score + (size_t)row * experts);
    for (int e = 0; e < in->n_expert; e++) {
        for (size_t row = 0; row < rows; row++)
            column[row] = score[row * experts + (size_t)e];
        topk(column, in->n_row, take, row_of, best);
        for (int i = 0; i < take; i++) {
            size_t at = (size_t)row_of[i] * (size_t)in->top_k;
            keep_best(in, slot_expert + at, slot_weight + at, e, best[i]);
        }
    }
    for (size_t i = 0; i < n; i++)
        stats->n_dropped += slot_expert[i] < 0;
    return 0;
}

/* next_best: the row's best expert that has room and is not in its slots; -1: none. */
static int32_t next_best(const struct route_input *in, int row, const int32_t *slot,
                         const int32_t *taken, int32_t most)
{
    const float *z = in->logits + (size_t)row * (size_t)in->n_expert;
    int32_t best = -1;
    for (int e = 0; e < in->n_expert; e++) {
        int used = taken[e] >= most;
        for (int k = 0; !used && k < in->top_k; k++)
            used = slot[k] == e;
        if (!used && (best < 0 || z[e] > z[best]))
            best = e;
    }
    return best;
}

static int limit(const struct route_input *in, int overflow, int32_t *slot_expert,
                 float *slot_weight, struct route_stats *stats, struct arena *mem, struct err *err)
{
    int32_t most = route_capacity(in);
    int32_t *taken = arena_zalloc(mem, (size_t)in->n_expert * sizeof(*taken));
    if (!taken)
        return route_no_memory(in, err);
    int rc = route_model(in, slot_expert, slot_weight, stats, mem, err);
    for (int k = 0; rc == 0 && k < in->top_k; k++)
        for (int row = 0; row < in->n_row; row++) {
            int32_t *slot = slot_expert + (size_t)row * (size_t)in->top_k;
            if (slot[k] < 0 || taken[slot[k]]++ < most)
                continue;
            taken[slot[k]]--;
            slot[k] = overflow ? next_best(in, row, slot, taken, most) : -1;
            if (slot[k] >= 0) {
                taken[slot[k]]++;
                stats->n_moved++;
            } else {
                slot_weight[(size_t)row * (size_t)in->top_k + (size_t)k] = 0;
                stats->n_dropped++;
            }
        }
    return rc;
}

int route_capacity_drop(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                        struct route_stats *stats, struct arena *mem, struct err *err)
{
    return limit(in, 0, slot_expert, slot_weight, stats, mem, err);
}

int route_capacity_overflow(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                            struct route_stats *stats, struct arena *mem, struct err *err)
{
    int rc = route_need(in->logits, "capacity-overflow", "router logits", err);
    return rc ? rc : limit(in, 1, slot_expert, slot_weight, stats, mem, err);
}
