/* pool_dispatch: one micro-batch's slots for one layer, from the gate's choice to a row for each.
 * Planned over the placement into calls; a call that a worker could not answer is planned again,
 * its slots alone, over whoever is left; slots that nobody is left for are planned over a table in
 * which this process holds everything, and computed here by the same request. So there is one way
 * from slots to rows, whoever computes. */
#include "base/log.h"
#include "coordinator/pool_state.h"

#include <stdlib.h>
#include <string.h>

/* n_open counts the calls of a dispatch in any list: a link's queue or sent, replan, local. */
static struct dispatch_state *state_get(struct pool *pool, struct dispatch *d)
{
    struct dispatch_state *ds = pool->idle_states;
    if (ds) {
        pool->idle_states = ds->next;
    } else {
        ds = calloc(1, sizeof(*ds));
        if (!ds) {
            return NULL;
        }
    }
    ds->d = d;
    ds->n_open = ds->any_excluded = 0;
    ds->slowest_ns = 0;
    call_list_init(&ds->answered);
    ds->next = pool->states;
    pool->states = ds;
    return ds;
}

static void state_put(struct pool *pool, struct dispatch_state *ds)
{
    struct dispatch_state **at = &pool->states;
    while (*at != ds) {
        at = &(*at)->next;
    }
    *at = ds->next;
    for (struct call *c; (c = call_list_pop(&ds->answered));) {
        call_put(pool, c);
    }
    if (ds->excluded) {
        memset(ds->excluded, 0, (size_t)ds->n_excluded);
    }
    ds->d = NULL;
    ds->next = pool->idle_states;
    pool->idle_states = ds;
}

void dispatch_state_destroy(struct dispatch_state *ds)
{
    for (struct call *c; (c = call_list_pop(&ds->answered));) {
        call_destroy(c);
    }
    free(ds->excluded);
    free(ds);
}

static void dispatch_end(struct pool *pool, struct dispatch_state *ds, int status)
{
    struct dispatch *d = ds->d;
    d->status = status;
    d->done_ns = pool_now(pool);
    d->done = 1;
    pool->n_done++;
}

/* Calls of a list that nobody has sent are given back; sent ones stay, without a dispatch: the
 * worker still works on them and their credits are not free. */
static void abandon_unsent(struct pool *pool, struct call_list *list,
                           const struct dispatch_state *ds, int32_t *load)
{
    struct call_list keep;
    call_list_init(&keep);
    for (struct call *c; (c = call_list_pop(list));) {
        if (c->dispatch != ds) {
            call_list_push(&keep, c);
            continue;
        }
        if (load) {
            *load -= c->n_assign;
        }
        call_put(pool, c);
    }
    call_list_prepend(list, &keep);
}

static void abandon_calls(struct pool *pool, const struct dispatch_state *ds)
{
    abandon_unsent(pool, &pool->replan, ds, NULL);
    abandon_unsent(pool, &pool->local, ds, NULL);
    for (int i = 0; i < pool->n_link; i++) {
        abandon_unsent(pool, &pool->link[i]->queue, ds, &pool->load[i]);
        for (struct call *c = pool->link[i]->sent.head; c; c = c->next) {
            if (c->dispatch == ds) {
                c->dispatch = NULL;
            }
        }
    }
}

void dispatch_fail(struct pool *pool, struct dispatch_state *ds, int code, const struct err *err)
{
    if (ds->d->done) {
        return;
    }
    log_warn("pool", "layer %d, %d rows: given up: %s", ds->d->layer, ds->d->n_row, err->text);
    ds->d->err = *err;
    abandon_calls(pool, ds);
    ds->n_open = 0;
    dispatch_end(pool, ds, code);
}

void dispatch_exclude(struct pool *pool, struct dispatch_state *ds, int worker)
{
    if (worker >= ds->n_excluded) {
        uint8_t *excluded = realloc(ds->excluded, (size_t)pool->n_link);
        if (!excluded) {
            struct err err = {0};
            err_set(&err, ERR_NOMEM, "no memory to go on without a worker");
            dispatch_fail(pool, ds, err.code, &err);
            return;
        }
        memset(excluded + ds->n_excluded, 0, (size_t)(pool->n_link - ds->n_excluded));
        ds->excluded = excluded;
        ds->n_excluded = pool->n_link;
    }
    ds->excluded[worker] = 1;
    ds->any_excluded = 1;
}

/* Room for two plans: of the slots, and of those among them that are computed here. */
static int arena_reserve(struct pool *pool, const struct dispatch *d, struct err *err)
{
    int n_worker = pool->n_link > 1 ? pool->n_link : 1;
    size_t need = plan_arena_bytes(d->n_row, d->top_k, pool->shape.n_expert, n_worker), size = 4096;
    if (mul_size(need, 2, &need)) {
        return err_set(err, ERR_LIMIT, "a plan of %d rows is too large", d->n_row);
    }
    if (need <= pool->arena.size) {
        arena_reset(&pool->arena);
        return 0;
    }
    while (size < need) {
        size *= 2;
    }
    arena_fini(&pool->arena);
    pool->arena = (struct arena){0};
    if (arena_init(&pool->arena, size)) {
        return err_set(err, ERR_NOMEM, "no memory for a plan of %d rows, %zu bytes", d->n_row,
                       size);
    }
    return 0;
}

/* The table without the workers that failed this dispatch: a copy, which *owned says to destroy. */
static int table_for(const struct pool *pool, const struct dispatch_state *ds,
                     struct placement **out, int *owned, struct err *err)
{
    *out = pool->table;
    *owned = 0;
    if (!ds->any_excluded) {
        return 0;
    }
    int rc = placement_copy(pool->table, out, err);
    if (rc) {
        return rc;
    }
    *owned = 1;
    for (int i = 0; i < ds->n_excluded; i++) {
        if (ds->excluded[i]) {
            placement_remove(*out, -1, -1, i);
        }
    }
    return 0;
}

static int everything_build(struct pool *pool, struct err *err)
{
    struct placement *p;
    if (pool->everything) {
        return 0;
    }
    int rc = placement_create(pool->shape.n_layer, pool->shape.n_expert, &p, err);
    for (int l = 0; !rc && l < pool->shape.n_layer; l++) {
        for (int e = 0; !rc && e < pool->shape.n_expert; e++) {
            rc = placement_add(p, l, e, 0, err);
            if (rc) {
                placement_destroy(p);
            }
        }
    }
    pool->everything = rc ? NULL : p;
    return rc;
}

/* Parts become calls on *list; a part of more rows than its worker takes becomes several. */
static int calls_from_part(struct pool *pool, struct dispatch_state *ds,
                           const struct plan_part *part, int row_limit, struct call_list *list,
                           struct err *err)
{
    for (int begin = 0, end; begin < part->n_row; begin = end) {
        end = part->n_row - begin > row_limit ? begin + row_limit : part->n_row;
        struct call *c = call_from_part(pool, ds, part, begin, end);
        if (!c) {
            return err_set(err, ERR_NOMEM, "no memory for a call of %d rows", part->n_row);
        }
        call_list_push(list, c);
    }
    return 0;
}

static int orphans_to_local(struct pool *pool, struct dispatch_state *ds, const struct plan *plan,
                            struct plan_input *in, struct call_list *list, struct err *err)
{
    const struct dispatch *d = ds->d;
    struct plan local;
    if (!pool->config.local) {
        return err_set(err, ERR_NET,
                       "layer %d: expert %d (%d slots in all) is held by no worker that is there; "
                       "start one that holds it, or let the coordinator compute it itself",
                       d->layer, (int)d->slot_expert[plan->orphan_slot[0]], plan->n_orphan);
    }
    int rc = everything_build(pool, err);
    if (rc) {
        return rc;
    }
    in->placement = pool->everything;
    in->only_slot = plan->orphan_slot;
    in->n_only = plan->n_orphan;
    in->choice = REPLICA_FIRST;
    in->load = NULL;
    in->n_worker = 1;
    rc = plan_build(&local, in, &pool->arena, err);
    return rc ? rc : calls_from_part(pool, ds, &local.part[0], local.part[0].n_row, list, err);
}

static void give_back(struct pool *pool, struct call_list *list)
{
    for (struct call *c; (c = call_list_pop(list));) {
        call_put(pool, c);
    }
}

static void hand_out(struct pool *pool, struct dispatch_state *ds, struct call_list *remote,
                     struct call_list *local)
{
    ds->n_open += remote->n + local->n;
    for (struct call *c; (c = call_list_pop(remote));) {
        c->epoch = placement_epoch(pool->table);
        struct link *l = pool->link[c->worker];
        pool->load[c->worker] += c->n_assign;
        l->assignments += (uint64_t)c->n_assign;
        call_list_push(&l->queue, c);
    }
    for (struct call *c; (c = call_list_pop(local));) {
        call_list_push(&pool->local, c);
    }
}

static int slot_compare(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Plans all slots (only NULL) or just those, and hands the calls to the links' queues and to the
 * list of what is computed here; on failure nothing is handed out. */
static int dispatch_plan(struct pool *pool, struct dispatch_state *ds, const int32_t *only,
                         int n_only, struct err *err)
{
    const struct dispatch *d = ds->d;
    struct placement *table;
    struct plan plan;
    struct call_list remote, local;
    int owned, rc = arena_reserve(pool, d, err);
    if (rc || (rc = table_for(pool, ds, &table, &owned, err))) {
        return rc;
    }
    struct plan_input in = {.placement = table,
                            .layer = d->layer,
                            .n_row = d->n_row,
                            .top_k = d->top_k,
                            .slot_expert = d->slot_expert,
                            .only_slot = only,
                            .n_only = n_only,
                            .n_worker = pool->n_link};
    pool_choice(pool, &in);
    call_list_init(&remote);
    call_list_init(&local);
    rc = plan_build(&plan, &in, &pool->arena, err);
    if (owned) {
        placement_destroy(table);
    }
    if (!rc && plan.n_orphan) {
        rc = orphans_to_local(pool, ds, &plan, &in, &local, err);
    }
    for (int p = 0; !rc && p < plan.n_part; p++) {
        const struct plan_part *part = &plan.part[p];
        rc = calls_from_part(pool, ds, part, pool->link[part->worker]->row_limit, &remote, err);
    }
    if (rc) {
        give_back(pool, &remote);
        give_back(pool, &local);
        return rc;
    }
    hand_out(pool, ds, &remote, &local);
    return 0;
}

void dispatch_replan(struct pool *pool, struct call *c)
{
    struct dispatch_state *ds = c->dispatch;
    struct err err = {0};
    pool->stats.replans++;
    ds->n_open--;
    qsort(c->slot, (size_t)c->n_assign, sizeof(*c->slot), slot_compare);
    int rc = dispatch_plan(pool, ds, c->slot, c->n_assign, &err);
    call_put(pool, c);
    if (rc) {
        dispatch_fail(pool, ds, rc, &err);
    }
}

void dispatch_answered(struct pool *pool, struct call *c)
{
    struct dispatch_state *ds = c->dispatch;
    call_list_push(&ds->answered, c);
    if (--ds->n_open == 0) {
        dispatch_end(pool, ds, 0);
    }
}

/* The request goes to the worker's own code instead of a worker. */
static int compute_here(struct pool *pool, struct call *c, struct err *err)
{
    size_t bytes = (size_t)c->n_assign * pool->row_bytes;
    struct msg_request m;
    struct wirebuf *rows = rows_gather(pool, c, pool->shape.dtype),
                   *out = wirebuf_get(pool->wirebufs, bytes);
    int rc = 0;
    if (!rows || !out) {
        rc = err_set(err, ERR_NOMEM, "no memory to compute %d rows here", c->n_row);
        goto out;
    }
    call_request(pool, c, &m);
    m.rows = wirebuf_data(rows);
    rc = pool->config.local(pool->config.local_user, &m, wirebuf_data(out), err);
    if (rc) {
        goto out;
    }
    if (rows_change(pool)) {
        rows_arrived(pool, wirebuf_data(out), c->n_assign, pool->shape.dtype, wirebuf_data(out));
    }
    call_fill(pool, c, wirebuf_data(out), -1);
    rc = frames_push_buf(&c->frames, out, bytes);
    out = NULL;
out:
    wirebuf_unref(rows);
    wirebuf_unref(out);
    return rc;
}

void dispatch_local(struct pool *pool, struct call *c)
{
    struct err err = {0};
    log_debug("pool", "layer %d, %d rows, %d slots: computed here, no worker holds their experts",
              c->layer, c->n_row, c->n_assign);
    int rc = compute_here(pool, c, &err);
    if (rc) {
        struct dispatch_state *ds = c->dispatch;
        err_set(&err, rc, "layer %d: the coordinator cannot compute %d rows itself", c->layer,
                c->n_row);
        call_put(pool, c);
        dispatch_fail(pool, ds, rc, &err);
        return;
    }
    pool->stats.local_slots += (uint64_t)c->n_assign;
    dispatch_answered(pool, c);
}

static int dispatch_check(const struct pool *pool, const struct dispatch *d, struct err *err)
{
    const struct wire_shape *shape = &pool->shape;
    if (d->layer < 0 || d->layer >= shape->n_layer || d->n_row < 1 || d->n_row > LIMIT_ROWS ||
        d->top_k < 1 || d->top_k > LIMIT_TOP_K || d->ld_row < (size_t)shape->d_wire) {
        return err_set(err, ERR_LIMIT,
                       "a dispatch of layer %d, %d rows, top %d, row stride %zu: the pool takes "
                       "layers below %d, 1 to %d rows, top 1 to %d, strides from %d",
                       d->layer, d->n_row, d->top_k, d->ld_row, shape->n_layer, LIMIT_ROWS,
                       LIMIT_TOP_K, shape->d_wire);
    }
    for (int i = 0; i < d->n_row * d->top_k; i++) {
        if (d->slot_expert[i] >= shape->n_expert) {
            return err_set(err, ERR_LIMIT, "slot %d wants expert %d of %d", i,
                           (int)d->slot_expert[i], shape->n_expert);
        }
    }
    return 0;
}

int pool_dispatch(struct pool *pool, struct dispatch *d, struct err *err)
{
    int rc = dispatch_check(pool, d, err);
    if (rc) {
        return rc;
    }
    struct dispatch_state *ds = state_get(pool, d);
    if (!ds) {
        return err_set(err, ERR_NOMEM, "no memory for a dispatch");
    }
    memset(d->slot_row, 0, sizeof(*d->slot_row) * (size_t)(d->n_row * d->top_k));
    memset(&d->time, 0, sizeof(d->time));
    d->done = d->status = 0;
    err_clear(&d->err);
    d->done_ns = 0;
    d->sent_ns = pool_now(pool);
    d->state = ds;
    rc = dispatch_plan(pool, ds, NULL, 0, err);
    if (rc) {
        d->state = NULL;
        state_put(pool, ds);
        return rc;
    }
    pool->stats.dispatches++;
    if (ds->n_open == 0) {
        dispatch_end(pool, ds, 0);
    }
    pool_settle(pool);
    return 0;
}

void dispatch_release(struct pool *pool, struct dispatch *d)
{
    if (!d->state) {
        return;
    }
    if (!d->done) {
        abandon_calls(pool, d->state);
    }
    state_put(pool, d->state);
    d->state = NULL;
}
