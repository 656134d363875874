/* control: see control.h. Between the threads lie two lists behind one mutex, as in service. */
#include "coordinator/control.h"

#include "base/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A worker that is told to join is waited for so long. */
#define JOIN_NS (60 * NS_PER_S)

struct command {
    struct command *next;
    json_t *in, *out;
    void (*done)(void *user, const json_t *answer);
    void *user;
};

struct control {
    struct pool *pool;
    const struct clock *clock;
    struct ev_loop *loop;
    ev_async wake;
    pthread_mutex_t lock;
    struct command *inbox, **inbox_tail, *outbox, **outbox_tail;
    struct rebalance *rebalance; /* engine's thread; NULL: dense */
    int joining;                 /* a worker that gets its share when it is welcomed; -1: none */
    int64_t joining_until_ns;
    struct err join_error;
};

/* ---- answers ---- */

static json_t *refusal(const struct err *err)
{
    return json_pack("{s:b,s:s}", "ok", 0, "error", err->text);
}

static json_t *answer_of(int rc, const struct err *err)
{
    return rc ? refusal(err) : json_pack("{s:b}", "ok", 1);
}

static json_t *workers_of(const struct pool *pool)
{
    json_t *list = json_array();
    for (int i = 0; i < pool_n_worker(pool); i++) {
        struct pool_worker_info w;
        pool_worker_info_get(pool, i, &w);
        json_array_append_new(list,
                              json_pack("{s:s,s:s,s:s,s:i,s:i,s:I,s:I,s:I}", "name", w.name,
                                        "endpoint", w.endpoint, "state",
                                        w.retired ? "drained"
                                        : w.alive ? "up"
                                                  : "down",
                                        "experts", w.n_held, "outstanding", w.outstanding, "calls",
                                        (json_int_t)w.calls, "failures", (json_int_t)w.failures,
                                        "slots", (json_int_t)w.assignments));
    }
    return list;
}

static double seconds(int64_t ns)
{
    return (double)ns / (double)NS_PER_S;
}

static json_t *rebalance_of(const struct control *c)
{
    struct rebalance_info i;
    int64_t now = clock_now(c->clock);
    rebalance_info_get(c->rebalance, &i);
    const char *failure = i.outcome.code ? i.outcome.text : c->join_error.text;
    json_t *o = json_pack("{s:s,s:s,s:i,s:i,s:i,s:f,s:I,s:I,s:s}", "state",
                          c->joining >= 0 ? "joining" : rebalance_state_name(i.state), "why", i.why,
                          "moves", i.moves, "loaded", i.loaded, "total", i.total, "seconds",
                          i.since_ns ? seconds(now - i.since_ns) : 0.0, "done", (json_int_t)i.done,
                          "failed", (json_int_t)i.failed, "outcome", failure);
    if (i.deadline_ns) {
        json_object_set_new(o, "seconds_left", json_real(seconds(i.deadline_ns - now)));
    }
    return o;
}

static json_t *status(const struct control *c)
{
    if (!c->rebalance) {
        return json_pack("{s:b,s:[],s:i}", "ok", 1, "workers", "uncovered", 0);
    }
    return json_pack("{s:b,s:o,s:i,s:I,s:o}", "ok", 1, "workers", workers_of(c->pool), "uncovered",
                     pool_uncovered(c->pool), "epoch",
                     (json_int_t)placement_epoch(pool_placement(c->pool)), "rebalance",
                     rebalance_of(c));
}

/* ---- commands, on the engine's thread ---- */

static int worker_named(const struct control *c, const char *name)
{
    for (int i = 0; i < pool_n_worker(c->pool); i++) {
        struct pool_worker_info w;
        pool_worker_info_get(c->pool, i, &w);
        if (strcmp(w.name, name) == 0 || strcmp(w.endpoint, name) == 0) {
            return i;
        }
    }
    return -1;
}

static int text_of(const json_t *in, const char *key, const char **out, struct err *err)
{
    *out = json_string_value(json_object_get(in, key));
    return *out ? 0 : err_set(err, ERR_USAGE, "the command lacks \"%s\"", key);
}

static int drain(struct control *c, const json_t *in, struct err *err)
{
    const char *name;
    int rc = text_of(in, "worker", &name, err);
    int worker = rc ? -1 : worker_named(c, name);
    if (rc == 0 && worker < 0) {
        return err_set(err, ERR_USAGE, "there is no worker %.200s; sigmoe status lists them", name);
    }
    return rc ? rc : rebalance_drain(c->rebalance, worker, err);
}

static int join(struct control *c, const json_t *in, struct err *err)
{
    const char *endpoint;
    struct rebalance_info info;
    int worker, rc = text_of(in, "endpoint", &endpoint, err);
    rebalance_info_get(c->rebalance, &info);
    if (rc == 0 && (info.state != REBALANCE_IDLE || c->joining >= 0)) {
        return err_set(err, ERR_AGAIN, "a change is under way; wait for it or cancel it");
    }
    rc = rc ? rc : pool_add(c->pool, endpoint, &worker, err);
    if (rc == 0) {
        c->joining = worker;
        c->joining_until_ns = clock_now(c->clock) + JOIN_NS;
        err_clear(&c->join_error);
    }
    return rc;
}

/* One worker's copies of a placement file into the table. */
static int read_worker(const char *text, const char *name, int worker, struct placement *p,
                       uint8_t *held, struct err *err)
{
    int n_layer = placement_n_layer(p), n_expert = placement_n_expert(p);
    int rc =
        placement_text_worker(text, strlen(text), "placement", name, n_layer, n_expert, held, err);
    for (int i = 0; i < n_layer * n_expert && !rc; i++) {
        rc = held[i] ? placement_add(p, i / n_expert, i % n_expert, worker, err) : 0;
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
        int worker = worker_named(c, name);
        if (rc == 0 && worker < 0) {
            rc = err_set(err, ERR_USAGE,
                         "the placement names worker %.200s, which is not here; sigmoe status "
                         "lists them",
                         name);
        }
        rc = rc ? rc : read_worker(text, name, worker, p, held, err);
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

static int rebalance(struct control *c, const json_t *in, struct err *err)
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

static int cancel(struct control *c, struct err *err)
{
    if (c->joining >= 0) {
        pool_retire(c->pool, c->joining);
        c->joining = -1;
        return 0;
    }
    return rebalance_cancel(c->rebalance, err);
}

static json_t *carry_out(struct control *c, const json_t *in)
{
    struct err err = {0};
    const char *what = json_string_value(json_object_get(in, "do"));
    if (what && strcmp(what, "status") == 0) {
        return status(c);
    }
    int rc;
    if (!what) {
        rc = err_set(&err, ERR_USAGE, "a command is {\"do\": \"status\"} or the like");
    } else if (!c->rebalance) {
        rc = err_set(&err, ERR_USAGE, "a dense model has no workers");
    } else if (strcmp(what, "drain") == 0) {
        rc = drain(c, in, &err);
    } else if (strcmp(what, "join") == 0) {
        rc = join(c, in, &err);
    } else if (strcmp(what, "rebalance") == 0) {
        rc = rebalance(c, in, &err);
    } else if (strcmp(what, "cancel") == 0) {
        rc = cancel(c, &err);
    } else {
        rc = err_set(&err, ERR_USAGE,
                     "unknown command '%.40s'; known are status, drain, join, rebalance, cancel",
                     what);
    }
    return answer_of(rc, &err);
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

/* ---- between the threads ---- */

static struct command *take(struct control *c, struct command **head, struct command ***tail)
{
    pthread_mutex_lock(&c->lock);
    struct command *first = *head;
    *head = NULL;
    *tail = head;
    pthread_mutex_unlock(&c->lock);
    return first;
}

void control_tick(void *control)
{
    struct control *c = control;
    struct command *command = take(c, &c->inbox, &c->inbox_tail);
    for (struct command *next; command; command = next) {
        next = command->next;
        command->next = NULL;
        command->out = carry_out(c, command->in);
        pthread_mutex_lock(&c->lock);
        *c->outbox_tail = command;
        c->outbox_tail = &command->next;
        pthread_mutex_unlock(&c->lock);
        ev_async_send(c->loop, &c->wake);
    }
    if (c->rebalance) {
        tick_joining(c);
        rebalance_tick(c->rebalance);
    }
}

static void command_free(struct command *command)
{
    json_decref(command->in);
    json_decref(command->out);
    free(command);
}

static void on_wake(struct ev_loop *loop, ev_async *watcher, int revents)
{
    (void)loop;
    (void)revents;
    struct control *c = watcher->data;
    struct command *command = take(c, &c->outbox, &c->outbox_tail);
    for (struct command *next; command; command = next) {
        next = command->next;
        command->done(command->user, command->out);
        command_free(command);
    }
}

int control_submit(struct control *c, json_t *command,
                   void (*done)(void *user, const json_t *answer), void *user)
{
    struct command *item = calloc(1, sizeof(*item));
    if (!item) {
        json_decref(command);
        return ERR_NOMEM;
    }
    item->in = command;
    item->done = done;
    item->user = user;
    pthread_mutex_lock(&c->lock);
    *c->inbox_tail = item;
    c->inbox_tail = &item->next;
    pthread_mutex_unlock(&c->lock);
    return 0;
}

/* ---- life ---- */

int control_create(struct pool *pool, const struct clock *clock, struct ev_loop *loop,
                   struct control **out, struct err *err)
{
    struct control *c = calloc(1, sizeof(*c));
    if (!c) {
        return err_set(err, ERR_NOMEM, "no memory for operators' commands");
    }
    struct rebalance_config config = {.pool = pool, .clock = clock};
    int rc = pool ? rebalance_create(&config, &c->rebalance, err) : 0;
    if (rc) {
        free(c);
        return rc;
    }
    c->pool = pool;
    c->clock = clock;
    c->loop = loop;
    c->joining = -1;
    c->inbox_tail = &c->inbox;
    c->outbox_tail = &c->outbox;
    pthread_mutex_init(&c->lock, NULL);
    ev_async_init(&c->wake, on_wake);
    c->wake.data = c;
    ev_async_start(loop, &c->wake);
    *out = c;
    return 0;
}

void control_destroy(struct control *c)
{
    if (!c) {
        return;
    }
    struct command *lists[2] = {c->inbox, c->outbox};
    for (int i = 0; i < 2; i++) {
        for (struct command *next, *item = lists[i]; item; item = next) {
            next = item->next;
            item->done(item->user, NULL);
            command_free(item);
        }
    }
    ev_async_stop(c->loop, &c->wake);
    pthread_mutex_destroy(&c->lock);
    rebalance_destroy(c->rebalance);
    free(c);
}
