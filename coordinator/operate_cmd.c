/* operate: see operate.h. Each command asks the coordinator's operators' socket; those that change
 * something then watch the change until it is done, unless told not to wait. */
#include "coordinator/operate.h"

#include "coordinator/operate_ask.h"

int cmd_status(int argc, char **argv)
{
    static const struct opt_command command = {
        "status", "sigmoe status [--port N] [--json]",
        "Shows the workers of a coordinator that runs on this host (sigmoe serve), what each\n"
        "holds, how far a change of the placement is, and what was said of domains.",
        NULL};
    struct operate o = {.port = 8000};
    struct err err = {0};
    json_t *status;
    int rc = operate_parse(argc, argv, &o, &command, NULL, 0, 0, &err);
    if (rc == 0 && (rc = operate_status(&o, &status, &err)) == 0) {
        operate_print(&o, status);
        json_decref(status);
    }
    return operate_finish("status", rc, &err);
}

int cmd_drain(int argc, char **argv)
{
    static const struct opt_command command = {
        "drain", "sigmoe drain WORKER | --domain NAME --confirm [--port N] [--no-wait]",
        "Takes a worker (its name or endpoint, as sigmoe status shows them) out of a running\n"
        "cluster: what only it holds is loaded by others first, then requests go there, then the\n"
        "worker may be stopped. No request fails or changes.\n"
        "\n"
        "With --domain, a domain's experts leave all workers instead, which frees their memory.\n"
        "Requests for it are then computed by the coordinator itself, from its own copy of the\n"
        "checkpoint: the same answers, slower, and slowing others. sigmoe undrain brings it back.",
        NULL};
    struct operate o = {.port = 8000};
    struct err err = {0};
    const char *domain = NULL;
    int confirm = 0;
    const struct opt more[] = {
        {"domain", 0, OPT_STR, &domain, "NAME", "no worker holds experts of this domain", 0, 0},
        {"confirm", 0, OPT_FLAG, &confirm, NULL, "of a domain: slower answers are wanted", 0, 0},
        {0}};
    int rc = operate_parse(argc, argv, &o, &command, more, 1, -1, &err);
    if (rc == 0 && !o.has_what == !domain)
        rc = err_set(&err, ERR_USAGE, "usage: %s", command.usage);
    if (rc == 0 && domain)
        rc = operate_change(
            &o, json_pack("{s:s,s:[s],s:b}", "do", "domains", "drain", domain, "confirm", confirm),
            &err);
    else if (rc == 0)
        rc = operate_change(&o, json_pack("{s:s,s:s}", "do", "drain", "worker", o.what), &err);
    return operate_finish("drain", rc, &err);
}

int cmd_undrain(int argc, char **argv)
{
    static const struct opt_command command = {
        "undrain", "sigmoe undrain DOMAIN [--port N] [--no-wait]",
        "Gives a domain that was drained back to the workers: those it is pinned to, or those\n"
        "that hold least. (A worker that was drained comes back with sigmoe join.)",
        NULL};
    struct operate o = {.port = 8000};
    struct err err = {0};
    int rc = operate_parse(argc, argv, &o, &command, NULL, 1, 1, &err);
    if (rc == 0)
        rc = operate_change(&o, json_pack("{s:s,s:[s]}", "do", "domains", "undrain", o.what), &err);
    return operate_finish("undrain", rc, &err);
}

int cmd_join(int argc, char **argv)
{
    static const struct opt_command command = {
        "join", "sigmoe join ENDPOINT [--port N] [--no-wait]",
        "Adds a worker to a running cluster and gives it its share of the experts.\n\n"
        "  host-b$ sigmoe worker --model olmoe --experts none --listen tcp://10.0.0.3:5701\n"
        "  host-a$ sigmoe join tcp://10.0.0.3:5701",
        NULL};
    struct operate o = {.port = 8000};
    struct err err = {0};
    int rc = operate_parse(argc, argv, &o, &command, NULL, 1, 1, &err);
    if (rc == 0)
        rc = operate_change(&o, json_pack("{s:s,s:s}", "do", "join", "endpoint", o.what), &err);
    return operate_finish("join", rc, &err);
}
