/* http_server: the listening socket, who is let in, and the life of the whole. Accepting stops for
 * a moment when the process has no file descriptor left: the listening socket stays readable then,
 * and a loop that asked again at once would do nothing else. */
#include "base/log.h"
#include "coordinator/http_conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPTS_A_TURN 64
#define PAUSE_S        0.1
/* Connections above conns_max that are told so (503); above that they are closed without a word. */
#define REFUSALS_MAX 64

/* ---- listening ------------------------------------------------------------------------------- */

static int listen_at(const struct addrinfo *a, int backlog)
{
    int on = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* Without it a restart would have to wait for the old connections' TIME_WAIT. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, backlog) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static int explain(const struct http_config *config, struct err *err)
{
    if (errno == EADDRINUSE)
        return err_set(err, ERR_NET,
                       "port %d of %s is in use by another program; stop it or choose another port",
                       config->port, config->host);
    if (errno == EACCES)
        return err_set(err, ERR_NET, "port %d of %s needs privileges; choose a port above 1023",
                       config->port, config->host);
    return err_sys(err, ERR_NET, "cannot listen on port %d of %s", config->port, config->host);
}

static int listen_on(const struct http_config *config, int *out, struct err *err)
{
    struct addrinfo *found = NULL;
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char port[16];
    snprintf(port, sizeof(port), "%d", config->port);
    int rc = getaddrinfo(config->host, port, &hint, &found), fd = -1;
    if (rc != 0)
        return err_set(err, ERR_NET, "cannot listen on %s: %s; give an address of this machine",
                       config->host, gai_strerror(rc));
    for (const struct addrinfo *a = found; a != NULL && fd < 0; a = a->ai_next)
        fd = listen_at(a, config->backlog);
    rc = fd < 0 ? explain(config, err) : 0;
    freeaddrinfo(found);
    *out = fd;
    return rc;
}

static int port_of(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof(a);
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0)
        return 0;
    return a.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)(void *)&a)->sin6_port)
                                   : ntohs(((struct sockaddr_in *)(void *)&a)->sin_port);
}

/* ---- peers ----------------------------------------------------------------------------------- */

/* Says who a peer is, for people and for counting: an IPv4 address, or the /64 that one IPv6 host
 * usually has to itself. */
static void name_peer(const struct sockaddr_storage *a, char out[64], unsigned char key[16])
{
    char text[INET6_ADDRSTRLEN] = "?";
    memset(key, 0, 16);
    if (a->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)a;
        memcpy(key + 12, &v4->sin_addr, 4);
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
        snprintf(out, 64, "%s:%d", text, ntohs(v4->sin_port));
        return;
    }
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)a;
    int mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
    if (mapped) {
        memcpy(key + 12, v6->sin6_addr.s6_addr + 12, 4);
        inet_ntop(AF_INET, v6->sin6_addr.s6_addr + 12, text, sizeof(text));
    } else {
        memcpy(key, &v6->sin6_addr, 8);
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
    }
    snprintf(out, 64, mapped ? "%s:%d" : "[%s]:%d", text, ntohs(v6->sin6_port));
}

static int conns_of(const struct http_server *s, const unsigned char key[16])
{
    int n = 0;
    for (const struct http_conn *c = s->conn; c != NULL; c = c->next)
        n += memcmp(c->peer_key, key, 16) == 0;
    return n;
}

/* ---- accepting ------------------------------------------------------------------------------- */

/* Tokens leave as they come; a client whose machine has vanished during a long prefill, when there
 * is nothing to write, is noticed by probes (after about two minutes). */
static void set_options(int fd)
{
    int on = 1, idle_s = 60, interval_s = 15, count = 4;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static void admit(struct http_server *s, int fd, const struct sockaddr_storage *a)
{
    char peer[64];
    unsigned char key[16];
    name_peer(a, peer, key);
    int full = s->n_conn >= s->config.conns_max;
    int peer_full = conns_of(s, key) >= s->config.conns_per_peer_max;
    if ((full || peer_full) && s->n_conn >= s->config.conns_max + REFUSALS_MAX) {
        close(fd);
        return;
    }
    set_options(fd);
    struct http_conn *c = http_conn_create(s, fd, peer, key);
    if (c != NULL && (full || peer_full))
        http_conn_fail(c, 503,
                       full ? "too many connections" : "too many connections from this address");
}

static void pause_accepting(struct http_server *s)
{
    if (!s->paused)
        log_warn("http", "cannot accept connections: %s; again in %g s, conns=%d", strerror(errno),
                 PAUSE_S, s->n_conn);
    s->paused = 1;
    ev_io_stop(s->loop, &s->accept);
    ev_timer_set(&s->pause, PAUSE_S, 0.);
    ev_timer_start(s->loop, &s->pause);
}

/* Errors of one connection that never came to be (accept(2)): the next one may be well. */
static int is_of_one_connection(int e)
{
    static const int of_one[] = {EINTR,     ECONNABORTED, EPROTO,      EPERM,      ENETDOWN,
                                 EHOSTDOWN, EHOSTUNREACH, ENETUNREACH, EOPNOTSUPP, ENOPROTOOPT};
    for (size_t i = 0; i < sizeof(of_one) / sizeof(*of_one); i++)
        if (of_one[i] == e)
            return 1;
    return 0;
}

static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
    struct http_server *s = w->data;
    (void)loop;
    (void)revents;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage a = {0};
        socklen_t n = sizeof(a);
        int fd = accept4(s->fd, (struct sockaddr *)&a, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            s->paused = 0;
            admit(s, fd, &a);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (!is_of_one_connection(errno)) {
            pause_accepting(s);
            return;
        }
    }
}

static void on_pause_over(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct http_server *s = w->data;
    (void)revents;
    ev_io_start(loop, &s->accept);
}

/* ---- life ------------------------------------------------------------------------------------ */

int http_server_create(struct ev_loop *loop, const struct http_config *config,
                       http_handler *handler, void *user, struct http_server **out, struct err *err)
{
    if (config->host == NULL || config->port < 0 || config->port > 65535)
        return err_set(err, ERR_USAGE, "port %d is not between 0 and 65535", config->port);
    struct http_server *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return err_set(err, ERR_NOMEM, "no memory for the HTTP server");
    int rc = listen_on(config, &s->fd, err);
    if (rc != 0) {
        free(s);
        return rc;
    }
    s->loop = loop;
    s->config = *config;
    s->config.host = NULL; /* the caller's; not looked at again */
    s->handler = handler;
    s->user = user;
    s->port = port_of(s->fd);
    ev_io_init(&s->accept, on_accept, s->fd, EV_READ);
    ev_init(&s->pause, on_pause_over);
    s->accept.data = s->pause.data = s;
    ev_io_start(loop, &s->accept);
    *out = s;
    return 0;
}

void http_server_stop_accepting(struct http_server *s)
{
    if (s->fd < 0)
        return;
    ev_io_stop(s->loop, &s->accept);
    ev_timer_stop(s->loop, &s->pause);
    close(s->fd);
    s->fd = -1;
    s->draining = 1;
    for (struct http_conn *c = s->conn; c != NULL; c = c->next)
        http_conn_later(c);
}

void http_server_destroy(struct http_server *s)
{
    if (s == NULL)
        return;
    http_server_stop_accepting(s);
    while (s->conn != NULL)
        http_conn_destroy(s->conn);
    free(s);
}

int http_server_port(const struct http_server *s)
{
    return s->port;
}

int http_server_conns(const struct http_server *s)
{
    return s->n_conn;
}
