/* jinja_filter: the filters on one value, and the search of all filters. */
#include "model/jinja_methods.h"
#include "model/jinja_run.h"
#include "model/jinja_seq.h"
#include "model/jinja_text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const no_names[] = {NULL};

struct jval j_escape(struct jrun *r, struct jval v)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct jbuf b = {0};
    struct jval s = j_to_str(r, v);
    size_t plain = 0;
    for (size_t i = 0; i < s.n && !r->rc; i++) {
        const char *p = s.s[i] ? strchr(from, s.s[i]) : NULL;
        if (!p)
            continue;
        jbuf_put(r, &b, s.s + plain, i - plain);
        jbuf_puts(r, &b, to[p - from]);
        plain = i + 1;
    }
    jbuf_put(r, &b, s.s + plain, s.n - plain);
    s = jbuf_take(&b);
    s.flag = 1;
    return s;
}

static struct jval f_escape(struct jrun *r, struct jval self, const struct jargs *args)
{
    if (!jargs_bind(r, args, "escape", no_names, 0, NULL))
        return JUNDEF;
    return self.type == J_STR && self.flag ? self : j_escape(r, self);
}

static struct jval f_safe(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jval v = jargs_bind(r, args, "safe", no_names, 0, NULL) ? j_to_str(r, self) : JUNDEF;
    v.flag = v.type == J_STR;
    return v;
}

static struct jval f_string(struct jrun *r, struct jval self, const struct jargs *args)
{
    return jargs_bind(r, args, "string", no_names, 0, NULL) ? j_to_str(r, self) : JUNDEF;
}

static struct jval f_default(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"default_value", "boolean", NULL};
    struct jval a[] = {JLIT(""), JBOOL(false)};
    if (!jargs_bind(r, args, "default", names, 0, a))
        return JUNDEF;
    return self.type == J_UNDEF || (j_truth(a[1]) && !j_truth(self)) ? a[0] : self;
}

static struct jval f_length(struct jrun *r, struct jval self, const struct jargs *args)
{
    size_t n;
    if (!jargs_bind(r, args, "length", no_names, 0, NULL) || !j_len(r, self, &n))
        return JUNDEF;
    return JINT((int64_t)n);
}

static struct jval mapped(struct jrun *r, struct jval self, const struct jargs *args,
                          const char *what, enum jcase how)
{
    return jargs_bind(r, args, what, no_names, 0, NULL) ? jstr_map(r, j_to_str(r, self), how)
                                                        : JUNDEF;
}

static struct jval f_upper(struct jrun *r, struct jval self, const struct jargs *args)
{
    return mapped(r, self, args, "upper", CASE_UPPER);
}

static struct jval f_lower(struct jrun *r, struct jval self, const struct jargs *args)
{
    return mapped(r, self, args, "lower", CASE_LOWER);
}

static struct jval f_capitalize(struct jrun *r, struct jval self, const struct jargs *args)
{
    return mapped(r, self, args, "capitalize", CASE_CAPITALIZE);
}

static bool word_gap(uint32_t cp)
{
    return text_space(cp) || (cp && cp < 0x80 && strchr("-({[<", (int)cp));
}

/* f_title: Jinja2's words begin behind white space and -({[<, not behind every non-letter. */
static struct jval f_title(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jbuf b = {0};
    if (!jargs_bind(r, args, "title", no_names, 0, NULL))
        return JUNDEF;
    struct jval s = j_to_str(r, self);
    for (size_t i = 0; i < s.n && !r->rc;) {
        size_t from = i, second, end;
        bool gap = word_gap(text_next(s.s, s.n, &i));
        for (second = end = i; end < s.n && word_gap(text_next(s.s, s.n, &i)) == gap;)
            end = i;
        struct jval first = jstr_map(r, JSTR(s.s + from, second - from), CASE_UPPER);
        struct jval rest = jstr_map(r, JSTR(s.s + second, end - second), CASE_LOWER);
        jbuf_put(r, &b, first.s, first.n);
        jbuf_put(r, &b, rest.s, rest.n);
        i = end;
    }
    return r->rc ? JUNDEF : jbuf_take(&b);
}

static struct jval f_trim(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"chars", NULL};
    struct jval chars = JNONE;
    return jargs_bind(r, args, "trim", names, 0, &chars)
               ? jstr_strip(r, j_to_str(r, self), chars, 3)
               : JUNDEF;
}

static struct jval f_replace(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"old", "new", "count", NULL};
    struct jval a[] = {JNONE, JNONE, JNONE};
    int64_t count = -1;
    if (!jargs_bind(r, args, "replace", names, 2, a) ||
        (a[2].type != J_NONE && !j_want_int(r, a[2], &count)))
        return JUNDEF;
    struct jval s = j_to_str(r, self), from = j_to_str(r, a[0]), to = j_to_str(r, a[1]);
    return r->rc ? JUNDEF : jstr_replace(r, s, from, to, count);
}

static struct jval f_center(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"width", NULL};
    struct jval width = JINT(80);
    int64_t n;
    if (!jargs_bind(r, args, "center", names, 0, &width) || !j_want_int(r, width, &n))
        return JUNDEF;
    return jstr_pad(r, j_to_str(r, self), n, ' ', 0);
}

/* f_indent: all lines but the first, unless `first`; empty lines only with `blank`. */
static struct jval f_indent(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"width", "first", "blank", NULL};
    struct jval a[] = {JINT(4), JBOOL(false), JBOOL(false)};
    struct jbuf b = {0};
    if (!jargs_bind(r, args, "indent", names, 0, a))
        return JUNDEF;
    int64_t width = a[0].i;
    if (a[0].type != J_STR && !j_want_int(r, a[0], &width))
        return JUNDEF;
    struct jval unit = a[0].type == J_STR ? a[0] : j_binary(r, OP_MUL, JLIT(" "), JINT(width));
    struct jlist *lines = jstr_lines(r, j_concat(r, self, JLIT("\n")), false);
    for (size_t i = 0; lines && i < lines->n && !r->rc; i++) {
        struct jval line = lines->v[i];
        if (i)
            jbuf_puts(r, &b, "\n");
        if (i ? line.n || j_truth(a[2]) : j_truth(a[1]))
            jbuf_put(r, &b, unit.s, unit.n);
        jbuf_put(r, &b, line.s, line.n);
    }
    return r->rc ? JUNDEF : jbuf_take(&b);
}

static struct jval f_format(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jlist tuple = {args->pos, args->n_pos, args->n_pos};
    struct jdict *d = args->n_kw ? jdict_new(r, args->n_kw) : NULL;
    if (args->n_pos && args->n_kw)
        j_fail(r, "can't handle positional and keyword arguments at the same time");
    for (size_t i = 0; d && i < args->n_kw; i++)
        jdict_set(r, d, args->kw[i].name, args->kw[i].value);
    struct jval format = j_to_str(r, self);
    return r->rc ? JUNDEF : j_percent(r, format, d ? JDICT(d) : JTUPLE(&tuple));
}

/* int_text: Python's int(text, base): white space, a sign, a prefix, digits with single _. */
static bool int_text(struct jrun *r, struct jval s, int base, int64_t *out)
{
    s = jstr_strip(r, s, JNONE, 3);
    bool negative = s.n && s.s[0] == '-';
    size_t i = s.n && (negative || s.s[0] == '+');
    char letter = i + 1 < s.n && s.s[i] == '0' ? (char)(s.s[i + 1] | 0x20) : 0;
    int prefix = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (prefix && (base == prefix || base == 0)) {
        base = prefix;
        i += 2;
        i += i < s.n && s.s[i] == '_';
    }
    base = base ? base : 10;
    int64_t v = 0;
    bool digit = false;
    for (; i < s.n; i++) {
        char c = s.s[i];
        int d = c >= '0' && c <= '9'                     ? c - '0'
                : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                         : 99;
        if (c == '_' && digit && i + 1 < s.n && s.s[i + 1] != '_')
            continue;
        if (d >= base)
            return false;
        digit = true;
        if (__builtin_mul_overflow(v, base, &v) || __builtin_sub_overflow(v, d, &v)) {
            j_limit(r, "an integer of more than 64 bits");
            return false;
        }
    }
    if (!negative && v == INT64_MIN)
        j_limit(r, "an integer of more than 64 bits");
    *out = negative || r->rc ? v : -v;
    return digit && !r->rc;
}

/* float_text: Python's float(text). */
static bool float_text(struct jrun *r, struct jval s, double *out)
{
    char text[400], *end;
    size_t k = 0;
    s = jstr_strip(r, s, JNONE, 3);
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] == '_' && i && i + 1 < s.n && strchr("0123456789", s.s[i - 1]) &&
            strchr("0123456789", s.s[i + 1]))
            continue;
        if (k == sizeof text - 1 || !s.s[i] || !strchr("0123456789+-.eEinfatyINFATY", s.s[i]))
            return false;
        text[k++] = s.s[i];
    }
    text[k] = 0;
    *out = strtod(text, &end);
    return k > 0 && *end == 0 && !strchr(text, '(');
}

static bool int_value(struct jrun *r, struct jval v, int base, int64_t *out)
{
    double f;
    if (v.type == J_STR && int_text(r, v, base, out))
        return true;
    if (j_is_int(v)) {
        *out = v.i;
        return true;
    }
    if (v.type == J_FLOAT)
        f = v.f;
    else if (r->rc || v.type != J_STR || !float_text(r, v, &f))
        return false;
    if (isnan(f) || isinf(f))
        return false;
    if (!(fabs(f) < 9.2e18)) {
        j_limit(r, "an integer of more than 64 bits");
        return false;
    }
    *out = (int64_t)f;
    return true;
}

static struct jval f_int(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"default", "base", NULL};
    struct jval a[] = {JINT(0), JINT(10)};
    int64_t v, base;
    if (!jargs_bind(r, args, "int", names, 0, a) || !j_want_int(r, a[1], &base))
        return JUNDEF;
    if (base != 0 && (base < 2 || base > 36))
        return a[0];
    if (self.type == J_UNDEF) {
        j_undef_raise(r, self);
        return JUNDEF;
    }
    return int_value(r, self, (int)base, &v) ? JINT(v) : a[0];
}

static struct jval f_float(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"default", NULL};
    struct jval fallback = JFLOAT(0.0);
    double f;
    if (!jargs_bind(r, args, "float", names, 0, &fallback))
        return JUNDEF;
    if (self.type == J_UNDEF) {
        j_undef_raise(r, self);
        return JUNDEF;
    }
    if (j_is_int(self))
        return JFLOAT((double)self.i);
    if (self.type == J_FLOAT)
        return self;
    return self.type == J_STR && float_text(r, self, &f) ? JFLOAT(f) : fallback;
}

static struct jval f_abs(struct jrun *r, struct jval self, const struct jargs *args)
{
    if (!jargs_bind(r, args, "abs", no_names, 0, NULL))
        return JUNDEF;
    if (self.type == J_FLOAT)
        return JFLOAT(fabs(self.f));
    if (j_is_int(self))
        return self.i < 0 ? j_neg(r, self) : JINT(self.i);
    j_fail(r, "bad operand type for abs(): '%s'", j_type_name(self));
    return JUNDEF;
}

/* round_even: round(f, digits) by way of decimal text, which printf rounds exactly as Python does.
 */
static double round_even(double f, int64_t digits)
{
    char text[800];
    if (isnan(f) || isinf(f) || digits > 300)
        return f;
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)digits, f);
        return strtod(text, NULL);
    }
    double unit = pow(10, (double)-digits);
    return isinf(unit) ? copysign(0.0, f) : nearbyint(f / unit) * unit;
}

static struct jval round_int(struct jrun *r, int64_t v, int64_t digits)
{
    int64_t unit = 1;
    if (digits >= 0)
        return JINT(v);
    if (digits < -18)
        return JINT(0);
    for (int64_t i = digits; i < 0; i++)
        unit *= 10;
    int64_t rest = v % unit, down = v - rest, twice = rest < 0 ? -rest : rest;
    bool away = twice > unit - twice || (twice == unit - twice && (down / unit) % 2 != 0);
    return away ? j_binary(r, OP_ADD, JINT(down), JINT(rest < 0 ? -unit : unit)) : JINT(down);
}

static struct jval f_round(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"precision", "method", NULL};
    struct jval a[] = {JINT(0), JLIT("common")};
    int64_t digits;
    if (!jargs_bind(r, args, "round", names, 0, a) || !j_want_int(r, a[0], &digits))
        return JUNDEF;
    bool up = j_is_str(a[1], "ceil", 4), down = j_is_str(a[1], "floor", 5);
    if (!up && !down && !j_is_str(a[1], "common", 6)) {
        j_fail(r, "method must be common, ceil or floor");
        return JUNDEF;
    }
    if (!j_is_number(self)) {
        j_fail(r, "type %s doesn't define __round__ method", j_type_name(self));
        return JUNDEF;
    }
    if (!up && !down)
        return self.type == J_FLOAT ? JFLOAT(round_even(self.f, digits))
                                    : round_int(r, self.i, digits);
    double v = self.type == J_FLOAT ? self.f : (double)self.i, unit = pow(10, (double)digits);
    return JFLOAT((up ? ceil(v * unit) : floor(v * unit)) / unit);
}

static struct jval f_attr(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"name", NULL};
    struct jval name;
    if (!jargs_bind(r, args, "attr", names, 1, &name) ||
        !j_want_str(r, name, "the name of an attribute"))
        return JUNDEF;
    struct jval v = j_getattr(r, self, name);
    bool item = self.type == J_DICT && v.type != J_METHOD && v.type != J_UNDEF;
    return item ? j_undef_item(r, self, name) : v;
}

static struct jval f_wordcount(struct jrun *r, struct jval self, const struct jargs *args)
{
    int64_t n = 0;
    bool in_word = false;
    if (!jargs_bind(r, args, "wordcount", no_names, 0, NULL))
        return JUNDEF;
    struct jval s = j_to_str(r, self);
    j_step(r, s.n);
    for (size_t i = 0; i < s.n;) {
        uint32_t cp = text_next(s.s, s.n, &i);
        bool word = text_alpha(cp) || text_numeric(cp) || cp == '_';
        n += word && !in_word;
        in_word = word;
    }
    return JINT(n);
}

const struct jfunc *j_find_filter(const char *s, size_t n)
{
    static const struct jfunc table[] = {{"abs", f_abs},
                                         {"attr", f_attr},
                                         {"capitalize", f_capitalize},
                                         {"center", f_center},
                                         {"count", f_length},
                                         {"d", f_default},
                                         {"default", f_default},
                                         {"e", f_escape},
                                         {"escape", f_escape},
                                         {"float", f_float},
                                         {"format", f_format},
                                         {"indent", f_indent},
                                         {"int", f_int},
                                         {"length", f_length},
                                         {"lower", f_lower},
                                         {"replace", f_replace},
                                         {"round", f_round},
                                         {"safe", f_safe},
                                         {"string", f_string},
                                         {"title", f_title},
                                         {"tojson", j_tojson},
                                         {"trim", f_trim},
                                         {"upper", f_upper},
                                         {"wordcount", f_wordcount},
                                         {NULL, NULL}};
    const struct jfunc *f = j_find_in(table, s, n);
    f = f ? f : j_find_in(j_seq_filters, s, n);
    return f ? f : j_find_in(j_map_filters, s, n);
}
