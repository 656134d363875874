/* Percentiles and intervals are exact on data whose figures are known. */
#include "tools/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void percentiles_are_samples_by_nearest_rank(void **state)
{
    (void)state;
    struct samples s = {0};
    struct summary f;
    for (int i = 0; i < 100; i++)
        samples_add(&s, (double)((i * 37) % 100 + 1)); /* 1 .. 100, shuffled */
    samples_summary(&s, &f);
    assert_int_equal(f.n, 100);
    assert_true(f.p50 == 50 && f.p90 == 90 && f.p95 == 95 && f.p99 == 99);
    assert_true(f.min == 1 && f.max == 100 && f.mean == 50.5);
    samples_free(&s);
}

static void one_sample_is_every_percentile(void **state)
{
    (void)state;
    const double x[] = {7};
    assert_true(percentile(x, 1, 0.01) == 7 && percentile(x, 1, 1) == 7);
    assert_true(percentile(x, 0, 0.5) == 0);
    const double two[] = {1, 2};
    assert_true(percentile(two, 2, 0.5) == 1 && percentile(two, 2, 0.51) == 2);
}

static void no_samples_are_zero_not_noise(void **state)
{
    (void)state;
    struct samples s = {0};
    struct summary f;
    samples_summary(&s, &f);
    assert_true(f.n == 0 && f.mean == 0 && f.p99 == 0);
}

/* The quantiles that statistics tables print. */
static void student_agrees_with_the_tables(void **state)
{
    (void)state;
    static const struct {
        double confidence, df, t;
    } table[] = {{0.95, 1, 12.7062}, {0.95, 2, 4.3027}, {0.95, 4, 2.7764}, {0.95, 9, 2.2622},
                 {0.95, 30, 2.0423}, {0.99, 9, 3.2498}, {0.90, 5, 2.0150}, {0.95, 1e6, 1.9600}};
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_true(fabs(student_quantile(table[i].confidence, table[i].df) - table[i].t) < 1e-4);
}

static void interval_of_known_samples(void **state)
{
    (void)state;
    const double x[] = {4, 6, 8, 10, 12}; /* mean 8, s = sqrt(10), s / sqrt(5) = sqrt(2) */
    double mean, half;
    mean_interval(x, 5, 0.95, &mean, &half);
    assert_true(mean == 8 && fabs(half - 2.7764451 * sqrt(2.0)) < 1e-5);
    mean_interval(x, 1, 0.95, &mean, &half);
    assert_true(mean == 4 && half == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_samples_by_nearest_rank),
        cmocka_unit_test(one_sample_is_every_percentile),
        cmocka_unit_test(no_samples_are_zero_not_noise),
        cmocka_unit_test(student_agrees_with_the_tables),
        cmocka_unit_test(interval_of_known_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
