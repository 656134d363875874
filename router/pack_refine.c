/* pack_refine: what greedy packing leaves on the table. The bin that ends last gives a copy to, or
 * swaps one with, a bin that ends early, if both then end before it did; again until nothing helps.
 * Every step lowers the end of the last bin or the number of bins that end then, so it ends. */
#include "router/pack_space.h"

#define BINS_TRIED 8   /* lightest bins that a swap is looked for with */
#define STEPS_MAX  512 /* a bound for the largest clusters */

struct swap {
    int bin, give, take; /* slots: of the last bin, of the other */
    double end;          /* of the later of the two, afterwards */
};

static double load_at(const struct pack_space *space, int32_t expert)
{
    return expert < 0 ? 0 : space->each[expert];
}

static int last_bin(const struct pack *p, const struct pack_space *space)
{
    int last = 0;
    for (int bin = 1; bin < p->n_bin; bin++)
        if (space->work[bin] * space->pace[bin] > space->work[last] * space->pace[last])
            last = bin;
    return last;
}

/* lightest_bins: those that end first, ascending. */
static int lightest_bins(const struct pack *p, const struct pack_space *space, int not_bin,
                         int out[BINS_TRIED])
{
    int n = 0;
    for (int bin = 0; bin < p->n_bin; bin++) {
        if (bin == not_bin)
            continue;
        double end = space->work[bin] * space->pace[bin];
        int at = n;
        while (at > 0 && end < space->work[out[at - 1]] * space->pace[out[at - 1]])
            at--;
        if (at == BINS_TRIED)
            continue;
        n = n < BINS_TRIED ? n + 1 : n;
        for (int i = n - 1; i > at; i--)
            out[i] = out[i - 1];
        out[at] = bin;
    }
    return n;
}

static int allowed(const int32_t *from, int n_from, int32_t a, const int32_t *to, int n_to,
                   int32_t b)
{
    return !pack_holds(to, n_to, a) && (b < 0 || !pack_holds(from, n_from, b));
}

/* best_swap looks through all pairs of slots of two bins. An improvement below a millionth of the
 * end counts as none: it may be rounding. */
static void best_swap(const struct pack *p, const struct pack_space *space, int from, int to,
                      struct swap *best)
{
    int n_from, n_to;
    const int32_t *a = pack_slots(p, from, &n_from), *b = pack_slots(p, to, &n_to);
    for (int i = 0; i < n_from; i++) {
        double heavy = load_at(space, a[i]);
        for (int k = 0; heavy > 0 && k < n_to; k++) {
            double less = heavy - load_at(space, b[k]);
            double end_from = (space->work[from] - less) * space->pace[from];
            double end_to = (space->work[to] + less) * space->pace[to];
            double end = end_from > end_to ? end_from : end_to;
            if (end < best->end * (1 - 1e-6) && allowed(a, n_from, a[i], b, n_to, b[k]))
                *best = (struct swap){to, i, k, end};
        }
    }
}

static void do_swap(const struct pack *p, struct pack_space *space, int from,
                    const struct swap *swap)
{
    int n;
    int32_t *a = pack_slots(p, from, &n) + swap->give;
    int32_t *b = pack_slots(p, swap->bin, &n) + swap->take;
    double less = load_at(space, *a) - load_at(space, *b);
    int32_t moved = *a;
    *a = *b;
    *b = moved;
    space->work[from] -= less;
    space->work[swap->bin] += less;
}

static double mean_end(const struct pack *p, const struct pack_space *space)
{
    double work = 0, power = 0;
    for (int bin = 0; bin < p->n_bin; bin++) {
        work += space->work[bin];
        power += 1 / space->pace[bin];
    }
    return work / power;
}

void pack_refine(const struct pack *p, struct pack_space *space, double close)
{
    double good = mean_end(p, space) * (1 + close);
    for (int step = 0; step < STEPS_MAX; step++) {
        int from = last_bin(p, space), light[BINS_TRIED];
        double end = space->work[from] * space->pace[from];
        if (end <= good)
            return;
        struct swap best = {.bin = -1, .end = end};
        int n = lightest_bins(p, space, from, light);
        for (int i = 0; i < n && best.bin < 0; i++)
            best_swap(p, space, from, light[i], &best);
        if (best.bin < 0)
            return;
        do_swap(p, space, from, &best);
    }
}

/* The copy to give up: the one whose going leaves its expert with the least load a copy. */
static int32_t least_missed(const struct pack *p, const struct pack_space *space)
{
    int32_t best = -1;
    double least = 0;
    for (int i = 0; i < p->n_item; i++) {
        int32_t expert = p->item[i];
        if (space->copies[expert] < 2)
            continue;
        double left = p->weight[expert] / (space->copies[expert] - 1);
        if (best < 0 || left < least) {
            best = expert;
            least = left;
        }
    }
    return best;
}

/* The expert to copy: one that nobody holds, else the one with the most load a copy. */
static int32_t most_needed(const struct pack *p, const struct pack_space *space)
{
    int32_t best = -1;
    for (int i = 0; i < p->n_item; i++) {
        int32_t expert = p->item[i];
        if (space->copies[expert] == 0)
            return expert;
        if (space->copies[expert] < p->n_bin &&
            (best < 0 || space->each[expert] > space->each[best]))
            best = expert;
    }
    return best;
}

/* slot_for: the slot with `old` (-1: an empty one) on the bin that ends first among those without
 * `expert`. */
static int32_t *slot_for(const struct pack *p, const struct pack_space *space, int32_t expert,
                         int32_t old)
{
    int32_t *found = NULL;
    double first = 0;
    for (int bin = 0; bin < p->n_bin; bin++) {
        int n;
        int32_t *slot = pack_slots(p, bin, &n);
        double end = space->work[bin] * space->pace[bin];
        for (int i = 0; i < n; i++)
            if (slot[i] == old && (!found || end < first) && !pack_holds(slot, n, expert)) {
                found = &slot[i];
                first = end;
            }
    }
    return found;
}

void pack_improve(const struct pack *p, struct pack_space *space, double close)
{
    pack_weigh(p, space);
    for (int step = 0; step < STEPS_MAX; step++) {
        int32_t wanted = most_needed(p, space), old = least_missed(p, space);
        int missing = wanted >= 0 && space->copies[wanted] == 0;
        int pays = old >= 0 && wanted >= 0 && old != wanted &&
                   p->weight[old] / (space->copies[old] - 1) < space->each[wanted] * (1 - close);
        if (!missing && !pays)
            break;
        int32_t *slot = missing ? slot_for(p, space, wanted, -1) : NULL;
        if (!slot && old >= 0)
            slot = slot_for(p, space, wanted, old);
        if (!slot)
            break;
        *slot = wanted;
        pack_weigh(p, space);
    }
    pack_refine(p, space, close);
}
