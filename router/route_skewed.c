/* route_skewed: traffic with a known skew. Which experts are hot is drawn anew for each layer, and
 * a row's slots are different experts.
 *   zipf   popularity of rank r is 1 / (r + 1)^s;
 *   k-hot  n_hot experts get a given share of the slots, evenly, the others the rest.
 * With domain_share, so many of the slots follow the ranks of the row's own domain, which are those
 * of the layer turned by a random amount: domains then have hot experts of their own. */
#include "router/route.h"

#include <math.h>

#define ZIPF_EXPONENT 1.0
#define HOT_SHARE     0.9
#define TRIES         8 /* draws of a slot before what is left is summed exactly */

struct skew {
    const struct route_input *in;
    int32_t *expert; /* [n_expert] the expert of each rank */
    double *below;   /* [n_expert] zipf: probability of a lower rank */
    int n_hot;
    double hot_share;
};

/* ranks_draw: a random order of the experts, the same for every batch of the layer. */
static void ranks_draw(struct skew *s)
{
    int n = s->in->n_expert;
    for (int i = 0; i < n; i++)
        s->expert[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int k = (int)(route_draw_id(s->in, ROUTE_DRAW_RANK, (uint64_t)i, 0) * (i + 1));
        int32_t moved = s->expert[i];
        s->expert[i] = s->expert[k];
        s->expert[k] = moved;
    }
}

/* turn_of: by how much the ranks are turned for this slot. */
static int turn_of(const struct skew *s, int row, uint32_t draw)
{
    const struct route_input *in = s->in;
    if (!(in->domain_share > 0) || !in->domain || in->domain[row] < 0 ||
        route_draw(in, row, draw) >= in->domain_share)
        return 0;
    double u = route_draw_id(in, ROUTE_DRAW_DOMAIN, (uint64_t)in->domain[row], 0);
    return (int)(u * in->n_expert);
}

static int chosen(const int32_t *slot, int n, int32_t expert)
{
    for (int i = 0; i < n; i++)
        if (slot[i] == expert)
            return 1;
    return 0;
}

static int32_t expert_at(const struct skew *s, int rank, int turn)
{
    int at = rank + turn;
    return s->expert[at < s->in->n_expert ? at : at - s->in->n_expert];
}

static int rank_of(const struct skew *s, double u)
{
    int low = 0, high = s->in->n_expert - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (s->below[middle] <= u)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static double mass_of(const struct skew *s, int rank)
{
    return (rank + 1 < s->in->n_expert ? s->below[rank + 1] : 1.0) - s->below[rank];
}

/* zipf_left draws among the experts not chosen yet by summing what they have. */
static int32_t zipf_left(const struct skew *s, const int32_t *slot, int n, int turn, double u)
{
    double left = 0;
    int32_t last = -1;
    for (int r = 0; r < s->in->n_expert; r++)
        left += chosen(slot, n, expert_at(s, r, turn)) ? 0 : mass_of(s, r);
    for (int r = 0; r < s->in->n_expert; r++) {
        if (chosen(slot, n, expert_at(s, r, turn)))
            continue;
        last = expert_at(s, r, turn);
        u -= mass_of(s, r) / left;
        if (u < 0)
            break;
    }
    return last;
}

static int32_t zipf_slot(const struct skew *s, int row, int k, const int32_t *slot)
{
    uint32_t draw = (uint32_t)k * (TRIES + 2);
    int turn = turn_of(s, row, draw++);
    for (int i = 0; i < TRIES; i++) {
        int32_t expert = expert_at(s, rank_of(s, route_draw(s->in, row, draw++)), turn);
        if (!chosen(slot, k, expert))
            return expert;
    }
    return zipf_left(s, slot, k, turn, route_draw(s->in, row, draw));
}

/* one_of draws a rank in [first, end) whose expert is not chosen yet; -1: all are. */
static int32_t one_of(const struct skew *s, int first, int end, int turn, const int32_t *slot,
                      int n, double u)
{
    int free_ranks = 0;
    for (int r = first; r < end; r++)
        free_ranks += !chosen(slot, n, expert_at(s, r, turn));
    int at = (int)(u * free_ranks);
    for (int r = first; r < end; r++)
        if (!chosen(slot, n, expert_at(s, r, turn)) && at-- == 0)
            return expert_at(s, r, turn);
    return -1;
}

static int32_t hot_slot(const struct skew *s, int row, int k, const int32_t *slot)
{
    uint32_t draw = (uint32_t)k * 3;
    int turn = turn_of(s, row, draw), n_hot = s->n_hot, n = s->in->n_expert;
    int hot = route_draw(s->in, row, draw + 1) < s->hot_share;
    double u = route_draw(s->in, row, draw + 2);
    int32_t expert = one_of(s, hot ? 0 : n_hot, hot ? n_hot : n, turn, slot, k, u);
    return expert >= 0 ? expert : one_of(s, 0, n, turn, slot, k, u);
}

static int skew_init(struct skew *s, const struct route_input *in, struct arena *mem,
                     struct err *err)
{
    s->in = in;
    s->expert = arena_alloc(mem, (size_t)in->n_expert * sizeof(*s->expert));
    s->below = arena_alloc(mem, (size_t)in->n_expert * sizeof(*s->below));
    if (!s->expert || !s->below)
        return route_no_memory(in, err);
    ranks_draw(s);
    return 0;
}

int route_zipf(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
               struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats;
    struct skew s = {0};
    double sum = 0, exponent = in->zipf_exponent > 0 ? in->zipf_exponent : ZIPF_EXPONENT;
    int rc = skew_init(&s, in, mem, err);
    if (rc)
        return rc;
    for (int r = 0; r < in->n_expert; r++)
        sum += pow(r + 1, -exponent);
    double below = 0;
    for (int r = 0; r < in->n_expert; r++) {
        s.below[r] = below;
        below += pow(r + 1, -exponent) / sum;
    }
    for (int row = 0; row < in->n_row; row++)
        for (int k = 0; k < in->top_k; k++) {
            int32_t *slot = slot_expert + (size_t)row * (size_t)in->top_k;
            slot[k] = zipf_slot(&s, row, k, slot);
        }
    route_weights(in, slot_weight);
    return 0;
}

int route_k_hot(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats;
    struct skew s = {.n_hot = in->n_hot > 0 ? in->n_hot : in->top_k,
                     .hot_share = in->hot_share > 0 ? in->hot_share : HOT_SHARE};
    if (s.n_hot > in->n_expert || s.hot_share > 1)
        return err_set(err, ERR_USAGE, "%d hot of %d experts with %g of the slots is impossible",
                       s.n_hot, in->n_expert, s.hot_share);
    int rc = skew_init(&s, in, mem, err);
    if (rc)
        return rc;
    for (int row = 0; row < in->n_row; row++)
        for (int k = 0; k < in->top_k; k++) {
            int32_t *slot = slot_expert + (size_t)row * (size_t)in->top_k;
            slot[k] = hot_slot(&s, row, k, slot);
        }
    route_weights(in, slot_weight);
    return 0;
}
