/* placement_rules: see placement_rules.h. */
#include "router/placement_rules.h"

#include <stdlib.h>
#include <string.h>

/* What the layer at hand is known of. */
struct layer_view {
    struct placement *p;
    int layer, n_worker;
    int *n_held;   /* [n_worker] experts of the layer */
    int *n_group;  /* [n_worker] of them of the rule's group */
    int32_t *keep; /* [n_worker] scratch: holders of one expert */
};

static void count_layer(struct layer_view *v)
{
    const int32_t *holder;
    memset(v->n_held, 0, (size_t)v->n_worker * sizeof(*v->n_held));
    for (int e = 0; e < placement_n_expert(v->p); e++) {
        int n = placement_holders(v->p, v->layer, e, &holder);
        for (int i = 0; i < n; i++) {
            v->n_held[holder[i]] += holder[i] < v->n_worker;
        }
    }
}

/* The allowed worker without this expert that has least of the group, then of the layer. */
static int least_laden(const struct layer_view *v, const struct placement_rule *rule, int expert)
{
    int best = -1;
    for (int w = 0; w < v->n_worker; w++) {
        if (!rule->allowed[w] || placement_has(v->p, v->layer, expert, w)) {
            continue;
        }
        if (best < 0 || v->n_group[w] < v->n_group[best] ||
            (v->n_group[w] == v->n_group[best] && v->n_held[w] < v->n_held[best])) {
            best = w;
        }
    }
    return best;
}

/* remove_others: holders that may not stay, and those beyond n_copy; of these the most laden go. */
static int remove_others(struct layer_view *v, const struct placement_rule *rule, int expert)
{
    const int32_t *holder;
    int n = placement_holders(v->p, v->layer, expert, &holder), left = 0;
    memcpy(v->keep, holder, (size_t)n * sizeof(*holder));
    for (int i = 0; i < n; i++) {
        int w = v->keep[i];
        if (w >= v->n_worker || !rule->allowed[w] || rule->n_copy == 0) {
            placement_remove(v->p, v->layer, expert, w);
        } else {
            v->keep[left++] = w;
        }
    }
    while (left > rule->n_copy) {
        int most = 0;
        for (int i = 1; i < left; i++) {
            most = v->n_group[v->keep[i]] > v->n_group[v->keep[most]] ? i : most;
        }
        placement_remove(v->p, v->layer, expert, v->keep[most]);
        v->n_group[v->keep[most]]--;
        v->keep[most] = v->keep[--left];
    }
    return left;
}

static int apply_layer(struct layer_view *v, const struct placement_rule *rule, struct err *err)
{
    count_layer(v);
    memset(v->n_group, 0, (size_t)v->n_worker * sizeof(*v->n_group));
    for (int e = rule->first; e < rule->first + rule->n_expert; e++) {
        for (int w = 0; w < v->n_worker; w++) {
            v->n_group[w] += rule->allowed[w] && placement_has(v->p, v->layer, e, w);
        }
    }
    for (int e = rule->first; e < rule->first + rule->n_expert; e++) {
        for (int have = remove_others(v, rule, e); have < rule->n_copy; have++) {
            int to = least_laden(v, rule, e);
            if (to < 0) {
                break;
            }
            int rc = placement_add(v->p, v->layer, e, to, err);
            if (rc) {
                return rc;
            }
            v->n_group[to]++;
            v->n_held[to]++;
        }
    }
    return 0;
}

static int can_apply(const struct placement_rule *rule, int n_worker)
{
    for (int w = 0; w < n_worker && rule->n_copy > 0; w++) {
        if (rule->allowed[w]) {
            return 1;
        }
    }
    return rule->n_copy == 0;
}

int placement_rules_apply(struct placement *p, const uint8_t *sparse, int n_worker,
                          const struct placement_rule *rule, int n_rule, struct err *err)
{
    size_t n = (size_t)n_worker + 1;
    struct layer_view v = {.p = p, .n_worker = n_worker};
    v.n_held = calloc(n, sizeof(*v.n_held));
    v.n_group = calloc(n, sizeof(*v.n_group));
    v.keep = calloc(n, sizeof(*v.keep));
    int rc = v.n_held && v.n_group && v.keep
                 ? 0
                 : err_set(err, ERR_NOMEM, "no memory to place groups of experts");
    for (int i = 0; i < n_rule && !rc; i++) {
        if (rule[i].first < 0 || rule[i].n_expert < 0 ||
            rule[i].first > placement_n_expert(p) - rule[i].n_expert) {
            rc = err_set(err, ERR_LIMIT, "a rule for experts %d to %d of %d", (int)rule[i].first,
                         (int)(rule[i].first + rule[i].n_expert - 1), placement_n_expert(p));
        }
        for (v.layer = 0; v.layer < placement_n_layer(p) && !rc && can_apply(&rule[i], n_worker);
             v.layer++) {
            rc = sparse[v.layer] ? apply_layer(&v, &rule[i], err) : 0;
        }
    }
    free(v.n_held);
    free(v.n_group);
    free(v.keep);
    return rc;
}
