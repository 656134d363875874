/* sim_host: threads on the CPUs of a host that several share, as Linux's fair scheduler runs
 * threads that sleep often:
 *   1. Who wakes goes to the CPU it ran on last if that is idle, else to one that is. If none is,
 * to the one it ran on or to its waker's, whichever has had less to do lately.
 *   2. There it runs at once: who has slept is owed time. Whom it displaces waits on that CPU, and
 *      goes on when it sleeps again, or takes turns with it, tick by tick.
 *   3. A CPU that has nothing left sleeps, whoever waits on others; a tick on these finds that out.
 * By 1 and 3 two workers that are woken one after the other often share a CPU while another is
 * idle: wakers are threads too and are busy at that moment. Processor sharing would not show that,
 * and it costs more than what messages take.
 *
 * Threads that are bound by memory slow each other down by what was measured (cost->memory). */
#include "tools/sim/sim_state.h"

#include <math.h>
#include <stdlib.h>

/* Of Linux: a tick at 250 Hz; what a thread had to do counts half after 32 ms; the CPU it ran on
 * before is weighed as if it had somewhat more to do (half of imbalance_pct). */
#define TICK_NS    (4 * NS_PER_MS)
#define HALF_NS    (32 * NS_PER_MS)
#define LAST_WEIGH 1.085

#define PACE_LEAST 1e-3 /* of a CPU that is stopped, so that a task's end is a time */
/* A CPU that is less disturbed than it ever was while calibrated is not infinitely fast. */
#define STRETCH_LEAST 0.2

/* ---- life ---- */

int host_create(struct host *h, int n_cpu, int64_t pace_from)
{
    *h = (struct host){.n_cpu = n_cpu,
                       .waker = -1,
                       .pace_from = pace_from,
                       .cpu = calloc((size_t)n_cpu, sizeof(*h->cpu))};
    return h->cpu ? 0 : ERR_NOMEM;
}

void host_destroy(struct host *h)
{
    free(h->cpu);
    h->cpu = NULL;
}

int task_create(struct task *task, struct host *host, int n_thread, task_fn *done, void *owner)
{
    *task = (struct task){.done = done, .owner = owner, .host = host, .n_thread = n_thread};
    if (!host)
        return 0;
    if (n_thread > host->n_cpu) /* more would only take turns with each other */
        task->n_thread = host->n_cpu;
    task->thread = calloc((size_t)task->n_thread, sizeof(*task->thread));
    for (int i = 0; task->thread && i < task->n_thread; i++)
        task->thread[i] = (struct sim_thread){.task = task,
                                              .cpu = host->n_thread++ % host->n_cpu,
                                              .next = i > 0 ? &task->thread[i - 1] : host->threads};
    if (task->thread)
        host->threads = &task->thread[task->n_thread - 1];
    return task->thread ? 0 : ERR_NOMEM;
}

void task_destroy(struct task *task)
{
    free(task->thread);
    task->thread = NULL;
}

/* ---- time passes ---- */

/* How fast a thread that is bound by memory gets on beside the others that are. */
static double memory_rate(const struct sim *sim, const struct host *h)
{
    double n = 0;
    for (int i = 0; i < h->n_cpu; i++)
        n += h->cpu[i].run ? h->cpu[i].run->task->memory : 0;
    const struct cost_curve *all = &sim->cost->memory;
    return n <= 1 || all->n == 0 ? 1 : fmin(1, cost_at(all, n) / (n * cost_at(all, 1)));
}

/* pace: how fast a CPU is now, over what it is undisturbed. Time since the last change lies in
 * one bin: its end is an event. CPUs beyond those measured repeat them, at another time. */
static double pace(const struct sim *sim, const struct host *h, int cpu)
{
    const struct cost_pace *p = &sim->cost->pace;
    if (p->n_cpu == 0)
        return 1;
    int64_t bin = h->updated_ns / p->bin_ns + h->pace_from + cpu / p->n_cpu * (p->n_bin / 3);
    return fmax(PACE_LEAST, (double)p->bin[cpu % p->n_cpu][bin % p->n_bin]);
}

/* How fast the task of this CPU's thread gets on by it. */
static double cpu_rate(const struct sim *sim, const struct host *h, int cpu, double memory_rate)
{
    const struct task *t = h->cpu[cpu].run->task;
    double more = t->felt * (1 / pace(sim, h, cpu) - 1) + t->memory * (1 / memory_rate - 1);
    return 1 / fmax(STRETCH_LEAST, 1 + more);
}

/* host_progress: what has been done since the last change. */
static void host_progress(const struct sim *sim, struct host *h)
{
    double passed = (double)(sim->now_ns - h->updated_ns), rate = memory_rate(sim, h);
    for (int i = 0; i < h->n_cpu; i++) {
        struct sim_cpu *c = &h->cpu[i];
        if (!c->run)
            continue;
        c->run->task->left_ns -= passed * cpu_rate(sim, h, i, rate);
        c->run->task->spent_ns += passed;
    }
    h->updated_ns = sim->now_ns;
}

/* How fast it gets on by all CPUs that work on it: its threads share what is left. */
static double task_rate(const struct sim *sim, const struct host *h, const struct task *t,
                        double memory_rate)
{
    double sum = 0;
    for (int i = 0; i < h->n_cpu; i++)
        if (h->cpu[i].run && h->cpu[i].run->task == t)
            sum += cpu_rate(sim, h, i, memory_rate);
    return sum;
}

/* The next thing that happens here: a task ends, a tick where somebody waits, or the end of a bin
 * of the CPUs' pace. */
static void host_schedule(struct sim *sim, struct host *h)
{
    double least = INFINITY, rate = memory_rate(sim, h);
    for (int i = 0; i < h->n_cpu; i++) {
        const struct sim_cpu *c = &h->cpu[i];
        if (!c->run)
            continue;
        const struct task *t = c->run->task;
        least = fmin(least, fmax(t->left_ns, 0) / task_rate(sim, h, t, rate));
        if (c->waiting)
            least = fmin(least, (double)(TICK_NS - sim->now_ns % TICK_NS));
        if (sim->cost->pace.n_cpu > 0)
            least = fmin(least,
                         (double)(sim->cost->pace.bin_ns - sim->now_ns % sim->cost->pace.bin_ns));
    }
    h->version++;
    if (isfinite(least))
        heap_push(&sim->heap, sim->now_ns + (int64_t)ceil(least), EVENT_HOST, h, h->version);
}

/* ---- who runs where ---- */

/* load_now: how much of the time it ran or waited to, the past fading. */
static double load_now(const struct sim *sim, const struct sim_thread *t)
{
    double fade = exp2(-(double)(sim->now_ns - t->load_ns) / (double)HALF_NS);
    return t->load * fade + t->runnable * (1 - fade);
}

static void set_runnable(const struct sim *sim, struct sim_thread *t, int runnable)
{
    t->load = load_now(sim, t);
    t->load_ns = sim->now_ns;
    t->runnable = runnable;
}

/* Of all threads that ran there last. */
static double cpu_load(const struct sim *sim, const struct host *h, int cpu)
{
    double sum = 0;
    for (const struct sim_thread *t = h->threads; t; t = t->next)
        sum += t->cpu == cpu ? load_now(sim, t) : 0;
    return sum;
}

/* The CPU for a thread that wakes. */
static int cpu_for(const struct sim *sim, const struct host *h, const struct sim_thread *t)
{
    if (!h->cpu[t->cpu].run)
        return t->cpu;
    for (int i = 0; i < h->n_cpu; i++)
        if (!h->cpu[i].run)
            return i;
    int by = h->waker;
    if (by < 0 || by == t->cpu)
        return t->cpu;
    double there = cpu_load(sim, h, by) + load_now(sim, t);
    return there < LAST_WEIGH * cpu_load(sim, h, t->cpu) ? by : t->cpu;
}

static void thread_wake(struct sim *sim, struct host *h, struct sim_thread *t)
{
    struct sim_cpu *c = &h->cpu[t->cpu = cpu_for(sim, h, t)];
    set_runnable(sim, t, 1);
    if (c->run) {
        c->run->below = c->waiting;
        c->waiting = c->run;
    } else
        t->task->left_ns += sim->cost->wake_ns;
    c->run = t;
}

static void cpu_next(struct sim_cpu *c)
{
    c->run = c->waiting;
    if (c->run)
        c->waiting = c->run->below;
}

/* A tick where somebody waits: to a CPU that is idle with it, or its turn. */
static void cpu_tick(struct host *h, struct sim_cpu *c)
{
    struct sim_thread *next = c->waiting, *t = c->run, **at = &c->waiting;
    c->waiting = next->below;
    for (int i = 0; i < h->n_cpu; i++)
        if (!h->cpu[i].run) {
            h->cpu[i].run = next;
            next->cpu = i;
            return;
        }
    while (*at)
        at = &(*at)->below;
    t->below = NULL;
    *at = t;
    c->run = next;
}

/* A task's threads leave their CPUs, and lines in which they wait. */
static void task_leave(const struct sim *sim, struct host *h, struct task *task)
{
    for (int i = 0; i < h->n_cpu; i++) {
        struct sim_cpu *c = &h->cpu[i];
        for (struct sim_thread **at = &c->waiting; *at;)
            if ((*at)->task == task)
                *at = (*at)->below;
            else
                at = &(*at)->below;
        if (c->run && c->run->task == task)
            cpu_next(c);
    }
    for (int i = 0; i < task->n_thread; i++)
        set_runnable(sim, &task->thread[i], 0);
}

/* ---- tasks ---- */

void task_start(struct sim *sim, struct task *task, struct work work)
{
    struct host *h = task->host;
    task->begun_ns = sim->now_ns;
    if (!h) {
        double ns = fmax(0, work.ns + work.felt_ns * (sim->stretch - 1));
        task->spent_ns += ns * task->n_thread;
        heap_push(&sim->heap, sim->now_ns + (int64_t)ceil(ns), EVENT_TASK, task, 0);
        return;
    }
    host_progress(sim, h);
    task->left_ns = work.ns * task->n_thread;
    task->felt = work.ns > 0 ? work.felt_ns / work.ns : 1;
    task->memory = work.ns > 0 ? fmin(1, work.memory_ns / work.ns) : 0;
    int goes_on = task->running; /* it has just ended something else, and has its CPUs */
    task->running = 1;
    for (int i = 0; !goes_on && i < task->n_thread; i++)
        thread_wake(sim, h, &task->thread[i]);
    host_schedule(sim, h);
}

/* A task that ends may begin something else at once: it keeps its CPUs until it has had the word.
 */
static void task_end(struct sim *sim, struct host *h, struct task *task, int cpu)
{
    task->left_ns = INFINITY;
    h->waker = cpu;
    task->done(sim, task->owner);
    h->waker = -1;
    if (isfinite(task->left_ns))
        return;
    host_progress(sim, h);
    task->running = 0;
    task_leave(sim, h, task);
}

void host_event(struct sim *sim, struct host *h, uint64_t version)
{
    if (version != h->version)
        return;
    host_progress(sim, h);
    for (int i = 0; i < h->n_cpu; i++) {
        struct sim_cpu *c = &h->cpu[i];
        if (c->run && c->run->task->left_ns <= 0.5)
            task_end(sim, h, c->run->task, i);
        else if (c->run && c->waiting && sim->now_ns % TICK_NS == 0)
            cpu_tick(h, c);
    }
    host_schedule(sim, h);
}
