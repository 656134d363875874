/* matmul: every instruction set against THE SUM in plain C, bit for bit; rows alone and in company;
 * units in any order; nothing read or written outside. */
#include "matrix.h"

#include "base/team.h"

struct product {
    enum dtype dtype, y_dtype;
    int n, k, n_row;
    int with_bias;
    size_t ldx, ldy;
};

static struct product product_at(int i)
{
    static const int odd_n[] = {1, 7, 15, 16, 17, 33, 64, 65, 100, 130};
    static const int odd_k[] = {1, 2, 31, 32, 33, 64, 100, 172, 300, 1000};
    uint64_t at = (uint64_t)i * 16;
    struct product p = {.dtype = i % 3 == 0 ? DTYPE_F32 : DTYPE_BF16,
                        .y_dtype = i % 2 == 0 ? DTYPE_F32 : DTYPE_BF16,
                        .n = odd_n[pick(1, at, 0, 9)],
                        .k = odd_k[pick(1, at + 1, 0, 9)],
                        .n_row = pick(1, at + 2, 1, 70),
                        .with_bias = pick(1, at + 3, 0, 1)};
    p.ldx = (size_t)k_padded(p.k) + 32 * (size_t)pick(1, at + 4, 0, 2);
    p.ldy = (size_t)p.n + (size_t)pick(1, at + 5, 0, 3);
    return p;
}

static void run_whole(const struct kernels *f, const struct matmul *m)
{
    f->matmul(m, 0, f->matmul_units(m));
}

/* Units one by one, from both ends inwards: an order no team produces. */
static void run_scattered(const struct kernels *f, const struct matmul *m)
{
    int n = f->matmul_units(m);
    for (int i = 0; i < n; i++) {
        int unit = i % 2 ? n - 1 - i / 2 : i / 2;
        f->matmul(m, unit, unit + 1);
    }
}

/* y as the reference has it, columns beyond n as guard_alloc left them. */
static void expect(const struct product *p, const struct weights *w, const void *x,
                   const float *bias, void *y)
{
    const unsigned char *row = x;
    for (int r = 0; r < p->n_row; r++, row += p->ldx * dtype_bytes(p->dtype)) {
        for (int j = 0; j < p->n; j++) {
            float v = sum32(row, p->dtype, w->plain + (size_t)j * (size_t)p->k, p->k);
            if (bias)
                v = v + bias[j];
            put(y, p->y_dtype, (size_t)r * p->ldy + (size_t)j, v);
        }
    }
}

static void check_product(const struct product *p, int i, const struct kernels *const *table,
                          int n_table)
{
    struct weights w;
    struct guard gx, gb;
    weights_make(&w, (uint64_t)i * 2, p->dtype, p->n, p->k);
    void *x = rows_make(&gx, (uint64_t)i * 2 + 1, p->dtype, p->n_row, p->k, p->ldx);
    float *bias = guard_alloc(&gb, (size_t)p->n * sizeof *bias);
    values_fill((uint64_t)i * 2 + 7000, bias, (size_t)p->n);
    size_t bytes = (size_t)p->n_row * p->ldy * dtype_bytes(p->y_dtype);
    unsigned char *want = malloc(bytes);
    memset(want, GUARD_BYTE, bytes);
    expect(p, &w, x, p->with_bias ? bias : NULL, want);
    for (int t = 0; t < 2 * n_table; t++) {
        struct guard gy;
        void *y = guard_alloc(&gy, bytes);
        struct matmul m = {.x = x,
                           .ldx = p->ldx,
                           .n_row = p->n_row,
                           .w = &w.packed,
                           .bias = p->with_bias ? bias : NULL,
                           .y = y,
                           .y_dtype = p->y_dtype,
                           .ldy = p->ldy};
        (t % 2 ? run_scattered : run_whole)(table[t / 2], &m);
        if (memcmp(y, want, bytes) != 0)
            fail_msg("%s: n %d, k %d, rows %d, %s weights, %s out, bias %d (case %d)",
                     table[t / 2]->name, p->n, p->k, p->n_row, dtype_name(p->dtype),
                     dtype_name(p->y_dtype), p->with_bias, i);
        guard_free(&gy);
    }
    free(want);
    guard_free(&gb);
    guard_free(&gx);
    weights_free(&w);
}

static int tables_of_sum(const struct kernels *out[MAX_TABLE])
{
    const struct kernels *all[MAX_TABLE];
    int n = 0, n_all = tables_get(all);
    for (int i = 0; i < n_all; i++) {
        if (strcmp(all[i]->numerics, "sum32") == 0)
            out[n++] = all[i];
        else
            print_message("%s: numerics \"%s\", not held against the sum\n", all[i]->name,
                          all[i]->numerics);
    }
    return n;
}

static void matmul_has_the_bits_of_the_sum_on_every_isa(void **state)
{
    (void)state;
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_of_sum(table);
    print_message("seed %u\n", SEED);
    for (int i = 0; i < 60 / SHARE; i++) {
        struct product p = product_at(i);
        check_product(&p, i, table, n_table);
    }
}

static void every_row_count_up_to_70_has_the_bits_of_the_sum(void **state)
{
    (void)state;
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_of_sum(table);
    for (int n_row = 1; n_row <= 70; n_row += SHARE) {
        struct product p = {.dtype = DTYPE_BF16,
                            .y_dtype = DTYPE_F32,
                            .n = 50,
                            .k = 70,
                            .n_row = n_row,
                            .ldx = 96,
                            .ldy = 50};
        check_product(&p, 500 + n_row, table, n_table);
    }
}

/* Results that are whole lines, with rows that end with theirs and with others behind. */
static void results_of_whole_lines_have_the_bits_of_the_sum(void **state)
{
    (void)state;
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_of_sum(table);
    for (int i = 0; i < 16; i++) {
        struct product p = {.dtype = i % 2 ? DTYPE_F32 : DTYPE_BF16,
                            .y_dtype = i / 2 % 2 ? DTYPE_F32 : DTYPE_BF16,
                            .n = 32 * (1 + i % 3),
                            .k = 100,
                            .n_row = 15 + 5 * (i % 5),
                            .with_bias = i / 4 % 2,
                            .ldx = 128};
        p.ldy = (size_t)p.n + (i / 8 ? 32 : 0);
        check_product(&p, 900 + i, table, n_table);
    }
}

/* More rows than a unit takes, more k than a scratch holds. */
static void large_products_have_the_bits_of_the_sum(void **state)
{
    (void)state;
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_of_sum(table);
    static const int shapes[5][3] = {
        {260, 34, 97}, {1, 40, 14000}, {3, 17, 7000}, {258, 17, 700}, {17, 17, 16500}};
    for (int i = 0; i < 10; i++) {
        const int *s = shapes[i % 5];
        struct product p = {.dtype = i < 5 ? DTYPE_BF16 : DTYPE_F32,
                            .y_dtype = DTYPE_F32,
                            .n = s[1],
                            .k = s[2],
                            .n_row = s[0],
                            .ldx = (size_t)k_padded(s[2]),
                            .ldy = (size_t)s[1]};
        check_product(&p, 700 + i, table, n_table);
    }
}

/* y [n_row, n] of rows [first, first + n_row) of x. */
static void product_of(const struct kernels *f, const struct weights *w, const void *x, size_t ldx,
                       int first, int n_row, float *y)
{
    size_t at = (size_t)first * ldx * dtype_bytes(w->packed.dtype);
    struct matmul m = {.x = (const unsigned char *)x + at,
                       .ldx = ldx,
                       .n_row = n_row,
                       .w = &w->packed,
                       .y = y,
                       .y_dtype = DTYPE_F32,
                       .ldy = (size_t)w->packed.n};
    run_whole(f, &m);
}

static void a_row_has_the_same_bits_alone_and_in_company(void **state)
{
    (void)state;
    enum { N = 83, K = 555, ROWS = 69 };
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    static float together[ROWS * N], alone[N];
    for (int t = 0; t < 2 * n_table; t++) {
        struct weights w;
        struct guard gx;
        enum dtype dtype = t % 2 ? DTYPE_F32 : DTYPE_BF16;
        weights_make(&w, 31, dtype, N, K);
        void *x = rows_make(&gx, 32, dtype, ROWS, K, 576);
        product_of(table[t / 2], &w, x, 576, 0, ROWS, together);
        for (int r = 0; r < ROWS; r++) {
            product_of(table[t / 2], &w, x, 576, r, 1, alone);
            assert_memory_equal(alone, together + r * N, sizeof alone);
        }
        guard_free(&gx);
        weights_free(&w);
    }
}

/* Blocks of 16 fused terms, their sum added in turn: (16 + 2 + k / 32) roundings at most touch a
 * term, each of 2^-24 relative (Higham, Accuracy and Stability, 2002, 3.1). */
static void the_error_against_double_stays_within_its_bound(void **state)
{
    (void)state;
    enum { N = 40, K = 2000, ROWS = 9 };
    const struct kernels *table[MAX_TABLE];
    int n_table = tables_get(table);
    static float y[ROWS * N];
    struct weights w;
    struct guard gx;
    weights_make(&w, 41, DTYPE_BF16, N, K);
    uint16_t *x = rows_make(&gx, 42, DTYPE_BF16, ROWS, K, 2016);
    double bound = (16 + 2 + (double)(K + 31) / 32) * 0x1p-24;
    for (int t = 0; t < n_table; t++) {
        product_of(table[t], &w, x, 2016, 0, ROWS, y);
        for (int i = 0; i < ROWS * N; i++) {
            double mag, want = sum_double(x + i / N * 2016, DTYPE_BF16,
                                          w.plain + (size_t)(i % N) * K, K, &mag);
            if (!(fabs((double)y[i] - want) <= bound * mag))
                fail_msg("%s: element %d is %.9g, double %.9g", table[t]->name, i, (double)y[i],
                         want);
        }
    }
    guard_free(&gx);
    weights_free(&w);
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
        cmocka_unit_test(matmul_has_the_bits_of_the_sum_on_every_isa),
        cmocka_unit_test(every_row_count_up_to_70_has_the_bits_of_the_sum),
        cmocka_unit_test(results_of_whole_lines_have_the_bits_of_the_sum),
        cmocka_unit_test(large_products_have_the_bits_of_the_sum),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_in_company),
        cmocka_unit_test(the_error_against_double_stays_within_its_bound),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
