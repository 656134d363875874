/* top: `sigmoe top`, a running server in the terminal: asks /sigmoe/status once a second and draws
 * it (top_draw.c) on the terminal's other screen, until q or Ctrl-C. */
#include "tools/top.h"

#include "base/opt.h"
#include "tools/commands.h"
#include "tools/openai.h"
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

struct top_options {
    const char *url, *key_file;
    double period_s;
    int once;
};

static volatile sig_atomic_t ended;

static const char about[] =
    "Shows a running server: tokens a second, the KV cache, the workers with their share of the\n"
    "load, and each expert's load by layer. q or Ctrl-C ends it. Where standard output is no\n"
    "terminal, one frame is printed. URL: default http://127.0.0.1:8000.\n\n"
    "  sigmoe top\n"
    "  sigmoe top http://10.0.0.1:8000 --every 5";

static int parse(int argc, char **argv, struct top_options *o, struct err *err)
{
    *o = (struct top_options){.url = "http://127.0.0.1:8000", .period_s = 1};
    const struct opt opts[] = {
        {"every", 'e', OPT_FLOAT, &o->period_s, "S", "seconds between frames (1)", 0.1, 3600},
        {"once", '1', OPT_FLAG, &o->once, NULL, "print one frame and end", 0, 0},
        {"api-key-file", 0, OPT_STR, &o->key_file, "FILE",
         "its first line is the key (or SIGMOE_API_KEY)", 0, 0},
        {0},
    };
    const struct opt_command cmd = {"top", "sigmoe top [URL] [options]", about, opts};
    int n = 1;
    return opt_parse(&cmd, argc, argv, &o->url, &n, err);
}

static void on_signal(int signal_number)
{
    (void)signal_number;
    ended = 1;
}

static void measure(struct top_frame *f)
{
    struct winsize w = {0};
    int known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 && w.ws_row > 0;
    f->width = known ? w.ws_col : 100;
    f->height = known ? w.ws_row - 1 : 1000;
}

/* ---- the terminal ------------------------------------------------------------------------------
 */

static void enter(struct termios *before)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (tcgetattr(STDIN_FILENO, before) == 0) {
        struct termios keys = *before;
        keys.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &keys);
    }
    fputs("\033[?1049h\033[?25l", stdout);
}

static void leave(const struct termios *before)
{
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSANOW, before);
}

/* Waits for the next frame's time; q ends. */
static void pause_for_key(double seconds)
{
    struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
    char key = 0;
    if (poll(&keys, 1, (int)(1000 * seconds)) == 1 &&
        (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q'))
        ended = 1;
}

/* ---- frames ------------------------------------------------------------------------------------
 */

/* A server that does not answer for a while is shown as that, and asked again. */
static void show(struct top_frame *f, const struct err *err)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (!out)
        return;
    measure(f);
    fputs("\033[H", out);
    if (err->code)
        fprintf(out, "%.*s\033[K\n", f->width, err->text);
    if (f->status)
        top_draw(out, f, "\033[K\n");
    fputs("\033[J", out);
    if (fclose(out) == 0)
        fwrite(text, 1, n, stdout);
    fflush(stdout);
    free(text);
}

static void watch(struct openai *client, struct top_frame *f, double period_s)
{
    struct termios before;
    json_t *now = NULL, *last = NULL;
    enter(&before);
    while (!ended) {
        struct err err = {0};
        json_t *fresh = NULL;
        if (openai_get(client, "/sigmoe/status", &fresh, &err) == 0) {
            json_decref(last);
            last = now;
            now = fresh;
        }
        f->status = now;
        f->before = last;
        show(f, &err);
        if (!ended)
            pause_for_key(period_s);
    }
    leave(&before);
    json_decref(now);
    json_decref(last);
}

static int once(struct openai *client, struct top_frame *f, struct err *err)
{
    json_t *status = NULL;
    int r = openai_get(client, "/sigmoe/status", &status, err);
    if (r)
        return r;
    measure(f);
    f->height = 1000;
    f->status = status;
    top_draw(stdout, f, "\n");
    json_decref(status);
    return 0;
}

int cmd_top(int argc, char **argv)
{
    struct top_options o;
    struct openai *client = NULL;
    struct err err = {0};
    char key[1024];
    int r = parse(argc, argv, &o, &err);
    if (r == 1)
        return 0;
    r = r ? r : openai_read_key(o.key_file, key, sizeof key, &err);
    r = r ? r : openai_open(o.url, key[0] ? key : NULL, &client, &err);
    if (!r) {
        int live = !o.once && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
        const char *no_color = getenv("NO_COLOR");
        struct top_frame f = {.url = openai_url(client),
                              .colour = isatty(STDOUT_FILENO) && !(no_color && *no_color)};
        openai_stop_on(client, &ended);
        if (live)
            watch(client, &f, o.period_s);
        else
            r = once(client, &f, &err);
    }
    if (r)
        fprintf(stderr, "sigmoe top: %s\n", err.text);
    openai_close(client);
    return err_exit_code(r);
}
