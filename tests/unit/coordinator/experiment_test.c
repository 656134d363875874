/* experiment: what --route takes, and that a row's slots depend on the row alone. */
#include "coordinator/experiment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N_EXPERT 16
#define TOP_K    4
#define ROWS     64

static struct model_desc desc_of(enum gate_kind gate)
{
    struct model_desc d = {.n_expert = N_EXPERT, .top_k = TOP_K, .gate = gate};
    return d;
}

static struct experiment *open_one(const char *text)
{
    struct model_desc d = desc_of(GATE_SOFTMAX_TOPK);
    struct experiment *x = NULL;
    struct err err = {0};
    if (experiment_create(text, &d, ROWS, &x, &err))
        fail_msg("%s", err.text);
    return x;
}

static void refused(const char *text, enum gate_kind gate, const char *says)
{
    struct model_desc d = desc_of(gate);
    struct experiment *x = NULL;
    struct err err = {0};
    assert_int_equal(experiment_create(text, &d, ROWS, &x, &err), ERR_USAGE);
    assert_null(x);
    if (!strstr(err.text, says))
        fail_msg("'%s' not in '%s'", says, err.text);
}

static void what_is_wrong_is_told(void **state)
{
    (void)state;
    refused("zipff", GATE_SOFTMAX_TOPK, "zipf");
    refused("zipf,zipf", GATE_SOFTMAX_TOPK, "key=value");
    refused("zipf,zipf=x", GATE_SOFTMAX_TOPK, "no number");
    refused("zipf,colour=1", GATE_SOFTMAX_TOPK, "knows no colour");
    refused("k-hot,hot-experts=17", GATE_SOFTMAX_TOPK, "from 1 to 16");
    refused("k-hot,hot-share=nan", GATE_SOFTMAX_TOPK, "hot-share");
    refused("expert-choice", GATE_TABLE, "logits"); /* a table has none */
    struct model_desc dense = {0};
    struct experiment *x = NULL;
    assert_int_equal(experiment_create("zipf", &dense, ROWS, &x, NULL), ERR_USAGE);
}

static void the_models_own_gate_is_no_experiment(void **state)
{
    (void)state;
    assert_null(open_one("model"));
}

/* Rows in another order, and alone, get the same slots; the hot ones are the strategy's. */
static void a_rows_slots_are_its_own(void **state)
{
    (void)state;
    struct experiment *x = open_one("k-hot,hot-share=0.9,hot-experts=4,seed=3");
    float logits[ROWS * N_EXPERT] = {0}, weight[ROWS * TOP_K], one_weight[TOP_K];
    int32_t token[ROWS], pos[ROWS], expert[ROWS * TOP_K], one[TOP_K], count[N_EXPERT] = {0};
    assert_string_equal(experiment_text(x), "k-hot,hot-share=0.9,hot-experts=4,seed=3");
    for (int r = 0; r < ROWS; r++) {
        token[r] = 7 * r;
        pos[r] = r % 5;
        for (int k = 0; k < TOP_K; k++) {
            expert[r * TOP_K + k] = k;
            weight[r * TOP_K + k] = 0.25f + (float)r;
        }
    }
    struct experiment_rows rows = {
        .n_row = ROWS, .layer = 2, .logits = logits, .token = token, .pos = pos};
    experiment_route(x, &rows, expert, weight);
    for (int r = ROWS - 1; r >= 0; r--) {
        for (int k = 0; k < TOP_K; k++) {
            one[k] = k;
            one_weight[k] = 0.25f + (float)r;
        }
        struct experiment_rows alone = {
            .n_row = 1, .layer = 2, .logits = logits, .token = &token[r], .pos = &pos[r]};
        experiment_route(x, &alone, one, one_weight);
        assert_memory_equal(one, &expert[r * TOP_K], sizeof(one));
        assert_memory_equal(one_weight, &weight[r * TOP_K], sizeof(one_weight));
        for (int k = 0; k < TOP_K; k++)
            count[one[k]]++;
    }
    int best[4] = {0}; /* the four most chosen have more than half, of 16 */
    for (int i = 0; i < 4; i++) {
        int at = 0;
        for (int e = 0; e < N_EXPERT; e++)
            at = count[e] > count[at] ? e : at;
        best[i] = count[at];
        count[at] = 0;
    }
    assert_true(best[0] + best[1] + best[2] + best[3] > ROWS * TOP_K / 2);
    experiment_destroy(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_told),
        cmocka_unit_test(the_models_own_gate_is_no_experiment),
        cmocka_unit_test(a_rows_slots_are_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
