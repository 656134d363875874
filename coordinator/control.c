/* control: see control.h. Between the threads lie two lists behind one mutex, as in service. */
#include "coordinator/control_state.h"

#include <stdlib.h>
#include <string.h>

/* ---- answers ---- */

static json_t *refusal(const struct err *err)
{
    return json_pack("{s:b,s:s}", "ok", 0, "error", err->text);
}

json_t *control_answer(int rc, const struct err *err)
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
                              json_pack("{s:s,s:s,s:s,s:s,s:i,s:i,s:I,s:I,s:I,s:I,s:I}", "name",
                                        w.name, "endpoint", w.endpoint, "via", w.via, "state",
                                        w.retired ? "drained"
                                        : w.alive ? "up"
                                                  : "down",
                                        "experts", w.n_held, "outstanding", w.outstanding, "calls",
                                        (json_int_t)w.calls, "failures", (json_int_t)w.failures,
                                        "slots", (json_int_t)w.assignments, "resident_bytes",
                                        (json_int_t)w.resident_bytes, "available_bytes",
                                        (json_int_t)w.available_bytes));
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
    json_t *o = json_pack("{s:b,s:o,s:i,s:I,s:o,s:o}", "ok", 1, "workers", workers_of(c->pool),
                          "uncovered", pool_uncovered(c->pool), "epoch",
                          (json_int_t)placement_epoch(pool_placement(c->pool)), "rebalance",
                          rebalance_of(c), "balance", control_balance_status(c));
    if (c->config.desc->n_domain > 0) {
        json_object_set_new(o, "domains", domain_rules_status(c->domains.rules, c->pool));
    }
    return o;
}

/* ---- commands, on the engine's thread ---- */

static int is(const char *what, const char *name)
{
    return strcmp(what, name) == 0;
}

/* change: 0, or an error; 1: the command is answered later. */
static int change(struct control *c, const char *what, struct command *command, struct err *err)
{
    const json_t *in = command->in;
    if (!c->rebalance) {
        return err_set(err, ERR_USAGE, "a dense model has no workers");
    }
    if (is(what, "drain")) {
        return control_drain(c, in, err);
    }
    if (is(what, "join")) {
        return control_join(c, in, err);
    }
    if (is(what, "rebalance") && json_object_get(in, "placement")) {
        return control_rebalance_file(c, in, err);
    }
    if (is(what, "rebalance")) {
        int rc = control_balance(c, command, err);
        return rc ? rc : 1;
    }
    if (is(what, "domains")) {
        return control_domains(c, in, err);
    }
    if (is(what, "cancel")) {
        return control_cancel(c, err);
    }
    return err_set(err, ERR_USAGE,
                   "unknown command '%.40s'; known are status, drain, join, rebalance, domains, "
                   "cancel",
                   what);
}

static void carry_out(struct control *c, struct command *command)
{
    struct err err = {0};
    const char *what = json_string_value(json_object_get(command->in, "do"));
    if (what && is(what, "status")) {
        control_post(c, command, status(c));
        return;
    }
    int rc = what ? change(c, what, command, &err)
                  : err_set(&err, ERR_USAGE, "a command is {\"do\": \"status\"} or the like");
    if (rc <= 0) {
        control_post(c, command, control_answer(rc, &err));
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

void control_post(struct control *c, struct command *command, json_t *answer)
{
    command->next = NULL;
    command->out = answer;
    pthread_mutex_lock(&c->lock);
    *c->outbox_tail = command;
    c->outbox_tail = &command->next;
    pthread_mutex_unlock(&c->lock);
    ev_async_send(c->config.loop, &c->wake);
}

/* What others may look at. */
static void publish(struct control *c)
{
    const struct balance_side *b = &c->balance;
    struct rebalance_info info;
    rebalance_info_get(c->rebalance, &info);
    struct control_view v = {.state = info.state,
                             .done = info.done,
                             .undone = info.failed,
                             .auto_plans = b->plans,
                             .auto_started = b->started,
                             .auto_refused = b->refused,
                             .every_s = seconds(c->config.rebalance_every_ns),
                             .imbalance = b->before,
                             .imbalance_planned = b->after,
                             .drained_domains = domain_rules_n_drained(c->domains.rules)};
    pthread_mutex_lock(&c->lock);
    c->view = v;
    pthread_mutex_unlock(&c->lock);
}

void control_view_get(struct control *c, struct control_view *out)
{
    pthread_mutex_lock(&c->lock);
    *out = c->view;
    pthread_mutex_unlock(&c->lock);
}

void control_tick(void *control)
{
    struct control *c = control;
    struct command *command = take(c, &c->inbox, &c->inbox_tail);
    for (struct command *next; command; command = next) {
        next = command->next;
        carry_out(c, command);
    }
    if (c->rebalance) {
        int64_t now = clock_now(c->clock);
        control_change_tick(c, now);
        control_balance_tick(c, now);
        publish(c);
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

static int allocate(struct control *c, struct err *err)
{
    struct rebalance_config config = {.pool = c->pool, .clock = c->clock};
    if (!c->pool) {
        return 0;
    }
    int rc = rebalance_create(&config, &c->rebalance, err);
    rc = rc ? rc : domain_rules_create(c->config.desc, &c->domains.rules, err);
    rc = rc ? rc : load_watch_create(c->config.desc, WATCH_HALF_LIFE_NS, &c->balance.watch, err);
    return rc;
}

static void control_free(struct control *c)
{
    rebalance_destroy(c->rebalance);
    domain_rules_destroy(c->domains.rules);
    load_watch_destroy(c->balance.watch);
    free(c);
}

int control_create(const struct control_config *config, struct control **out, struct err *err)
{
    struct control *c = calloc(1, sizeof(*c));
    if (!c) {
        return err_set(err, ERR_NOMEM, "no memory for operators' commands");
    }
    c->config = *config;
    c->pool = config->pool;
    c->clock = config->clock;
    c->joining = -1;
    c->inbox_tail = &c->inbox;
    c->outbox_tail = &c->outbox;
    int rc = allocate(c, err);
    if (rc) {
        control_free(c);
        return rc;
    }
    pthread_mutex_init(&c->lock, NULL);
    ev_async_init(&c->wake, on_wake);
    c->wake.data = c;
    ev_async_start(config->loop, &c->wake);
    *out = c;
    return 0;
}

void control_destroy(struct control *c)
{
    if (!c) {
        return;
    }
    if (c->balance.job) {
        balance_job_end(c->balance.job, NULL, NULL, NULL);
    }
    struct command *lists[3] = {c->inbox, c->outbox, c->balance.asked};
    for (int i = 0; i < 3; i++) {
        for (struct command *next, *item = lists[i]; item; item = next) {
            next = item->next;
            item->done(item->user, NULL);
            command_free(item);
        }
    }
    ev_async_stop(c->config.loop, &c->wake);
    pthread_mutex_destroy(&c->lock);
    control_free(c);
}
