/* http_fault_test: clients that vanish, dawdle or do not read. After each test nothing is open that
 * was not open before it. */
#include "tests/unit/coordinator/http_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- clients that go away -------------------------------------------------------------------- */

static void vanish(const char *request, void (*leave)(struct http_client *c))
{
    struct http_config config = http_world_config(); /* no timeout is what notices it */
    struct http_client c;
    config.head_timeout_s = config.body_timeout_s = config.idle_timeout_s = config.write_stall_s =
        600;
    http_world_start(&w, &config);
    http_client_open(&c, w.port);
    http_client_send(&c, request);
    assert_true(http_world_wait(&w.n_open, 1));
    if (strstr(request, "stream"))
        assert_true(http_client_more(&c) > 0);
    leave(&c);
    assert_true(http_world_wait(&w.n_gone, 1));
    assert_true(http_world_wait(&w.n_conn, 0));
    http_world_stop(&w);
    assert_int_equal(w.n_complete, 0);
}

static void a_client_that_leaves_mid_stream_is_noticed(void **state)
{
    (void)state;
    vanish("GET /stream?1000000 HTTP/1.1\r\n" H "\r\n", http_client_close);
    vanish("GET /stream?1000000 HTTP/1.1\r\n" H "\r\n", http_client_reset);
}

/* Nothing is written to it, so that only reading can tell. */
static void a_client_that_leaves_a_silent_response_is_noticed(void **state)
{
    (void)state;
    vanish("GET /hold HTTP/1.1\r\n" H "\r\n", http_client_close);
    vanish("GET /hold HTTP/1.1\r\n" H "\r\n", http_client_reset);
    vanish("GET /hold HTTP/1.1\r\n" H "\r\nGET /hello HTTP/1.1\r\n" H "\r\n", http_client_close);
}

static void a_thousand_vanishing_clients_leave_nothing(void **state)
{
    struct http_client c[50];
    (void)state;
    start();
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 50; i++) {
            http_client_open(&c[i], w.port);
            http_client_send(&c[i], "GET /stream?1000000 HTTP/1.1\r\n" H "\r\n");
        }
        for (int i = 0; i < 50; i++) {
            if (i % 3 != 0)
                assert_true(http_client_more(&c[i]) > 0);
            if (i % 2)
                http_client_close(&c[i]);
            else
                http_client_reset(&c[i]);
        }
    }
    assert_true(http_world_wait(&w.n_conn, 0));
    assert_int_equal(w.n_open, 0);
    assert_int_equal(w.n_gone, w.n_request);
    http_world_stop(&w);
}

/* ---- slow clients ---------------------------------------------------------------------------- */

static struct http_config impatient(void)
{
    struct http_config config = http_world_config();
    config.head_timeout_s = config.body_timeout_s = config.idle_timeout_s = config.write_stall_s =
        0.5;
    return config;
}

static void a_slow_head_is_408(void **state)
{
    struct http_config config = impatient();
    struct http_client c;
    struct http_reply r;
    (void)state;
    http_world_start(&w, &config);
    http_client_open(&c, w.port);
    char byte;
    int n = 0;
    for (; n < 1000 && recv(c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0; n++) {
        http_client_send(&c, n == 0 ? "GET / HTTP/1.1\r\nX: " : "a"); /* buys no more time */
        usleep(20000);
    }
    assert_true(n < 1000);
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_int_equal(r.status, 408);
    assert_non_null(strstr(r.head, "\r\nConnection: close\r\n"));
    assert_non_null(strstr(r.body, "{\"error\":{\"message\":\""));
    assert_true(http_client_ended(&c));
    http_reply_free(&r);
    http_client_close(&c);
    http_world_stop(&w);
    assert_int_equal(w.n_request, 0);
}

static void a_connection_without_a_request_is_closed(void **state)
{
    struct http_config config = impatient();
    struct http_client c;
    struct http_reply r;
    (void)state;
    config.idle_timeout_s = 1.5;
    http_world_start(&w, &config);
    http_client_open(&c, w.port);
    assert_true(http_client_ended(&c));
    http_client_close(&c);
    http_client_open(&c, w.port); /* and so is an idle one, between requests */
    assert_int_equal(http_client_ask(&c, "GET /hello HTTP/1.1\r\n" H "\r\n", &r), 200);
    http_reply_free(&r);
    usleep(500000);
    double begin = now_s();
    assert_int_equal(http_client_ask(&c, "GET /hello HTTP/1.1\r\n" H "\r\n", &r), 200);
    http_reply_free(&r);
    assert_true(http_client_ended(&c));
    assert_true(now_s() - begin > 1.4); /* from the second answer, not from the first */
    http_client_close(&c);
    http_world_stop(&w);
}

static void a_trickling_body_is_408(void **state)
{
    struct http_config config = impatient();
    struct http_client c;
    struct http_reply r;
    (void)state;
    http_world_start(&w, &config);
    http_client_open(&c, w.port);
    http_client_send(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 100000\r\n\r\n");
    for (int i = 0; i < 12; i++) { /* 40 bytes a second, where 256 are asked for */
        http_client_send(&c, "aa");
        usleep(50000);
    }
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_int_equal(r.status, 408);
    http_reply_free(&r);
    http_client_close(&c);
    http_world_stop(&w);
}

static void a_steady_body_is_not_cut(void **state)
{
    struct http_config config = impatient();
    struct http_client c;
    struct http_reply r;
    char block[1000];
    (void)state;
    memset(block, 'x', sizeof(block));
    http_world_start(&w, &config);
    http_client_open(&c, w.port);
    http_client_send(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 20000\r\n\r\n");
    for (int i = 0; i < 20; i++) { /* 1.2 s in all: twice body_timeout_s */
        http_client_send_bytes(&c, block, sizeof(block));
        usleep(60000);
    }
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.n_body, 20000);
    http_reply_free(&r);
    http_client_close(&c);
    http_world_stop(&w);
}

/* A handler may think for as long as it likes. */
static void a_slow_response_is_not_cut(void **state)
{
    struct http_config config = impatient();
    struct http_client c;
    struct http_reply r;
    (void)state;
    http_world_start(&w, &config);
    http_client_open(&c, w.port);
    assert_int_equal(http_client_ask(&c, "GET /late?1200 HTTP/1.1\r\n" H "\r\n", &r), 200);
    http_reply_free(&r);
    http_client_close(&c);
    http_world_stop(&w);
    assert_int_equal(w.n_complete, 1);
}

static void a_client_that_stops_reading_is_cut_off(void **state)
{
    struct http_config config = impatient();
    struct http_client c;
    (void)state;
    http_world_start(&w, &config);
    http_client_open_small(&c, w.port);
    http_client_send(&c, "GET /big?20000000 HTTP/1.1\r\n" H "\r\n");
    assert_true(http_world_wait(&w.n_gone, 1));
    assert_true(http_world_wait(&w.n_conn, 0));
    http_client_close(&c);
    http_world_stop(&w);
    assert_int_equal(w.n_complete, 0);
}

/* It takes 100 kB a second: less than makes the kernel ask for more within write_stall_s, and
 * enough to open the window again several times in it, whatever else the machine does. */
static void a_client_that_reads_slowly_is_not_cut_off(void **state)
{
    struct http_config config = impatient();
    struct http_client c;
    char block[2000];
    (void)state;
    config.write_stall_s = 1.5;
    http_world_start(&w, &config);
    http_client_open_with(&c, w.port, 16384);
    http_client_send(&c, "GET /big?20000000 HTTP/1.1\r\n" H "\r\n");
    for (int i = 0; i < 200; i++) {
        assert_true(recv(c.fd, block, sizeof(block), 0) > 0);
        usleep(20000);
    }
    assert_int_equal(w.n_gone, 0);
    assert_int_equal(w.n_open, 1);
    http_client_close(&c);
    assert_true(http_world_wait(&w.n_gone, 1));
    http_world_stop(&w);
}

static void a_stream_that_nobody_reads_is_cut_off_at_the_buffer(void **state)
{
    struct http_client c;
    (void)state;
    start();
    http_client_open_small(&c, w.port);
    http_client_send(&c, "GET /flood?100000000 HTTP/1.1\r\n" H "\r\n");
    assert_true(http_world_wait(&w.n_gone, 1));
    assert_int_equal(w.write_gone, 1);
    http_client_close(&c);
    ask_hello();
    http_world_stop(&w);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, http_case_begin, http_case_end)
    const struct CMUnitTest tests[] = {
        TEST(a_client_that_leaves_mid_stream_is_noticed),
        TEST(a_client_that_leaves_a_silent_response_is_noticed),
        TEST(a_thousand_vanishing_clients_leave_nothing),
        TEST(a_slow_head_is_408),
        TEST(a_connection_without_a_request_is_closed),
        TEST(a_trickling_body_is_408),
        TEST(a_steady_body_is_not_cut),
        TEST(a_slow_response_is_not_cut),
        TEST(a_client_that_stops_reading_is_cut_off),
        TEST(a_client_that_reads_slowly_is_not_cut_off),
        TEST(a_stream_that_nobody_reads_is_cut_off_at_the_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
