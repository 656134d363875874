/* math: the scalar functions against libm in double, their edges, and their bits against the lanes'
 * on every instruction set. */
#include "guard.h"

#include "base/team.h"
#include "kernels/kernels.h"
#include "kernels/math.h"
#include <math.h>

/* Distance of a result from the truth in units of the last place of the truth. */
static double ulps(float result, double truth)
{
    float magnitude = fabsf((float)truth);
    double ulp = (double)nextafterf(magnitude, INFINITY) - (double)magnitude;
    return fabs((double)result - truth) / ulp;
}

static void exp_tanh_and_sigmoid_stay_within_their_ulps(void **state)
{
    (void)state;
    for (int i = -873000; i <= 887000; i += 7) {
        float x = (float)i * 1e-4f;
        double d = (double)x;
        if (ulps(k_expf(x), exp(d)) > 2.0 || ulps(k_tanhf(x), tanh(d)) > 2.0 ||
            ulps(k_sigmoidf(x), 1.0 / (1.0 + exp(-d))) > 4.0 ||
            ulps(k_softplusf(x), log1p(exp(d))) > 1.0)
            fail_msg("x %.9g: exp %.9g, tanh %.9g, sigmoid %.9g, softplus %.9g", d,
                     (double)k_expf(x), (double)k_tanhf(x), (double)k_sigmoidf(x),
                     (double)k_softplusf(x));
    }
}

static void the_edges_of_exp_are_zero_infinity_one_and_nan(void **state)
{
    (void)state;
    assert_true(k_expf(-87.4f) == 0.0f && k_expf(-INFINITY) == 0.0f);
    assert_true(isinf(k_expf(88.73f)) && isinf(k_expf(INFINITY)));
    assert_true(k_expf(0.0f) == 1.0f && k_expf(88.7f) < INFINITY && k_expf(-87.3f) > 0.0f);
    assert_true(isnan(k_expf(NAN)) && isnan(k_tanhf(NAN)) && isnan(k_sigmoidf(NAN)));
    assert_true(k_softplusf(1000.0f) == 1000.0f && k_softplusf(-1000.0f) == 0.0f);
    assert_true(k_tanhf(INFINITY) == 1.0f && k_tanhf(-INFINITY) == -1.0f);
}

/* silu(x) * 1 by the lanes is x * k_sigmoidf(x), rounding for rounding. */
static void the_lanes_have_the_bits_of_the_scalar_functions(void **state)
{
    (void)state;
    enum { N = 20011 };
    static float x[N], one[N], y[N], want[N];
    team_flush_denormals();
    for (int i = 0; i < N; i++) {
        x[i] = ((float)i - 10005.0f) * 0.0091f;
        one[i] = 1.0f;
        want[i] = x[i] * k_sigmoidf(x[i]);
    }
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *k = kernels_of((enum isa)isa);
        if (!k)
            continue;
        k->act_mul(ACT_SILU, 0.0f, 0.0f, x, one, N, y, DTYPE_F32);
        for (int i = 0; i < N; i++) {
            if (memcmp(&y[i], &want[i], sizeof *y) != 0)
                fail_msg("%s: silu(%.9g) is %.9g, scalar %.9g", k->name, (double)x[i], (double)y[i],
                         (double)want[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_tanh_and_sigmoid_stay_within_their_ulps),
        cmocka_unit_test(the_edges_of_exp_are_zero_infinity_one_and_nan),
        cmocka_unit_test(the_lanes_have_the_bits_of_the_scalar_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
