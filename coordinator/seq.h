/* seq: one sequence being generated: its tokens, the KV pages it has, how far it has been computed,
 * and who is told. Positions [0, n_done) are in the KV cache; tokens [0, n_token) are
 * known. A sequence decodes when n_done == n_token - 1 and prefills while more is left. */
#ifndef COORDINATOR_SEQ_H
#define COORDINATOR_SEQ_H

#include "base/err.h"
#include "coordinator/sampler.h"
#include "coordinator/speculate.h"
#include <stdint.h>

enum finish { FINISH_STOP, FINISH_LENGTH, FINISH_ABORT, FINISH_ERROR };
const char *finish_name(enum finish f);

struct model_desc;

/* What a caller asks for. Arrays are copied by engine_submit. */
struct request {
    const int32_t *prompt; /* [n_prompt], n_prompt >= 1 */
    int n_prompt;
    int max_tokens; /* generated at most; >= 0 (0: evaluate the prompt only) */
    struct sampling sampling;
    uint64_t choice; /* stream of random numbers, for n > 1 choices of one seed */
    int domain;      /* index, or DOMAIN_AUTO; not looked at in models without domains */
    /* DOMAIN_AUTO: the domain is that of the prompt from this position on (a conversation's last
     * question, say). 0 <= domain_from < n_prompt. */
    int domain_from;
    int ignore_eos;
    int all_logits; /* on_logits for every position, not just those a token is drawn from */
    void *user;
    /* on_start: once, when its first rows are about to be computed. May be NULL. */
    void (*on_start)(void *user);
    /* on_domain: once, before the first logits, in models with domains. score: when the domain was
     * found out, the mean log-likelihood of a prompt token under each domain [n_domain]; else NULL.
     * May be NULL. */
    void (*on_domain)(void *user, int domain, const double *score, int n_domain);
    /* on_cached: once, before the first token is drawn: how many of the prompt's positions were
     * computed before, for another request. May be NULL. */
    void (*on_cached)(void *user, int n_position);
    /* on_logits: before sampling. logits [vocab] of position pos; valid during the call. May be
     * NULL. */
    void (*on_logits)(void *user, int pos, const float *logits, int vocab);
    /* on_mask: may lower logits (a grammar) between on_logits and the draw. May be NULL. */
    void (*on_mask)(void *user, float *logits, int vocab);
    /* on_token: non-zero ends the sequence with FINISH_STOP (a stop string was completed). */
    int (*on_token)(void *user, int32_t token);
    /* on_route: what the gate chose for position pos in a sparse layer, top_k slots. May be NULL.
     */
    void (*on_route)(void *user, int pos, int layer, const int32_t *slot_expert,
                     const float *slot_weight, int top_k);
    /* on_computed: who computed n_slot slots of a sparse layer; slot_expert < 0 are empty, a worker
     * of -1 is the coordinator. May be NULL. */
    void (*on_computed)(void *user, const int32_t *slot_expert, const int16_t *slot_worker,
                        int n_slot);
    /* on_done: exactly once; the sequence is gone after it. */
    void (*on_done)(void *user, enum finish reason, const struct err *err);
};

/* request_check: token ids within the vocabulary, a domain that exists, lengths within the context.
 * ERR_USAGE, ERR_LIMIT. */
int request_check(const struct request *request, const struct model_desc *desc, struct err *err);

struct seq {
    uint64_t id;
    struct request request;
    struct logit_bias *bias;
    int32_t *token; /* [n_prompt + max_tokens + 1]; guesses lie behind n_token */
    int n_token, n_prompt, n_done;
    int32_t *page;   /* room for all it can ever need */
    int n_page;      /* 0 while waiting */
    int n_shared;    /* the first of them are in the prefix tree, see seq_pages.h */
    int rope_length; /* the prompt's, where it changes the angles of positions; else 0 */
    int n_told;      /* positions that were told when its pages were taken away */
    int n_preempted; /* how often they were */
    int n_cached;    /* prompt positions that were not computed, but found in the tree */
    uint16_t *n_in_prompt, *n_in_output; /* [vocab] when a penalty is on */
    int n_guess, n_draft;                /* tokens guessed; of them computed in this step */
    struct speculate_hits hits;
    int ended; /* by its last draw, for `reason`; the engine ends it with the step */
    enum finish reason;
    int cancelled;
    int held;        /* not to be computed yet: its domain is being found out */
    int domain_told; /* also: counted */
    int started;     /* on_start was called */
    struct seq *next;
};

/* seq_create copies the request. vocab: for the penalty counts. NULL when memory is out. */
struct seq *seq_create(const struct request *request, uint64_t id, int vocab);
void seq_destroy(struct seq *seq);
/* seq_append records a generated token. */
void seq_append(struct seq *seq, int32_t token);
/* seq_positions: positions the sequence can ever occupy in the cache. */
int seq_positions(const struct seq *seq);

#endif
