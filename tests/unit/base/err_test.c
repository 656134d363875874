/* err: the first failure is the one that is told, and every code has an exit status. */
#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void err_set_formats_and_returns_the_code(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, ERR_MODEL, "layer %d of %s", 3, "x"), ERR_MODEL);
    assert_int_equal(err.code, ERR_MODEL);
    assert_string_equal(err.text, "layer 3 of x");
}

static void err_set_keeps_the_first_text(void **state)
{
    (void)state;
    struct err err = {0};
    err_set(&err, ERR_IO, "first");
    assert_int_equal(err_set(&err, ERR_NET, "second"), ERR_NET);
    assert_int_equal(err.code, ERR_IO);
    assert_string_equal(err.text, "first");
    err_clear(&err);
    assert_int_equal(err.code, ERR_OK);
    assert_string_equal(err.text, "");
}

static void err_set_without_a_reader_returns_the_code(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, ERR_GONE, "nobody reads this"), ERR_GONE);
    assert_int_equal(err_sys(NULL, ERR_IO, "nor this"), ERR_IO);
    err_clear(NULL);
}

static void err_sys_appends_the_reason(void **state)
{
    (void)state;
    struct err err = {0};
    errno = ENOENT;
    assert_int_equal(err_sys(&err, ERR_IO, "open %s", "/no"), ERR_IO);
    assert_string_equal(err.text, "open /no: No such file or directory");
    assert_int_equal(errno, ENOENT);
}

static void err_set_cuts_a_long_text(void **state)
{
    (void)state;
    struct err err = {0};
    char longer[2 * sizeof(err.text)];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    err_set(&err, ERR_USAGE, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    err_clear(&err);
    errno = ENOENT;
    err_sys(&err, ERR_USAGE, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void err_exit_code_maps_every_code(void **state)
{
    (void)state;
    static const int expected[] = {0, 2, 3, 3, 4, 4, 1, 1, 1, 4, 4};
    for (int code = ERR_OK; code >= ERR_TIMEOUT; code--)
        assert_int_equal(err_exit_code(code), expected[-code]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_set_formats_and_returns_the_code),
        cmocka_unit_test(err_set_keeps_the_first_text),
        cmocka_unit_test(err_set_without_a_reader_returns_the_code),
        cmocka_unit_test(err_sys_appends_the_reason),
        cmocka_unit_test(err_set_cuts_a_long_text),
        cmocka_unit_test(err_exit_code_maps_every_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
