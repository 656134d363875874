/* grammar_literal: spellings as they come from the schema. See grammar_literal.h. */
#include "coordinator/grammar_literal.h"

#include "base/arena.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONST_DEPTH_MAX 32
#define KEY_BYTES_MAX   512

void grammar_words_fini(struct grammar_words *w)
{
    for (size_t i = 0; i < w->n; i++) {
        free(w->at[i].p);
    }
    free(w->at);
    *w = (struct grammar_words){0};
}

/* ---- spellings ------------------------------------------------------------------------------- */

static void add(struct grammar_builder *b, struct grammar_words *w, char *p, size_t n)
{
    if (p != NULL && w->n == w->cap) {
        size_t cap = w->cap < 16 ? 16 : w->cap * 2;
        struct grammar_word *grown = realloc(w->at, cap * sizeof *grown);
        if (grown != NULL) {
            w->at = grown;
            w->cap = cap;
        }
    }
    if (p == NULL || w->n == w->cap) {
        free(p);
        grammar_fail(b, ERR_NOMEM, "no memory for the values of a schema");
        return;
    }
    w->at[w->n++] = (struct grammar_word){p, n};
}

/* The character at text, which jansson has checked to be UTF-8, and its length. */
static uint32_t character(const char *text, size_t *n)
{
    const uint8_t *p = (const uint8_t *)text;
    *n = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    uint32_t c = *n == 1 ? p[0] : p[0] & (0x7fu >> *n);
    for (size_t i = 1; i < *n; i++) {
        c = c << 6 | (p[i] & 0x3fu);
    }
    return c;
}

/* What must not stand in a string as it is, and what the vocabulary cannot spell. 12 bytes at most.
 */
static size_t escape(char *out, uint32_t c)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const char *at = c != 0 && c < 0x80 ? strchr(plain, (int)c) : NULL;
    if (at != NULL) {
        out[0] = '\\';
        out[1] = letter[at - plain];
        return 2;
    }
    if (c < 0x10000) {
        return (size_t)snprintf(out, 13, "\\u%04x", (unsigned)(c & 0xffff));
    }
    c -= 0x10000;
    return (size_t)snprintf(out, 13, "\\u%04x\\u%04x", (unsigned)(0xd800 + (c >> 10 & 0x3ff)),
                            (unsigned)(0xdc00 + (c & 0x3ff)));
}

void grammar_words_add_string(struct grammar_builder *b, struct grammar_words *w, const char *text,
                              size_t n)
{
    size_t bytes, m = 0;
    char *p = mul_size(n, 6, &bytes) == 0 ? malloc(bytes + 16) : NULL;
    if (p != NULL) {
        p[m++] = '"';
        for (size_t i = 0, of; i < n; i += of) {
            uint32_t c = character(text + i, &of);
            if (c < 0x20 || c == '"' || c == '\\' || (c >= 0x80 && b->ascii)) {
                m += escape(p + m, c);
            } else {
                memcpy(p + m, text + i, of);
                m += of;
            }
        }
        p[m++] = '"';
    }
    add(b, w, p, m);
}

/* The shortest of 15, 16 and 17 digits that reads back as the same double. */
static char *real_text(const json_t *value)
{
    for (int digits = 15; digits <= 17; digits++) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION((size_t)digits));
        if (text == NULL || digits == 17 || strtod(text, NULL) == json_real_value(value)) {
            return text;
        }
        free(text);
    }
    return NULL;
}

void grammar_words_add(struct grammar_builder *b, struct grammar_words *w, const json_t *scalar)
{
    if (json_is_string(scalar)) {
        grammar_words_add_string(b, w, json_string_value(scalar), json_string_length(scalar));
        return;
    }
    char *text = json_is_real(scalar) ? real_text(scalar) : json_dumps(scalar, JSON_ENCODE_ANY);
    add(b, w, text, text != NULL ? strlen(text) : 0);
}

/* ---- one of several words -------------------------------------------------------------------- */

static int by_bytes(const void *x, const void *y)
{
    const struct grammar_word *a = x, *b = y;
    size_t n = a->n < b->n ? a->n : b->n;
    int c = memcmp(a->p, b->p, n);
    return c != 0 ? c : (a->n > b->n) - (a->n < b->n);
}

static void sort(struct grammar_words *w)
{
    size_t n = 0;
    if (w->n == 0) {
        return;
    }
    qsort(w->at, w->n, sizeof *w->at, by_bytes);
    for (size_t i = 1; i < w->n; i++) {
        if (by_bytes(&w->at[n], &w->at[i]) == 0) {
            free(w->at[i].p);
        } else {
            w->at[++n] = w->at[i];
        }
    }
    w->n = n + 1;
}

/* How many of at[0..n) share the byte at `pos` with the first. */
static size_t same_byte(const struct grammar_word *at, size_t n, size_t pos)
{
    size_t i = 1;
    while (i < n && at[i].p[pos] == at[0].p[pos]) {
        i++;
    }
    return i;
}

static size_t groups(const struct grammar_word *at, size_t n, size_t pos)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i += same_byte(at + i, n - i, pos)) {
        count++;
    }
    return count;
}

/* at [n], sorted, none twice, all the same before `pos`. */
static void emit_sorted(struct grammar_builder *b, const struct grammar_word *at, size_t n,
                        size_t pos)
{
    const struct grammar_word *last = &at[n - 1];
    while (pos < at[0].n && pos < last->n && at[0].p[pos] == last->p[pos]) {
        grammar_emit_text(b, at[0].p + pos++, 1);
    }
    if (n == 1 || b->rc != 0) {
        return;
    }
    struct grammar_alts a;
    size_t ends = at[0].n == pos, i = 0, of = ends + groups(at + ends, n - ends, pos);
    if (ends) {
        grammar_alt(b, &a, i++, of);
    }
    for (size_t k = ends, m; k < n; k += m) {
        m = same_byte(at + k, n - k, pos);
        grammar_alt(b, &a, i++, of);
        emit_sorted(b, at + k, m, pos);
    }
    grammar_alt_end(b, &a);
}

void grammar_emit_words(struct grammar_builder *b, struct grammar_words *w)
{
    sort(w);
    if (w->n > 0) {
        emit_sorted(b, w->at, w->n, 0);
    }
}

/* ---- none of several words ------------------------------------------------------------------- */

static size_t char_bytes(const struct grammar_word *w, size_t pos)
{
    size_t n;
    character(w->p + pos, &n);
    return n;
}

/* How many of at[0..n) share the character at `pos` with the first. */
static size_t same_char(const struct grammar_word *at, size_t n, size_t pos)
{
    size_t i = 1, bytes = char_bytes(at, pos);
    while (i < n && memcmp(at[i].p + pos, at[0].p + pos, bytes) == 0) {
        i++;
    }
    return i;
}

/* A tail that differs from every at[0..n) behind `pos`: the quote where no word has it, a character
 * that no word goes on with and then anything, or one of theirs and then the same again. Where a
 * word goes on with a character above ASCII, only such a word may: the set of all others would take
 * three more levels, for keys that nobody asked for. */
static void emit_other(struct grammar_builder *b, const struct grammar_word *at, size_t n,
                       size_t pos)
{
    struct grammar_class other = {{0}};
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    bool wide = false, ends = false;
    if (pos > KEY_BYTES_MAX) {
        grammar_fail(b, ERR_LIMIT, "beside other keys a property's name is at most %d bytes",
                     KEY_BYTES_MAX);
        return;
    }
    for (int c = 0x20; c < 0x80; c++) {
        grammar_class_set(&other, (uint8_t)c, c != '"' && c != '\\');
    }
    for (size_t i = 0, m; i < n; i += m) {
        m = same_char(at + i, n - i, pos);
        uint8_t c = (uint8_t)at[i].p[pos];
        wide |= c >= 0x80;
        ends |= c == '"';
        grammar_class_set(&other, c, false);
        if (c != '"') {
            size_t bytes = char_bytes(&at[i], pos);
            uint32_t next = grammar_emit_split(b);
            grammar_emit_text(b, at[i].p + pos, bytes);
            emit_other(b, at + i, m, pos + bytes);
            grammar_alt_exit(b, &a, grammar_emit_jump(b));
            grammar_patch(b, next, grammar_here(b));
        }
    }
    if (!ends) {
        uint32_t next = grammar_emit_split(b);
        grammar_emit_text(b, "\"", 1);
        grammar_alt_exit(b, &a, grammar_emit_jump(b));
        grammar_patch(b, next, grammar_here(b));
    }
    struct grammar_alts first;
    size_t of = wide || b->ascii ? 1 : 2;
    grammar_alt(b, &first, 0, of);
    grammar_emit_class(b, &other);
    if (of == 2) {
        grammar_alt(b, &first, 1, of);
        grammar_emit_call(b, BASE_WIDE);
    }
    grammar_alt_end(b, &first);
    grammar_emit_call(b, BASE_PLAIN);
    grammar_alt_end(b, &a);
}

void grammar_emit_other_key(struct grammar_builder *b, struct grammar_words *w)
{
    size_t n = 0;
    sort(w);
    /* A name that needs an escape is different from every key without one. */
    for (size_t i = 0; i < w->n; i++) {
        if (memchr(w->at[i].p, '\\', w->at[i].n) == NULL) {
            struct grammar_word word = w->at[n];
            w->at[n++] = w->at[i];
            w->at[i] = word;
        }
    }
    grammar_emit_text(b, "\"", 1);
    if (b->rc == 0) {
        emit_other(b, w->at, n, 1);
    }
}

/* ---- any value ------------------------------------------------------------------------------- */

void grammar_emit_colon(struct grammar_builder *b)
{
    struct grammar_alts a;
    grammar_emit_text(b, ":", 1);
    grammar_alt(b, &a, 0, 2);
    grammar_alt(b, &a, 1, 2);
    grammar_emit_text(b, " ", 1);
    grammar_alt_end(b, &a);
}

static void emit_scalar(struct grammar_builder *b, const json_t *value)
{
    struct grammar_words w = {0};
    grammar_words_add(b, &w, value);
    grammar_emit_words(b, &w);
    grammar_words_fini(&w);
}

static void emit_key(struct grammar_builder *b, const char *key)
{
    struct grammar_words w = {0};
    grammar_words_add_string(b, &w, key, strlen(key));
    grammar_emit_words(b, &w);
    grammar_words_fini(&w);
    grammar_emit_colon(b);
}

static void emit_comma(struct grammar_builder *b, size_t i)
{
    if (i > 0) {
        grammar_emit_text(b, ",", 1);
    }
    grammar_emit_call(b, BASE_BLANK);
}

static void emit_value(struct grammar_builder *b, const json_t *value, int depth)
{
    const char *key;
    json_t *of, *keyed = (json_t *)(uintptr_t)value;
    size_t i = 0;
    bool object = json_is_object(value);
    if (!object && !json_is_array(value)) {
        emit_scalar(b, value);
        return;
    }
    if (depth == CONST_DEPTH_MAX) {
        grammar_fail(b, ERR_LIMIT, "a constant of the schema is more than %d levels deep",
                     CONST_DEPTH_MAX);
        return;
    }
    grammar_emit_text(b, object ? "{" : "[", 1);
    json_object_foreach(keyed, key, of)
    {
        emit_comma(b, i++);
        emit_key(b, key);
        emit_value(b, of, depth + 1);
    }
    for (size_t k = 0; k < json_array_size(value); k++) {
        emit_comma(b, i++);
        emit_value(b, json_array_get(value, k), depth + 1);
    }
    grammar_emit_call(b, BASE_BLANK);
    grammar_emit_text(b, object ? "}" : "]", 1);
}

void grammar_emit_const(struct grammar_builder *b, const json_t *value)
{
    emit_value(b, value, 0);
}
