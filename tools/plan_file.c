/* plan_file: placement files, in and out. Layers stand there under their numbers in the model; the
 * tables of a plan have the sparse ones only. */
#include "base/limits.h"
#include "model/json.h"
#include "tools/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int file_epoch(const char *path, int64_t *epoch, struct err *err)
{
    char *text = NULL;
    size_t bytes;
    json_t *root = NULL;
    int rc = file_read(path, LIMIT_JSON_BYTES, &text, &bytes, err);
    if (rc == 0)
        rc = json_parse_object(text, bytes, LIMIT_JSON_BYTES, path, &root, err);
    free(text);
    *epoch = root ? (int64_t)json_integer_value(json_object_get(root, "epoch")) : 0;
    json_decref(root);
    return rc;
}

/* lay_row: one worker's experts of one layer into its slots. */
static int lay_row(struct plan_job *job, int w, int layer, const uint8_t *held, struct err *err)
{
    struct balance_table *t = &job->before;
    int32_t at = t->begin[w];
    for (int e = 0; e < t->n_expert; e++) {
        if (!held[e])
            continue;
        if (at == t->begin[w + 1])
            return err_set(err, ERR_USAGE,
                           "%s: worker %s holds more than %d experts in layer %d; give it more "
                           "slots or memory",
                           job->ask.current, job->named[w].name, t->begin[w + 1] - t->begin[w],
                           job->loads.layer[layer]);
        t->expert[(size_t)layer * (size_t)t->n_slot + (size_t)at++] = e;
    }
    return 0;
}

int plan_current_read(struct plan_job *job, struct err *err)
{
    struct balance_table *t = &job->before;
    size_t n_expert = (size_t)t->n_expert, cells = (size_t)job->n_layer_model * n_expert;
    uint8_t *held = malloc(cells);
    int rc = held ? file_epoch(job->ask.current, &job->current_epoch, err)
                  : err_set(err, ERR_NOMEM, "no memory to read %s", job->ask.current);
    memset(t->expert, -1, (size_t)t->n_layer * (size_t)t->n_slot * sizeof(*t->expert));
    for (int w = 0; rc == 0 && w < t->n_worker; w++) {
        rc = placement_file_worker(job->ask.current, job->named[w].name, job->n_layer_model,
                                   t->n_expert, held, err);
        for (int layer = 0; rc == 0 && layer < t->n_layer; layer++)
            rc = lay_row(job, w, layer, held + (size_t)job->loads.layer[layer] * n_expert, err);
    }
    free(held);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* ids_text: sorted ids as people write them, "0-3,7". */
static char *ids_text(int32_t *id, int n)
{
    char *text = malloc((size_t)n * 12 + 1);
    size_t used = 0;
    if (!text)
        return NULL;
    text[0] = '\0';
    qsort(id, (size_t)n, sizeof(*id), by_value);
    for (int i = 0; i < n;) {
        int last = i;
        while (last + 1 < n && id[last + 1] <= id[last] + 1)
            last++;
        used += (size_t)sprintf(text + used, id[last] > id[i] ? "%s%d-%d" : "%s%d", i ? "," : "",
                                id[i], id[last]);
        i = last + 1;
    }
    return text;
}

static json_t *worker_json(const struct plan_job *job, int w, int32_t *id)
{
    const struct balance_table *t = &job->table;
    json_t *layers = json_object();
    for (int l = 0; layers && l < t->n_layer; l++) {
        char key[16];
        int n = 0;
        for (int s = t->begin[w]; s < t->begin[w + 1]; s++) {
            int32_t e = t->expert[(size_t)l * (size_t)t->n_slot + (size_t)s];
            if (e >= 0)
                id[n++] = e;
        }
        char *text = n > 0 ? ids_text(id, n) : NULL;
        snprintf(key, sizeof(key), "%d", job->loads.layer[l]);
        if (text)
            json_object_set_new(layers, key, json_string(text));
        free(text);
    }
    return layers;
}

static json_t *file_json(const struct plan_job *job)
{
    int32_t *id = malloc(((size_t)job->table.n_expert + 1) * sizeof(*id));
    json_t *workers = json_object();
    for (int w = 0; id && workers && w < job->table.n_worker; w++)
        json_object_set_new(workers, job->named[w].name, worker_json(job, w, id));
    free(id);
    return json_pack("{s:I, s:o}", "epoch", (json_int_t)(job->current_epoch + 1), "workers",
                     workers);
}

int plan_file_write(const struct plan_job *job, const char *path, struct err *err)
{
    char part[4096];
    json_t *root = file_json(job);
    if (!root || snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part)) {
        json_decref(root);
        return err_set(err, ERR_NOMEM, "cannot write %.200s: its path is too long, or no memory",
                       path);
    }
    int rc = json_dump_file(root, part, JSON_INDENT(1))
                 ? err_sys(err, ERR_IO, "cannot write %s", part)
                 : 0;
    if (rc == 0 && rename(part, path))
        rc = err_sys(err, ERR_IO, "cannot rename %s to %s", part, path);
    if (rc)
        unlink(part);
    json_decref(root);
    return rc;
}
