/* rebalance_cmd: `sigmoe rebalance`: to a placement that is planned from the live load, to one in a
 * file, to what is said of domains, or back. */
#include "coordinator/operate.h"

#include "base/limits.h"
#include "base/report.h"
#include "coordinator/operate_ask.h"
#include "router/strategy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rebalance_ask {
    struct operate o;
    const char *placement, *place, *redundant;
    double horizon_s;
    int cancel, force, dry_run;
    struct opt_strs pin, scale, unpin;
};

static const char about[] =
    "Changes who holds what while requests run. Workers load what they gain, requests go there\n"
    "once all have loaded, then old copies are dropped. If a worker cannot, the placement before\n"
    "stays in force. Workers must not run with --fixed.\n"
    "\n"
    "Alone it plans from what the coordinator has seen in the last minutes (which experts were\n"
    "chosen, how fast each worker computed), says what that would gain and cost, and moves only\n"
    "what pays back within the horizon; where nothing does, it says so and exits with 1.\n"
    "\n"
    "  sigmoe rebalance --dry-run\n"
    "  sigmoe rebalance --redundant 12.5% --horizon 3600\n"
    "  sigmoe rebalance --placement next.json     # from sigmoe plan --out\n"
    "  sigmoe rebalance --pin code=w0,w1 --scale code=2\n"
    "\n"
    "What is said of domains holds from then on, over workers that leave and join, in every\n"
    "placement that the coordinator goes to.";

static int parse(struct rebalance_ask *a, int argc, char **argv, struct err *err)
{
    char text[4096];
    size_t used =
        (size_t)snprintf(text, sizeof(text), "%s\n\nplacement strategies (--place):\n", about);
    strategy_list(STRATEGY_PLACE, text + used, sizeof(text) - used);
    const struct opt more[] = {
        {"placement", 0, OPT_STR, &a->placement, "FILE",
         "who shall hold what, as sigmoe plan --out writes it", 0, 0},
        {"place", 0, OPT_STR, &a->place, "NAME", "strategy (capacity)", 0, 0},
        {"redundant", 'r', OPT_STR, &a->redundant, "R",
         "copies a layer beyond one of each: 8, 12.5%, or all;\ndefault: as many as there are now",
         0, 0},
        {"horizon", 0, OPT_FLOAT, &a->horizon_s, "SECONDS",
         "for which the load is taken to stay as it is (600)", 1, 1e7},
        {"force", 0, OPT_FLAG, &a->force, NULL, "move what does not pay back, too", 0, 0},
        {"dry-run", 'n', OPT_FLAG, &a->dry_run, NULL, "say what would be done, and do nothing", 0,
         0},
        {"pin", 0, OPT_STRS, &a->pin, "DOMAIN=WORKER[,WORKER]",
         "the domain's experts lie on these workers only", 0, 0},
        {"unpin", 0, OPT_STRS, &a->unpin, "DOMAIN", "it may lie anywhere again", 0, 0},
        {"scale", 0, OPT_STRS, &a->scale, "DOMAIN=N",
         "copies of each of its experts, on different workers; 0: forget", 0, 0},
        {"cancel", 0, OPT_FLAG, &a->cancel, NULL,
         "go back to the placement before, while workers load", 0, 0},
        {0}};
    const struct opt_command command = {
        "rebalance", "sigmoe rebalance [--placement FILE | --pin .. | --cancel] [options]", text,
        NULL};
    int rc = operate_parse(argc, argv, &a->o, &command, more, 1, 0, err);
    int domains = a->pin.n + a->unpin.n + a->scale.n > 0;
    int planned = a->place || a->redundant || a->force || a->dry_run || a->horizon_s > 0;
    if (rc == 0 && domains + planned + a->cancel + (a->placement != NULL) > 1)
        rc = err_set(err, ERR_USAGE,
                     "give one of: --placement FILE; --cancel; --pin, --unpin, --scale; or how to "
                     "plan (--place, --redundant, --horizon, --force, --dry-run)");
    return rc;
}

/* ---- domains ---- */

/* DOMAIN=TEXT: the domain into name, what stands behind into *rest. */
static int split(const char *option, const char *text, char *name, size_t size, const char **rest,
                 struct err *err)
{
    const char *equal = strchr(text, '=');
    size_t n = equal ? (size_t)(equal - text) : 0;
    if (n == 0 || n >= size || !equal[1])
        return err_set(err, ERR_USAGE, "%s %.200s: write DOMAIN=%s", option, text,
                       strcmp(option, "--pin") == 0 ? "WORKER,WORKER" : "N");
    memcpy(name, text, n);
    name[n] = '\0';
    *rest = equal + 1;
    return 0;
}

static json_t *names_of(const char *text)
{
    json_t *list = json_array();
    for (size_t n; *text; text += n + (text[n] == ',')) {
        n = strcspn(text, ",");
        json_array_append_new(list, json_stringn(text, n));
    }
    return list;
}

static int domains_command(const struct rebalance_ask *a, json_t **out, struct err *err)
{
    json_t *pin = json_object(), *scale = json_object(), *unpin = json_array();
    char name[LIMIT_NAME_BYTES];
    const char *rest;
    int rc = 0;
    for (int i = 0; i < a->pin.n && !rc; i++) {
        rc = split("--pin", a->pin.at[i], name, sizeof(name), &rest, err);
        if (rc == 0)
            json_object_set_new(pin, name, names_of(rest));
    }
    for (int i = 0; i < a->scale.n && !rc; i++) {
        char *end = NULL;
        rc = split("--scale", a->scale.at[i], name, sizeof(name), &rest, err);
        long n = rc ? 0 : strtol(rest, &end, 10);
        if (rc == 0 && *end)
            rc = err_set(err, ERR_USAGE, "--scale %s: '%s' is no number", a->scale.at[i], rest);
        if (rc == 0)
            json_object_set_new(scale, name, json_integer(n));
    }
    for (int i = 0; i < a->unpin.n; i++)
        json_array_append_new(unpin, json_string(a->unpin.at[i]));
    *out =
        json_pack("{s:s,s:o,s:o,s:o}", "do", "domains", "pin", pin, "scale", scale, "unpin", unpin);
    if (rc) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

/* ---- planned from the live load ---- */

static double real_at(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void print_plan(const json_t *plan)
{
    char all[32], one[32], load[32], gain[32], cost[32], back[32];
    long long moves = json_integer_value(json_object_get(plan, "moves"));
    printf("seen: %.0f slots a layer within %.0f s\n", real_at(plan, "slots_seen"),
           real_at(plan, "seconds_seen"));
    printf("imbalance (max - mean) / mean, mean over layers (worst layer): %.3f (%.3f) in use, "
           "%.3f (%.3f) planned\n",
           real_at(plan, "before"), real_at(plan, "before_worst"), real_at(plan, "after"),
           real_at(plan, "after_worst"));
    if (moves > 0)
        printf("moves: %lld copies in %lld layers, %s; the busiest worker loads %s, which takes it "
               "%s\n",
               moves, (long long)json_integer_value(json_object_get(plan, "layers_changed")),
               human_bytes(real_at(plan, "bytes"), all, sizeof(all)),
               human_bytes(real_at(plan, "bytes_worker_max"), one, sizeof(one)),
               human_ns(real_at(plan, "load_s") * 1e9, load, sizeof(load)));
    if (moves > 0)
        printf("gain: %s of waiting for the slowest worker within %.0f s; cost: %s; paid back "
               "after %s\n",
               human_ns(real_at(plan, "gain_s") * 1e9, gain, sizeof(gain)),
               real_at(plan, "horizon_s"),
               human_ns(real_at(plan, "cost_s") * 1e9, cost, sizeof(cost)),
               real_at(plan, "payback_s") > 0
                   ? human_ns(real_at(plan, "payback_s") * 1e9, back, sizeof(back))
                   : "no time");
}

static int show_plan(const struct rebalance_ask *a, const json_t *plan, struct err *err)
{
    const char *reason = json_string_value(json_object_get(plan, "reason"));
    if (a->o.json) {
        json_dumpf(plan, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
    } else {
        print_plan(plan);
    }
    if (json_is_true(json_object_get(plan, "started")) || a->dry_run) {
        if (!a->o.json && a->dry_run)
            printf("%s\n", json_is_true(json_object_get(plan, "pays")) ? "would be done (--dry-run)"
                                                                       : reason);
        return 0;
    }
    return err_set(err, ERR_LIMIT, "nothing was moved: %s%s", reason ? reason : "",
                   a->force ? "" : " (--force moves what --dry-run shows)");
}

static int from_load(const struct rebalance_ask *a, struct err *err)
{
    json_t *command =
        json_pack("{s:s,s:b,s:b}", "do", "rebalance", "force", a->force, "dry_run", a->dry_run);
    json_t *before = NULL, *answer = NULL;
    if (command && a->place)
        json_object_set_new(command, "place", json_string(a->place));
    if (command && a->redundant)
        json_object_set_new(command, "redundant", json_string(a->redundant));
    if (command && a->horizon_s > 0)
        json_object_set_new(command, "horizon", json_real(a->horizon_s));
    int rc = operate_status(&a->o, &before, err);
    long long failed =
        json_integer_value(json_object_get(json_object_get(before, "rebalance"), "failed"));
    json_decref(before);
    if (rc) {
        json_decref(command);
        return rc;
    }
    rc = operate_ask(&a->o, command, &answer, err);
    const json_t *plan = json_object_get(answer, "plan");
    rc = rc ? rc : show_plan(a, plan, err);
    int started = rc == 0 && json_is_true(json_object_get(plan, "started"));
    json_decref(answer);
    /* With --json the plan is what stands on standard output: the change is watched in silence. */
    struct operate quiet = a->o;
    quiet.silent = a->o.json;
    return started && !a->o.no_wait ? operate_watch(&quiet, failed, err) : rc;
}

/* ---- the command ---- */

static int read_placement(const char *path, json_t **out, struct err *err)
{
    json_error_t where;
    *out = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    return *out ? 0
                : err_set(err, ERR_MODEL, "%s:%d:%d: %s", path, where.line, where.column,
                          where.text);
}

static int run(const struct rebalance_ask *a, struct err *err)
{
    json_t *json = NULL;
    int rc;
    if (a->cancel)
        return operate_ask(&a->o, json_pack("{s:s}", "do", "cancel"), NULL, err);
    if (a->placement) {
        rc = read_placement(a->placement, &json, err);
        return rc ? rc
                  : operate_change(
                        &a->o, json_pack("{s:s,s:o}", "do", "rebalance", "placement", json), err);
    }
    if (a->pin.n + a->unpin.n + a->scale.n > 0) {
        rc = domains_command(a, &json, err);
        return rc ? rc : operate_change(&a->o, json, err);
    }
    return from_load(a, err);
}

int cmd_rebalance(int argc, char **argv)
{
    struct rebalance_ask a = {.o = {.port = 8000}};
    struct err err = {0};
    int rc = parse(&a, argc, argv, &err);
    rc = rc ? rc : run(&a, &err);
    return operate_finish("rebalance", rc, &err);
}
