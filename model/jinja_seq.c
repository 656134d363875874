/* jinja_seq: the filters that make one value or one list of a sequence. What Jinja2 gives as a
 * generator is computed at once here, but can be walked only once too. */
#include "model/jinja_seq.h"
#include "model/jinja_map.h"
#include "model/jinja_methods.h"

#include <string.h>

static const char *const no_names[] = {NULL};

struct jval jseq_iter(struct jrun *r, struct jlist *l)
{
    struct jiter *it = l ? j_alloc(r, 1, sizeof *it) : NULL;
    if (!it)
        return JUNDEF;
    *it = (struct jiter){.list = l};
    return (struct jval){.type = J_ITER, .iter = it};
}

/* less: does b belong before a? Only then is the order of two equal items changed. */
static bool less(struct jrun *r, struct jval b, struct jval a)
{
    return j_step(r, 0) && j_compare_op(r, OP_LT, b, a);
}

struct keyed {
    struct jval key, value;
};

static void merge(struct jrun *r, struct keyed *v, struct keyed *tmp, size_t n, bool reverse)
{
    if (n < 2 || r->rc)
        return;
    size_t half = n / 2, i = 0, k = half, at = 0;
    merge(r, v, tmp, half, reverse);
    merge(r, v + half, tmp, n - half, reverse);
    while (i < half && k < n && !r->rc) {
        bool second = reverse ? less(r, v[i].key, v[k].key) : less(r, v[k].key, v[i].key);
        tmp[at++] = second ? v[k++] : v[i++];
    }
    while (i < half)
        tmp[at++] = v[i++];
    while (k < n)
        tmp[at++] = v[k++];
    memcpy(v, tmp, n * sizeof *v);
}

/* sort_by: l ordered by keys (its own items when NULL), in place. */
static struct jlist *sort_by(struct jrun *r, struct jlist *l, const struct jlist *keys,
                             bool reverse)
{
    size_t n = l ? l->n : 0;
    struct keyed *v = j_alloc(r, n, sizeof *v), *tmp = j_alloc(r, n, sizeof *tmp);
    if (!l || !v || !tmp)
        return NULL;
    for (size_t i = 0; i < n; i++)
        v[i] = (struct keyed){keys ? keys->v[i] : l->v[i], l->v[i]};
    merge(r, v, tmp, n, reverse);
    for (size_t i = 0; i < n; i++)
        l->v[i] = v[i].value;
    return r->rc ? NULL : l;
}

struct jlist *jseq_sort(struct jrun *r, struct jlist *l)
{
    return sort_by(r, l, NULL, false);
}

static struct jval lowered(struct jrun *r, struct jval v, bool case_sensitive)
{
    return v.type == J_STR && !case_sensitive ? jstr_map(r, v, CASE_LOWER) : v;
}

/* keys_of: what each item is ordered or compared by: its attribute, without case. */
static struct jlist *keys_of(struct jrun *r, const struct jlist *l, struct jval attribute,
                             bool case_sensitive)
{
    struct jlist *keys = l ? jlist_new(r, l->n) : NULL;
    for (size_t i = 0; keys && i < l->n && !r->rc; i++)
        jlist_push(r, keys, lowered(r, jmap_attr(r, l->v[i], attribute, JNONE), case_sensitive));
    return r->rc ? NULL : keys;
}

/* sort_keys: `attribute` may name several, with commas. */
static struct jlist *sort_keys(struct jrun *r, const struct jlist *l, struct jval attribute,
                               bool case_sensitive)
{
    if (attribute.type != J_STR || !memchr(attribute.s, ',', attribute.n))
        return keys_of(r, l, attribute, case_sensitive);
    struct jlist *keys = l ? jlist_new(r, l->n) : NULL;
    for (size_t i = 0; keys && i < l->n && !r->rc; i++) {
        struct jlist *key = jlist_new(r, 2);
        for (size_t from = 0; from <= attribute.n && !r->rc;) {
            const char *comma = memchr(attribute.s + from, ',', attribute.n - from);
            size_t to = comma ? (size_t)(comma - attribute.s) : attribute.n;
            struct jval v = jmap_attr(r, l->v[i], JSTR(attribute.s + from, to - from), JNONE);
            jlist_push(r, key, lowered(r, v, case_sensitive));
            from = to + 1;
        }
        jlist_push(r, keys, JLIST(key));
    }
    return r->rc ? NULL : keys;
}

static struct jval f_sort(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"reverse", "case_sensitive", "attribute", NULL};
    struct jval a[] = {JBOOL(false), JBOOL(false), JNONE};
    if (!jargs_bind(r, args, "sort", names, 0, a))
        return JUNDEF;
    struct jlist *l = j_to_list(r, self), *keys = sort_keys(r, l, a[2], j_truth(a[1]));
    l = keys ? sort_by(r, l, keys, j_truth(a[0])) : NULL;
    return l ? JLIST(l) : JUNDEF;
}

static struct jval f_dictsort(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"case_sensitive", "by", "reverse", NULL};
    struct jval a[] = {JBOOL(false), JLIT("key"), JBOOL(false)};
    if (!jargs_bind(r, args, "dictsort", names, 0, a))
        return JUNDEF;
    bool by_value = j_is_str(a[1], "value", 5);
    if (self.type == J_UNDEF)
        j_undef_raise(r, self);
    else if (self.type != J_DICT)
        j_fail(r, "'%s' object has no attribute 'items'", j_type_name(self));
    else if (!by_value && !j_is_str(a[1], "key", 3))
        j_fail(r, "You can only sort by either \"key\" or \"value\"");
    if (r->rc)
        return JUNDEF;
    struct jlist *l =
        j_to_list(r, (struct jval){.type = J_VIEW, .flag = VIEW_ITEMS, .dict = self.dict});
    struct jlist *keys = l ? keys_of(r, l, JINT(by_value), j_truth(a[0])) : NULL;
    l = keys ? sort_by(r, l, keys, j_truth(a[2])) : NULL;
    return l ? JLIST(l) : JUNDEF;
}

static struct jval f_unique(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"case_sensitive", "attribute", NULL};
    struct jval a[] = {JBOOL(false), JNONE};
    if (!jargs_bind(r, args, "unique", names, 0, a))
        return JUNDEF;
    struct jlist *l = j_to_list(r, self), *keys = keys_of(r, l, a[1], j_truth(a[0])),
                 *out = jlist_new(r, 0);
    struct jdict *seen = jdict_new(r, 0);
    for (size_t i = 0; keys && seen && i < l->n && !r->rc; i++) {
        size_t before = seen->n;
        jdict_set(r, seen, keys->v[i], JNONE);
        if (seen->n > before)
            jlist_push(r, out, l->v[i]);
    }
    return r->rc ? JUNDEF : jseq_iter(r, out);
}

static struct jval extreme(struct jrun *r, struct jval self, const struct jargs *args,
                           const char *what, enum jop better)
{
    static const char *const names[] = {"case_sensitive", "attribute", NULL};
    struct jval a[] = {JBOOL(false), JNONE};
    if (!jargs_bind(r, args, what, names, 0, a))
        return JUNDEF;
    struct jlist *l = j_to_list(r, self), *keys = keys_of(r, l, a[1], j_truth(a[0]));
    if (!keys)
        return JUNDEF;
    if (!l->n)
        return j_undef_hint(r, "No aggregated item, sequence was empty.");
    size_t best = 0;
    for (size_t i = 1; i < l->n && j_step(r, 0); i++) {
        if (j_compare_op(r, better, keys->v[i], keys->v[best]))
            best = i;
    }
    return l->v[best];
}

static struct jval f_min(struct jrun *r, struct jval self, const struct jargs *args)
{
    return extreme(r, self, args, "min", OP_LT);
}

static struct jval f_max(struct jrun *r, struct jval self, const struct jargs *args)
{
    return extreme(r, self, args, "max", OP_GT);
}

static struct jval f_sum(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"attribute", "start", NULL};
    struct jval a[] = {JNONE, JINT(0)}, item;
    struct jcursor c;
    if (!jargs_bind(r, args, "sum", names, 0, a) || !jcursor_init(r, &c, self))
        return JUNDEF;
    if (a[1].type == J_STR)
        j_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    while (!r->rc && jcursor_next(r, &c, &item))
        a[1] =
            j_binary(r, OP_ADD, a[1], a[0].type == J_NONE ? item : jmap_attr(r, item, a[0], JNONE));
    return a[1];
}

static struct jval f_join(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"d", "attribute", NULL};
    struct jval a[] = {JLIT(""), JNONE}, item;
    if (!jargs_bind(r, args, "join", names, 0, a))
        return JUNDEF;
    if (a[1].type != J_NONE) {
        struct jcursor c;
        struct jlist *l = jlist_new(r, 0);
        if (!jcursor_init(r, &c, self))
            return JUNDEF;
        while (jcursor_next(r, &c, &item))
            jlist_push(r, l, jmap_attr(r, item, a[1], JNONE));
        self = JLIST(l);
    }
    struct jval sep = j_to_str(r, a[0]);
    return r->rc ? JUNDEF : jstr_join(r, sep, self, true);
}

static struct jval f_first(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jcursor c;
    struct jval v;
    if (!jargs_bind(r, args, "first", no_names, 0, NULL) || !jcursor_init(r, &c, self))
        return JUNDEF;
    return jcursor_next(r, &c, &v) ? v : j_undef_hint(r, "No first item, sequence was empty.");
}

static bool reversible(struct jrun *r, struct jval v)
{
    if (v.type == J_UNDEF)
        j_undef_raise(r, v);
    else if (v.type == J_ITER || !j_iterable(v))
        j_fail(r, "'%s' object is not reversible", j_type_name(v));
    return r->rc == 0;
}

static struct jval f_last(struct jrun *r, struct jval self, const struct jargs *args)
{
    if (!jargs_bind(r, args, "last", no_names, 0, NULL))
        return JUNDEF;
    if (self.type != J_UNDEF && !reversible(r, self))
        return JUNDEF;
    struct jlist *l = j_to_list(r, self);
    if (l && !l->n)
        return j_undef_hint(r, "No last item, sequence was empty.");
    return l ? l->v[l->n - 1] : JUNDEF;
}

static struct jval f_list(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jlist *l = jargs_bind(r, args, "list", no_names, 0, NULL) ? j_to_list(r, self) : NULL;
    return l ? JLIST(l) : JUNDEF;
}

static struct jval f_reverse(struct jrun *r, struct jval self, const struct jargs *args)
{
    const struct jval backwards[3] = {JNONE, JNONE, JINT(-1)};
    if (!jargs_bind(r, args, "reverse", no_names, 0, NULL))
        return JUNDEF;
    if (self.type == J_STR)
        return j_slice(r, self, backwards);
    if (!j_iterable(self)) {
        j_fail(r, "argument must be iterable");
        return JUNDEF;
    }
    struct jlist *l = j_to_list(r, self);
    struct jval v = l ? j_slice(r, JLIST(l), backwards) : JUNDEF;
    return r->rc || self.type == J_ITER ? v : jseq_iter(r, v.list);
}

static struct jval f_items(struct jrun *r, struct jval self, const struct jargs *args)
{
    if (!jargs_bind(r, args, "items", no_names, 0, NULL))
        return JUNDEF;
    if (self.type == J_UNDEF)
        return jseq_iter(r, jlist_new(r, 0));
    if (self.type != J_DICT) {
        j_fail(r, "Can only get item pairs from a mapping.");
        return JUNDEF;
    }
    return jseq_iter(
        r, j_to_list(r, (struct jval){.type = J_VIEW, .flag = VIEW_ITEMS, .dict = self.dict}));
}

static struct jval f_batch(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"linecount", "fill_with", NULL};
    struct jval a[] = {JNONE, JNONE}, item;
    struct jcursor c;
    int64_t size;
    struct jlist *out = jlist_new(r, 0), *row = NULL;
    if (!jargs_bind(r, args, "batch", names, 1, a) || !j_want_int(r, a[0], &size) ||
        !jcursor_init(r, &c, self))
        return JUNDEF;
    while (jcursor_next(r, &c, &item)) {
        if (!row || (int64_t)row->n == size) {
            row = jlist_new(r, 0);
            jlist_push(r, out, JLIST(row));
        }
        jlist_push(r, row, item);
    }
    while (row && a[1].type != J_NONE && (int64_t)row->n < size && j_step(r, 0))
        jlist_push(r, row, a[1]);
    return r->rc ? JUNDEF : jseq_iter(r, out);
}

const struct jfunc j_seq_filters[] = {{"sort", f_sort},       {"dictsort", f_dictsort},
                                      {"unique", f_unique},   {"min", f_min},
                                      {"max", f_max},         {"sum", f_sum},
                                      {"join", f_join},       {"first", f_first},
                                      {"last", f_last},       {"list", f_list},
                                      {"reverse", f_reverse}, {"items", f_items},
                                      {"batch", f_batch},     {NULL, NULL}};
