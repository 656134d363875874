/* service: see service.h. The engine's thread owns the engine, the pool and every choice; the loop
 * thread owns the handles. A generation is shared: `refs` counts the handle and the engine's side,
 * and the last to let go frees it. */
#include "coordinator/service.h"

#include "coordinator/choice.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* An idle engine's thread looks after the pool this often (pings, lost workers). */
#define IDLE_MS 100

struct outbox {
    pthread_mutex_t lock;
    struct event *head, **tail;
    struct ev_loop *loop;
    ev_async wake;
};

struct generation {
    struct service *service;
    struct generation *next; /* in the inbox, then among the running */
    struct generation_handlers handlers;
    void *user;
    atomic_int refs, dropped;
    int dropped_loop; /* loop thread: no event is delivered any more */
    struct choice_shared shared;
    struct choice *choice; /* [shared.n_choice] */
};

struct service {
    struct service_config config;
    struct outbox outbox;
    pthread_t thread;
    pthread_mutex_t lock; /* inbox, stop, view */
    pthread_cond_t work;
    struct generation *inbox, **inbox_tail;
    float *raw; /* [vocab] scratch of the engine's thread, see choice.h */
    int stop;
    atomic_int cancels;         /* drops not looked at yet */
    struct generation *running; /* engine's thread */
    struct service_view view;
    struct domain_stats *domain; /* [n_domain] */
    struct meter *meter;
};

/* ---- generations ----------------------------------------------------------------------------- */

static void generation_free(struct generation *g)
{
    for (int i = 0; g->choice != NULL && i < g->shared.n_choice; i++) {
        choice_fini(&g->choice[i]);
    }
    free(g->choice);
    free(g->shared.prompt);
    free(g->shared.stop_token);
    free(g->shared.bias);
    if (g->shared.grammar != NULL) {
        grammar_unref(g->shared.grammar);
    }
    free(g);
}

static void generation_unref(struct generation *g)
{
    if (atomic_fetch_sub(&g->refs, 1) == 1) {
        generation_free(g);
    }
}

static void *copy_of(const void *from, int n, size_t each)
{
    void *to = malloc((size_t)n * each + 1);
    if (to != NULL && n > 0) {
        memcpy(to, from, (size_t)n * each);
    }
    return to;
}

static int shared_init(struct choice_shared *s, struct service *service, struct generation *g,
                       const struct generation_params *p, struct err *err)
{
    *s = (struct choice_shared){.tok = service->config.tok,
                                .desc = service->config.desc,
                                .outbox = &service->outbox,
                                .generation = g,
                                .n_prompt = p->n_prompt,
                                .n_stop_token = p->n_stop_token,
                                .n_choice = p->n_choice,
                                .max_tokens = p->max_tokens,
                                .domain = p->domain,
                                .domain_from = p->domain_from,
                                .min_tokens = p->min_tokens,
                                .ignore_eos = p->ignore_eos,
                                .n_top = p->n_top < SERVICE_TOP_MAX ? p->n_top : SERVICE_TOP_MAX,
                                .prompt_logprobs = p->prompt_logprobs,
                                .skip_special = p->skip_special,
                                .routes = p->routes,
                                .raw = service->raw,
                                .sampling = p->sampling,
                                .grammar = p->grammar};
    s->prompt = copy_of(p->prompt, p->n_prompt, sizeof *p->prompt);
    s->stop_token = copy_of(p->stop_token, p->n_stop_token, sizeof *p->stop_token);
    s->bias = copy_of(p->sampling.bias, p->sampling.n_bias, sizeof *p->sampling.bias);
    s->sampling.bias = s->bias;
    if (s->grammar != NULL) {
        grammar_ref(s->grammar);
    }
    return s->prompt == NULL || s->stop_token == NULL || s->bias == NULL
               ? err_set(err, ERR_NOMEM, "no memory for a request")
               : 0;
}

int service_generate(struct service *s, const struct generation_params *params,
                     const struct generation_handlers *handlers, void *user,
                     struct generation **out, struct err *err)
{
    struct generation *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a request");
    }
    g->service = s;
    g->handlers = *handlers;
    g->user = user;
    atomic_init(&g->refs, 2);
    int rc = shared_init(&g->shared, s, g, params, err);
    g->choice = calloc((size_t)params->n_choice, sizeof *g->choice);
    if (rc == 0 && g->choice == NULL) {
        rc = err_set(err, ERR_NOMEM, "no memory for a request");
    }
    for (int i = 0; rc == 0 && i < params->n_choice; i++) {
        rc = choice_init(&g->choice[i], &g->shared, i, params, err);
    }
    if (rc != 0) {
        generation_free(g);
        return rc;
    }
    pthread_mutex_lock(&s->lock);
    *s->inbox_tail = g;
    s->inbox_tail = &g->next;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    *out = g;
    return 0;
}

void generation_drop(struct generation *g)
{
    struct service *s = g->service;
    g->dropped_loop = 1;
    atomic_store(&g->dropped, 1);
    pthread_mutex_lock(&s->lock);
    atomic_fetch_add(&s->cancels, 1);
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    generation_unref(g);
}

/* ---- the outbox ------------------------------------------------------------------------------ */

void outbox_post(struct outbox *o, struct event *e)
{
    if (e == NULL) {
        return;
    }
    atomic_fetch_add(&e->generation->refs, 1);
    pthread_mutex_lock(&o->lock);
    *o->tail = e;
    o->tail = &e->next;
    pthread_mutex_unlock(&o->lock);
    ev_async_send(o->loop, &o->wake);
}

static struct event *outbox_take(struct outbox *o)
{
    pthread_mutex_lock(&o->lock);
    struct event *first = o->head;
    o->head = NULL;
    o->tail = &o->head;
    pthread_mutex_unlock(&o->lock);
    return first;
}

static void deliver(struct event *e)
{
    const struct generation *g = e->generation;
    const struct generation_handlers *h = &g->handlers;
    if (g->dropped_loop) {
        return;
    }
    switch (e->kind) {
    case EVENT_START:
        if (h->on_start != NULL) {
            h->on_start(g->user, e->choice);
        }
        break;
    case EVENT_DOMAIN:
        if (h->on_domain != NULL) {
            h->on_domain(g->user, e->domain, e->score, e->n_domain);
        }
        break;
    case EVENT_CACHED:
        if (h->on_cached != NULL) {
            h->on_cached(g->user, e->n_cached);
        }
        break;
    case EVENT_PROMPT:
        if (h->on_prompt != NULL) {
            h->on_prompt(g->user, e->prompt, e->n_prompt);
        }
        break;
    case EVENT_TOKEN:
        h->on_token(g->user, e->choice, e->token, e->text, e->n_text, e->offset,
                    e->has_logprob ? &e->logprob : NULL);
        break;
    case EVENT_DONE:
        e->end.text = e->text;
        e->end.n_text = e->n_text;
        e->end.err = e->end.reason == FINISH_ERROR ? &e->err : NULL;
        h->on_done(g->user, e->choice, &e->end);
        break;
    }
}

static void on_wake(struct ev_loop *loop, ev_async *w, int revents)
{
    (void)loop;
    (void)revents;
    struct event *e = outbox_take(w->data);
    while (e != NULL) {
        struct event *next = e->next;
        deliver(e);
        generation_unref(e->generation);
        event_destroy(e);
        e = next;
    }
}

/* ---- the engine's thread --------------------------------------------------------------------- */

static void start(struct service *s, struct generation *g)
{
    g->next = s->running;
    s->running = g;
    for (int i = 0; i < g->shared.n_choice; i++) {
        struct request r = choice_request(&g->choice[i]);
        struct err err = {0};
        if (engine_submit(s->config.engine, &r, &g->choice[i].id, &err) != 0) {
            choice_refused(&g->choice[i], &err);
        }
    }
}

/* Ends what was dropped, forgets what has ended. */
static void sweep(struct service *s)
{
    for (struct generation **p = &s->running; *p != NULL;) {
        struct generation *g = *p;
        int open = 0;
        for (int i = 0; i < g->shared.n_choice; i++) {
            if (!g->choice[i].done && atomic_load(&g->dropped)) {
                engine_cancel(s->config.engine, g->choice[i].id);
            }
            open += !g->choice[i].done;
        }
        if (open > 0) {
            p = &g->next;
            continue;
        }
        *p = g->next;
        generation_unref(g);
    }
}

static void publish(struct service *s)
{
    struct service_view view = {0};
    engine_stats_get(s->config.engine, &view.engine);
    if (s->config.pool != NULL) {
        pool_stats_get(s->config.pool, &view.pool);
        view.n_worker = pool_n_worker(s->config.pool);
        view.n_uncovered = pool_uncovered(s->config.pool);
        for (int i = 0; i < view.n_worker; i++) {
            struct pool_worker_info info;
            pool_worker_info_get(s->config.pool, i, &info);
            view.workers_alive += info.alive;
        }
    }
    pthread_mutex_lock(&s->lock);
    if (s->config.desc->n_domain > 0) {
        memcpy(s->domain, engine_domain_stats(s->config.engine),
               (size_t)s->config.desc->n_domain * sizeof *s->domain);
    }
    s->view = view;
    pthread_mutex_unlock(&s->lock);
}

/* Waits for work unless there is some; returns the inbox's content, or sets *stop. */
static struct generation *next_work(struct service *s, int busy, int *stop)
{
    pthread_mutex_lock(&s->lock);
    if (!busy && s->inbox == NULL && !s->stop && atomic_load(&s->cancels) == 0) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += IDLE_MS * NS_PER_MS;
        until.tv_sec += until.tv_nsec / NS_PER_S;
        until.tv_nsec %= NS_PER_S;
        pthread_cond_timedwait(&s->work, &s->lock, &until);
    }
    struct generation *first = s->inbox;
    s->inbox = NULL;
    s->inbox_tail = &s->inbox;
    atomic_store(&s->cancels, 0);
    *stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    return first;
}

static void *engine_main(void *arg)
{
    struct service *s = arg;
    int busy = 0, stop = 0;
    while (!stop) {
        struct generation *g = next_work(s, busy, &stop);
        while (g != NULL) {
            struct generation *next = g->next;
            start(s, g);
            g = next;
        }
        sweep(s);
        struct err err = {0};
        /* A failed step has told its sequences; the next one may find the cluster mended. */
        busy = !stop && engine_step(s->config.engine, &err) != 0;
        if (!busy && s->config.pool != NULL) {
            pool_poll(s->config.pool);
        }
        if (s->config.tick != NULL) {
            s->config.tick(s->config.tick_user);
        }
        sweep(s);
        publish(s);
        meter_tick(s->meter);
    }
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void outbox_init(struct outbox *o, struct ev_loop *loop)
{
    pthread_mutex_init(&o->lock, NULL);
    o->tail = &o->head;
    o->loop = loop;
    ev_async_init(&o->wake, on_wake);
    o->wake.data = o;
    ev_async_start(loop, &o->wake);
}

static void outbox_fini(struct outbox *o)
{
    ev_async_stop(o->loop, &o->wake);
    for (struct event *e = outbox_take(o); e != NULL;) {
        struct event *next = e->next;
        generation_unref(e->generation);
        event_destroy(e);
        e = next;
    }
    pthread_mutex_destroy(&o->lock);
}

static int allocate(struct service *s, struct err *err)
{
    const struct service_config *c = &s->config;
    struct meter_config mc = {c->engine, c->pool, c->desc, c->clock};
    s->raw = malloc((size_t)c->desc->vocab * sizeof *s->raw);
    s->domain = calloc((size_t)c->desc->n_domain + 1, sizeof *s->domain);
    if (s->raw == NULL || s->domain == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a service");
    }
    return meter_create(&mc, &s->meter, err);
}

static void init_lock(struct service *s)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &attr);
    pthread_condattr_destroy(&attr);
}

static void fini_lock(struct service *s)
{
    outbox_fini(&s->outbox);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
}

static void service_free(struct service *s)
{
    free(s->raw);
    free(s->domain);
    meter_destroy(s->meter);
    free(s);
}

int service_create(const struct service_config *config, struct ev_loop *loop, struct service **out,
                   struct err *err)
{
    struct service *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return err_set(err, ERR_NOMEM, "no memory for a service");
    }
    s->config = *config;
    s->inbox_tail = &s->inbox;
    int rc = allocate(s, err);
    if (rc == 0) {
        outbox_init(&s->outbox, loop);
        init_lock(s);
        publish(s);
        meter_tick(s->meter);
        if (pthread_create(&s->thread, NULL, engine_main, s) != 0) {
            fini_lock(s);
            rc = err_set(err, ERR_NOMEM, "cannot start the engine's thread");
        }
    }
    if (rc != 0) {
        service_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void service_destroy(struct service *s)
{
    if (s == NULL) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->stop = 1;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    for (struct generation *g = s->running; g != NULL;) {
        struct generation *next = g->next;
        for (int i = 0; i < g->shared.n_choice; i++) {
            engine_cancel(s->config.engine, g->choice[i].id);
        }
        g = next;
    }
    /* The cancelled sequences end at the head of a step, which finds nothing else to do. */
    engine_step(s->config.engine, NULL);
    sweep(s);
    /* What was handed in and never looked at. */
    for (struct generation *g = s->inbox; g != NULL;) {
        struct generation *next = g->next;
        generation_unref(g);
        g = next;
    }
    fini_lock(s);
    service_free(s);
}

struct meter *service_meter(struct service *s)
{
    return s->meter;
}

void service_view_get(struct service *s, struct service_view *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->view;
    pthread_mutex_unlock(&s->lock);
}

int service_domains_get(struct service *s, struct domain_stats *out, int n_max)
{
    int n = s->config.desc->n_domain < n_max ? s->config.desc->n_domain : n_max;
    pthread_mutex_lock(&s->lock);
    if (n > 0) {
        memcpy(out, s->domain, (size_t)n * sizeof *out);
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}
