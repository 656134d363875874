/* norm: against double, the same bits on every instruction set, zeros behind the row and nothing
 * behind those. */
#include "guard.h"

#include "base/rng.h"
#include "base/team.h"
#include "kernels/kernels.h"
#include <math.h>
#include <stdlib.h>

static const int widths[] = {1, 2, 12, 15, 16, 17, 31, 33, 64, 100, 896, 2048, 2880, 5120};
#define N_WIDTH (sizeof widths / sizeof *widths)
#define WIDEST  5120

enum form { RMS, LAYER, LAYER_PLAIN };

struct row {
    float x[WIDEST], weight[WIDEST], bias[WIDEST];
};

static void fill(struct row *r, int d)
{
    uint64_t n = (uint64_t)d;
    rng_normal_fill(5, n, 0, r->x, n);
    rng_normal_fill(5, n + 10000, 0, r->weight, n);
    rng_normal_fill(5, n + 20000, 0, r->bias, n);
    for (int i = 0; i < d; i++) {
        r->x[i] = r->x[i] * 3.0f + 0.5f;
    }
}

static void reference(const struct row *r, enum form form, double eps, int d, double *out)
{
    double mean = 0, square = 0;
    for (int i = 0; i < d && form != RMS; i++) {
        mean += (double)r->x[i] / d;
    }
    for (int i = 0; i < d; i++) {
        double away = (double)r->x[i] - mean;
        square += away * away / d;
    }
    for (int i = 0; i < d; i++) {
        out[i] = ((double)r->x[i] - mean) / sqrt(square + eps) * (double)r->weight[i];
        out[i] += form == LAYER ? (double)r->bias[i] : 0.0;
    }
}

/* Inputs are copied to the end of guarded pages, so that no lane reads past them. */
static void run(const struct kernels *f, const struct row *r, enum form form, float eps, int d,
                void *out, enum dtype dtype, int d_pad)
{
    struct guard g[3];
    size_t bytes = (size_t)d * sizeof(float);
    float *x = memcpy(guard_alloc(&g[0], bytes), r->x, bytes);
    float *w = memcpy(guard_alloc(&g[1], bytes), r->weight, bytes);
    float *b = memcpy(guard_alloc(&g[2], bytes), r->bias, bytes);
    if (form == RMS) {
        f->rmsnorm(x, w, eps, d, out, dtype, d_pad);
    } else {
        f->layernorm(x, w, form == LAYER ? b : NULL, eps, d, out, dtype, d_pad);
    }
    for (int i = 0; i < 3; i++) {
        guard_free(&g[i]);
    }
}

static void check_width(const struct kernels *f, const struct row *r, enum form form, int d,
                        const float *first)
{
    static const int pads[] = {0, 1, 40};
    double want[WIDEST];
    reference(r, form, 1e-5, d, want);
    for (size_t p = 0; p < 3; p++) {
        struct guard g, h;
        size_t n = (size_t)(d + pads[p]);
        float *out = guard_alloc(&g, n * sizeof *out);
        uint16_t *narrow = guard_alloc(&h, n * sizeof *narrow);
        run(f, r, form, 1e-5f, d, out, DTYPE_F32, (int)n);
        run(f, r, form, 1e-5f, d, narrow, DTYPE_BF16, (int)n);
        for (int i = 0; i < d; i++) {
            double miss = fabs((double)out[i] - want[i]);
            assert_true(miss <= 2e-6 * (1.0 + fabs(want[i])));
        }
        assert_memory_equal(out, first, (size_t)d * sizeof *out);
        for (size_t i = 0; i < n; i++) {
            assert_true(i < (size_t)d || (out[i] == 0.0f && !signbit(out[i])));
            assert_int_equal(narrow[i], f32_to_bf16(out[i]));
        }
        guard_free(&g);
        guard_free(&h);
    }
}

static void check_form(enum form form)
{
    static struct row r;
    static float first[WIDEST];
    for (size_t i = 0; i < N_WIDTH; i++) {
        fill(&r, widths[i]);
        run(kernels_of(ISA_PORTABLE), &r, form, 1e-5f, widths[i], first, DTYPE_F32, widths[i]);
        for (int isa = 0; isa < ISA_COUNT; isa++) {
            if (kernels_of((enum isa)isa)) {
                check_width(kernels_of((enum isa)isa), &r, form, widths[i], first);
            }
        }
    }
}

static void rmsnorm_agrees_with_double_and_between_isas(void **state)
{
    (void)state;
    check_form(RMS);
}

static void layernorm_agrees_with_double_and_between_isas(void **state)
{
    (void)state;
    check_form(LAYER);
    check_form(LAYER_PLAIN);
}

static void a_row_of_zeros_stays_zero_and_f32_works_in_place(void **state)
{
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *f = kernels_of((enum isa)isa);
        float x[33] = {0}, w[33], y[33];
        if (f == NULL) {
            continue;
        }
        for (int i = 0; i < 33; i++) {
            w[i] = 2.0f;
        }
        f->rmsnorm(x, w, 1e-6f, 33, y, DTYPE_F32, 33);
        assert_memory_equal(x, y, sizeof x);
        rng_normal_fill(5, 1, 0, x, 33);
        f->rmsnorm(x, w, 1e-6f, 33, y, DTYPE_F32, 33);
        f->rmsnorm(x, w, 1e-6f, 33, x, DTYPE_F32, 33);
        assert_memory_equal(x, y, sizeof x);
    }
}

int main(void)
{
    team_flush_denormals();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_agrees_with_double_and_between_isas),
        cmocka_unit_test(layernorm_agrees_with_double_and_between_isas),
        cmocka_unit_test(a_row_of_zeros_stays_zero_and_f32_works_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
