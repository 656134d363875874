/* A point of a curve from samples at several paces: what it takes undisturbed and how much of that
 * the pace stretches, from samples that are made up. */
#include "tools/calibrate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define N CALIBRATE_SAMPLES

/* 1000 ns of which 300 stretch; every eighth sample met something else and took ten times as long.
 */
static void a_line_goes_through_what_is_usual(void **state)
{
    (void)state;
    double ns[N], more[N], feel = 1;
    for (int i = 0; i < N; i++) {
        more[i] = i % 4 * 0.5;
        ns[i] = (1000 + 300 * more[i]) * (i % 8 == 3 ? 10 : 1);
    }
    struct measured m = calibrate_fit(ns, more, N, &feel);
    assert_true(fabs(m.ns - 1000) < 20 && fabs(m.felt_ns - 300) < 20);
    assert_true(fabs(feel - 0.3) < 0.02);
}

/* All at one pace: the neighbour's feel brings them to the undisturbed. */
static void one_pace_takes_the_neighbours_feel(void **state)
{
    (void)state;
    double ns[10], more[10], feel = 0.25;
    for (int i = 0; i < 10; i++) {
        more[i] = 2;
        ns[i] = 600 + i % 3;
    }
    struct measured m = calibrate_fit(ns, more, 10, &feel);
    assert_true(fabs(m.ns - 400) < 2 && fabs(m.felt_ns - 100) < 1);
    assert_true(fabs(feel - 0.25) < 1e-9);
}

/* What becomes faster as the CPU is slowed does so by chance. */
static void nothing_feels_less_than_nothing(void **state)
{
    (void)state;
    double ns[N], more[N], feel = 1;
    for (int i = 0; i < N; i++) {
        more[i] = i % 2;
        ns[i] = 500 - 5 * more[i];
    }
    struct measured m = calibrate_fit(ns, more, N, &feel);
    assert_true(m.felt_ns == 0 && feel == 0 && fabs(m.ns - 500) < 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_goes_through_what_is_usual),
        cmocka_unit_test(one_pace_takes_the_neighbours_feel),
        cmocka_unit_test(nothing_feels_less_than_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
