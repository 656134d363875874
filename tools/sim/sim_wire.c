/* sim_wire: messages between coordinators and workers. Where neither is on a declared host the wire
 * takes the measured time. On hosts a message takes CPU time of the thread that moves a process's
 * messages (ZeroMQ's), and waits for a CPU like anybody: between two threads of one host that is
 * nearly all of its way. */
#include "tools/sim/sim_state.h"

#include <math.h>

static void porter_begin(struct sim *sim, struct sim_porter *p)
{
    if (p->first)
        task_start(sim, &p->task, cost_work(&sim->cost->hop, p->first->bytes));
}

static void porter_put(struct sim *sim, struct sim_porter *p, struct sim_job *job)
{
    int idle = !p->first;
    job->behind = NULL;
    *p->last = job;
    p->last = &job->behind;
    if (idle)
        porter_begin(sim, p);
}

/* ---- from one side to the other ---- */

/* A message is there when the wire has carried it and when the coordinator's port, which takes one
 * after the other, has let it through, whichever is later. */
static int64_t through_port(const struct sim *sim, int64_t *port_ns, int64_t at_ns, double bytes)
{
    int64_t free_ns = *port_ns > at_ns ? *port_ns : at_ns;
    *port_ns = free_ns + (int64_t)(1e9 * bytes / sim->cost->link_s);
    return *port_ns;
}

/* Of a measured way, what is not CPU time that is counted by itself. */
static int64_t way_ns(const struct sim *sim, const struct sim_job *job, double bytes)
{
    double ns = cost_at(&sim->cost->one_way, bytes), hop = cost_at(&sim->cost->hop, bytes);
    int on_hosts = (job->coord->porter.task.host != NULL) + (job->worker->porter.task.host != NULL);
    return (int64_t)fmax(0, ns - on_hosts * (hop + sim->cost->wake_ns));
}

static int64_t arrival_ns(const struct sim *sim, struct sim_job *job, int64_t at_ns)
{
    struct coord *c = job->coord;
    int64_t latency_ns = way_ns(sim, job, 0), wire_ns = at_ns + way_ns(sim, job, job->bytes);
    int64_t port_ns = job->back ? through_port(sim, &c->ingress_ns, at_ns + latency_ns, job->bytes)
                                : through_port(sim, &c->egress_ns, at_ns, job->bytes) + latency_ns;
    return port_ns > wire_ns ? port_ns : wire_ns;
}

static void count_bytes(struct sim *sim, uint64_t *sum, double bytes)
{
    *sum += (uint64_t)bytes;
    struct load_slice *slice = slice_at(sim, sim->now_ns);
    if (slice)
        slice->bytes += bytes;
}

/* Has left its own side at at_ns, which is now where the other is on the same host. */
static void message_cross(struct sim *sim, struct sim_job *job, int64_t at_ns)
{
    struct sim_porter *to = job->back ? &job->coord->porter : &job->worker->porter;
    const struct host *from =
        job->back ? job->worker->porter.task.host : job->coord->porter.task.host;
    if (from && from == to->task.host && sim->cost->hop.n > 0)
        porter_put(sim, to, job);
    else
        heap_push(&sim->heap, arrival_ns(sim, job, at_ns), EVENT_LAND, job, 0);
}

void message_landed(struct sim *sim, struct sim_job *job)
{
    struct sim_porter *to = job->back ? &job->coord->porter : &job->worker->porter;
    if (to->task.host && sim->cost->hop.n > 0)
        porter_put(sim, to, job);
    else if (job->back)
        coord_reply(sim, job);
    else
        worker_take_message(sim, job);
}

/* On its side of the wire: to the other side, or, at the end of its way, to who waits for it. */
static void porter_done(struct sim *sim, void *owner)
{
    struct sim_porter *p = owner;
    struct sim_job *job = p->first;
    p->first = job->behind;
    if (!p->first)
        p->last = &p->first;
    porter_begin(sim, p);
    const struct sim_porter *from = job->back ? &job->worker->porter : &job->coord->porter;
    if (p == from)
        message_cross(sim, job, sim->now_ns);
    else if (job->back)
        coord_reply(sim, job);
    else
        worker_take_message(sim, job);
}

int porter_create(struct sim_porter *p, struct host *host)
{
    p->first = NULL;
    p->last = &p->first;
    return task_create(&p->task, host, 1, porter_done, p);
}

void porter_destroy(struct sim_porter *p)
{
    task_destroy(&p->task);
}

/* ---- begin ---- */

void message_send(struct sim *sim, struct sim_job *job, int64_t at_ns)
{
    struct sim_porter *by = &job->coord->porter;
    job->back = 0;
    count_bytes(sim, &sim->out->bytes_sent, job->bytes);
    if (by->task.host && sim->cost->hop.n > 0)
        porter_put(sim, by, job);
    else
        message_cross(sim, job, at_ns);
}

void message_reply(struct sim *sim, struct sim_job *job, double bytes)
{
    struct sim_porter *by = &job->worker->porter;
    job->back = 1;
    job->bytes = bytes;
    count_bytes(sim, &sim->out->bytes_received, bytes);
    if (by->task.host && sim->cost->hop.n > 0)
        porter_put(sim, by, job);
    else
        message_cross(sim, job, sim->now_ns);
}
