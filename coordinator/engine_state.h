/* engine_state: what the files of the engine share. engine.c is the state machine, engine_logits.c
 * what happens between the last layer and a token, engine_domain.c how sequences get their domain.
 */
#ifndef COORDINATOR_ENGINE_STATE_H
#define COORDINATOR_ENGINE_STATE_H

#include "coordinator/domain_probe.h"
#include "coordinator/engine.h"

#define MICRO_MAX 2
/* Rows the LM head computes at once. */
#define LOGIT_ROWS 64

enum micro_state { MICRO_READY, MICRO_AWAY };

struct engine {
    struct engine_config config;
    struct forward forward;
    struct kv kv;
    struct sched sched;
    struct micro *micro[MICRO_MAX];
    int n_micro;
    float *logits; /* [LOGIT_ROWS, vocab] */
    struct sample_candidate *candidates;
    uint64_t next_id;
    struct engine_stats stats;
    struct domain_stats *domain_stats; /* [n_domain] */
    struct domain_probe *probe;        /* NULL: the model has no domains */
    uint64_t *load;                    /* [n_sparse, n_expert] */
    int *sparse_index;                 /* [n_layer] a layer's place among the sparse ones */
};

/* engine_finish ends a running sequence and tells. */
void engine_finish(struct engine *e, struct seq *seq, enum finish reason, const struct err *err);
/* engine_run_layers brings the n_micro micro-batches to layer `end`. */
int engine_run_layers(struct engine *e, int end, struct err *err);
/* engine_take_logits: of those rows of m that need them; told, and drawn from. */
void engine_take_logits(struct engine *e, struct micro *m);
/* engine_tell_domain says which domain a new sequence has, once. */
void engine_tell_domain(struct engine *e, struct seq *seq, const double *score);
/* engine_probe computes one chunk of finding out a domain: 1, 0 when nobody needs it, or an error.
 */
int engine_probe(struct engine *e, struct err *err);

#endif
