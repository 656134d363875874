/* Stop strings over text that comes in pieces: nothing of one is ever shown, nothing else is kept.
 */
#include "coordinator/stops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Feeds text in pieces; what was released is in out. Returns the stop that ended it, or -1. */
static int feed(const char *const *stop, int n_stop, int include, const char *text, size_t piece,
                char *out)
{
    struct stops s;
    size_t n, at = 0, used = 0, total = strlen(text);
    int hit = -1;
    assert_int_equal(stops_init(&s, stop, n_stop, include, NULL), 0);
    for (; hit < 0 && at < total; at += piece) {
        hit = stops_push(&s, text + at, total - at < piece ? total - at : piece);
        const char *p = stops_released(&s, &n);
        memcpy(out + used, p, n);
        used += n;
    }
    if (hit < 0) {
        stops_flush(&s);
        const char *p = stops_released(&s, &n);
        memcpy(out + used, p, n);
        used += n;
    }
    out[used] = 0;
    stops_fini(&s);
    return hit;
}

static void expect(const char *const *stop, int n_stop, int include, const char *text,
                   const char *want, int want_hit)
{
    char out[256];
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        assert_int_equal(feed(stop, n_stop, include, text, piece, out), want_hit);
        assert_string_equal(out, want);
    }
}

static void text_ends_before_the_stop_that_begins_first(void **state)
{
    (void)state;
    expect((const char *[]){"lo w"}, 1, 0, "hello world", "hel", 0);
    expect((const char *[]){"world", "lo"}, 2, 0, "hello", "hel", 1);
    expect((const char *[]){"aab"}, 1, 0, "aaaab", "aa", 0);
    expect((const char *[]){"\n\n"}, 1, 0, "a\nb\n\nc", "a\nb", 0);
}

static void the_stop_is_kept_when_asked_for(void **state)
{
    (void)state;
    expect((const char *[]){"lo w"}, 1, 1, "hello world", "hello w", 0);
}

static void what_only_began_one_comes_in_the_end(void **state)
{
    (void)state;
    expect((const char *[]){"lo wrld"}, 1, 0, "hello world", "hello world", -1);
    expect((const char *[]){"end."}, 1, 0, "the end", "the end", -1);
    expect(NULL, 0, 0, "the end", "the end", -1);
}

static void what_passes_is_not_looked_at(void **state)
{
    (void)state;
    struct stops s;
    size_t n;
    assert_int_equal(stops_init(&s, (const char *[]){"ab"}, 1, 0, NULL), 0);
    stops_pass(&s, "xab", 3);
    assert_memory_equal(stops_released(&s, &n), "xab", 3);
    assert_int_equal(n, 3);
    stops_pass(&s, "a", 1);
    /* What passed before is no beginning either. */
    assert_int_equal(stops_push(&s, "b", 1), -1);
    assert_memory_equal(stops_released(&s, &n), "b", 1);
    assert_int_equal(stops_push(&s, "ab", 2), 0);
    stops_released(&s, &n);
    assert_int_equal(n, 0);
    stops_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_ends_before_the_stop_that_begins_first),
        cmocka_unit_test(the_stop_is_kept_when_asked_for),
        cmocka_unit_test(what_only_began_one_comes_in_the_end),
        cmocka_unit_test(what_passes_is_not_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
