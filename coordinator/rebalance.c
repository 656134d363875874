/* rebalance: see rebalance.h for the states. Progress is what workers say (Assigned) and what their
 * tables show (Welcome): LOADING ends only when the table has every gain, so that a worker that
 * says done and lies, or restarts, is not planned for. */
#include "coordinator/rebalance.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rebalance {
    struct rebalance_config config;
    const struct domain_rules *rules; /* or NULL */
    enum rebalance_state state;
    struct placement *target; /* of the change under way; after it, of the pool; NULL: all copies */
    struct placement *before; /* what to go back to */
    int targeted_before;      /* `before` was a target, not just what everybody held */
    int32_t *retire;          /* [n_retire] */
    int n_retire;
    int *part; /* [n_part] workers that are told something in this state */
    int n_part;
    uint64_t next_plan, switch_epoch;
    int64_t since_ns, deadline_ns;
    int moves, moves_worst; /* of all workers; of the one that loads most */
    double load_per_s;
    char why[128];
    uint64_t done, failed;
    struct err outcome;
};

const char *rebalance_state_name(enum rebalance_state state)
{
    static const char *const names[] = {"idle", "loading", "switched", "dropping", "undoing"};
    _Static_assert(sizeof(names) / sizeof(*names) == REBALANCE_STATE_COUNT, "a name a state");
    return names[state];
}

int rebalance_create(const struct rebalance_config *config, struct rebalance **out, struct err *err)
{
    struct rebalance *r = calloc(1, sizeof(*r));
    if (!r) {
        return err_set(err, ERR_NOMEM, "no memory for a rebalancer");
    }
    r->config = *config;
    r->config.load_timeout_ns = config->load_timeout_ns ? config->load_timeout_ns : 600 * NS_PER_S;
    r->config.switch_timeout_ns =
        config->switch_timeout_ns ? config->switch_timeout_ns : 60 * NS_PER_S;
    r->config.drop_timeout_ns = config->drop_timeout_ns ? config->drop_timeout_ns : 60 * NS_PER_S;
    r->next_plan = 1;
    *out = r;
    return 0;
}

static void forget(struct rebalance *r)
{
    placement_destroy(r->before);
    free(r->retire);
    free(r->part);
    r->before = NULL;
    r->retire = NULL;
    r->part = NULL;
    r->n_retire = r->n_part = 0;
}

void rebalance_set_rules(struct rebalance *r, const struct domain_rules *rules)
{
    r->rules = rules;
}

struct pool *rebalance_pool(const struct rebalance *r)
{
    return r->config.pool;
}

void rebalance_destroy(struct rebalance *r)
{
    if (!r) {
        return;
    }
    forget(r);
    placement_destroy(r->target);
    free(r);
}

static void enter(struct rebalance *r, enum rebalance_state state, int64_t timeout_ns)
{
    r->since_ns = clock_now(r->config.clock);
    r->deadline_ns = state == REBALANCE_IDLE ? 0 : r->since_ns + timeout_ns;
    log_info("rebalance", "%s: %s -> %s, epoch %" PRIu64, r->why, rebalance_state_name(r->state),
             rebalance_state_name(state), placement_epoch(pool_placement(r->config.pool)));
    r->state = state;
}

/* ---- what the target says ---- */

/* wanted writes what a worker shall hold: what `p` names, and with `keep` also what it holds now.
 * Returns how many of the named it lacks. */
static int wanted(const struct rebalance *r, const struct placement *p, int worker, int keep,
                  uint8_t *bits, size_t bytes)
{
    int n_layer = placement_n_layer(p), n_expert = placement_n_expert(p), lacks = 0;
    memset(bits, 0, bytes);
    for (int layer = 0; layer < n_layer; layer++) {
        for (int e = 0; e < n_expert; e++) {
            int want = placement_has(p, layer, e, worker);
            int have = pool_held(r->config.pool, worker, layer, e);
            lacks += want && !have;
            if (want || (keep && have)) {
                size_t bit = (size_t)layer * (size_t)n_expert + (size_t)e;
                bits[bit / 8] = (uint8_t)(bits[bit / 8] | 1u << bit % 8);
            }
        }
    }
    return lacks;
}

static int retiring(const struct rebalance *r, int worker)
{
    for (int i = 0; i < r->n_retire; i++) {
        if (r->retire[i] == worker) {
            return 1;
        }
    }
    return 0;
}

/* tell_all gives every worker that has something to change its plan, and notes it in part[]. With
 * `drop` the plan is to hold just what `p` names. A worker that is down is left out: it comes back
 * with what it was started with. */
static int tell_all(struct rebalance *r, const struct placement *p, int drop, struct err *err)
{
    struct pool *pool = r->config.pool;
    size_t bytes = ((size_t)placement_n_layer(p) * (size_t)placement_n_expert(p) + 7) / 8;
    int n_worker = pool_n_worker(pool), rc = 0;
    uint8_t *bits = malloc(bytes);
    int *part = malloc((size_t)(n_worker + 1) * sizeof(*part));
    if (!bits || !part) {
        free(bits);
        free(part);
        return err_set(err, ERR_NOMEM, "no memory to tell %d workers what to hold", n_worker);
    }
    free(r->part);
    r->part = part;
    r->n_part = r->moves = r->moves_worst = 0;
    uint64_t plan = r->next_plan++;
    for (int w = 0; w < n_worker && !rc; w++) {
        struct pool_worker_info info;
        pool_worker_info_get(pool, w, &info);
        if (!info.alive || info.retired || retiring(r, w)) {
            continue;
        }
        int lacks = wanted(r, p, w, !drop, bits, bytes);
        int n_want = 0;
        for (size_t i = 0; i < bytes; i++) {
            n_want += __builtin_popcount(bits[i]);
        }
        if (lacks == 0 && (!drop || n_want == info.n_held)) {
            continue;
        }
        r->moves += lacks;
        r->moves_worst = lacks > r->moves_worst ? lacks : r->moves_worst;
        rc = pool_assign(pool, w, plan, bits, drop, err);
        r->part[r->n_part++] = w;
    }
    free(bits);
    return rc;
}

static void untell_all(struct rebalance *r)
{
    for (int i = 0; i < r->n_part; i++) {
        pool_unassign(r->config.pool, r->part[i]);
    }
    r->n_part = 0;
}

/* ---- start ---- */

static int check_target(const struct rebalance *r, const struct placement *target, struct err *err)
{
    struct pool *pool = r->config.pool;
    const struct placement *now = pool_placement(pool);
    int n_expert = placement_n_expert(target), n_worker = pool_n_worker(pool);
    if (placement_n_layer(target) != placement_n_layer(now) ||
        n_expert != placement_n_expert(now)) {
        return err_set(
            err, ERR_USAGE, "the placement is of %d layers and %d experts, the model of %d and %d",
            placement_n_layer(target), n_expert, placement_n_layer(now), placement_n_expert(now));
    }
    for (int layer = 0; layer < placement_n_layer(target); layer++) {
        for (int e = 0; e < n_expert; e++) {
            const int32_t *holder, *before;
            int n = placement_holders(target, layer, e, &holder);
            if (n == 0 && placement_holders(now, layer, e, &before) > 0 &&
                !domain_rules_drained(r->rules, e)) {
                return err_set(err, ERR_USAGE,
                               "the placement gives expert %d of layer %d to nobody", e, layer);
            }
            for (int i = 0; i < n; i++) {
                struct pool_worker_info info;
                if (holder[i] < 0 || holder[i] >= n_worker) {
                    return err_set(err, ERR_USAGE, "the placement names worker %d of %d",
                                   (int)holder[i], n_worker);
                }
                pool_worker_info_get(pool, holder[i], &info);
                if (!info.alive || info.retired || retiring(r, holder[i])) {
                    return err_set(err, ERR_USAGE,
                                   "the placement gives expert %d of layer %d to worker %.100s, "
                                   "which is %s",
                                   e, layer, info.name,
                                   retiring(r, holder[i]) ? "to be drained" : "not there");
                }
            }
        }
    }
    return 0;
}

/* shape_target: a copy of the target that obeys the rules and can be gone to. */
static int shape_target(const struct rebalance *r, const struct placement *target,
                        struct placement **out, struct err *err)
{
    struct placement *copy;
    int rc = placement_copy(target, &copy, err);
    if (rc) {
        return rc;
    }
    rc = placement_n_layer(copy) == placement_n_layer(pool_placement(r->config.pool))
             ? domain_rules_apply(r->rules, r->config.pool, r->retire, r->n_retire, copy, err)
             : 0; /* refused below, in words */
    rc = rc ? rc : check_target(r, copy, err);
    if (rc) {
        placement_destroy(copy);
        return rc;
    }
    *out = copy;
    return 0;
}

/* Until a change is under way nothing else of r but `next_plan` has changed. */
static int begin(struct rebalance *r, struct placement *target, struct err *err)
{
    struct pool *pool = r->config.pool;
    /* Freeze what serves now: copies that come by loading must not be planned for one by one. */
    int rc = placement_copy(pool_placement(pool), &r->before, err);
    r->targeted_before = r->target != NULL;
    rc = rc ? rc : pool_target(pool, r->before, err);
    rc = rc ? rc : tell_all(r, target, 0, err);
    if (rc) {
        untell_all(r);
        pool_target(pool, r->targeted_before ? r->before : NULL, NULL);
        forget(r);
    }
    return rc;
}

int rebalance_start(struct rebalance *r, const struct placement *target, const int32_t *retire,
                    int n_retire, const char *why, struct err *err)
{
    struct placement *copy;
    if (r->state != REBALANCE_IDLE) {
        return err_set(err, ERR_AGAIN, "a change is under way (%s, %s); wait for it or cancel it",
                       r->why, rebalance_state_name(r->state));
    }
    int32_t *leaving = malloc((size_t)(n_retire + 1) * sizeof(*leaving));
    if (!leaving) {
        return err_set(err, ERR_NOMEM, "no memory to start a change of placement");
    }
    for (int i = 0; i < n_retire; i++) {
        leaving[i] = retire[i];
    }
    r->retire = leaving;
    r->n_retire = n_retire;
    int rc = shape_target(r, target, &copy, err);
    if (rc) {
        forget(r);
        return rc;
    }
    rc = begin(r, copy, err);
    if (rc) {
        placement_destroy(copy);
        return rc;
    }
    placement_destroy(r->target);
    r->target = copy;
    snprintf(r->why, sizeof(r->why), "%s", why);
    err_clear(&r->outcome);
    enter(r, REBALANCE_LOADING, r->config.load_timeout_ns);
    return 0;
}

/* ---- the arrows ---- */

static void finish(struct rebalance *r)
{
    untell_all(r);
    forget(r);
    enter(r, REBALANCE_IDLE, 0);
}

/* undo: the placement before serves on; what was loaded for nothing is dropped. */
static void undo(struct rebalance *r, const char *reason)
{
    struct pool *pool = r->config.pool;
    struct err err = {0};
    err_set(&r->outcome, ERR_NET, "%s was undone: %s", r->why, reason);
    log_warn("rebalance", "%s", r->outcome.text);
    r->failed++;
    untell_all(r);
    placement_destroy(r->target);
    r->target = r->before;
    r->before = NULL;
    r->n_retire = 0;
    if (tell_all(r, r->target, 1, &err)) {
        log_warn("rebalance", "what was loaded stays: %s", err.text);
        untell_all(r);
    }
    if (!r->targeted_before) {
        placement_destroy(r->target);
        r->target = NULL;
    }
    pool_target(pool, r->target, NULL);
    enter(r, REBALANCE_UNDOING, r->config.drop_timeout_ns);
}

/* why_not: what has gone wrong with the workers that load, or NULL. */
static const char *why_not(const struct rebalance *r, char *text, size_t size)
{
    struct pool *pool = r->config.pool;
    for (int i = 0; i < r->n_part; i++) {
        struct pool_worker_info info;
        const struct msg_assigned *m = pool_assigned(pool, r->part[i]);
        pool_worker_info_get(pool, r->part[i], &info);
        if (!info.alive) {
            snprintf(text, size, "worker %.100s is gone", info.name);
            return text;
        }
        if (m->state == ASSIGN_FAILED) {
            snprintf(text, size, "worker %.100s: %s", info.name, m->text);
            return text;
        }
    }
    return NULL;
}

/* gained: every worker's table shows all that the target names. */
static int gained(const struct rebalance *r)
{
    struct pool *pool = r->config.pool;
    for (int i = 0; i < r->n_part; i++) {
        if (pool_assigned(pool, r->part[i])->state != ASSIGN_DONE) {
            return 0;
        }
        for (int layer = 0; layer < placement_n_layer(r->target); layer++) {
            for (int e = 0; e < placement_n_expert(r->target); e++) {
                if (placement_has(r->target, layer, e, r->part[i]) &&
                    !pool_held(pool, r->part[i], layer, e)) {
                    return 0;
                }
            }
        }
    }
    return 1;
}

/* dropped: every worker has answered, and where it did as told its table shows it: the next change
 * reads there what is lacking. */
static int dropped(const struct rebalance *r)
{
    for (int i = 0; i < r->n_part; i++) {
        struct pool_worker_info info;
        enum assign_state state = pool_assigned(r->config.pool, r->part[i])->state;
        pool_worker_info_get(r->config.pool, r->part[i], &info);
        if (info.alive && state != ASSIGN_FAILED &&
            (state != ASSIGN_DONE || !pool_assign_shown(r->config.pool, r->part[i]))) {
            return 0;
        }
    }
    return 1;
}

static void tick_loading(struct rebalance *r, int late)
{
    char text[400];
    struct err err = {0};
    const char *reason = why_not(r, text, sizeof(text));
    if (!reason && gained(r)) {
        untell_all(r);
        if (pool_target(r->config.pool, r->target, &err)) {
            undo(r, err.text);
            return;
        }
        int64_t took = clock_now(r->config.clock) - r->since_ns;
        if (r->moves_worst > 0 && took > 0) {
            r->load_per_s = r->moves_worst * (double)NS_PER_S / (double)took;
        }
        r->switch_epoch = placement_epoch(pool_placement(r->config.pool));
        enter(r, REBALANCE_SWITCHED, r->config.switch_timeout_ns);
    } else if (reason || late) {
        undo(r, reason ? reason : "the workers did not load in time");
    }
}

static void tick_switched(struct rebalance *r, int late)
{
    struct err err = {0};
    if (pool_epoch_out(r->config.pool) < r->switch_epoch && !late) {
        return;
    }
    /* Late: a worker that drops what an old call still asks for answers NotHeld, and the call is
     * planned again. */
    for (int i = 0; i < r->n_retire; i++) {
        pool_retire(r->config.pool, r->retire[i]);
    }
    if (tell_all(r, r->target, 1, &err)) {
        log_warn("rebalance", "%s: old copies stay: %s", r->why, err.text);
    }
    enter(r, REBALANCE_DROPPING, r->config.drop_timeout_ns);
}

static void tick_dropping(struct rebalance *r, int late)
{
    if (!dropped(r) && !late) {
        return;
    }
    if (late) {
        log_warn("rebalance",
                 "%s: some workers did not drop their old copies in time; they are "
                 "not planned for",
                 r->why);
    }
    if (r->state == REBALANCE_DROPPING) {
        r->done++;
    }
    finish(r);
}

void rebalance_tick(struct rebalance *r)
{
    int late = clock_now(r->config.clock) >= r->deadline_ns;
    switch (r->state) {
    case REBALANCE_LOADING:
        tick_loading(r, late);
        break;
    case REBALANCE_SWITCHED:
        tick_switched(r, late);
        break;
    case REBALANCE_DROPPING:
    case REBALANCE_UNDOING:
        tick_dropping(r, late);
        break;
    case REBALANCE_IDLE:
    case REBALANCE_STATE_COUNT:
        break;
    }
}

int rebalance_cancel(struct rebalance *r, struct err *err)
{
    if (r->state != REBALANCE_LOADING) {
        return err_set(err, ERR_USAGE, "nothing can be cancelled: the state is %s",
                       rebalance_state_name(r->state));
    }
    undo(r, "it was cancelled");
    return 0;
}

void rebalance_info_get(const struct rebalance *r, struct rebalance_info *out)
{
    *out = (struct rebalance_info){.state = r->state,
                                   .moves = r->moves,
                                   .since_ns = r->since_ns,
                                   .deadline_ns = r->deadline_ns,
                                   .done = r->done,
                                   .failed = r->failed,
                                   .load_per_s = r->load_per_s,
                                   .epoch = placement_epoch(pool_placement(r->config.pool)),
                                   .outcome = r->outcome};
    memcpy(out->why, r->why, sizeof(out->why));
    for (int i = 0; i < r->n_part; i++) {
        const struct msg_assigned *m = pool_assigned(r->config.pool, r->part[i]);
        out->loaded += m->loaded;
        out->total += m->total;
    }
}
