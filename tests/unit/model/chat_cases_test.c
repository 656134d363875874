/* Small templates, one feature each, against what Jinja2 gives for them
 * (tests/suite/chat/cases.json, made by tools/fixtures/chat_make.py). With --render FILE the
 * program renders the templates of a file of that form and prints the outcomes, for
 * tests/suite/chat/differential.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <time.h>

#include "chat_fixture.h"
#include "model/jinja.h"

#define CASES_FILE TESTS_DIR "/suite/chat/cases.json"

static const struct jinja_limits limits = {1000000, 64, 1 << 22};

/* outcome: {"text"}, {"error"} or {"syntax"}, as the fixture has it. */
static json_t *outcome(const char *source, size_t n_bytes, const json_t *vars, int64_t now)
{
    struct jinja *t = NULL;
    struct err err = {0};
    int rc = jinja_compile(source, n_bytes, &t, &err);
    if (rc)
        return json_pack("{ss si}", "syntax", err.text, "code", rc);
    struct jinja_var v[64];
    size_t n_var = 0, n = 0;
    char *text = NULL;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vars, name, value)
    {
        if (n_var < 64)
            v[n_var++] = (struct jinja_var){name, value};
    }
    rc = jinja_render(t, v, n_var, &limits, now, &text, &n, &err);
    json_t *out = rc ? json_pack("{ss si}", "error", fixture_words(&err), "code", rc)
                     : json_pack("{ss%}", "text", text, n);
    free(text);
    jinja_free(t);
    return out;
}

static int check(const json_t *one, const json_t *fixture)
{
    const json_t *source = json_object_get(one, "template");
    json_t *got = outcome(json_string_value(source), json_string_length(source),
                          json_object_get(fixture, "vars"),
                          json_integer_value(json_object_get(fixture, "now")));
    static const char *const kinds[] = {"text", "error", "syntax"};
    int bad = 1;
    for (int k = 0; k < 3; k++) {
        const json_t *want = json_object_get(one, kinds[k]), *have = json_object_get(got, kinds[k]);
        if (!want)
            continue;
        bad = !have || (k < 2 && fixture_differs(json_string_value(source), json_string_value(want),
                                                 json_string_length(want), json_string_value(have),
                                                 json_string_length(have)));
        if (k == 2 && have && json_integer_value(json_object_get(got, "code")) != ERR_MODEL)
            bad = 1;
        if (!have) {
            char *dump = json_dumps(got, JSON_COMPACT);
            fprintf(stderr, "%s\n  Jinja2: %s: %s\n  here: %s\n", json_string_value(source),
                    kinds[k], json_string_value(want), dump);
            free(dump);
        }
    }
    json_decref(got);
    return bad;
}

static void small_templates_give_what_jinja2_gives(void **state)
{
    (void)state;
    json_t *fixture = fixture_load(CASES_FILE), *cases = json_object_get(fixture, "cases");
    size_t n = json_array_size(cases);
    int bad = 0;
    assert_true(n >= 60);
    for (size_t i = 0; i < n; i++)
        bad += check(json_array_get(cases, i), fixture);
    print_message("%zu of %zu templates equal to Jinja2\n", n - (size_t)bad, n);
    json_decref(fixture);
    assert_int_equal(bad, 0);
}

static void what_is_outside_the_subset_is_refused_with_its_place(void **state)
{
    (void)state;
    json_t *fixture = fixture_load(CASES_FILE), *sources = json_object_get(fixture, "unsupported");
    assert_true(json_array_size(sources) > 0);
    for (size_t i = 0; i < json_array_size(sources); i++) {
        struct err err = {0};
        struct jinja *t = NULL;
        const json_t *source = json_array_get(sources, i);
        int rc = jinja_compile(json_string_value(source), json_string_length(source), &t, &err);
        if (rc != ERR_MODEL || !strstr(err.text, "line 1, column "))
            fail_msg("%s: code %d, %s", json_string_value(source), rc, err.text);
        assert_null(t);
    }
    json_decref(fixture);
}

static void an_error_says_where_it_is(void **state)
{
    (void)state;
    struct jinja *t = NULL;
    struct err err = {0};
    static const char source[] = "a\n{% if x %}\n  {{ é $ }}\n{% endif %}";
    assert_int_equal(jinja_compile(source, strlen(source), &t, &err), ERR_MODEL);
    assert_string_equal(err.text, "chat template, line 3, column 8: unexpected char '$'");
    static const char raises[] = "a\n\n{{ 'x' ~\n raise_exception('no') }}";
    char *text = NULL;
    size_t n;
    err_clear(&err);
    assert_int_equal(jinja_compile(raises, strlen(raises), &t, &err), 0);
    assert_int_equal(jinja_render(t, NULL, 0, &limits, 0, &text, &n, &err), ERR_USAGE);
    assert_string_equal(err.text, "chat template, line 4: no");
    assert_null(text);
    jinja_free(t);
}

static int render_file(const char *path)
{
    json_t *fixture = fixture_load(path), *cases = json_object_get(fixture, "cases"),
           *out = json_array();
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i), *source = json_object_get(one, "template");
        const json_t *vars = json_object_get(one, "vars") ? json_object_get(one, "vars")
                                                          : json_object_get(fixture, "vars");
        json_array_append_new(out,
                              outcome(json_string_value(source), json_string_length(source), vars,
                                      json_integer_value(json_object_get(fixture, "now"))));
    }
    json_dumpf(out, stdout, JSON_COMPACT);
    json_decref(out);
    json_decref(fixture);
    return 0;
}

int main(int argc, char **argv)
{
    setenv("TZ", "UTC0", 1);
    tzset();
    if (argc == 3 && strcmp(argv[1], "--render") == 0)
        return render_file(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_templates_give_what_jinja2_gives),
        cmocka_unit_test(what_is_outside_the_subset_is_refused_with_its_place),
        cmocka_unit_test(an_error_says_where_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
