/* engine_state: what the files of the engine share. engine.c is the state machine, engine_step.c a
 * step of it, engine_logits.c
 * what happens between the last layer and a token, engine_draft.c guesses of tokens,
 * engine_domain.c how sequences get their domain. */
#ifndef COORDINATOR_ENGINE_STATE_H
#define COORDINATOR_ENGINE_STATE_H

#include "coordinator/domain_probe.h"
#include "coordinator/engine.h"
#include "coordinator/pingpong.h"

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
    struct pingpong pingpong[2];       /* steps that decode; steps with prompts */
    struct speculate speculate;
    struct speculate_want *want; /* [seqs_max] */
    struct seq **want_seq;       /* [seqs_max] */
    int32_t
        *kept_expert; /* [rows_max, n_sparse, top_k] of guesses, until they are known to be right */
    int16_t *kept_worker;
    uint64_t *load;    /* [n_sparse, n_expert] */
    int *sparse_index; /* [n_layer] a layer's place among the sparse ones */
};

/* engine_finish ends a running sequence and tells. */
void engine_finish(struct engine *e, struct seq *seq, enum finish reason, const struct err *err);
/* engine_run_layers brings the n_micro micro-batches to layer `end`. */
int engine_run_layers(struct engine *e, int end, struct err *err);
/* engine_wants_logits: does anybody look at those of position pos of seq? Where somebody does, so
 * it is for all positions behind. engine_take_logits: of those rows of m; told, and drawn from. */
int engine_wants_logits(const struct seq *seq, int pos);
void engine_take_logits(struct engine *e, struct micro *m);
/* engine_draft guesses tokens for sequences that decode, and how many the step shall compute;
 * before sched_plan. engine_drew: token was drawn for seq, which does not have it yet.
 * engine_keep_slots: who computed row r of m, a guess, in the layer at hand. engine_settle_drafts:
 * after the draws; what was guessed wrong was not done. */
void engine_draft(struct engine *e);
void engine_drew(struct engine *e, struct seq *seq, int32_t token);
void engine_keep_slots(struct engine *e, const struct micro *m, int r);
void engine_settle_drafts(struct engine *e, int n_span);
/* engine_tell_domain says which domain a new sequence has, once. */
void engine_tell_domain(struct engine *e, struct seq *seq, const double *score);
/* engine_probe computes one chunk of finding out a domain: 1, 0 when nobody needs it, or an error.
 */
int engine_probe(struct engine *e, struct err *err);

#endif
