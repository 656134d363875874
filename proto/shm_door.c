/* shm_door: where callers on this host come in. Whoever connects must be of our user, or is shown
 * out at once; of those who are, a few may stand there before they show their key, and the one who
 * has stood longest makes place for the next. */
#include "proto/shm.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define N_STANDING 32
#define BACKLOG    32

struct guest {
    struct shm_door *door;
    ev_io key;
    int fd; /* -1: nobody */
};

struct shm_door {
    struct ev_loop *loop;
    shm_door_fn *on_link;
    void *user;
    ev_io knock;
    int fd;
    unsigned next;
    char name[SHM_NAME_BYTES];
    struct guest guest[N_STANDING];
};

static void leave(struct guest *g, int keep_fd)
{
    if (g->fd < 0)
        return;
    ev_io_stop(g->door->loop, &g->key);
    if (!keep_fd)
        close(g->fd);
    g->fd = -1;
}

/* take_key: the one datagram, and the one descriptor with it; other descriptors are closed. */
static int take_key(int fd, struct shm_key *key, int *memory_fd)
{
    union {
        char bytes[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {key, sizeof(*key)};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    *memory_fd = -1;
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n_fd = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n_fd; i++) {
            int got;
            memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (*memory_fd < 0)
                *memory_fd = got;
            else
                close(got);
        }
    }
    if (n == (ssize_t)sizeof(*key) && *memory_fd >= 0 && (m.msg_flags & MSG_CTRUNC) == 0)
        return 1;
    if (*memory_fd >= 0)
        close(*memory_fd);
    return -1;
}

static void on_key(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    (void)revents;
    struct guest *g = w->data;
    struct shm_door *door = g->door;
    struct shm_key key;
    struct shm_link *link;
    int memory, rc = take_key(g->fd, &key, &memory);
    if (rc == 0)
        return;
    int fd = g->fd;
    leave(g, rc > 0);
    if (rc > 0 && shm_accept(&key, memory, fd, &link, NULL) == 0 &&
        door->on_link(door->user, key.token, link) != 0)
        shm_close(link, 1);
}

static void on_knock(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)revents;
    struct shm_door *door = w->data;
    int fd = accept4(door->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (!shm_same_user(fd)) {
        close(fd);
        return;
    }
    struct guest *g = &door->guest[door->next++ % N_STANDING];
    leave(g, 0);
    g->fd = fd;
    ev_io_init(&g->key, on_key, fd, EV_READ);
    g->key.data = g;
    ev_io_start(loop, &g->key);
}

static int bind_door(struct shm_door *door, struct err *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    uint8_t random[SHM_TOKEN_BYTES];
    shm_token_new(random);
    int n = snprintf(door->name, sizeof(door->name), "sigmoe-");
    for (int i = 0; i < SHM_TOKEN_BYTES; i++)
        n += snprintf(door->name + n, sizeof(door->name) - (size_t)n, "%02x", random[i]);
    memcpy(at.sun_path + 1, door->name, (size_t)n);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    door->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (door->fd < 0 || bind(door->fd, (struct sockaddr *)&at, size) != 0 ||
        listen(door->fd, BACKLOG) != 0)
        return err_sys(err, ERR_NET, "no socket for coordinators on this host");
    return 0;
}

int shm_door_open(struct ev_loop *loop, shm_door_fn *on_link, void *user, struct shm_door **out,
                  struct err *err)
{
    struct shm_door *door = calloc(1, sizeof(*door));
    if (!door)
        return err_set(err, ERR_NOMEM, "no memory for coordinators on this host");
    door->loop = loop;
    door->on_link = on_link;
    door->user = user;
    for (int i = 0; i < N_STANDING; i++)
        door->guest[i] = (struct guest){.door = door, .fd = -1};
    int rc = bind_door(door, err);
    if (rc) {
        if (door->fd >= 0)
            close(door->fd);
        free(door);
        return rc;
    }
    ev_io_init(&door->knock, on_knock, door->fd, EV_READ);
    door->knock.data = door;
    ev_io_start(loop, &door->knock);
    *out = door;
    return 0;
}

void shm_door_close(struct shm_door *door)
{
    if (!door)
        return;
    for (int i = 0; i < N_STANDING; i++)
        leave(&door->guest[i], 0);
    ev_io_stop(door->loop, &door->knock);
    close(door->fd);
    free(door);
}

const char *shm_door_name(const struct shm_door *door)
{
    return door->name;
}
