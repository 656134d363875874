/* See tok_json.h. */
#include "model/tok_json.h"
#include <math.h>
#include <stdlib.h>

#define DEPTH_MAX 64

static int bad(struct tok_json *json, struct err *err, const char *what)
{
    return err_set(err, ERR_MODEL, "%s: byte %zu: %s; the file is damaged, fetch it again",
                   json->file, (size_t)(json->p - json->start), what);
}

void tok_json_init(struct tok_json *json, const char *file, const char *bytes, size_t n)
{
    *json = (struct tok_json){.start = bytes, .p = bytes, .end = bytes + n, .file = file};
}

void tok_json_fini(struct tok_json *json)
{
    tok_text_fini(&json->text);
}

char tok_json_peek(struct tok_json *json)
{
    const char *p = json->p;
    while (p < json->end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    json->p = p;
    return p < json->end ? *p : 0;
}

static int expect(struct tok_json *json, char c, struct err *err)
{
    if (tok_json_peek(json) != c) {
        char what[32] = "expected ' '";
        what[10] = c;
        return bad(json, err, what);
    }
    json->p++;
    return 0;
}

/* next_item handles the opening bracket, the commas and the closing bracket of both kinds. */
static int next_item(struct tok_json *json, bool *first, char open, char close, struct err *err)
{
    if (*first) {
        if (expect(json, open, err))
            return ERR_MODEL;
        if (tok_json_peek(json) == close) {
            json->p++;
            return 0;
        }
        *first = false;
        return 1;
    }
    if (tok_json_peek(json) == close) {
        json->p++;
        return 0;
    }
    return expect(json, ',', err) ? ERR_MODEL : 1;
}

int tok_json_member(struct tok_json *json, bool *first, struct tok_str *key, struct err *err)
{
    int r = next_item(json, first, '{', '}', err);
    if (r <= 0)
        return r;
    r = tok_json_string(json, key, err);
    if (r)
        return r;
    return expect(json, ':', err) ? ERR_MODEL : 1;
}

int tok_json_element(struct tok_json *json, bool *first, struct err *err)
{
    return next_item(json, first, '[', ']', err);
}

static int hex4(const char *p, const char *end, uint32_t *out)
{
    if (end - p < 4)
        return -1;
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0)
            return -1;
        v = v << 4 | (uint32_t)d;
    }
    *out = v;
    return 0;
}

/* escape reads what follows a backslash. A lone surrogate is no text and is refused. */
static int escape(struct tok_json *json, struct err *err)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (json->p >= json->end)
        return bad(json, err, "the string does not end");
    char c = *json->p++;
    if (c != 'u') {
        const char *at = c ? strchr(from, c) : NULL;
        if (!at)
            return bad(json, err, "unknown escape in a string");
        return tok_text_add(&json->text, &to[at - from], 1) ? tok_nomem(err) : 0;
    }
    uint32_t cp, low;
    if (hex4(json->p, json->end, &cp))
        return bad(json, err, "\\u without four hexadecimal digits");
    json->p += 4;
    if (cp >= 0xd800 && cp < 0xe000) {
        if (cp >= 0xdc00 || json->end - json->p < 6 || json->p[0] != '\\' || json->p[1] != 'u' ||
            hex4(json->p + 2, json->end, &low) || low < 0xdc00 || low > 0xdfff)
            return bad(json, err, "half a surrogate pair in a string");
        json->p += 6;
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    }
    return tok_text_add_cp(&json->text, cp) ? tok_nomem(err) : 0;
}

int tok_json_string(struct tok_json *json, struct tok_str *out, struct err *err)
{
    if (expect(json, '"', err))
        return ERR_MODEL;
    const char *begin = json->p, *p = begin;
    unsigned char high = 0;
    while (p < json->end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
        high |= (unsigned char)*p++;
    json->p = p;
    if (p < json->end && *p == '"' && high < 0x80) { /* the usual case is given in place */
        *out = (struct tok_str){begin, (size_t)(p - begin)};
        json->p++;
        return 0;
    }
    json->text.n = 0;
    for (;;) {
        if (tok_text_add(&json->text, begin, (size_t)(json->p - begin)))
            return tok_nomem(err);
        if (json->p >= json->end)
            return bad(json, err, "the string does not end");
        char c = *json->p++;
        if (c == '"')
            break;
        if (c != '\\')
            return bad(json, err, "control character in a string");
        int r = escape(json, err);
        if (r)
            return r;
        begin = json->p;
        while (json->p < json->end && *json->p != '"' && *json->p != '\\' &&
               (unsigned char)*json->p >= 0x20)
            json->p++;
    }
    if (utf8_valid(json->text.p, json->text.n) != json->text.n)
        return bad(json, err, "a string is not valid UTF-8");
    *out = (struct tok_str){json->text.n ? json->text.p : "", json->text.n};
    return 0;
}

int tok_json_int(struct tok_json *json, int64_t *out, struct err *err)
{
    tok_json_peek(json);
    const char *p = json->p;
    bool minus = p < json->end && *p == '-';
    p += minus;
    const char *digits = p;
    int64_t v = 0;
    while (p < json->end && *p >= '0' && *p <= '9' && p - digits < 18)
        v = v * 10 + (*p++ - '0');
    if (p == digits ||
        (p < json->end && (*p == '.' || *p == 'e' || *p == 'E' || (*p >= '0' && *p <= '9'))))
        return bad(json, err, "expected an integer");
    json->p = p;
    *out = minus ? -v : v;
    return 0;
}

int tok_json_double(struct tok_json *json, double *out, struct err *err)
{
    char copy[64], *stop;
    size_t n = 0;
    tok_json_peek(json);
    const char *p = json->p;
    while (p < json->end && n < sizeof copy - 1 &&
           (strchr("+-.eE", *p) ? *p != 0 : *p >= '0' && *p <= '9'))
        copy[n++] = *p++;
    copy[n] = 0;
    double v = strtod(copy, &stop);
    if (n == 0 || *stop || !isfinite(v))
        return bad(json, err, "expected a number");
    json->p = p;
    *out = v;
    return 0;
}

static int skip_string(struct tok_json *json, struct err *err)
{
    const char *p = json->p + 1;
    while (p < json->end && *p != '"')
        p += *p == '\\' ? 2 : 1;
    if (p >= json->end)
        return bad(json, err, "the string does not end");
    json->p = p + 1;
    return 0;
}

int tok_json_skip(struct tok_json *json, struct tok_str *out, struct err *err)
{
    char open[DEPTH_MAX];
    int depth = 0;
    tok_json_peek(json);
    const char *begin = json->p;
    do {
        char c = tok_json_peek(json);
        if (c == '"') {
            if (skip_string(json, err))
                return ERR_MODEL;
        } else if (c == '{' || c == '[') {
            if (depth == DEPTH_MAX)
                return bad(json, err, "nested deeper than 64");
            open[depth++] = c;
            json->p++;
        } else if (c == '}' || c == ']') {
            if (depth == 0 || open[--depth] != (c == '}' ? '{' : '['))
                return bad(json, err, "brackets do not match");
            json->p++;
        } else if ((c == ',' || c == ':') && depth > 0) {
            json->p++;
        } else if ((c >= '0' && c <= '9') || c == 't' || c == 'f' || c == 'n' || c == '-') {
            do
                json->p++;
            while (json->p < json->end && *json->p && strchr("+-.0123456789eEaflnrstu", *json->p));
        } else {
            return bad(json, err, c ? "expected a value" : "the file ends early");
        }
    } while (depth > 0);
    *out = (struct tok_str){begin, (size_t)(json->p - begin)};
    return 0;
}

int tok_json_end(struct tok_json *json, struct err *err)
{
    return tok_json_peek(json) || json->p < json->end ? bad(json, err, "text after the end") : 0;
}
