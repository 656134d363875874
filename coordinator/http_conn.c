/* http_conn: one connection's life. It reads always, also while a response is under way, because
 * only reading tells that a client has gone. Requests that arrive meanwhile wait in `in`.
 *
 *   reading a request (WAIT_HEAD, WAIT_BODY; WAIT_IDLE before its first byte)
 *     -> handler: an exchange is open (WAIT_NOTHING; WAIT_WRITE while the client does not read)
 *     -> its response has left: on_close(1) -> the next request
 *   closing: an error of ours or the last response waits to leave -> lingering -> closed
 *   dead: broken, timed out or cut off -> on_close(0), closed
 *
 * settle takes all of these arrows; the callbacks of the loop only note what happened.
 *
 * Lingering (RFC 9112 section 9.6): a socket closed with unread input resets the connection, and
 * the reset can overtake the response on the client's side. So the last word is said, our direction
 * is shut, and input is thrown away until the client closes too, for a short while. */
#include "coordinator/http_conn.h"
#include "base/log.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES       4096
#define READ_BODY_BYTES  65536
#define LINGER_S         2.0
#define BODY_BYTES_PER_S 256.0 /* slower uploads are an attack or hopeless */
#define REQUESTS_A_TURN  16    /* pipelined requests before other connections have their turn */
#define KEEP_BYTES       65536 /* an empty buffer above this is given back */

static void on_read(struct ev_loop *loop, ev_io *w, int revents);
static void on_write(struct ev_loop *loop, ev_io *w, int revents);
static void on_timer(struct ev_loop *loop, ev_timer *w, int revents);
static void on_later(struct ev_loop *loop, ev_timer *w, int revents);

/* ---- create, destroy ------------------------------------------------------------------------- */

static void list_add(struct http_server *s, struct http_conn *c)
{
    c->next = s->conn;
    if (s->conn != NULL)
        s->conn->prev = c;
    s->conn = c;
    s->n_conn++;
}

static void list_remove(struct http_server *s, struct http_conn *c)
{
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        s->conn = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    s->n_conn--;
}

struct http_conn *http_conn_create(struct http_server *s, int fd, const char *peer,
                                   const unsigned char peer_key[16])
{
    struct http_conn *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        close(fd);
        return NULL;
    }
    c->server = s;
    c->fd = fd;
    memcpy(c->peer_key, peer_key, sizeof(c->peer_key));
    snprintf(c->peer, sizeof(c->peer), "%s", peer);
    http_parser_init(&c->parser, s->config.body_bytes_max);
    ev_io_init(&c->read, on_read, fd, EV_READ);
    ev_io_init(&c->write, on_write, fd, EV_WRITE);
    ev_init(&c->timer, on_timer);
    ev_init(&c->later, on_later);
    c->read.data = c->write.data = c->timer.data = c->later.data = c;
    list_add(s, c);
    ev_io_start(s->loop, &c->read);
    http_conn_later(c);
    return c;
}

void http_conn_destroy(struct http_conn *c)
{
    struct http_server *s = c->server;
    struct http_exchange *x = c->exchange;
    ev_io_stop(s->loop, &c->read);
    ev_io_stop(s->loop, &c->write);
    ev_timer_stop(s->loop, &c->timer);
    ev_clear_pending(s->loop, &c->later);
    list_remove(s, c);
    close(c->fd);
    http_buf_free(&c->in);
    http_buf_free(&c->out);
    free(c);
    if (x != NULL)
        http_exchange_close(x, 0);
}

void http_conn_later(struct http_conn *c)
{
    ev_feed_event(c->server->loop, &c->later, EV_CUSTOM);
}

/* ---- output ---------------------------------------------------------------------------------- */

static int has_output(const struct http_conn *c)
{
    return c->out.at < c->out.n;
}

static void empty(struct http_buf *b)
{
    b->at = b->n = 0;
    if (b->cap > KEEP_BYTES)
        http_buf_free(b);
}

void http_conn_flush(struct http_conn *c)
{
    if (c->exchange != NULL && http_exchange_frame(c->exchange) != 0)
        c->dead = 1;
    while (!c->dead && has_output(c)) {
        ssize_t k =
            send(c->fd, c->out.p + c->out.at, c->out.n - c->out.at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            c->dead = errno != EAGAIN && errno != EWOULDBLOCK;
            return;
        }
        c->out.at += (size_t)k;
        c->n_sent += (size_t)k;
    }
    if (!has_output(c))
        empty(&c->out);
}

void http_conn_fail(struct http_conn *c, int status, const char *why)
{
    log_debug("http", "refused: peer=%s status=%d why=%s", c->peer, status, why);
    c->closing = 1;
    c->dead |= http_error_write(c, status, why) != 0;
}

/* ---- the timer ------------------------------------------------------------------------------- */

static enum http_wait what_to_wait_for(const struct http_conn *c, int turn)
{
    if (turn)
        return WAIT_TURN;
    if (has_output(c))
        return WAIT_WRITE;
    if (c->lingering)
        return WAIT_LINGER;
    if (c->exchange != NULL)
        return WAIT_NOTHING;
    if (c->parser.head_bytes > 0)
        return WAIT_BODY;
    return c->in.n > 0 || !c->served ? WAIT_HEAD : WAIT_IDLE;
}

static double seconds_of(const struct http_conn *c, enum http_wait wait)
{
    const struct http_config *config = &c->server->config;
    switch (wait) {
    case WAIT_HEAD:
        return config->head_timeout_s;
    case WAIT_BODY:
        return config->body_timeout_s;
    case WAIT_IDLE:
        return config->idle_timeout_s;
    case WAIT_WRITE:
        return config->write_stall_s;
    case WAIT_LINGER:
        return LINGER_S;
    default:
        return 0;
    }
}

/* What the client has acknowledged. The kernel asks for more only when much of its buffer is free,
 * so that by its silence alone a slow reader looks like one that has stopped. */
static uint64_t acknowledged(const struct http_conn *c)
{
    int queued = 0;
    if (ioctl(c->fd, SIOCOUTQ, &queued) != 0 || queued < 0 || (uint64_t)queued > c->n_sent)
        return c->n_sent;
    return c->n_sent - (uint64_t)queued;
}

static void start_timer(struct http_conn *c, enum http_wait wait)
{
    struct ev_loop *loop = c->server->loop;
    c->wait = wait;
    c->mark = wait == WAIT_WRITE ? acknowledged(c) : c->n_received;
    ev_timer_stop(loop, &c->timer);
    if (wait != WAIT_NOTHING) {
        ev_timer_set(&c->timer, seconds_of(c, wait), 0.);
        ev_timer_start(loop, &c->timer);
    }
}

/* Whether the client has done enough since the timer began to be given another round. */
static int has_progress(const struct http_conn *c)
{
    if (c->wait == WAIT_WRITE)
        return acknowledged(c) > c->mark;
    if (c->wait == WAIT_BODY)
        return (double)(c->n_received - c->mark) >=
               BODY_BYTES_PER_S * c->server->config.body_timeout_s;
    return c->wait == WAIT_TURN;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Forgets the request at the front of `in`; what came behind it begins the next. */
static void drop_request(struct http_conn *c)
{
    size_t rest = c->in.n - c->parser.at;
    memmove(c->in.p, c->in.p + c->parser.at, rest);
    c->in.n = rest;
    http_parser_init(&c->parser, c->server->config.body_bytes_max);
    if (rest == 0)
        http_buf_free(&c->in);
}

static void dispatch(struct http_conn *c)
{
    struct http_server *s = c->server;
    struct http_field field[HTTP_FIELDS_MAX];
    struct http_request request = {.peer = c->peer};
    c->exchange = http_exchange_create(c);
    if (c->exchange == NULL) {
        http_conn_fail(c, 503, "no memory for a request");
        return;
    }
    start_timer(c, WAIT_NOTHING); /* whatever it waits for next begins afresh */
    http_parser_request(&c->parser, c->in.p, field, &request);
    s->handler(s->user, c->exchange, &request);
    drop_request(c);
}

/* The client waits with its body until it is told to go on, unless the body is here already. */
static void answer_expect(struct http_conn *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (c->parser.expect_continue && c->in.n == c->parser.head_bytes)
        c->dead |= http_buf_add(&c->out, go_on, sizeof(go_on) - 1) != 0;
}

/* Reads on in `in`. Returns 0 when that needs more bytes. */
static int read_request(struct http_conn *c)
{
    switch (http_parse(&c->parser, c->in.p, &c->in.n)) {
    case HTTP_HEAD_DONE:
        answer_expect(c);
        return 1;
    case HTTP_REQUEST_DONE:
        dispatch(c);
        return 1;
    case HTTP_REFUSED:
        http_conn_fail(c, c->parser.status, c->parser.why);
        return 1;
    case HTTP_MORE:
        break;
    }
    c->dead |= c->eof;
    return c->dead;
}

/* ---- settle ---------------------------------------------------------------------------------- */

/* The response has left: the exchange is over. */
static void complete(struct http_conn *c)
{
    struct http_exchange *x = c->exchange;
    c->exchange = NULL;
    c->served = 1;
    c->closing |= !x->keep_alive;
    http_exchange_close(x, 1);
}

static int is_gone(const struct http_conn *c)
{
    const struct http_exchange *x = c->exchange;
    if (c->dead || (c->eof && x != NULL && x->state != EXCHANGE_ENDED))
        return 1;
    if (x != NULL || has_output(c))
        return 0;
    return (c->eof && c->closing) || (c->server->draining && c->in.n == 0 && !c->lingering);
}

static void linger(struct http_conn *c)
{
    c->lingering = 1;
    shutdown(c->fd, SHUT_WR);
    http_buf_free(&c->in);
}

/* One arrow. Returns 0 when only the client or the handler can cause the next. */
static int step(struct http_conn *c)
{
    http_conn_flush(c);
    if (c->dead || has_output(c))
        return 0;
    if (c->exchange != NULL) {
        if (c->exchange->state != EXCHANGE_ENDED)
            return 0;
        complete(c);
        return 1;
    }
    if (c->closing) {
        if (!c->lingering)
            linger(c);
        return 0;
    }
    return read_request(c);
}

static void watch(struct http_conn *c, int turn)
{
    struct ev_loop *loop = c->server->loop;
    if (has_output(c))
        ev_io_start(loop, &c->write);
    else
        ev_io_stop(loop, &c->write);
    if (c->eof)
        ev_io_stop(loop, &c->read);
    enum http_wait wait = what_to_wait_for(c, turn);
    if (wait != c->wait)
        start_timer(c, wait);
}

static void settle(struct http_conn *c)
{
    int turns = 4 * REQUESTS_A_TURN; /* a request is three or four arrows */
    while (!is_gone(c) && turns > 0 && step(c))
        turns--;
    /* What handlers asked for meanwhile is done, or has its turn later. */
    ev_clear_pending(c->server->loop, &c->later);
    if (is_gone(c))
        http_conn_destroy(c);
    else
        watch(c, turns == 0);
}

/* ---- the loop's callbacks -------------------------------------------------------------------- */

static ssize_t receive(struct http_conn *c)
{
    char discarded[READ_BYTES];
    if (c->closing)
        return recv(c->fd, discarded, sizeof(discarded), MSG_DONTWAIT);
    size_t want =
        c->parser.head_bytes > 0 && c->parser.left > READ_BYTES ? READ_BODY_BYTES : READ_BYTES;
    char *to = http_buf_room(&c->in, want);
    if (to == NULL) {
        errno = ENOMEM;
        return -1;
    }
    ssize_t k = recv(c->fd, to, want, MSG_DONTWAIT);
    c->in.n += k > 0 ? (size_t)k : 0;
    return k;
}

static void on_read(struct ev_loop *loop, ev_io *w, int revents)
{
    struct http_conn *c = w->data;
    (void)loop;
    (void)revents;
    ssize_t k = receive(c);
    if (k > 0)
        c->n_received += (size_t)k;
    else if (k == 0)
        c->eof = 1;
    else
        c->dead |= errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
    /* While a response is under way nobody consumes: at most one more request of the largest size.
     */
    if (c->exchange != NULL && c->in.n > HTTP_HEAD_BYTES_MAX + c->server->config.body_bytes_max) {
        log_info("http", "cut off, pipelines too much: peer=%s waiting=%zu", c->peer, c->in.n);
        c->dead = 1;
    }
    settle(c);
}

static void on_write(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    (void)revents;
    settle(w->data);
}

static void on_later(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    settle(w->data);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct http_conn *c = w->data;
    enum http_wait wait = c->wait;
    int progress = has_progress(c);
    (void)loop;
    (void)revents;
    c->wait = WAIT_NOTHING; /* it has ended; watch starts another round */
    if (!progress && (wait == WAIT_BODY || (wait == WAIT_HEAD && c->in.n > 0))) {
        http_conn_fail(c, 408, "the request did not arrive in time");
    } else if (!progress) {
        if (wait == WAIT_WRITE)
            log_info("http", "cut off, has stopped reading: peer=%s", c->peer);
        c->dead = 1;
    }
    settle(c);
}
