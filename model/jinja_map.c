/* jinja_map: map, select, reject, selectattr and rejectattr: filters that call others by name. */
#include "model/jinja_map.h"
#include "model/jinja_seq.h"

#include <string.h>

static struct jval path_part(const char *s, size_t n)
{
    int64_t index = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || n > 9)
            return JSTR(s, n);
        index = index * 10 + (s[i] - '0');
    }
    return n ? JINT(index) : JSTR(s, 0);
}

struct jval jmap_attr(struct jrun *r, struct jval v, struct jval attribute, struct jval fallback)
{
    if (attribute.type == J_NONE)
        return v;
    if (attribute.type != J_STR) {
        v = j_getitem(r, v, attribute);
        return v.type == J_UNDEF && fallback.type != J_NONE ? fallback : v;
    }
    for (size_t from = 0; from <= attribute.n && !r->rc;) {
        const char *dot = memchr(attribute.s + from, '.', attribute.n - from);
        size_t to = dot ? (size_t)(dot - attribute.s) : attribute.n;
        v = j_getitem(r, v, path_part(attribute.s + from, to - from));
        if (v.type == J_UNDEF && fallback.type != J_NONE)
            v = fallback;
        from = to + 1;
    }
    return v;
}

/* rest: the arguments behind the first n. */
static struct jargs rest(const struct jargs *args, size_t n)
{
    return (struct jargs){args->pos + n, args->n_pos - n, args->kw, args->n_kw};
}

static struct jval map_attribute(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"attribute", "default", NULL};
    struct jval a[] = {JNONE, JNONE}, item;
    struct jcursor c;
    struct jlist *out = jlist_new(r, 0);
    if (!jargs_bind(r, args, "map", names, 1, a) || !jcursor_init(r, &c, self))
        return JUNDEF;
    while (jcursor_next(r, &c, &item))
        jlist_push(r, out, jmap_attr(r, item, a[0], a[1]));
    return r->rc ? JUNDEF : jseq_iter(r, out);
}

static struct jval f_map(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jcursor c;
    struct jval item;
    struct jlist *out = jlist_new(r, 0);
    if (!j_truth(self))
        return r->rc ? JUNDEF : jseq_iter(r, out);
    if (!args->n_pos && args->n_kw)
        return map_attribute(r, self, args);
    if (!args->n_pos) {
        j_fail(r, "map requires a filter argument");
        return JUNDEF;
    }
    struct jval name = args->pos[0];
    const struct jfunc *f = name.type == J_STR ? j_find_filter(name.s, name.n) : NULL;
    struct jargs others = rest(args, 1);
    if (!f) {
        struct jval text = j_to_str(r, name);
        j_fail(r, "No filter named '%.*s'.", (int)(text.n < 100 ? text.n : 100), text.s);
    }
    if (r->rc || !jcursor_init(r, &c, self))
        return JUNDEF;
    while (jcursor_next(r, &c, &item))
        jlist_push(r, out, f->fn(r, item, &others));
    return r->rc ? JUNDEF : jseq_iter(r, out);
}

bool j_test_bool(struct jrun *r, const struct jfunc *test, struct jval v, const struct jargs *args)
{
    return j_truth(test ? test->fn(r, v, args) : v) && !r->rc;
}

/* pick: the items (or, of_attr, those whose attribute) for which the test's answer is `keep`. */
static struct jval pick(struct jrun *r, struct jval self, const struct jargs *args, bool of_attr,
                        bool keep)
{
    struct jcursor c;
    struct jval item, attribute = JNONE;
    struct jlist *out = jlist_new(r, 0);
    const struct jfunc *test = NULL;
    size_t used = of_attr;
    if (!j_truth(self))
        return r->rc ? JUNDEF : jseq_iter(r, out);
    if (of_attr && !args->n_pos) {
        j_fail(r, "Missing parameter for attribute name");
        return JUNDEF;
    }
    if (of_attr)
        attribute = args->pos[0];
    if (args->n_pos > used) {
        struct jval name = j_to_str(r, args->pos[used++]);
        test = r->rc ? NULL : j_find_test(name.s, name.n);
        if (!test)
            j_fail(r, "No test named '%.*s'.", (int)(name.n < 100 ? name.n : 100), name.s);
    }
    struct jargs others = rest(args, used);
    if (r->rc || !jcursor_init(r, &c, self))
        return JUNDEF;
    while (jcursor_next(r, &c, &item)) {
        struct jval v = of_attr ? jmap_attr(r, item, attribute, JNONE) : item;
        if (j_test_bool(r, test, v, &others) == keep)
            jlist_push(r, out, item);
    }
    return r->rc ? JUNDEF : jseq_iter(r, out);
}

static struct jval f_select(struct jrun *r, struct jval self, const struct jargs *args)
{
    return pick(r, self, args, false, true);
}

static struct jval f_reject(struct jrun *r, struct jval self, const struct jargs *args)
{
    return pick(r, self, args, false, false);
}

static struct jval f_selectattr(struct jrun *r, struct jval self, const struct jargs *args)
{
    return pick(r, self, args, true, true);
}

static struct jval f_rejectattr(struct jrun *r, struct jval self, const struct jargs *args)
{
    return pick(r, self, args, true, false);
}

const struct jfunc j_map_filters[] = {{"map", f_map},
                                      {"select", f_select},
                                      {"reject", f_reject},
                                      {"selectattr", f_selectattr},
                                      {"rejectattr", f_rejectattr},
                                      {NULL, NULL}};
