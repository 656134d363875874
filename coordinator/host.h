/* host: a model made ready to generate: its weights, its workers, its engine. What `sigmoe run` and
 * `sigmoe serve` have in common, options included. */
#ifndef COORDINATOR_HOST_H
#define COORDINATOR_HOST_H

#include "base/opt.h"
#include "base/team.h"
#include "coordinator/cluster.h"
#include "coordinator/engine.h"
#include "model/tokenizer.h"

/* The options' values as the table fills them, and what they mean. */
struct host_options {
    const char *transport_name, *precision_name, *place_name, *workers_at, *trace_hash;
    const char *replicas_name, *record, *packed_cache, *speculate_name, *key, *route;
    const char *kv_name, *activations_name, *rows_name;
    int64_t workers, threads, worker_threads, spin_us, prefill_chunk, rows_max, n_micro, kv_tokens,
        seqs_max, split_rows;
    int insecure, no_prefix_cache;
    enum precision precision;
    enum activations activations;
    enum wire_rows rows;
    enum dtype kv_dtype;
    enum cluster_transport transport;
    enum cluster_place place;
    enum replica_choice choice;
    enum speculate_mode speculate;
    int speculate_max;
    int no_shm, no_local;
};
#define HOST_OPTIONS_MAX 30
/* host_options_table sets defaults and writes the options' rows to out [HOST_OPTIONS_MAX]; returns
 * how many. host_options_check gives the names their meaning after parsing. */
int host_options_table(struct host_options *o, struct opt *out);
int host_options_check(struct host_options *o, struct err *err);

struct host {
    const struct kernels *kernels;
    struct model *model;
    struct tokenizer *tok; /* NULL: the checkpoint has none */
    struct team *team;
    struct cluster *cluster; /* NULL for a dense model */
    struct dense_weights *weights;
    struct engine *engine;
    struct trace trace;
    struct record *record;
    struct experiment *experiment; /* NULL: the model's own gate */
    int64_t load_ns;
    /* From host_start on: model_numerics, and "+fp8" or "+fp8-both" for rows that travel so. */
    char numerics[NUMERICS_BYTES];
};

/* host_open reads what is cheap: description, tensors' headers, tokenizer; a model that h has
 * already is taken as it is, and becomes the host's. host_start loads
 * weights, starts or finds workers and makes the engine. h is zeroed before host_open; host_close
 * is due after either, failed or not. kv_tokens, waiting_max: when the options leave them open. */
int host_open(struct host *h, const char *dir, struct err *err);
int host_start(struct host *h, const struct host_options *o, int kv_tokens, int waiting_max,
               struct err *err);
/* host_trace_end closes the files of --trace-hash and --record; ERR_IO when one could not be
 * written. */
int host_trace_end(struct host *h, const struct host_options *o, struct err *err);
void host_close(struct host *h);
struct pool *host_pool(const struct host *h);

#endif
