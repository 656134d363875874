/* The number of micro-batches goes to what is faster, and finding that out costs little. */
#include "base/rng.h"
#include "coordinator/pingpong.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define N_STEP 4000

/* What a step costs: `one` ns in one micro-batch, one * ratio in two; noise: by up to this share
 * more or less. */
static int64_t cost(uint64_t step, double one, double ratio, double noise, int n_micro)
{
    double at = n_micro == 2 ? one * ratio : one;
    return (int64_t)(at * (1 + noise * (2 * rng_uniform(7, 1, step) - 1)));
}

/* Time of N_STEP steps over the time of the better kind alone. *two: of the last 100, those in two.
 */
static double regret(struct pingpong *p, int n_row, int first, double ratio, double noise, int *two)
{
    double sum = 0, best = 0;
    *two = 0;
    for (uint64_t i = 0; i < N_STEP; i++) {
        int n = pingpong_choose(p, n_row, first);
        assert_in_range(n, 1, 2);
        int64_t ns = cost(i, 1e6, ratio, noise, n);
        pingpong_ran(p, n_row, n, ns);
        sum += (double)ns;
        best += (double)cost(i, 1e6, ratio, noise, ratio < 1 ? 2 : 1);
        *two += i >= N_STEP - 100 && n == 2;
    }
    return sum / best;
}

static void the_faster_kind_is_found_and_looking_costs_little(void **state)
{
    (void)state;
    static const double ratio[] = {0.5, 0.7, 0.8, 0.9, 1.1, 1.3, 1.8, 3};
    static const double noise[] = {0, 0.05, 0.2};
    for (size_t r = 0; r < sizeof ratio / sizeof *ratio; r++) {
        for (size_t k = 0; k < sizeof noise / sizeof *noise; k++) {
            for (int first = 1; first <= 2; first++) {
                struct pingpong p = {0};
                int two;
                double over = regret(&p, 8, first, ratio[r], noise[k], &two);
                if (over > 1.02) {
                    fail_msg("ratio %.2f, noise %.2f, first %d: %.4f times the best", ratio[r],
                             noise[k], first, over);
                }
                /* What is nearer than the noise may be mistaken; it costs little. */
                if (noise[k] < 0.1 || ratio[r] < 0.85 || ratio[r] > 1.2) {
                    assert_true(ratio[r] < 1 ? two >= 95 : two <= 5);
                }
            }
        }
    }
}

static void a_network_that_becomes_slow_is_noticed(void **state)
{
    (void)state;
    struct pingpong p = {0};
    int two;
    regret(&p, 32, 1, 1.5, 0.1, &two);
    assert_true(two <= 5);
    assert_true(regret(&p, 32, 1, 0.6, 0.1, &two) < 1.35);
    assert_true(two >= 95);
}

static void sizes_are_judged_apart_and_one_row_is_never_cut(void **state)
{
    (void)state;
    struct pingpong p = {0};
    for (uint64_t i = 0; i < 200; i++) {
        int small = pingpong_choose(&p, 4, 2), large = pingpong_choose(&p, 100, 1);
        pingpong_ran(&p, 4, small, cost(i, 1e6, 1.4, 0, small));
        pingpong_ran(&p, 100, large, cost(i, 1e7, 0.7, 0, large));
        assert_int_equal(pingpong_choose(&p, 1, 2), 1);
        pingpong_ran(&p, 1, 1, 1000);
    }
    assert_int_equal(pingpong_choose(&p, 5, 2), 1);
    assert_int_equal(pingpong_choose(&p, 127, 1), 2);
    assert_int_equal(pingpong_choose(&p, 1 << 20, 2), 2); /* nothing known: as told */
}

/* Sixty steps, as many as a short answer has: what was found out then was not dear, whether the
 * rows stay, or grow as requests come. */
static void short_runs_lose_little(void **state)
{
    (void)state;
    static const double ratio[] = {0.8, 1, 1.05, 1.1, 1.3, 1.6, 2};
    for (size_t r = 0; r < sizeof ratio / sizeof *ratio; r++) {
        for (int crowded = 0; crowded <= 1; crowded++) {
            for (int growing = 0; growing <= 1; growing++) {
                struct pingpong p = {.crowded = crowded};
                double sum = 0, one = 0;
                for (uint64_t i = 0; i < 60; i++) {
                    int n_row = growing ? 2 + (int)i / 2 : 8;
                    int n = pingpong_choose(&p, n_row, 1);
                    int64_t ns = cost(i, 1e6 * (8 + n_row), ratio[r], 0.03, n);
                    pingpong_ran(&p, n_row, n, ns);
                    sum += (double)ns;
                    one += (double)cost(i, 1e6 * (8 + n_row), ratio[r], 0.03, 1);
                }
                if (one / sum < 0.98) {
                    fail_msg("two take %.2f as long, crowded %d, growing %d: %.4f of one batch",
                             ratio[r], crowded, growing, one / sum);
                }
                assert_true(ratio[r] > 0.9 || crowded || one / sum > 1.1);
            }
        }
    }
}

static void times_that_rise_with_the_context_do_not_mislead(void **state)
{
    (void)state;
    struct pingpong p = {0};
    int wrong = 0;
    for (int i = 0; i < N_STEP; i++) {
        int n = pingpong_choose(&p, 16, 1);
        pingpong_ran(&p, 16, n, cost(0, 1e6 * (1 + i / 50.0), 1.1, 0, n));
        wrong += n == 2;
    }
    assert_true(wrong < N_STEP / 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_faster_kind_is_found_and_looking_costs_little),
        cmocka_unit_test(a_network_that_becomes_slow_is_noticed),
        cmocka_unit_test(sizes_are_judged_apart_and_one_row_is_never_cut),
        cmocka_unit_test(short_runs_lose_little),
        cmocka_unit_test(times_that_rise_with_the_context_do_not_mislead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
