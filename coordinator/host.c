/* host: see host.h. */
#include "coordinator/host.h"
#include "base/log.h"
#include "coordinator/experiment.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int has_file(const char *dir, const char *name)
{
    char path[4096 + 64];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return stat(path, &st) == 0;
}

int host_open(struct host *h, const char *dir, struct err *err)
{
    int64_t from = clock_now(&clock_real);
    int rc = kernels_open(&h->kernels, err);
    if (rc == 0 && h->model == NULL) {
        rc = model_open(dir, &h->model, err);
    }
    if (rc == 0) {
        rc = model_check_tables(h->model, err);
    }
    int there = has_file(dir, "tokenizer.json") || has_file(dir, "tokenizer.model") ||
                has_file(dir, "tok512.bin");
    if (rc == 0 && there) {
        rc = tokenizer_open(dir, &h->tok, err);
    }
    h->load_ns = clock_now(&clock_real) - from;
    return rc;
}

struct pool *host_pool(const struct host *h)
{
    return h->cluster != NULL ? cluster_pool(h->cluster) : NULL;
}

static int start_cluster(struct host *h, const struct host_options *o, struct err *err)
{
    if (desc_n_sparse(&h->model->desc) == 0) {
        return 0; /* a dense model has no experts to serve */
    }
    struct cluster_config c = {.model = h->model,
                               .precision = o->precision,
                               .kernels = h->kernels,
                               .clock = &clock_real,
                               .team = h->team,
                               .n_worker = (int)o->workers,
                               .place = o->place,
                               .transport = o->transport,
                               .choice = o->choice,
                               .split_rows = (int)o->split_rows,
                               .worker_threads = (int)o->worker_threads,
                               .spin_us = (int)o->spin_us,
                               .rows = o->rows,
                               .no_shm = o->no_shm,
                               .no_local = o->no_local,
                               .packed_cache = o->packed_cache,
                               .workers_at = o->workers_at,
                               .key_path = o->key,
                               .insecure = o->insecure};
    return cluster_start(&c, &h->cluster, err);
}

/* Do workers started here compute on the CPUs that the coordinator computes on? Then nothing is
 * gained while they do. */
static int is_crowded(const struct host_options *o)
{
    int64_t cpus = cpu_count(), own = o->threads > 0 ? o->threads : cpus,
            each = o->worker_threads > 0 ? o->worker_threads : cpus;
    return o->workers_at == NULL &&
           (o->transport == CLUSTER_INPROC || own + o->workers * each > cpus);
}

static int start_engine(struct host *h, const struct host_options *o, int kv_tokens,
                        int waiting_max, struct err *err)
{
    if (o->trace_hash != NULL && (h->trace.out = fopen(o->trace_hash, "w")) == NULL) {
        return err_sys(err, ERR_IO, "cannot write %s", o->trace_hash);
    }
    int rows_max = o->rows_max > 0 ? (int)o->rows_max : ENGINE_ROWS;
    int rc = o->record == NULL
                 ? 0
                 : record_start(o->record, &h->model->desc, rows_max, &clock_real, &h->record, err);
    if (rc == 0 && o->route != NULL) {
        rc = experiment_create(o->route, &h->model->desc, rows_max, &h->experiment, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (h->experiment != NULL) {
        log_warn("engine",
                 "an experiment: rows go to experts by %s, not by the model's gate; what "
                 "the model says is of no worth",
                 o->route);
    }
    struct engine_config c = {.model = h->model,
                              .weights = h->weights,
                              .kernels = h->kernels,
                              .precision = o->precision,
                              .team = h->team,
                              .pool = host_pool(h),
                              .clock = &clock_real,
                              .trace = o->trace_hash != NULL ? &h->trace : NULL,
                              .record = h->record,
                              .experiment = h->experiment,
                              .kv_dtype = o->kv_dtype,
                              .kv_tokens = o->kv_tokens > 0 ? (int)o->kv_tokens : kv_tokens,
                              .rows_max = (int)o->rows_max,
                              .prefill_chunk = (int)o->prefill_chunk,
                              .seqs_max = (int)o->seqs_max,
                              .waiting_max = waiting_max,
                              .no_prefix_cache = o->no_prefix_cache,
                              .n_micro = (int)o->n_micro,
                              .micro_rows_min = is_crowded(o) ? LIMIT_ROWS : 0,
                              .crowded = is_crowded(o),
                              .speculate = o->speculate,
                              .speculate_max = o->speculate_max};
    return engine_create(&c, &h->engine, err);
}

/* The class of the workers' arithmetic, and behind it what the rows they are sent are rounded to.
 */
static void numerics_of(struct host *h, const struct host_options *o)
{
    static const char *const rows[] = {
        [WIRE_ROWS_OWN] = "", [WIRE_ROWS_FP8] = "+fp8", [WIRE_ROWS_FP8_BOTH] = "+fp8-both"};
    int sparse = desc_n_sparse(&h->model->desc) > 0;
    model_numerics(h->model, o->precision, h->kernels, h->numerics);
    size_t n = strlen(h->numerics);
    snprintf(h->numerics + n, sizeof h->numerics - n, "%s", sparse ? rows[o->rows] : "");
}

int host_start(struct host *h, const struct host_options *o, int kv_tokens, int waiting_max,
               struct err *err)
{
    int64_t from = clock_now(&clock_real);
    h->team = team_create((int)o->threads, (int)o->spin_us);
    int rc =
        h->team == NULL ? err_set(err, ERR_NOMEM, "cannot start %d threads", (int)o->threads) : 0;
    if (rc == 0) {
        h->model->activations = o->activations;
        numerics_of(h, o);
        rc = model_packed_cache(h->model, o->packed_cache, err);
    }
    if (rc == 0) {
        rc = start_cluster(h, o, err);
    }
    if (rc == 0) {
        rc = weights_load_dense(h->model, o->precision, h->team, &h->weights, err);
    }
    if (rc == 0) {
        rc = start_engine(h, o, kv_tokens, waiting_max, err);
    }
    h->load_ns += clock_now(&clock_real) - from;
    return rc;
}

int host_trace_end(struct host *h, const struct host_options *o, struct err *err)
{
    int bad = h->trace.out != NULL && fclose(h->trace.out) != 0;
    h->trace.out = NULL;
    int rc = record_stop(h->record, err);
    h->record = NULL;
    if (rc != 0) {
        return rc;
    }
    return bad ? err_sys(err, ERR_IO, "cannot write %s", o->trace_hash) : 0;
}

void host_close(struct host *h)
{
    if (h->trace.out != NULL) {
        fclose(h->trace.out);
    }
    record_stop(h->record, NULL);
    engine_destroy(h->engine);
    experiment_destroy(h->experiment);
    cluster_stop(h->cluster);
    weights_free_dense(h->weights);
    team_destroy(h->team);
    tokenizer_close(h->tok);
    model_close(h->model);
}
