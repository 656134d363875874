/* shm: the memory, and one end of it. The memory is a memfd, sealed against shrinking before it is
 * handed over (a page that vanished under a reader would be a fatal signal), laid out as one page
 * of the rings' words, the ring to the server, the ring to the caller; each ring is mapped twice,
 * end to end. An end lives until it is closed and the last frame that lies in it is released. */
#include "proto/shm.h"

#include "proto/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE   4096
#define SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define N_BELL 64 /* bytes read off the socket at once */

struct words { /* the first page */
    struct ring_shared to_server, to_caller;
};
_Static_assert(sizeof(struct words) <= PAGE, "the rings' words are on one page");

struct shm_link {
    struct words *words;
    unsigned char *data[2]; /* to_server, to_caller; each mapped for 2 * size */
    size_t size[2];
    int fd; /* -1: closed; it waits for frames */
    struct shm_stats stats;
    struct ring_out out;
    struct ring_in in;
};

/* ---- memory ---- */

static size_t ring_size(size_t bytes)
{
    size_t size = SHM_RING_MIN;
    while (size < bytes && size < SHM_RING_MAX)
        size *= 2;
    return size;
}

static void *map_at(void *at, size_t bytes, int fd, size_t offset)
{
    return mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED : 0), fd,
                (off_t)offset);
}

/* map_twice: the file's [offset, offset + size) at one address and once more behind it. */
static unsigned char *map_twice(int fd, size_t offset, size_t size)
{
    unsigned char *at =
        mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (map_at(at, size, fd, offset) == MAP_FAILED ||
        map_at(at + size, size, fd, offset) == MAP_FAILED) {
        munmap(at, 2 * size);
        return NULL;
    }
    return at;
}

static void link_free(struct shm_link *link)
{
    if (link->words)
        munmap(link->words, PAGE);
    for (int i = 0; i < 2; i++)
        if (link->data[i])
            munmap(link->data[i], 2 * link->size[i]);
    free(link);
}

/* on_released: a frame that lay in the memory is closed. */
static void on_released(void *owner)
{
    struct shm_link *link = owner;
    if (link->fd < 0 && link->in.n_ref == 0)
        link_free(link);
}

/* link_create maps the memory. `serving`: this end pops what goes to the server. Takes socket_fd
 * over when it succeeds. */
static int link_create(int memory_fd, size_t to_bytes, size_t from_bytes, int serving,
                       int socket_fd, struct shm_link **out, struct err *err)
{
    struct shm_link *link = calloc(1, sizeof(*link));
    if (!link)
        return err_set(err, ERR_NOMEM, "no memory for a link");
    link->size[0] = to_bytes;
    link->size[1] = from_bytes;
    void *words = map_at(NULL, PAGE, memory_fd, 0);
    link->words = words == MAP_FAILED ? NULL : words;
    link->data[0] = map_twice(memory_fd, PAGE, to_bytes);
    link->data[1] = map_twice(memory_fd, PAGE + to_bytes, from_bytes);
    if (!link->words || !link->data[0] || !link->data[1]) {
        link_free(link);
        return err_sys(err, ERR_NOMEM, "cannot map %zu bytes of shared memory",
                       PAGE + 2 * (to_bytes + from_bytes));
    }
    struct ring_shared *shared[2] = {&link->words->to_server, &link->words->to_caller};
    int in = serving ? 0 : 1;
    link->in = (struct ring_in){.shared = shared[in],
                                .data = link->data[in],
                                .size = link->size[in],
                                .released = on_released,
                                .owner = link};
    link->out =
        (struct ring_out){.shared = shared[!in], .data = link->data[!in], .size = link->size[!in]};
    link->fd = socket_fd;
    *out = link;
    return 0;
}

/* ---- the calling side ---- */

int shm_same_user(int fd)
{
    struct ucred who;
    socklen_t size = sizeof(who);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == geteuid();
}

void shm_token_new(uint8_t out[SHM_TOKEN_BYTES])
{
    while (getrandom(out, SHM_TOKEN_BYTES, 0) != SHM_TOKEN_BYTES)
        if (errno != EINTR)
            abort(); /* a kernel without random numbers: nothing here may go on */
}

static int knock(const char *name, struct err *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    size_t n = strlen(name);
    memcpy(at.sun_path + 1, name, n);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, ERR_IO, "no socket for a worker on this host");
    if (connect(fd, (struct sockaddr *)&at,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) != 0) {
        int rc = err_sys(err, ERR_NET, "the worker's memory is not on this host");
        close(fd);
        return rc;
    }
    if (!shm_same_user(fd)) {
        close(fd);
        return err_set(err, ERR_NET, "the worker runs as another user");
    }
    return fd;
}

static int memory_create(size_t bytes, struct err *err)
{
    int fd = memfd_create("sigmoe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_sys(err, ERR_NOMEM, "the system refuses shared memory");
    if (ftruncate(fd, (off_t)bytes) != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
        int rc = err_sys(err, ERR_NOMEM, "the system refuses %zu bytes of shared memory", bytes);
        close(fd);
        return rc;
    }
    return fd;
}

static int hand_over(int fd, const struct shm_key *key, int memory_fd, struct err *err)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec part = {(void *)(uintptr_t)key, sizeof(*key)};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &memory_fd, sizeof(int));
    ssize_t n;
    do {
        n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(*key))
        return err_sys(err, ERR_NET, "the worker does not take shared memory");
    return 0;
}

int shm_connect(const struct shm_offer *offer, size_t to_bytes, size_t from_bytes,
                struct shm_link **out, struct err *err)
{
    struct shm_key key = {
        .magic = SHM_MAGIC, .to_bytes = ring_size(to_bytes), .from_bytes = ring_size(from_bytes)};
    memcpy(key.token, offer->token, sizeof(key.token));
    int fd = knock(offer->name, err);
    if (fd < 0)
        return fd;
    int memory = memory_create(PAGE + key.to_bytes + key.from_bytes, err);
    int rc = memory < 0 ? memory : 0;
    struct shm_link *link = NULL;
    rc = rc ? rc : link_create(memory, key.to_bytes, key.from_bytes, 0, fd, &link, err);
    if (rc)
        close(fd);
    if (link && (rc = hand_over(fd, &key, memory, err))) {
        shm_close(link, 0);
        link = NULL;
    }
    if (memory >= 0)
        close(memory);
    if (!rc)
        *out = link;
    return rc;
}

/* ---- the serving side ---- */

static int size_ok(uint64_t bytes)
{
    return bytes >= SHM_RING_MIN && bytes <= SHM_RING_MAX && (bytes & (bytes - 1)) == 0;
}

static int memory_check(const struct shm_key *key, int fd, struct err *err)
{
    struct stat st;
    if (memcmp(key->magic, SHM_MAGIC, sizeof(key->magic)) != 0 || !size_ok(key->to_bytes) ||
        !size_ok(key->from_bytes))
        return err_set(err, ERR_PROTO, "a caller's key makes no sense");
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || (seals & F_SEAL_SEAL) == 0 ||
        fstat(fd, &st) != 0 || (uint64_t)st.st_size != PAGE + key->to_bytes + key->from_bytes)
        return err_set(err, ERR_PROTO, "a caller's memory is not sealed, or of another size");
    return 0;
}

static void say(const struct shm_link *link, char byte)
{
    while (send(link->fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR)
        ;
}

int shm_accept(const struct shm_key *key, int memory_fd, int socket_fd, struct shm_link **out,
               struct err *err)
{
    int rc = memory_check(key, memory_fd, err);
    rc = rc ? rc
            : link_create(memory_fd, (size_t)key->to_bytes, (size_t)key->from_bytes, 1, socket_fd,
                          out, err);
    close(memory_fd);
    if (rc)
        close(socket_fd);
    else
        say(*out, 'U');
    return rc;
}

/* ---- both ---- */

void shm_close(struct shm_link *link, int bye)
{
    if (!link)
        return;
    if (bye)
        say(link, 'B');
    close(link->fd);
    link->fd = -1;
    on_released(link);
}

int shm_fd(const struct shm_link *link)
{
    return link->fd;
}

enum shm_event shm_wake(struct shm_link *link)
{
    char byte;
    enum shm_event event = SHM_NOTHING;
    for (int i = 0; i < N_BELL && event == SHM_NOTHING; i++) {
        ssize_t n = recv(link->fd, &byte, 1, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        event = n <= 0 ? SHM_GONE : byte == 'U' ? SHM_UP : byte == 'B' ? SHM_BYE : SHM_NOTHING;
    }
    return event;
}

int shm_send(struct shm_link *link, struct frames *f)
{
    int rc = ring_push(&link->out, f);
    if (rc) {
        link->stats.refused += rc == ERR_AGAIN;
        return rc;
    }
    for (int i = 0; i < f->n; i++)
        link->stats.bytes_sent += frames_size(f, i);
    link->stats.messages_sent++;
    if (ring_parked(&link->out))
        say(link, 'D');
    frames_close(f);
    return 0;
}

int shm_recv(struct shm_link *link, struct frames *f, struct err *err)
{
    int rc = ring_pop(&link->in, f, err);
    for (int i = 0; rc > 0 && i < f->n; i++)
        link->stats.bytes_received += frames_size(f, i);
    link->stats.messages_received += rc > 0;
    return rc;
}

int shm_ready(const struct shm_link *link)
{
    return ring_ready(&link->in);
}

int shm_park(struct shm_link *link)
{
    return ring_park(&link->in);
}

void shm_unpark(struct shm_link *link)
{
    ring_unpark(&link->in);
}

void shm_stats_get(const struct shm_link *link, struct shm_stats *out)
{
    *out = link->stats;
}
