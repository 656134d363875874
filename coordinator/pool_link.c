/* pool_link: one worker's connection. Says Hello until it is welcomed, pings what has gone quiet,
 * notices that a worker is dead, and keeps knocking on its door. States and arrows: pool_state.h.
 *
 * A worker is given up when a call misses its deadline, when it stays silent (ping_timeout with
 * calls out, or with a Ping unanswered), when the transport says it is gone, or when the transport
 * takes nothing for it for a ping interval. Silence is counted only from something it should have
 * answered and only after all that has arrived was read: an engine that did not poll for an hour
 * finds its workers where it left them. */
#include "base/log.h"
#include "base/rng.h"
#include "coordinator/pool_state.h"
#include "proto/sock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELLO_REPEAT_NS  (500 * NS_PER_MS) /* a Hello or its Welcome may be lost */
#define REFUSED_AGAIN_NS (5 * NS_PER_MS)   /* the transport said not now */
#define REFUSED_IDLE_NS  (100 * NS_PER_MS) /* the same where nobody waits for it */
#define REOPEN_NS        (5 * NS_PER_S)    /* unanswered so long: a fresh connection */
#define RETRY_MIN_NS     (100 * NS_PER_MS) /* first knock after a death; doubles */
#define RETRY_MAX_NS     (2 * NS_PER_S)
#define RETRY_SLOWEST    10 /* doublings */

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

size_t pool_held_bytes(const struct pool *pool)
{
    return ((size_t)pool->shape.n_layer * (size_t)pool->shape.n_expert + 7) / 8;
}

int link_create(struct pool *pool, const char *endpoint, struct link **out, struct err *err)
{
    struct link *l = calloc(1, sizeof(*l));
    if (!l || !(l->held = calloc(1, pool_held_bytes(pool))) ||
        !(l->by_layer = calloc((size_t)pool->shape.n_layer, sizeof(*l->by_layer)))) {
        if (l) {
            free(l->held);
        }
        free(l);
        return err_set(err, ERR_NOMEM, "no memory for a worker's table of %zu bytes",
                       pool_held_bytes(pool));
    }
    copy_text(l->endpoint, sizeof(l->endpoint), endpoint);
    copy_text(l->name, sizeof(l->name), endpoint);
    call_list_init(&l->sent);
    call_list_init(&l->queue);
    *out = l;
    return 0;
}

void link_destroy(struct pool *pool, struct link *l)
{
    if (l->state != LINK_DOWN) {
        pool->config.transport->close(pool->config.transport->self, l->index);
    }
    for (struct call *c; (c = call_list_pop(&l->sent)) || (c = call_list_pop(&l->queue));) {
        call_destroy(c);
    }
    free(l->by_layer);
    free(l->held);
    free(l->target);
    free(l->plan_held);
    free(l);
}

static uint64_t fresh_incarnation(struct pool *pool)
{
    if (!pool->config.seed) {
        return incarnation_new();
    }
    uint32_t word[4];
    rng_block(pool->config.seed, 0, pool->next_incarnation++, word);
    return (uint64_t)word[0] << 32 | word[1];
}

int link_send_control(struct pool *pool, struct link *l, struct frames *f)
{
    struct transport *t = pool->config.transport;
    int rc = t->send(t->self, l->index, f);
    frames_close(f);
    if (rc == 0) {
        l->refused_ns = 0;
    } else if (rc == ERR_AGAIN) {
        l->refused_ns = l->refused_ns ? l->refused_ns : pool_now(pool);
    } else {
        link_leave(pool, l, "the transport lost it");
    }
    return rc;
}

static void say_hello(struct pool *pool, struct link *l, int64_t now)
{
    const struct pool_config *config = &pool->config;
    struct msg_hello m = {.fingerprint = config->model->fingerprint,
                          .incarnation = l->incarnation,
                          .name = "coordinator",
                          .dtype = pool->shape.dtype,
                          .n_layer = pool->shape.n_layer,
                          .n_expert = pool->shape.n_expert,
                          .d_wire = pool->shape.d_wire};
    copy_text(m.numerics, sizeof(m.numerics), config->numerics);
    struct frames f;
    frames_init(&f);
    l->hello_ns = now + (pool->connecting ? REFUSED_AGAIN_NS : REFUSED_IDLE_NS);
    if (msg_build_hello(&f, &m) == 0 && link_send_control(pool, l, &f) == 0) {
        l->hello_ns = now + HELLO_REPEAT_NS;
    }
}

static void greet(struct pool *pool, struct link *l, enum link_state state)
{
    l->state = state;
    l->refused_ns = l->ping_open_ns = 0;
    l->greet_ns = l->hello_ns = pool_now(pool);
}

int link_open(struct pool *pool, struct link *l, struct err *err)
{
    struct transport *t = pool->config.transport;
    int rc = t->open(t->self, l->index, l->endpoint, err);
    if (rc) {
        return rc;
    }
    l->incarnation = fresh_incarnation(pool);
    greet(pool, l, LINK_HELLO);
    return 0;
}

const char *link_trouble(const struct pool *pool, const struct link *l)
{
    struct transport *t = pool->config.transport;
    return t->trouble ? t->trouble(t->self, l->index) : NULL;
}

static void retry_later(struct pool *pool, struct link *l)
{
    int64_t wait = RETRY_MIN_NS << l->n_retry;
    l->n_retry += l->n_retry < RETRY_SLOWEST;
    l->retry_ns = pool_now(pool) + (wait < RETRY_MAX_NS ? wait : RETRY_MAX_NS);
}

/* Its calls go on the replan list, or, abandoned ones, to the idle calls. Returns how many are to
 * be planned again and, in *oldest, one of them for the log. */
static int take_calls(struct pool *pool, struct link *l, const struct call **oldest)
{
    int n = 0;
    *oldest = NULL;
    for (struct call *c; (c = call_list_pop(&l->sent)) || (c = call_list_pop(&l->queue));) {
        if (!c->dispatch) {
            call_put(pool, c);
            continue;
        }
        *oldest = *oldest ? *oldest : c;
        call_list_push(&pool->replan, c);
        n++;
    }
    pool->load[l->index] = 0;
    return n;
}

static void log_leaving(const struct pool *pool, const struct link *l, const char *why, int n,
                        const struct call *oldest)
{
    char calls[160] = "no call was out";
    if (oldest) {
        snprintf(calls, sizeof(calls),
                 "%d calls planned again, the oldest of layer %d, %d rows, deadline %lld ms", n,
                 oldest->layer, oldest->n_row,
                 (long long)(pool->config.call_timeout_ns / NS_PER_MS));
    }
    log_warn("pool",
             "worker %s (%s) left the placement: %s; %s; epoch %" PRIu64 ", it is tried again",
             l->name, l->endpoint, why, calls, placement_epoch(pool->table));
}

void link_leave(struct pool *pool, struct link *l, const char *why)
{
    const struct call *oldest;
    int member = link_member(l);
    pool->config.transport->close(pool->config.transport->self, l->index);
    l->state = LINK_DOWN;
    retry_later(pool, l);
    int n = take_calls(pool, l, &oldest);
    if (!member || pool->connecting) {
        return;
    }
    l->failures++;
    pool->stats.workers_lost++;
    table_drop_worker(pool, l->index);
    log_leaving(pool, l, why, n, oldest);
}

/* Calls sent before a time go back to the head of the queue, in order, to be sent under new ids;
 * abandoned ones are over. Returns how many are sent again. */
static int send_again(struct pool *pool, struct link *l, int64_t before_ns)
{
    struct call_list again;
    call_list_init(&again);
    while (l->sent.head && l->sent.head->sent_ns < before_ns) {
        struct call *c = call_list_pop(&l->sent);
        if (c->dispatch) {
            call_list_push(&again, c);
        } else {
            pool->load[l->index] -= c->n_assign;
            call_put(pool, c);
        }
    }
    int n = again.n;
    call_list_prepend(&l->queue, &again);
    return n;
}

void link_forgotten(struct pool *pool, struct link *l)
{
    int n = send_again(pool, l, INT64_MAX);
    log_info("pool", "worker %s (%s) does not know us: Hello again, %d calls are sent again",
             l->name, l->endpoint, n);
    greet(pool, l, LINK_FORGOTTEN);
}

/* What speaks against a Welcome: 0 or an error in words. */
static int welcome_check(const struct pool *pool, const struct link *l, const struct msg_welcome *w,
                         struct err *err)
{
    const struct pool_config *config = &pool->config;
    char theirs[33], ours[33];
    if (!hash_equal(w->fingerprint, config->model->fingerprint)) {
        hash_hex(w->fingerprint, theirs);
        hash_hex(config->model->fingerprint, ours);
        return err_set(err, ERR_MODEL,
                       "worker %s at %s holds model %.8s, expected %.8s; start it with --model %s",
                       w->name, l->endpoint, theirs, ours, config->model->dir);
    }
    if (w->dtype != pool->shape.dtype) {
        return err_set(err, ERR_MODEL,
                       "worker %s at %s computes in %s, expected %s; start it with the "
                       "coordinator's --precision",
                       w->name, l->endpoint, dtype_name(w->dtype), dtype_name(pool->shape.dtype));
    }
    const char *their_rows = numerics_activations(w->numerics);
    const char *our_rows = numerics_activations(config->numerics);
    if (strcmp(their_rows, our_rows) != 0) {
        return err_set(err, ERR_MODEL,
                       "worker %s at %s makes activations %s, expected %s; start it with the "
                       "coordinator's --activations",
                       w->name, l->endpoint, their_rows, our_rows);
    }
    if (w->credits < 1 || w->row_limit < 1 || w->held_bytes != pool_held_bytes(pool)) {
        return err_set(err, ERR_NET,
                       "worker %s at %s welcomes with %d credits, %d rows a request and a table of "
                       "%zu bytes; needed are at least 1, 1 and just %zu",
                       w->name, l->endpoint, w->credits, w->row_limit, w->held_bytes,
                       pool_held_bytes(pool));
    }
    return 0;
}

/* The worker, or we, object: no use in knocking often, and no use in saying so twice. */
static void refuse(struct pool *pool, struct link *l, const struct err *why)
{
    if (!pool->connecting && strcmp(l->refusal.text, why->text) != 0) {
        log_warn("pool", "%s; it stays out of the placement and is tried again", why->text);
    }
    l->n_retry = RETRY_SLOWEST;
    link_leave(pool, l, why->text);
    l->refusal = *why;
}

static void take_held(const struct pool *pool, struct link *l, const struct msg_welcome *w)
{
    size_t n = (size_t)pool->shape.n_layer * (size_t)pool->shape.n_expert;
    memcpy(l->held, w->held, w->held_bytes);
    l->resident = w->resident;
    l->available = w->available;
    l->n_held = 0;
    for (size_t i = 0; i < n; i++) {
        l->n_held += l->held[i / 8] >> (i % 8) & 1;
    }
}

/* Memory to share, with room for a large step's rows going and as many slots as they may have here
 * coming, twice over: two micro-batches. More than fits goes the endpoint's way. */
static void take_offer(const struct pool *pool, const struct link *l, const struct msg_welcome *w)
{
    const struct transport *t = pool->config.transport;
    size_t rows = 2 * STEP_ROWS * pool->row_bytes;
    if (w->offer.name[0] && t->offered) {
        t->offered(t->self, l->index, &w->offer, rows, rows * (size_t)pool->shape.top_k);
    }
}

void link_log_joined(const struct pool *pool, const struct link *l)
{
    log_info("pool", "worker %s (%s) joined: %d experts, %d credits, numerics %s, epoch %" PRIu64,
             l->name, l->endpoint, l->n_held, l->credits, l->numerics,
             placement_epoch(pool->table));
    if (strcmp(l->numerics, pool->config.numerics) != 0) {
        log_warn("pool",
                 "worker %s computes in numerics class %s, this coordinator in %s: results "
                 "have the same bits only within one class",
                 l->name, l->numerics, pool->config.numerics);
    }
}

void link_on_welcome(struct pool *pool, struct link *l, const struct msg_welcome *w)
{
    struct err err = {0};
    if (welcome_check(pool, l, w, &err)) {
        refuse(pool, l, &err);
        return;
    }
    int was = link_member(l), same = was && memcmp(l->held, w->held, w->held_bytes) == 0 &&
                                     strcmp(l->numerics, w->numerics) == 0;
    copy_text(l->name, sizeof(l->name), w->name[0] ? w->name : l->endpoint);
    copy_text(l->numerics, sizeof(l->numerics), w->numerics);
    l->peer_epoch = w->epoch;
    l->credits = w->credits;
    l->row_limit = w->row_limit;
    l->threads = w->threads;
    l->fp8 = w->fp8;
    l->state = LINK_UP;
    l->n_retry = 0;
    l->refused_ns = 0;
    err_clear(&l->refusal);
    take_held(pool, l, w);
    take_offer(pool, l, w);
    if (l->plan) {
        l->plan_ns = l->plan_ns ? l->plan_ns : pool_now(pool); /* what was under way may be lost */
    }
    if (pool->connecting || same) {
        return;
    }
    if (table_rebuild(pool, &err)) {
        link_leave(pool, l, err.text);
        return;
    }
    link_log_joined(pool, l);
}

/* A connection keeps its order. So a worker that answers a Ping with nothing queued has answered
 * all that was sent before it; a call from then that is still out went down with an old connection
 * or an old process. (That we are strangers to the new one, its answer will say.) */
static void find_lost(struct pool *pool, struct link *l, const struct msg_ping *p)
{
    if (p->nonce != l->ping_nonce || p->queued || !l->sent.head ||
        l->sent.head->sent_ns >= l->pinged_ns) {
        return;
    }
    const struct call *c = l->sent.head;
    int layer = c->layer, n_row = c->n_row, n = send_again(pool, l, l->pinged_ns);
    log_warn("pool",
             "worker %s (%s) has lost calls, the oldest of layer %d, %d rows, deadline %lld ms: %d "
             "are sent again",
             l->name, l->endpoint, layer, n_row,
             (long long)(pool->config.call_timeout_ns / NS_PER_MS), n);
}

static void answer_ping(struct pool *pool, struct link *l, uint64_t nonce)
{
    struct msg_ping m = {.nonce = nonce, .reply = 1};
    struct frames f;
    frames_init(&f);
    if (msg_build_ping(&f, &m) == 0) {
        link_send_control(pool, l, &f);
    }
}

void link_on_epoch(struct pool *pool, struct link *l, uint64_t epoch)
{
    int64_t now = pool_now(pool);
    if (l->state == LINK_UP && epoch != l->peer_epoch &&
        (epoch != l->asked_epoch || now >= l->hello_ns)) {
        l->asked_epoch = epoch;
        say_hello(pool, l, now);
    }
}

void link_on_ping(struct pool *pool, struct link *l, const struct msg_ping *p)
{
    if (!p->reply) {
        answer_ping(pool, l, p->nonce);
    } else if (l->state == LINK_UP) {
        l->resident = p->resident;
        l->available = p->available;
        find_lost(pool, l, p);
        link_on_epoch(pool, l, p->epoch);
    }
}

void link_on_refusal(struct pool *pool, struct link *l, const struct msg_error *e)
{
    struct err err = {0};
    int model = e->code == WIRE_FINGERPRINT || e->code == WIRE_DTYPE;
    err_set(&err, model ? ERR_MODEL : ERR_NET, "worker at %s refuses: %s", l->endpoint, e->text);
    refuse(pool, l, &err);
}

void link_flush(struct pool *pool, struct link *l)
{
    while (l->state == LINK_UP && l->queue.head && l->sent.n < l->credits) {
        struct call *c = l->queue.head;
        struct err err = {0};
        int rc = call_send(pool, l, c, &err);
        if (rc == ERR_AGAIN) {
            l->refused_ns = l->refused_ns ? l->refused_ns : pool_now(pool);
            return;
        }
        if (rc == ERR_GONE) {
            link_leave(pool, l, "the transport lost it");
            return;
        }
        call_list_pop(&l->queue);
        if (rc) {
            struct dispatch_state *ds = c->dispatch;
            pool->load[l->index] -= c->n_assign;
            call_put(pool, c);
            dispatch_fail(pool, ds, rc, &err);
            continue;
        }
        l->refused_ns = 0;
        call_list_push(&l->sent, c);
    }
}

static int64_t latest(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void say_ping(struct pool *pool, struct link *l, int64_t now)
{
    struct msg_ping m = {.nonce = ++pool->next_nonce};
    struct frames f;
    frames_init(&f);
    l->pinged_ns = pool_now(pool);
    l->ping_nonce = m.nonce;
    if (msg_build_ping(&f, &m) == 0 && link_send_control(pool, l, &f) == 0 && !l->ping_open_ns) {
        l->ping_open_ns = now;
    }
}

/* After an ordinary silence, or when a call takes long (it may be lost); soon when the last sending
 * was refused: whether it still is must be known before the worker is given up for it. */
static int64_t ping_due(const struct pool *pool, const struct link *l)
{
    int64_t interval = pool->config.ping_interval_ns, at = latest(l->heard_ns, l->pinged_ns);
    if (l->refused_ns) {
        return l->pinged_ns + interval / 8;
    }
    if (l->sent.head) {
        at = earliest(at, latest(l->sent.head->sent_ns, l->pinged_ns));
    }
    return at + interval;
}

/* The first call overdue: its dispatch does not try this worker again, so that one that answers
 * pings but never a request cannot hold a dispatch for ever. */
static int overdue(struct pool *pool, struct link *l, int64_t now)
{
    for (struct call *c = l->sent.head; c; c = c->next) {
        if (now >= c->deadline_ns) {
            pool->stats.timeouts++;
            struct dispatch_state *ds = c->dispatch;
            link_leave(pool, l, "a call missed its deadline");
            if (ds) {
                dispatch_exclude(pool, ds, l->index);
            }
            return 1;
        }
    }
    return 0;
}

static int silent(struct pool *pool, struct link *l, int64_t now)
{
    const struct pool_config *config = &pool->config;
    if ((l->ping_open_ns && now >= l->ping_open_ns + config->ping_timeout_ns) ||
        (l->sent.head &&
         now >= latest(l->heard_ns, l->sent.head->sent_ns) + config->ping_timeout_ns)) {
        pool->stats.timeouts++;
        link_leave(pool, l, "it is silent past the ping timeout");
        return 1;
    }
    if (l->refused_ns && now >= latest(l->refused_ns, l->heard_ns) + config->ping_interval_ns) {
        link_leave(pool, l, "nothing can be sent to it, the connection is lost");
        return 1;
    }
    return 0;
}

static void tick_greeting(struct pool *pool, struct link *l, int64_t now)
{
    if (l->state == LINK_FORGOTTEN && now >= l->greet_ns + pool->config.ping_timeout_ns) {
        pool->stats.timeouts++;
        link_leave(pool, l, "no Welcome after it forgot us");
    } else if (l->state == LINK_HELLO && now >= l->greet_ns + REOPEN_NS) {
        link_leave(pool, l, "no Welcome");
    } else if (now >= l->hello_ns) {
        say_hello(pool, l, now);
    }
}

void link_tick(struct pool *pool, struct link *l, int64_t now)
{
    if (l->retired) {
        return;
    }
    if (l->state == LINK_DOWN) {
        if (now >= l->retry_ns && link_open(pool, l, NULL)) {
            retry_later(pool, l);
        }
    } else if (l->state == LINK_UP) {
        if (now >= ping_due(pool, l)) {
            say_ping(pool, l, now);
        }
        link_assign_tick(pool, l, now);
        if (l->state != LINK_UP || overdue(pool, l, now) || silent(pool, l, now)) {
            return;
        }
    }
    if (l->state == LINK_HELLO || l->state == LINK_FORGOTTEN) {
        tick_greeting(pool, l, now);
    }
}

int64_t link_timer(const struct pool *pool, const struct link *l, int64_t now)
{
    const struct pool_config *config = &pool->config;
    if (l->retired) {
        return INT64_MAX;
    }
    if (l->state == LINK_DOWN) {
        return l->retry_ns;
    }
    if (l->state != LINK_UP) {
        return earliest(l->hello_ns,
                        l->greet_ns +
                            (l->state == LINK_HELLO ? REOPEN_NS : config->ping_timeout_ns));
    }
    int64_t at = earliest(ping_due(pool, l), link_assign_due(l));
    if (l->ping_open_ns) {
        at = earliest(at, l->ping_open_ns + config->ping_timeout_ns);
    }
    if (l->sent.head) {
        at = earliest(at, latest(l->heard_ns, l->sent.head->sent_ns) + config->ping_timeout_ns);
    }
    for (const struct call *c = l->sent.head; c; c = c->next) {
        at = earliest(at, c->deadline_ns);
    }
    if (l->refused_ns) {
        at = earliest(at, latest(l->refused_ns, l->heard_ns) + config->ping_interval_ns);
        at = l->queue.head ? earliest(at, now + REFUSED_AGAIN_NS) : at;
    }
    return at;
}
