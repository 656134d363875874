/* strategy: the tables of what there is, by kind, and how names are found and told. */
#include "router/strategy.h"
#include "base/limits.h"
#include "base/opt.h"
#include "router/place.h"
#include "router/route.h"

#include <stdio.h>
#include <string.h>

#define NAMES_MAX 32

static const struct strategy routes[] = {
    {STRATEGY_ROUTE, "model", "the model's own gate", 0, route_model, NULL, 0},
    {STRATEGY_ROUTE, "uniform", "any experts, without replacement", 1, route_uniform, NULL, 0},
    {STRATEGY_ROUTE, "hash", "a fixed hash of the token id", 1, route_hash, NULL, 0},
    {STRATEGY_ROUTE, "rre", "random routed experts: a table by domain and token id", 1, route_rre,
     NULL, 0},
    {STRATEGY_ROUTE, "zipf", "popularity falls as 1 / rank^s, ranks drawn by layer", 1, route_zipf,
     NULL, 0},
    {STRATEGY_ROUTE, "k-hot", "a few hot experts get a given share of all slots", 1, route_k_hot,
     NULL, 0},
    {STRATEGY_ROUTE, "expert-choice", "each expert takes its best rows, up to a capacity", 1,
     route_expert_choice, NULL, 0},
    {STRATEGY_ROUTE, "capacity-drop", "the model's choice; what is over an expert's capacity drops",
     1, route_capacity_drop, NULL, 0},
    {STRATEGY_ROUTE, "capacity-overflow",
     "the model's choice; what is over goes to the row's next best expert", 1,
     route_capacity_overflow, NULL, 0},
    {STRATEGY_ROUTE, "group-limited", "the best experts of the best groups (DeepSeek)", 1,
     route_group_limited, NULL, 0},
    {STRATEGY_ROUTE, "one-per-group", "the best expert of each of top-k groups (PanGu Pro)", 1,
     route_one_per_group, NULL, 0},
};

static const struct strategy places[] = {
    {STRATEGY_PLACE, "contiguous", "runs of experts, no copies, loads not looked at", 0, NULL,
     place_contiguous, 0},
    {STRATEGY_PLACE, "round-robin", "experts dealt out one by one, no copies", 0, NULL,
     place_round_robin, 0},
    {STRATEGY_PLACE, "domain", "experts of one domain on few workers, no copies", 0, NULL,
     place_domain, 0},
    {STRATEGY_PLACE, "balanced", "even loads, hot experts copied; workers taken for alike", 0, NULL,
     place_balanced, 0},
    {STRATEGY_PLACE, "capacity", "as balanced, by each worker's speed and memory", 0, NULL,
     place_capacity, 0},
    {STRATEGY_PLACE, "hierarchical", "groups to hosts, then balanced within each host", 0, NULL,
     place_hierarchical, 0},
    {STRATEGY_PLACE, "fewest-active", "even numbers of experts that a step wakes, for small steps",
     0, NULL, place_fewest_active, 0},
    {STRATEGY_PLACE, "eplb", "the published greedy balancer, for comparison", 0, NULL, place_eplb,
     0},
};

static const struct strategy replicas[] = {
    {STRATEGY_REPLICA, "fixed", "the first holder", 0, NULL, NULL, REPLICA_FIRST},
    {STRATEGY_REPLICA, "least-outstanding", "the holder with the least work", 0, NULL, NULL,
     REPLICA_LEAST_LOADED},
    {STRATEGY_REPLICA, "round-robin", "holders in turn", 0, NULL, NULL, REPLICA_ROUND_ROBIN},
    {STRATEGY_REPLICA, "two-choices", "the better of two drawn at random", 0, NULL, NULL,
     REPLICA_TWO_CHOICES},
    {STRATEGY_REPLICA, "speed", "the holder that would end first at its measured speed", 0, NULL,
     NULL, REPLICA_BY_SPEED},
    {STRATEGY_REPLICA, "local", "the nearest holder, among equals the one with the least work", 0,
     NULL, NULL, REPLICA_LOCAL},
};

static const struct strategy *table_of(enum strategy_kind kind, size_t *n)
{
    switch (kind) {
    case STRATEGY_ROUTE:
        *n = sizeof(routes) / sizeof(*routes);
        return routes;
    case STRATEGY_PLACE:
        *n = sizeof(places) / sizeof(*places);
        return places;
    case STRATEGY_REPLICA:
        *n = sizeof(replicas) / sizeof(*replicas);
        return replicas;
    }
    *n = 0;
    return NULL;
}

const struct strategy *strategy_at(enum strategy_kind kind, size_t i)
{
    size_t n;
    const struct strategy *table = table_of(kind, &n);
    return i < n ? &table[i] : NULL;
}

const struct strategy *strategy_find(enum strategy_kind kind, const char *name)
{
    const struct strategy *s;
    for (size_t i = 0; (s = strategy_at(kind, i)) != NULL; i++)
        if (strcmp(s->name, name) == 0)
            return s;
    return NULL;
}

int strategy_get(enum strategy_kind kind, const char *option, const char *name,
                 const struct strategy **out, struct err *err)
{
    const char *names[NAMES_MAX + 1];
    char list[512] = "";
    size_t used = 0;
    int n = 0;
    *out = strategy_find(kind, name);
    if (*out)
        return 0;
    for (const struct strategy *s; n < NAMES_MAX && (s = strategy_at(kind, (size_t)n)); n++) {
        names[n] = s->name;
        if (used < sizeof(list))
            used +=
                (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", n ? ", " : "", s->name);
    }
    names[n] = NULL;
    const char *near = opt_nearest(name, names);
    if (near)
        return err_set(err, ERR_USAGE, "%s: no strategy '%s'; did you mean '%s'?", option, name,
                       near);
    return err_set(err, ERR_USAGE, "%s: no strategy '%s'; there are %s", option, name, list);
}

void strategy_list(enum strategy_kind kind, char *out, size_t size)
{
    const struct strategy *s;
    size_t used = 0;
    if (size > 0)
        out[0] = '\0';
    for (size_t i = 0; (s = strategy_at(kind, i)) != NULL && used < size; i++) {
        int n = snprintf(out + used, size - used, "  %-18s %s%s\n", s->name, s->about,
                         s->changes_output ? " (changes the output)" : "");
        used += n > 0 ? (size_t)n : 0;
    }
}
