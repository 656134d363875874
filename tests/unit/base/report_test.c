/* report: figures as people read them, at the steps between units, and a bar that stays silent
 * where nobody watches. */
#include "base/clock.h"
#include "base/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

struct figure {
    double value;
    const char *text;
};

static void check(char *(*human)(double, char *, size_t), const struct figure *figures, size_t n)
{
    char out[32];
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(human(figures[i].value, out, sizeof(out)), out);
        assert_string_equal(out, figures[i].text);
    }
}

static void human_bytes_steps_by_1024(void **state)
{
    (void)state;
    static const struct figure figures[] = {
        {0, "0 B"},           {512, "512 B"},          {1023, "1023 B"},  {1024, "1.0 KiB"},
        {1048575, "1.0 MiB"}, {1288490189, "1.2 GiB"}, {5e12, "4.5 TiB"}, {2e18, "1776.4 PiB"},
    };
    check(human_bytes, figures, sizeof(figures) / sizeof(figures[0]));
}

static void human_ns_steps_to_hours(void **state)
{
    (void)state;
    static const struct figure figures[] = {
        {0, "0 ns"},         {999, "999 ns"},  {1500, "1.5 us"},   {3.4e6, "3.4 ms"},
        {999.96e6, "1.0 s"}, {90e9, "90.0 s"}, {150e9, "2.5 min"}, {5400e9, "1.5 h"},
    };
    check(human_ns, figures, sizeof(figures) / sizeof(figures[0]));
}

static void human_count_steps_by_1000(void **state)
{
    (void)state;
    static const struct figure figures[] = {
        {0, "0"},           {999, "999"},       {1000, "1.00 K"},     {260032, "260.03 K"},
        {999999, "1.00 M"}, {6.92e9, "6.92 B"}, {1.085e12, "1.08 T"},
    };
    check(human_count, figures, sizeof(figures) / sizeof(figures[0]));
}

static void progress_is_silent_where_stderr_is_no_terminal(void **state)
{
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    int saved = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    struct progress p;
    progress_start(&p, "packing", 100);
    progress_add(&p, 60);
    progress_add(&p, 40);
    progress_end(&p);
    dup2(saved, STDERR_FILENO);
    close(saved);
    fseek(file, 0, SEEK_END);
    assert_int_equal(ftell(file), 0);
    fclose(file);
    assert_int_equal(p.done, 100);
    assert_int_equal(p.shown, 0);
}

static int64_t fixed_now_ns(void *self)
{
    return *(int64_t *)self;
}

static void clock_is_an_interface_and_the_real_one_goes_forward(void **state)
{
    (void)state;
    int64_t at = 42;
    struct clock simulated = {fixed_now_ns, &at};
    assert_int_equal(clock_now(&simulated), 42);
    int64_t a = clock_now(&clock_real), b = clock_now(&clock_real);
    assert_true(a > 0 && b >= a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(human_bytes_steps_by_1024),
        cmocka_unit_test(human_ns_steps_to_hours),
        cmocka_unit_test(human_count_steps_by_1000),
        cmocka_unit_test(progress_is_silent_where_stderr_is_no_terminal),
        cmocka_unit_test(clock_is_an_interface_and_the_real_one_goes_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
