/* jinja_eval: what an expression means. */
#include "model/jinja_run.h"

#include <string.h>

static struct jval eval_node(struct jrun *r, const struct jnode *n);

struct jval j_eval(struct jrun *r, const struct jnode *n)
{
    struct jval v = JUNDEF;
    if (!j_step(r, 0))
        return v;
    r->line = n->line;
    if (++r->nest > JRUN_NEST_MAX)
        j_limit(r, "evaluation nested more than %d deep", JRUN_NEST_MAX);
    else
        v = eval_node(r, n);
    r->nest--;
    return r->rc ? JUNDEF : v;
}

static struct jval eval_name(struct jrun *r, const struct jnode *n)
{
    for (const struct jscope *s = r->scope; s; s = s->parent) {
        for (uint32_t i = 0; i < s->n; i++) {
            if (s->var[i].id == n->id)
                return s->var[i].v;
        }
    }
    if (r->ctx[n->id].type != J_TYPE_COUNT)
        return r->ctx[n->id];
    const struct jfunc *f = j_find_global(n->value.s, n->value.n);
    if (f)
        return (struct jval){.type = J_FUNC, .func = f};
    return j_undef_name(r, n->value.s, n->value.n);
}

static struct jval eval_list(struct jrun *r, const struct jnode *n)
{
    struct jlist *l = jlist_new(r, n->n_kid);
    for (uint32_t i = 0; i < n->n_kid && !r->rc; i++)
        jlist_push(r, l, j_eval(r, n->kids[i]));
    return r->rc ? JUNDEF : (struct jval){.type = n->kind == N_LIST ? J_LIST : J_TUPLE, .list = l};
}

static struct jval eval_dict(struct jrun *r, const struct jnode *n)
{
    struct jdict *d = jdict_new(r, n->n_kid / 2);
    for (uint32_t i = 0; i + 1 < n->n_kid && !r->rc; i += 2) {
        struct jval key = j_eval(r, n->kids[i]);
        jdict_set(r, d, key, j_eval(r, n->kids[i + 1]));
    }
    return r->rc ? JUNDEF : JDICT(d);
}

bool j_eval_args(struct jrun *r, const struct jnode *n, struct jargs *args)
{
    *args = (struct jargs){0};
    args->pos = j_alloc(r, n->n_kid, sizeof *args->pos);
    args->kw = j_alloc(r, n->n_kid + 1, sizeof *args->kw);
    for (uint32_t i = 0; i < n->n_kid && !r->rc; i++) {
        const struct jnode *kid = n->kids[i];
        if (kid->kind != N_KEYWORD) {
            args->pos[args->n_pos++] = j_eval(r, kid);
            continue;
        }
        for (size_t k = 0; k < args->n_kw; k++) {
            if (j_is_str(kid->value, args->kw[k].name.s, args->kw[k].name.n))
                j_fail(r, "keyword argument repeated: %.*s", (int)kid->value.n, kid->value.s);
        }
        args->kw[args->n_kw++] = (struct jkw){kid->value, j_eval(r, kid->a)};
    }
    return r->rc == 0;
}

struct jval j_call(struct jrun *r, struct jval f, const struct jargs *args)
{
    switch (r->rc ? J_TYPE_COUNT : (enum jtype)f.type) {
    case J_MACRO:
        return j_call_macro(r, f.macro, args);
    case J_FUNC:
        return f.func->fn(r, JNONE, args);
    case J_METHOD:
        return f.method->func->fn(r, f.method->self, args);
    case J_JOINER:
        if (f.cycler->pos++ == 0)
            return JLIT("");
        return f.cycler->items->v[0];
    case J_UNDEF:
        j_undef_raise(r, f);
        return JUNDEF;
    case J_TYPE_COUNT:
        return JUNDEF;
    default:
        j_fail(r, "'%s' object is not callable", j_type_name(f));
        return JUNDEF;
    }
}

static struct jval eval_call(struct jrun *r, const struct jnode *n)
{
    struct jargs args;
    struct jval f = j_eval(r, n->a);
    if (r->rc || !j_eval_args(r, n, &args))
        return JUNDEF;
    r->line = n->line;
    return j_call(r, f, &args);
}

/* eval_applied: a filter or a test. */
static struct jval eval_applied(struct jrun *r, const struct jnode *n, struct jval self)
{
    struct jargs args;
    if (!n->func) {
        j_fail(r, "No %s named '%.*s' found.", n->kind == N_TEST ? "test" : "filter",
               (int)(n->value.n < 99 ? n->value.n : 99), n->value.s);
        return JUNDEF;
    }
    if (!j_eval_args(r, n, &args))
        return JUNDEF;
    r->line = n->line;
    return n->func->fn(r, self, &args);
}

struct jval j_eval_filter(struct jrun *r, const struct jnode *n, struct jval piped)
{
    if (!n)
        return piped;
    struct jval outer = r->piped;
    r->piped = piped;
    struct jval v = j_eval(r, n);
    r->piped = outer;
    return v;
}

static struct jval eval_compare(struct jrun *r, const struct jnode *n)
{
    struct jval left = j_eval(r, n->a);
    bool holds = true;
    for (uint32_t i = 0; i < n->n_kid && holds && !r->rc; i++) {
        struct jval right = j_eval(r, n->kids[i]->a);
        holds = !r->rc && j_compare_op(r, (enum jop)n->kids[i]->op, left, right);
        left = right;
    }
    return JBOOL(holds);
}

static struct jval eval_concat(struct jrun *r, const struct jnode *n)
{
    struct jval sum = j_to_str(r, j_eval(r, n->kids[0]));
    for (uint32_t i = 1; i < n->n_kid && !r->rc; i++)
        sum = j_concat(r, sum, j_eval(r, n->kids[i]));
    sum.flag = 0;
    return sum;
}

static struct jval eval_item(struct jrun *r, const struct jnode *n)
{
    struct jval v = j_eval(r, n->a);
    if (n->b->kind != N_SLICE)
        return j_getitem(r, v, j_eval(r, n->b));
    const struct jnode *const bound[] = {n->b->a, n->b->b, n->b->c};
    struct jval part[3] = {JNONE, JNONE, JNONE};
    for (int i = 0; i < 3 && !r->rc; i++) {
        if (bound[i])
            part[i] = j_eval(r, bound[i]);
    }
    return r->rc ? JUNDEF : j_slice(r, v, part);
}

static struct jval eval_cond(struct jrun *r, const struct jnode *n)
{
    if (j_truth(j_eval(r, n->a)))
        return j_eval(r, n->b);
    if (n->c)
        return j_eval(r, n->c);
    struct jbuf b = {0};
    jbuf_puts(r, &b, "the inline if-expression on line ");
    j_repr(r, &b, JINT(n->line));
    jbuf_puts(r, &b, " evaluated to false and no else section was defined.");
    jbuf_put(r, &b, "", 1);
    return r->rc ? JUNDEF : j_undef_hint(r, b.p);
}

static struct jval eval_binary(struct jrun *r, const struct jnode *n)
{
    struct jval a = j_eval(r, n->a), b = j_eval(r, n->b);
    r->line = n->line;
    return j_binary(r, (enum jop)n->op, a, b);
}

/* eval_either: `and` and `or` give one of their operands. */
static struct jval eval_either(struct jrun *r, const struct jnode *n)
{
    struct jval a = j_eval(r, n->a);
    return j_truth(a) == (n->kind == N_OR) ? a : j_eval(r, n->b);
}

static struct jval eval_node(struct jrun *r, const struct jnode *n)
{
    switch (n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return eval_name(r, n);
    case N_TUPLE:
    case N_LIST:
        return eval_list(r, n);
    case N_DICT:
        return eval_dict(r, n);
    case N_GETATTR:
        return j_getattr(r, j_eval(r, n->a), n->value);
    case N_GETITEM:
        return eval_item(r, n);
    case N_CALL:
        return eval_call(r, n);
    case N_FILTER:
        return eval_applied(r, n, n->a ? j_eval(r, n->a) : r->piped);
    case N_TEST:
        return eval_applied(r, n, j_eval(r, n->a));
    case N_NOT:
        return JBOOL(!j_truth(j_eval(r, n->a)));
    case N_NEG:
        return j_neg(r, j_eval(r, n->a));
    case N_POS:
        return j_pos(r, j_eval(r, n->a));
    case N_AND:
    case N_OR:
        return eval_either(r, n);
    case N_BINARY:
        return eval_binary(r, n);
    case N_CONCAT:
        return eval_concat(r, n);
    case N_COMPARE:
        return eval_compare(r, n);
    case N_COND:
        return eval_cond(r, n);
    default:
        j_fail(r, "an expression of kind %d cannot stand here", n->kind);
        return JUNDEF;
    }
}
