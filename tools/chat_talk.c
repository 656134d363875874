/* chat_talk: the conversation behind `sigmoe chat`; see chat_talk.h. A saved conversation is a
 * request for /v1/chat/completions, so that curl can send it as it is. */
#include "tools/chat_talk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct setting {
    const char *name;
    int whole; /* an integer */
    double min, max;
} settings[] = {
    {"temperature", 0, 0, 2},
    {"top_p", 0, 0, 1},
    {"top_k", 1, 0, 1 << 22},
    {"min_p", 0, 0, 1},
    {"repetition_penalty", 0, 0.01, 10},
    {"frequency_penalty", 0, -2, 2},
    {"presence_penalty", 0, -2, 2},
    {"max_tokens", 1, 1, 1 << 24},
    {"seed", 1, 0, 9007199254740992.0},
};
#define N_SETTING (sizeof settings / sizeof *settings)

int talk_init(struct talk *t, struct err *err)
{
    *t = (struct talk){.messages = json_array(), .settings = json_object()};
    return t->messages && t->settings ? 0 : err_set(err, ERR_NOMEM, "no memory for a conversation");
}

void talk_fini(struct talk *t)
{
    free(t->model);
    free(t->domain);
    free(t->system);
    json_decref(t->messages);
    json_decref(t->settings);
    *t = (struct talk){0};
}

void talk_clear(struct talk *t)
{
    json_array_clear(t->messages);
}

int talk_text(char **field, const char *value, struct err *err)
{
    char *copy = value && *value ? strdup(value) : NULL;
    if (value && *value && !copy)
        return err_set(err, ERR_NOMEM, "no memory for a text");
    free(*field);
    *field = copy;
    return 0;
}

int talk_add(struct talk *t, const char *role, const char *content, struct err *err)
{
    json_t *m = json_pack("{s:s,s:s}", "role", role, "content", content);
    if (!m)
        return err_set(err, ERR_USAGE, "that is not UTF-8 text; nothing was sent");
    return json_array_append_new(t->messages, m) == 0
               ? 0
               : err_set(err, ERR_NOMEM, "no memory for a message");
}

static const json_t *last_message(const struct talk *t)
{
    size_t n = json_array_size(t->messages);
    return n ? json_array_get(t->messages, n - 1) : NULL;
}

static int has_role(const json_t *message, const char *role)
{
    const char *is = json_string_value(json_object_get(message, "role"));
    return is && strcmp(is, role) == 0;
}

int talk_drop(struct talk *t, const char *role)
{
    if (!has_role(last_message(t), role))
        return 0;
    json_array_remove(t->messages, json_array_size(t->messages) - 1);
    return 1;
}

const char *talk_last(const struct talk *t, const char *role)
{
    for (size_t i = json_array_size(t->messages); i > 0; i--) {
        const json_t *m = json_array_get(t->messages, i - 1);
        if (has_role(m, role))
            return json_string_value(json_object_get(m, "content"));
    }
    return NULL;
}

const char *const *talk_settings_names(void)
{
    static const char *names[N_SETTING + 1];
    for (size_t i = 0; i < N_SETTING; i++)
        names[i] = settings[i].name;
    return names;
}

int talk_set(struct talk *t, const char *name, const char *value, struct err *err)
{
    const struct setting *s = NULL;
    for (size_t i = 0; i < N_SETTING; i++)
        if (strcmp(settings[i].name, name) == 0)
            s = &settings[i];
    if (!s)
        return err_set(err, ERR_USAGE, "there is no setting '%.40s'", name);
    if (!value || !*value) {
        json_object_del(t->settings, name);
        return 0;
    }
    char *end;
    errno = 0;
    double x = strtod(value, &end);
    if (*end || errno || !(x >= s->min && x <= s->max))
        return err_set(err, ERR_USAGE, "%s is a number from %g to %g, not '%.40s'", name, s->min,
                       s->max, value);
    if (s->whole && x != (double)(json_int_t)x)
        return err_set(err, ERR_USAGE, "%s is a whole number, not '%.40s'", name, value);
    json_t *v = s->whole ? json_integer((json_int_t)x) : json_real(x);
    return json_object_set_new(t->settings, name, v) == 0
               ? 0
               : err_set(err, ERR_NOMEM, "no memory for a setting");
}

/* ---- the request ----------------------------------------------------------------------------- */

static int add_messages(const struct talk *t, json_t *request)
{
    json_t *all = json_array();
    int bad = 0;
    if (t->system)
        bad = json_array_append_new(all,
                                    json_pack("{s:s,s:s}", "role", "system", "content", t->system));
    bad = bad || json_array_extend(all, t->messages);
    return json_object_set_new(request, "messages", all) || bad;
}

/* Without a template the model is given what was said so far, as one text to go on with. */
static int add_prompt(const struct talk *t, json_t *request)
{
    json_t *text = json_string(t->system ? t->system : "");
    size_t i;
    const json_t *m;
    json_array_foreach(t->messages, i, m)
    {
        const char *said = json_string_value(json_object_get(m, "content"));
        json_t *more = json_sprintf("%s%s", text ? json_string_value(text) : "", said ? said : "");
        json_decref(text);
        text = more;
    }
    return json_object_set_new(request, "prompt", text);
}

json_t *talk_request(const struct talk *t)
{
    json_t *request = json_copy(t->settings);
    int bad = !request;
    if (t->model)
        bad = bad || json_object_set_new(request, "model", json_string(t->model));
    if (t->domain)
        bad = bad || json_object_set_new(request, "domain", json_string(t->domain));
    bad = bad || (t->plain ? add_prompt(t, request) : add_messages(t, request));
    if (!bad)
        return request;
    json_decref(request);
    return NULL;
}

/* ---- files ----------------------------------------------------------------------------------- */

int talk_save(const struct talk *t, const char *path, struct err *err)
{
    char part[4096];
    struct talk as_chat = *t;
    as_chat.plain = 0;
    int n = snprintf(part, sizeof part, "%s.part", path);
    json_t *all = talk_request(&as_chat);
    int r =
        all && n > 0 && (size_t)n < sizeof part ? 0 : err_set(err, ERR_USAGE, "no name of a file");
    if (!r && (json_dump_file(all, part, JSON_INDENT(1)) != 0 || rename(part, path) != 0)) {
        r = err_sys(err, ERR_IO, "cannot write %s", path);
        remove(part);
    }
    json_decref(all);
    return r;
}

static int load_messages(struct talk *t, const json_t *list, struct err *err)
{
    size_t i;
    const json_t *m;
    json_array_foreach(list, i, m)
    {
        const char *content = json_string_value(json_object_get(m, "content"));
        if (content && i == 0 && has_role(m, "system")) {
            int r = talk_text(&t->system, content, err);
            if (r)
                return r;
            continue;
        }
        if (!content || !(has_role(m, "user") || has_role(m, "assistant")))
            return err_set(err, ERR_MODEL,
                           "message %zu is neither a user's nor an assistant's text", i);
        int r = talk_add(t, has_role(m, "user") ? "user" : "assistant", content, err);
        if (r)
            return r;
    }
    return 0;
}

static int load_settings(struct talk *t, const json_t *all, struct err *err)
{
    int r = 0;
    for (size_t i = 0; !r && i < N_SETTING; i++) {
        const json_t *v = json_object_get(all, settings[i].name);
        char text[64];
        if (!json_is_number(v))
            continue;
        if (json_is_integer(v))
            snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
        else
            snprintf(text, sizeof text, "%.17g", json_real_value(v));
        r = talk_set(t, settings[i].name, text, err);
    }
    return r;
}

int talk_load(struct talk *t, const char *path, struct err *err)
{
    json_error_t why;
    struct talk fresh;
    json_t *all = json_load_file(path, 0, &why);
    if (!all)
        return err_set(err, ERR_IO, "cannot read %s: %s", path, why.text);
    int r = talk_init(&fresh, err);
    const json_t *list = json_object_get(all, "messages");
    if (!r && !json_is_array(list))
        r = err_set(err, ERR_MODEL, "%s holds no conversation: there is no list \"messages\"",
                    path);
    r = r ? r : load_messages(&fresh, list, err);
    r = r ? r : load_settings(&fresh, all, err);
    r = r ? r : talk_text(&fresh.model, json_string_value(json_object_get(all, "model")), err);
    r = r ? r : talk_text(&fresh.domain, json_string_value(json_object_get(all, "domain")), err);
    fresh.plain = t->plain;
    json_decref(all);
    if (r) {
        talk_fini(&fresh);
        return r;
    }
    talk_fini(t);
    *t = fresh;
    return 0;
}
