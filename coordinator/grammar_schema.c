/* grammar_schema: keywords, references and types. What a keyword list does not name is refused: a
 * constraint that is not kept would make a promise that the text breaks. */
#include "coordinator/grammar_schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOPS_MAX 1000 /* a chain of $ref that is longer goes in a circle or wants to harm */

/* ---- words ----------------------------------------------------------------------------------- */

static int refuse(struct grammar_compiler *c, const struct grammar_where *w, int code,
                  const char *keyword, const char *format, va_list args)
{
    char where[GRAMMAR_POINTER_TEXT], why[400];
    vsnprintf(why, sizeof why, format, args);
    grammar_pointer_text(c, w, keyword, where);
    return grammar_fail(&c->b, code, "JSON schema at %s: %s", where, why);
}

__attribute__((format(printf, 5, 6))) static int refuse_at(struct grammar_compiler *c,
                                                           const struct grammar_where *w, int code,
                                                           const char *keyword, const char *format,
                                                           ...)
{
    va_list args;
    va_start(args, format);
    int rc = refuse(c, w, code, keyword, format, args);
    va_end(args);
    return rc;
}

int grammar_refuse(struct grammar_compiler *c, uint32_t at, int code, const char *keyword,
                   const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int rc = refuse(c, &c->item[at].where, code, keyword, format, args);
    va_end(args);
    return rc;
}

/* ---- keywords -------------------------------------------------------------------------------- */

enum { NOTE = 1, REF = 2, ALL = 4, ANY = 8, VALUE = 16, TYPE = 32, TYPED = 64 };
enum {
    T_OBJECT = 1,
    T_ARRAY = 2,
    T_STRING = 4,
    T_NUMBER = 8,
    T_INTEGER = 16,
    T_BOOLEAN = 32,
    T_NULL = 64
};

static const struct keyword {
    const char *name;
    int kind, type; /* type: what a schema means that has the keyword and no "type" */
} keyword[] = {
    {"title", NOTE, 0},
    {"description", NOTE, 0},
    {"default", NOTE, 0},
    {"examples", NOTE, 0},
    {"$comment", NOTE, 0},
    {"$schema", NOTE, 0},
    {"deprecated", NOTE, 0},
    {"readOnly", NOTE, 0},
    {"writeOnly", NOTE, 0},
    {"$defs", NOTE, 0},
    {"definitions", NOTE, 0},
    {"$ref", REF, 0},
    {"allOf", ALL, 0},
    {"anyOf", ANY, 0},
    {"enum", VALUE, 0},
    {"const", VALUE, 0},
    {"type", TYPE, 0},
    {"properties", TYPED, T_OBJECT},
    {"required", TYPED, T_OBJECT},
    {"additionalProperties", TYPED, T_OBJECT},
    {"items", TYPED, T_ARRAY},
    {"prefixItems", TYPED, T_ARRAY},
    {"minItems", TYPED, T_ARRAY},
    {"maxItems", TYPED, T_ARRAY},
    {"minLength", TYPED, T_STRING},
    {"maxLength", TYPED, T_STRING},
    {"format", TYPED, T_STRING},
    {"minimum", TYPED, T_NUMBER},
    {"maximum", TYPED, T_NUMBER},
    {"exclusiveMinimum", TYPED, T_NUMBER},
    {"exclusiveMaximum", TYPED, T_NUMBER},
};

static const struct keyword *find_keyword(const char *name)
{
    for (size_t i = 0; i < sizeof keyword / sizeof *keyword; i++) {
        if (strcmp(keyword[i].name, name) == 0) {
            return &keyword[i];
        }
    }
    return NULL;
}

/* What kinds of keywords the schema has, and the types they imply. One of REF, ALL, ANY and VALUE
 * stands alone (VALUE beside "type"), because keywords side by side mean all of them at once. */
static int kinds_of(struct grammar_compiler *c, const struct grammar_where *w, const json_t *schema,
                    int *implied)
{
    const char *name, *lone_name = NULL;
    json_t *value, *keyed = (json_t *)(uintptr_t)schema;
    int kinds = 0, lone = 0;
    *implied = 0;
    json_object_foreach(keyed, name, value)
    {
        const struct keyword *k = find_keyword(name);
        bool neutral = strcmp(name, "uniqueItems") == 0 && json_is_false(value);
        if (k == NULL && !neutral && !(strcmp(name, "$id") == 0 && schema == c->root)) {
            refuse_at(c, w, ERR_USAGE, name, "this keyword is not supported; leave it out");
            return 0;
        }
        kinds |= k != NULL ? k->kind : 0;
        *implied |= k != NULL ? k->type : 0;
        if (k != NULL && (k->kind & (REF | ALL | ANY | VALUE)) != 0) {
            lone = k->kind;
            lone_name = lone_name == NULL ? name : lone_name;
        }
    }
    json_object_foreach(keyed, name, value)
    {
        const struct keyword *k = find_keyword(name);
        int with = NOTE | (lone == VALUE ? TYPE : 0);
        if (lone != 0 && k != NULL && (k->kind & with) == 0 && strcmp(name, lone_name) != 0) {
            refuse_at(c, w, ERR_USAGE, name, "not supported beside \"%s\"", lone_name);
            return 0;
        }
    }
    return kinds;
}

/* ---- references ------------------------------------------------------------------------------ */

static const json_t *resolve(struct grammar_compiler *c, const struct grammar_where *w,
                             const json_t *ref)
{
    const char *text = json_string_value(ref);
    const json_t *at = NULL;
    if (text == NULL || text[0] != '#' || (text[1] != 0 && text[1] != '/')) {
        refuse_at(c, w, ERR_USAGE, "$ref",
                  "only references inside the schema: \"#\", \"#/$defs/..\"");
    } else if (grammar_pointer_find(c->root, text + 1, &at) != 0) {
        grammar_fail(&c->b, ERR_NOMEM, "no memory for a schema");
    } else if (at == NULL) {
        refuse_at(c, w, ERR_USAGE, "$ref", "nothing is there that it refers to");
    }
    return at;
}

/* Follows $ref, and allOf of one schema, to the schema that says something. */
static const json_t *follow(struct grammar_compiler *c, struct grammar_where *w,
                            const json_t *schema)
{
    for (int hop = 0; json_is_object(schema); hop++) {
        const json_t *ref = json_object_get(schema, "$ref"),
                     *all = json_object_get(schema, "allOf");
        int implied;
        if (ref == NULL && all == NULL) {
            return schema;
        }
        if (hop == HOPS_MAX) {
            refuse_at(c, w, ERR_USAGE, "$ref", "the reference leads back to itself");
            return NULL;
        }
        kinds_of(c, w, schema, &implied);
        if (ref != NULL) {
            schema = c->b.rc == 0 ? resolve(c, w, ref) : NULL;
            *w = (struct grammar_where){json_string_value(ref), GRAMMAR_NONE, NULL, NULL, -1, 1};
        } else if (json_array_size(all) != 1) {
            refuse_at(c, w, ERR_USAGE, "allOf", "supported only with one schema in a list");
            return NULL;
        } else {
            schema = json_array_get(all, 0);
        }
        if (c->b.rc != 0) {
            return NULL;
        }
    }
    return schema;
}

static uint32_t add_item(struct grammar_compiler *c, const json_t *schema,
                         struct grammar_where where)
{
    if (c->n == c->cap) {
        uint32_t cap = c->cap == 0 ? 64 : c->cap * 2;
        struct grammar_item *grown = realloc(c->item, cap * sizeof *grown);
        if (grown == NULL) {
            grammar_fail(&c->b, ERR_NOMEM, "no memory for a schema");
            return BASE_ANY;
        }
        c->item = grown;
        c->cap = cap;
    }
    c->item[c->n++] = (struct grammar_item){schema, grammar_rule_new(&c->b), where};
    return c->item[c->n - 1].rule;
}

static uint32_t rule_at(struct grammar_compiler *c, const json_t *schema,
                        struct grammar_where where)
{
    schema = c->b.rc == 0 ? follow(c, &where, schema) : NULL;
    if (schema == NULL || json_is_true(schema)) {
        return BASE_ANY; /* NULL: the failure is noted */
    }
    if (!json_is_object(schema)) {
        refuse_at(c, &where, ERR_USAGE, "", "a schema is an object or true here");
        return BASE_ANY;
    }
    if (where.depth > GRAMMAR_SCHEMA_DEPTH) {
        refuse_at(c, &where, ERR_LIMIT, "", "schemas are at most %d levels deep",
                  GRAMMAR_SCHEMA_DEPTH);
        return BASE_ANY;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        if (c->item[i].schema == schema) {
            return c->item[i].rule;
        }
    }
    return add_item(c, schema, where);
}

uint32_t grammar_rule_of(struct grammar_compiler *c, uint32_t at, const json_t *schema,
                         const char *sub, const char *key, int64_t index)
{
    return rule_at(c, schema,
                   (struct grammar_where){NULL, at, sub, key, index, c->item[at].where.depth + 1});
}

/* ---- one schema ------------------------------------------------------------------------------ */

static const char *const type_name[] = {"object",  "array",   "string", "number",
                                        "integer", "boolean", "null"};

static int type_bit(struct grammar_compiler *c, uint32_t at, const json_t *name)
{
    for (int i = 0; i < 7; i++) {
        if (json_is_string(name) && strcmp(json_string_value(name), type_name[i]) == 0) {
            return 1 << i;
        }
    }
    grammar_refuse(
        c, at, ERR_USAGE, "type",
        "must be object, array, string, number, integer, boolean or null, or a list of them");
    return 0;
}

/* The types of "type", or `absent`. */
static int types_of(struct grammar_compiler *c, uint32_t at, int absent)
{
    const json_t *type = json_object_get(c->item[at].schema, "type");
    if (type == NULL) {
        return absent;
    }
    if (!json_is_array(type) || json_array_size(type) == 0) {
        return type_bit(c, at, type);
    }
    int types = 0;
    for (size_t i = 0; i < json_array_size(type) && c->b.rc == 0; i++) {
        types |= type_bit(c, at, json_array_get(type, i));
    }
    return types;
}

static int type_of_value(const json_t *v)
{
    double real = json_real_value(v);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return T_OBJECT;
    case JSON_ARRAY:
        return T_ARRAY;
    case JSON_STRING:
        return T_STRING;
    case JSON_INTEGER:
        return T_INTEGER | T_NUMBER;
    case JSON_REAL:
        return real < 1e18 && real > -1e18 && real == (double)(int64_t)real ? T_INTEGER | T_NUMBER
                                                                            : T_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE:
        return T_BOOLEAN;
    case JSON_NULL:
        break;
    }
    return T_NULL;
}

/* Values of the given types: what is plain shares its beginnings, lists and objects stand alone. */
static void write_values(struct grammar_compiler *c, const json_t *list, int types)
{
    struct grammar_words words = {0};
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    size_t n = json_array_size(list), whole = 0, i = 0;
    for (size_t k = 0; k < n; k++) {
        const json_t *v = json_array_get(list, k);
        if ((type_of_value(v) & types) == 0) {
            continue;
        }
        if (json_is_object(v) || json_is_array(v)) {
            whole++;
        } else {
            grammar_words_add(&c->b, &words, v);
        }
    }
    size_t of = whole + (words.n > 0);
    if (words.n > 0) {
        grammar_alt(&c->b, &a, i++, of);
        grammar_emit_words(&c->b, &words);
    }
    for (size_t k = 0; k < n; k++) {
        const json_t *v = json_array_get(list, k);
        if ((json_is_object(v) || json_is_array(v)) && (type_of_value(v) & types) != 0) {
            grammar_alt(&c->b, &a, i++, of);
            grammar_emit_const(&c->b, v);
        }
    }
    grammar_alt_end(&c->b, &a);
    grammar_words_fini(&words);
    if (of == 0) {
        grammar_fail(&c->b, ERR_USAGE, "JSON schema: an enum or const has no value of its type");
    }
}

static void write_enum(struct grammar_compiler *c, uint32_t at)
{
    const json_t *schema = c->item[at].schema;
    json_t *one = json_object_get(schema, "const"), *list = json_object_get(schema, "enum");
    int types = types_of(c, at, ~0);
    json_t *wrapped = one != NULL ? json_array() : json_incref(list);
    if (one != NULL && json_array_append(wrapped, one) != 0) {
        grammar_fail(&c->b, ERR_NOMEM, "no memory for a schema");
    } else if (one == NULL && json_array_size(list) == 0) {
        grammar_refuse(c, at, ERR_USAGE, "enum", "must be a list of values");
    } else if (c->b.rc == 0) {
        write_values(c, wrapped, types);
    }
    json_decref(wrapped);
}

static void write_any_of(struct grammar_compiler *c, uint32_t at)
{
    const json_t *list = json_object_get(c->item[at].schema, "anyOf");
    size_t n = json_array_size(list);
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    if (n == 0) {
        grammar_refuse(c, at, ERR_USAGE, "anyOf", "must be a list of schemas");
    }
    if (n > GRAMMAR_BRANCHES_MAX) {
        grammar_refuse(c, at, ERR_LIMIT, "anyOf", "at most %d schemas", GRAMMAR_BRANCHES_MAX);
    }
    for (size_t i = 0; i < n && c->b.rc == 0; i++) {
        grammar_alt(&c->b, &a, i, n);
        grammar_emit_call(
            &c->b, grammar_rule_of(c, at, json_array_get(list, i), "anyOf", NULL, (int64_t)i));
    }
    grammar_alt_end(&c->b, &a);
}

static void write_type(struct grammar_compiler *c, uint32_t at, int type)
{
    struct grammar_alts a;
    switch (type) {
    case T_OBJECT:
        grammar_write_object(c, at);
        break;
    case T_ARRAY:
        grammar_write_array(c, at);
        break;
    case T_STRING:
        grammar_write_string(c, at);
        break;
    case T_NUMBER:
    case T_INTEGER:
        grammar_write_number(c, at, type == T_INTEGER);
        break;
    case T_BOOLEAN:
        grammar_alt(&c->b, &a, 0, 2);
        grammar_emit_text(&c->b, "true", 4);
        grammar_alt(&c->b, &a, 1, 2);
        grammar_emit_text(&c->b, "false", 5);
        grammar_alt_end(&c->b, &a);
        break;
    default:
        grammar_emit_text(&c->b, "null", 4);
    }
}

static void write_types(struct grammar_compiler *c, uint32_t at, int types)
{
    struct grammar_alts a = GRAMMAR_ALTS_EMPTY;
    size_t i = 0, n = 0;
    types &= types & T_NUMBER ? ~T_INTEGER : ~0;
    for (int t = types; t != 0; t &= t - 1) {
        n++;
    }
    for (int t = types; t != 0 && c->b.rc == 0; t &= t - 1) {
        grammar_alt(&c->b, &a, i++, n);
        write_type(c, at, t & -t);
    }
    grammar_alt_end(&c->b, &a);
}

static void write_item(struct grammar_compiler *c, uint32_t at)
{
    struct grammar_item item = c->item[at];
    int implied, kinds = kinds_of(c, &item.where, item.schema, &implied);
    grammar_rule_begin(&c->b, item.rule);
    if (kinds & VALUE) {
        write_enum(c, at);
    } else if (kinds & ANY) {
        write_any_of(c, at);
    } else if (kinds & (TYPE | TYPED)) {
        write_types(c, at, types_of(c, at, implied));
    } else {
        grammar_emit_call(&c->b, BASE_ANY);
    }
    grammar_emit_ret(&c->b);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* A rule that the proof refused, in the schema's words. */
static int refuse_stuck(struct grammar_compiler *c, uint32_t rule, int code)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        at = c->item[i].rule == rule ? i : at;
    }
    return grammar_refuse(c, at, code, "",
                          code == ERR_USAGE ? "it refers to itself with nothing in between"
                                            : "no value of at most %d levels satisfies it",
                          GRAMMAR_FRAMES_MAX);
}

static int compile(struct grammar_compiler *c, const json_t *schema, struct grammar_prog *out)
{
    uint32_t root, stuck;
    size_t bytes = json_dumpb(schema, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
    if (bytes == 0 || bytes > GRAMMAR_SCHEMA_BYTES) {
        return grammar_fail(&c->b, ERR_LIMIT, "a JSON schema has at most %d bytes, this one %zu",
                            GRAMMAR_SCHEMA_BYTES, bytes);
    }
    root = rule_at(c, schema, (struct grammar_where){NULL, GRAMMAR_NONE, NULL, NULL, -1, 0});
    for (uint32_t i = 0; i < c->n && c->b.rc == 0; i++) {
        write_item(c, i);
    }
    if (c->b.rc != 0) {
        return c->b.rc;
    }
    int rc = grammar_builder_finish(&c->b, root, out, &stuck);
    return rc != 0 && stuck != GRAMMAR_NONE ? refuse_stuck(c, stuck, rc) : rc;
}

int grammar_compile_schema(const json_t *schema, bool ascii, struct grammar_prog *out,
                           struct err *err)
{
    struct grammar_compiler c = {.root = schema};
    grammar_builder_init(&c.b, ascii, err);
    int rc = compile(&c, schema, out);
    grammar_builder_fini(&c.b);
    free(c.item);
    return rc;
}

int grammar_compile_object(bool ascii, struct grammar_prog *out, struct err *err)
{
    struct grammar_builder b;
    uint32_t stuck;
    grammar_builder_init(&b, ascii, err);
    int rc = grammar_builder_finish(&b, BASE_OBJECT, out, &stuck);
    grammar_builder_fini(&b);
    return rc;
}
