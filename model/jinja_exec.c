/* jinja_exec: what a statement does: write text, set variables, call. Bodies that Jinja2 turns into
 * functions (macros, blocks that are captured) get a scope of their own; if does not. */
#include "model/jinja_run.h"

#include <string.h>

bool jscope_set(struct jrun *r, struct jscope *s, uint32_t id, struct jval v)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->var[i].id == id) {
            s->var[i].v = v;
            return true;
        }
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? 2 * s->cap : 4;
        struct jvar *var = j_alloc(r, cap, sizeof *var);
        if (!var)
            return false;
        if (s->n)
            memcpy(var, s->var, s->n * sizeof *var);
        s->var = var;
        s->cap = cap;
    }
    s->var[s->n++] = (struct jvar){id, v};
    return true;
}

static struct jscope *scope_new(struct jrun *r, struct jscope *parent)
{
    struct jscope *s = j_alloc(r, 1, sizeof *s);
    if (s)
        *s = (struct jscope){.parent = parent};
    return s;
}

static void assign_tuple(struct jrun *r, const struct jnode *target, struct jval v)
{
    if (!j_iterable(v)) {
        j_fail(r, "cannot unpack non-iterable %s object", j_type_name(v));
        return;
    }
    struct jcursor c;
    struct jlist *l = jlist_new(r, target->n_kid);
    struct jval item;
    if (!jcursor_init(r, &c, v))
        return;
    while (jcursor_next(r, &c, &item)) {
        if (l->n == target->n_kid) {
            j_fail(r, "too many values to unpack (expected %u)", target->n_kid);
            return;
        }
        jlist_push(r, l, item);
    }
    if (!r->rc && l->n < target->n_kid)
        j_fail(r, "not enough values to unpack (expected %u, got %zu)", target->n_kid, l->n);
    for (uint32_t i = 0; i < target->n_kid && !r->rc; i++)
        j_assign(r, target->kids[i], l->v[i]);
}

void j_assign(struct jrun *r, const struct jnode *target, struct jval v)
{
    if (r->rc)
        return;
    if (target->kind == N_TUPLE) {
        assign_tuple(r, target, v);
    } else if (target->kind == N_NSREF) {
        struct jval ns = j_eval(r, target->a);
        if (r->rc)
            return;
        if (ns.type != J_NS)
            j_fail(r, "cannot assign attribute on non-namespace object");
        else
            jdict_set(r, ns.dict, target->value, v);
    } else {
        jscope_set(r, r->scope, target->id, v);
    }
}

/* captured runs a body in a scope of its own and returns what it writes. */
static struct jval captured(struct jrun *r, const struct jnode *body, struct jscope *scope)
{
    struct jbuf text = {0}, *out = r->out;
    struct jscope *outer = r->scope;
    if (!scope)
        return JUNDEF;
    r->out = &text;
    r->scope = scope;
    j_exec(r, body);
    r->scope = outer;
    r->out = out;
    return r->rc ? JUNDEF : jbuf_take(&text);
}

static struct jval keyword(const struct jargs *args, struct jval name, bool *used)
{
    for (size_t i = 0; i < args->n_kw; i++) {
        if (j_is_str(args->kw[i].name, name.s, name.n)) {
            used[i] = true;
            return args->kw[i].value;
        }
    }
    return (struct jval){.type = J_TYPE_COUNT};
}

static struct jval missing_param(struct jrun *r, struct jval name)
{
    struct jbuf b = {0};
    jbuf_puts(r, &b, "parameter ");
    j_repr(r, &b, name);
    jbuf_puts(r, &b, " was not provided");
    jbuf_put(r, &b, "", 1);
    return r->rc ? JUNDEF : j_undef_hint(r, b.p);
}

/* bind_special: caller, varargs and kwargs exist where the body uses them; else what is left over
 * is an error. */
static void bind_special(struct jrun *r, const struct jmacro *m, const struct jargs *args,
                         struct jscope *s, bool *used)
{
    const struct jnode *n = m->node;
    struct jval name = n->value.type == J_STR ? n->value : JLIT("None");
    const char *quote = n->value.type == J_STR ? "'" : "";
    if (n->uses_caller) {
        struct jval caller = keyword(args, JLIT("caller"), used);
        jscope_set(r, s, r->t->id_caller,
                   caller.type == J_TYPE_COUNT ? j_undef_hint(r, "No caller defined") : caller);
    }
    struct jdict *rest = n->uses_kwargs ? jdict_new(r, 0) : NULL;
    for (size_t i = 0; i < args->n_kw && !r->rc; i++) {
        if (used[i])
            continue;
        if (rest)
            jdict_set(r, rest, args->kw[i].name, args->kw[i].value);
        else
            j_fail(r, "macro %s%.*s%s takes no keyword argument '%.*s'", quote, (int)name.n, name.s,
                   quote, (int)args->kw[i].name.n, args->kw[i].name.s);
    }
    if (rest)
        jscope_set(r, s, r->t->id_kwargs, JDICT(rest));
    if (n->uses_varargs) {
        struct jlist *l = jlist_new(r, 0);
        for (size_t i = n->n_param; i < args->n_pos; i++)
            jlist_push(r, l, args->pos[i]);
        jscope_set(r, s, r->t->id_varargs, JTUPLE(l));
    } else if (args->n_pos > n->n_param) {
        j_fail(r, "macro %s%.*s%s takes not more than %u argument(s)", quote, (int)name.n, name.s,
               quote, n->n_param);
    }
}

static void bind_params(struct jrun *r, const struct jmacro *m, const struct jargs *args,
                        struct jscope *s)
{
    bool *used = j_alloc(r, args->n_kw + 1, sizeof *used);
    uint32_t n = m->node->n_param;
    struct jval *given = j_alloc(r, n, sizeof *given);
    struct jscope *outer = r->scope;
    if (!s || !used || !given)
        return;
    memset(used, 0, (args->n_kw + 1) * sizeof *used);
    for (uint32_t i = 0; i < n; i++)
        given[i] =
            i < args->n_pos ? args->pos[i] : keyword(args, m->node->params[i].name->value, used);
    bind_special(r, m, args, s, used);
    r->scope = s; /* a default sees the parameters before it */
    for (uint32_t i = 0; i < n && !r->rc; i++) {
        const struct jparam *p = &m->node->params[i];
        if (given[i].type == J_TYPE_COUNT)
            given[i] = p->fallback ? j_eval(r, p->fallback) : missing_param(r, p->name->value);
        jscope_set(r, s, p->name->id, given[i]);
    }
    r->scope = outer;
}

struct jval j_call_macro(struct jrun *r, const struct jmacro *m, const struct jargs *args)
{
    struct jval text = JUNDEF;
    if (++r->depth > r->depth_max) {
        j_limit(r, "macros called more than %d deep", r->depth_max);
    } else {
        struct jscope *s = scope_new(r, m->scope);
        bind_params(r, m, args, s);
        if (!r->rc)
            text = captured(r, m->node->c, s);
    }
    r->depth--;
    return text;
}

static struct jval macro_value(struct jrun *r, const struct jnode *n)
{
    struct jmacro *m = j_alloc(r, 1, sizeof *m);
    if (!m)
        return JUNDEF;
    *m = (struct jmacro){n, r->scope};
    return (struct jval){.type = J_MACRO, .macro = m};
}

/* exec_call: {% call f(x) %}body{% endcall %} is f(x, caller=body). */
static void exec_call(struct jrun *r, const struct jnode *n)
{
    struct jval f = j_eval(r, n->a->a), caller = macro_value(r, n);
    struct jargs args;
    if (r->rc || !j_eval_args(r, n->a, &args))
        return;
    args.kw[args.n_kw++] = (struct jkw){JLIT("caller"), caller};
    j_write(r, r->out, j_call(r, f, &args));
}

static enum jflow exec_with(struct jrun *r, const struct jnode *n)
{
    struct jscope *s = scope_new(r, r->scope), *outer = r->scope;
    for (uint32_t i = 0; i + 1 < n->n_kid && s && !r->rc; i += 2) {
        struct jval v = j_eval(r, n->kids[i + 1]); /* values are of the scope outside */
        jscope_set(r, s, n->kids[i]->id, v);
    }
    if (r->rc)
        return FLOW_NEXT;
    r->scope = s;
    enum jflow flow = j_exec(r, n->c);
    r->scope = outer;
    return flow;
}

static enum jflow exec_if(struct jrun *r, const struct jnode *n)
{
    for (uint32_t i = 0; i + 1 < n->n_kid && !r->rc; i += 2) {
        if (j_truth(j_eval(r, n->kids[i])))
            return r->rc ? FLOW_NEXT : j_exec(r, n->kids[i + 1]);
    }
    return n->c && !r->rc ? j_exec(r, n->c) : FLOW_NEXT;
}

static enum jflow exec_node(struct jrun *r, const struct jnode *n)
{
    switch (n->kind) {
    case N_DATA:
        jbuf_put(r, r->out, n->value.s, n->value.n);
        return FLOW_NEXT;
    case N_PRINT:
        j_write(r, r->out, j_eval(r, n->a));
        return FLOW_NEXT;
    case N_BODY: {
        enum jflow flow = FLOW_NEXT;
        for (uint32_t i = 0; i < n->n_kid && flow == FLOW_NEXT && !r->rc; i++)
            flow = j_exec(r, n->kids[i]);
        return flow;
    }
    case N_IF:
        return exec_if(r, n);
    case N_FOR:
        return j_exec_for(r, n);
    case N_SET:
        j_assign(r, n->a, j_eval(r, n->b));
        return FLOW_NEXT;
    case N_SETBLOCK:
        j_assign(r, n->a, j_eval_filter(r, n->b, captured(r, n->c, scope_new(r, r->scope))));
        return FLOW_NEXT;
    case N_MACRO:
        jscope_set(r, r->scope, n->id, macro_value(r, n));
        return FLOW_NEXT;
    case N_CALLBLOCK:
        exec_call(r, n);
        return FLOW_NEXT;
    case N_FILTERBLOCK:
        j_write(r, r->out, j_eval_filter(r, n->b, captured(r, n->c, scope_new(r, r->scope))));
        return FLOW_NEXT;
    case N_WITH:
        return exec_with(r, n);
    case N_SCOPED:
        j_write(r, r->out, captured(r, n->c, scope_new(r, r->scope)));
        return FLOW_NEXT;
    case N_BREAK:
        return FLOW_BREAK;
    case N_CONTINUE:
        return FLOW_CONTINUE;
    default:
        j_fail(r, "a statement of kind %d cannot stand here", n->kind);
        return FLOW_NEXT;
    }
}

enum jflow j_exec(struct jrun *r, const struct jnode *n)
{
    enum jflow flow = FLOW_NEXT;
    if (!j_step(r, 0))
        return flow;
    r->line = n->line;
    if (++r->nest > JRUN_NEST_MAX)
        j_limit(r, "evaluation nested more than %d deep", JRUN_NEST_MAX);
    else
        flow = exec_node(r, n);
    r->nest--;
    return flow;
}
