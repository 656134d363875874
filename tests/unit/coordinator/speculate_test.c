/* What steps cost, and how many guesses are worth it. */
#include "coordinator/speculate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define NS_PER_MS    1000000
#define NEVER_FORGET UINT64_MAX

/* ---- cost ------------------------------------------------------------------------------------ */

static void between_known_sizes_is_the_line_between(void **state)
{
    (void)state;
    struct step_cost c = {0};
    assert_true(step_cost_ns(&c, 3, NEVER_FORGET) == 0);
    assert_true(step_cost_age(&c, 3) == UINT64_MAX);
    step_cost_add(&c, 2, 100);
    step_cost_add(&c, 6, 300);
    assert_true(step_cost_ns(&c, 2, NEVER_FORGET) == 100);
    assert_true(step_cost_ns(&c, 4, NEVER_FORGET) == 200);
    assert_true(step_cost_ns(&c, 1, NEVER_FORGET) == 100);
    double above = step_cost_ns(&c, 24, NEVER_FORGET);
    assert_true(above > 300 && above < 400);
    assert_int_equal(step_cost_age(&c, 2), 1);
    assert_int_equal(step_cost_age(&c, 6), 0);
}

static void one_slow_step_moves_little_and_a_change_is_followed(void **state)
{
    (void)state;
    struct step_cost c = {0};
    for (int i = 0; i < 8; i++) {
        step_cost_add(&c, 5, 1000);
    }
    step_cost_add(&c, 5, 1000000);
    assert_true(step_cost_ns(&c, 5, NEVER_FORGET) <= 1250);
    for (int i = 0; i < 40; i++) {
        step_cost_add(&c, 5, 500);
    }
    double now = step_cost_ns(&c, 5, NEVER_FORGET);
    assert_true(now > 499 && now < 501);
}

static void what_was_not_seen_for_long_is_not_known(void **state)
{
    (void)state;
    struct step_cost c = {0};
    step_cost_add(&c, 9, 90000);
    for (int i = 0; i < 10; i++) {
        step_cost_add(&c, 1, 1000);
    }
    assert_true(step_cost_ns(&c, 9, 11) == 90000);
    assert_true(step_cost_ns(&c, 9, 10) < 2000);
}

static void every_size_has_a_place(void **state)
{
    (void)state;
    struct step_cost c = {0};
    for (int n = 1; n <= 1 << 20; n = n < 70 ? n + 1 : n * 2 - 3) {
        step_cost_add(&c, n, n);
        double ns = step_cost_ns(&c, n, NEVER_FORGET);
        assert_true(ns > 0 && ns <= n);
    }
    for (int n = 1; n <= 16; n++) {
        assert_true(step_cost_ns(&c, n, NEVER_FORGET) == n);
    }
}

/* ---- choice ---------------------------------------------------------------------------------- */

/* A speculator that has seen steps of 1 to 16 rows cost first + each * (rows - 1). */
static struct speculate with_cost(int64_t first, int64_t each)
{
    struct speculate s = {.mode = SPECULATE_AUTO, .k_max = SPECULATE_MAX};
    for (int n = 1; n <= 16; n++) {
        step_cost_add(&s.cost, n, first + each * (n - 1));
    }
    return s;
}

static struct speculate_hits hits_after(struct speculate *s, int n, int right_of_10)
{
    struct speculate_hits h = {0};
    for (int i = 0; i < n; i++) {
        speculate_saw(s, &h, i % 10 < right_of_10);
    }
    return h;
}

static int chosen(struct speculate *s, const struct speculate_hits *h, int n_row, int room)
{
    struct speculate_want want = {h, SPECULATE_MAX, -1};
    int sum = speculate_choose(s, &want, 1, n_row, room);
    assert_int_equal(sum, want.k);
    return sum;
}

static void rows_that_cost_nothing_are_all_taken(void **state)
{
    (void)state;
    struct speculate s = with_cost(10 * NS_PER_MS, 0);
    struct speculate_hits h = hits_after(&s, 40, 10);
    assert_int_equal(chosen(&s, &h, 1, 500), SPECULATE_MAX);
    assert_int_equal(chosen(&s, &h, 1, 3), 3);
    assert_int_equal(chosen(&s, &h, 1, 0), 0);
}

static void rows_that_cost_a_step_each_are_not_taken(void **state)
{
    (void)state;
    struct speculate s = with_cost(10 * NS_PER_MS, 10 * NS_PER_MS);
    struct speculate_hits h = hits_after(&s, 40, 10);
    assert_int_equal(chosen(&s, &h, 1, 500), 0);
}

static void the_worse_the_guesses_the_fewer_rows(void **state)
{
    (void)state;
    int last = SPECULATE_MAX;
    for (int right = 10; right >= 0; right--) {
        struct speculate s = with_cost(10 * NS_PER_MS, NS_PER_MS);
        struct speculate_hits h = hits_after(&s, 60, right);
        int k = chosen(&s, &h, 1, 500);
        assert_true(k <= last);
        last = k;
    }
    assert_int_equal(last, 0);
}

static void a_sequence_that_was_wrong_gives_way_to_one_that_was_right(void **state)
{
    (void)state;
    struct speculate s = with_cost(10 * NS_PER_MS, NS_PER_MS);
    struct speculate_hits good = hits_after(&s, 40, 10), bad = hits_after(&s, 40, 0);
    struct speculate_want want[2] = {{&bad, 8, 0}, {&good, 8, 0}};
    int sum = speculate_choose(&s, want, 2, 2, 500);
    assert_int_equal(want[0].k, 0);
    assert_true(want[1].k >= 4);
    assert_int_equal(sum, want[1].k);
}

static void guesses_are_tried_before_anything_is_known_of_them(void **state)
{
    (void)state;
    struct speculate s = {.mode = SPECULATE_AUTO, .k_max = SPECULATE_MAX};
    struct speculate_hits h = {0};
    assert_int_equal(chosen(&s, &h, 1, 500), 0); /* what is a step without them? */
    step_cost_add(&s.cost, 1, 10 * NS_PER_MS);
    assert_true(chosen(&s, &h, 1, 500) >= 1);
}

static void a_plain_step_is_made_now_and_then(void **state)
{
    (void)state;
    struct speculate s = with_cost(10 * NS_PER_MS, 0);
    struct speculate_hits h = hits_after(&s, 40, 10);
    int plain = 0;
    for (int i = 0; i < 1000; i++) {
        int k = chosen(&s, &h, 1, 500);
        plain += k == 0;
        step_cost_add(&s.cost, 1 + k, 10 * NS_PER_MS);
    }
    assert_in_range(plain, 1, 10);
}

static void a_large_batch_is_left_alone_unless_asked(void **state)
{
    (void)state;
    struct speculate s = with_cost(10 * NS_PER_MS, 0);
    struct speculate_hits h = hits_after(&s, 40, 10);
    step_cost_add(&s.cost, 64, 10 * NS_PER_MS);
    assert_int_equal(chosen(&s, &h, 64, 100), 0);
    s.mode = SPECULATE_ALWAYS;
    assert_int_equal(chosen(&s, &h, 64, 100), SPECULATE_MAX);
    s.k_max = 3;
    assert_int_equal(chosen(&s, &h, 64, 100), 3);
    struct speculate_want want[3] = {{&h, 2, 0}, {&h, 8, 0}, {&h, 8, 0}};
    assert_int_equal(speculate_choose(&s, want, 3, 64, 6), 6);
    assert_int_equal(want[0].k, 2);
    assert_int_equal(want[1].k, 3);
    assert_int_equal(want[2].k, 1);
    s.mode = SPECULATE_OFF;
    assert_int_equal(speculate_choose(&s, want, 3, 64, 6), 0);
    assert_int_equal(want[0].k + want[1].k + want[2].k, 0);
}

/* ---- the option ------------------------------------------------------------------------------ */

static void the_option_is_read_or_refused_in_words(void **state)
{
    (void)state;
    struct err err = {0};
    enum speculate_mode mode;
    int k;
    assert_int_equal(speculate_parse("off", &mode, &k, &err), 0);
    assert_int_equal(mode, SPECULATE_OFF);
    assert_int_equal(speculate_parse("auto", &mode, &k, &err), 0);
    assert_int_equal(mode, SPECULATE_AUTO);
    assert_int_equal(speculate_parse("ngram", &mode, &k, &err), 0);
    assert_int_equal(mode, SPECULATE_ALWAYS);
    assert_int_equal(k, SPECULATE_MAX);
    assert_int_equal(speculate_parse("ngram:3", &mode, &k, &err), 0);
    assert_int_equal(k, 3);
    const char *bad[] = {"", "on", "ngram:", "ngram:0", "ngram:9", "ngram:33", "ngram:-1", "Off"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(speculate_parse(bad[i], &mode, &k, &err), ERR_USAGE);
        assert_non_null(strstr(err.text, "--speculate"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(between_known_sizes_is_the_line_between),
        cmocka_unit_test(one_slow_step_moves_little_and_a_change_is_followed),
        cmocka_unit_test(what_was_not_seen_for_long_is_not_known),
        cmocka_unit_test(every_size_has_a_place),
        cmocka_unit_test(rows_that_cost_nothing_are_all_taken),
        cmocka_unit_test(rows_that_cost_a_step_each_are_not_taken),
        cmocka_unit_test(the_worse_the_guesses_the_fewer_rows),
        cmocka_unit_test(a_sequence_that_was_wrong_gives_way_to_one_that_was_right),
        cmocka_unit_test(guesses_are_tried_before_anything_is_known_of_them),
        cmocka_unit_test(a_plain_step_is_made_now_and_then),
        cmocka_unit_test(a_large_batch_is_left_alone_unless_asked),
        cmocka_unit_test(the_option_is_read_or_refused_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
