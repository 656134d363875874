/* jinja_unescape: the escapes of string literals, as Python's unicode-escape codec reads them:
 * unknown ones stay as written. \N{...} is not supported; a surrogate cannot be UTF-8. */
#include "model/jinja_ast.h"
#include "model/jinja_text.h"

#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
        return (c | 0x20) - 'a' + 10;
    return -1;
}

/* read_hex: n digits at s[i]; -1 when one is missing. */
static int64_t read_hex(const char *s, size_t n_bytes, size_t i, size_t n)
{
    int64_t cp = 0;
    for (size_t k = 0; k < n; k++) {
        int d = i + k < n_bytes ? hex_digit(s[i + k]) : -1;
        if (d < 0)
            return -1;
        cp = cp * 16 + d;
    }
    return cp;
}

/* simple_escape: the character that one letter stands for; 0: none. */
static char simple_escape(char c)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *p = c ? strchr(from, c) : NULL;
    return p ? to[p - from] : 0;
}

/* escape_at reads the escape at s[*i] (behind the backslash) into out (4 bytes) and moves *i; the
 * number of bytes, or -1. */
static int escape_at(const char *s, size_t n, size_t *i, char out[4], const char **why)
{
    char c = s[*i];
    char simple = simple_escape(c);
    if (simple) {
        (*i)++;
        out[0] = simple;
        return 1;
    }
    if (c == '\n') {
        (*i)++;
        return 0;
    }
    if (c >= '0' && c <= '7') {
        uint32_t cp = 0;
        for (int k = 0; k < 3 && *i < n && s[*i] >= '0' && s[*i] <= '7'; k++)
            cp = cp * 8 + (uint32_t)(s[(*i)++] - '0');
        return (int)text_put(cp, out);
    }
    size_t len = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (len) {
        int64_t cp = read_hex(s, n, *i + 1, len);
        *why = cp < 0 ? "truncated escape in a string" : "this escape is no character of UTF-8";
        if (cp < 0 || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
            return -1;
        *i += 1 + len;
        return (int)text_put((uint32_t)cp, out);
    }
    *why = "\\N{...} in a string is not supported";
    if (c == 'N')
        return -1;
    out[0] = '\\';
    return 1;
}

int jinja_unescape(struct jmem *mem, struct jtok *tok, struct err *err)
{
    const char *s = tok->value.s;
    size_t n = tok->value.n, k = 0;
    if (!n || !memchr(s, '\\', n))
        return 0;
    char *out = jmem_alloc(mem, n); /* an escape is never shorter than what it stands for */
    if (!out)
        return err_set(err, ERR_LIMIT, "chat template: larger than the memory allowed for it");
    for (size_t i = 0; i < n;) {
        if (s[i] != '\\') {
            out[k++] = s[i++];
            continue;
        }
        i++;
        const char *why = "";
        char bytes[4];
        int len = i < n ? escape_at(s, n, &i, bytes, &why) : -1;
        if (len < 0)
            return jinja_syntax(err, tok->line, tok->column, "%s", why);
        memcpy(out + k, bytes, (size_t)len);
        k += (size_t)len;
    }
    tok->value = JSTR(out, k);
    return 0;
}
