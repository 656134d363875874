/* spin: a wait polls while that pays, rests when it does not, ever longer, and comes back. */
#include "base/spin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Of n waits, how many poll when polling pays or does not. */
static int polls(struct spin *s, int n, int paid)
{
    int n_poll = 0;
    for (int i = 0; i < n; i++) {
        if (spin_begin(s) > 0) {
            spin_end(s, paid);
            n_poll++;
        }
    }
    return n_poll;
}

static void polls_as_long_as_it_pays(void **state)
{
    (void)state;
    struct spin s = {.ns = 20000};
    assert_int_equal(polls(&s, 100000, 1), 100000);
}

static void rests_when_it_does_not_and_comes_back(void **state)
{
    (void)state;
    struct spin s = {.ns = 20000};
    assert_int_equal(polls(&s, SPIN_MISSES + SPIN_REST, 0), SPIN_MISSES);
    int n_poll = polls(&s, 1000 * SPIN_REST_MAX, 0);
    assert_in_range(n_poll, 900, 1100); /* about one in SPIN_REST_MAX */
    int rest = s.rest;
    assert_true(rest <= SPIN_REST_MAX);
    assert_int_equal(polls(&s, rest, 1), 0);
    assert_int_equal(polls(&s, 1000, 1), 1000);
    assert_int_equal(polls(&s, SPIN_MISSES + SPIN_REST, 0), SPIN_MISSES);
}

static void never_when_told_not_to(void **state)
{
    (void)state;
    struct spin s = {0};
    assert_int_equal(polls(&s, 100, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(polls_as_long_as_it_pays),
        cmocka_unit_test(rests_when_it_does_not_and_comes_back),
        cmocka_unit_test(never_when_told_not_to),
    };
    return cmocka_run_group_tests_name("spin", tests, NULL, NULL);
}
