/* sim_worker: a worker as worker/worker.c is one: what has arrived waits in the worker's own queue
 * (worker/queue.c); whenever the worker is free it takes the requests of the oldest one's layer as
 * one batch, an expert's rows of all of them together. */
#include "tools/sim/sim_state.h"

/* As worker.c: rows of a request, at most. */
#define ROW_LIMIT 4096

/* One expert: its weights are read, whatever its rows. */
static struct work expert_work(const struct sim *sim, int rows)
{
    struct work w = cost_work(&sim->cost->expert, rows);
    w.memory_ns = cost_at(&sim->cost->expert, 1);
    return w;
}

static struct work alone(const struct sim *sim, const struct sim_job *j)
{
    struct work all = {0};
    for (int s = j->part->seg; s < j->part->seg + j->part->n_seg; s++)
        all = work_plus(all, expert_work(sim, j->plan->seg_count[s]));
    return all;
}

/* Several requests: an expert is computed once, for all its rows. */
static struct work merged(struct sim *sim, const struct job *batch)
{
    int n = 0;
    struct work all = {0};
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
        all = work_plus(all, expert_work(sim, sim->count[sim->touched[i]]));
        sim->count[sim->touched[i]] = 0;
    }
    return all;
}

static double reply_bytes(const struct sim *sim, const struct sim_job *j)
{
    return (double)j->part->n_assign * sim->config.desc->d_model * sim->cost->wire_bytes;
}

static struct work answer_work(const struct sim *sim, const struct sim_job *j)
{
    return cost_work(&sim->cost->answer, (j->bytes + reply_bytes(sim, j)) / 2);
}

static void worker_begin(struct sim *sim, struct sim_worker *w)
{
    int64_t most = (int64_t)ROW_LIMIT * sim->config.desc->top_k;
    w->batch = queue_take(w->queue, most);
    if (!w->batch)
        return;
    struct work all = w->batch->next ? merged(sim, w->batch)
                                     : alone(sim, (const struct sim_job *)(const void *)w->batch);
    double call_ns = sim->cost->expert_call_ns;
    all = work_plus(all, (struct work){call_ns, call_ns * sim->cost->other_feel, 0});
    for (const struct job *job = w->batch; job && w->task.host; job = job->next)
        all = work_plus(all, answer_work(sim, (const struct sim_job *)(const void *)job));
    task_start(sim, &w->task, work_times(all, 1 / w->speed));
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
