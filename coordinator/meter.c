/* meter: see meter.h. Samples lie in a ring; an expert's count is kept to 32 bits there, since only
 * differences within the ring are asked for. */
#include "coordinator/meter.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_NS (NS_PER_S / 2)
#define N_SAMPLE  21 /* ten seconds lie between the newest and the oldest */

struct sample {
    int64_t at_ns;
    uint64_t prompt, generated, local;
    uint32_t *load;     /* [cells] */
    uint64_t *answered; /* [n_worker] */
    int n_worker;
};

struct meter {
    struct meter_config config;
    size_t cells; /* n_sparse * n_expert */
    pthread_mutex_t lock;
    struct sample sample[N_SAMPLE];
    int n, newest; /* samples taken, at most N_SAMPLE; the place of the last */
    /* Of the newest sample, in full. */
    struct engine_stats engine;
    struct pool_stats pool;
    uint64_t *load; /* [cells] */
    struct pool_worker_info *info;
    uint64_t *by_layer; /* [n_worker, n_layer] */
    int n_worker, n_uncovered;
};

int meter_create(const struct meter_config *config, struct meter **out, struct err *err)
{
    struct meter *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a meter");
    }
    m->config = *config;
    m->cells = (size_t)desc_n_sparse(config->desc) * (size_t)config->desc->n_expert;
    m->newest = N_SAMPLE - 1;
    pthread_mutex_init(&m->lock, NULL);
    m->load = calloc(m->cells + 1, sizeof *m->load);
    int bad = m->load == NULL;
    for (int i = 0; i < N_SAMPLE; i++) {
        m->sample[i].load = calloc(m->cells + 1, sizeof(uint32_t));
        bad |= m->sample[i].load == NULL;
    }
    if (bad) {
        int rc = err_set(err, ERR_NOMEM, "no memory for samples of %zu experts", m->cells);
        meter_destroy(m);
        return rc;
    }
    *out = m;
    return 0;
}

void meter_destroy(struct meter *m)
{
    if (m == NULL) {
        return;
    }
    for (int i = 0; i < N_SAMPLE; i++) {
        free(m->sample[i].load);
        free(m->sample[i].answered);
    }
    pthread_mutex_destroy(&m->lock);
    free(m->load);
    free(m->info);
    free(m->by_layer);
    free(m);
}

/* ---- taking samples -------------------------------------------------------------------------- */

/* Workers may have joined: makes room for n. Without memory the new ones are not shown yet. */
static int grow(struct meter *m, int n)
{
    size_t n_layer = (size_t)m->config.desc->n_layer;
    struct pool_worker_info *info = realloc(m->info, (size_t)n * sizeof *info);
    m->info = info != NULL ? info : m->info;
    uint64_t *by_layer = realloc(m->by_layer, (size_t)n * n_layer * sizeof *by_layer);
    m->by_layer = by_layer != NULL ? by_layer : m->by_layer;
    if (info == NULL || by_layer == NULL) {
        return m->n_worker;
    }
    m->n_worker = n;
    return n;
}

static void sample_workers(struct meter *m, struct sample *s)
{
    const struct pool *pool = m->config.pool;
    size_t n_layer = (size_t)m->config.desc->n_layer;
    int n = pool_n_worker(pool);
    n = n > m->n_worker ? grow(m, n) : m->n_worker;
    uint64_t *answered =
        n > s->n_worker ? realloc(s->answered, (size_t)n * sizeof *answered) : NULL;
    if (answered != NULL) {
        s->answered = answered;
        s->n_worker = n;
    }
    for (int i = 0; i < n; i++) {
        pool_worker_info_get(pool, i, &m->info[i]);
        memcpy(m->by_layer + (size_t)i * n_layer, pool_worker_layers(pool, i),
               n_layer * sizeof *m->by_layer);
        if (i < s->n_worker) {
            s->answered[i] = m->info[i].answered;
        }
    }
    pool_stats_get(pool, &m->pool);
    m->n_uncovered = pool_uncovered(pool);
}

static void take(struct meter *m, int64_t now)
{
    const uint64_t *load = engine_load(m->config.engine);
    m->newest = (m->newest + 1) % N_SAMPLE;
    m->n += m->n < N_SAMPLE;
    struct sample *s = &m->sample[m->newest];
    engine_stats_get(m->config.engine, &m->engine);
    if (m->config.pool != NULL) {
        sample_workers(m, s);
    }
    s->at_ns = now;
    s->prompt = m->engine.prompt_tokens;
    s->generated = m->engine.generated_tokens;
    s->local = m->pool.local_slots;
    for (size_t i = 0; i < m->cells; i++) {
        m->load[i] = load[i];
        s->load[i] = (uint32_t)load[i];
    }
}

void meter_tick(struct meter *m)
{
    int64_t now = clock_now(m->config.clock);
    /* Only this thread writes, so it may look without the lock. */
    if (m->n > 0 && now - m->sample[m->newest].at_ns < SAMPLE_NS) {
        return;
    }
    pthread_mutex_lock(&m->lock);
    take(m, now);
    pthread_mutex_unlock(&m->lock);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void copy_workers(const struct meter *m, const struct sample *last,
                         const struct sample *first, struct meter_view *v)
{
    size_t n_layer = (size_t)v->n_layer;
    for (int i = 0; i < v->n_worker; i++) {
        struct meter_worker *w = &v->worker[i];
        w->info = m->info[i];
        memcpy(w->by_layer, m->by_layer + (size_t)i * n_layer, n_layer * sizeof *w->by_layer);
        w->recent = i < last->n_worker ? last->answered[i] : 0;
        w->recent -= i < first->n_worker ? first->answered[i] : 0;
    }
}

static void copy_view(const struct meter *m, struct meter_view *v)
{
    const struct sample *last = &m->sample[m->newest];
    const struct sample *first = &m->sample[(m->newest + 1 + N_SAMPLE - m->n) % N_SAMPLE];
    v->engine = m->engine;
    v->pool = m->pool;
    v->n_uncovered = m->n_uncovered;
    v->window_s = (double)(last->at_ns - first->at_ns) / (double)NS_PER_S;
    v->recent_prompt = last->prompt - first->prompt;
    v->recent_generated = last->generated - first->generated;
    v->recent_local = last->local - first->local;
    memcpy(v->load, m->load, m->cells * sizeof *m->load);
    for (size_t i = 0; i < m->cells; i++) {
        v->recent_load[i] = last->load[i] - first->load[i];
    }
    copy_workers(m, last, first, v);
}

/* Room for what is copied under the lock. */
static int view_init(const struct meter *m, int n_worker, struct meter_view *v)
{
    const struct model_desc *d = m->config.desc;
    *v = (struct meter_view){.n_sparse = desc_n_sparse(d),
                             .n_expert = d->n_expert,
                             .n_layer = d->n_layer,
                             .n_worker = n_worker};
    v->recent_load = calloc(m->cells + 1, sizeof *v->recent_load);
    v->load = calloc(m->cells + 1, sizeof *v->load);
    v->worker = calloc((size_t)n_worker + 1, sizeof *v->worker);
    int bad = v->recent_load == NULL || v->load == NULL || v->worker == NULL;
    for (int i = 0; !bad && i < n_worker; i++) {
        v->worker[i].by_layer = calloc((size_t)d->n_layer, sizeof(uint64_t));
        bad = v->worker[i].by_layer == NULL;
    }
    return bad ? -1 : 0;
}

int meter_read(struct meter *m, struct meter_view *out, struct err *err)
{
    pthread_mutex_lock(&m->lock);
    int n_worker = m->n_worker;
    pthread_mutex_unlock(&m->lock);
    if (view_init(m, n_worker, out) != 0) {
        meter_view_fini(out);
        return err_set(err, ERR_NOMEM, "no memory for a view of %zu experts", m->cells);
    }
    pthread_mutex_lock(&m->lock);
    copy_view(m, out); /* workers are only ever added */
    pthread_mutex_unlock(&m->lock);
    return 0;
}

void meter_worker_name(struct meter *m, int i, char *out, size_t size)
{
    pthread_mutex_lock(&m->lock);
    if (i < m->n_worker) {
        snprintf(out, size, "%s", m->info[i].name);
    } else {
        snprintf(out, size, "worker %d", i);
    }
    pthread_mutex_unlock(&m->lock);
}

void meter_view_fini(struct meter_view *v)
{
    for (int i = 0; v->worker != NULL && i < v->n_worker; i++) {
        free(v->worker[i].by_layer);
    }
    free(v->worker);
    free(v->load);
    free(v->recent_load);
    memset(v, 0, sizeof *v);
}
