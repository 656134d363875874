/* here: sockets beside each other on one loop, by sock.h: messages keep their order and their
 * memory, answers find the caller, a full line says so, and whoever is left when the other end goes
 * is told, after what was sent has arrived. Callers over ZeroMQ are served beside them. */
#include "proto/sock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define HWM   4
#define TURNS 100000

/* What came, and who from; an answer is sent to each if told to. */
struct end {
    struct sock *sock;
    char got[64][16];
    const void *data;
    int n, echo;
    struct sock_peer from;
};

struct world {
    void *zmq;
    struct ev_loop *loop;
    struct end serve, call[2];
};

static void on_message(void *user, struct sock *sock, const struct sock_peer *from,
                       struct frames *f)
{
    struct end *end = user;
    size_t n = frames_size(f, 0);
    assert_true(n < sizeof(end->got[0]));
    memcpy(end->got[end->n], frames_data(f, 0), n);
    end->got[end->n++][n] = '\0';
    end->data = frames_data(f, f->n - 1);
    assert_int_equal((uintptr_t)frames_data(f, 0) % 8, 0);
    if (from)
        end->from = *from;
    if (end->echo)
        assert_int_equal(sock_send(sock, from, f), 0);
}

static void end_open(struct world *w, struct end *end, enum sock_kind kind, struct sock *beside)
{
    struct err err = {0};
    struct sock_config config = {
        .kind = kind, .endpoint = "inproc://here", .beside = beside, .hwm = HWM};
    *end = (struct end){0};
    if (sock_open(w->zmq, w->loop, &config, on_message, end, &end->sock, &err) != 0)
        fail_msg("%s", err.text);
}

static void world_open(struct world *w)
{
    *w = (struct world){.zmq = zmq_ctx_new(), .loop = ev_loop_new(EVFLAG_AUTO)};
    end_open(w, &w->serve, SOCK_SERVE, NULL);
    end_open(w, &w->call[0], SOCK_CALL, w->serve.sock);
}

static void world_close(struct world *w)
{
    sock_close(w->call[0].sock);
    sock_close(w->call[1].sock);
    sock_close(w->serve.sock);
    ev_loop_destroy(w->loop);
    zmq_ctx_term(w->zmq);
}

static int say(struct end *end, const struct sock_peer *to, const char *text)
{
    struct frames f;
    frames_init(&f);
    assert_int_equal(frames_push_copy(&f, text, strlen(text)), 0);
    int rc = sock_send(end->sock, to, &f);
    assert_int_equal(f.n, rc == ERR_AGAIN); /* left whole, or taken */
    frames_close(&f);
    return rc;
}

static void turn(struct world *w)
{
    ev_run(w->loop, EVRUN_NOWAIT);
}

static void messages_keep_their_order_and_answers_find_the_caller(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    end_open(&w, &w.call[1], SOCK_CALL, w.serve.sock);
    w.serve.echo = 1;
    assert_int_equal(say(&w.call[0], NULL, "a"), 0);
    assert_int_equal(say(&w.call[1], NULL, "b"), 0);
    assert_int_equal(say(&w.call[0], NULL, "c"), 0);
    assert_int_equal(w.serve.n, 0); /* from the loop only */
    turn(&w);
    turn(&w);
    assert_int_equal(w.serve.n, 3);
    assert_int_equal(w.call[0].n, 2);
    assert_int_equal(w.call[1].n, 1);
    assert_string_equal(w.call[0].got[0], "a");
    assert_string_equal(w.call[0].got[1], "c");
    assert_string_equal(w.call[1].got[0], "b");
    struct sock_stats s;
    sock_stats_get(w.serve.sock, &s);
    assert_int_equal(s.messages_received, 3);
    assert_int_equal(s.bytes_sent, 3);
    world_close(&w);
}

/* A wait for a message ends with it, and the bytes are those that were sent, not a copy. */
static void a_message_is_handed_over(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    struct wirebuf_pool *pool = wirebuf_pool_create();
    struct wirebuf *b = wirebuf_get(pool, 1000);
    const void *data = wirebuf_data(b);
    struct frames f;
    frames_init(&f);
    assert_int_equal(frames_push_copy(&f, "rows", 4), 0);
    assert_int_equal(frames_push_buf(&f, b, 1000), 0);
    assert_int_equal(sock_send(w.call[0].sock, NULL, &f), 0);
    ev_run(w.loop, EVRUN_ONCE);
    assert_int_equal(w.serve.n, 1);
    assert_ptr_equal(w.serve.data, data);
    world_close(&w);
    wirebuf_pool_destroy(pool);
}

static void a_full_line_says_so(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    for (int i = 0; i < HWM; i++)
        assert_int_equal(say(&w.call[0], NULL, "x"), 0);
    assert_int_equal(say(&w.call[0], NULL, "y"), ERR_AGAIN);
    turn(&w);
    assert_int_equal(w.serve.n, HWM);
    assert_int_equal(say(&w.call[0], NULL, "y"), 0);
    for (int i = 0; i < HWM; i++)
        assert_int_equal(say(&w.serve, &w.serve.from, "z"), 0);
    assert_int_equal(say(&w.serve, &w.serve.from, "z"), ERR_AGAIN);
    world_close(&w);
}

static void who_is_left_is_told(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    assert_int_equal(say(&w.call[0], NULL, "first"), 0);
    turn(&w);
    struct sock_peer gone = w.serve.from;
    assert_int_equal(say(&w.call[0], NULL, "last"), 0);
    sock_close(w.call[0].sock);
    assert_int_equal(say(&w.serve, &gone, "lost"), ERR_GONE);
    turn(&w);
    assert_int_equal(w.serve.n, 2);
    assert_string_equal(w.serve.got[1], "last");
    end_open(&w, &w.call[0], SOCK_CALL, w.serve.sock);
    assert_int_equal(say(&w.call[0], NULL, "anew"), 0);
    turn(&w);
    assert_memory_not_equal(w.serve.from.id, gone.id, gone.bytes);
    assert_int_equal(say(&w.serve, &gone, "lost"), ERR_GONE);
    assert_int_equal(say(&w.serve, &w.serve.from, "farewell"), 0);
    sock_close(w.serve.sock);
    w.serve.sock = NULL;
    assert_int_equal(say(&w.call[0], NULL, "nobody"), ERR_AGAIN);
    turn(&w);
    assert_int_equal(w.call[0].n, 1);
    assert_string_equal(w.call[0].got[0], "farewell");
    world_close(&w);
}

static void callers_over_zeromq_are_served_beside(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    end_open(&w, &w.call[1], SOCK_CALL, NULL);
    w.serve.echo = 1;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(say(&w.call[0], NULL, "here"), 0);
        int rc = ERR_AGAIN;
        for (int k = 0; k < TURNS && rc == ERR_AGAIN; k++, turn(&w))
            rc = say(&w.call[1], NULL, "there");
        assert_int_equal(rc, 0);
    }
    for (int k = 0; k < TURNS && w.call[0].n + w.call[1].n < 6; k++)
        turn(&w);
    assert_int_equal(w.call[0].n, 3);
    assert_int_equal(w.call[1].n, 3);
    assert_string_equal(w.call[0].got[2], "here");
    assert_string_equal(w.call[1].got[2], "there");
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_keep_their_order_and_answers_find_the_caller),
        cmocka_unit_test(a_message_is_handed_over),
        cmocka_unit_test(a_full_line_says_so),
        cmocka_unit_test(who_is_left_is_told),
        cmocka_unit_test(callers_over_zeromq_are_served_beside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
