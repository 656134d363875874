/* pool: what comes in and what time does to it. Messages are checked by proto against the model's
 * shape, then handed to the noun they speak of: a link, a call, the table. The rest of the pool is
 * in the files that pool_state.h lists. */
#include "base/log.h"
#include "base/team.h"
#include "coordinator/pool_state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A worker whose handshakes fail for so long will not think better of it. */
#define TROUBLE_NS (2 * NS_PER_S)

static int64_t or_default(int64_t value, int64_t otherwise)
{
    return value > 0 ? value : otherwise;
}

static void take_config(struct pool *pool, const struct pool_config *config)
{
    const struct model_desc *desc = &config->model->desc;
    pool->config = *config;
    pool->config.connect_timeout_ns = or_default(config->connect_timeout_ns, 30 * NS_PER_S);
    pool->config.call_timeout_ns = or_default(config->call_timeout_ns, 30 * NS_PER_S);
    pool->config.ping_interval_ns = or_default(config->ping_interval_ns, NS_PER_S);
    pool->config.ping_timeout_ns = or_default(config->ping_timeout_ns, 10 * NS_PER_S);
    pool->config.numerics = config->numerics ? config->numerics : "";
    pool->shape = (struct wire_shape){.n_layer = desc->n_layer,
                                      .n_expert = desc->n_expert,
                                      .d_wire = desc->d_model,
                                      .row_limit = LIMIT_ROWS,
                                      .top_k = desc->top_k,
                                      .dtype = precision_dtype(config->precision),
                                      .fp8 = config->rows == WIRE_ROWS_FP8_BOTH};
    pool->row_bytes = (size_t)desc->d_model * dtype_bytes(pool->shape.dtype);
    pool->next_call = 1;
    call_list_init(&pool->replan);
    call_list_init(&pool->local);
    call_list_init(&pool->idle_calls);
}

int pool_create(const struct pool_config *config, struct pool **out, struct err *err)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (!pool) {
        return err_set(err, ERR_NOMEM, "no memory for a worker pool");
    }
    take_config(pool, config);
    pool->n_cpu = cpu_count();
    int rc = placement_create(pool->shape.n_layer, pool->shape.n_expert, &pool->table, err);
    if (rc == 0 && !(pool->wirebufs = wirebuf_pool_create())) {
        rc = err_set(err, ERR_NOMEM, "no memory for message buffers");
    }
    rc = rc ? rc : rows_create(pool, err);
    if (rc) {
        pool_destroy(pool);
        return rc;
    }
    placement_set_epoch(pool->table, 0);
    *out = pool;
    return 0;
}

static void destroy_calls(struct call_list *list)
{
    for (struct call *c; (c = call_list_pop(list));) {
        call_destroy(c);
    }
}

static void destroy_states(struct dispatch_state *ds)
{
    for (struct dispatch_state *next; ds; ds = next) {
        next = ds->next;
        dispatch_state_destroy(ds);
    }
}

void pool_destroy(struct pool *pool)
{
    if (!pool) {
        return;
    }
    for (int i = 0; i < pool->n_link; i++) {
        link_destroy(pool, pool->link[i]);
    }
    destroy_calls(&pool->replan);
    destroy_calls(&pool->local);
    destroy_calls(&pool->idle_calls);
    destroy_states(pool->states);
    destroy_states(pool->idle_states);
    placement_destroy(pool->table);
    placement_destroy(pool->everything);
    arena_fini(&pool->arena);
    wirebuf_pool_destroy(pool->wirebufs);
    free(pool->fp8_row);
    free(pool->link);
    free(pool->load);
    free(pool->speed);
    free(pool->distance);
    free(pool->excused);
    free(pool);
}

/* ---- connecting ---- */

static int add_link(struct pool *pool, const char *endpoint, struct err *err)
{
    size_t n = (size_t)pool->n_link + 1;
    if (n > LIMIT_WORKERS || strlen(endpoint) >= LIMIT_NAME_BYTES) {
        return err_set(err, ERR_LIMIT,
                       "worker %zu at %.80s: at most %d workers with endpoints below %d bytes", n,
                       endpoint, LIMIT_WORKERS, LIMIT_NAME_BYTES);
    }
    struct link **link = realloc(pool->link, n * sizeof(struct link *));
    pool->link = link ? link : pool->link;
    int32_t *load = realloc(pool->load, n * sizeof(*load));
    pool->load = load ? load : pool->load;
    float *speed = realloc(pool->speed, n * sizeof(*speed));
    pool->speed = speed ? speed : pool->speed;
    int32_t *distance = realloc(pool->distance, n * sizeof(*distance));
    pool->distance = distance ? distance : pool->distance;
    if (!link || !load || !speed || !distance) {
        return err_set(err, ERR_NOMEM, "no memory for %zu workers", n);
    }
    struct link *l;
    int rc = link_create(pool, endpoint, &l, err);
    if (rc) {
        return rc;
    }
    l->index = pool->n_link;
    load[l->index] = 0;
    link[pool->n_link++] = l;
    return link_open(pool, l, err);
}

static int64_t next_timer(const struct pool *pool, int64_t until)
{
    int64_t now = pool_now(pool);
    for (int i = 0; i < pool->n_link; i++) {
        int64_t at = link_timer(pool, pool->link[i], now);
        until = at < until ? at : until;
    }
    return until;
}

static void handle_arrived(struct pool *pool);

/* The first of the links from `first` on that is not welcomed, or NULL. */
static const struct link *not_welcomed(const struct pool *pool, int first)
{
    for (int i = first; i < pool->n_link; i++) {
        if (pool->link[i]->state != LINK_UP) {
            return pool->link[i];
        }
    }
    return NULL;
}

static int wait_for_welcomes(struct pool *pool, int first, struct err *err)
{
    const struct link *l;
    int64_t from = pool_now(pool), until = from + pool->config.connect_timeout_ns;
    while (handle_arrived(pool), (l = not_welcomed(pool, first))) {
        for (int i = first; i < pool->n_link; i++) {
            if (pool->link[i]->refusal.code) {
                return err_set(err, pool->link[i]->refusal.code, "%s", pool->link[i]->refusal.text);
            }
        }
        const char *trouble = link_trouble(pool, l);
        if (trouble && pool_now(pool) - from >= TROUBLE_NS) {
            return err_set(err, ERR_NET, "the worker at %s was reached but %s", l->endpoint,
                           trouble);
        }
        if (pool_now(pool) >= until) {
            return err_set(err, ERR_NET,
                           "no worker answers at %s within %lld ms; start one there with sigmoe "
                           "worker --listen %s",
                           l->endpoint, (long long)(pool->config.connect_timeout_ns / NS_PER_MS),
                           l->endpoint);
        }
        struct transport *t = pool->config.transport;
        t->wait(t->self, next_timer(pool, until));
    }
    return 0;
}

int pool_connect(struct pool *pool, const char *const *endpoint, int n, struct err *err)
{
    int first = pool->n_link, rc = 0;
    pool->connecting = 1;
    for (int i = 0; i < n && !rc; i++) {
        rc = add_link(pool, endpoint[i], err);
    }
    rc = rc ? rc : wait_for_welcomes(pool, first, err);
    pool->connecting = 0;
    rc = rc ? rc : table_rebuild(pool, err);
    if (rc) {
        return rc;
    }
    for (int i = first; i < pool->n_link; i++) {
        link_log_joined(pool, pool->link[i]);
    }
    return 0;
}

int pool_add(struct pool *pool, const char *endpoint, int *worker, struct err *err)
{
    for (int i = 0; i < pool->n_link; i++) {
        struct link *l = pool->link[i];
        if (strcmp(l->endpoint, endpoint) != 0) {
            continue;
        }
        if (!l->retired) {
            return err_set(err, ERR_USAGE, "worker %s at %s is here already", l->name, endpoint);
        }
        *worker = i;
        l->retired = 0;
        l->n_retry = 0;
        err_clear(&l->refusal);
        int rc = link_open(pool, l, err);
        l->retired = rc != 0;
        return rc;
    }
    int n = pool->n_link, rc = add_link(pool, endpoint, err);
    if (rc && pool->n_link > n) {
        pool->link[n]->retired = 1; /* it could not even be opened */
    }
    *worker = n;
    return rc;
}

void pool_retire(struct pool *pool, int worker)
{
    struct link *l = pool->link[worker];
    if (l->retired) {
        return;
    }
    pool_unassign(pool, worker);
    if (l->state != LINK_DOWN) {
        link_leave(pool, l, "it is drained");
    }
    l->retired = 1;
    pool_settle(pool);
}

/* ---- messages in ---- */

/* Takes an answered call off the link: its credit and its load are free again. */
static void call_over(struct pool *pool, struct link *l, struct call *c)
{
    call_list_remove(&l->sent, c);
    pool->load[l->index] -= c->n_assign;
}

/* The call that an answer is to, or NULL: answered before, or abandoned with its connection. */
static struct call *call_of(struct pool *pool, const struct link *l, uint64_t id)
{
    struct call *c = call_list_find(&l->sent, id);
    if (!c) {
        pool->stats.duplicates++;
        log_debug("pool", "worker %s answers call %" PRIu64 ", which waits for no answer", l->name,
                  id);
    }
    return c;
}

static void on_reply(struct pool *pool, struct link *l, const struct msg_reply *m, struct frames *f)
{
    struct err err = {0};
    struct call *c = call_of(pool, l, m->call);
    if (!c) {
        return;
    }
    if (!c->dispatch) {
        call_over(pool, l, c);
        call_put(pool, c);
    } else if (call_answer(pool, c, m, f, &err)) {
        call_fail(pool, l, c, err.text);
    } else {
        call_over(pool, l, c);
        dispatch_answered(pool, c);
    }
}

static int names_a_segment(const struct call *c, const struct msg_not_held *m)
{
    for (int i = 0; i < m->n_expert; i++) {
        for (int s = 0; s < c->n_seg; s++) {
            if (c->seg_expert[s] == m->expert[i]) {
                return 1;
            }
        }
    }
    return 0;
}

/* A refused call is planned again whole: a worker that lacks one of its experts computed none. */
static void on_not_held(struct pool *pool, struct link *l, const struct msg_not_held *m)
{
    struct call *c = call_of(pool, l, m->call);
    if (!c) {
        return;
    }
    if (m->layer != c->layer || !names_a_segment(c, m)) {
        call_fail(pool, l, c, "NotHeld names none of the experts asked for");
        return;
    }
    pool->stats.not_held++;
    call_over(pool, l, c);
    table_drop_experts(pool, l, m->layer, m->expert, m->n_expert);
    log_warn("pool",
             "worker %s (%s) does not hold %d experts (the first: %u) of layer %d: call %" PRIu64
             " (%d rows, deadline %lld ms) planned again, epoch %" PRIu64,
             l->name, l->endpoint, m->n_expert, m->expert[0], m->layer, m->call, c->n_row,
             (long long)(pool->config.call_timeout_ns / NS_PER_MS), placement_epoch(pool->table));
    if (c->dispatch) {
        call_list_push(&pool->replan, c);
    } else {
        call_put(pool, c);
    }
}

static void on_error(struct pool *pool, struct link *l, const struct msg_error *m, int ping_open)
{
    struct call *c = m->call ? call_of(pool, l, m->call) : NULL;
    if (m->call && !c) {
        return;
    }
    if (m->code == WIRE_NO_HELLO && l->state == LINK_UP && (c || ping_open)) {
        link_forgotten(pool, l);
    } else if (c) {
        call_fail(pool, l, c, m->text);
    } else if (l->state != LINK_UP && m->code != WIRE_NO_HELLO) {
        link_on_refusal(pool, l, m);
    } else if (m->code != WIRE_NO_HELLO) {
        l->failures++;
        log_warn("pool", "worker %s (%s) reports: %s", l->name, l->endpoint, m->text);
    }
}

/* What cannot be read: a call that it names has failed; a greeting has been refused. */
static void on_unreadable(struct pool *pool, struct link *l, uint64_t id, const struct err *why)
{
    struct call *c = call_list_find(&l->sent, id);
    if (c) {
        call_fail(pool, l, c, why->text);
    } else if (l->state == LINK_HELLO) {
        struct msg_error m = {.code = WIRE_MALFORMED};
        memcpy(m.text, why->text, sizeof(m.text) - 1);
        link_on_refusal(pool, l, &m);
    } else {
        l->failures++;
        log_warn("pool", "worker %s (%s) sends what cannot be read: %s; it is dropped", l->name,
                 l->endpoint, why->text);
    }
}

static void on_message(struct pool *pool, struct link *l, struct frames *f)
{
    struct msg m = {0};
    struct err err = {0};
    uint64_t id = 0;
    int ping_open = l->ping_open_ns != 0;
    l->heard_ns = pool_now(pool);
    l->ping_open_ns = l->refused_ns = 0;
    if (msg_parse(f, l->state == LINK_HELLO ? NULL : &pool->shape, &m, &id, &err)) {
        on_unreadable(pool, l, id, &err);
        return;
    }
    switch (m.kind) {
    case MSG_WELCOME:
        link_on_welcome(pool, l, &m.u.welcome);
        break;
    case MSG_REPLY:
        on_reply(pool, l, &m.u.reply, f);
        break;
    case MSG_NOT_HELD:
        on_not_held(pool, l, &m.u.not_held);
        break;
    case MSG_PING:
        link_on_ping(pool, l, &m.u.ping);
        break;
    case MSG_ERROR:
        on_error(pool, l, &m.u.error, ping_open);
        break;
    case MSG_ASSIGNED:
        link_on_assigned(pool, l, &m.u.assigned);
        break;
    case MSG_HELLO:
    case MSG_REQUEST:
    case MSG_ASSIGN:
    case MSG_FETCH:
    case MSG_CHUNK: /* the pool never asks for one */
        l->failures++;
        log_warn("pool", "worker %s (%s) sends what nobody asked for; it is dropped", l->name,
                 l->endpoint);
        break;
    }
    msg_free(&m);
}

/* ---- time ---- */

void pool_settle(struct pool *pool)
{
    do {
        for (struct call *c; (c = call_list_pop(&pool->replan));) {
            dispatch_replan(pool, c);
        }
        for (int i = 0; i < pool->n_link; i++) {
            link_flush(pool, pool->link[i]);
        }
        /* Last, and one at a time: workers compute meanwhile. */
        struct call *c = pool->replan.head ? NULL : call_list_pop(&pool->local);
        if (c) {
            dispatch_local(pool, c);
        }
    } while (pool->replan.head || pool->local.head);
}

static void handle_arrived(struct pool *pool)
{
    struct transport *t = pool->config.transport;
    struct frames f;
    int i;
    frames_init(&f);
    for (int rc; (rc = t->recv(t->self, &i, &f)) == 1 || rc == ERR_GONE;) {
        if (i >= 0 && i < pool->n_link && pool->link[i]->state != LINK_DOWN) {
            pool->n_heard++;
            if (rc == 1) {
                on_message(pool, pool->link[i], &f);
            } else {
                link_leave(pool, pool->link[i], "its process has ended");
            }
        }
        frames_close(&f);
    }
    /* Only now, when all that had arrived was heard, is anyone silent or late. */
    int64_t now = pool_now(pool);
    for (i = 0; i < pool->n_link; i++) {
        link_tick(pool, pool->link[i], now);
    }
    pool_settle(pool);
}

int pool_poll(struct pool *pool)
{
    pool->n_heard = 0;
    handle_arrived(pool);
    int n = pool->n_done;
    pool->n_done = 0;
    return n;
}

int pool_wait(struct pool *pool, int64_t until_ns)
{
    struct transport *t = pool->config.transport;
    int n = pool_poll(pool);
    while (n == 0 && pool->n_heard == 0 && pool_now(pool) < until_ns) {
        pool_await(pool);
        t->wait(t->self, next_timer(pool, until_ns));
        n = pool_poll(pool);
    }
    return n;
}

/* ---- questions ---- */

int pool_uncovered(const struct pool *pool)
{
    const struct model_desc *desc = &pool->config.model->desc;
    const int32_t *holder;
    int n = 0;
    for (int layer = 0; layer < pool->shape.n_layer; layer++) {
        for (int expert = 0; desc->layer[layer].sparse && expert < pool->shape.n_expert; expert++) {
            int excused = pool->excused && pool->excused[expert];
            n += !excused && placement_holders(pool->table, layer, expert, &holder) == 0;
        }
    }
    return n;
}

/* The word before "://". */
static const char *endpoint_way(const char *endpoint)
{
    static const char *const ways[] = {"tcp", "ipc", "inproc"};
    for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
        if (strncmp(endpoint, ways[i], strlen(ways[i])) == 0) {
            return ways[i];
        }
    }
    return "unknown";
}

const char *pool_via(const struct pool *pool, const struct link *l)
{
    const struct transport *t = pool->config.transport;
    const char *via = t->via ? t->via(t->self, l->index) : NULL;
    return via ? via : endpoint_way(l->endpoint);
}

const struct placement *pool_placement(const struct pool *pool)
{
    return pool->table;
}

int pool_n_worker(const struct pool *pool)
{
    return pool->n_link;
}

void pool_worker_info_get(const struct pool *pool, int worker, struct pool_worker_info *out)
{
    const struct link *l = pool->link[worker];
    *out = (struct pool_worker_info){.via = pool_via(pool, l),
                                     .alive = link_member(l),
                                     .outstanding = l->sent.n,
                                     .n_held = l->n_held,
                                     .retired = l->retired,
                                     .calls = l->calls,
                                     .failures = l->failures,
                                     .assignments = l->assignments,
                                     .answered = l->answered,
                                     .bytes_sent = l->bytes_sent,
                                     .bytes_received = l->bytes_received,
                                     .rtt_ns = l->rtt_ns,
                                     .compute_ns = l->compute_ns,
                                     .resident_bytes = l->resident,
                                     .available_bytes = l->available};
    memcpy(out->name, l->name, sizeof(out->name));
    memcpy(out->endpoint, l->endpoint, sizeof(out->endpoint));
    memcpy(out->numerics, l->numerics, sizeof(out->numerics));
}

const char *pool_worker_trouble(const struct pool *pool, int worker)
{
    return link_trouble(pool, pool->link[worker]);
}

const uint64_t *pool_worker_layers(const struct pool *pool, int worker)
{
    return pool->link[worker]->by_layer;
}

void pool_stats_get(const struct pool *pool, struct pool_stats *out)
{
    *out = pool->stats;
}
