/* queue: one line a layer, in order of arrival, so that the oldest line is found by its first job
 * and a batch is cut off its head. */
#include "worker/queue.h"

#include <stdlib.h>

struct line {
    struct job *first, **last;
};

struct queue {
    int n_layer, n_job;
    struct job *spare;
    struct line line[]; /* [n_layer] */
};

struct queue *queue_create(int n_layer)
{
    struct queue *q = calloc(1, sizeof(*q) + (size_t)n_layer * sizeof(struct line));
    if (!q)
        return NULL;
    q->n_layer = n_layer;
    for (int i = 0; i < n_layer; i++)
        q->line[i].last = &q->line[i].first;
    return q;
}

static void job_release(struct job *job)
{
    msg_free(&job->msg);
    frames_close(&job->frames);
    wirebuf_unref(job->rows);
    wirebuf_unref(job->out);
    job->rows = job->out = NULL;
    job->peer = NULL;
}

static void chain_free(struct job *job)
{
    while (job) {
        struct job *next = job->next;
        job_release(job);
        free(job);
        job = next;
    }
}

void queue_destroy(struct queue *q)
{
    if (!q)
        return;
    for (int i = 0; i < q->n_layer; i++)
        chain_free(q->line[i].first);
    chain_free(q->spare);
    free(q);
}

struct job *job_new(struct queue *q)
{
    struct job *job = q->spare;
    if (!job)
        return calloc(1, sizeof(*job));
    q->spare = job->next;
    job->next = NULL;
    return job;
}

void job_done(struct queue *q, struct job *job)
{
    job_release(job);
    job->next = q->spare;
    q->spare = job;
}

void queue_push(struct queue *q, struct job *job)
{
    struct line *line = &q->line[job->msg.u.request.layer];
    job->next = NULL;
    *line->last = job;
    line->last = &job->next;
    q->n_job++;
}

static struct line *line_oldest(struct queue *q)
{
    struct line *oldest = NULL;
    for (int i = 0; i < q->n_layer; i++) {
        struct line *line = &q->line[i];
        if (line->first && (!oldest || line->first->arrived_ns < oldest->first->arrived_ns))
            oldest = line;
    }
    return oldest;
}

struct job *queue_take(struct queue *q, int64_t n_assign_max)
{
    if (q->n_job == 0)
        return NULL;
    struct line *line = line_oldest(q);
    struct job *first = line->first, **at = &line->first;
    int64_t n_assign = 0;
    do {
        n_assign += (*at)->msg.u.request.n_assign;
        at = &(*at)->next;
        q->n_job--;
    } while (*at && n_assign + (*at)->msg.u.request.n_assign <= n_assign_max);
    line->first = *at;
    *at = NULL;
    if (!line->first)
        line->last = &line->first;
    return first;
}

int queue_count(const struct queue *q)
{
    return q->n_job;
}
