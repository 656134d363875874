/* placement_groups: whole groups go to workers while there are no more workers than groups, then
 * workers go to groups; every expert is held once. */
#include "router/placement_groups.h"

#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Holders of all experts; fails when one is held twice or by nobody. */
static void deal(const int32_t *group_end, int n_group, int n_part, int32_t *holder)
{
    int n_expert = group_end[n_group - 1];
    int32_t out[256];
    assert_in_range(n_expert, 1, 256);
    for (int e = 0; e < n_expert; e++)
        holder[e] = -1;
    for (int part = 0; part < n_part; part++) {
        int n = placement_colocated(group_end, n_group, part, n_part, out);
        for (int i = 0; i < n; i++) {
            assert_in_range(out[i], 0, n_expert - 1);
            assert_true(i == 0 || out[i] > out[i - 1]);
            assert_int_equal(holder[out[i]], -1);
            holder[out[i]] = part;
        }
    }
    for (int e = 0; e < n_expert; e++)
        assert_int_not_equal(holder[e], -1);
}

static void groups_stay_whole_on_few_workers(void **state)
{
    (void)state;
    static const int32_t group_end[] = {4, 7, 9, 15}; /* sizes 4, 3, 2, 6 */
    int32_t holder[15];
    deal(group_end, 4, 2, holder);
    /* 6 to part 0, 4 to 1, 3 to 1, 2 to 0. */
    static const int32_t two[15] = {1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    assert_memory_equal(holder, two, sizeof(two));
    deal(group_end, 4, 4, holder);
    static const int32_t four[15] = {1, 1, 1, 1, 2, 2, 2, 3, 3, 0, 0, 0, 0, 0, 0};
    assert_memory_equal(holder, four, sizeof(four));
    deal(group_end, 4, 1, holder);
}

static void more_workers_than_groups_cut_the_largest(void **state)
{
    (void)state;
    static const int32_t group_end[] = {4, 7, 9, 15};
    int32_t holder[15];
    deal(group_end, 4, 6, holder);
    /* Two more parts: to the group of 6, then to that of 4. */
    static const int32_t six[15] = {0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5};
    assert_memory_equal(holder, six, sizeof(six));
    for (int n_part = 1; n_part <= 20; n_part++)
        deal(group_end, 4, n_part, holder);
}

static void a_single_group_is_cut_evenly(void **state)
{
    (void)state;
    static const int32_t all[] = {64};
    int32_t out[64];
    for (int part = 0; part < 3; part++) {
        int n = placement_colocated(all, 1, part, 3, out);
        assert_in_range(n, 21, 22);
        assert_int_equal(out[0], 64 * part / 3);
    }
}

static void the_paper_s_forty_groups_fit_sixty_four_workers(void **state)
{
    (void)state;
    int32_t group_end[40], out[640];
    int n_two = 0, sum = 0;
    for (int g = 0; g < 40; g++)
        group_end[g] = 16 * (g + 1);
    for (int part = 0; part < 64; part++) {
        int n = placement_colocated(group_end, 40, part, 64, out);
        assert_true(n == 8 || n == 16);
        assert_int_equal(out[0] / 16, out[n - 1] / 16);
        n_two += n == 8;
        sum += n;
    }
    assert_int_equal(sum, 640);
    assert_int_equal(n_two, 48);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_stay_whole_on_few_workers),
        cmocka_unit_test(more_workers_than_groups_cut_the_largest),
        cmocka_unit_test(a_single_group_is_cut_evenly),
        cmocka_unit_test(the_paper_s_forty_groups_fit_sixty_four_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
