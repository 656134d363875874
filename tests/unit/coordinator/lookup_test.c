/* What is guessed from earlier tokens. */
#include "coordinator/lookup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define LEN(a) ((int)(sizeof(a) / sizeof *(a)))

/* Guesses of at most k tokens behind token [n] are want [n_want]. */
static void expect(const int32_t *token, int n, int k, const int32_t *want, int n_want)
{
    int32_t all[64], out[16];
    memcpy(all, token, (size_t)n * sizeof *all);
    assert_int_equal(lookup_propose(token, n, k, out), n_want);
    assert_memory_equal(out, want, (size_t)n_want * sizeof *out);
    /* In place: the guesses behind the tokens. */
    assert_int_equal(lookup_propose(all, n, k, all + n), n_want);
    assert_memory_equal(all, token, (size_t)n * sizeof *all);
    assert_memory_equal(all + n, want, (size_t)n_want * sizeof *all);
}

static void nothing_repeats_nothing_is_guessed(void **state)
{
    (void)state;
    const int32_t t[] = {1, 2, 3, 4, 5, 3};
    for (int n = 0; n <= LEN(t); n++) {
        expect(t, n, 8, NULL, 0);
    }
}

static void three_that_agree_win_over_two_that_are_nearer(void **state)
{
    (void)state;
    const int32_t t[] = {7, 8, 9, 10, 11, 1, 8, 9, 20, 21, 7, 8, 9};
    const int32_t want[] = {10, 11, 1};
    expect(t, LEN(t), 3, want, 3);
    /* Without the third, the nearest two. */
    const int32_t want_two[] = {20, 21, 7};
    expect(t + 1, LEN(t) - 1, 3, want_two, 3);
}

static void the_nearest_place_is_taken(void **state)
{
    (void)state;
    const int32_t t[] = {1, 2, 3, 50, 1, 2, 3, 60, 61, 1, 2, 3};
    const int32_t want[] = {60, 61};
    expect(t, LEN(t), 2, want, 2);
}

static void two_at_the_very_beginning_are_found(void **state)
{
    (void)state;
    const int32_t t[] = {4, 5, 6, 4, 5};
    const int32_t want[] = {6, 4, 5, 6, 4, 5, 6, 4};
    expect(t, LEN(t), 8, want, 8);
    expect(t, LEN(t), 1, want, 1);
    expect(t, LEN(t), 0, NULL, 0);
}

static void a_short_period_is_gone_round_again(void **state)
{
    (void)state;
    const int32_t one[] = {9, 3, 3, 3}, want_one[] = {3, 3, 3, 3, 3};
    expect(one, LEN(one), 5, want_one, 5);
    const int32_t two[] = {1, 2, 1, 2, 1}, want_two[] = {2, 1, 2, 1, 2};
    expect(two, LEN(two), 5, want_two, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_repeats_nothing_is_guessed),
        cmocka_unit_test(three_that_agree_win_over_two_that_are_nearer),
        cmocka_unit_test(the_nearest_place_is_taken),
        cmocka_unit_test(two_at_the_very_beginning_are_found),
        cmocka_unit_test(a_short_period_is_gone_round_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
