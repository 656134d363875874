/* The streaming detokeniser: what it gives, piece by piece, is whole characters, and together the
 * text that decoding at once gives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/tok_buf.h"
#include "model/tokenizer.h"

#define DIR TESTS_DIR "/fixtures/tokenizer/"
static const char *const models[] = {DIR "byte_level.json", DIR "byte_fallback.json",
                                     DIR "unigram.json", DIR "spm_bpe.model",
                                     DIR "spm_unigram.model"};
#define N_MODEL (sizeof models / sizeof *models)

static struct tokenizer *open_tok(const char *path)
{
    struct tokenizer *tok = NULL;
    struct err err = {0};
    if (tokenizer_open(path, &tok, &err))
        fail_msg("%s", err.text);
    return tok;
}

static void stream(const struct tokenizer *tok, const struct tok_ids *ids, unsigned flags,
                   struct tok_text *out)
{
    struct detok *detok;
    const char *bytes;
    size_t n;
    assert_int_equal(detok_create(tok, flags, &detok, NULL), 0);
    for (size_t i = 0; i <= ids->n; i++) {
        int r = i < ids->n ? detok_push(detok, ids->id[i], &bytes, &n, NULL)
                           : detok_flush(detok, &bytes, &n, NULL);
        assert_int_equal(r, 0);
        assert_int_equal(utf8_valid(bytes, n), n); /* never half a character */
        assert_int_equal(tok_text_add(out, bytes, n), 0);
    }
    detok_destroy(detok);
}

static void check_same(const struct tokenizer *tok, const struct tok_ids *ids, unsigned flags)
{
    struct tok_text a = {0}, b = {0};
    stream(tok, ids, flags, &a);
    assert_int_equal(tokenizer_decode(tok, ids->id, ids->n, flags, &b, NULL), 0);
    if (a.n != b.n || memcmp(a.p ? a.p : "", b.p ? b.p : "", a.n) != 0)
        fail_msg("streamed '%.*s', at once '%.*s'", (int)a.n, a.p, (int)b.n, b.p);
    tok_text_fini(&a);
    tok_text_fini(&b);
}

static void a_stream_of_any_text_is_the_text_decoded_at_once(void **state)
{
    (void)state;
    static const char text[] =
        "The gate 选择专家 don't \xf0\x9f\x98\x80\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9 "
        "e\xcc\x81 <s>Ж </s>\n\t x  y <|im_end|>\xff!";
    for (size_t k = 0; k < N_MODEL; k++) {
        struct tokenizer *tok = open_tok(models[k]);
        for (size_t n = 0; n < sizeof text; n++) {
            struct tok_ids ids = {0};
            assert_int_equal(
                tokenizer_encode(tok, text, n, TOK_PARSE_SPECIAL | TOK_ADD_SPECIAL, &ids, NULL), 0);
            check_same(tok, &ids, 0);
            check_same(tok, &ids, TOK_SKIP_SPECIAL);
            check_same(tok, &ids, TOK_CONTINUE);
            tok_ids_fini(&ids);
        }
        tokenizer_close(tok);
    }
}

static void a_stream_of_random_ids_is_valid_and_for_byte_level_the_same(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_MODEL; k++) {
        struct tokenizer *tok = open_tok(models[k]);
        for (uint64_t i = 0; i < 2000; i++) {
            int32_t id[16];
            struct tok_ids ids = {id, 1 + i % 16, 0};
            for (size_t j = 0; j < ids.n; j++)
                id[j] =
                    (int32_t)(rng_uniform(5, i << 8 | k, j) * (tokenizer_vocab_size(tok) + 3)) - 1;
            struct tok_text out = {0};
            if (k == 0)
                check_same(tok, &ids, 0);
            else
                stream(tok, &ids, 0, &out);
            tok_text_fini(&out);
        }
        tokenizer_close(tok);
    }
}

static void half_a_character_waits_and_becomes_one_replacement(void **state)
{
    (void)state;
    struct tokenizer *tok = open_tok(DIR "byte_level.json");
    struct detok *detok;
    struct tok_ids ids = {0};
    const char *bytes;
    size_t n;
    assert_int_equal(tokenizer_encode(tok, "\xf0\x9f\x98\x80", 4, 0, &ids, NULL), 0);
    assert_int_equal(ids.n, 4); /* the vocabulary knows no emoji: four bytes */
    assert_int_equal(detok_create(tok, 0, &detok, NULL), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(detok_push(detok, ids.id[i], &bytes, &n, NULL), 0);
        assert_int_equal(n, 0);
    }
    assert_int_equal(detok_push(detok, ids.id[3], &bytes, &n, NULL), 0);
    assert_int_equal(n, 4);
    assert_memory_equal(bytes, "\xf0\x9f\x98\x80", 4);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(detok_push(detok, ids.id[i], &bytes, &n, NULL), 0);
    assert_int_equal(detok_flush(detok, &bytes, &n, NULL), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(bytes, "\xef\xbf\xbd", 3);
    detok_destroy(detok);
    tok_ids_fini(&ids);
    tokenizer_close(tok);
}

static void a_continuation_keeps_its_first_space(void **state)
{
    (void)state;
    static const struct {
        unsigned flags;
        const char *text;
    } want[] = {{0, "the gate"}, {TOK_CONTINUE, " the gate"}};
    for (size_t k = 1; k < 4; k++) { /* all that have a dummy prefix space */
        struct tokenizer *tok = open_tok(models[k]);
        struct tok_ids ids = {0};
        assert_int_equal(tokenizer_encode(tok, "the gate", 8, 0, &ids, NULL), 0);
        for (size_t i = 0; i < 2; i++) {
            struct tok_text out = {0};
            stream(tok, &ids, want[i].flags, &out);
            assert_int_equal(out.n, strlen(want[i].text));
            assert_memory_equal(out.p, want[i].text, out.n);
            tok_text_fini(&out);
        }
        tok_ids_fini(&ids);
        tokenizer_close(tok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_of_any_text_is_the_text_decoded_at_once),
        cmocka_unit_test(a_stream_of_random_ids_is_valid_and_for_byte_level_the_same),
        cmocka_unit_test(half_a_character_waits_and_becomes_one_replacement),
        cmocka_unit_test(a_continuation_keeps_its_first_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
