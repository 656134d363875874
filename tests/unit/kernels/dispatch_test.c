/* dispatch: what is chosen, what is refused and in which words; and that the check which admits a
 * tile unit tells THE SUM from its neighbours. */
#include "matrix.h"

#include "base/team.h"

static void the_best_isa_is_chosen_without_the_variable(void **state)
{
    (void)state;
    const struct kernels *k = NULL;
    unsetenv("SIGMOE_ISA");
    assert_int_equal(kernels_open(&k, NULL), 0);
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        if (kernels_of((enum isa)isa))
            assert_true(k->isa >= (enum isa)isa);
    }
    print_message("best here: %s, numerics %s\n", k->name, k->numerics);
}

static void sigmoe_isa_forces_each_isa_of_this_cpu_and_refuses_the_others(void **state)
{
    (void)state;
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        const struct kernels *k = NULL, *have = kernels_of((enum isa)isa);
        struct err err = {0};
        setenv("SIGMOE_ISA", isa_name((enum isa)isa), 1);
        int rc = kernels_open(&k, &err);
        if (have) {
            assert_int_equal(rc, 0);
            assert_ptr_equal(k, have);
            assert_int_equal(k->isa, isa);
            assert_string_equal(k->name, isa_name((enum isa)isa));
        } else {
            print_message("%s\n", err.text);
            assert_int_equal(rc, ERR_USAGE);
            assert_null(k);
            assert_non_null(strstr(err.text, isa_name((enum isa)isa)));
        }
    }
    unsetenv("SIGMOE_ISA");
}

static void an_unknown_isa_is_refused_with_the_names_that_exist(void **state)
{
    (void)state;
    const struct kernels *k = NULL;
    struct err err = {0};
    setenv("SIGMOE_ISA", "sse9", 1);
    assert_int_equal(kernels_open(&k, &err), ERR_USAGE);
    assert_null(k);
    assert_non_null(strstr(err.text, "sse9"));
    assert_non_null(strstr(err.text, "portable, avx2, avx512 or amx"));
    unsetenv("SIGMOE_ISA");
}

static void every_table_is_complete(void **state)
{
    (void)state;
    const struct kernels *table[MAX_TABLE];
    int n = tables_get(table);
    for (int i = 0; i < n; i++) {
        const struct kernels *k = table[i];
        assert_true(k->matmul_units && k->matmul && k->ffn_units && k->ffn);
        assert_true(k->attn_scratch_bytes && k->attn_units && k->attn && k->kv_write);
        assert_true(k->rmsnorm && k->layernorm && k->rope && k->softmax && k->convert);
        assert_true(k->add && k->combine && k->dot && k->act_mul);
    }
}

static void ids_outside_the_enum_have_no_table_and_a_harmless_name(void **state)
{
    (void)state;
    assert_null(kernels_of(ISA_COUNT));
    assert_string_equal(isa_name(ISA_COUNT), "unknown");
}

#if defined(__x86_64__)

/* The SDM's order, and three that a different unit might have. */
enum variant { IN_ORDER, ONE_CHAIN, PAIR_FIRST, DENORMALS_KEPT };

static float product_of(enum variant variant, float c, const uint16_t *a, const uint16_t *b)
{
    float e = 0.0f, o = 0.0f;
    for (int k = 0; k < 16; k++) {
        float x0 = bf16_to_f32(a[2 * k]), x1 = bf16_to_f32(a[2 * k + 1]);
        float w0 = bf16_to_f32(b[k * 32]), w1 = bf16_to_f32(b[k * 32 + 1]);
        if (variant == ONE_CHAIN) {
            e = fmaf(x1, w1, fmaf(x0, w0, e));
        } else if (variant == PAIR_FIRST) {
            e = e + (x0 * w0 + x1 * w1);
        } else {
            e = fmaf(x0, w0, e);
            o = fmaf(x1, w1, o);
        }
    }
    return c + (e + o);
}

static void block_of(enum variant variant, const uint16_t *a, const uint16_t *b, float *c)
{
    for (int m = 0; m < 16; m++) {
        for (int n = 0; n < 16; n++)
            c[m * 16 + n] = product_of(variant, c[m * 16 + n], a + m * 32, b + n * 2);
    }
}

static void block_in_order(const uint16_t *a, const uint16_t *b, float *c)
{
    block_of(IN_ORDER, a, b, c);
}
static void block_one_chain(const uint16_t *a, const uint16_t *b, float *c)
{
    block_of(ONE_CHAIN, a, b, c);
}
static void block_pair_first(const uint16_t *a, const uint16_t *b, float *c)
{
    block_of(PAIR_FIRST, a, b, c);
}
static void block_denormals_kept(const uint16_t *a, const uint16_t *b, float *c)
{
    unsigned mxcsr = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mxcsr & ~0x8040u);
    block_of(DENORMALS_KEPT, a, b, c);
    __builtin_ia32_ldmxcsr(mxcsr);
}

static void the_tile_check_admits_the_sum_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(tile_block_is_sum(block_in_order), 1);
    assert_int_equal(tile_block_is_sum(block_one_chain), 0);
    assert_int_equal(tile_block_is_sum(block_pair_first), 0);
    assert_int_equal(tile_block_is_sum(block_denormals_kept), 0);
}

static void a_real_tile_unit_computes_the_sum(void **state)
{
    (void)state;
    const struct kernels *k = kernels_of(ISA_AMX);
    if (!k) {
        print_message("skipped: this CPU has no AMX-BF16, or the kernel refuses tile state\n");
        skip();
    }
    assert_int_equal(tile_block_is_sum(tile_block), 1);
    assert_string_equal(k->numerics, "sum32");
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_isa_is_chosen_without_the_variable),
        cmocka_unit_test(sigmoe_isa_forces_each_isa_of_this_cpu_and_refuses_the_others),
        cmocka_unit_test(an_unknown_isa_is_refused_with_the_names_that_exist),
        cmocka_unit_test(every_table_is_complete),
        cmocka_unit_test(ids_outside_the_enum_have_no_table_and_a_harmless_name),
#if defined(__x86_64__)
        cmocka_unit_test(the_tile_check_admits_the_sum_and_nothing_else),
        cmocka_unit_test(a_real_tile_unit_computes_the_sum),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
