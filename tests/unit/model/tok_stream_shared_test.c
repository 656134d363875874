/* The streaming detokeniser over the vocabularies of published models: random ids, and random texts
 * cut in the middle of characters, never show half a character, and all pieces together are the
 * text that decoding at once gives. Skips where ../shared is absent. */
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
#include "model/tok_buf.h"
#include "tests/unit/model/tok_shared.h"

#define N_SEQUENCE 6000
#define N_ID_MAX   48

struct draw {
    uint64_t vocab, sequence, next;
};

static uint32_t draw(struct draw *d, uint32_t below)
{
    return (uint32_t)(rng_uniform(d->vocab, d->sequence, d->next++) * below);
}

/* A code point: ASCII, Latin, CJK or emoji, of one to four bytes. */
static size_t put_character(struct draw *d, char *to)
{
    static const uint32_t block[][2] = {
        {0x20, 0x5f}, {0xc0, 0x100}, {0x4e00, 0x3000}, {0x1f300, 0x300}};
    uint32_t k = draw(d, 4), cp = block[k][0] + draw(d, block[k][1]);
    if (cp < 0x80) {
        to[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        to[i] = (char)(0x80 | (cp & 0x3f));
    to[0] = (char)((0xf00u >> n & 0xff) | cp);
    return n;
}

/* Ids of a random text, some left out, so that characters lose a part. */
static size_t ids_of_text(struct draw *d, struct tokenizer *tok, int32_t *id)
{
    char text[4 * 24];
    size_t n_text = 0, n = 0;
    for (uint32_t k = 1 + draw(d, 23); k > 0; k--)
        n_text += put_character(d, text + n_text);
    struct tok_ids ids = {0};
    assert_int_equal(tokenizer_encode(tok, text, n_text, 0, &ids, NULL), 0);
    for (size_t i = 0; i < ids.n && n < N_ID_MAX; i++)
        if (draw(d, 8) != 0)
            id[n++] = ids.id[i];
    tok_ids_fini(&ids);
    return n;
}

static size_t random_ids(struct draw *d, const struct tokenizer *tok, int32_t *id)
{
    size_t n = 1 + draw(d, N_ID_MAX - 1);
    for (size_t i = 0; i < n; i++)
        id[i] = (int32_t)draw(d, (uint32_t)tokenizer_vocab_size(tok) + 3) - 1;
    return n;
}

static void stream(struct detok *detok, const int32_t *id, size_t n_id, struct tok_text *out)
{
    const char *bytes;
    size_t n;
    for (size_t i = 0; i <= n_id; i++) {
        int rc = i < n_id ? detok_push(detok, id[i], &bytes, &n, NULL)
                          : detok_flush(detok, &bytes, &n, NULL);
        assert_int_equal(rc, 0);
        if (utf8_valid(bytes, n) != n)
            fail_msg("half a character after id %d, the %zuth: '%.*s'", id[i < n_id ? i : i - 1], i,
                     (int)n, bytes);
        assert_int_equal(tok_text_add(out, bytes, n), 0);
    }
}

/* whole: the pieces together are the text (not so where bytes fall back, see tokenizer.h). */
static void check(struct tokenizer *tok, uint64_t vocab, int whole)
{
    static const unsigned flags[] = {0, TOK_SKIP_SPECIAL, TOK_CONTINUE};
    struct detok *detok[3];
    for (int f = 0; f < 3; f++)
        assert_int_equal(detok_create(tok, flags[f], &detok[f], NULL), 0);
    for (uint64_t s = 0; s < N_SEQUENCE; s++) {
        struct draw d = {vocab, s, 0};
        int32_t id[N_ID_MAX];
        size_t n = s % 2 == 0 ? random_ids(&d, tok, id) : ids_of_text(&d, tok, id);
        int f = (int)(s / 2 % 3);
        struct tok_text streamed = {0}, once = {0};
        stream(detok[f], id, n, &streamed);
        assert_int_equal(tokenizer_decode(tok, id, n, flags[f], &once, NULL), 0);
        if (whole && (streamed.n != once.n ||
                      memcmp(streamed.p ? streamed.p : "", once.p ? once.p : "", once.n) != 0))
            fail_msg("sequence %d: streamed '%.*s', at once '%.*s'", (int)s, (int)streamed.n,
                     streamed.p, (int)once.n, once.p);
        tok_text_fini(&streamed);
        tok_text_fini(&once);
    }
    for (int f = 0; f < 3; f++)
        detok_destroy(detok[f]);
    tokenizer_close(tok);
}

static void byte_level_vocabularies_show_whole_characters(void **state)
{
    (void)state;
    static const char *const packed[] = {"deepseek_v3", "gptoss", "llama3_1", "qwen3"};
    for (size_t i = 0; i < sizeof packed / sizeof *packed; i++)
        check(unpacked(packed[i]), i, 1);
    check(open_tok(SHARED_TOKENIZERS "/minimind6400.tokenizer.json"), 4, 1);
}

static void a_vocabulary_with_byte_fallback_shows_whole_characters(void **state)
{
    (void)state;
    char path[] = "/tmp/sigmoe_tok_XXXXXX.model", command[512];
    close(mkstemps(path, 6));
    snprintf(command, sizeof command, "cp " SHARED_TOKENIZERS "/mixtral.tokenizer.model.v1 %s",
             path);
    assert_int_equal(system(command), 0);
    struct tokenizer *tok = open_tok(path);
    unlink(path);
    check(tok, 5, 0);
}

int main(void)
{
    if (access(SHARED_TOKENIZERS, R_OK) != 0) {
        printf("skipped: %s is not there\n", SHARED_TOKENIZERS);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_level_vocabularies_show_whole_characters),
        cmocka_unit_test(a_vocabulary_with_byte_fallback_shows_whole_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
