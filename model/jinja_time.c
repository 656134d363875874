/* jinja_time: strftime_now: the time that the caller gives, in the local time zone, by strftime(3).
 */
#include "model/jinja_run.h"

#include <string.h>
#include <time.h>

/* A conversion is one letter, perhaps behind one flag; no widths, which strftime would obey. */
static bool format_known(struct jval f)
{
    for (size_t i = 0; i < f.n; i++) {
        if (f.s[i] == 0)
            return false;
        if (f.s[i] != '%')
            continue;
        i++;
        if (i < f.n && f.s[i] && strchr("-_0^#", f.s[i]))
            i++;
        if (i >= f.n || !f.s[i] || !strchr("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%", f.s[i]))
            return false;
    }
    return true;
}

struct jval j_strftime_now(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"format", NULL};
    char format[256], text[1024];
    time_t now = (time_t)r->now;
    struct tm tm;
    struct jval f;
    (void)self;
    if (!jargs_bind(r, args, "strftime_now()", names, 1, &f) ||
        !j_want_str(r, f, "strftime_now() argument"))
        return JUNDEF;
    if (f.n >= sizeof format || !format_known(f)) {
        j_fail(r, "strftime_now: this format is not supported");
        return JUNDEF;
    }
    if (!localtime_r(&now, &tm)) {
        j_fail(r, "strftime_now: the time %lld is out of range", (long long)r->now);
        return JUNDEF;
    }
    memcpy(format, f.s, f.n);
    format[f.n] = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = f.n ? strftime(text, sizeof text, format, &tm) : 0;
#pragma GCC diagnostic pop
    if (f.n && !n) {
        j_fail(r, "strftime_now: the text is empty or longer than %zu bytes", sizeof text);
        return JUNDEF;
    }
    return j_str_copy(r, text, n);
}
