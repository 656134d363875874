/* grammar_value: the constraints of each type. An object's properties come in the schema's order,
 * so that what was written so far is one position and not a set of names. */
#include "coordinator/grammar_schema.h"

#include <math.h>
#include <string.h>

/* A keyword's count, or `absent`. */
static int64_t count(struct grammar_compiler *c, uint32_t at, const char *name, int64_t absent)
{
    const json_t *v = json_object_get(c->item[at].schema, name);
    if (v == NULL) {
        return absent;
    }
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        grammar_refuse(c, at, ERR_USAGE, name, "must be a whole number, 0 or more");
        return absent;
    }
    return json_integer_value(v);
}

/* max < 0: none. */
static bool ordered(struct grammar_compiler *c, uint32_t at, const char *name, int64_t min,
                    int64_t max)
{
    if (max >= 0 && min > max) {
        grammar_refuse(c, at, ERR_USAGE, name, "the least allowed is above the most allowed");
    }
    return c->b.rc == 0;
}

/* ---- strings --------------------------------------------------------------------------------- */

void grammar_write_string(struct grammar_compiler *c, uint32_t at)
{
    /* JSON Schema 2020-12, Validation, section 7.3: annotations unless a validator is told else. */
    static const char *const known[] = {"date-time",
                                        "date",
                                        "time",
                                        "duration",
                                        "email",
                                        "idn-email",
                                        "hostname",
                                        "idn-hostname",
                                        "ipv4",
                                        "ipv6",
                                        "uri",
                                        "uri-reference",
                                        "iri",
                                        "iri-reference",
                                        "uuid",
                                        "uri-template",
                                        "regex",
                                        "json-pointer",
                                        "relative-json-pointer"};
    const json_t *format = json_object_get(c->item[at].schema, "format");
    bool found = format == NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known && json_is_string(format); i++) {
        found |= strcmp(json_string_value(format), known[i]) == 0;
    }
    if (!found) {
        grammar_refuse(c, at, ERR_USAGE, "format",
                       "not a format that JSON Schema defines; leave it out");
        return;
    }
    int64_t min = count(c, at, "minLength", 0), max = count(c, at, "maxLength", -1);
    if (!ordered(c, at, "maxLength", min, max)) {
        return;
    }
    if (min == 0 && max < 0) {
        grammar_emit_call(&c->b, BASE_STRING);
    } else {
        grammar_emit_string(&c->b, min, max);
    }
}

/* ---- numbers --------------------------------------------------------------------------------- */

#define BEYOND (GRAMMAR_INT_MAX + 1)

struct bounds {
    int64_t lo, hi;
    bool any;
};

/* A bound as a whole number: the nearest one inside. up: it bounds from below. */
static int64_t inside(const json_t *v, bool up, bool exclusive)
{
    double d = json_number_value(v), whole = up ? ceil(d) : floor(d);
    bool is_whole = json_is_integer(v) || d == whole;
    int64_t step = exclusive && is_whole ? (up ? 1 : -1) : 0;
    if (!(d > -1e18)) {
        return -BEYOND;
    }
    if (!(d < 1e18)) {
        return BEYOND;
    }
    return (json_is_integer(v) ? json_integer_value(v) : (int64_t)whole) + step;
}

static void bound(struct grammar_compiler *c, uint32_t at, const char *name, bool up,
                  bool exclusive, bool integer, struct bounds *out)
{
    const json_t *v = json_object_get(c->item[at].schema, name);
    if (v == NULL) {
        return;
    }
    if (!json_is_number(v)) {
        grammar_refuse(c, at, ERR_USAGE, name, "must be a number");
        return;
    }
    double d = json_number_value(v);
    if (!integer && (exclusive || d != floor(d))) {
        grammar_refuse(c, at, ERR_USAGE, name,
                       "for numbers only whole minimum and maximum are supported");
        return;
    }
    int64_t n = inside(v, up, exclusive);
    out->any = true;
    if (up) {
        out->lo = n > out->lo ? n : out->lo;
    } else {
        out->hi = n < out->hi ? n : out->hi;
    }
}

void grammar_write_number(struct grammar_compiler *c, uint32_t at, bool integer)
{
    struct bounds b = {-GRAMMAR_INT_MAX, GRAMMAR_INT_MAX, false};
    bound(c, at, "minimum", true, false, integer, &b);
    bound(c, at, "exclusiveMinimum", true, true, integer, &b);
    bound(c, at, "maximum", false, false, integer, &b);
    bound(c, at, "exclusiveMaximum", false, true, integer, &b);
    if (b.lo > b.hi) {
        grammar_refuse(c, at, ERR_USAGE, "", "no number of at most 18 digits is within its bounds");
    } else if (!b.any) {
        grammar_emit_call(&c->b, integer ? BASE_INTEGER : BASE_NUMBER);
    } else {
        grammar_emit_between(&c->b, b.lo, b.hi, !integer);
    }
}

/* ---- lists ----------------------------------------------------------------------------------- */

static void emit_comma(struct grammar_builder *b)
{
    grammar_emit_text(b, ",", 1);
    grammar_emit_call(b, BASE_BLANK);
}

struct list {
    const json_t *prefix, *items;
    int64_t n_prefix, min, max; /* max -1: any number */
};

static bool read_list(struct grammar_compiler *c, uint32_t at, struct list *l)
{
    const json_t *schema = c->item[at].schema;
    l->prefix = json_object_get(schema, "prefixItems");
    l->items = json_object_get(schema, "items");
    l->n_prefix = (int64_t)json_array_size(l->prefix);
    l->min = count(c, at, "minItems", 0);
    l->max = count(c, at, "maxItems", -1);
    if (l->prefix != NULL && l->n_prefix == 0) {
        grammar_refuse(c, at, ERR_USAGE, "prefixItems", "must be a list of schemas");
    }
    if (json_is_array(l->items)) {
        grammar_refuse(c, at, ERR_USAGE, "items", "a list of schemas is called prefixItems");
    }
    if (json_is_false(l->items) && (l->max < 0 || l->max > l->n_prefix)) {
        l->max = l->n_prefix;
    }
    return ordered(c, at, l->items != NULL && json_is_false(l->items) ? "items" : "maxItems",
                   l->min, l->max);
}

static uint32_t element(struct grammar_compiler *c, uint32_t at, const struct list *l, int64_t i)
{
    if (i < l->n_prefix) {
        return grammar_rule_of(c, at, json_array_get(l->prefix, (size_t)i), "prefixItems", NULL, i);
    }
    return l->items == NULL ? BASE_ANY : grammar_rule_of(c, at, l->items, "items", NULL, -1);
}

void grammar_write_array(struct grammar_compiler *c, uint32_t at)
{
    struct grammar_builder *b = &c->b;
    struct grammar_alts end = GRAMMAR_ALTS_EMPTY, empty = GRAMMAR_ALTS_EMPTY;
    struct list l;
    if (!read_list(c, at, &l)) {
        return;
    }
    int64_t n = l.max >= 0 ? l.max : l.min > l.n_prefix ? l.min : l.n_prefix;
    n = n == 0 && l.max != 0 ? 1 : n;
    grammar_emit_text(b, "[", 1);
    grammar_emit_call(b, BASE_BLANK);
    if (l.min == 0 && l.max != 0) {
        grammar_alt_exit(b, &empty, grammar_emit_split(b));
    }
    for (int64_t i = 0; i < n && b->rc == 0; i++) {
        if (i > 0 && i >= l.min) {
            grammar_alt_exit(b, &end, grammar_emit_split(b));
        }
        if (i > 0) {
            emit_comma(b);
        }
        grammar_emit_call(b, element(c, at, &l, i));
    }
    if (l.max < 0) {
        uint32_t loop = grammar_emit_split(b);
        emit_comma(b);
        grammar_emit_call(b, element(c, at, &l, n));
        grammar_patch(b, grammar_emit_jump(b), loop);
        grammar_patch(b, loop, grammar_here(b));
    }
    grammar_alt_end(b, &end);
    if (n > 0) {
        grammar_emit_call(b, BASE_BLANK);
    }
    grammar_alt_end(b, &empty);
    grammar_emit_text(b, "]", 1);
}

/* ---- objects --------------------------------------------------------------------------------- */

struct members {
    const json_t *properties, *extra; /* extra: the schema of other keys; NULL: none allowed */
    json_t *required;                 /* an object whose keys are the names */
    bool open;                        /* other keys, of any value where extra is NULL */
    size_t n, n_needed;               /* n_needed: one more than the last required one's place */
};

static void read_required(struct grammar_compiler *c, uint32_t at, struct members *m)
{
    const json_t *list = json_object_get(c->item[at].schema, "required");
    if (list != NULL && !json_is_array(list)) {
        grammar_refuse(c, at, ERR_USAGE, "required", "must be a list of names");
    }
    for (size_t i = 0; i < json_array_size(list) && c->b.rc == 0; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name == NULL || json_object_get(m->properties, name) == NULL) {
            grammar_refuse(c, at, ERR_USAGE, "required",
                           "element %zu is not the name of one of the properties", i);
        } else if (json_object_set_new(m->required, name, json_true()) != 0) {
            grammar_fail(&c->b, ERR_NOMEM, "no memory for a schema");
        }
    }
}

static bool read_members(struct grammar_compiler *c, uint32_t at, struct members *m)
{
    const json_t *schema = c->item[at].schema;
    const json_t *extra = json_object_get(schema, "additionalProperties");
    const char *name;
    json_t *value;
    size_t i = 0;
    m->properties = json_object_get(schema, "properties");
    if (m->properties != NULL && !json_is_object(m->properties)) {
        grammar_refuse(c, at, ERR_USAGE, "properties", "must be an object of schemas");
    }
    m->n = json_object_size(m->properties);
    if (m->n > GRAMMAR_PROPERTIES_MAX) {
        grammar_refuse(c, at, ERR_LIMIT, "properties", "at most %d of one object",
                       GRAMMAR_PROPERTIES_MAX);
    }
    m->open = extra == NULL ? m->properties == NULL : !json_is_false(extra);
    m->extra = m->open ? extra : NULL;
    read_required(c, at, m);
    json_object_foreach((json_t *)(uintptr_t)m->properties, name, value)
    {
        i++;
        m->n_needed = json_object_get(m->required, name) != NULL ? i : m->n_needed;
    }
    return c->b.rc == 0;
}

static void emit_extra_key(struct grammar_compiler *c, const struct members *m)
{
    struct grammar_words names = {0};
    const char *name;
    json_t *value;
    if (m->n == 0) {
        grammar_emit_call(&c->b, BASE_STRING);
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)m->properties, name, value)
    {
        grammar_words_add_string(&c->b, &names, name, strlen(name));
    }
    grammar_emit_other_key(&c->b, &names);
    grammar_words_fini(&names);
}

/* Other keys, at least one. `end` gathers where the object may close. */
static void emit_extras(struct grammar_compiler *c, uint32_t at, const struct members *m,
                        struct grammar_alts *end)
{
    struct grammar_builder *b = &c->b;
    uint32_t loop = grammar_here(b), rule = BASE_ANY;
    if (m->extra != NULL) {
        rule = grammar_rule_of(c, at, m->extra, "additionalProperties", NULL, -1);
    }
    emit_extra_key(c, m);
    grammar_emit_colon(b);
    grammar_emit_call(b, rule);
    grammar_alt_exit(b, end, grammar_emit_split(b));
    emit_comma(b);
    grammar_patch(b, grammar_emit_jump(b), loop);
}

static void emit_member(struct grammar_compiler *c, uint32_t at, const char *name,
                        const json_t *schema)
{
    struct grammar_words word = {0};
    grammar_words_add_string(&c->b, &word, name, strlen(name));
    grammar_emit_words(&c->b, &word);
    grammar_words_fini(&word);
    grammar_emit_colon(&c->b);
    grammar_emit_call(&c->b, grammar_rule_of(c, at, schema, "properties", name, -1));
}

/* Every place i is entered where a member must follow, and what is optional there may be skipped as
 * long as something can come later; so a comma is never written without a member behind it. */
static void emit_members(struct grammar_compiler *c, uint32_t at, const struct members *m,
                         struct grammar_alts *end)
{
    struct grammar_builder *b = &c->b;
    const char *name;
    json_t *schema;
    size_t i = 0;
    json_object_foreach((json_t *)(uintptr_t)m->properties, name, schema)
    {
        bool more = i + 1 < m->n || m->open;
        bool skips = more && json_object_get(m->required, name) == NULL;
        struct grammar_alts skip = GRAMMAR_ALTS_EMPTY;
        if (skips) {
            grammar_alt_exit(b, &skip, grammar_emit_split(b));
        }
        emit_member(c, at, name, schema);
        i++;
        if (more && i >= m->n_needed) {
            grammar_alt_exit(b, end, grammar_emit_split(b));
        }
        if (more) {
            emit_comma(b);
        }
        grammar_alt_end(b, &skip);
    }
    if (m->open) {
        emit_extras(c, at, m, end);
    }
}

void grammar_write_object(struct grammar_compiler *c, uint32_t at)
{
    struct grammar_builder *b = &c->b;
    struct grammar_alts end = GRAMMAR_ALTS_EMPTY, empty = GRAMMAR_ALTS_EMPTY;
    struct members m = {.required = json_object()};
    if (m.required == NULL) {
        grammar_fail(b, ERR_NOMEM, "no memory for a schema");
    } else if (read_members(c, at, &m)) {
        bool some = m.n > 0 || m.open;
        grammar_emit_text(b, "{", 1);
        grammar_emit_call(b, BASE_BLANK);
        if (m.n_needed == 0 && some) {
            grammar_alt_exit(b, &empty, grammar_emit_split(b));
        }
        emit_members(c, at, &m, &end);
        grammar_alt_end(b, &end);
        if (some) {
            grammar_emit_call(b, BASE_BLANK);
        }
        grammar_alt_end(b, &empty);
        grammar_emit_text(b, "}", 1);
    }
    json_decref(m.required);
}
