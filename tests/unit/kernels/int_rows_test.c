/* int_rows: rows made integers against integer weights. Every instruction set against THE INTEGER
 * SUM in plain C, bit for bit, whatever the group, the size, the company and the cut into units;
 * rows that are nothing, tiny or not finite; and how far it is from the product of the rows as they
 * came. */
#include "quant_product.h"

#include "base/team.h"

static void products_have_the_bits_of_the_integer_sum_on_every_isa(void **state)
{
    (void)state;
    static const int odd_n[] = {1, 7, 16, 17, 33, 64, 100},
                     odd_k[] = {1, 31, 33, 100, 129, 172, 300, 1000};
    static const int group[] = {32, 64, 96, 128, 160, 224, 256};
    for (int i = 0; i < 70 / SHARE; i++) {
        uint64_t at = (uint64_t)i * 8;
        struct product p = {.dtype = i % 2 ? DTYPE_I8 : DTYPE_I4,
                            .n = odd_n[pick(4, at, 0, 6)],
                            .k = odd_k[pick(4, at + 1, 0, 7)],
                            .group = group[pick(4, at + 2, 0, 6)],
                            .n_row = pick(4, at + 3, 1, 70)};
        product_check(&p, 21000 + (uint64_t)i * 4, ROWS_INT);
    }
}

static void every_row_count_has_the_bits_of_the_integer_sum(void **state)
{
    (void)state;
    every_row_count_check(24000, ROWS_INT);
}

/* More rows than a unit takes, more k than a chunk, than rows of a whole cut fit a scratch, and
 * than one row does. */
static void large_products_have_the_bits_of_the_integer_sum(void **state)
{
    (void)state;
    static const struct product p[] = {
        {DTYPE_I8, 40, 200, 128, 300}, {DTYPE_I4, 33, 600, 32, 280},
        {DTYPE_I8, 18, 17000, 96, 20}, {DTYPE_I4, 17, 5000, 256, 130},
        {DTYPE_I8, 3, 280000, 160, 3}, {DTYPE_I4, 2, 270000, 32, 2}};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        product_check(&p[i], 27000 + (uint64_t)i * 4, ROWS_INT);
}

static void a_row_has_the_same_bits_alone_and_in_company(void **state)
{
    (void)state;
    company_check(41, ROWS_INT);
}

/* Rows that hold nothing, only denormals, the least and the most that counts, and what is not
 * finite, in one group of three. A group that is not finite makes the result NaN, and no other row
 * feels it. */
static void odd_rows_are_zero_or_nan_and_never_more(void **state)
{
    (void)state;
    enum { N = 37, K = 300, LD = 320, ROWS = 9 };
    static const uint16_t fill[ROWS] = {0x0000, 0x8000, 0x0001, 0x047f, 0x0480,
                                        0x7f7f, 0x7f80, 0xff80, 0x7fc1};
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    static _Alignas(64) uint16_t x[ROWS * LD];
    struct product p = {DTYPE_I8, N, K, 96, ROWS};
    struct quant_weights q;
    float y[ROWS * N];
    product_weights(&q, 51, &p, ROWS_INT);
    for (int r = 0; r < ROWS; r++)
        for (int i = ROW_GROUP; i < 2 * ROW_GROUP; i++)
            x[r * LD + i] = i % 5 ? 0 : fill[r];
    for (int t = 0; t < n_table; t++) {
        product_run(table[t], &q.w.packed, x, LD, ROWS, y);
        for (int r = 0; r < ROWS; r++) {
            for (int j = 0; j < N; j++) {
                float v = y[r * N + j],
                      want = int_sum(x + r * LD, q.w.plain + j * K, q.scale + j * q.n_group, K, 96);
                assert_true(r < 4 ? v == 0.0f : r < 6 ? memcmp(&v, &want, 4) == 0 : isnan(v) != 0);
            }
        }
    }
    quant_weights_free(&q);
}

/* Scales so large that tiles cannot fold their conversion of sums into a multiplication, and one
 * that is not a number. */
static void the_largest_scales_have_the_bits_of_the_integer_sum(void **state)
{
    (void)state;
    enum { N = 40, K = 600, LD = 608, ROWS = 21, GROUP = 64, GROUPS = 10 };
    static const float large[4] = {0x1p100f, 0x1p101f, -0x1.8p104f, NAN};
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    static int8_t w[N * K];
    static float plain[N * K], scale[N * GROUPS], y[ROWS * N];
    static uint16_t half[N * GROUPS];
    struct guard gx;
    size_t bytes = packed_quant_bytes(DTYPE_I8, N, K, GROUP);
    unsigned char *data = aligned_alloc(64, bytes);
    const uint16_t *x = rows_make(&gx, 72, DTYPE_BF16, ROWS, K, LD);
    memset(data, 0, bytes);
    for (int i = 0; i < N * K; i++)
        plain[i] = w[i] = (int8_t)pick(73, (uint64_t)i, -127, 127);
    for (int i = 0; i < N * GROUPS; i++) {
        half[i] = f32_to_bf16(i % 3 ? 0.01f : large[i / 3 % 4]);
        scale[i] = bf16_to_f32(half[i]);
    }
    struct quant_rows src = {w, K, half, GROUPS};
    pack_quant_rows(data, DTYPE_I8, N, K, GROUP, 0, N, &src);
    struct packed p = {
        .data = data, .dtype = DTYPE_I8, .n = N, .k = K, .group = GROUP, .int_rows = 1};
    for (int t = 0; t < n_table; t++) {
        product_run(table[t], &p, x, LD, ROWS, y);
        for (int i = 0; i < ROWS * N; i++) {
            float want = int_sum(x + (size_t)(i / N) * LD, plain + i % N * K,
                                 scale + i % N * GROUPS, K, GROUP);
            if (isnan(want) ? !isnan(y[i]) : memcmp(&want, &y[i], sizeof want) != 0)
                fail_msg("%s: row %d, column %d: %g, not %g", table[t]->name, i / N, i % N,
                         (double)y[i], (double)want);
        }
    }
    free(data);
    guard_free(&gx);
}

/* Half a step of each row group times the weights it meets, and the roundings of f32. */
static void results_are_within_half_a_step_of_the_rows_as_they_came(void **state)
{
    (void)state;
    enum { N = 64, K = 1000, LD = 1024, ROWS = 6 };
    for (int d = 0; d < 2; d++) {
        struct product p = {d ? DTYPE_I8 : DTYPE_I4, N, K, d ? 128 : 32, ROWS};
        struct quant_weights q;
        struct guard gx;
        static float y[ROWS * N];
        double square = 0, error = 0;
        product_weights(&q, 55 + (uint64_t)d, &p, ROWS_INT);
        const uint16_t *x = rows_make(&gx, 56, DTYPE_BF16, ROWS, K, LD);
        product_run(kernels_of(ISA_PORTABLE), &q.w.packed, x, LD, ROWS, y);
        for (int r = 0; r < ROWS; r++) {
            for (int j = 0; j < N; j++) {
                double sum = 0, bound = 0, magnitude = 0;
                for (int k = 0; k < K; k++) {
                    float top = 0;
                    for (int i = k / ROW_GROUP * ROW_GROUP; i < K && i / ROW_GROUP == k / ROW_GROUP;
                         i++)
                        top = fmaxf(top, fabsf(bf16_to_f32(x[r * LD + i])));
                    double w = (double)q.w.plain[j * K + k] * q.scale[j * q.n_group + k / p.group];
                    sum += w * (double)bf16_to_f32(x[r * LD + k]);
                    magnitude += fabs(w) * (double)top;
                    bound += fabs(w) * (double)top / 127 * 0.5;
                }
                double off = fabs(sum - (double)y[r * N + j]);
                assert_true(off <= bound + magnitude * 0x1p-20);
                square += sum * sum;
                error += off * off;
            }
        }
        print_message("%s: relative error %.4f\n", dtype_name(p.dtype), sqrt(error / square));
        guard_free(&gx);
        quant_weights_free(&q);
    }
}

static void ffn_has_the_bits_of_its_products(void **state)
{
    (void)state;
    ffn_check(160, 210, 61, ROWS_INT);
}

static int setup(void **state)
{
    (void)state;
    team_flush_denormals();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_have_the_bits_of_the_integer_sum_on_every_isa),
        cmocka_unit_test(every_row_count_has_the_bits_of_the_integer_sum),
        cmocka_unit_test(large_products_have_the_bits_of_the_integer_sum),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_in_company),
        cmocka_unit_test(odd_rows_are_zero_or_nan_and_never_more),
        cmocka_unit_test(the_largest_scales_have_the_bits_of_the_integer_sum),
        cmocka_unit_test(results_are_within_half_a_step_of_the_rows_as_they_came),
        cmocka_unit_test(ffn_has_the_bits_of_its_products),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
