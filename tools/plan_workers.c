/* plan_workers: the workers that a plan is for: `--worker NAME[,speed=S][,memory=24G][,host=H]
 * [,slots=N]` for each, a JSON file of the same, or --workers N alike ones. */
#include "base/limits.h"
#include "model/json.h"
#include "tools/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 24)

/* size_parse: "24G", "512M", a count of bytes. */
static int size_parse(const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    double value = strtod(text, &end);
    if (end == text || !(value >= 0) || !isfinite(value))
        return -1;
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (*end && (!unit || (end[1] && strcmp(end + 1, "iB") != 0 && strcmp(end + 1, "B") != 0)))
        return -1;
    value = ldexp(value, unit ? (int)(unit - units + 1) * 10 : 0);
    if (value >= 0x1p62)
        return -1;
    *out = (uint64_t)value;
    return 0;
}

static int set_key(struct balance_worker *w, struct plan_worker *named, const char *key,
                   const char *value)
{
    char *end;
    if (strcmp(key, "speed") == 0) {
        w->speed = strtod(value, &end);
        return end != value && !*end && w->speed > 0 && isfinite(w->speed) ? 0 : -1;
    }
    if (strcmp(key, "memory") == 0)
        return size_parse(value, &w->memory_bytes);
    if (strcmp(key, "host") == 0)
        return snprintf(named->host, sizeof(named->host), "%s", value) > 0 ? 0 : -1;
    if (strcmp(key, "slots") == 0) {
        long n = strtol(value, &end, 10);
        w->n_slot = (int)n;
        return end != value && !*end && n > 0 && n <= LIMIT_EXPERTS ? 0 : -1;
    }
    return -1;
}

static int parse_worker(const char *text, struct balance_worker *w, struct plan_worker *named,
                        struct err *err)
{
    char copy[1024], *rest = copy;
    if (strlen(text) >= sizeof(copy))
        return err_set(err, ERR_USAGE, "--worker: more than %zu bytes", sizeof(copy) - 1);
    strcpy(copy, text);
    const char *name = strsep(&rest, ",");
    if (!*name || strchr(name, '='))
        return err_set(err, ERR_USAGE, "--worker %s: begins with the worker's name", text);
    snprintf(named->name, sizeof(named->name), "%s", name);
    while (rest) {
        char *part = strsep(&rest, ","), *equal = strchr(part, '=');
        if (equal)
            *equal = '\0';
        if (!equal || set_key(w, named, part, equal + 1))
            return err_set(err, ERR_USAGE,
                           "--worker %s: '%s' is not speed=S, memory=24G, host=NAME or slots=N",
                           text, part);
    }
    return 0;
}

static int parse_object(const json_t *object, int i, struct balance_worker *w,
                        struct plan_worker *named, const char *path, struct err *err)
{
    const char *key;
    json_t *value;
    snprintf(named->name, sizeof(named->name), "w%d", i);
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        char text[64];
        const char *said = json_string_value(value);
        if (strcmp(key, "name") == 0 && said && *said) {
            snprintf(named->name, sizeof(named->name), "%s", said);
            continue;
        }
        snprintf(text, sizeof(text), json_is_integer(value) ? "%.0f" : "%.17g",
                 json_number_value(value));
        if ((!said && !json_is_number(value)) || set_key(w, named, key, said ? said : text))
            return err_set(err, ERR_MODEL,
                           "%s: worker %d: \"%.40s\" is not a name, a speed, a memory, a host or "
                           "slots",
                           path, i, key);
    }
    return 0;
}

static int read_file(struct plan_job *job, struct err *err)
{
    const char *path = job->ask.workers_file;
    char *text = NULL;
    size_t bytes;
    json_t *root = NULL;
    int rc = file_read(path, FILE_BYTES_MAX, &text, &bytes, err);
    if (rc == 0)
        rc = json_parse_object(text, bytes, FILE_BYTES_MAX, path, &root, err);
    free(text);
    const json_t *list = json_object_get(root, "workers");
    if (rc == 0 && (!json_is_array(list) || json_array_size(list) < 1 ||
                    json_array_size(list) > LIMIT_WORKERS))
        rc = err_set(err, ERR_MODEL, "%s: no list \"workers\" of 1 to %d workers", path,
                     LIMIT_WORKERS);
    if (rc == 0) {
        job->in.n_worker = (int)json_array_size(list);
        job->worker = calloc((size_t)job->in.n_worker, sizeof(*job->worker));
        job->named = calloc((size_t)job->in.n_worker, sizeof(*job->named));
        if (!job->worker || !job->named)
            rc = err_set(err, ERR_NOMEM, "no memory for %d workers", job->in.n_worker);
    }
    for (int i = 0; rc == 0 && i < job->in.n_worker; i++) {
        job->worker[i].speed = 1;
        rc = parse_object(json_array_get(list, (size_t)i), i, &job->worker[i], &job->named[i], path,
                          err);
    }
    json_decref(root);
    return rc;
}

static int make_list(struct plan_job *job, struct err *err)
{
    const struct plan_ask *ask = &job->ask;
    int n = ask->worker.n > 0 ? ask->worker.n : (int)ask->n_worker;
    if (n < 1)
        return err_set(err, ERR_USAGE,
                       "which workers? --workers N, or --worker NAME,speed=S,memory=24G,host=H for "
                       "each");
    job->in.n_worker = n;
    job->worker = calloc((size_t)n, sizeof(*job->worker));
    job->named = calloc((size_t)n, sizeof(*job->named));
    if (!job->worker || !job->named)
        return err_set(err, ERR_NOMEM, "no memory for %d workers", n);
    for (int i = 0; i < n; i++) {
        job->worker[i].speed = 1;
        snprintf(job->named[i].name, PLAN_NAME_MAX, "w%d", i);
        if (ask->n_host > 1)
            snprintf(job->named[i].host, PLAN_NAME_MAX, "host-%d",
                     (int)((int64_t)i * ask->n_host / n));
        int rc = ask->worker.n > 0
                     ? parse_worker(ask->worker.at[i], &job->worker[i], &job->named[i], err)
                     : 0;
        if (rc)
            return rc;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct plan_worker *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* check_names: each once; sorted pointers, since there may be thousands. */
static int check_names(const struct plan_job *job, struct err *err)
{
    size_t n = (size_t)job->in.n_worker;
    const struct plan_worker **sorted = malloc(n * sizeof(*sorted));
    if (!sorted)
        return err_set(err, ERR_NOMEM, "no memory for %zu names", n);
    int rc = 0;
    for (size_t i = 0; i < n; i++)
        sorted[i] = &job->named[i];
    qsort(sorted, n, sizeof(*sorted), by_name);
    for (size_t i = 1; rc == 0 && i < n; i++)
        if (strcmp(sorted[i]->name, sorted[i - 1]->name) == 0)
            rc = err_set(err, ERR_USAGE, "two workers are called %s", sorted[i]->name);
    free(sorted);
    return rc;
}

int plan_workers_read(struct plan_job *job, struct err *err)
{
    const struct plan_ask *ask = &job->ask;
    if ((ask->worker.n > 0) + (ask->n_worker > 0) + (ask->workers_file != NULL) > 1)
        return err_set(err, ERR_USAGE, "give one of --workers, --worker and --workers-file");
    int rc = ask->workers_file ? read_file(job, err) : make_list(job, err);
    if (rc == 0)
        rc = check_names(job, err);
    for (int i = 0; rc == 0 && i < job->in.n_worker; i++) {
        int same = 0;
        while (strcmp(job->named[same].host, job->named[i].host) != 0)
            same++;
        job->worker[i].host = same;
    }
    job->in.worker = job->worker;
    return rc;
}
