/* http_server_test: what well-behaved clients see, over loopback sockets. Clients that are not:
 * http_fault_test.c. */
#include "tests/unit/coordinator/http_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define H "Host: localhost\r\n"

static struct http_world w;

static int start(void **state)
{
    struct http_config config = http_world_config();
    (void)state;
    http_world_start(&w, &config);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_world_stop(&w);
    assert_int_equal(w.n_open, 0);
    return 0;
}

/* Asks on c; the reply's body must be `body`. Returns its head, until the next call. */
static const char *expect(struct http_client *c, const char *text, int status, const char *body)
{
    static struct http_reply r;
    assert_int_equal(http_client_ask(c, text, &r), status);
    if (body != NULL)
        assert_string_equal(r.body, body);
    http_reply_free(&r);
    return r.head;
}

static void a_connection_serves_many_requests(void **state)
{
    struct http_client c;
    (void)state;
    http_client_open(&c, w.port);
    for (int i = 0; i < 100; i++) {
        const char *head = expect(&c, "GET /hello HTTP/1.1\r\n" H "\r\n", 200, "hello");
        assert_null(strstr(head, "Connection:"));
    }
    const char *head = expect(&c, "GET /nowhere HTTP/1.1\r\n" H "\r\n", 404, "/nowhere");
    assert_non_null(strstr(head, "HTTP/1.1 404 Not Found\r\n"));
    assert_non_null(strstr(head, "\r\nContent-Type: text/plain\r\n"));
    assert_non_null(strstr(head, " GMT\r\n"));
    http_client_close(&c);
}

static void a_request_arrives_whole_at_its_handler(void **state)
{
    struct http_client c;
    (void)state;
    http_client_open(&c, w.port);
    const char *head = expect(
        &c, "POST /%65cho?a=%20b HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nworld", 200, "world");
    assert_non_null(strstr(head, "\r\nX-Method: POST\r\n"));
    assert_non_null(strstr(head, "\r\nX-Query: a=%20b\r\n"));
    assert_non_null(strstr(head, "\r\nX-Peer: 127.0.0.1:"));
    expect(&c,
           "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
           "3\r\nwor\r\n2\r\nld\r\n0\r\n\r\n",
           200, "world");
    http_client_close(&c);
}

static void requests_may_come_byte_by_byte(void **state)
{
    static const char text[] = "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
                               "3\r\nwor\r\n2\r\nld\r\n0\r\n\r\n";
    struct http_client c;
    struct http_reply r;
    (void)state;
    http_client_open(&c, w.port);
    for (const char *p = text; *p; p++) {
        assert_int_equal(http_client_send_bytes(&c, p, 1), 0);
        usleep(200);
    }
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_string_equal(r.body, "world");
    http_reply_free(&r);
    http_client_close(&c);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct http_client c;
    struct http_reply r;
    char text[20000];
    size_t n = 0;
    (void)state;
    http_client_open(&c, w.port);
    /* The first takes longest; more of them than one turn of the loop serves. */
    n += (size_t)sprintf(text,
                         "GET /late?50 HTTP/1.1\r\n" H "\r\nGET /late?1 HTTP/1.1\r\n" H "\r\n");
    for (int i = 0; i < 200; i++)
        n += (size_t)sprintf(text + n, "POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\n%03d",
                             i);
    assert_int_equal(http_client_send_bytes(&c, text, n), 0);
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_string_equal(r.body, "late 50");
    http_reply_free(&r);
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_string_equal(r.body, "late 1");
    http_reply_free(&r);
    for (int i = 0; i < 200; i++) {
        char body[16];
        sprintf(body, "%03d", i);
        assert_int_equal(http_client_reply(&c, 0, &r), 0);
        assert_string_equal(r.body, body);
        http_reply_free(&r);
    }
    http_client_close(&c);
    assert_true(http_world_wait(&w.n_complete, 202));
}

static void a_stream_arrives_in_chunks_and_the_connection_goes_on(void **state)
{
    struct http_client c;
    struct http_reply r;
    (void)state;
    http_client_open(&c, w.port);
    assert_int_equal(http_client_ask(&c, "GET /stream?20 HTTP/1.1\r\n" H "\r\n", &r), 200);
    assert_non_null(strstr(r.head, "\r\nTransfer-Encoding: chunked\r\n"));
    assert_null(strstr(r.head, "Content-Length"));
    assert_non_null(strstr(r.body, "event 0\nevent 1\n"));
    assert_non_null(strstr(r.body, "event 19\n"));
    assert_true(r.chunks <= 20); /* the three writes of an event are one chunk */
    http_reply_free(&r);
    expect(&c, "GET /hello HTTP/1.1\r\n" H "\r\n", 200, "hello");
    http_client_close(&c);
    assert_true(http_world_wait(&w.n_complete, 1));
}

/* What comes while a stream runs is kept for later, and does not disturb it. */
static void a_request_sent_during_a_stream_waits_for_its_end(void **state)
{
    struct http_client c;
    struct http_reply r;
    (void)state;
    http_client_open(&c, w.port);
    http_client_send(&c, "GET /stream?50 HTTP/1.1\r\n" H "\r\n");
    usleep(10000);
    http_client_send(&c, "GET /hello HTTP/1.1\r\n" H "\r\nGET /no");
    usleep(10000);
    http_client_send(&c, "ne HTTP/1.1\r\n" H "\r\n");
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_non_null(strstr(r.body, "event 49\n"));
    http_reply_free(&r);
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_string_equal(r.body, "hello");
    http_reply_free(&r);
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_int_equal(r.status, 204);
    assert_null(strstr(r.head, "Content-Length"));
    http_reply_free(&r);
    http_client_close(&c);
}

static void http_1_0_closes_unless_asked_to_stay(void **state)
{
    struct http_client c;
    (void)state;
    http_client_open(&c, w.port);
    const char *head =
        expect(&c, "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, "hello");
    assert_non_null(strstr(head, "\r\nConnection: keep-alive\r\n"));
    head = expect(&c, "GET /hello HTTP/1.0\r\n\r\n", 200, "hello");
    assert_non_null(strstr(head, "\r\nConnection: close\r\n"));
    assert_true(http_client_ended(&c));
    http_client_close(&c);
}

static void a_stream_to_http_1_0_ends_with_the_connection(void **state)
{
    struct http_client c;
    (void)state;
    http_client_open(&c, w.port);
    const char *head = expect(&c, "GET /stream?3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200,
                              "event 0\nevent 1\nevent 2\n");
    assert_null(strstr(head, "Transfer-Encoding"));
    assert_non_null(strstr(head, "\r\nConnection: close\r\n"));
    assert_true(http_client_ended(&c));
    http_client_close(&c);
    assert_true(http_world_wait(&w.n_complete, 1));
}

static void close_is_honoured(void **state)
{
    struct http_client c;
    (void)state;
    http_client_open(&c, w.port);
    const char *head =
        expect(&c, "GET /hello HTTP/1.1\r\n" H "Connection: close\r\n\r\n", 200, "hello");
    assert_non_null(strstr(head, "\r\nConnection: close\r\n"));
    assert_true(http_client_ended(&c));
    http_client_close(&c);
}

static void head_gets_the_head_alone(void **state)
{
    struct http_client c;
    (void)state;
    http_client_open(&c, w.port);
    const char *head = expect(&c, "HEAD /hello HTTP/1.1\r\n" H "\r\n", 200, "");
    assert_non_null(strstr(head, "\r\nContent-Length: 5\r\n"));
    expect(&c, "HEAD /stream?5 HTTP/1.1\r\n" H "\r\n", 200, "");
    expect(&c, "GET /hello HTTP/1.1\r\n" H "\r\n", 200, "hello");
    http_client_close(&c);
}

static void a_body_is_asked_for_at_once(void **state)
{
    struct http_client c;
    (void)state;
    http_client_open(&c, w.port);
    expect(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n", 100,
           NULL);
    expect(&c, "ok", 200, "ok");
    /* Not when it is there already, nor when it is refused. */
    expect(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\nExpect: 100-continue\r\n\r\nok",
           200, "ok");
    expect(&c,
           "POST /echo HTTP/1.1\r\n" H "Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n",
           413, NULL);
    http_client_close(&c);
}

static void a_large_response_survives_a_small_receiver(void **state)
{
    struct http_client c;
    struct http_reply r;
    (void)state;
    http_client_open_small(&c, w.port);
    assert_int_equal(http_client_ask(&c, "GET /big?3000000 HTTP/1.1\r\n" H "\r\n", &r), 200);
    assert_int_equal(r.n_body, 3000000);
    for (size_t i = 0; i < r.n_body; i++)
        assert_true(r.body[i] == (char)('a' + i % 26));
    http_reply_free(&r);
    http_client_close(&c);
    assert_true(http_world_wait(&w.n_complete, 1));
}

static void a_large_body_is_taken(void **state)
{
    static char body[1 << 20];
    struct http_client c;
    struct http_reply r;
    (void)state;
    memset(body, 'b', sizeof(body));
    http_client_open(&c, w.port);
    http_client_send(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 1048576\r\n\r\n");
    http_client_send_bytes(&c, body, sizeof(body));
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_int_equal(r.n_body, sizeof(body));
    assert_memory_equal(r.body, body, sizeof(body));
    http_reply_free(&r);
    http_client_close(&c);
}

static void response_fields_cannot_break_the_framing(void **state)
{
    struct http_client c;
    char wanted[100];
    (void)state;
    snprintf(wanted, sizeof(wanted), "0 %d %d %d %d %d %d %d %d", ERR_USAGE, ERR_USAGE, ERR_USAGE,
             ERR_USAGE, ERR_USAGE, ERR_USAGE, ERR_USAGE, ERR_LIMIT);
    http_client_open(&c, w.port);
    const char *head = expect(&c, "GET /headers HTTP/1.1\r\n" H "\r\n", 200, wanted);
    assert_non_null(strstr(head, "\r\nX-Ok: a\tb\r\n"));
    http_client_close(&c);
}

static void a_handler_that_errs_harms_only_itself(void **state)
{
    struct http_client c;
    (void)state;
    http_client_open(&c, w.port);
    expect(&c, "GET /twice HTTP/1.1\r\n" H "\r\n", 200, "hello");
    expect(&c, "GET /end HTTP/1.1\r\n" H "\r\n", 500, "");
    expect(&c, "GET /hello HTTP/1.1\r\n" H "\r\n", 200, "hello");
    http_client_close(&c);
}

/* printf ... | nc: the client has said all it wants, but it still listens. */
static void a_half_closed_client_gets_what_is_ready(void **state)
{
    struct http_client c;
    struct http_reply r;
    (void)state;
    http_client_open(&c, w.port);
    http_client_send(&c, "GET /hello HTTP/1.1\r\n" H "\r\nGET /big?100000 HTTP/1.1\r\n" H "\r\n");
    shutdown(c.fd, SHUT_WR);
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    http_reply_free(&r);
    assert_int_equal(http_client_reply(&c, 0, &r), 0);
    assert_int_equal(r.n_body, 100000);
    http_reply_free(&r);
    assert_true(http_client_ended(&c));
    http_client_close(&c);
}

#define MANY 200

static void two_hundred_connections_at_once(void **state)
{
    static struct http_client c[MANY];
    (void)state;
    for (int i = 0; i < MANY; i++) {
        http_client_open(&c[i], w.port);
        assert_int_equal(http_client_send(&c[i], "GET /stream?10 HTTP/1.1\r\n" H "\r\n"), 0);
    }
    for (int i = 0; i < MANY; i++) {
        struct http_reply r;
        assert_int_equal(http_client_reply(&c[i], 0, &r), 0);
        assert_int_equal(r.status, 200);
        assert_non_null(strstr(r.body, "event 9\n"));
        http_reply_free(&r);
    }
    assert_true(http_world_wait(&w.n_complete, MANY));
    for (int i = 0; i < MANY; i++)
        http_client_close(&c[i]);
    assert_true(http_world_wait(&w.n_conn, 0));
}

/* An independent client: what curl makes of us. */
static void curl_agrees(void **state)
{
    char command[600], out[200] = "";
    (void)state;
    if (system("command -v curl >/dev/null 2>&1") != 0)
        skip();
    snprintf(
        command, sizeof(command),
        "u=http://127.0.0.1:%d; curl -sS --noproxy '*' -m 10 $u/hello $u/hello"
        " $u/stream?3 -0 2>&1; head -c 900000 /dev/zero | curl -sS --noproxy '*' -m 10 -o /dev/null"
        " -w '%%{http_code} %%{size_download}\\n' -H 'Expect: 100-continue' --data-binary @-"
        " $u/echo 2>&1;"
        "curl -sS --noproxy '*' -m 10 -o /dev/null -w '%%{http_code}' -T - -H 'Transfer-Encoding: "
        "chunked' -X POST $u/echo </dev/null 2>&1",
        w.port);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof(out) - 1, f);
    out[n] = 0;
    assert_int_equal(pclose(f), 0);
    assert_string_equal(out, "hellohelloevent 0\nevent 1\nevent 2\n200 900000\n200");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(a_connection_serves_many_requests),
        TEST(a_request_arrives_whole_at_its_handler),
        TEST(requests_may_come_byte_by_byte),
        TEST(pipelined_requests_are_answered_in_order),
        TEST(a_stream_arrives_in_chunks_and_the_connection_goes_on),
        TEST(a_request_sent_during_a_stream_waits_for_its_end),
        TEST(http_1_0_closes_unless_asked_to_stay),
        TEST(a_stream_to_http_1_0_ends_with_the_connection),
        TEST(close_is_honoured),
        TEST(head_gets_the_head_alone),
        TEST(a_body_is_asked_for_at_once),
        TEST(a_large_response_survives_a_small_receiver),
        TEST(a_large_body_is_taken),
        TEST(response_fields_cannot_break_the_framing),
        TEST(a_handler_that_errs_harms_only_itself),
        TEST(a_half_closed_client_gets_what_is_ready),
        TEST(two_hundred_connections_at_once),
        TEST(curl_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
