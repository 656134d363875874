/* The engine over the simulated network and clock: whatever is lost, doubled, late, refused or
 * dies, every sequence gets the tokens and the logits of a calm run, alone or in company, and every
 * KV page comes back. The experts are the simulation's (a function of the row's bytes), the rest is
 * a real model, so that a row that went astray changes everything after it. */
#include "base/hash.h"
#include "base/log.h"
#include "coordinator/engine.h"
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_SEQ     5
#define MAX_TOKEN 12
#define N_STORM   400

struct outcome {
    int32_t token[MAX_TOKEN];
    int n_token, n_done;
    enum finish finish;
    struct hash128 logits[64];
    int n_logits, n_slot;
};

struct fixture {
    struct model *model;
    const struct kernels *kernels;
    struct dense_weights *weights;
    uint8_t *held;
    struct wire_shape shape;
};

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct outcome *o = user;
    assert_int_equal(pos, o->n_logits);
    o->logits[o->n_logits++] = hash_bytes(logits, (size_t)vocab * sizeof *logits);
}

static int on_token(void *user, int32_t token)
{
    struct outcome *o = user;
    o->token[o->n_token++] = token;
    return 0;
}

static void on_computed(void *user, const int32_t *slot_expert, const int16_t *slot_worker,
                        int n_slot)
{
    struct outcome *o = user;
    (void)slot_expert;
    (void)slot_worker;
    o->n_slot += n_slot;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct outcome *o = user;
    o->finish = reason;
    o->n_done++;
    assert_null(err);
}

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    struct err err = {0};
    assert_int_equal(kernels_open(&x->kernels, &err), 0);
    assert_int_equal(model_open(TESTS_DIR "/fixtures/tiny/mixtral", &x->model, &err), 0);
    assert_int_equal(weights_load_dense(x->model, PRECISION_BF16, NULL, &x->weights, &err), 0);
    const struct model_desc *d = &x->model->desc;
    x->shape =
        (struct wire_shape){d->n_layer, d->n_expert, d->d_model, 512, d->top_k, DTYPE_BF16, 0};
    /* Each expert at two of four workers. */
    x->held = calloc((size_t)(4 * d->n_layer * d->n_expert), 1);
    for (int l = 0; l < d->n_layer; l++) {
        for (int e = 0; e < d->n_expert; e++) {
            for (int r = 0; r < 2; r++) {
                int w = (e + r) % 4;
                x->held[(w * d->n_layer + l) * d->n_expert + e] = 1;
            }
        }
    }
    team_flush_denormals();
    log_set_level(LOG_ERROR); /* storms are loud */
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    weights_free_dense(x->weights);
    model_close(x->model);
    free(x->held);
    free(x);
    return 0;
}

static void submit(struct engine *e, int vocab, int i, struct outcome *o)
{
    int32_t prompt[32];
    int n = 1 + 7 * i % 23;
    for (int k = 0; k < n; k++) {
        prompt[k] = (int32_t)((5 + 11 * i + 3 * k) % vocab);
    }
    struct request r = {.prompt = prompt,
                        .n_prompt = n,
                        .max_tokens = MAX_TOKEN - i,
                        .sampling = {.temperature = i % 2 ? 0.7f : 0.0f,
                                     .top_p = 1.0f,
                                     .repetition_penalty = 1.0f,
                                     .seed = 3},
                        .ignore_eos = 1,
                        .all_logits = 1,
                        .user = o,
                        .on_logits = on_logits,
                        .on_token = on_token,
                        .on_computed = on_computed,
                        .on_done = on_done};
    uint64_t id;
    assert_int_equal(engine_submit(e, &r, &id, NULL), 0);
}

/* Sequences [first, last) through one engine on one simulated cluster. */
static void run(const struct fixture *x, struct sim_config sc, int n_micro,
                enum speculate_mode guess, int first, int last, struct outcome *out)
{
    struct err err = {0};
    struct pool *pool;
    struct engine *engine;
    struct engine_stats stats;
    sc.shape = x->shape;
    sc.fingerprint = x->model->fingerprint;
    sc.n_worker = 4;
    sc.credits = 2;
    sc.row_limit = 512;
    sc.held = x->held;
    struct sim *sim = sim_create(&sc);
    sim_faults(sim, 0);
    struct wire_shape shape = x->shape;
    struct pool_config pc = {.model = x->model,
                             .precision = PRECISION_BF16,
                             .numerics = "sim",
                             .clock = sim_clock(sim),
                             .transport = sim_transport(sim),
                             .call_timeout_ns = 2 * NS_PER_S,
                             .ping_interval_ns = 100 * NS_PER_MS,
                             .ping_timeout_ns = NS_PER_S,
                             .choice = REPLICA_LEAST_LOADED,
                             .local = sim_local,
                             .local_user = &shape,
                             .seed = 1};
    assert_int_equal(pool_create(&pc, &pool, &err), 0);
    assert_int_equal(pool_connect(pool, sim_endpoints(), 4, &err), 0);
    sim_faults(sim, 1);
    struct engine_config ec = {.model = x->model,
                               .weights = x->weights,
                               .kernels = x->kernels,
                               .precision = PRECISION_BF16,
                               .pool = pool,
                               .clock = sim_clock(sim),
                               .kv_tokens = 8 * KV_PAGE,
                               .rows_max = 16,
                               .prefill_chunk = 6,
                               .seqs_max = 4,
                               .n_micro = n_micro,
                               .speculate = guess};
    assert_int_equal(engine_create(&ec, &engine, &err), 0);
    memset(out, 0, N_SEQ * sizeof *out);
    for (int i = first; i < last; i++) {
        submit(engine, x->model->desc.vocab, i, &out[i]);
    }
    int moved;
    while ((moved = engine_step(engine, &err)) > 0) {
    }
    assert_int_equal(moved, 0);
    assert_null(sim_violation(sim));
    engine_stats_get(engine, &stats);
    assert_int_equal(stats.kv_pages_free, stats.kv_pages);
    for (int i = first; i < last; i++) {
        assert_int_equal(out[i].n_done, 1);
        assert_int_equal(out[i].finish, FINISH_LENGTH);
        assert_int_equal(out[i].n_token, MAX_TOKEN - i);
        assert_int_equal(out[i].n_slot, out[i].n_logits * x->shape.n_layer * x->shape.top_k);
    }
    engine_destroy(engine);
    pool_destroy(pool);
    sim_destroy(sim);
}

static struct sim_config calm(uint64_t seed)
{
    return (struct sim_config){
        .seed = seed, .delay_max_ns = NS_PER_MS, .compute_max_ns = NS_PER_MS};
}

static void company_and_micro_batches_change_no_bit(void **state)
{
    struct fixture *x = *state;
    struct outcome all[N_SEQ], alone[N_SEQ];
    for (int n_micro = 1; n_micro <= 2; n_micro++) {
        run(x, calm(1), n_micro, SPECULATE_OFF, 0, N_SEQ, all);
        for (int i = 0; i < N_SEQ; i++) {
            run(x, calm((uint64_t)i + 2), 1, SPECULATE_ALWAYS, i, i + 1, alone);
            assert_memory_equal(&all[i], &alone[i], sizeof all[i]);
        }
    }
}

static void storms_change_no_bit(void **state)
{
    struct fixture *x = *state;
    struct outcome want[N_SEQ], got[N_SEQ];
    run(x, calm(1), 1, SPECULATE_OFF, 0, N_SEQ, want);
    for (uint64_t seed = 1; seed <= N_STORM; seed++) {
        struct sim_config storm = {.seed = seed,
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
        enum speculate_mode guess = seed % 3 ? SPECULATE_ALWAYS : SPECULATE_OFF;
        run(x, storm, 1 + (int)(seed % 2), guess, 0, N_SEQ, got);
        if (memcmp(want, got, sizeof want) != 0) {
            fail_msg("seed %d: another output than in a calm run", (int)seed);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(company_and_micro_batches_change_no_bit),
        cmocka_unit_test(storms_change_no_bit),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
