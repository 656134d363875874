/* log: a line is whole, carries its level, and cannot steer a terminal. stderr goes to a file. */
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char captured[16384];

static int capture_start(FILE *file)
{
    int saved = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    return saved;
}

static void capture_end(FILE *file, int saved)
{
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    size_t n = fread(captured, 1, sizeof(captured) - 1, file);
    captured[n] = '\0';
    fclose(file);
}

static void log_captured(enum log_level level, const char *fact)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    int saved = capture_start(file);
    log_line(level, "pool", "%s", fact);
    capture_end(file, saved);
}

static void log_line_has_time_level_room_and_fact(void **state)
{
    (void)state;
    log_set_level(LOG_INFO);
    log_captured(LOG_WARN, "worker gone id=3");
    int year, month, day, hour, minute, second, ms, end = 0;
    assert_int_equal(sscanf(captured, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour,
                            &minute, &second, &ms, &end),
                     7);
    assert_true(end > 0);
    assert_string_equal(captured + end, " warn  pool worker gone id=3\n");
}

static void log_line_obeys_the_level(void **state)
{
    (void)state;
    log_set_level(LOG_WARN);
    assert_int_equal(log_level_get(), LOG_WARN);
    log_captured(LOG_INFO, "unseen");
    assert_string_equal(captured, "");
    log_captured(LOG_ERROR, "seen");
    assert_non_null(strstr(captured, "error pool seen\n"));
}

static void log_line_escapes_what_could_steer_a_terminal(void **state)
{
    (void)state;
    static const struct {
        const char *fact, *shown;
    } cases[] = {
        {"a\033[2Jb", "a\\x1b[2Jb"},
        {"two\nlines", "two\\nlines"},
        {"tab\tdel\x7f", "tab\\x09del\\x7f"},
        {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
         "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"c1 \xc2\x9b", "c1 \\xc2\\x9b"},
        {"raw \x9b\xff", "raw \\x9b\\xff"},
        {"overlong \xc0\x9b", "overlong \\xc0\\x9b"},
        {"overlong \xe0\x80\x9b", "overlong \\xe0\\x80\\x9b"},
        {"surrogate \xed\xa0\x80", "surrogate \\xed\\xa0\\x80"},
        {"cut \xe2\x82", "cut \\xe2\\x82"},
        {"above \xf4\x90\x80\x80", "above \\xf4\\x90\\x80\\x80"},
    };
    log_set_level(LOG_INFO);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char expected[256];
        snprintf(expected, sizeof(expected), " info  pool %s\n", cases[i].shown);
        log_captured(LOG_INFO, cases[i].fact);
        const char *at = strstr(captured, " info");
        assert_non_null(at);
        assert_string_equal(at, expected);
    }
}

static void log_line_cuts_a_long_fact_but_ends_it(void **state)
{
    (void)state;
    static char fact[8000];
    for (int kind = 0; kind < 2; kind++) {
        memset(fact, kind ? '\001' : 'x', sizeof(fact) - 1);
        log_captured(LOG_INFO, fact);
        size_t n = strlen(captured);
        assert_in_range(n, 2000, 4608);
        assert_int_equal(captured[n - 1], '\n');
        assert_ptr_equal(strchr(captured, '\n'), captured + n - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_line_has_time_level_room_and_fact),
        cmocka_unit_test(log_line_obeys_the_level),
        cmocka_unit_test(log_line_escapes_what_could_steer_a_terminal),
        cmocka_unit_test(log_line_cuts_a_long_fact_but_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
