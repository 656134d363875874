/* load_watch: see load_watch.h. */
#include "coordinator/load_watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_NS  NS_PER_S
#define SLOTS_SEEN 256 /* before a speed is believed */

struct watched_worker {
    uint64_t answered; /* as last read */
    int64_t compute_ns;
    double slots, seconds; /* faded */
};

struct load_watch {
    size_t cells; /* n_sparse * n_expert */
    int64_t half_life_ns, at_ns;
    int begun;
    uint64_t *last; /* [cells] as last read */
    double *load;   /* [cells] faded */
    double seconds; /* faded */
    struct watched_worker *worker;
    int n_worker;
};

int load_watch_create(const struct model_desc *desc, int64_t half_life_ns, struct load_watch **out,
                      struct err *err)
{
    struct load_watch *w = calloc(1, sizeof(*w));
    if (w) {
        w->cells = (size_t)desc_n_sparse(desc) * (size_t)desc->n_expert;
        w->half_life_ns = half_life_ns;
        w->last = calloc(w->cells + 1, sizeof(*w->last));
        w->load = calloc(w->cells + 1, sizeof(*w->load));
    }
    if (!w || !w->last || !w->load) {
        load_watch_destroy(w);
        return err_set(err, ERR_NOMEM, "no memory to watch the load of a model's experts");
    }
    *out = w;
    return 0;
}

void load_watch_destroy(struct load_watch *w)
{
    if (w) {
        free(w->last);
        free(w->load);
        free(w->worker);
        free(w);
    }
}

/* A worker that has just come begins with what it has done so far: it is one sample. */
static void watch_workers(struct load_watch *w, const struct pool *pool, double keep)
{
    int n = pool_n_worker(pool);
    if (n > w->n_worker) {
        struct watched_worker *more = realloc(w->worker, (size_t)n * sizeof(*more));
        if (!more) {
            return; /* looked at again in a second */
        }
        memset(more + w->n_worker, 0, (size_t)(n - w->n_worker) * sizeof(*more));
        w->worker = more;
        w->n_worker = n;
    }
    for (int i = 0; i < w->n_worker; i++) {
        struct watched_worker *k = &w->worker[i];
        struct pool_worker_info info;
        pool_worker_info_get(pool, i, &info);
        k->slots = k->slots * keep + (double)(info.answered - k->answered);
        k->seconds = k->seconds * keep + (double)(info.compute_ns - k->compute_ns) / 1e9;
        k->answered = info.answered;
        k->compute_ns = info.compute_ns;
    }
}

void load_watch_sample(struct load_watch *w, const uint64_t *load, const struct pool *pool,
                       int64_t now_ns)
{
    int64_t passed = w->begun ? now_ns - w->at_ns : 0;
    double keep = exp2(-(double)passed / (double)w->half_life_ns);
    for (size_t i = 0; i < w->cells; i++) {
        w->load[i] = w->load[i] * keep + (double)(load[i] - w->last[i]);
        w->last[i] = load[i];
    }
    w->seconds = w->seconds * keep + (double)passed / 1e9;
    if (pool) {
        watch_workers(w, pool, keep);
    }
    w->at_ns = now_ns;
    w->begun = 1;
}

void load_watch_tick(struct load_watch *w, const uint64_t *load, const struct pool *pool,
                     int64_t now_ns)
{
    if (!w->begun || now_ns - w->at_ns >= SAMPLE_NS) {
        load_watch_sample(w, load, pool, now_ns);
    }
}

double load_watch_loads(const struct load_watch *w, double *load)
{
    memcpy(load, w->load, w->cells * sizeof(*load));
    return w->seconds;
}

double load_watch_speed(const struct load_watch *w, int worker)
{
    if (worker >= w->n_worker || w->worker[worker].slots < SLOTS_SEEN ||
        !(w->worker[worker].seconds > 0)) {
        return 0;
    }
    return w->worker[worker].slots / w->worker[worker].seconds;
}
