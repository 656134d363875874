/* engine_step: one step from its plan to what its draws ended, and what is learned from the time it
 * took; see engine_state.h. */
#include "coordinator/engine_state.h"

#include "base/log.h"
#include "base/team.h"

static void reap_cancelled(struct engine *e)
{
    for (int i = e->sched.n_running - 1; i >= 0; i--) {
        if (e->sched.running[i]->cancelled) {
            engine_finish(e, e->sched.running[i], FINISH_ABORT, NULL);
        }
    }
}

static void fail_all(struct engine *e, const struct err *err)
{
    while (e->sched.n_running > 0) {
        engine_finish(e, e->sched.running[e->sched.n_running - 1], FINISH_ERROR, err);
    }
}

static void tell_start(struct seq *seq)
{
    const struct request *r = &seq->request;
    if (!seq->started && r->on_start != NULL) {
        r->on_start(r->user);
    }
    seq->started = 1;
}

static int choose_n_micro(const struct engine *e, int n_row, int decoding)
{
    const struct engine_config *c = &e->config;
    int first = sched_n_micro(c->n_micro, c->micro_rows_min, n_row);
    /* An experiment's rows depend on who is beside them, and must not on the clock. */
    if (c->pool == NULL || c->n_micro != 0 || c->experiment != NULL) {
        return c->pool == NULL ? 1 : first;
    }
    return pingpong_choose(&e->pingpong[!decoding], n_row, first);
}

static void fill_micros(struct engine *e, int n_span, int n_row, int decoding)
{
    e->n_micro = choose_n_micro(e, n_row, decoding);
    for (int i = 0; i < e->n_micro; i++) {
        struct micro *m = e->micro[i];
        micro_fill(&e->forward, m, e->sched.span, n_span, n_row * i / e->n_micro,
                   n_row * (i + 1) / e->n_micro);
        /* A trace is of every position; an experiment's rows depend on those beside them. */
        m->for_logits = e->config.trace == NULL && e->config.experiment == NULL;
        forward_embed(&e->forward, m);
        m->layer = 0;
        m->state = MICRO_READY;
    }
}

static void count_prompt(struct engine *e, const struct sched_span *span)
{
    int known = span->seq->n_prompt - span->pos, rows = span->end - span->begin;
    int of_prompt = known <= 0 ? 0 : known < rows ? known : rows;
    e->stats.prompt_tokens += (uint64_t)of_prompt;
    if (e->domain_stats != NULL) {
        e->domain_stats[span->seq->request.domain].prompt_tokens += (uint64_t)of_prompt;
    }
}

/* Sequences that their last draw ended. */
static void reap_ended(struct engine *e)
{
    for (int i = e->sched.n_running - 1; i >= 0; i--) {
        struct seq *seq = e->sched.running[i];
        if (seq->ended) {
            engine_finish(e, seq, seq->reason, NULL);
        }
    }
}

/* Does every row give a token, or a guess of one? */
static int decodes_only(const struct engine *e, int n_span)
{
    int only = 1;
    for (int s = 0; s < n_span; s++) {
        const struct sched_span *span = &e->sched.span[s];
        only = only && span->end - span->begin == 1 + span->n_draft &&
               span->pos == span->seq->n_token - 1;
    }
    return only;
}

/* What steps cost decides about guesses and micro-batches. */
static void learn(struct engine *e, int n_row, int decoding, int64_t took)
{
    if (decoding) {
        step_cost_add(&e->speculate.cost, n_row, took);
    }
    pingpong_ran(&e->pingpong[!decoding], n_row, e->n_micro, took);
}

/* What had been used up when a step began. */
struct begun {
    int64_t at, waited, cpu; /* ns; cpu: only where debug lines are wanted */
};

static struct begun begin_step(const struct engine *e)
{
    int told = log_level_get() >= LOG_DEBUG;
    return (struct begun){clock_now(e->config.clock), e->stats.wait_ns,
                          told ? team_cpu_ns(e->config.team) : 0};
}

/* A line a step, for who asks why some take longer: docs/OPERATIONS.md. */
static void tell_step(const struct engine *e, int n_row, int decoding, const struct begun *begun,
                      int64_t took)
{
    if (log_level_get() < LOG_DEBUG) {
        return;
    }
    log_debug("engine", "step %s rows=%d micros=%d from=%lld took=%lld waited=%lld cpu=%lld",
              decoding ? "decode" : "prompt", n_row, e->n_micro, begun->at / NS_PER_US,
              took / NS_PER_US, (e->stats.wait_ns - begun->waited) / NS_PER_US,
              (team_cpu_ns(e->config.team) - begun->cpu) / NS_PER_US);
}

int engine_step(struct engine *e, struct err *err)
{
    reap_cancelled(e);
    struct begun begun = begin_step(e);
    engine_draft(e);
    int n_row, n_span = sched_plan(&e->sched, &n_row);
    int probed = engine_probe(e, err);
    if (probed < 0) {
        fail_all(e, err);
        return probed;
    }
    if (n_span == 0) {
        e->stats.step_ns += probed ? clock_now(e->config.clock) - begun.at : 0;
        return probed;
    }
    for (int s = 0; s < n_span; s++) {
        tell_start(e->sched.span[s].seq);
        engine_tell_domain(e, e->sched.span[s].seq, NULL);
    }
    int decoding = decodes_only(e, n_span);
    fill_micros(e, n_span, n_row, decoding);
    int rc = engine_run_layers(e, e->forward.desc->n_layer, err);
    if (rc != 0) {
        fail_all(e, err);
        return rc;
    }
    for (int s = 0; s < n_span; s++) {
        struct sched_span *span = &e->sched.span[s];
        count_prompt(e, span);
        span->seq->n_done += span->end - span->begin;
    }
    for (int i = 0; i < e->n_micro; i++) {
        engine_take_logits(e, e->micro[i]);
    }
    engine_settle_drafts(e, n_span);
    reap_ended(e);
    e->stats.steps++;
    e->stats.rows += (uint64_t)n_row;
    int64_t took = clock_now(e->config.clock) - begun.at;
    e->stats.step_ns += took;
    if (!probed) {
        learn(e, n_row, decoding, took);
    }
    tell_step(e, n_row, decoding, &begun, took);
    return 1;
}
