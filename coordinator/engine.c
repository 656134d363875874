/* engine: see engine.h.
 *
 * A micro-batch is in one of these states; each arrow names the function that takes it and what may
 * be relied on after it.
 *
 *   READY(l)  x holds the residual stream before layer l
 *     | start_layer: forward_keys, forward_attention, forward_ffn_norm
 *     |-- dense layer:  forward_dense ----------------------------> READY(l + 1)
 *     |-- sparse layer: forward_gate, pool_dispatch, forward_shared -> AWAY(l)
 *     |-- last layer, no row left of them (drop_rows) ------------> READY(l + 1)
 *   AWAY(l)   a, slot_* belong to the dispatch: read only
 *     | end_layer (dispatch.done): forward_combine, dispatch_release -> READY(l + 1)
 *   READY(n_layer) = DONE: logits may be taken
 *
 * Order. Micro-batch 1 may hold later rows of a sequence whose earlier rows are in micro-batch 0,
 * so it starts layer l only after micro-batch 0 has started it (its keys are then in the cache).
 * Results do not depend on anything else about the interleaving. */
#include "coordinator/engine_state.h"

#include <stdlib.h>
#include <string.h>

/* ---- life ------------------------------------------------------------------------------------ */

/* What is there of the KV cache when the first prompt comes: of one as long as most, unless that
 * would be much memory. */
#define KV_TOUCH_POSITIONS 2048
#define KV_TOUCH_BYTES     ((size_t)256 << 20)

static void config_defaults(struct engine_config *c)
{
    c->rows_shared = c->rows_max > 0 ? 0 : ENGINE_ROWS_SHARED;
    c->rows_max = c->rows_max > 0 ? c->rows_max : ENGINE_ROWS;
    c->rows_max = c->rows_max < LIMIT_ROWS ? c->rows_max : LIMIT_ROWS;
    c->prefill_chunk = c->prefill_chunk > 0 ? c->prefill_chunk : c->rows_max;
    c->seqs_max = c->seqs_max > 0 ? c->seqs_max : 64;
    c->waiting_max = c->waiting_max > 0 ? c->waiting_max : 1024;
    c->kv_tokens = c->kv_tokens > 0 ? c->kv_tokens : 4 * 4096;
    c->micro_rows_min = c->micro_rows_min > 0 ? c->micro_rows_min : 32;
}

static int load_init(struct engine *e, const struct model_desc *d, struct err *err)
{
    size_t n_sparse = (size_t)desc_n_sparse(d), cells = n_sparse * (size_t)d->n_expert;
    e->sparse_index = calloc((size_t)d->n_layer, sizeof *e->sparse_index);
    e->load = cells > 0 ? calloc(cells, sizeof *e->load) : NULL;
    if (e->sparse_index == NULL || (cells > 0 && e->load == NULL)) {
        return err_set(err, ERR_NOMEM, "no memory for the load of %zu experts", cells);
    }
    for (int l = 0, n = 0; l < d->n_layer; l++) {
        e->sparse_index[l] = n;
        n += d->layer[l].sparse;
    }
    return 0;
}

static int drafts_init(struct engine *e, struct err *err)
{
    const struct engine_config *c = &e->config;
    int off = c->trace != NULL || c->record != NULL || c->experiment != NULL;
    int k = c->speculate_max;
    const struct model_desc *d = &c->model->desc;
    size_t slots = (size_t)c->rows_max * (size_t)desc_n_sparse(d) * (size_t)d->top_k;
    e->speculate.mode = off ? SPECULATE_OFF : c->speculate;
    e->speculate.k_max = k > 0 && k < SPECULATE_MAX ? k : SPECULATE_MAX;
    e->want = calloc((size_t)c->seqs_max, sizeof *e->want);
    e->want_seq = calloc((size_t)c->seqs_max, sizeof(struct seq *));
    if (e->speculate.mode != SPECULATE_OFF && slots > 0) {
        e->kept_expert = calloc(slots, sizeof *e->kept_expert);
        e->kept_worker = calloc(slots, sizeof *e->kept_worker);
        if (e->kept_expert == NULL || e->kept_worker == NULL) {
            return err_set(err, ERR_NOMEM, "no memory for guesses of %d rows", c->rows_max);
        }
    }
    return e->want == NULL || e->want_seq == NULL
               ? err_set(err, ERR_NOMEM, "no memory for %d sequences", c->seqs_max)
               : 0;
}

int engine_create(const struct engine_config *config, struct engine **out, struct err *err)
{
    struct engine *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for an engine");
    }
    e->config = *config;
    config_defaults(&e->config);
    const struct engine_config *c = &e->config;
    const struct model_desc *d = &c->model->desc;
    enum dtype dtype = precision_dtype(c->precision);
    e->forward = (struct forward){d,       c->weights, c->kernels, dtype,
                                  c->team, &e->kv,     c->trace,   c->experiment};
    e->next_id = 1;
    struct sched_config sc = {c->rows_max, c->prefill_chunk, c->seqs_max, c->waiting_max,
                              c->rows_shared};
    enum dtype kept = c->kv_dtype != DTYPE_NONE ? c->kv_dtype : dtype;
    int rc = kv_init(&e->kv, d, kept, kv_pages_for(c->kv_tokens), err);
    /* A trace and a recording are of every position; what an experiment does to a row may depend on
     * the rows beside it. */
    int apart = c->trace != NULL || c->record != NULL || c->experiment != NULL;
    if (rc == 0 && !c->no_prefix_cache && !apart) {
        rc = kv_share(&e->kv, err);
    }
    if (rc == 0) {
        rc = sched_init(&e->sched, &sc, &e->kv, err);
    }
    if (rc == 0) {
        rc = load_init(e, d, err);
    }
    if (rc == 0) {
        kv_touch(&e->kv, KV_TOUCH_POSITIONS, KV_TOUCH_BYTES, c->team);
    }
    for (int i = 0; rc == 0 && i < MICRO_MAX; i++) {
        rc = micro_create(&e->forward, c->rows_max, &e->micro[i], err);
    }
    if (rc == 0) { /* the other one is seldom used */
        micro_touch(&e->forward, e->micro[0], ENGINE_ROWS_SHARED);
    }
    e->pingpong[0].crowded = e->pingpong[1].crowded = c->crowded;
    if (rc == 0) {
        rc = drafts_init(e, err);
    }
    if (rc == 0 && d->n_domain > 0) {
        e->domain_stats = calloc((size_t)d->n_domain, sizeof *e->domain_stats);
        rc = e->domain_stats == NULL ? err_set(err, ERR_NOMEM, "no memory for an engine")
                                     : domain_probe_create(d, &e->probe, err);
    }
    if (rc == 0) {
        e->logits = malloc((size_t)LOGIT_ROWS * (size_t)d->vocab * sizeof *e->logits);
        e->candidates = malloc((size_t)d->vocab * sizeof *e->candidates);
        if (e->logits == NULL || e->candidates == NULL) {
            rc = err_set(err, ERR_NOMEM, "no memory for the logits of %d rows", LOGIT_ROWS);
        }
    }
    if (rc != 0) {
        engine_destroy(e);
        return rc;
    }
    *out = e;
    return 0;
}

void engine_destroy(struct engine *e)
{
    if (e == NULL) {
        return;
    }
    if (e->sched.running != NULL) {
        sched_fini(&e->sched);
    }
    for (int i = 0; i < MICRO_MAX; i++) {
        micro_destroy(e->micro[i]);
    }
    kv_fini(&e->kv);
    free(e->logits);
    free(e->candidates);
    free(e->domain_stats);
    free(e->want);
    free(e->want_seq);
    free(e->kept_expert);
    free(e->kept_worker);
    domain_probe_destroy(e->probe);
    free(e->load);
    free(e->sparse_index);
    free(e);
}

/* ---- requests -------------------------------------------------------------------------------- */

int engine_submit(struct engine *e, const struct request *request, uint64_t *id, struct err *err)
{
    const struct model_desc *d = &e->config.model->desc;
    int rc = request_check(request, d, err);
    if (rc != 0) {
        return rc;
    }
    struct seq *seq = seq_create(request, e->next_id, d->vocab);
    if (seq == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a request of %d tokens", request->n_prompt);
    }
    if (d->n_domain == 0) {
        seq->request.domain = 0;
    } else if (request->domain == DOMAIN_AUTO) {
        seq->held = d->n_domain > 1 && request->n_prompt - request->domain_from > 1;
        seq->request.domain = d->default_domain;
    }
    int scaled = d->rope.scaling == ROPE_DYNAMIC && request->n_prompt > d->rope.max_context;
    seq->rope_length = scaled ? request->n_prompt : 0;
    rc = sched_add(&e->sched, seq, err);
    if (rc != 0) {
        seq_destroy(seq);
        return rc;
    }
    *id = e->next_id++;
    return 0;
}

void engine_finish(struct engine *e, struct seq *seq, enum finish reason, const struct err *err)
{
    if (e->probe != NULL && domain_probe_of(e->probe) == seq) {
        domain_probe_drop(e->probe);
    }
    sched_remove(&e->sched, seq);
    if (seq->request.on_done != NULL) {
        seq->request.on_done(seq->request.user, reason, err);
    }
    seq_destroy(seq);
}

void engine_cancel(struct engine *e, uint64_t id)
{
    struct seq *seq = sched_find(&e->sched, id);
    if (seq == NULL) {
        return;
    }
    if (sched_unqueue(&e->sched, seq)) {
        if (seq->request.on_done != NULL) {
            seq->request.on_done(seq->request.user, FINISH_ABORT, NULL);
        }
        seq_destroy(seq);
        return;
    }
    seq->cancelled = 1;
}

/* ---- layers ---------------------------------------------------------------------------------- */

static int send_to_experts(struct engine *e, struct micro *m, struct err *err)
{
    const struct model_desc *d = e->forward.desc;
    struct dispatch *x = &m->dispatch;
    memset(x, 0, sizeof *x);
    x->layer = m->layer;
    x->batch = m == e->micro[0] ? 0 : 1;
    x->n_row = m->n_row;
    x->top_k = d->top_k;
    x->slot_expert = m->slot_expert;
    x->rows = m->a;
    x->ld_row = m->ld_a;
    x->slot_row = m->slot_row;
    x->slot_worker = m->slot_worker;
    return pool_dispatch(e->config.pool, x, err);
}

/* Counts what the gate chose. */
static void count_load(struct engine *e, const struct micro *m)
{
    const struct model_desc *d = e->forward.desc;
    size_t sparse = (size_t)e->sparse_index[m->layer];
    uint64_t *load = e->load + sparse * (size_t)d->n_expert;
    for (int i = 0; i < m->n_row * d->top_k; i++) {
        if (m->slot_expert[i] >= 0) {
            load[m->slot_expert[i]]++;
        }
    }
}

static void tell_routes(const struct engine *e, const struct micro *m)
{
    int top_k = e->forward.desc->top_k;
    for (int s = 0; s < m->n_span; s++) {
        const struct request *r = &m->span_seq[s]->request;
        for (int row = m->span[s].begin; r->on_route != NULL && row < m->span[s].end; row++) {
            size_t slot = (size_t)row * (size_t)top_k;
            if (m->pos[row] < m->span_seq[s]->n_told) {
                continue; /* computed again */
            }
            r->on_route(r->user, m->pos[row], m->layer, m->slot_expert + slot,
                        m->slot_weight + slot, top_k);
        }
    }
}

/* Of guesses it is told when they are known to be right. */
static void tell_computed(struct engine *e, const struct micro *m)
{
    int top_k = e->forward.desc->top_k;
    for (int s = 0; s < m->n_span; s++) {
        const struct request *r = &m->span_seq[s]->request;
        int begin = m->span[s].begin, end = m->span[s].end;
        size_t slot = (size_t)begin * (size_t)top_k;
        if (r->on_computed == NULL) {
            continue;
        }
        while (end > begin && m->pos[end - 1] >= m->span_seq[s]->n_token) {
            engine_keep_slots(e, m, --end);
        }
        if (end > begin) {
            r->on_computed(r->user, m->slot_expert + slot, m->slot_worker + slot,
                           (end - begin) * top_k);
        }
    }
}

static void tell_choice(struct engine *e, const struct micro *m)
{
    record_layer(e->config.record, m == e->micro[0] ? 0 : 1, m, e->sparse_index[m->layer]);
    tell_routes(e, m);
}

/* Will somebody be told what the gate of this layer chose? */
static int choice_told(const struct engine *e, const struct micro *m)
{
    int told = e->config.record != NULL;
    for (int s = 0; s < m->n_span && !told; s++) {
        told = m->span_seq[s]->request.on_route != NULL;
    }
    return told && e->forward.desc->layer[m->layer].sparse;
}

/* Rows whose logits nobody wants end here. */
static void drop_rows(const struct engine *e, struct micro *m)
{
    for (int s = 0; s < m->n_span; s++) {
        int from = m->span[s].begin;
        while (from < m->span[s].end && !engine_wants_logits(m->span_seq[s], m->pos[from])) {
            from++;
        }
        m->tail[s] = m->span[s].end - from;
    }
    micro_keep_tails(&e->forward, m);
}

/* From the gate's choice to the experts. */
static int start_experts(struct engine *e, struct micro *m, int last, struct err *err)
{
    forward_gate(&e->forward, m, m->layer);
    if (last) { /* all rows are told, those that end here too */
        tell_choice(e, m);
        drop_rows(e, m);
        if (m->n_row == 0) {
            m->layer++;
            return 0;
        }
    }
    int rc = send_to_experts(e, m, err);
    if (rc == 0) {
        m->state = MICRO_AWAY;
        count_load(e, m);
        if (!last) {
            tell_choice(e, m);
        }
        forward_shared(&e->forward, m, m->layer);
    }
    return rc;
}

static int start_layer(struct engine *e, struct micro *m, struct err *err)
{
    const struct forward *f = &e->forward;
    int last = m->for_logits && m->layer == f->desc->n_layer - 1;
    forward_keys(f, m, m->layer);
    if (last && !choice_told(e, m)) {
        drop_rows(e, m);
    }
    int rc = m->n_row > 0 ? forward_attention(f, m, m->layer, err) : 0;
    if (rc != 0 || m->n_row == 0) {
        m->layer += rc == 0;
        return rc;
    }
    forward_ffn_norm(f, m, m->layer);
    if (f->desc->layer[m->layer].sparse) {
        return start_experts(e, m, last, err);
    }
    forward_dense(f, m, m->layer);
    m->layer++;
    return 0;
}

static void add_times(struct engine_stats *s, const struct dispatch *d)
{
    s->dispatches++;
    s->away_ns += d->done_ns - d->sent_ns;
    s->time.serialise_ns += d->time.serialise_ns;
    s->time.wire_ns += d->time.wire_ns;
    s->time.queue_ns += d->time.queue_ns;
    s->time.compute_ns += d->time.compute_ns;
    s->time.bytes_sent += d->time.bytes_sent;
    s->time.bytes_received += d->time.bytes_received;
    s->time.calls += d->time.calls;
}

static int end_layer(struct engine *e, struct micro *m, struct err *err)
{
    struct dispatch *d = &m->dispatch;
    int rc = d->status;
    if (rc == 0) {
        forward_combine(&e->forward, m, m->layer);
        tell_computed(e, m);
        add_times(&e->stats, d);
    } else if (err != NULL) {
        *err = d->err;
    }
    dispatch_release(e->config.pool, d);
    m->state = MICRO_READY;
    m->layer++;
    return rc;
}

/* One arrow of micro-batch i on its way to layer `end`, if it can take one: 1, 0, or an error. */
static int advance(struct engine *e, int i, int end, struct err *err)
{
    struct micro *m = e->micro[i];
    if (m->state == MICRO_AWAY) {
        if (!m->dispatch.done) {
            return 0;
        }
        int rc = end_layer(e, m, err);
        return rc != 0 ? rc : 1;
    }
    if (m->layer == end) {
        return 0;
    }
    if (i > 0) {
        const struct micro *first = e->micro[0];
        int started = first->layer + (first->state == MICRO_AWAY);
        if (m->layer >= started) {
            return 0;
        }
    }
    int rc = start_layer(e, m, err);
    return rc != 0 ? rc : 1;
}

/* After a failure: no dispatch may keep pointing into the buffers. */
static void settle(struct engine *e)
{
    for (int i = 0; i < e->n_micro; i++) {
        struct micro *m = e->micro[i];
        while (m->state == MICRO_AWAY && !m->dispatch.done) {
            pool_wait(e->config.pool, clock_now(e->config.clock) + NS_PER_S);
        }
        if (m->state == MICRO_AWAY) {
            dispatch_release(e->config.pool, &m->dispatch);
            m->state = MICRO_READY;
        }
    }
}

int engine_run_layers(struct engine *e, int end, struct err *err)
{
    for (;;) {
        int moved = 0, open = 0;
        /* One micro-batch is away or needs nothing of the pool; pool_wait looks for itself. */
        if (e->config.pool != NULL && e->n_micro > 1) {
            pool_poll(e->config.pool);
        }
        for (int i = 0; i < e->n_micro; i++) {
            int rc = advance(e, i, end, err);
            if (rc < 0) {
                settle(e);
                return rc;
            }
            moved += rc;
            open += e->micro[i]->layer < end;
        }
        if (open == 0) {
            return 0;
        }
        if (!moved) {
            int64_t from = clock_now(e->config.clock);
            pool_wait(e->config.pool, from + NS_PER_S);
            e->stats.wait_ns += clock_now(e->config.clock) - from;
        }
    }
}

/* ---- figures --------------------------------------------------------------------------------- */

const uint64_t *engine_load(const struct engine *e)
{
    return e->load;
}

void engine_stats_get(const struct engine *e, struct engine_stats *out)
{
    *out = e->stats;
    out->kv_dtype = e->kv.layout.dtype;
    out->kv_bytes = e->kv.bytes;
    out->kv_pages = e->kv.n_page;
    out->kv_pages_free = kv_available(&e->kv);
    out->kv_pages_cached = out->kv_pages_free - e->kv.n_free;
    out->cache_lookup_tokens = e->sched.stats.prompt_tokens;
    out->cache_hit_tokens = e->sched.stats.cached_tokens;
    out->cache_evictions = e->kv.prefix != NULL ? e->kv.prefix->evictions : 0;
    out->preemptions = e->sched.stats.preemptions;
    out->running = e->sched.n_running;
    out->waiting = e->sched.n_waiting;
}

const struct domain_stats *engine_domain_stats(const struct engine *e)
{
    return e->domain_stats;
}
