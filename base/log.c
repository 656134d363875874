/* log: a line is formatted on the stack and leaves in one write(2), so lines of several threads and
 * processes never mix. What peers and files put into a fact cannot steer a terminal: control
 * characters (C0, DEL, C1) and bytes that are not UTF-8 become \xNN, a newline \n. The level is the
 * one process-wide state of this program, because a log line may come from anywhere. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEVEL_UNSET     (-1)
#define FACT_BYTES      2048
#define LINE_BYTES      4608
#define SECOND_MS       1000
#define NS_A_MS         1000000
#define C1_FIRST_SECOND 0xA0

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static _Atomic int level_now = LEVEL_UNSET;

static int level_from_environment(void)
{
    const char *name = getenv("SIGMOE_LOG");
    for (int i = 0; name && i <= LOG_DEBUG; i++)
        if (strcmp(name, level_names[i]) == 0)
            return i;
    return LOG_INFO;
}

void log_set_level(enum log_level level)
{
    atomic_store(&level_now, (int)level);
}

enum log_level log_level_get(void)
{
    int level = atomic_load(&level_now);
    if (level == LEVEL_UNSET) {
        level = level_from_environment();
        atomic_store(&level_now, level);
    }
    return (enum log_level)level;
}

/* utf8_length: bytes of the well-formed sequence at s (RFC 3629), 0 if there is none. The NUL
 * behind the text is no continuation byte, so no sequence is read past the end. */
static int utf8_length(const unsigned char *s)
{
    static const unsigned char least_second[] = {0xE0, 0xA0, 0xF0, 0x90};
    int n = s[0] < 0x80   ? 1
            : s[0] < 0xC2 ? 0
            : s[0] < 0xE0 ? 2
            : s[0] < 0xF0 ? 3
            : s[0] < 0xF5 ? 4
                          : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    if (n > 2 && ((s[0] == least_second[0] && s[1] < least_second[1]) ||
                  (s[0] == least_second[2] && s[1] < least_second[3])))
        return 0; /* overlong */
    if ((s[0] == 0xED && s[1] >= 0xA0 && n == 3) || (s[0] == 0xF4 && s[1] >= 0x90 && n == 4))
        return 0; /* surrogates; above U+10FFFF */
    return n;
}

static int is_control(const unsigned char *s, int n)
{
    if (n == 1)
        return s[0] < 0x20 || s[0] == 0x7F;
    return n == 2 && s[0] == 0xC2 && s[1] < C1_FIRST_SECOND;
}

/* escape_append writes text to out[used..size) and returns the new length; what does not fit is cut
 * between characters. */
static size_t escape_append(char *out, size_t used, size_t size, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s) {
        int n = utf8_length(s);
        if (size - used < 5)
            break;
        if (*s == '\n') {
            memcpy(out + used, "\\n", 2);
            used += 2;
            s++;
        } else if (n == 0 || is_control(s, n)) {
            int bytes = n ? n : 1;
            if (size - used < (size_t)bytes * 4 + 1)
                break;
            for (int i = 0; i < bytes; i++, s++)
                used += (size_t)snprintf(out + used, size - used, "\\x%02x", *s);
        } else {
            memcpy(out + used, s, (size_t)n);
            used += (size_t)n;
            s += n;
        }
    }
    return used;
}

static size_t stamp(char *out, size_t size, enum log_level level, const char *room)
{
    struct timespec now;
    struct tm utc;
    char when[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);
    int n = snprintf(out, size, "%s.%03ldZ %-5s %.32s ", when, now.tv_nsec / NS_A_MS % SECOND_MS,
                     level_names[level], room);
    return n < 0 ? 0 : (size_t)n;
}

void log_line(enum log_level level, const char *room, const char *format, ...)
{
    if (level > log_level_get())
        return;
    int saved = errno;
    char fact[FACT_BYTES], line[LINE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(fact, sizeof(fact), format, args);
    va_end(args);
    size_t n = stamp(line, sizeof(line), level, room);
    n = escape_append(line, n, sizeof(line) - 1, fact);
    line[n++] = '\n';
    /* A line that cannot be written has nowhere to be reported. */
    if (write(STDERR_FILENO, line, n) < 0)
        errno = 0;
    errno = saved;
}
