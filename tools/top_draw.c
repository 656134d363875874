/* top_draw: one frame of `sigmoe top`: model, rates, cache, workers with their share of the load,
 * and each expert's load by layer as a line of blocks, relative to the layer's mean. */
#include "tools/top.h"

#include "base/report.h"
#include "tools/chat.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct draw {
    FILE *out;
    const struct top_frame *f;
    const char *end;
    int n_line;
};

/* ---- reading JSON ------------------------------------------------------------------------------
 */

static double number(const json_t *o, const char *a, const char *b)
{
    const json_t *v = json_object_get(o, a);
    return json_number_value(b ? json_object_get(v, b) : v);
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* ---- writing lines -----------------------------------------------------------------------------
 */

/* Characters, not bytes, are cut at the width. */
static int bytes_of_width(const char *s, int width)
{
    int i = 0, n = 0;
    while (s[i] && n < width) {
        i++;
        while (((unsigned char)s[i] & 0xc0) == 0x80)
            i++;
        n++;
    }
    return i;
}

static void line(struct draw *d, const char *colour, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void line(struct draw *d, const char *colour, const char *format, ...)
{
    char raw[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    char *shown = d->n_line < d->f->height ? chat_printable(raw) : NULL;
    if (shown) {
        int on = d->f->colour && colour;
        fprintf(d->out, "%s%.*s%s%s", on ? colour : "", bytes_of_width(shown, d->f->width), shown,
                on ? "\033[0m" : "", d->end);
        d->n_line++;
    }
    free(shown);
}

/* A bar of n characters, filled to a share. */
static const char *bar(double share, int n, char *out, size_t size)
{
    static const char *part[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int eighths = (int)lround(fmin(fmax(share, 0), 1) * n * 8);
    size_t at = 0;
    for (int i = 0; i < n && at + 4 < size; i++, eighths -= 8)
        at += (size_t)snprintf(out + at, size - at, "%s",
                               eighths >= 8  ? "█"
                               : eighths > 0 ? part[eighths]
                                             : " ");
    return out;
}

/* ---- parts -------------------------------------------------------------------------------------
 */

static double rate(const struct top_frame *f, const char *kind)
{
    double seconds = number(f->status, "uptime_s", NULL) - number(f->before, "uptime_s", NULL);
    if (!f->before || seconds < 0.2)
        return number(f->status, "tokens_per_s", kind);
    return fmax(0, number(f->status, "tokens", kind) - number(f->before, "tokens", kind)) / seconds;
}

static void draw_head(struct draw *d)
{
    const json_t *s = d->f->status;
    char cells[256];
    double pages = number(s, "kv", "pages"), used = pages - number(s, "kv", "free");
    line(d, "\033[1m", "%s  %s, %.0f layers, %.0f experts, %.0f a token  %s", text(s, "model"),
         text(s, "family"), number(s, "layers", NULL), number(s, "experts", NULL),
         number(s, "top_k", NULL), d->f->url);
    line(d, json_is_true(json_object_get(s, "ready")) ? "\033[32m" : "\033[33m", "%s",
         json_is_true(json_object_get(s, "ready"))
             ? "ready"
             : "degraded: some experts have no worker, the coordinator stands in");
    line(d, NULL, "tokens/s   %8.1f generated, %.1f of prompts", rate(d->f, "generated"),
         rate(d->f, "prompt"));
    line(d, NULL, "requests   %8.0f running, %.0f waiting, %.0f finished",
         number(s, "requests", "running"), number(s, "requests", "waiting"),
         number(s, "requests", "finished"));
    if (pages > 0)
        line(d, NULL, "KV cache   %7.1f%% |%s| %.0f of %.0f pages, %.0f times short",
             100 * used / pages, bar(used / pages, 24, cells, sizeof cells), used, pages,
             number(s, "kv", "preemptions"));
    if (number(s, "kv", "lookup_tokens") > 0)
        line(d, NULL, "prefixes   %7.1f%% of prompt tokens found, %.0f pages kept, %.0f given up",
             100 * number(s, "kv", "hit_tokens") / number(s, "kv", "lookup_tokens"),
             number(s, "kv", "cached"), number(s, "kv", "evictions"));
    line(d, NULL, "%s", "");
}

static void draw_worker(struct draw *d, const char *name, const char *state, double share,
                        const json_t *w)
{
    char cells[256], size[32];
    int down = strcmp(state, "down") == 0;
    const json_t *sparse = json_object_get(d->f->status, "sparse_layers");
    double pairs = (double)json_array_size(sparse) * number(d->f->status, "experts", NULL);
    if (!w) {
        line(d, NULL, "%-22.22s %-6s %5.1f%% |%s|", name, state, 100 * share,
             bar(share, 16, cells, sizeof cells));
        return;
    }
    line(d, down ? "\033[31m" : NULL,
         "%-22.22s %-6s %5.1f%% |%s| holds %3.0f%% %8.0f calls %8.2f ms %s", name, state,
         100 * share, bar(share, 16, cells, sizeof cells),
         100 * number(w, "experts", NULL) / fmax(1, pairs), number(w, "calls", NULL),
         number(w, "rtt_ms", NULL),
         human_bytes(number(w, "bytes_sent", NULL) + number(w, "bytes_received", NULL), size,
                     sizeof size));
}

static void draw_workers(struct draw *d)
{
    size_t i;
    const json_t *w, *s = d->f->status, *list = json_object_get(s, "workers");
    double own = number(s, "coordinator", "share");
    line(d, "\033[2m", "%-22s %-6s %s", "worker", "state", "share of the load");
    json_array_foreach(list, i, w)
    {
        draw_worker(d, text(w, "name"), text(w, "state"), number(w, "share", NULL), w);
    }
    if (own > 0)
        draw_worker(d, "coordinator", "helps", own, NULL);
    line(d, NULL, "%s", "");
}

/* Experts [from, to) share a column: the hottest of them is shown. */
static double hottest(const json_t *row, size_t from, size_t to)
{
    double most = 0;
    for (size_t e = from; e < to || e == from; e++)
        most = fmax(most, json_number_value(json_array_get(row, e)));
    return most;
}

static void draw_row(struct draw *d, const json_t *row, int layer, int n_column)
{
    static const char *block[] = {"·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    char cells[2048];
    size_t n = json_array_size(row), at = 0;
    double sum = 0;
    for (size_t e = 0; e < n; e++)
        sum += json_number_value(json_array_get(row, e));
    cells[0] = 0;
    for (int c = 0; c < n_column && at + 4 < sizeof cells; c++) {
        size_t from = n * (size_t)c / (size_t)n_column, to = n * (size_t)(c + 1) / (size_t)n_column;
        double x = sum > 0 ? hottest(row, from, to) * (double)n / sum : 0;
        int level = x > 0 ? 1 + (int)fmin(7, 7 * log2(1 + x) / log2(17)) : 0;
        at += (size_t)snprintf(cells + at, sizeof cells - at, "%s", block[level]);
    }
    line(d, "\033[36m", "%5d %s", layer, cells);
}

/* The names of domains above the columns of their experts, where there is room. */
static void draw_domains(struct draw *d, int n_column, double n_expert)
{
    char names[2048];
    size_t i, width = (size_t)n_column < sizeof names ? (size_t)n_column : sizeof names - 1;
    const json_t *o, *list = json_object_get(d->f->status, "domains");
    memset(names, ' ', width);
    names[width] = 0;
    json_array_foreach(list, i, o)
    {
        const char *name = text(o, "name");
        double a = number(o, "first", NULL) * n_column / n_expert;
        double b = a + number(o, "experts", NULL) * n_column / n_expert;
        size_t n = strlen(name);
        if (a >= 0 && b <= (double)width && (double)n <= b - a)
            memcpy(names + (size_t)a, name, n);
    }
    if (json_array_size(list))
        line(d, "\033[2m", "%5s %s", "", names);
}

static void draw_load(struct draw *d)
{
    const json_t *s = d->f->status, *load = json_object_get(s, "load"), *row;
    double n_expert = number(s, "experts", NULL);
    int room = d->f->width - 6;
    int n_column = n_expert > room ? room : (int)n_expert * (2 * n_expert <= room ? 2 : 1);
    size_t i;
    if (!json_array_size(load) || n_column < 1)
        return;
    line(d, "\033[2m", "layer, each expert's load over the layer's mean (full: 16), last %.0f s",
         number(s, "window_s", NULL));
    draw_domains(d, n_column, n_expert);
    json_array_foreach(load, i, row)
    {
        const json_t *layer = json_array_get(json_object_get(s, "sparse_layers"), i);
        draw_row(d, row, (int)json_integer_value(layer), n_column);
    }
}

void top_draw(FILE *out, const struct top_frame *frame, const char *end)
{
    struct draw d = {out, frame, end, 0};
    draw_head(&d);
    draw_workers(&d);
    draw_load(&d);
}
