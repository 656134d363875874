/* jinja_str: the methods of str that look for, cut and join texts. Positions count code points. */
#include "model/jinja_methods.h"
#include "model/jinja_text.h"

#include <string.h>

static bool in_set(uint32_t cp, struct jval chars)
{
    if (chars.type == J_NONE)
        return text_space(cp);
    for (size_t i = 0; i < chars.n;) {
        if (text_next(chars.s, chars.n, &i) == cp)
            return true;
    }
    return false;
}

struct jval jstr_strip(struct jrun *r, struct jval s, struct jval chars, int sides)
{
    size_t from = 0, to = s.n;
    if (chars.type != J_NONE && !j_want_str(r, chars, "strip arg"))
        return JUNDEF;
    while ((sides & 1) && from < to) {
        size_t next = from;
        if (!in_set(text_next(s.s, to, &next), chars))
            break;
        from = next;
        j_step(r, chars.type == J_STR ? chars.n : 0);
    }
    while ((sides & 2) && from < to) {
        size_t prev = to;
        if (!in_set(text_prev(s.s, &prev), chars))
            break;
        to = prev;
        j_step(r, chars.type == J_STR ? chars.n : 0);
    }
    return (struct jval){.type = J_STR, .flag = s.flag, .s = s.s + from, .n = to - from};
}

static struct jval strip(struct jrun *r, struct jval self, const struct jargs *args,
                         const char *what, int sides)
{
    static const char *const names[] = {"chars", NULL};
    struct jval chars = JNONE;
    return jargs_bind(r, args, what, names, 0, &chars) ? jstr_strip(r, self, chars, sides) : JUNDEF;
}

static struct jval str_strip(struct jrun *r, struct jval self, const struct jargs *args)
{
    return strip(r, self, args, "strip()", 3);
}

static struct jval str_lstrip(struct jrun *r, struct jval self, const struct jargs *args)
{
    return strip(r, self, args, "lstrip()", 1);
}

static struct jval str_rstrip(struct jrun *r, struct jval self, const struct jargs *args)
{
    return strip(r, self, args, "rstrip()", 2);
}

/* split_space: at runs of white space, without empty pieces; from the right when `right`. */
static void split_space(struct jrun *r, struct jval s, int64_t max, bool right, struct jlist *out)
{
    struct jval rest = jstr_strip(r, s, JNONE, right ? 2 : 1);
    while (rest.n && !r->rc) {
        size_t at = right ? rest.n : 0;
        if (max >= 0 && (int64_t)out->n == max) {
            jlist_push(r, out, rest);
            return;
        }
        if (right) {
            for (size_t p = at; p > 0 && !text_space(text_prev(rest.s, &p));)
                at = p;
            jlist_push(r, out, JSTR(rest.s + at, rest.n - at));
            rest = jstr_strip(r, JSTR(rest.s, at), JNONE, 2);
        } else {
            for (size_t p = 0; p < rest.n && !text_space(text_next(rest.s, rest.n, &p));)
                at = p;
            jlist_push(r, out, JSTR(rest.s, at));
            rest = jstr_strip(r, JSTR(rest.s + at, rest.n - at), JNONE, 1);
        }
    }
}

/* find_last: the last place of needle in hay, or NULL. */
static const char *find_last(struct jrun *r, struct jval hay, struct jval needle)
{
    if (needle.n > hay.n)
        return NULL;
    if (!needle.n)
        return hay.s + hay.n;
    for (size_t at = hay.n - needle.n + 1; at-- > 0;) {
        if (hay.s[at] != needle.s[0])
            continue;
        if (!j_step(r, needle.n)) /* this search is not linear where every place looks like a hit */
            return NULL;
        if (memcmp(hay.s + at, needle.s, needle.n) == 0)
            return hay.s + at;
    }
    return NULL;
}

static void split_at(struct jrun *r, struct jval s, struct jval sep, int64_t max, bool right,
                     struct jlist *out)
{
    for (int64_t k = 0; (max < 0 || k < max) && !r->rc; k++) {
        const char *at = right ? find_last(r, s, sep) : memmem(s.s, s.n, sep.s, sep.n);
        if (!at)
            break;
        size_t before = (size_t)(at - s.s), behind = s.n - before - sep.n;
        jlist_push(r, out, right ? JSTR(at + sep.n, behind) : JSTR(s.s, before));
        s = right ? JSTR(s.s, before) : JSTR(at + sep.n, behind);
    }
    jlist_push(r, out, JSTR(s.s, s.n));
}

static void reverse(struct jlist *l)
{
    for (size_t i = 0, k = l->n; i + 1 < k; i++) {
        struct jval v = l->v[--k];
        l->v[k] = l->v[i];
        l->v[i] = v;
    }
}

static struct jval split(struct jrun *r, struct jval self, const struct jargs *args,
                         const char *what, bool right)
{
    static const char *const names[] = {"sep", "maxsplit", NULL};
    struct jval a[] = {JNONE, JINT(-1)};
    struct jlist *out = jlist_new(r, 0);
    int64_t max;
    if (!jargs_bind(r, args, what, names, 0, a) || !j_want_int(r, a[1], &max))
        return JUNDEF;
    if (a[0].type != J_NONE && !j_want_str(r, a[0], "the separator of split"))
        return JUNDEF;
    if (a[0].type == J_STR && a[0].n == 0)
        j_fail(r, "empty separator");
    if (r->rc || !j_step(r, self.n))
        return JUNDEF;
    if (a[0].type == J_NONE)
        split_space(r, self, max, right, out);
    else
        split_at(r, self, a[0], max, right, out);
    if (right && out)
        reverse(out);
    return r->rc ? JUNDEF : JLIST(out);
}

static struct jval str_split(struct jrun *r, struct jval self, const struct jargs *args)
{
    return split(r, self, args, "split()", false);
}

static struct jval str_rsplit(struct jrun *r, struct jval self, const struct jargs *args)
{
    return split(r, self, args, "rsplit()", true);
}

struct jlist *jstr_lines(struct jrun *r, struct jval s, bool keep)
{
    struct jlist *out = jlist_new(r, 0);
    for (size_t from = 0, i = 0; i < s.n && j_step(r, 0);) {
        size_t end = i;
        uint32_t cp = text_next(s.s, s.n, &i);
        if (!text_line_end(cp)) {
            if (i == s.n)
                jlist_push(r, out, JSTR(s.s + from, i - from));
            continue;
        }
        if (cp == '\r' && i < s.n && s.s[i] == '\n')
            i++;
        jlist_push(r, out, JSTR(s.s + from, (keep ? i : end) - from));
        from = i;
    }
    return r->rc ? NULL : out;
}

static struct jval str_splitlines(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"keepends", NULL};
    struct jval keep = JBOOL(false);
    if (!jargs_bind(r, args, "splitlines()", names, 0, &keep))
        return JUNDEF;
    struct jlist *l = jstr_lines(r, self, j_truth(keep));
    return l ? JLIST(l) : JUNDEF;
}

static bool has_affix(struct jval s, struct jval affix, bool end)
{
    return affix.n <= s.n && memcmp(s.s + (end ? s.n - affix.n : 0), affix.s, affix.n) == 0;
}

/* window: s[start:end] of the methods that take bounds. first: the code point it begins at. */
static bool window(struct jrun *r, struct jval *s, struct jval start, struct jval end,
                   size_t *first)
{
    const struct jval part[3] = {start, end, JNONE};
    const struct jval head[3] = {JNONE, start, JNONE};
    *first = 0;
    if (start.type == J_NONE && end.type == J_NONE)
        return r->rc == 0;
    struct jval before = j_slice(r, *s, head);
    *s = j_slice(r, *s, part);
    if (!r->rc && start.type != J_NONE)
        *first = text_count(before.s, before.n);
    return r->rc == 0;
}

static struct jval affix(struct jrun *r, struct jval self, const struct jargs *args,
                         const char *what, bool end)
{
    static const char *const names[] = {"prefix", "start", "end", NULL};
    struct jval a[] = {JNONE, JNONE, JNONE};
    size_t first;
    if (!jargs_bind(r, args, what, names, 1, a) || !window(r, &self, a[1], a[2], &first))
        return JUNDEF;
    if (a[0].type == J_STR)
        return JBOOL(has_affix(self, a[0], end));
    if (a[0].type != J_TUPLE) {
        j_fail(r, "%.*s first arg must be str or a tuple of str, not %s", (int)strlen(what) - 2,
               what, j_type_name(a[0]));
        return JUNDEF;
    }
    for (size_t i = 0; i < a[0].list->n && j_step(r, 0); i++) {
        struct jval one = a[0].list->v[i];
        if (one.type != J_STR) {
            j_fail(r, "tuple for %.*s must only contain str, not %s", (int)strlen(what) - 2, what,
                   j_type_name(one));
            return JUNDEF;
        }
        if (has_affix(self, one, end))
            return JBOOL(true);
    }
    return JBOOL(false);
}

static struct jval str_startswith(struct jrun *r, struct jval self, const struct jargs *args)
{
    return affix(r, self, args, "startswith()", false);
}

static struct jval str_endswith(struct jrun *r, struct jval self, const struct jargs *args)
{
    return affix(r, self, args, "endswith()", true);
}

struct jval jstr_replace(struct jrun *r, struct jval s, struct jval from, struct jval to,
                         int64_t count)
{
    struct jbuf b = {0};
    size_t at = 0;
    for (int64_t k = 0; (count < 0 || k < count) && !r->rc; k++) {
        const char *hit = from.n ? memmem(s.s + at, s.n - at, from.s, from.n) : s.s + at;
        if (!hit)
            break;
        jbuf_put(r, &b, s.s + at, (size_t)(hit - s.s) - at);
        jbuf_put(r, &b, to.s, to.n);
        at = (size_t)(hit - s.s) + from.n;
        if (from.n)
            continue;
        if (at >= s.n)
            break;
        size_t next = at; /* between all characters */
        text_next(s.s, s.n, &next);
        jbuf_put(r, &b, s.s + at, next - at);
        at = next;
    }
    jbuf_put(r, &b, s.s + at, s.n - at);
    return r->rc ? JUNDEF : jbuf_take(&b);
}

static struct jval str_replace(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"old", "new", "count", NULL};
    struct jval a[] = {JNONE, JNONE, JINT(-1)};
    int64_t count;
    if (!jargs_bind(r, args, "replace()", names, 2, a) ||
        !j_want_str(r, a[0], "replace() argument 1") ||
        !j_want_str(r, a[1], "replace() argument 2") || !j_want_int(r, a[2], &count))
        return JUNDEF;
    return jstr_replace(r, self, a[0], a[1], count);
}

static bool search_args(struct jrun *r, struct jval *self, const struct jargs *args,
                        const char *what, struct jval *needle, size_t *first)
{
    static const char *const names[] = {"sub", "start", "end", NULL};
    struct jval a[] = {JNONE, JNONE, JNONE};
    if (!jargs_bind(r, args, what, names, 1, a) || !j_want_str(r, a[0], what) ||
        !j_step(r, self->n))
        return false;
    *needle = a[0];
    return window(r, self, a[1], a[2], first);
}

static struct jval search(struct jrun *r, struct jval self, const struct jargs *args,
                          const char *what, bool last, bool must)
{
    struct jval needle;
    size_t first;
    if (!search_args(r, &self, args, what, &needle, &first))
        return JUNDEF;
    const char *at = last       ? find_last(r, self, needle)
                     : needle.n ? memmem(self.s, self.n, needle.s, needle.n)
                                : self.s;
    if (!at && must)
        j_fail(r, "substring not found");
    return at ? JINT((int64_t)(first + text_count(self.s, (size_t)(at - self.s)))) : JINT(-1);
}

static struct jval str_find(struct jrun *r, struct jval self, const struct jargs *args)
{
    return search(r, self, args, "find()", false, false);
}

static struct jval str_rfind(struct jrun *r, struct jval self, const struct jargs *args)
{
    return search(r, self, args, "rfind()", true, false);
}

static struct jval str_index(struct jrun *r, struct jval self, const struct jargs *args)
{
    return search(r, self, args, "index()", false, true);
}

static struct jval str_rindex(struct jrun *r, struct jval self, const struct jargs *args)
{
    return search(r, self, args, "rindex()", true, true);
}

static struct jval str_count(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jval needle;
    size_t first;
    int64_t n = 0;
    if (!search_args(r, &self, args, "count()", &needle, &first))
        return JUNDEF;
    if (!needle.n)
        return JINT((int64_t)text_count(self.s, self.n) + 1);
    const char *at = self.s, *end = self.s + self.n;
    while ((at = memmem(at, (size_t)(end - at), needle.s, needle.n)) != NULL) {
        n++;
        at += needle.n;
    }
    return JINT(n);
}

struct jval jstr_join(struct jrun *r, struct jval sep, struct jval items, bool convert)
{
    struct jbuf b = {0};
    struct jcursor c;
    struct jval item;
    if (!j_iterable(items)) {
        j_fail(r, convert ? "'%s' object is not iterable" : "can only join an iterable",
               j_type_name(items));
        return JUNDEF;
    }
    if (!jcursor_init(r, &c, items))
        return JUNDEF;
    for (size_t i = 0; jcursor_next(r, &c, &item); i++) {
        if (!convert && item.type != J_STR) {
            j_fail(r, "sequence item %zu: expected str instance, %s found", i, j_type_name(item));
            break;
        }
        if (i)
            jbuf_put(r, &b, sep.s, sep.n);
        j_write(r, &b, item);
    }
    return r->rc ? JUNDEF : jbuf_take(&b);
}

static struct jval str_join(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"iterable", NULL};
    struct jval items;
    return jargs_bind(r, args, "join()", names, 1, &items) ? jstr_join(r, self, items, false)
                                                           : JUNDEF;
}

static struct jval remove_affix(struct jrun *r, struct jval self, const struct jargs *args,
                                const char *what, bool end)
{
    static const char *const names[] = {"affix", NULL};
    struct jval one;
    if (!jargs_bind(r, args, what, names, 1, &one) || !j_want_str(r, one, what))
        return JUNDEF;
    if (!has_affix(self, one, end))
        return self;
    return JSTR(self.s + (end ? 0 : one.n), self.n - one.n);
}

static struct jval str_removeprefix(struct jrun *r, struct jval self, const struct jargs *args)
{
    return remove_affix(r, self, args, "removeprefix() argument", false);
}

static struct jval str_removesuffix(struct jrun *r, struct jval self, const struct jargs *args)
{
    return remove_affix(r, self, args, "removesuffix() argument", true);
}

static struct jval partition(struct jrun *r, struct jval self, const struct jargs *args,
                             const char *what, bool last)
{
    static const char *const names[] = {"sep", NULL};
    struct jval sep;
    struct jlist *l = jlist_new(r, 3);
    if (!jargs_bind(r, args, what, names, 1, &sep) || !j_want_str(r, sep, what))
        return JUNDEF;
    if (!sep.n) {
        j_fail(r, "empty separator");
        return JUNDEF;
    }
    const char *at = last ? find_last(r, self, sep) : memmem(self.s, self.n, sep.s, sep.n);
    size_t before = at ? (size_t)(at - self.s) : 0;
    struct jval head = JSTR(self.s, before),
                tail = JSTR(self.s + before + sep.n, at ? self.n - before - sep.n : 0);
    jlist_push(r, l, at ? head : last ? JLIT("") : self);
    jlist_push(r, l, at ? sep : JLIT(""));
    jlist_push(r, l, at ? tail : last ? self : JLIT(""));
    return r->rc ? JUNDEF : JTUPLE(l);
}

static struct jval str_partition(struct jrun *r, struct jval self, const struct jargs *args)
{
    return partition(r, self, args, "partition()", false);
}

static struct jval str_rpartition(struct jrun *r, struct jval self, const struct jargs *args)
{
    return partition(r, self, args, "rpartition()", true);
}

const struct jfunc j_str_methods[] = {{"strip", str_strip},
                                      {"lstrip", str_lstrip},
                                      {"rstrip", str_rstrip},
                                      {"split", str_split},
                                      {"rsplit", str_rsplit},
                                      {"splitlines", str_splitlines},
                                      {"startswith", str_startswith},
                                      {"endswith", str_endswith},
                                      {"replace", str_replace},
                                      {"find", str_find},
                                      {"rfind", str_rfind},
                                      {"index", str_index},
                                      {"rindex", str_rindex},
                                      {"count", str_count},
                                      {"join", str_join},
                                      {"format", j_format},
                                      {"removeprefix", str_removeprefix},
                                      {"removesuffix", str_removesuffix},
                                      {"partition", str_partition},
                                      {"rpartition", str_rpartition},
                                      {NULL, NULL}};
