/* jinja_parse_expr: expressions by recursive descent with Jinja2's precedence: if-else, or, and,
 * not, comparisons, + -, ~, * / // %, ** (to the left), unary, postfix, filters and tests. */
#include "model/jinja_parse.h"
#include "model/jinja_run.h"

#include <string.h>

static const struct jnode *parse_unary(struct jparser *p, bool with_filter);

static const struct jnode *make2(struct jparser *p, enum jkind kind, enum jop op,
                                 const struct jtok *at, const struct jnode *a,
                                 const struct jnode *b)
{
    struct jnode *n = jp_node(p, kind, at);
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return jp_done(p, n);
}

static const struct jnode *parse_string(struct jparser *p)
{
    struct jnode *n = jp_node(p, N_CONST, p->tok);
    const struct jtok *first = p->tok;
    size_t total = 0;
    const struct jtok *t = first;
    for (; t->kind == T_STRING; t++)
        total += t->value.n;
    if (t == first + 1) {
        n->value = first->value;
    } else {
        char *s = jp_alloc(p, total), *at = s;
        for (t = first; s && t->kind == T_STRING; t++) {
            if (t->value.n)
                memcpy(at, t->value.s, t->value.n);
            at += t->value.n;
        }
        n->value = JSTR(s, s ? total : 0);
    }
    while (p->tok->kind == T_STRING)
        jp_next(p);
    return jp_done(p, n);
}

static const struct jnode *parse_list(struct jparser *p)
{
    struct jnode *n = jp_node(p, N_LIST, p->tok);
    struct jkids kids = {0};
    jp_next(p);
    while (!p->rc && !jp_is_op(p, "]")) {
        if (kids.n)
            jp_expect_op(p, ",");
        if (jp_is_op(p, "]"))
            break;
        jp_push(p, &kids, jp_expr(p));
    }
    jp_expect_op(p, "]");
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

static const struct jnode *parse_dict(struct jparser *p)
{
    struct jnode *n = jp_node(p, N_DICT, p->tok);
    struct jkids kids = {0};
    jp_next(p);
    while (!p->rc && !jp_is_op(p, "}")) {
        if (kids.n)
            jp_expect_op(p, ",");
        if (jp_is_op(p, "}"))
            break;
        jp_push(p, &kids, jp_expr(p));
        jp_expect_op(p, ":");
        jp_push(p, &kids, jp_expr(p));
    }
    jp_expect_op(p, "}");
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

static bool ends_tuple(const struct jparser *p)
{
    return p->tok->kind == T_VAR_END || p->tok->kind == T_BLOCK_END || p->tok->kind == T_EOF ||
           jp_is_op(p, ")");
}

static const struct jnode *parse_or(struct jparser *p);

/* tuple_of reads items up to the end of a tuple; one without a comma is that item alone. */
static const struct jnode *tuple_of(struct jparser *p, bool no_cond, bool parens)
{
    const struct jtok *at = p->tok;
    struct jkids kids = {0};
    bool is_tuple = false;
    while (!p->rc) {
        if (kids.n)
            jp_expect_op(p, ",");
        if (ends_tuple(p))
            break;
        jp_push(p, &kids, no_cond ? parse_or(p) : jp_expr(p));
        if (!jp_is_op(p, ","))
            break;
        is_tuple = true;
    }
    if (!is_tuple && kids.n)
        return kids.v[0];
    if (!is_tuple && !parens)
        jp_unexpected(p, "an expression");
    struct jnode *n = jp_node(p, N_TUPLE, at);
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

const struct jnode *jp_tuple(struct jparser *p, bool no_cond)
{
    return tuple_of(p, no_cond, false);
}

static const struct jnode *parse_name(struct jparser *p)
{
    static const struct {
        const char *text;
        struct jval value;
    } consts[] = {{"true", {.type = J_BOOL, .i = 1}},  {"True", {.type = J_BOOL, .i = 1}},
                  {"false", {.type = J_BOOL, .i = 0}}, {"False", {.type = J_BOOL, .i = 0}},
                  {"none", {.type = J_NONE}},          {"None", {.type = J_NONE}}};
    const struct jtok *at = p->tok;
    jp_next(p);
    for (size_t i = 0; i < sizeof consts / sizeof *consts; i++) {
        if (j_is_str(at->value, consts[i].text, strlen(consts[i].text))) {
            struct jnode *n = jp_node(p, N_CONST, at);
            n->value = consts[i].value;
            return jp_done(p, n);
        }
    }
    struct jnode *n = jp_node(p, N_NAME, at);
    n->value = at->value;
    n->id = jp_name_id(p, at->value);
    p->uses_caller |= n->id == p->t->id_caller;
    p->uses_varargs |= n->id == p->t->id_varargs;
    p->uses_kwargs |= n->id == p->t->id_kwargs;
    return jp_done(p, n);
}

const struct jnode *jp_primary(struct jparser *p)
{
    const struct jtok *at = p->tok;
    if (at->kind == T_NAME)
        return parse_name(p);
    if (at->kind == T_STRING)
        return parse_string(p);
    if (at->kind == T_INT || at->kind == T_FLOAT) {
        struct jnode *n = jp_node(p, N_CONST, at);
        n->value = at->value;
        jp_next(p);
        return jp_done(p, n);
    }
    const struct jnode *n = NULL;
    if (!jp_enter(p)) {
        n = jp_node(p, N_CONST, at);
    } else if (jp_skip_op(p, "(")) {
        n = tuple_of(p, false, true);
        jp_expect_op(p, ")");
    } else if (jp_is_op(p, "[")) {
        n = parse_list(p);
    } else if (jp_is_op(p, "{")) {
        n = parse_dict(p);
    } else {
        jp_unexpected(p, NULL);
        n = jp_node(p, N_CONST, at);
    }
    jp_leave(p);
    return n;
}

/* parse_args reads "(...)": positional arguments, then N_KEYWORD nodes. */
static void parse_args(struct jparser *p, struct jkids *kids)
{
    bool keywords = false;
    jp_expect_op(p, "(");
    for (bool first = true; !p->rc && !jp_is_op(p, ")"); first = false) {
        if (!first)
            jp_expect_op(p, ",");
        if (jp_is_op(p, ")"))
            break;
        if (jp_is_op(p, "*") || jp_is_op(p, "**")) {
            jp_fail(p, p->tok, "* and ** in a call are not supported");
        } else if (p->tok->kind == T_NAME && p->tok[1].kind == T_OP &&
                   strcmp(p->tok[1].op, "=") == 0) {
            struct jnode *k = jp_node(p, N_KEYWORD, p->tok);
            k->value = p->tok->value;
            jp_next(p);
            jp_next(p);
            k->a = jp_expr(p);
            keywords = true;
            jp_push(p, kids, jp_done(p, k));
        } else if (keywords) {
            jp_fail(p, p->tok, "invalid syntax for function call expression");
        } else {
            jp_push(p, kids, jp_expr(p));
        }
    }
    jp_expect_op(p, ")");
}

static const struct jnode *parse_call(struct jparser *p, const struct jnode *f)
{
    struct jnode *n = jp_node(p, N_CALL, p->tok);
    struct jkids kids = {0};
    parse_args(p, &kids);
    n->a = f;
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

/* parse_subscribed: one index, or a slice. */
static const struct jnode *parse_subscribed(struct jparser *p)
{
    const struct jtok *at = p->tok;
    const struct jnode *part[3] = {NULL, NULL, NULL};
    if (!jp_is_op(p, ":")) {
        part[0] = jp_expr(p);
        if (!jp_is_op(p, ":"))
            return part[0];
    }
    for (int i = 1; i < 3 && jp_skip_op(p, ":"); i++) {
        if (!jp_is_op(p, ":") && !jp_is_op(p, "]") && !jp_is_op(p, ","))
            part[i] = jp_expr(p);
    }
    struct jnode *n = jp_node(p, N_SLICE, at);
    n->a = part[0];
    n->b = part[1];
    n->c = part[2];
    return jp_done(p, n);
}

static const struct jnode *parse_item(struct jparser *p, const struct jnode *a)
{
    struct jnode *n = jp_node(p, N_GETITEM, p->tok);
    const struct jtok *at = p->tok;
    struct jkids kids = {0};
    jp_next(p);
    while (!p->rc && !jp_is_op(p, "]")) {
        if (kids.n)
            jp_expect_op(p, ",");
        jp_push(p, &kids, parse_subscribed(p));
        if (kids.n > 1 && (kids.v[kids.n - 1]->kind == N_SLICE || kids.v[0]->kind == N_SLICE))
            jp_fail(p, at, "a slice in a tuple of indices is not supported");
    }
    jp_expect_op(p, "]");
    n->a = a;
    if (kids.n == 1) {
        n->b = kids.v[0];
    } else {
        struct jnode *index = jp_node(p, N_TUPLE, at);
        jp_set_kids(index, &kids);
        n->b = jp_done(p, index);
    }
    return jp_done(p, n);
}

static const struct jnode *parse_dot(struct jparser *p, const struct jnode *a)
{
    const struct jtok *dot = p->tok;
    jp_next(p);
    const struct jtok *at = p->tok;
    struct jnode *n = jp_node(p, at->kind == T_INT ? N_GETITEM : N_GETATTR, dot);
    n->a = a;
    if (at->kind == T_INT) {
        struct jnode *index = jp_node(p, N_CONST, at);
        index->value = at->value;
        n->b = jp_done(p, index);
    } else if (at->kind == T_NAME) {
        n->value = at->value;
    } else {
        jp_fail(p, at, "expected name or number");
    }
    jp_next(p);
    return jp_done(p, n);
}

const struct jnode *jp_postfix(struct jparser *p, const struct jnode *n)
{
    while (!p->rc) {
        if (jp_is_op(p, "."))
            n = parse_dot(p, n);
        else if (jp_is_op(p, "["))
            n = parse_item(p, n);
        else if (jp_is_op(p, "("))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static void unknown(struct jparser *p, const struct jtok *at, const char *what)
{
    /* in a branch that may not be taken the name is only looked up when it is, as in Jinja2 */
    if (!p->soft)
        jp_fail(p, at, "No %s named '%.*s'.", what, (int)(at->value.n < 100 ? at->value.n : 100),
                at->value.s);
}

const struct jnode *jp_filter(struct jparser *p, const struct jnode *operand, bool inline_start)
{
    const struct jnode *n = operand;
    while (!p->rc && (inline_start || jp_skip_op(p, "|"))) {
        inline_start = false;
        const struct jtok *at = p->tok;
        if (at->kind != T_NAME) {
            jp_unexpected(p, "the name of a filter");
            break;
        }
        struct jnode *f = jp_node(p, N_FILTER, at);
        struct jkids kids = {0};
        jp_next(p);
        if (jp_is_op(p, "("))
            parse_args(p, &kids);
        f->a = n;
        f->value = at->value;
        f->func = j_find_filter(at->value.s, at->value.n);
        if (!f->func)
            unknown(p, at, "filter");
        jp_set_kids(f, &kids);
        n = jp_done(p, f);
    }
    return n;
}

static bool starts_test_argument(const struct jparser *p)
{
    if (p->tok->kind == T_NAME)
        return !jp_is_name(p, "else") && !jp_is_name(p, "or") && !jp_is_name(p, "and");
    return p->tok->kind == T_STRING || p->tok->kind == T_INT || p->tok->kind == T_FLOAT ||
           jp_is_op(p, "[") || jp_is_op(p, "{");
}

static const struct jnode *parse_test(struct jparser *p, const struct jnode *a)
{
    const struct jtok *is = p->tok;
    jp_next(p);
    bool negated = jp_skip_name(p, "not");
    const struct jtok *at = p->tok;
    struct jnode *n = jp_node(p, N_TEST, at);
    struct jkids kids = {0};
    if (at->kind != T_NAME) {
        jp_unexpected(p, "the name of a test");
        return jp_done(p, n);
    }
    jp_next(p);
    if (jp_is_op(p, "(")) {
        parse_args(p, &kids);
    } else if (starts_test_argument(p)) {
        if (jp_is_name(p, "is"))
            jp_fail(p, p->tok, "You cannot chain multiple tests with is");
        jp_push(p, &kids, jp_postfix(p, jp_primary(p)));
    }
    n->a = a;
    n->value = at->value;
    n->func = j_find_test(at->value.s, at->value.n);
    if (!n->func)
        unknown(p, at, "test");
    jp_set_kids(n, &kids);
    const struct jnode *done = jp_done(p, n);
    return negated ? make2(p, N_NOT, 0, is, done, NULL) : done;
}

static const struct jnode *parse_filter_expr(struct jparser *p, const struct jnode *n)
{
    while (!p->rc) {
        if (jp_is_op(p, "|"))
            n = jp_filter(p, n, false);
        else if (jp_is_name(p, "is"))
            n = parse_test(p, n);
        else if (jp_is_op(p, "("))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static const struct jnode *parse_unary(struct jparser *p, bool with_filter)
{
    const struct jtok *at = p->tok;
    const struct jnode *n;
    if (jp_is_op(p, "-") || jp_is_op(p, "+")) {
        enum jkind kind = jp_is_op(p, "-") ? N_NEG : N_POS;
        jp_next(p);
        n = jp_enter(p) ? make2(p, kind, 0, at, parse_unary(p, false), NULL)
                        : jp_node(p, N_CONST, at);
        jp_leave(p);
    } else {
        n = jp_primary(p);
    }
    n = jp_postfix(p, n);
    return with_filter ? parse_filter_expr(p, n) : n;
}

static bool skip_any(struct jparser *p, const char *const *texts, const enum jop *ops, size_t n,
                     enum jop *op)
{
    for (size_t i = 0; i < n; i++) {
        if (jp_skip_op(p, texts[i])) {
            *op = ops[i];
            return true;
        }
    }
    return false;
}

static const struct jnode *parse_pow(struct jparser *p)
{
    const struct jtok *at = p->tok;
    const struct jnode *n = parse_unary(p, true);
    while (jp_skip_op(p, "**"))
        n = make2(p, N_BINARY, OP_POW, at, n, parse_unary(p, true));
    return n;
}

static const struct jnode *parse_product(struct jparser *p)
{
    static const char *const texts[] = {"*", "/", "//", "%"};
    static const enum jop ops[] = {OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD};
    const struct jtok *at = p->tok;
    enum jop op;
    const struct jnode *n = parse_pow(p);
    while (skip_any(p, texts, ops, 4, &op))
        n = make2(p, N_BINARY, op, at, n, parse_pow(p));
    return n;
}

static const struct jnode *parse_concat(struct jparser *p)
{
    const struct jtok *at = p->tok;
    const struct jnode *first = parse_product(p);
    if (!jp_is_op(p, "~"))
        return first;
    struct jnode *n = jp_node(p, N_CONCAT, at);
    struct jkids kids = {0};
    jp_push(p, &kids, first);
    while (jp_skip_op(p, "~"))
        jp_push(p, &kids, parse_product(p));
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

static const struct jnode *parse_sum(struct jparser *p)
{
    static const char *const texts[] = {"+", "-"};
    static const enum jop ops[] = {OP_ADD, OP_SUB};
    const struct jtok *at = p->tok;
    enum jop op;
    const struct jnode *n = parse_concat(p);
    while (skip_any(p, texts, ops, 2, &op))
        n = make2(p, N_BINARY, op, at, n, parse_concat(p));
    return n;
}

static bool skip_compare(struct jparser *p, enum jop *op)
{
    static const char *const texts[] = {"==", "!=", "<", "<=", ">", ">="};
    static const enum jop ops[] = {OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE};
    if (skip_any(p, texts, ops, 6, op))
        return true;
    if (jp_skip_name(p, "in")) {
        *op = OP_IN;
        return true;
    }
    if (jp_is_name(p, "not") && p->tok[1].kind == T_NAME && j_is_str(p->tok[1].value, "in", 2)) {
        jp_next(p);
        jp_next(p);
        *op = OP_NOTIN;
        return true;
    }
    return false;
}

static const struct jnode *parse_compare(struct jparser *p)
{
    const struct jtok *at = p->tok;
    const struct jnode *first = parse_sum(p);
    struct jkids kids = {0};
    enum jop op;
    while (!p->rc && skip_compare(p, &op))
        jp_push(p, &kids, make2(p, N_OPERAND, op, at, parse_sum(p), NULL));
    if (!kids.n)
        return first;
    struct jnode *n = jp_node(p, N_COMPARE, at);
    n->a = first;
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

static const struct jnode *parse_not(struct jparser *p)
{
    const struct jtok *at = p->tok;
    if (!jp_is_name(p, "not"))
        return parse_compare(p);
    jp_next(p);
    const struct jnode *n =
        jp_enter(p) ? make2(p, N_NOT, 0, at, parse_not(p), NULL) : jp_node(p, N_CONST, at);
    jp_leave(p);
    return n;
}

static const struct jnode *parse_and(struct jparser *p)
{
    const struct jtok *at = p->tok;
    const struct jnode *n = parse_not(p);
    while (jp_skip_name(p, "and"))
        n = make2(p, N_AND, 0, at, n, parse_not(p));
    return n;
}

static const struct jnode *parse_or(struct jparser *p)
{
    const struct jtok *at = p->tok;
    const struct jnode *n = parse_and(p);
    while (jp_skip_name(p, "or"))
        n = make2(p, N_OR, 0, at, n, parse_and(p));
    return n;
}

const struct jnode *jp_expr(struct jparser *p)
{
    const struct jtok *at = p->tok;
    if (!jp_enter(p)) {
        jp_leave(p);
        return jp_node(p, N_CONST, at);
    }
    /* what the branches of a condition name need not exist; they were read before the `if` shows,
     * so one that follows makes the whole expression soft */
    const struct jtok *scan = p->tok;
    bool soft = false;
    for (int open = 0; scan < p->end && scan->kind != T_VAR_END && scan->kind != T_BLOCK_END;
         scan++) {
        char c = scan->kind == T_OP ? scan->op[0] : 0;
        open += (c == '(' || c == '[' || c == '{') - (c == ')' || c == ']' || c == '}');
        if (open < 0 || (open == 0 && c == ','))
            break;
        soft |= open == 0 && scan->kind == T_NAME && j_is_str(scan->value, "if", 2);
    }
    p->soft += soft;
    const struct jnode *n = parse_or(p);
    while (jp_skip_name(p, "if")) {
        struct jnode *cond = jp_node(p, N_COND, at);
        cond->b = n;
        cond->a = parse_or(p);
        if (jp_skip_name(p, "else"))
            cond->c = jp_expr(p);
        n = jp_done(p, cond);
    }
    p->soft -= soft;
    jp_leave(p);
    return n;
}

static const struct jnode *target_one(struct jparser *p, bool with_ns)
{
    const struct jtok *at = p->tok;
    if (jp_skip_op(p, "(")) { /* for (a, b) in ... */
        if (!jp_enter(p)) {
            jp_leave(p);
            return jp_node(p, N_NAME, at);
        }
        const struct jnode *inner = jp_target(p, with_ns, false);
        jp_expect_op(p, ")");
        jp_leave(p);
        return inner;
    }
    if (at->kind != T_NAME) {
        jp_unexpected(p, "a name to assign to");
        return jp_node(p, N_NAME, at);
    }
    const struct jnode *name = parse_name(p);
    if (name->kind != N_NAME)
        jp_fail(p, at, "can't assign to 'const'");
    if (!with_ns || !jp_is_op(p, "."))
        return name;
    jp_next(p);
    struct jnode *ref = jp_node(p, N_NSREF, at);
    ref->id = name->id;
    ref->a = name;
    ref->value = p->tok->value;
    if (p->tok->kind != T_NAME)
        jp_unexpected(p, "the name of an attribute");
    jp_next(p);
    return jp_done(p, ref);
}

const struct jnode *jp_target(struct jparser *p, bool with_ns, bool single)
{
    const struct jtok *at = p->tok;
    const struct jnode *first = target_one(p, with_ns);
    if (single || !jp_is_op(p, ","))
        return first;
    struct jkids kids = {0};
    jp_push(p, &kids, first);
    while (jp_skip_op(p, ",")) {
        if (jp_is_name(p, "in") || jp_is_op(p, "=") || jp_is_op(p, ")") ||
            p->tok->kind == T_BLOCK_END)
            break;
        jp_push(p, &kids, target_one(p, with_ns));
    }
    struct jnode *n = jp_node(p, N_TUPLE, at);
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}
