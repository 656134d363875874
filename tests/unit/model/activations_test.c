/* Tests of what activations are called: by users, and in the class of bits. */
#include "model/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void activations_are_int8_or_bf16(void **state)
{
    (void)state;
    struct err err = {0};
    enum activations a = ACTIVATIONS_INT8;
    assert_int_equal(activations_parse("bf16", &a, &err), 0);
    assert_int_equal(a, ACTIVATIONS_BF16);
    assert_int_equal(activations_parse("int8", &a, &err), 0);
    assert_int_equal(a, ACTIVATIONS_INT8);
    assert_int_equal(activations_parse("int9", &a, &err), ERR_USAGE);
    assert_string_equal(err.text, "--activations is int8 or bf16, not \"int9\"");
}

/* Any one class of integer matrices makes the difference, and only in bf16. */
static void numerics_tell_of_int8_where_there_are_integers(void **state)
{
    (void)state;
    const struct kernels *k = kernels_of(ISA_PORTABLE);
    struct model m = {.activations = ACTIVATIONS_INT8};
    char text[NUMERICS_BYTES];
    assert_string_equal(model_numerics(&m, PRECISION_BF16, k, text), k->numerics);
    assert_string_equal(model_activations(&m, PRECISION_BF16), "bf16");
    struct quant_kind *kind[] = {&m.desc.quant_expert, &m.desc.quant_dense, &m.desc.quant_head};
    for (int i = 0; i < 3; i++) {
        *kind[i] = (struct quant_kind){i % 2 ? DTYPE_I8 : DTYPE_I4, 32};
        m.activations = ACTIVATIONS_INT8;
        assert_string_equal(model_numerics(&m, PRECISION_BF16, k, text), "sum32+int8");
        assert_string_equal(numerics_activations(text), "int8");
        assert_string_equal(model_activations(&m, PRECISION_BF16), "int8");
        assert_string_equal(model_numerics(&m, PRECISION_F32, k, text), "sum32");
        assert_string_equal(model_activations(&m, PRECISION_F32), "f32");
        m.activations = ACTIVATIONS_BF16;
        assert_string_equal(model_numerics(&m, PRECISION_BF16, k, text), "sum32");
        assert_string_equal(numerics_activations(text), "bf16");
        *kind[i] = (struct quant_kind){DTYPE_NONE, 0};
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_are_int8_or_bf16),
        cmocka_unit_test(numerics_tell_of_int8_where_there_are_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
