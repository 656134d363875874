/* The sampler: each rule alone with exact outcomes, and draws against the distribution they come
 * from. */
#include "coordinator/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N 5

static struct sample_candidate scratch[1024];

static int32_t one(const struct sampling *s, const float *logits, uint64_t position)
{
    float copy[N];
    memcpy(copy, logits, sizeof copy);
    return sample(s, NULL, copy, N, 0, position, scratch);
}

/* Share of token t among 4000 draws. */
static double share(const struct sampling *s, const float *logits, int32_t t)
{
    int hit = 0;
    for (uint64_t p = 0; p < 4000; p++) {
        hit += one(s, logits, p) == t;
    }
    return hit / 4000.0;
}

static void greedy_takes_the_largest_and_the_lower_id_of_equals(void **state)
{
    (void)state;
    struct sampling s = SAMPLING_DEFAULT;
    assert_int_equal(one(&s, (float[]){1, 3, 2, 3, 0}, 0), 1);
    assert_int_equal(one(&s, (float[]){NAN, -1, -2, NAN, -3}, 0), 1);
    assert_int_equal(one(&s, (float[]){NAN, NAN, NAN, NAN, NAN}, 0), 0);
}

static void draws_follow_the_softmax(void **state)
{
    (void)state;
    struct sampling s = SAMPLING_DEFAULT;
    s.temperature = 1.0f;
    const float logits[N] = {logf(0.5f), logf(0.25f), logf(0.125f), logf(0.0625f), logf(0.0625f)};
    assert_true(fabs(share(&s, logits, 0) - 0.5) < 0.03);
    assert_true(fabs(share(&s, logits, 1) - 0.25) < 0.03);
    s.temperature = 0.5f; /* squares the ratios: 4 : 1 between the first two */
    assert_true(fabs(share(&s, logits, 0) / share(&s, logits, 1) - 4.0) < 0.6);
}

static void the_same_place_draws_the_same_token(void **state)
{
    (void)state;
    struct sampling s = SAMPLING_DEFAULT;
    s.temperature = 1.5f;
    s.seed = 42;
    const float logits[N] = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f};
    int differ = 0;
    for (uint64_t p = 0; p < 64; p++) {
        assert_int_equal(one(&s, logits, p), one(&s, logits, p));
        struct sampling other = s;
        other.seed = 43;
        differ += one(&s, logits, p) != one(&other, logits, p);
    }
    assert_true(differ > 10);
}

static void top_k_keeps_the_k_largest(void **state)
{
    (void)state;
    struct sampling s = SAMPLING_DEFAULT;
    s.temperature = 10.0f;
    s.top_k = 2;
    const float logits[N] = {0, 4, 1, 3, 2};
    assert_true(share(&s, logits, 1) > 0.4);
    assert_true(share(&s, logits, 3) > 0.4);
    assert_true(share(&s, logits, 1) + share(&s, logits, 3) == 1.0);
    s.top_k = 1;
    assert_true(share(&s, logits, 1) == 1.0);
}

static void top_p_keeps_the_smallest_set_that_reaches_p(void **state)
{
    (void)state;
    struct sampling s = SAMPLING_DEFAULT;
    s.temperature = 1.0f;
    s.top_p = 0.7f;
    const float logits[N] = {logf(0.5f), logf(0.25f), logf(0.125f), logf(0.0625f), logf(0.0625f)};
    assert_true(share(&s, logits, 0) + share(&s, logits, 1) == 1.0);
    assert_true(fabs(share(&s, logits, 0) - 2.0 / 3.0) < 0.03);
    s.top_p = 0.5f;
    assert_true(share(&s, logits, 0) == 1.0);
    /* After top-k: 0.5 and 0.25 of three quarters; 0.66 is reached by the first alone. */
    s.top_k = 2;
    s.top_p = 0.66f;
    assert_true(share(&s, logits, 0) == 1.0);
}

static void min_p_drops_what_is_unlikely_beside_the_best(void **state)
{
    (void)state;
    struct sampling s = SAMPLING_DEFAULT;
    s.temperature = 1.0f;
    s.min_p = 0.2f;
    const float logits[N] = {logf(0.5f), logf(0.25f), logf(0.125f), logf(0.0625f), logf(0.0625f)};
    assert_true(share(&s, logits, 2) > 0.05);
    assert_true(share(&s, logits, 3) == 0.0 && share(&s, logits, 4) == 0.0);
}

static void penalties_count_prompt_and_output_as_defined(void **state)
{
    (void)state;
    struct sampling s = SAMPLING_DEFAULT;
    s.repetition_penalty = 2.0f;
    const uint16_t prompt[N] = {1, 0, 0, 0, 0}, output[N] = {0, 3, 0, 0, 0};
    const struct sample_history h = {prompt, output};
    float logits[N] = {4, 4, 1, -1, 0};
    sample(&s, &h, logits, N, 0, 0, scratch);
    assert_true(logits[0] == 2.0f && logits[1] == 2.0f && logits[2] == 1.0f);
    float negative[N] = {-4, 0, 0, 0, 0};
    sample(&s, &h, negative, N, 0, 0, scratch);
    assert_true(negative[0] == -8.0f);
    s.repetition_penalty = 1.0f;
    s.presence_penalty = 0.5f;
    s.frequency_penalty = 0.25f;
    float more[N] = {4, 4, 1, -1, 0};
    sample(&s, &h, more, N, 0, 0, scratch);
    assert_true(more[0] == 4.0f && more[1] == 4.0f - 0.5f - 0.75f);
}

static void a_bias_moves_the_choice_and_ignores_unknown_ids(void **state)
{
    (void)state;
    struct sampling s = SAMPLING_DEFAULT;
    const struct logit_bias bias[] = {{3, 100.0f}, {-1, 5.0f}, {N, 5.0f}};
    s.bias = bias;
    s.n_bias = 3;
    assert_int_equal(one(&s, (float[]){1, 3, 2, 0, 0}, 0), 3);
}

static void logprobs_sum_to_one(void **state)
{
    (void)state;
    const float logits[N] = {1, 2, 3, 4, 5};
    double sum = 0;
    for (int i = 0; i < N; i++) {
        sum += exp(sample_logprob(logits, N, i));
    }
    assert_true(fabs(sum - 1.0) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_lower_id_of_equals),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(the_same_place_draws_the_same_token),
        cmocka_unit_test(top_k_keeps_the_k_largest),
        cmocka_unit_test(top_p_keeps_the_smallest_set_that_reaches_p),
        cmocka_unit_test(min_p_drops_what_is_unlikely_beside_the_best),
        cmocka_unit_test(penalties_count_prompt_and_output_as_defined),
        cmocka_unit_test(a_bias_moves_the_choice_and_ignores_unknown_ids),
        cmocka_unit_test(logprobs_sum_to_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
