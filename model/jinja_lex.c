/* jinja_lex: Jinja2's lexer with trim_blocks and lstrip_blocks: text between tags is data, and the
 * marks - and + of a tag, or its standing alone on a line, take white space off the data beside it.
 * Inside open brackets the end of a tag is not looked for, so {{ {'a': {}}}} works. */
#include "model/jinja_ast.h"
#include "model/jinja_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BRACKET_MAX 100

struct lexer {
    struct jmem *mem;
    struct err *err;
    const char *s;
    size_t n, pos;
    size_t counted, line_start; /* lines and columns are counted up to here */
    uint32_t line, column;      /* characters of the line so far */
    struct jtoks toks;
    size_t cap;
    char bracket[BRACKET_MAX];
    int n_bracket;
    int rc;
};

int jinja_syntax(struct err *err, uint32_t line, uint32_t column, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    text_mend(text);
    return err_set(err, ERR_MODEL, "chat template, line %u, column %u: %s", line, column, text);
}

/* locate moves the count forward to byte `at`; callers go forward only. A token does not count its
 * line again from the start: templates are often one long line. */
static void locate(struct lexer *x, size_t at)
{
    for (; x->counted < at; x->counted++) {
        if (x->s[x->counted] == '\n') {
            x->line++;
            x->line_start = x->counted + 1;
            x->column = 0;
        } else {
            x->column += ((unsigned char)x->s[x->counted] & 0xc0) != 0x80;
        }
    }
}

static uint32_t column_of(const struct lexer *x, size_t at)
{
    if (at == x->counted)
        return x->column + 1;
    return (uint32_t)(at >= x->line_start ? text_count(x->s + x->line_start, at - x->line_start) + 1
                                          : 1);
}

#define LEX_FAIL(x, at, ...)                                                                       \
    (locate((x), (at)),                                                                            \
     (x)->rc = jinja_syntax((x)->err, (x)->line, column_of((x), (at)), __VA_ARGS__))

static struct jtok *add(struct lexer *x, enum jtok_kind kind, size_t at)
{
    if (x->toks.n == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 256;
        struct jtok *v = jmem_alloc(x->mem, cap * sizeof *v);
        if (!v) {
            x->rc = err_set(x->err, ERR_LIMIT, "chat template: too many tokens");
            return NULL;
        }
        if (x->toks.n)
            memcpy(v, x->toks.v, x->toks.n * sizeof *v);
        x->toks.v = v;
        x->cap = cap;
    }
    locate(x, at);
    struct jtok *t = &x->toks.v[x->toks.n++];
    *t = (struct jtok){.kind = (uint8_t)kind, .line = x->line, .column = column_of(x, at)};
    return t;
}

static bool at_text(const struct lexer *x, size_t pos, const char *text)
{
    size_t k = strlen(text);
    return pos <= x->n && x->n - pos >= k && memcmp(x->s + pos, text, k) == 0;
}

static size_t skip_space(const struct lexer *x, size_t pos)
{
    while (pos < x->n) {
        size_t next = pos;
        if (!text_space(text_next(x->s, x->n, &next)))
            break;
        pos = next;
    }
    return pos;
}

static size_t strip_right(const struct lexer *x, size_t from, size_t to)
{
    while (to > from) {
        size_t prev = to;
        if (!text_space(text_prev(x->s, &prev)) || prev < from)
            break;
        to = prev;
    }
    return to;
}

/* tag_end: the position behind an end mark at pos ("-%}" and white space, "+%}", "%}" and one
 * newline), or pos when there is none. trim: the mark is a block's or a comment's. */
static size_t tag_end(const struct lexer *x, size_t pos, const char *mark, bool trim)
{
    if (x->s[pos] == '-' && at_text(x, pos + 1, mark))
        return skip_space(x, pos + 3);
    if (trim && x->s[pos] == '+' && at_text(x, pos + 1, mark))
        return pos + 3;
    if (!at_text(x, pos, mark))
        return pos;
    return trim && at_text(x, pos + 2, "\n") ? pos + 3 : pos + 2;
}

/* add_data puts out [from, to), less what the tag that begins at `to` with `sign` takes off. */
static void add_data(struct lexer *x, size_t from, size_t to, char sign, bool variable)
{
    size_t end = to;
    if (sign == '-') {
        end = strip_right(x, from, to);
    } else if (sign != '+' && !variable) {
        size_t l = to;
        while (l > from && x->s[l - 1] != '\n')
            l--;
        bool starts = l > from || from == 0 || x->s[from - 1] == '\n';
        if (starts && skip_space(x, l) >= to)
            end = l;
    }
    if (end > from) {
        struct jtok *t = add(x, T_DATA, from);
        if (t)
            t->value = JSTR(x->s + from, end - from);
    }
}

static char sign_at(const struct lexer *x, size_t pos)
{
    return pos < x->n && (x->s[pos] == '-' || x->s[pos] == '+') ? x->s[pos] : 0;
}

/* raw_begin: the position behind {% raw %}, or 0. */
static size_t raw_begin(const struct lexer *x, size_t pos)
{
    size_t p = skip_space(x, pos + 2 + (sign_at(x, pos + 2) ? 1 : 0));
    if (!at_text(x, p, "raw"))
        return 0;
    p = skip_space(x, p + 3);
    if (at_text(x, p, "-%}"))
        return skip_space(x, p + 3);
    return at_text(x, p, "%}") ? p + 2 : 0;
}

static void lex_raw(struct lexer *x, size_t tag, size_t body)
{
    for (size_t p = body; p + 1 < x->n; p++) {
        if (!at_text(x, p, "{%"))
            continue;
        char sign = sign_at(x, p + 2);
        size_t q = skip_space(x, p + 2 + (sign ? 1 : 0));
        if (!at_text(x, q, "endraw"))
            continue;
        q = skip_space(x, q + 6);
        size_t end = q < x->n ? tag_end(x, q, "%}", true) : q;
        if (end == q)
            continue;
        add_data(x, body, p, sign, false);
        x->pos = end;
        return;
    }
    LEX_FAIL(x, tag, "Missing end of raw directive");
}

static void lex_comment(struct lexer *x, size_t tag)
{
    for (size_t p = tag + 2 + (sign_at(x, tag + 2) ? 1 : 0); p < x->n; p++) {
        size_t end = tag_end(x, p, "#}", true);
        if (end != p) {
            x->pos = end;
            return;
        }
    }
    LEX_FAIL(x, tag, "Missing end of comment tag");
}

static bool digit_in(char c, int base)
{
    int d = c >= '0' && c <= '9'   ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : 99;
    return d < base;
}

/* digits: the position behind d(_?d)* at pos. */
static size_t digits(const struct lexer *x, size_t pos, int base)
{
    while (pos < x->n && (digit_in(x->s[pos], base) ||
                          (x->s[pos] == '_' && pos + 1 < x->n && digit_in(x->s[pos + 1], base))))
        pos++;
    return pos;
}

/* float_end: the position behind a float at pos, or pos. */
static size_t float_end(const struct lexer *x, size_t pos)
{
    if (pos > 0 && x->s[pos - 1] == '.')
        return pos;
    size_t p = digits(x, pos, 10), whole = p;
    if (p + 1 < x->n && x->s[p] == '.' && digit_in(x->s[p + 1], 10))
        p = digits(x, p + 1, 10);
    if (p < x->n && (x->s[p] == 'e' || x->s[p] == 'E')) {
        size_t q = p + 1;
        if (q < x->n && (x->s[q] == '+' || x->s[q] == '-'))
            q++;
        if (q < x->n && digit_in(x->s[q], 10))
            p = digits(x, q, 10);
    }
    return p == whole ? pos : p;
}

static size_t int_end(const struct lexer *x, size_t pos, int *base)
{
    *base = 10;
    if (x->s[pos] != '0')
        return digits(x, pos, 10);
    char c = pos + 1 < x->n ? (char)(x->s[pos + 1] | 0x20) : 0;
    int b = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
    size_t first = pos + 2 + (pos + 2 < x->n && x->s[pos + 2] == '_' ? 1 : 0);
    if (b && first < x->n && digit_in(x->s[first], b)) {
        *base = b;
        return digits(x, pos + 2, b);
    }
    size_t p = pos + 1;
    while (p < x->n && (x->s[p] == '0' || (x->s[p] == '_' && p + 1 < x->n && x->s[p + 1] == '0')))
        p++;
    return p;
}

static void lex_number(struct lexer *x)
{
    int base = 10;
    size_t at = x->pos, end = float_end(x, at);
    bool is_float = end != at;
    if (!is_float)
        end = int_end(x, at, &base);
    char text[64];
    size_t k = 0;
    for (size_t p = at + (base != 10 ? 2 : 0); p < end; p++) {
        if (x->s[p] == '_')
            continue;
        if (k == sizeof text - 1) {
            LEX_FAIL(x, at, "a number of more than 63 digits is not supported");
            return;
        }
        text[k++] = x->s[p];
    }
    text[k] = 0;
    struct jtok *t = add(x, is_float ? T_FLOAT : T_INT, at);
    if (!t)
        return;
    if (is_float) {
        t->value = JFLOAT(strtod(text, NULL));
    } else {
        uint64_t v = 0;
        for (size_t i = 0; i < k; i++) {
            unsigned d = (unsigned)(text[i] <= '9' ? text[i] - '0' : (text[i] | 0x20) - 'a' + 10);
            if (__builtin_mul_overflow(v, (uint64_t)base, &v) || __builtin_add_overflow(v, d, &v) ||
                v > INT64_MAX) {
                LEX_FAIL(x, at, "an integer of more than 64 bits is not supported");
                return;
            }
        }
        t->value = JINT((int64_t)v);
    }
    x->pos = end;
}

static void lex_string(struct lexer *x)
{
    size_t at = x->pos;
    char quote = x->s[at];
    for (size_t p = at + 1; p < x->n; p++) {
        if (x->s[p] == '\\') {
            p++;
        } else if (x->s[p] == quote) {
            struct jtok *t = add(x, T_STRING, at);
            if (t) {
                t->value = JSTR(x->s + at + 1, p - at - 1);
                x->rc = jinja_unescape(x->mem, t, x->err);
            }
            x->pos = p + 1;
            return;
        }
    }
    LEX_FAIL(x, at, "unexpected char '%c': the string has no end", quote);
}

static void lex_op(struct lexer *x)
{
    static const char two[][3] = {"//", "**", "==", "!=", ">=", "<="};
    static const char one[] = "+-*/%~[](){}><=.:|,;";
    char op[3] = {x->s[x->pos], 0, 0};
    for (size_t i = 0; i < sizeof two / sizeof *two; i++) {
        if (at_text(x, x->pos, two[i]))
            op[1] = two[i][1];
    }
    if (!op[1] && !strchr(one, op[0])) {
        size_t p = x->pos;
        text_next(x->s, x->n, &p);
        LEX_FAIL(x, x->pos, "unexpected char '%.*s'", (int)(p - x->pos), x->s + x->pos);
        return;
    }
    char closes = op[0] == '(' ? ')' : op[0] == '[' ? ']' : op[0] == '{' ? '}' : 0;
    if (closes) {
        if (x->n_bracket == BRACKET_MAX) {
            LEX_FAIL(x, x->pos, "more than %d open brackets", BRACKET_MAX);
            return;
        }
        x->bracket[x->n_bracket++] = closes;
    } else if (op[0] == ')' || op[0] == ']' || op[0] == '}') {
        if (x->n_bracket == 0) {
            LEX_FAIL(x, x->pos, "unexpected '%c'", op[0]);
            return;
        }
        char want = x->bracket[--x->n_bracket];
        if (want != op[0]) {
            LEX_FAIL(x, x->pos, "unexpected '%c', expected '%c'", op[0], want);
            return;
        }
    }
    struct jtok *t = add(x, T_OP, x->pos);
    if (t)
        memcpy(t->op, op, 3);
    x->pos += op[1] ? 2 : 1;
}

static void lex_name(struct lexer *x)
{
    size_t at = x->pos, p = at, next = at;
    while (p < x->n && text_name_part(text_next(x->s, x->n, &next)))
        p = next;
    struct jtok *t = add(x, T_NAME, at);
    if (t)
        t->value = JSTR(x->s + at, p - at);
    x->pos = p;
}

static void lex_token(struct lexer *x)
{
    char c = x->s[x->pos];
    size_t i = x->pos;
    if (c >= '0' && c <= '9')
        lex_number(x);
    else if (c == '"' || c == '\'')
        lex_string(x);
    else if (text_name_start(text_next(x->s, x->n, &i)))
        lex_name(x);
    else
        lex_op(x);
}

/* lex_tag: from behind the begin mark to behind the end mark. */
static void lex_tag(struct lexer *x, const char *mark, bool block)
{
    x->n_bracket = 0;
    while (x->rc == 0) {
        if (x->pos >= x->n)
            return; /* the parser finds the end of the file */
        if (x->n_bracket == 0) {
            size_t end = tag_end(x, x->pos, mark, block);
            if (end != x->pos) {
                add(x, block ? T_BLOCK_END : T_VAR_END, x->pos);
                x->pos = end;
                return;
            }
        }
        size_t p = skip_space(x, x->pos);
        if (p != x->pos)
            x->pos = p;
        else
            lex_token(x);
    }
}

static void lex_root(struct lexer *x)
{
    size_t tag = x->pos;
    while (tag < x->n &&
           !(x->s[tag] == '{' && tag + 1 < x->n && strchr("%{#", x->s[tag + 1]) && x->s[tag + 1]))
        tag++;
    if (tag == x->n) {
        struct jtok *t = add(x, T_DATA, x->pos);
        if (t)
            t->value = JSTR(x->s + x->pos, x->n - x->pos);
        x->pos = x->n;
        return;
    }
    char kind = x->s[tag + 1], sign = sign_at(x, tag + 2);
    size_t raw = kind == '%' ? raw_begin(x, tag) : 0;
    add_data(x, x->pos, tag, sign, kind == '{');
    if (x->rc)
        return;
    if (raw) {
        lex_raw(x, tag, raw);
    } else if (kind == '#') {
        lex_comment(x, tag);
    } else {
        add(x, kind == '%' ? T_BLOCK_BEGIN : T_VAR_BEGIN, tag);
        x->pos = tag + 2 + (sign ? 1 : 0);
        lex_tag(x, kind == '%' ? "%}" : "}}", kind == '%');
    }
}

int jinja_lex(struct jmem *mem, const char *source, size_t n_bytes, struct jtoks *out,
              struct err *err)
{
    struct lexer x = {.mem = mem, .err = err, .s = source, .n = n_bytes, .line = 1};
    while (x.rc == 0 && x.pos < x.n)
        lex_root(&x);
    if (x.rc == 0)
        add(&x, T_EOF, x.n);
    if (x.rc)
        return x.rc;
    *out = x.toks;
    return 0;
}
