/* domain_probe: a domain found out has the score that the prompt's logits under it say, whatever
 * the company, the chunks, the pages that are free and the storms; nothing of it stays behind. The
 * experts are the simulation's, which answers by expert id, so every group says something else. */
#include "base/log.h"
#include "tests/unit/coordinator/engine_world.h"
#include "tests/unit/model/scratch.h"

#include <math.h>

#define N_DOMAIN 4
#define N_SEQ    5
#define N_TOKEN  6
#define VOCAB    41
#define N_STORM  60
#define LONG     300
#define N_WORKER 3

/* Slot 1 is nobody's; the groups of a slot do not lie side by side. */
static const char config[] =
    "{\"model_type\": \"pangu_sigma\", \"block\": \"pangu_alpha\", \"num_hidden_layers\": 4, "
    "\"hidden_size\": 24, \"num_attention_heads\": 4, \"vocab_size\": 41, "
    "\"max_position_embeddings\": 400, \"intermediate_size\": 18, \"num_dense_layers\": 2, "
    "\"expert_intermediate_size\": 6, \"num_embedding_slots\": 3, \"default_domain\": \"b\", "
    "\"domains\": [{\"name\": \"a\", \"num_experts\": 2, \"embedding_slot\": 2}, "
    "{\"name\": \"b\", \"num_experts\": 1}, "
    "{\"name\": \"c\", \"num_experts\": 3, \"embedding_slot\": 2}, "
    "{\"name\": \"d\", \"num_experts\": 2}]}";

struct fixture {
    char dir[64];
    struct engine_world w;
};

struct outcome {
    int domain, n_told, has_score, n_done, n_token;
    enum finish finish;
    double score[N_DOMAIN];
    int32_t token[N_TOKEN];
    double sum; /* of log-likelihoods of the prompt, from on_logits */
    const int32_t *prompt;
    int n_prompt;
};

static void on_domain(void *user, int domain, const double *score, int n_domain)
{
    struct outcome *o = user;
    assert_int_equal(n_domain, N_DOMAIN);
    assert_int_equal(o->n_token, 0);
    o->domain = domain;
    o->n_told++;
    o->has_score = score != NULL;
    if (score != NULL)
        memcpy(o->score, score, sizeof o->score);
}

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct outcome *o = user;
    if (pos + 1 >= o->n_prompt)
        return;
    double sum = 0, most = -INFINITY;
    for (int i = 0; i < vocab; i++)
        most = fmax(most, (double)logits[i]);
    for (int i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - most);
    o->sum += (double)logits[o->prompt[pos + 1]] - most - log(sum);
}

static int on_token(void *user, int32_t token)
{
    struct outcome *o = user;
    o->token[o->n_token++] = token;
    return 0;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct outcome *o = user;
    (void)err;
    o->finish = reason;
    o->n_done++;
}

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    scratch_make(x->dir);
    checkpoint_make(x->dir, config, DTYPE_F32, 0);
    engine_world_open(&x->w, x->dir);
    engine_world_share(&x->w, N_WORKER);
    log_set_level(LOG_ERROR);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    engine_world_close(&x->w);
    scratch_clear(x->dir);
    free(x);
    return 0;
}

static void probe_open(struct rig *r, const struct fixture *x, struct sim_config sc, int rows_max,
                       int kv_pages)
{
    rig_open(r, &x->w, sc,
             (struct engine_config){.kv_tokens = kv_pages * KV_PAGE,
                                    .rows_max = rows_max,
                                    .prefill_chunk = 7,
                                    .seqs_max = 4});
}

/* Prompt number i: of LONG tokens for i = 0, else short; the same for the same i. */
static uint64_t submit_from(struct rig *r, int i, int from, int domain, int all, struct outcome *o)
{
    static int32_t prompt[N_SEQ][LONG];
    int n = i == 0 ? LONG : 2 + 9 * i;
    for (int k = 0; k < n; k++)
        prompt[i][k] = (int32_t)((7 + 13 * i + 5 * k + k * k % 11) % VOCAB);
    memset(o, 0, sizeof *o);
    o->domain = -1;
    /* `all`: what lies before `from` is not there at all. */
    int32_t *whole = prompt[i];
    whole += all ? from : 0;
    n -= all ? from : 0;
    o->prompt = whole;
    o->n_prompt = n < 256 ? n : 256; /* what a probe looks at */
    struct request request = {.prompt = whole,
                              .n_prompt = n,
                              .domain_from = all ? 0 : from,
                              .max_tokens = N_TOKEN,
                              .domain = domain,
                              .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
                              .ignore_eos = 1,
                              .all_logits = all,
                              .user = o,
                              .on_domain = on_domain,
                              .on_logits = all ? on_logits : NULL,
                              .on_token = on_token,
                              .on_done = on_done};
    uint64_t id;
    struct err err = {0};
    if (engine_submit(r->engine, &request, &id, &err) != 0)
        fail_msg("%s", err.text);
    return id;
}

static uint64_t submit(struct rig *r, int i, int domain, int all, struct outcome *o)
{
    return submit_from(r, i, 0, domain, all, o);
}

static void scores_are_what_the_logits_say(void **state)
{
    struct fixture *x = *state;
    for (int i = 0; i < N_SEQ; i++) {
        struct rig r;
        struct outcome found, given[N_DOMAIN];
        probe_open(&r, x, sim_calm(1), 64, 40);
        submit(&r, i, DOMAIN_AUTO, 0, &found);
        for (int d = 0; d < N_DOMAIN; d++)
            submit(&r, i, d, 1, &given[d]);
        engine_run(r.engine);
        int best = 0;
        for (int d = 0; d < N_DOMAIN; d++) {
            double mean = given[d].sum / (given[d].n_prompt - 1);
            assert_true(fabs(mean - found.score[d]) < 1e-5);
            assert_int_equal(given[d].domain, d);
            assert_int_equal(given[d].has_score, 0);
            best = found.score[d] > found.score[best] ? d : best;
            assert_true(d == 0 || found.score[d] != found.score[d - 1]);
        }
        assert_int_equal(found.n_told, 1);
        assert_int_equal(found.domain, best);
        assert_memory_equal(found.token, given[best].token, sizeof found.token);
        assert_int_equal(engine_domain_stats(r.engine)[best].requests, 2);
        rig_close(&r);
    }
}

/* The end of a prompt is scored as if nothing stood before it. */
static void what_is_before_is_not_looked_at(void **state)
{
    struct fixture *x = *state;
    for (int i = 0; i < N_SEQ; i++) {
        struct rig r;
        struct outcome found, given[N_DOMAIN];
        int from = i == 0 ? 21 : 5 * i;
        probe_open(&r, x, sim_calm(1), 64, 40);
        submit_from(&r, i, from, DOMAIN_AUTO, 0, &found);
        for (int d = 0; d < N_DOMAIN; d++)
            submit_from(&r, i, from, d, 1, &given[d]);
        engine_run(r.engine);
        for (int d = 0; d < N_DOMAIN; d++)
            assert_true(fabs(given[d].sum / (given[d].n_prompt - 1) - found.score[d]) < 1e-5);
        rig_close(&r);
    }
}

static void all_of_them(const struct fixture *x, struct sim_config sc, int rows_max, int kv_pages,
                        struct outcome *o)
{
    struct rig r;
    probe_open(&r, x, sc, rows_max, kv_pages);
    for (int i = 0; i < N_SEQ; i++)
        submit(&r, i, i == 2 ? 3 : DOMAIN_AUTO, 0, &o[i]);
    engine_run(r.engine);
    for (int i = 0; i < N_SEQ; i++) {
        assert_int_equal(o[i].n_done, 1);
        assert_int_equal(o[i].n_told, 1);
        assert_int_equal(o[i].finish, FINISH_LENGTH);
    }
    rig_close(&r);
}

static void company_chunks_and_free_pages_change_no_bit(void **state)
{
    struct fixture *x = *state;
    struct outcome alone[N_SEQ], got[N_SEQ];
    for (int i = 0; i < N_SEQ; i++) {
        struct rig r;
        probe_open(&r, x, sim_calm(1), 512, 40);
        submit(&r, i, i == 2 ? 3 : DOMAIN_AUTO, 0, &alone[i]);
        engine_run(r.engine);
        rig_close(&r);
    }
    /* The long prompt needs 5 pages of its own. */
    static const int rows_max[] = {512, 300, 64, 5}, kv_pages[] = {40, 5, 6, 9};
    for (int k = 0; k < 4; k++) {
        all_of_them(x, sim_calm(1), rows_max[k], kv_pages[k], got);
        assert_memory_equal(got, alone, sizeof alone);
    }
}

static void storms_change_no_bit(void **state)
{
    struct fixture *x = *state;
    struct outcome want[N_SEQ], got[N_SEQ];
    all_of_them(x, sim_calm(1), 128, 16, want);
    for (uint64_t seed = 1; seed <= N_STORM; seed++) {
        all_of_them(x, sim_storm(seed), 128, 16, got);
        if (memcmp(want, got, sizeof want) != 0)
            fail_msg("seed %d: another output than in a calm run", (int)seed);
    }
}

static void a_cancelled_probe_leaves_nothing_behind(void **state)
{
    struct fixture *x = *state;
    for (int n_step = 0; n_step < 12; n_step++) {
        struct rig r;
        struct outcome gone, stays, again;
        probe_open(&r, x, sim_calm(1), 100, 40);
        uint64_t id = submit(&r, 0, DOMAIN_AUTO, 0, &gone);
        submit(&r, 1, DOMAIN_AUTO, 0, &stays);
        for (int s = 0; s < n_step; s++)
            assert_int_equal(engine_step(r.engine, NULL), 1);
        engine_cancel(r.engine, id);
        engine_run(r.engine);
        assert_int_equal(gone.finish, FINISH_ABORT);
        assert_int_equal(gone.n_done, 1);
        submit(&r, 1, DOMAIN_AUTO, 0, &again);
        engine_run(r.engine);
        assert_int_equal(stays.finish, FINISH_LENGTH);
        assert_memory_equal(&stays, &again, sizeof stays);
        rig_close(&r);
    }
}

static void prompts_that_begin_alike_are_probed_once(void **state)
{
    struct fixture *x = *state;
    struct engine_stats one, three;
    struct outcome o[3];
    struct rig r;
    probe_open(&r, x, sim_calm(1), 64, 40);
    submit(&r, 3, DOMAIN_AUTO, 0, &o[0]);
    engine_run(r.engine);
    engine_stats_get(r.engine, &one);
    rig_close(&r);
    probe_open(&r, x, sim_calm(1), 64, 40);
    for (int i = 0; i < 3; i++)
        submit(&r, 3, DOMAIN_AUTO, 0, &o[i]);
    engine_run(r.engine);
    engine_stats_get(r.engine, &three);
    rig_close(&r);
    assert_int_equal(one.probes, 1);
    assert_int_equal(three.probes, 3);
    assert_int_equal(three.probe_rows, one.probe_rows);
    /* 29 tokens: once for each of two slots, and once a domain. */
    assert_int_equal(one.probe_rows, 29 * (2 + N_DOMAIN));
    assert_memory_equal(o[1].score, o[0].score, sizeof o[0].score);
}

static void one_token_has_the_default_domain(void **state)
{
    struct fixture *x = *state;
    struct rig r;
    struct outcome o = {.domain = -1};
    struct engine_stats stats;
    const int32_t prompt = 3;
    struct request request = {.prompt = &prompt,
                              .n_prompt = 1,
                              .max_tokens = 1,
                              .domain = DOMAIN_AUTO,
                              .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
                              .user = &o,
                              .on_domain = on_domain,
                              .on_token = on_token,
                              .on_done = on_done};
    uint64_t id;
    probe_open(&r, x, sim_calm(1), 64, 8);
    assert_int_equal(engine_submit(r.engine, &request, &id, NULL), 0);
    engine_run(r.engine);
    engine_stats_get(r.engine, &stats);
    assert_int_equal(o.domain, 1);
    assert_int_equal(o.has_score, 0);
    assert_int_equal(stats.probes, 0);
    request.domain = N_DOMAIN;
    assert_int_equal(engine_submit(r.engine, &request, &id, NULL), ERR_USAGE);
    request.domain = -2;
    assert_int_equal(engine_submit(r.engine, &request, &id, NULL), ERR_USAGE);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_what_the_logits_say),
        cmocka_unit_test(what_is_before_is_not_looked_at),
        cmocka_unit_test(company_chunks_and_free_pages_change_no_bit),
        cmocka_unit_test(storms_change_no_bit),
        cmocka_unit_test(a_cancelled_probe_leaves_nothing_behind),
        cmocka_unit_test(prompts_that_begin_alike_are_probed_once),
        cmocka_unit_test(one_token_has_the_default_domain),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
