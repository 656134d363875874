/* gpu: what a device computes is, bit for bit, what portable C computes: every kind of weights,
 * every activation, few rows and many, sizes that fill no panel and no block. Skipped where no
 * device can be used. */
#include "worker/gpu_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SKIPPED 77

static struct gpu *gpu;

static void agrees(const struct gpu_case *c)
{
    struct err err = {0};
    if (gpu_agrees(gpu, c, &err))
        fail_msg("%s", err.text);
}

/* What the case before leaves open. */
static struct gpu_case of_shape(struct gpu_case c, int d_model, int d_ff, int n_row)
{
    c.d_model = d_model;
    c.d_ff = d_ff;
    c.n_row = n_row;
    c.n_expert = 5;
    c.top_k = 2;
    return c;
}

static const struct gpu_case kinds[] = {
    {.up = DTYPE_F32, .down = DTYPE_F32, .y = DTYPE_F32},
    {.up = DTYPE_BF16, .down = DTYPE_BF16, .y = DTYPE_BF16},
    {.up = DTYPE_I8, .down = DTYPE_I8, .group = 32, .int_rows = 1, .y = DTYPE_BF16},
    {.up = DTYPE_I8, .down = DTYPE_I8, .group = 128, .int_rows = 1, .y = DTYPE_BF16},
    {.up = DTYPE_I8, .down = DTYPE_I8, .group = 96, .int_rows = 1, .y = DTYPE_F32},
    {.up = DTYPE_I8, .down = DTYPE_I8, .group = 256, .int_rows = 1, .y = DTYPE_BF16},
    {.up = DTYPE_I4, .down = DTYPE_I4, .group = 32, .int_rows = 1, .y = DTYPE_BF16},
    {.up = DTYPE_I4, .down = DTYPE_I8, .group = 64, .int_rows = 1, .y = DTYPE_BF16},
    {.up = DTYPE_I8, .down = DTYPE_I8, .group = 32, .y = DTYPE_BF16},
    {.up = DTYPE_I4, .down = DTYPE_I4, .group = 128, .y = DTYPE_BF16},
};
#define N_KIND (sizeof(kinds) / sizeof(*kinds))

static void every_kind_of_weights_and_number_of_rows(void **state)
{
    (void)state;
    static const int n_row[] = {1, 2, 7, 9, 33, 70, 300};
    for (size_t k = 0; k < N_KIND; k++)
        for (size_t r = 0; r < sizeof(n_row) / sizeof(*n_row); r++) {
            struct gpu_case c = of_shape(kinds[k], 288, 160, n_row[r]);
            c.act = ACT_SILU;
            agrees(&c);
        }
}

static void sizes_that_fill_no_panel(void **state)
{
    (void)state;
    static const int size[][2] = {{33, 17}, {40, 56}, {127, 129}, {250, 31}, {16, 16}, {520, 48}};
    for (size_t k = 0; k < N_KIND; k++)
        for (size_t s = 0; s < sizeof(size) / sizeof(*size); s++) {
            struct gpu_case c = of_shape(kinds[k], size[s][0], size[s][1], 19);
            c.act = ACT_SILU;
            agrees(&c);
        }
}

static void every_activation_with_and_without_gate_and_bias(void **state)
{
    (void)state;
    for (int act = ACT_SILU; act <= ACT_SWIGLU_CLAMP; act++)
        for (int plain = 0; plain < 2; plain++)
            for (int biased = 0; biased < 2; biased++)
                for (size_t k = 0; k < N_KIND; k++) {
                    struct gpu_case c = of_shape(kinds[k], 160, 96, 23);
                    c.act = (enum act)act;
                    c.plain = plain;
                    c.biased = biased;
                    agrees(&c);
                }
}

static void numbers_about_the_smallest(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_KIND; k++) {
        struct gpu_case c = of_shape(kinds[k], 160, 96, 23);
        c.act = ACT_RELU2;
        c.tiny = 1;
        agrees(&c);
        c.act = ACT_SILU;
        c.y = DTYPE_F32;
        agrees(&c);
    }
}

/* An expert of OLMoE-1B-7B, and a batch whose experts have rows in very different numbers. */
static void sizes_that_are_served(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_KIND; k++) {
        struct gpu_case c = of_shape(kinds[k], 2048, 1024, 40);
        c.act = ACT_SILU;
        c.n_expert = 3;
        agrees(&c);
    }
}

static void a_device_that_is_not_there_is_told_in_words(void **state)
{
    (void)state;
    struct err err = {0};
    struct gpu *none = NULL;
    assert_int_equal(gpu_open(999, &none, &err), ERR_USAGE);
    assert_null(none);
    assert_non_null(strstr(err.text, "--device cuda:999"));
}

int main(void)
{
    const struct CMUnitTest none[] = {
        cmocka_unit_test(a_device_that_is_not_there_is_told_in_words),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_weights_and_number_of_rows),
        cmocka_unit_test(sizes_that_fill_no_panel),
        cmocka_unit_test(every_activation_with_and_without_gate_and_bias),
        cmocka_unit_test(numbers_about_the_smallest),
        cmocka_unit_test(sizes_that_are_served),
    };
    struct err err = {0};
    int failures = cmocka_run_group_tests(none, NULL, NULL);
    if (failures)
        return failures;
    if (gpu_open(0, &gpu, &err)) {
        fprintf(stderr, "skipped: %s\n", err.text);
        return err.code == ERR_USAGE ? SKIPPED : 1;
    }
    failures = cmocka_run_group_tests(tests, NULL, NULL);
    gpu_close(gpu);
    return failures;
}
