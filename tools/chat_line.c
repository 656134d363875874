/* chat_line: the line editor of `sigmoe chat` on libedit; see chat_line.h. */
#include "tools/chat_line.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#define N_HISTORY 1000

static volatile sig_atomic_t window_changed;

struct line_editor {
    EditLine *el;
    History *history;
    char *path, *line;
    size_t cap;
    const char *prompt;
    const char *const *words;
    const volatile sig_atomic_t *interrupted;
};

static char *prompt_of(EditLine *el)
{
    struct line_editor *e;
    el_get(el, EL_CLIENTDATA, &e);
    return (char *)(unsigned long)e->prompt;
}

/* Tab: the rest of the only word that begins so, or the words that do. */
static unsigned char complete(EditLine *el, int c)
{
    struct line_editor *e;
    (void)c;
    el_get(el, EL_CLIENTDATA, &e);
    const LineInfo *info = el_line(el);
    size_t n = (size_t)(info->cursor - info->buffer);
    const char *only = NULL;
    int found = 0;
    for (int i = 0; n && e->words[i]; i++)
        if (strncmp(e->words[i], info->buffer, n) == 0) {
            only = e->words[i];
            found++;
        }
    if (found == 1) {
        char rest[64];
        snprintf(rest, sizeof rest, "%s ", only + n);
        return el_insertstr(el, rest) == 0 ? CC_REFRESH : CC_ERROR;
    }
    if (found < 2)
        return CC_REFRESH_BEEP;
    putchar('\n');
    for (int i = 0; e->words[i]; i++)
        if (strncmp(e->words[i], info->buffer, n) == 0)
            printf("%s  ", e->words[i]);
    putchar('\n');
    return CC_REDISPLAY;
}

/* wait_byte: 1 when a byte or the end can be read, -1 with errno EINTR after a signal. It looks up
 * a few times a second: a signal that comes just before a read would else wait for the next key. */
static int wait_byte(const struct line_editor *e)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    for (;;) {
        if (*e->interrupted || window_changed) {
            errno = EINTR;
            return -1;
        }
        int n = poll(&in, 1, 100);
        if (n != 0)
            return n;
    }
}

/* Reads one character. libedit's own reader goes on after a signal; this one gives up the line when
 * Ctrl-C came, and follows the window's size. */
static int get_char(EditLine *el, wchar_t *out)
{
    struct line_editor *e;
    mbstate_t state = {0};
    el_get(el, EL_CLIENTDATA, &e);
    for (;;) {
        char byte;
        ssize_t n = wait_byte(e);
        if (n > 0)
            n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR && !*e->interrupted) {
            if (window_changed) {
                window_changed = 0;
                el_resize(el);
            }
            continue;
        }
        if (n <= 0)
            return *e->interrupted ? -1 : (int)n;
        size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-1)
            state = (mbstate_t){0}; /* not a character: passed over */
        else if (used != (size_t)-2)
            return 1;
    }
}

static void on_window(int signal_number)
{
    (void)signal_number;
    window_changed = 1;
}

static void history_open(struct line_editor *e, const char *path)
{
    HistEvent event;
    history(e->history, &event, H_SETSIZE, N_HISTORY);
    history(e->history, &event, H_SETUNIQUE, 1);
    if (path) {
        e->path = strdup(path);
        history(e->history, &event, H_LOAD, path);
    }
}

int line_editor_open(const char *path, const char *const *words,
                     const volatile sig_atomic_t *interrupted, struct line_editor **out,
                     struct err *err)
{
    struct line_editor *e = calloc(1, sizeof *e);
    if (e) {
        e->words = words;
        e->interrupted = interrupted;
        e->el = el_init("sigmoe", stdin, stdout, stderr);
        e->history = history_init();
    }
    if (!e || !e->el || !e->history) {
        line_editor_close(e);
        return err_set(err, ERR_NOMEM, "the terminal's line editor cannot start");
    }
    history_open(e, path);
    struct sigaction action = {.sa_handler = on_window};
    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    el_set(e->el, EL_CLIENTDATA, e);
    el_set(e->el, EL_PROMPT_ESC, prompt_of, '\1');
    el_set(e->el, EL_EDITOR, "emacs");
    el_set(e->el, EL_SIGNAL, 0);
    el_set(e->el, EL_GETCFN, get_char);
    el_set(e->el, EL_HIST, history, e->history);
    el_wset(e->el, EL_ADDFN, L"sigmoe-complete", L"complete a command", complete);
    el_set(e->el, EL_BIND, "^I", "sigmoe-complete", NULL);
    el_set(e->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(e->el, NULL); /* ~/.editrc, for people who have habits */
    *out = e;
    return 0;
}

static int keep(struct line_editor *e, size_t at, const char *text, size_t n)
{
    if (at + n + 1 > e->cap) {
        char *grown = realloc(e->line, 2 * (at + n) + 256);
        if (!grown)
            return -1;
        e->line = grown;
        e->cap = 2 * (at + n) + 256;
    }
    memcpy(e->line + at, text, n);
    e->line[at + n] = 0;
    return 0;
}

int line_editor_read(struct line_editor *e, const char *prompt, const char **line, struct err *err)
{
    HistEvent event;
    size_t at = 0;
    for (e->prompt = prompt;; e->prompt = "… ") {
        int n = 0;
        /* libedit shows the prompt first: an end that is typed at once would be the terminal's */
        el_set(e->el, EL_PREP_TERM, 1);
        const char *typed = el_gets(e->el, &n);
        if (*e->interrupted) {
            el_reset(e->el);
            return ERR_AGAIN;
        }
        if (!typed || n <= 0)
            return 0;
        size_t len = (size_t)n - (typed[n - 1] == '\n');
        int more = len > 0 && typed[len - 1] == '\\';
        if (keep(e, at, typed, len - (size_t)more))
            return err_set(err, ERR_NOMEM, "no memory for the line");
        at += len - (size_t)more;
        if (!more)
            break;
        if (keep(e, at++, "\n", 1))
            return err_set(err, ERR_NOMEM, "no memory for the line");
    }
    if (e->line[strspn(e->line, " \t")])
        history(e->history, &event, H_ENTER, e->line);
    *line = e->line;
    return 1;
}

static void history_save(struct line_editor *e)
{
    HistEvent event;
    int fd = open(e->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd); /* libedit keeps the mode of a file that is there */
    history(e->history, &event, H_SAVE, e->path);
}

void line_editor_close(struct line_editor *e)
{
    if (!e)
        return;
    if (e->path && e->history)
        history_save(e);
    if (e->el)
        el_end(e->el);
    if (e->history)
        history_end(e->history);
    free(e->path);
    free(e->line);
    free(e);
}

static int make_folder(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

const char *line_history_path(char *out, unsigned long size)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char base[2048];
    int n;
    if (state && state[0] == '/') {
        n = snprintf(base, sizeof base, "%s", state);
    } else if (home && home[0] == '/') {
        n = snprintf(base, sizeof base, "%s/.local", home);
        if (n < 0 || (size_t)n >= sizeof base || !make_folder(base))
            return NULL;
        n = snprintf(base, sizeof base, "%s/.local/state", home);
    } else {
        return NULL;
    }
    if (n < 0 || (size_t)n >= sizeof base || !make_folder(base))
        return NULL;
    n = snprintf(out, size, "%s/sigmoe", base);
    if (n < 0 || (unsigned long)n >= size || !make_folder(out))
        return NULL;
    n = snprintf(out, size, "%s/sigmoe/chat_history", base);
    return n < 0 || (unsigned long)n >= size ? NULL : out;
}
