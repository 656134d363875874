/* jinja_iter: one way to walk everything that can be walked. */
#include "model/jinja_run.h"
#include "model/jinja_text.h"

bool j_iterable(struct jval v)
{
    switch (v.type) {
    case J_UNDEF:
    case J_STR:
    case J_LIST:
    case J_TUPLE:
    case J_DICT:
    case J_VIEW:
    case J_RANGE:
    case J_ITER:
        return true;
    default:
        return false;
    }
}

bool jcursor_init(struct jrun *r, struct jcursor *c, struct jval v)
{
    *c = (struct jcursor){.src = v};
    if (!j_iterable(v))
        j_fail(r, "'%s' object is not iterable", j_type_name(v));
    return r->rc == 0;
}

struct jval jrange_at(const struct jrange *range, size_t i)
{
    return JINT(range->start + (int64_t)i * range->step);
}

static bool dict_next(struct jrun *r, struct jcursor *c, struct jval *out)
{
    const struct jdict *d = c->src.dict;
    if (c->pos >= d->n)
        return false;
    const struct jpair *kv = &d->kv[c->pos++];
    if (c->src.type == J_DICT || c->src.flag == VIEW_KEYS) {
        *out = kv->key;
    } else if (c->src.flag == VIEW_VALUES) {
        *out = kv->value;
    } else {
        struct jlist *pair = jlist_new(r, 2);
        if (!jlist_push(r, pair, kv->key) || !jlist_push(r, pair, kv->value))
            return false;
        *out = JTUPLE(pair);
    }
    return true;
}

static bool list_next(const struct jlist *l, size_t *pos, struct jval *out)
{
    if (*pos >= l->n)
        return false;
    *out = l->v[(*pos)++];
    return true;
}

bool jcursor_next(struct jrun *r, struct jcursor *c, struct jval *out)
{
    if (!j_step(r, 0))
        return false;
    switch (c->src.type) {
    case J_LIST:
    case J_TUPLE:
        return list_next(c->src.list, &c->pos, out);
    case J_ITER:
        return list_next(c->src.iter->list, &c->src.iter->pos, out);
    case J_DICT:
    case J_VIEW:
        return dict_next(r, c, out);
    case J_RANGE:
        if (c->pos >= c->src.range->n)
            return false;
        *out = jrange_at(c->src.range, c->pos++);
        return true;
    case J_STR: {
        size_t from = c->pos;
        if (from >= c->src.n)
            return false;
        text_next(c->src.s, c->src.n, &c->pos);
        *out = JSTR(c->src.s + from, c->pos - from);
        return true;
    }
    default:
        return false;
    }
}

struct jlist *j_to_list(struct jrun *r, struct jval v)
{
    struct jcursor c;
    struct jlist *l = jlist_new(r, 0);
    struct jval item;
    if (!jcursor_init(r, &c, v))
        return NULL;
    while (jcursor_next(r, &c, &item))
        jlist_push(r, l, item);
    return r->rc ? NULL : l;
}
