/* chat_ask: one question and its answer, shown as it comes; and the line below it that tells the
 * domain and the speed. */
#include "tools/chat.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct display {
    const struct chat *chat;
    int thinking, n_shown;
};

void chat_note(const struct chat *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs(c->colour ? "\033[2m" : "", stderr);
    vfprintf(stderr, format, args);
    fputs(c->colour ? "\033[0m\n" : "\n", stderr);
    va_end(args);
}

/* C0, DEL, and C1 (in UTF-8: 0xc2 0x80 to 0xc2 0x9f). */
char *chat_printable(const char *text)
{
    char *out = malloc(strlen(text) + 1), *to = out;
    for (const unsigned char *p = (const unsigned char *)text; out && *p; p++) {
        if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) {
            p++;
            continue;
        }
        if ((*p >= 0x20 && *p != 0x7f) || *p == '\n' || *p == '\t')
            *to++ = (char)*p;
    }
    if (out)
        *to = 0;
    return out;
}

static void on_piece(void *user, const char *text, int thought)
{
    struct display *d = user;
    const struct chat *c = d->chat;
    if (c->json || (thought && !c->interactive))
        return;
    if (c->colour && thought != d->thinking)
        fputs(thought ? "\033[2m" : "\033[0m\n\n", stdout);
    d->thinking = thought;
    char *shown = c->interactive ? chat_printable(text) : NULL;
    fputs(shown ? shown : c->interactive ? "" : text, stdout);
    fflush(stdout);
    d->n_shown++;
    free(shown);
}

/* The domain of an answer: what the server says, or else the end of the model's id, if the model
 * has such a domain ("llama3:8b" of another server has none). */
static const char *domain_of(const struct chat *c, const struct openai_answer *a)
{
    const char *end = strrchr(a->model, ':');
    if (a->domain[0])
        return a->domain;
    for (int i = 0; end && c->domains[i]; i++)
        if (strcmp(c->domains[i], end + 1) == 0)
            return c->domains[i];
    return c->talk.domain && c->domains[0] ? c->talk.domain : "";
}

static void tell_figures(const struct chat *c, const struct openai_answer *a, int stopped)
{
    char line[1024] = "";
    const char *domain = domain_of(c, a);
    size_t n = 0;
    if (*domain)
        n += (size_t)snprintf(line + n, sizeof line - n, "domain %s · ", domain);
    if (a->n_answer > 0) {
        double s = a->total_s - a->first_s;
        n += (size_t)snprintf(line + n, sizeof line - n, "%d tokens", a->n_answer);
        if (s > 0 && a->n_answer > 1)
            n += (size_t)snprintf(line + n, sizeof line - n, ", %.1f a second",
                                  (a->n_answer - 1) / s);
        n += (size_t)snprintf(line + n, sizeof line - n, " · ");
    }
    snprintf(line + n, sizeof line - n, "first after %.0f ms%s%s%s", 1e3 * a->first_s,
             a->by[0] ? " · by " : "", a->by,
             stopped                            ? " · stopped"
             : strcmp(a->finish, "length") == 0 ? " · cut at the token limit"
                                                : "");
    char *shown = chat_printable(line);
    chat_note(c, "%s", shown ? shown : "");
    free(shown);
}

static int print_json(const struct chat *c, const struct openai_answer *a)
{
    json_t *o =
        json_pack("{s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:f,s:f}", "answer", a->text ? a->text : "",
                  "model", a->model, "domain", domain_of(c, a), "computed_by", a->by,
                  "finish_reason", a->finish, "prompt_tokens", a->n_prompt, "completion_tokens",
                  a->n_answer, "seconds_to_first", a->first_s, "seconds", a->total_s);
    int r = o && json_dumpf(o, stdout, JSON_COMPACT) == 0 ? 0 : ERR_IO;
    putchar('\n');
    json_decref(o);
    return r;
}

static void show_end(const struct chat *c, const struct display *d, const struct openai_answer *a,
                     int stopped)
{
    if (c->json) {
        print_json(c, a);
        return;
    }
    if (d->thinking && c->colour)
        fputs("\033[0m", stdout);
    size_t n = a->text ? strlen(a->text) : 0;
    if (d->n_shown && (n == 0 || a->text[n - 1] != '\n'))
        putchar('\n');
    fflush(stdout);
    if (c->interactive)
        tell_figures(c, a, stopped);
}

int chat_ask(struct chat *c, const char *question, struct err *err)
{
    struct openai_answer answer = {0};
    struct display d = {.chat = c};
    int r = talk_add(&c->talk, "user", question, err);
    if (r)
        return r;
    json_t *request = talk_request(&c->talk);
    chat_interrupted = 0;
    r = request ? openai_chat(c->client, request, on_piece, &d, &answer, err)
                : err_set(err, ERR_NOMEM, "no memory for the request");
    int stopped = r == ERR_AGAIN && chat_interrupted;
    chat_interrupted = 0;
    if (stopped) {
        err_clear(err);
        r = 0;
    }
    if (r == 0 || d.n_shown)
        show_end(c, &d, &answer, stopped);
    if (r == 0 && answer.text)
        r = talk_add(&c->talk, "assistant", answer.text, err);
    else
        talk_drop(&c->talk, "user");
    json_decref(request);
    openai_answer_fini(&answer);
    return r;
}
