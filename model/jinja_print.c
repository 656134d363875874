/* jinja_print: str() and repr() as Python writes them, into a text that grows. */
#include "model/jinja_run.h"
#include "model/jinja_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool jbuf_put(struct jrun *r, struct jbuf *b, const char *s, size_t n)
{
    if (!j_step(r, n))
        return false;
    if (n > r->bytes_max - b->n) {
        j_limit(r, "more than %zu bytes of text", r->bytes_max);
        return false;
    }
    if (n > b->cap - b->n) {
        size_t want = b->n + n < 64 ? 64 : 2 * (b->n + n);
        if (!b->p || !jmem_extend(&r->mem, b->p, b->cap, want)) {
            char *p = j_alloc(r, want, 1);
            if (!p)
                return false;
            if (b->n)
                memcpy(p, b->p, b->n);
            b->p = p;
        }
        b->cap = want;
    }
    if (n)
        memcpy(b->p + b->n, s, n);
    b->n += n;
    return true;
}

bool jbuf_puts(struct jrun *r, struct jbuf *b, const char *s)
{
    return jbuf_put(r, b, s, strlen(s));
}

bool jbuf_put_cp(struct jrun *r, struct jbuf *b, uint32_t cp)
{
    char bytes[4];
    return jbuf_put(r, b, bytes, text_put(cp, bytes));
}

struct jval jbuf_take(const struct jbuf *b)
{
    return b->p ? JSTR(b->p, b->n) : JLIT("");
}

void j_float_text(double f, char out[32])
{
    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    char text[40]; /* the shortest "d.ddde±x" that reads back as the same number */
    int digits = 1;
    do
        snprintf(text, sizeof text, "%.*e", digits - 1, f);
    while (strtod(text, NULL) != f && ++digits <= 17);
    char *e = strchr(text, 'e');
    int exponent = atoi(e + 1);
    if (exponent >= -4 && exponent < 16) {
        int after = digits - 1 - exponent;
        snprintf(out, 32, "%.*f", after > 1 ? after : 1, f);
    } else {
        *e = 0;
        snprintf(out, 32, "%.24se%c%02u", text, exponent < 0 ? '-' : '+',
                 (unsigned)abs(exponent) % 1000);
    }
}

static void put_format(struct jrun *r, struct jbuf *b, const char *format, uint32_t x)
{
    char text[16];
    snprintf(text, sizeof text, format, x);
    jbuf_puts(r, b, text);
}

/* repr_cp writes what cannot be printed as an escape; false: cp can stand as it is. */
static bool repr_escape(struct jrun *r, struct jbuf *b, uint32_t cp, char quote)
{
    if (cp == (unsigned char)quote || cp == '\\') {
        char two[2] = {'\\', (char)cp};
        jbuf_put(r, b, two, 2);
    } else if (cp == '\n' || cp == '\r' || cp == '\t') {
        jbuf_puts(r, b, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t");
    } else if (text_printable(cp)) {
        return false;
    } else {
        put_format(r, b, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    }
    return true;
}

static void repr_str(struct jrun *r, struct jbuf *b, struct jval v)
{
    bool single = v.n && memchr(v.s, '\'', v.n), dbl = v.n && memchr(v.s, '"', v.n);
    char quote = single && !dbl ? '"' : '\'';
    jbuf_put(r, b, &quote, 1);
    for (size_t i = 0; i < v.n && !r->rc;) {
        size_t from = i;
        uint32_t cp = text_next(v.s, v.n, &i);
        if (!repr_escape(r, b, cp, quote))
            jbuf_put(r, b, v.s + from, i - from);
    }
    jbuf_put(r, b, &quote, 1);
}

static void repr_list(struct jrun *r, struct jbuf *b, const struct jlist *l, bool tuple)
{
    jbuf_puts(r, b, tuple ? "(" : "[");
    for (size_t i = 0; i < l->n && !r->rc; i++) {
        if (i)
            jbuf_puts(r, b, ", ");
        j_repr(r, b, l->v[i]);
    }
    jbuf_puts(r, b, tuple ? (l->n == 1 ? ",)" : ")") : "]");
}

static void repr_dict(struct jrun *r, struct jbuf *b, const struct jdict *d)
{
    jbuf_puts(r, b, "{");
    for (size_t i = 0; i < d->n && !r->rc; i++) {
        if (i)
            jbuf_puts(r, b, ", ");
        j_repr(r, b, d->kv[i].key);
        jbuf_puts(r, b, ": ");
        j_repr(r, b, d->kv[i].value);
    }
    jbuf_puts(r, b, "}");
}

static void repr_view(struct jrun *r, struct jbuf *b, struct jval v)
{
    struct jlist *l = j_to_list(r, v);
    jbuf_puts(r, b, j_type_name(v));
    jbuf_puts(r, b, "(");
    if (l)
        repr_list(r, b, l, false);
    jbuf_puts(r, b, ")");
}

static void repr_range(struct jrun *r, struct jbuf *b, const struct jrange *range)
{
    char text[80];
    if (range->step == 1)
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)range->start,
                 (long long)range->stop);
    else
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)range->start,
                 (long long)range->stop, (long long)range->step);
    jbuf_puts(r, b, text);
}

static void repr_macro(struct jrun *r, struct jbuf *b, const struct jmacro *m)
{
    jbuf_puts(r, b, "<Macro ");
    if (m->node->value.type == J_STR)
        repr_str(r, b, m->node->value);
    else
        jbuf_puts(r, b, "anonymous");
    jbuf_puts(r, b, ">");
}

static void repr_nested(struct jrun *r, struct jbuf *b, struct jval v)
{
    switch (v.type) {
    case J_LIST:
    case J_TUPLE:
        repr_list(r, b, v.list, v.type == J_TUPLE);
        break;
    case J_DICT:
        repr_dict(r, b, v.dict);
        break;
    case J_VIEW:
        repr_view(r, b, v);
        break;
    case J_NS:
        jbuf_puts(r, b, "<Namespace ");
        repr_dict(r, b, v.dict);
        jbuf_puts(r, b, ">");
        break;
    case J_RANGE:
        repr_range(r, b, v.range);
        break;
    case J_MACRO:
        repr_macro(r, b, v.macro);
        break;
    default: /* Python prints an address here, which no template can mean */
        j_fail(r, "a %s cannot be printed", j_type_name(v));
    }
}

void j_repr(struct jrun *r, struct jbuf *b, struct jval v)
{
    char text[32];
    switch (v.type) {
    case J_UNDEF:
        jbuf_puts(r, b, "Undefined");
        return;
    case J_NONE:
        jbuf_puts(r, b, "None");
        return;
    case J_BOOL:
        jbuf_puts(r, b, v.i ? "True" : "False");
        return;
    case J_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.i);
        jbuf_puts(r, b, text);
        return;
    case J_FLOAT:
        j_float_text(v.f, text);
        if (strspn(text, "-0123456789") == strlen(text))
            strcat(text, ".0");
        jbuf_puts(r, b, text);
        return;
    case J_STR:
        if (v.flag)
            jbuf_puts(r, b, "Markup(");
        repr_str(r, b, v);
        if (v.flag)
            jbuf_puts(r, b, ")");
        return;
    default:
        if (++r->value_nest > JVALUE_NEST_MAX)
            j_limit(r, "values nested more than %d deep", JVALUE_NEST_MAX);
        else
            repr_nested(r, b, v);
        r->value_nest--;
    }
}

void j_write(struct jrun *r, struct jbuf *b, struct jval v)
{
    if (v.type == J_STR)
        jbuf_put(r, b, v.s, v.n);
    else if (v.type != J_UNDEF)
        j_repr(r, b, v);
}

struct jval j_to_str(struct jrun *r, struct jval v)
{
    if (v.type == J_STR)
        return v;
    struct jbuf b = {0};
    j_write(r, &b, v);
    return jbuf_take(&b);
}
