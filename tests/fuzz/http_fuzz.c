/* http_fuzz: any bytes as a connection's input: requests one behind the other, until one is refused
 * or cut off. What is read must not depend on where reads were cut, and what a handler is given
 * must keep what http.h promises of it.
 *
 * The input: a byte (how long the pieces are), then the stream. */
#include "coordinator/http_parse.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MAX 4096

struct tally {
    int n_request, status;
    uint64_t sum; /* over everything a handler would see */
};

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "http_fuzz: %s\n", what);
    abort();
}

static void add(struct tally *t, const void *data, size_t n)
{
    const unsigned char *byte = data;
    for (size_t i = 0; i < n; i++)
        t->sum = (t->sum ^ byte[i]) * 0x100000001b3u;
    t->sum = (t->sum ^ 0x1ff) * 0x100000001b3u;
}

static void add_text(struct tally *t, const char *s)
{
    require(strpbrk(s, "\r\n") == NULL, "a line end inside of a string");
    add(t, s, strlen(s));
}

static void check_path(const struct http_request *r)
{
    if (strcmp(r->path, "*") == 0) {
        require(strcmp(r->method, "OPTIONS") == 0, "* for another method than OPTIONS");
        return;
    }
    require(r->path[0] == '/', "a path that is none");
    size_t n = strlen(r->path);
    require(strstr(r->path, "/../") == NULL && strstr(r->path, "/./") == NULL, "dots in a path");
    require(n < 3 || strcmp(r->path + n - 3, "/..") != 0, "a path that ends in ..");
    require(strcmp(r->path + n - 2 + (n < 2), "/.") != 0, "a path that ends in .");
}

static void see(struct tally *t, const struct http_parser *p, const char *buf)
{
    struct http_field field[HTTP_FIELDS_MAX];
    struct http_request r = {0};
    http_parser_request(p, buf, field, &r);
    require(r.n_body <= BODY_MAX && r.n_field <= HTTP_FIELDS_MAX, "more than the limits");
    check_path(&r);
    add_text(t, r.method);
    add_text(t, r.path);
    add_text(t, r.query);
    for (int i = 0; i < r.n_field; i++) {
        require(http_is_token(r.field[i].name, strlen(r.field[i].name)), "a name that is no token");
        add_text(t, r.field[i].name);
        add_text(t, r.field[i].value);
    }
    add(t, r.body, r.n_body);
    t->n_request++;
}

/* Reads on until the parser wants more or refuses. Returns the bytes that are left in buf. */
static size_t run(struct http_parser *p, char *buf, size_t n, struct tally *t)
{
    for (;;) {
        enum http_step step = http_parse(p, buf, &n);
        require(p->at <= n, "looked past the end");
        if (step == HTTP_MORE) {
            require(p->at == n, "wants more before all was used");
            return n;
        }
        if (step == HTTP_REFUSED) {
            require(p->status >= 400 && p->status <= 505 && p->why, "refused without words");
            t->status = p->status;
            return n;
        }
        if (step == HTTP_REQUEST_DONE) {
            see(t, p, buf);
            n -= p->at;
            memmove(buf, buf + p->at, n);
            http_parser_init(p, BODY_MAX);
        }
    }
}

static struct tally read_stream(const uint8_t *data, size_t size, size_t piece)
{
    struct tally t = {0};
    struct http_parser p;
    char *buf = malloc(1);
    size_t n = 0;
    http_parser_init(&p, BODY_MAX);
    while (size > 0 && t.status == 0) {
        size_t k = piece < size ? piece : size;
        char *grown = realloc(buf, n + k); /* of just that size: asan sees a look past it */
        require(grown != NULL, "no memory");
        buf = grown;
        memcpy(buf + n, data, k);
        data += k;
        size -= k;
        n = run(&p, buf, n + k, &t);
    }
    free(buf);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t piece = data[0] % 64 + 1u;
    struct tally whole = read_stream(data + 1, size - 1, size);
    struct tally cut = read_stream(data + 1, size - 1, piece);
    require(whole.n_request == cut.n_request && whole.status == cut.status && whole.sum == cut.sum,
            "the cuts between reads change what is read");
    return 0;
}
