/* engine_domain: how a sequence gets its domain, and who is told; see engine_state.h. */
#include "coordinator/engine_state.h"

void engine_tell_domain(struct engine *e, struct seq *seq, const double *score)
{
    const struct model_desc *d = e->forward.desc;
    const struct request *r = &seq->request;
    if (seq->domain_told || d->n_domain == 0) {
        return;
    }
    seq->domain_told = 1;
    e->domain_stats[r->domain].requests++;
    if (r->on_domain != NULL) {
        r->on_domain(r->user, r->domain, score, d->n_domain);
    }
}

static struct seq *first_held(const struct engine *e)
{
    for (int i = 0; i < e->sched.n_running; i++) {
        if (e->sched.running[i]->held) {
            return e->sched.running[i];
        }
    }
    return NULL;
}

/* The probe has ended: its sequence, and all that begin alike, have their domain. */
static void resolve(struct engine *e)
{
    const double *score;
    int domain = domain_probe_result(e->probe, &score);
    for (int i = 0; i < e->sched.n_running; i++) {
        struct seq *seq = e->sched.running[i];
        if (seq->held && domain_probe_same(e->probe, seq)) {
            seq->held = 0;
            seq->request.domain = domain;
            engine_tell_domain(e, seq, score);
            e->stats.probes++;
        }
    }
}

/* The rows are no sequence's, so they leave no trace and are not recorded. */
int engine_probe(struct engine *e, struct err *err)
{
    struct seq *seq = e->probe != NULL ? first_held(e) : NULL;
    if (e->probe != NULL && domain_probe_of(e->probe) != NULL &&
        domain_probe_of(e->probe)->n_page == 0) {
        domain_probe_drop(e->probe); /* it gave way to others, and its pages are gone */
    }
    if (seq == NULL) {
        return 0;
    }
    if (domain_probe_of(e->probe) != seq) {
        domain_probe_begin(e->probe, seq);
    }
    struct forward *f = &e->forward;
    struct micro *m = e->micro[0];
    int end, ended = 0;
    struct record *record = e->config.record;
    f->trace = NULL;
    e->config.record = NULL;
    domain_probe_fill(e->probe, f, m, &end);
    m->state = MICRO_READY;
    e->n_micro = 1;
    int rc = engine_run_layers(e, end, err);
    if (rc == 0) {
        e->stats.probe_rows += (uint64_t)m->n_row;
        ended = domain_probe_read(e->probe, f, m, e->logits, LOGIT_ROWS);
    }
    domain_probe_release(e->probe, &e->kv);
    f->trace = e->config.trace;
    e->config.record = record;
    if (ended) {
        resolve(e);
    }
    return rc != 0 ? rc : 1;
}
