/* pool_assign: what workers are told to hold, and which of the copies they hold are planned for.
 * Telling is at-most-once delivery made good: a plan is said again until something is heard of it,
 * and again when the connection was new. Which copies count is a mask over what the workers say,
 * so a switch of the placement is one new table and no message. */
#include "base/log.h"
#include "coordinator/pool_state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SAY_AGAIN_NS (1 * NS_PER_S)

static size_t bit_of(const struct pool *pool, int layer, int expert)
{
    return (size_t)layer * (size_t)pool->shape.n_expert + (size_t)expert;
}

int pool_held(const struct pool *pool, int worker, int layer, int expert)
{
    size_t bit = bit_of(pool, layer, expert);
    return pool->link[worker]->held[bit / 8] >> (bit % 8) & 1;
}

/* ---- the target ---- */

static int targets_reserve(struct pool *pool, struct err *err)
{
    for (int i = 0; i < pool->n_link; i++) {
        struct link *l = pool->link[i];
        if (!l->target && !(l->target = malloc(pool_held_bytes(pool)))) {
            return err_set(err, ERR_NOMEM, "no memory for a target of %zu bytes",
                           pool_held_bytes(pool));
        }
    }
    return 0;
}

static void targets_fill(struct pool *pool, const struct placement *target)
{
    const int32_t *holder;
    for (int i = 0; i < pool->n_link; i++) {
        memset(pool->link[i]->target, 0, pool_held_bytes(pool));
    }
    for (int layer = 0; layer < pool->shape.n_layer; layer++) {
        for (int expert = 0; expert < pool->shape.n_expert; expert++) {
            size_t bit = bit_of(pool, layer, expert);
            int n = placement_holders(target, layer, expert, &holder);
            for (int h = 0; h < n; h++) {
                if (holder[h] < pool->n_link) {
                    uint8_t *t = pool->link[holder[h]]->target;
                    t[bit / 8] = (uint8_t)(t[bit / 8] | 1u << bit % 8);
                }
            }
        }
    }
}

int pool_target(struct pool *pool, const struct placement *target, struct err *err)
{
    if (target && (placement_n_layer(target) != pool->shape.n_layer ||
                   placement_n_expert(target) != pool->shape.n_expert)) {
        return err_set(err, ERR_USAGE,
                       "the placement is of %d layers and %d experts, the model of "
                       "%d and %d",
                       placement_n_layer(target), placement_n_expert(target), pool->shape.n_layer,
                       pool->shape.n_expert);
    }
    int rc = target ? targets_reserve(pool, err) : 0;
    if (rc) {
        return rc;
    }
    if (target) {
        targets_fill(pool, target);
    }
    pool->targeted = target != NULL;
    return table_rebuild(pool, err);
}

int pool_excuse(struct pool *pool, const uint8_t *expert, struct err *err)
{
    size_t n = (size_t)pool->shape.n_expert;
    if (!expert) {
        free(pool->excused);
        pool->excused = NULL;
        return 0;
    }
    if (!pool->excused && !(pool->excused = malloc(n))) {
        return err_set(err, ERR_NOMEM, "no memory to note %zu experts", n);
    }
    memcpy(pool->excused, expert, n);
    return 0;
}

static uint64_t oldest(const struct call_list *list, uint64_t epoch)
{
    for (const struct call *c = list->head; c; c = c->next) {
        epoch = c->epoch < epoch ? c->epoch : epoch;
    }
    return epoch;
}

uint64_t pool_epoch_out(const struct pool *pool)
{
    uint64_t epoch = placement_epoch(pool->table);
    for (int i = 0; i < pool->n_link; i++) {
        epoch = oldest(&pool->link[i]->sent, epoch);
        epoch = oldest(&pool->link[i]->queue, epoch);
    }
    return epoch;
}

/* ---- telling ---- */

int pool_assign(struct pool *pool, int worker, uint64_t plan, const uint8_t *held, int drop,
                struct err *err)
{
    struct link *l = pool->link[worker];
    if (!l->plan_held && !(l->plan_held = malloc(pool_held_bytes(pool)))) {
        return err_set(err, ERR_NOMEM, "no memory for a plan of %zu bytes", pool_held_bytes(pool));
    }
    memcpy(l->plan_held, held, pool_held_bytes(pool));
    l->plan = plan;
    l->plan_drop = drop;
    l->assigned = (struct msg_assigned){.plan = plan, .state = ASSIGN_NONE};
    l->plan_ns = pool_now(pool);
    if (l->state == LINK_UP) {
        link_assign_tick(pool, l, l->plan_ns);
    }
    return 0;
}

void pool_unassign(struct pool *pool, int worker)
{
    pool->link[worker]->plan = 0;
    pool->link[worker]->plan_ns = 0;
}

const struct msg_assigned *pool_assigned(const struct pool *pool, int worker)
{
    return &pool->link[worker]->assigned;
}

int pool_assign_shown(const struct pool *pool, int worker)
{
    const struct link *l = pool->link[worker];
    return l->plan && memcmp(l->held, l->plan_held, pool_held_bytes(pool)) == 0;
}

int64_t link_assign_due(const struct link *l)
{
    return l->plan && l->plan_ns ? l->plan_ns : INT64_MAX;
}

void link_assign_tick(struct pool *pool, struct link *l, int64_t now)
{
    if (now < link_assign_due(l)) {
        return;
    }
    struct msg_assign m = {.plan = l->plan,
                           .drop = l->plan_drop,
                           .held = l->plan_held,
                           .held_bytes = pool_held_bytes(pool)};
    struct frames f;
    frames_init(&f);
    l->plan_ns = now + SAY_AGAIN_NS;
    if (msg_build_assign(&f, &m) == 0) {
        link_send_control(pool, l, &f);
    }
}

void link_on_assigned(struct pool *pool, struct link *l, const struct msg_assigned *m)
{
    if (m->plan != l->plan) {
        log_debug("pool", "worker %s speaks of plan %" PRIu64 ", which is over", l->name, m->plan);
        return;
    }
    l->assigned = *m;
    /* Done and failed are said once; while it loads it speaks by itself, and is asked when not. */
    l->plan_ns = m->state == ASSIGN_LOADING ? pool_now(pool) + SAY_AGAIN_NS : 0;
    link_on_epoch(pool, l, m->epoch);
}
