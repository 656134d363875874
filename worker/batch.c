/* batch: all requests that wait for one layer, of any coordinator, as one grouped product, and
 * their replies. A request leaves here answered: with its rows, or with an Error that says why not.
 */
#include "worker/worker_state.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/team.h"

#include <stdlib.h>

/* job_answered closes the account of one request. */
static void job_answered(struct worker *w, struct job *job)
{
    job->peer->outstanding--;
    job_done(w->queue, job);
}

static void job_failed(struct worker *w, struct job *job, enum wire_error code, const char *text)
{
    answer_error(w, &job->peer->id, job->msg.u.request.call, code, text);
    job_answered(w, job);
}

static void job_reply(struct worker *w, struct job *job, int64_t begin_ns, int64_t end_ns)
{
    const struct msg_request *m = &job->msg.u.request;
    if (job_rows_out(w, job)) {
        job_failed(w, job, WIRE_INTERNAL, "no memory for the reply");
        return;
    }
    struct msg_reply reply = {.call = m->call,
                              .layer = m->layer,
                              .n_assign = m->n_assign,
                              .d_wire = m->d_wire,
                              .dtype = m->reply_dtype,
                              .queue_ns = (uint64_t)(begin_ns - job->arrived_ns),
                              .compute_ns = (uint64_t)(end_ns - begin_ns),
                              .handle_ns = (uint64_t)(clock_now(&clock_real) - job->arrived_ns)};
    struct frames f;
    frames_init(&f);
    msg_build_reply(&f, &reply, job->out,
                    (size_t)m->n_assign * wire_row_bytes(reply.dtype, (size_t)m->d_wire));
    job->out = NULL;
    w->stats.rows += (uint64_t)m->n_row;
    w->stats.assignments += (uint64_t)m->n_assign;
    w->stats.queue_ns += reply.queue_ns;
    answer(w, &job->peer->id, &f);
    job_answered(w, job);
}

static int overdue(const struct job *job, int64_t now_ns)
{
    uint64_t budget_us = job->msg.u.request.budget_us;
    return budget_us && (uint64_t)(now_ns - job->arrived_ns) / NS_PER_US > budget_us;
}

/* job_admit readies a job for the batch: still wanted, and with memory for its result. */
static int job_admit(struct worker *w, struct job *job, int64_t now_ns)
{
    const struct msg_request *m = &job->msg.u.request;
    if (overdue(job, now_ns)) {
        job_failed(w, job, WIRE_BUSY, "the request's budget passed while it waited");
        return 0;
    }
    job->out =
        wirebuf_get(w->bufs, (size_t)m->n_assign * (size_t)m->d_wire * dtype_bytes(m->dtype));
    if (!job->out) {
        job_failed(w, job, WIRE_INTERNAL, "no memory for the result");
        return 0;
    }
    return 1;
}

int batch_reserve(struct worker *w, int n)
{
    if (n <= w->n_item_max)
        return 0;
    struct compute_item *item = realloc(w->item, (size_t)n * 2 * sizeof(*item));
    if (!item)
        return -1;
    w->item = item;
    w->n_item_max = n * 2;
    return 0;
}

/* batch_admit makes an item of each job of the chain; jobs that cannot be computed are answered and
 * leave the chain. Returns how many items. */
static int batch_admit(struct worker *w, struct job **chain, int64_t now_ns)
{
    int n = 0;
    for (struct job **at = chain; *at;) {
        struct job *job = *at, *next = job->next;
        const struct msg_request *m = &job->msg.u.request;
        int room = batch_reserve(w, n + 1) == 0;
        if (!room)
            job_failed(w, job, WIRE_INTERNAL, "no memory for the batch");
        if (!room || !job_admit(w, job, now_ns)) {
            *at = next;
            continue;
        }
        w->item[n++] = (struct compute_item){.layer = m->layer,
                                             .n_seg = m->n_seg,
                                             .seg_expert = m->seg_expert,
                                             .seg_count = m->seg_count,
                                             .rows = m->rows,
                                             .n_row = m->n_row,
                                             .row_index = m->row_index,
                                             .out = wirebuf_data(job->out)};
        at = &job->next;
    }
    return n;
}

/* A line a batch, which stands beside the coordinator's line a step (docs/OPERATIONS.md). */
static void tell_batch(const struct worker *w, int n, int64_t begin_ns, int64_t end_ns,
                       int64_t cpu_ns)
{
    int rows = 0;
    for (int i = 0; i < n; i++)
        rows += w->item[i].n_row;
    log_debug("worker", "batch layer=%d calls=%d rows=%d from=%lld took=%lld cpu=%lld",
              w->item[0].layer, n, rows, begin_ns / NS_PER_US, (end_ns - begin_ns) / NS_PER_US,
              cpu_ns / NS_PER_US);
}

void batch_run(struct worker *w)
{
    /* As much as one request may ask for: the scratch is bounded by that, whatever queues. */
    struct job *chain = queue_take(w->queue, (int64_t)w->shape.row_limit * w->shape.top_k);
    int told = log_level_get() >= LOG_DEBUG;
    int64_t begin_ns = clock_now(&clock_real), cpu_ns = told ? team_cpu_ns(w->team) : 0;
    int n = batch_admit(w, &chain, begin_ns);
    struct err err = {0};
    int rc = compute_run(w->compute, w->set, w->item, n, &err);
    int64_t end_ns = clock_now(&clock_real);
    if (n)
        w->stats.batches++;
    w->stats.compute_ns += (uint64_t)(end_ns - begin_ns);
    if (told && n)
        tell_batch(w, n, begin_ns, end_ns, team_cpu_ns(w->team) - cpu_ns);
    while (chain) {
        struct job *job = chain;
        chain = job->next;
        if (rc)
            job_failed(w, job, WIRE_INTERNAL, err.text);
        else
            job_reply(w, job, begin_ns, end_ns);
    }
}
