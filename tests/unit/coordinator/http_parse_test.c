/* http_parse_test: what the parser makes of a request, and that it is the same whatever the cuts
 * between reads. The refusals are the http-garden kinds (github.com/narfindustries/http-garden):
 * each is a request that two servers in use have read differently. */
#include "base/rng.h"
#include "coordinator/http_parse.h"
#include "tests/unit/coordinator/http_corpus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BODY_MAX 1000

struct outcome {
    int status; /* 0: complete, -1: wants more */
    size_t rest;
    char text[20000];
};

static void describe(const struct http_parser *p, const char *buf, struct outcome *out)
{
    struct http_field field[HTTP_FIELDS_MAX];
    struct http_request r = {0};
    http_parser_request(p, buf, field, &r);
    int n = snprintf(out->text, sizeof(out->text), "%s %s %s%s|%.*s", r.method, r.path, r.query,
                     p->keep_alive ? "" : " close", (int)r.n_body, r.body);
    for (int i = 0; i < r.n_field && n < (int)sizeof(out->text); i++)
        n += snprintf(out->text + n, sizeof(out->text) - (size_t)n, "|%s=%s", r.field[i].name,
                      r.field[i].value);
}

/* Feeds raw in pieces of 1 .. piece bytes (piece 0: whole), each read into a block of just that
 * size, so that the address sanitizer sees a look past the end. */
static void feed(const char *raw, size_t size, uint32_t piece, uint64_t seed, struct outcome *out)
{
    struct http_parser p;
    char *buf = malloc(1);
    size_t n = 0, used = 0;
    enum http_step step = HTTP_MORE;
    memset(out, 0, sizeof(*out));
    http_parser_init(&p, BODY_MAX);
    for (uint64_t round = 0; used < size && step == HTTP_MORE; round++) {
        uint32_t word[4];
        rng_block(seed, 0, round, word);
        size_t k = piece ? 1 + word[0] % piece : size;
        k = k < size - used ? k : size - used;
        char *moved = malloc(n + k);
        assert_true(buf && moved);
        memcpy(moved, buf, n);
        memcpy(moved + n, raw + used, k);
        free(buf);
        buf = moved;
        n += k;
        used += k;
        do
            step = http_parse(&p, buf, &n);
        while (step == HTTP_HEAD_DONE);
    }
    out->status = step == HTTP_REFUSED ? p.status : step == HTTP_REQUEST_DONE ? 0 : -1;
    if (step == HTTP_REQUEST_DONE) {
        out->rest = n - p.at + (size - used);
        describe(&p, buf, out);
    } else if (step == HTTP_REFUSED) {
        assert_non_null(p.why);
        snprintf(out->text, sizeof(out->text), "%s", p.why);
        assert_int_equal(http_parse(&p, buf, &n), HTTP_REFUSED);
    }
    free(buf);
}

static void feed_every_way(const char *raw, size_t size, struct outcome *whole)
{
    static struct outcome cut;
    feed(raw, size, 0, 0, whole);
    for (uint64_t seed = 0; seed < 6; seed++) {
        feed(raw, size, seed == 0 ? 1 : 7, seed, &cut);
        assert_int_equal(cut.status, whole->status);
        assert_int_equal(cut.rest, whole->rest);
        assert_string_equal(cut.text, whole->text);
    }
}

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

static void requests_within_the_rules_are_read(void **state)
{
    static struct outcome got;
    (void)state;
    for (size_t i = 0; i < COUNT(accepted); i++) {
        const struct row *r = &accepted[i];
        feed_every_way(r->raw, r->n, &got);
        if (got.status != 0)
            fail_msg("row %zu: %d %s: %s", i, got.status, got.text, r->raw);
        assert_string_equal(got.text, r->text);
        assert_int_equal(got.rest, r->rest);
    }
}

static void doubtful_requests_are_refused(void **state)
{
    static struct outcome got;
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        const struct row *r = &refused[i];
        feed_every_way(r->raw, r->n, &got);
        if (got.status != r->status || strstr(got.text, r->text) == NULL)
            fail_msg("row %zu: %d %s (not %d %s): %s", i, got.status, got.text, r->status, r->text,
                     r->raw);
    }
}

static void cut_requests_want_more(void **state)
{
    static struct outcome got;
    (void)state;
    for (size_t i = 0; i < COUNT(unfinished); i++) {
        feed_every_way(unfinished[i].raw, unfinished[i].n, &got);
        assert_int_equal(got.status, -1);
    }
}

/* ---- limits ---------------------------------------------------------------------------------- */

static char big[HTTP_HEAD_BYTES_MAX + 4096];

static int status_of(const char *raw, size_t n)
{
    static struct outcome got;
    feed_every_way(raw, n, &got);
    return got.status;
}

static int status_of_target(size_t n_line)
{
    size_t fixed = strlen("GET / HTTP/1.1"), n = 0;
    n += (size_t)sprintf(big, "GET /");
    memset(big + n, 'a', n_line - fixed);
    n += n_line - fixed;
    n += (size_t)sprintf(big + n, " HTTP/1.1\r\nHost: a\r\n\r\n");
    return status_of(big, n);
}

static void a_long_request_line_is_414(void **state)
{
    (void)state;
    assert_int_equal(status_of_target(HTTP_LINE_BYTES_MAX - 2), 0);
    assert_int_equal(status_of_target(HTTP_LINE_BYTES_MAX - 1), 414);
    assert_int_equal(status_of_target(HTTP_LINE_BYTES_MAX), 414);
    memset(big, 'A', sizeof(big));
    assert_int_equal(status_of(big, sizeof(big)), 414);
}

static int status_of_head(size_t n_head)
{
    size_t n = (size_t)sprintf(big, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(big + n, 'a', n_head - 4 - n);
    memcpy(big + n_head - 4, "\r\n\r\n", 4);
    return status_of(big, n_head);
}

static void a_long_head_is_431(void **state)
{
    (void)state;
    assert_int_equal(status_of_head(HTTP_HEAD_BYTES_MAX), 0);
    assert_int_equal(status_of_head(HTTP_HEAD_BYTES_MAX + 1), 431);
}

static int status_of_fields(int n_field)
{
    size_t n = (size_t)sprintf(big, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 1; i < n_field; i++)
        n += (size_t)sprintf(big + n, "X-%d: %d\r\n", i, i);
    n += (size_t)sprintf(big + n, "\r\n");
    return status_of(big, n);
}

static void many_fields_are_431(void **state)
{
    (void)state;
    assert_int_equal(status_of_fields(HTTP_FIELDS_MAX), 0);
    assert_int_equal(status_of_fields(HTTP_FIELDS_MAX + 1), 431);
}

static void a_body_at_the_limit_is_taken(void **state)
{
    (void)state;
    size_t n =
        (size_t)sprintf(big, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", BODY_MAX);
    memset(big + n, 0, BODY_MAX);
    assert_int_equal(status_of(big, n + BODY_MAX), 0);
    n = (size_t)sprintf(big, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < BODY_MAX; i++)
        n += (size_t)sprintf(big + n, "1\r\nx\r\n");
    assert_int_equal(status_of(big, n + (size_t)sprintf(big + n, "0\r\n\r\n")), 0);
    assert_int_equal(status_of(big, n + (size_t)sprintf(big + n, "1\r\n")), 413);
}

/* Chunk framing must not make the buffer grow: what is decoded lies packed behind the head. */
static void chunk_framing_is_not_kept(void **state)
{
    (void)state;
    struct http_parser p;
    size_t n =
        (size_t)sprintf(big, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    size_t head = n;
    http_parser_init(&p, BODY_MAX);
    assert_int_equal(http_parse(&p, big, &n), HTTP_HEAD_DONE);
    for (int i = 0; i < 100; i++) {
        n += (size_t)sprintf(big + n, "1\r\nx\r\n");
        assert_int_equal(http_parse(&p, big, &n), HTTP_MORE);
    }
    assert_int_equal(n, head + 100);
}

static void the_head_is_told_before_the_body(void **state)
{
    (void)state;
    struct http_parser p;
    size_t n = (size_t)sprintf(big, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                                    "Content-Length: 2\r\n\r\n");
    http_parser_init(&p, BODY_MAX);
    assert_int_equal(http_parse(&p, big, &n), HTTP_HEAD_DONE);
    assert_true(p.expect_continue);
    assert_int_equal(http_parse(&p, big, &n), HTTP_MORE);
    n += (size_t)sprintf(big + n, "ok");
    assert_int_equal(http_parse(&p, big, &n), HTTP_REQUEST_DONE);
}

/* No mutation of any request is read differently when it arrives in other pieces. */
static void mutations_do_not_depend_on_the_cuts(void **state)
{
    (void)state;
    static const char dictionary[][12] = {"\r\n",    "\r\n\r\n", "\r", "\n",  "0\r\n",
                                          ":",       " ",        "\t", "%2e", "Host: a",
                                          "chunked", "\x80",     "5"};
    static struct outcome got;
    const uint64_t seed = 7;
    for (uint64_t round = 0; round < 4000; round++) {
        uint32_t w[4], v[4];
        rng_block(seed, 1, round, w);
        rng_block(seed, 2, round, v);
        size_t which = w[0] % (COUNT(accepted) + COUNT(refused));
        const struct row *r =
            which < COUNT(accepted) ? &accepted[which] : &refused[which - COUNT(accepted)];
        size_t n = r->n, at = w[1] % n;
        memcpy(big, r->raw, n);
        if (w[2] % 3 == 0) {
            big[at] = (char)w[3];
        } else if (w[2] % 3 == 1) {
            memmove(big + at, big + at + 1, n - at - 1);
            n--;
        } else {
            const char *word = dictionary[v[0] % COUNT(dictionary)];
            memmove(big + at + strlen(word), big + at, n - at);
            memcpy(big + at, word, strlen(word));
            n += strlen(word);
        }
        feed_every_way(big, n, &got);
        assert_true(got.status == 0 || got.status == -1 ||
                    (got.status >= 400 && got.status <= 505 && got.text[0]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_within_the_rules_are_read),
        cmocka_unit_test(doubtful_requests_are_refused),
        cmocka_unit_test(cut_requests_want_more),
        cmocka_unit_test(a_long_request_line_is_414),
        cmocka_unit_test(a_long_head_is_431),
        cmocka_unit_test(many_fields_are_431),
        cmocka_unit_test(a_body_at_the_limit_is_taken),
        cmocka_unit_test(chunk_framing_is_not_kept),
        cmocka_unit_test(the_head_is_told_before_the_body),
        cmocka_unit_test(mutations_do_not_depend_on_the_cuts),
    };
    printf("%zu accepted, %zu refused, %zu unfinished\n", COUNT(accepted), COUNT(refused),
           COUNT(unfinished));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
