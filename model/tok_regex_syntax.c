/* tok_regex_translate: Oniguruma's Ruby syntax to PCRE2's, for the subset that tokenizers use. What
 * is not known to mean the same is refused. PCRE2's own \s has U+180E, its \w lacks marks, and its
 * categories are Unicode 14's: so \s \d \w are written as ranges of our table, a category as
 * PCRE2's plus what was assigned since, and a negated category inside a class as the ranges outside
 * it. */
#include "model/tok_regex.h"
#include "model/tok_unicode.h"
#include <stdio.h>

struct scan {
    const char *pattern, *p, *end;
    struct tok_text *out;
    struct err *err;
};

static int refuse(const struct scan *s, const char *what)
{
    size_t n = (size_t)(s->end - s->pattern);
    return err_set(s->err, ERR_MODEL,
                   "tokenizer: %s in the regular expression '%.*s' (at byte %zu) is "
                   "not supported",
                   what, (int)(n < 200 ? n : 200), s->pattern, (size_t)(s->p - s->pattern));
}

static int put(struct scan *s, const char *text, size_t n)
{
    return tok_text_add(s->out, text, n) ? tok_nomem(s->err) : 0;
}

static int put_text(struct scan *s, const char *text)
{
    return put(s, text, strlen(text));
}

static int put_range(struct scan *s, uint32_t first, uint32_t end)
{
    char text[40];
    uint32_t last = end - 1; /* surrogates are no characters and may not be named in UTF mode */
    if (first >= 0xd800 && first < 0xe000)
        first = 0xe000;
    if (last >= 0xd800 && last < 0xe000)
        last = 0xd7ff;
    if (first > last)
        return 0;
    snprintf(text, sizeof text, "\\x{%x}-\\x{%x}", first, last);
    return put_text(s, text);
}

/* A set: categories, with the characters that the named classes have beyond them. */
struct set {
    uint32_t cats;
    char also; /* 's', 'w' or 0 */
};

static bool set_has(struct set set, uint32_t cp, enum tok_category cat)
{
    if (set.cats >> cat & 1)
        return true;
    if (set.also == 's')
        return (cp >= 9 && cp <= 13) || cp == 0x85;
    /* Oniguruma's \w: letters, marks, Nd, Nl, Pc, Other_Alphabetic and Latin-1's No */
    const uint32_t word = CATS_L | CATS_M | 1u << CAT_ND | 1u << CAT_NL | 1u << CAT_PC;
    return set.also == 'w' && ((word >> cat & 1) || (cat == CAT_SO && unicode_word(cp)) ||
                               (cat == CAT_NO && cp < 0x100));
}

static int put_set_ranges(struct scan *s, struct set set, bool negated)
{
    uint32_t first = 0;
    bool in = false;
    for (size_t i = 0; i < tok_category_run_n; i++) {
        uint32_t end = i + 1 < tok_category_run_n ? tok_category_run[i + 1] >> 5 : UNI_COUNT;
        enum tok_category cat = (enum tok_category)(tok_category_run[i] & 31);
        for (uint32_t cp = tok_category_run[i] >> 5; cp < end; cp++) {
            bool now = set_has(set, cp, cat) != negated;
            int r = in && !now ? put_range(s, first, cp) : 0;
            if (r)
                return r;
            first = now && !in ? cp : first;
            in = now;
            if (!set.also) /* a run is alike */
                break;
        }
    }
    return in ? put_range(s, first, UNI_COUNT) : 0;
}

static const char cat_names[] = "LuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCoCn";

static uint32_t cats_of(const char *name, size_t n)
{
    uint32_t cats = 0;
    for (int k = 0; k < CAT_COUNT && (n == 1 || n == 2); k++)
        if (cat_names[2 * k] == name[0] && (n == 1 || cat_names[2 * k + 1] == name[1]))
            cats |= 1u << k;
    return cats;
}

/* property: \p{..} \P{..} \p{^..}, s->p behind the p. */
static int property(struct scan *s, bool negated, bool in_class)
{
    if (s->p == s->end || *s->p != '{')
        return refuse(s, "\\p without braces");
    const char *name = ++s->p;
    if (s->p < s->end && *name == '^') {
        negated = !negated;
        name = ++s->p;
    }
    while (s->p < s->end && ((*s->p | 32) >= 'a' && (*s->p | 32) <= 'z'))
        s->p++;
    size_t n = (size_t)(s->p - name);
    if (s->p == s->end || *s->p != '}' || n == 0 || n > 32)
        return refuse(s, "this \\p{...}");
    s->p++;
    char text[64];
    struct set set = {cats_of(name, n), 0};
    if (!set.cats) { /* a script; PCRE2 alone would take the wider Script_Extensions */
        snprintf(text, sizeof text, "\\%c{sc:%.*s}", negated ? 'P' : 'p', (int)n, name);
        return put_text(s, text);
    }
    int r = 0;
    if ((negated && in_class) || set.cats >> CAT_CN & 1) {
        if (in_class)
            return put_set_ranges(s, set, negated);
        r = put_text(s, negated ? "[^" : "[");
        r = r ? r : put_set_ranges(s, set, false);
        return r ? r : put_text(s, "]");
    }
    if (!in_class)
        r = put_text(s, negated ? "[^" : "[");
    snprintf(text, sizeof text, "\\p{%.*s}", (int)n, name);
    r = r ? r : put_text(s, text);
    for (size_t i = 0; i < tok_since_14_n && !r; i++)
        if (set.cats >> tok_since_14[i].value & 1)
            r = put_range(s, tok_since_14[i].first, tok_since_14[i].end);
    return r || in_class ? r : put_text(s, "]");
}

static int named_class(struct scan *s, char c, bool in_class)
{
    bool negated = c < 'a';
    struct set set = {0, 0};
    if ((c | 32) == 's')
        set = (struct set){CATS_Z, 's'};
    else if ((c | 32) == 'd')
        set = (struct set){1u << CAT_ND, 0};
    else
        set = (struct set){0, 'w'};
    if (in_class)
        return put_set_ranges(s, set, negated);
    int r = put_text(s, negated ? "[^" : "[");
    r = r ? r : put_set_ranges(s, set, false);
    return r ? r : put_text(s, "]");
}

static int is_hex(char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

/* escape: s->p behind the backslash. */
static int escape(struct scan *s, bool in_class)
{
    if (s->p == s->end)
        return refuse(s, "a backslash at the end");
    char c = *s->p++;
    if (strchr("sSdDwW", c) && c)
        return named_class(s, c, in_class);
    if (c == 'p' || c == 'P')
        return property(s, c == 'P', in_class);
    if (c == 'v')
        return put_text(s, "\\x0b"); /* PCRE2's \v is a class */
    if (c == 'u' || c == 'x') {
        const char *digits = s->p;
        size_t max = c == 'u' ? 4 : 2;
        bool braces = c == 'x' && s->p < s->end && *s->p == '{';
        if (braces) {
            digits = ++s->p;
            max = 6;
        }
        while (s->p < s->end && (size_t)(s->p - digits) < max && is_hex(*s->p))
            s->p++;
        size_t n = (size_t)(s->p - digits);
        if (n == 0 || (c == 'u' && n < 4) || (braces && (s->p == s->end || *s->p != '}')) ||
            (!braces && c == 'x' && digits[0] > '7'))
            return refuse(s, "this code point");
        s->p += braces;
        char text[16];
        snprintf(text, sizeof text, "\\x{%.*s}", (int)n, digits);
        return put_text(s, text);
    }
    bool letter = ((c | 32) >= 'a' && (c | 32) <= 'z') || (c >= '0' && c <= '9');
    if (letter && !strchr("rntfae", c) && (in_class || !strchr("AzZ", c)))
        return refuse(s, "this escape");
    char text[2] = {'\\', c};
    return (unsigned char)c >= 0x80 ? put(s, &c, 1) : put(s, text, 2);
}

static int class(struct scan *s)
{
    int r = put(s, s->p++, 1);
    if (!r && s->p < s->end && *s->p == '^')
        r = put(s, s->p++, 1);
    if (s->p < s->end && *s->p == ']')
        return refuse(s, "an empty class");
    while (!r && s->p < s->end && *s->p != ']') {
        char c = *s->p;
        if (c == '[' || (c == '&' && s->end - s->p > 1 && s->p[1] == '&'))
            return refuse(s, "a class within a class");
        s->p++;
        r = c == '\\' ? escape(s, true) : put(s, &c, 1);
    }
    if (r)
        return r;
    if (s->p == s->end)
        return refuse(s, "a class without end");
    return put(s, s->p++, 1);
}

/* group: only forms with one meaning in both syntaxes. */
static int group(struct scan *s)
{
    static const char *const known[] = {
        "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"};
    size_t left = (size_t)(s->end - s->p);
    if (left < 2 || s->p[1] != '?')
        return left >= 2 && s->p[1] == '*' ? refuse(s, "this group") : put(s, s->p++, 1);
    if (s->p == s->pattern && left >= 4 && memcmp(s->p, "(?i)", 4) == 0) {
        s->p += 4;
        return put_text(s, "(?i)");
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t n = strlen(known[i]);
        if (left >= n && memcmp(s->p, known[i], n) == 0) {
            s->p += n;
            return put(s, known[i], n);
        }
    }
    return refuse(s, "this group");
}

int tok_regex_translate(const char *pattern, size_t n, struct tok_text *out, struct err *err)
{
    struct scan s = {pattern, pattern, pattern + n, out, err};
    int r = 0;
    while (!r && s.p < s.end) {
        char c = *s.p;
        if (c == '[') {
            r = class(&s);
        } else if (c == '(') {
            r = group(&s);
        } else if (c == '\\') {
            s.p++;
            r = escape(&s, false);
        } else if (c == '}' && s.end - s.p > 1 && s.p[1] == '+') {
            r = refuse(&s, "an interval followed by + (Ruby repeats it, Perl makes it possessive)");
        } else if (c == '{' && s.end - s.p > 1 && s.p[1] == ',') {
            r = refuse(&s, "an interval without a lower bound");
        } else {
            r = put(&s, s.p++, 1);
        }
    }
    return r;
}
