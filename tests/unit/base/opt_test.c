/* opt: every way of writing an option, every mistake with its text, the help page, and id lists. */
#include "base/opt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct values {
    int verbose;
    int64_t n, size;
    double temperature;
    const char *model;
};

static int parse_into(struct values *v, const char *const *argv, const char **positional, int *n,
                      struct err *err)
{
    const struct opt opts[] = {
        {"verbose", 'v', OPT_FLAG, &v->verbose, NULL, "say more", 0, 0},
        {"workers", 'n', OPT_INT, &v->n, "N", "how many\ndefault 1", 1, 64},
        {"temperature", 0, OPT_FLOAT, &v->temperature, "T", "of the sampler", 0, 2},
        {"model", 'm', OPT_STR, &v->model, "DIR", "the checkpoint", 0, 0},
        {"a-rather-long-option-name", 0, OPT_SIZE, &v->size, "SIZE", "memory", 0, 0},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL, 0, 0},
    };
    const struct opt_command cmd = {"test", "sigmoe test [options] FILE", "About.", opts};
    int argc = 0;
    while (argv[argc])
        argc++;
    err_clear(err);
    return opt_parse(&cmd, argc, (char **)(uintptr_t)argv, positional, n, err);
}

#define PARSE(...)                                                                                 \
    parse_into(&v, (const char *const[]){"test", __VA_ARGS__, NULL}, positional, &n, &err)

static void opt_parse_reads_every_spelling(void **state)
{
    (void)state;
    struct values v = {0};
    struct err err = {0};
    const char *positional[2];
    int n = 2;
    assert_int_equal(PARSE("-v", "--workers=8", "a", "--temperature", "0.5", "-mdir", "--", "-b"),
                     0);
    assert_int_equal(v.verbose, 1);
    assert_int_equal(v.n, 8);
    assert_true(v.temperature == 0.5);
    assert_string_equal(v.model, "dir");
    assert_int_equal(n, 2);
    assert_string_equal(positional[0], "a");
    assert_string_equal(positional[1], "-b");
    n = 2;
    assert_int_equal(PARSE("-vn", "3", "--model=", "-"), 0);
    assert_int_equal(v.n, 3);
    assert_string_equal(v.model, "");
    assert_int_equal(n, 1);
    assert_string_equal(positional[0], "-");
}

static void opt_parse_reads_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes;
    } cases[] = {{"0", 0},       {"17", 17},          {"64M", 64 << 20}, {"2G", 2ll << 30},
                 {"1.5k", 1536}, {"3TiB", 3ll << 40}, {"1KB", 1024},     {"8B", 8}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct values v = {.size = -1};
        struct err err = {0};
        const char *positional[1];
        int n = 1;
        assert_int_equal(PARSE("--a-rather-long-option-name", cases[i].text), 0);
        assert_true(v.size == cases[i].bytes);
    }
}

static void opt_parse_refuses_mistakes_in_words(void **state)
{
    (void)state;
    static const struct {
        const char *argv[4], *text;
    } cases[] = {
        {{"test", "--workesr", "2"}, "unknown option --workesr; did you mean --workers?"},
        {{"test", "--zzz"}, "unknown option --zzz; see sigmoe test --help"},
        {{"test", "-x"}, "unknown option -x; see sigmoe test --help"},
        {{"test", "--workers"}, "--workers needs a value: --workers N"},
        {{"test", "--workers", "two"}, "--workers two: expected a whole number"},
        {{"test", "--workers", "2x"}, "--workers 2x: expected a whole number"},
        {{"test", "--workers", "99999999999999999999"},
         "--workers 99999999999999999999: expected a whole number"},
        {{"test", "--workers", "65"}, "--workers 65 is out of range; it must be from 1 to 64"},
        {{"test", "--workers", "0"}, "--workers 0 is out of range; it must be from 1 to 64"},
        {{"test", "--temperature", "nan"}, "--temperature nan: expected a number"},
        {{"test", "--temperature", "3"}, "--temperature 3 is out of range; it must be from 0 to 2"},
        {{"test", "--a-rather-long-option-name", "-1"},
         "--a-rather-long-option-name -1: expected a size such as 512M or 2G"},
        {{"test", "--a-rather-long-option-name", "1X"},
         "--a-rather-long-option-name 1X: expected a size such as 512M or 2G"},
        {{"test", "--a-rather-long-option-name", "9999999T"},
         "--a-rather-long-option-name 9999999T: more than 4 EiB"},
        {{"test", "--verbose=1"}, "--verbose takes no value, got '1'"},
        {{"test", "a", "b"}, "unexpected argument 'b'; usage: sigmoe test [options] FILE"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct values v = {0};
        struct err err = {0};
        const char *positional[1];
        int n = 1;
        assert_int_equal(parse_into(&v, cases[i].argv, positional, &n, &err), ERR_USAGE);
        assert_string_equal(err.text, cases[i].text);
        assert_int_equal(v.n, 0);
        assert_true(v.temperature == 0);
    }
}

static void opt_help_prints_one_aligned_page(void **state)
{
    (void)state;
    static const char expected[] = "usage: sigmoe test [options] FILE\n\nAbout.\n\noptions:\n"
                                   "  -v, --verbose               say more\n"
                                   "  -n, --workers N             how many\n"
                                   "                              default 1\n"
                                   "      --temperature T         of the sampler\n"
                                   "  -m, --model DIR             the checkpoint\n"
                                   "      --a-rather-long-option-name SIZE\n"
                                   "                              memory\n"
                                   "  -h, --help                  print this page\n";
    char page[2048];
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    struct values v = {0};
    struct err err = {0};
    int n = 0;
    int rc = parse_into(&v, (const char *const[]){"test", "--help", NULL}, NULL, &n, &err);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(file);
    size_t bytes = fread(page, 1, sizeof(page) - 1, file);
    page[bytes] = '\0';
    fclose(file);
    assert_int_equal(rc, 1);
    assert_string_equal(page, expected);
}

static void opt_nearest_finds_small_slips_only(void **state)
{
    (void)state;
    static const char *const names[] = {"worker", "run", "inspect", "synth", NULL};
    assert_string_equal(opt_nearest("wroker", names), "worker");
    assert_string_equal(opt_nearest("inpsect", names), "inspect");
    assert_string_equal(opt_nearest("ru", names), "run");
    assert_string_equal(opt_nearest("synthh", names), "synth");
    assert_null(opt_nearest("serve", names));
    assert_null(opt_nearest("", names));
    char longer[4000];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_null(opt_nearest(longer, names));
}

static void opt_parse_ids_reads_lists_and_ranges(void **state)
{
    (void)state;
    static const int32_t expected[] = {4, 5, 6, 0, 9};
    struct err err = {0};
    int32_t out[8];
    assert_int_equal(opt_parse_ids("4-6,0,9", 10, out, 8, &err), 5);
    assert_memory_equal(out, expected, sizeof(expected));
    assert_int_equal(opt_parse_ids("7", 8, out, 1, &err), 1);
    assert_int_equal(out[0], 7);
}

static void opt_parse_gathers_an_option_given_many_times(void **state)
{
    (void)state;
    struct opt_strs texts = {0};
    struct err err = {0};
    const struct opt opts[] = {{"text", 't', OPT_STRS, &texts, "FILE", "a text", 0, 0}, {0}};
    const struct opt_command cmd = {"test", "sigmoe test", "About.", opts};
    char word[] = "test", spelt[] = "--text=a", apart[] = "--text", b[] = "b", small[] = "-tc";
    char *argv[] = {word, spelt, apart, b, small, NULL};
    assert_int_equal(opt_parse(&cmd, 5, argv, NULL, NULL, &err), 0);
    assert_int_equal(texts.n, 3);
    assert_string_equal(texts.at[0], "a");
    assert_string_equal(texts.at[1], "b");
    assert_string_equal(texts.at[2], "c");
    texts.n = OPT_STRS_MAX;
    assert_int_equal(opt_parse(&cmd, 2, argv, NULL, NULL, &err), ERR_USAGE);
    assert_string_equal(err.text, "--text is given more than 64 times");
}

static void opt_parse_ids_refuses_mistakes_in_words(void **state)
{
    (void)state;
    static const struct {
        const char *list, *text;
    } cases[] = {
        {"", "'' is no list of ids at byte 0; write it like 0-15,32-47,60"},
        {"1,", "'1,' is no list of ids at byte 2; write it like 0-15,32-47,60"},
        {"1-", "'1-' is no list of ids at byte 2; write it like 0-15,32-47,60"},
        {"-1", "'-1' is no list of ids at byte 0; write it like 0-15,32-47,60"},
        {"1 2", "'1 2' is no list of ids at byte 1; write it like 0-15,32-47,60"},
        {"99999999999", "'99999999999' is no list of ids at byte 0; write it like 0-15,32-47,60"},
        {"5-3", "range 5-3 in '5-3' runs backwards"},
        {"3,10", "id 10 in '3,10' is too large; ids run from 0 to 9"},
        {"3,1-4", "id 3 is named twice in '3,1-4'"},
        {"0-8", "more than 8 ids in '0-8'"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = {0};
        int32_t out[8];
        assert_int_equal(opt_parse_ids(cases[i].list, 10, out, 8, &err), ERR_USAGE);
        assert_string_equal(err.text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opt_parse_reads_every_spelling),
        cmocka_unit_test(opt_parse_reads_sizes),
        cmocka_unit_test(opt_parse_refuses_mistakes_in_words),
        cmocka_unit_test(opt_parse_gathers_an_option_given_many_times),
        cmocka_unit_test(opt_help_prints_one_aligned_page),
        cmocka_unit_test(opt_nearest_finds_small_slips_only),
        cmocka_unit_test(opt_parse_ids_reads_lists_and_ranges),
        cmocka_unit_test(opt_parse_ids_refuses_mistakes_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
