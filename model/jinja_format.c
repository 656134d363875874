/* jinja_format: Python's two ways to put values into text: 'a %s' % x and 'a {}'.format(x), with
 * the conversions of texts and numbers; field names may go on with .attr and [key], under the rules
 * of the sandbox. Widths and precisions are bounded. */
#include "model/jinja_run.h"
#include "model/jinja_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH_MAX     10000
#define PRECISION_MAX 100

struct spec {
    uint32_t fill;
    char align;               /* '<' '>' '^' '=' or 0 */
    char sign;                /* '+', ' ' or 0 */
    bool alt, comma, percent; /* percent: the old way, whose default alignment is right */
    int64_t width, precision; /* -1: none */
    char type;
};

static int64_t read_number(const char *s, size_t n, size_t *i)
{
    int64_t v = -1;
    for (; *i < n && s[*i] >= '0' && s[*i] <= '9'; (*i)++) {
        v = (v < 0 ? 0 : v) * 10 + (s[*i] - '0');
        v = v > 1000000 ? 1000000 : v;
    }
    return v;
}

static bool spec_bounded(struct jrun *r, const struct spec *f)
{
    if (f->width > WIDTH_MAX || f->precision > PRECISION_MAX)
        j_limit(r, "a format wider than %d or with a precision above %d", WIDTH_MAX, PRECISION_MAX);
    return r->rc == 0;
}

static void put_fill(struct jrun *r, struct jbuf *b, uint32_t cp, int64_t n)
{
    for (int64_t i = 0; i < n && !r->rc; i++)
        jbuf_put_cp(r, b, cp);
}

/* put_padded writes sign and body in the width of the spec. */
static void put_padded(struct jrun *r, struct jbuf *b, const struct spec *f, const char *sign,
                       struct jval body, char fallback)
{
    int64_t n = (int64_t)(strlen(sign) + text_count(body.s, body.n)),
            extra = f->width > n ? f->width - n : 0;
    char align = f->align ? f->align : fallback;
    int64_t left = align == '>' ? extra : align == '^' ? extra / 2 : 0;
    put_fill(r, b, f->fill, left);
    jbuf_puts(r, b, sign);
    if (align == '=')
        put_fill(r, b, f->fill, extra);
    jbuf_put(r, b, body.s, body.n);
    if (align == '<' || align == '^')
        put_fill(r, b, f->fill, extra - left);
}

static void put_text(struct jrun *r, struct jbuf *b, const struct spec *f, struct jval v)
{
    if (f->precision >= 0)
        v.n = text_offset(v.s, v.n, (size_t)f->precision);
    put_padded(r, b, f, "", v, f->percent ? '>' : '<');
}

/* grouped puts commas between thousands of the digits before a point. */
static size_t grouped(const char *digits, char *out)
{
    size_t whole = strspn(digits, "0123456789"), k = 0;
    for (size_t i = 0; i < whole; i++) {
        if (i && (whole - i) % 3 == 0)
            out[k++] = ',';
        out[k++] = digits[i];
    }
    strcpy(out + k, digits + whole);
    return strlen(out);
}

static void put_number(struct jrun *r, struct jbuf *b, const struct spec *f, bool negative,
                       const char *prefix, const char *digits)
{
    char sign[8], text[1024];
    size_t n = f->comma ? grouped(digits, text) : (size_t)snprintf(text, sizeof text, "%s", digits);
    snprintf(sign, sizeof sign, "%s%s",
             negative         ? "-"
             : f->sign == '+' ? "+"
             : f->sign == ' ' ? " "
                              : "",
             prefix);
    put_padded(r, b, f, sign, JSTR(text, n), '>');
}

static void put_int(struct jrun *r, struct jbuf *b, const struct spec *f, int64_t v, char type)
{
    char digits[80] = "", zeros[PRECISION_MAX + 81] = "";
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    const char *prefix = "";
    if (type == 'b') {
        size_t k = 0;
        for (int bit = u ? 63 - __builtin_clzll(u) : 0; bit >= 0; bit--)
            digits[k++] = (char)('0' + (u >> bit & 1));
    } else {
        snprintf(digits, sizeof digits,
                 type == 'x'   ? "%llx"
                 : type == 'X' ? "%llX"
                 : type == 'o' ? "%llo"
                               : "%llu",
                 (unsigned long long)u);
    }
    if (f->alt)
        prefix = type == 'x'   ? "0x"
                 : type == 'X' ? "0X"
                 : type == 'o' ? "0o"
                 : type == 'b' ? "0b"
                               : "";
    size_t n = strlen(digits), pad = f->precision > (int64_t)n ? (size_t)f->precision - n : 0;
    memset(zeros, '0', pad);
    strcpy(zeros + pad, digits);
    put_number(r, b, f, v < 0, prefix, zeros);
}

static void put_float(struct jrun *r, struct jbuf *b, const struct spec *f, double v, char type)
{
    char format[8] = "%.*", text[512];
    double scaled = type == '%' ? v * 100 : v;
    char conversion = type == '%' ? 'f' : type;
    size_t k = 3;
    if (f->alt)
        memcpy(format, "%#.*", 4), k = 4;
    format[k] = conversion;
    format[k + 1] = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text - 1, format, (int)(f->precision < 0 ? 6 : f->precision),
             fabs(scaled));
#pragma GCC diagnostic pop
    if (type == '%')
        strcat(text, "%");
    put_number(r, b, f, signbit(scaled) && !isnan(scaled), "", text);
}

static bool number_of(struct jval v, double *f)
{
    *f = v.type == J_FLOAT ? v.f : (double)v.i;
    return j_is_number(v);
}

/* --- % --- */

struct percent {
    struct jrun *r;
    struct jval format, arg;
    size_t used; /* of the tuple, or of the one value */
    struct jbuf b;
};

static struct jval next_arg(struct percent *p)
{
    size_t n = p->arg.type == J_TUPLE ? p->arg.list->n : 1;
    if (p->used >= n) {
        j_fail(p->r, "not enough arguments for format string");
        return JUNDEF;
    }
    return p->arg.type == J_TUPLE ? p->arg.list->v[p->used++] : (p->used++, p->arg);
}

static bool percent_key(struct percent *p, size_t *i, struct jval *v)
{
    const char *s = p->format.s, *end = memchr(s + *i, ')', p->format.n - *i);
    if (!end || p->arg.type != J_DICT) {
        j_fail(p->r, end ? "format requires a mapping" : "incomplete format key");
        return false;
    }
    struct jval *at = jdict_find_str(p->r, p->arg.dict, s + *i + 1, (size_t)(end - s) - *i - 1);
    if (!at) {
        j_fail(p->r, "'%.*s'", (int)((size_t)(end - s) - *i - 1), s + *i + 1);
        return false;
    }
    *i = (size_t)(end - s) + 1;
    *v = *at;
    p->used = 1;
    return true;
}

static int64_t percent_size(struct percent *p, size_t *i)
{
    int64_t n;
    if (*i < p->format.n && p->format.s[*i] == '*') {
        (*i)++;
        return j_want_int(p->r, next_arg(p), &n) ? n : -1;
    }
    return read_number(p->format.s, p->format.n, i);
}

static void percent_flags(struct percent *p, struct spec *f, size_t *i)
{
    for (; *i < p->format.n && p->format.s[*i] && strchr("#0- +", p->format.s[*i]); (*i)++) {
        char c = p->format.s[*i];
        f->alt |= c == '#';
        if (c == '-') {
            f->align = '<';
            f->fill = ' ';
        } else if (c == '0' && f->align != '<') {
            f->align = '=';
            f->fill = '0';
        } else if (c == '+' || (c == ' ' && !f->sign)) {
            f->sign = c;
        }
    }
}

static void percent_refuse(struct percent *p, char type, struct jval v)
{
    if (strchr("eEfFgG", type))
        j_fail(p->r, "must be real number, not %s", j_type_name(v));
    else
        j_fail(p->r, "%%%c format: %s is required, not %s", type,
               type == 'd' ? "a real number" : "an integer", j_type_name(v));
}

static void percent_char(struct percent *p, const struct spec *f, struct jval v)
{
    char bytes[4];
    size_t n = v.type == J_INT && v.i >= 0 && v.i <= 0x10ffff ? text_put((uint32_t)v.i, bytes) : 0;
    if (n)
        v = JSTR(bytes, n);
    if (v.type == J_STR && text_count(v.s, v.n) == 1)
        put_text(p->r, &p->b, f, v);
    else
        j_fail(p->r, "%%c requires int or char");
}

static void percent_put(struct percent *p, struct spec *f, struct jval v)
{
    struct jbuf text = {0};
    double x;
    if (strchr("sra", f->type)) {
        if (f->align == '=')
            f->align = '>', f->fill = ' ';
        if (f->type == 's')
            j_write(p->r, &text, v);
        else
            j_repr(p->r, &text, v);
        put_text(p->r, &p->b, f, jbuf_take(&text));
    } else if (f->type == 'c') {
        percent_char(p, f, v);
    } else if (!number_of(v, &x)) {
        percent_refuse(p, f->type, v);
    } else if (strchr("eEfFgG", f->type)) {
        put_float(p->r, &p->b, f, x, f->type);
    } else if (v.type == J_FLOAT && (f->type != 'd' || !(fabs(x) < 9e18))) {
        j_fail(p->r, "%%%c format: an integer is required, not float", f->type);
    } else {
        put_int(p->r, &p->b, f, v.type == J_FLOAT ? (int64_t)x : v.i, f->type);
    }
}

static void percent_one(struct percent *p, size_t *i)
{
    struct spec f = {.fill = ' ', .percent = true, .precision = -1};
    const char *s = p->format.s;
    struct jval v = JUNDEF;
    bool keyed = *i < p->format.n && s[*i] == '(';
    if (keyed && !percent_key(p, i, &v))
        return;
    percent_flags(p, &f, i);
    f.width = percent_size(p, i);
    if (*i < p->format.n && s[*i] == '.') {
        (*i)++;
        f.precision = percent_size(p, i);
        f.precision = f.precision < 0 ? 0 : f.precision;
    }
    if (p->r->rc || !spec_bounded(p->r, &f))
        return;
    f.type = *i < p->format.n ? s[*i] : 0;
    if (!f.type) {
        j_fail(p->r, "incomplete format");
    } else if (f.type == '%') {
        jbuf_puts(p->r, &p->b, "%");
    } else if (!strchr("sradiuoxXceEfFgG", f.type)) {
        j_fail(p->r, "unsupported format character '%c' (0x%x) at index %zu", f.type,
               (unsigned char)f.type, text_count(s, *i));
    } else {
        f.type = f.type == 'i' || f.type == 'u' ? 'd' : f.type;
        percent_put(p, &f, keyed ? v : next_arg(p));
    }
    (*i)++;
}

struct jval j_percent(struct jrun *r, struct jval format, struct jval arg)
{
    struct percent p = {.r = r, .format = format, .arg = arg};
    for (size_t i = 0; i < format.n && !r->rc;) {
        const char *at = memchr(format.s + i, '%', format.n - i);
        size_t to = at ? (size_t)(at - format.s) : format.n;
        jbuf_put(r, &p.b, format.s + i, to - i);
        i = to + 1;
        if (at)
            percent_one(&p, &i);
    }
    size_t n = arg.type == J_TUPLE ? arg.list->n : arg.type == J_DICT || arg.type == J_LIST ? 0 : 1;
    if (!r->rc && p.used < n)
        j_fail(r, "not all arguments converted during string formatting");
    return r->rc ? JUNDEF : jbuf_take(&p.b);
}

/* --- str.format --- */

struct fields {
    struct jrun *r;
    const struct jargs *args;
    int64_t automatic; /* the next number of {}; -1 once numbers were given */
    struct jbuf b;
};

static bool parse_spec(struct jrun *r, struct jval text, struct spec *f)
{
    size_t i = 0, next = 0;
    *f = (struct spec){.fill = ' ', .width = -1, .precision = -1};
    if (text.n)
        text_next(text.s, text.n, &next);
    if (next < text.n && text.s[next] && strchr("<>^=", text.s[next])) {
        size_t at = 0;
        f->fill = text_next(text.s, text.n, &at);
        f->align = text.s[next];
        i = next + 1;
    } else if (text.n && text.s[0] && strchr("<>^=", text.s[0])) {
        f->align = text.s[i++];
    }
    if (i < text.n && (text.s[i] == '+' || text.s[i] == '-' || text.s[i] == ' '))
        f->sign = text.s[i] == '-' ? 0 : text.s[i], i++;
    if (i < text.n && text.s[i] == '#')
        f->alt = true, i++;
    if (i < text.n && text.s[i] == '0') {
        if (!f->align)
            f->align = '=', f->fill = '0';
        i++;
    }
    f->width = read_number(text.s, text.n, &i);
    if (i < text.n && text.s[i] == ',')
        f->comma = true, i++;
    if (i < text.n && text.s[i] == '.') {
        i++;
        f->precision = read_number(text.s, text.n, &i);
    }
    if (i < text.n)
        f->type = text.s[i++];
    if (i < text.n)
        j_fail(r, "Invalid format specifier");
    return spec_bounded(r, f);
}

static void put_formatted(struct fields *x, const struct spec *f, struct jval v)
{
    double number;
    if (v.type == J_STR && (!f->type || f->type == 's')) {
        struct spec g = *f;
        if (g.align == '=')
            g.align = '<';
        put_text(x->r, &x->b, &g, v);
    } else if (number_of(v, &number) && f->type && strchr("eEfFgG%", f->type)) {
        put_float(x->r, &x->b, f, number, f->type);
    } else if (j_is_int(v) &&
               (f->type ? strchr("bdoxX", f->type) != NULL : v.type == J_INT || f->width >= 0)) {
        put_int(x->r, &x->b, f, v.i, f->type ? f->type : 'd');
    } else if (v.type == J_FLOAT && !f->type) {
        char text[32];
        struct jbuf whole = {0};
        j_repr(x->r, &whole, JFLOAT(fabs(v.f)));
        snprintf(text, sizeof text, "%.*s", (int)(whole.n < 31 ? whole.n : 31),
                 whole.p ? whole.p : "");
        if (f->precision >= 0)
            put_float(x->r, &x->b, f, v.f, 'g');
        else
            put_number(x->r, &x->b, f, signbit(v.f), "", text);
    } else {
        j_fail(x->r, "Unknown format code '%c' for object of type '%s'", f->type ? f->type : '?',
               j_type_name(v));
    }
}

static struct jval positional(struct fields *x, int64_t i)
{
    if (i < 0 || (size_t)i >= x->args->n_pos) {
        j_fail(x->r, "tuple index out of range");
        return JUNDEF;
    }
    return x->args->pos[i];
}

static struct jval first_value(struct fields *x, const char *s, size_t n)
{
    size_t i = 0;
    int64_t number = read_number(s, n, &i);
    if (n == 0) {
        if (x->automatic < 0)
            j_fail(x->r,
                   "cannot switch from manual field specification to automatic field numbering");
        return x->r->rc ? JUNDEF : positional(x, x->automatic++);
    }
    if (i == n) {
        if (x->automatic > 0)
            j_fail(x->r,
                   "cannot switch from manual field specification to automatic field numbering");
        x->automatic = -1;
        return positional(x, number);
    }
    for (size_t k = 0; k < x->args->n_kw; k++) {
        if (j_is_str(x->args->kw[k].name, s, n))
            return x->args->kw[k].value;
    }
    j_fail(x->r, "'%.*s'", (int)(n < 200 ? n : 200), s);
    return JUNDEF;
}

/* field_value: "name.attr[key]" */
static struct jval field_value(struct fields *x, const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && s[i] != '.' && s[i] != '[')
        i++;
    struct jval v = first_value(x, s, i);
    while (i < n && !x->r->rc) {
        bool item = s[i++] == '[';
        size_t from = i, digits = i;
        while (i < n && (item ? s[i] != ']' : s[i] != '.' && s[i] != '['))
            i++;
        int64_t index = read_number(s, i, &digits);
        if (i == from || (item && i == n))
            j_fail(x->r, "Empty attribute in format string");
        else if (item)
            v = j_getitem(x->r, v, digits == i ? JINT(index) : JSTR(s + from, i - from));
        else
            v = j_getattr(x->r, v, JSTR(s + from, i - from));
        i += item;
    }
    return v;
}

static void put_field(struct fields *x, const char *s, size_t n)
{
    const char *colon = n ? memchr(s, ':', n) : NULL;
    size_t name = colon ? (size_t)(colon - s) : n;
    struct jval spec_text = colon ? JSTR(colon + 1, n - name - 1) : JLIT("");
    struct spec f;
    char convert = 0;
    if (name >= 2 && s[name - 2] == '!') {
        convert = s[name - 1];
        name -= 2;
    }
    struct jval v = field_value(x, s, name);
    if (x->r->rc || !parse_spec(x->r, spec_text, &f))
        return;
    struct jbuf text = {0};
    if (convert && convert != 's' && convert != 'r') {
        j_fail(x->r, "Unknown conversion specifier %c", convert);
    } else if (convert == 'r') {
        j_repr(x->r, &text, v);
        v = jbuf_take(&text);
    } else if (convert || (!spec_text.n && v.type != J_STR)) {
        v = j_to_str(x->r, v);
    }
    if (!x->r->rc)
        put_formatted(x, &f, v);
}

/* field_end: the end of the field that begins at i (behind its brace), or n. */
static size_t field_end(const char *s, size_t n, size_t i)
{
    while (i < n && s[i] != '}' && s[i] != '{')
        i++;
    return i < n && s[i] == '}' ? i : n;
}

struct jval j_format(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct fields x = {.r = r, .args = args};
    for (size_t i = 0; i < self.n && !r->rc;) {
        size_t from = i;
        while (i < self.n && self.s[i] != '{' && self.s[i] != '}')
            i++;
        jbuf_put(r, &x.b, self.s + from, i - from);
        if (i == self.n)
            break;
        if (i + 1 < self.n && self.s[i + 1] == self.s[i]) {
            jbuf_put(r, &x.b, self.s + i, 1);
            i += 2;
            continue;
        }
        size_t end = self.s[i] == '{' ? field_end(self.s, self.n, i + 1) : self.n;
        if (end == self.n) {
            j_fail(r, "Single '%c' encountered in format string", self.s[i]);
            break;
        }
        put_field(&x, self.s + i + 1, end - i - 1);
        i = end + 1;
    }
    return r->rc ? JUNDEF : jbuf_take(&x.b);
}
