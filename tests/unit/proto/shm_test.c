/* shm: two ends on one thread, each with a loop's turns: who comes in through the door and who does
 * not, messages both ways, the bell, and how an end is told from a leave. */
#include "proto/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 20000

struct world {
    struct ev_loop *loop;
    struct shm_door *door;
    struct shm_offer offer;
    struct shm_link *server; /* the last that came in */
    int n_link, refuse;
};

static int on_link(void *user, const uint8_t token[SHM_TOKEN_BYTES], struct shm_link *link)
{
    struct world *w = user;
    w->n_link++;
    if (w->refuse || memcmp(token, w->offer.token, SHM_TOKEN_BYTES) != 0)
        return -1;
    w->server = link;
    return 0;
}

static void world_open(struct world *w)
{
    struct err err = {0};
    memset(w, 0, sizeof(*w));
    w->loop = ev_loop_new(EVFLAG_AUTO);
    if (shm_door_open(w->loop, on_link, w, &w->door, &err))
        fail_msg("%s", err.text);
    snprintf(w->offer.name, sizeof(w->offer.name), "%s", shm_door_name(w->door));
    shm_token_new(w->offer.token);
}

static void world_close(struct world *w)
{
    shm_close(w->server, 1);
    shm_door_close(w->door);
    ev_loop_destroy(w->loop);
}

static enum shm_event next_event(struct shm_link *link)
{
    struct pollfd p = {.fd = shm_fd(link), .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    return shm_wake(link);
}

static struct shm_link *come_in(struct world *w)
{
    struct shm_link *link = NULL;
    struct err err = {0};
    if (shm_connect(&w->offer, 100000, 100000, &link, &err))
        fail_msg("%s", err.text);
    int before = w->n_link;
    for (int i = 0; i < 1000 && w->n_link == before; i++)
        ev_run(w->loop, EVRUN_NOWAIT);
    assert_int_equal(w->n_link, before + 1);
    assert_int_equal(next_event(link), SHM_UP);
    return link;
}

static void message_make(struct frames *f, size_t rows, int fill)
{
    frames_init(f);
    assert_int_equal(frames_push_copy(f, "header", 6), 0);
    memset(frames_push_space(f, rows), fill, rows);
}

static void send_and_take(struct shm_link *from, struct shm_link *to, size_t rows, int fill)
{
    struct frames f;
    message_make(&f, rows, fill);
    assert_int_equal(shm_send(from, &f), 0);
    assert_int_equal(f.n, 0);
    assert_int_equal(shm_recv(to, &f, NULL), 1);
    assert_int_equal(f.n, 2);
    assert_memory_equal(frames_data(&f, 0), "header", 6);
    assert_int_equal(frames_size(&f, 1), rows);
    const unsigned char *at = frames_data(&f, 1);
    assert_int_equal(at[0], fill);
    assert_int_equal(at[rows - 1], fill);
    frames_close(&f);
}

static void messages_go_both_ways_and_the_bell_rings_for_a_sleeper(void **state)
{
    (void)state;
    struct world w;
    struct frames f;
    world_open(&w);
    struct shm_link *caller = come_in(&w);
    send_and_take(caller, w.server, 50000, 1);
    send_and_take(w.server, caller, 70000, 2);
    struct pollfd p = {.fd = shm_fd(w.server), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0); /* nobody slept, nothing rang */
    assert_int_equal(shm_park(w.server), 0);
    message_make(&f, 10, 3);
    assert_int_equal(shm_send(caller, &f), 0);
    assert_int_equal(next_event(w.server), SHM_NOTHING);
    assert_true(shm_ready(w.server));
    message_make(&f, SHM_RING_MAX + 1, 0);
    assert_int_equal(shm_send(caller, &f), ERR_AGAIN);
    assert_int_equal(f.n, 2);
    frames_close(&f);
    struct shm_stats s;
    shm_stats_get(caller, &s);
    assert_int_equal(s.messages_sent, 2);
    assert_int_equal(s.messages_received, 1);
    assert_int_equal(s.bytes_received, 70006);
    assert_int_equal(s.refused, 1);
    shm_close(caller, 0);
    world_close(&w);
}

static void leave_is_not_a_death_and_rows_outlive_both(void **state)
{
    (void)state;
    struct world w;
    struct frames f;
    world_open(&w);
    struct shm_link *caller = come_in(&w);
    message_make(&f, 50000, 7);
    assert_int_equal(shm_send(caller, &f), 0);
    shm_close(caller, 1);
    assert_int_equal(next_event(w.server), SHM_BYE);
    assert_int_equal(shm_recv(w.server, &f, NULL), 1); /* what was pushed before is there */
    shm_close(w.server, 0);
    const unsigned char *at = frames_data(&f, 1);
    assert_int_equal(at[49999], 7);
    frames_close(&f);
    caller = come_in(&w);
    shm_close(caller, 0);
    assert_int_equal(next_event(w.server), SHM_GONE);
    world_close(&w);
}

static void wrong_doors_and_wrong_keys_lead_nowhere(void **state)
{
    (void)state;
    struct world w;
    struct shm_link *link = NULL;
    struct err err = {0};
    world_open(&w);
    struct shm_offer other = w.offer;
    other.name[7] = (char)(other.name[7] == 'a' ? 'b' : 'a');
    assert_int_equal(shm_connect(&other, 1, 1, &link, &err), ERR_NET);
    assert_null(link);
    other = w.offer;
    other.token[0] ^= 1;
    assert_int_equal(shm_connect(&other, 1, 1, &link, NULL), 0);
    while (w.n_link == 0)
        ev_run(w.loop, EVRUN_ONCE);
    assert_int_equal(next_event(link), SHM_UP);
    assert_int_equal(next_event(link), SHM_BYE);
    assert_null(w.server);
    shm_close(link, 0);
    world_close(&w);
}

/* A key with memory that could shrink under the server, and others that make no sense. */
static int show(struct world *w, const struct shm_key *key, size_t bytes, int fd)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    size_t n = strlen(w->offer.name);
    memcpy(at.sun_path + 1, w->offer.name, n);
    int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_int_equal(connect(s, (struct sockaddr *)&at,
                             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)),
                     0);
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec part = {(void *)(uintptr_t)key, bytes};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    assert_int_equal(sendmsg(s, &m, 0), bytes);
    for (int i = 0; i < 1000; i++) {
        char byte;
        ev_run(w->loop, EVRUN_NOWAIT);
        ssize_t got = recv(s, &byte, 1, MSG_DONTWAIT);
        if (got >= 0 || errno != EAGAIN) {
            close(s);
            return got > 0;
        }
    }
    fail_msg("the door neither takes nor refuses");
    return 0;
}

static void keys_that_make_no_sense_are_shown_out(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    struct shm_key key = {.magic = SHM_MAGIC, .to_bytes = SHM_RING_MIN, .from_bytes = SHM_RING_MIN};
    memcpy(key.token, w.offer.token, sizeof(key.token));
    int fd = memfd_create("shm_test", MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 4096 + 2 * (off_t)SHM_RING_MIN), 0);
    assert_false(show(&w, &key, sizeof(key), fd)); /* not sealed */
    assert_false(show(&w, &key, sizeof(key), -1)); /* no memory */
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    assert_false(show(&w, &key, sizeof(key) - 1, fd));
    struct shm_key bad = key;
    bad.magic[0] = 'x';
    assert_false(show(&w, &bad, sizeof(bad), fd));
    static const uint64_t sizes[] = {
        0, 1, SHM_RING_MIN * 2, SHM_RING_MIN + 64, UINT64_MAX, (uint64_t)1 << 40};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        bad = key;
        bad.to_bytes = sizes[i];
        assert_false(show(&w, &bad, sizeof(bad), fd));
        bad = key;
        bad.from_bytes = sizes[i];
        assert_false(show(&w, &bad, sizeof(bad), fd));
    }
    assert_false(show(&w, &key, sizeof(key), STDOUT_FILENO));
    assert_int_equal(w.n_link, 0);
    assert_true(show(&w, &key, sizeof(key), fd)); /* and one that does */
    assert_int_equal(w.n_link, 1);
    close(fd);
    world_close(&w);
}

static void crowd_at_the_door_does_not_shut_it(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    int standing[100];
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    size_t n = strlen(w.offer.name);
    memcpy(at.sun_path + 1, w.offer.name, n);
    for (int i = 0; i < 100; i++) {
        standing[i] = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        assert_int_equal(connect(standing[i], (struct sockaddr *)&at,
                                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)),
                         0);
        ev_run(w.loop, EVRUN_NOWAIT);
    }
    struct shm_link *caller = come_in(&w);
    send_and_take(caller, w.server, 3000, 5);
    shm_close(caller, 0);
    for (int i = 0; i < 100; i++)
        close(standing[i]);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_go_both_ways_and_the_bell_rings_for_a_sleeper),
        cmocka_unit_test(leave_is_not_a_death_and_rows_outlive_both),
        cmocka_unit_test(wrong_doors_and_wrong_keys_lead_nowhere),
        cmocka_unit_test(keys_that_make_no_sense_are_shown_out),
        cmocka_unit_test(crowd_at_the_door_does_not_shut_it),
    };
    return cmocka_run_group_tests_name("shm", tests, NULL, NULL);
}
