/* jinja_fuzz: any bytes as a chat template. It compiles or is refused in words; rendered, under
 * small bounds, it gives a text within the bounds that is UTF-8, twice the same, or ends in words.
 *
 * The input: the source. */
#include "model/jinja.h"
#include "model/jinja_text.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct jinja_limits limits = {20000, 16, 1 << 16};

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "jinja_fuzz: %s\n", what);
    abort();
}

static json_t *conversation(void)
{
    return json_pack("[{s:s,s:s},{s:s,s:s},{s:s,s:n,s:[{s:s,s:{s:s,s:{s:i,s:[f,b,n]}}}]}]", "role",
                     "system", "content", "You are a gate.", "role", "user", "content",
                     "\xe4\xbd\xa0\xe5\xa5\xbd <b> 'x' \"y\"\n", "role", "assistant", "content",
                     "tool_calls", "type", "function", "function", "name", "f", "arguments", "n", 3,
                     "v", 1.5, 1);
}

static int render(const struct jinja *t, json_t *messages, char **text, size_t *n)
{
    const struct jinja_var var[] = {
        {"messages", messages},
        {"tools", messages},
        {"add_generation_prompt", json_true()},
        {"bos_token", json_object_get(json_array_get(messages, 0), "role")}};
    struct err err = {0};
    int rc = jinja_render(t, var, 4, &limits, 1700000000, text, n, &err);
    if (rc != 0) {
        require(rc == ERR_USAGE || rc == ERR_LIMIT || rc == ERR_MODEL, "an error of another kind");
        require(err.text[0] != 0, "an error without words");
        require(*text == NULL, "a text beside an error");
        return rc;
    }
    require(*n <= limits.bytes, "more than the bound");
    require(text_valid(*text, *n), "no UTF-8");
    require((*text)[*n] == 0, "no NUL behind the text");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jinja *t = NULL;
    struct err err = {0};
    char *text[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    if (jinja_compile((const char *)data, size, &t, &err) != 0) {
        require(err.text[0] != 0, "refused without words");
        return 0;
    }
    json_t *messages = conversation(), *copy = conversation();
    int rc = render(t, messages, &text[0], &n[0]);
    require(json_equal(messages, copy), "the template has changed what it was shown");
    require(render(t, messages, &text[1], &n[1]) == rc, "another outcome the second time");
    require(rc != 0 || (n[0] == n[1] && memcmp(text[0], text[1], n[0]) == 0),
            "another text the second time");
    free(text[0]);
    free(text[1]);
    jinja_free(t);
    json_decref(messages);
    json_decref(copy);
    return 0;
}
