/* chat_command: what a person can do besides asking: lines that begin with '/'. */
#include "tools/chat.h"

#include "base/opt.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int command_fn(struct chat *c, const char *arg, struct err *err);

static int do_new(struct chat *c, const char *arg, struct err *err)
{
    (void)arg;
    (void)err;
    talk_clear(&c->talk);
    chat_note(c, "a new conversation");
    return 0;
}

static int do_retry(struct chat *c, const char *arg, struct err *err)
{
    (void)arg;
    const char *last = talk_last(&c->talk, "user");
    char *question = last ? strdup(last) : NULL;
    if (!question)
        return err_set(err, ERR_USAGE, "there is no question yet");
    talk_drop(&c->talk, "assistant");
    talk_drop(&c->talk, "user");
    int r = chat_ask(c, question, err);
    free(question);
    return r;
}

static int do_system(struct chat *c, const char *arg, struct err *err)
{
    int r = *arg ? talk_text(&c->talk.system, strcmp(arg, "none") ? arg : NULL, err) : 0;
    chat_note(c, "system: %s", c->talk.system ? c->talk.system : "none");
    return r;
}

static void list_domains(const struct chat *c)
{
    char line[1024] = "";
    size_t n = 0;
    for (int i = 0; c->domains[i] && n + 80 < sizeof line; i++)
        n += (size_t)snprintf(line + n, sizeof line - n, "%s%.64s", i ? ", " : "", c->domains[i]);
    if (c->domains[0])
        chat_note(c, "domain: %s (of %s, or auto)", c->talk.domain ? c->talk.domain : "auto", line);
    else
        chat_note(c, "this model has no domains");
}

static int do_domain(struct chat *c, const char *arg, struct err *err)
{
    int known = strcmp(arg, "auto") == 0 || !*arg, r = 0;
    for (int i = 0; !known && c->domains[i]; i++)
        known = strcmp(c->domains[i], arg) == 0;
    const char *near = known ? NULL : opt_nearest(arg, c->domains);
    if (!known && near)
        return err_set(err, ERR_USAGE, "there is no domain '%.40s'; did you mean '%s'?", arg, near);
    if (!known && c->domains[0])
        return err_set(err, ERR_USAGE, "there is no domain '%.40s'; /domain lists them", arg);
    if (*arg && known)
        r = talk_text(&c->talk.domain, strcmp(arg, "auto") ? arg : NULL, err);
    list_domains(c);
    return r;
}

static int do_model(struct chat *c, const char *arg, struct err *err)
{
    int r = *arg ? talk_text(&c->talk.model, arg, err) : 0;
    r = r ? r : chat_models_read(c, err);
    size_t i;
    const json_t *m;
    json_array_foreach(json_object_get(c->models, "data"), i, m)
    {
        const char *id = json_string_value(json_object_get(m, "id"));
        if (id)
            chat_note(c, "%s %s", c->talk.model && strcmp(id, c->talk.model) == 0 ? "*" : " ", id);
    }
    return r;
}

static int do_set(struct chat *c, const char *arg, struct err *err)
{
    char name[64];
    size_t n = strcspn(arg, " \t");
    snprintf(name, sizeof name, "%.*s", (int)(n < 63 ? n : 63), arg);
    const char *value = arg + n + strspn(arg + n, " \t");
    int r = *name ? talk_set(&c->talk, name, value, err) : 0;
    if (r)
        return r;
    const char *const *names = talk_settings_names();
    for (int i = 0; names[i]; i++) {
        const json_t *v = json_object_get(c->talk.settings, names[i]);
        if (v)
            chat_note(c, "%-20s %g", names[i], json_number_value(v));
        else if (!*name)
            chat_note(c, "%-20s the server's default", names[i]);
    }
    return 0;
}

static int do_plain(struct chat *c, const char *arg, struct err *err)
{
    if (*arg && strcmp(arg, "on") && strcmp(arg, "off"))
        return err_set(err, ERR_USAGE, "/plain on, or /plain off");
    c->talk.plain = *arg ? strcmp(arg, "on") == 0 : !c->talk.plain;
    chat_note(c, c->talk.plain ? "the model goes on with your text (/v1/completions)"
                               : "the model answers in a chat (/v1/chat/completions)");
    return 0;
}

static int do_save(struct chat *c, const char *arg, struct err *err)
{
    if (!*arg)
        return err_set(err, ERR_USAGE, "/save FILE");
    int r = talk_save(&c->talk, arg, err);
    if (!r)
        chat_note(c, "saved %zu messages in %s; curl -d @FILE can send it too",
                  json_array_size(c->talk.messages), arg);
    return r;
}

static int do_load(struct chat *c, const char *arg, struct err *err)
{
    if (!*arg)
        return err_set(err, ERR_USAGE, "/load FILE");
    int r = talk_load(&c->talk, arg, err);
    if (!r)
        chat_note(c, "loaded %zu messages from %s", json_array_size(c->talk.messages), arg);
    return r;
}

static int do_quit(struct chat *c, const char *arg, struct err *err)
{
    (void)arg;
    (void)err;
    c->quit = 1;
    return 0;
}

static command_fn do_help;

static const struct command {
    const char *name, *arg, *about;
    command_fn *run;
} commands[] = {
    {"/help", "", "this page", do_help},
    {"/domain", "[NAME|auto]", "answer with this domain's experts; alone: list them", do_domain},
    {"/system", "[TEXT|none]", "what the model is told first", do_system},
    {"/new", "", "a new conversation, with the same settings", do_new},
    {"/retry", "", "answer the last question again", do_retry},
    {"/set", "[NAME [VALUE]]", "temperature, top_p, max_tokens, seed, ...; no value: default",
     do_set},
    {"/model", "[ID]", "ask another model of the server; alone: list them", do_model},
    {"/plain", "[on|off]", "go on with the text instead of answering it", do_plain},
    {"/save", "FILE", "the conversation as a JSON request", do_save},
    {"/load", "FILE", "such a file", do_load},
    {"/quit", "", "end; so does Ctrl-D", do_quit},
};
#define N_COMMAND ((int)(sizeof commands / sizeof *commands))

static int do_help(struct chat *c, const char *arg, struct err *err)
{
    (void)arg;
    (void)err;
    for (int i = 0; i < N_COMMAND; i++)
        chat_note(c, "  %-8s %-16s %s", commands[i].name, commands[i].arg, commands[i].about);
    chat_note(c, "Ctrl-C stops an answer. A line that ends in \\ goes on in the next.");
    return 0;
}

const char *const *chat_command_words(void)
{
    static const char *words[N_COMMAND + 1];
    for (int i = 0; i < N_COMMAND; i++)
        words[i] = commands[i].name;
    return words;
}

int chat_command(struct chat *c, const char *line, struct err *err)
{
    char name[64];
    size_t n = strcspn(line, " \t\n");
    snprintf(name, sizeof name, "%.*s", (int)(n < 63 ? n : 63), line);
    for (int i = 0; i < N_COMMAND; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(c, line + n + strspn(line + n, " \t\n"), err);
    const char *near = opt_nearest(name, chat_command_words());
    return err_set(err, ERR_USAGE, "there is no %s; %s%s", name, near ? "did you mean " : "/help",
                   near ? near : " lists what there is");
}
