/* The histograms of /metrics. */
#include "coordinator/api_counts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void a_value_is_counted_in_the_first_bucket_that_holds_it(void **state)
{
    (void)state;
    struct histogram h = {.first = 1, .factor = 2, .n = 3};
    histogram_add(&h, 0);
    histogram_add(&h, 1);
    histogram_add(&h, 1.5);
    histogram_add(&h, 4);
    histogram_add(&h, 5);
    assert_int_equal(h.bucket[0], 2);
    assert_int_equal(h.bucket[1], 1);
    assert_int_equal(h.bucket[2], 1);
    assert_int_equal(h.bucket[3], 1);
    assert_int_equal(h.count, 5);
    assert_true(h.sum == 11.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_is_counted_in_the_first_bucket_that_holds_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
