/* sock: one body of claims for inproc, ipc and tcp. Mostly two loops in one thread, the serving and
 * the calling side taking turns. */
#include "proto/sock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define TURNS_MAX 200000
#define ALARM_S   200

/* One side: counts what comes, keeps the last message, and echoes if told to. */
struct side {
    struct sock *sock;
    struct ev_loop *loop;
    int n_message, echo, n_refused;
    struct sock_peer from;
    struct frames last;
};

struct world {
    void *zmq;
    struct side serve, call;
    char endpoint[LIMIT_NAME_BYTES];
};

static void on_message(void *user, struct sock *sock, const struct sock_peer *from,
                       struct frames *f)
{
    struct side *side = user;
    side->n_message++;
    if (from)
        side->from = *from;
    if (side->echo) {
        if (sock_send(sock, from, f) != 0)
            side->n_refused++;
        return;
    }
    frames_close(&side->last);
    frames_move(&side->last, f);
}

static const char *name_of(const char *transport, char *out, size_t size)
{
    static int n;
    if (strcmp(transport, "tcp") == 0)
        snprintf(out, size, "tcp://127.0.0.1:0");
    else if (strcmp(transport, "ipc") == 0)
        snprintf(out, size, "ipc:///tmp/sigmoe-test-%d-%d.sock", (int)getpid(), n++);
    else
        snprintf(out, size, "inproc://test-%d", n++);
    return out;
}

static void side_open(struct world *w, struct side *side, enum sock_kind kind, const char *endpoint,
                      int hwm)
{
    struct err err = {0};
    struct sock_config config = {.kind = kind, .endpoint = endpoint, .hwm = hwm};
    if (!side->loop)
        side->loop = ev_loop_new(EVFLAG_AUTO);
    frames_init(&side->last);
    if (sock_open(w->zmq, side->loop, &config, on_message, side, &side->sock, &err) != 0)
        fail_msg("%s", err.text);
}

static void side_close(struct side *side)
{
    frames_close(&side->last);
    sock_close(side->sock);
    if (side->loop)
        ev_loop_destroy(side->loop);
    *side = (struct side){0};
}

static void world_open(struct world *w, const char *transport, int hwm)
{
    char name[LIMIT_NAME_BYTES];
    *w = (struct world){.zmq = zmq_ctx_new()};
    side_open(w, &w->serve, SOCK_SERVE, name_of(transport, name, sizeof(name)), hwm);
    snprintf(w->endpoint, sizeof(w->endpoint), "%s", sock_endpoint(w->serve.sock));
    side_open(w, &w->call, SOCK_CALL, w->endpoint, hwm);
}

static void world_close(struct world *w)
{
    side_close(&w->call);
    side_close(&w->serve);
    zmq_ctx_term(w->zmq);
}

static void turn(struct side *side)
{
    if (side->loop)
        ev_run(side->loop, EVRUN_NOWAIT);
}

/* until turns both loops until `*counter` is at least n. */
static void until(struct world *w, const int *counter, int n)
{
    for (int i = 0; i < TURNS_MAX && *counter < n; i++) {
        turn(&w->serve);
        turn(&w->call);
        if (i > 1000)
            usleep(50);
    }
    assert_true(*counter >= n);
}

/* send_wait retries while the peer is not connected or its queue is full. */
static void send_wait(struct world *w, struct side *side, const struct sock_peer *to,
                      struct frames *f)
{
    int rc = ERR_AGAIN, n_frame = f->n;
    for (int i = 0; i < TURNS_MAX && rc == ERR_AGAIN; i++) {
        rc = sock_send(side->sock, to, f);
        if (rc == ERR_AGAIN) {
            assert_int_equal(f->n, n_frame); /* left with the caller, whole */
            turn(&w->serve);
            turn(&w->call);
            if (i > 100)
                usleep(50);
        }
    }
    assert_int_equal(rc, 0);
    assert_int_equal(f->n, 0);
}

static void push_text(struct frames *f, const char *text)
{
    assert_int_equal(frames_push_copy(f, text, strlen(text)), 0);
}

static void call_text(struct world *w, const char *text)
{
    struct frames f;
    frames_init(&f);
    push_text(&f, text);
    send_wait(w, &w->call, NULL, &f);
}

static void message_arrives_whole_and_answer_comes_back(const char *transport)
{
    struct world w;
    world_open(&w, transport, 0);
    struct frames f;
    frames_init(&f);
    push_text(&f, "header");
    push_text(&f, "");
    push_text(&f, "a tail that is longer than what ZeroMQ keeps inside a message struct");
    send_wait(&w, &w.call, NULL, &f);
    until(&w, &w.serve.n_message, 1);
    assert_int_equal(w.serve.last.n, 3);
    assert_memory_equal(frames_data(&w.serve.last, 0), "header", 6);
    assert_int_equal(frames_size(&w.serve.last, 1), 0);
    assert_memory_equal(frames_data(&w.serve.last, 2), "a tail that", 11);
    for (int i = 0; i < 3; i++)
        assert_int_equal((uintptr_t)frames_data(&w.serve.last, i) % 8, 0);
    send_wait(&w, &w.serve, &w.serve.from, &w.serve.last);
    until(&w, &w.call.n_message, 1);
    assert_int_equal(w.call.last.n, 3);
    struct sock_stats stats;
    sock_stats_get(w.call.sock, &stats);
    assert_int_equal(stats.messages_sent, 1);
    assert_int_equal(stats.messages_received, 1);
    assert_int_equal(stats.bytes_sent, stats.bytes_received);
    world_close(&w);
}

static void frames_of_one_mebibyte_come_back_the_same(const char *transport)
{
    struct world w;
    world_open(&w, transport, 0);
    w.serve.echo = 1;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    size_t bytes = 1 << 20;
    for (int round = 0; round < 4; round++) {
        struct frames f;
        frames_init(&f);
        push_text(&f, "rows");
        struct wirebuf *b = wirebuf_get(pool, bytes);
        assert_non_null(b);
        unsigned char *p = wirebuf_data(b);
        for (size_t i = 0; i < bytes; i++)
            p[i] = (unsigned char)(i * 31 + (size_t)round);
        assert_int_equal(frames_push_buf(&f, b, bytes), 0);
        send_wait(&w, &w.call, NULL, &f);
        until(&w, &w.call.n_message, round + 1);
        assert_int_equal(w.call.last.n, 2);
        assert_int_equal(frames_size(&w.call.last, 1), bytes);
        const unsigned char *q = frames_data(&w.call.last, 1);
        for (size_t i = 0; i < bytes; i++)
            assert_int_equal(q[i], (unsigned char)(i * 31 + (size_t)round));
    }
    world_close(&w);
    wirebuf_pool_destroy(pool);
}

/* No loop turns at the serving side: queues fill, and the message refused is still whole. */
static void full_queue_is_again_and_loses_nothing(const char *transport)
{
    struct world w;
    world_open(&w, transport, 4);
    call_text(&w, "connected");
    until(&w, &w.serve.n_message, 1);
    static char body[65536];
    int n_sent = 0, rc = 0;
    struct frames f;
    frames_init(&f);
    while (n_sent < 100000) {
        assert_int_equal(frames_push_copy(&f, &n_sent, sizeof(n_sent)), 0);
        assert_int_equal(frames_push_copy(&f, body, sizeof(body)), 0);
        rc = sock_send(w.call.sock, NULL, &f);
        if (rc != 0)
            break;
        n_sent++;
    }
    assert_int_equal(rc, ERR_AGAIN);
    assert_int_equal(f.n, 2);
    assert_int_equal(frames_size(&f, 1), sizeof(body));
    send_wait(&w, &w.call, NULL, &f);
    until(&w, &w.serve.n_message, n_sent + 2);
    int last = -1;
    memcpy(&last, frames_data(&w.serve.last, 0), sizeof(last));
    assert_int_equal(last, n_sent);
    assert_int_equal(w.serve.n_message, n_sent + 2);
    world_close(&w);
}

static void stop_loop(struct ev_loop *loop, ev_async *w, int revents)
{
    (void)w;
    (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

static void *serve_main(void *arg)
{
    struct side *serve = arg;
    ev_run(serve->loop, 0);
    return NULL;
}

/* Both loops sleep when they see nothing to do, and the edge of ZMQ_FD is easily swallowed by a
 * send: one lost wake-up and this hangs until the alarm. */
static void ten_thousand_echoes_lose_no_wake_up(const char *transport)
{
    struct world w;
    world_open(&w, transport, 64);
    w.serve.echo = 1;
    call_text(&w, "connected");
    until(&w, &w.call.n_message, 1);
    ev_async stop;
    ev_async_init(&stop, stop_loop);
    ev_async_start(w.serve.loop, &stop);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, serve_main, &w.serve), 0);
    int n = 10000;
    for (int i = 0; i < n;) {
        if (i + 1 - w.call.n_message >= 16) {
            ev_run(w.call.loop, EVRUN_ONCE);
            continue;
        }
        struct frames f;
        frames_init(&f);
        assert_int_equal(frames_push_copy(&f, &i, sizeof(i)), 0);
        assert_int_equal(sock_send(w.call.sock, NULL, &f), 0);
        i++;
    }
    /* With 16 of 64 outstanding nothing may be refused either; that would hang here, too. */
    while (w.call.n_message < n + 1)
        ev_run(w.call.loop, EVRUN_ONCE);
    ev_async_send(w.serve.loop, &stop);
    pthread_join(thread, NULL);
    ev_async_stop(w.serve.loop, &stop);
    int last = -1;
    memcpy(&last, frames_data(&w.call.last, 0), sizeof(last));
    assert_int_equal(last, n - 1);
    assert_int_equal(w.serve.n_message, n + 1);
    assert_int_equal(w.serve.n_refused, 0);
    world_close(&w);
}

/* One side only sends, the other has read it all: the queue is not full, though ZeroMQ has not
 * looked. */
static void queue_that_was_read_is_not_full(const char *transport)
{
    struct world w;
    world_open(&w, transport, 8);
    call_text(&w, "connected");
    until(&w, &w.serve.n_message, 1);
    for (int burst = 0; burst < 2000; burst++) {
        for (int i = 0; i < 4; i++) { /* half the mark: always allowed */
            struct frames f;
            frames_init(&f);
            push_text(&f, "x");
            assert_int_equal(sock_send(w.call.sock, NULL, &f), 0);
        }
        for (int i = 0; i < TURNS_MAX && w.serve.n_message < 1 + 4 * (burst + 1); i++)
            turn(&w.serve);
        assert_int_equal(w.serve.n_message, 1 + 4 * (burst + 1));
    }
    world_close(&w);
}

static void vanished_peer_is_gone(const char *transport)
{
    struct world w;
    world_open(&w, transport, 0);
    call_text(&w, "hello");
    until(&w, &w.serve.n_message, 1);
    struct sock_peer peer = w.serve.from;
    side_close(&w.call);
    int rc = 0;
    for (int i = 0; i < 5000 && rc == 0; i++) {
        struct frames f;
        frames_init(&f);
        push_text(&f, "anyone?");
        rc = sock_send(w.serve.sock, &peer, &f);
        assert_int_equal(f.n, 0);
        turn(&w.serve);
        usleep(1000);
    }
    assert_int_equal(rc, ERR_GONE);
    /* The next caller is served as if nothing had been, under an id of its own. */
    side_open(&w, &w.call, SOCK_CALL, w.endpoint, 0);
    call_text(&w, "hello again");
    until(&w, &w.serve.n_message, 2);
    assert_true(peer.bytes != w.serve.from.bytes || memcmp(peer.id, w.serve.from.id, peer.bytes));
    world_close(&w);
}

static void unconnected_call_is_again(const char *transport)
{
    if (strcmp(transport, "inproc") == 0)
        return; /* inproc holds messages for a name that is bound later */
    struct world w;
    world_open(&w, transport, 0);
    side_close(&w.serve);
    struct side call = {0};
    side_open(&w, &call, SOCK_CALL, w.endpoint, 0);
    struct frames f;
    frames_init(&f);
    push_text(&f, "nobody listens");
    assert_int_equal(sock_send(call.sock, NULL, &f), ERR_AGAIN);
    assert_int_equal(f.n, 1);
    frames_close(&f);
    side_close(&call);
    world_close(&w);
}

static void occupied_address_is_said_in_words(const char *transport)
{
    struct world w;
    world_open(&w, transport, 0);
    struct err err = {0};
    struct sock *second = NULL;
    struct sock_config config = {.kind = SOCK_SERVE, .endpoint = w.endpoint};
    int rc = sock_open(w.zmq, w.serve.loop, &config, on_message, &w.serve, &second, &err);
    assert_int_equal(rc, ERR_NET);
    assert_null(second);
    assert_non_null(strstr(err.text, "cannot listen on"));
    assert_non_null(strstr(err.text, w.endpoint));
    /* And the first still serves. */
    call_text(&w, "still there?");
    until(&w, &w.serve.n_message, 1);
    world_close(&w);
}

static void excess_frames_are_cut(const char *transport)
{
    struct world w;
    world_open(&w, transport, 0);
    void *raw = zmq_socket(w.zmq, ZMQ_DEALER);
    assert_int_equal(zmq_connect(raw, w.endpoint), 0);
    for (int i = 0; i < 100; i++)
        zmq_send(raw, "x", 1, i < 99 ? ZMQ_SNDMORE : 0);
    until(&w, &w.serve.n_message, 1);
    assert_int_equal(w.serve.last.n, LIMIT_FRAMES);
    zmq_send(raw, "y", 1, 0);
    until(&w, &w.serve.n_message, 2);
    assert_int_equal(w.serve.last.n, 1);
    assert_memory_equal(frames_data(&w.serve.last, 0), "y", 1);
    int zero = 0;
    zmq_setsockopt(raw, ZMQ_LINGER, &zero, sizeof(zero));
    zmq_close(raw);
    world_close(&w);
}

typedef void claim_fn(const char *transport);
struct claim {
    const char *transport;
    claim_fn *fn;
};

static void run_claim(void **state)
{
    const struct claim *claim = *state;
    claim->fn(claim->transport);
}

/* ---- claims of one transport ---- */

static void ipc_spares_files_of_the_user(void **state)
{
    (void)state;
    char path[] = "/tmp/sigmoe-test-file-XXXXXX", endpoint[64];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    snprintf(endpoint, sizeof(endpoint), "ipc://%s", path);
    void *zmq = zmq_ctx_new();
    struct err err = {0};
    struct sock *sock = NULL;
    struct sock_config config = {.kind = SOCK_SERVE, .endpoint = endpoint};
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    assert_int_equal(sock_open(zmq, loop, &config, on_message, NULL, &sock, &err), ERR_NET);
    assert_non_null(strstr(err.text, "no socket lies there"));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    unlink(path);
    close(fd);
    ev_loop_destroy(loop);
    zmq_ctx_term(zmq);
}

static void tcp_drops_a_frame_above_the_cap(void **state)
{
    (void)state;
    struct world w = {.zmq = zmq_ctx_new()};
    struct err err = {0};
    struct sock_config config = {
        .kind = SOCK_SERVE, .endpoint = "tcp://127.0.0.1:0", .message_bytes_max = 1000};
    w.serve.loop = ev_loop_new(EVFLAG_AUTO);
    frames_init(&w.serve.last);
    assert_int_equal(
        sock_open(w.zmq, w.serve.loop, &config, on_message, &w.serve, &w.serve.sock, &err), 0);
    snprintf(w.endpoint, sizeof(w.endpoint), "%s", sock_endpoint(w.serve.sock));
    side_open(&w, &w.call, SOCK_CALL, w.endpoint, 0);
    char big[1001] = {0};
    struct frames f;
    frames_init(&f);
    assert_int_equal(frames_push_copy(&f, big, sizeof(big)), 0);
    send_wait(&w, &w.call, NULL, &f);
    for (int i = 0; i < 200; i++) {
        turn(&w.serve);
        usleep(500);
    }
    assert_int_equal(w.serve.n_message, 0);
    call_text(&w, "small"); /* over a new connection */
    until(&w, &w.serve.n_message, 1);
    world_close(&w);
}

static void endpoints_are_checked_in_words(void **state)
{
    (void)state;
    static const struct {
        const char *endpoint, *complaint;
    } bad[] = {{"", "is no endpoint"},
               {"http://x", "is no endpoint"},
               {"inproc://", "is no endpoint"},
               {"tcp://", "needs a host and a port"},
               {"tcp://:5", "needs a host and a port"},
               {"tcp://host", "needs a host and a port"},
               {"tcp://host:", "is no port"},
               {"tcp://host:65536", "is no port"},
               {"tcp://host:99999999999", "is no port"},
               {"tcp://host:-1", "is no port"},
               {"tcp://host:12x", "is no port"},
               {"tcp://::1:5", "brackets"},
               {"tcp://[::1:5", "not clear"},
               {"tcp://[::1]x:5", "not clear"},
               {"ipc://", "has 0 bytes"},
               {"tcp://a b:5", "space or control"},
               {"tcp://a\n:5", "space or control"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = {0};
        assert_int_equal(endpoint_check(bad[i].endpoint, &err), ERR_USAGE);
        if (!strstr(err.text, bad[i].complaint))
            fail_msg("%s: '%s' lacks '%s'", bad[i].endpoint, err.text, bad[i].complaint);
    }
    char longest[400] = "ipc:///";
    memset(longest + 7, 'a', 150);
    assert_int_equal(endpoint_check(longest, NULL), ERR_USAGE);
    memset(longest + 7, 'a', 390);
    assert_int_equal(endpoint_check(longest, NULL), ERR_USAGE);
    static const char *const good[] = {
        "tcp://127.0.0.1:0", "tcp://*:5701", "tcp://[::1]:5",           "tcp://eth0:*",
        "ipc:///tmp/x",      "inproc://w0",  "tcp://host.example:65535"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(endpoint_check(good[i], NULL), 0);
    assert_true(endpoint_is_local("tcp://127.0.0.1:1"));
    assert_true(endpoint_is_local("ipc:///x"));
    assert_true(endpoint_is_local("inproc://x"));
    assert_false(endpoint_is_local("tcp://*:1"));
    assert_false(endpoint_is_local("tcp://0.0.0.0:1"));
    assert_false(endpoint_is_local("tcp://10.0.0.1:1"));
    assert_true(incarnation_new() != incarnation_new());
}

#define CLAIM(transport, fn)                                                                       \
    {                                                                                              \
#fn " over " transport, run_claim, NULL, NULL, &(struct claim)                             \
        {                                                                                          \
            transport, fn                                                                          \
        }                                                                                          \
    }
#define EACH(fn) CLAIM("inproc", fn), CLAIM("ipc", fn), CLAIM("tcp", fn)

int main(void)
{
    alarm(ALARM_S);
    const struct CMUnitTest tests[] = {
        EACH(message_arrives_whole_and_answer_comes_back),
        EACH(frames_of_one_mebibyte_come_back_the_same),
        EACH(full_queue_is_again_and_loses_nothing),
        EACH(ten_thousand_echoes_lose_no_wake_up),
        EACH(queue_that_was_read_is_not_full),
        EACH(vanished_peer_is_gone),
        EACH(unconnected_call_is_again),
        EACH(occupied_address_is_said_in_words),
        EACH(excess_frames_are_cut),
        cmocka_unit_test(ipc_spares_files_of_the_user),
        cmocka_unit_test(tcp_drops_a_frame_above_the_cap),
        cmocka_unit_test(endpoints_are_checked_in_words),
    };
    return cmocka_run_group_tests_name("sock", tests, NULL, NULL);
}
