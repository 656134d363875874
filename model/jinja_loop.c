/* jinja_loop: for, and what `loop` knows in it. As in Jinja2 an item is fetched (and its filter
 * evaluated) when the loop comes to it, or one before where the body asks for loop.last or
 * loop.nextitem, or all where it asks for loop.length. */
#include "model/jinja_methods.h"
#include "model/jinja_run.h"

#include <string.h>

struct jloop {
    const struct jnode *node;
    struct jscope *scope;  /* outside of the loop */
    struct jscope *filter; /* where the filter sees the target */
    struct jcursor from;
    bool filtered;
    struct jval before, current, after;
    bool has_before, has_after, ended;
    int64_t index0, length; /* length -1: not asked for */
    int depth0;
    struct jlist *changed; /* what loop.changed saw last */
};

/* passes evaluates the filter of the loop for one item. */
static bool passes(struct jrun *r, struct jloop *l, struct jval item)
{
    if (!l->filtered)
        return true;
    struct jscope *inner = r->scope;
    r->scope = l->filter;
    j_assign(r, l->node->a, item);
    bool holds = j_truth(j_eval(r, l->node->d));
    r->scope = inner;
    return holds && !r->rc;
}

static bool fetch(struct jrun *r, struct jloop *l, struct jval *out)
{
    while (!l->ended && jcursor_next(r, &l->from, out)) {
        if (passes(r, l, *out))
            return true;
        if (r->rc)
            break;
    }
    l->ended = true;
    return false;
}

static bool peek(struct jrun *r, struct jloop *l)
{
    if (!l->has_after)
        l->has_after = fetch(r, l, &l->after);
    return l->has_after;
}

static int64_t length(struct jrun *r, struct jloop *l)
{
    if (l->length >= 0)
        return l->length;
    struct jlist *rest = jlist_new(r, 0);
    struct jval item;
    while (fetch(r, l, &item))
        jlist_push(r, rest, item);
    if (r->rc)
        return 0;
    l->from = (struct jcursor){.src = JLIST(rest)};
    l->filtered = l->ended = false;
    l->length = l->index0 + 1 + l->has_after + (int64_t)rest->n;
    return l->length;
}

static struct jval loop_cycle(struct jrun *r, struct jval self, const struct jargs *args)
{
    if (!args->n_pos) {
        j_fail(r, "no items for cycling given");
        return JUNDEF;
    }
    return args->pos[(size_t)self.loop->index0 % args->n_pos];
}

static struct jval loop_changed(struct jrun *r, struct jval self, const struct jargs *args)
{
    struct jlist *now = jlist_new(r, args->n_pos), *last = self.loop->changed;
    for (size_t i = 0; i < args->n_pos; i++)
        jlist_push(r, now, args->pos[i]);
    bool same = last && now && j_equal(r, JTUPLE(last), JTUPLE(now));
    if (!same)
        self.loop->changed = now;
    return JBOOL(!same);
}

static struct jval bound(struct jrun *r, struct jloop *l, const struct jfunc *f)
{
    struct jmethod *m = j_alloc(r, 1, sizeof *m);
    if (!m)
        return JUNDEF;
    *m = (struct jmethod){{.type = J_LOOP, .loop = l}, f};
    return (struct jval){.type = J_METHOD, .method = m};
}

struct jval jloop_attr(struct jrun *r, struct jloop *l, const char *s, size_t n, bool *found)
{
    static const char *const names[] = {"index",  "index0", "revindex", "revindex0", "first",
                                        "last",   "length", "previtem", "nextitem",  "depth",
                                        "depth0", "cycle",  "changed"};
    static const struct jfunc cycle = {"cycle", loop_cycle}, changed = {"changed", loop_changed};
    size_t i = 0;
    while (i < sizeof names / sizeof *names &&
           !(strlen(names[i]) == n && memcmp(names[i], s, n) == 0))
        i++;
    *found = i < sizeof names / sizeof *names;
    switch (i) {
    case 0:
        return JINT(l->index0 + 1);
    case 1:
        return JINT(l->index0);
    case 2:
        return JINT(length(r, l) - l->index0);
    case 3:
        return JINT(length(r, l) - l->index0 - 1);
    case 4:
        return JBOOL(l->index0 == 0);
    case 5:
        return JBOOL(!peek(r, l));
    case 6:
        return JINT(length(r, l));
    case 7:
        return l->has_before ? l->before : j_undef_hint(r, "there is no previous item");
    case 8:
        return peek(r, l) ? l->after : j_undef_hint(r, "there is no next item");
    case 9:
        return JINT(l->depth0 + 1);
    case 10:
        return JINT(l->depth0);
    case 11:
        return bound(r, l, &cycle);
    case 12:
        return bound(r, l, &changed);
    default:
        return JUNDEF;
    }
}

static bool advance(struct jrun *r, struct jloop *l)
{
    struct jval item;
    if (l->has_after)
        item = l->after;
    else if (!fetch(r, l, &item))
        return false;
    l->has_after = false;
    l->before = l->current;
    l->has_before = l->index0 >= 0;
    l->current = item;
    l->index0++;
    return true;
}

static struct jloop *loop_new(struct jrun *r, const struct jnode *n)
{
    struct jloop *l = j_alloc(r, 1, sizeof *l);
    struct jscope *filter = j_alloc(r, 1, sizeof *filter);
    if (!l || !filter)
        return NULL;
    *filter = (struct jscope){.parent = r->scope};
    *l = (struct jloop){.node = n,
                        .scope = r->scope,
                        .filter = filter,
                        .filtered = n->d != NULL,
                        .index0 = -1,
                        .length = -1};
    return l;
}

enum jflow j_exec_for(struct jrun *r, const struct jnode *n)
{
    struct jval source = j_eval(r, n->b);
    struct jloop *l = r->rc ? NULL : loop_new(r, n);
    struct jscope *inner = l ? j_alloc(r, 1, sizeof *inner) : NULL;
    if (!inner || !jcursor_init(r, &l->from, source))
        return FLOW_NEXT;
    *inner = (struct jscope){.parent = l->scope};
    while (advance(r, l)) {
        inner->n = 0; /* what an iteration sets is gone in the next */
        r->scope = inner;
        jscope_set(r, inner, r->t->id_loop, (struct jval){.type = J_LOOP, .loop = l});
        j_assign(r, n->a, l->current);
        enum jflow flow = r->rc ? FLOW_BREAK : j_exec(r, n->kids[0]);
        r->scope = l->scope;
        if (flow == FLOW_BREAK || r->rc)
            break;
    }
    if (l->index0 < 0 && n->c && !r->rc)
        return j_exec(r, n->c);
    return FLOW_NEXT;
}
