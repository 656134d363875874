/* fp8: rows to fp8 and back against the definition in doubles: the 256 codes by ldexp, encoding by
 * a search for the nearest of them. On every instruction set, inside guarded memory, with and
 * without denormals flushed. */
#include "guard.h"

#include "base/dtype.h"
#include "base/rng.h"
#include "base/team.h"
#include "kernels/kernels.h"
#include <math.h>
#include <stdlib.h>

#define LONGEST 2048
static const size_t lengths[] = {1, 2, 15, 31, 100, 127, 128, 129, 255, 256, 257, 1000, LONGEST};
#define N_LENGTH (sizeof lengths / sizeof *lengths)

/* What a code stands for; NaN for 0x7f and 0xff. */
static double value_of(int code)
{
    int e = code >> 3 & 15, m = code & 7;
    double v = e == 15 && m == 7 ? NAN : e ? ldexp(8 + m, e - 10) : ldexp(m, -9);
    return code & 0x80 ? -v : v;
}

/* The finite code next to y >= 0; of two the even one. */
static int nearest(double y)
{
    int best = 0;
    for (int code = 1; code < 0x7f; code++) {
        double d = fabs(value_of(code) - y), now = fabs(value_of(best) - y);
        if (d < now || (!(d > now) && code % 2 == 0)) {
            best = code;
        }
    }
    return best;
}

static int is_finite_half(uint16_t h)
{
    return (h & 0x7f80u) != 0x7f80u;
}

/* The smallest byte with which the largest magnitude, rounded to four bits, is within 448. */
static int byte_of(const uint16_t *x, size_t n)
{
    double top = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_finite_half(x[i])) {
            return FP8_NAN;
        }
        top = fmax(top, fabs((double)bf16_to_f32(x[i])));
    }
    int byte = 0;
    while (byte < FP8_NAN - 1 && ldexp(top, 135 - byte) > 464) {
        byte++;
    }
    return byte < FP8_LEAST ? 0 : byte;
}

static void want_encoded(const uint16_t *x, size_t d, uint8_t *row)
{
    for (size_t g = 0; g * FP8_GROUP < d; g++) {
        size_t at = g * FP8_GROUP, n = d - at < FP8_GROUP ? d - at : FP8_GROUP;
        int byte = byte_of(x + at, n);
        row[d + g] = (uint8_t)byte;
        for (size_t i = at; i < at + n; i++) {
            int zeros = byte == 0 || byte == FP8_NAN;
            double y = zeros ? 0 : ldexp(fabs((double)bf16_to_f32(x[i])), 135 - byte);
            row[i] = (uint8_t)(zeros ? 0 : nearest(y) | (x[i] >> 8 & 0x80));
        }
    }
}

static uint16_t want_element(uint8_t code, uint8_t byte)
{
    if (byte < FP8_LEAST) {
        return 0;
    }
    double v = value_of(code);
    return byte == FP8_NAN || isnan(v) ? 0x7fc0 : f32_to_bf16((float)ldexp(v, byte - 135));
}

/* Both ways, of x [d]; every instruction set gives the wanted bytes and then the wanted halves. */
static void check(const uint16_t *x, size_t d)
{
    static uint8_t want[LONGEST + LONGEST / FP8_GROUP];
    struct guard g[3];
    want_encoded(x, d, want);
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *k = kernels_of((enum isa)isa);
        if (!k) {
            continue;
        }
        uint16_t *in = guard_alloc(&g[0], d * 2), *out = guard_alloc(&g[1], d * 2);
        uint8_t *row = guard_alloc(&g[2], fp8_row_bytes(d));
        memcpy(in, x, d * 2);
        k->fp8_encode(in, d, row);
        assert_memory_equal(row, want, fp8_row_bytes(d));
        k->fp8_decode(row, d, out);
        for (size_t i = 0; i < d; i++) {
            assert_int_equal(out[i], want_element(row[i], row[d + i / FP8_GROUP]));
        }
        for (int i = 0; i < 3; i++) {
            guard_free(&g[i]);
        }
    }
}

static void rows_of_every_length_are_rounded_to_nearest_even(void **state)
{
    (void)state;
    static float f[LONGEST];
    static uint16_t x[LONGEST];
    for (size_t l = 0; l < N_LENGTH; l++) {
        rng_normal_fill(3, l, 0, f, lengths[l]);
        for (size_t i = 0; i < lengths[l]; i++) {
            x[i] = f32_to_bf16(ldexpf(f[i], (int)(i % 40) - 30));
        }
        check(x, lengths[l]);
    }
}

/* Every bf16 there is, in groups beside one that sets the scale: ties, values below the least code,
 * denormals, both zeros, infinities and NaN. */
static void every_half_is_rounded_at_several_scales(void **state)
{
    (void)state;
    static uint16_t x[LONGEST];
    static const uint16_t top[] = {0x0f80, 0x1080, 0x3f80, 0x43e8, 0x43e9, 0x7f7f};
    for (size_t t = 0; t < sizeof top / sizeof *top; t++) {
        for (uint32_t h = 0; h < 0x10000; h += LONGEST / 2) {
            for (uint32_t i = 0; i < LONGEST; i++) {
                uint16_t half = (uint16_t)(h + i / 2);
                x[i] = i % 2 || ((half & 0x7fffu) > top[t]) ? top[t] : half;
            }
            check(x, LONGEST);
        }
    }
    for (uint32_t h = 0; h < 0x10000; h += LONGEST) {
        for (uint32_t i = 0; i < LONGEST; i++) {
            x[i] = (uint16_t)(h + i);
        }
        check(x, LONGEST);
    }
}

/* Any bytes are a row. */
static void every_code_and_byte_has_its_value(void **state)
{
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *k = kernels_of((enum isa)isa);
        for (int byte = 0; k && byte < 256; byte++) {
            uint8_t row[256 + 2];
            uint16_t out[256];
            for (int i = 0; i < 256; i++) {
                row[i] = (uint8_t)i;
            }
            row[256] = row[257] = (uint8_t)byte;
            k->fp8_decode(row, 256, out);
            for (int i = 0; i < 256; i++) {
                assert_int_equal(out[i], want_element((uint8_t)i, (uint8_t)byte));
            }
        }
    }
}

/* What came through once goes through unchanged. */
static void a_rounded_row_is_not_rounded_again(void **state)
{
    (void)state;
    const struct kernels *k = kernels_of(ISA_PORTABLE);
    static uint16_t x[LONGEST], once[LONGEST], twice[LONGEST];
    static float f[LONGEST];
    uint8_t row[LONGEST + LONGEST / FP8_GROUP];
    rng_normal_fill(5, 1, 0, f, LONGEST);
    for (size_t i = 0; i < LONGEST; i++) {
        x[i] = f32_to_bf16(f[i]);
    }
    k->fp8_encode(x, LONGEST, row);
    k->fp8_decode(row, LONGEST, once);
    k->fp8_encode(once, LONGEST, row);
    k->fp8_decode(row, LONGEST, twice);
    assert_memory_equal(once, twice, sizeof once);
    assert_memory_not_equal(x, once, sizeof once);
}

static int flush(void **state)
{
    (void)state;
    team_flush_denormals();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_every_length_are_rounded_to_nearest_even),
        cmocka_unit_test(every_half_is_rounded_at_several_scales),
        cmocka_unit_test(every_code_and_byte_has_its_value),
        cmocka_unit_test(a_rounded_row_is_not_rounded_again),
        cmocka_unit_test_setup(rows_of_every_length_are_rounded_to_nearest_even, flush),
        cmocka_unit_test_setup(every_half_is_rounded_at_several_scales, flush),
        cmocka_unit_test_setup(every_code_and_byte_has_its_value, flush),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
