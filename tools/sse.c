/* sse: the parser of Server-Sent Events; see sse.h. A line ends with CR, LF or CR LF, also where
 * the two come in different pieces; an empty line ends an event; an event without data is none. */
#include "tools/sse.h"

#include <stdlib.h>
#include <string.h>

static int append(char **to, size_t *n, size_t *cap, const char *bytes, size_t more,
                  struct err *err)
{
    if (more > SSE_EVENT_BYTES_MAX - *n)
        return err_set(err, ERR_LIMIT, "the server sent an event of more than %d MiB",
                       SSE_EVENT_BYTES_MAX >> 20);
    if (*n + more + 1 > *cap) {
        size_t want = 2 * (*n + more) + 256;
        char *grown = realloc(*to, want);
        if (!grown)
            return err_set(err, ERR_NOMEM, "no memory for an event of %zu bytes", *n + more);
        *to = grown;
        *cap = want;
    }
    if (more)
        memcpy(*to + *n, bytes, more);
    *n += more;
    (*to)[*n] = 0;
    return 0;
}

static int take_field(struct sse *s, struct err *err)
{
    if (s->n_line < 4 || memcmp(s->line, "data", 4) != 0 || (s->n_line > 4 && s->line[4] != ':'))
        return 0;
    size_t at = s->n_line > 4 ? 5 : 4;
    at += at < s->n_line && s->line[at] == ' ';
    int r = s->has_data ? append(&s->data, &s->n_data, &s->cap_data, "\n", 1, err) : 0;
    s->has_data = 1;
    return r ? r : append(&s->data, &s->n_data, &s->cap_data, s->line + at, s->n_line - at, err);
}

static int end_line(struct sse *s, sse_fn *fn, void *user, struct err *err)
{
    int r = 0;
    if (s->n_line > 0) {
        r = take_field(s, err);
    } else if (s->has_data) {
        r = fn(user, s->data, s->n_data);
        s->has_data = 0;
        s->n_data = 0;
    }
    s->n_line = 0;
    return r;
}

int sse_feed(struct sse *s, const char *bytes, size_t n, sse_fn *fn, void *user, struct err *err)
{
    int r = 0;
    for (size_t at = 0; !r && at < n;) {
        if (s->after_cr && bytes[at] == '\n')
            at++;
        s->after_cr = 0;
        size_t end = at;
        while (end < n && bytes[end] != '\n' && bytes[end] != '\r')
            end++;
        r = append(&s->line, &s->n_line, &s->cap_line, bytes + at, end - at, err);
        if (!r && end < n) {
            s->after_cr = bytes[end] == '\r';
            r = end_line(s, fn, user, err);
            end++;
        }
        at = end;
    }
    return r;
}

void sse_fini(struct sse *s)
{
    free(s->line);
    free(s->data);
    *s = (struct sse){0};
}
