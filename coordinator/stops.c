/* stops: see stops.h. */
#include "coordinator/stops.h"

#include <stdlib.h>
#include <string.h>

int stops_init(struct stops *s, const char *const *text, int n, int include, struct err *err)
{
    memset(s, 0, sizeof *s);
    s->include = include;
    if (n == 0) {
        return 0;
    }
    s->text = calloc((size_t)n, sizeof *s->text);
    s->bytes = calloc((size_t)n, sizeof *s->bytes);
    for (int i = 0; s->text != NULL && s->bytes != NULL && i < n; i++) {
        s->text[i] = strdup(text[i]);
        if (s->text[i] == NULL) {
            break;
        }
        s->bytes[i] = strlen(text[i]);
        s->n++;
    }
    if (s->n < n) {
        stops_fini(s);
        return err_set(err, ERR_NOMEM, "no memory for %d stop strings", n);
    }
    return 0;
}

void stops_fini(struct stops *s)
{
    for (int i = 0; i < s->n; i++) {
        free(s->text[i]);
    }
    free(s->text);
    free(s->bytes);
    free(s->held);
    memset(s, 0, sizeof *s);
}

static int append(struct stops *s, const char *bytes, size_t n)
{
    if (s->n_held + n > s->cap) {
        size_t cap = 2 * s->cap + n + 64;
        char *held = realloc(s->held, cap);
        if (held == NULL) {
            return -1;
        }
        s->held = held;
        s->cap = cap;
    }
    if (n > 0) {
        memcpy(s->held + s->n_held, bytes, n);
    }
    s->n_held += n;
    return 0;
}

/* Index of the complete stop string that begins first, and where. -1: none. */
static int find_complete(const struct stops *s, size_t *at)
{
    for (size_t p = 0; p < s->n_held; p++) {
        for (int i = 0; i < s->n; i++) {
            if (s->bytes[i] > 0 && s->n_held - p >= s->bytes[i] &&
                memcmp(s->held + p, s->text[i], s->bytes[i]) == 0) {
                *at = p;
                return i;
            }
        }
    }
    return -1;
}

/* Where the earliest tail begins that is the beginning of a stop string. */
static size_t find_partial(const struct stops *s)
{
    for (size_t p = 0; p < s->n_held; p++) {
        for (int i = 0; i < s->n; i++) {
            size_t tail = s->n_held - p;
            if (tail < s->bytes[i] && memcmp(s->held + p, s->text[i], tail) == 0) {
                return p;
            }
        }
    }
    return s->n_held;
}

static void drop_released(struct stops *s)
{
    memmove(s->held, s->held + s->n_out, s->n_held - s->n_out);
    s->n_held -= s->n_out;
    s->n_out = 0;
}

int stops_push(struct stops *s, const char *bytes, size_t n)
{
    if (s->n_out > 0) {
        drop_released(s);
    }
    if (append(s, bytes, n) != 0) {
        return -2;
    }
    size_t at = 0;
    int hit = find_complete(s, &at);
    if (hit >= 0) {
        s->n_out = s->include ? at + s->bytes[hit] : at;
        s->n_held = s->n_out;
        return hit;
    }
    s->n_out = find_partial(s);
    return -1;
}

void stops_pass(struct stops *s, const char *bytes, size_t n)
{
    if (s->n_out > 0) {
        drop_released(s);
    }
    if (append(s, bytes, n) == 0) {
        s->n_out = s->n_held;
    }
}

void stops_flush(struct stops *s)
{
    if (s->n_out > 0) {
        drop_released(s);
    }
    s->n_out = s->n_held;
}

const char *stops_released(const struct stops *s, size_t *n)
{
    *n = s->n_out;
    return s->n_out > 0 ? s->held : "";
}
