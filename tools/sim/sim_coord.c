/* sim_coord: a coordinator's step as coordinator/engine.c takes it. Rows come from the real
 * scheduler over a KV cache that has pages but no memory; arrows are tried in the engine's order
 * (micro-batch 0, then 1, then the pool is asked again), and each takes the time its curve says. */
#include "tools/sim/sim_state.h"

#include "base/log.h"
#include "tools/sim/prompt.h"

#include <stdlib.h>
#include <string.h>

/* Bytes of a message beside its rows: header, and 4 for each assignment. */
#define HEADER_BYTES 200

/* ---- life ---- */

int coord_create(struct sim *sim, struct coord *c, int id)
{
    const struct sim_config *s = &sim->config;
    struct err *err = sim->err;
    c->id = id;
    c->kv.n_page = c->kv.n_free = kv_pages_for(s->kv_tokens);
    c->kv.free_page = malloc((size_t)c->kv.n_page * sizeof(int32_t));
    c->load = calloc((size_t)s->n_worker, sizeof(int32_t));
    for (int i = 0; i < 2; i++)
        c->micro[i].row = malloc((size_t)s->rows_max * sizeof(*c->micro[i].row));
    if (!c->kv.free_page || !c->load || !c->micro[0].row || !c->micro[1].row)
        return err_set(err, ERR_NOMEM, "no memory for coordinator %d", id);
    for (int i = 0; i < c->kv.n_page; i++)
        c->kv.free_page[i] = c->kv.n_page - 1 - i;
    /* Where no prompt begins like another, nothing would ever be found. */
    if (s->arrivals->n_block > 0 && !s->no_prefix_cache && kv_share(&c->kv, err))
        return ERR_NOMEM;
    struct host *host = host_of(sim, s->coord_host, id);
    if (task_create(&c->task, host, s->threads, coord_done, c) || porter_create(&c->porter, host) ||
        desk_create(&c->front, host, c))
        return err_set(err, ERR_NOMEM, "no memory for coordinator %d", id);
    struct sched_config sc = {s->rows_max, s->prefill_chunk, s->seqs_max, s->waiting_max, 0};
    return sched_init(&c->sched, &sc, &c->kv, err);
}

void coord_destroy(struct coord *c)
{
    if (c->sched.running)
        sched_fini(&c->sched);
    task_destroy(&c->task);
    porter_destroy(&c->porter);
    desk_destroy(&c->front);
    prefix_destroy(c->kv.prefix);
    free(c->kv.free_page);
    free(c->load);
    for (int i = 0; i < 2; i++) {
        free(c->micro[i].row);
        free(c->micro[i].job);
        sim_plan_free(&c->micro[i].own);
    }
}

/* ---- a step begins ---- */

static struct load_request *request_of(const struct sim *sim, const struct seq *seq)
{
    return &sim->out->request[(size_t)(seq->id - 1)];
}

/* sum of the contexts of rows at positions [pos, pos + n), each seeing at most `window` (0: all) */
static double contexts(int pos, int n, int window)
{
    if (window == 0 || pos + n <= window)
        return (double)n * pos + (double)n * (n + 1) / 2;
    if (pos >= window)
        return (double)n * window;
    int below = window - pos;
    return contexts(pos, below, 0) + (double)(n - below) * window;
}

/* Attention of one sequence's rows [pos, pos + n), besides what rows cost of whomever they are. */
static struct work span_work(const struct cost_model *cost, int pos, int n, int window)
{
    if (n == 1 && cost->decode.n > 0)
        return cost_work(&cost->decode, window > 0 && pos > window ? window : pos);
    struct work context = work_times(cost_work(&cost->context, n), contexts(pos, n, window));
    return work_plus(context, (struct work){cost->span_ns, cost->span_ns * cost->other_feel, 0});
}

static struct work context_work(const struct sim *sim, const struct coord *c, int begin, int end,
                                int window)
{
    struct work all = {0};
    for (int i = 0; i < c->n_span; i++) {
        const struct sched_span *s = &c->sched.span[i];
        int b = s->begin > begin ? s->begin : begin, e = s->end < end ? s->end : end;
        if (b < e)
            all = work_plus(all, span_work(sim->cost, s->pos + b - s->begin, e - b, window));
    }
    return all;
}

static void fill_micro(struct sim *sim, struct coord *c, struct sim_micro *m, int begin, int end)
{
    m->n_row = end - begin;
    m->layer = 0;
    m->state = SIM_READY;
    m->context = context_work(sim, c, begin, end, 0);
    for (int i = 0; i < c->n_span; i++) {
        const struct sched_span *s = &c->sched.span[i];
        int b = s->begin > begin ? s->begin : begin, e = s->end < end ? s->end : end;
        for (int r = b; r < e; r++)
            m->row[r - begin] = (struct route_row){s->seq->id, s->pos + r - s->begin,
                                                   request_of(sim, s->seq)->domain};
    }
}

static void coord_next(struct sim *sim, struct coord *c);

static void step_begin(struct sim *sim, struct coord *c)
{
    const struct sim_config *s = &sim->config;
    c->n_span = sched_plan(&c->sched, &c->n_row);
    if (c->n_span == 0)
        return;
    c->stepping = 1;
    c->step_ns = sim->now_ns;
    c->waited_ns = 0;
    c->n_micro = sched_n_micro(s->n_micro, s->micro_rows_min, c->n_row);
    for (int i = 0; i < c->n_micro; i++)
        fill_micro(sim, c, &c->micro[i], c->n_row * i / c->n_micro,
                   c->n_row * (i + 1) / c->n_micro);
    c->turn = 0;
    coord_next(sim, c);
}

void coord_arrival(struct sim *sim, struct coord *c, int request)
{
    struct load_request *r = &sim->out->request[request];
    int n_domain = sim->config.desc->n_domain;
    if (c->kv.prefix)
        prompt_fill(sim->config.arrivals, request, sim->config.seed, sim->config.desc->vocab,
                    sim->prompt);
    /* Nothing is drawn, so no penalty that would want the vocabulary's counts. */
    struct request ask = {.prompt = sim->prompt,
                          .n_prompt = r->n_prompt,
                          .max_tokens = r->n_output,
                          .domain = n_domain > 0 ? r->domain % n_domain : 0,
                          .sampling = SAMPLING_DEFAULT};
    struct seq *seq = seq_create(&ask, (uint64_t)request + 1, 0);
    if (!seq) {
        sim_fail(sim, err_set(sim->err, ERR_NOMEM, "no memory for a request"));
        return;
    }
    struct err why = {0};
    int rc = sched_add(&c->sched, seq, &why);
    if (rc) {
        r->status = REQUEST_REJECTED;
        if (!sim->out->error[0])
            snprintf(sim->out->error, sizeof(sim->out->error), "%.250s", why.text);
        sim->n_open--;
        seq_destroy(seq);
        return;
    }
    if (!c->stepping)
        step_begin(sim, c);
}

/* ---- arrows ---- */

static void begin_arrow(struct sim *sim, struct coord *c, int micro, enum arrow arrow,
                        struct work work)
{
    c->arrow = arrow;
    c->arrow_micro = micro;
    task_start(sim, &c->task, work);
}

/* Of a stage that reads its weights, whatever its rows: as long as one row takes. */
static struct work reading(const struct cost_curve *curve, int rows)
{
    struct work w = cost_work(curve, rows);
    w.memory_ns = cost_at(curve, 1);
    return w;
}

/* The part of attn before keys are written: q, k, v of q, k, v and the output. */
static double keys_share(const struct model_desc *d)
{
    return (double)(d->n_head + 2 * d->n_kv_head) / (2.0 * (d->n_head + d->n_kv_head));
}

/* Behind the keys of the last layer only rows that give logits go on (engine.c, drop_rows): the
 * last of each span that ends where its tokens do. Returns their attention, as context_work does.
 */
static struct work drop_rows(const struct sim *sim, const struct coord *c, struct sim_micro *m,
                             int micro)
{
    int begin = c->n_row * micro / c->n_micro, end = c->n_row * (micro + 1) / c->n_micro, n = 0;
    struct work all = {0};
    for (int i = 0; i < c->n_span; i++) {
        const struct sched_span *s = &c->sched.span[i];
        int pos = s->pos + s->end - 1 - s->begin;
        if (pos == s->seq->n_token - 1 && s->end > begin && s->end <= end) {
            m->row[n++] = m->row[s->end - 1 - begin];
            int window = sim->config.desc->layer[m->layer].window;
            all = work_plus(all, span_work(sim->cost, pos, 1, window));
        }
    }
    m->n_row = n;
    return all;
}

static struct work last_attention_work(const struct sim *sim, struct coord *c, int micro)
{
    struct sim_micro *m = &c->micro[micro];
    double share = keys_share(sim->config.desc);
    struct work all = work_times(reading(&sim->cost->attn, m->n_row), share);
    all = work_plus(all, drop_rows(sim, c, m, micro));
    if (m->n_row > 0)
        all = work_plus(all, work_times(reading(&sim->cost->attn, m->n_row), 1 - share));
    return all;
}

static struct work attention_work(const struct sim *sim, const struct coord *c, int micro)
{
    const struct sim_micro *m = &c->micro[micro];
    int window = sim->config.desc->layer[m->layer].window;
    struct work context = m->context;
    if (window > 0)
        context = context_work(sim, c, c->n_row * micro / c->n_micro,
                               c->n_row * (micro + 1) / c->n_micro, window);
    return work_plus(reading(&sim->cost->attn, m->n_row), context);
}

static void start_layer(struct sim *sim, struct coord *c, int micro)
{
    const struct sim_micro *m = &c->micro[micro];
    int last = m->layer == sim->config.desc->n_layer - 1;
    struct work work = last ? last_attention_work(sim, c, micro) : attention_work(sim, c, micro);
    if (m->n_row == 0)
        begin_arrow(sim, c, micro, ARROW_KEYS, work);
    else if (sim->config.desc->layer[m->layer].sparse)
        begin_arrow(sim, c, micro, ARROW_ATTENTION,
                    work_plus(work, cost_work(&sim->cost->gate, m->n_row)));
    else
        begin_arrow(sim, c, micro, ARROW_DENSE,
                    work_plus(work, reading(&sim->cost->dense, m->n_row)));
}

static void count_dispatch(struct sim *sim, const struct sim_micro *m)
{
    const struct sim_plan *p = m->plan;
    struct load_slice *slice = slice_at(sim, sim->now_ns);
    sim->out->dispatches++;
    sim->out->messages += (uint64_t)p->n_part;
    if (slice && p->n_holder > 0) {
        slice->mean += p->n_assign / p->n_holder;
        slice->max += p->most;
    }
    if (!in_figures(sim, sim->now_ns))
        return;
    double *heat = sim->out->heat + (size_t)m->layer * (size_t)sim->out->n_expert;
    for (int s = 0; s < p->n_seg; s++)
        heat[p->seg_expert[s]] += p->seg_count[s];
}

static int reserve_jobs(struct sim *sim, struct sim_micro *m, int n)
{
    if (n <= m->n_job_max)
        return 0;
    struct sim_job *job = realloc(m->job, (size_t)n * 2 * sizeof(*job));
    if (!job)
        return err_set(sim->err, ERR_NOMEM, "no memory for %d messages", n);
    m->job = job;
    m->n_job_max = n * 2;
    return 0;
}

static void job_init(struct sim *sim, struct coord *c, int micro, int i)
{
    struct sim_micro *m = &c->micro[micro];
    struct sim_job *j = &m->job[i];
    j->job.next = NULL;
    j->job.msg.u.request.layer = m->layer;
    j->job.msg.u.request.n_assign = m->plan->part[i].n_assign;
    j->coord = c;
    j->micro = micro;
    j->part = &m->plan->part[i];
    j->plan = m->plan;
    j->worker = &sim->worker[j->part->worker];
    j->bytes = (double)j->part->n_row * sim->config.desc->d_model * sim->cost->wire_bytes +
               4.0 * j->part->n_assign + HEADER_BYTES;
}

static struct work build_work(const struct sim *sim, const struct sim_job *job)
{
    struct work work = cost_work(&sim->cost->gather, job->bytes);
    return job->coord->task.host ? work_plus(work, cost_work(&sim->cost->send, job->bytes)) : work;
}

static struct work shared_work(const struct sim *sim, const struct sim_micro *m)
{
    return reading(&sim->cost->shared, m->n_row);
}

/* On a host who is woken by one message may take the CPU from who builds the next one, so each is a
 * piece of work of its own; the shared expert comes behind them. */
static void build_next(struct sim *sim, struct coord *c, int micro)
{
    struct sim_micro *m = &c->micro[micro];
    if (m->n_sent < m->plan->n_part)
        begin_arrow(sim, c, micro, ARROW_BUILD, build_work(sim, &m->job[m->n_sent]));
    else
        begin_arrow(sim, c, micro, ARROW_SEND, shared_work(sim, m));
}

/* The gate has chosen: messages leave one after another, each once it is built; then the shared
 * expert is computed while they are away. */
static void send_all(struct sim *sim, struct coord *c, int micro)
{
    struct sim_micro *m = &c->micro[micro];
    int rc = plan_make(sim, c, micro, &m->plan);
    rc = rc ? rc : reserve_jobs(sim, m, m->plan->n_part);
    if (rc) {
        sim_fail(sim, rc);
        return;
    }
    count_dispatch(sim, m);
    struct work built = {0};
    for (int i = 0; i < m->plan->n_part; i++) {
        job_init(sim, c, micro, i);
        built = work_plus(built, build_work(sim, &m->job[i]));
        c->load[m->plan->part[i].worker] += m->plan->part[i].n_assign;
        if (!c->task.host)
            message_send(sim, &m->job[i], sim->now_ns + (int64_t)built.ns);
    }
    m->state = SIM_AWAY;
    m->n_left = m->plan->n_part;
    m->n_sent = 0;
    m->seen_done = 0;
    m->sent_ns = sim->now_ns;
    if (c->task.host)
        build_next(sim, c, micro);
    else
        begin_arrow(sim, c, micro, ARROW_SEND, work_plus(built, shared_work(sim, m)));
}

/* One arrow of micro-batch i, if it can take one (engine.c, advance). */
static int advance(struct sim *sim, struct coord *c, int i)
{
    struct sim_micro *m = &c->micro[i];
    if (m->state == SIM_AWAY) {
        if (!m->seen_done)
            return 0;
        double receive_ns = m->plan->n_part * sim->cost->receive_ns;
        struct work taken = {receive_ns, receive_ns, 0};
        struct work work = cost_work(&sim->cost->combine, m->n_row);
        work = work_plus(work, c->task.host ? c->unread : taken);
        c->n_unread = 0;
        c->unread = (struct work){0};
        begin_arrow(sim, c, i, ARROW_COMBINE, work);
        return 1;
    }
    if (m->layer == sim->config.desc->n_layer)
        return 0;
    if (i > 0) {
        int started = c->micro[0].layer + (c->micro[0].state == SIM_AWAY);
        if (m->layer >= started)
            return 0;
    }
    start_layer(sim, c, i);
    return 1;
}

static void head_begin(struct sim *sim, struct coord *c)
{
    int n = 0;
    for (int i = 0; i < c->n_span; i++) {
        const struct sched_span *s = &c->sched.span[i];
        n += s->pos + s->end - s->begin == s->seq->n_token;
    }
    begin_arrow(sim, c, 0, ARROW_HEAD, n > 0 ? reading(&sim->cost->head, n) : (struct work){0});
}

/* coord_next: the engine's loop. A pass asks the pool, then tries each micro-batch once. */
static void coord_next(struct sim *sim, struct coord *c)
{
    for (;;) {
        if (c->turn == 0) {
            c->moved = 0;
            for (int i = 0; i < c->n_micro; i++)
                c->micro[i].seen_done = c->micro[i].n_left == 0;
        }
        while (c->turn < c->n_micro) {
            if (advance(sim, c, c->turn++)) {
                c->moved = 1;
                return;
            }
        }
        c->turn = 0;
        int open = 0;
        for (int i = 0; i < c->n_micro; i++)
            open += c->micro[i].layer < sim->config.desc->n_layer;
        if (open == 0) {
            head_begin(sim, c);
            return;
        }
        if (!c->moved) {
            c->waiting = 1;
            c->waiting_ns = sim->now_ns;
            return;
        }
    }
}

/* ---- a step ends ---- */

static void token_out(struct sim *sim, struct coord *c, struct seq *seq)
{
    int request = (int)(seq->id - 1), n = seq->n_token - seq->n_prompt + 1;
    seq_append(seq, 0);
    if (n >= seq->request.max_tokens) {
        sched_remove(&c->sched, seq);
        seq_destroy(seq);
    }
    desk_put(sim, &c->front, (struct sim_word){request, n});
}

/* As the engine tells its steps, to lay one beside the other. */
static void tell_step(const struct sim *sim, const struct coord *c)
{
    int64_t took = sim->now_ns - c->step_ns;
    log_debug("sim", "step %s rows=%d micros=%d from=%lld took=%lld waited=%lld",
              c->n_row == c->n_span ? "decode" : "prompt", c->n_row, c->n_micro,
              c->step_ns / NS_PER_US, took / NS_PER_US, c->waited_ns / NS_PER_US);
}

static void step_end(struct sim *sim, struct coord *c)
{
    struct load_result *out = sim->out;
    int n_span = c->n_span;
    tell_step(sim, c);
    out->steps++;
    out->rows += (uint64_t)c->n_row;
    out->step_s += (double)(sim->now_ns - c->step_ns) / (double)NS_PER_S;
    for (int i = 0; i < n_span; i++) {
        const struct sched_span *s = &c->sched.span[i];
        int known = s->seq->n_prompt - s->pos, rows = s->end - s->begin;
        out->prompt_tokens += (uint64_t)(known <= 0 ? 0 : known < rows ? known : rows);
        s->seq->n_done += rows;
    }
    for (int i = 0; i < n_span; i++) {
        struct seq *seq = c->sched.span[i].seq;
        if (seq->n_done == seq->n_token)
            token_out(sim, c, seq);
    }
    c->stepping = 0;
    step_begin(sim, c);
}

/* ---- what happens ---- */

static void count_busy(struct sim *sim, struct coord *c)
{
    if (in_figures(sim, sim->now_ns))
        c->busy_ns += (double)(sim->now_ns - c->task.begun_ns);
}

/* It has waited, and a micro-batch's replies are all there. */
static void wait_end(struct sim *sim, struct coord *c)
{
    c->waiting = 0;
    double waited_s = (double)(sim->now_ns - c->waiting_ns) / (double)NS_PER_S;
    sim->out->wait_s += waited_s;
    c->waited_ns += sim->now_ns - c->waiting_ns;
    struct load_slice *slice = slice_at(sim, sim->now_ns);
    if (slice)
        slice->stall_s += waited_s;
    coord_next(sim, c);
}

/* Replies are taken one by one; who waits for more of them sleeps in between. */
static void read_next(struct sim *sim, struct coord *c)
{
    if (c->n_unread > 0) {
        struct work one = work_times(c->unread, 1.0 / c->n_unread--);
        c->unread = work_plus(c->unread, work_times(one, -1));
        begin_arrow(sim, c, 0, ARROW_READ, one);
        return;
    }
    for (int i = 0; i < c->n_micro; i++)
        if (c->micro[i].state == SIM_AWAY && c->micro[i].n_left == 0) {
            wait_end(sim, c);
            return;
        }
}

void coord_reply(struct sim *sim, struct sim_job *j)
{
    struct coord *c = j->coord;
    struct sim_micro *m = &c->micro[j->micro];
    c->load[j->part->worker] -= j->part->n_assign;
    m->n_left--;
    if (c->task.host) {
        c->n_unread++;
        c->unread = work_plus(c->unread, cost_work(&sim->cost->take, j->bytes));
        if (c->waiting && !c->task.running)
            read_next(sim, c);
    } else if (m->n_left == 0 && c->waiting)
        wait_end(sim, c);
}

void coord_done(struct sim *sim, void *owner)
{
    struct coord *c = owner;
    struct sim_micro *m = &c->micro[c->arrow_micro];
    count_busy(sim, c);
    switch (c->arrow) {
    case ARROW_ATTENTION:
        send_all(sim, c, c->arrow_micro);
        return;
    case ARROW_HEAD:
        step_end(sim, c);
        return;
    case ARROW_DENSE:
    case ARROW_KEYS:
        m->layer++;
        break;
    case ARROW_COMBINE:
        m->state = SIM_READY;
        m->layer++;
        break;
    case ARROW_BUILD:
        message_send(sim, &m->job[m->n_sent++], sim->now_ns);
        build_next(sim, c, c->arrow_micro);
        return;
    case ARROW_READ:
        read_next(sim, c);
        return;
    case ARROW_SEND:
    case ARROW_NONE:
        break;
    }
    coord_next(sim, c);
}
