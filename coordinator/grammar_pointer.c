/* grammar_pointer: JSON pointers (RFC 6901) in both directions: to follow a reference, and to say
 * in an error where a keyword stands. */
#include "coordinator/grammar_schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- to words -------------------------------------------------------------------------------- */

struct text {
    char *p; /* [GRAMMAR_POINTER_TEXT] */
    size_t n;
};

/* Control characters would break the line, so they become '?'; what does not fit is cut. */
static void append(struct text *t, const char *p)
{
    for (; *p != 0 && t->n + 1 < GRAMMAR_POINTER_TEXT; p++) {
        t->p[t->n++] = (unsigned char)*p < 0x20 ? '?' : *p;
    }
    t->p[t->n] = 0;
}

/* A step of a JSON pointer (RFC 6901). */
static void append_step(struct text *t, const char *p)
{
    append(t, "/");
    for (; *p != 0; p++) {
        char one[2] = {*p, 0};
        append(t, *p == '~' ? "~0" : *p == '/' ? "~1" : one);
    }
}

static void append_where(const struct grammar_compiler *c, const struct grammar_where *w,
                         struct text *t)
{
    char number[24];
    if (w->parent != GRAMMAR_NONE && w->ref == NULL) {
        append_where(c, &c->item[w->parent].where, t); /* at most GRAMMAR_SCHEMA_DEPTH + 1 deep */
    } else {
        append(t, w->ref != NULL ? w->ref : "#");
    }
    if (w->sub != NULL) {
        append_step(t, w->sub);
    }
    if (w->key != NULL) {
        append_step(t, w->key);
    }
    if (w->index >= 0) {
        snprintf(number, sizeof number, "%" PRId64, w->index);
        append_step(t, number);
    }
}

void grammar_pointer_text(const struct grammar_compiler *c, const struct grammar_where *w,
                          const char *keyword, char out[GRAMMAR_POINTER_TEXT])
{
    struct text t = {out, 0};
    append_where(c, w, &t);
    if (*keyword != 0) {
        append_step(&t, keyword);
    }
}

/* ---- from a fragment ------------------------------------------------------------------------- */

static int hex(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* One step of a pointer in a URI fragment, decoded in place; NULL: not one. */
static char *decode_step(char *step)
{
    char *out = step;
    for (char *p = step; *p != 0; p++) {
        if (*p == '%') {
            int hi = hex(p[1]), lo = hi < 0 ? -1 : hex(p[2]);
            if (lo < 0 || (hi | lo) == 0) {
                return NULL;
            }
            p[2] = (char)(hi << 4 | lo);
            p += 2;
        }
        *out++ = *p;
    }
    *out = 0;
    out = step;
    for (char *p = step; *p != 0; p++) {
        if (*p == '~' && p[1] != '0' && p[1] != '1') {
            return NULL;
        }
        *out++ = *p != '~' ? *p : *++p == '0' ? '~' : '/';
    }
    *out = 0;
    return step;
}

static const json_t *step_into(const json_t *at, const char *step)
{
    char *end;
    if (json_is_object(at)) {
        return json_object_get(at, step);
    }
    unsigned long i = strtoul(step, &end, 10);
    return *step >= '0' && *step <= '9' && *end == 0 ? json_array_get(at, i) : NULL;
}

int grammar_pointer_find(const json_t *root, const char *pointer, const json_t **out)
{
    char *copy = strdup(pointer), *rest = copy == NULL ? NULL : strchr(copy, '/');
    const json_t *at = root;
    if (copy == NULL) {
        return ERR_NOMEM;
    }
    while (rest != NULL && at != NULL) {
        char *step = rest + 1;
        rest = strchr(step, '/');
        if (rest != NULL) {
            *rest = 0;
        }
        step = decode_step(step);
        at = step != NULL ? step_into(at, step) : NULL;
    }
    free(copy);
    *out = at;
    return 0;
}
