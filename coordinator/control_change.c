/* control_change: see control_state.h. */
#include "coordinator/control_state.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* A worker that is told to join is waited for so long. */
#define JOIN_NS (60 * NS_PER_S)
/* Workers that have come or gone are given so long to come back before domains are placed anew. */
#define SETTLE_NS (5 * NS_PER_S)

int control_idle(const struct control *c, struct err *err)
{
    struct rebalance_info info;
    rebalance_info_get(c->rebalance, &info);
    return info.state == REBALANCE_IDLE && c->joining < 0
               ? 0
               : err_set(err, ERR_AGAIN, "a change is under way; wait for it or cancel it");
}

static int text_of(const json_t *in, const char *key, const char **out, struct err *err)
{
    *out = json_string_value(json_object_get(in, key));
    return *out ? 0 : err_set(err, ERR_USAGE, "the command lacks \"%s\"", key);
}

int control_drain(struct control *c, const json_t *in, struct err *err)
{
    const char *name;
    int rc = text_of(in, "worker", &name, err);
    int worker = rc ? -1 : pool_worker_named(c->pool, name);
    if (rc == 0 && worker < 0) {
        return err_set(err, ERR_USAGE, "there is no worker %.200s; sigmoe status lists them", name);
    }
    return rc ? rc : rebalance_drain(c->rebalance, worker, err);
}

int control_join(struct control *c, const json_t *in, struct err *err)
{
    const char *endpoint;
    int worker, rc = text_of(in, "endpoint", &endpoint, err);
    rc = rc ? rc : control_idle(c, err);
    rc = rc ? rc : pool_add(c->pool, endpoint, &worker, err);
    if (rc == 0) {
        c->joining = worker;
        c->joining_until_ns = clock_now(c->clock) + JOIN_NS;
        err_clear(&c->join_error);
    }
    return rc;
}

/* One worker's copies of a placement file into the table; dense layers have nothing to hold. */
static int read_worker(const struct model_desc *desc, const char *text, const char *name,
                       int worker, struct placement *p, uint8_t *held, struct err *err)
{
    int n_layer = placement_n_layer(p), n_expert = placement_n_expert(p);
    int rc =
        placement_text_worker(text, strlen(text), "placement", name, n_layer, n_expert, held, err);
    for (int i = 0; i < n_layer * n_expert && !rc; i++) {
        rc = held[i] && desc->layer[i / n_expert].sparse
                 ? placement_add(p, i / n_expert, i % n_expert, worker, err)
                 : 0;
    }
    return rc;
}

static int placement_from(const struct control *c, const json_t *file, struct placement **out,
                          struct err *err)
{
    const struct placement *now = pool_placement(c->pool);
    int n_layer = placement_n_layer(now), n_expert = placement_n_expert(now);
    char *text = json_dumps(file, JSON_COMPACT);
    uint8_t *held = malloc((size_t)n_layer * (size_t)n_expert);
    struct placement *p = NULL;
    int rc = text && held ? placement_create(n_layer, n_expert, &p, err)
                          : err_set(err, ERR_NOMEM, "no memory to read a placement");
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(file, "workers"), name, value)
    {
        int worker = pool_worker_named(c->pool, name);
        if (rc == 0 && worker < 0) {
            rc = err_set(err, ERR_USAGE,
                         "the placement names worker %.200s, which is not here; sigmoe status "
                         "lists them",
                         name);
        }
        rc = rc ? rc : read_worker(c->config.desc, text, name, worker, p, held, err);
    }
    free(held);
    free(text);
    if (rc) {
        placement_destroy(p);
        return rc;
    }
    *out = p;
    return 0;
}

int control_rebalance_file(struct control *c, const json_t *in, struct err *err)
{
    const json_t *file = json_object_get(in, "placement");
    struct placement *p;
    if (!json_is_object(json_object_get(file, "workers"))) {
        return err_set(err, ERR_USAGE, "the command lacks a \"placement\" with \"workers\"");
    }
    int rc = placement_from(c, file, &p, err);
    if (rc) {
        return rc;
    }
    rc = rebalance_start(c->rebalance, p, NULL, 0, "rebalance", err);
    placement_destroy(p);
    return rc;
}

/* ---- domains ---- */

/* use_rules: from now on these hold. What no worker shall hold is no lack of the pool's. */
static int use_rules(struct control *c, struct domain_rules *rules, struct err *err)
{
    int n_expert = c->config.desc->n_expert;
    uint8_t *drained = calloc((size_t)n_expert + 1, 1);
    if (!drained) {
        return err_set(err, ERR_NOMEM, "no memory for the rules of domains");
    }
    for (int e = 0; e < n_expert; e++) {
        drained[e] = (uint8_t)domain_rules_drained(rules, e);
    }
    int rc = pool_excuse(c->pool, drained, err);
    free(drained);
    if (rc == 0) {
        c->domains.rules = rules;
        rebalance_set_rules(c->rebalance, rules);
    }
    return rc;
}

/* place_anew begins to bring the placement in use under the rules. */
static int place_anew(struct control *c, const char *why, struct err *err)
{
    struct placement *p;
    int rc = placement_copy(pool_placement(c->pool), &p, err);
    if (rc) {
        return rc;
    }
    rc = rebalance_start(c->rebalance, p, NULL, 0, why, err);
    placement_destroy(p);
    return rc;
}

int control_domains(struct control *c, const json_t *in, struct err *err)
{
    struct domain_rules *before = c->domains.rules, *after = NULL;
    int rc = control_idle(c, err);
    rc = rc ? rc : domain_rules_copy(before, &after, err);
    rc = rc ? rc : domain_rules_change(after, in, c->pool, err);
    rc = rc ? rc : use_rules(c, after, err);
    if (rc) {
        domain_rules_destroy(after);
        return rc;
    }
    rc = place_anew(c, "rules of domains", err);
    if (rc) {
        use_rules(c, before, NULL);
        domain_rules_destroy(after);
        return rc;
    }
    domain_rules_destroy(before);
    return 0;
}

/* workers_seen: a number that changes when a worker comes, goes or holds something else. */
static uint64_t workers_seen(const struct pool *pool)
{
    uint64_t seen = (uint64_t)pool_n_worker(pool);
    for (int i = 0; i < pool_n_worker(pool); i++) {
        struct pool_worker_info w;
        pool_worker_info_get(pool, i, &w);
        uint64_t one = (uint64_t)w.n_held * 4 + (uint64_t)(w.alive != 0) * 2 + (w.retired != 0);
        seen = (seen ^ one) * 0x9E3779B97F4A7C15ULL;
    }
    return seen;
}

/* obeyed: the rules would change nothing. An error counts as obeyed: it is tried again when
 * workers change once more. */
static int obeyed(const struct control *c)
{
    const struct placement *now = pool_placement(c->pool);
    struct placement *p;
    int same = 1;
    if (placement_copy(now, &p, NULL)) {
        return 1;
    }
    if (domain_rules_apply(c->domains.rules, c->pool, NULL, 0, p, NULL) == 0) {
        for (int i = 0; i < placement_n_layer(p) * placement_n_expert(p) && same; i++) {
            const int32_t *a, *b;
            int layer = i / placement_n_expert(p), expert = i % placement_n_expert(p);
            int n = placement_holders(p, layer, expert, &a);
            same = n == placement_holders(now, layer, expert, &b) &&
                   memcmp(a, b, (size_t)n * sizeof(*a)) == 0;
        }
    }
    placement_destroy(p);
    return same;
}

static void tick_domains(struct control *c, int64_t now)
{
    struct domain_side *d = &c->domains;
    struct rebalance_info info;
    struct err err = {0};
    rebalance_info_get(c->rebalance, &info);
    if (!domain_rules_any(d->rules) || control_idle(c, NULL)) {
        return;
    }
    if (info.done != d->done_seen) {
        d->done_seen = info.done;
        domain_rules_settled(d->rules);
    }
    uint64_t seen = workers_seen(c->pool);
    if (seen != d->seen) {
        d->seen = seen;
        d->due_ns = now + SETTLE_NS;
    }
    if (d->due_ns == 0 || now < d->due_ns) {
        return;
    }
    d->due_ns = 0;
    if (!obeyed(c) && place_anew(c, "domains, after workers changed", &err)) {
        log_warn("control", "domains are not placed as they should be: %s", err.text);
    }
}

int control_cancel(struct control *c, struct err *err)
{
    if (c->joining >= 0) {
        pool_retire(c->pool, c->joining);
        c->joining = -1;
        return 0;
    }
    return rebalance_cancel(c->rebalance, err);
}

static void tick_joining(struct control *c)
{
    struct pool_worker_info w;
    if (c->joining < 0) {
        return;
    }
    pool_worker_info_get(c->pool, c->joining, &w);
    if (w.alive && rebalance_join(c->rebalance, c->joining, &c->join_error) == 0) {
        c->joining = -1;
    } else if (w.alive || clock_now(c->clock) >= c->joining_until_ns) {
        if (!w.alive) {
            const char *why = pool_worker_trouble(c->pool, c->joining);
            err_set(&c->join_error, ERR_TIMEOUT, "no worker answered at %s in time%s%s", w.endpoint,
                    why ? "; it was reached but " : "", why ? why : "");
        }
        log_warn("control", "join of %s: %s", w.endpoint, c->join_error.text);
        pool_retire(c->pool, c->joining);
        c->joining = -1;
    }
}

void control_change_tick(struct control *c, int64_t now)
{
    tick_joining(c);
    rebalance_tick(c->rebalance);
    tick_domains(c, now);
}
