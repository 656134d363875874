/* The event parser against streams cut at every byte, all three line ends, and what is not data. */
#include "tools/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int collect(void *user, const char *data, size_t n)
{
    char *out = user;
    assert_int_equal(strlen(data), n);
    snprintf(out + strlen(out), 256 - strlen(out), "[%s]", data);
    return strcmp(data, "stop") == 0 ? 7 : 0;
}

/* Feeds the text in two pieces cut at every place, and byte by byte. */
static void expect(const char *text, const char *want)
{
    size_t n = strlen(text);
    for (size_t cut = 0; cut <= n; cut++) {
        struct sse s = {0};
        char got[256] = "";
        assert_int_equal(sse_feed(&s, text, cut, collect, got, NULL), 0);
        assert_int_equal(sse_feed(&s, text + cut, n - cut, collect, got, NULL), 0);
        assert_string_equal(got, want);
        sse_fini(&s);
    }
    struct sse s = {0};
    char got[256] = "";
    for (size_t i = 0; i < n; i++)
        assert_int_equal(sse_feed(&s, text + i, 1, collect, got, NULL), 0);
    assert_string_equal(got, want);
    sse_fini(&s);
}

static void events_are_the_same_however_they_are_cut(void **state)
{
    (void)state;
    expect("data: {\"a\":1}\n\ndata: [DONE]\n\n", "[{\"a\":1}][[DONE]]");
    expect("data: a\r\n\r\ndata: b\r\n\r\n", "[a][b]");
    expect("data: a\r\rdata: b\r\r", "[a][b]");
    expect("data: \xe4\xbd\xa0\xe5\xa5\xbd\n\n", "[\xe4\xbd\xa0\xe5\xa5\xbd]");
}

static void lines_of_one_event_are_joined(void **state)
{
    (void)state;
    expect("data: a\ndata: b\ndata:\ndata\n\n", "[a\nb\n\n]");
    expect("data:  two blanks\n\n", "[ two blanks]");
}

static void what_is_not_data_is_passed_over(void **state)
{
    (void)state;
    expect(": ping\n\nevent: x\nid: 4\nretry: 5\n\ndatabase: no\n\n\n\ndata: y\n\n", "[y]");
    expect("data: never ended\n", "");
}

static void the_caller_ends_the_reading(void **state)
{
    (void)state;
    const char *text = "data: stop\n\ndata: more\n\n";
    struct sse s = {0};
    char got[256] = "";
    assert_int_equal(sse_feed(&s, text, strlen(text), collect, got, NULL), 7);
    assert_string_equal(got, "[stop]");
    sse_fini(&s);
}

static void an_endless_event_is_refused(void **state)
{
    (void)state;
    static char megabyte[1 << 20];
    memset(megabyte, 'x', sizeof megabyte);
    struct sse s = {0};
    struct err err = {0};
    char got[256] = "";
    int r = 0;
    for (int i = 0; !r && i < 32; i++)
        r = sse_feed(&s, megabyte, sizeof megabyte, collect, got, &err);
    assert_int_equal(r, ERR_LIMIT);
    sse_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_the_same_however_they_are_cut),
        cmocka_unit_test(lines_of_one_event_are_joined),
        cmocka_unit_test(what_is_not_data_is_passed_over),
        cmocka_unit_test(the_caller_ends_the_reading),
        cmocka_unit_test(an_endless_event_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
