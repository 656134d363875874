/* jinja_json: reading jansson's values, and writing as Python's json.dumps does with the options of
 * transformers' tojson: ensure_ascii (false by default), indent, separators, sort_keys. */
#include "model/jinja_json.h"
#include "model/jinja_run.h"
#include "model/jinja_seq.h"
#include "model/jinja_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct jval from_array(struct jrun *r, const json_t *json)
{
    size_t n = json_array_size(json);
    struct jlist *l = jlist_new(r, n);
    for (size_t i = 0; i < n && l && !r->rc; i++)
        jlist_push(r, l, j_from_json(r, json_array_get(json, i)));
    return r->rc ? JNONE : JLIST(l);
}

static struct jval from_object(struct jrun *r, const json_t *json)
{
    const char *key;
    json_t *value;
    struct jdict *d = jdict_new(r, json_object_size(json));
    if (!d)
        return JNONE;
    json_object_foreach((json_t *)(uintptr_t)json, key, value)
    {
        struct jval v = j_from_json(r, value);
        if (r->rc || d->n == d->cap)
            break;
        d->kv[d->n++] = (struct jpair){JSTR(key, strlen(key)), v}; /* jansson's keys are unique */
    }
    return JDICT(d);
}

struct jval j_from_json(struct jrun *r, const json_t *json)
{
    struct jval v = JUNDEF;
    switch (json ? (int)json_typeof(json) : -1) {
    case JSON_NULL:
        return JNONE;
    case JSON_TRUE:
    case JSON_FALSE:
        return JBOOL(json_is_true(json));
    case JSON_INTEGER:
        return JINT(json_integer_value(json));
    case JSON_REAL:
        return JFLOAT(json_real_value(json));
    case JSON_STRING:
        return JSTR(json_string_value(json), json_string_length(json));
    case JSON_ARRAY:
    case JSON_OBJECT:
        if (++r->value_nest > JVALUE_NEST_MAX)
            j_limit(r, "the input is nested more than %d deep", JVALUE_NEST_MAX);
        else
            v = json_is_array(json) ? from_array(r, json) : from_object(r, json);
        r->value_nest--;
        return v;
    default:
        return v;
    }
}

struct dump {
    struct jrun *r;
    struct jbuf b;
    bool ascii, sort, pretty;
    struct jval indent, item_sep, key_sep;
    size_t level;
};

static void put_u(struct dump *d, uint32_t unit)
{
    char text[16];
    snprintf(text, sizeof text, "\\u%04x", unit);
    jbuf_puts(d->r, &d->b, text);
}

static void put_escaped(struct dump *d, uint32_t cp)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    const char *p = cp && cp < 0x80 ? strchr(from, (int)cp) : NULL;
    if (p) {
        char two[2] = {'\\', to[p - from]};
        jbuf_put(d->r, &d->b, two, 2);
    } else if (cp >= 0x10000) {
        put_u(d, 0xd800 + ((cp - 0x10000) >> 10));
        put_u(d, 0xdc00 + ((cp - 0x10000) & 0x3ff));
    } else {
        put_u(d, cp);
    }
}

static void dump_str(struct dump *d, struct jval v)
{
    size_t plain = 0;
    jbuf_puts(d->r, &d->b, "\"");
    for (size_t i = 0; i < v.n && !d->r->rc;) {
        size_t from = i;
        uint32_t cp = text_next(v.s, v.n, &i);
        if (cp >= 0x20 && cp != '"' && cp != '\\' && !(d->ascii && cp > 0x7f))
            continue;
        jbuf_put(d->r, &d->b, v.s + plain, from - plain);
        put_escaped(d, cp);
        plain = i;
    }
    jbuf_put(d->r, &d->b, v.s + plain, v.n - plain);
    jbuf_puts(d->r, &d->b, "\"");
}

static void new_line(struct dump *d)
{
    if (!d->pretty)
        return;
    jbuf_puts(d->r, &d->b, "\n");
    for (size_t i = 0; i < d->level && !d->r->rc; i++)
        jbuf_put(d->r, &d->b, d->indent.s, d->indent.n);
}

static void dump_value(struct dump *d, struct jval v);

static void dump_list(struct dump *d, const struct jlist *l)
{
    if (!l->n) {
        jbuf_puts(d->r, &d->b, "[]");
        return;
    }
    jbuf_puts(d->r, &d->b, "[");
    d->level++;
    for (size_t i = 0; i < l->n && !d->r->rc; i++) {
        if (i)
            jbuf_put(d->r, &d->b, d->item_sep.s, d->item_sep.n);
        new_line(d);
        dump_value(d, l->v[i]);
    }
    d->level--;
    new_line(d);
    jbuf_puts(d->r, &d->b, "]");
}

static void dump_key(struct dump *d, struct jval key)
{
    if (key.type == J_STR) {
        dump_str(d, key);
    } else if (key.type == J_NONE || j_is_number(key)) {
        jbuf_puts(d->r, &d->b, "\"");
        dump_value(d, key);
        jbuf_puts(d->r, &d->b, "\"");
    } else {
        j_fail(d->r, "keys must be str, int, float, bool or None, not %s", j_type_name(key));
    }
}

static void dump_dict(struct dump *d, const struct jdict *dict)
{
    if (!dict->n) {
        jbuf_puts(d->r, &d->b, "{}");
        return;
    }
    struct jlist *keys =
        d->sort ? jseq_sort(d->r, j_to_list(d->r, JDICT((struct jdict *)(uintptr_t)dict))) : NULL;
    jbuf_puts(d->r, &d->b, "{");
    d->level++;
    for (size_t i = 0; i < dict->n && !d->r->rc; i++) {
        struct jval key = keys ? keys->v[i] : dict->kv[i].key;
        const struct jval *value = keys ? jdict_find(d->r, dict, key) : &dict->kv[i].value;
        if (!value)
            break;
        if (i)
            jbuf_put(d->r, &d->b, d->item_sep.s, d->item_sep.n);
        new_line(d);
        dump_key(d, key);
        jbuf_put(d->r, &d->b, d->key_sep.s, d->key_sep.n);
        dump_value(d, *value);
    }
    d->level--;
    new_line(d);
    jbuf_puts(d->r, &d->b, "}");
}

static void dump_nested(struct dump *d, struct jval v)
{
    if (++d->r->value_nest > JVALUE_NEST_MAX)
        j_limit(d->r, "values nested more than %d deep", JVALUE_NEST_MAX);
    else if (v.type == J_DICT)
        dump_dict(d, v.dict);
    else
        dump_list(d, v.list);
    d->r->value_nest--;
}

static void dump_value(struct dump *d, struct jval v)
{
    switch (v.type) {
    case J_NONE:
        jbuf_puts(d->r, &d->b, "null");
        break;
    case J_BOOL:
        jbuf_puts(d->r, &d->b, v.i ? "true" : "false");
        break;
    case J_FLOAT:
        if (isnan(v.f) || isinf(v.f))
            jbuf_puts(d->r, &d->b, isnan(v.f) ? "NaN" : v.f > 0 ? "Infinity" : "-Infinity");
        else
            j_repr(d->r, &d->b, v);
        break;
    case J_INT:
        j_repr(d->r, &d->b, v);
        break;
    case J_STR:
        dump_str(d, v);
        break;
    case J_LIST:
    case J_TUPLE:
    case J_DICT:
        dump_nested(d, v);
        break;
    default:
        j_fail(d->r, "Object of type %s is not JSON serializable", j_type_name(v));
    }
}

/* set_indent: a number of spaces, or the text itself. */
static bool set_indent(struct dump *d, struct jval v)
{
    d->pretty = v.type != J_NONE;
    if (!d->pretty || v.type == J_STR) {
        d->indent = v;
        return true;
    }
    int64_t n;
    if (!j_want_int(d->r, v, &n))
        return false;
    if (n > 64) {
        j_limit(d->r, "an indent of more than 64");
        return false;
    }
    static const char spaces[] = "                                                                ";
    d->indent = JSTR(spaces, n > 0 ? (size_t)n : 0);
    return true;
}

static bool set_separators(struct dump *d, struct jval v)
{
    d->item_sep = d->pretty ? JLIT(",") : JLIT(", ");
    d->key_sep = JLIT(": ");
    if (v.type == J_NONE)
        return true;
    if ((v.type != J_LIST && v.type != J_TUPLE) || v.list->n != 2) {
        j_fail(d->r, "tojson's separators must be two strings");
        return false;
    }
    d->item_sep = v.list->v[0];
    d->key_sep = v.list->v[1];
    return j_want_str(d->r, d->item_sep, "tojson's separator") &&
           j_want_str(d->r, d->key_sep, "tojson's separator");
}

struct jval j_tojson(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys", NULL};
    struct jval a[] = {JBOOL(false), JNONE, JNONE, JBOOL(false)};
    struct dump d = {.r = r};
    if (!jargs_bind(r, args, "tojson", names, 0, a) || !set_indent(&d, a[1]) ||
        !set_separators(&d, a[2]))
        return JUNDEF;
    d.ascii = j_truth(a[0]);
    d.sort = j_truth(a[3]);
    dump_value(&d, self);
    return jbuf_take(&d.b);
}
