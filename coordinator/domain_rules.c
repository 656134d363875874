/* domain_rules: see domain_rules.h. */
#include "coordinator/domain_rules.h"

#include "router/placement_rules.h"

#include <stdlib.h>
#include <string.h>

#define PINS_MAX 64

struct rule {
    int drained, restored; /* restored: undrained, and has no copy yet */
    int n_copy;            /* 0: not said */
    int n_pin;
    char **pin; /* [n_pin] names of workers */
};

struct domain_rules {
    const struct model_desc *desc;
    struct rule *rule; /* [n_domain] */
};

/* ---- life ---- */

static void unpin(struct rule *r)
{
    for (int i = 0; i < r->n_pin; i++) {
        free(r->pin[i]);
    }
    free(r->pin);
    r->pin = NULL;
    r->n_pin = 0;
}

static int set_pins(struct rule *r, char *const *name, int n, struct err *err)
{
    char **pin = calloc((size_t)n + 1, sizeof(*pin));
    int bad = !pin;
    for (int i = 0; i < n && !bad; i++) {
        bad = !(pin[i] = strdup(name[i]));
    }
    unpin(r);
    r->pin = pin;
    r->n_pin = pin ? n : 0;
    return bad ? err_set(err, ERR_NOMEM, "no memory for the workers of a domain") : 0;
}

int domain_rules_create(const struct model_desc *desc, struct domain_rules **out, struct err *err)
{
    struct domain_rules *rules = calloc(1, sizeof(*rules));
    if (rules) {
        rules->desc = desc;
        rules->rule = calloc((size_t)desc->n_domain + 1, sizeof(*rules->rule));
    }
    if (!rules || !rules->rule) {
        free(rules);
        return err_set(err, ERR_NOMEM, "no memory for the rules of %d domains", desc->n_domain);
    }
    *out = rules;
    return 0;
}

void domain_rules_destroy(struct domain_rules *rules)
{
    if (rules) {
        for (int d = 0; d < rules->desc->n_domain; d++) {
            unpin(&rules->rule[d]);
        }
        free(rules->rule);
        free(rules);
    }
}

int domain_rules_copy(const struct domain_rules *rules, struct domain_rules **out, struct err *err)
{
    struct domain_rules *copy;
    int rc = domain_rules_create(rules->desc, &copy, err);
    if (rc) {
        return rc;
    }
    for (int d = 0; d < rules->desc->n_domain && !rc; d++) {
        const struct rule *from = &rules->rule[d];
        copy->rule[d] = *from;
        copy->rule[d].pin = NULL;
        copy->rule[d].n_pin = 0;
        rc = set_pins(&copy->rule[d], from->pin, from->n_pin, err);
    }
    if (rc) {
        domain_rules_destroy(copy);
        return rc;
    }
    *out = copy;
    return 0;
}

/* ---- a command ---- */

int pool_worker_named(const struct pool *pool, const char *name)
{
    for (int i = 0; i < pool_n_worker(pool); i++) {
        struct pool_worker_info w;
        pool_worker_info_get(pool, i, &w);
        if (strcmp(w.name, name) == 0 || strcmp(w.endpoint, name) == 0) {
            return i;
        }
    }
    return -1;
}

static int rule_of(struct domain_rules *rules, const char *name, struct rule **out, struct err *err)
{
    const struct model_desc *d = rules->desc;
    if (d->n_domain == 0) {
        return err_set(err, ERR_USAGE, "the model has no domains");
    }
    for (int i = 0; i < d->n_domain; i++) {
        if (name && strcmp(d->domain[i].name, name) == 0) {
            *out = &rules->rule[i];
            return 0;
        }
    }
    return err_set(err, ERR_USAGE, "the model has no domain '%.60s'; sigmoe status lists them",
                   name ? name : "");
}

static int change_pin(struct rule *r, const char *domain, const json_t *list,
                      const struct pool *pool, struct err *err)
{
    char *name[PINS_MAX];
    size_t i;
    json_t *value;
    if (json_array_size(list) < 1 || json_array_size(list) > PINS_MAX) {
        return err_set(err, ERR_USAGE, "domain %s: name 1 to %d workers", domain, PINS_MAX);
    }
    json_array_foreach(list, i, value)
    {
        const char *text = json_string_value(value);
        int worker = text ? pool_worker_named(pool, text) : -1;
        if (worker < 0) {
            return err_set(err, ERR_USAGE,
                           "domain %s: there is no worker %.200s; sigmoe status lists them", domain,
                           text ? text : "");
        }
        /* As it was written: a name or an endpoint, whichever is to stay the same. */
        name[i] = (char *)(uintptr_t)text;
    }
    return set_pins(r, name, (int)json_array_size(list), err);
}

static int change_scale(struct rule *r, const char *domain, const json_t *value, struct err *err)
{
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || n > LIMIT_WORKERS) {
        return err_set(err, ERR_USAGE, "domain %s: copies are a number from 1 on; 0 forgets it",
                       domain);
    }
    r->n_copy = (int)n;
    return 0;
}

static int change_drain(struct rule *r, const char *domain, int drained, int confirmed,
                        struct err *err)
{
    if (drained && !confirmed) {
        return err_set(err, ERR_USAGE,
                       "without workers the coordinator computes domain %s itself, slower (the "
                       "answers stay the same); say --confirm to do that",
                       domain);
    }
    if (!drained && !r->drained) {
        return err_set(err, ERR_USAGE, "domain %s is not drained", domain);
    }
    r->drained = drained;
    r->restored = !drained;
    return 0;
}

/* Lists of domains: "unpin", "drain", "undrain". */
static int change_list(struct domain_rules *rules, const json_t *command, const char *key,
                       struct err *err)
{
    size_t i;
    json_t *value;
    int confirmed = json_is_true(json_object_get(command, "confirm"));
    json_array_foreach(json_object_get(command, key), i, value)
    {
        const char *domain = json_string_value(value);
        struct rule *r;
        int rc = rule_of(rules, domain, &r, err);
        if (rc == 0 && strcmp(key, "unpin") == 0) {
            unpin(r);
        } else if (rc == 0) {
            rc = change_drain(r, domain, strcmp(key, "drain") == 0, confirmed, err);
        }
        if (rc) {
            return rc;
        }
    }
    return 0;
}

int domain_rules_change(struct domain_rules *rules, const json_t *command, const struct pool *pool,
                        struct err *err)
{
    const char *domain;
    json_t *value;
    struct rule *r;
    int rc = change_list(rules, command, "unpin", err);
    rc = rc ? rc : change_list(rules, command, "undrain", err);
    json_object_foreach(json_object_get(command, "pin"), domain, value)
    {
        rc = rc ? rc : rule_of(rules, domain, &r, err);
        rc = rc ? rc : change_pin(r, domain, value, pool, err);
    }
    json_object_foreach(json_object_get(command, "scale"), domain, value)
    {
        rc = rc ? rc : rule_of(rules, domain, &r, err);
        rc = rc ? rc : change_scale(r, domain, value, err);
    }
    rc = rc ? rc : change_list(rules, command, "drain", err);
    for (int d = 0; d < rules->desc->n_domain && !rc; d++) {
        r = &rules->rule[d];
        if (r->n_pin > 0 && r->n_copy > r->n_pin) {
            rc = err_set(err, ERR_USAGE,
                         "domain %s: %d copies of each expert do not fit on the %d workers that it "
                         "is pinned to",
                         rules->desc->domain[d].name, r->n_copy, r->n_pin);
        }
    }
    return rc;
}

/* ---- obeying ---- */

static int is_ruled(const struct rule *r)
{
    return r->drained || r->restored || r->n_copy > 0 || r->n_pin > 0;
}

static const struct rule *rule_at(const struct domain_rules *rules, int expert)
{
    for (int d = 0; rules && d < rules->desc->n_domain; d++) {
        const struct domain_desc *g = &rules->desc->domain[d];
        if (expert >= g->first && expert < g->first + g->n_expert) {
            return &rules->rule[d];
        }
    }
    return NULL;
}

int domain_rules_ruled(const struct domain_rules *rules, int expert)
{
    const struct rule *r = rule_at(rules, expert);
    return r && is_ruled(r);
}

int domain_rules_drained(const struct domain_rules *rules, int expert)
{
    const struct rule *r = rule_at(rules, expert);
    return r && r->drained;
}

int domain_rules_any(const struct domain_rules *rules)
{
    for (int d = 0; rules && d < rules->desc->n_domain; d++) {
        if (is_ruled(&rules->rule[d])) {
            return 1;
        }
    }
    return 0;
}

int domain_rules_n_drained(const struct domain_rules *rules)
{
    int n = 0;
    for (int d = 0; d < rules->desc->n_domain; d++) {
        n += rules->rule[d].drained;
    }
    return n;
}

void domain_rules_settled(struct domain_rules *rules)
{
    for (int d = 0; d < rules->desc->n_domain; d++) {
        rules->rule[d].restored = 0;
    }
}

static int usable(const struct pool *pool, int worker, const int32_t *retire, int n_retire)
{
    struct pool_worker_info info;
    pool_worker_info_get(pool, worker, &info);
    for (int i = 0; i < n_retire; i++) {
        if (retire[i] == worker) {
            return 0;
        }
    }
    return info.alive && !info.retired;
}

/* allow writes who may hold a domain's experts, [n_worker]; returns how many. */
static int allow(const struct rule *r, const struct pool *pool, const int32_t *retire, int n_retire,
                 uint8_t *allowed)
{
    int n = pool_n_worker(pool), count = 0;
    memset(allowed, 0, (size_t)n);
    for (int w = 0; w < n && r->n_pin == 0; w++) {
        allowed[w] = (uint8_t)usable(pool, w, retire, n_retire);
    }
    for (int i = 0; i < r->n_pin; i++) {
        int w = pool_worker_named(pool, r->pin[i]);
        if (w >= 0 && usable(pool, w, retire, n_retire)) {
            allowed[w] = 1;
        }
    }
    for (int w = 0; w < n; w++) {
        count += allowed[w];
    }
    return count;
}

static int apply_one(const struct domain_rules *rules, int domain, const struct pool *pool,
                     const int32_t *retire, int n_retire, const uint8_t *sparse, uint8_t *allowed,
                     struct placement *target, struct err *err)
{
    const struct rule *r = &rules->rule[domain];
    const struct domain_desc *g = &rules->desc->domain[domain];
    struct placement_rule one = {.first = g->first,
                                 .n_expert = g->n_expert,
                                 .n_copy = r->drained      ? 0
                                           : r->n_copy > 0 ? r->n_copy
                                                           : 1,
                                 .allowed = allowed};
    int n = allow(r, pool, retire, n_retire, allowed);
    if (n == 0 && !r->drained && n_retire > 0 && allow(r, pool, NULL, 0, allowed) > 0) {
        return err_set(err, ERR_USAGE,
                       "domain %s is pinned to what is to be drained; pin it elsewhere first "
                       "(sigmoe rebalance --pin %s=WORKER), or --unpin it",
                       g->name, g->name);
    }
    return placement_rules_apply(target, sparse, pool_n_worker(pool), &one, 1, err);
}

int domain_rules_apply(const struct domain_rules *rules, const struct pool *pool,
                       const int32_t *retire, int n_retire, struct placement *target,
                       struct err *err)
{
    if (!domain_rules_any(rules)) {
        return 0;
    }
    const struct model_desc *d = rules->desc;
    int rc = 0;
    uint8_t *sparse = calloc((size_t)d->n_layer, 1);
    uint8_t *allowed = calloc((size_t)pool_n_worker(pool) + 1, 1);
    if (!sparse || !allowed) {
        rc = err_set(err, ERR_NOMEM, "no memory to place domains");
    }
    for (int l = 0; l < d->n_layer && !rc; l++) {
        sparse[l] = (uint8_t)(d->layer[l].sparse != 0);
    }
    for (int i = 0; i < d->n_domain && !rc; i++) {
        rc = is_ruled(&rules->rule[i])
                 ? apply_one(rules, i, pool, retire, n_retire, sparse, allowed, target, err)
                 : 0;
    }
    free(sparse);
    free(allowed);
    return rc;
}

/* ---- telling ---- */

/* view_domain: the fewest copies of an expert, whether some expert has any, and who holds one. */
static int view_domain(const struct domain_rules *rules, int domain, const struct pool *pool,
                       uint8_t *holds, int *some)
{
    const struct model_desc *d = rules->desc;
    const struct domain_desc *g = &d->domain[domain];
    const struct placement *p = pool_placement(pool);
    int fewest = -1;
    *some = 0;
    memset(holds, 0, (size_t)pool_n_worker(pool));
    for (int l = 0; l < d->n_layer; l++) {
        for (int e = g->first; d->layer[l].sparse && e < g->first + g->n_expert; e++) {
            const int32_t *holder;
            int n = placement_holders(p, l, e, &holder);
            fewest = fewest < 0 || n < fewest ? n : fewest;
            *some |= n > 0;
            for (int i = 0; i < n; i++) {
                holds[holder[i]] = 1;
            }
        }
    }
    return fewest < 0 ? 0 : fewest;
}

static json_t *status_of(const struct domain_rules *rules, int domain, const struct pool *pool,
                         uint8_t *holds)
{
    const struct rule *r = &rules->rule[domain];
    int some, copies = view_domain(rules, domain, pool, holds, &some);
    const char *state = copies > 0 ? "served" : some ? "partly" : r->drained ? "drained" : "away";
    json_t *workers = json_array(), *pinned = json_array();
    for (int w = 0; w < pool_n_worker(pool); w++) {
        struct pool_worker_info info;
        pool_worker_info_get(pool, w, &info);
        if (holds[w]) {
            json_array_append_new(workers, json_string(info.name));
        }
    }
    for (int i = 0; i < r->n_pin; i++) {
        json_array_append_new(pinned, json_string(r->pin[i]));
    }
    return json_pack("{s:s,s:s,s:b,s:i,s:o,s:o,s:i}", "name", rules->desc->domain[domain].name,
                     "state", state, "drained", r->drained, "copies", copies, "workers", workers,
                     "pinned", pinned, "scale", r->n_copy);
}

json_t *domain_rules_status(const struct domain_rules *rules, const struct pool *pool)
{
    json_t *list = json_array();
    uint8_t *holds = calloc((size_t)pool_n_worker(pool) + 1, 1);
    for (int d = 0; holds && d < rules->desc->n_domain; d++) {
        json_array_append_new(list, status_of(rules, d, pool, holds));
    }
    free(holds);
    return list;
}
