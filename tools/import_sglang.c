/* import_sglang: a dump of SGLang's expert distribution recorder, a file of torch.save.
 *
 *   stat       `logical_count` [steps, layers, experts] (older: [layers, experts]): how many tokens
 *              chose each expert in each step
 *   per_pass   `records`, each with `global_physical_count` [layers, copies], and
 *              `last_physical_to_logical_map` [layers, copies]: which expert each copy is of
 *   per_token  the same, and in each record `topk_ids_of_layer` [layers, tokens, slots] of copies,
 * -1 where there is none: import_sglang_tokens.c
 *
 * Counts have no tokens in them; some are made up (made_up.h). Layers that counted nothing are
 * dense and left out. */
#include "tools/import_sglang.h"
#include "base/limits.h"
#include "tools/made_up.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* sum_steps: count [layers, experts] over all steps; -1: a value is no count. */
static int sum_steps(const struct torch_tensor *t, int64_t n_step, size_t cells, double *count)
{
    for (int64_t s = 0; s < n_step; s++)
        for (size_t i = 0; i < cells; i++) {
            double v = t->value[(size_t)s * cells + i];
            if (!(v >= 0) || !isfinite(v))
                return -1;
            count[i] += v;
        }
    return 0;
}

/* keep_sparse moves the layers that counted something to the front and names them in spec. */
static void keep_sparse(struct routes_spec *spec, int n_layer, double *count)
{
    size_t e = (size_t)spec->n_expert;
    spec->n_layer = 0;
    for (int l = 0; l < n_layer; l++) {
        double sum = 0;
        for (size_t i = 0; i < e; i++)
            sum += count[(size_t)l * e + i];
        if (!(sum > 0))
            continue;
        memmove(count + (size_t)spec->n_layer * e, count + (size_t)l * e, e * sizeof(*count));
        spec->layer[spec->n_layer++] = l;
    }
}

static int put(struct import *import, const struct torch_tensor *t, struct err *err)
{
    int d = t->n_dim;
    if ((d != 2 && d != 3) || t->dim[d - 2] < 1 || t->dim[d - 2] > LIMIT_LAYERS ||
        t->dim[d - 1] < 1 || t->dim[d - 1] > LIMIT_EXPERTS)
        return err_set(err, ERR_MODEL,
                       "%s: logical_count is not [steps, layers (at most %d), experts (at most "
                       "%d)]",
                       import->from, LIMIT_LAYERS, LIMIT_EXPERTS);
    size_t cells = (size_t)(t->dim[d - 2] * t->dim[d - 1]);
    double *count = calloc(cells, sizeof(*count));
    if (!count)
        return err_set(err, ERR_NOMEM, "no memory for %zu counts", cells);
    struct routes_spec spec = {.n_expert = (int)t->dim[d - 1]};
    int rc = sum_steps(t, d == 3 ? t->dim[0] : 1, cells, count)
                 ? err_set(err, ERR_MODEL, "%s: logical_count holds what is no count", import->from)
                 : 0;
    if (rc == 0) {
        keep_sparse(&spec, (int)t->dim[d - 2], count);
        rc = spec.n_layer > 0
                 ? made_up_tokens(import, &spec, count, err)
                 : err_set(err, ERR_MODEL, "%s: logical_count counted nothing", import->from);
    }
    free(count);
    return rc;
}

/* add_pass: one record's copies, as the experts that they are of. */
static int add_pass(const struct torch_tensor *t, const struct torch_tensor *map, int n_expert,
                    double *count)
{
    if (t->n_dim != 2 || t->dim[0] != map->dim[0] || t->dim[1] != map->dim[1])
        return -1;
    for (int64_t i = 0; i < t->dim[0] * t->dim[1]; i++) {
        double v = t->value[i];
        if (!(v >= 0) || !isfinite(v))
            return -1;
        count[i / map->dim[1] * n_expert + (int64_t)map->value[i]] += v;
    }
    return 0;
}

static int put_passes(struct import *import, const struct sglang_records *r, struct err *err)
{
    size_t cells = (size_t)r->map.dim[0] * (size_t)r->n_expert;
    double *count = calloc(cells, sizeof(*count));
    int rc = count ? 0 : err_set(err, ERR_NOMEM, "no memory for %zu counts", cells);
    for (int i = 0; i < r->list->n_item && !rc; i++) {
        struct torch_tensor t = {0};
        rc = torch_file_tensor(r->file, r->list->item[i], "global_physical_count", &t, err);
        if (rc == 0 && add_pass(&t, &r->map, r->n_expert, count))
            rc = err_set(err, ERR_MODEL, "%s: record %d is no count [layers, copies]", import->from,
                         i);
        free(t.value);
    }
    struct routes_spec spec = {.n_expert = r->n_expert};
    if (rc == 0) {
        keep_sparse(&spec, (int)r->map.dim[0], count);
        rc = spec.n_layer > 0
                 ? made_up_tokens(import, &spec, count, err)
                 : err_set(err, ERR_MODEL, "%s: its records counted nothing", import->from);
    }
    free(count);
    return rc;
}

/* map_check: which expert each copy is of; sets n_expert. */
static int map_check(struct import *import, struct sglang_records *r, struct err *err)
{
    const struct torch_tensor *map = &r->map;
    if (map->n_dim != 2 || map->dim[0] < 1 || map->dim[0] > LIMIT_LAYERS || map->dim[1] < 1 ||
        map->dim[1] > (int64_t)LIMIT_EXPERTS * 16)
        return err_set(err, ERR_MODEL, "%s: last_physical_to_logical_map is not [layers, copies]",
                       import->from);
    r->n_expert = import->n_expert;
    for (int64_t i = 0; i < map->dim[0] * map->dim[1]; i++) {
        double e = map->value[i];
        if (!(e >= 0) || e >= LIMIT_EXPERTS || (import->n_expert > 0 && e >= import->n_expert))
            return err_set(err, ERR_MODEL, "%s: copy %lld is of expert %g", import->from,
                           (long long)i, e);
        r->n_expert = e >= r->n_expert ? (int)e + 1 : r->n_expert;
    }
    return 0;
}

static int put_records(struct import *import, const struct torch_file *file, struct err *err)
{
    struct sglang_records r = {.file = file, .list = pickle_get(torch_file_root(file), "records")};
    int rc = r.list->kind == PICKLE_LIST && r.list->n_item > 0
                 ? 0
                 : err_set(err, ERR_MODEL, "%s: its records are no list, or none", import->from);
    rc = rc ? rc
            : torch_file_tensor(file, torch_file_root(file), "last_physical_to_logical_map", &r.map,
                                err);
    rc = rc ? rc : map_check(import, &r, err);
    if (rc == 0)
        rc = pickle_get(r.list->item[0], "topk_ids_of_layer")
                 ? import_sglang_tokens(import, &r, err)
                 : put_passes(import, &r, err);
    free(r.map.value);
    return rc;
}

int import_sglang(struct import *import, struct err *err)
{
    struct torch_file *file;
    struct torch_tensor t = {0};
    int rc = torch_file_open(import->from, &file, err);
    if (rc)
        return rc;
    if (pickle_get(torch_file_root(file), "records")) {
        rc = put_records(import, file, err);
    } else {
        rc = torch_file_tensor(file, torch_file_root(file), "logical_count", &t, err);
        rc = rc ? rc : put(import, &t, err);
        free(t.value);
    }
    torch_file_close(file);
    return rc;
}
