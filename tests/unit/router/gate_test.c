/* gate: each kind against exact numbers and against its formula in double; ties, groups, NaN. */
#include "base/rng.h"
#include "kernels/math.h"
#include "router/gate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define SEED 20240501

static void softmax_topk_chooses_the_best_with_ties_to_the_lower_id(void **state)
{
    (void)state;
    static const float z[] = {0, 1, 1, 0, /* */ 2, 2, 2, 2};
    struct gate_spec spec = {.kind = GATE_SOFTMAX_TOPK, .n_expert = 4, .top_k = 2, .scale = 1};
    int32_t expert[4];
    float weight[4], scratch[8];
    gate_select(&spec, z, NULL, NULL, 2, expert, weight, scratch);
    static const int32_t expected[] = {1, 2, 0, 1};
    assert_memory_equal(expert, expected, sizeof(expected));
    assert_true(weight[0] == weight[1]);
    assert_true(fabs(weight[0] - 1 / (2 + 2 * exp(-1))) < 1e-7);
    assert_true(weight[2] == 0.25f && weight[3] == 0.25f);
    spec.normalise = 1;
    spec.scale = 2.5f;
    gate_select(&spec, z, NULL, NULL, 2, expert, weight, scratch);
    for (int i = 0; i < 4; i++)
        assert_true(weight[i] == 1.25f);
}

static void topk_softmax_weighs_the_chosen_alone(void **state)
{
    (void)state;
    static const float z[] = {-1, 3, 100, 3, 2};
    struct gate_spec spec = {.kind = GATE_TOPK_SOFTMAX, .n_expert = 5, .top_k = 3, .scale = 1};
    int32_t expert[3];
    float weight[3], scratch[10];
    gate_select(&spec, z, NULL, NULL, 1, expert, weight, scratch);
    static const int32_t expected[] = {2, 1, 3};
    assert_memory_equal(expert, expected, sizeof(expected));
    assert_true(weight[0] == 1 && weight[1] == 0 && weight[2] == 0);
    static const float near[] = {0, 1, 2, 3, 4};
    gate_select(&spec, near, NULL, NULL, 1, expert, weight, scratch);
    double sum = 1 + exp(-1) + exp(-2);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(expert[k], 4 - k);
        assert_true(fabs(weight[k] - exp(-k) / sum) < 1e-6);
    }
}

static void sigmoid_bias_changes_the_choice_and_not_the_weight(void **state)
{
    (void)state;
    static const float z[] = {0, 1, 2, 3}, bias[] = {1, 0, 0, 0};
    struct gate_spec spec = {
        .kind = GATE_SIGMOID, .n_expert = 4, .top_k = 2, .scale = 1, .bias = bias};
    int32_t expert[2];
    float weight[2], scratch[8];
    gate_select(&spec, z, NULL, NULL, 1, expert, weight, scratch);
    assert_int_equal(expert[0], 0);
    assert_int_equal(expert[1], 3);
    assert_true(weight[0] == 0.5f);
    assert_true(weight[1] == k_sigmoidf(3));
    spec.normalise = 1;
    spec.scale = 2;
    gate_select(&spec, z, NULL, NULL, 1, expert, weight, scratch);
    assert_true(weight[0] == 0.5f / (0.5f + k_sigmoidf(3) + 1e-20f) * 2);
}

static void sigmoid_groups_compete_by_their_two_best(void **state)
{
    (void)state;
    /* Group 1 has the best single expert; groups 0 and 2 have the better pairs. */
    static const float z[] = {2, 2, -9, 5, -9, -9, 1, 3, -9};
    struct gate_spec spec = {
        .kind = GATE_SIGMOID, .n_expert = 9, .top_k = 3, .scale = 1, .n_group = 3, .topk_group = 2};
    int32_t expert[3];
    float weight[3], scratch[18];
    gate_select(&spec, z, NULL, NULL, 1, expert, weight, scratch);
    static const int32_t expected[] = {7, 0, 1};
    assert_memory_equal(expert, expected, sizeof(expected));
    assert_true(weight[0] == k_sigmoidf(3) && weight[1] == k_sigmoidf(2));
    /* Equal groups: the lower one wins. */
    static const float flat[9] = {0};
    spec.topk_group = 1;
    gate_select(&spec, flat, NULL, NULL, 1, expert, weight, scratch);
    static const int32_t lowest[] = {0, 1, 2};
    assert_memory_equal(expert, lowest, sizeof(lowest));
}

static void sigmoid_losing_groups_never_win_with_negative_choices(void **state)
{
    (void)state;
    /* With every choice below zero a mask of 0 would let the losing group in. */
    static const float z[4] = {0}, bias[] = {-3, -3, -2, -2};
    struct gate_spec spec = {.kind = GATE_SIGMOID,
                             .n_expert = 4,
                             .top_k = 2,
                             .scale = 1,
                             .bias = bias,
                             .n_group = 2,
                             .topk_group = 1};
    int32_t expert[2];
    float weight[2], scratch[8];
    gate_select(&spec, z, NULL, NULL, 1, expert, weight, scratch);
    assert_int_equal(expert[0], 2);
    assert_int_equal(expert[1], 3);
}

static void table_looks_up_the_token(void **state)
{
    (void)state;
    static const uint16_t table[] = {0, 1, 2, 3, 1, 0};
    static const int32_t token[] = {2, 0, 1};
    struct gate_spec spec = {
        .kind = GATE_TABLE, .n_expert = 4, .top_k = 2, .scale = 3, .table = table, .n_table = 3};
    struct err err = {0};
    assert_int_equal(gate_check(&spec, &err), 0);
    int32_t expert[6];
    float weight[6];
    gate_select(&spec, NULL, token, NULL, 3, expert, weight, NULL);
    static const int32_t expected[] = {1, 0, 0, 1, 2, 3};
    assert_memory_equal(expert, expected, sizeof(expected));
    for (int i = 0; i < 6; i++)
        assert_true(weight[i] == 1.5f);
}

static void a_domain_looks_up_its_own_row_and_group(void **state)
{
    (void)state;
    static const struct domain_desc domains[] = {{"zh", 0, 2, 0}, {"en", 2, 3, 0}};
    static const uint16_t table[] = {0, 1, 1, 0, 0, 1, /* zh */ 2, 0, 1, 2, 0, 1 /* en */};
    static const int32_t token[] = {2, 2, 0, 1}, domain[] = {0, 1, 1, 0};
    struct gate_spec spec = {.kind = GATE_TABLE,
                             .n_expert = 5,
                             .top_k = 2,
                             .scale = 1,
                             .table = table,
                             .n_table = 3,
                             .n_domain = 2,
                             .domain = domains};
    struct err err = {0};
    assert_int_equal(gate_check(&spec, &err), 0);
    int32_t expert[8];
    float weight[8];
    gate_select(&spec, NULL, token, domain, 4, expert, weight, NULL);
    static const int32_t expected[] = {0, 1, 2, 3, 4, 2, 1, 0};
    assert_memory_equal(expert, expected, sizeof(expected));
    for (int i = 0; i < 8; i++)
        assert_true(weight[i] == 0.5f);

    static const uint16_t foreign[] = {0, 1, 1, 0, 0, 2, 2, 0, 1, 2, 0, 1};
    spec.table = foreign;
    assert_int_equal(gate_check(&spec, &err), ERR_MODEL);
    assert_string_equal(err.text, "gate: the table names expert 2 of 2 for token 2");
    spec.n_expert = 4;
    assert_int_equal(gate_check(&spec, NULL), ERR_MODEL);
}

static void nan_logits_give_valid_distinct_ids(void **state)
{
    (void)state;
    static const float z[] = {NAN, 1, NAN, 2, NAN, NAN, NAN, NAN};
    for (int kind = GATE_SOFTMAX_TOPK; kind <= GATE_SIGMOID; kind++) {
        struct gate_spec spec = {
            .kind = (enum gate_kind)kind, .n_expert = 4, .top_k = 3, .scale = 1};
        int32_t expert[6];
        float weight[6], scratch[8];
        gate_select(&spec, z, NULL, NULL, 2, expert, weight, scratch);
        for (int row = 0; row < 2; row++) {
            int seen = 0;
            for (int k = 0; k < 3; k++) {
                assert_in_range(expert[row * 3 + k], 0, 3);
                seen |= 1 << expert[row * 3 + k];
            }
            assert_int_equal(__builtin_popcount((unsigned)seen), 3);
        }
        if (kind != GATE_SOFTMAX_TOPK) {
            assert_int_equal(expert[0], 3);
            assert_int_equal(expert[1], 1);
        }
    }
}

/* Random rows: slots are in descending order, the rest is not better, weights follow the formula,
 * and a row alone gives the same bits as in a batch. */
static void random_rows_follow_the_formula(void **state)
{
    (void)state;
    enum { N_ROW = 40, N_EXPERT_MAX = 96, K_MAX = 8 };
    static float z[N_ROW * N_EXPERT_MAX], weight[N_ROW * K_MAX], scratch[2 * N_EXPERT_MAX];
    static int32_t expert[N_ROW * K_MAX];
    static const int sizes[][2] = {{8, 2}, {7, 3}, {60, 4}, {96, 8}, {1, 1}};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        int n = sizes[s][0], top_k = sizes[s][1];
        rng_normal_fill(SEED, s, 0, z, (uint64_t)(N_ROW * n));
        for (int kind = GATE_SOFTMAX_TOPK; kind <= GATE_SIGMOID; kind++) {
            struct gate_spec spec = {.kind = (enum gate_kind)kind,
                                     .n_expert = n,
                                     .top_k = top_k,
                                     .normalise = kind == GATE_SIGMOID,
                                     .scale = 1};
            gate_select(&spec, z, NULL, NULL, N_ROW, expert, weight, scratch);
            for (int row = 0; row < N_ROW; row++) {
                const float *zr = z + row * n, *w = weight + row * top_k;
                const int32_t *x = expert + row * top_k;
                double sum_all = 0, sum_chosen = 0, sum_sigmoid = 0;
                for (int e = 0; e < n; e++)
                    sum_all += exp(zr[e]);
                for (int k = 0; k < top_k; k++) {
                    sum_chosen += exp(zr[x[k]]);
                    sum_sigmoid += 1 / (1 + exp(-zr[x[k]]));
                }
                for (int k = 0; k < top_k; k++) {
                    double p = exp(zr[x[k]]), q = 1 / (1 + exp(-zr[x[k]]));
                    double expected = kind == GATE_SOFTMAX_TOPK   ? p / sum_all
                                      : kind == GATE_TOPK_SOFTMAX ? p / sum_chosen
                                                                  : q / sum_sigmoid;
                    assert_true(fabs(w[k] - expected) < 1e-6);
                    assert_true(k == 0 || zr[x[k]] <= zr[x[k - 1]]);
                }
                int n_better = 0;
                for (int e = 0; e < n; e++)
                    n_better += zr[e] > zr[x[top_k - 1]];
                assert_true(n_better <= top_k - 1);
                int32_t alone[K_MAX];
                float alone_weight[K_MAX];
                gate_select(&spec, zr, NULL, NULL, 1, alone, alone_weight, scratch);
                assert_memory_equal(alone, x, (size_t)top_k * sizeof(int32_t));
                assert_memory_equal(alone_weight, w, (size_t)top_k * sizeof(float));
            }
        }
    }
}

static void gate_check_refuses_what_cannot_work(void **state)
{
    (void)state;
    static const uint16_t table[] = {0, 9};
    static const float bias[8] = {0};
    static const struct {
        struct gate_spec spec;
        const char *text;
    } cases[] = {
        {{GATE_SOFTMAX_TOPK, 0, 1, 0, 1, 0, 0, NULL, NULL, 0, 0, NULL}, "gate: 0 experts"},
        {{GATE_SOFTMAX_TOPK, 5000, 1, 0, 1, 0, 0, NULL, NULL, 0, 0, NULL}, "gate: 5000 experts"},
        {{GATE_SOFTMAX_TOPK, 8, 9, 0, 1, 0, 0, NULL, NULL, 0, 0, NULL}, "gate: top-9 of 8 experts"},
        {{GATE_SOFTMAX_TOPK, 8, 0, 0, 1, 0, 0, NULL, NULL, 0, 0, NULL}, "gate: top-0 of 8 experts"},
        {{GATE_SOFTMAX_TOPK, 200, 65, 0, 1, 0, 0, NULL, NULL, 0, 0, NULL}, "gate: top-65 of 200"},
        {{GATE_SOFTMAX_TOPK, 8, 2, 0, 0, 0, 0, NULL, NULL, 0, 0, NULL}, "gate: scale 0"},
        {{GATE_SOFTMAX_TOPK, 8, 2, 0, NAN, 0, 0, NULL, NULL, 0, 0, NULL}, "gate: scale"},
        {{GATE_SOFTMAX_TOPK, 8, 2, 0, 1, 0, 0, bias, NULL, 0, 0, NULL},
         "gate: only the sigmoid gate"},
        {{GATE_SOFTMAX_TOPK, 8, 2, 0, 1, 2, 1, NULL, NULL, 0, 0, NULL}, "gate: 2 groups, but only"},
        {{GATE_SIGMOID, 8, 2, 0, 1, 3, 1, NULL, NULL, 0, 0, NULL},
         "gate: 3 groups do not divide 8"},
        {{GATE_SIGMOID, 8, 2, 0, 1, 4, 5, NULL, NULL, 0, 0, NULL}, "gate: the best 5 of 4 groups"},
        {{GATE_SIGMOID, 8, 2, 0, 1, 4, 0, NULL, NULL, 0, 0, NULL}, "gate: the best 0 of 4 groups"},
        {{GATE_SIGMOID, 8, 3, 0, 1, 4, 1, NULL, NULL, 0, 0, NULL},
         "gate: 1 groups of 2 experts are"},
        {{GATE_TABLE, 8, 1, 0, 1, 0, 0, NULL, NULL, 0, 0, NULL},
         "gate: a table gate needs its table"},
        {{GATE_TABLE, 8, 1, 0, 1, 0, 0, NULL, table, 2, 0, NULL},
         "gate: the table names expert 9 of 8 "},
        {{(enum gate_kind)7, 8, 1, 0, 1, 0, 0, NULL, NULL, 0, 0, NULL}, "gate: unknown kind 7"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = {0};
        assert_int_equal(gate_check(&cases[i].spec, &err), ERR_MODEL);
        err.text[strlen(cases[i].text)] = '\0';
        assert_string_equal(err.text, cases[i].text);
    }
    struct gate_spec good = {GATE_SIGMOID, 8, 4, 1, 2.5f, 4, 2, bias, NULL, 0, 0, NULL};
    assert_int_equal(gate_check(&good, NULL), 0);
}

static void gate_spec_from_takes_the_description(void **state)
{
    (void)state;
    static struct model_desc desc;
    desc.gate = GATE_SIGMOID;
    desc.n_expert = 64;
    desc.top_k = 6;
    desc.gate_normalise = 1;
    desc.gate_scale = 2.5f;
    desc.n_group = 8;
    desc.topk_group = 3;
    struct gate_spec spec;
    gate_spec_from(&spec, &desc);
    assert_int_equal(spec.kind, GATE_SIGMOID);
    assert_int_equal(spec.n_expert, 64);
    assert_int_equal(spec.top_k, 6);
    assert_int_equal(spec.normalise, 1);
    assert_true(spec.scale == 2.5f);
    assert_int_equal(spec.n_group, 8);
    assert_int_equal(spec.topk_group, 3);
    assert_null(spec.bias);
    assert_null(spec.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_topk_chooses_the_best_with_ties_to_the_lower_id),
        cmocka_unit_test(topk_softmax_weighs_the_chosen_alone),
        cmocka_unit_test(sigmoid_bias_changes_the_choice_and_not_the_weight),
        cmocka_unit_test(sigmoid_groups_compete_by_their_two_best),
        cmocka_unit_test(sigmoid_losing_groups_never_win_with_negative_choices),
        cmocka_unit_test(table_looks_up_the_token),
        cmocka_unit_test(a_domain_looks_up_its_own_row_and_group),
        cmocka_unit_test(nan_logits_give_valid_distinct_ids),
        cmocka_unit_test(random_rows_follow_the_formula),
        cmocka_unit_test(gate_check_refuses_what_cannot_work),
        cmocka_unit_test(gate_spec_from_takes_the_description),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
