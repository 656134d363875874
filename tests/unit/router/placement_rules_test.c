/* placement_rules: groups lie where rules say, with as many copies as they say, and nothing else
 * moves. */
#include "router/placement_rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N_LAYER  3
#define N_EXPERT 8
#define N_WORKER 4

static const uint8_t sparse[N_LAYER] = {0, 1, 1};

/* Expert e at worker e mod 4, in the sparse layers. */
static struct placement *dealt(void)
{
    struct placement *p;
    assert_int_equal(placement_create(N_LAYER, N_EXPERT, &p, NULL), 0);
    for (int l = 1; l < N_LAYER; l++)
        for (int e = 0; e < N_EXPERT; e++)
            assert_int_equal(placement_add(p, l, e, e % N_WORKER, NULL), 0);
    return p;
}

static int n_holder(const struct placement *p, int layer, int expert)
{
    const int32_t *holder;
    return placement_holders(p, layer, expert, &holder);
}

static int apply(struct placement *p, int first, int n_expert, int n_copy, const uint8_t *allowed)
{
    struct placement_rule rule = {first, n_expert, n_copy, allowed};
    return placement_rules_apply(p, sparse, N_WORKER, &rule, 1, NULL);
}

static void test_a_group_goes_where_it_is_allowed_and_nowhere_else(void **state)
{
    (void)state;
    struct placement *p = dealt();
    const uint8_t allowed[N_WORKER] = {0, 1, 0, 1};
    assert_int_equal(apply(p, 0, 4, 1, allowed), 0);
    for (int l = 1; l < N_LAYER; l++) {
        int held[N_WORKER] = {0};
        for (int e = 0; e < 4; e++) {
            assert_int_equal(n_holder(p, l, e), 1);
            for (int w = 0; w < N_WORKER; w++)
                held[w] += placement_has(p, l, e, w);
        }
        assert_int_equal(held[0] + held[2], 0);
        assert_int_equal(held[1], 2);
        assert_int_equal(held[3], 2);
        assert_true(placement_has(p, l, 1, 1)); /* it lay well */
        for (int e = 4; e < N_EXPERT; e++)
            assert_true(placement_has(p, l, e, e % N_WORKER) && n_holder(p, l, e) == 1);
    }
    assert_int_equal(n_holder(p, 0, 0), 0); /* dense */
    placement_destroy(p);
}

static void test_copies_are_added_and_taken_away(void **state)
{
    (void)state;
    struct placement *p = dealt();
    const uint8_t all[N_WORKER] = {1, 1, 1, 1};
    assert_int_equal(apply(p, 2, 3, 3, all), 0);
    for (int e = 2; e < 5; e++)
        assert_true(n_holder(p, 1, e) == 3 && placement_has(p, 1, e, e % N_WORKER));
    assert_int_equal(apply(p, 2, 3, 9, all), 0); /* one a worker */
    assert_int_equal(n_holder(p, 2, 3), N_WORKER);
    assert_int_equal(apply(p, 2, 3, 1, all), 0);
    int held[N_WORKER] = {0};
    for (int e = 2; e < 5; e++) {
        assert_int_equal(n_holder(p, 1, e), 1);
        for (int w = 0; w < N_WORKER; w++)
            held[w] += placement_has(p, 1, e, w);
    }
    for (int w = 0; w < N_WORKER; w++)
        assert_true(held[w] <= 1); /* the most laden gave theirs away */
    placement_destroy(p);
}

static void test_none_is_none_and_no_worker_changes_nothing(void **state)
{
    (void)state;
    struct placement *p = dealt();
    const uint8_t nobody[N_WORKER] = {0};
    assert_int_equal(apply(p, 0, 8, 1, nobody), 0);
    assert_int_equal(n_holder(p, 1, 5), 1);
    assert_int_equal(apply(p, 5, 3, 0, nobody), 0);
    assert_int_equal(n_holder(p, 1, 5) + n_holder(p, 2, 7), 0);
    assert_int_equal(n_holder(p, 1, 4), 1);
    assert_true(apply(p, 5, 4, 1, nobody) < 0); /* beyond the table */
    placement_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_group_goes_where_it_is_allowed_and_nowhere_else),
        cmocka_unit_test(test_copies_are_added_and_taken_away),
        cmocka_unit_test(test_none_is_none_and_no_worker_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
