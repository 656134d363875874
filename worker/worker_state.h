/* worker_state: what one worker is made of; private to worker.c (messages, loop, life), batch.c
 * (computing), rows.c (rows that travel as fp8), assign.c (what it holds), fetch.c (what it gives
 * away), near.c (shared memory) and answer.c (sending). */
#ifndef WORKER_WORKER_STATE_H
#define WORKER_WORKER_STATE_H

#include "proto/msg.h"
#include "proto/sock.h"
#include "worker/assign.h"
#include "worker/fetch.h"
#include "worker/near.h"
#include "worker/peers.h"
#include "worker/queue.h"
#include "worker/worker.h"

struct worker {
    char name[LIMIT_NAME_BYTES];
    const struct model *model;
    const struct kernels *kernels;
    int credits;
    struct wire_shape shape;
    uint64_t incarnation, epoch;
    struct ev_loop *loop;
    struct sock *sock;
    ev_check check;
    ev_idle idle;
    ev_timer reaper;
    struct team *team, *own_team; /* what computes; NULL: it is another's */
    struct gpu *gpu;              /* NULL: none */
    struct expert_set *set;
    struct compute *compute;
    struct wirebuf_pool *bufs;
    struct peers *peers;
    struct queue *queue;
    struct assign *assign;
    struct fetch *fetch;
    struct near *near; /* NULL: all by ZeroMQ */
    enum precision precision;
    int fixed;                 /* Assign is refused */
    int64_t memory_bytes;      /* that experts may take; 0: no limit of our own */
    struct compute_item *item; /* [n_item_max] */
    int n_item_max;
    uint8_t *held; /* bitmap of Welcome */
    size_t held_bytes;
    uint32_t *missing; /* [n_expert] scratch of NotHeld */
    struct worker_stats stats;
    int64_t logged_ns;
    uint64_t n_unlogged;
};

/* complain logs what peers do wrong, once a second: a flood of garbage is not a flood of lines. */
void complain(struct worker *w, const char *who, const char *text);
const char *peer_name(const struct peer *peer);
/* answer sends f and forgets. A peer that is gone needs no answer; one that does not read its
 * answers (credits keep an honest one's queue far from full) loses this one and asks again. */
void answer(struct worker *w, const struct sock_peer *to, struct frames *f);
/* answer_error: an Error about `call` (0: about no call), counted and logged. */
void answer_error(struct worker *w, const struct sock_peer *to, uint64_t call, enum wire_error code,
                  const char *text);
/* worker_available: bytes of memory that further experts may take now; 0: nobody knows. */
uint64_t worker_available(const struct worker *w);
/* worker_take acts on one message, however it came. It may take the frames with frames_move. */
void worker_take(struct worker *w, const struct sock_peer *from, struct frames *f);
/* job_rows_in makes the run's dtype of rows that came as fp8; job_rows_out makes what was asked for
 * of the job's results. 0, or -1 without memory. */
int job_rows_in(struct worker *w, struct job *job);
int job_rows_out(struct worker *w, struct job *job);
/* batch_run computes and answers what waits for the layer of the oldest request. */
void batch_run(struct worker *w);
/* batch_reserve: room for n items. 0 or -1. */
int batch_reserve(struct worker *w, int n);

#endif
