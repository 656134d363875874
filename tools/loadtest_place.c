/* loadtest_place: see loadtest_place.h. */
#include "tools/loadtest_place.h"

#include "model/json.h"

#include <stdlib.h>
#include <string.h>

#define LOAD_ROWS      4096 /* rows sampled to plan from, where there is no trace */
#define FILE_BYTES_MAX ((size_t)256 << 20)

int loadtest_place_get(const char *word, struct loadtest_place *out, struct err *err)
{
    size_t n = strlen(word);
    int file = strchr(word, '/') || (n > 5 && strcmp(word + n - 5, ".json") == 0);
    *out = (struct loadtest_place){.name = word};
    return file ? 0 : strategy_get(STRATEGY_PLACE, "--placement", word, &out->strategy, err);
}

/* ---- a file ---- */

static int file_worker(const char *path, const char *name, int worker, const struct model_desc *d,
                       uint8_t *held, struct placement *p, struct err *err)
{
    int rc = placement_file_worker(path, name, d->n_layer, d->n_expert, held, err);
    for (int layer = 0; rc == 0 && layer < d->n_layer; layer++)
        for (int e = 0; rc == 0 && e < d->n_expert; e++)
            if (held[layer * d->n_expert + e])
                rc = placement_add(p, layer, e, worker, err);
    return rc;
}

static int from_file(const char *path, const struct place_input *in, struct placement **out,
                     struct err *err)
{
    const struct model_desc *d = in->desc;
    char *text;
    size_t bytes;
    json_t *root = NULL, *value;
    const char *name;
    int n = 0, rc = file_read(path, FILE_BYTES_MAX, &text, &bytes, err);
    if (rc)
        return rc;
    rc = json_parse_object(text, bytes, FILE_BYTES_MAX, path, &root, err);
    free(text);
    uint8_t *held = calloc((size_t)d->n_layer, (size_t)d->n_expert);
    if (rc == 0 && !held)
        rc = err_set(err, ERR_NOMEM, "no memory for the placement %s", path);
    struct placement *p = NULL;
    rc = rc ? rc : placement_create(d->n_layer, d->n_expert, &p, err);
    json_object_foreach(json_object_get(root, "workers"), name, value)
    {
        if (rc == 0 && n == in->n_worker)
            rc = err_set(err, ERR_USAGE,
                         "%s names more workers than the cluster's %d; see --workers", path,
                         in->n_worker);
        rc = rc ? rc : file_worker(path, name, n, d, held, p, err);
        n++;
    }
    json_decref(root);
    free(held);
    if (rc)
        placement_destroy(p);
    else
        *out = p;
    return rc;
}

/* ---- a strategy ---- */

struct loads {
    double *all, *by_domain; /* [n_layer, n_expert], [n_domain, n_layer, n_expert] */
    struct balance_worker *worker;
    int n_domain;
};

static int loads_make(struct loads *l, const struct place_input *in, struct route_source *route,
                      struct err *err)
{
    size_t n = (size_t)in->desc->n_layer * (size_t)in->desc->n_expert;
    l->n_domain = in->n_domain > 0 ? in->n_domain : 1;
    l->all = calloc(n, sizeof(double));
    l->by_domain = calloc(n * (size_t)l->n_domain, sizeof(double));
    l->worker = calloc((size_t)in->n_worker, sizeof(*l->worker));
    if (!l->all || !l->by_domain || !l->worker)
        return err_set(err, ERR_NOMEM, "no memory to place experts");
    int rc = 0;
    for (int i = 0; rc == 0 && i < l->n_domain; i++)
        rc = route_load(route, l->n_domain > 1 ? i : -1, LOAD_ROWS, l->by_domain + n * (size_t)i,
                        err);
    for (size_t i = 0; rc == 0 && i < n * (size_t)l->n_domain; i++)
        l->all[i % n] += l->by_domain[i];
    for (int i = 0; i < in->n_worker; i++)
        l->worker[i].speed = in->speed[i];
    return rc;
}

static void loads_free(struct loads *l)
{
    free(l->all);
    free(l->by_domain);
    free(l->worker);
}

static int from_strategy(const struct strategy *strategy, const struct place_input *in,
                         struct route_source *route, struct placement **out, struct err *err)
{
    const struct model_desc *d = in->desc;
    struct loads loads = {0};
    struct arena mem = {0};
    int rc = loads_make(&loads, in, route, err);
    const struct balance_input b = {.n_layer = d->n_layer,
                                    .n_expert = d->n_expert,
                                    .n_worker = in->n_worker,
                                    .load = loads.all,
                                    .worker = loads.worker,
                                    .n_redundant = in->n_redundant,
                                    .n_group = d->n_group,
                                    .n_domain = loads.n_domain,
                                    .domain_load = loads.by_domain,
                                    .slots_a_step = in->slots_a_step,
                                    .expert_bytes = weights_expert_bytes(d, in->precision)};
    struct balance_table table;
    if (rc == 0 && arena_init(&mem, balance_arena_bytes(&b)))
        rc = err_set(err, ERR_NOMEM, "no memory to place experts on %d workers", in->n_worker);
    rc = rc ? rc : strategy->place(&b, &table, &mem, err);
    rc = rc ? rc : balance_to_placement(&table, out, err);
    arena_fini(&mem);
    loads_free(&loads);
    return rc;
}

int loadtest_place_make(const struct loadtest_place *place, const struct place_input *in,
                        struct route_source *route, struct placement **out, struct err *err)
{
    return place->strategy ? from_strategy(place->strategy, in, route, out, err)
                           : from_file(place->name, in, out, err);
}
