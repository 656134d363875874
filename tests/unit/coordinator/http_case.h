/* http_case: the server of one test at a time, and what must be as before after each: no exchange
 * is open that was not closed, no descriptor either. For cmocka's set-up and teardown of a test. */
#ifndef TESTS_UNIT_COORDINATOR_HTTP_CASE_H
#define TESTS_UNIT_COORDINATOR_HTTP_CASE_H

#include "tests/unit/coordinator/http_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define H "Host: localhost\r\n"

static struct http_world w;
static int n_fd;

static inline int http_case_begin(void **state)
{
    (void)state;
    n_fd = fds_open();
    return 0;
}

/* Every exchange was closed once, every descriptor is closed. */
static inline int http_case_end(void **state)
{
    (void)state;
    http_world_stop(&w); /* where the test has failed before it did */
    assert_int_equal(w.n_open, 0);
    assert_int_equal(fds_open(), n_fd);
    return 0;
}

static inline void ask_hello(void)
{
    struct http_client c;
    struct http_reply r;
    http_client_open(&c, w.port);
    assert_int_equal(http_client_ask(&c, "GET /hello HTTP/1.1\r\n" H "\r\n", &r), 200);
    http_reply_free(&r);
    http_client_close(&c);
}

static inline void start(void)
{
    struct http_config config = http_world_config();
    http_world_start(&w, &config);
}

#endif
