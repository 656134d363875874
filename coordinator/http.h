/* http: a strict subset of HTTP/1.1 (RFC 9112) on a libev loop: what OpenAI clients, curl and
 * browsers send, and nothing else. Any doubt is 400 and the connection closes, because every
 * leniency is a way to smuggle requests past a proxy (the http-garden corpus). TLS is the business
 * of a proxy in front. Reading stays armed while a response streams, so a client that goes away is
 * noticed at once.
 *
 * Accepted: request line with an origin-form target and HTTP/1.0 or 1.1, CRLF line ends only, at
 * most HTTP_FIELDS_MAX fields of HTTP_HEAD_BYTES_MAX in all, exactly one Host (1.1), a body by one
 * Content-Length or by chunked alone, keep-alive and pipelining, Expect: 100-continue. */
#ifndef COORDINATOR_HTTP_H
#define COORDINATOR_HTTP_H

#include "base/err.h"
#include <ev.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_FIELDS_MAX     100
#define HTTP_HEAD_BYTES_MAX 16384

struct http_field {
    const char *name, *value; /* NUL-terminated; names in lower case, values without outer blanks */
};

/* A complete request; valid during the handler's call. */
struct http_request {
    const char *method; /* "GET", "POST", "OPTIONS", "HEAD", "DELETE", ... */
    const char *path;   /* percent-decoded UTF-8, without query, dot segments, control bytes */
    const char *query;  /* raw, "" when none */
    const struct http_field *field;
    int n_field;
    const char *body;
    size_t n_body;
    const char *peer; /* "127.0.0.1:51234" */
};
/* http_field_get: the value of a field (lower-case name) or NULL. */
const char *http_field_get(const struct http_request *r, const char *name);

/* One request and its response. Lives from the handler's call until the response has left or the
 * client is gone, whichever is first; then on_close is called, once, and the exchange is freed: who
 * keeps x beyond the handler's call needs on_close to know until when. on_close is never called
 * from within a function below (but for http_server_destroy), so x stays good until its caller
 * returns to the loop; in between, and in on_close itself, calls on a client that is gone or on a
 * response that has ended do nothing. All of this on the loop's thread. */
struct http_exchange;
typedef void http_handler(void *user, struct http_exchange *x, const struct http_request *r);

struct http_config {
    const char *host;                  /* "127.0.0.1", "::1", "0.0.0.0" */
    int port;                          /* 0: a free one, see http_server_port */
    size_t body_bytes_max;             /* 413 above */
    int conns_max, conns_per_peer_max; /* 503 above; a peer is an IPv4 address or an IPv6 /64 */
    double head_timeout_s; /* for a head, from the connection's begin or the head's first byte */
    double body_timeout_s; /* in each such time 256 bytes a second must come (408) */
    double idle_timeout_s; /* between requests */
    double write_stall_s;  /* in each such time the client must take something */
    int backlog;
    size_t write_buffer_max; /* a client that reads a stream too slowly is cut off above */
};

struct http_server;
int http_server_create(struct ev_loop *loop, const struct http_config *config,
                       http_handler *handler, void *user, struct http_server **out,
                       struct err *err);
/* http_server_stop_accepting for a drain: idle connections close, others after their response.
 * http_server_destroy closes everything (on_close is called); never from a handler or on_close. */
void http_server_stop_accepting(struct http_server *s);
void http_server_destroy(struct http_server *s);
int http_server_port(const struct http_server *s);
int http_server_conns(const struct http_server *s);

/* http_on_close: fn(user) when the exchange ends: complete (1) or because the client went away (0).
 */
void http_on_close(struct http_exchange *x, void (*fn)(void *user, int complete), void *user);
/* http_header adds a field to the response about to be sent (name and value are copied). ERR_USAGE:
 * bytes that do not belong into a name or value, or a field that this server writes itself
 * (Content-Length and -Type, Transfer-Encoding, Connection, Date); ERR_LIMIT, ERR_GONE. */
int http_header(struct http_exchange *x, const char *name, const char *value);
/* http_respond sends a whole response (the body is copied). `type` may be NULL for no body. */
void http_respond(struct http_exchange *x, int status, const char *type, const void *body,
                  size_t n);
/* http_stream_begin / write / end: a chunked response (HTTP/1.1) or close-delimited (1.0). write
 * returns ERR_GONE when the client is gone (on_close has been or will be called). */
void http_stream_begin(struct http_exchange *x, int status, const char *type);
int http_stream_write(struct http_exchange *x, const void *data, size_t n);
void http_stream_end(struct http_exchange *x);

#endif
