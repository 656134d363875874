/* Guessed tokens change no bit: with them or without, alone or in company, in one or two
 * micro-batches, greedy or drawn, with penalties, masks and stops, every sequence gets the same
 * tokens and its callbacks the same logits in the same order. The prompts repeat themselves, so
 * that there is much to guess, and the drawn tokens do not, so that much of it is wrong. */
#include "base/hash.h"
#include "tests/unit/coordinator/engine_world.h"

#include <math.h>
#include <string.h>

#define N_SEQ     6
#define MAX_TOKEN 48
#define N_PROMPT  24

/* What a sequence's callbacks were told, in one hash of each call. */
struct outcome {
    int kind;
    int32_t token[MAX_TOKEN];
    int n_token, n_done, n_logits, n_mask;
    enum finish finish;
    struct hash128 logits[N_PROMPT + MAX_TOKEN], mask[MAX_TOKEN];
};

enum kind { GREEDY, DRAWN, PENALISED, MASKED, STOPPED, ALL_LOGITS };

static int setup(void **state)
{
    struct engine_world *x = calloc(1, sizeof *x);
    engine_world_open(x, TESTS_DIR "/fixtures/tiny/llama");
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    engine_world_close(*state);
    free(*state);
    return 0;
}

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct outcome *o = user;
    int first = o->kind == ALL_LOGITS ? 0 : N_PROMPT - 1;
    assert_int_equal(pos, first + o->n_logits);
    o->logits[o->n_logits++] = hash_bytes(logits, (size_t)vocab * sizeof *logits);
}

/* Allows a third of the vocabulary, another one after each token. */
static void on_mask(void *user, float *logits, int vocab)
{
    struct outcome *o = user;
    o->mask[o->n_mask++] = hash_bytes(logits, (size_t)vocab * sizeof *logits);
    for (int i = 0; i < vocab; i++) {
        logits[i] = i % 3 == o->n_token / 8 % 3 ? logits[i] : -INFINITY;
    }
}

static int on_token(void *user, int32_t token)
{
    struct outcome *o = user;
    o->token[o->n_token++] = token;
    return o->kind == STOPPED && o->n_token == 17;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct outcome *o = user;
    o->finish = reason;
    o->n_done++;
    assert_null(err);
}

static void submit(struct engine *e, int vocab, int i, struct outcome *o)
{
    int32_t prompt[N_PROMPT];
    for (int k = 0; k < N_PROMPT; k++) {
        prompt[k] = (int32_t)((5 + 11 * i + 3 * (k % (3 + i))) % vocab);
    }
    o->kind = i;
    struct request r = {.prompt = prompt,
                        .n_prompt = N_PROMPT,
                        .max_tokens = MAX_TOKEN - i,
                        .sampling = SAMPLING_DEFAULT,
                        .ignore_eos = 1,
                        .all_logits = i == ALL_LOGITS,
                        .user = o,
                        .on_logits = on_logits,
                        .on_mask = i == MASKED ? on_mask : NULL,
                        .on_token = on_token,
                        .on_done = on_done};
    r.sampling.seed = 3;
    r.sampling.temperature = i == GREEDY || i == MASKED ? 0.0f : 0.1f;
    r.sampling.repetition_penalty = i == PENALISED ? 1.05f : 1.0f;
    r.sampling.frequency_penalty = i == PENALISED ? 0.1f : 0.0f;
    uint64_t id;
    assert_int_equal(engine_submit(e, &r, &id, NULL), 0);
}

/* Sequences [first, last); k: guesses a step, 0: off. Returns what was counted. */
static struct engine_stats run(const struct engine_world *x, int k, int rows_max, int first,
                               int last, struct outcome *out)
{
    struct err err = {0};
    struct engine *engine;
    struct engine_stats stats;
    struct engine_config ec = engine_world_config(x);
    ec.kv_tokens = 1024;
    ec.rows_max = rows_max;
    ec.seqs_max = N_SEQ;
    ec.speculate = k > 0 ? SPECULATE_ALWAYS : SPECULATE_OFF;
    ec.speculate_max = k;
    assert_int_equal(engine_create(&ec, &engine, &err), 0);
    memset(out, 0, N_SEQ * sizeof *out);
    for (int i = first; i < last; i++) {
        submit(engine, x->model->desc.vocab, i, &out[i]);
    }
    engine_run(engine);
    engine_stats_get(engine, &stats);
    assert_int_equal(stats.kv_pages_free, stats.kv_pages);
    for (int i = first; i < last; i++) {
        int stopped = i == STOPPED;
        assert_int_equal(out[i].n_done, 1);
        assert_int_equal(out[i].finish, stopped ? FINISH_STOP : FINISH_LENGTH);
        assert_int_equal(out[i].n_token, stopped ? 17 : MAX_TOKEN - i);
    }
    engine_destroy(engine);
    return stats;
}

static void guesses_change_no_bit(void **state)
{
    struct engine_world *x = *state;
    struct outcome want[N_SEQ], got[N_SEQ];
    struct engine_stats plain = run(x, 0, 64, 0, N_SEQ, want);
    assert_int_equal(plain.proposed, 0);
    for (int k = 1; k <= SPECULATE_MAX; k++) {
        struct engine_stats s = run(x, k, 64, 0, N_SEQ, got);
        assert_memory_equal(got, want, sizeof want);
        assert_int_equal(s.generated_tokens, plain.generated_tokens);
        assert_int_equal(s.prompt_tokens, plain.prompt_tokens);
        assert_true(s.accepted > 0 && s.accepted < s.proposed);
        assert_true(s.steps < plain.steps);
        /* A step has no room for all of them; no sequence is left out for another's guesses. */
        run(x, k, N_SEQ + 2, 0, N_SEQ, got);
        assert_memory_equal(got, want, sizeof want);
    }
}

static void each_kind_of_sequence_meets_right_and_wrong_guesses(void **state)
{
    struct engine_world *x = *state;
    struct outcome want[N_SEQ], got[N_SEQ];
    for (int i = 0; i < N_SEQ; i++) {
        run(x, 0, 64, i, i + 1, want);
        struct engine_stats s = run(x, SPECULATE_MAX, 64, i, i + 1, got);
        assert_memory_equal(got, want, sizeof want);
        assert_true(s.accepted > 0);
        assert_true(s.accepted < s.proposed);
    }
}

/* ---- guesses that are always wrong ----------------------------------------------------------- */

/* Forces a, b, c0, a, b, c1, ...: after each a, b the last c is guessed, and never comes. */
static void on_mask_adverse(void *user, float *logits, int vocab)
{
    struct outcome *o = user;
    int at = o->n_token % 3, only = at < 2 ? 1 + at : 10 + o->n_token;
    for (int i = 0; i < vocab; i++) {
        logits[i] = i == only ? logits[i] : -INFINITY;
    }
}

static struct engine_stats run_adverse(const struct engine_world *x, enum speculate_mode mode,
                                       struct outcome *o)
{
    struct err err = {0};
    struct engine *engine;
    struct engine_stats stats;
    struct engine_config ec = engine_world_config(x);
    ec.speculate = mode;
    const int32_t prompt[] = {3};
    struct request r = {.prompt = prompt,
                        .n_prompt = 1,
                        .max_tokens = MAX_TOKEN,
                        .sampling = SAMPLING_DEFAULT,
                        .ignore_eos = 1,
                        .user = o,
                        .on_mask = on_mask_adverse,
                        .on_token = on_token,
                        .on_done = on_done};
    uint64_t id;
    memset(o, 0, sizeof *o);
    assert_int_equal(engine_create(&ec, &engine, &err), 0);
    assert_int_equal(engine_submit(engine, &r, &id, NULL), 0);
    engine_run(engine);
    engine_stats_get(engine, &stats);
    engine_destroy(engine);
    assert_int_equal(o->n_done, 1);
    return stats;
}

static void guesses_that_are_always_wrong_change_no_token(void **state)
{
    struct engine_world *x = *state;
    struct outcome want, got;
    struct engine_stats plain = run_adverse(x, SPECULATE_OFF, &want);
    struct engine_stats s = run_adverse(x, SPECULATE_ALWAYS, &got);
    assert_memory_equal(&got, &want, sizeof want);
    assert_true(s.proposed > MAX_TOKEN);
    assert_int_equal(s.accepted, 0);
    assert_int_equal(s.steps, plain.steps);
    run_adverse(x, SPECULATE_AUTO, &got);
    assert_memory_equal(&got, &want, sizeof want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_change_no_bit),
        cmocka_unit_test(each_kind_of_sequence_meets_right_and_wrong_guesses),
        cmocka_unit_test(guesses_that_are_always_wrong_change_no_token),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
