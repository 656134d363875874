/* rebalance_plan: where experts go when a worker leaves or comes. Only what must move moves: a
 * worker that leaves gives away what nobody else holds, a worker that comes takes its share of what
 * the others hold. Whole placements, from observed loads, are made by router/balance. */
#include "coordinator/rebalance.h"

#include <stdio.h>
#include <stdlib.h>

static int available(const struct pool *pool, int worker)
{
    struct pool_worker_info info;
    pool_worker_info_get(pool, worker, &info);
    return info.alive && !info.retired;
}

/* ---- a worker leaves ---- */

static int least_laden(const struct pool *pool, const struct placement *p, int layer, int expert,
                       const int *load, int worker)
{
    int best = -1;
    for (int w = 0; w < pool_n_worker(pool); w++) {
        if (w == worker || !available(pool, w) || placement_has(p, layer, expert, w)) {
            continue;
        }
        if (best < 0 || load[w] < load[best]) {
            best = w;
        }
    }
    return best;
}

static int move_away(const struct pool *pool, struct placement *p, int worker, int *load,
                     struct err *err)
{
    const int32_t *holder;
    for (int layer = 0; layer < placement_n_layer(p); layer++) {
        for (int e = 0; e < placement_n_expert(p); e++) {
            if (!placement_has(p, layer, e, worker)) {
                continue;
            }
            placement_remove(p, layer, e, worker);
            if (placement_holders(p, layer, e, &holder) > 0) {
                continue;
            }
            int to = least_laden(pool, p, layer, e, load, worker);
            if (to < 0) {
                return err_set(err, ERR_USAGE, "no other worker is there to take its experts");
            }
            int rc = placement_add(p, layer, e, to, err);
            if (rc) {
                return rc;
            }
            load[to]++;
        }
    }
    return 0;
}

int rebalance_drain(struct rebalance *r, int worker, struct err *err)
{
    struct pool *pool = rebalance_pool(r);
    struct pool_worker_info info;
    char why[128];
    struct placement *p;
    if (worker < 0 || worker >= pool_n_worker(pool)) {
        return err_set(err, ERR_USAGE, "there is no worker %d", worker);
    }
    pool_worker_info_get(pool, worker, &info);
    if (info.retired) {
        return err_set(err, ERR_USAGE, "worker %s is drained already", info.name);
    }
    int *load = calloc((size_t)pool_n_worker(pool), sizeof(*load));
    if (!load) {
        return err_set(err, ERR_NOMEM, "no memory to plan a drain");
    }
    for (int w = 0; w < pool_n_worker(pool); w++) {
        struct pool_worker_info other;
        pool_worker_info_get(pool, w, &other);
        load[w] = other.n_held;
    }
    int rc = placement_copy(pool_placement(pool), &p, err);
    if (rc == 0) {
        int32_t retire = worker;
        rc = move_away(pool, p, worker, load, err);
        snprintf(why, sizeof(why), "drain of worker %.100s", info.name);
        rc = rc ? rc : rebalance_start(r, p, &retire, 1, why, err);
        placement_destroy(p);
    }
    free(load);
    return rc;
}

/* ---- a worker comes ---- */

/* count writes how many experts of the layer each worker has in the table. */
static void count(const struct placement *p, int layer, int *n_held, int n_worker)
{
    const int32_t *holder;
    for (int w = 0; w < n_worker; w++) {
        n_held[w] = 0;
    }
    for (int e = 0; e < placement_n_expert(p); e++) {
        int n = placement_holders(p, layer, e, &holder);
        for (int i = 0; i < n; i++) {
            n_held[holder[i]]++;
        }
    }
}

/* take_one moves an expert of the worker that has most to `worker`; 0 when no move would even the
 * layer out. */
static int take_one(struct placement *p, int layer, int worker, int *n_held, int n_worker,
                    struct err *err)
{
    int from = -1;
    for (int w = 0; w < n_worker; w++) {
        if (w != worker && (from < 0 || n_held[w] > n_held[from])) {
            from = w;
        }
    }
    if (from < 0 || n_held[from] <= n_held[worker] + 1) {
        return 0;
    }
    for (int e = placement_n_expert(p) - 1; e >= 0; e--) {
        if (placement_has(p, layer, e, from) && !placement_has(p, layer, e, worker)) {
            placement_remove(p, layer, e, from);
            n_held[from]--;
            n_held[worker]++;
            int rc = placement_add(p, layer, e, worker, err);
            return rc ? rc : 1;
        }
    }
    return 0;
}

static int take_share(const struct pool *pool, struct placement *p, int worker, int *n_held,
                      struct err *err)
{
    int n_worker = pool_n_worker(pool), rc = 0;
    for (int layer = 0; layer < placement_n_layer(p) && rc >= 0; layer++) {
        for (int e = 0; e < placement_n_expert(p) && rc >= 0; e++) {
            if (pool_held(pool, worker, layer, e) && !placement_has(p, layer, e, worker)) {
                rc = placement_add(p, layer, e, worker, err);
            }
        }
        count(p, layer, n_held, n_worker);
        while (rc >= 0 && (rc = take_one(p, layer, worker, n_held, n_worker, err)) > 0) {
        }
    }
    return rc < 0 ? rc : 0;
}

int rebalance_join(struct rebalance *r, int worker, struct err *err)
{
    struct pool *pool = rebalance_pool(r);
    struct pool_worker_info info;
    char why[128];
    struct placement *p;
    pool_worker_info_get(pool, worker, &info);
    if (!info.alive) {
        return err_set(err, ERR_AGAIN, "worker %s has not been welcomed yet", info.name);
    }
    int *n_held = calloc((size_t)pool_n_worker(pool), sizeof(*n_held));
    int rc = n_held ? placement_copy(pool_placement(pool), &p, err)
                    : err_set(err, ERR_NOMEM, "no memory to plan a share");
    if (rc == 0) {
        rc = take_share(pool, p, worker, n_held, err);
        snprintf(why, sizeof(why), "join of worker %.100s", info.name);
        rc = rc ? rc : rebalance_start(r, p, NULL, 0, why, err);
        placement_destroy(p);
    }
    free(n_held);
    return rc;
}
