/* place_domain: the experts that one domain of traffic uses most lie on as few workers as possible,
 * so that a request of the domain talks to few of them. An expert belongs to the domain of which it
 * gets the largest part; the experts, sorted by domain and then by load, are dealt out in runs. No
 * copies are made, and a domain that is in demand makes its workers hot: what it buys is fewer
 * messages, and groups that can be drained or scaled by domain. */
#include "base/limits.h"
#include "router/balance_table.h"
#include "router/place.h"

struct belonging {
    int domain;
    double load;
};

/* belong: the domain with the largest part of its own load on this expert. */
static void belong(const struct balance_input *in, const double *domain_sum, int layer, int expert,
                   struct belonging *out)
{
    size_t cells = (size_t)in->n_layer * (size_t)in->n_expert;
    size_t at = (size_t)layer * (size_t)in->n_expert + (size_t)expert;
    double most = -1;
    *out = (struct belonging){0, in->load[at]};
    for (int d = 0; d < in->n_domain; d++) {
        double load = in->domain_load[(size_t)d * cells + at];
        double part = domain_sum[d] > 0 ? load / domain_sum[d] : 0;
        if (part > most) {
            most = part;
            out->domain = d;
        }
    }
}

static int before(const struct belonging *a, const struct belonging *b)
{
    return a->domain < b->domain || (a->domain == b->domain && a->load > b->load);
}

/* sort_experts: by insertion; a placement by domain is made once, not while serving. */
static void sort_experts(const struct belonging *of, int32_t *order, int n)
{
    for (int i = 0; i < n; i++) {
        int k = i;
        for (; k > 0 && before(&of[i], &of[order[k - 1]]); k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
}

static int check_domains(const struct balance_input *in, struct err *err)
{
    if (!in->domain_load || in->n_domain < 1)
        return err_set(err, ERR_USAGE,
                       "domain placement needs loads by domain: a trace with domain labels");
    if (in->n_domain > LIMIT_DOMAINS)
        return err_set(err, ERR_LIMIT, "%d domains; at most %d are possible", in->n_domain,
                       LIMIT_DOMAINS);
    return 0;
}

static void place_layer(const struct balance_input *in, const struct balance_table *table,
                        int layer, struct belonging *of, double *domain_sum, int32_t *order)
{
    size_t cells = (size_t)in->n_layer * (size_t)in->n_expert;
    for (int d = 0; d < in->n_domain; d++) {
        domain_sum[d] = 0;
        for (int e = 0; e < in->n_expert; e++)
            domain_sum[d] += in->domain_load[(size_t)d * cells +
                                             (size_t)layer * (size_t)in->n_expert + (size_t)e];
    }
    for (int e = 0; e < in->n_expert; e++)
        belong(in, domain_sum, layer, e, &of[e]);
    sort_experts(of, order, in->n_expert);
    int32_t *row = balance_row(table, layer);
    for (int w = 0; w < in->n_worker; w++) {
        int64_t first = (int64_t)in->n_expert * table->begin[w] / table->n_slot;
        int64_t end = (int64_t)in->n_expert * table->begin[w + 1] / table->n_slot;
        for (int64_t i = first; i < end; i++)
            row[table->begin[w] + i - first] = order[i];
    }
}

int place_domain(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                 struct err *err)
{
    struct balance_table table;
    int rc = check_domains(in, err);
    if (rc || (rc = balance_table_carve(in, &table, mem, err)) != 0)
        return rc;
    size_t mark = arena_mark(mem);
    struct belonging *of = arena_alloc(mem, (size_t)in->n_expert * sizeof(*of));
    int32_t *order = arena_alloc(mem, (size_t)in->n_expert * sizeof(*order));
    double *domain_sum = arena_alloc(mem, (size_t)in->n_domain * sizeof(*domain_sum));
    if (!of || !order || !domain_sum) {
        arena_release(mem, mark);
        return err_set(err, ERR_NOMEM, "no memory to place %d experts by domain", in->n_expert);
    }
    for (int layer = 0; layer < in->n_layer; layer++)
        place_layer(in, &table, layer, of, domain_sum, order);
    arena_release(mem, mark);
    *out = table;
    return 0;
}
