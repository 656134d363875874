/* topk: against a full sort by the same total order. */
#include "guard.h"

#include "base/rng.h"
#include "kernels/kernels.h"
#include <math.h>
#include <stdlib.h>

#define SEED 7u

static int compare(const void *a, const void *b, void *values)
{
    const float *value = values;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    float x = value[i], y = value[j];
    if (isnan(x) != isnan(y)) {
        return isnan(x) ? 1 : -1;
    }
    if (x > y || x < y) {
        return x > y ? -1 : 1;
    }
    return i < j ? -1 : 1;
}

static void check(const float *x, int n, int k)
{
    int32_t order[4096], index[64];
    float value[64];
    struct guard gx;
    float *guarded = guard_alloc(&gx, (size_t)n * sizeof *x);
    memcpy(guarded, x, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i++) {
        order[i] = i;
    }
    qsort_r(order, (size_t)n, sizeof *order, compare, guarded);
    topk(guarded, n, k, index, value);
    assert_memory_equal(index, order, (size_t)k * sizeof *index);
    for (int i = 0; i < k; i++) {
        assert_memory_equal(&value[i], &x[order[i]], sizeof *x);
    }
    guard_free(&gx);
}

static const int sizes[][2] = {{1, 1},   {2, 2},   {8, 2},    {60, 4},   {64, 8},   {64, 64},
                               {128, 8}, {256, 8}, {257, 16}, {896, 16}, {4096, 64}};
#define N_SIZE (sizeof sizes / sizeof *sizes)

static void the_largest_come_first_in_every_size(void **state)
{
    (void)state;
    float x[4096];
    for (size_t s = 0; s < N_SIZE; s++) {
        for (uint64_t round = 0; round < 20; round++) {
            rng_normal_fill(SEED, round, 0, x, (uint64_t)sizes[s][0]);
            check(x, sizes[s][0], sizes[s][1]);
        }
    }
}

static void of_equal_values_the_lower_index_comes_first(void **state)
{
    (void)state;
    float x[4096];
    for (size_t s = 0; s < N_SIZE; s++) {
        for (int i = 0; i < sizes[s][0]; i++) {
            x[i] = (float)(i * 7 % 5) - 2.0f;
            x[i] = x[i] == 0.0f && i % 2 ? -0.0f : x[i];
        }
        check(x, sizes[s][0], sizes[s][1]);
    }
}

static void nan_is_the_smallest_and_infinities_have_their_place(void **state)
{
    (void)state;
    float x[256];
    for (int share = 1; share <= 4; share++) {
        rng_normal_fill(SEED, 99, 0, x, 256);
        for (int i = 0; i < 256; i++) {
            x[i] = i % 4 < share ? NAN : i % 31 == 3 ? -INFINITY : i % 37 == 3 ? INFINITY : x[i];
        }
        for (int k = 1; k <= 64; k++) {
            check(x, 256, k);
        }
    }
    float all[4] = {NAN, -INFINITY, NAN, -INFINITY};
    check(all, 4, 4);
}

static void sorted_inputs_of_both_directions_are_exact(void **state)
{
    (void)state;
    float up[4096], down[4096];
    for (int i = 0; i < 4096; i++) {
        up[i] = (float)i;
        down[i] = (float)-i;
    }
    check(up, 4096, 64);
    check(down, 4096, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_come_first_in_every_size),
        cmocka_unit_test(of_equal_values_the_lower_index_comes_first),
        cmocka_unit_test(nan_is_the_smallest_and_infinities_have_their_place),
        cmocka_unit_test(sorted_inputs_of_both_directions_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
