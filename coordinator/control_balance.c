/* control_balance: see control_state.h. One plan at a time: an operator's or the clock's. What the
 * clock asked for and does not pay back is counted and logged, nothing else. */
#include "coordinator/control_state.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define HORIZON_S   600.0
#define HORIZON_MAX 1e7
/* At which workers load, until a change has shown it. */
#define BYTES_PER_S 5e8

/* ---- asking ---- */

static int ask_read(const struct control *c, const json_t *in, struct balancer_ask *ask,
                    struct err *err)
{
    const char *place = json_string_value(json_object_get(in, "place"));
    const char *redundant = json_string_value(json_object_get(in, "redundant"));
    const json_t *horizon = json_object_get(in, "horizon");
    *ask = (struct balancer_ask){.n_redundant = BALANCER_AS_NOW,
                                 .horizon_s = horizon ? json_number_value(horizon) : HORIZON_S,
                                 .force = json_is_true(json_object_get(in, "force"))};
    if (!(ask->horizon_s > 0) || ask->horizon_s > HORIZON_MAX) {
        return err_set(err, ERR_USAGE, "a horizon is a number of seconds above 0, at most %.0f",
                       HORIZON_MAX);
    }
    int rc = redundant ? balance_redundant_parse(redundant, c->config.desc->n_expert,
                                                 &ask->n_redundant, err)
                       : 0;
    return rc ? rc
              : strategy_get(STRATEGY_PLACE, "--place", place ? place : "capacity", &ask->place,
                             err);
}

static int begin(struct control *c, const struct balancer_ask *ask, struct err *err)
{
    struct rebalance_info info;
    int rc = control_idle(c, err);
    if (rc == 0 && c->balance.job) {
        rc = err_set(err, ERR_AGAIN, "a plan is being made already; ask again in a moment");
    }
    rebalance_info_get(c->rebalance, &info);
    load_watch_sample(c->balance.watch, engine_load(c->config.engine), c->pool,
                      clock_now(c->clock));
    uint64_t expert = weights_expert_bytes(c->config.desc, c->config.precision);
    double rate = info.load_per_s > 0 ? info.load_per_s * (double)expert : BYTES_PER_S;
    return rc ? rc
              : balance_job_start(c->pool, c->config.desc, c->config.precision, c->balance.watch,
                                  c->domains.rules, rate, ask, &c->balance.job, err);
}

int control_balance(struct control *c, struct command *command, struct err *err)
{
    struct balancer_ask ask;
    int rc = ask_read(c, command->in, &ask, err);
    rc = rc ? rc : begin(c, &ask, err);
    if (rc == 0) {
        command->next = NULL;
        c->balance.asked = command;
        c->balance.dry_run = json_is_true(json_object_get(command->in, "dry_run"));
    }
    return rc;
}

/* ---- what came out ---- */

static json_t *plan_json(const struct balancer_answer *a, int started)
{
    const struct balance_moves *m = &a->moves;
    return json_pack(
        "{s:b,s:b,s:s,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:i,s:i,s:i,s:I,s:I,s:f,s:f,s:f,s:f}", "pays",
        a->pays, "started", started, "reason", a->reason, "before", a->before, "before_worst",
        a->before_worst, "after", a->after, "after_worst", a->after_worst, "slots_seen", a->slots,
        "seconds_seen", a->seconds, "horizon_s", a->horizon_s, "moves", m->n_move, "layers_changed",
        m->n_changed, "layers_refused", m->n_refused, "bytes", (json_int_t)m->bytes,
        "bytes_worker_max", (json_int_t)m->bytes_worker_max, "load_s", m->load_s, "gain_s",
        a->gain_s, "cost_s", a->cost_s, "payback_s", a->payback_s);
}

static void remember(struct control *c, const struct balancer_answer *a, const char *outcome)
{
    struct balance_side *b = &c->balance;
    b->before = a->before;
    b->after = a->after;
    snprintf(b->last, sizeof(b->last),
             "%s: imbalance %.3f -> %.3f, %d moves, gain %.3g s, cost %.3g s%s%s", outcome,
             a->before, a->after, a->moves.n_move, a->gain_s, a->cost_s, a->reason[0] ? "; " : "",
             a->reason);
}

/* start: towards the plan, unless who holds what has changed meanwhile. */
static int start(struct control *c, const struct balancer_answer *a, uint64_t epoch,
                 const char *why, struct err *err)
{
    if (placement_epoch(pool_placement(c->pool)) != epoch) {
        return err_set(err, ERR_AGAIN, "who holds what has changed meanwhile; ask again");
    }
    return rebalance_start(c->rebalance, a->target, NULL, 0, why, err);
}

static void end_asked(struct control *c, int rc, const struct balancer_answer *a, uint64_t epoch,
                      struct err *err)
{
    struct command *command = c->balance.asked;
    int go = rc == 0 && a->pays && !c->balance.dry_run;
    c->balance.asked = NULL;
    rc = go ? start(c, a, epoch, "rebalance from the live load", err) : rc;
    if (rc) {
        control_post(c, command, control_answer(rc, err));
        return;
    }
    remember(c, a, go ? "an operator moved" : "an operator looked");
    log_info("control", "%s", c->balance.last);
    control_post(c, command, json_pack("{s:b,s:o}", "ok", 1, "plan", plan_json(a, go)));
}

static void end_clock(struct control *c, int rc, const struct balancer_answer *a, uint64_t epoch,
                      struct err *err)
{
    struct balance_side *b = &c->balance;
    b->plans++;
    int go = rc == 0 && a->pays;
    rc = go ? start(c, a, epoch, "automatic rebalance", err) : rc;
    if (rc) {
        log_warn("control", "automatic rebalance: %s", err->text);
        snprintf(b->last, sizeof(b->last), "automatic, failed: %.200s", err->text);
        return;
    }
    b->started += go != 0;
    b->refused += !go;
    remember(c, a, go ? "automatic, moved" : "automatic, left alone");
    log_info("control", "%s", b->last);
}

static void tick_job(struct control *c)
{
    struct balance_side *b = &c->balance;
    struct balancer_answer a = {0};
    struct err err = {0};
    uint64_t epoch;
    if (!b->job || !balance_job_ended(b->job)) {
        return;
    }
    int rc = balance_job_end(b->job, &a, &epoch, &err);
    b->job = NULL;
    if (b->asked) {
        end_asked(c, rc, &a, epoch, &err);
    } else {
        end_clock(c, rc, &a, epoch, &err);
    }
    placement_destroy(a.target);
}

/* What the clock asks for: the default, over at least the time until it asks again. */
static void tick_clock(struct control *c, int64_t now)
{
    struct balance_side *b = &c->balance;
    int64_t every = c->config.rebalance_every_ns;
    if (every == 0 || now < b->next_ns || b->job || control_idle(c, NULL)) {
        return;
    }
    if (b->next_ns > 0) {
        struct balancer_ask ask;
        struct err err = {0};
        json_t *nothing = json_object();
        int rc = nothing ? ask_read(c, nothing, &ask, &err) : ERR_NOMEM;
        json_decref(nothing);
        double every_s = (double)every / (double)NS_PER_S;
        ask.horizon_s = rc == 0 && every_s > ask.horizon_s ? every_s : ask.horizon_s;
        if (rc || begin(c, &ask, &err)) {
            log_warn("control", "automatic rebalance: %s", err.text);
        }
    }
    b->next_ns = now + every;
}

void control_balance_tick(struct control *c, int64_t now)
{
    load_watch_tick(c->balance.watch, engine_load(c->config.engine), c->pool, now);
    tick_job(c);
    tick_clock(c, now);
}

json_t *control_balance_status(const struct control *c)
{
    const struct balance_side *b = &c->balance;
    return json_pack("{s:f,s:I,s:I,s:I,s:b,s:f,s:f,s:s}", "every_s",
                     (double)c->config.rebalance_every_ns / (double)NS_PER_S, "plans",
                     (json_int_t)b->plans, "moved", (json_int_t)b->started, "left_alone",
                     (json_int_t)b->refused, "planning", b->job != NULL, "imbalance", b->before,
                     "planned", b->after, "last", b->last);
}
