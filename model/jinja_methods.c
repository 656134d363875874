/* jinja_methods: the methods of dict, list, tuple and cycler, and the search by type. */
#include "model/jinja_methods.h"

#include <string.h>

static bool no_args(struct jrun *r, const struct jargs *args, const char *what)
{
    static const char *const names[] = {NULL};
    return jargs_bind(r, args, what, names, 0, NULL);
}

static struct jval dict_get(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"key", "default", NULL};
    struct jval a[] = {JNONE, JNONE};
    if (!jargs_bind(r, args, "get()", names, 1, a) || !j_hashable(r, a[0]))
        return JUNDEF;
    struct jval *at = jdict_find(r, self.dict, a[0]);
    return at ? *at : a[1];
}

static struct jval view(struct jval self, enum jview which)
{
    return (struct jval){.type = J_VIEW, .flag = (uint8_t)which, .dict = self.dict};
}

static struct jval dict_keys(struct jrun *r, struct jval self, const struct jargs *args)
{
    return no_args(r, args, "keys()") ? view(self, VIEW_KEYS) : JUNDEF;
}

static struct jval dict_values(struct jrun *r, struct jval self, const struct jargs *args)
{
    return no_args(r, args, "values()") ? view(self, VIEW_VALUES) : JUNDEF;
}

static struct jval dict_items(struct jrun *r, struct jval self, const struct jargs *args)
{
    return no_args(r, args, "items()") ? view(self, VIEW_ITEMS) : JUNDEF;
}

/* A value that cannot change is its own copy. */
static struct jval copy(struct jrun *r, struct jval self, const struct jargs *args)
{
    return no_args(r, args, "copy()") ? self : JUNDEF;
}

static struct jval list_count(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"value", NULL};
    struct jval value;
    int64_t n = 0;
    if (!jargs_bind(r, args, "count()", names, 1, &value))
        return JUNDEF;
    for (size_t i = 0; i < self.list->n && j_step(r, 0); i++)
        n += j_equal(r, self.list->v[i], value);
    return JINT(n);
}

static struct jval list_index(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"value", NULL};
    struct jval value;
    if (!jargs_bind(r, args, "index()", names, 1, &value))
        return JUNDEF;
    for (size_t i = 0; i < self.list->n && j_step(r, 0); i++) {
        if (j_equal(r, self.list->v[i], value))
            return JINT((int64_t)i);
    }
    struct jbuf b = {0};
    j_repr(r, &b, value);
    j_fail(r, self.type == J_TUPLE ? "tuple.index(x): x not in tuple" : "%.*s is not in list",
           (int)(b.n < 300 ? b.n : 300), b.p ? b.p : "");
    return JUNDEF;
}

static struct jval cycler_next(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jcycler *c = self.cycler;
    if (!no_args(r, args, "next()"))
        return JUNDEF;
    struct jval v = c->items->v[c->pos];
    c->pos = (c->pos + 1) % c->items->n;
    return v;
}

static struct jval cycler_reset(struct jrun *r, struct jval self, const struct jargs *args)
{
    if (no_args(r, args, "reset()"))
        self.cycler->pos = 0;
    return JNONE;
}

const struct jfunc *j_find_method(struct jval v, const char *s, size_t n)
{
    static const struct jfunc of_dict[] = {{"get", dict_get},       {"keys", dict_keys},
                                           {"values", dict_values}, {"items", dict_items},
                                           {"copy", copy},          {NULL, NULL}};
    static const struct jfunc of_list[] = {
        {"count", list_count}, {"index", list_index}, {"copy", copy}, {NULL, NULL}};
    static const struct jfunc of_tuple[] = {
        {"count", list_count}, {"index", list_index}, {NULL, NULL}};
    static const struct jfunc of_cycler[] = {
        {"next", cycler_next}, {"reset", cycler_reset}, {NULL, NULL}};
    const struct jfunc *f;
    switch (v.type) {
    case J_STR:
        f = j_find_in(j_str_methods, s, n);
        return f ? f : j_find_in(j_str_case_methods, s, n);
    case J_DICT:
        return j_find_in(of_dict, s, n);
    case J_LIST:
        return j_find_in(of_list, s, n);
    case J_TUPLE:
        return j_find_in(of_tuple, s, n);
    case J_CYCLER:
        return j_find_in(of_cycler, s, n);
    default:
        return NULL;
    }
}
