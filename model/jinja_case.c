/* jinja_case: the methods of str that map or ask about the case of letters, or pad. */
#include "model/jinja_methods.h"
#include "model/jinja_text.h"

#include <string.h>

/* final_sigma: Unicode's one rule of lower case that looks around: a capital sigma behind a cased
 * letter and before none. */
static bool final_sigma(struct jval s, size_t at, size_t behind)
{
    bool before = false, after = false;
    while (at > 0) {
        uint32_t cp = text_prev(s.s, &at);
        if (text_case_ignorable(cp))
            continue;
        before = text_cased(cp);
        break;
    }
    while (behind < s.n) {
        uint32_t cp = text_next(s.s, s.n, &behind);
        if (text_case_ignorable(cp))
            continue;
        after = text_cased(cp);
        break;
    }
    return before && !after;
}

static int lower_at(struct jval s, size_t at, size_t behind, uint32_t cp, uint32_t out[3])
{
    if (cp == 0x3a3) {
        out[0] = final_sigma(s, at, behind) ? 0x3c2 : 0x3c3;
        return 1;
    }
    return text_lower(cp, out);
}

struct jval jstr_map(struct jrun *r, struct jval s, enum jcase how)
{
    struct jbuf b = {0};
    bool in_word = false;
    for (size_t i = 0; i < s.n && !r->rc;) {
        size_t at = i;
        uint32_t cp = text_next(s.s, s.n, &i), out[3];
        bool up = how == CASE_UPPER || (how == CASE_SWAP && text_lower_letter(cp));
        bool title = (how == CASE_TITLE && !in_word) || (how == CASE_CAPITALIZE && at == 0);
        bool keep = how == CASE_SWAP && !text_lower_letter(cp) && !text_upper_letter(cp);
        int n = 1;
        out[0] = cp;
        if (!keep)
            n = title ? text_title(cp, out)
                : up  ? text_upper(cp, out)
                      : lower_at(s, at, i, cp, out);
        in_word = text_cased(cp);
        for (int k = 0; k < n; k++)
            jbuf_put_cp(r, &b, out[k]);
    }
    struct jval v = jbuf_take(&b);
    v.flag = s.flag;
    return v;
}

struct jval jstr_is_case(struct jrun *r, struct jval s, enum jcase how)
{
    bool cased = false, in_word = false;
    j_step(r, s.n);
    for (size_t i = 0; i < s.n;) {
        uint32_t cp = text_next(s.s, s.n, &i);
        bool upper = text_upper_letter(cp) || text_title_letter(cp), lower = text_lower_letter(cp);
        if (how == CASE_UPPER ? lower || text_title_letter(cp) : how == CASE_LOWER && upper)
            return JBOOL(false);
        if (how == CASE_TITLE && ((upper && in_word) || (lower && !in_word)))
            return JBOOL(false);
        in_word = upper || lower;
        cased |= in_word;
    }
    return JBOOL(cased);
}

/* side: -1 pads left, 1 right, 0 both as str.center does. */
struct jval jstr_pad(struct jrun *r, struct jval s, int64_t width, char fill, int side)
{
    int64_t n = (int64_t)text_count(s.s, s.n);
    if (width <= n) /* before the difference, which a very negative width would overflow */
        return s;
    int64_t extra = width - n;
    if ((uint64_t)extra > r->bytes_max) {
        j_limit(r, "a string of more than %zu bytes", r->bytes_max);
        return JUNDEF;
    }
    int64_t left = side < 0 ? extra : side > 0 ? 0 : extra / 2 + (extra & width & 1);
    struct jbuf b = {0};
    for (int64_t i = 0; i < left && !r->rc; i++)
        jbuf_put(r, &b, &fill, 1);
    jbuf_put(r, &b, s.s, s.n);
    for (int64_t i = left; i < extra && !r->rc; i++)
        jbuf_put(r, &b, &fill, 1);
    return jbuf_take(&b);
}

static bool no_args(struct jrun *r, const struct jargs *args, const char *what)
{
    static const char *const names[] = {NULL};
    return jargs_bind(r, args, what, names, 0, NULL);
}

#define MAPPER(fn, text, how)                                                                      \
    static struct jval fn(struct jrun *r, struct jval self, const struct jargs *args)              \
    {                                                                                              \
        return no_args(r, args, text) ? jstr_map(r, self, how) : JUNDEF;                           \
    }
MAPPER(str_upper, "upper()", CASE_UPPER)
MAPPER(str_lower, "lower()", CASE_LOWER)
MAPPER(str_title, "title()", CASE_TITLE)
MAPPER(str_capitalize, "capitalize()", CASE_CAPITALIZE)
MAPPER(str_swapcase, "swapcase()", CASE_SWAP)

#define CASE_TEST(fn, text, how)                                                                   \
    static struct jval fn(struct jrun *r, struct jval self, const struct jargs *args)              \
    {                                                                                              \
        return no_args(r, args, text) ? jstr_is_case(r, self, how) : JUNDEF;                       \
    }
CASE_TEST(str_isupper, "isupper()", CASE_UPPER)
CASE_TEST(str_islower, "islower()", CASE_LOWER)
CASE_TEST(str_istitle, "istitle()", CASE_TITLE)

static bool alnum(uint32_t cp)
{
    return text_alpha(cp) || text_decimal(cp) || text_digit(cp) || text_numeric(cp);
}

static struct jval all_are(struct jrun *r, struct jval s, bool (*is)(uint32_t))
{
    bool all = s.n > 0;
    j_step(r, s.n);
    for (size_t i = 0; i < s.n && all;)
        all = is(text_next(s.s, s.n, &i));
    return JBOOL(all);
}

#define CLASS_TEST(fn, text, is)                                                                   \
    static struct jval fn(struct jrun *r, struct jval self, const struct jargs *args)              \
    {                                                                                              \
        return no_args(r, args, text) ? all_are(r, self, is) : JUNDEF;                             \
    }
CLASS_TEST(str_isalpha, "isalpha()", text_alpha)
CLASS_TEST(str_isdigit, "isdigit()", text_digit)
CLASS_TEST(str_isdecimal, "isdecimal()", text_decimal)
CLASS_TEST(str_isnumeric, "isnumeric()", text_numeric)
CLASS_TEST(str_isalnum, "isalnum()", alnum)
CLASS_TEST(str_isspace, "isspace()", text_space)

static struct jval pad(struct jrun *r, struct jval self, const struct jargs *args, const char *what,
                       int side)
{
    static const char *const names[] = {"width", "fillchar", NULL};
    struct jval a[] = {JNONE, JLIT(" ")};
    int64_t width;
    if (!jargs_bind(r, args, what, names, 1, a) || !j_want_int(r, a[0], &width))
        return JUNDEF;
    if (a[1].type != J_STR || a[1].n != 1) {
        j_fail(r, "The fill character must be exactly one character long");
        return JUNDEF;
    }
    return jstr_pad(r, self, width, a[1].s[0], side);
}

static struct jval str_ljust(struct jrun *r, struct jval self, const struct jargs *args)
{
    return pad(r, self, args, "ljust()", 1);
}

static struct jval str_rjust(struct jrun *r, struct jval self, const struct jargs *args)
{
    return pad(r, self, args, "rjust()", -1);
}

static struct jval str_center(struct jrun *r, struct jval self, const struct jargs *args)
{
    return pad(r, self, args, "center()", 0);
}

static struct jval str_zfill(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"width", NULL};
    struct jval width;
    int64_t n;
    if (!jargs_bind(r, args, "zfill()", names, 1, &width) || !j_want_int(r, width, &n))
        return JUNDEF;
    bool sign = self.n && (self.s[0] == '+' || self.s[0] == '-');
    struct jval digits = jstr_pad(r, JSTR(self.s + sign, self.n - sign), n - sign, '0', -1);
    return sign && !r->rc ? j_concat(r, JSTR(self.s, 1), digits) : digits;
}

const struct jfunc j_str_case_methods[] = {{"upper", str_upper},
                                           {"lower", str_lower},
                                           {"title", str_title},
                                           {"capitalize", str_capitalize},
                                           {"swapcase", str_swapcase},
                                           {"isupper", str_isupper},
                                           {"islower", str_islower},
                                           {"istitle", str_istitle},
                                           {"isalpha", str_isalpha},
                                           {"isdigit", str_isdigit},
                                           {"isdecimal", str_isdecimal},
                                           {"isnumeric", str_isnumeric},
                                           {"isalnum", str_isalnum},
                                           {"isspace", str_isspace},
                                           {"ljust", str_ljust},
                                           {"rjust", str_rjust},
                                           {"center", str_center},
                                           {"zfill", str_zfill},
                                           {NULL, NULL}};
