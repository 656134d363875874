/* jinja_parse: statements, and the parser's common parts. Names become numbers here. */
#include "model/jinja_parse.h"
#include "model/jinja_run.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 1024 /* published templates have about forty */

void jp_fail(struct jparser *p, const struct jtok *at, const char *format, ...)
{
    if (p->rc)
        return;
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    p->rc = jinja_syntax(p->err, at->line, at->column, "%s", text);
    p->tok = p->end;
}

void jp_unexpected(struct jparser *p, const char *wanted)
{
    const struct jtok *t = p->tok;
    static const char *const kinds[] = {"template data",
                                        "begin of print statement",
                                        "end of print statement",
                                        "begin of statement block",
                                        "end of statement block",
                                        NULL,
                                        "a string",
                                        "a number",
                                        "a number",
                                        NULL,
                                        "end of template"};
    char what[80];
    if (t->kind == T_OP)
        snprintf(what, sizeof what, "'%s'", t->op);
    else if (t->kind == T_NAME)
        snprintf(what, sizeof what, "'%.*s'", (int)(t->value.n < 60 ? t->value.n : 60), t->value.s);
    else
        snprintf(what, sizeof what, "%s", kinds[t->kind]);
    if (wanted)
        jp_fail(p, t, "expected %s, got %s", wanted, what);
    else
        jp_fail(p, t, "unexpected %s", what);
}

void *jp_alloc(struct jparser *p, size_t bytes)
{
    void *m = p->rc ? NULL : jmem_alloc(&p->t->mem, bytes);
    if (!m && !p->rc) {
        p->rc = err_set(p->err, ERR_LIMIT,
                        "chat template: larger than the memory allowed for it (%zu bytes)",
                        p->t->mem.max_bytes);
        p->tok = p->end;
    }
    return m;
}

void jp_next(struct jparser *p)
{
    if (p->tok < p->end)
        p->tok++;
}

bool jp_is_op(const struct jparser *p, const char *op)
{
    return p->tok->kind == T_OP && strcmp(p->tok->op, op) == 0;
}

bool jp_is_name(const struct jparser *p, const char *name)
{
    return p->tok->kind == T_NAME && j_is_str(p->tok->value, name, strlen(name));
}

bool jp_skip_op(struct jparser *p, const char *op)
{
    bool is = jp_is_op(p, op);
    if (is)
        jp_next(p);
    return is;
}

bool jp_skip_name(struct jparser *p, const char *name)
{
    bool is = jp_is_name(p, name);
    if (is)
        jp_next(p);
    return is;
}

void jp_expect_op(struct jparser *p, const char *op)
{
    char wanted[8];
    snprintf(wanted, sizeof wanted, "'%s'", op);
    if (!jp_skip_op(p, op))
        jp_unexpected(p, wanted);
}

uint32_t jp_name_id(struct jparser *p, struct jval name)
{
    for (uint32_t i = 0; i < p->n_name; i++) {
        if (j_is_str(p->name[i], name.s, name.n))
            return i;
    }
    if (p->n_name == p->cap_name) {
        uint32_t cap = p->cap_name ? 2 * p->cap_name : 32;
        struct jval *v = cap > NAMES_MAX ? NULL : jp_alloc(p, cap * sizeof *v);
        if (!v) {
            jp_fail(p, p->tok, "more than %d names", NAMES_MAX);
            return 0;
        }
        if (p->n_name)
            memcpy(v, p->name, p->n_name * sizeof *v);
        p->name = v;
        p->cap_name = cap;
    }
    p->name[p->n_name] = name;
    return p->n_name++;
}

struct jnode *jp_node(struct jparser *p, enum jkind kind, const struct jtok *at)
{
    struct jnode *n = jp_alloc(p, sizeof *n);
    if (!n)
        n = &p->spare;
    *n = (struct jnode){
        .kind = (uint8_t)kind, .line = at->line, .column = at->column, .value = {.type = J_NONE}};
    return n;
}

static uint16_t higher(uint16_t h, const struct jnode *n)
{
    return n && n->height > h ? n->height : h;
}

const struct jnode *jp_done(struct jparser *p, struct jnode *n)
{
    uint16_t h = higher(higher(higher(higher(0, n->a), n->b), n->c), n->d);
    for (uint32_t i = 0; i < n->n_kid; i++)
        h = higher(h, n->kids[i]);
    for (uint32_t i = 0; i < n->n_param; i++)
        h = higher(h, n->params[i].fallback);
    n->height = (uint16_t)(h + 1);
    if (n->height > JPARSE_HEIGHT_MAX) {
        struct jtok at = {.line = n->line, .column = n->column};
        jp_fail(p, &at, "nested more than %d deep", JPARSE_HEIGHT_MAX);
        n->height = 1;
    }
    return n;
}

void jp_push(struct jparser *p, struct jkids *kids, const struct jnode *n)
{
    if (kids->n == kids->cap) {
        uint32_t cap = kids->cap ? 2 * kids->cap : 4;
        const struct jnode **v = jp_alloc(p, cap * sizeof *v);
        if (!v)
            return;
        if (kids->n)
            memcpy(v, kids->v, kids->n * sizeof *v);
        kids->v = v;
        kids->cap = cap;
    }
    kids->v[kids->n++] = n;
}

void jp_set_kids(struct jnode *n, const struct jkids *kids)
{
    n->kids = kids->v;
    n->n_kid = kids->n;
}

bool jp_enter(struct jparser *p)
{
    if (++p->nest > JPARSE_NEST_MAX)
        jp_fail(p, p->tok, "nested more than %d deep", JPARSE_NEST_MAX);
    return p->rc == 0;
}

void jp_leave(struct jparser *p)
{
    p->nest--;
}

static const struct jnode *parse_until(struct jparser *p, const char *const *ends);

static void expect_block_end(struct jparser *p)
{
    if (p->tok->kind != T_BLOCK_END)
        jp_unexpected(p, "end of statement block");
    jp_next(p);
}

/* body reads to one of the end tags, whose name becomes the current token. */
static const struct jnode *body(struct jparser *p, const char *const *ends)
{
    jp_skip_op(p, ":");
    expect_block_end(p);
    return parse_until(p, ends);
}

static const struct jnode *body_to(struct jparser *p, const char *end)
{
    const char *const ends[] = {end, NULL};
    const struct jnode *n = body(p, ends);
    jp_next(p);
    return n;
}

static const struct jnode *parse_if(struct jparser *p, struct jnode *n)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct jkids kids = {0};
    p->soft++;
    do {
        jp_push(p, &kids, jp_tuple(p, true));
        jp_push(p, &kids, body(p, ends));
    } while (jp_skip_name(p, "elif"));
    if (jp_skip_name(p, "else"))
        n->c = body_to(p, "endif");
    else
        jp_next(p);
    p->soft--;
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

static const struct jnode *parse_for(struct jparser *p, struct jnode *n)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    struct jkids kids = {0};
    const struct jtok *at = p->tok;
    n->a = jp_target(p, false, false);
    if (n->a->kind == N_NAME && n->a->id == p->t->id_loop)
        jp_fail(p, at, "Can't assign to special loop variable in for-loop target");
    if (!jp_skip_name(p, "in"))
        jp_unexpected(p, "'in'");
    n->b = jp_tuple(p, true);
    if (jp_skip_name(p, "if"))
        n->d = jp_expr(p);
    if (jp_is_name(p, "recursive"))
        jp_fail(p, p->tok, "a recursive loop is not supported");
    p->loop_depth++;
    jp_push(p, &kids, body(p, ends));
    p->loop_depth--;
    if (jp_skip_name(p, "else"))
        n->c = body_to(p, "endfor");
    else
        jp_next(p);
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

/* closed_body: a body that becomes a function in Jinja2, so that break cannot leave it. */
static const struct jnode *closed_body(struct jparser *p, const char *end)
{
    int loops = p->loop_depth;
    p->loop_depth = 0;
    const struct jnode *n = body_to(p, end);
    p->loop_depth = loops;
    return n;
}

static const struct jnode *parse_set(struct jparser *p, struct jnode *n)
{
    n->a = jp_target(p, true, false);
    if (jp_skip_op(p, "=")) {
        n->b = jp_tuple(p, false);
    } else {
        n->kind = N_SETBLOCK;
        n->b = jp_filter(p, NULL, false);
        n->c = closed_body(p, "endset");
    }
    return jp_done(p, n);
}

static void parse_params(struct jparser *p, struct jnode *n)
{
    struct jparam params[64];
    uint32_t k = 0;
    jp_expect_op(p, "(");
    while (!p->rc && !jp_is_op(p, ")")) {
        if (k)
            jp_expect_op(p, ",");
        if (jp_is_op(p, ")"))
            break;
        if (k == sizeof params / sizeof *params) {
            jp_fail(p, p->tok, "more than %u parameters", k);
            break;
        }
        const struct jtok *at = p->tok;
        params[k].name = jp_target(p, false, true);
        params[k].fallback = jp_skip_op(p, "=") ? jp_expr(p) : NULL;
        if (params[k].name->kind != N_NAME)
            jp_fail(p, at, "a parameter must be a name");
        else if (k && params[k - 1].fallback && !params[k].fallback)
            jp_fail(p, at, "non-default argument follows default argument");
        k++;
    }
    jp_expect_op(p, ")");
    struct jparam *v = k ? jp_alloc(p, k * sizeof *v) : NULL;
    if (v) {
        memcpy(v, params, k * sizeof *v);
        n->params = v;
        n->n_param = k;
    }
}

/* function_body: n->c, and which of the special names it uses. */
static void function_body(struct jparser *p, struct jnode *n, const char *end)
{
    bool caller = p->uses_caller, varargs = p->uses_varargs, kwargs = p->uses_kwargs;
    p->uses_caller = p->uses_varargs = p->uses_kwargs = false;
    n->c = closed_body(p, end);
    n->uses_caller = p->uses_caller;
    n->uses_varargs = p->uses_varargs;
    n->uses_kwargs = p->uses_kwargs;
    p->uses_caller = caller;
    p->uses_varargs = varargs;
    p->uses_kwargs = kwargs;
}

static const struct jnode *parse_macro(struct jparser *p, struct jnode *n)
{
    const struct jtok *at = p->tok;
    const struct jnode *name = jp_target(p, false, true);
    if (name->kind != N_NAME)
        jp_fail(p, at, "the name of a macro is expected");
    n->id = name->id;
    n->value = name->value;
    parse_params(p, n);
    function_body(p, n, "endmacro");
    return jp_done(p, n);
}

static const struct jnode *parse_call_block(struct jparser *p, struct jnode *n)
{
    if (jp_is_op(p, "("))
        parse_params(p, n);
    const struct jtok *at = p->tok;
    n->a = jp_expr(p);
    if (n->a->kind != N_CALL)
        jp_fail(p, at, "expected call");
    function_body(p, n, "endcall");
    return jp_done(p, n);
}

static const struct jnode *parse_filter_block(struct jparser *p, struct jnode *n)
{
    n->b = jp_filter(p, NULL, true);
    n->c = closed_body(p, "endfilter");
    return jp_done(p, n);
}

static const struct jnode *parse_with(struct jparser *p, struct jnode *n)
{
    struct jkids kids = {0};
    while (!p->rc && p->tok->kind != T_BLOCK_END) {
        if (kids.n)
            jp_expect_op(p, ",");
        jp_push(p, &kids, jp_target(p, false, true));
        jp_expect_op(p, "=");
        jp_push(p, &kids, jp_expr(p));
    }
    jp_set_kids(n, &kids);
    n->c = body_to(p, "endwith");
    return jp_done(p, n);
}

static const struct jnode *parse_scoped(struct jparser *p, struct jnode *n)
{
    n->c = closed_body(p, "endgeneration");
    return jp_done(p, n);
}

static const struct jnode *parse_print(struct jparser *p, struct jnode *n)
{
    struct jkids kids = {0};
    while (!p->rc && p->tok->kind != T_BLOCK_END) {
        if (kids.n)
            jp_expect_op(p, ",");
        struct jnode *one = jp_node(p, N_PRINT, p->tok);
        one->a = jp_expr(p);
        jp_push(p, &kids, jp_done(p, one));
    }
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

static const struct jnode *parse_leave_loop(struct jparser *p, struct jnode *n)
{
    if (!p->loop_depth) {
        struct jtok at = {.line = n->line, .column = n->column};
        jp_fail(p, &at, "break or continue outside of a loop");
    }
    return jp_done(p, n);
}

static const struct jnode *parse_statement(struct jparser *p)
{
    static const struct {
        const char *name;
        enum jkind kind;
        const struct jnode *(*parse)(struct jparser *, struct jnode *);
    } tags[] = {{"if", N_IF, parse_if},
                {"for", N_FOR, parse_for},
                {"set", N_SET, parse_set},
                {"macro", N_MACRO, parse_macro},
                {"call", N_CALLBLOCK, parse_call_block},
                {"filter", N_FILTERBLOCK, parse_filter_block},
                {"with", N_WITH, parse_with},
                {"generation", N_SCOPED, parse_scoped},
                {"print", N_BODY, parse_print},
                {"break", N_BREAK, parse_leave_loop},
                {"continue", N_CONTINUE, parse_leave_loop}};
    const struct jtok *at = p->tok;
    if (at->kind != T_NAME) {
        jp_unexpected(p, "the name of a tag");
        return &p->spare;
    }
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
        if (!jp_skip_name(p, tags[i].name))
            continue;
        const struct jnode *n = &p->spare;
        if (jp_enter(p))
            n = tags[i].parse(p, jp_node(p, tags[i].kind, at));
        jp_leave(p);
        return n;
    }
    jp_fail(p, at, "unknown or unsupported tag '%.*s'", (int)(at->value.n < 60 ? at->value.n : 60),
            at->value.s);
    return &p->spare;
}

static bool at_end(const struct jparser *p, const char *const *ends)
{
    for (; ends && *ends; ends++) {
        if (jp_is_name(p, *ends))
            return true;
    }
    return false;
}

static const struct jnode *parse_print_tag(struct jparser *p)
{
    struct jnode *n = jp_node(p, N_PRINT, p->tok);
    jp_next(p);
    n->a = jp_tuple(p, false);
    if (p->tok->kind != T_VAR_END)
        jp_unexpected(p, "end of print statement");
    jp_next(p);
    return jp_done(p, n);
}

/* parse_until: ends NULL: to the end of the file. */
static const struct jnode *parse_until(struct jparser *p, const char *const *ends)
{
    struct jnode *n = jp_node(p, N_BODY, p->tok);
    struct jkids kids = {0};
    while (!p->rc && p->tok->kind != T_EOF) {
        if (p->tok->kind == T_DATA) {
            struct jnode *data = jp_node(p, N_DATA, p->tok);
            data->value = p->tok->value;
            jp_next(p);
            jp_push(p, &kids, jp_done(p, data));
        } else if (p->tok->kind == T_VAR_BEGIN) {
            jp_push(p, &kids, parse_print_tag(p));
        } else {
            jp_next(p); /* T_BLOCK_BEGIN: the lexer gives nothing else here */
            if (at_end(p, ends))
                break;
            jp_push(p, &kids, parse_statement(p));
            if (p->tok->kind != T_BLOCK_END)
                jp_unexpected(p, "end of statement block");
            jp_next(p);
        }
    }
    if (ends && p->tok->kind == T_EOF)
        jp_fail(p, p->tok, "unexpected end of template, looking for '%s'", ends[0]);
    jp_set_kids(n, &kids);
    return jp_done(p, n);
}

int jinja_parse(struct jinja *t, const struct jtoks *toks, struct err *err)
{
    struct jparser p = {.t = t, .tok = toks->v, .end = toks->v + toks->n - 1, .err = err};
    t->id_caller = jp_name_id(&p, JLIT("caller"));
    t->id_varargs = jp_name_id(&p, JLIT("varargs"));
    t->id_kwargs = jp_name_id(&p, JLIT("kwargs"));
    t->id_loop = jp_name_id(&p, JLIT("loop"));
    const struct jnode *root = parse_until(&p, NULL);
    if (p.rc)
        return p.rc;
    t->root = root;
    t->name = p.name;
    t->n_name = p.n_name;
    return 0;
}
