/* http_conn: what http_server.c (listening), http_conn.c (one connection's life) and
 * http_response.c (what a handler may say) share. Nobody else includes it.
 *
 * One rule keeps this free of re-entrance: functions that a handler calls (http_respond, ...) only
 * change the connection's state and ask for http_conn_settle; handlers, on_close and destruction
 * happen in settle alone, which only the loop calls, and in the same iteration of the loop. */
#ifndef COORDINATOR_HTTP_CONN_H
#define COORDINATOR_HTTP_CONN_H

#include "coordinator/http_parse.h"

/* Bytes [at, n) of p are waiting; the ones before are done with. */
struct http_buf {
    char *p;
    size_t at, n, cap;
};

enum exchange_state { EXCHANGE_OPEN, EXCHANGE_STREAMING, EXCHANGE_ENDED };

struct http_exchange {
    struct http_conn *conn; /* NULL: on_close is running */
    void (*on_close)(void *user, int complete);
    void *user;
    enum exchange_state state;
    struct http_buf fields; /* of http_header, as they go out */
    struct http_buf chunk;  /* written since the last flush: leaves as one chunk */
    int minor, keep_alive, no_body, chunked;
};

/* What a connection's timer waits for. */
enum http_wait {
    WAIT_NOTHING,
    WAIT_HEAD,
    WAIT_BODY,
    WAIT_IDLE,
    WAIT_WRITE,
    WAIT_LINGER,
    WAIT_TURN /* of other connections: this one has pipelined many requests */
};

struct http_conn {
    struct http_server *server;
    struct http_conn *prev, *next;
    int fd;
    ev_io read, write;
    ev_timer timer;
    ev_timer later; /* never started: fed, so that settle runs when the caller has returned */
    enum http_wait wait;
    uint64_t mark; /* received or acknowledged bytes when the timer was started */
    uint64_t n_received, n_sent;
    struct http_parser parser;
    struct http_buf in, out;
    struct http_exchange *exchange; /* the one being answered */
    int eof, dead, closing, lingering, served;
    unsigned char peer_key[16]; /* who counts as one peer */
    char peer[64];
};

struct http_server {
    struct ev_loop *loop;
    struct http_config config;
    http_handler *handler;
    void *user;
    int fd, port; /* fd -1: not accepting any more */
    ev_io accept;
    ev_timer pause; /* out of file descriptors: until when accept is off */
    int n_conn, draining, paused;
    struct http_conn *conn; /* list */
    int64_t date_s;
    char date[128]; /* "Tue, 15 Nov 1994 08:12:31 GMT" at date_s */
};

/* http_buf_room: place for n more bytes behind b->n, or NULL. http_buf_add: 0 or ERR_NOMEM. */
char *http_buf_room(struct http_buf *b, size_t n);
int http_buf_add(struct http_buf *b, const void *data, size_t n);
void http_buf_free(struct http_buf *b);

/* http_conn_create takes fd over (closes it on failure). It is in the server's list until it ends.
 */
struct http_conn *http_conn_create(struct http_server *s, int fd, const char *peer,
                                   const unsigned char peer_key[16]);
/* http_conn_fail answers with an error of our own and ends the connection; no exchange is open. */
void http_conn_fail(struct http_conn *c, int status, const char *why);
/* http_conn_flush hands the kernel what it takes now; a broken connection becomes dead. */
void http_conn_flush(struct http_conn *c);
/* http_conn_later: settle in this iteration of the loop, from the loop. */
void http_conn_later(struct http_conn *c);
void http_conn_destroy(struct http_conn *c);

/* http_exchange_create: NULL without memory. close: calls on_close and frees. */
struct http_exchange *http_exchange_create(struct http_conn *c);
void http_exchange_close(struct http_exchange *x, int complete);
/* http_exchange_frame moves what was written into the connection's output. */
int http_exchange_frame(struct http_exchange *x);
/* http_error_write: a whole error response with Connection: close, in the form OpenAI clients read.
 */
int http_error_write(struct http_conn *c, int status, const char *why);

#endif
