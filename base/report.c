/* report: numbers for people, and a progress bar. The bar is for a person who waits: it appears
 * only on a terminal, redraws at most ten times a second and is wiped when the work is done. */
#include "base/report.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BAR_CELLS     24
#define REDRAW_NS     (100 * NS_PER_MS)
#define MINUTE_S      60.0
#define HOUR_S        3600.0
#define KIBI          1024.0
#define KILO          1000.0
#define ROUND_UP_FROM 999.5

char *human_bytes(double bytes, char *out, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int unit = 0;
    /* 1023.96 KiB would print as 1024.0 KiB: step up where the printed figure would. */
    while (unit < 5 && bytes >= (unit ? KIBI - 0.05 : KIBI - 0.5)) {
        bytes /= KIBI;
        unit++;
    }
    snprintf(out, size, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return out;
}

char *human_ns(double ns, char *out, size_t size)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    int unit = 0;
    while (unit < 3 && ns >= (unit ? KILO - 0.05 : KILO - 0.5)) {
        ns /= KILO;
        unit++;
    }
    if (unit == 3 && ns >= HOUR_S)
        snprintf(out, size, "%.1f h", ns / HOUR_S);
    else if (unit == 3 && ns >= 2 * MINUTE_S)
        snprintf(out, size, "%.1f min", ns / MINUTE_S);
    else
        snprintf(out, size, unit ? "%.1f %s" : "%.0f %s", ns, units[unit]);
    return out;
}

char *human_count(double n, char *out, size_t size)
{
    static const char *const units[] = {"", " K", " M", " B", " T"};
    int unit = 0;
    while (unit < 4 && n >= (unit ? KILO - 0.005 : ROUND_UP_FROM)) {
        n /= KILO;
        unit++;
    }
    snprintf(out, size, unit ? "%.2f%s" : "%.0f%s", n, units[unit]);
    return out;
}

/* progress_line: what the bar says, without cursor control. */
static void progress_line(const struct progress *p, int64_t now_ns, char *out, size_t size)
{
    int colour = !getenv("NO_COLOR") && !getenv("CI");
    double part = p->total ? (double)p->done / (double)p->total : 1.0;
    if (part > 1.0)
        part = 1.0;
    int filled = (int)(part * BAR_CELLS);
    char bar[BAR_CELLS + 1], done[32], total[32], rate[32], left[32] = "";
    memset(bar, '-', BAR_CELLS);
    memset(bar, '#', (size_t)filled);
    bar[BAR_CELLS] = '\0';
    double spent_s = (double)(now_ns - p->start_ns) / (double)NS_PER_S;
    double bytes_s = spent_s > 0 ? (double)p->done / spent_s : 0;
    if (bytes_s > 0 && p->done < p->total)
        human_ns((double)(p->total - p->done) / bytes_s * 1e9, left, sizeof(left));
    snprintf(out, size, "%s [%s%s%s] %s of %s, %s/s%s%s", p->label, colour ? "\033[32m" : "", bar,
             colour ? "\033[0m" : "", human_bytes((double)p->done, done, sizeof(done)),
             human_bytes((double)p->total, total, sizeof(total)),
             human_bytes(bytes_s, rate, sizeof(rate)), left[0] ? ", left " : "", left);
}

static void progress_draw(struct progress *p, int64_t now_ns)
{
    char line[512];
    progress_line(p, now_ns, line, sizeof(line));
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    p->drawn_ns = now_ns;
}

void progress_start(struct progress *p, const char *label, uint64_t total_bytes)
{
    int64_t now_ns = clock_now(&clock_real);
    *p = (struct progress){.label = label, .total = total_bytes, .start_ns = now_ns};
    p->shown = isatty(STDERR_FILENO);
    if (p->shown)
        progress_draw(p, now_ns);
}

void progress_add(struct progress *p, uint64_t bytes)
{
    p->done += bytes;
    if (!p->shown)
        return;
    int64_t now_ns = clock_now(&clock_real);
    if (now_ns - p->drawn_ns >= REDRAW_NS)
        progress_draw(p, now_ns);
}

void progress_end(struct progress *p)
{
    if (!p->shown)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    p->shown = 0;
}
