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

/* level: how far the first n workers are filled when together they take `rows`. */
static double level(const struct asked *a, const int32_t *worker, int n, int32_t rows)
{
    double work = rows, power = 0;
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

/* last_gets: how many rows the last of n workers gets if that pays: its part of an even filling, or
 * just a piece, if it then still ends before the others would without it. 0: leave it out. */
static int32_t last_gets(const struct asked *a, const int32_t *worker, const double *at, int n,
                         int32_t piece_min)
{
    double speed = speed_of(a, worker[n - 1]);
    int32_t even = (int32_t)((level(a, worker, n, a->count) - at[n - 1]) * speed);
    if (even >= piece_min)
        return even;
    double end = at[n - 1] + piece_min / speed;
    return end < level(a, worker, n - 1, a->count) ? piece_min : 0;
}

/* split: the most workers among whom everyone gets a piece worth having. Pieces are rounded down;
 * what is left over goes to the one that is filled least. Returns 0 when it does not pay. */
static int split(const struct asked *a, int32_t piece_min, struct share *share)
{
    int32_t worker[PLAN_SPLIT_WAYS], last = 0;
    double at[PLAN_SPLIT_WAYS];
    int n = lightest(a, worker, at);
    int most = a->count / piece_min;
    n = n < most ? n : most;
    while (n > 1 && (last = last_gets(a, worker, at, n, piece_min)) == 0)
        n--;
    if (n < 2)
        return 0;
    int32_t left = a->count - last;
    double full = level(a, worker, n - 1, left);
    share[n - 1] = (struct share){.worker = worker[n - 1], .count = last};
    for (int i = 0; i < n - 1; i++) {
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

static int32_t piece_min_of(const struct plan_input *in)
{
    return in->split_rows > PLAN_SPLIT_ROWS_MIN ? in->split_rows : PLAN_SPLIT_ROWS_MIN;
}

int replica_ways(const struct plan_input *in, int32_t count, int n_holder)
{
    int by_load = in->choice == REPLICA_LEAST_LOADED || in->choice == REPLICA_BY_SPEED;
    int ways = n_holder < PLAN_SPLIT_WAYS ? n_holder : PLAN_SPLIT_WAYS;
    if (in->split_rows <= 0 || !by_load || count < 2 * piece_min_of(in))
        return 1;
    return count / piece_min_of(in) < ways ? count / piece_min_of(in) : ways;
}

int replica_share(const struct plan_input *in, int expert, int32_t count, const int32_t *holder,
                  int n_holder, const int32_t *worker_count, struct share *share)
{
    struct asked a = {in, expert, count, holder, n_holder, worker_count};
    int n = replica_ways(in, count, n_holder) > 1 ? split(&a, piece_min_of(in), share) : 0;
    if (n > 0)
        return n;
    int32_t worker = n_holder == 1 ? holder[0] : choose(&a);
    share[0] = (struct share){.worker = worker, .count = count};
    return 1;
}
