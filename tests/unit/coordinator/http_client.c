/* http_client: the client of http_world.h. Reads responses with a parser of its own: it must not
 * share the server's mistakes. */
#include "tests/unit/coordinator/http_world.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

void http_client_open_with(struct http_client *c, int port, int receive_bytes)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval minute = {.tv_sec = 60};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(c, 0, sizeof(*c));
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (receive_bytes > 0)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof(minute));
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &minute, sizeof(minute));
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
        perror("http_client");
        abort();
    }
}

void http_client_open(struct http_client *c, int port)
{
    http_client_open_with(c, port, 0);
}

void http_client_open_small(struct http_client *c, int port)
{
    http_client_open_with(c, port, 2048);
}

void http_client_close(struct http_client *c)
{
    close(c->fd);
    free(c->p);
    memset(c, 0, sizeof(*c));
}

void http_client_reset(struct http_client *c)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    http_client_close(c);
}

int http_client_send_bytes(struct http_client *c, const void *data, size_t n)
{
    const char *p = data;
    while (n > 0) {
        ssize_t k = send(c->fd, p, n, MSG_NOSIGNAL);
        if (k <= 0)
            return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

int http_client_send(struct http_client *c, const char *text)
{
    return http_client_send_bytes(c, text, strlen(text));
}

long http_client_more(struct http_client *c)
{
    if (c->cap - c->n < 65536) {
        c->cap = 2 * c->cap + 65536;
        c->p = realloc(c->p, c->cap);
        if (c->p == NULL)
            abort();
    }
    ssize_t k = recv(c->fd, c->p + c->n, c->cap - c->n, 0);
    c->n += k > 0 ? (size_t)k : 0;
    return k;
}

int http_client_ended(struct http_client *c)
{
    return c->n == 0 && http_client_more(c) == 0;
}

static int need(struct http_client *c, size_t n)
{
    while (c->n < n)
        if (http_client_more(c) <= 0)
            return -1;
    return 0;
}

static void take(struct http_client *c, size_t n)
{
    memmove(c->p, c->p + n, c->n - n);
    c->n -= n;
}

/* Takes up to and with the first `mark`; copies what is before it. */
static int take_until(struct http_client *c, const char *mark, char *out, size_t size)
{
    char *found;
    while (c->n == 0 || (found = memmem(c->p, c->n, mark, strlen(mark))) == NULL)
        if (http_client_more(c) <= 0)
            return -1;
    size_t n = (size_t)(found - c->p);
    if (n >= size)
        return -1;
    memcpy(out, c->p, n);
    out[n] = 0;
    take(c, n + strlen(mark));
    return 0;
}

static int take_body(struct http_client *c, size_t n, struct http_reply *r)
{
    if (need(c, n) != 0)
        return -1;
    char *grown = realloc(r->body, r->n_body + n + 1);
    if (grown == NULL)
        abort();
    r->body = grown;
    if (n > 0)
        memcpy(r->body + r->n_body, c->p, n);
    r->n_body += n;
    r->body[r->n_body] = 0;
    take(c, n);
    return 0;
}

static int take_chunks(struct http_client *c, struct http_reply *r)
{
    char line[32];
    for (;;) {
        if (take_until(c, "\r\n", line, sizeof(line)) != 0)
            return -1;
        size_t n = strtoul(line, NULL, 16);
        if (take_body(c, n, r) != 0 || need(c, 2) != 0 || memcmp(c->p, "\r\n", 2) != 0)
            return -1;
        take(c, 2);
        if (n == 0)
            return 0;
        r->chunks++;
    }
}

static int take_rest(struct http_client *c, struct http_reply *r)
{
    long k;
    while ((k = http_client_more(c)) > 0) {
    }
    return k < 0 ? -1 : take_body(c, c->n, r);
}

int http_client_reply(struct http_client *c, int is_head, struct http_reply *r)
{
    memset(r, 0, sizeof(*r));
    if (take_until(c, "\r\n\r\n", r->head, sizeof(r->head) - 2) != 0 || take_body(c, 0, r) != 0)
        return -1;
    memcpy(r->head + strlen(r->head), "\r\n", 3); /* the last field ends like the others */
    if (sscanf(r->head, "HTTP/1.1 %d ", &r->status) != 1)
        return -1;
    const char *length = strcasestr(r->head, "\r\nContent-Length: ");
    if (is_head || r->status == 204 || r->status < 200)
        return 0;
    if (length != NULL)
        return take_body(c, strtoul(length + 18, NULL, 10), r);
    return strcasestr(r->head, "\r\nTransfer-Encoding: chunked") ? take_chunks(c, r)
                                                                 : take_rest(c, r);
}

void http_reply_free(struct http_reply *r)
{
    free(r->body);
    r->body = NULL;
}

int http_client_ask(struct http_client *c, const char *text, struct http_reply *out)
{
    memset(out, 0, sizeof(*out));
    if (http_client_send(c, text) != 0)
        return -1;
    return http_client_reply(c, strncmp(text, "HEAD", 4) == 0, out) == 0 ? out->status : -1;
}
