/* The small tokenizers of tests/fixtures/tokenizer against the ids and texts that the reference
 * implementations gave (tools/fixtures/tok_fixtures.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model/tokenizer.h"

#define DIR TESTS_DIR "/fixtures/tokenizer/"

static json_t *load(const char *name)
{
    json_error_t why;
    char path[512];
    snprintf(path, sizeof path, DIR "%s", name);
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &why);
    if (!json)
        fail_msg("%s: %s", path, why.text);
    return json;
}

static struct tokenizer *open_tok(const char *path)
{
    struct tokenizer *tok = NULL;
    struct err err = {0};
    if (tokenizer_open(path, &tok, &err))
        fail_msg("%s", err.text);
    return tok;
}

static struct tok_ids ids_of(json_t *list)
{
    struct tok_ids ids = {calloc(json_array_size(list) + 1, sizeof(int32_t)), json_array_size(list),
                          0};
    for (size_t i = 0; i < ids.n; i++)
        ids.id[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

static void check_encode(struct tokenizer *tok, json_t *text, unsigned flags, json_t *want,
                         const char *what)
{
    struct tok_ids got = {0}, expect = ids_of(want);
    struct err err = {0};
    if (tokenizer_encode(tok, json_string_value(text), json_string_length(text), flags, &got, &err))
        fail_msg("%s", err.text);
    bool same =
        got.n == expect.n && (got.n == 0 || memcmp(got.id, expect.id, got.n * sizeof *got.id) == 0);
    if (!same) {
        fprintf(stderr, "%s, text '%s', ours:", what, json_string_value(text));
        for (size_t i = 0; i < got.n; i++)
            fprintf(stderr, " %d", got.id[i]);
        fprintf(stderr, "\nreference:");
        for (size_t i = 0; i < expect.n; i++)
            fprintf(stderr, " %d", expect.id[i]);
        fail_msg("the ids differ");
    }
    tok_ids_fini(&got);
    tok_ids_fini(&expect);
}

static void check_decode(struct tokenizer *tok, json_t *list, unsigned flags, json_t *want,
                         const char *what)
{
    struct tok_ids ids = ids_of(list);
    struct tok_text got = {0};
    if (tokenizer_decode(tok, ids.id, ids.n, flags, &got, NULL))
        fail_msg("decode failed");
    if (got.n != json_string_length(want) ||
        memcmp(got.p ? got.p : "", json_string_value(want), got.n) != 0)
        fail_msg("%s: decoded '%.*s', reference '%s'", what, (int)got.n, got.p,
                 json_string_value(want));
    tok_text_fini(&got);
    tok_ids_fini(&ids);
}

static void check_fixture(const char *model, const char *expected)
{
    struct tokenizer *tok = open_tok(model);
    json_t *all = load(expected), *row, *texts = json_object_get(all, "texts");
    size_t i;
    assert_true(json_array_size(texts) > 25);
    json_array_foreach(texts, i, row)
    {
        json_t *text = json_object_get(row, "text"), *special = json_object_get(row, "special");
        check_encode(tok, text, 0, json_object_get(row, "plain"), expected);
        if (!special)
            continue;
        check_encode(tok, text, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, special, expected);
        check_decode(tok, special, 0, json_object_get(row, "decoded"), expected);
        check_decode(tok, special, TOK_SKIP_SPECIAL, json_object_get(row, "skipped"), expected);
    }
    json_array_foreach(json_object_get(all, "random"), i, row) check_decode(
        tok, json_object_get(row, "ids"), 0, json_object_get(row, "decoded"), expected);
    json_decref(all);
    tokenizer_close(tok);
}

static void byte_level_bpe_gives_the_reference_ids(void **state)
{
    (void)state;
    check_fixture(DIR "byte_level.json", "byte_level.expected.json");
}

static void byte_fallback_bpe_gives_the_reference_ids(void **state)
{
    (void)state;
    check_fixture(DIR "byte_fallback.json", "byte_fallback.expected.json");
}

static void unigram_gives_the_reference_ids(void **state)
{
    (void)state;
    check_fixture(DIR "unigram.json", "unigram.expected.json");
}

static void sentencepiece_models_give_the_reference_ids(void **state)
{
    (void)state;
    check_fixture(DIR "spm_bpe.model", "spm_bpe.expected.json");
    check_fixture(DIR "spm_unigram.model", "spm_unigram.expected.json");
}

/* with_part writes the base tokenizer with one part replaced to a scratch file and opens it. */
static struct tokenizer *with_part(json_t *base, const char *key, json_t *part)
{
    char path[] = "/tmp/sigmoe_tok_XXXXXX.json";
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    json_t *whole = json_copy(base);
    json_object_set(whole, key, part);
    assert_int_equal(json_dumpfd(whole, fd, 0), 0);
    close(fd);
    struct tokenizer *tok = open_tok(path);
    unlink(path);
    json_decref(whole);
    return tok;
}

static void every_stage_cuts_and_rewrites_as_the_reference(void **state)
{
    (void)state;
    json_t *base = load("stages.json"), *all = load("stages.expected.json"), *row;
    json_t *texts = json_object_get(all, "texts"), *cases = json_object_get(all, "cases");
    size_t i, k;
    assert_true(json_array_size(cases) > 40);
    json_array_foreach(cases, i, row)
    {
        const char *key = json_object_get(row, "normalizer") ? "normalizer" : "pre_tokenizer";
        char *what = json_dumps(json_object_get(row, key), JSON_ENCODE_ANY);
        struct tokenizer *tok = with_part(base, key, json_object_get(row, key));
        for (k = 0; k < json_array_size(texts); k++)
            check_encode(tok, json_array_get(texts, k), 0,
                         json_array_get(json_object_get(row, "ids"), k), what);
        tokenizer_close(tok);
        free(what);
    }
    json_array_foreach(json_object_get(all, "decoders"), i, row)
    {
        char *what = json_dumps(json_object_get(row, "decoder"), JSON_ENCODE_ANY);
        struct tokenizer *tok = with_part(base, "decoder", json_object_get(row, "decoder"));
        json_t *ids = json_object_get(row, "ids"), *text = json_object_get(row, "text");
        for (k = 0; k < json_array_size(ids); k++)
            check_decode(tok, json_array_get(ids, k), 0, json_array_get(text, k), what);
        tokenizer_close(tok);
        free(what);
    }
    json_decref(base);
    json_decref(all);
}

static void an_unknown_part_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const parts[][2] = {
        {"normalizer", "{\"type\":\"BertNormalizer\"}"},
        {"pre_tokenizer", "{\"type\":\"UnicodeScripts\"}"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h+\"},\"behavior\":\"Isolated\"}"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a{1,2}+\"},\"behavior\":\"Isolated\"}"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"},\"behavior\":\"Isolated\"}"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}"},
        {"pre_tokenizer",
         "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\"}"},
        {"decoder", "{\"type\":\"WordPiece\"}"},
        {"decoder",
         "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteLevel\"}]}"},
        {"post_processor", "{\"type\":\"Unheard\"}"},
        {"model", "{\"type\":\"WordPiece\",\"vocab\":{}}"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}"},
        {"model", "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}"},
        {"model", "{\"type\":\"Unigram\",\"unk_id\":7,\"vocab\":[[\"a\",0]]}"},
    };
    json_t *base = load("stages.json");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char path[] = "/tmp/sigmoe_tok_XXXXXX.json";
        int fd = mkstemps(path, 5);
        json_t *whole = json_copy(base), *part = json_loads(parts[i][1], 0, NULL);
        assert_non_null(part);
        json_object_set_new(whole, parts[i][0], part);
        assert_int_equal(json_dumpfd(whole, fd, 0), 0);
        close(fd);
        struct tokenizer *tok = NULL;
        struct err err = {0};
        int r = tokenizer_open(path, &tok, &err);
        unlink(path);
        if (r == 0 || tok || !err.text[0])
            fail_msg("accepted: %s %s", parts[i][0], parts[i][1]);
        json_decref(whole);
    }
    json_decref(base);
}

static void questions_answer_for_any_id(void **state)
{
    (void)state;
    struct tokenizer *tok = open_tok(DIR "byte_level.json");
    size_t n;
    int32_t end = tokenizer_id_of(tok, "<|im_end|>", 10), size = tokenizer_vocab_size(tok);
    assert_int_equal(end, 622);
    assert_int_equal(size, 625);
    assert_true(tokenizer_is_special(tok, end));
    assert_false(tokenizer_is_special(tok, 0));
    assert_false(tokenizer_is_special(tok, -1));
    assert_false(tokenizer_is_special(tok, INT32_MAX));
    assert_int_equal(tokenizer_id_of(tok, "no such token", 13), -1);
    assert_null(tokenizer_token(tok, size, &n));
    assert_null(tokenizer_token(tok, INT32_MIN, &n));
    struct tok_text bytes = {0};
    int32_t gate = tokenizer_id_of(tok, "\xc4\xa0the", 5);
    assert_true(gate >= 0);
    assert_int_equal(tokenizer_token_bytes(tok, gate, &bytes, NULL), 0);
    assert_int_equal(bytes.n, 4);
    assert_memory_equal(bytes.p, " the", 4);
    int32_t wild[] = {-5, size, INT32_MAX, gate};
    bytes.n = 0;
    assert_int_equal(tokenizer_decode(tok, wild, 4, 0, &bytes, NULL), 0);
    assert_memory_equal(bytes.p, " the", 4);
    assert_int_equal(bytes.n, 4);
    tok_text_fini(&bytes);
    tokenizer_close(tok);
}

static void bytes_that_are_no_text_read_as_replacement_characters(void **state)
{
    (void)state;
    static const char bad[] = "a\xff\xe4\xbd"
                              "b\xed\xa0\x80"
                              "c\xf0\x9f\x98";
    static const char good[] = "a\xef\xbf\xbd\xef\xbf\xbd"
                               "b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                               "c\xef\xbf\xbd";
    struct tokenizer *tok = open_tok(DIR "byte_level.json");
    struct tok_ids a = {0}, b = {0};
    struct tok_text text = {0};
    assert_int_equal(tokenizer_encode(tok, bad, sizeof bad - 1, 0, &a, NULL), 0);
    assert_int_equal(tokenizer_encode(tok, good, sizeof good - 1, 0, &b, NULL), 0);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.id, b.id, a.n * sizeof *a.id);
    assert_int_equal(tokenizer_decode(tok, a.id, a.n, 0, &text, NULL), 0);
    assert_int_equal(text.n, sizeof good - 1);
    assert_memory_equal(text.p, good, text.n);
    tok_ids_fini(&a);
    tok_ids_fini(&b);
    tok_text_fini(&text);
    tokenizer_close(tok);
}

static void marks_without_end_do_not_take_quadratic_time(void **state)
{
    (void)state;
    enum { N = 400000 };
    struct tokenizer *tok = open_tok(DIR "byte_level.json"); /* its normalizer is NFC */
    struct tok_ids ids = {0};
    struct tok_text out = {0};
    char *text = malloc(4 * N + 1);
    text[0] = 'a';
    for (size_t i = 0; i < N;
         i++) { /* above (230) first, then below (220): all must change sides */
        memcpy(text + 1 + 2 * i, "\xcc\x8a", 2);
        memcpy(text + 1 + 2 * (N + i), "\xcc\xa4", 2);
    }
    clock_t begin = clock();
    assert_int_equal(tokenizer_encode(tok, text, 4 * N + 1, 0, &ids, NULL), 0);
    assert_true(clock() - begin < 20 * CLOCKS_PER_SEC); /* swapping neighbours takes minutes */
    assert_int_equal(tokenizer_decode(tok, ids.id, ids.n, 0, &out, NULL), 0);
    assert_int_equal(out.n, 4 * N); /* one ring above went into the a */
    assert_memory_equal(out.p, "\xc3\xa5\xcc\xa4\xcc\xa4", 6);
    assert_memory_equal(out.p + out.n - 2, "\xcc\x8a", 2);
    free(text);
    tok_ids_fini(&ids);
    tok_text_fini(&out);
    tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_bpe_gives_the_reference_ids),
        cmocka_unit_test(byte_fallback_bpe_gives_the_reference_ids),
        cmocka_unit_test(unigram_gives_the_reference_ids),
        cmocka_unit_test(sentencepiece_models_give_the_reference_ids),
        cmocka_unit_test(every_stage_cuts_and_rewrites_as_the_reference),
        cmocka_unit_test(an_unknown_part_is_refused_by_name),
        cmocka_unit_test(questions_answer_for_any_id),
        cmocka_unit_test(marks_without_end_do_not_take_quadratic_time),
        cmocka_unit_test(bytes_that_are_no_text_read_as_replacement_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
