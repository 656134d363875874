/* http_parse: bytes to lines, lines to http_head.c, and the body. The states in their order:
 *   REQUEST_LINE -> FIELDS -> (http_head_finish) -> BODY, or CHUNK_SIZE ... LAST_LF -> COMPLETE
 * A byte is consumed by exactly one state; that is why it cannot matter where reads were cut. */
#include "coordinator/http_parse.h"

#include <string.h>

enum {
    REQUEST_LINE,
    FIELDS,
    HEAD_TOLD, /* HTTP_HEAD_DONE was returned, nothing of the body was looked at */
    BODY,
    CHUNK_SIZE,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_CR,
    CHUNK_LF,
    LAST_CR,
    LAST_LF,
    COMPLETE,
    REFUSED
};

/* 16 digits hold every 64-bit size; more are an attempt to overflow somebody. */
#define CHUNK_DIGITS_MAX 16

void http_parser_init(struct http_parser *p, size_t body_bytes_max)
{
    memset(p, 0, sizeof(*p));
    p->body_bytes_max = body_bytes_max;
    p->state = REQUEST_LINE;
}

int http_refuse(struct http_parser *p, int status, const char *why)
{
    p->state = REFUSED;
    p->status = status;
    p->why = why;
    return -1;
}

/* ---- the head -------------------------------------------------------------------------------- */

static int end_line(struct http_parser *p, char *buf)
{
    size_t begin = p->line, end = p->at - 1; /* at is the LF, before it the CR */
    p->line = p->at + 1;
    if (p->state == REQUEST_LINE) {
        p->state = FIELDS;
        return http_head_request_line(p, buf, begin, end);
    }
    if (begin < end)
        return http_head_field(p, buf, begin, end);
    p->head_bytes = p->at + 1;
    p->state = HEAD_TOLD;
    return http_head_finish(p);
}

/* One byte of the head: the rules that hold wherever it stands. */
static int head_byte(struct http_parser *p, char *buf)
{
    unsigned char c = (unsigned char)buf[p->at];
    if (p->at >= HTTP_HEAD_BYTES_MAX)
        return http_refuse(p, 431, "the head is too long");
    if (p->state == REQUEST_LINE && p->at >= HTTP_LINE_BYTES_MAX)
        return http_refuse(p, 414, "the request line is too long");
    if (p->after_cr) {
        p->after_cr = 0;
        return c == '\n' ? end_line(p, buf) : http_refuse(p, 400, "a CR without its LF");
    }
    if (c == '\r') {
        p->after_cr = 1;
        return 0;
    }
    if (c == '\n')
        return http_refuse(p, 400, "a LF without its CR");
    if ((c < 0x20 && c != '\t') || c == 0x7f)
        return http_refuse(p, 400, "a control byte in the head");
    return 0;
}

static int head(struct http_parser *p, char *buf, size_t n)
{
    while (p->at < n && p->state <= FIELDS) {
        if (head_byte(p, buf) != 0)
            return -1;
        p->at++;
    }
    return 0;
}

/* ---- the body -------------------------------------------------------------------------------- */

static void begin_body(struct http_parser *p)
{
    if (p->chunked)
        p->state = CHUNK_SIZE;
    else
        p->state = p->left > 0 ? BODY : COMPLETE;
}

static size_t take(struct http_parser *p, size_t n)
{
    size_t have = n - p->at;
    return p->left < have ? (size_t)p->left : have;
}

static void body(struct http_parser *p, size_t n)
{
    size_t k = take(p, n);
    p->at += k;
    p->body_bytes += k;
    p->left -= k;
    if (p->left == 0)
        p->state = COMPLETE;
}

/* A chunk's bytes go directly behind the body so far, over the framing. */
static void chunk_data(struct http_parser *p, char *buf, size_t n)
{
    size_t k = take(p, n);
    memmove(buf + p->head_bytes + p->body_bytes, buf + p->at, k);
    p->at += k;
    p->body_bytes += k;
    p->left -= k;
    if (p->left == 0)
        p->state = CHUNK_CR;
}

static int chunk_size(struct http_parser *p, unsigned char c)
{
    if (c == '\r' && p->n_digit > 0) {
        p->state = CHUNK_SIZE_LF;
        return 0;
    }
    int digit = http_hex_digit(c);
    if (digit < 0)
        return http_refuse(p, 400, "a chunk's size is hexadecimal digits and CRLF, nothing else");
    if (++p->n_digit > CHUNK_DIGITS_MAX)
        return http_refuse(p, 400, "a chunk's size has too many digits");
    p->left = p->left << 4 | (unsigned)digit;
    if (p->left > p->body_bytes_max - p->body_bytes)
        return http_refuse(p, 413, "the body is too large");
    return 0;
}

static int expect_byte(struct http_parser *p, unsigned char c, char wanted, int next)
{
    if (c != (unsigned char)wanted)
        return http_refuse(p, 400,
                           p->state == LAST_CR ? "trailers are not taken"
                                               : "a chunk does not end in CRLF");
    p->state = next;
    return 0;
}

static int chunk_framing(struct http_parser *p, unsigned char c)
{
    switch (p->state) {
    case CHUNK_SIZE:
        return chunk_size(p, c);
    case CHUNK_SIZE_LF:
        p->n_digit = 0;
        return expect_byte(p, c, '\n', p->left > 0 ? CHUNK_DATA : LAST_CR);
    case CHUNK_CR:
        return expect_byte(p, c, '\r', CHUNK_LF);
    case CHUNK_LF:
        return expect_byte(p, c, '\n', CHUNK_SIZE);
    case LAST_CR:
        return expect_byte(p, c, '\r', LAST_LF);
    default:
        return expect_byte(p, c, '\n', COMPLETE);
    }
}

/* Closes the gap between the decoded body and what has not been looked at. */
static void close_gap(struct http_parser *p, char *buf, size_t *n)
{
    size_t end = p->head_bytes + p->body_bytes;
    if (p->chunked && p->at > end) {
        memmove(buf + end, buf + p->at, *n - p->at);
        *n -= p->at - end;
        p->at = end;
    }
}

static enum http_step read_body(struct http_parser *p, char *buf, size_t *n)
{
    while (p->at < *n && p->state < COMPLETE) {
        if (p->state == BODY) {
            body(p, *n);
        } else if (p->state == CHUNK_DATA) {
            chunk_data(p, buf, *n);
        } else if (chunk_framing(p, (unsigned char)buf[p->at]) == 0) {
            p->at++;
        } else {
            return HTTP_REFUSED;
        }
    }
    close_gap(p, buf, n);
    return p->state == COMPLETE ? HTTP_REQUEST_DONE : HTTP_MORE;
}

/* ---- together -------------------------------------------------------------------------------- */

enum http_step http_parse(struct http_parser *p, char *buf, size_t *n)
{
    if (p->state == REFUSED)
        return HTTP_REFUSED;
    if (p->state <= FIELDS) {
        if (head(p, buf, *n) != 0)
            return HTTP_REFUSED;
        return p->state == HEAD_TOLD ? HTTP_HEAD_DONE : HTTP_MORE;
    }
    if (p->state == HEAD_TOLD)
        begin_body(p);
    return read_body(p, buf, n);
}

void http_parser_request(const struct http_parser *p, const char *buf,
                         struct http_field field[HTTP_FIELDS_MAX], struct http_request *out)
{
    for (int i = 0; i < p->n_field; i++) {
        field[i].name = buf + p->field[i].name;
        field[i].value = buf + p->field[i].value;
    }
    out->method = buf + p->method;
    out->path = buf + p->path;
    out->query = buf + p->query;
    out->field = field;
    out->n_field = p->n_field;
    out->body = buf + p->head_bytes;
    out->n_body = p->body_bytes;
}
