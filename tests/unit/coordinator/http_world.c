/* http_world: see http_world.h. What a path does stands in `routes`. */
#include "tests/unit/coordinator/http_world.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- handlers -------------------------------------------------------------------------------- */

struct pending {
    struct http_world *w;
    struct http_exchange *x;
    ev_timer timer;
    int left, next;
};

static void on_close(void *user, int complete)
{
    struct pending *p = user;
    struct http_world *w = p->w;
    ev_timer_stop(w->loop, &p->timer);
    /* Harmless here, as http.h promises. */
    http_respond(p->x, 200, NULL, NULL, 0);
    http_stream_end(p->x);
    if (http_stream_write(p->x, "x", 1) != ERR_GONE || http_header(p->x, "A", "b") != ERR_GONE)
        abort();
    free(p);
    atomic_fetch_add(complete ? &w->n_complete : &w->n_gone, 1);
    atomic_fetch_sub(&w->n_open, 1);
}

static struct pending *keep(struct http_world *w, struct http_exchange *x)
{
    struct pending *p = calloc(1, sizeof(*p));
    if (p == NULL)
        abort();
    p->w = w;
    p->x = x;
    ev_init(&p->timer, NULL);
    p->timer.data = p;
    http_on_close(x, on_close, p);
    atomic_fetch_add(&w->n_open, 1);
    return p;
}

static void hello(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    (void)w;
    (void)r;
    http_respond(x, 200, "text/plain", "hello", 5);
}

static void echo(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    keep(w, x);
    http_header(x, "X-Method", r->method);
    http_header(x, "X-Query", r->query);
    http_header(x, "X-Peer", r->peer);
    http_respond(x, 200, "application/octet-stream", r->body, r->n_body);
}

static void headers(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    static char longest[20000];
    char text[200];
    (void)w;
    (void)r;
    memset(longest, 'a', sizeof(longest) - 1);
    snprintf(text, sizeof(text), "%d %d %d %d %d %d %d %d %d", http_header(x, "X-Ok", "a\tb"),
             http_header(x, "X\r\nY", "a"), http_header(x, "X", "a\r\nY: b"),
             http_header(x, "X", "a\nb"), http_header(x, "", "a"), http_header(x, "X:", "a"),
             http_header(x, "content-length", "5"), http_header(x, "Connection", "close"),
             http_header(x, "X", longest));
    http_respond(x, 200, "text/plain", text, strlen(text));
}

static void none(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    (void)w;
    (void)r;
    http_respond(x, 204, NULL, NULL, 0);
}

static void twice(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    hello(w, x, r);
    http_respond(x, 500, NULL, NULL, 0);
    http_stream_begin(x, 500, NULL);
    if (http_stream_write(x, "x", 1) != ERR_USAGE)
        abort();
    http_stream_end(x);
}

static void on_event(struct ev_loop *loop, ev_timer *t, int revents)
{
    struct pending *p = t->data;
    char text[32];
    (void)loop;
    (void)revents;
    if (p->left-- == 0) {
        ev_timer_stop(loop, t);
        http_stream_end(p->x);
        return;
    }
    snprintf(text, sizeof(text), "%d", p->next++);
    int rc = http_stream_write(p->x, "event ", 6);
    rc = rc ? rc : http_stream_write(p->x, text, strlen(text));
    rc = rc ? rc : http_stream_write(p->x, "\n", 1);
    if (rc == ERR_GONE)
        atomic_fetch_add(&p->w->write_gone, 1);
}

/* ?N events, one a millisecond. */
static void stream(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    struct pending *p = keep(w, x);
    p->left = atoi(r->query);
    http_stream_begin(x, 200, "text/event-stream");
    ev_timer_init(&p->timer, on_event, 0.001, 0.001);
    ev_timer_start(w->loop, &p->timer);
}

static void on_late(struct ev_loop *loop, ev_timer *t, int revents)
{
    struct pending *p = t->data;
    char text[32];
    (void)revents;
    ev_timer_stop(loop, t);
    snprintf(text, sizeof(text), "late %d", p->next);
    http_respond(p->x, 200, "text/plain", text, strlen(text));
}

/* ?N milliseconds later. */
static void late(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    struct pending *p = keep(w, x);
    p->next = atoi(r->query);
    ev_timer_init(&p->timer, on_late, p->next / 1e3, 0.);
    ev_timer_start(w->loop, &p->timer);
}

static void hold(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    (void)r;
    keep(w, x);
}

static void end(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    (void)r;
    keep(w, x);
    http_stream_end(x);
}

/* ?N bytes in one response. */
static void big(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    size_t n = (size_t)atol(r->query);
    char *body = malloc(n + 1);
    if (body == NULL)
        abort();
    for (size_t i = 0; i < n; i++)
        body[i] = (char)('a' + i % 26);
    keep(w, x);
    http_respond(x, 200, "text/plain", body, n);
    free(body);
}

/* ?N bytes, or until the client is cut off. */
static void flood(struct http_world *w, struct http_exchange *x, const struct http_request *r)
{
    static const char block[10000] = {0};
    keep(w, x);
    http_stream_begin(x, 200, "text/plain");
    for (long left = atol(r->query); left > 0; left -= (long)sizeof(block))
        if (http_stream_write(x, block, sizeof(block)) == ERR_GONE) {
            atomic_fetch_add(&w->write_gone, 1);
            return;
        }
    http_stream_end(x);
}

static void handle(void *user, struct http_exchange *x, const struct http_request *r)
{
    static const struct {
        const char *path;
        void (*fn)(struct http_world *w, struct http_exchange *x, const struct http_request *r);
    } routes[] = {{"/hello", hello}, {"/echo", echo},   {"/headers", headers}, {"/none", none},
                  {"/twice", twice}, {"/late", late},   {"/hold", hold},       {"/end", end},
                  {"/big", big},     {"/flood", flood}, {"/stream", stream}};
    struct http_world *w = user;
    atomic_fetch_add(&w->n_request, 1);
    for (size_t i = 0; i < sizeof(routes) / sizeof(*routes); i++)
        if (strcmp(routes[i].path, r->path) == 0) {
            routes[i].fn(w, x, r);
            return;
        }
    http_respond(x, 404, "text/plain", r->path, strlen(r->path));
}

/* ---- the server's thread --------------------------------------------------------------------- */

static void on_stop(struct ev_loop *loop, ev_async *a, int revents)
{
    (void)a;
    (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

static void on_drain(struct ev_loop *loop, ev_async *a, int revents)
{
    struct http_world *w = a->data;
    (void)loop;
    (void)revents;
    http_server_stop_accepting(w->server);
}

static void on_turn(struct ev_loop *loop, ev_prepare *p, int revents)
{
    struct http_world *w = p->data;
    (void)loop;
    (void)revents;
    atomic_fetch_add(&w->n_turn, 1);
    atomic_store(&w->n_conn, http_server_conns(w->server));
}

static void *serve(void *arg)
{
    struct http_world *w = arg;
    ev_run(w->loop, 0);
    http_server_destroy(w->server);
    return NULL;
}

struct http_config http_world_config(void)
{
    return (struct http_config){.host = "127.0.0.1",
                                .body_bytes_max = 1 << 20,
                                .conns_max = 300,
                                .conns_per_peer_max = 300,
                                .head_timeout_s = 5,
                                .body_timeout_s = 5,
                                .idle_timeout_s = 5,
                                .write_stall_s = 5,
                                .backlog = 256,
                                .write_buffer_max = 1 << 20};
}

void http_world_start(struct http_world *w, const struct http_config *config)
{
    struct err err = {0};
    memset(w, 0, sizeof(*w));
    w->loop = ev_loop_new(EVFLAG_NOENV);
    if (w->loop == NULL || http_server_create(w->loop, config, handle, w, &w->server, &err) != 0) {
        fprintf(stderr, "http_world: %s\n", err.text);
        abort();
    }
    w->port = http_server_port(w->server);
    ev_async_init(&w->stop, on_stop);
    ev_async_init(&w->drain, on_drain);
    ev_prepare_init(&w->turn, on_turn);
    w->drain.data = w->turn.data = w;
    ev_async_start(w->loop, &w->stop);
    ev_async_start(w->loop, &w->drain);
    ev_prepare_start(w->loop, &w->turn);
    if (pthread_create(&w->thread, NULL, serve, w) != 0)
        abort();
    w->running = 1;
}

void http_world_drain(struct http_world *w)
{
    ev_async_send(w->loop, &w->drain);
}

void http_world_stop(struct http_world *w)
{
    if (!w->running)
        return;
    ev_async_send(w->loop, &w->stop);
    pthread_join(w->thread, NULL);
    ev_loop_destroy(w->loop);
    w->running = 0;
}

int http_world_wait(atomic_int *n, int value)
{
    const struct timespec ms = {.tv_nsec = 1000000};
    for (int i = 0; i < 60000 && atomic_load(n) != value; i++)
        nanosleep(&ms, NULL);
    return atomic_load(n) == value;
}

int fds_open(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d != NULL)
        closedir(d);
    return n;
}
