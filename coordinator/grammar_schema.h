/* grammar_schema: a JSON schema to a program. Every subschema is a rule; rules are written one
 * after the other from a list that grows by what they refer to, so that neither depth nor recursion
 * of the schema is recursion here. */
#ifndef COORDINATOR_GRAMMAR_SCHEMA_H
#define COORDINATOR_GRAMMAR_SCHEMA_H

#include "coordinator/grammar_literal.h"
#include <jansson.h>

#define GRAMMAR_SCHEMA_BYTES   65536
#define GRAMMAR_SCHEMA_DEPTH   32
#define GRAMMAR_PROPERTIES_MAX 1024 /* of one object; each optional one is a way to go on */
#define GRAMMAR_BRANCHES_MAX   256  /* of one anyOf */

/* Where a subschema stands: below `parent` by up to two steps, or where a $ref says. */
struct grammar_where {
    const char *ref; /* "#/$defs/x", or NULL */
    uint32_t parent; /* index of an item; GRAMMAR_NONE: the root */
    const char *sub, *key;
    int64_t index; /* behind sub, -1: none */
    int depth;
};
struct grammar_item {
    const json_t *schema;
    uint32_t rule;
    struct grammar_where where;
};
struct grammar_compiler {
    struct grammar_builder b;
    const json_t *root;
    struct grammar_item *item; /* [n] */
    uint32_t n, cap;
};

/* grammar_compile_schema: ERR_USAGE, ERR_LIMIT, ERR_NOMEM. `ascii` as in the builder. */
int grammar_compile_schema(const json_t *schema, bool ascii, struct grammar_prog *out,
                           struct err *err);
int grammar_compile_object(bool ascii, struct grammar_prog *out, struct err *err);

/* grammar_pointer_text: where `keyword` of a subschema is; "": the subschema. Cut to the buffer.
 * grammar_pointer_find follows what a $ref has behind its #; *out NULL: nothing is there.
 * ERR_NOMEM. */
#define GRAMMAR_POINTER_TEXT 256
void grammar_pointer_text(const struct grammar_compiler *c, const struct grammar_where *w,
                          const char *keyword, char out[GRAMMAR_POINTER_TEXT]);
int grammar_pointer_find(const json_t *root, const char *pointer, const json_t **out);

/* For the writers of values. `at` is the item that is being written. */
/* grammar_refuse fails with the JSON pointer of `keyword` ("" : the schema itself). */
int grammar_refuse(struct grammar_compiler *c, uint32_t at, int code, const char *keyword,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));
/* grammar_rule_of: the rule of the subschema at keyword `sub` of `at`, and there at `key` or
 * `index` where these are not NULL and -1. */
uint32_t grammar_rule_of(struct grammar_compiler *c, uint32_t at, const json_t *schema,
                         const char *sub, const char *key, int64_t index);
void grammar_write_object(struct grammar_compiler *c, uint32_t at);
void grammar_write_array(struct grammar_compiler *c, uint32_t at);
void grammar_write_string(struct grammar_compiler *c, uint32_t at);
void grammar_write_number(struct grammar_compiler *c, uint32_t at, bool integer);

#endif
