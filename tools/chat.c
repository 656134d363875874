/* chat: `sigmoe chat`, a conversation in a terminal with any OpenAI-compatible server. Where
 * standard input is no terminal it is the question, and the answer alone goes to standard output.
 */
#include "tools/chat.h"

#include "base/opt.h"
#include "tools/chat_line.h"
#include "tools/commands.h"
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUESTION_BYTES_MAX (16 << 20)

volatile sig_atomic_t chat_interrupted;

struct chat_options {
    const char *url, *key_file, *model, *domain, *system, *ask, *load;
    double temperature;
    int64_t max_tokens;
    int plain, json;
};

static const char about[] =
    "Talks with a model in the terminal: answers stream, the domain that answered is shown, and "
    "lines\n"
    "that begin with / are commands (/help). URL is that of a sigmoe server or of any other with\n"
    "OpenAI's interface; default http://127.0.0.1:8000. A key is read from --api-key-file or from\n"
    "SIGMOE_API_KEY. Where standard input is no terminal, it is one question.\n\n"
    "  sigmoe chat\n"
    "  sigmoe chat http://10.0.0.2:8000 --domain zh\n"
    "  echo 'Why is the sky blue?' | sigmoe chat\n"
    "  sigmoe chat --ask 'Write a haiku' --json";

/* ---- options --------------------------------------------------------------------------------- */

static int parse(int argc, char **argv, struct chat_options *o, struct err *err)
{
    *o = (struct chat_options){.url = "http://127.0.0.1:8000", .temperature = -1, .max_tokens = 0};
    const struct opt opts[] = {
        {"ask", 'q', OPT_STR, &o->ask, "TEXT", "ask this, print the answer and end", 0, 0},
        {"domain", 'd', OPT_STR, &o->domain, "NAME",
         "whose experts answer; default: the server's choice", 0, 0},
        {"model", 'm', OPT_STR, &o->model, "ID", "default: the server's first", 0, 0},
        {"system", 's', OPT_STR, &o->system, "TEXT", "what the model is told first", 0, 0},
        {"temperature", 't', OPT_FLOAT, &o->temperature, "T",
         "0: always the likeliest token; default: the server's", 0, 2},
        {"max-tokens", 'n', OPT_INT, &o->max_tokens, "N", "of an answer; default: the server's", 1,
         1 << 24},
        {"plain", 0, OPT_FLAG, &o->plain, NULL,
         "go on with the text, for models without a chat template", 0, 0},
        {"load", 0, OPT_STR, &o->load, "FILE", "begin with a conversation that /save wrote", 0, 0},
        {"api-key-file", 0, OPT_STR, &o->key_file, "FILE", "its first line is the key", 0, 0},
        {"json", 'j', OPT_FLAG, &o->json, NULL,
         "print one JSON object with the answer, its domain and its times", 0, 0},
        {0},
    };
    const struct opt_command cmd = {"chat", "sigmoe chat [URL] [options]", about, opts};
    int n = 1;
    return opt_parse(&cmd, argc, argv, &o->url, &n, err);
}

static int set_number(struct talk *t, const char *name, double value, struct err *err)
{
    char text[64];
    snprintf(text, sizeof text, "%.17g", value);
    return talk_set(t, name, text, err);
}

static int start_talk(struct chat *c, const struct chat_options *o, struct err *err)
{
    int r = talk_init(&c->talk, err);
    if (!r && o->load)
        r = talk_load(&c->talk, o->load, err);
    if (!r && o->model)
        r = talk_text(&c->talk.model, o->model, err);
    if (!r && o->domain)
        r = talk_text(&c->talk.domain, o->domain, err);
    if (!r && o->system)
        r = talk_text(&c->talk.system, o->system, err);
    if (!r && o->temperature >= 0)
        r = set_number(&c->talk, "temperature", o->temperature, err);
    if (!r && o->max_tokens > 0)
        r = set_number(&c->talk, "max_tokens", (double)o->max_tokens, err);
    c->talk.plain = o->plain;
    return r;
}

/* ---- models ---------------------------------------------------------------------------------- */

/* sigmoe lists a model "name" and, for each of its domains, "name:domain". */
static void find_domains(struct chat *c, const json_t *list)
{
    const char *base = c->talk.model;
    size_t n = base ? strcspn(base, ":") : 0, i;
    int found = 0;
    const json_t *m;
    json_array_foreach(list, i, m)
    {
        const char *id = json_string_value(json_object_get(m, "id"));
        const char *owner = json_string_value(json_object_get(m, "owned_by"));
        if (n && id && owner && strcmp(owner, "sigmoe") == 0 && strncmp(id, base, n) == 0 &&
            id[n] == ':' && found < CHAT_DOMAINS_MAX)
            c->domains[found++] = id + n + 1;
    }
    c->domains[found] = NULL;
}

int chat_models_read(struct chat *c, struct err *err)
{
    json_t *models = NULL;
    int r = openai_get(c->client, "/v1/models", &models, err);
    if (r)
        return r;
    json_decref(c->models);
    c->models = models;
    const json_t *list = json_object_get(models, "data");
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "id"));
    if (!c->talk.model && first)
        r = talk_text(&c->talk.model, first, err);
    find_domains(c, list);
    return r;
}

/* ---- a question from a pipe, a conversation in a terminal --------------------------------------
 */

static int ask_stdin(struct chat *c, struct err *err)
{
    char *text = NULL;
    size_t cap = 0;
    ssize_t n = getdelim(&text, &cap, EOF, stdin);
    int r = 0;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        text[--n] = 0;
    if (n > QUESTION_BYTES_MAX)
        r = err_set(err, ERR_LIMIT, "the question is longer than %d MiB", QUESTION_BYTES_MAX >> 20);
    else if (n <= 0 || strlen(text) != (size_t)n)
        r = err_set(err, ERR_USAGE, "standard input holds no question");
    r = r ? r : chat_ask(c, text, err);
    free(text);
    return r;
}

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    chat_interrupted = 1;
}

static void welcome(const struct chat *c)
{
    chat_note(c, "%s at %s%s", c->talk.model ? c->talk.model : "a model", openai_url(c->client),
              c->domains[0] ? "; /domain lists its domains" : "");
    chat_note(c, "/help tells what there is; Ctrl-C stops an answer, Ctrl-D ends.");
}

static void prompt_text(const struct chat *c, char *out, size_t size)
{
    const char *domain = c->talk.domain ? c->talk.domain : "";
    snprintf(out, size, c->colour ? "\1\033[1m\1%.60s> \1\033[0m\1" : "%.60s> ", domain);
}

static void converse(struct chat *c, struct line_editor *editor)
{
    int idle_interrupts = 0;
    while (!c->quit) {
        char prompt[128];
        const char *line = NULL;
        struct err err = {0};
        prompt_text(c, prompt, sizeof prompt);
        chat_interrupted = 0;
        int r = line_editor_read(editor, prompt, &line, &err);
        if (r == ERR_AGAIN) {
            putchar('\n');
            if (++idle_interrupts == 2)
                chat_note(c, "Ctrl-D or /quit ends");
            continue;
        }
        if (r != 1)
            break;
        idle_interrupts = 0;
        if (!line[strspn(line, " \t\n")])
            continue;
        chat_interrupted = 0;
        r = line[0] == '/' ? chat_command(c, line, &err) : chat_ask(c, line, &err);
        if (r)
            chat_note(c, "sigmoe chat: %s", err.text);
    }
}

static int talk_in_terminal(struct chat *c, struct err *err)
{
    char path[4096];
    struct line_editor *editor;
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    openai_stop_on(c->client, &chat_interrupted);
    int r = line_editor_open(line_history_path(path, sizeof path), chat_command_words(),
                             &chat_interrupted, &editor, err);
    if (r)
        return r;
    welcome(c);
    converse(c, editor);
    line_editor_close(editor);
    return 0;
}

/* In the C locale libedit would take each byte of a Chinese character for one of its own. */
static void set_locale(void)
{
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
}

static int chat(struct chat *c, const struct chat_options *o, struct err *err)
{
    char key[1024];
    const char *no_color = getenv("NO_COLOR");
    c->json = o->json;
    c->interactive = !o->ask && !o->json && isatty(0) && isatty(1);
    c->colour = c->interactive && isatty(2) && !(no_color && *no_color);
    int r = openai_read_key(o->key_file, key, sizeof key, err);
    r = r ? r : openai_open(o->url, key[0] ? key : NULL, &c->client, err);
    r = r ? r : start_talk(c, o, err);
    r = r ? r : chat_models_read(c, err);
    if (r)
        return r;
    if (c->interactive)
        return talk_in_terminal(c, err);
    return o->ask ? chat_ask(c, o->ask, err) : ask_stdin(c, err);
}

int cmd_chat(int argc, char **argv)
{
    struct chat *c = calloc(1, sizeof *c);
    struct chat_options o;
    struct err err = {0};
    set_locale();
    int r = c ? parse(argc, argv, &o, &err) : err_set(&err, ERR_NOMEM, "no memory");
    if (r == 0)
        r = chat(c, &o, &err);
    if (r < 0)
        fprintf(stderr, "sigmoe chat: %s\n", err.text);
    if (r == ERR_NET)
        fprintf(stderr, "is a server running? sigmoe serve MODEL starts one\n");
    if (c) {
        talk_fini(&c->talk);
        json_decref(c->models);
        openai_close(c->client);
        free(c);
    }
    return r == 1 ? 0 : err_exit_code(r);
}
