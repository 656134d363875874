/* Rows whose logits nobody wants leave the last layer behind their keys and values: who asks for
 * logits or routes of all positions gets them, nobody's tokens change, and experts of the last
 * layer see the other rows alone. */
#include "base/hash.h"
#include "base/log.h"
#include "tests/unit/coordinator/engine_world.h"

#include <string.h>

#define N_SEQ    3
#define N_PROMPT 90
#define N_OUTPUT 7
#define N_FED    (N_PROMPT + N_OUTPUT - 1) /* the last token is drawn, not fed */

enum asks { ASKS_NOTHING, ASKS_LOGITS, ASKS_ROUTES };

struct outcome {
    int32_t token[N_OUTPUT];
    struct hash128 logits[N_OUTPUT]; /* that tokens are drawn from */
    int n_token, n_logits, n_route, n_last, n_computed;
};

static struct engine_world world;

static void on_logits(void *user, int pos, const float *logits, int vocab)
{
    struct outcome *o = user;
    o->n_logits++;
    if (pos >= N_PROMPT - 1) {
        o->logits[pos - N_PROMPT + 1] = hash_bytes(logits, (size_t)vocab * sizeof *logits);
    }
}

static int on_token(void *user, int32_t token)
{
    struct outcome *o = user;
    o->token[o->n_token++] = token;
    return 0;
}

static void on_route(void *user, int pos, int layer, const int32_t *slot_expert,
                     const float *slot_weight, int top_k)
{
    (void)pos, (void)slot_weight;
    struct outcome *o = user;
    for (int s = 0; s < top_k; s++) {
        assert_in_range(slot_expert[s], 0, world.model->desc.n_expert - 1);
    }
    o->n_route++;
    o->n_last += layer == world.model->desc.n_layer - 1;
}

static void on_computed(void *user, const int32_t *slot_expert, const int16_t *slot_worker,
                        int n_slot)
{
    (void)slot_expert, (void)slot_worker;
    ((struct outcome *)user)->n_computed += n_slot;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    (void)user;
    assert_int_equal(reason, FINISH_LENGTH);
    assert_null(err);
}

static void submit(struct engine *e, int i, enum asks asks, struct outcome *o)
{
    int32_t prompt[N_PROMPT];
    for (int k = 0; k < N_PROMPT; k++) {
        prompt[k] = (int32_t)((1 + i + 7 * k + k / 5) % world.model->desc.vocab);
    }
    struct request r = {.prompt = prompt,
                        .n_prompt = N_PROMPT,
                        .max_tokens = N_OUTPUT,
                        .sampling = {.temperature = 0.8f, .top_p = 1.0f, .seed = 3},
                        .ignore_eos = 1,
                        .all_logits = asks == ASKS_LOGITS,
                        .user = o,
                        .on_logits = on_logits,
                        .on_token = on_token,
                        .on_route = asks == ASKS_ROUTES ? on_route : NULL,
                        .on_computed = on_computed,
                        .on_done = on_done};
    uint64_t id;
    assert_int_equal(engine_submit(e, &r, &id, NULL), 0);
}

static uint64_t load_of(const struct engine *e, int layer)
{
    const uint64_t *load = engine_load(e) + layer * world.model->desc.n_expert;
    uint64_t n = 0;
    for (int i = 0; i < world.model->desc.n_expert; i++) {
        n += load[i];
    }
    return n;
}

/* All sequences at once, asking for asks[i]; checks the rows of the last layer, and no more than
 * told. */
static void serve(const enum asks *asks, int rows_max, int n_micro, struct outcome *out)
{
    const struct model_desc *d = &world.model->desc;
    struct engine_config ec = {.rows_max = rows_max,
                               .n_micro = n_micro,
                               .micro_rows_min = 1,
                               .speculate = SPECULATE_OFF,
                               .kv_tokens = 1024};
    struct rig r;
    rig_open(&r, &world, sim_calm(5), ec);
    memset(out, 0, N_SEQ * sizeof *out);
    uint64_t last = 0;
    for (int i = 0; i < N_SEQ; i++) {
        submit(r.engine, i, asks[i], &out[i]);
        last += asks[i] == ASKS_LOGITS ? N_FED : N_OUTPUT;
    }
    engine_run(r.engine);
    for (int l = 0; l < d->n_layer; l++) {
        uint64_t rows = l < d->n_layer - 1 ? N_SEQ * N_FED : last;
        assert_int_equal(load_of(r.engine, l), rows * (uint64_t)d->top_k);
    }
    for (int i = 0; i < N_SEQ; i++) {
        int all = asks[i] == ASKS_LOGITS;
        assert_int_equal(out[i].n_token, N_OUTPUT);
        assert_int_equal(out[i].n_logits, all ? N_FED : N_OUTPUT);
        assert_int_equal(out[i].n_route, asks[i] == ASKS_ROUTES ? N_FED * d->n_layer : 0);
        assert_int_equal(out[i].n_last, asks[i] == ASKS_ROUTES ? N_FED : 0);
        assert_int_equal(out[i].n_computed,
                         (N_FED * (d->n_layer - 1) + (all ? N_FED : N_OUTPUT)) * d->top_k);
    }
    rig_close(&r);
}

static void only_rows_with_logits_meet_the_last_experts(void **state)
{
    (void)state;
    static const enum asks all[N_SEQ] = {ASKS_LOGITS, ASKS_LOGITS, ASKS_LOGITS};
    static const enum asks few[][N_SEQ] = {{ASKS_NOTHING, ASKS_NOTHING, ASKS_NOTHING},
                                           {ASKS_NOTHING, ASKS_LOGITS, ASKS_ROUTES},
                                           {ASKS_ROUTES, ASKS_NOTHING, ASKS_LOGITS}};
    static struct outcome want[N_SEQ], got[N_SEQ];
    serve(all, 512, 1, want);
    for (size_t c = 0; c < sizeof few / sizeof *few; c++) {
        for (int way = 0; way < 6; way++) {
            /* Whole prompts, and steps that end within one; one micro-batch and two. */
            serve(few[c], (int[]){512, 40, 97}[way / 2], 1 + way % 2, got);
            for (int i = 0; i < N_SEQ; i++) {
                assert_memory_equal(got[i].token, want[i].token, sizeof want->token);
                assert_memory_equal(got[i].logits, want[i].logits, sizeof want->logits);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_rows_with_logits_meet_the_last_experts),
    };
    engine_world_open(&world, TESTS_DIR "/fixtures/tiny/olmoe");
    engine_world_share(&world, 3);
    log_set_level(LOG_WARN);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    engine_world_close(&world);
    return rc;
}
