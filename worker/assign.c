/* assign: see assign.h. What is missing is loaded first, by the loader; what is too much is dropped
 * after, on the loop, when no request that may use it is queued. So a plan that fails halfway has
 * taken nothing away.
 *
 *     assign_take -> missing experts -> loader ... on_changed: held bits, epoch, Assigned
 *                                              ... its end:    drop the rest, Assigned
 *
 * What was dropped gives its memory back bit by bit, after the plan's end was told. The next plan
 * waits for that: the memory is not there twice, and the same expert may be asked for again.
 *
 * The answers go to the peer that sent the latest Assign of the plan. */
#include "worker/assign.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/report.h"
#include "model/pack_job.h"
#include "worker/loader.h"
#include "worker/worker_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPORT_NS (200 * NS_PER_MS)
/* What is dropped gives its memory back this much at a time, so that no request waits for it: 4 MiB
 * in pages of 4 KiB take 0.15 ms. */
#define DROP_S     0.002
#define DROP_BYTES ((size_t)4 << 20)

struct assign {
    struct worker *w;
    struct loader *loader;
    struct sock_peer asker;
    uint64_t plan; /* 0: none yet */
    int drop;
    uint8_t *held; /* [w->held_bytes] */
    enum assign_state state;
    int waits; /* LOADING, but not begun: what the last plan dropped is not freed yet */
    struct err err;
    int n_seen; /* loaded experts whose bits are set */
    int64_t reported_ns;
    struct expert **dropped; /* [n_dropped] out of the set, not freed yet */
    int n_dropped;
    ev_timer drop_timer;
};

static int bit_get(const uint8_t *bits, size_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

static void report(struct assign *a)
{
    struct loader_view view = {0};
    if (!a->waits)
        loader_view_get(a->loader, &view);
    struct msg_assigned m = {.plan = a->plan,
                             .epoch = a->w->epoch,
                             .state = a->state,
                             .loaded = view.loaded,
                             .total = view.total};
    snprintf(m.text, sizeof(m.text), "%.*s", (int)sizeof(m.text) - 1, a->err.text);
    struct frames f;
    frames_init(&f);
    a->reported_ns = clock_now(&clock_real);
    msg_build_assigned(&f, &m);
    answer(a->w, &a->asker, &f);
}

/* Tells what is held from the set itself: derived, so it cannot drift. */
static int refresh_held(struct worker *w)
{
    size_t n_expert = (size_t)w->shape.n_expert;
    int changed = 0;
    for (int layer = 0; layer < w->shape.n_layer; layer++)
        for (int e = 0; e < w->shape.n_expert; e++) {
            size_t bit = (size_t)layer * n_expert + (size_t)e;
            int have = expert_set_get(w->set, layer, e) != NULL;
            if (have == bit_get(w->held, bit))
                continue;
            w->held[bit / 8] = (uint8_t)(w->held[bit / 8] ^ 1u << bit % 8);
            changed = 1;
        }
    if (changed)
        w->epoch++;
    return changed;
}

/* free_some: up to `bytes` of one of the dropped; with the last one the list. */
static void free_some(struct assign *a, size_t bytes)
{
    if (a->n_dropped > 0 && expert_free_some(a->w->set, a->dropped[a->n_dropped - 1], bytes) == 0)
        a->n_dropped--;
    if (a->n_dropped > 0)
        return;
    ev_timer_stop(a->w->loop, &a->drop_timer);
    free(a->dropped);
    a->dropped = NULL;
}

/* What was asked for and is not wanted any more goes; requests that came before are answered
 * first. Returns how many went. Their memory goes bit by bit; at once, where there is none for a
 * list. */
static int drop_rest(struct assign *a)
{
    struct worker *w = a->w;
    int n = 0;
    while (queue_count(w->queue))
        batch_run(w);
    a->dropped = calloc((size_t)expert_set_count(w->set) + 1, sizeof(*a->dropped));
    for (int layer = 0; layer < w->shape.n_layer; layer++)
        for (int e = 0; e < w->shape.n_expert; e++)
            if (!bit_get(a->held, (size_t)layer * (size_t)w->shape.n_expert + (size_t)e) &&
                expert_set_get(w->set, layer, e)) {
                struct expert *gone = expert_set_detach(w->set, layer, e);
                if (a->dropped)
                    a->dropped[a->n_dropped++] = gone;
                else
                    expert_free(w->set, gone);
                n++;
            }
    if (a->n_dropped > 0)
        ev_timer_start(w->loop, &a->drop_timer);
    else
        free_some(a, 1);
    return n;
}

static void finish(struct assign *a, const struct loader_view *view)
{
    loader_stop(a->loader);
    a->err = view->err;
    a->state = view->err.code ? ASSIGN_FAILED : ASSIGN_DONE;
    int dropped = a->state == ASSIGN_DONE && a->drop ? drop_rest(a) : 0;
    refresh_held(a->w);
    if (a->err.code)
        log_warn("worker", "%s: plan %llu failed after %d of %d experts: %s", a->w->name,
                 (unsigned long long)a->plan, view->loaded, view->total, a->err.text);
    else
        log_info("worker", "%s: plan %llu done: %d experts loaded, %d dropped, %d held", a->w->name,
                 (unsigned long long)a->plan, view->loaded, dropped, expert_set_count(a->w->set));
    report(a);
}

static void on_changed(void *user)
{
    struct assign *a = user;
    struct loader_view view;
    if (a->state != ASSIGN_LOADING || a->waits)
        return;
    loader_view_get(a->loader, &view);
    if (!view.running) {
        finish(a, &view);
        return;
    }
    if (clock_now(&clock_real) - a->reported_ns < REPORT_NS)
        return;
    /* Each news of what is held costs coordinators a new table: not for each expert. */
    if (view.loaded > a->n_seen) {
        a->n_seen = view.loaded;
        refresh_held(a->w);
    }
    report(a);
}

/* missing lists (layer, expert) of what is asked for and not held, in the order of the layers; a
 * bit in a dense layer cannot be held. The list is the caller's to free. */
static int missing(const struct assign *a, int32_t (**out)[2], int *n, struct err *err)
{
    const struct worker *w = a->w;
    size_t room = (size_t)w->shape.n_layer * (size_t)w->shape.n_expert;
    int32_t(*item)[2] = malloc(room * sizeof(*item));
    if (!item)
        return err_set(err, ERR_NOMEM, "no memory to list %zu experts", room);
    *n = 0;
    for (int layer = 0; layer < w->shape.n_layer; layer++)
        for (int e = 0; e < w->shape.n_expert; e++) {
            if (!bit_get(a->held, (size_t)layer * (size_t)w->shape.n_expert + (size_t)e) ||
                expert_set_get(w->set, layer, e))
                continue;
            if (!w->model->desc.layer[layer].sparse) {
                free(item);
                return err_set(err, ERR_USAGE, "layer %d is dense: it has no expert %d to hold",
                               layer, e);
            }
            item[*n][0] = layer;
            item[(*n)++][1] = e;
        }
    *out = item;
    return 0;
}

/* What comes is here before what goes has gone, so it must fit beside. */
static int fits(const struct assign *a, int n, struct err *err)
{
    uint64_t bytes = (uint64_t)n * weights_expert_bytes(&a->w->model->desc, a->w->precision);
    uint64_t have = worker_available(a->w);
    char need[32], has[32];
    if (have == 0 || bytes <= have)
        return a->w->gpu ? 0
                         : memory_check(bytes, "the experts", "assign fewer to this worker", err);
    return err_set(err, ERR_NOMEM,
                   "%d experts need %s of memory beside those held, this worker may take %s more; "
                   "assign fewer to it",
                   n, human_bytes((double)bytes, need, sizeof(need)),
                   human_bytes((double)have, has, sizeof(has)));
}

static int begin(struct assign *a, struct err *err)
{
    int32_t(*item)[2] = NULL;
    int n = 0;
    if (a->w->fixed)
        return err_set(err, ERR_USAGE,
                       "this worker's experts are fixed; start it without --fixed to let "
                       "coordinators move them");
    int rc = missing(a, &item, &n, err);
    if (rc)
        return rc;
    rc = fits(a, n, err);
    rc = rc ? rc : loader_order(a->loader, (const int32_t(*)[2])item, n, err);
    free(item);
    return rc;
}

static void start(struct assign *a)
{
    struct loader_view view = {0};
    if (begin(a, &view.err) == 0) {
        loader_view_get(a->loader, &view);
        if (view.running) {
            report(a);
            return;
        }
    }
    finish(a, &view);
}

static void on_drop_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    struct assign *a = timer->data;
    free_some(a, DROP_BYTES);
    if (a->n_dropped == 0 && a->waits) {
        a->waits = 0;
        start(a);
    }
}

struct assign *assign_create(struct worker *w)
{
    struct assign *a = calloc(1, sizeof(*a));
    if (a) {
        a->w = w;
        ev_timer_init(&a->drop_timer, on_drop_timer, DROP_S, DROP_S);
        a->drop_timer.data = a;
        a->held = calloc(1, w->held_bytes);
        a->loader = a->held ? loader_create(w->set, w->loop, on_changed, a) : NULL;
    }
    if (a && !a->loader) {
        assign_destroy(a);
        a = NULL;
    }
    return a;
}

void assign_destroy(struct assign *a)
{
    if (!a)
        return;
    loader_destroy(a->loader);
    do
        free_some(a, SIZE_MAX);
    while (a->n_dropped > 0);
    free(a->held);
    free(a);
}

void assign_take(struct assign *a, const struct sock_peer *from, const struct msg_assign *m)
{
    int same =
        m->plan == a->plan && m->drop == a->drop && memcmp(m->held, a->held, a->w->held_bytes) == 0;
    a->asker = *from;
    if (same && a->state != ASSIGN_FAILED) {
        report(a);
        return;
    }
    loader_stop(a->loader);
    refresh_held(a->w);
    a->plan = m->plan;
    a->drop = m->drop;
    memcpy(a->held, m->held, a->w->held_bytes);
    a->n_seen = 0;
    err_clear(&a->err);
    a->state = ASSIGN_LOADING;
    a->waits = a->n_dropped > 0;
    if (a->waits)
        report(a);
    else
        start(a);
}
