/* admin: see admin.h. A connection is read until its line ends, handed to control, and closed when
 * the answer is written. A connection that says nothing for long is closed. */
#include "coordinator/admin.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNS_MAX  16
#define LINE_MAX_B (8 << 20)
#define SILENT_S   30.0

struct conn {
    struct admin *admin;
    struct conn *next;
    int fd; /* -1: closed while its command was under way */
    ev_io io;
    ev_timer silent;
    char *line;
    size_t n_line, room;
    int asked;
    char *answer;
    size_t n_answer, n_written;
};

struct admin {
    struct ev_loop *loop;
    struct control *control;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int fd;
    ev_io io;
    struct conn *conn;
    int n_conn;
};

void admin_path_default(int port, char *out, size_t size)
{
    struct stat info;
    unsigned uid = (unsigned)getuid();
    char folder[64];
    snprintf(folder, sizeof(folder), "/run/user/%u", uid);
    if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != uid)
        snprintf(folder, sizeof(folder), "/tmp/sigmoe-%u", uid);
    snprintf(out, size, "%s/sigmoe-%d.sock", folder, port);
}

/* ---- a connection ---- */

static void conn_unlink(struct conn *c)
{
    struct conn **at = &c->admin->conn;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    c->admin->n_conn--;
}

/* conn_hang_up closes; the struct stays while control still has its command. */
static void conn_hang_up(struct conn *c)
{
    if (c->fd >= 0) {
        ev_io_stop(c->admin->loop, &c->io);
        ev_timer_stop(c->admin->loop, &c->silent);
        close(c->fd);
        c->fd = -1;
    }
    if (c->asked && !c->answer)
        return;
    conn_unlink(c);
    free(c->line);
    free(c->answer);
    free(c);
}

static void on_silent(struct ev_loop *loop, ev_timer *watcher, int revents)
{
    (void)loop;
    (void)revents;
    conn_hang_up(watcher->data);
}

static void conn_write(struct conn *c)
{
    while (c->n_written < c->n_answer) {
        ssize_t n = send(c->fd, c->answer + c->n_written, c->n_answer - c->n_written, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0)
            break;
        c->n_written += (size_t)n;
    }
    conn_hang_up(c);
}

static void conn_answer(struct conn *c, const json_t *answer)
{
    char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
    c->n_answer = text ? strlen(text) + 1 : 0;
    c->answer = text ? text : strdup("");
    if (text)
        text[c->n_answer - 1] = '\n'; /* in place of the NUL: a line */
    if (c->fd < 0) {
        conn_hang_up(c);
        return;
    }
    ev_io_stop(c->admin->loop, &c->io);
    ev_io_set(&c->io, c->fd, EV_WRITE);
    ev_io_start(c->admin->loop, &c->io);
}

static void on_answer(void *user, const json_t *answer)
{
    conn_answer(user, answer);
}

static void conn_refuse(struct conn *c, const char *why)
{
    json_t *o = json_pack("{s:b,s:s}", "ok", 0, "error", why);
    c->asked = 1;
    conn_answer(c, o);
    json_decref(o);
}

static void conn_ask(struct conn *c)
{
    json_error_t fault;
    json_t *command = json_loadb(c->line, c->n_line, JSON_REJECT_DUPLICATES, &fault);
    if (!json_is_object(command)) {
        json_decref(command);
        conn_refuse(c, "the line is no JSON object");
        return;
    }
    c->asked = 1;
    if (control_submit(c->admin->control, command, on_answer, c))
        conn_refuse(c, "no memory for the command");
}

static int conn_room(struct conn *c)
{
    if (c->room - c->n_line >= 4096)
        return 0;
    size_t room = c->room ? 2 * c->room : 8192;
    char *line = room <= LINE_MAX_B ? realloc(c->line, room) : NULL;
    if (!line)
        return -1;
    c->line = line;
    c->room = room;
    return 0;
}

static void conn_read(struct conn *c)
{
    if (conn_room(c)) {
        conn_refuse(c, "the line is too long");
        return;
    }
    ssize_t n = recv(c->fd, c->line + c->n_line, c->room - c->n_line, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        conn_hang_up(c);
        return;
    }
    const char *end = memchr(c->line + c->n_line, '\n', (size_t)n);
    c->n_line += (size_t)n;
    if (!c->asked && end) {
        c->n_line = (size_t)(end - c->line);
        conn_ask(c);
    } else if (c->asked) {
        c->n_line = 0; /* nobody asked for more */
    }
}

static void on_conn(struct ev_loop *loop, ev_io *watcher, int revents)
{
    struct conn *c = watcher->data;
    ev_timer_again(loop, &c->silent);
    if (revents & EV_WRITE)
        conn_write(c);
    else
        conn_read(c);
}

/* ---- the socket ---- */

/* The folder keeps others out already; this says so again of each connection. */
static int permitted(int fd)
{
    struct ucred who;
    socklen_t size = sizeof(who);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
           (who.uid == geteuid() || who.uid == 0);
}

static void on_accept(struct ev_loop *loop, ev_io *watcher, int revents)
{
    (void)revents;
    struct admin *a = watcher->data;
    int fd = accept4(a->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct conn *c = a->n_conn < CONNS_MAX && permitted(fd) ? calloc(1, sizeof(*c)) : NULL;
    if (!c) {
        close(fd);
        return;
    }
    c->admin = a;
    c->fd = fd;
    c->next = a->conn;
    a->conn = c;
    a->n_conn++;
    ev_io_init(&c->io, on_conn, fd, EV_READ);
    ev_timer_init(&c->silent, on_silent, 0.0, SILENT_S);
    c->io.data = c->silent.data = c;
    ev_io_start(loop, &c->io);
    ev_timer_again(loop, &c->silent);
}

static int address_of(const char *path, struct sockaddr_un *out, struct err *err)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(out->sun_path))
        return err_set(err, ERR_USAGE, "the path %.60s... is longer than a socket's may be (%zu)",
                       path, sizeof(out->sun_path) - 1);
    memcpy(out->sun_path, path, strlen(path) + 1);
    return 0;
}

static int connect_to(const char *path, struct err *err)
{
    struct sockaddr_un address;
    int rc = address_of(path, &address, err);
    if (rc)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, ERR_IO, "cannot make a socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        rc = err_sys(err, ERR_IO, "no coordinator listens at %s", path);
        close(fd);
        return rc;
    }
    return fd;
}

/* A folder of ours in /tmp: made for us alone, and believed only if it is. */
static int folder_make(const char *path, struct err *err)
{
    char folder[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct stat info;
    snprintf(folder, sizeof(folder), "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash || slash == folder)
        return 0;
    *slash = '\0';
    if (mkdir(folder, 0700) == 0)
        return 0;
    if (strncmp(folder, "/tmp/sigmoe-", 12) == 0 &&
        (lstat(folder, &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != geteuid() ||
         (info.st_mode & 077)))
        return err_set(err, ERR_IO,
                       "%s is not a folder of this user alone; remove it or give --admin PATH",
                       folder);
    return 0;
}

static int listen_at(struct admin *a, const char *path, struct err *err)
{
    struct sockaddr_un address;
    struct err unused = {0};
    int rc = address_of(path, &address, err);
    rc = rc ? rc : folder_make(path, err);
    if (rc)
        return rc;
    int used = connect_to(path, &unused);
    if (used >= 0) {
        close(used);
        return err_set(err, ERR_IO,
                       "another coordinator listens at %s; stop it or give --admin PATH", path);
    }
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISSOCK(info.st_mode))
        unlink(path);
    a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mode_t mask = umask(0177);
    rc = a->fd < 0 || bind(a->fd, (struct sockaddr *)&address, sizeof(address)) ||
                 listen(a->fd, CONNS_MAX)
             ? err_sys(err, ERR_IO, "cannot listen at %s", path)
             : 0;
    umask(mask);
    if (rc == 0)
        memcpy(a->path, path, strlen(path) + 1);
    return rc;
}

int admin_open(const char *path, struct ev_loop *loop, struct control *control, struct admin **out,
               struct err *err)
{
    struct admin *a = calloc(1, sizeof(*a));
    if (!a)
        return err_set(err, ERR_NOMEM, "no memory for the operators' socket");
    a->loop = loop;
    a->control = control;
    a->fd = -1;
    int rc = listen_at(a, path, err);
    if (rc) {
        if (a->fd >= 0)
            close(a->fd);
        free(a);
        return rc;
    }
    ev_io_init(&a->io, on_accept, a->fd, EV_READ);
    a->io.data = a;
    ev_io_start(loop, &a->io);
    *out = a;
    return 0;
}

void admin_close(struct admin *a)
{
    if (!a)
        return;
    ev_io_stop(a->loop, &a->io);
    close(a->fd);
    unlink(a->path);
    for (struct conn *c = a->conn, *next; c; c = next) {
        next = c->next;
        c->asked = 0; /* control has ended: no answer will come */
        conn_hang_up(c);
    }
    free(a);
}

const char *admin_path(const struct admin *a)
{
    return a->path;
}

/* ---- the client's side ---- */

static int ask_at(int fd, const json_t *command, const char *path, json_t **out, struct err *err)
{
    char *line = json_dumps(command, JSON_COMPACT);
    if (!line)
        return err_set(err, ERR_NOMEM, "no memory for the command");
    size_t n = strlen(line), room = 8192, have = 0;
    line[n++] = '\n';
    int rc = 0;
    for (size_t at = 0; at < n && !rc;) {
        ssize_t sent = send(fd, line + at, n - at, MSG_NOSIGNAL);
        if (sent <= 0)
            rc = err_sys(err, ERR_IO, "the coordinator at %s hung up", path);
        else
            at += (size_t)sent;
    }
    free(line);
    char *text = malloc(room);
    while (!rc && text) {
        ssize_t got = recv(fd, text + have, room - have - 1, 0);
        if (got < 0)
            rc = err_set(err, ERR_TIMEOUT, "the coordinator at %s does not answer in time", path);
        if (got <= 0)
            break;
        have += (size_t)got;
        if (room - have < 4096 && room < LINE_MAX_B) {
            char *more = realloc(text, room *= 2);
            if (!more)
                break;
            text = more;
        }
    }
    *out = rc || !text ? NULL : json_loadb(text, have, 0, NULL);
    free(text);
    if (!rc && !json_is_object(*out))
        rc = err_set(err, ERR_IO, "the coordinator at %s hung up without an answer", path);
    return rc;
}

int admin_ask(const char *path, const json_t *command, int timeout_ms, json_t **out,
              struct err *err)
{
    struct timeval wait = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    int fd = connect_to(path, err);
    if (fd < 0)
        return fd;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    int rc = ask_at(fd, command, path, out, err);
    close(fd);
    if (rc == 0 && !json_is_true(json_object_get(*out, "ok"))) {
        const char *why = json_string_value(json_object_get(*out, "error"));
        rc = err_set(err, ERR_USAGE, "%s", why ? why : "the coordinator refuses");
    }
    if (rc) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}
