/* operate: see operate.h. Each command asks the coordinator's operators' socket; those that change
 * something then watch the change until it is done, unless told not to wait. */
#include "coordinator/operate.h"

#include "base/clock.h"
#include "base/opt.h"
#include "coordinator/admin.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ASK_MS   60000
#define WATCH_MS 200

struct operate {
    const char *socket, *placement;
    int64_t port;
    int json, no_wait, cancel;
    const char *what; /* the positional */
    char path[512];
};

static int parse(int argc, char **argv, struct operate *o, const char *name, const char *usage,
                 const char *about, int n_what, struct err *err)
{
    int changes = strcmp(name, "status") != 0, moves = strcmp(name, "rebalance") == 0;
    struct opt opts[8];
    int n = 0, n_positional = 1;
    opts[n++] = (struct opt){
        "port", 'p', OPT_INT, &o->port, "N", "of the coordinator on this host (8000)", 1, 65535};
    opts[n++] = (struct opt){"admin", 0,
                             OPT_STR, &o->socket,
                             "PATH",  "its operators' socket, where it is not the port's default",
                             0,       0};
    opts[n++] = (struct opt){"json", 0, OPT_FLAG, &o->json, NULL, "print JSON", 0, 0};
    if (moves) {
        opts[n++] = (struct opt){"placement", 0,
                                 OPT_STR,     &o->placement,
                                 "FILE",      "who shall hold what, as sigmoe plan --out writes it",
                                 0,           0};
        opts[n++] =
            (struct opt){"cancel",   0,    OPT_FLAG,
                         &o->cancel, NULL, "go back to the placement before, while workers load",
                         0,          0};
    }
    if (changes)
        opts[n++] = (struct opt){
            "no-wait", 0, OPT_FLAG, &o->no_wait, NULL, "return once the change has begun", 0, 0};
    opts[n] = (struct opt){NULL, 0, OPT_FLAG, NULL, NULL, NULL, 0, 0};
    const struct opt_command command = {name, usage, about, opts};
    int rc = opt_parse(&command, argc, argv, &o->what, &n_positional, err);
    if (rc)
        return rc;
    if (n_positional != n_what)
        return err_set(err, ERR_USAGE, "usage: %s", usage);
    if (o->socket)
        snprintf(o->path, sizeof(o->path), "%s", o->socket);
    else
        admin_path_default((int)o->port, o->path, sizeof(o->path));
    return 0;
}

/* ---- printing ---- */

static const char *text_at(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static long long int_at(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void print_workers(const json_t *workers)
{
    size_t i;
    json_t *w;
    printf("%-24s %-8s %8s %12s %10s %9s  %s\n", "worker", "state", "experts", "outstanding",
           "calls", "failures", "endpoint");
    json_array_foreach(workers, i, w)
    {
        printf("%-24s %-8s %8lld %12lld %10lld %9lld  %s\n", text_at(w, "name"),
               text_at(w, "state"), int_at(w, "experts"), int_at(w, "outstanding"),
               int_at(w, "calls"), int_at(w, "failures"), text_at(w, "endpoint"));
    }
}

static void print_change(const json_t *r, FILE *out)
{
    const char *state = text_at(r, "state");
    fprintf(out, "placement: %s", state);
    if (strcmp(state, "idle") != 0)
        fprintf(out, " (%s), %lld of %lld experts loaded, %.1f s, %.0f s left", text_at(r, "why"),
                int_at(r, "loaded"), int_at(r, "total"),
                json_number_value(json_object_get(r, "seconds")),
                json_number_value(json_object_get(r, "seconds_left")));
    fprintf(out, "; %lld changes done, %lld undone\n", int_at(r, "done"), int_at(r, "failed"));
    if (text_at(r, "outcome")[0])
        fprintf(out, "last: %s\n", text_at(r, "outcome"));
}

static void print_status(const struct operate *o, const json_t *status)
{
    if (o->json) {
        json_dumpf(status, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        return;
    }
    const json_t *r = json_object_get(status, "rebalance");
    if (!r) {
        printf("a dense model: no workers\n");
        return;
    }
    print_workers(json_object_get(status, "workers"));
    if (int_at(status, "uncovered"))
        printf("%lld experts are held by no worker: the coordinator computes them, slower\n",
               int_at(status, "uncovered"));
    printf("epoch %lld\n", int_at(status, "epoch"));
    print_change(r, stdout);
}

/* ---- asking ---- */

static int ask(const struct operate *o, json_t *command, json_t **out, struct err *err)
{
    json_t *answer = NULL;
    int rc = command ? admin_ask(o->path, command, ASK_MS, &answer, err)
                     : err_set(err, ERR_NOMEM, "no memory for a command");
    json_decref(command);
    if (out && rc == 0)
        *out = answer;
    else
        json_decref(answer);
    return rc;
}

static int ask_status(const struct operate *o, json_t **out, struct err *err)
{
    return ask(o, json_pack("{s:s}", "do", "status"), out, err);
}

/* watch returns when the change is over: 0 when it was done, ERR_NET with its words when not. */
static int watch(const struct operate *o, long long failed_before, struct err *err)
{
    const struct timespec pause = {0, WATCH_MS * 1000000L};
    int shown = isatty(STDERR_FILENO), rc;
    for (;;) {
        json_t *status;
        rc = ask_status(o, &status, err);
        if (rc)
            return rc;
        const json_t *r = json_object_get(status, "rebalance");
        int idle = strcmp(text_at(r, "state"), "idle") == 0;
        if (shown) {
            fputs("\r\033[K", stderr);
            if (!idle)
                fprintf(stderr, "%s: %s, %lld of %lld experts loaded, %.1f s", text_at(r, "why"),
                        text_at(r, "state"), int_at(r, "loaded"), int_at(r, "total"),
                        json_number_value(json_object_get(r, "seconds")));
        }
        if (idle && text_at(r, "outcome")[0] && int_at(r, "failed") >= failed_before)
            rc = err_set(err, ERR_NET, "%s", text_at(r, "outcome"));
        if (idle) {
            if (!rc)
                print_status(o, status);
            json_decref(status);
            return rc;
        }
        json_decref(status);
        nanosleep(&pause, NULL);
    }
}

static int change(const struct operate *o, json_t *command, struct err *err)
{
    json_t *before = NULL;
    int rc = ask_status(o, &before, err);
    long long failed = int_at(json_object_get(before, "rebalance"), "failed");
    json_decref(before);
    if (rc)
        json_decref(command);
    else
        rc = ask(o, command, NULL, err);
    return rc || o->no_wait ? rc : watch(o, failed, err);
}

static int finish(const char *name, int rc, const struct err *err)
{
    if (rc < 0)
        fprintf(stderr, "sigmoe %s: %s\n", name, err->text);
    return rc > 0 ? 0 : err_exit_code(rc);
}

/* ---- the commands ---- */

int cmd_status(int argc, char **argv)
{
    struct operate o = {.port = 8000};
    struct err err = {0};
    json_t *status;
    int rc =
        parse(argc, argv, &o, "status", "sigmoe status [--port N] [--json]",
              "Shows the workers of a coordinator that runs on this host (sigmoe serve), what\n"
              "each holds, and how far a change of the placement is.",
              0, &err);
    if (rc == 0 && (rc = ask_status(&o, &status, &err)) == 0) {
        print_status(&o, status);
        json_decref(status);
    }
    return finish("status", rc, &err);
}

int cmd_drain(int argc, char **argv)
{
    struct operate o = {.port = 8000};
    struct err err = {0};
    int rc = parse(argc, argv, &o, "drain", "sigmoe drain WORKER [--port N] [--no-wait]",
                   "Takes a worker (its name or endpoint, as sigmoe status shows them) out of a\n"
                   "running cluster: what only it holds is loaded by others first, then requests\n"
                   "go there, then the worker may be stopped. No request fails or changes.",
                   1, &err);
    if (rc == 0)
        rc = change(&o, json_pack("{s:s,s:s}", "do", "drain", "worker", o.what), &err);
    return finish("drain", rc, &err);
}

int cmd_join(int argc, char **argv)
{
    struct operate o = {.port = 8000};
    struct err err = {0};
    int rc =
        parse(argc, argv, &o, "join", "sigmoe join ENDPOINT [--port N] [--no-wait]",
              "Adds a worker to a running cluster and gives it its share of the experts.\n\n"
              "  host-b$ sigmoe worker --model olmoe --experts none --listen tcp://10.0.0.3:5701\n"
              "  host-a$ sigmoe join tcp://10.0.0.3:5701",
              1, &err);
    if (rc == 0)
        rc = change(&o, json_pack("{s:s,s:s}", "do", "join", "endpoint", o.what), &err);
    return finish("join", rc, &err);
}

static int read_placement(const char *path, json_t **out, struct err *err)
{
    json_error_t where;
    *out = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    return *out ? 0
                : err_set(err, ERR_MODEL, "%s:%d:%d: %s", path, where.line, where.column,
                          where.text);
}

int cmd_rebalance(int argc, char **argv)
{
    struct operate o = {.port = 8000};
    struct err err = {0};
    json_t *file = NULL;
    int rc =
        parse(argc, argv, &o, "rebalance",
              "sigmoe rebalance --placement FILE | --cancel [--port N] [--no-wait]",
              "Changes who holds what while requests run. Workers load what they gain, requests\n"
              "go there once all have loaded, then old copies are dropped. If a worker cannot,\n"
              "the placement before stays in force. Workers must not run with --fixed.\n\n"
              "  sigmoe plan olmoe --trace day.trace --redundant 8 --out next.json ...\n"
              "  sigmoe rebalance --placement next.json",
              0, &err);
    if (rc == 0 && !o.placement == !o.cancel)
        rc = err_set(&err, ERR_USAGE, "give --placement FILE or --cancel");
    if (rc == 0 && o.cancel)
        rc = ask(&o, json_pack("{s:s}", "do", "cancel"), NULL, &err);
    else if (rc == 0 && (rc = read_placement(o.placement, &file, &err)) == 0)
        rc = change(&o, json_pack("{s:s,s:o}", "do", "rebalance", "placement", file), &err);
    return finish("rebalance", rc, &err);
}
