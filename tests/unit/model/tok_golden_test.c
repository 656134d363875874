/* Published golden ids (llama.cpp, models/ggml-vocab-*.inp and .out) for the vocabularies that are
 * in ../shared, and the llama2.c vocabulary of stories260k. Skips where ../shared is absent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/model/tok_shared.h"

#define SEPARATOR "\n__ggml_vocab_test__\n"
#define N_TEXT    47

static char *slurp(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, SHARED_DIR "/data/golden/%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = calloc(1, 1 << 16);
    assert_true(fread(text, 1, (1 << 16) - 1, f) > 0);
    fclose(f);
    return text;
}

static void check_golden(const char *vocab, const char *golden)
{
    char name[64];
    snprintf(name, sizeof name, "%s.inp", golden);
    char *inp = slurp(name);
    snprintf(name, sizeof name, "%s.out", golden);
    char *out = slurp(name), *line = out;
    struct tokenizer *tok = unpacked(vocab);
    int n = 0;
    for (char *text = inp, *next; text != NULL; text = next, n++) {
        struct tok_ids ids = {0};
        char *end = strstr(text, SEPARATOR);
        next = end != NULL ? end + strlen(SEPARATOR) : NULL;
        end = end != NULL ? end : text + strlen(text);
        assert_int_equal(tokenizer_encode(tok, text, (size_t)(end - text), 0, &ids, NULL), 0);
        char *stop = line + strcspn(line, "\n"), *p = line;
        for (size_t i = 0; i < ids.n; i++) {
            long want = strtol(p, &p, 10);
            if (want != ids.id[i])
                fail_msg("%s, text %d, token %zu: %d, golden %ld", golden, n, i, ids.id[i], want);
        }
        assert_int_equal(strspn(p, " "), stop - p);
        line = *stop ? stop + 1 : stop;
        tok_ids_fini(&ids);
    }
    assert_int_equal(n, N_TEXT);
    tokenizer_close(tok);
    free(inp);
    free(out);
}

static void llama_3_gives_the_golden_ids(void **state)
{
    (void)state;
    check_golden("llama3_1", "llama-bpe");
}

static void qwen_gives_the_golden_ids(void **state)
{
    (void)state;
    check_golden("qwen3", "qwen2");
    check_golden("qwen3", "deepseek-r1-qwen");
}

static void gpt_oss_gives_the_golden_ids_of_gpt_4o(void **state)
{
    (void)state;
    check_golden("gptoss", "gpt-4o");
}

static void stories_round_trip_and_know_their_first_sentence(void **state)
{
    (void)state;
    static const char text[] =
        "Once upon a time, there was a little girl named Lily. \xe4\xbd\xa0\n";
    /* llama2.c's encode of the first words: BOS, then these */
    static const int32_t want[] = {1, 403, 407, 261, 378};
    struct tokenizer *tok = open_tok(SHARED_DIR "/data/stories260k");
    struct tok_ids ids = {0};
    struct tok_text out = {0};
    assert_int_equal(tokenizer_vocab_size(tok), 512);
    assert_int_equal(tokenizer_bos(tok), 1);
    assert_int_equal(tokenizer_eos(tok), 2);
    assert_int_equal(tokenizer_encode(tok, text, sizeof text - 1, TOK_ADD_SPECIAL, &ids, NULL), 0);
    assert_memory_equal(ids.id, want, sizeof want);
    assert_int_equal(tokenizer_decode(tok, ids.id, ids.n, TOK_SKIP_SPECIAL, &out, NULL), 0);
    assert_int_equal(out.n, sizeof text - 1);
    assert_memory_equal(out.p, text, out.n);
    tok_ids_fini(&ids);
    tok_text_fini(&out);
    tokenizer_close(tok);
}

int main(void)
{
    if (access(SHARED_DIR "/data/golden", R_OK) != 0) {
        printf("skipped: %s is not there\n", SHARED_DIR "/data/golden");
        return 77;
    }
    /* gpt-2, llama-spm and deepseek-llm have golden ids too, but ../shared has not their
     * vocabulary: no other one there gives more than 11 of their 47 texts. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_3_gives_the_golden_ids),
        cmocka_unit_test(qwen_gives_the_golden_ids),
        cmocka_unit_test(gpt_oss_gives_the_golden_ids_of_gpt_4o),
        cmocka_unit_test(stories_round_trip_and_know_their_first_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
