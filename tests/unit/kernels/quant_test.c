/* quant: integer weights. Every instruction set against THE SUM with scales in plain C, bit for
 * bit; rows alone and in company; packing gives back what was packed; quantising is within its
 * bound. */
#include "quant_product.h"

#include "base/team.h"

#include <limits.h>

static void products_have_the_bits_of_the_sum_on_every_isa(void **state)
{
    (void)state;
    static const int odd_n[] = {1, 7, 16, 17, 33, 64, 100},
                     odd_k[] = {1, 31, 32, 33, 100, 172, 300, 1000};
    static const int group[] = {32, 64, 96, 128, 256};
    print_message("seed %u\n", SEED);
    for (int i = 0; i < 60 / SHARE; i++) {
        uint64_t at = (uint64_t)i * 8;
        struct product p = {.dtype = i % 2 ? DTYPE_I8 : DTYPE_I4,
                            .n = odd_n[pick(2, at, 0, 6)],
                            .k = odd_k[pick(2, at + 1, 0, 7)],
                            .group = group[pick(2, at + 2, 0, 4)],
                            .n_row = pick(2, at + 3, 1, 70)};
        product_check(&p, 9000 + (uint64_t)i * 4, ROWS_BF16);
    }
}

static void every_row_count_has_the_bits_of_the_sum(void **state)
{
    (void)state;
    every_row_count_check(12000, ROWS_BF16);
}

/* More rows than a unit takes, more k than a scratch holds. */
static void large_products_have_the_bits_of_the_sum(void **state)
{
    (void)state;
    static const struct product p[] = {{DTYPE_I8, 40, 200, 128, 300},
                                       {DTYPE_I4, 33, 600, 32, 280},
                                       {DTYPE_I8, 18, 17000, 96, 20},
                                       {DTYPE_I4, 17, 5000, 256, 130}};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++)
        product_check(&p[i], 15000 + (uint64_t)i * 4, ROWS_BF16);
}

static void a_row_has_the_same_bits_alone_and_in_company(void **state)
{
    (void)state;
    company_check(31, ROWS_BF16);
}

static void unpack_row_gives_back_what_was_packed(void **state)
{
    (void)state;
    enum { N = 35, K = 171 };
    for (int i = 0; i < 4; i++) {
        struct quant_weights q;
        int group = i < 2 ? 32 : 128;
        float row[K];
        weights_make_quant(&q, 77, i % 2 ? DTYPE_I8 : DTYPE_I4, N, K, group);
        for (int r = 0; r < N; r++) {
            unpack_row(&q.w.packed, r, row);
            for (int j = 0; j < K; j++)
                assert_true(row[j] == q.w.plain[r * K + j] * q.scale[r * q.n_group + j / group]);
        }
        quant_weights_free(&q);
    }
}

static void packing_in_pieces_is_packing_whole(void **state)
{
    (void)state;
    enum { N = 45, K = 70, GROUP = 32, GROUPS = 3 };
    static const int cut[] = {0, 1, 15, 17, 40, N};
    int8_t q[N * K];
    uint16_t scale[N * GROUPS];
    for (int i = 0; i < N * K; i++)
        q[i] = (int8_t)pick(50, (uint64_t)i, -8, 7);
    for (int i = 0; i < N * GROUPS; i++)
        scale[i] = f32_to_bf16((float)(i + 1) * 0.01f);
    for (int d = 0; d < 2; d++) {
        enum dtype dtype = d ? DTYPE_I8 : DTYPE_I4;
        size_t bytes = packed_quant_bytes(dtype, N, K, GROUP);
        unsigned char *whole = calloc(1, bytes), *pieces = calloc(1, bytes);
        struct quant_rows all = {q, K, scale, GROUPS};
        pack_quant_rows(whole, dtype, N, K, GROUP, 0, N, &all);
        for (int i = 0; i + 1 < (int)(sizeof cut / sizeof *cut); i++) {
            struct quant_rows some = {q + cut[i] * K, K, scale + cut[i] * GROUPS, GROUPS};
            pack_quant_rows(pieces, dtype, N, K, GROUP, cut[i], cut[i + 1] - cut[i], &some);
        }
        assert_memory_equal(whole, pieces, bytes);
        free(whole);
        free(pieces);
    }
}

/* An integer is off by at most half a step, and the bf16 scale may be off by 2^-9, which the ends
 * of the range feel most. */
static void quantised_values_are_within_their_bound(void **state)
{
    (void)state;
    enum { K = 1000 };
    static float x[K];
    int8_t q[K];
    uint16_t scale[K / 32 + 1];
    rng_normal_fill(SEED, 4242, 0, x, K);
    memset(x + 64, 0, 32 * sizeof *x); /* a group of zeros */
    for (int d = 0; d < 2; d++) {
        enum dtype dtype = d ? DTYPE_I8 : DTYPE_I4;
        double error = quantise_row(x, K, dtype, 32, q, scale), sum = 0;
        for (int i = 0; i < K; i++) {
            float s = bf16_to_f32(scale[i / 32]);
            double e = fabs((double)x[i] - (double)s * q[i]);
            assert_true(e <= 0.5 * (double)s + fabs((double)x[i]) * 0x1p-8);
            assert_true(q[i] >= (d ? -127 : -8) && q[i] <= (d ? 127 : 7));
            sum += e * e;
        }
        assert_true(fabs(sum - error) <= 1e-6 * sum);
        assert_int_equal(scale[2], 0);
        assert_int_equal(q[64], 0);
    }
}

static void packed_quant_bytes_refuses_what_cannot_be(void **state)
{
    (void)state;
    assert_int_equal(packed_quant_bytes(DTYPE_I8, 1, 1, 32), 64 + 512);
    assert_int_equal(packed_quant_bytes(DTYPE_I4, 17, 33, 64), 2 * (64 + 512));
    assert_int_equal(packed_quant_bytes(DTYPE_I8, 16, 128, 128), 64 + 2048);
    assert_int_equal(packed_quant_bytes(DTYPE_I8, 16, 257, 128), 128 + 9 * 512);
    assert_int_equal(packed_quant_bytes(DTYPE_BF16, 16, 128, 128), 0);
    assert_int_equal(packed_quant_bytes(DTYPE_I8, 16, 128, 0), 0);
    assert_int_equal(packed_quant_bytes(DTYPE_I8, 16, 128, 48), 0);
    assert_int_equal(packed_quant_bytes(DTYPE_I8, 16, 128, 512), 0);
    assert_int_equal(packed_quant_bytes(DTYPE_I8, INT_MAX, INT_MAX, 32), 0);
}

static void ffn_has_the_bits_of_its_products(void **state)
{
    (void)state;
    ffn_check(96, 80, 21, ROWS_BF16);
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
        cmocka_unit_test(products_have_the_bits_of_the_sum_on_every_isa),
        cmocka_unit_test(every_row_count_has_the_bits_of_the_sum),
        cmocka_unit_test(large_products_have_the_bits_of_the_sum),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_in_company),
        cmocka_unit_test(unpack_row_gives_back_what_was_packed),
        cmocka_unit_test(packing_in_pieces_is_packing_whole),
        cmocka_unit_test(quantised_values_are_within_their_bound),
        cmocka_unit_test(packed_quant_bytes_refuses_what_cannot_be),
        cmocka_unit_test(ffn_has_the_bits_of_its_products),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
