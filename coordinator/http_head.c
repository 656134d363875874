/* http_head: what a request line and a field say, and whether all of them together make sense. Pure
 * functions on one line of the head; http_parse.h states the rules. */
#include "coordinator/http_parse.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

/* Fields of which a second one would leave two programs to choose differently. */
enum {
    SEEN_HOST = 1,
    SEEN_LENGTH = 2,
    SEEN_CODING = 4,
    SEEN_EXPECT = 8,
    SEEN_AUTHORIZATION = 16,
    SEEN_TYPE = 32
};

/* 19 digits are below 2^64. */
#define LENGTH_DIGITS_MAX 19

static int is_alnum(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* strchr would find the NUL too. */
static int is_one_of(unsigned char c, const char *set)
{
    return c != 0 && strchr(set, c) != NULL;
}

int http_is_token(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (!is_alnum(c) && !is_one_of(c, "!#$%&'*+-.^_`|~"))
            return 0;
    }
    return n > 0;
}

int http_hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- the target ------------------------------------------------------------------------------ */

/* One %XX at s (which ends at `end`): the byte, or -1 where it is malformed or would hide a
 * separator or a control byte from a program that compares before it decodes. */
static int decode(const char *s, const char *end)
{
    if (end - s < 3)
        return -1;
    int high = http_hex_digit((unsigned char)s[1]), low = http_hex_digit((unsigned char)s[2]);
    if (high < 0 || low < 0)
        return -1;
    int c = high << 4 | low;
    return c < 0x20 || c == 0x7f || c == '/' || c == '\\' ? -1 : c;
}

static int is_utf8(const char *s, size_t n)
{
    utf8proc_int32_t point;
    for (size_t i = 0; i < n;) {
        utf8proc_ssize_t k =
            utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &point);
        if (k <= 0)
            return 0;
        i += (size_t)k;
    }
    return 1;
}

static int has_dot_segment(const char *path)
{
    for (const char *s = path; s != NULL; s = strchr(s, '/')) {
        s += *s == '/';
        size_t n = strcspn(s, "/");
        if ((n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
            return 1;
    }
    return 0;
}

/* s[0..n) becomes the decoded path, NUL-terminated (there is room: the byte behind it is a '?' or
 * the space that ends the target). */
static int read_path(struct http_parser *p, char *s, size_t n)
{
    const char *end = s + n;
    char *to = s;
    for (const char *from = s; from < end; from++) {
        int c = (unsigned char)*from;
        if (c == '%') {
            if ((c = decode(from, end)) < 0)
                return http_refuse(p, 400, "a percent-encoding in the path is not accepted");
            from += 2;
        } else if (!is_alnum((unsigned char)c) &&
                   !is_one_of((unsigned char)c, "/-._~!$&'()*+,;=:@")) {
            return http_refuse(p, 400, "a byte in the path that must be percent-encoded");
        }
        *to++ = (char)c;
    }
    *to = 0;
    if (!is_utf8(s, (size_t)(to - s)))
        return http_refuse(p, 400, "the path is not UTF-8");
    if (has_dot_segment(s))
        return http_refuse(p, 400, "a '.' or '..' in the path");
    return 0;
}

static int check_query(struct http_parser *p, const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s <= 0x20 || (unsigned char)*s >= 0x7f ||
            is_one_of((unsigned char)*s, "#\"<>"))
            return http_refuse(p, 400, "a byte in the query that must be percent-encoded");
    return 0;
}

/* The target buf[begin .. end); buf[end] is 0. */
static int read_target(struct http_parser *p, char *buf, size_t begin, size_t end)
{
    char *s = buf + begin, *mark = memchr(s, '?', end - begin);
    p->path = (uint16_t)begin;
    p->query = (uint16_t)end;
    if (strcmp(s, "*") == 0 && strcmp(buf + p->method, "OPTIONS") == 0)
        return 0;
    if (*s != '/')
        return http_refuse(p, 400, "the target is not a path");
    if (mark == NULL)
        return read_path(p, s, end - begin);
    *mark = 0;
    p->query = (uint16_t)(mark + 1 - buf);
    return check_query(p, mark + 1) != 0 ? -1 : read_path(p, s, (size_t)(mark - s));
}

/* ---- the request line ------------------------------------------------------------------------ */

static int read_version(struct http_parser *p, const char *s, size_t n)
{
    if (n != 8 || memcmp(s, "HTTP/", 5) != 0 || s[5] < '0' || s[5] > '9' || s[6] != '.' ||
        s[7] < '0' || s[7] > '9')
        return http_refuse(p, 400, "the request line does not end in a version");
    if (s[5] != '1' || s[7] > '1')
        return http_refuse(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    p->minor = s[7] - '0';
    return 0;
}

static int is_known_method(const char *method)
{
    static const char *const known[] = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"};
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strcmp(known[i], method) == 0)
            return 1;
    return 0;
}

int http_head_request_line(struct http_parser *p, char *buf, size_t begin, size_t end)
{
    char *first = memchr(buf + begin, ' ', end - begin);
    char *second = first ? memchr(first + 1, ' ', end - (size_t)(first + 1 - buf)) : NULL;
    if (second == NULL || second == first + 1)
        return http_refuse(p, 400, "the request line is not METHOD TARGET VERSION");
    if (!http_is_token(buf + begin, (size_t)(first - buf) - begin))
        return http_refuse(p, 400, "the method is not a token");
    if (read_version(p, second + 1, end - (size_t)(second + 1 - buf)) != 0)
        return -1;
    *first = *second = 0;
    p->method = (uint16_t)begin;
    if (!is_known_method(buf + begin))
        return http_refuse(p, 501, "this method is not known here");
    return read_target(p, buf, (size_t)(first + 1 - buf), (size_t)(second - buf));
}

/* ---- fields ---------------------------------------------------------------------------------- */

static int read_length(struct http_parser *p, const char *value)
{
    size_t n = strlen(value);
    if (n == 0 || n > LENGTH_DIGITS_MAX || strspn(value, "0123456789") != n)
        return http_refuse(p, 400, "Content-Length is not a number of at most 19 digits");
    p->left = 0;
    for (; *value; value++)
        p->left = p->left * 10 + (unsigned)(*value - '0');
    return 0;
}

static int is_port(const char *s)
{
    size_t n = strspn(s, "0123456789");
    unsigned port = 0;
    if (n == 0 || n > 5 || s[n] != 0)
        return 0;
    for (; *s; s++)
        port = port * 10 + (unsigned)(*s - '0');
    return port <= 65535;
}

/* "name", "1.2.3.4" or "[v6]", then ":port" or nothing (RFC 9110 section 7.2, without the
 * characters that no name in use has). */
static int is_host(const char *s)
{
    char literal[INET6_ADDRSTRLEN];
    unsigned char address[16];
    const char *end;
    if (*s == '[') {
        end = strchr(s, ']');
        size_t n = end ? (size_t)(end - s - 1) : sizeof(literal);
        if (n >= sizeof(literal))
            return 0;
        memcpy(literal, s + 1, n);
        literal[n] = 0;
        if (inet_pton(AF_INET6, literal, address) != 1)
            return 0;
        end++;
    } else {
        for (end = s; is_alnum((unsigned char)*end) || is_one_of((unsigned char)*end, "-._~");
             end++) {
        }
        if (end == s)
            return 0;
    }
    return *end == 0 || (*end == ':' && is_port(end + 1));
}

static int read_host(struct http_parser *p, const char *value)
{
    return is_host(value) ? 0 : http_refuse(p, 400, "Host is not a name or address with a port");
}

static int read_coding(struct http_parser *p, const char *value)
{
    p->chunked = 1;
    return strcmp(value, "chunked") == 0
               ? 0
               : http_refuse(p, 400, "Transfer-Encoding may only be chunked");
}

static int read_expect(struct http_parser *p, const char *value)
{
    p->expect_continue = 1;
    return strcasecmp(value, "100-continue") == 0
               ? 0
               : http_refuse(p, 417, "Expect may only be 100-continue");
}

static int read_anything(struct http_parser *p, const char *value)
{
    (void)p;
    (void)value;
    return 0;
}

static int is_word(const char *s, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(s, word, n) == 0;
}

/* Connection is a list and may come several times. */
static void read_connection(struct http_parser *p, const char *s)
{
    while (*s) {
        s += strspn(s, " \t,");
        size_t n = strcspn(s, " \t,");
        p->close_asked |= is_word(s, n, "close");
        p->keep_alive_asked |= is_word(s, n, "keep-alive");
        s += n;
    }
}

static int understand(struct http_parser *p, const char *name, const char *value)
{
    static const struct {
        const char *name;
        unsigned bit;
        int (*read)(struct http_parser *p, const char *value);
        const char *twice;
    } once[] = {
        {"host", SEEN_HOST, read_host, "more than one Host"},
        {"content-length", SEEN_LENGTH, read_length, "more than one Content-Length"},
        {"transfer-encoding", SEEN_CODING, read_coding, "more than one Transfer-Encoding"},
        {"expect", SEEN_EXPECT, read_expect, "more than one Expect"},
        {"authorization", SEEN_AUTHORIZATION, read_anything, "more than one Authorization"},
        {"content-type", SEEN_TYPE, read_anything, "more than one Content-Type"},
    };
    for (size_t i = 0; i < sizeof(once) / sizeof(*once); i++) {
        if (strcmp(name, once[i].name) == 0) {
            if (p->seen & once[i].bit)
                return http_refuse(p, 400, once[i].twice);
            p->seen |= once[i].bit;
            return once[i].read(p, value);
        }
    }
    if (strcmp(name, "connection") == 0)
        read_connection(p, value);
    return 0;
}

static void to_lower(char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] >= 'A' && s[i] <= 'Z')
            s[i] = (char)(s[i] | 0x20);
}

int http_head_field(struct http_parser *p, char *buf, size_t begin, size_t end)
{
    char *colon = memchr(buf + begin, ':', end - begin);
    size_t n_name = colon ? (size_t)(colon - buf) - begin : 0;
    if (p->n_field == HTTP_FIELDS_MAX)
        return http_refuse(p, 431, "too many fields");
    if (colon == NULL || !http_is_token(buf + begin, n_name))
        return http_refuse(p, 400, "a field is not a token, a colon and a value");
    size_t value = begin + n_name + 1;
    while (value < end && (buf[value] == ' ' || buf[value] == '\t'))
        value++;
    while (end > value && (buf[end - 1] == ' ' || buf[end - 1] == '\t'))
        end--;
    *colon = 0;
    buf[end] = 0;
    to_lower(buf + begin, n_name);
    p->field[p->n_field].name = (uint16_t)begin;
    p->field[p->n_field].value = (uint16_t)value;
    p->n_field++;
    return understand(p, buf + begin, buf + value);
}

/* ---- the whole head -------------------------------------------------------------------------- */

int http_head_finish(struct http_parser *p)
{
    if (p->minor == 1 && !(p->seen & SEEN_HOST))
        return http_refuse(p, 400, "no Host");
    if (p->chunked && p->minor == 0)
        return http_refuse(p, 400, "Transfer-Encoding in HTTP/1.0");
    if (p->chunked && (p->seen & SEEN_LENGTH))
        return http_refuse(p, 400, "Content-Length beside Transfer-Encoding");
    if (p->left > p->body_bytes_max)
        return http_refuse(p, 413, "the body is too large");
    p->expect_continue &= p->minor == 1 && (p->chunked || p->left > 0);
    p->keep_alive = !p->close_asked && (p->minor == 1 || p->keep_alive_asked);
    return 0;
}

const char *http_field_get(const struct http_request *r, const char *name)
{
    for (int i = 0; i < r->n_field; i++)
        if (strcmp(r->field[i].name, name) == 0)
            return r->field[i].value;
    return NULL;
}
