/* rows: each row function against plain C or double, at every length around the lanes, inside
 * guarded memory, and with the same bits on every instruction set. */
#include "guard.h"

#include "base/rng.h"
#include "base/team.h"
#include "kernels/kernels.h"
#include <math.h>
#include <stdlib.h>

#define LONGEST 4099
static const size_t lengths[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 100, 1000, LONGEST};
#define N_LENGTH (sizeof lengths / sizeof *lengths)

/* A call of one function at one length: fills out from x and y (normal values, guarded). */
typedef void call_fn(const struct kernels *f, const float *x, const float *y, size_t n, float *out);

static void call(const struct kernels *f, call_fn *fn, size_t n, float *out)
{
    struct guard g[3];
    float *x = guard_alloc(&g[0], n * sizeof *x), *y = guard_alloc(&g[1], n * sizeof *y);
    float *to = guard_alloc(&g[2], n * sizeof *to);
    rng_normal_fill(1, n, 0, x, n);
    rng_normal_fill(2, n, 0, y, n);
    fn(f, x, y, n, to);
    memcpy(out, to, n * sizeof *out);
    for (int i = 0; i < 3; i++) {
        guard_free(&g[i]);
    }
}

/* Portable against `want` (double), all others against portable's bits. */
static void check(call_fn *fn, double (*want)(const float *x, const float *y, size_t n, size_t i),
                  double tolerance)
{
    static float x[LONGEST], y[LONGEST], first[LONGEST], out[LONGEST];
    for (size_t l = 0; l < N_LENGTH; l++) {
        size_t n = lengths[l];
        rng_normal_fill(1, n, 0, x, n);
        rng_normal_fill(2, n, 0, y, n);
        call(kernels_of(ISA_PORTABLE), fn, n, first);
        for (size_t i = 0; i < n; i++) {
            double w = want(x, y, n, i);
            if (!(fabs((double)first[i] - w) <= tolerance * (1.0 + fabs(w)))) {
                fail_msg("n %zu, i %zu: %.9g, reference %.9g", n, i, (double)first[i], w);
            }
        }
        for (int isa = 1; isa < ISA_COUNT; isa++) {
            if (kernels_of((enum isa)isa)) {
                call(kernels_of((enum isa)isa), fn, n, out);
                assert_memory_equal(out, first, n * sizeof *out);
            }
        }
    }
}

/* ---- softmax ---- */

static void call_softmax(const struct kernels *f, const float *x, const float *y, size_t n,
                         float *out)
{
    (void)y;
    for (size_t i = 0; i < n; i++) {
        out[i] = x[i] * 5.0f + 100.0f; /* e^x alone would overflow */
    }
    f->softmax(out, (int)n);
}

static double want_softmax(const float *x, const float *y, size_t n, size_t i)
{
    static double cached_sum;
    (void)y;
    if (i == 0) {
        cached_sum = 0;
        for (size_t j = 0; j < n; j++) {
            cached_sum += exp((double)(x[j] * 5.0f + 100.0f) - 100.0);
        }
    }
    return exp((double)(x[i] * 5.0f + 100.0f) - 100.0) / cached_sum;
}

static void softmax_agrees_with_double(void **state)
{
    (void)state;
    check(call_softmax, want_softmax, 1e-6);
}

static void softmax_of_masked_scores_is_exactly_zero_there(void **state)
{
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *f = kernels_of((enum isa)isa);
        float x[20];
        for (int i = 0; i < 20; i++) {
            x[i] = i % 2 ? -INFINITY : 3.0f;
        }
        if (f) {
            f->softmax(x, 20);
        }
        for (int i = 0; f && i < 20; i++) {
            assert_true(x[i] == (i % 2 ? 0.0f : 0.1f));
        }
    }
}

/* ---- sums ---- */

static void call_add(const struct kernels *f, const float *x, const float *y, size_t n, float *out)
{
    memcpy(out, x, n * sizeof *out);
    f->add(out, y, n);
}

static double want_add(const float *x, const float *y, size_t n, size_t i)
{
    (void)n;
    return (double)(x[i] + y[i]);
}

static void add_is_exact_in_f32(void **state)
{
    (void)state;
    check(call_add, want_add, 0.0);
}

/* Slots of y times a weight each, slot 1 of nothing, in guarded memory; what comes next is as long,
 * and slot 2 of it nothing. */
#define N_SLOT 4
static const float slot_weight[N_SLOT] = {0.3f, 2.0f, -1.7f, 0.11f};

static float slot_value(const float *y, size_t n, size_t i, int slot, enum dtype dtype)
{
    float v = y[(i + (size_t)slot) % n];
    return dtype == DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(v)) : v;
}

static void combine(const struct kernels *f, const float *x, const float *y, size_t n, float *out,
                    enum dtype dtype, const float *plus)
{
    struct guard g[N_SLOT];
    void *row[N_SLOT];
    for (int s = 0; s < N_SLOT; s++) {
        row[s] = guard_alloc(&g[s], n * dtype_bytes(dtype));
        for (size_t i = 0; i < n; i++) {
            float v = slot_value(y, n, i, s, dtype);
            if (dtype == DTYPE_BF16) {
                ((uint16_t *)row[s])[i] = f32_to_bf16(v);
            } else {
                ((float *)row[s])[i] = v;
            }
        }
    }
    const void *met[N_SLOT] = {row[0], NULL, row[2], row[3]},
               *next[N_SLOT] = {row[1], row[0], NULL};
    struct slots slots = {.n = N_SLOT,
                          .weight = slot_weight,
                          .row = met,
                          .next = plus == NULL ? next : NULL,
                          .dtype = dtype,
                          .plus = plus};
    memcpy(out, x, n * sizeof *out);
    f->combine(out, &slots, n);
    for (int s = 0; s < N_SLOT; s++) {
        guard_free(&g[s]);
    }
}

static double want_combine(const float *x, const float *y, size_t n, size_t i, enum dtype dtype,
                           const float *plus)
{
    float sum = 0.0f;
    for (int s = 0; s < N_SLOT; s++) {
        sum = s == 1 ? sum : fmaf(slot_weight[s], slot_value(y, n, i, s, dtype), sum);
    }
    return (double)(x[i] + (plus == NULL ? sum : sum + plus[i]));
}

static void call_combine(const struct kernels *f, const float *x, const float *y, size_t n,
                         float *out)
{
    combine(f, x, y, n, out, DTYPE_F32, NULL);
}

static double want_combine_f32(const float *x, const float *y, size_t n, size_t i)
{
    return want_combine(x, y, n, i, DTYPE_F32, NULL);
}

static void call_combine_bf16(const struct kernels *f, const float *x, const float *y, size_t n,
                              float *out)
{
    combine(f, x, y, n, out, DTYPE_BF16, y);
}

static double want_combine_bf16(const float *x, const float *y, size_t n, size_t i)
{
    return want_combine(x, y, n, i, DTYPE_BF16, y);
}

static void combine_rounds_once_a_slot_in_their_order(void **state)
{
    (void)state;
    check(call_combine, want_combine_f32, 0.0);
    check(call_combine_bf16, want_combine_bf16, 0.0);
}

/* Every element holds the dot product. */
static void call_dot(const struct kernels *f, const float *x, const float *y, size_t n, float *out)
{
    float d = f->dot(x, y, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = d;
    }
}

/* Sixteen lanes by fma, then halves added: the order kernels.h promises. */
static double want_dot(const float *x, const float *y, size_t n, size_t i)
{
    static float sum;
    if (i > 0) {
        return (double)sum;
    }
    float lane[16] = {0};
    for (size_t j = 0; j < n; j++) {
        lane[j % 16] = fmaf(x[j], y[j], lane[j % 16]);
    }
    for (int w = 8; w > 0; w /= 2) {
        for (int j = 0; j < w; j++) {
            lane[j] = lane[j] + lane[j + w];
        }
    }
    sum = lane[0];
    return (double)sum;
}

static void dot_sums_sixteen_lanes_and_a_tree(void **state)
{
    (void)state;
    check(call_dot, want_dot, 0.0);
}

/* ---- convert ---- */

static void convert_guarded(const struct kernels *f, const void *src, enum dtype from, void *dst,
                            enum dtype to, size_t n)
{
    struct guard a, b;
    void *in = guard_alloc(&a, n * dtype_bytes(from)), *out = guard_alloc(&b, n * dtype_bytes(to));
    memcpy(in, src, n * dtype_bytes(from));
    f->convert(in, from, out, to, n);
    memcpy(dst, out, n * dtype_bytes(to));
    guard_free(&a);
    guard_free(&b);
}

static uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static void every_half_and_every_bf16_widens_exactly(void **state)
{
    (void)state;
    static uint16_t all[65536], narrow[65536];
    static float wide[65536];
    for (size_t i = 0; i < 65536; i++) {
        all[i] = (uint16_t)i;
    }
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *f = kernels_of((enum isa)isa);
        if (f == NULL) {
            continue;
        }
        convert_guarded(f, all, DTYPE_F16, wide, DTYPE_F32, 65536);
        convert_guarded(f, all, DTYPE_F16, narrow, DTYPE_BF16, 65536);
        for (size_t i = 0; i < 65536; i++) {
            assert_int_equal(bits(wide[i]), bits(f16_to_f32(all[i])));
            assert_int_equal(narrow[i], f32_to_bf16(f16_to_f32(all[i])));
        }
        convert_guarded(f, all, DTYPE_BF16, wide, DTYPE_F32, 65536);
        for (size_t i = 0; i < 65536; i++) {
            assert_int_equal(bits(wide[i]), (uint32_t)i << 16);
        }
    }
}

static void f32_narrows_to_the_nearest_bf16_at_every_length(void **state)
{
    (void)state;
    static float x[LONGEST];
    static uint16_t out[LONGEST];
    uint32_t word[4];
    for (size_t i = 0; i < LONGEST; i++) {
        rng_block(4, 0, i, word); /* any bits: denormals, infinities and NaNs too */
        memcpy(&x[i], &word[0], sizeof *x);
    }
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *f = kernels_of((enum isa)isa);
        for (size_t l = 0; f && l < N_LENGTH; l++) {
            convert_guarded(f, x, DTYPE_F32, out, DTYPE_BF16, lengths[l]);
            for (size_t i = 0; i < lengths[l]; i++) {
                assert_int_equal(out[i], f32_to_bf16(x[i]));
            }
        }
    }
}

/* No half is nearer than the one chosen, and of two as near the even one. */
static void check_nearest_half(float x, uint16_t h)
{
    double here = fabs((double)f16_to_f32(h) - (double)x);
    for (int step = -1; step <= 1; step += 2) {
        uint16_t other = (uint16_t)(h + step);
        if ((other & 0x8000u) != (h & 0x8000u) || (other & 0x7fffu) >= 0x7c00u) {
            continue;
        }
        double there = fabs((double)f16_to_f32(other) - (double)x);
        assert_true(here < there || (here <= there && !(h & 1u)));
    }
}

static void f32_narrows_to_the_nearest_half(void **state)
{
    (void)state;
    static float x[65536];
    static uint16_t h[65536];
    uint32_t word[4];
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *f = kernels_of((enum isa)isa);
        if (f == NULL) {
            continue;
        }
        for (size_t i = 0; i < 65536; i++) { /* every half, and the middle to the next */
            float a = f16_to_f32((uint16_t)i), b = f16_to_f32((uint16_t)(i + 1));
            rng_block(6, 0, i, word);
            x[i] = i % 3 == 0   ? a
                   : i % 3 == 1 ? 0.5f * (a + b)
                                : ldexpf((float)word[0], (int)(word[1] % 44) - 60);
            x[i] = isfinite(x[i]) && fabsf(x[i]) < 65504.0f ? x[i] : 1.0f;
        }
        convert_guarded(f, x, DTYPE_F32, h, DTYPE_F16, 65536);
        for (size_t i = 0; i < 65536; i++) {
            check_nearest_half(x[i], h[i]);
        }
        const float edge[] = {65519.9f, 65520.0f, -1e9f,    INFINITY,
                              NAN,      -0.0f,    0x1p-25f, 0x1.8p-25f};
        const uint16_t want[] = {0x7bff, 0x7c00, 0xfc00, 0x7c00, 0x7e00, 0x8000, 0, 1};
        uint16_t got[8], narrow[8] = {0x3f80, 0xc000};
        convert_guarded(f, edge, DTYPE_F32, got, DTYPE_F16, 8);
        assert_memory_equal(got, want, sizeof got);
        convert_guarded(f, narrow, DTYPE_BF16, got, DTYPE_F16, 2);
        assert_true(got[0] == 0x3c00 && got[1] == 0xc000);
        convert_guarded(f, edge, DTYPE_F32, x, DTYPE_F32, 8);
        assert_memory_equal(x, edge, sizeof edge);
    }
}

/* ---- activations ---- */

static double ref_act(enum act act, double alpha, double limit, double g)
{
    switch (act) {
    case ACT_SILU:
        return g / (1 + exp(-g));
    case ACT_GELU:
        return 0.5 * g * (1 + erf(g / sqrt(2.0)));
    case ACT_GELU_TANH:
        return 0.5 * g * (1 + tanh(sqrt(2.0 / M_PI) * (g + 0.044715 * g * g * g)));
    case ACT_RELU2:
        return g > 0 ? g * g : 0;
    case ACT_SWIGLU_CLAMP:
        g = g < limit ? g : limit;
        return g / (1 + exp(-alpha * g));
    }
    return NAN;
}

static double ref_act_mul(enum act act, double g, double u, int gated)
{
    double alpha = (double)1.702f, limit = 7.0, a = ref_act(act, alpha, limit, gated ? g : u);
    if (act == ACT_SWIGLU_CLAMP) {
        u = (u > limit ? limit : u < -limit ? -limit : u) + 1;
    }
    return gated ? a * u : a;
}

static void check_act(enum act act, int gated, size_t n)
{
    static float first[LONGEST];
    struct guard gg, gu;
    float *gate = guard_alloc(&gg, n * sizeof *gate), *up = guard_alloc(&gu, n * sizeof *up);
    rng_normal_fill(8, 0, 0, gate, n);
    rng_normal_fill(8, 1, 0, up, n);
    for (size_t i = 0; i < n; i++) {
        gate[i] *= i % 10 == 0 ? 40.0f : 3.0f;
        up[i] *= i % 10 == 1 ? 20.0f : 1.0f;
    }
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *f = kernels_of((enum isa)isa);
        if (f == NULL) {
            continue;
        }
        struct guard go, gn;
        float *out = guard_alloc(&go, n * sizeof *out);
        uint16_t *narrow = guard_alloc(&gn, n * sizeof *narrow);
        f->act_mul(act, 1.702f, 7.0f, gated ? gate : NULL, up, (int)n, out, DTYPE_F32);
        f->act_mul(act, 1.702f, 7.0f, gated ? gate : NULL, up, (int)n, narrow, DTYPE_BF16);
        memcpy(first, isa == 0 ? out : first, n * sizeof *first);
        assert_memory_equal(out, first, n * sizeof *out);
        for (size_t i = 0; i < n; i++) {
            double want = ref_act_mul(act, (double)gate[i], (double)up[i], gated);
            double size = 1 + fabs(want) + (gated ? fabs((double)up[i]) : 0.0);
            if (!(fabs((double)out[i] - want) <= 1e-6 * size)) {
                fail_msg("act %d: %.9g, reference %.9g", (int)act, (double)out[i], want);
            }
            assert_int_equal(narrow[i], f32_to_bf16(out[i]));
        }
        guard_free(&go);
        guard_free(&gn);
    }
    guard_free(&gg);
    guard_free(&gu);
}

static void activations_agree_with_double_gated_and_plain(void **state)
{
    (void)state;
    for (int act = ACT_SILU; act <= ACT_SWIGLU_CLAMP; act++) {
        for (size_t l = 0; l < N_LENGTH; l++) {
            check_act((enum act)act, 1, lengths[l]);
            check_act((enum act)act, 0, lengths[l]);
        }
    }
}

int main(void)
{
    team_flush_denormals();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_agrees_with_double),
        cmocka_unit_test(softmax_of_masked_scores_is_exactly_zero_there),
        cmocka_unit_test(add_is_exact_in_f32),
        cmocka_unit_test(combine_rounds_once_a_slot_in_their_order),
        cmocka_unit_test(dot_sums_sixteen_lanes_and_a_tree),
        cmocka_unit_test(every_half_and_every_bf16_widens_exactly),
        cmocka_unit_test(f32_narrows_to_the_nearest_bf16_at_every_length),
        cmocka_unit_test(f32_narrows_to_the_nearest_half),
        cmocka_unit_test(activations_agree_with_double_gated_and_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
