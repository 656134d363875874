/* pack: the packed layout is what kernels.h draws, from every dtype, in any pieces, and exact. */
#include "matrix.h"

#include <limits.h>

/* Element (row, k) of the layout, written down from kernels.h and not from pack.c. */
static float packed_at(const struct packed *w, int row, int k)
{
    size_t k_pad = (size_t)k_padded(w->k), panel = (size_t)row / 16, lane = (size_t)row % 16;
    if (w->dtype == DTYPE_F32)
        return ((const float *)w->data)[(panel * k_pad + (size_t)k) * 16 + lane];
    size_t pair = panel * (k_pad / 2) + (size_t)k / 2;
    return bf16_to_f32(((const uint16_t *)w->data)[(pair * 16 + lane) * 2 + (size_t)k % 2]);
}

static const int sizes[][2] = {{1, 1}, {7, 31}, {16, 32}, {17, 33}, {33, 100}, {50, 172}};
#define N_SIZE (sizeof sizes / sizeof *sizes)

static void the_layout_is_the_documented_one_and_its_padding_is_zero(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * N_SIZE; i++) {
        int n = sizes[i / 2][0], k = sizes[i / 2][1];
        struct weights w;
        weights_make(&w, 100 + i, i % 2 ? DTYPE_F32 : DTYPE_BF16, n, k);
        for (int r = 0; r < (n + 15) / 16 * 16; r++) {
            for (int c = 0; c < k_padded(k); c++) {
                float want = r < n && c < k ? w.plain[(size_t)r * (size_t)k + (size_t)c] : 0.0f;
                float got = packed_at(&w.packed, r, c);
                assert_memory_equal(&got, &want, sizeof want);
            }
        }
        weights_free(&w);
    }
}

static void unpack_row_gives_back_what_was_packed(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * N_SIZE; i++) {
        int n = sizes[i / 2][0], k = sizes[i / 2][1];
        struct weights w;
        struct guard g;
        weights_make(&w, 200 + i, i % 2 ? DTYPE_F32 : DTYPE_BF16, n, k);
        float *row = guard_alloc(&g, (size_t)k * sizeof *row);
        for (int r = 0; r < n; r++) {
            unpack_row(&w.packed, r, row);
            assert_memory_equal(row, w.plain + (size_t)r * (size_t)k, (size_t)k * sizeof *row);
        }
        guard_free(&g);
        weights_free(&w);
    }
}

static void rows_packed_in_any_pieces_give_the_same_bytes(void **state)
{
    (void)state;
    enum { N = 53, K = 75, LD = 80 };
    static float src[N * LD];
    rng_normal_fill(SEED, 300, 0, src, N * LD);
    for (int t = 0; t < 2; t++) {
        enum dtype dtype = t ? DTYPE_F32 : DTYPE_BF16;
        size_t bytes = packed_bytes(dtype, N, K);
        unsigned char *whole = calloc(1, bytes), *pieces = calloc(1, bytes);
        pack_rows(whole, dtype, N, K, 0, N, src, DTYPE_F32, LD);
        static const int cuts[] = {0, 1, 5, 16, 30, 47, 48, N};
        for (int i = 6; i >= 0; i--)
            pack_rows(pieces, dtype, N, K, cuts[i], cuts[i + 1] - cuts[i], src + cuts[i] * LD,
                      DTYPE_F32, LD);
        assert_memory_equal(pieces, whole, bytes);
        free(whole);
        free(pieces);
    }
}

/* 1.5, -0.25 and the smallest f16 denormal are exact in all three; 1 + 2^-8 rounds to even in bf16.
 */
static void every_source_dtype_is_converted(void **state)
{
    (void)state;
    static const uint16_t f16[4] = {0x3e00, 0xb400, 0x0001, 0x3c04};
    static const float f32[4] = {1.5f, -0.25f, 0x1p-24f, 1.00390625f};
    static const uint16_t bf16[4] = {0x3fc0, 0xbe80, 0x3380, 0x3f80};
    static const float rounded[4] = {1.5f, -0.25f, 0x1p-24f, 1.0f};
    const void *const src[3] = {f16, f32, bf16};
    static const enum dtype src_dtype[3] = {DTYPE_F16, DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 6; i++) {
        enum dtype dtype = i / 3 ? DTYPE_F32 : DTYPE_BF16;
        void *data = calloc(1, packed_bytes(dtype, 1, 4));
        pack_rows(data, dtype, 1, 4, 0, 1, src[i % 3], src_dtype[i % 3], 4);
        struct packed w = {.data = data, .dtype = dtype, .n = 1, .k = 4};
        float out[4];
        unpack_row(&w, 0, out);
        int exact = dtype == DTYPE_F32 && src_dtype[i % 3] != DTYPE_BF16;
        assert_memory_equal(out, exact ? f32 : rounded, sizeof out);
        free(data);
    }
}

static void packed_bytes_counts_padding_and_refuses_what_overflows(void **state)
{
    (void)state;
    assert_int_equal(packed_bytes(DTYPE_BF16, 1, 1), 16 * 32 * 2);
    assert_int_equal(packed_bytes(DTYPE_F32, 17, 33), 32 * 64 * 4);
    assert_int_equal(packed_bytes(DTYPE_BF16, INT_MAX, INT_MAX), 0);
    assert_int_equal(packed_bytes(DTYPE_F32, INT_MAX - 64, INT_MAX - 64), 0);
    assert_int_equal(packed_bytes(DTYPE_F16, 16, 32), 0);
    assert_int_equal(packed_bytes(DTYPE_BF16, 0, 32), 0);
    assert_int_equal(packed_bytes(DTYPE_BF16, 16, -1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_layout_is_the_documented_one_and_its_padding_is_zero),
        cmocka_unit_test(unpack_row_gives_back_what_was_packed),
        cmocka_unit_test(rows_packed_in_any_pieces_give_the_same_bytes),
        cmocka_unit_test(every_source_dtype_is_converted),
        cmocka_unit_test(packed_bytes_counts_padding_and_refuses_what_overflows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
