/* import_scores: how often each expert was chosen, as it is published for DeepSeek-V3: JSON
 * {"layer_3": {"activations": [102744, ...], "scores": [...]}, ...}, an entry an expert. Only the
 * activations are read: they are the load. There are no tokens in it; some are made up (made_up.h).
 */
#include "base/limits.h"
#include "model/json.h"
#include "tools/import.h"
#include "tools/made_up.h"

#include <stdlib.h>
#include <string.h>

#define FILE_BYTES ((size_t)1 << 28)

/* layer_of: the number in "layer_3", or -1. */
static int layer_of(const char *key)
{
    char *end;
    if (strncmp(key, "layer_", 6) != 0 || key[6] < '0' || key[6] > '9')
        return -1;
    long n = strtol(key + 6, &end, 10);
    return *end == '\0' && n < LIMIT_LAYERS ? (int)n : -1;
}

/* counts_of: one layer's, into count [LIMIT_EXPERTS]; how many, or -1. */
static int counts_of(const json_t *value, double *count)
{
    const json_t *list = json_object_get(value, "activations");
    size_t i, n = json_array_size(list);
    json_t *one;
    if (n < 1 || n > LIMIT_EXPERTS)
        return -1;
    json_array_foreach(list, i, one)
    {
        count[i] = json_is_number(one) ? json_number_value(one) : -1;
        if (!(count[i] >= 0) || count[i] > 1e15)
            return -1;
    }
    return (int)n;
}

static int read_layers(struct import *import, const json_t *root, struct routes_spec *spec,
                       double *by_layer, struct err *err)
{
    for (int l = 0; l < LIMIT_LAYERS; l++) {
        char key[32];
        snprintf(key, sizeof(key), "layer_%d", l);
        const json_t *value = json_object_get(root, key);
        if (!value)
            continue;
        int n = counts_of(value, by_layer + (size_t)spec->n_layer * LIMIT_EXPERTS);
        if (n < 0 || (spec->n_layer > 0 && n != spec->n_expert))
            return err_set(
                err, ERR_MODEL,
                "%s: \"%s\" has no list \"activations\" of 1 to %d counts, as many as the "
                "other layers",
                import->from, key, LIMIT_EXPERTS);
        spec->n_expert = n;
        spec->layer[spec->n_layer++] = l;
    }
    return 0;
}

static int put(struct import *import, const json_t *root, struct err *err)
{
    struct routes_spec spec = {0};
    const char *key;
    json_t *value;
    int n_layer = 0;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        if (layer_of(key) < 0)
            return err_set(err, ERR_MODEL, "%s: \"%.40s\" is no layer_N below %d", import->from,
                           key, LIMIT_LAYERS);
        n_layer++;
    }
    if (n_layer == 0)
        return err_set(err, ERR_MODEL, "%s: holds no layers", import->from);
    double *count = calloc((size_t)n_layer * LIMIT_EXPERTS, sizeof(*count));
    if (!count)
        return err_set(err, ERR_NOMEM, "no memory for the counts of %d layers", n_layer);
    int rc = read_layers(import, root, &spec, count, err);
    if (rc == 0 && spec.n_layer != n_layer)
        rc = err_set(err, ERR_MODEL, "%s: a layer's number begins with a zero", import->from);
    for (int l = 0; l < spec.n_layer; l++) /* laid side by side */
        memmove(count + (size_t)l * (size_t)spec.n_expert, count + (size_t)l * LIMIT_EXPERTS,
                (size_t)spec.n_expert * sizeof(*count));
    rc = rc ? rc : made_up_tokens(import, &spec, count, err);
    free(count);
    return rc;
}

int import_scores(struct import *import, struct err *err)
{
    char *text = NULL;
    size_t bytes;
    json_t *root = NULL;
    int rc = file_read(import->from, FILE_BYTES, &text, &bytes, err);
    rc = rc ? rc : json_parse_object(text, bytes, FILE_BYTES, import->from, &root, err);
    free(text);
    rc = rc ? rc : put(import, root, err);
    json_decref(root);
    return rc;
}
