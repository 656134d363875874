/* The hand-written matchers against the expressions they stand for, compiled by PCRE2: every code
 * point in a few surroundings, and random text of the kinds that the alternatives look at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/tok_split.h"

#define SEED 11

struct pair {
    struct tok_split hand, regex;
    uint8_t *flag;
};

static void open_pair(struct pair *pair, const char *pattern)
{
    struct err err = {0};
    memset(pair, 0, sizeof *pair);
    pair->flag = malloc(UNI_COUNT);
    unicode_flags(pair->flag);
    if (tok_split_regex(&pair->hand, pattern, strlen(pattern), true, &err) ||
        tok_split_regex(&pair->regex, pattern, strlen(pattern), false, &err))
        fail_msg("%s", err.text);
    assert_int_not_equal(pair->hand.kind, SPLIT_REGEX);
    assert_int_equal(pair->regex.kind, SPLIT_REGEX);
}

static void close_pair(struct pair *pair)
{
    tok_split_fini(&pair->hand);
    tok_split_fini(&pair->regex);
    free(pair->flag);
}

static void check(const struct pair *pair, const char *text, size_t n)
{
    struct tok_split_walk a, b;
    size_t a0 = 0, a1 = 0, b0 = 0, b1 = 0;
    tok_split_walk(&a, pair->flag, text, n);
    tok_split_walk(&b, pair->flag, text, n);
    for (;;) {
        int r = tok_split_next(&pair->hand, &a, &a0, &a1, NULL);
        int s = tok_split_next(&pair->regex, &b, &b0, &b1, NULL);
        if (r != s || (r > 0 && (a0 != b0 || a1 != b1))) {
            for (size_t i = 0; i < n; i++)
                fprintf(stderr, "%02x ", (unsigned char)text[i]);
            fail_msg("kind %d: by hand %d [%zu, %zu), PCRE2 %d [%zu, %zu)", pair->hand.kind, r, a0,
                     a1, s, b0, b1);
        }
        if (r <= 0)
            return;
    }
}

/* around: \1 stands for the character under test. */
static void check_around(const struct pair *pair, const char *around, uint32_t cp)
{
    char text[64];
    size_t n = 0;
    for (const char *p = around; *p; p++)
        n += *p == 1 ? utf8_put(text + n, cp) : utf8_put(text + n, (unsigned char)*p);
    check(pair, text, n);
}

static void every_code_point_is_matched_as_by_pcre2(void **state)
{
    (void)state;
    static const char *const around[] = {"a\1b", " \1\1 \1", "A\1B1\1B\1\n\1\n", "!\1'\1s"};
    for (size_t k = 0; tok_split_known(k); k++) {
        struct pair pair;
        open_pair(&pair, tok_split_known(k));
        /* an odd step visits different code points for each expression, and all of the lower planes
         */
        for (uint32_t cp = 0; cp < UNI_COUNT; cp += cp < 0x3400 ? 1 : 5 + (uint32_t)k % 3)
            if (cp < 0xd800 || cp > 0xdfff)
                for (size_t i = 0; i < sizeof around / sizeof *around; i++)
                    check_around(&pair, around[i], cp);
        close_pair(&pair);
    }
}

static uint32_t draw(uint64_t stream, uint64_t *at, uint32_t n)
{
    return (uint32_t)(rng_uniform(SEED, stream, (*at)++) * n);
}

static size_t random_text(uint64_t stream, char *text)
{
    static const char *const bits[] = {"'s",
                                       "'S",
                                       "'t",
                                       "'ll",
                                       "'LL",
                                       "'Re",
                                       "'v",
                                       "'\xc5\xbf",
                                       "\n",
                                       "\r\n",
                                       " ",
                                       "  ",
                                       "\t",
                                       "\xc2\xa0",
                                       "\xe1\xa0\x8e",
                                       "\xc2\x85",
                                       "1",
                                       "12",
                                       "1234",
                                       "\xd9\xa3",
                                       "\xc2\xbd",
                                       "!",
                                       "?!",
                                       "/",
                                       "//",
                                       ".",
                                       "a",
                                       "B",
                                       "ab",
                                       "AB",
                                       "Ab",
                                       "aB",
                                       "\xc7\x85",
                                       "\xca\xb0",
                                       "\xe4\xbd\xa0",
                                       "\xe5\xa5\xbd",
                                       "\xe3\x81\xb2",
                                       "\xe3\x82\xab",
                                       "e\xcc\x81",
                                       "\xcc\x81",
                                       "\xcc\xa3",
                                       "\xf0\x9f\x98\x80",
                                       "\xe2\x80\x8d",
                                       "\x01",
                                       "\xef\xbb\xbf",
                                       "_",
                                       "-",
                                       "'",
                                       "\xd0\x96",
                                       "\xd0\xb6",
                                       "\xe0\xa4\x95\xe0\xa5\x8d"};
    uint64_t at = 0;
    size_t n = 0;
    uint32_t parts = draw(stream, &at, 14) + 1;
    for (uint32_t i = 0; i < parts; i++) {
        if (draw(stream, &at, 8) == 0) {
            uint32_t cp = draw(stream, &at, draw(stream, &at, 2) ? 0x3000 : UNI_COUNT);
            n += utf8_put(text + n, cp >= 0xd800 && cp < 0xe000 ? 'x' : cp);
            continue;
        }
        const char *bit = bits[draw(stream, &at, sizeof bits / sizeof *bits)];
        memcpy(text + n, bit, strlen(bit));
        n += strlen(bit);
    }
    return n;
}

static void random_text_is_matched_as_by_pcre2(void **state)
{
    (void)state;
    char text[256];
    print_message("seed %d\n", SEED);
    for (size_t k = 0; tok_split_known(k); k++) {
        struct pair pair;
        open_pair(&pair, tok_split_known(k));
        for (uint64_t i = 0; i < 40000; i++)
            check(&pair, text, random_text(i << 8 | k, text));
        close_pair(&pair);
    }
}

static void translate(const char *pattern, const char *want)
{
    struct tok_text out = {0};
    assert_int_equal(tok_regex_translate(pattern, strlen(pattern), &out, NULL), 0);
    if (out.n != strlen(want) || memcmp(out.p, want, out.n) != 0)
        fail_msg("%s became %.*s, not %s", pattern, (int)out.n, out.p, want);
    tok_text_fini(&out);
}

static void ruby_syntax_becomes_perl_syntax(void **state)
{
    (void)state;
    translate("a\\v[\\u0041-\\x{5a}](?i:b)\\-", "a\\x0b[\\x{0041}-\\x{5a}](?i:b)\\-");
    translate("\\p{Han}+\\P{Latin}", "\\p{sc:Han}+\\P{sc:Latin}");
    translate("\\p{Zs}[\\p{Zs}]", "[\\p{Zs}][\\p{Zs}]");
    translate("\\s",
              "[\\x{9}-\\x{d}\\x{20}-\\x{20}\\x{85}-\\x{85}\\x{a0}-\\x{a0}\\x{1680}-\\x{1680}"
              "\\x{2000}-\\x{200a}\\x{2028}-\\x{2029}\\x{202f}-\\x{202f}\\x{205f}-\\x{205f}"
              "\\x{3000}-\\x{3000}]");
}

static void what_means_two_things_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"\\h",     "\\b",  "a{2}+",  "a{,3}",   "[a[b]]",
                                      "[a&&b]",  "[]a]", "(?m:a)", "(?<n>a)", "(*UTF)a",
                                      "\\p{L&}", "\\pL", "\\xe4",  "\\u12",   "\\K",
                                      "\\R",     "[a",   "\\",     "a(?i)b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tok_regex *re = NULL;
        struct err err = {0};
        if (tok_regex_create(bad[i], strlen(bad[i]), &re, &err) == 0 || !err.text[0])
            fail_msg("accepted %s", bad[i]);
    }
}

static void an_exploding_expression_is_an_error_and_not_a_wait(void **state)
{
    (void)state;
    struct tok_regex *re = NULL;
    struct tok_regex_walk walk;
    struct err err = {0};
    size_t begin, end;
    char text[64];
    memset(text, 'a', sizeof text);
    assert_int_equal(tok_regex_create("(a|aa)+(?!a|\\z)", 15, &re, &err), 0);
    tok_regex_walk(&walk, text, sizeof text);
    assert_int_equal(tok_regex_next(re, &walk, &begin, &end, &err), ERR_LIMIT);
    assert_non_null(strstr(err.text, "gave up"));
    tok_regex_destroy(re);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_is_matched_as_by_pcre2),
        cmocka_unit_test(random_text_is_matched_as_by_pcre2),
        cmocka_unit_test(ruby_syntax_becomes_perl_syntax),
        cmocka_unit_test(what_means_two_things_is_refused),
        cmocka_unit_test(an_exploding_expression_is_an_error_and_not_a_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
