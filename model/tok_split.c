/* See tok_split.h. Each matcher states its expression and takes the alternatives in their order,
 * with backtracking worked out by hand: a match at `at`, its end or `at` for none. The property of
 * a character is one load from the flag table. */
#include "model/tok_split.h"

#define CONTRACTIONS "'s|'t|'re|'ve|'m|'ll|'d"
#define GPT2         CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CL100K(digits)                                                                             \
    "(?i:" CONTRACTIONS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                  \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define O200K                                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"    \
    "(?i:" CONTRACTIONS ")?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"           \
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:" CONTRACTIONS ")?|\\p{N}{1,3}"                             \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
/* DeepSeek's file has the two line ends as themselves, not as escapes */
#define DEEPSEEK                                                                                   \
    "[!\"#$%&'()*+,\\-./"                                                                          \
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"                 \
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
#define CJK "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+"

static const struct {
    const char *pattern;
    enum tok_split_kind kind;
    int digits_max;
} known[] = {
    {GPT2, SPLIT_GPT2, 0},
    {CL100K("\\p{N}{1,3}"), SPLIT_CL100K, 3},
    {CL100K("\\p{N}"), SPLIT_CL100K, 1},
    {O200K, SPLIT_O200K, 3},
    {DEEPSEEK, SPLIT_DEEPSEEK, 0},
    {"\\p{N}{1,3}", SPLIT_DIGITS, 3},
    {"\\p{N}", SPLIT_DIGITS, 1},
    {CJK, SPLIT_CJK, 0},
};

const char *tok_split_known(size_t i)
{
    return i < sizeof known / sizeof *known ? known[i].pattern : NULL;
}

int tok_split_regex(struct tok_split *split, const char *pattern, size_t n, bool hand,
                    struct err *err)
{
    for (size_t i = 0; hand && i < sizeof known / sizeof *known; i++)
        if (n == strlen(known[i].pattern) && memcmp(pattern, known[i].pattern, n) == 0) {
            split->kind = known[i].kind;
            split->digits_max = known[i].digits_max;
            return 0;
        }
    split->kind = SPLIT_REGEX;
    return tok_regex_create(pattern, n, &split->regex, err);
}

int tok_split_literal(struct tok_split *split, const char *literal, size_t n, struct err *err)
{
    if (n == 0)
        return err_set(err, ERR_MODEL, "tokenizer: an empty string as pattern is not supported");
    split->kind = SPLIT_LITERAL;
    return tok_text_add(&split->literal, literal, n) ? tok_nomem(err) : 0;
}

void tok_split_gpt2(struct tok_split *split)
{
    split->kind = SPLIT_GPT2;
}

void tok_split_fini(struct tok_split *split)
{
    tok_regex_destroy(split->regex);
    tok_text_fini(&split->literal);
    memset(split, 0, sizeof *split);
}

struct text {
    const uint8_t *flag;
    const char *p;
    size_t n;
};

static inline uint8_t flag_at(const struct text *t, size_t at, size_t *len)
{
    unsigned char c = (unsigned char)t->p[at];
    if (c < 0x80) {
        *len = 1;
        return t->flag[c];
    }
    return t->flag[utf8_get(t->p + at, len)];
}

/* run: the end of the longest run from `at` of characters with (without, for run_not) the bits. */
static inline size_t run(const struct text *t, size_t at, uint8_t bits)
{
    size_t len;
    while (at < t->n && (flag_at(t, at, &len) & bits))
        at += len;
    return at;
}

static inline size_t run_not(const struct text *t, size_t at, uint8_t bits)
{
    size_t len;
    while (at < t->n && !(flag_at(t, at, &len) & bits))
        at += len;
    return at;
}

static inline bool is_line_end(char c)
{
    return c == '\n' || c == '\r';
}

static inline size_t line_ends(const struct text *t, size_t at)
{
    while (at < t->n && is_line_end(t->p[at]))
        at++;
    return at;
}

/* 's|'t|'re|'ve|'m|'ll|'d, `fold`: in either case, where U+017F is an s. */
static size_t contraction(const struct text *t, size_t at, bool fold)
{
    if (t->n - at < 2 || t->p[at] != '\'')
        return at;
    char mask = fold ? 32 : 0, a = t->p[at + 1] | mask;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return at + 2;
    if (t->n - at < 3)
        return at;
    if (fold && t->p[at + 1] == '\xc5' && t->p[at + 2] == '\xbf')
        return at + 3;
    char b = t->p[at + 2] | mask;
    bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
    return two ? at + 3 : at;
}

/* \s+(?!\S)|\s+ : all of the white space, less its last character if text follows it. */
static size_t white(const struct text *t, size_t at)
{
    size_t end = run(t, at, UNI_WS);
    if (end == at || end == t->n)
        return end;
    size_t last = utf8_before(t->p, end);
    return last > at ? last : end;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last line end in the white space, if there is one. */
static size_t white_lines(const struct text *t, size_t at)
{
    size_t end = run(t, at, UNI_WS);
    for (size_t i = end; i > at; i--)
        if (is_line_end(t->p[i - 1]))
            return i;
    return white(t, at);
}

static size_t match_gpt2(const struct text *t, size_t at)
{
    size_t end = contraction(t, at, false), len;
    if (end > at)
        return end;
    size_t word = at + (t->p[at] == ' ' && at + 1 < t->n);
    uint8_t f = flag_at(t, word, &len);
    if (f & UNI_L)
        return run(t, word, UNI_L);
    if (f & UNI_N)
        return run(t, word, UNI_N);
    if (!(f & UNI_WS))
        return run_not(t, word, UNI_L | UNI_N | UNI_WS);
    return white(t, at);
}

static size_t digits(const struct text *t, size_t at, int max)
{
    size_t len;
    for (int i = 0; i < max && at < t->n && (flag_at(t, at, &len) & UNI_N); i++)
        at += len;
    return at;
}

static size_t match_cl100k(const struct text *t, size_t at, int digits_max)
{
    size_t end = contraction(t, at, true), len, next;
    if (end > at)
        return end;
    uint8_t f = flag_at(t, at, &len);
    if (f & UNI_L)
        return run(t, at, UNI_L);
    if (f & UNI_N)
        return digits(t, at, digits_max);
    uint8_t g = at + len < t->n ? flag_at(t, at + len, &next) : UNI_WS;
    if ((g & UNI_L) && !is_line_end(t->p[at]))
        return run(t, at + len, UNI_L);
    if (!(f & UNI_WS))
        return line_ends(t, run_not(t, at, UNI_L | UNI_N | UNI_WS));
    if (t->p[at] == ' ' && !(g & (UNI_L | UNI_N | UNI_WS)))
        return line_ends(t, run_not(t, at + 1, UNI_L | UNI_N | UNI_WS));
    return white_lines(t, at);
}

/* [UP]*[LOW]+ from `at`: [UP]* takes all it can; if no [LOW] follows, it gives back up to the last
 * character that is both. */
static size_t upper_lower(const struct text *t, size_t at)
{
    size_t i = at, len, both_end = at;
    uint8_t f = 0;
    while (i < t->n && ((f = flag_at(t, i, &len)) & UNI_UP)) {
        i += len;
        if (f & UNI_LOW)
            both_end = i;
    }
    if (i < t->n && (f & UNI_LOW))
        return run(t, i, UNI_LOW);
    return both_end;
}

static size_t match_o200k(const struct text *t, size_t at)
{
    size_t len, end = at;
    uint8_t f = flag_at(t, at, &len);
    bool prefix = !(f & (UNI_L | UNI_N)) && !is_line_end(t->p[at]);
    if (prefix && (end = upper_lower(t, at + len)) > at + len)
        return contraction(t, end, true);
    if ((f & (UNI_UP | UNI_LOW)) && (end = upper_lower(t, at)) > at)
        return contraction(t, end, true);
    if (prefix && (end = run(t, at + len, UNI_UP)) > at + len)
        return contraction(t, end, true);
    if (f & UNI_UP)
        return contraction(t, run(t, at, UNI_UP), true);
    if (f & UNI_N)
        return digits(t, at, 3);
    size_t word = at + (t->p[at] == ' ' && at + 1 < t->n);
    if (!(flag_at(t, word, &len) & (UNI_L | UNI_N | UNI_WS))) {
        end = run_not(t, word, UNI_L | UNI_N | UNI_WS);
        while (end < t->n && (is_line_end(t->p[end]) || t->p[end] == '/'))
            end++;
        return end;
    }
    return white_lines(t, at);
}

static inline bool is_ascii_letter(char c)
{
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

static size_t match_deepseek(const struct text *t, size_t at)
{
    size_t len, next, end = at + 1;
    uint8_t f = flag_at(t, at, &len);
    if (len == 1 && (f & UNI_PS) && end < t->n && is_ascii_letter(t->p[end])) {
        while (end < t->n && is_ascii_letter(t->p[end]))
            end++;
        return end;
    }
    uint8_t g = at + len < t->n ? flag_at(t, at + len, &next) : 0;
    if (!(f & (UNI_L | UNI_PS)) && !is_line_end(t->p[at]) && (g & (UNI_L | UNI_M)))
        return run(t, at + len, UNI_L | UNI_M);
    if (f & (UNI_L | UNI_M))
        return run(t, at, UNI_L | UNI_M);
    if (f & UNI_PS)
        return line_ends(t, run(t, at, UNI_PS));
    if (t->p[at] == ' ' && (g & UNI_PS))
        return line_ends(t, run(t, at + 1, UNI_PS));
    return white_lines(t, at);
}

static size_t match_at(const struct tok_split *split, const struct text *t, size_t at)
{
    switch (split->kind) {
    case SPLIT_GPT2:
        return match_gpt2(t, at);
    case SPLIT_CL100K:
        return match_cl100k(t, at, split->digits_max);
    case SPLIT_O200K:
        return match_o200k(t, at);
    case SPLIT_DEEPSEEK:
        return match_deepseek(t, at);
    case SPLIT_DIGITS:
        return digits(t, at, split->digits_max);
    default:
        return run(t, at, UNI_CJK);
    }
}

void tok_split_walk(struct tok_split_walk *walk, const uint8_t *flag, const char *text, size_t n)
{
    walk->flag = flag;
    tok_regex_walk(&walk->regex, text, n);
}

int tok_split_next(const struct tok_split *split, struct tok_split_walk *walk, size_t *begin,
                   size_t *end, struct err *err)
{
    struct tok_regex_walk *w = &walk->regex;
    if (split->kind == SPLIT_REGEX)
        return tok_regex_next(split->regex, w, begin, end, err);
    if (split->kind == SPLIT_LITERAL) {
        const char *p = memmem(w->text + w->at, w->n - w->at, split->literal.p, split->literal.n);
        if (!p)
            return 0;
        *begin = (size_t)(p - w->text);
        *end = w->at = *begin + split->literal.n;
        return 1;
    }
    struct text t = {walk->flag, w->text, w->n};
    while (w->at < w->n) {
        size_t at = w->at, stop = match_at(split, &t, at);
        if (stop > at) {
            *begin = at;
            *end = w->at = stop;
            return 1;
        }
        w->at += utf8_len(w->text[at]);
    }
    return 0;
}
