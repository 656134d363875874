/* route_groups: gates that look at groups of consecutive experts.
 *   group-limited  DeepSeek-V3's: sigmoid scores, a group counts by its two best, only the best
 *                  topk_group of n_group compete;
 *   one-per-group  PanGu Pro's: softmax over all, then the best expert of each of top_k groups, so
 *                  that a device that holds one group gets the same from every row. */
#include "router/route.h"

#define N_GROUP    8
#define TOPK_GROUP 4

int route_group_limited(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                        struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats;
    int own_bias = in->gate && in->gate->kind == GATE_SIGMOID;
    struct gate_spec spec = {.kind = GATE_SIGMOID,
                             .n_expert = in->n_expert,
                             .top_k = in->top_k,
                             .normalise = 1,
                             .scale = in->gate ? in->gate->scale : 1.0f,
                             .n_group = in->n_group > 0 ? in->n_group : N_GROUP,
                             .topk_group = in->topk_group > 0 ? in->topk_group : TOPK_GROUP,
                             .bias = own_bias ? in->gate->bias : NULL};
    int rc = route_need(in->logits, "group-limited", "router logits", err);
    if (rc || (rc = gate_check(&spec, err)) != 0)
        return rc;
    float *scratch = arena_alloc(mem, (size_t)in->n_expert * 2 * sizeof(*scratch));
    if (!scratch)
        return route_no_memory(in, err);
    gate_select(&spec, in->logits, NULL, NULL, in->n_row, slot_expert, slot_weight, scratch);
    return 0;
}

/* put keeps slots by falling weight, equal ones by the lower expert: slot order as gates have it.
 */
static void put(int32_t *expert, float *weight, int n, int32_t e, float score)
{
    int at = n;
    for (; at > 0 && score > weight[at - 1]; at--) {
        expert[at] = expert[at - 1];
        weight[at] = weight[at - 1];
    }
    expert[at] = e;
    weight[at] = score;
}

int route_one_per_group(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                        struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats;
    int n_each = in->n_expert / in->top_k;
    int rc = route_need(in->logits, "one-per-group", "router logits", err);
    if (rc)
        return rc;
    if (in->n_expert % in->top_k != 0)
        return err_set(err, ERR_USAGE, "one-per-group: %d experts do not divide into %d groups",
                       in->n_expert, in->top_k);
    float *score = arena_alloc(mem, (size_t)in->n_expert * sizeof(*score));
    if (!score)
        return route_no_memory(in, err);
    for (int row = 0; row < in->n_row; row++) {
        size_t at = (size_t)row * (size_t)in->top_k;
        route_scores(in, row, score);
        for (int g = 0; g < in->top_k; g++) {
            int best = g * n_each;
            for (int e = best + 1; e < (g + 1) * n_each; e++)
                best = score[e] > score[best] ? e : best;
            put(slot_expert + at, slot_weight + at, g, best, score[best]);
        }
    }
    return 0;
}
