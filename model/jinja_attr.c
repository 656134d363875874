/* jinja_attr: attributes, items and slices as Jinja2's ImmutableSandboxedEnvironment resolves them:
 * a.b looks for a method first and an item then, a['b'] the other way round, and methods that would
 * change a value are found but cannot be used. */
#include "model/jinja_methods.h"
#include "model/jinja_run.h"
#include "model/jinja_text.h"

#include <string.h>

static bool in_names(const char *const *names, struct jval name)
{
    for (; *names; names++) {
        if (j_is_str(name, *names, strlen(*names)))
            return true;
    }
    return false;
}

static bool changes_value(struct jval v, struct jval name)
{
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const of_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                          "sort",   "extend", "remove", NULL};
    return (v.type == J_DICT && in_names(of_dict, name)) ||
           (v.type == J_LIST && in_names(of_list, name));
}

static struct jval method_of(struct jrun *r, struct jval v, const struct jfunc *f)
{
    struct jmethod *m = j_alloc(r, 1, sizeof *m);
    if (!m)
        return JUNDEF;
    *m = (struct jmethod){v, f};
    return (struct jval){.type = J_METHOD, .method = m};
}

/* own_attr: what Python's getattr would find. */
static bool own_attr(struct jrun *r, struct jval v, struct jval name, struct jval *out)
{
    bool found = false;
    if (v.type == J_NS) {
        struct jval *at = jdict_find(r, v.dict, name);
        if (at)
            *out = *at;
        return at != NULL;
    }
    if (v.type == J_LOOP) {
        *out = jloop_attr(r, v.loop, name.s, name.n, &found);
        if (found)
            return true;
    }
    if (v.type == J_CYCLER && j_is_str(name, "current", 7)) {
        *out = v.cycler->items->v[v.cycler->pos];
        return true;
    }
    if (v.type == J_MACRO && j_is_str(name, "name", 4)) {
        *out = v.macro->node->value;
        return true;
    }
    if (changes_value(v, name)) {
        *out = j_undef_unsafe(r, v, name);
        return true;
    }
    const struct jfunc *f = j_find_method(v, name.s, name.n);
    if (f)
        *out = method_of(r, v, f);
    return f != NULL;
}

/* at_index: v[i] of a sequence. */
static bool at_index(struct jrun *r, struct jval v, int64_t i, struct jval *out)
{
    size_t n;
    if (!j_len(r, v, &n))
        return false;
    if (i < 0)
        i += (int64_t)n;
    if (i < 0 || (size_t)i >= n)
        return false;
    if (v.type == J_LIST || v.type == J_TUPLE) {
        *out = v.list->v[i];
    } else if (v.type == J_RANGE) {
        *out = jrange_at(v.range, (size_t)i);
    } else {
        size_t from = text_offset(v.s, v.n, (size_t)i), to = from;
        text_next(v.s, v.n, &to);
        *out = (struct jval){.type = J_STR, .flag = v.flag, .s = v.s + from, .n = to - from};
    }
    return true;
}

/* own_item: what v[key] would find; false where Python raises TypeError or LookupError. */
static bool own_item(struct jrun *r, struct jval v, struct jval key, struct jval *out)
{
    switch (v.type) {
    case J_DICT: {
        bool plain = key.type != J_LIST && key.type != J_DICT && key.type != J_NS;
        struct jval *at = plain ? jdict_find(r, v.dict, key) : NULL;
        if (at)
            *out = *at;
        return at != NULL;
    }
    case J_LIST:
    case J_TUPLE:
    case J_STR:
    case J_RANGE:
        return j_is_int(key) && at_index(r, v, key.i, out);
    default:
        return false;
    }
}

struct jval j_getattr(struct jrun *r, struct jval v, struct jval name)
{
    struct jval out = JUNDEF;
    if (r->rc)
        return out;
    if (v.type == J_UNDEF) {
        j_undef_raise(r, v);
        return out;
    }
    if (own_attr(r, v, name, &out) || own_item(r, v, name, &out) || r->rc)
        return out;
    return j_undef_item(r, v, name);
}

struct jval j_getitem(struct jrun *r, struct jval v, struct jval key)
{
    struct jval out = JUNDEF;
    if (r->rc)
        return out;
    if (v.type == J_UNDEF) {
        j_undef_raise(r, v);
        return out;
    }
    if (own_item(r, v, key, &out) || (key.type == J_STR && own_attr(r, v, key, &out)) || r->rc)
        return out;
    return j_undef_item(r, v, key);
}

/* slice_part: one bound as written; None means the default. */
static bool slice_part(struct jrun *r, struct jval v, int64_t fallback, int64_t *out)
{
    if (v.type == J_NONE) {
        *out = fallback;
        return true;
    }
    if (!j_is_int(v)) {
        j_fail(r, "slice indices must be integers or None or have an __index__ method");
        return false;
    }
    *out = v.i;
    return true;
}

static int64_t clamp(int64_t i, int64_t n, int64_t low, int64_t high)
{
    if (i < 0)
        i += n;
    return i < low ? low : i > high ? high : i;
}

static struct jval slice_str(struct jrun *r, struct jval v, int64_t start, int64_t count,
                             int64_t step)
{
    struct jval out = {.type = J_STR, .flag = v.flag};
    if (count == 0)
        return (struct jval){.type = J_STR, .flag = v.flag, .s = "", .n = 0};
    if (step == 1) {
        size_t from = text_offset(v.s, v.n, (size_t)start);
        out.s = v.s + from;
        out.n = text_offset(out.s, v.n - from, (size_t)count);
        return out;
    }
    struct jbuf b = {0};
    size_t at = text_offset(v.s, v.n, (size_t)start);
    for (int64_t k = 0; k < count && !r->rc; k++) {
        size_t from = at, to = at;
        text_next(v.s, v.n, &to);
        jbuf_put(r, &b, v.s + from, to - from);
        if (k + 1 == count)
            break;
        for (int64_t i = 0; i < step; i++)
            text_next(v.s, v.n, &at);
        for (int64_t i = 0; i > step; i--)
            text_prev(v.s, &at);
        j_step(r, (size_t)(step < 0 ? -step : step));
    }
    out = jbuf_take(&b);
    out.flag = v.flag;
    return out;
}

static struct jval slice_list(struct jrun *r, struct jval v, int64_t start, int64_t count,
                              int64_t step)
{
    struct jlist *l = j_step(r, (size_t)count) ? jlist_new(r, (size_t)count) : NULL;
    if (!l)
        return JUNDEF;
    if (step == 1) { /* lists never change: a part of one is the same memory */
        *l = (struct jlist){v.list->v + start, (size_t)count, (size_t)count};
    } else {
        for (int64_t k = 0; k < count; k++)
            l->v[l->n++] = v.list->v[start + k * step];
    }
    return (struct jval){.type = v.type, .list = l};
}

static struct jval slice_range(struct jrun *r, const struct jrange *range, int64_t start,
                               int64_t stop, int64_t step, int64_t count)
{
    struct jrange *part = j_alloc(r, 1, sizeof *part);
    if (!part)
        return JUNDEF;
    *part = (struct jrange){range->start + start * range->step, range->start + stop * range->step,
                            range->step * step, (size_t)count};
    return (struct jval){.type = J_RANGE, .range = part};
}

struct jval j_slice(struct jrun *r, struct jval v, const struct jval part[3])
{
    size_t len;
    int64_t start, stop, step;
    if (v.type == J_UNDEF) {
        j_undef_raise(r, v);
    } else if (v.type == J_DICT) {
        j_fail(r, "unhashable type: 'slice'");
    } else if (v.type != J_STR && v.type != J_LIST && v.type != J_TUPLE && v.type != J_RANGE) {
        j_fail(r, "'%s' object is not subscriptable", j_type_name(v));
    }
    if (r->rc || !j_len(r, v, &len) || !slice_part(r, part[2], 1, &step))
        return JUNDEF;
    if (step == 0) {
        j_fail(r, "slice step cannot be zero");
        return JUNDEF;
    }
    int64_t n = (int64_t)len, low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
    if (!slice_part(r, part[0], step > 0 ? 0 : INT64_MAX, &start) ||
        !slice_part(r, part[1], step > 0 ? INT64_MAX : INT64_MIN / 2, &stop))
        return JUNDEF;
    start = clamp(start, n, low, high);
    stop = clamp(stop, n, low, high);
    step = step > n + 1 ? n + 1 : step < -n - 1 ? -n - 1 : step;
    int64_t count = step > 0 ? (stop > start ? (stop - start - 1) / step + 1 : 0)
                             : (start > stop ? (start - stop - 1) / -step + 1 : 0);
    if (v.type == J_STR)
        return slice_str(r, v, start, count, step);
    if (v.type == J_RANGE)
        return slice_range(r, v.range, start, stop, step, count);
    return slice_list(r, v, start, count, step);
}
