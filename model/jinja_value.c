/* jinja_value: lists, dicts, undefined values, and Python's truth, length, equality and order.
 * Dicts are searched from the front: those of chats have a handful of keys, and a search of a large
 * one is charged as bulk work. */
#include "model/jinja_run.h"
#include "model/jinja_text.h"

#include <stdio.h>
#include <string.h>

struct jval j_str_copy(struct jrun *r, const char *s, size_t n)
{
    if (n > r->bytes_max) {
        j_limit(r, "a string of %zu bytes is more than the %zu allowed", n, r->bytes_max);
        return JLIT("");
    }
    char *p = j_alloc(r, n, 1);
    if (!p)
        return JLIT("");
    if (n)
        memcpy(p, s, n);
    return JSTR(p, n);
}

struct jlist *jlist_new(struct jrun *r, size_t cap)
{
    struct jlist *l = j_alloc(r, 1, sizeof *l);
    if (!l)
        return NULL;
    *l = (struct jlist){0};
    if (cap) {
        l->v = j_alloc(r, cap, sizeof *l->v);
        if (!l->v)
            return NULL;
        l->cap = cap;
    }
    return l;
}

/* grow doubles an array in place where it is the newest piece, else by a copy. */
static void *grow(struct jrun *r, void *old, size_t n, size_t *cap, size_t size)
{
    size_t want = *cap ? 2 * *cap : 4;
    if (old && want < SIZE_MAX / size / 2 && jmem_extend(&r->mem, old, *cap * size, want * size)) {
        *cap = want;
        return old;
    }
    void *v = j_alloc(r, want, size);
    if (!v)
        return NULL;
    if (n)
        memcpy(v, old, n * size);
    *cap = want;
    return v;
}

bool jlist_push(struct jrun *r, struct jlist *l, struct jval v)
{
    if (!l || r->rc)
        return false;
    if (l->n == l->cap) {
        struct jval *p = grow(r, l->v, l->n, &l->cap, sizeof *p);
        if (!p)
            return false;
        l->v = p;
    }
    l->v[l->n++] = v;
    return true;
}

struct jdict *jdict_new(struct jrun *r, size_t cap)
{
    struct jdict *d = j_alloc(r, 1, sizeof *d);
    if (!d)
        return NULL;
    *d = (struct jdict){0};
    if (cap) {
        d->kv = j_alloc(r, cap, sizeof *d->kv);
        if (!d->kv)
            return NULL;
        d->cap = cap;
    }
    return d;
}

bool j_hashable(struct jrun *r, struct jval v)
{
    if (v.type == J_LIST || v.type == J_DICT || v.type == J_NS) {
        j_fail(r, "unhashable type: '%s'", j_type_name(v));
        return false;
    }
    if (v.type == J_TUPLE) {
        if (++r->value_nest > JVALUE_NEST_MAX)
            j_limit(r, "values nested more than %d deep", JVALUE_NEST_MAX);
        for (size_t i = 0; i < v.list->n && j_step(r, 0); i++) {
            if (!j_hashable(r, v.list->v[i]))
                break;
        }
        r->value_nest--;
    }
    return r->rc == 0;
}

struct jval *jdict_find(struct jrun *r, const struct jdict *d, struct jval key)
{
    if (key.type == J_STR)
        return jdict_find_str(r, d, key.s, key.n);
    if (!j_step(r, 4 * d->n))
        return NULL;
    for (size_t i = 0; i < d->n; i++) {
        if (j_equal(r, d->kv[i].key, key))
            return &d->kv[i].value;
    }
    return NULL;
}

struct jval *jdict_find_str(struct jrun *r, const struct jdict *d, const char *s, size_t n)
{
    if (!j_step(r, 4 * d->n))
        return NULL;
    for (size_t i = 0; i < d->n; i++) {
        if (j_is_str(d->kv[i].key, s, n))
            return &d->kv[i].value;
    }
    return NULL;
}

bool jdict_set(struct jrun *r, struct jdict *d, struct jval key, struct jval value)
{
    if (!d || !j_hashable(r, key))
        return false;
    struct jval *at = jdict_find(r, d, key);
    if (r->rc)
        return false;
    if (at) {
        *at = value;
        return true;
    }
    if (d->n == d->cap) {
        struct jpair *p = grow(r, d->kv, d->n, &d->cap, sizeof *p);
        if (!p)
            return false;
        d->kv = p;
    }
    d->kv[d->n++] = (struct jpair){key, value};
    return true;
}

static struct jval undef_of(struct jrun *r, struct jundef u)
{
    struct jundef *p = j_alloc(r, 1, sizeof *p);
    if (p)
        *p = u;
    return (struct jval){.type = J_UNDEF, .undef = p};
}

struct jval j_undef_name(struct jrun *r, const char *name, size_t n)
{
    return undef_of(r, (struct jundef){.name = JSTR(name, n), .obj = JUNDEF});
}

struct jval j_undef_item(struct jrun *r, struct jval obj, struct jval name)
{
    return undef_of(r, (struct jundef){.name = name, .obj = obj});
}

struct jval j_undef_unsafe(struct jrun *r, struct jval obj, struct jval name)
{
    return undef_of(r, (struct jundef){.name = name, .obj = obj, .unsafe = true});
}

struct jval j_undef_hint(struct jrun *r, const char *hint)
{
    return undef_of(r, (struct jundef){.hint = hint, .name = JNONE, .obj = JUNDEF});
}

/* object_repr: Jinja2's object_type_repr. */
static void object_repr(struct jval v, char out[64])
{
    static const char *const of_jinja[J_TYPE_COUNT] = {[J_NS] = "jinja2.utils.",
                                                       [J_LOOP] = "jinja2.runtime.",
                                                       [J_MACRO] = "jinja2.runtime.",
                                                       [J_CYCLER] = "jinja2.utils.",
                                                       [J_JOINER] = "jinja2.utils."};
    const char *module = of_jinja[v.type]            ? of_jinja[v.type]
                         : v.type == J_STR && v.flag ? "markupsafe."
                                                     : "";
    if (v.type == J_NONE)
        strcpy(out, "None");
    else
        snprintf(out, 64, "%s%s object", module, j_type_name(v));
}

void j_undef_raise(struct jrun *r, struct jval v)
{
    const struct jundef *u = v.undef;
    if (!u) {
        j_fail(r, "the value is undefined");
        return;
    }
    if (u->hint) {
        j_fail(r, "%s", u->hint);
        return;
    }
    char object[64] = "";
    struct jbuf name = {0};
    j_repr(r, &name, u->name);
    int n = (int)(name.n < 300 ? name.n : 300);
    const char *text = name.p ? name.p : "";
    object_repr(u->obj, object);
    if (u->unsafe)
        j_fail(r, "access to attribute %.*s of '%s' object is unsafe.", n, text,
               j_type_name(u->obj));
    else if (u->obj.type == J_UNDEF)
        j_fail(r, "%.*s is undefined", n, text);
    else if (u->name.type != J_STR)
        j_fail(r, "%s has no element %.*s", object, n, text);
    else
        j_fail(r, "'%s' has no attribute %.*s", object, n, text);
}

const char *j_type_name(struct jval v)
{
    static const char *const names[J_TYPE_COUNT] = {[J_UNDEF] = "Undefined",
                                                    [J_NONE] = "NoneType",
                                                    [J_BOOL] = "bool",
                                                    [J_INT] = "int",
                                                    [J_FLOAT] = "float",
                                                    [J_STR] = "str",
                                                    [J_LIST] = "list",
                                                    [J_TUPLE] = "tuple",
                                                    [J_DICT] = "dict",
                                                    [J_VIEW] = "dict_",
                                                    [J_RANGE] = "range",
                                                    [J_ITER] = "generator",
                                                    [J_NS] = "Namespace",
                                                    [J_LOOP] = "LoopContext",
                                                    [J_MACRO] = "Macro",
                                                    [J_FUNC] = "function",
                                                    [J_METHOD] = "builtin_function_or_method",
                                                    [J_CYCLER] = "Cycler",
                                                    [J_JOINER] = "Joiner"};
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    if (v.type == J_VIEW)
        return views[v.flag];
    if (v.type == J_STR && v.flag)
        return "Markup";
    return names[v.type];
}

bool j_truth(struct jval v)
{
    switch (v.type) {
    case J_UNDEF:
    case J_NONE:
        return false;
    case J_BOOL:
    case J_INT:
        return v.i != 0;
    case J_FLOAT:
        return v.f != 0;
    case J_STR:
        return v.n != 0;
    case J_LIST:
    case J_TUPLE:
        return v.list->n != 0;
    case J_DICT:
    case J_VIEW:
        return v.dict->n != 0;
    case J_RANGE:
        return v.range->n != 0;
    default: /* also a loop, which has run when it is seen */
        return true;
    }
}

bool j_len(struct jrun *r, struct jval v, size_t *n)
{
    switch (v.type) {
    case J_UNDEF:
        *n = 0;
        return true;
    case J_STR:
        *n = text_count(v.s, v.n);
        return j_step(r, v.n);
    case J_LIST:
    case J_TUPLE:
        *n = v.list->n;
        return true;
    case J_DICT:
    case J_VIEW:
        *n = v.dict->n;
        return true;
    case J_RANGE:
        *n = v.range->n;
        return true;
    default:
        j_fail(r, "object of type '%s' has no len()", j_type_name(v));
        return false;
    }
}

/* number_compare: exact, as Python does it: an int64 fits the 64-bit mantissa of long double where
 * that is x87's; elsewhere large ones are rounded first. NaN: 2. */
static int number_compare(struct jval a, struct jval b)
{
    if (a.type != J_FLOAT && b.type != J_FLOAT)
        return (a.i > b.i) - (a.i < b.i);
    long double x = a.type == J_FLOAT ? (long double)a.f : (long double)a.i;
    long double y = b.type == J_FLOAT ? (long double)b.f : (long double)b.i;
    if (x != x || y != y)
        return 2;
    return (x > y) - (x < y);
}

static bool list_equal(struct jrun *r, const struct jlist *a, const struct jlist *b)
{
    if (a == b)
        return true;
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++)
        same = j_step(r, 0) && j_equal(r, a->v[i], b->v[i]);
    return same;
}

static bool dict_equal(struct jrun *r, const struct jdict *a, const struct jdict *b)
{
    if (a == b)
        return true;
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        struct jval *v = jdict_find(r, b, a->kv[i].key);
        same = v && j_equal(r, a->kv[i].value, *v);
    }
    return same;
}

static bool range_equal(const struct jrange *a, const struct jrange *b)
{
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

static bool nested_equal(struct jrun *r, struct jval a, struct jval b)
{
    switch (a.type) {
    case J_UNDEF:
    case J_NONE:
        return true;
    case J_LIST:
    case J_TUPLE:
        return list_equal(r, a.list, b.list);
    case J_DICT:
        return dict_equal(r, a.dict, b.dict);
    case J_RANGE:
        return range_equal(a.range, b.range);
    default:
        return a.p == b.p && a.flag == b.flag;
    }
}

bool j_equal(struct jrun *r, struct jval a, struct jval b)
{
    if (j_is_number(a) && j_is_number(b))
        return number_compare(a, b) == 0;
    if (a.type != b.type || r->rc)
        return false;
    if (a.type == J_STR)
        return a.n == b.n && j_step(r, a.n / 8) && memcmp(a.s, b.s, a.n) == 0;
    bool same = false;
    if (++r->value_nest > JVALUE_NEST_MAX)
        j_limit(r, "values nested more than %d deep", JVALUE_NEST_MAX);
    else
        same = nested_equal(r, a, b);
    r->value_nest--;
    return same;
}

static int list_compare(struct jrun *r, const struct jlist *a, const struct jlist *b,
                        const char *op)
{
    if (++r->value_nest > JVALUE_NEST_MAX)
        j_limit(r, "values nested more than %d deep", JVALUE_NEST_MAX);
    int c = 0;
    size_t i = 0;
    while (i < a->n && i < b->n && j_step(r, 0) && j_equal(r, a->v[i], b->v[i]))
        i++;
    if (!r->rc && i < a->n && i < b->n)
        c = j_compare(r, a->v[i], b->v[i], op);
    else
        c = (a->n > b->n) - (a->n < b->n);
    r->value_nest--;
    return c;
}

int j_compare(struct jrun *r, struct jval a, struct jval b, const char *op)
{
    if (r->rc)
        return 0;
    if (j_is_number(a) && j_is_number(b))
        return number_compare(a, b);
    if (a.type == J_STR && b.type == J_STR) {
        size_t n = a.n < b.n ? a.n : b.n;
        int c = n ? memcmp(a.s, b.s, n) : 0; /* UTF-8 keeps the order of code points */
        j_step(r, n / 8);
        return c ? (c > 0) - (c < 0) : (a.n > b.n) - (a.n < b.n);
    }
    if (a.type == b.type && (a.type == J_LIST || a.type == J_TUPLE))
        return list_compare(r, a.list, b.list, op);
    if (a.type == J_UNDEF)
        j_undef_raise(r, a);
    else if (b.type == J_UNDEF)
        j_undef_raise(r, b);
    else
        j_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, j_type_name(a),
               j_type_name(b));
    return 0;
}

bool j_contains(struct jrun *r, struct jval hay, struct jval needle)
{
    if (hay.type == J_STR) {
        if (needle.type != J_STR) {
            j_fail(r, "'in <string>' requires string as left operand, not %s", j_type_name(needle));
            return false;
        }
        return j_step(r, hay.n) &&
               (needle.n == 0 || memmem(hay.s, hay.n, needle.s, needle.n) != NULL);
    }
    if (hay.type == J_DICT || (hay.type == J_VIEW && hay.flag == VIEW_KEYS))
        return j_hashable(r, needle) && jdict_find(r, hay.dict, needle) != NULL;
    if (!j_iterable(hay)) {
        j_fail(r, "argument of type '%s' is not iterable", j_type_name(hay));
        return false;
    }
    struct jcursor c;
    struct jval item;
    if (!jcursor_init(r, &c, hay))
        return false;
    while (jcursor_next(r, &c, &item)) {
        if (j_equal(r, item, needle))
            return true;
    }
    return false;
}
