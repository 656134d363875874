/* host_options: the options that run and serve share; see host.h. */
#include "coordinator/host.h"
#include "router/strategy.h"

#include <string.h>

int host_options_table(struct host_options *o, struct opt *out)
{
    *o = (struct host_options){.transport_name = "inproc",
                               .precision_name = "bf16",
                               .activations_name = "int8",
                               .kv_name = "auto",
                               .rows_name = "bf16",
                               .place_name = "contiguous",
                               .replicas_name = "least-outstanding",
                               .packed_cache = "off",
                               .speculate_name = "auto",
                               .split_rows = 64,
                               .workers = 1,
                               .spin_us = -1,
                               .seqs_max = 64};
    const struct opt table[] = {
        {"workers", 'w', OPT_INT, &o->workers, "N", "workers to start (1)", 1, LIMIT_WORKERS},
        {"transport", 0, OPT_STR, &o->transport_name, "KIND",
         "how workers are reached: inproc (in this process, default), ipc, tcp", 0, 0},
        {"place", 0, OPT_STR, &o->place_name, "HOW",
         "which experts a worker started here holds: contiguous runs (default),\n"
         "colocated (each domain on few workers), spread (each domain over all)",
         0, 0},
        {"workers-at", 0, OPT_STR, &o->workers_at, "LIST",
         "workers that already run: tcp://a:1,tcp://b:1", 0, 0},
        {"wire-key", 0, OPT_STR, &o->key, "FILE",
         "our key (sigmoe keys new): what passes is encrypted, workers\n"
         "prove that they have the same key, or the one behind their\n"
         "endpoint: "
         "tcp://a:1#<64 hex digits>",
         0, 0},
        {"insecure", 0, OPT_FLAG, &o->insecure, NULL,
         "workers of other hosts without keys, on a network that is trusted", 0, 0},
        {"threads", 0, OPT_INT, &o->threads, "N", "of the coordinator; 0: one a CPU", 0, 4096},
        {"worker-threads", 0, OPT_INT, &o->worker_threads, "N",
         "of each worker process started here; 0: one a CPU", 0, 4096},
        {"spin-us", 0, OPT_INT, &o->spin_us, "US",
         "how long an idle thread spins before it parks; -1: default", -1, 1000000},
        {"no-shm", 0, OPT_FLAG, &o->no_shm, NULL,
         "share no memory with workers on this host: rows go the endpoint's way", 0, 0},
        {"wire-dtype", 0, OPT_STR, &o->rows_name, "TYPE",
         "what hidden states travel to workers as: bf16 (default), fp8 (half\n"
         "the bytes; logits differ by about 1 % from bf16's), fp8-both\n"
         "(results too, most of the bytes; logits differ by a third more)",
         0, 0},
        {"no-local", 0, OPT_FLAG, &o->no_local, NULL,
         "never compute experts here that no worker holds any more: requests\n"
         "that need them fail",
         0, 0},
        {"precision", 0, OPT_STR, &o->precision_name, "P",
         "bf16 (default), or f32: the reference mode", 0, 0},
        {"activations", 0, OPT_STR, &o->activations_name, "TYPE",
         "what rows are made where they meet weights that are integers (sigmoe\n"
         "quantize): int8 (default: both are integers, exact sums), bf16",
         0, 0},
        {"kv", 0, OPT_STR, &o->kv_name, "KIND",
         "what keys and values are kept as: auto (default: as --precision says),\n"
         "int8 (with a scale a head and position: half the memory)",
         0, 0},
        {"packed-cache", 0, OPT_STR, &o->packed_cache, "WHERE",
         "keep packed weights on disk, so that the next start maps them:\n"
         "auto (in the checkpoint's folder), a folder, or off (default)",
         0, 0},
        {"prefill-chunk", 0, OPT_INT, &o->prefill_chunk, "N",
         "prompt tokens of one sequence a step; 0: a whole step", 0, LIMIT_ROWS},
        {"max-batch-rows", 0, OPT_INT, &o->rows_max, "N",
         "rows a step; 0: 1024, and 512 while a sequence generates", 0, LIMIT_ROWS},
        {"max-seqs", 0, OPT_INT, &o->seqs_max, "N", "sequences at once (64)", 1, LIMIT_ROWS},
        {"micro-batches", 0, OPT_INT, &o->n_micro, "N",
         "1 or 2 in flight; 0 (default): what measurement says is faster", 0, 2},
        {"speculate", 0, OPT_STR, &o->speculate_name, "HOW",
         "compute tokens guessed from earlier text along with the next one: auto\n"
         "(default: as far as measurement says that it pays), ngram[:K] (always,\n"
         "at most K of 8), off; the tokens stay the same",
         0, 0},
        {"kv-tokens", 0, OPT_INT, &o->kv_tokens, "N",
         "positions the KV cache holds; 0: what is needed; to serve, all of\n"
         "--max-seqs at full length, as far as a quarter of the memory goes",
         0, LIMIT_CONTEXT},
        {"no-prefix-cache", 0, OPT_FLAG, &o->no_prefix_cache, NULL,
         "compute every prompt from its beginning, also where an earlier\n"
         "sequence began alike; the tokens stay the same",
         0, 0},
        {"replicas-by", 0, OPT_STR, &o->replicas_name, "NAME",
         "which of several holders of an expert computes: fixed,\nleast-outstanding (default), "
         "round-robin, two-choices,\nspeed (as measured), local; the tokens stay the same",
         0, 0},
        {"split-rows", 0, OPT_INT, &o->split_rows, "N",
         "cut a hot expert's rows over its holders into pieces of\nat least N (64); 0: never", 0,
         LIMIT_ROWS},
        {"route", 0, OPT_STR, &o->route, "HOW",
         "an experiment: rows go to experts by another strategy than the model's\n"
         "gate, zipf,zipf=1.2 or k-hot,hot-share=0.9 (sigmoe loadtest simulate\n"
         "--help lists them); the text is then of no worth",
         0, 0},
        {"record", 0, OPT_STR, &o->record, "FILE",
         "write which experts each token chose (sigmoe trace info)", 0, 0},
        {"trace-hash", 0, OPT_STR, &o->trace_hash, "FILE",
         "write a hash of every row after every stage: seq pos layer stage hash", 0, 0},
    };
    _Static_assert(sizeof table <= HOST_OPTIONS_MAX * sizeof *table, "raise HOST_OPTIONS_MAX");
    memcpy(out, table, sizeof table);
    return (int)(sizeof table / sizeof *table);
}

static int choose(const char *option, const char *value, const char *const *names, int n,
                  const char *list, int *out, struct err *err)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(value, names[i]) == 0) {
            *out = i;
            return 0;
        }
    }
    return err_set(err, ERR_USAGE, "--%s is %s, not \"%s\"", option, list, value);
}

int host_options_check(struct host_options *o, struct err *err)
{
    const struct strategy *replicas;
    static const char *const transports[] = {"inproc", "ipc", "tcp"};
    static const char *const precisions[] = {"bf16", "f32"};
    static const char *const kinds[] = {"auto", "int8"};
    static const char *const rows[] = {"bf16", "fp8", "fp8-both"};
    static const char *const places[] = {"contiguous", "colocated", "spread"};
    int transport = 0, precision = 0, place = 0, kv = 0, wire = 0;
    int rc = choose("transport", o->transport_name, transports, 3, "inproc, ipc or tcp", &transport,
                    err);
    if (rc == 0) {
        rc = choose("precision", o->precision_name, precisions, 2, "bf16 or f32", &precision, err);
    }
    if (rc == 0) {
        rc = choose("place", o->place_name, places, 3, "contiguous, colocated or spread", &place,
                    err);
    }
    if (rc == 0) {
        rc = choose("kv", o->kv_name, kinds, 2, "auto or int8", &kv, err);
    }
    if (rc == 0 && kv == 1 && precision == 1) {
        rc = err_set(err, ERR_USAGE,
                     "--kv int8 rounds what --precision f32 keeps exact; leave one of them out");
    }
    if (rc == 0) {
        rc = choose("wire-dtype", o->rows_name, rows, 3, "bf16, fp8 or fp8-both", &wire, err);
    }
    if (rc == 0 && wire != WIRE_ROWS_OWN && precision == 1) {
        rc = err_set(err, ERR_USAGE,
                     "--wire-dtype %s rounds what --precision f32 keeps exact; leave one of them "
                     "out",
                     o->rows_name);
    }
    o->rows = (enum wire_rows)wire;
    o->place = (enum cluster_place)place;
    o->transport = (enum cluster_transport)transport;
    rc = rc ? rc : activations_parse(o->activations_name, &o->activations, err);
    o->precision = precision == 1 ? PRECISION_F32 : PRECISION_BF16;
    o->kv_dtype = kv == 1 ? DTYPE_I8 : precision_dtype(o->precision);
    if (rc == 0) {
        rc = strategy_get(STRATEGY_REPLICA, "--replicas-by", o->replicas_name, &replicas, err);
    }
    o->choice = rc == 0 ? replicas->choice : REPLICA_LEAST_LOADED;
    if (rc == 0) {
        rc = speculate_parse(o->speculate_name, &o->speculate, &o->speculate_max, err);
    }
    return rc;
}
