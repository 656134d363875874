/* Damaged tokenizer files: bytes changed, cut out, doubled, numbers made large. Opening either
 * refuses with a sentence or gives a tokenizer that encodes and decodes without harm. Its teeth are
 * the sanitizers (preset asan); the seed is fixed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "model/tokenizer.h"

#define DIR    TESTS_DIR "/fixtures/tokenizer/"
#define SEED   3
#define ROUNDS 400

struct file {
    char *p;
    size_t n;
};

static struct file slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct file file = {malloc(1 << 20), 0};
    file.n = fread(file.p, 1, 1 << 19, f);
    fclose(f);
    return file;
}

static uint64_t draw(uint64_t stream, uint64_t *at, uint64_t n)
{
    return (uint64_t)(rng_uniform(SEED, stream, (*at)++) * (double)n);
}

static const char *const splices[] = {"[",
                                      "]",
                                      "{",
                                      "}",
                                      "\"",
                                      "\\",
                                      "null",
                                      "-1",
                                      "99999999999999999999",
                                      "1e999",
                                      "\\ud800",
                                      "\xff",
                                      "true",
                                      ",",
                                      ":",
                                      "\\u0000",
                                      "{\"type\":\"Sequence\"}",
                                      "\x00\x80"};

/* mutate makes 1 to 4 changes to a copy that has room behind it. */
static void mutate(struct file *f, uint64_t stream)
{
    uint64_t at = 0;
    for (uint64_t k = draw(stream, &at, 4) + 1; k > 0 && f->n > 8; k--) {
        size_t i = draw(stream, &at, f->n), len = draw(stream, &at, 40) + 1;
        len = len < f->n - i ? len : f->n - i;
        switch (draw(stream, &at, 6)) {
        case 0:
            f->p[i] = (char)draw(stream, &at, 256);
            break;
        case 1:
            f->p[i] = (char)(f->p[i] ^ (1 << draw(stream, &at, 8)));
            break;
        case 2: /* cut out */
            memmove(f->p + i, f->p + i + len, f->n - i - len);
            f->n -= len;
            break;
        case 3: /* double */
            memmove(f->p + i + len, f->p + i, f->n - i);
            f->n += len;
            break;
        case 4: { /* write over */
            const char *s = splices[draw(stream, &at, sizeof splices / sizeof *splices)];
            size_t n = strlen(s) < f->n - i ? strlen(s) : f->n - i;
            memcpy(f->p + i, s, n);
            break;
        }
        default:
            f->n = draw(stream, &at, 20) == 0 ? i : f->n;
        }
    }
}

static void use(struct tokenizer *tok)
{
    static const char text[] =
        "The gate 选择 <s>专家</s> don't \xf0\x9f\x98\x80 1234 \xff<|im_end|>\n\n  x<mask> y";
    struct tok_ids ids = {0};
    struct tok_text out = {0};
    struct err err = {0};
    if (tokenizer_encode(tok, text, sizeof text, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, &ids, &err) ==
        0) {
        for (size_t i = 0; i < ids.n; i++)
            assert_in_range(ids.id[i], 0, tokenizer_vocab_size(tok) - 1);
        assert_int_equal(tokenizer_decode(tok, ids.id, ids.n, 0, &out, NULL), 0);
    } else {
        assert_true(err.text[0] != 0);
    }
    for (int32_t id = -2; id < 40; id++)
        assert_int_equal(tokenizer_token_bytes(tok, id, &out, NULL), 0);
    tok_ids_fini(&ids);
    tok_text_fini(&out);
}

static void fuzz(const struct file *good, const char *suffix)
{
    int opened = 0, refused = 0;
    char path[64];
    snprintf(path, sizeof path, "/tmp/sigmoe_fuzz_XXXXXX%s", suffix);
    int fd = mkstemps(path, (int)strlen(suffix));
    assert_true(fd >= 0);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        struct file f = {malloc(good->n + 4096), good->n};
        memcpy(f.p, good->p, good->n);
        mutate(&f, round);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, f.p, f.n, 0), f.n);
        free(f.p);
        struct tokenizer *tok = NULL;
        struct err err = {0};
        if (tokenizer_open(path, &tok, &err) == 0) {
            opened++;
            use(tok);
            tokenizer_close(tok);
        } else {
            refused++;
            assert_null(tok);
            assert_true(err.text[0] != 0);
        }
    }
    close(fd);
    unlink(path);
    print_message("%s: %d opened, %d refused\n", suffix, opened, refused);
    assert_true(opened > 0 && refused > 0); /* both ways were taken */
}

static void fuzz_fixture(const char *name, const char *suffix)
{
    char path[512];
    snprintf(path, sizeof path, DIR "%s", name);
    struct file good = slurp(path);
    fuzz(&good, suffix);
    free(good.p);
}

static void a_damaged_tokenizer_json_is_refused_or_harmless(void **state)
{
    (void)state;
    fuzz_fixture("byte_level.json", ".json");
    fuzz_fixture("byte_fallback.json", ".json");
    fuzz_fixture("unigram.json", ".json");
}

/* The stages are a small part of a real file; here they are most of it, so that changes hit them.
 */
static void damaged_stages_are_refused_or_harmless(void **state)
{
    (void)state;
    static const char text[] =
        "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"lstrip\":true,\"rstrip\":true,"
        "\"special\":true}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":"
        "\"Strip\",\"strip_left\":true,"
        "\"strip_right\":true},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[^\\\\s\\\\P{L}]{2}|"
        "\\\\d+\"},\"content\":\"e\"},"
        "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"EAAAAAAEAAAAAQAAAQIAAAEDAABhAGIA\"}]}"
        ","
        "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\","
        "\"behavior\":\"MergedWithNext\"},"
        "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Metaspace\",\"replacement\":"
        "\"_\",\"prepend_scheme\":\"first\"}]},"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
        "\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
        "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[3]}}},"
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{"
        "\"String\":\"_\"},\"content\":\" \"},"
        "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "
        "\",\"start\":1,\"stop\":0}]},"
        "\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"fuse_unk\":true,\"byte_fallback\":true,"
        "\"vocab\":{\"u\":0,\"e\":1,\"ee\":2},"
        "\"merges\":[\"e e\"]}}";
    struct file good = {(char *)text, sizeof text - 1};
    fuzz(&good, ".json");
}

static void a_damaged_sentencepiece_model_is_refused_or_harmless(void **state)
{
    (void)state;
    fuzz_fixture("spm_bpe.model", ".model");
    fuzz_fixture("spm_unigram.model", ".model");
}

static void a_damaged_llama2c_vocabulary_is_refused_or_harmless(void **state)
{
    (void)state;
    static const char *const tokens[] = {"<unk>", "\n<s>\n", "\n</s>\n", "<0x0A>", " ",  "a",
                                         "b",     "ab",      " ab",      "e",      "he", "t"};
    char bytes[1024] = {5, 0, 0, 0};
    struct file good = {bytes, 4};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        float score = -(float)i;
        int32_t len = (int32_t)strlen(tokens[i]);
        memcpy(bytes + good.n, &score, 4);
        memcpy(bytes + good.n + 4, &len, 4);
        memcpy(bytes + good.n + 8, tokens[i], (size_t)len);
        good.n += 8 + (size_t)len;
    }
    fuzz(&good, ".bin");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_tokenizer_json_is_refused_or_harmless),
        cmocka_unit_test(damaged_stages_are_refused_or_harmless),
        cmocka_unit_test(a_damaged_sentencepiece_model_is_refused_or_harmless),
        cmocka_unit_test(a_damaged_llama2c_vocabulary_is_refused_or_harmless),
    };
    print_message("seed %d\n", SEED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
