/* rope: angles against numbers that transformers computed (rope_golden.h), and the rotation against
 * its formula. */
#include "guard.h"

#include "base/rng.h"
#include "base/team.h"
#include "kernels/kernels.h"
#include <math.h>
#include <stdlib.h>

struct golden {
    struct rope_params params;
    int pos;
    double cosine[32], sine[32]; /* [d_rot / 2] */
};

#include "rope_golden.h"

#define N_GOLDEN (sizeof golden / sizeof *golden)

/* Both sides round frequency and angle to f32, each perhaps one ulp apart: the angle's error grows
 * with the angle. */
static void near(double got, double want, double angle)
{
    if (!(fabs(got - want) <= 2e-7 + fabs(angle) * 0x1.8p-23)) {
        fail_msg("%.9g, transformers %.9g", got, want);
    }
}

static void angles_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOLDEN; i++) {
        const struct golden *g = &golden[i];
        float cosine[32], sine[32];
        rope_angles(&g->params, g->pos, g->pos + 1, cosine, sine);
        for (int j = 0; j < g->params.d_rot / 2; j++) {
            double angle = (double)g->pos * pow(g->params.theta, -2.0 * j / g->params.d_rot);
            near((double)cosine[j], g->cosine[j], angle);
            near((double)sine[j], g->sine[j], angle);
        }
    }
}

/* The golden numbers tell the forms apart: no form passes for another. */
static void scalings_differ_from_the_plain_angles(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_GOLDEN; i++) {
        struct rope_params plain = golden[i].params;
        float cosine[32], sine[32];
        int apart = 0;
        if (plain.scaling == ROPE_NONE || golden[i].pos < 70000) {
            continue;
        }
        plain.scaling = ROPE_NONE;
        rope_angles(&plain, golden[i].pos, golden[i].pos + 1, cosine, sine);
        for (int j = 0; j < plain.d_rot / 2; j++) {
            apart += fabs((double)cosine[j] - golden[i].cosine[j]) > 0.1;
        }
        assert_true(apart > 1);
    }
}

static void dynamic_scaling_looks_at_the_sequence_not_at_the_position(void **state)
{
    (void)state;
    struct rope_params p = {
        .d_rot = 24, .theta = 10000.0, .scaling = ROPE_DYNAMIC, .factor = 4.0, .max_context = 2048};
    float within[12], longer[12], plain[12], sine[12];
    rope_angles(&p, 100, 2048, within, sine);
    rope_angles(&p, 100, 4096, longer, sine);
    p.scaling = ROPE_NONE;
    rope_angles(&p, 100, 4096, plain, sine);
    assert_memory_equal(within, plain, sizeof plain);
    assert_memory_not_equal(longer, plain, sizeof plain);
}

/* ---- the rotation ---- */

static const int forms[][4] = {/* heads, d_head, d_rot, interleaved */
                               {1, 2, 2, 0},    {3, 12, 12, 0},  {4, 18, 18, 0}, {2, 64, 64, 0},
                               {8, 128, 32, 0}, {5, 80, 20, 1},  {2, 64, 64, 1}, {3, 18, 6, 1},
                               {7, 33, 32, 0},  {1, 256, 64, 1}, {2, 19, 18, 1}};
#define N_FORM (sizeof forms / sizeof *forms)

/* Rounded exactly as x cos - y sin is in f32. */
static void rotate_reference(float *x, const int *form, const float *c, const float *s)
{
    for (int h = 0; h < form[0]; h++) {
        for (int i = 0; i < form[2] / 2; i++) {
            float *a = x + h * form[1] + (form[3] ? 2 * i : i);
            float *b = form[3] ? a + 1 : a + form[2] / 2;
            volatile float ac = *a * c[i], bs = *b * s[i], bc = *b * c[i], as = *a * s[i];
            *a = ac - bs;
            *b = bc + as;
        }
    }
}

static void check_rotation(const struct kernels *f, const int *form)
{
    size_t n = (size_t)(form[0] * form[1]), half = (size_t)form[2] / 2;
    struct guard gx, gc, gs;
    float *x = guard_alloc(&gx, n * sizeof *x), *want = calloc(n, sizeof *want);
    float *c = guard_alloc(&gc, half * sizeof *c), *s = guard_alloc(&gs, half * sizeof *s);
    assert_non_null(want);
    rng_normal_fill(3, 1, 0, x, n);
    memcpy(want, x, n * sizeof *x);
    struct rope_params p = {.d_rot = form[2], .theta = 10000.0};
    rope_angles(&p, 77, 78, c, s);
    rotate_reference(want, form, c, s);
    f->rope(x, form[0], form[1], form[2], form[3], c, s);
    assert_memory_equal(x, want, n * sizeof *x);
    free(want);
    guard_free(&gx);
    guard_free(&gc);
    guard_free(&gs);
}

static void rotation_is_exact_in_f32_and_leaves_the_rest_of_the_head(void **state)
{
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *f = kernels_of((enum isa)isa);
        for (size_t i = 0; f && i < N_FORM; i++) {
            check_rotation(f, forms[i]);
        }
    }
}

int main(void)
{
    team_flush_denormals();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(angles_are_those_of_transformers),
        cmocka_unit_test(scalings_differ_from_the_plain_angles),
        cmocka_unit_test(dynamic_scaling_looks_at_the_sequence_not_at_the_position),
        cmocka_unit_test(rotation_is_exact_in_f32_and_leaves_the_rest_of_the_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
