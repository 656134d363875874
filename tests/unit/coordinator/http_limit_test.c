/* http_limit_test: too much of something (bodies, requests, connections, descriptors), and the
 * server's begin and end. After each test nothing is open that was not open before it. */
#include "tests/unit/coordinator/http_case.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- too much -------------------------------------------------------------------------------- */

static void a_large_body_is_413(void **state)
{
    static char block[100000];
    struct http_client c;
    struct http_reply r;
    (void)state;
    start();
    http_client_open(&c, w.port);
    http_client_send(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 1048577\r\n\r\n");
    for (int i = 0; i < 10; i++) /* it does not look before it has sent all of it */
        http_client_send_bytes(&c, block, sizeof(block));
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_int_equal(r.status, 413);
    http_reply_free(&r);
    assert_true(http_client_ended(&c));
    http_client_close(&c);
    http_world_stop(&w);
    assert_int_equal(w.n_request, 0);
}

static void nothing_is_read_behind_a_refused_request(void **state)
{
    struct http_client c;
    struct http_reply r;
    (void)state;
    start();
    http_client_open(&c, w.port);
    assert_int_equal(http_client_ask(&c,
                                     "POST /hello HTTP/1.1\r\n" H
                                     "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                                     "0\r\n\r\nGET /hello HTTP/1.1\r\n" H "\r\n",
                                     &r),
                     400);
    http_reply_free(&r);
    http_client_send(&c, "GET /hello HTTP/1.1\r\n" H "\r\n");
    assert_true(http_client_ended(&c));
    http_client_close(&c);
    http_world_stop(&w);
    assert_int_equal(w.n_request, 0);
}

static void endless_pipelining_is_cut_off(void **state)
{
    struct http_config config = http_world_config();
    struct http_client c;
    char block[1000];
    (void)state;
    memset(block, 'x', sizeof(block));
    config.body_bytes_max = 10000;
    http_world_start(&w, &config);
    http_client_open(&c, w.port);
    http_client_send(&c, "GET /hold HTTP/1.1\r\n" H "\r\n");
    for (int i = 0; i < 200 && http_client_send_bytes(&c, block, sizeof(block)) == 0; i++) {
    }
    assert_true(http_world_wait(&w.n_gone, 1));
    http_client_close(&c);
    http_world_stop(&w);
}

static void refused_at(int conns_max, int per_peer)
{
    struct http_config config = http_world_config();
    struct http_client c[4];
    struct http_reply r;
    config.conns_max = conns_max;
    config.conns_per_peer_max = per_peer;
    http_world_start(&w, &config);
    for (int i = 0; i < 4; i++) {
        http_client_open(&c[i], w.port);
        assert_int_equal(http_client_ask(&c[i], "GET /hello HTTP/1.1\r\n" H "\r\n", &r),
                         i < 3 ? 200 : 503);
        http_reply_free(&r);
    }
    assert_non_null(strstr(r.head, "\r\nRetry-After: 1\r\n"));
    assert_true(http_client_ended(&c[3]));
    for (int i = 0; i < 4; i++)
        http_client_close(&c[i]);
    assert_true(http_world_wait(&w.n_conn, 0));
    ask_hello();
    http_world_stop(&w);
}

static void connections_above_the_limit_are_503(void **state)
{
    (void)state;
    refused_at(3, 100);
    refused_at(100, 3);
}

/* Out of descriptors the server waits: it neither ends nor spins, and goes on afterwards. */
static void without_descriptors_the_server_waits(void **state)
{
    struct http_client c;
    struct http_reply r;
    struct rlimit limit, low;
    (void)state;
    start();
    ask_hello();
    assert_true(http_world_wait(&w.n_conn, 0));
    http_client_open(&c, w.port); /* connected by the kernel; accepted only if there was time */
    assert_int_equal(http_client_ask(&c, "GET /hello HTTP/1.1\r\n" H "\r\n", &r), 200);
    http_reply_free(&r);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int spare = socket(AF_INET, SOCK_STREAM, 0), top = dup(spare);
    close(top);
    low = limit;
    low.rlim_cur = (rlim_t)top;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)w.port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(spare, (struct sockaddr *)&a, sizeof(a)), 0);
    usleep(50000);
    int turns = w.n_turn;
    usleep(500000);
    turns = w.n_turn - turns;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_in_range(turns, 2, 30); /* it looks again ten times a second */
    struct http_client late = {.fd = spare};
    struct timeval five_s = {.tv_sec = 5};
    setsockopt(spare, SOL_SOCKET, SO_RCVTIMEO, &five_s, sizeof(five_s));
    assert_int_equal(http_client_ask(&late, "GET /hello HTTP/1.1\r\n" H "\r\n", &r), 200);
    http_reply_free(&r);
    http_client_close(&late);
    http_client_close(&c);
    http_world_stop(&w);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void destroy_ends_open_exchanges_once(void **state)
{
    struct http_client c[6];
    static const char *const request[6] = {
        "GET /hold HTTP/1.1\r\n" H "\r\n",
        "GET /stream?1000000 HTTP/1.1\r\n" H "\r\n",
        "GET /big?20000000 HTTP/1.1\r\n" H "\r\n",
        "GET /late?100000 HTTP/1.1\r\n" H "\r\nGET /hello HTTP/1.1\r\n" H "\r\n",
        "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhal",
        "G"};
    (void)state;
    start();
    for (int i = 0; i < 6; i++) {
        http_client_open_small(&c[i], w.port);
        http_client_send(&c[i], request[i]);
    }
    assert_true(http_world_wait(&w.n_open, 4));
    http_world_stop(&w);
    assert_int_equal(w.n_gone, 4);
    assert_int_equal(w.n_complete, 0);
    for (int i = 0; i < 6; i++)
        http_client_close(&c[i]);
}

static void a_drain_lets_responses_end_and_nobody_in(void **state)
{
    struct http_client idle, busy, fresh = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    struct sockaddr_in a = {.sin_family = AF_INET};
    struct http_reply r;
    (void)state;
    start();
    http_client_open(&idle, w.port);
    assert_int_equal(http_client_ask(&idle, "GET /hello HTTP/1.1\r\n" H "\r\n", &r), 200);
    http_reply_free(&r);
    http_client_open(&busy, w.port);
    http_client_send(&busy, "GET /late?300 HTTP/1.1\r\n" H "\r\n");
    assert_true(http_world_wait(&w.n_open, 1));
    http_world_drain(&w);
    assert_true(http_client_ended(&idle));
    a.sin_port = htons((uint16_t)w.port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_not_equal(connect(fresh.fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(http_client_reply(&busy, 0, &r), 0);
    assert_string_equal(r.body, "late 300");
    assert_non_null(strstr(r.head, "\r\nConnection: close\r\n"));
    http_reply_free(&r);
    assert_true(http_client_ended(&busy));
    http_client_close(&idle);
    http_client_close(&busy);
    http_client_close(&fresh);
    assert_true(http_world_wait(&w.n_conn, 0));
    http_world_stop(&w);
    assert_int_equal(w.n_complete, 1);
}

static void nothing(void *user, struct http_exchange *x, const struct http_request *r)
{
    (void)user;
    (void)x;
    (void)r;
}

static int try_to_listen(const char *host, int port, struct err *err)
{
    struct http_config config = http_world_config();
    struct ev_loop *loop = ev_loop_new(EVFLAG_NOENV);
    struct http_server *s = NULL;
    config.host = host;
    config.port = port;
    err_clear(err);
    int rc = http_server_create(loop, &config, nothing, NULL, &s, err);
    http_server_destroy(s);
    ev_loop_destroy(loop);
    return rc;
}

static void a_port_that_cannot_be_had_is_said_in_words(void **state)
{
    struct err err;
    (void)state;
    start();
    assert_int_equal(try_to_listen("127.0.0.1", w.port, &err), ERR_NET);
    assert_non_null(strstr(err.text, "is in use by another program"));
    assert_int_equal(try_to_listen("192.0.2.1", 0, &err), ERR_NET);
    assert_non_null(strstr(err.text, "192.0.2.1"));
    assert_int_equal(try_to_listen("no such host", 0, &err), ERR_NET);
    assert_non_null(strstr(err.text, "no such host"));
    assert_int_equal(try_to_listen("127.0.0.1", 65536, &err), ERR_USAGE);
    http_world_stop(&w);
}

static void ipv6_is_served(void **state)
{
    struct http_config config = http_world_config();
    struct http_client c = {.fd = socket(AF_INET6, SOCK_STREAM, 0)};
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct http_reply r;
    struct err err;
    (void)state;
    if (c.fd < 0 || try_to_listen("::1", 0, &err) != 0) {
        close(c.fd);
        skip();
    }
    config.host = "::1";
    http_world_start(&w, &config);
    a.sin6_port = htons((uint16_t)w.port);
    assert_int_equal(connect(c.fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(http_client_ask(&c, "GET /echo HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", &r),
                     200);
    assert_non_null(strstr(r.head, "\r\nX-Peer: [::1]:"));
    http_reply_free(&r);
    http_client_close(&c);
    http_world_stop(&w);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, http_case_begin, http_case_end)
    const struct CMUnitTest tests[] = {
        TEST(a_large_body_is_413),
        TEST(nothing_is_read_behind_a_refused_request),
        TEST(endless_pipelining_is_cut_off),
        TEST(connections_above_the_limit_are_503),
        TEST(without_descriptors_the_server_waits),
        TEST(destroy_ends_open_exchanges_once),
        TEST(a_drain_lets_responses_end_and_nobody_in),
        TEST(a_port_that_cannot_be_had_is_said_in_words),
        TEST(ipv6_is_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
