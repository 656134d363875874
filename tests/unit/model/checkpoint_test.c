/* checkpoint: files that have one reading are read; all others are refused with the file, the
 * tensor and the offset. */
#include "scratch.h"

#define T(name, dtype, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin        \
    "," #end "]}"

static void refused(const char *dir, int code, const char *says)
{
    struct checkpoint *ck = NULL;
    struct err err = {0};
    int rc = checkpoint_open(dir, &ck, &err);
    if (rc == 0)
        fail_msg("accepted, expected '%s'", says);
    assert_null(ck);
    if (!strstr(err.text, says))
        fail_msg("expected '%s' in '%s'", says, err.text);
    assert_null(strchr(err.text, '\n'));
    assert_int_equal(rc, code);
}

static void tensors_are_found_by_name_with_their_bytes(void **state)
{
    (void)state;
    char dir[64];
    struct checkpoint *ck;
    scratch_make(dir);
    safetensors_put(dir, "model.safetensors",
                    "{\"__metadata__\":{\"format\":\"pt\"}," T("b", "BF16", "3", 8, 14) "," T(
                        "a", "F32", "1,2", 0, 8) "," T("none", "F16", "0,7", 8,
                                                       8) "," T("scalar", "I64", "", 14, 22) "}   ",
                    22);
    assert_int_equal(checkpoint_open(dir, &ck, NULL), 0);
    assert_int_equal(checkpoint_n_tensor(ck), 4);
    assert_string_equal(checkpoint_at(ck, 0)->name, "a");
    assert_string_equal(checkpoint_at(ck, 3)->name, "scalar");
    const struct tensor *b = checkpoint_find(ck, "b");
    assert_non_null(b);
    assert_int_equal(b->dtype, DTYPE_BF16);
    assert_int_equal(b->n_dim, 1);
    assert_int_equal(b->dim[0], 3);
    assert_int_equal(b->bytes, 6);
    assert_int_equal(((const unsigned char *)b->data)[5], 13);
    assert_int_equal(checkpoint_find(ck, "scalar")->dtype, DTYPE_I64);
    assert_string_equal(checkpoint_find(ck, "scalar")->dtype_name, "I64");
    assert_int_equal(checkpoint_find(ck, "scalar")->n_dim, 0);
    assert_int_equal(checkpoint_find(ck, "none")->bytes, 0);
    assert_null(checkpoint_find(ck, "c"));
    checkpoint_want(ck, b);
    checkpoint_done(ck, b);
    checkpoint_done(ck, checkpoint_find(ck, "none"));
    assert_int_equal(((const unsigned char *)b->data)[0], 8);
    checkpoint_close(ck);
    scratch_clear(dir);
}

static void malformed_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *says;
    } cases[] = {
        {"", 8, "does not begin with '{'"},
        {"[]", 8, "does not begin with '{'"},
        {"{]", 8, "model.safetensors: not valid JSON"},
        {"{} x", 8, "not valid JSON"},
        {"{\"a\":{},\"a\":{}}", 8, "duplicate"},
        {"{\"a\":{}}", 8, "tensor \"a\": its entry must be an object of"},
        {"{\"a\":7}", 8, "its entry must be an object of"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8,
         "its entry must be an object of"},
        {"{\"a\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "\"dtype\" must be a string"},
        {"{" T("a", "F33", "2", 0, 8) "}", 8, "none that safetensors knows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "\"shape\" must be"},
        {"{" T("a", "F32", "-2", 0, 8) "}", 8, "non-negative integers"},
        {"{" T("a", "F32", "2.0", 0, 8) "}", 8, "non-negative integers"},
        {"{" T("a", "F32", "1,1,1,1,1,1,1,1,2", 0, 8) "}", 8, "at most 8 sizes"},
        {"{" T("a", "F32", "4294967296,4294967296", 0, 0) "}", 0, "overflows 64 bits"},
        {"{" T("a", "F32", "4611686018427387904", 0, 0) "}", 0, "below 2^61"},
        {"{" T("a", "F4", "3", 0, 1) "}", 1, "no whole number"},
        {"{" T("a", "F32", "99999999999999999999", 0, 8) "}", 8, "not valid JSON"},
        {"{" T("a", "F32", "2", 8, 0) "}", 8, "0 <= begin <= end"},
        {"{" T("a", "F32", "2", -8, 0) "}", 8, "0 <= begin <= end"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, "[begin, end]"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":\"0,8\"}}", 8, "[begin, end]"},
        {"{" T("a", "F32", "2", 0, 8) "}", 7,
         "tensor \"a\": ends at byte 8 of the data, but the file holds 7; it is truncated"},
        {"{" T("a", "F32", "3", 0, 8) "}", 8, "span 8 bytes at 0, its shape needs 12"},
        {"{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "2", 4, 12) "}", 12,
         "tensor \"b\": begins at byte 4 of the data and overlaps one that ends at 8"},
        {"{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "1", 0, 4) "}", 8, "overlaps"},
        {"{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "1", 12, 16) "}", 16,
         "tensor \"b\": begins at byte 12 of the data and leaves a gap after 8"},
        {"{" T("a", "F32", "1", 4, 8) "}", 8, "leaves a gap after 0"},
        {"{" T("a", "F32", "2", 0, 8) "}", 9,
         "tensors end at byte 8 of the data, but the file goes on to 9"},
        {"{\"__metadata__\":[]}", 0, "\"__metadata__\" must be an object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "must hold strings only"},
        {"{\"a\\u001b]\":7}", 8, "tensor \"a?]\""},
    };
    char dir[64];
    scratch_make(dir);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        safetensors_put(dir, "model.safetensors", cases[i].header, cases[i].data_bytes);
        refused(dir, ERR_MODEL, cases[i].says);
    }
    scratch_clear(dir);
}

static void files_that_are_no_safetensors_are_refused(void **state)
{
    (void)state;
    static const unsigned char huge[16] = {0, 0, 0, 0, 0, 0, 0, 0x80, '{', '}'};
    static const unsigned char much[16] = {0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{', '}'};
    static const unsigned char late[12] = {200, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    char dir[64];
    scratch_make(dir);
    refused(dir, ERR_IO, "holds neither model.safetensors nor model.safetensors.index.json");
    text_put(dir, "model.safetensors", "short");
    refused(dir, ERR_MODEL, "has 5 bytes");
    file_put(dir, "model.safetensors", huge, sizeof(huge));
    refused(dir, ERR_MODEL, "announce a header of 9223372036854775808 bytes");
    file_put(dir, "model.safetensors", much, sizeof(much));
    refused(dir, ERR_MODEL, "announce a header of 100000001 bytes");
    file_put(dir, "model.safetensors", late, sizeof(late));
    refused(dir, ERR_MODEL, "the header should be 200 bytes, but the file ends after 12");
    text_put(dir, "model.safetensors",
             "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    refused(dir, ERR_MODEL, "is a Git LFS pointer");
    scratch_clear(dir);
    scratch_make(dir);
    char path[128];
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    refused(dir, ERR_IO, "is no regular file");
    rmdir(path);
    scratch_clear(dir);
}

#define INDEX "model.safetensors.index.json"

static void an_index_must_agree_with_its_shards(void **state)
{
    (void)state;
    static const struct {
        const char *index, *says;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"y.safetensors\"}}", NULL},
        {"{", "not valid JSON"},
        {"{}", "\"weight_map\" must be an object"},
        {"{\"weight_map\":{}}", "\"weight_map\" must be an object"},
        {"{\"weight_map\":{\"a\":1}}", "the shard of \"a\" must be a string"},
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":\".safetensors\"}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":\"x.bin\"}}", "no plain file name"},
        {"{\"weight_map\":{\"a\":\"gone.safetensors\"}}", "cannot open"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\"}}", NULL},
        {"{\"weight_map\":{\"a\":\"y.safetensors\",\"b\":\"y.safetensors\"}}",
         "places tensor \"a\" in y.safetensors, where it is not"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"y.safetensors\",\"c\":\"y.safetensors\"}"
         "}",
         "places tensor \"c\" in y.safetensors, where it is not"},
        {"{\"weight_map\":{\"b\":\"y.safetensors\",\"z\":\"z.safetensors\"}}",
         "does not list tensor \"b2\" of z.safetensors"},
        {"{\"weight_map\":{\"a\":\"x.safetensors\",\"a2\":\"w.safetensors\"}}",
         "tensor \"a\" is in both w.safetensors and x.safetensors"},
    };
    char dir[64];
    scratch_make(dir);
    safetensors_put(dir, "x.safetensors", "{" T("a", "F32", "1", 0, 4) "}", 4);
    safetensors_put(dir, "y.safetensors", "{" T("b", "F32", "1", 0, 4) "}", 4);
    safetensors_put(dir, "z.safetensors",
                    "{" T("z", "F32", "1", 0, 4) "," T("b2", "F32", "1", 4, 8) "}", 8);
    safetensors_put(dir, "w.safetensors",
                    "{" T("a", "F32", "1", 0, 4) "," T("a2", "F32", "1", 4, 8) "}", 8);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        text_put(dir, INDEX, cases[i].index);
        struct checkpoint *ck;
        if (cases[i].says) {
            refused(dir, strcmp(cases[i].says, "cannot open") == 0 ? ERR_IO : ERR_MODEL,
                    cases[i].says);
            continue;
        }
        assert_int_equal(checkpoint_open(dir, &ck, NULL), 0);
        assert_string_equal(checkpoint_shard_name(ck, checkpoint_find(ck, "a")->shard),
                            "x.safetensors");
        checkpoint_close(ck);
    }
    scratch_clear(dir);
}

/* role_refused opens a checkpoint with this header and asks for the final norm, f32 [20] by config.
 */
static void role_refused(const char *dir, const char *header, size_t data_bytes, const char *says)
{
    struct model_desc desc;
    struct checkpoint *ck;
    const struct tensor *t = NULL;
    struct err err = {0};
    assert_int_equal(
        desc_from_config(CONFIG_LLAMA, strlen(CONFIG_LLAMA), "config.json", &desc, &err), 0);
    safetensors_put(dir, "model.safetensors", header, data_bytes);
    assert_int_equal(checkpoint_open(dir, &ck, &err), 0);
    assert_int_equal(checkpoint_role(ck, &desc, ROLE_FINAL_NORM, 0, 0, &t, &err), ERR_MODEL);
    assert_null(t);
    if (!strstr(err.text, says))
        fail_msg("expected '%s' in '%s'", says, err.text);
    checkpoint_close(ck);
}

static void a_role_needs_the_right_name_shape_dtype_and_place(void **state)
{
    (void)state;
    char dir[64];
    scratch_make(dir);
    role_refused(
        dir, "{" T("model.norm", "F32", "20", 0, 80) "}", 80,
        "model.safetensors: tensor \"model.norm.weight\" is missing; config.json says llama");
    role_refused(dir, "{" T("model.norm.weight", "F32", "4,5", 0, 80) "}", 80,
                 "is [4, 5], by config.json it must be [20]");
    role_refused(dir, "{" T("model.norm.weight", "F32", "21", 0, 84) "}", 84, "is [21]");
    role_refused(dir, "{" T("model.norm.weight", "F64", "20", 0, 160) "}", 160,
                 "is stored as F64; weights must be BF16, F16 or F32");
    role_refused(dir,
                 "{" T("a", "U8", "1", 0, 1) "," T("model.norm.weight", "F32", "20", 1, 81) "}", 81,
                 "which is not aligned for F32");
    scratch_clear(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_found_by_name_with_their_bytes),
        cmocka_unit_test(malformed_headers_are_refused),
        cmocka_unit_test(files_that_are_no_safetensors_are_refused),
        cmocka_unit_test(an_index_must_agree_with_its_shards),
        cmocka_unit_test(a_role_needs_the_right_name_shape_dtype_and_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
