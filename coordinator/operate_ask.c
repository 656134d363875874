/* operate_ask: see operate_ask.h. */
#include "coordinator/operate_ask.h"

#include "base/clock.h"
#include "base/report.h"
#include "coordinator/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ASK_MS   60000
#define WATCH_MS 200
#define MORE_MAX 24

int operate_parse(int argc, char **argv, struct operate *o, const struct opt_command *command,
                  const struct opt *more, int waits, int n_what, struct err *err)
{
    struct opt opts[MORE_MAX + 5];
    int n = 0, n_positional = 1;
    opts[n++] = (struct opt){
        "port", 'p', OPT_INT, &o->port, "N", "of the coordinator on this host (8000)", 1, 65535};
    opts[n++] = (struct opt){"admin", 0,
                             OPT_STR, &o->socket,
                             "PATH",  "its operators' socket, where it is not the port's default",
                             0,       0};
    opts[n++] = (struct opt){"json", 0, OPT_FLAG, &o->json, NULL, "print JSON", 0, 0};
    if (waits)
        opts[n++] = (struct opt){
            "no-wait", 0, OPT_FLAG, &o->no_wait, NULL, "return once the change has begun", 0, 0};
    for (int i = 0; more && more[i].name && i < MORE_MAX; i++)
        opts[n++] = more[i];
    opts[n] = (struct opt){NULL, 0, OPT_FLAG, NULL, NULL, NULL, 0, 0};
    struct opt_command whole = *command;
    whole.opts = opts;
    int rc = opt_parse(&whole, argc, argv, &o->what, &n_positional, err);
    if (rc)
        return rc;
    if (n_what >= 0 ? n_positional != n_what : n_positional > 1)
        return err_set(err, ERR_USAGE, "usage: %s", command->usage);
    o->has_what = n_positional == 1;
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

/* "-" where the worker did not say. */
static const char *bytes_at(const json_t *o, const char *key, char *out, size_t size)
{
    long long bytes = int_at(o, key);
    return bytes > 0 ? human_bytes((double)bytes, out, size) : "-";
}

static void print_workers(const json_t *workers)
{
    size_t i;
    json_t *w;
    printf("%-24s %-8s %8s %12s %10s %9s %10s %10s  %s\n", "worker", "state", "experts",
           "outstanding", "calls", "failures", "memory", "available", "endpoint");
    json_array_foreach(workers, i, w)
    {
        char has[32], free_[32];
        printf("%-24s %-8s %8lld %12lld %10lld %9lld %10s %10s  %s\n", text_at(w, "name"),
               text_at(w, "state"), int_at(w, "experts"), int_at(w, "outstanding"),
               int_at(w, "calls"), int_at(w, "failures"),
               bytes_at(w, "resident_bytes", has, sizeof(has)),
               bytes_at(w, "available_bytes", free_, sizeof(free_)), text_at(w, "endpoint"));
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

static void print_names(const json_t *list)
{
    size_t i;
    json_t *name;
    json_array_foreach(list, i, name)
    {
        printf("%s%s", i ? "," : "", json_string_value(name));
    }
    printf("%s", i ? "" : "-");
}

/* Only where somebody has said something of a domain, or one has no worker. */
static void print_domains(const json_t *domains)
{
    size_t i;
    json_t *d;
    int told = 0;
    json_array_foreach(domains, i, d)
    {
        const char *state = text_at(d, "state");
        size_t n_pin = json_array_size(json_object_get(d, "pinned"));
        int drained = json_is_true(json_object_get(d, "drained"));
        if (strcmp(state, "served") == 0 && !n_pin && !drained && !int_at(d, "scale"))
            continue;
        if (!told++)
            printf("%-24s %-8s %8s  %s\n", "domain", "state", "copies", "workers (pinned to)");
        printf("%-24s %-8s %8lld  ", text_at(d, "name"), state, int_at(d, "copies"));
        print_names(json_object_get(d, "workers"));
        printf(" (");
        print_names(json_object_get(d, "pinned"));
        printf(")%s\n", drained ? "  the coordinator computes it, slower; --undrain" : "");
    }
}

static void print_balance(const json_t *b)
{
    double every = json_number_value(json_object_get(b, "every_s"));
    if (every > 0)
        printf("rebalance every %.0f s: %lld plans, %lld moved, %lld left alone\n", every,
               int_at(b, "plans"), int_at(b, "moved"), int_at(b, "left_alone"));
    if (text_at(b, "last")[0])
        printf("last plan: %s\n", text_at(b, "last"));
}

void operate_print(const struct operate *o, const json_t *status)
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
    print_domains(json_object_get(status, "domains"));
    printf("epoch %lld\n", int_at(status, "epoch"));
    print_change(r, stdout);
    print_balance(json_object_get(status, "balance"));
}

/* ---- asking ---- */

int operate_ask(const struct operate *o, json_t *command, json_t **out, struct err *err)
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

int operate_status(const struct operate *o, json_t **out, struct err *err)
{
    return operate_ask(o, json_pack("{s:s}", "do", "status"), out, err);
}

/* watch returns when the change is over: 0 when it was done, ERR_NET with its words when not. */
int operate_watch(const struct operate *o, long long failed_before, struct err *err)
{
    const struct timespec pause = {0, WATCH_MS * 1000000L};
    int shown = !o->silent && isatty(STDERR_FILENO), rc;
    for (;;) {
        json_t *status;
        rc = operate_status(o, &status, err);
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
            if (!rc && !o->silent)
                operate_print(o, status);
            json_decref(status);
            return rc;
        }
        json_decref(status);
        nanosleep(&pause, NULL);
    }
}

int operate_change(const struct operate *o, json_t *command, struct err *err)
{
    json_t *before = NULL;
    int rc = operate_status(o, &before, err);
    long long failed = int_at(json_object_get(before, "rebalance"), "failed");
    json_decref(before);
    if (rc)
        json_decref(command);
    else
        rc = operate_ask(o, command, NULL, err);
    return rc || o->no_wait ? rc : operate_watch(o, failed, err);
}

int operate_finish(const char *name, int rc, const struct err *err)
{
    if (rc < 0)
        fprintf(stderr, "sigmoe %s: %s\n", name, err->text);
    return rc > 0 ? 0 : err_exit_code(rc);
}
