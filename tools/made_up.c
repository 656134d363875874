/* made_up: see made_up.h. Token i of a layer gets the expert at the fraction i times the golden
 * ratio of the layer's counts laid end to end: the most even sequence of points there is, so that a
 * thousand tokens have the proportions of all. */
#include "tools/made_up.h"

#include <math.h>
#include <stdlib.h>

#define TOKENS_MAX 65536
#define GOLDEN     0.61803398874989484820
#define TURN       0.75487766624669276005 /* between layers, so that they do not go in step */

static int at_fraction(const double *below, int n, double u)
{
    int low = 0, high = n - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (below[middle] <= u)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static void layer_fill(const double *count, int n_expert, int layer, int n_token, double *below,
                       int32_t *expert)
{
    double sum = 0;
    for (int e = 0; e < n_expert; e++) {
        below[e] = sum;
        sum += count[e];
    }
    for (int i = 0; i < n_token; i++) {
        double u = i * GOLDEN + layer * TURN;
        expert[i] = sum > 0 ? at_fraction(below, n_expert, (u - floor(u)) * sum) : -1;
    }
}

int made_up_tokens(struct import *import, struct routes_spec *spec, const double *count,
                   struct err *err)
{
    double most = 0;
    for (int l = 0; l < spec->n_layer; l++) {
        double sum = 0;
        for (int e = 0; e < spec->n_expert; e++)
            sum += count[(size_t)l * (size_t)spec->n_expert + (size_t)e];
        most = sum > most ? sum : most;
    }
    if (!(most >= 1))
        return err_set(err, ERR_MODEL, "%s: all counts are zero", import->from);
    int n = most < TOKENS_MAX ? (int)most : TOKENS_MAX;
    int32_t *expert = malloc((size_t)n * (size_t)spec->n_layer * sizeof(*expert));
    double *below = malloc((size_t)spec->n_expert * sizeof(*below));
    int rc = expert && below ? 0 : err_set(err, ERR_NOMEM, "no memory for %d tokens", n);
    for (int l = 0; rc == 0 && l < spec->n_layer; l++)
        layer_fill(count + (size_t)l * (size_t)spec->n_expert, spec->n_expert, l, n, below,
                   expert + (size_t)l * (size_t)n);
    spec->top_k = 1;
    struct routes_run run = {.n_token = n, .begins = 1, .ends = 1};
    if (rc == 0)
        rc = import_begin(import, spec, err);
    if (rc == 0)
        rc = import_label(import, import->domain, &run.domain, err);
    if (rc == 0)
        rc = import_put(import, &run, NULL, expert, NULL, (size_t)n, err);
    free(expert);
    free(below);
    return rc;
}
