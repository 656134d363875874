/* chat: the variables that Hugging Face transformers' apply_chat_template gives to a template, and
 * its continue_final_message: a mark is put behind the last message's text, and what is rendered is
 * cut at the mark, so that the model goes on where the text ends. */
#include "model/chat.h"
#include "model/jinja.h"
#include "model/jinja_text.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_DEFAULT 1000000
#define DEPTH_DEFAULT 64
#define BYTES_DEFAULT ((size_t)4 << 20)
#define VARS_MAX      64

struct chat_template {
    struct jinja *jinja;
};

static const char final_mark[] = "CONTINUE_FINAL_MESSAGE_TAG ";

int chat_template_compile(const char *source, struct chat_template **out, struct err *err)
{
    struct chat_template *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(err, ERR_NOMEM, "chat template: no memory");
    int rc = jinja_compile(source, strlen(source), &t->jinja, err);
    if (rc) {
        free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void chat_template_free(struct chat_template *t)
{
    if (!t)
        return;
    jinja_free(t->jinja);
    free(t);
}

/* vars: what the template sees. The JSON made here is owned by `own`. */
struct vars {
    struct jinja_var v[VARS_MAX];
    size_t n;
    json_t *own;
};

static int put(struct vars *vars, const char *name, const json_t *value, struct err *err)
{
    if (vars->n == VARS_MAX)
        return err_set(err, ERR_LIMIT, "chat template: more than %d variables", VARS_MAX);
    vars->v[vars->n++] = (struct jinja_var){name, value};
    return 0;
}

static int put_own(struct vars *vars, const char *name, json_t *value, struct err *err)
{
    if (!value || json_array_append_new(vars->own, value) != 0)
        return err_set(err, ERR_MODEL, "chat template: %s is not UTF-8 text", name);
    return put(vars, name, value, err);
}

static int put_token(struct vars *vars, const char *name, const char *text, struct err *err)
{
    return text ? put_own(vars, name, json_string(text), err) : 0;
}

static int put_extra(struct vars *vars, const json_t *extra, struct err *err)
{
    static const char *const reserved[] = {"messages", "tools", "documents",
                                           "add_generation_prompt"};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)extra, name, value)
    {
        for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
            if (strcmp(name, reserved[i]) == 0)
                return err_set(
                    err, ERR_USAGE,
                    "chat_template_kwargs: %s is set by the request itself; leave it out", name);
        }
        int rc = put(vars, name, value, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int put_all(struct vars *vars, const struct chat_input *in, const json_t *messages,
                   struct err *err)
{
    int rc = put(vars, "messages", messages, err);
    if (!rc && in->tools)
        rc = put(vars, "tools", in->tools, err);
    else if (!rc)
        rc = put_own(vars, "tools", json_null(), err);
    if (!rc)
        rc = put_own(vars, "documents", json_null(), err);
    if (!rc)
        rc = put_own(vars, "add_generation_prompt", json_boolean(in->add_generation_prompt), err);
    if (!rc)
        rc = put_token(vars, "bos_token", in->bos_token, err);
    if (!rc)
        rc = put_token(vars, "eos_token", in->eos_token, err);
    return rc || !in->extra ? rc : put_extra(vars, in->extra, err);
}

static int render(const struct chat_template *t, const struct chat_input *in,
                  const json_t *messages, const struct chat_limits *limits, char **text, size_t *n,
                  struct err *err)
{
    struct jinja_limits l = {STEPS_DEFAULT, DEPTH_DEFAULT, BYTES_DEFAULT};
    if (limits && limits->steps > 0)
        l.steps = limits->steps;
    if (limits && limits->depth > 0)
        l.depth = limits->depth;
    if (limits && limits->bytes > 0)
        l.bytes = limits->bytes;
    struct vars vars = {.own = json_array()};
    if (!vars.own)
        return err_set(err, ERR_NOMEM, "chat template: no memory");
    int rc = put_all(&vars, in, messages, err);
    if (!rc)
        rc = jinja_render(t->jinja, vars.v, vars.n, &l, in->now, text, n, err);
    json_decref(vars.own);
    return rc;
}

/* --- continue_final_message --- */

/* marked returns text + mark as a new JSON string. */
static json_t *marked(const json_t *text)
{
    size_t n = json_string_length(text);
    char *s = malloc(n + sizeof final_mark);
    if (!s)
        return NULL;
    memcpy(s, json_string_value(text), n);
    memcpy(s + n, final_mark, sizeof final_mark);
    json_t *out = json_stringn(s, n + sizeof final_mark - 1);
    free(s);
    return out;
}

/* mark_parts marks the last text part of a content that is a list; *final borrows the text. */
static json_t *mark_parts(const json_t *parts, const json_t **final)
{
    for (size_t i = json_array_size(parts); i-- > 0;) {
        const json_t *text = json_object_get(json_array_get(parts, i), "text");
        if (!json_is_string(text))
            continue;
        json_t *copy = json_copy((json_t *)(uintptr_t)parts),
               *part = json_copy(json_array_get(parts, i));
        *final = text;
        if (json_object_set_new(part, "text", marked(text)) == 0 &&
            json_array_set(copy, i, part) == 0) {
            json_decref(part);
            return copy;
        }
        json_decref(part);
        json_decref(copy);
        return NULL;
    }
    return NULL;
}

/* mark_final: a copy of the messages whose last content ends in the mark; NULL when it has no text.
 */
static json_t *mark_final(const json_t *messages, const json_t **final)
{
    size_t n = json_array_size(messages);
    const json_t *last = n ? json_array_get(messages, n - 1) : NULL;
    const json_t *content = json_object_get(last, "content");
    json_t *with_mark = NULL;
    if (json_is_string(content)) {
        *final = content;
        with_mark = marked(content);
    } else if (json_is_array(content)) {
        with_mark = mark_parts(content, final);
    }
    if (!with_mark)
        return NULL;
    json_t *copy = json_copy((json_t *)(uintptr_t)messages),
           *message = json_copy((json_t *)(uintptr_t)last);
    int failed =
        json_object_set_new(message, "content", with_mark) || json_array_set(copy, n - 1, message);
    json_decref(message);
    if (failed) {
        json_decref(copy);
        return NULL;
    }
    return copy;
}

static void stripped(const char **s, size_t *n)
{
    while (*n) {
        size_t i = 0;
        if (!text_space(text_next(*s, *n, &i)))
            break;
        *s += i;
        *n -= i;
    }
    while (*n) {
        size_t i = *n;
        if (!text_space(text_prev(*s, &i)))
            break;
        *n = i;
    }
}

/* last_mark: where the mark (without its space) begins for the last time, or NULL. */
static char *last_mark(char *text, size_t n)
{
    size_t k = sizeof final_mark - 2;
    char *last = NULL;
    for (char *at = text; (at = memmem(at, n - (size_t)(at - text), final_mark, k)) != NULL; at++)
        last = at;
    return last;
}

/* cut_at_mark shortens text to what stands before the mark; with the space of the mark gone, the
 * template has trimmed the message, so its trailing white space goes too. */
static int cut_at_mark(char *text, size_t *n, const json_t *final, struct err *err)
{
    const char *want = json_string_value(final);
    size_t want_n = json_string_length(final);
    char *mark = last_mark(text, *n);
    stripped(&want, &want_n);
    if (!mark || (want_n && !memmem(text, *n, want, want_n)))
        return err_set(err, ERR_USAGE,
                       "continue_final_message: the chat template leaves out or changes the final "
                       "message, so it "
                       "cannot be continued; send it without this option");
    bool whole =
        *n - (size_t)(mark - text) >= sizeof final_mark - 1 && mark[sizeof final_mark - 2] == ' ';
    *n = (size_t)(mark - text);
    while (!whole && *n) {
        size_t i = *n;
        if (!text_space(text_prev(text, &i)))
            break;
        *n = i;
    }
    text[*n] = 0;
    return 0;
}

static int render_continued(const struct chat_template *t, const struct chat_input *in,
                            const struct chat_limits *limits, char **text, size_t *n,
                            struct err *err)
{
    const json_t *final = NULL;
    char *out = NULL;
    size_t out_n = 0;
    if (in->add_generation_prompt)
        return err_set(
            err, ERR_USAGE,
            "continue_final_message and add_generation_prompt exclude each other; set one of them");
    json_t *messages = mark_final(in->messages, &final);
    if (!messages)
        return err_set(err, ERR_USAGE,
                       "continue_final_message: the last message has no text to continue");
    int rc = render(t, in, messages, limits, &out, &out_n, err);
    if (!rc)
        rc = cut_at_mark(out, &out_n, final, err);
    json_decref(messages);
    if (rc) {
        free(out);
        return rc;
    }
    *text = out;
    *n = out_n;
    return 0;
}

int chat_render(const struct chat_template *t, const struct chat_input *in,
                const struct chat_limits *limits, char **text, size_t *n, struct err *err)
{
    if (!json_is_array(in->messages))
        return err_set(err, ERR_USAGE, "messages must be a list");
    if (in->tools && !json_is_array(in->tools) && !json_is_null(in->tools))
        return err_set(err, ERR_USAGE, "tools must be a list");
    if (in->extra && !json_is_object(in->extra))
        return err_set(err, ERR_USAGE, "chat_template_kwargs must be an object");
    if (in->continue_final_message)
        return render_continued(t, in, limits, text, n, err);
    return render(t, in, in->messages, limits, text, n, err);
}
