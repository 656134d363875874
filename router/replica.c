/* replica: the choices between holders, one function each, and the split of a hot expert. */
#include "router/replica.h"
#include "base/rng.h"

#include <math.h>

struct asked {
    const struct plan_input *in;
    int expert;
    int32_t count;
    const int32_t *holder; /* [n] */
    int n;
    const int32_t *worker_count;
};

static int64_t load_of(const struct asked *a, int32_t worker)
{
    return (int64_t)a->worker_count[worker] + (a->in->load ? a->in->load[worker] : 0);
}

static double speed_of(const struct asked *a, int32_t worker)
{
    return a->in->speed ? (double)a->in->speed[worker] : 1.0;
}

static int32_t least_loaded(const struct asked *a)
{
    int32_t best = a->holder[0];
    for (int i = 1; i < a->n; i++)
        if (load_of(a, a->holder[i]) < load_of(a, best))
            best = a->holder[i];
    return best;
}

static double end_of(const struct asked *a, int32_t worker)
{
    return (double)(load_of(a, worker) + a->count) / speed_of(a, worker);
}

static int32_t first_to_end(const struct asked *a)
{
    int32_t best = a->holder[0];
    for (int i = 1; i < a->n; i++)
        if (end_of(a, a->holder[i]) < end_of(a, best))
            best = a->holder[i];
    return best;
}

static int32_t nearest(const struct asked *a)
{
    const int32_t *distance = a->in->distance;
    if (!distance)
        return least_loaded(a);
    int32_t best = a->holder[0];
    for (int i = 1; i < a->n; i++) {
        int32_t worker = a->holder[i];
        if (distance[worker] < distance[best] ||
            (distance[worker] == distance[best] && load_of(a, worker) < load_of(a, best)))
            best = worker;
    }
    return best;
}

static int32_t of_two(const struct asked *a)
{
    uint32_t word[4];
    rng_block(a->in->seed, (uint64_t)a->in->layer, (uint64_t)a->expert, word);
    int i = (int)(word[0] % (uint32_t)a->n);
    int j = (int)((uint32_t)i + 1 + word[1] % (uint32_t)(a->n - 1)) % a->n;
    int32_t low = a->holder[i < j ? i : j], high = a->holder[i < j ? j : i];
    return load_of(a, high) < load_of(a, low) ? high : low;
}

static int32_t in_turn(const struct asked *a)
{
    uint64_t turn = a->in->seed + (uint64_t)a->in->layer + (uint64_t)a->expert;
    return a->holder[turn % (uint64_t)a->n];
}

static int32_t choose(const struct asked *a)
{
    switch (a->in->choice) {
    case REPLICA_FIRST:
        return a->holder[0];
    case REPLICA_LEAST_LOADED:
        return least_loaded(a);
    case REPLICA_ROUND_ROBIN:
        return in_turn(a);
    case REPLICA_TWO_CHOICES:
        return of_two(a);
    case REPLICA_BY_SPEED:
        return first_to_end(a);
    case REPLICA_LOCAL:
        return nearest(a);
    }
    return a->holder[0];
}

/* The holders with the smallest load / speed, ascending, at most PLAN_SPLIT_WAYS. */
static int lightest(const struct asked *a, int32_t *worker, double *at)
{
    int n = 0;
    for (int i = 0; i < a->n; i++) {
        double end = (double)load_of(a, a->holder[i]) / speed_of(a, a->holder[i]);
        int k = n < PLAN_SPLIT_WAYS ? n++ : n;
        for (; k > 0 && end < at[k - 1]; k--) {
            if (k == PLAN_SPLIT_WAYS)
                continue;
            at[k] = at[k - 1];
            worker[k] = worker[k - 1];
        }
        if (k < PLAN_SPLIT_WAYS) {
            at[k] = end;
            worker[k] = a->holder[i];
        }
    }
    return n;
}

/* level: how far the first n workers are filled when together they take all the rows. */
static double level(const struct asked *a, const int32_t *worker, int n)
{
    double work = a->count, power = 0;
    for (int i = 0; i < n; i++) {
        work += (double)load_of(a, worker[i]);
        power += speed_of(a, worker[i]);
    }
    return work / power;
}

static void sort_by_worker(struct share *share, int n)
{
    for (int i = 1; i < n; i++) {
        struct share moved = share[i];
        int k = i;
        for (; k > 0 && share[k - 1].worker > moved.worker; k--)
            share[k] = share[k - 1];
        share[k] = moved;
    }
}

/* split: the most workers among whom everyone gets a piece worth having. Pieces are rounded down;
 * what is left over goes to the one that is filled least. Returns 0 when it does not pay. */
static int split(const struct asked *a, int32_t piece_min, struct share *share)
{
    int32_t worker[PLAN_SPLIT_WAYS];
    double at[PLAN_SPLIT_WAYS];
    int n = lightest(a, worker, at);
    for (; n > 1; n--) {
        double full = level(a, worker, n);
        if (floor((full - at[n - 1]) * speed_of(a, worker[n - 1])) >= piece_min)
            break;
    }
    double full = level(a, worker, n);
    int32_t left = a->count;
    for (int i = 0; i < n; i++) {
        int32_t piece = (int32_t)((full - at[i]) * speed_of(a, worker[i]));
        share[i] = (struct share){.worker = worker[i], .count = piece < left ? piece : left};
        left -= share[i].count;
    }
    share[0].count += left;
    for (int i = 0; i < n; i++)
        if (share[i].count < piece_min)
            return 0;
    sort_by_worker(share, n);
    return n;
}

int replica_share(const struct plan_input *in, int expert, int32_t count, const int32_t *holder,
                  int n_holder, const int32_t *worker_count, struct share *share)
{
    struct asked a = {in, expert, count, holder, n_holder, worker_count};
    int32_t piece_min = in->split_rows > PLAN_SPLIT_ROWS_MIN ? in->split_rows : PLAN_SPLIT_ROWS_MIN;
    int may_split = in->split_rows > 0 && n_holder > 1 && count >= 2 * piece_min &&
                    (in->choice == REPLICA_LEAST_LOADED || in->choice == REPLICA_BY_SPEED);
    int n = may_split ? split(&a, piece_min, share) : 0;
    if (n > 0)
        return n;
    int32_t worker = n_holder == 1 ? holder[0] : choose(&a);
    share[0] = (struct share){.worker = worker, .count = count};
    return 1;
}
