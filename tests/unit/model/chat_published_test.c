/* The chat templates of published models against what Jinja2 gives for some forty conversations
 * each (tests/suite/chat/published.json). The templates lie in ../shared; without it the test
 * skips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <time.h>
#include <unistd.h>

#include "chat_fixture.h"
#include "model/chat.h"

static json_t *fixture;

/* template_source: the .jinja file, or the chat_template in a tokenizer_config.json. */
static char *template_source(const char *file)
{
    char path[512];
    snprintf(path, sizeof path, SHARED_DIR "/data/%s", file);
    if (!strstr(file, ".json"))
        return fixture_slurp(path);
    json_error_t error; /* model_max_length is 10^30 in some */
    json_t *config = json_load_file(path, JSON_DECODE_INT_AS_REAL, &error);
    const char *text = json_string_value(json_object_get(config, "chat_template"));
    char *copy = text ? strdup(text) : NULL;
    json_decref(config);
    return copy;
}

/* joined: the lines that a run numbers, as one text. */
static char *joined(const json_t *run, size_t *n)
{
    const json_t *numbers = json_object_get(run, "lines"),
                 *lines = json_object_get(fixture, "lines");
    size_t k = json_array_size(numbers);
    *n = 0;
    for (size_t i = 0; i < k; i++)
        *n += json_string_length(
                  json_array_get(lines, (size_t)json_integer_value(json_array_get(numbers, i)))) +
              1;
    char *text = calloc(1, *n + 1), *at = text;
    for (size_t i = 0; i < k; i++) {
        const json_t *line =
            json_array_get(lines, (size_t)json_integer_value(json_array_get(numbers, i)));
        memcpy(at, json_string_value(line), json_string_length(line));
        at += json_string_length(line);
        *at++ = '\n';
    }
    *n -= 1; /* between lines only */
    return text;
}

/* render_run splits the run's variables into what struct chat_input has fields for and the rest. */
static int render_run(const struct chat_template *t, const json_t *run, const json_t *tokens,
                      char **text, size_t *n, struct err *err)
{
    const json_t *talk =
        json_array_get(json_object_get(fixture, "conversations"),
                       (size_t)json_integer_value(json_object_get(run, "conversation")));
    json_t *extra = json_copy(json_object_get(run, "vars"));
    json_object_update_missing(
        extra, (json_t *)(uintptr_t)tokens); /* as special_tokens_map is a default */
    struct chat_input in = {.messages = json_object_get(talk, "messages"),
                            .tools = json_object_get(talk, "tools"),
                            .extra = extra,
                            .add_generation_prompt =
                                json_is_true(json_object_get(extra, "add_generation_prompt")),
                            .now = json_integer_value(json_object_get(fixture, "now"))};
    json_object_del(extra, "add_generation_prompt");
    int rc = chat_render(t, &in, NULL, text, n, err);
    json_decref(extra);
    return rc;
}

static int check_run(const char *file, const struct chat_template *t, const json_t *run,
                     const json_t *tokens)
{
    const json_t *talk =
        json_array_get(json_object_get(fixture, "conversations"),
                       (size_t)json_integer_value(json_object_get(run, "conversation")));
    const json_t *raised = json_object_get(run, "error");
    char what[256], *text = NULL, *vars = json_dumps(json_object_get(run, "vars"), 0);
    size_t n = 0, want_n = 0;
    struct err err = {0};
    snprintf(what, sizeof what, "%s: %s %s", file, json_string_value(json_object_get(talk, "name")),
             vars);
    int rc = render_run(t, run, tokens, &text, &n, &err), bad;
    if (raised) {
        const char *got = rc == ERR_USAGE ? fixture_words(&err) : rc ? err.text : text;
        bad = fixture_differs(what, json_string_value(raised), json_string_length(raised), got,
                              strlen(got)) ||
              rc != ERR_USAGE;
    } else {
        char *want = joined(run, &want_n);
        const char *got = rc ? err.text : text;
        bad = fixture_differs(what, want, want_n, got, rc ? strlen(got) : n) || rc != 0;
        free(want);
    }
    free(vars);
    free(text);
    return bad;
}

static void check_template(const json_t *one, int *n_run, int *n_bad)
{
    const char *file = json_string_value(json_object_get(one, "file"));
    char *source = template_source(file);
    struct chat_template *t = NULL;
    struct err err = {0};
    int bad = 0;
    if (!source)
        fail_msg("%s is not in ../shared/data", file);
    if (chat_template_compile(source, &t, &err))
        fail_msg("%s: %s", file, err.text);
    const json_t *runs = json_object_get(one, "runs");
    for (size_t i = 0; i < json_array_size(runs); i++)
        bad += check_run(file, t, json_array_get(runs, i), json_object_get(one, "tokens"));
    print_message("%s: %zu of %zu equal to Jinja2\n", file, json_array_size(runs) - (size_t)bad,
                  json_array_size(runs));
    *n_run += (int)json_array_size(runs);
    *n_bad += bad;
    chat_template_free(t);
    free(source);
}

static void published_templates_give_what_jinja2_gives(void **state)
{
    (void)state;
    const json_t *templates = json_object_get(fixture, "templates");
    int n_run = 0, n_bad = 0;
    assert_true(json_array_size(templates) >= 6);
    for (size_t i = 0; i < json_array_size(templates); i++)
        check_template(json_array_get(templates, i), &n_run, &n_bad);
    print_message("%d of %d outcomes equal to Jinja2\n", n_run - n_bad, n_run);
    assert_true(n_run >= 25 * 6);
    assert_int_equal(n_bad, 0);
}

int main(void)
{
    setenv("TZ", "UTC0", 1);
    tzset();
    if (access(SHARED_DIR "/data/golden", R_OK) != 0) {
        printf(
            "skipped: ../shared/data/golden is not here, and the published templates lie in it\n");
        return 77;
    }
    fixture = fixture_load(TESTS_DIR "/suite/chat/published.json");
    if (!fixture)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_templates_give_what_jinja2_gives)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(fixture);
    return failed;
}
