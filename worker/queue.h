/* queue: requests that wait, by layer. A job is one request with the frames its pointers lead into;
 * jobs are recycled, so that a request costs no allocation of ours once the worker is warm. */
#ifndef WORKER_QUEUE_H
#define WORKER_QUEUE_H

#include "proto/frames.h"
#include "proto/msg.h"
#include "worker/peers.h"

#include <stdint.h>

struct job {
    struct job *next;
    struct peer *peer;
    struct frames frames;
    struct msg msg; /* points into frames */
    int64_t arrived_ns;
    struct wirebuf *rows; /* what came as fp8, widened; NULL: it did not */
    struct wirebuf *out;  /* [n_assign, d_wire], while computed */
};

struct queue;
struct queue *queue_create(int n_layer);
/* queue_destroy releases what still waits. */
void queue_destroy(struct queue *q);
/* job_new: an empty job, of the recycled ones if there is one; NULL when memory is out. */
struct job *job_new(struct queue *q);
/* job_done releases what the job holds and keeps the shell. */
void job_done(struct queue *q, struct job *job);
/* queue_push: job holds a request that was parsed. */
void queue_push(struct queue *q, struct job *job);
/* queue_take: the jobs of the layer of the oldest request, in order of arrival, linked by `next`:
 * as many as have n_assign_max assignments together, at least one. NULL when nothing waits. */
struct job *queue_take(struct queue *q, int64_t n_assign_max);
int queue_count(const struct queue *q);

#endif
