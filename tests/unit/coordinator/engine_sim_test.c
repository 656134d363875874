/* The engine over the simulated network and clock: whatever is lost, doubled, late, refused or
 * dies, every sequence gets the tokens and the logits of a calm run, alone or in company, and every
 * KV page comes back. The experts are the simulation's (a function of the row's bytes), the rest is
 * a real model, so that a row that went astray changes everything after it. */
#include "base/hash.h"
#include "base/log.h"
#include "tests/unit/coordinator/engine_world.h"

#include <string.h>

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
    struct engine_world *x = calloc(1, sizeof *x);
    engine_world_open(x, TESTS_DIR "/fixtures/tiny/mixtral");
    engine_world_share(x, 4);
    log_set_level(LOG_ERROR); /* storms are loud */
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    engine_world_close(*state);
    free(*state);
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
static void run(const struct engine_world *x, struct sim_config sc, int n_micro,
                enum speculate_mode guess, int first, int last, struct outcome *out)
{
    struct rig r;
    rig_open(&r, x, sc,
             (struct engine_config){.kv_tokens = 8 * KV_PAGE,
                                    .rows_max = 16,
                                    .prefill_chunk = 6,
                                    .seqs_max = 4,
                                    .n_micro = n_micro,
                                    .speculate = guess});
    memset(out, 0, N_SEQ * sizeof *out);
    for (int i = first; i < last; i++) {
        submit(r.engine, x->model->desc.vocab, i, &out[i]);
    }
    engine_run(r.engine);
    for (int i = first; i < last; i++) {
        assert_int_equal(out[i].n_done, 1);
        assert_int_equal(out[i].finish, FINISH_LENGTH);
        assert_int_equal(out[i].n_token, MAX_TOKEN - i);
        assert_int_equal(out[i].n_slot, out[i].n_logits * x->shape.n_layer * x->shape.top_k);
    }
    rig_close(&r);
}

static void company_and_micro_batches_change_no_bit(void **state)
{
    struct engine_world *x = *state;
    struct outcome all[N_SEQ], alone[N_SEQ];
    for (int n_micro = 1; n_micro <= 2; n_micro++) {
        run(x, sim_calm(1), n_micro, SPECULATE_OFF, 0, N_SEQ, all);
        for (int i = 0; i < N_SEQ; i++) {
            run(x, sim_calm((uint64_t)i + 2), 1, SPECULATE_ALWAYS, i, i + 1, alone);
            assert_memory_equal(&all[i], &alone[i], sizeof all[i]);
        }
    }
}

static void storms_change_no_bit(void **state)
{
    struct engine_world *x = *state;
    struct outcome want[N_SEQ], got[N_SEQ];
    run(x, sim_calm(1), 1, SPECULATE_OFF, 0, N_SEQ, want);
    for (uint64_t seed = 1; seed <= N_STORM; seed++) {
        enum speculate_mode guess = seed % 3 ? SPECULATE_ALWAYS : SPECULATE_OFF;
        run(x, sim_storm(seed), 1 + (int)(seed % 2), guess, 0, N_SEQ, got);
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
