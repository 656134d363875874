/* http_parse_test: what the parser makes of a request, and that it is the same whatever the cuts
 * between reads. The refusals are the http-garden kinds (github.com/narfindustries/http-garden):
 * each is a request that two servers in use have read differently. */
#include "base/rng.h"
#include "coordinator/http_parse.h"

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

/* ---- accepted -------------------------------------------------------------------------------- */

struct row {
    const char *raw;
    size_t n;
    int status;
    const char *text; /* of an accepted request */
    size_t rest;
};
#define RAW(s)  s, sizeof(s) - 1
#define H       "Host: a\r\n"
#define GET(s)  RAW("GET / HTTP/1.1\r\nHost: a\r\n" s)
#define POST(s) RAW("POST / HTTP/1.1\r\nHost: a\r\n" s)

static const struct row accepted[] = {
    {GET("\r\n"), 0,
     "GET / |"
     "|host=a",
     0},
    {RAW("GET / HTTP/1.0\r\n\r\n"), 0, "GET /  close|", 0},
    {RAW("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), 0, "GET / ||connection=Keep-Alive",
     0},
    {GET("Connection: close\r\n\r\n"), 0, "GET /  close||host=a|connection=close", 0},
    {GET("Connection: x ,\tCLOSE\r\n\r\n"), 0, "GET /  close||host=a|connection=x ,\tCLOSE", 0},
    {GET("Connection: keep-alive\r\nConnection: close\r\n\r\n"), 0,
     "GET /  close||host=a|connection=keep-alive|connection=close", 0},
    {RAW("GET /a?b=c&d=%41 HTTP/1.1\r\n" H "\r\n"), 0, "GET /a b=c&d=%41||host=a", 0},
    {RAW("GET /? HTTP/1.1\r\n" H "\r\n"), 0, "GET / ||host=a", 0},
    {RAW("GET /??a?[|] HTTP/1.1\r\n" H "\r\n"), 0, "GET / ?a?[|]||host=a", 0},
    {RAW("GET /a%20b%3Fc%25d HTTP/1.1\r\n" H "\r\n"), 0, "GET /a b?c%d ||host=a", 0},
    {RAW("GET /%e4%BD%a0 HTTP/1.1\r\n" H "\r\n"), 0, "GET /\xe4\xbd\xa0 ||host=a", 0},
    {RAW("GET /v1//models/a:b@c;d=e,f HTTP/1.1\r\n" H "\r\n"), 0,
     "GET /v1//models/a:b@c;d=e,f ||host=a", 0},
    {RAW("GET /.well-known/...a/..b/a.. HTTP/1.1\r\n" H "\r\n"), 0,
     "GET /.well-known/...a/..b/a.. ||host=a", 0},
    {RAW("GET /%252e%252e HTTP/1.1\r\n" H "\r\n"), 0, "GET /%2e%2e ||host=a", 0},
    {RAW("OPTIONS * HTTP/1.1\r\n" H "\r\n"), 0, "OPTIONS * ||host=a", 0},
    {RAW("OPTIONS /x HTTP/1.1\r\n" H "\r\n"), 0, "OPTIONS /x ||host=a", 0},
    {RAW("HEAD / HTTP/1.1\r\n" H "\r\n"), 0, "HEAD / ||host=a", 0},
    {RAW("DELETE / HTTP/1.1\r\n" H "\r\n"), 0, "DELETE / ||host=a", 0},
    {GET("X-A:\r\nX-B:  \t b c \t \r\nx!#$%&'*+-.^_`|~0: d\r\n\r\n"), 0,
     "GET / ||host=a|x-a=|x-b=b c|x!#$%&'*+-.^_`|~0=d", 0},
    {GET("X: \xc3\xa9\r\n\r\n"), 0, "GET / ||host=a|x=\xc3\xa9", 0},
    {GET("X: a\r\nX: b\r\n\r\n"), 0, "GET / ||host=a|x=a|x=b", 0},
    {RAW("GET / HTTP/1.1\r\nhOsT: [::1]:8000\r\n\r\n"), 0, "GET / ||host=[::1]:8000", 0},
    {RAW("GET / HTTP/1.1\r\nHost: 127.0.0.1:65535\r\n\r\n"), 0, "GET / ||host=127.0.0.1:65535", 0},
    {POST("Content-Length: 5\r\n\r\nhello"), 0, "POST / |hello|host=a|content-length=5", 0},
    {POST("Content-Length: 0\r\n\r\nGET"), 0, "POST / ||host=a|content-length=0", 3},
    {POST("Content-Length: 0000000000000000005\r\n\r\nhello"), 0,
     "POST / |hello|host=a|content-length=0000000000000000005", 0},
    {POST("Content-Length: 2\r\n\r\nhello"), 0, "POST / |he|host=a|content-length=2", 3},
    {GET("Content-Length: 2\r\n\r\n\r\nX"), 0, "GET / |\r\n|host=a|content-length=2", 1},
    {POST("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 0,
     "POST / ||host=a|transfer-encoding=chunked", 0},
    {POST("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00a\r\n, chunks!!\r\n000\r\n\r\nGET /"),
     0, "POST / |hello, chunks!!|host=a|transfer-encoding=chunked", 5},
    {POST("Transfer-Encoding:chunked \r\n\r\nA\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"), 0,
     "POST / |0\r\n\r\n0\r\n\r\n|host=a|transfer-encoding=chunked", 0},
    {POST("Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx"), 0,
     "POST / |x|host=a|expect=100-Continue|content-length=1", 0},
};

/* ---- refused --------------------------------------------------------------------------------- */

static const struct row refused[] = {
    /* lines */
    {RAW("GET / HTTP/1.1\nHost: a\n\n"), 400, "LF", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a\n\r\n"), 400, "LF", 0},
    {GET("\n"), 400, "LF", 0},
    {GET("\r\rX"), 400, "CR", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a\r\n\rX"), 400, "CR", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), 400, "CR", 0},
    {RAW("GET / HTTP/1.1\rHost: a\r\r"), 400, "CR", 0},
    {GET("X: a\rb\r\n\r\n"), 400, "CR", 0},
    {RAW("\r\nGET / HTTP/1.1\r\n" H "\r\n"), 400, "METHOD", 0},
    {RAW("\nGET / HTTP/1.1\r\n" H "\r\n"), 400, "LF", 0},
    {RAW("\0GET / HTTP/1.1\r\n" H "\r\n"), 400, "control", 0},
    {GET("X: a\0b\r\n\r\n"), 400, "control", 0},
    {GET("X\0: a\r\n\r\n"), 400, "control", 0},
    {GET("Content-Length: 0\0005\r\n\r\n"), 400, "control", 0},
    {GET("X: \x01\r\n\r\n"), 400, "control", 0},
    {GET("X: \x7f\r\n\r\n"), 400, "control", 0},
    {GET("X: \x1b[2J\r\n\r\n"), 400, "control", 0},
    /* the request line */
    {RAW("GET /\r\n\r\n"), 400, "METHOD", 0},
    {RAW("GET\r\n\r\n"), 400, "METHOD", 0},
    {RAW("GET  / HTTP/1.1\r\n" H "\r\n"), 400, "METHOD", 0},
    {RAW("GET /  HTTP/1.1\r\n" H "\r\n"), 400, "version", 0},
    {RAW("GET / HTTP/1.1 \r\n" H "\r\n"), 400, "version", 0},
    {RAW(" GET / HTTP/1.1\r\n" H "\r\n"), 400, "method", 0},
    {RAW("GET\t/\tHTTP/1.1\r\n" H "\r\n"), 400, "METHOD", 0},
    {RAW("GET /a b HTTP/1.1\r\n" H "\r\n"), 400, "version", 0},
    {RAW("G@T / HTTP/1.1\r\n" H "\r\n"), 400, "method", 0},
    {RAW("GET: / HTTP/1.1\r\n" H "\r\n"), 400, "method", 0},
    {RAW("G\xc3\x89T / HTTP/1.1\r\n" H "\r\n"), 400, "method", 0},
    {RAW("get / HTTP/1.1\r\n" H "\r\n"), 501, "method", 0},
    {RAW("BREW / HTTP/1.1\r\n" H "\r\n"), 501, "method", 0},
    {RAW("CONNECT a:443 HTTP/1.1\r\n" H "\r\n"), 501, "method", 0},
    {RAW("TRACE / HTTP/1.1\r\n" H "\r\n"), 501, "method", 0},
    {RAW("GET / HTTP/1.10\r\n" H "\r\n"), 400, "version", 0},
    {RAW("GET / HTTP/01.1\r\n" H "\r\n"), 400, "version", 0},
    {RAW("GET / HTTP/1.\r\n" H "\r\n"), 400, "version", 0},
    {RAW("GET / http/1.1\r\n" H "\r\n"), 400, "version", 0},
    {RAW("GET / HTTP/1,1\r\n" H "\r\n"), 400, "version", 0},
    {RAW("GET / HTTPS/1.1\r\n" H "\r\n"), 400, "version", 0},
    {RAW("GET / HTTP/1.2\r\n" H "\r\n"), 505, "HTTP/1.0", 0},
    {RAW("GET / HTTP/0.9\r\n" H "\r\n"), 505, "HTTP/1.0", 0},
    {RAW("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505, "HTTP/1.0", 0},
    /* the target */
    {RAW("GET http://a/ HTTP/1.1\r\n" H "\r\n"), 400, "target", 0},
    {RAW("GET * HTTP/1.1\r\n" H "\r\n"), 400, "target", 0},
    {RAW("OPTIONS *x HTTP/1.1\r\n" H "\r\n"), 400, "target", 0},
    {RAW("GET a HTTP/1.1\r\n" H "\r\n"), 400, "target", 0},
    {RAW("GET ?a HTTP/1.1\r\n" H "\r\n"), 400, "target", 0},
    {RAW("GET /../etc HTTP/1.1\r\n" H "\r\n"), 400, "'.'", 0},
    {RAW("GET /a/.. HTTP/1.1\r\n" H "\r\n"), 400, "'.'", 0},
    {RAW("GET /./a HTTP/1.1\r\n" H "\r\n"), 400, "'.'", 0},
    {RAW("GET /a/%2e%2E/b HTTP/1.1\r\n" H "\r\n"), 400, "'.'", 0},
    {RAW("GET /a/.%2e HTTP/1.1\r\n" H "\r\n"), 400, "'.'", 0},
    {RAW("GET /a%2fb HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%5Cb HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%00 HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%0d%0aX:1 HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%7f HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%4 HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%4?1 HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%gg HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%u0041 HTTP/1.1\r\n" H "\r\n"), 400, "percent", 0},
    {RAW("GET /a%ff HTTP/1.1\r\n" H "\r\n"), 400, "UTF-8", 0},
    {RAW("GET /%c0%ae%c0%ae HTTP/1.1\r\n" H "\r\n"), 400, "UTF-8", 0},
    {RAW("GET /%ed%a0%80 HTTP/1.1\r\n" H "\r\n"), 400, "UTF-8", 0},
    {RAW("GET /\xe4\xbd\xa0 HTTP/1.1\r\n" H "\r\n"), 400, "byte in the path", 0},
    {RAW("GET /a\\b HTTP/1.1\r\n" H "\r\n"), 400, "byte in the path", 0},
    {RAW("GET /a#b HTTP/1.1\r\n" H "\r\n"), 400, "byte in the path", 0},
    {RAW("GET /a?b#c HTTP/1.1\r\n" H "\r\n"), 400, "query", 0},
    {RAW("GET /a?\xe4 HTTP/1.1\r\n" H "\r\n"), 400, "query", 0},
    /* fields */
    {GET(": a\r\n\r\n"), 400, "field", 0},
    {GET("X : a\r\n\r\n"), 400, "field", 0},
    {GET("Content-Length : 5\r\n\r\nhello"), 400, "field", 0},
    {GET("X\t: a\r\n\r\n"), 400, "field", 0},
    {GET("X: a\r\n b\r\n\r\n"), 400, "field", 0},
    {GET("X: a\r\n\tb: c\r\n\r\n"), 400, "field", 0},
    {RAW("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400, "field", 0},
    {GET("X\r\n\r\n"), 400, "field", 0},
    {GET("X(a): b\r\n\r\n"), 400, "field", 0},
    {GET("\xc3\xa9: b\r\n\r\n"), 400, "field", 0},
    {GET("\"X\": b\r\n\r\n"), 400, "field", 0},
    {RAW("GET / HTTP/1.1\r\n\r\n"), 400, "no Host", 0},
    {GET("Host: a\r\n\r\n"), 400, "more than one Host", 0},
    {GET("host: b\r\n\r\n"), 400, "more than one Host", 0},
    {RAW("GET / HTTP/1.0\r\n" H H "\r\n"), 400, "more than one Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a:\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n"), 400, "Host", 0},
    {RAW("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"), 400, "Host", 0},
    {GET("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"), 400, "Authorization", 0},
    {POST("Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx"), 417, "Expect", 0},
    /* lengths */
    {POST("Content-Length: +5\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: -5\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: 0x5\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: 5.0\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: 5 5\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: 5, 5\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: 5,\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: \"5\"\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length:\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: 00000000000000000005\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: 18446744073709551621\r\n\r\nhello"), 400, "Content-Length", 0},
    {POST("Content-Length: 9999999999999999999\r\n\r\nhello"), 413, "too large", 0},
    {POST("Content-Length: 1001\r\n\r\n"), 413, "too large", 0},
    {POST("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), 400, "more than one", 0},
    {POST("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400, "more than one", 0},
    {POST("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "beside", 0},
    {POST("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"), 400, "beside", 0},
    {POST("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"), 400, "beside", 0},
    {POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400,
     "more than one", 0},
    {POST("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding: identity\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding:\r\n\r\n0\r\n\r\n"), 400, "only be", 0},
    {POST("Transfer-Encoding: \x0b"
          "chunked\r\n\r\n0\r\n\r\n"),
     400, "control", 0},
    {RAW("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "HTTP/1.0", 0},
#define CHUNKED(s) POST("Transfer-Encoding: chunked\r\n\r\n" s)
    /* chunks */
    {CHUNKED("0x5\r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("+5\r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("-5\r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("5 \r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED(" 5\r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("5;a=b\r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("5;\nxx\r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("5_0\r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("\r\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("5\nhello\r\n0\r\n\r\n"), 400, "hexadecimal", 0},
    {CHUNKED("5\rXhello\r\n0\r\n\r\n"), 400, "CRLF", 0},
    {CHUNKED("5\r\nhello\rX0\r\n\r\n"), 400, "CRLF", 0},
    {CHUNKED("5\r\nhello\n0\r\n\r\n"), 400, "CRLF", 0},
    {CHUNKED("5\r\nhelloXX0\r\n\r\n"), 400, "CRLF", 0},
    {CHUNKED("5\r\nhello!\r\n0\r\n\r\n"), 400, "CRLF", 0},
    {CHUNKED("5\r\nhello\r\n0\r\nX: a\r\n\r\n"), 400, "trailers", 0},
    {CHUNKED("0\r\n\n"), 400, "trailers", 0},
    {CHUNKED("0\r\n\rX"), 400, "CRLF", 0},
    {CHUNKED("ffffffffffffffff\r\n"), 413, "too large", 0},
    {CHUNKED("00000000000000005\r\nhello\r\n0\r\n\r\n"), 400, "digits", 0},
    {CHUNKED("10000000000000005\r\nhello\r\n0\r\n\r\n"), 413, "too large", 0},
    {CHUNKED("3e9\r\n"), 413, "too large", 0},
    {CHUNKED("5\r\nhello\r\n3e4\r\n"), 413, "too large", 0},
};

/* ---- cut off --------------------------------------------------------------------------------- */

static const struct row unfinished[] = {
    {RAW("G"), -1, "", 0},
    {RAW("GET / HTTP/1.1\r"), -1, "", 0},
    {GET(""), -1, "", 0},
    {GET("\r"), -1, "", 0},
    {POST("Content-Length: 5\r\n\r\nhell"), -1, "", 0},
    {CHUNKED(""), -1, "", 0},
    {CHUNKED("5\r\nhello\r\n"), -1, "", 0},
    {CHUNKED("5\r\nhello\r\n0\r\n"), -1, "", 0},
    {CHUNKED("0\r\n\r"), -1, "", 0},
};

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
