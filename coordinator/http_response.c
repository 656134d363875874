/* http_response: what a handler may say about its exchange. These functions write into the
 * connection's buffers and never call anybody back (http_conn.h). Small writes of one turn of the
 * loop leave as one chunk: a token is several writes and should be one packet. */
#include "base/log.h"
#include "coordinator/http_conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* A chunk that is written in one go is not kept back any longer than this. */
#define CHUNK_BYTES_MAX 65536
#define FIELD_BYTES_MAX 16384

/* ---- heads ----------------------------------------------------------------------------------- */

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *text;
    } reason[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof(reason) / sizeof(*reason); i++)
        if (reason[i].status == status)
            return reason[i].text;
    return "";
}

/* RFC 9110 section 5.6.7. strftime would name days in the user's language. */
static const char *date_of(struct http_server *s)
{
    static const char day[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char month[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t now = (time_t)ev_now(s->loop);
    struct tm t;
    if (s->date[0] == 0 || s->date_s != (int64_t)now) {
        if (gmtime_r(&now, &t) == NULL)
            memset(&t, 0, sizeof(t));
        snprintf(s->date, sizeof(s->date), "%s, %02d %s %04d %02d:%02d:%02d GMT", day[t.tm_wday],
                 t.tm_mday, month[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
        s->date_s = (int64_t)now;
    }
    return s->date;
}

static int has_no_body(int status)
{
    return status < 200 || status == 204 || status == 304;
}

static int add_text(struct http_buf *b, const char *text)
{
    return http_buf_add(b, text, strlen(text));
}

static int add_field(struct http_buf *b, const char *name, const char *value)
{
    int rc = add_text(b, name);
    rc = rc ? rc : add_text(b, ": ");
    rc = rc ? rc : add_text(b, value);
    return rc ? rc : add_text(b, "\r\n");
}

static int begin_head(struct http_conn *c, int status, const char *type)
{
    char line[128];
    snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\n", status, reason_of(status));
    int rc = add_text(&c->out, line);
    rc = rc ? rc : add_field(&c->out, "Date", date_of(c->server));
    return rc || type == NULL ? rc : add_field(&c->out, "Content-Type", type);
}

static int add_length(struct http_conn *c, size_t n)
{
    char digits[24];
    snprintf(digits, sizeof(digits), "%zu", n);
    return add_field(&c->out, "Content-Length", digits);
}

/* HTTP/1.1 stays open unless it says close, HTTP/1.0 closes unless it says keep-alive. */
static int end_head(struct http_exchange *x)
{
    struct http_buf *out = &x->conn->out;
    int rc = 0;
    x->keep_alive &= !x->conn->server->draining;
    if (!x->keep_alive)
        rc = add_field(out, "Connection", "close");
    else if (x->minor == 0)
        rc = add_field(out, "Connection", "keep-alive");
    rc = rc ? rc : http_buf_add(out, x->fields.p, x->fields.n);
    http_buf_free(&x->fields);
    return rc ? rc : add_text(out, "\r\n");
}

int http_error_write(struct http_conn *c, int status, const char *why)
{
    char body[512];
    const char *type = status == 503   ? "unavailable_error"
                       : status >= 500 ? "server_error"
                                       : "invalid_request_error";
    snprintf(body, sizeof(body),
             "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":null}}", why,
             type);
    int rc = begin_head(c, status, "application/json");
    rc = rc ? rc : add_length(c, strlen(body));
    rc = rc || status != 503 ? rc : add_field(&c->out, "Retry-After", "1");
    rc = rc ? rc : add_field(&c->out, "Connection", "close");
    rc = rc ? rc : add_text(&c->out, "\r\n");
    return rc ? rc : add_text(&c->out, body);
}

/* ---- the exchange ---------------------------------------------------------------------------- */

struct http_exchange *http_exchange_create(struct http_conn *c)
{
    struct http_exchange *x = calloc(1, sizeof(*x));
    if (x == NULL)
        return NULL;
    x->conn = c;
    x->minor = c->parser.minor;
    x->keep_alive = c->parser.keep_alive;
    x->no_body = strcmp(c->in.p + c->parser.method, "HEAD") == 0;
    return x;
}

void http_exchange_close(struct http_exchange *x, int complete)
{
    x->conn = NULL;
    if (x->on_close != NULL)
        x->on_close(x->user, complete);
    http_buf_free(&x->fields);
    http_buf_free(&x->chunk);
    free(x);
}

static int is_gone(const struct http_exchange *x)
{
    return x->conn == NULL || x->conn->dead;
}

/* The end of every function below: without memory for its answer the connection ends. */
static void after(struct http_exchange *x, int rc)
{
    if (rc != 0)
        x->conn->dead = 1;
    http_conn_later(x->conn);
}

int http_exchange_frame(struct http_exchange *x)
{
    struct http_buf *chunk = &x->chunk, *out = &x->conn->out;
    char size[24];
    if (chunk->n == 0)
        return 0;
    snprintf(size, sizeof(size), "%zx\r\n", chunk->n);
    int rc = x->chunked ? add_text(out, size) : 0;
    rc = rc ? rc : http_buf_add(out, chunk->p, chunk->n);
    rc = rc || !x->chunked ? rc : add_text(out, "\r\n");
    chunk->n = 0;
    return rc;
}

/* ---- for handlers ---------------------------------------------------------------------------- */

void http_on_close(struct http_exchange *x, void (*fn)(void *user, int complete), void *user)
{
    x->on_close = fn;
    x->user = user;
}

/* Fields that say how the response is framed are ours alone. */
static int is_ours(const char *name)
{
    static const char *const ours[] = {"content-length", "transfer-encoding", "connection", "date",
                                       "content-type"};
    for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
        if (strcasecmp(name, ours[i]) == 0)
            return 1;
    return 0;
}

static int is_value(const char *s)
{
    for (; *s; s++)
        if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
            return 0;
    return 1;
}

int http_header(struct http_exchange *x, const char *name, const char *value)
{
    if (is_gone(x))
        return ERR_GONE;
    if (x->state != EXCHANGE_OPEN || !http_is_token(name, strlen(name)) || is_ours(name) ||
        !is_value(value))
        return ERR_USAGE;
    if (x->fields.n + strlen(name) + strlen(value) > FIELD_BYTES_MAX)
        return ERR_LIMIT;
    return add_field(&x->fields, name, value);
}

void http_respond(struct http_exchange *x, int status, const char *type, const void *body, size_t n)
{
    if (is_gone(x))
        return;
    if (x->state != EXCHANGE_OPEN) {
        log_error("http", "a second response to one request is dropped: status=%d", status);
        return;
    }
    struct http_conn *c = x->conn;
    n = type != NULL ? n : 0;
    int rc = begin_head(c, status, type);
    rc = rc || has_no_body(status) ? rc : add_length(c, n);
    rc = rc ? rc : end_head(x);
    if (rc == 0 && !x->no_body && !has_no_body(status))
        rc = http_buf_add(&c->out, body, n);
    x->state = EXCHANGE_ENDED;
    after(x, rc);
}

void http_stream_begin(struct http_exchange *x, int status, const char *type)
{
    if (is_gone(x))
        return;
    if (x->state != EXCHANGE_OPEN) {
        log_error("http", "a second response to one request is dropped: status=%d", status);
        return;
    }
    struct http_conn *c = x->conn;
    x->no_body |= has_no_body(status);
    x->chunked = x->minor == 1 && !has_no_body(status);
    x->keep_alive &= x->minor == 1;
    int rc = begin_head(c, status, type);
    rc = rc || !x->chunked ? rc : add_field(&c->out, "Transfer-Encoding", "chunked");
    rc = rc ? rc : end_head(x);
    x->state = EXCHANGE_STREAMING;
    after(x, rc);
}

/* A client that does not read is not allowed to cost more memory than this. */
static int has_room(struct http_exchange *x, size_t n)
{
    struct http_conn *c = x->conn;
    size_t max = c->server->config.write_buffer_max, held = c->out.n - c->out.at + x->chunk.n;
    if (held < max && n <= max - held)
        return 1;
    http_conn_flush(c);
    held = c->out.n - c->out.at;
    /* One write may be larger than the buffer when nothing else waits: the handler has it anyway.
     */
    return !c->dead && (held == 0 || (held < max && n <= max - held));
}

int http_stream_write(struct http_exchange *x, const void *data, size_t n)
{
    if (is_gone(x) || x->conn->eof)
        return ERR_GONE;
    if (x->state != EXCHANGE_STREAMING)
        return ERR_USAGE;
    if (n == 0 || x->no_body)
        return 0;
    if (!has_room(x, n)) {
        if (!x->conn->dead)
            log_info("http", "cut off, reads too slowly: peer=%s waiting=%zu", x->conn->peer,
                     x->conn->out.n - x->conn->out.at);
        after(x, ERR_LIMIT);
        return ERR_GONE;
    }
    int rc = http_buf_add(&x->chunk, data, n);
    if (rc == 0 && x->chunk.n >= CHUNK_BYTES_MAX)
        rc = http_exchange_frame(x);
    after(x, rc);
    return rc == 0 ? 0 : ERR_GONE;
}

void http_stream_end(struct http_exchange *x)
{
    if (is_gone(x) || x->state == EXCHANGE_ENDED)
        return;
    if (x->state == EXCHANGE_OPEN) {
        log_error("http", "a stream ends that was not begun; answered 500");
        http_respond(x, 500, NULL, NULL, 0);
        return;
    }
    int rc = http_exchange_frame(x);
    if (rc == 0 && x->chunked && !x->no_body)
        rc = add_text(&x->conn->out, "0\r\n\r\n");
    x->state = EXCHANGE_ENDED;
    after(x, rc);
}
