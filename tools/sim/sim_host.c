/* sim_host: tasks on machines. Alone on its machine a task takes the work it was given. On a shared
 * one, processor sharing: with more threads running than cores every task proceeds at cores /
 * threads of its speed, which is how a fair scheduler looks from further away than a time slice.
 */
#include "tools/sim/sim_state.h"

#include <math.h>

static double host_rate(const struct host *h)
{
    int threads = 0;
    for (int i = 0; i < h->n_running; i++)
        threads += h->running[i]->threads;
    return threads > h->n_core ? (double)h->n_core / threads : 1;
}

/* host_progress: what has been done since the last change. */
static void host_progress(struct host *h, int64_t now_ns)
{
    double rate = host_rate(h), passed = (double)(now_ns - h->updated_ns);
    for (int i = 0; i < h->n_running; i++)
        h->running[i]->left_ns -= passed * rate;
    h->updated_ns = now_ns;
}

static void host_schedule(struct sim *sim, struct host *h)
{
    double least = INFINITY;
    for (int i = 0; i < h->n_running; i++)
        least = fmin(least, h->running[i]->left_ns);
    h->version++;
    if (h->n_running > 0) {
        double wait = ceil(fmax(least, 0) / host_rate(h));
        heap_push(&sim->heap, sim->now_ns + (int64_t)wait, EVENT_HOST, h, h->version);
    }
}

void task_start(struct sim *sim, struct task *task, double work_ns)
{
    task->begun_ns = sim->now_ns;
    task->left_ns = work_ns;
    task->running = 1;
    struct host *h = task->host;
    if (!h) {
        heap_push(&sim->heap, sim->now_ns + (int64_t)ceil(work_ns), EVENT_TASK, task, 0);
        return;
    }
    host_progress(h, sim->now_ns);
    h->running[h->n_running++] = task;
    host_schedule(sim, h);
}

void host_event(struct sim *sim, struct host *h, uint64_t version)
{
    if (version != h->version)
        return;
    host_progress(h, sim->now_ns);
    /* Those that end now leave first: what they start next is a new task. */
    struct task *ended[64];
    int n_ended = 0;
    for (int i = 0; i < h->n_running && n_ended < 64;) {
        if (h->running[i]->left_ns > 0.5) {
            i++;
            continue;
        }
        ended[n_ended++] = h->running[i];
        h->running[i] = h->running[--h->n_running];
    }
    host_schedule(sim, h);
    for (int i = 0; i < n_ended; i++) {
        ended[i]->running = 0;
        ended[i]->done(sim, ended[i]->owner);
    }
}
