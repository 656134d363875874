/* sim: the loop over events, and what is set up before it and summed up behind it. */
#include "tools/sim/sim_state.h"

#include "base/clock.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STREAM_PACE UINT64_C(0x70616365)
#define PROGRESS_NS (NS_PER_S / 4)

void sim_fail(struct sim *sim, int rc)
{
    if (sim->rc == 0)
        sim->rc = rc;
}

struct load_slice *slice_at(struct sim *sim, int64_t at_ns)
{
    int64_t i = at_ns / sim->slice_ns;
    return i < sim->out->n_slice ? &sim->out->slice[i] : NULL;
}

int in_figures(const struct sim *sim, int64_t at_ns)
{
    return at_ns >= sim->out->warmup_ns && at_ns < sim->out->duration_ns;
}

/* ---- set up ---- */

static int or_default(int value, int otherwise)
{
    return value > 0 ? value : otherwise;
}

/* As engine.c has them. */
static void defaults(struct sim_config *s)
{
    s->rows_max = or_default(s->rows_max, 512);
    s->rows_max = s->rows_max < LIMIT_ROWS ? s->rows_max : LIMIT_ROWS;
    s->prefill_chunk = or_default(s->prefill_chunk, s->rows_max);
    s->seqs_max = or_default(s->seqs_max, 64);
    s->waiting_max = or_default(s->waiting_max, 1024);
    s->kv_tokens = or_default(s->kv_tokens, 4 * 4096);
    s->micro_rows_min = or_default(s->micro_rows_min, 32);
    s->n_coordinator = or_default(s->n_coordinator, 1);
    s->threads = or_default(s->threads, 1);
    s->worker_threads = or_default(s->worker_threads, 1);
    s->n_slice = or_default(s->n_slice, 60);
}

static int check(const struct sim_config *s, struct err *err)
{
    if (s->n_worker < 1 || s->n_worker > LIMIT_WORKERS)
        return err_set(err, ERR_USAGE, "a cluster of %d workers; give from 1 to %d", s->n_worker,
                       LIMIT_WORKERS);
    if (s->desc->n_expert < 1 || desc_n_sparse(s->desc) < 1)
        return err_set(err, ERR_MODEL, "a dense model has no experts to place on workers");
    if (placement_n_layer(s->placement) != s->desc->n_layer ||
        placement_n_expert(s->placement) != s->desc->n_expert)
        return err_set(err, ERR_USAGE,
                       "the placement is of %d layers x %d experts, the model has %d x %d",
                       placement_n_layer(s->placement), placement_n_expert(s->placement),
                       s->desc->n_layer, s->desc->n_expert);
    if (s->warmup_s >= s->duration_s)
        return err_set(err, ERR_USAGE, "a warm-up of %g s leaves nothing of %g s", s->warmup_s,
                       s->duration_s);
    return 0;
}

/* holders_count: how many workers hold anything of each layer, for the mean that balancedness is
 * measured against; and that every expert has a holder. */
static int holders_count(struct sim *sim)
{
    const struct sim_config *s = &sim->config;
    int32_t *seen = calloc((size_t)s->n_worker, sizeof(*seen));
    sim->n_holder = calloc((size_t)s->desc->n_layer, sizeof(*sim->n_holder));
    int rc = seen && sim->n_holder ? 0 : err_set(sim->err, ERR_NOMEM, "no memory for layers");
    for (int layer = 0; rc == 0 && layer < s->desc->n_layer; layer++) {
        if (!s->desc->layer[layer].sparse)
            continue;
        for (int e = 0; rc == 0 && e < s->desc->n_expert; e++) {
            const int32_t *holder;
            int n = placement_holders(s->placement, layer, e, &holder);
            if (n == 0)
                rc = err_set(sim->err, ERR_USAGE, "expert %d of layer %d is held by no worker", e,
                             layer);
            for (int i = 0; rc == 0 && i < n; i++) {
                if (holder[i] >= s->n_worker)
                    rc = err_set(sim->err, ERR_USAGE,
                                 "the placement names worker %d, the cluster has %d", holder[i],
                                 s->n_worker);
                else if (seen[holder[i]] != layer + 1) {
                    seen[holder[i]] = layer + 1;
                    sim->n_holder[layer]++;
                }
            }
        }
    }
    free(seen);
    return rc;
}

struct host *host_of(struct sim *sim, const int *index, int i)
{
    if (sim->config.cores > 0)
        return &sim->host[0];
    return index && index[i] >= 0 ? &sim->host[index[i]] : NULL;
}

static int hosts_create(struct sim *sim)
{
    const struct sim_config *s = &sim->config;
    int n = s->cores > 0 ? 1 : s->n_host, rc = 0;
    sim->stretch = cost_pace_mean(&sim->cost->pace);
    sim->host = calloc((size_t)n + 1, sizeof(*sim->host));
    if (!sim->host)
        rc = ERR_NOMEM;
    for (int i = 0; rc == 0 && i < n; i++) {
        double begin = rng_uniform(s->pace_seed, STREAM_PACE, (uint64_t)i) * sim->cost->pace.n_bin;
        if (s->pace_from_start)
            begin = 0;
        rc = host_create(&sim->host[i], s->cores > 0 ? s->cores : s->host_cpus[i], (int64_t)begin);
        sim->n_host = i + 1;
    }
    struct host *client = s->client_host > 0 ? &sim->host[s->client_host - 1] : NULL;
    rc = rc ? rc : desk_create(&sim->client, client, NULL);
    return rc ? err_set(sim->err, rc, "no memory for %d hosts", n) : 0;
}

static int workers_create(struct sim *sim)
{
    const struct sim_config *s = &sim->config;
    size_t n = (size_t)s->n_worker;
    sim->worker = calloc(n, sizeof(*sim->worker));
    sim->speed = s->speed ? calloc(n, sizeof(*sim->speed)) : NULL;
    if (!sim->worker || (s->speed && !sim->speed))
        return err_set(sim->err, ERR_NOMEM, "no memory for %d workers", s->n_worker);
    for (int i = 0; i < s->n_worker; i++) {
        struct sim_worker *w = &sim->worker[i];
        struct host *host = host_of(sim, s->worker_host, i);
        w->id = i;
        w->speed = s->speed ? s->speed[i] : 1;
        if (sim->speed)
            sim->speed[i] = (float)w->speed;
        w->queue = queue_create(s->desc->n_layer);
        if (!w->queue || task_create(&w->task, host, s->worker_threads, worker_done, w) ||
            porter_create(&w->porter, host))
            return err_set(sim->err, ERR_NOMEM, "no memory for the queue of worker %d", i);
    }
    return 0;
}

static int scratch_create(struct sim *sim)
{
    const struct sim_config *s = &sim->config;
    size_t n_expert = (size_t)s->desc->n_expert, longest = 1;
    for (int i = 0; i < s->arrivals->n; i++)
        if ((size_t)s->arrivals->at[i].n_prompt > longest)
            longest = (size_t)s->arrivals->at[i].n_prompt;
    sim->prompt = calloc(longest, sizeof(*sim->prompt));
    sim->slot_expert = calloc((size_t)s->rows_max * (size_t)s->desc->top_k, sizeof(int32_t));
    sim->count = calloc(n_expert, sizeof(int32_t));
    sim->touched = calloc(n_expert, sizeof(int32_t));
    if (s->bank > 0)
        sim->bank = bank_create(s->desc->n_layer, s->bank, s->seed);
    size_t bytes = plan_arena_bytes(s->rows_max, s->desc->top_k, s->desc->n_expert, s->n_worker);
    if (!sim->prompt || !sim->slot_expert || !sim->count || !sim->touched ||
        (s->bank > 0 && !sim->bank) || arena_init(&sim->arena, bytes))
        return err_set(sim->err, ERR_NOMEM, "no memory for the simulation");
    return 0;
}

static int result_create(struct sim *sim)
{
    const struct sim_config *s = &sim->config;
    struct load_result *r = sim->out;
    r->n_request = s->arrivals->n;
    r->warmup_ns = (int64_t)(s->warmup_s * (double)NS_PER_S);
    r->duration_ns = (int64_t)(s->duration_s * (double)NS_PER_S);
    r->n_slice = s->n_slice;
    r->n_worker = s->n_worker;
    r->n_layer = s->desc->n_layer;
    r->n_expert = s->desc->n_expert;
    sim->slice_ns = r->duration_ns / r->n_slice + 1;
    r->request = calloc((size_t)r->n_request, sizeof(*r->request));
    r->slice = calloc((size_t)r->n_slice, sizeof(*r->slice));
    r->worker_busy = calloc((size_t)s->n_worker, sizeof(double));
    r->worker_slots = calloc((size_t)s->n_worker, sizeof(double));
    r->heat = calloc((size_t)r->n_layer * (size_t)r->n_expert, sizeof(double));
    if (!r->request || !r->slice || !r->worker_busy || !r->worker_slots || !r->heat)
        return err_set(sim->err, ERR_NOMEM, "no memory for the results of %d requests",
                       r->n_request);
    for (int i = 0; i < r->n_request; i++) {
        const struct arrival *a = &s->arrivals->at[i];
        r->request[i] = (struct load_request){.due_ns = a->at_ns,
                                              .n_prompt = a->n_prompt,
                                              .n_output = a->n_output,
                                              .domain = a->domain,
                                              .status = REQUEST_UNFINISHED};
    }
    for (int i = 0; i < r->n_slice; i++) {
        r->slice[i].begin_s = (double)(i * sim->slice_ns) / (double)NS_PER_S;
        r->slice[i].end_s = (double)((i + 1) * sim->slice_ns) / (double)NS_PER_S;
        r->slice[i].balancedness = -1;
    }
    return 0;
}

static int set_up(struct sim *sim)
{
    const struct sim_config *s = &sim->config;
    int rc = holders_count(sim);
    rc = rc ? rc : result_create(sim);
    rc = rc ? rc : scratch_create(sim);
    rc = rc ? rc : hosts_create(sim);
    rc = rc ? rc : workers_create(sim);
    sim->coord = rc ? NULL : calloc((size_t)s->n_coordinator, sizeof(*sim->coord));
    if (rc == 0 && !sim->coord)
        rc = err_set(sim->err, ERR_NOMEM, "no memory for %d coordinators", s->n_coordinator);
    for (int i = 0; rc == 0 && i < s->n_coordinator; i++)
        rc = coord_create(sim, &sim->coord[i], i);
    return rc;
}

/* ---- run ---- */

static void arrival_next(struct sim *sim)
{
    const struct arrivals *a = sim->config.arrivals;
    if (sim->next_arrival < a->n)
        heap_push(&sim->heap, a->at[sim->next_arrival].at_ns, EVENT_ARRIVAL, NULL, 0);
}

static void arrival_event(struct sim *sim)
{
    int request = sim->next_arrival++;
    sim->n_open++;
    desk_put(sim, &sim->client, (struct sim_word){.request = request});
    arrival_next(sim);
}

/* At the end of each slice: how many requests are where. */
static void slice_event(struct sim *sim)
{
    struct load_slice *slice = slice_at(sim, sim->now_ns - 1);
    for (int i = 0; slice && i < sim->config.n_coordinator; i++) {
        slice->running += sim->coord[i].sched.n_running;
        slice->waiting += sim->coord[i].sched.n_waiting;
    }
    if (slice)
        heap_push(&sim->heap, sim->now_ns + sim->slice_ns, EVENT_SLICE, NULL, 0);
}

static void take(struct sim *sim, const struct event *e)
{
    struct task *task = e->what;
    switch (e->kind) {
    case EVENT_ARRIVAL:
        arrival_event(sim);
        break;
    case EVENT_TASK:
        task->running = 0;
        task->done(sim, task->owner);
        break;
    case EVENT_HOST:
        host_event(sim, e->what, e->version);
        break;
    case EVENT_LAND:
        message_landed(sim, e->what);
        break;
    case EVENT_SLICE:
        slice_event(sim);
        break;
    }
}

static void show_progress(const struct sim *sim, int64_t *shown_ns)
{
    int64_t now = clock_now(&clock_real);
    if (now - *shown_ns < PROGRESS_NS)
        return;
    *shown_ns = now;
    fprintf(stderr, "\rsimulated %.1f of %.0f s \033[K", (double)sim->now_ns / (double)NS_PER_S,
            sim->config.duration_s);
}

static int run(struct sim *sim)
{
    struct event e;
    int64_t shown_ns = clock_now(&clock_real);
    int show = sim->config.progress && isatty(STDERR_FILENO);
    arrival_next(sim);
    heap_push(&sim->heap, sim->slice_ns, EVENT_SLICE, NULL, 0);
    while (sim->rc == 0 && heap_pop(&sim->heap, &e)) {
        if (e.at_ns > sim->stop_ns)
            break;
        sim->now_ns = e.at_ns;
        take(sim, &e);
        if (show)
            show_progress(sim, &shown_ns);
        if (sim->heap.failed)
            sim_fail(sim, err_set(sim->err, ERR_NOMEM, "no memory for the events"));
        if (sim->n_open == 0 && sim->next_arrival == sim->config.arrivals->n)
            break;
    }
    if (show)
        fprintf(stderr, "\r\033[K");
    return sim->rc;
}

static void sum_spent(const struct sim *sim, double *spent_s)
{
    const struct sim_config *s = &sim->config;
    for (int i = 0; i < s->n_worker; i++) {
        spent_s[SPENT_WORKER] += sim->worker[i].task.spent_ns / (double)NS_PER_S;
        spent_s[SPENT_WORKER_WIRE] += sim->worker[i].porter.task.spent_ns / (double)NS_PER_S;
    }
    for (int i = 0; i < s->n_coordinator; i++) {
        const struct coord *c = &sim->coord[i];
        spent_s[SPENT_COORDINATOR] += c->task.spent_ns / (double)NS_PER_S;
        spent_s[SPENT_COORDINATOR_WIRE] += c->porter.task.spent_ns / (double)NS_PER_S;
        spent_s[SPENT_FRONT] += c->front.task.spent_ns / (double)NS_PER_S;
    }
    spent_s[SPENT_CLIENT] = sim->client.task.spent_ns / (double)NS_PER_S;
}

static void sum_up(struct sim *sim)
{
    const struct sim_config *s = &sim->config;
    struct load_result *r = sim->out;
    double counted_ns = (double)(r->duration_ns - r->warmup_ns);
    for (int i = 0; i < s->n_worker; i++) {
        r->worker_busy[i] = sim->worker[i].busy_ns / counted_ns;
        r->worker_slots[i] = sim->worker[i].slots;
    }
    for (int i = 0; i < s->n_coordinator; i++) {
        r->lookup_tokens += sim->coord[i].sched.stats.prompt_tokens;
        r->hit_tokens += sim->coord[i].sched.stats.cached_tokens;
    }
    for (int i = 0; i < s->n_coordinator; i++)
        r->coordinator_busy += sim->coord[i].busy_ns / counted_ns / s->n_coordinator;
    for (int i = 0; i < r->n_slice; i++)
        r->slice[i].busy /= (double)sim->slice_ns * s->n_worker;
    r->dropped = (uint64_t)sim->dropped.n_dropped;
    r->moved = (uint64_t)sim->dropped.n_moved;
    r->end_ns = sim->now_ns;
    sum_spent(sim, r->spent_s);
}

/* Jobs are the coordinators': a queue must not free them, and they must still be there when it lets
 * go of them. */
static void tear_down(struct sim *sim)
{
    for (int i = 0; sim->worker && i < sim->config.n_worker; i++) {
        struct queue *q = sim->worker[i].queue;
        while (q && queue_take(q, INT64_MAX / 2))
            ;
        queue_destroy(q);
        task_destroy(&sim->worker[i].task);
        porter_destroy(&sim->worker[i].porter);
    }
    for (int i = 0; sim->coord && i < sim->config.n_coordinator; i++)
        coord_destroy(&sim->coord[i]);
    free(sim->coord);
    free(sim->worker);
    for (int i = 0; i < sim->n_host; i++)
        host_destroy(&sim->host[i]);
    free(sim->host);
    desk_destroy(&sim->client);
    free(sim->speed);
    free(sim->prompt);
    free(sim->slot_expert);
    free(sim->n_holder);
    free(sim->count);
    free(sim->touched);
    bank_destroy(sim->bank);
    arena_fini(&sim->arena);
    heap_free(&sim->heap);
}

static int64_t cpu_now(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

int sim_run(const struct sim_config *config, struct load_result *out, struct err *err)
{
    int64_t from_ns = clock_now(&clock_real), cpu_from_ns = cpu_now();
    struct sim sim = {.config = *config, .cost = config->cost, .out = out, .err = err};
    *out = (struct load_result){0};
    defaults(&sim.config);
    sim.stop_ns = (int64_t)((config->duration_s + config->drain_s) * (double)NS_PER_S);
    int rc = check(&sim.config, err);
    rc = rc ? rc : set_up(&sim);
    rc = rc ? rc : run(&sim);
    if (rc == 0)
        sum_up(&sim);
    tear_down(&sim);
    if (rc)
        load_result_free(out);
    else {
        out->wall_ns = clock_now(&clock_real) - from_ns;
        out->cpu_ns = cpu_now() - cpu_from_ns;
    }
    return rc;
}
