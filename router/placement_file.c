/* placement_file: what one worker should hold, from a file that a person wrote or a planner
 * printed.
 *
 *     {"epoch": 1,
 *      "workers": {"w0": "0-15,32",                     the same experts in every layer
 *                  "w1": [16, 17],                      the same, as a list
 *                  "w2": {"0-3": "18-31", "*": "18"}}}  by layer; "*": every layer not named
 *
 * Every mistake is refused with the worker and the word that is wrong; nothing is written then. */
#include "base/limits.h"
#include "base/opt.h"
#include "router/placement.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct reading {
    const char *path, *worker;
    int n_layer, n_expert;
    uint8_t *held;   /* [n_layer, n_expert] */
    uint8_t *named;  /* [n_layer] a key of the object named this layer */
    int32_t *expert; /* [n_expert] the list in hand */
    int32_t *layer;  /* [n_layer] the layers of a key */
    struct err *err;
};

static int refuse(struct reading *r, const char *what)
{
    return err_set(r->err, ERR_MODEL,
                   "%s: worker \"%s\": %s; write \"0-15,32\", [0, 1] or {\"LAYER\": \"0-3\"}",
                   r->path, r->worker, what);
}

/* read_ids: a list in text; its mistakes are told with the file and the worker. */
static int read_ids(struct reading *r, const char *text, int limit, int32_t *out)
{
    struct err why = {0};
    int n = opt_parse_ids(text, limit, out, limit, &why);
    if (n < 0)
        return err_set(r->err, ERR_MODEL, "%s: worker \"%s\": %s", r->path, r->worker, why.text);
    return n;
}

static int read_array(struct reading *r, const json_t *array)
{
    size_t n = json_array_size(array);
    if (n > (size_t)r->n_expert)
        return refuse(r, "more entries than experts");
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(array, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id >= r->n_expert)
            return err_set(r->err, ERR_MODEL,
                           "%s: worker \"%s\": entry %zu is no expert from 0 to %d", r->path,
                           r->worker, i, r->n_expert - 1);
        r->expert[i] = (int32_t)id;
    }
    return (int)n;
}

/* read_experts fills r->expert and returns how many. */
static int read_experts(struct reading *r, const json_t *value)
{
    if (json_is_string(value))
        return read_ids(r, json_string_value(value), r->n_expert, r->expert);
    if (json_is_array(value))
        return read_array(r, value);
    return refuse(r, "experts are neither a string nor a list");
}

static void hold(struct reading *r, int layer, int n)
{
    for (int i = 0; i < n; i++)
        r->held[(size_t)layer * (size_t)r->n_expert + (size_t)r->expert[i]] = 1;
}

static int read_layers(struct reading *r, const char *key, const json_t *value)
{
    int n_layer = read_ids(r, key, r->n_layer, r->layer);
    int n = n_layer < 0 ? n_layer : read_experts(r, value);
    for (int i = 0; n >= 0 && i < n_layer; i++) {
        if (r->named[r->layer[i]])
            return refuse(r, "two keys name one layer");
        r->named[r->layer[i]] = 1;
        hold(r, r->layer[i], n);
    }
    return n < 0 ? n : 0;
}

static int read_rest(struct reading *r, const json_t *value)
{
    int n = value ? read_experts(r, value) : 0;
    for (int layer = 0; n >= 0 && layer < r->n_layer; layer++)
        if (!r->named[layer])
            hold(r, layer, n);
    return n < 0 ? n : 0;
}

static int read_worker(struct reading *r, json_t *value)
{
    if (!json_is_object(value))
        return read_rest(r, value);
    const char *key;
    json_t *experts;
    json_object_foreach(value, key, experts)
    {
        int rc = strcmp(key, "*") == 0 ? 0 : read_layers(r, key, experts);
        if (rc)
            return rc;
    }
    return read_rest(r, json_object_get(value, "*"));
}

static int read_root(struct reading *r, json_t *root)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "epoch") != 0 && strcmp(key, "workers") != 0)
            return err_set(r->err, ERR_MODEL, "%s: unknown key \"%s\"; expected epoch, workers",
                           r->path, key);
    }
    json_t *epoch = json_object_get(root, "epoch"), *workers = json_object_get(root, "workers");
    if (epoch && (!json_is_integer(epoch) || json_integer_value(epoch) < 0))
        return err_set(r->err, ERR_MODEL, "%s: \"epoch\" is no count", r->path);
    if (!json_is_object(workers))
        return err_set(r->err, ERR_MODEL, "%s: no object \"workers\" at the top", r->path);
    value = json_object_get(workers, r->worker);
    if (!value)
        return err_set(r->err, ERR_USAGE, "%s: names no worker \"%s\"", r->path, r->worker);
    return read_worker(r, value);
}

static int load_root(const char *path, json_t **out, struct err *err)
{
    struct stat info;
    if (stat(path, &info))
        return err_sys(err, ERR_IO, "placement file %s", path);
    if (!S_ISREG(info.st_mode) || info.st_size > LIMIT_JSON_BYTES)
        return err_set(err, ERR_LIMIT, "placement file %s: not a file of at most %d bytes", path,
                       LIMIT_JSON_BYTES);
    json_error_t where;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return err_set(err, ERR_MODEL, "%s:%d:%d: %s", path, where.line, where.column, where.text);
    *out = root;
    return 0;
}

/* read_all reads what `worker` holds from the file's tree, which it takes over. */
static int read_all(json_t *root, const char *path, const char *worker, int n_layer, int n_expert,
                    uint8_t *held, struct err *err)
{
    int rc = 0;
    if (n_layer < 1 || n_layer > LIMIT_LAYERS || n_expert < 1 || n_expert > LIMIT_EXPERTS)
        rc = err_set(err, ERR_LIMIT, "%s: %d layers x %d experts", path, n_layer, n_expert);
    if (rc) {
        json_decref(root);
        return rc;
    }
    size_t n_cell = (size_t)n_layer * (size_t)n_expert;
    struct reading r = {path, worker, n_layer, n_expert, NULL, NULL, NULL, NULL, err};
    r.held = calloc(n_cell, 1);
    r.named = calloc((size_t)n_layer, 1);
    r.expert = calloc((size_t)n_expert, sizeof(int32_t));
    r.layer = calloc((size_t)n_layer, sizeof(int32_t));
    if (!r.held || !r.named || !r.expert || !r.layer)
        rc = err_set(err, ERR_NOMEM, "no memory to read %s", path);
    else
        rc = read_root(&r, root);
    if (rc == 0)
        memcpy(held, r.held, n_cell);
    free(r.layer);
    free(r.expert);
    free(r.named);
    free(r.held);
    json_decref(root);
    return rc;
}

int placement_text_worker(const char *text, size_t bytes, const char *path, const char *worker,
                          int n_layer, int n_expert, uint8_t *held, struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return err_set(err, ERR_MODEL, "%s:%d:%d: %s", path, where.line, where.column, where.text);
    return read_all(root, path, worker, n_layer, n_expert, held, err);
}

int placement_file_worker(const char *path, const char *worker, int n_layer, int n_expert,
                          uint8_t *held, struct err *err)
{
    json_t *root = NULL;
    int rc = load_root(path, &root, err);
    return rc ? rc : read_all(root, path, worker, n_layer, n_expert, held, err);
}
