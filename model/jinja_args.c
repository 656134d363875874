/* jinja_args: putting the arguments of a call in the order of a function's parameters. */
#include "model/jinja_run.h"

#include <string.h>

bool jargs_bind(struct jrun *r, const struct jargs *args, const char *what,
                const char *const *names, size_t n_required, struct jval *out)
{
    size_t n = 0;
    uint64_t given = 0;
    while (names[n])
        n++;
    if (args->n_pos > n) {
        j_fail(r, "%s takes at most %zu arguments (%zu given)", what, n, args->n_pos);
        return false;
    }
    for (size_t i = 0; i < args->n_pos; i++) {
        out[i] = args->pos[i];
        given |= (uint64_t)1 << i;
    }
    for (size_t k = 0; k < args->n_kw; k++) {
        size_t i = 0;
        while (i < n && !j_is_str(args->kw[k].name, names[i], strlen(names[i])))
            i++;
        int len = (int)(args->kw[k].name.n < 100 ? args->kw[k].name.n : 100);
        if (i == n || (given >> i & 1)) {
            j_fail(r,
                   i == n ? "%s got an unexpected keyword argument '%.*s'"
                          : "%s got multiple values for argument '%.*s'",
                   what, len, args->kw[k].name.s);
            return false;
        }
        out[i] = args->kw[k].value;
        given |= (uint64_t)1 << i;
    }
    for (size_t i = 0; i < n_required; i++) {
        if (!(given >> i & 1)) {
            j_fail(r, "%s is missing the argument '%s'", what, names[i]);
            return false;
        }
    }
    return r->rc == 0;
}

bool j_want_str(struct jrun *r, struct jval v, const char *what)
{
    if (v.type == J_STR)
        return r->rc == 0;
    if (v.type == J_UNDEF)
        j_undef_raise(r, v);
    else
        j_fail(r, "%s must be str, not %s", what, j_type_name(v));
    return false;
}

bool j_want_int(struct jrun *r, struct jval v, int64_t *out)
{
    *out = v.i;
    if (j_is_int(v))
        return r->rc == 0;
    *out = 0;
    if (v.type == J_UNDEF)
        j_undef_raise(r, v);
    else
        j_fail(r, "'%s' object cannot be interpreted as an integer", j_type_name(v));
    return false;
}

const struct jfunc *j_find_in(const struct jfunc *table, const char *s, size_t n)
{
    for (; table->name; table++) {
        if (strlen(table->name) == n && memcmp(table->name, s, n) == 0)
            return table;
    }
    return NULL;
}
