/* sim_worker: a worker as worker/worker.c is one: what has arrived waits in the worker's own queue
 * (worker/queue.c); whenever the worker is free it takes the requests of the oldest one's layer as
 * one batch, an expert's rows of all of them together. */
#include "tools/sim/sim_state.h"

/* As worker.c: rows of a request, at most. */
#define ROW_LIMIT 4096

/* What experts take, and how many are read for it. */
struct effort {
    double ns;
    int n_expert;
};

static struct effort alone(const struct sim *sim, const struct sim_job *j)
{
    struct effort e = {0, j->part->n_seg};
    for (int s = j->part->seg; s < j->part->seg + j->part->n_seg; s++)
        e.ns += cost_at(&sim->cost->expert, j->plan->seg_count[s]);
    return e;
}

/* Several requests: an expert is computed once, for all its rows. */
static struct effort merged(struct sim *sim, const struct job *batch)
{
    int n = 0;
    struct effort all = {0};
    for (const struct job *job = batch; job; job = job->next) {
        const struct sim_job *j = (const struct sim_job *)(const void *)job;
        for (int s = j->part->seg; s < j->part->seg + j->part->n_seg; s++) {
            int32_t expert = j->plan->seg_expert[s];
            if (sim->count[expert] == 0)
                sim->touched[n++] = expert;
            sim->count[expert] += j->plan->seg_count[s];
        }
    }
    for (int i = 0; i < n; i++) {
        all.ns += cost_at(&sim->cost->expert, sim->count[sim->touched[i]]);
        sim->count[sim->touched[i]] = 0;
    }
    all.n_expert = n;
    return all;
}

static double reply_bytes(const struct sim *sim, const struct sim_job *j)
{
    return (double)j->part->n_assign * sim->config.desc->d_model * sim->cost->wire_bytes;
}

static double answer_ns(const struct sim *sim, const struct sim_job *j)
{
    return cost_at(&sim->cost->answer, (j->bytes + reply_bytes(sim, j)) / 2);
}

static void worker_begin(struct sim *sim, struct sim_worker *w)
{
    int64_t most = (int64_t)ROW_LIMIT * sim->config.desc->top_k;
    w->batch = queue_take(w->queue, most);
    if (!w->batch)
        return;
    struct effort e = w->batch->next ? merged(sim, w->batch)
                                     : alone(sim, (const struct sim_job *)(const void *)w->batch);
    double ns = e.ns + sim->cost->expert_call_ns;
    for (const struct job *job = w->batch; job && w->task.host; job = job->next)
        ns += answer_ns(sim, (const struct sim_job *)(const void *)job);
    task_start(sim, &w->task, ns / w->speed, e.n_expert * cost_at(&sim->cost->expert, 1) / ns);
}

void worker_take_message(struct sim *sim, struct sim_job *j)
{
    j->job.arrived_ns = sim->now_ns;
    queue_push(j->worker->queue, &j->job);
    if (!j->worker->batch)
        worker_begin(sim, j->worker);
}

/* The part of [from, to) that counts. */
static double counted_ns(const struct sim *sim, int64_t from, int64_t to)
{
    int64_t begin = (int64_t)(sim->config.warmup_s * (double)NS_PER_S);
    int64_t end = (int64_t)(sim->config.duration_s * (double)NS_PER_S);
    from = from > begin ? from : begin;
    to = to < end ? to : end;
    return to > from ? (double)(to - from) : 0;
}

void worker_done(struct sim *sim, void *owner)
{
    struct sim_worker *w = owner;
    w->busy_ns += counted_ns(sim, w->task.begun_ns, sim->now_ns);
    struct load_slice *slice = slice_at(sim, sim->now_ns);
    if (slice)
        slice->busy += (double)(sim->now_ns - w->task.begun_ns);
    for (struct job *job = w->batch, *next; job; job = next) {
        next = job->next;
        struct sim_job *j = (struct sim_job *)(void *)job;
        if (in_figures(sim, sim->now_ns))
            w->slots += j->part->n_assign;
        message_reply(sim, j, reply_bytes(sim, j));
    }
    w->batch = NULL;
    worker_begin(sim, w);
}
