/* fingerprint: the same for the same model wherever it lies; another one for other weights, another
 * shape or another hyper-parameter that changes a result. */
#include "scratch.h"

static struct hash128 fingerprint(const char *dir)
{
    struct model *model;
    struct err err = {0};
    if (model_open(dir, &model, &err) != 0)
        fail_msg("%s", err.text);
    struct hash128 h = model->fingerprint;
    model_close(model);
    return h;
}

/* flip changes one byte of the file, counted from its end. */
static void flip(const char *dir, long from_end)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -from_end, SEEK_END), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, -from_end, SEEK_END), 0);
    assert_int_equal(fputc(c ^ 1, f), c ^ 1);
    assert_int_equal(fclose(f), 0);
}

static void it_is_the_same_in_another_folder(void **state)
{
    (void)state;
    char a[64], b[64];
    scratch_make(a);
    scratch_make(b);
    checkpoint_make(a, CONFIG_OLMOE, DTYPE_BF16, 0);
    checkpoint_make(b, CONFIG_OLMOE, DTYPE_BF16, 0);
    assert_true(hash_equal(fingerprint(a), fingerprint(a)));
    assert_true(hash_equal(fingerprint(a), fingerprint(b)));
    scratch_clear(a);
    scratch_clear(b);
}

static void it_differs_when_a_weight_does(void **state)
{
    (void)state;
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_OLMOE, DTYPE_BF16, 0);
    struct hash128 h = fingerprint(dir);
    for (long from_end = 1; from_end < 4000; from_end += 333) {
        flip(dir, from_end);
        assert_false(hash_equal(h, fingerprint(dir)));
        flip(dir, from_end);
        assert_true(hash_equal(h, fingerprint(dir)));
    }
    scratch_clear(dir);
}

static void it_differs_with_dtype_and_shards(void **state)
{
    (void)state;
    char a[64], b[64], c[64];
    scratch_make(a);
    scratch_make(b);
    scratch_make(c);
    checkpoint_make(a, CONFIG_OLMOE, DTYPE_BF16, 0);
    checkpoint_make(b, CONFIG_OLMOE, DTYPE_F16, 0);
    checkpoint_make(c, CONFIG_OLMOE, DTYPE_BF16, 4096);
    assert_false(hash_equal(fingerprint(a), fingerprint(b)));
    assert_false(hash_equal(fingerprint(a), fingerprint(c)));
    scratch_clear(a);
    scratch_clear(b);
    scratch_clear(c);
}

static void it_follows_what_changes_a_result_and_nothing_else(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        int same;
    } cases[] = {
#define WITH(more)                                                                                 \
    "{\"model_type\": \"llama\", " CONFIG_HEAD "\"intermediate_size\": 18, \"head_dim\": 6, "      \
    "\"attention_bias\": true, \"mlp_bias\": true" more "}"
        {WITH(""), 1},
        {WITH(", \"eos_token_id\": 7"), 1},
        {WITH(", \"torch_dtype\": \"float16\""), 1},
        {WITH(", \"rope_theta\": 10000.0"), 1},
        {WITH(", \"rope_theta\": 10000.5"), 0},
        {WITH(", \"rms_norm_eps\": 1e-5"), 0},
        {WITH(", \"hidden_act\": \"gelu\""), 0},
        {WITH(", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}"), 0},
    };
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_LLAMA, DTYPE_BF16, 0);
    struct hash128 h = fingerprint(dir);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        text_put(dir, "config.json", cases[i].config);
        assert_int_equal(hash_equal(h, fingerprint(dir)), cases[i].same);
    }
    scratch_clear(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_the_same_in_another_folder),
        cmocka_unit_test(it_differs_when_a_weight_does),
        cmocka_unit_test(it_differs_with_dtype_and_shards),
        cmocka_unit_test(it_follows_what_changes_a_result_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
