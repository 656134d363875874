/* rng: known answers of Philox-4x32-10 from Random123's kat_vectors, ranges that do not depend on
 * where they begin, and moments of the distributions with fixed seeds. */
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N_SAMPLE 200000

static void rng_block_matches_the_published_vectors(void **state)
{
    (void)state;
    static const struct {
        uint64_t key, hi, lo;
        uint32_t out[4];
    } kat[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof(kat) / sizeof(kat[0]); i++) {
        uint32_t out[4];
        rng_block(kat[i].key, kat[i].hi, kat[i].lo, out);
        assert_memory_equal(out, kat[i].out, sizeof(out));
    }
}

static void rng_uniform_is_in_range_with_the_right_moments(void **state)
{
    (void)state;
    double sum = 0, square = 0;
    for (uint64_t i = 0; i < N_SAMPLE; i++) {
        double u = rng_uniform(1, 2, i);
        assert_true(u >= 0 && u < 1);
        sum += u;
        square += u * u;
    }
    double mean = sum / N_SAMPLE, variance = square / N_SAMPLE - mean * mean;
    assert_true(fabs(mean - 0.5) < 0.003);
    assert_true(fabs(variance - 1.0 / 12) < 0.001);
    /* The first word of the zero vector, 53 bits of it. */
    assert_true(rng_uniform(0, 0, 0) == (double)(0x6627e8d5e169c58dull >> 11) * 0x1p-53);
    assert_true(rng_uniform(1, 2, 3) != rng_uniform(1, 3, 3));
    assert_true(rng_uniform(1, 2, 3) != rng_uniform(2, 2, 3));
}

static void rng_normal_has_the_moments_and_tails_of_the_normal(void **state)
{
    (void)state;
    static float x[N_SAMPLE];
    rng_normal_fill(7, 0, 0, x, N_SAMPLE);
    double m[5] = {0};
    int within_1 = 0, beyond_3 = 0;
    for (int i = 0; i < N_SAMPLE; i++) {
        double v = x[i], power = 1;
        assert_true(isfinite(v) && fabs(v) < 7);
        for (int k = 1; k <= 4; k++)
            m[k] += (power *= v);
        within_1 += fabs(v) < 1;
        beyond_3 += fabs(v) > 3;
    }
    for (int k = 1; k <= 4; k++)
        m[k] /= N_SAMPLE;
    assert_true(fabs(m[1]) < 0.01);
    assert_true(fabs(m[2] - 1) < 0.015);
    assert_true(fabs(m[3]) < 0.03);
    assert_true(fabs(m[4] - 3) < 0.1);
    assert_true(fabs((double)within_1 / N_SAMPLE - 0.682689) < 0.005);
    assert_true(fabs((double)beyond_3 / N_SAMPLE - 0.0026998) < 0.0006);
}

static void rng_normal_is_box_muller_of_the_block(void **state)
{
    (void)state;
    for (uint64_t block = 0; block < 2000; block++) {
        uint32_t w[4];
        float x[4];
        rng_block(11, 5, block, w);
        rng_normal_fill(11, 5, block * 4, x, 4);
        for (int pair = 0; pair < 2; pair++) {
            double u = (w[2 * pair] + 0.5) * 0x1p-32;
            uint32_t a = w[2 * pair + 1];
            double angle =
                ((a >> 30) + ((a & 0x3FFFFFFF) + 0.5) * 0x1p-30) * (3.14159265358979324 / 2);
            double r = sqrt(-2 * log(u));
            assert_true(fabs(x[2 * pair] - r * cos(angle)) < 1e-6);
            assert_true(fabs(x[2 * pair + 1] - r * sin(angle)) < 1e-6);
        }
    }
}

static void rng_normal_does_not_depend_on_the_range(void **state)
{
    (void)state;
    float whole[64], part[64];
    rng_normal_fill(3, 4, 0, whole, 64);
    for (uint64_t first = 0; first < 20; first++) {
        for (uint64_t n = 0; n <= 9; n++) {
            memset(part, 0, sizeof(part));
            rng_normal_fill(3, 4, first, part, n);
            assert_memory_equal(part, whole + first, n * sizeof(float));
            assert_true(part[n] == 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rng_block_matches_the_published_vectors),
        cmocka_unit_test(rng_uniform_is_in_range_with_the_right_moments),
        cmocka_unit_test(rng_normal_has_the_moments_and_tails_of_the_normal),
        cmocka_unit_test(rng_normal_is_box_muller_of_the_block),
        cmocka_unit_test(rng_normal_does_not_depend_on_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
