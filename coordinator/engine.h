/* engine: continuous generation. One step computes one batch of rows through all layers; rows are
 * cut into one or two micro-batches so that one computes while the other's rows are at the experts.
 * The engine is one state machine on one thread; whoever owns it calls engine_step in a loop. */
#ifndef COORDINATOR_ENGINE_H
#define COORDINATOR_ENGINE_H

#include "base/clock.h"
#include "coordinator/forward.h"
#include "coordinator/pool.h"
#include "coordinator/record.h"
#include "coordinator/seq.h"
#include "coordinator/trace.h"

/* Every step with many rows reads all experts' weights, so a prompt is computed in few; where
 * somebody waits for the next token it may not wait that long. */
#define ENGINE_ROWS        STEP_ROWS
#define ENGINE_ROWS_SHARED 512

struct engine_config {
    const struct model *model;
    const struct dense_weights *weights;
    const struct kernels *kernels;
    enum precision precision;
    struct team *team;
    struct pool *pool; /* NULL for a dense model */
    const struct clock *clock;
    struct trace *trace;           /* NULL: off */
    struct record *record;         /* NULL: off */
    struct experiment *experiment; /* NULL: the model's own gate */
    enum dtype kv_dtype;           /* of the KV cache; DTYPE_NONE: the precision's */
    int kv_tokens;                 /* positions the KV cache holds; 0: 4 x 4096 */
    int rows_max;                  /* rows a step; 0: ENGINE_ROWS, shared ones fewer */
    int rows_shared;               /* the engine's: of a step in which somebody decodes */
    int prefill_chunk;             /* rows of one prompt a step; 0: rows_max */
    int seqs_max;                  /* 0: 64 */
    int waiting_max;               /* 0: 1024 */
    int n_micro;                   /* 1, 2; 0: what measurement says is faster */
    int micro_rows_min;  /* two, before anything is measured, from twice this many rows; 0: 32 */
    int crowded;         /* the experts' workers compute on this process's CPUs */
    int no_prefix_cache; /* nothing is taken over from earlier sequences */
    /* Off while rows are recorded or traced (guesses are no tokens), and for an experiment (what it
     * does to a row may depend on the rows beside it). */
    enum speculate_mode speculate;
    int speculate_max; /* tokens guessed of a sequence a step; 0: SPECULATE_MAX */
};

struct engine;

int engine_create(const struct engine_config *config, struct engine **out, struct err *err);
/* engine_destroy drops what is running without calling on_done. */
void engine_destroy(struct engine *e);
/* engine_submit checks and queues a request. ERR_LIMIT, ERR_USAGE (a token outside the vocabulary)
 * or ERR_AGAIN (queue full). *id names it for engine_cancel. */
int engine_submit(struct engine *e, const struct request *request, uint64_t *id, struct err *err);
/* engine_cancel ends a request with FINISH_ABORT before the next step; unknown ids are ignored. */
void engine_cancel(struct engine *e, uint64_t id);
/* A request of DOMAIN_AUTO is probed first (coordinator/domain_probe.h), unless the model has one
 * domain or the prompt one token: then it has the default domain.
 * engine_step: 1 a batch was computed; 0 nothing to do; negative: the cluster failed beyond repair
 * (running requests were told FINISH_ERROR). */
int engine_step(struct engine *e, struct err *err);

/* Counts of one domain. */
struct domain_stats {
    uint64_t requests, prompt_tokens, generated_tokens;
};

struct engine_stats {
    uint64_t steps, rows, prompt_tokens, generated_tokens, dispatches;
    uint64_t proposed, accepted; /* guessed tokens computed; of them right */
    uint64_t probes, probe_rows; /* prompts whose domain was found out; rows computed for that */
    int64_t step_ns;             /* in engine_step with work */
    int64_t wait_ns;             /* of it: nothing to compute, experts away */
    int64_t away_ns;             /* sum over dispatches, send to last row */
    struct dispatch_time time;   /* sums */
    enum dtype kv_dtype;
    size_t kv_bytes; /* of all pages */
    /* Pages; of them not needed by a running sequence; of these kept for what is in them. */
    int kv_pages, kv_pages_free, kv_pages_cached;
    int running, waiting;
    uint64_t cache_lookup_tokens, cache_hit_tokens, cache_evictions; /* of prompts; pages */
    uint64_t preemptions;
};
void engine_stats_get(const struct engine *e, struct engine_stats *out);
/* engine_domain_stats: [n_domain], by index; NULL in models without domains. */
const struct domain_stats *engine_domain_stats(const struct engine *e);
/* engine_load: how often each expert was chosen, [n_sparse, n_expert] over the sparse layers in
 * order; NULL in dense models. Counted by the engine's thread, which alone may read it. */
const uint64_t *engine_load(const struct engine *e);

#endif
