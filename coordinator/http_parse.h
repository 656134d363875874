/* http_parse: one HTTP/1.1 request (RFC 9112) read incrementally from the caller's buffer, without
 * an allocation and without a socket. Whatever the cuts between reads, the result is the same:
 * bytes are looked at once, in order, and the first one that breaks a rule decides the status.
 *
 * The parser works in place. Of a head it makes NUL-terminated strings, of chunks a body in one
 * piece, so that a complete request lies in the buffer as: head (head_bytes), body (body_bytes),
 * then whatever came after it. It keeps offsets, never pointers: between calls the buffer may move.
 *
 * Stricter than the RFC where a leniency could be read in two ways by two programs:
 * - lines end in CRLF; a CR or a LF alone, NUL and other control bytes are 400, so is an empty line
 *   before a request;
 * - the request line has exactly two spaces; HTTP/1.0 and HTTP/1.1 only (505);
 * - a field name is a token directly followed by ':'; no folding; one Host, Content-Length,
 *   Transfer-Encoding, Expect, Authorization, Content-Type at most;
 * - Content-Length is 1 to 19 digits; Transfer-Encoding is exactly "chunked", in HTTP/1.1, without
 *   Content-Length; chunks have no extensions and no trailer follows them;
 * - a target is a path or, for OPTIONS, "*". A path is percent-decoded once; then it must be UTF-8
 *   without control bytes and without a "." or ".." segment; an encoded '/' or '\' is refused. */
#ifndef COORDINATOR_HTTP_PARSE_H
#define COORDINATOR_HTTP_PARSE_H

#include "coordinator/http.h"

/* RFC 9112 section 3 asks for 8000 at least. */
#define HTTP_LINE_BYTES_MAX 8192

enum http_step {
    HTTP_MORE,         /* all bytes are used; more are needed */
    HTTP_HEAD_DONE,    /* told once, between head and body: the time to answer Expect */
    HTTP_REQUEST_DONE, /* http_parser_request may be called */
    HTTP_REFUSED       /* see status and why; the connection cannot be used any further */
};

struct http_parser {
    size_t body_bytes_max;
    int state;
    size_t at;   /* the next byte to look at; after HTTP_REQUEST_DONE the first byte behind it */
    size_t line; /* where the line begins that `at` is in */
    size_t head_bytes, body_bytes;
    uint64_t left; /* bytes to come of the body or of the chunk */
    int n_digit;   /* of the chunk's size */
    int after_cr;
    unsigned seen; /* which of the fields that may come once have come */
    int minor, chunked, keep_alive, expect_continue;
    int close_asked, keep_alive_asked;
    int status;
    const char *why;
    uint16_t method, path, query; /* offsets in the head */
    int n_field;
    struct {
        uint16_t name, value;
    } field[HTTP_FIELDS_MAX];
};

/* http_parser_init forgets everything: the next byte of the buffer begins a request. */
void http_parser_init(struct http_parser *p, size_t body_bytes_max);
/* http_parse reads on in buf[p->at .. *n); buf[0] is the request's first byte. It changes bytes
 * before *n and lowers *n by what chunk framing took. Never looks at a byte again when called
 * again. */
enum http_step http_parse(struct http_parser *p, char *buf, size_t *n);
/* http_parser_request lays out a complete request; peer is left alone. Everything points into buf.
 */
void http_parser_request(const struct http_parser *p, const char *buf,
                         struct http_field field[HTTP_FIELDS_MAX], struct http_request *out);
/* http_is_token: whether s[0..n) is a token of RFC 9110 section 5.6.2. */
int http_is_token(const char *s, size_t n);
/* http_hex_digit: its value, or -1. */
int http_hex_digit(unsigned char c);

/* Between http_parse.c (bytes, lines, bodies) and http_head.c (what a line says). A line is
 * buf[begin .. end), without its CRLF; they return 0 or -1 after http_refuse. */
int http_refuse(struct http_parser *p, int status, const char *why); /* returns -1 */
int http_head_request_line(struct http_parser *p, char *buf, size_t begin, size_t end);
int http_head_field(struct http_parser *p, char *buf, size_t begin, size_t end);
int http_head_finish(struct http_parser *p);

#endif
