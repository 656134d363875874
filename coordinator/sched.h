/* sched: which rows the next step computes. Continuous batching: sequences that decode give one row
 * each (and their guesses), then prompts give chunks in order of arrival until the batch is full.
 * Knows no model and no clock.
 *
 * Pages. A waiting sequence is admitted when there are pages for the tokens it has and one page
 * more for it and for everybody who runs, so that nobody runs out at once. Nothing is reserved
 * beyond that. When pages run out, the youngest sequence gives way: it loses its pages and goes
 * back to the head of the queue with the tokens it has, which are computed again later, to the same
 * bits. So who runs is at any time older than who waits, and the oldest, which never gives way,
 * always finishes: the cache holds any sequence that was taken, if need be alone.
 *
 * A prompt's pages that are in the prefix tree are taken over, at any of its page ends. A prompt
 * whose next page is being computed in the same step for another one waits for that page. */
#ifndef COORDINATOR_SCHED_H
#define COORDINATOR_SCHED_H

#include "coordinator/kv.h"
#include "coordinator/seq.h"

struct sched_config {
    int rows_max;      /* rows a step */
    int prefill_chunk; /* rows of one prompt a step */
    int seqs_max;      /* sequences running at once */
    int waiting_max;   /* sequences queued */
    int rows_shared;   /* rows of a step in which somebody decodes; 0: rows_max */
};

/* Rows [begin, end) of the step belong to seq, the first at position pos; the last n_draft of them
 * are guesses. */
struct sched_span {
    struct seq *seq;
    int begin, end, pos, n_draft;
};

struct sched_stats {
    uint64_t preemptions;
    uint64_t prompt_tokens; /* of sequences that could use what others had computed */
    uint64_t cached_tokens; /* of them found in the tree */
};

struct sched {
    struct sched_config config;
    struct sched_stats stats;
    struct kv *kv;
    struct seq *waiting_head, **waiting_tail;
    struct seq **running; /* [n_running], in order of admission */
    int n_running, n_waiting;
    struct sched_span *span; /* [seqs_max] */
};

int sched_init(struct sched *s, const struct sched_config *config, struct kv *kv, struct err *err);
/* sched_fini destroys the sequences it still has. */
void sched_fini(struct sched *s);
/* sched_add queues; takes the sequence over on success. ERR_LIMIT when the cache can never hold it,
 * ERR_AGAIN when the queue is full. */
int sched_add(struct sched *s, struct seq *seq, struct err *err);
/* sched_plan fills s->span with the next step and returns how many spans; *n_row the rows. The
 * pages of all rows are the sequences' then. A held sequence is admitted, with pages for its
 * prompt, but gets no rows. A sequence that has given way has n_page 0 and n_done 0. */
int sched_plan(struct sched *s, int *n_row);
/* sched_n_micro: into how many micro-batches n_row rows are cut. want: 1, 2, or 0: two when each
 * gets at least rows_min. Rows [n_row * i / n, n_row * (i + 1) / n) are micro-batch i's. */
int sched_n_micro(int want, int rows_min, int n_row);
/* sched_remove takes a running sequence out and gives its pages back; the caller destroys it. */
void sched_remove(struct sched *s, struct seq *seq);
/* sched_find: running or waiting, or NULL. */
struct seq *sched_find(struct sched *s, uint64_t id);
/* sched_unqueue takes a waiting sequence out; 0 when it was not waiting. */
int sched_unqueue(struct sched *s, struct seq *seq);

#endif
