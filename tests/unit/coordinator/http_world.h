/* http_world: an HTTP server on a loop in a thread of its own, with handlers that behave in the
 * ways a real one might, and a blocking client for the test's thread. */
#ifndef TESTS_UNIT_COORDINATOR_HTTP_WORLD_H
#define TESTS_UNIT_COORDINATOR_HTTP_WORLD_H

#include "coordinator/http.h"
#include <pthread.h>
#include <stdatomic.h>

struct http_world {
    pthread_t thread;
    struct ev_loop *loop;
    ev_async stop, drain;
    ev_prepare turn;
    struct http_server *server;
    int port, running;
    /* Requests handled; of those with on_close: open, ended with 1, ended with 0. Turns of the
     * loop. */
    atomic_int n_request, n_open, n_complete, n_gone, n_turn, n_conn;
    atomic_int write_gone; /* http_stream_write said ERR_GONE */
};

/* Some seconds everywhere, 1 MiB of body, 300 connections. */
struct http_config http_world_config(void);
void http_world_start(struct http_world *w, const struct http_config *config);
/* http_world_drain: http_server_stop_accepting, from the loop. stop: destroys the server, open
 * exchanges or not, if it runs; the counts can be read afterwards. */
void http_world_drain(struct http_world *w);
void http_world_stop(struct http_world *w);
/* http_world_wait: until *n is `value`; 0 after a minute, which a busy machine may need some
 * seconds of. */
int http_world_wait(atomic_int *n, int value);

struct http_reply {
    int status;
    char head[2048];
    char *body; /* decoded; NUL-terminated */
    size_t n_body;
    int chunks;
};

struct http_client {
    int fd;
    char *p; /* received, not taken */
    size_t n, cap;
};

void http_client_open(struct http_client *c, int port);
/* http_client_open_with: with this receive buffer, in bytes; 0 is the system's.
 * http_client_open_small: with the smallest receive buffer there is. */
void http_client_open_with(struct http_client *c, int port, int receive_bytes);
void http_client_open_small(struct http_client *c, int port);
void http_client_close(struct http_client *c);
void http_client_reset(struct http_client *c); /* with a RST */
int http_client_send(struct http_client *c, const char *text);
int http_client_send_bytes(struct http_client *c, const void *data, size_t n);
/* http_client_more: receives some. Returns their number, 0 at the end, -1 on error or after a
 * minute. */
long http_client_more(struct http_client *c);
/* http_client_reply: takes one response (of a HEAD request: its head). 0, or -1 where none came. */
int http_client_reply(struct http_client *c, int is_head, struct http_reply *out);
void http_reply_free(struct http_reply *r);
/* http_client_ended: the server closes and says nothing more. */
int http_client_ended(struct http_client *c);
/* http_client_ask: sends text, takes the reply, returns its status. */
int http_client_ask(struct http_client *c, const char *text, struct http_reply *out);

/* fds_open: of this process. */
int fds_open(void);

#endif
