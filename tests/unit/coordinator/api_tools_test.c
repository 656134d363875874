/* Calls in a model's text: found however the text is cut, and never taken from what is only text.
 */
#include "coordinator/api_tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CALL_A "{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}"
#define CALL_B "{\"name\": \"clock\", \"arguments\": {}}"

/* Reads `text` in pieces of `piece` bytes; what is left as text goes to *out (NUL-terminated). */
static struct tool_reader read_all(enum api_tool_style style, const char *text, size_t piece,
                                   char *out, size_t size)
{
    struct tool_reader r;
    struct tok_text t = {0};
    tool_reader_init(&r, style, "x");
    for (size_t at = 0, n = strlen(text); at < n; at += piece) {
        assert_int_equal(tool_reader_push(&r, text + at, n - at < piece ? n - at : piece, &t), 0);
    }
    assert_int_equal(tool_reader_end(&r, &t), 0);
    assert_true(t.n < size);
    memcpy(out, t.n > 0 ? t.p : "", t.n);
    out[t.n] = 0;
    tok_text_fini(&t);
    return r;
}

static void expect(enum api_tool_style style, const char *text, const char *want_text,
                   const char *want_calls)
{
    char left[512], calls[512];
    for (size_t piece = 1; piece <= strlen(text) + 1; piece++) {
        struct tool_reader r = read_all(style, text, piece, left, sizeof left);
        calls[0] = 0;
        json_t *call;
        size_t i;
        json_array_foreach(r.call, i, call)
        {
            json_t *f = json_object_get(call, "function");
            strcat(calls, json_string_value(json_object_get(f, "name")));
            strcat(calls, json_string_value(json_object_get(f, "arguments")));
            assert_string_equal(json_string_value(json_object_get(call, "type")), "function");
        }
        tool_reader_fini(&r);
        assert_string_equal(left, want_text);
        assert_string_equal(calls, want_calls);
    }
}

static void tagged_calls_are_found_however_the_text_is_cut(void **state)
{
    (void)state;
    expect(TOOLS_TAG, "<tool_call>\n" CALL_A "\n</tool_call>", "", "weather{\"city\":\"Oslo\"}");
    expect(TOOLS_TAG, "I look.\n<tool_call>" CALL_A "</tool_call>", "I look.\n",
           "weather{\"city\":\"Oslo\"}");
    expect(TOOLS_TAG, "<tool_call>" CALL_A "</tool_call>\n<tool_call>" CALL_B "</tool_call>\n", "",
           "weather{\"city\":\"Oslo\"}clock{}");
}

static void a_call_without_its_end_is_one_when_it_is_whole(void **state)
{
    (void)state;
    expect(TOOLS_TAG, "<tool_call>" CALL_B, "", "clock{}");
    expect(TOOLS_TAG, "<tool_call>{\"name\": \"clo", "<tool_call>{\"name\": \"clo", "");
    expect(TOOLS_TAG, "<tool_call>", "<tool_call>", "");
}

static void what_only_looks_like_a_call_is_text(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "2 < 3 and <tool is a word, <tool_call too",
        "<tool_call>no JSON</tool_call> then",
        "<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"a\", \"arguments\": \"b\"}</tool_call>",
        "<tool_call>[]</tool_call>",
        "</tool_call>",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        expect(TOOLS_TAG, texts[i], texts[i], "");
    }
}

static void an_answer_that_is_one_object_is_a_call(void **state)
{
    (void)state;
    expect(TOOLS_OBJECT, "{\"name\": \"clock\", \"parameters\": {\"h24\": true}}", "",
           "clock{\"h24\":true}");
    expect(TOOLS_OBJECT, " \n" CALL_B "\n", "", "clock{}");
    expect(TOOLS_OBJECT, "It is {\"name\": \"clock\", \"parameters\": {}}",
           "It is {\"name\": \"clock\", \"parameters\": {}}", "");
    expect(TOOLS_OBJECT, "{\"answer\": 1}", "{\"answer\": 1}", "");
    expect(TOOLS_OBJECT, "{\"name\": \"clock\"", "{\"name\": \"clock\"", "");
}

static void without_tools_everything_is_text(void **state)
{
    (void)state;
    expect(TOOLS_NONE, "<tool_call>" CALL_B "</tool_call>", "<tool_call>" CALL_B "</tool_call>",
           "");
}

static void text_streams_as_soon_as_it_cannot_be_a_tag(void **state)
{
    (void)state;
    struct tool_reader r;
    struct tok_text t = {0};
    tool_reader_init(&r, TOOLS_TAG, "x");
    tool_reader_push(&r, "ab<to", 5, &t);
    assert_int_equal(t.n, 2);
    tool_reader_push(&r, "p", 1, &t);
    assert_int_equal(t.n, 6);
    assert_memory_equal(t.p, "ab<top", 6);
    tool_reader_fini(&r);
    tok_text_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tagged_calls_are_found_however_the_text_is_cut),
        cmocka_unit_test(a_call_without_its_end_is_one_when_it_is_whole),
        cmocka_unit_test(what_only_looks_like_a_call_is_text),
        cmocka_unit_test(an_answer_that_is_one_object_is_a_call),
        cmocka_unit_test(without_tools_everything_is_text),
        cmocka_unit_test(text_streams_as_soon_as_it_cannot_be_a_tag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
