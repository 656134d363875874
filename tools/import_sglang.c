/* import_sglang: a dump of SGLang's expert distribution recorder in mode stat: a file of torch.save
 * that holds `logical_count` [steps, layers, experts] (older: [layers, experts]): how many tokens
 * chose each expert in each step. There are no tokens in it; some are made up (made_up.h). Layers
 * that counted nothing are dense and left out. */
#include "base/limits.h"
#include "tools/import.h"
#include "tools/made_up.h"
#include "tools/torch_file.h"

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

int import_sglang(struct import *import, struct err *err)
{
    struct torch_tensor t = {0};
    int rc = torch_file_tensor(import->from, "logical_count", &t, err);
    if (rc == 0)
        rc = put(import, &t, err);
    free(t.value);
    return rc;
}
