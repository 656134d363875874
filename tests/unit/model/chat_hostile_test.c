/* Templates that are made to hurt: they never end, call themselves, grow without bound, share so
 * that walking them takes for ever, nest past any stack, count past 64 bits, or reach for what is
 * outside. Each ends with a result or in words, soon, and within the bounds of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/sanitizer.h"
#include "model/jinja.h"

#define SECONDS_MAX 60.0 /* of the processor: what no bound stops takes for ever */
#define STUCK_S     60

static const struct jinja_limits limits = {1000000, 64, 1 << 22};

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compile_and_render(const char *source, size_t n, struct err *err)
{
    struct jinja *t = NULL;
    char *text = NULL;
    size_t n_text = 0;
    json_t *words = json_pack("[{s:s,s:s}]", "role", "user", "content", "a b c");
    const struct jinja_var var = {"messages", words};
    int rc = jinja_compile(source, n, &t, err);
    if (rc == 0)
        rc = jinja_render(t, &var, 1, &limits, 0, &text, &n_text, err);
    if (rc == 0)
        assert_int_equal(strlen(text) <= n_text && n_text <= limits.bytes, 1);
    free(text);
    jinja_free(t);
    json_decref(words);
    return rc;
}

/* Returns the code; fails when it takes too long or has no words. */
static int outcome(const char *source, size_t n)
{
    struct err err = {0};
    double from = cpu_seconds();
    alarm(STUCK_S);
    int rc = compile_and_render(source, n, &err);
    alarm(0);
    double took = cpu_seconds() - from;
    if (took > SECONDS_MAX)
        fail_msg("%.100s took %.1f s: %d %s", source, took, rc, err.text);
    if (rc != 0 && err.text[0] == 0)
        fail_msg("%.100s: %d without words", source, rc);
    if (rc != 0 && rc != ERR_MODEL && rc != ERR_USAGE && rc != ERR_LIMIT)
        fail_msg("%.100s: %d %s", source, rc, err.text);
    return rc;
}

#define NS      "{% set ns = namespace(x='a', y=[1], n=1) %}"
#define DO(n)   "{% for i in range(" #n ") %}"
#define AGAIN   "{% endfor %}"
#define SQUARES DO(60) "{% set ns.y = [ns.y, ns.y] %}" AGAIN
#define DEEPER  DO(100000) "{% set ns.y = [ns.y] %}" AGAIN

/* What cannot end well within the bounds. */
static const char *const endless[] = {
    /* time */
    DO(100000000) AGAIN,
    DO(1000) DO(1000) DO(1000) DO(1000) AGAIN AGAIN AGAIN AGAIN,
    "{% for a in range(9223372036854775807) %}{% endfor %}",
    "{{ range(9223372036854775807) | list | length }}",
    "{{ range(100000000) | sum }}",
    "{% macro f(n) %}{% for i in range(9) %}{{ f(n + 1) }}{% endfor %}{% endmacro %}{{ f(0) }}",
    /* depth */
    "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
    /* size */
    DO(100000) "{{ 'a' * 1000 }}" AGAIN,
    "{{ 'a' * 10 ** 12 }}",
    "{{ 'a' * 1000000 * 1000000 }}",
    "{{ ('a' * 4000000) | replace('a', 'b' * 4000000) }}",
    "{{ ('a' * 1000000) | replace('', 'b' * 1000000) }}",
    "{{ ('a' * 3000000).join(['', '', '', '', '', '']) }}",
    "{{ 'a' | center(1000000000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%1000000000s|%.1000000000f' | format('a', 1.5) }}",
    "{{ '{:>1000000000}'.format('a') }}",
    "{{ ('a\n' * 1000000) | indent(1000000) }}",
    "{{ messages | tojson(indent=1000000000) }}",
    "{{ [1] * 10 ** 12 }}",
    "{{ ([1] * 1000000) * 1000000 }}",
    "{{ range(10 ** 9) | list }}",
    NS DO(60) "{% set ns.x = ns.x + ns.x %}" AGAIN "{{ ns.x | length }}",
    NS DO(60) "{% set ns.x = ns.x ~ ns.x %}" AGAIN "{{ ns.x | length }}",
    NS DO(60) "{% set ns.y = ns.y + ns.y %}" AGAIN "{{ ns.y | length }}",
    NS DO(60) "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}" AGAIN "{{ ns.x | length }}",
    /* few values, walked along exponentially many paths */
    NS SQUARES "{{ ns.y }}",
    NS SQUARES "{{ ns.y | tojson }}",
    NS SQUARES "{{ ns.y | string | length }}",
    NS SQUARES "{% set z = ns.y %}" NS SQUARES "{{ z == ns.y }}",
    NS SQUARES "{% set z = ns.y %}" NS SQUARES "{{ z < ns.y }}",
    NS SQUARES "{% set z = ns.y %}" NS SQUARES "{{ z in [ns.y] }}",
};

/* What may end either way. */
static const char *const any_end[] = {
    NS DEEPER "{{ ns.y }}",
    NS DEEPER "{{ ns.y | tojson }}",
    NS DEEPER "{% set z = ns.y %}" NS DEEPER "{{ z == ns.y }}",
    NS DEEPER "{{ ns.y is sequence }}",
    NS DO(100000) "{% set ns.y = {'a': ns.y} %}" AGAIN "{{ ns.y | tojson }}",
    /* numbers */
    "{{ 10 ** 10 ** 10 }}",
    "{{ 2 ** 63 }}",
    "{{ -9223372036854775807 - 2 }}",
    "{{ (-9223372036854775807 - 1) // -1 }}",
    "{{ (-9223372036854775807 - 1) % -1 }}",
    "{{ -(-9223372036854775807 - 1) }}",
    "{{ (-9223372036854775807 - 1) | abs }}",
    "{{ 9223372036854775807 * 9223372036854775807 }}",
    "{{ 1 // 0 }}",
    "{{ 1 % 0 }}",
    "{{ 1 / 0 }}",
    "{{ 0 ** -1 }}",
    "{{ 1e308 * 10 }}",
    "{{ (1e308 * 10) | int }}",
    "{{ (1e308 * 10 - 1e308 * 10) | int }}",
    "{{ 99999999999999999999999999 }}",
    "{{ '9' * 100000 | int }}",
    "{{ ('9' * 100000) | int }}",
    "{{ ('9' * 100000) | float }}",
    "{{ 1.5 | round(9223372036854775807) }}",
    "{{ 1.5 | round(-9223372036854775807) }}",
    "{{ 10 | round(-400) }}",
    "{{ 'a'[9223372036854775807] }}{{ 'a'[-9223372036854775807 - 1] }}",
    "{{ 'abc'[::0] }}",
    "{{ 'abc'[::-9223372036854775807 - 1] }}",
    "{{ 'abc'[-9223372036854775807 - 1:9223372036854775807:9223372036854775807] }}",
    "{{ range(0, 10, 0) | list }}",
    "{{ range(9223372036854775807, -9223372036854775807 - 1, -9223372036854775807 - 1) | list }}",
    "{{ range(-9223372036854775807, 9223372036854775807) | length }}",
    "{{ 'a b' | truncate(-1) }}{{ 'a b' | truncate(9223372036854775807) }}",
    "{{ 'a b' | wordwrap(0) }}{{ 'a b' | wordwrap(-5) }}",
    "{{ [1, 2, 3] | batch(0) | list }}{{ [1, 2, 3] | slice(0) | list }}",
    "{{ [1, 2, 3] | batch(9223372036854775807, 'x') | list }}",
    "{{ [1, 2, 3] | slice(9223372036854775807) | list }}",
    "{{ 'a'.zfill(9223372036854775807) }}",
    "{{ 'a'.ljust(-9223372036854775807 - 1) }}",
    "{{ 'a' * -9223372036854775807 }}",
    "{{ '%*d' % (9, 1) }}{{ '%(a)s' % {'a': 1} }}{{ '%s' % () }}",
    "{{ '%c' % 1114112 }}{{ '%c' % -1 }}{{ '%c' % 55296 }}",
    "{{ '{0.__class__}{1[a]}{'.format(1, {'a': 1}) }}",
    "{{ '\\ud800' }}{{ '\\U00110000' }}{{ '\\x' }}{{ '\\N{DIGIT ONE}' }}",
    "{{ strftime_now('%' * 100000) }}",
    "{{ strftime_now('%c' * 1000000) | length }}",
    "{{ strftime_now('%9999999999Y') }}",
    "{{ lipsum(9223372036854775807) }}",
    "{{ cycler() }}{{ cycler().next() }}{{ joiner(1)() }}",
    "{{ ('a' * 1000000).split('a') | length }}",
    "{{ 'a'.split('') }}",
    "{{ 'aaaa'.replace('a', 'b', -9223372036854775807) }}",
    "{{ messages | map(attribute='a.b.c.d') | list }}{{ messages | map('nofilter') | list }}",
    "{{ messages | sort(attribute='x') | list }}{{ [1, 'a', none] | sort }}",
    "{{ messages | groupby('content') | list }}{{ messages | selectattr('x', 'eq') | list }}",
    "{{ messages | sum(attribute='role') }}",
    "{{ messages[0].update({'role': 1}) }}{{ messages.append(1) }}{{ messages.clear() }}",
    "{{ self }}{{ self.x() }}{{ loop }}{{ caller() }}{{ varargs }}",
    "{% for a in messages %}{{ loop(messages) }}{% endfor %}",
    "{% for a in a %}{{ a }}{% else %}{{ loop.index }}{% endfor %}",
    "{% set ns = namespace() %}{% set ns.ns = ns %}{{ ns }}{{ ns.ns.ns.ns == ns }}",
    "{% set d = {} %}{% set _ = d.update(a=d) %}{{ d | tojson }}{{ d }}",
    "{% set d = [] %}{% set _ = d.append(d) %}{{ d | tojson }}{{ d }}{{ d == d }}",
    /* reaching out */
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ namespace.__init__ }}{{ messages.__class__ }}{{ raise_exception.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends messages %}",
    "{{ open('/etc/passwd') }}{{ eval('1') }}{{ config }}{{ request }}",
    /* no sense */
    "{{",
    "{%",
    "{#",
    "{{ }}",
    "{% %}",
    "{{ '",
    "{{ \"\\",
    "{% raw %}",
    "{% if %}",
    "{% endfor %}",
    "{% for %}",
    "{% for a in %}",
    "{% macro %}",
    "{% set %}",
    "{% set a.b = 1 %}",
    "{{ a | }}",
    "{{ a is }}",
    "{{ a. }}",
    "{{ a[ }}",
    "{{ (}}",
    "{{ 1 if }}",
    "{{ a b }}",
    "{% else %}",
    "{% call f() %}{% endcall %}",
    "{% call f(a, a) %}{% endcall %}",
    "{% macro f(a=1, b) %}{% endmacro %}",
    "{% filter nofilter %}{% endfilter %}",
    "{{ f(**1) }}",
    "{{ f(*1) }}",
    "{{ f(a=1, 2) }}",
    "{{ 1 = 2 }}",
    "{{ - }}",
    "{{ not }}",
    "{{ ~ }}",
    "{% break %}",
    "{% continue %}",
    "\xff{{ '\xff' }}",
};

static void what_does_not_end_is_ended(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof endless / sizeof *endless; i++)
        if (outcome(endless[i], strlen(endless[i])) == 0)
            fail_msg("%.100s is within the bounds", endless[i]);
}

static void what_is_odd_ends_in_words_or_well(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof any_end / sizeof *any_end; i++)
        outcome(any_end[i], strlen(any_end[i]));
}

/* ---- deep and long sources ------------------------------------------------------------------- */

static void repeat(char **to, const char *piece, size_t n)
{
    size_t k = strlen(piece);
    for (size_t i = 0; i < n; i++, *to += k)
        memcpy(*to, piece, k);
}

/* head, n times piece, middle, n times close, tail. */
static void nested(const char *head, const char *piece, const char *middle, const char *close,
                   const char *tail, size_t n)
{
    size_t size =
        strlen(head) + n * (strlen(piece) + strlen(close)) + strlen(middle) + strlen(tail);
    char *source = malloc(size + 1), *to = source;
    assert_non_null(source);
    repeat(&to, head, 1);
    repeat(&to, piece, n);
    repeat(&to, middle, 1);
    repeat(&to, close, n);
    repeat(&to, tail, 1);
    *to = 0;
    outcome(source, size);
    free(source);
}

static void deep_sources_do_not_reach_the_end_of_the_stack(void **state)
{
    (void)state;
    static const char *const shape[][5] = {
        {"{{ ", "(", "1", ")", " }}"},
        {"{{ ", "[", "1", "]", " }}"},
        {"{{ ", "{'a': ", "1", "}", " }}"},
        {"{{ ", "f(", "1", ")", " }}"},
        {"{{ ", "a[", "1", "]", " }}"},
        {"{{ ", "not ", "1", "", " }}"},
        {"{{ ", "-", "1", "", " }}"},
        {"{{ ", "- -", "1", "", " }}"},
        {"{{ ", "1 ** ", "1", "", " }}"},
        {"{{ ", "1 if ", "1", " else 1", " }}"},
        {"{{ ", "1 if 1 else ", "1", "", " }}"},
        {"{{ 1", " + 1", "", "", " }}"},
        {"{{ 1", " ~ 1", "", "", " }}"},
        {"{{ 1", " and 1", "", "", " }}"},
        {"{{ 1", " or 0", "", "", " }}"},
        {"{{ 1", " < 2", "", "", " }}"},
        {"{{ 'a'", " 'a'", "", "", " }}"},
        {"{{ a", ".b", "", "", " }}"},
        {"{{ a", "[0]", "", "", " }}"},
        {"{{ a", "()", "", "", " }}"},
        {"{{ 'a'", "|upper", "", "", " }}"},
        {"{{ 'a'", " is string", "", "", " }}"},
        {"{{ f(", "1,", "", "", ") }}"},
        {"{{ [", "1,", "", "", "] }}"},
        {"{{ {", "'a': 1,", "", "", "} }}"},
        {"{{ f(", "a=1,", "", "", ") }}"},
        {"", "{% if 1 %}", "x", "{% endif %}", ""},
        {"{% if 0 %}", "{% elif 0 %}", "", "", "{% endif %}"},
        {"", "{% if 0 %}{% else %}", "x", "{% endif %}", ""},
        {"", "{% for a in [1] %}", "x", "{% endfor %}", ""},
        {"", "{% macro f() %}", "x", "{% endmacro %}", ""},
        {"", "{% set a %}", "x", "{% endset %}", ""},
        {"", "{% filter upper %}", "x", "{% endfilter %}", ""},
        {"", "{% call f() %}", "x", "{% endcall %}", ""},
        {"", "{% set a = 1 %}", "", "", ""},
        {"", "{{ 1 }}", "", "", ""},
        {"", "{# #}", "", "", ""},
        {"", "{#", "", "#}", ""},
        {"{{ '", "\\\\", "", "", "' }}"},
        {"{{ ", "a", "", "", " }}"},
        {"{{ ", "9", "", "", " }}"},
        {"{% set ", "a, ", "b", "", " = 1 %}"},
        {"{% for ", "(", "a", ")", " in 1 %}{% endfor %}"},
    };
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (size_t n = 30; n <= 300000; n *= 100) {
            const char *const *s = shape[i];
            nested(s[0], s[1], s[2], s[3], s[4], n);
        }
}

static void all_of_it_took_bounded_memory(void **state)
{
    (void)state;
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
#if !SANITIZER
    assert_true(use.ru_maxrss < 512 * 1024);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_end_is_ended),
        cmocka_unit_test(what_is_odd_ends_in_words_or_well),
        cmocka_unit_test(deep_sources_do_not_reach_the_end_of_the_stack),
        cmocka_unit_test(all_of_it_took_bounded_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
