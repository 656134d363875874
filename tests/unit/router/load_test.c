/* load: figures of small loads by hand, and windows that forget. */
#include "router/load.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NEAR 1e-12

static void near(double a, double b)
{
    assert_true(fabs(a - b) < NEAR);
}

static void figures_of_even_loads_are_zero_excess_and_full_entropy(void **state)
{
    (void)state;
    const double even[] = {3, 3, 3, 3};
    struct load_figures f;
    load_figures(even, NULL, 4, &f);
    near(f.max, 3);
    near(f.max_over_mean, 1);
    near(f.excess, 0);
    near(f.cv, 0);
    near(f.entropy, 1);
}

static void figures_of_one_hot_worker(void **state)
{
    (void)state;
    const double hot[] = {8, 0, 0, 0};
    struct load_figures f;
    load_figures(hot, NULL, 4, &f);
    near(f.mean, 2);
    near(f.max_over_mean, 4);
    near(f.excess, 3);
    near(f.cv, sqrt(3));
    near(f.entropy, 0);
}

static void figures_are_relative_to_speed(void **state)
{
    (void)state;
    const double load[] = {10, 20, 40}, speed[] = {1, 2, 4}, off[] = {20, 20, 30};
    struct load_figures f;
    load_figures(load, speed, 3, &f);
    near(f.excess, 0);
    near(f.mean, 10);
    load_figures(off, speed, 3, &f);
    near(f.max, 20);
    near(f.excess, 1);
}

static void figures_of_nothing_are_no_nan(void **state)
{
    (void)state;
    const double none[] = {0, 0};
    struct load_figures f;
    load_figures(none, NULL, 2, &f);
    near(f.excess, 0);
    near(f.entropy, 1);
    load_figures(none, NULL, 0, &f);
    near(f.max, 0);
    load_figures((const double[]){5}, NULL, 1, &f);
    near(f.excess, 0);
    near(f.entropy, 1);
}

static void window_counts_slots_and_forgets_the_oldest_bucket(void **state)
{
    (void)state;
    struct load_window w;
    void *memory = malloc(load_window_bytes(2, 4, 3));
    double load[8];
    static const int32_t first[] = {0, 1, 1, -1}, second[] = {3, 3};
    assert_int_equal(load_window_init(&w, 2, 4, 3, memory, NULL), 0);
    assert_int_equal(load_window_add(&w, 1, first, 4, NULL), 0);
    load_window_advance(&w);
    assert_int_equal(load_window_add(&w, 0, second, 2, NULL), 0);
    assert_int_equal(load_window_sum(&w, 1, load), 2);
    near(load[3], 2);
    near(load[5], 0);
    assert_int_equal(load_window_sum(&w, 3, load), 5);
    near(load[4], 1);
    near(load[5], 2);
    load_window_advance(&w);
    load_window_advance(&w);
    assert_int_equal(load_window_sum(&w, 3, load), 2);
    near(load[4], 0);
    free(memory);
}

static void window_refuses_what_lies_outside_with_nothing_counted(void **state)
{
    (void)state;
    struct load_window w;
    struct err err = {0};
    void *memory = malloc(load_window_bytes(1, 4, 1));
    double load[4];
    static const int32_t bad[] = {0, 4};
    assert_int_equal(load_window_init(&w, 1, 4, 1, memory, NULL), 0);
    assert_int_equal(load_window_add(&w, 0, bad, 2, &err), ERR_LIMIT);
    assert_string_equal(err.text, "slot 1 names expert 4 of 4");
    assert_int_equal(load_window_add(&w, 1, bad, 1, NULL), ERR_LIMIT);
    assert_int_equal(load_window_sum(&w, 1, load), 0);
    near(load[0], 0);
    free(memory);
    assert_int_equal(load_window_bytes(0, 4, 1), 0);
    assert_int_equal(load_window_bytes(1, 4097, 1), 0);
    err_clear(&err);
    assert_int_equal(load_window_init(&w, 1, 4, 0, NULL, &err), ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_of_even_loads_are_zero_excess_and_full_entropy),
        cmocka_unit_test(figures_of_one_hot_worker),
        cmocka_unit_test(figures_are_relative_to_speed),
        cmocka_unit_test(figures_of_nothing_are_no_nan),
        cmocka_unit_test(window_counts_slots_and_forgets_the_oldest_bucket),
        cmocka_unit_test(window_refuses_what_lies_outside_with_nothing_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
