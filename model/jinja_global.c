/* jinja_global: the functions that every template can call. */
#include "model/jinja_run.h"

#define RANGE_MAX 100000 /* of Jinja2's sandbox */

/* range_length: how many numbers lie in [start, stop) by step; false when more than the sandbox
 * lets. */
static bool range_length(struct jrange *g)
{
    __extension__ typedef __int128 wide;
    wide span = g->step > 0 ? (wide)g->stop - g->start : (wide)g->start - g->stop;
    wide step = g->step > 0 ? (wide)g->step : -(wide)g->step;
    wide n = span > 0 ? (span - 1) / step + 1 : 0;
    g->n = n > RANGE_MAX ? 0 : (size_t)n;
    return n <= RANGE_MAX;
}

static struct jval g_range(struct jrun *r, struct jval self, const struct jargs *args)
{
    int64_t v[3] = {0, 0, 1};
    (void)self;
    if (args->n_kw)
        j_fail(r, "range() takes no keyword arguments");
    else if (!args->n_pos)
        j_fail(r, "range expected at least 1 argument, got 0");
    else if (args->n_pos > 3)
        j_fail(r, "range expected at most 3 arguments, got %zu", args->n_pos);
    if (r->rc)
        return JUNDEF;
    for (size_t i = 0; i < args->n_pos; i++) {
        if (!j_want_int(r, args->pos[i], &v[args->n_pos == 1 ? 1 : i]))
            return JUNDEF;
    }
    struct jrange *g = j_alloc(r, 1, sizeof *g);
    if (v[2] == 0)
        j_fail(r, "range() arg 3 must not be zero");
    if (r->rc)
        return JUNDEF;
    *g = (struct jrange){v[0], v[1], v[2], 0};
    if (!range_length(g)) {
        j_fail(r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
               RANGE_MAX);
        return JUNDEF;
    }
    return (struct jval){.type = J_RANGE, .range = g};
}

/* fill_pairs: dict(pairs). */
static void fill_pairs(struct jrun *r, struct jdict *d, struct jval pairs)
{
    struct jcursor c;
    struct jval item;
    if (!jcursor_init(r, &c, pairs))
        return;
    for (size_t i = 0; jcursor_next(r, &c, &item); i++) {
        struct jlist *pair = j_iterable(item) ? j_to_list(r, item) : NULL;
        if (!pair)
            j_fail(r, "cannot convert dictionary update sequence element #%zu to a sequence", i);
        else if (pair->n != 2)
            j_fail(r, "dictionary update sequence element #%zu has length %zu; 2 is required", i,
                   pair->n);
        else
            jdict_set(r, d, pair->v[0], pair->v[1]);
    }
}

static struct jdict *dict_of(struct jrun *r, const struct jargs *args)
{
    struct jdict *d = jdict_new(r, args->n_kw);
    if (args->n_pos > 1)
        j_fail(r, "dict expected at most 1 argument, got %zu", args->n_pos);
    if (r->rc)
        return NULL;
    if (args->n_pos && args->pos[0].type == J_DICT) {
        const struct jdict *from = args->pos[0].dict;
        for (size_t i = 0; i < from->n && !r->rc; i++)
            jdict_set(r, d, from->kv[i].key, from->kv[i].value);
    } else if (args->n_pos) {
        fill_pairs(r, d, args->pos[0]);
    }
    for (size_t i = 0; i < args->n_kw && !r->rc; i++)
        jdict_set(r, d, args->kw[i].name, args->kw[i].value);
    return r->rc ? NULL : d;
}

static struct jval g_dict(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jdict *d = dict_of(r, args);
    (void)self;
    return d ? JDICT(d) : JUNDEF;
}

static struct jval g_namespace(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jdict *d = dict_of(r, args);
    (void)self;
    return d ? (struct jval){.type = J_NS, .dict = d} : JUNDEF;
}

static struct jval stateful(struct jrun *r, enum jtype type, struct jlist *items)
{
    struct jcycler *c = j_alloc(r, 1, sizeof *c);
    if (!c || !items)
        return JUNDEF;
    *c = (struct jcycler){.items = items};
    return (struct jval){.type = (uint8_t)type, .cycler = c};
}

static struct jval g_cycler(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jlist *items = jlist_new(r, args->n_pos);
    (void)self;
    if (!args->n_pos)
        j_fail(r, "at least one item has to be provided");
    for (size_t i = 0; i < args->n_pos; i++)
        jlist_push(r, items, args->pos[i]);
    return r->rc ? JUNDEF : stateful(r, J_CYCLER, items);
}

static struct jval g_joiner(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"sep", NULL};
    struct jval sep = JLIT(", ");
    struct jlist *items = jlist_new(r, 1);
    (void)self;
    if (!jargs_bind(r, args, "joiner()", names, 0, &sep) || !jlist_push(r, items, sep))
        return JUNDEF;
    return stateful(r, J_JOINER, items);
}

static struct jval g_raise(struct jrun *r, struct jval self, const struct jargs *args)
{
    static const char *const names[] = {"message", NULL};
    struct jval message;
    (void)self;
    if (!jargs_bind(r, args, "raise_exception()", names, 1, &message))
        return JUNDEF;
    struct jval text = j_to_str(r, message);
    j_fail(r, "%.*s", (int)(text.n < 800 ? text.n : 800), text.s);
    return JUNDEF;
}

const struct jfunc *j_find_global(const char *s, size_t n)
{
    static const struct jfunc table[] = {{"range", g_range},
                                         {"dict", g_dict},
                                         {"namespace", g_namespace},
                                         {"cycler", g_cycler},
                                         {"joiner", g_joiner},
                                         {"raise_exception", g_raise},
                                         {"strftime_now", j_strftime_now},
                                         {NULL, NULL}};
    return j_find_in(table, s, n);
}
