/* engine_world: what the tests of the engine share: a tiny model with its dense weights and, where
 * a test wants one, a simulated cluster that holds its experts with an engine above. */
#ifndef TESTS_UNIT_COORDINATOR_ENGINE_WORLD_H
#define TESTS_UNIT_COORDINATOR_ENGINE_WORLD_H

#include "coordinator/engine.h"
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

struct engine_world {
    struct model *model;
    const struct kernels *kernels;
    struct dense_weights *weights;
    /* After engine_world_share: each expert is at two of n_worker. */
    struct wire_shape shape;
    uint8_t *held; /* [n_worker, n_layer * n_expert] 0/1 */
    int n_worker;
};

static inline void engine_world_open(struct engine_world *w, const char *dir)
{
    struct err err = {0};
    *w = (struct engine_world){0};
    if (kernels_open(&w->kernels, &err) != 0 || model_open(dir, &w->model, &err) != 0 ||
        weights_load_dense(w->model, PRECISION_BF16, NULL, &w->weights, &err) != 0) {
        fail_msg("%s", err.text);
    }
    team_flush_denormals();
}

static inline void engine_world_share(struct engine_world *w, int n_worker)
{
    const struct model_desc *d = &w->model->desc;
    w->shape =
        (struct wire_shape){d->n_layer, d->n_expert, d->d_model, 512, d->top_k, DTYPE_BF16, 0};
    w->n_worker = n_worker;
    w->held = calloc((size_t)(n_worker * d->n_layer * d->n_expert), 1);
    assert_non_null(w->held);
    for (int l = 0; l < d->n_layer; l++) {
        for (int e = 0; e < d->n_expert; e++) {
            for (int r = 0; r < 2; r++) {
                w->held[((e + r) % n_worker * d->n_layer + l) * d->n_expert + e] = 1;
            }
        }
    }
}

static inline void engine_world_close(struct engine_world *w)
{
    weights_free_dense(w->weights);
    model_close(w->model);
    free(w->held);
}

/* engine_world_config: an engine that computes all by itself; the caller says how large it is. */
static inline struct engine_config engine_world_config(const struct engine_world *w)
{
    return (struct engine_config){.model = w->model,
                                  .weights = w->weights,
                                  .kernels = w->kernels,
                                  .precision = PRECISION_BF16,
                                  .clock = &clock_real};
}

/* engine_run: until nothing is left to do, in at most as many steps as no test needs. */
static inline void engine_run(struct engine *e)
{
    struct err err = {0};
    int moved, n = 0;
    while ((moved = engine_step(e, &err)) > 0) {
        assert_true(++n < 1000000);
    }
    if (moved != 0) {
        fail_msg("%s", err.text);
    }
}

/* ---- over a simulated cluster ---- */

struct rig {
    struct sim *sim;
    struct wire_shape shape;
    struct pool *pool;
    struct engine *engine;
};

/* rig_open: `ec` says how large the engine is, `sc` what happens to messages and workers. */
static inline void rig_open(struct rig *r, const struct engine_world *w, struct sim_config sc,
                            struct engine_config ec)
{
    struct err err = {0};
    sc.shape = w->shape;
    sc.fingerprint = w->model->fingerprint;
    sc.n_worker = w->n_worker;
    sc.credits = 2;
    sc.row_limit = 512;
    sc.held = w->held;
    r->sim = sim_create(&sc);
    sim_faults(r->sim, 0);
    r->shape = w->shape;
    struct pool_config pc = {.model = w->model,
                             .precision = PRECISION_BF16,
                             .numerics = "sim",
                             .clock = sim_clock(r->sim),
                             .transport = sim_transport(r->sim),
                             .call_timeout_ns = 2 * NS_PER_S,
                             .ping_interval_ns = 100 * NS_PER_MS,
                             .ping_timeout_ns = NS_PER_S,
                             .choice = REPLICA_LEAST_LOADED,
                             .local = sim_local,
                             .local_user = &r->shape,
                             .seed = 1};
    assert_int_equal(pool_create(&pc, &r->pool, &err), 0);
    assert_int_equal(pool_connect(r->pool, sim_endpoints(), w->n_worker, &err), 0);
    sim_faults(r->sim, 1);
    ec.model = w->model;
    ec.weights = w->weights;
    ec.kernels = w->kernels;
    ec.precision = PRECISION_BF16;
    ec.pool = r->pool;
    ec.clock = sim_clock(r->sim);
    assert_int_equal(engine_create(&ec, &r->engine, &err), 0);
}

/* rig_close: every page has come back and the pool has kept its promises. */
static inline void rig_close(struct rig *r)
{
    struct engine_stats stats;
    engine_stats_get(r->engine, &stats);
    assert_int_equal(stats.kv_pages_free, stats.kv_pages);
    assert_null(sim_violation(r->sim));
    engine_destroy(r->engine);
    pool_destroy(r->pool);
    sim_destroy(r->sim);
}

static inline struct sim_config sim_calm(uint64_t seed)
{
    return (struct sim_config){
        .seed = seed, .delay_max_ns = NS_PER_MS, .compute_max_ns = NS_PER_MS};
}

/* sim_storm: messages are late, lost, doubled and refused, workers refuse, hang, die and forget. */
static inline struct sim_config sim_storm(uint64_t seed)
{
    return (struct sim_config){.seed = seed,
                               .delay_max_ns = 20 * NS_PER_MS,
                               .compute_max_ns = 5 * NS_PER_MS,
                               .down_max_ns = 3 * NS_PER_S,
                               .drop = 5,
                               .duplicate = 20,
                               .again = 20,
                               .not_held = 10,
                               .fail = 5,
                               .hang = 2,
                               .die = 3,
                               .forget = 2,
                               .revive = 1};
}

#endif
