/* jinja_parse: what the two halves of the parser share: the stream of tokens and the maker of
 * nodes. A failure is sticky in `rc`; the stream then stands at the end of the file, so that loops
 * end. */
#ifndef MODEL_JINJA_PARSE_H
#define MODEL_JINJA_PARSE_H

#include "model/jinja_ast.h"

#define JPARSE_NEST_MAX   100 /* brackets, conditions and blocks within each other */
#define JPARSE_HEIGHT_MAX 200 /* of the tree: also a chain of operators is deep */

struct jparser {
    struct jinja *t;
    const struct jtok *tok; /* the current one */
    const struct jtok *end; /* T_EOF */
    struct err *err;
    int rc;
    int nest, loop_depth, soft;
    struct jval *name; /* [n_name] */
    uint32_t n_name, cap_name;
    /* of the macro being parsed */
    bool uses_caller, uses_varargs, uses_kwargs;
    struct jnode spare; /* what jp_node gives when the memory is full */
};
/* jkids: a list of nodes that grows. */
struct jkids {
    const struct jnode **v;
    uint32_t n, cap;
};

void jp_fail(struct jparser *p, const struct jtok *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void jp_unexpected(struct jparser *p, const char *wanted);
void *jp_alloc(struct jparser *p, size_t bytes);
void jp_next(struct jparser *p);
bool jp_is_op(const struct jparser *p, const char *op);
bool jp_is_name(const struct jparser *p, const char *name);
bool jp_skip_op(struct jparser *p, const char *op);
bool jp_skip_name(struct jparser *p, const char *name);
void jp_expect_op(struct jparser *p, const char *op);
uint32_t jp_name_id(struct jparser *p, struct jval name);
/* jp_node: never NULL (without memory, p->spare). jp_done computes the height once its
 * children are set, and returns the node. */
struct jnode *jp_node(struct jparser *p, enum jkind kind, const struct jtok *at);
const struct jnode *jp_done(struct jparser *p, struct jnode *n);
void jp_push(struct jparser *p, struct jkids *kids, const struct jnode *n);
void jp_set_kids(struct jnode *n, const struct jkids *kids);
bool jp_enter(struct jparser *p);
void jp_leave(struct jparser *p);

/* Expressions. jp_tuple: "a" or "a, b"; `no_cond` stops before `if` (for, if). */
const struct jnode *jp_expr(struct jparser *p);
const struct jnode *jp_tuple(struct jparser *p, bool no_cond);
const struct jnode *jp_primary(struct jparser *p);
const struct jnode *jp_filter(struct jparser *p, const struct jnode *operand, bool inline_start);
const struct jnode *jp_postfix(struct jparser *p, const struct jnode *n);
/* jp_target: what is assigned to: a name, ns.attr (with_ns), or a tuple of them; ends before `in`.
 */
const struct jnode *jp_target(struct jparser *p, bool with_ns, bool single);

#endif
