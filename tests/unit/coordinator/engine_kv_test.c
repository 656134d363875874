/* What a sequence gets does not depend on which of its pages were computed for others, nor on how
 * often its own were taken away: tokens and logits are those of a run alone without the prefix
 * cache, in any order, in any company, with guesses and without, in a cache that barely holds one
 * sequence. */
#include "base/hash.h"
#include "base/log.h"
#include "tests/unit/coordinator/engine_world.h"

#include <string.h>

#define N_SEQ      9
#define MAX_TOKEN  90
#define LONG       200
#define MAX_PROMPT 300
#define MAX_POS    (MAX_PROMPT + MAX_TOKEN)

struct outcome {
    int32_t token[LONG];
    int n_token, n_done, n_logits;
    struct hash128 logits[MAX_POS]; /* by position */
    uint8_t told[MAX_POS];
    int n_cached; /* not compared */
};

struct fixture {
    struct engine_world w;
    struct outcome alone[N_SEQ];
};

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct outcome *o = user;
    assert_int_equal(o->told[pos]++, 0); /* once, however often they are computed */
    o->logits[pos] = hash_bytes(logits, (size_t)vocab * sizeof *logits);
    o->n_logits++;
}

/* Like a grammar: what is forbidden depends on what was generated. */
static void on_mask(void *user, float *logits, int vocab)
{
    const struct outcome *o = user;
    for (int i = 0; i < vocab; i++) {
        if ((i + o->n_token) % 3 == 0) {
            logits[i] = -1e30f;
        }
    }
}

static int on_token(void *user, int32_t token)
{
    struct outcome *o = user;
    o->token[o->n_token++] = token;
    return 0;
}

static void on_cached(void *user, int n)
{
    struct outcome *o = user;
    assert_int_equal(o->n_cached, -1);
    o->n_cached = n;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct outcome *o = user;
    o->n_done++;
    assert_int_equal(reason, FINISH_LENGTH);
    assert_null(err);
}

/* Sequence i's prompt: 3 and 6 begin like 0, each up to another position; 1, 4, 7 are the same; 2
 * and 5 share all but the last token. */
static int prompt_of(int i, int vocab, int32_t *prompt)
{
    static const int length[N_SEQ] = {300, 192, 193, 250, 192, 193, 140, 192, 20};
    static const int same[N_SEQ] = {300, 192, 192, 130, 192, 192, 128, 192, 0};
    for (int k = 0; k < length[i]; k++) {
        int like = k < same[i] ? i % 3 : i;
        prompt[k] = (int32_t)((5 + 17 * like + 3 * k + k / 7) % vocab);
    }
    return length[i];
}

static void submit(struct engine *e, int vocab, int i, struct outcome *o)
{
    int32_t prompt[MAX_PROMPT];
    memset(o, 0, sizeof *o);
    o->n_cached = -1;
    struct request r = {.prompt = prompt,
                        .n_prompt = prompt_of(i, vocab, prompt),
                        .max_tokens = MAX_TOKEN - 9 * i,
                        .domain = -i, /* no matter: the model has none */
                        .sampling = {.temperature = i % 2 ? 0.9f : 0.0f,
                                     .top_p = 1.0f,
                                     .repetition_penalty = i % 4 == 1 ? 1.3f : 1.0f,
                                     .presence_penalty = i % 4 == 2 ? 0.5f : 0.0f,
                                     .seed = 3},
                        .ignore_eos = 1,
                        .all_logits = i == 4 || i == 6,
                        .user = o,
                        .on_cached = on_cached,
                        .on_logits = on_logits,
                        .on_mask = i % 3 == 0 ? on_mask : NULL,
                        .on_token = on_token,
                        .on_done = on_done};
    uint64_t id;
    assert_int_equal(engine_submit(e, &r, &id, NULL), 0);
}

static struct engine *engine_of(const struct fixture *x, int n_page, int rows_max, int no_cache)
{
    struct err err = {0};
    struct engine *e;
    struct engine_config c = engine_world_config(&x->w);
    c.kv_tokens = n_page * KV_PAGE;
    c.rows_max = rows_max;
    c.seqs_max = 6;
    c.speculate = n_page % 2 ? SPECULATE_ALWAYS : SPECULATE_OFF;
    c.no_prefix_cache = no_cache;
    assert_int_equal(engine_create(&c, &e, &err), 0);
    return e;
}

static void run(struct engine *e)
{
    engine_run(e);
    struct engine_stats stats;
    engine_stats_get(e, &stats);
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(stats.kv_pages_free, stats.kv_pages);
}

static void compare(const struct fixture *x, int i, struct outcome *got)
{
    assert_int_equal(got->n_done, 1);
    got->n_cached = x->alone[i].n_cached;
    if (memcmp(got, &x->alone[i], sizeof *got) != 0) {
        fail_msg("sequence %d: another output than alone without a cache", i);
    }
}

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    engine_world_open(&x->w, TESTS_DIR "/fixtures/tiny/llama");
    x->w.model->desc.max_context = MAX_POS;
    for (int i = 0; i < N_SEQ; i++) {
        struct engine *e = engine_of(x, 8, 64, 1);
        submit(e, x->w.model->desc.vocab, i, &x->alone[i]);
        run(e);
        assert_int_equal(x->alone[i].n_cached, 0);
        assert_int_equal(x->alone[i].n_token, MAX_TOKEN - 9 * i);
        engine_destroy(e);
    }
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    engine_world_close(&x->w);
    free(x);
    return 0;
}

static void one_after_another_in_any_order(void **state)
{
    const struct fixture *x = *state;
    static struct outcome got;
    for (int order = 1; order <= 8; order++) {
        struct engine *e = engine_of(x, order < 5 ? 40 : 7, 64 + 31 * order, 0);
        for (int k = 0; k < 3 * N_SEQ; k++) {
            int i = (order % 2 ? k * order : N_SEQ * 3 - k) % N_SEQ;
            submit(e, x->w.model->desc.vocab, i, &got);
            run(e);
            if (k >= N_SEQ && order == 1) {
                /* All was there, but for what is told of every position, and the last token. */
                int n = i == 4 || i == 6 ? 0 : (int[]){256, 128, 192, 192, 0, 192, 0, 128, 0}[i];
                assert_int_equal(got.n_cached, n);
            }
            compare(x, i, &got);
        }
        struct engine_stats stats;
        engine_stats_get(e, &stats);
        assert_int_equal(stats.preemptions, 0);
        assert_true(order >= 5 || stats.cache_hit_tokens > 0);
        assert_true(stats.cache_hit_tokens < stats.cache_lookup_tokens);
        assert_true(order < 5 || stats.cache_evictions > 0);
        engine_destroy(e);
    }
}

static void all_at_once_in_caches_of_any_size(void **state)
{
    const struct fixture *x = *state;
    static struct outcome got[2 * N_SEQ];
    for (int n_page = 7; n_page < 40; n_page += n_page < 13 ? 1 : 9) {
        for (int no_cache = 0; no_cache < 2; no_cache++) {
            struct engine *e = engine_of(x, n_page, 96, no_cache);
            for (int k = 0; k < 2 * N_SEQ; k++) {
                submit(e, x->w.model->desc.vocab, (k * 5 + n_page) % N_SEQ, &got[k]);
            }
            run(e);
            for (int k = 0; k < 2 * N_SEQ; k++) {
                compare(x, (k * 5 + n_page) % N_SEQ, &got[k]);
            }
            struct engine_stats stats;
            engine_stats_get(e, &stats);
            assert_true(no_cache || stats.cache_hit_tokens > 0);
            assert_true(!no_cache || stats.cache_lookup_tokens == 0);
            engine_destroy(e);
        }
    }
}

/* Prompts of a page that grow to four; three may begin where one and a half have room at the end.
 */
static void who_gave_way_goes_on_as_if_nothing_had_been(void **state)
{
    const struct fixture *x = *state;
    struct outcome *alone = calloc(8, sizeof *alone), *got = calloc(8, sizeof *got);
    for (int k = 0; k < 9; k++) {
        int first = k < 8 ? k : 0, last = k < 8 ? k + 1 : 8, n_page = k < 8 ? 4 : 6;
        for (int no_cache = k < 8; no_cache < 2; no_cache++) {
            struct engine *e = engine_of(x, n_page, 64, no_cache);
            for (int i = first; i < last; i++) {
                int32_t prompt[MAX_PROMPT];
                prompt_of(i % 3 ? i : 0, x->w.model->desc.vocab, prompt);
                struct outcome *o = k < 8 ? &alone[i] : &got[i];
                memset(o, 0, sizeof *o);
                o->n_cached = -1;
                struct request r = {.prompt = prompt,
                                    .n_prompt = 20 + i,
                                    .max_tokens = LONG,
                                    .sampling = {.temperature = 1.0f,
                                                 .top_p = 0.9f,
                                                 .repetition_penalty = 1.1f,
                                                 .seed = (uint64_t)i},
                                    .ignore_eos = 1,
                                    .all_logits = i == 7,
                                    .user = o,
                                    .on_cached = on_cached,
                                    .on_logits = on_logits,
                                    .on_mask = on_mask,
                                    .on_token = on_token,
                                    .on_done = on_done};
                uint64_t id;
                assert_int_equal(engine_submit(e, &r, &id, NULL), 0);
            }
            run(e);
            struct engine_stats stats;
            engine_stats_get(e, &stats);
            assert_true(k < 8 || stats.preemptions > 2);
            for (int i = 0; k == 8 && i < 8; i++) {
                got[i].n_cached = alone[i].n_cached;
                assert_memory_equal(&got[i], &alone[i], sizeof got[i]);
            }
            engine_destroy(e);
        }
    }
    free(alone);
    free(got);
}

/* Where the length of a prompt scales the rotation, a longer one that begins alike is another. */
static void a_prompt_that_is_rotated_otherwise_shares_nothing(void **state)
{
    struct fixture *x = *state;
    struct rope_params *rope = &x->w.model->desc.rope, was = *rope;
    rope->scaling = ROPE_DYNAMIC;
    rope->factor = 2.0;
    rope->max_context = 150;
    static struct outcome got, alone;
    struct engine *e = engine_of(x, 40, 64, 0);
    static const int at[] = {0, 3, 6, 0, 3};
    for (int k = 0; k < 5; k++) {
        struct engine *lone = engine_of(x, 8, 64, 1);
        submit(lone, x->w.model->desc.vocab, at[k], &alone);
        run(lone);
        engine_destroy(lone);
        submit(e, x->w.model->desc.vocab, at[k], &got);
        run(e);
        /* 0, 3 and 6 begin alike; 6 is told of all. Only the same again is found. */
        assert_int_equal(got.n_cached, k < 3 ? 0 : at[k] == 0 ? 256 : 192);
        got.n_cached = alone.n_cached;
        assert_memory_equal(&got, &alone, sizeof got);
    }
    engine_destroy(e);
    *rope = was;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_after_another_in_any_order),
        cmocka_unit_test(all_at_once_in_caches_of_any_size),
        cmocka_unit_test(who_gave_way_goes_on_as_if_nothing_had_been),
        cmocka_unit_test(a_prompt_that_is_rotated_otherwise_shares_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
