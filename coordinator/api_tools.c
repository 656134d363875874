/* api_tools: see api_tools.h. */
#include "coordinator/api_tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char OPEN_TAG[] = "<tool_call>", CLOSE_TAG[] = "</tool_call>";

int text_add(struct tok_text *t, const char *p, size_t n)
{
    if (t->n + n > t->cap) {
        size_t cap = 2 * t->cap + n + 256;
        char *grown = realloc(t->p, cap);
        if (grown == NULL) {
            return -1;
        }
        t->p = grown;
        t->cap = cap;
    }
    if (n > 0) {
        memcpy(t->p + t->n, p, n);
    }
    t->n += n;
    return 0;
}

void tool_reader_init(struct tool_reader *r, enum api_tool_style style, const char *id)
{
    memset(r, 0, sizeof *r);
    r->style = style;
    r->call = json_array();
    snprintf(r->id, sizeof r->id, "%s", id);
}

void tool_reader_fini(struct tool_reader *r)
{
    json_decref(r->call);
    free(r->held);
    memset(r, 0, sizeof *r);
}

/* Takes [p, p + n) as a call: 0, or -1 when it is none. */
static int take_call(struct tool_reader *r, const char *p, size_t n)
{
    json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
    const json_t *name = json_object_get(o, "name"), *args = json_object_get(o, "arguments");
    args = args != NULL ? args : json_object_get(o, "parameters");
    if (!json_is_string(name) || !json_is_object(args)) {
        json_decref(o);
        return -1;
    }
    char id[64];
    size_t index = json_array_size(r->call);
    char *text = json_dumps(args, JSON_COMPACT);
    snprintf(id, sizeof id, "call_%s_%zu", r->id, index);
    json_array_append_new(r->call, json_pack("{s:s,s:s,s:{s:s,s:s}}", "id", id, "type", "function",
                                             "function", "name", json_string_value(name),
                                             "arguments", text != NULL ? text : "{}"));
    free(text);
    json_decref(o);
    return 0;
}

static int hold(struct tool_reader *r, const char *text, size_t n)
{
    struct tok_text t = {r->held, r->n_held, r->cap};
    int rc = text_add(&t, text, n);
    r->held = t.p;
    r->n_held = t.n;
    r->cap = t.cap;
    return rc;
}

static void drop(struct tool_reader *r, size_t n)
{
    if (r->n_held > n) {
        memmove(r->held, r->held + n, r->n_held - n);
    }
    r->n_held -= n;
}

static char *find(const struct tool_reader *r, const char *tag)
{
    return r->n_held > 0 ? memmem(r->held, r->n_held, tag, strlen(tag)) : NULL;
}

/* How much of the end of what is held may be the beginning of a tag. */
static size_t partial(const struct tool_reader *r)
{
    size_t n = sizeof OPEN_TAG - 2;
    for (n = n < r->n_held ? n : r->n_held; n > 0; n--) {
        if (memcmp(r->held + r->n_held - n, OPEN_TAG, n) == 0) {
            return n;
        }
    }
    return 0;
}

static int is_blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strchr(" \t\r\n", p[i]) == NULL || p[i] == 0) {
            return 0;
        }
    }
    return 1;
}

/* Text outside of calls; blanks around calls are not an answer. */
static int give(struct tool_reader *r, size_t n, struct tok_text *out)
{
    int quiet = json_array_size(r->call) > 0 && is_blank(r->held, n);
    int rc = quiet ? 0 : text_add(out, r->held, n);
    drop(r, n);
    return rc;
}

/* One move; 1 when another may follow. */
static int tag_step(struct tool_reader *r, struct tok_text *out)
{
    char *at = find(r, r->inside ? CLOSE_TAG : OPEN_TAG);
    if (!r->inside) {
        if (at == NULL) {
            give(r, r->n_held - partial(r), out);
            return 0;
        }
        give(r, (size_t)(at - r->held), out);
        r->inside = 1;
        return 1;
    }
    if (at == NULL) {
        return 0;
    }
    size_t begin = sizeof OPEN_TAG - 1, end = (size_t)(at - r->held) + sizeof CLOSE_TAG - 1;
    if (take_call(r, r->held + begin, (size_t)(at - r->held) - begin) != 0) {
        text_add(out, r->held, end);
    }
    drop(r, end);
    r->inside = 0;
    return 1;
}

int tool_reader_push(struct tool_reader *r, const char *text, size_t n, struct tok_text *out)
{
    if (r->style == TOOLS_NONE) {
        return text_add(out, text, n);
    }
    if (hold(r, text, n) != 0) {
        return -1;
    }
    if (r->style == TOOLS_TAG) {
        while (tag_step(r, out)) {
        }
        return 0;
    }
    /* TOOLS_OBJECT: a text that does not begin with a brace is an ordinary answer. */
    size_t blank = 0;
    while (blank < r->n_held && is_blank(r->held + blank, 1)) {
        blank++;
    }
    if (blank < r->n_held && r->held[blank] != '{') {
        r->style = TOOLS_NONE;
        return give(r, r->n_held, out);
    }
    return 0;
}

int tool_reader_end(struct tool_reader *r, struct tok_text *out)
{
    size_t skip = r->inside ? sizeof OPEN_TAG - 1 : 0;
    if (r->n_held > skip && (r->inside || r->style == TOOLS_OBJECT) &&
        take_call(r, r->held + skip, r->n_held - skip) == 0) {
        r->n_held = 0;
    }
    r->inside = 0;
    return give(r, r->n_held, out);
}
