/* chat_fixture: what the chat template tests share: reading a fixture, and comparing an outcome
 * with what Jinja2 gave. */
#ifndef TESTS_UNIT_MODEL_CHAT_FIXTURE_H
#define TESTS_UNIT_MODEL_CHAT_FIXTURE_H

#include "base/err.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* fixture_load: NULL, with a line on stderr, when the file is absent or no JSON. */
static inline json_t *fixture_load(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!json)
        fprintf(stderr, "%s: %s\n", path, error.text);
    return json;
}

/* fixture_slurp: a whole file, NUL-terminated; NULL when absent. */
static inline char *fixture_slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    size_t cap = 1 << 20;
    char *text = calloc(1, cap);
    size_t n = text ? fread(text, 1, cap - 1, f) : 0;
    fclose(f);
    if (text)
        text[n] = 0;
    return text;
}

/* fixture_words: an error's text behind "chat template, line N: ". */
static inline const char *fixture_words(const struct err *err)
{
    const char *colon = strstr(err->text, ": ");
    return colon ? colon + 2 : err->text;
}

/* fixture_differs prints both where they part; false when equal. */
static inline bool fixture_differs(const char *what, const char *want, size_t want_n,
                                   const char *got, size_t got_n)
{
    if (want_n == got_n && memcmp(want, got, want_n) == 0)
        return false;
    size_t at = 0;
    while (at < want_n && at < got_n && want[at] == got[at])
        at++;
    size_t from = at > 60 ? at - 60 : 0;
    fprintf(stderr, "%s\n  from byte %zu Jinja2 gives: %.*s\n  here: %.*s\n", what, from,
            (int)(want_n - from < 160 ? want_n - from : 160), want + from,
            (int)(got_n - from < 160 ? got_n - from : 160), got + from);
    return true;
}

#endif
