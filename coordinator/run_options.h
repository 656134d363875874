/* run_options: the command line of `sigmoe run` as one checked struct. */
#ifndef COORDINATOR_RUN_OPTIONS_H
#define COORDINATOR_RUN_OPTIONS_H

#include "coordinator/cluster.h"
#include "coordinator/sampler.h"

struct run_options {
    const char *dir;
    const char *prompt, *token_ids, *token_ids_file;
    const char *dump_logits, *trace_hash;
    int json, ignore_eos;
    enum precision precision;
    enum cluster_transport transport;
    const char *workers_at;
    int n_worker, threads, worker_threads, spin_us;
    int max_tokens, prefill_chunk, rows_max, n_micro, kv_tokens, seqs_max;
    struct sampling sampling;
};

/* run_options_parse: 0, 1 (help was printed), or ERR_USAGE. */
int run_options_parse(int argc, char **argv, struct run_options *o, struct err *err);

#endif
