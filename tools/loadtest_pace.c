/* loadtest_pace: `sigmoe loadtest pace`: watches how much others slow this host's CPUs while a load
 * test runs on it, so that a simulation of that test can be of the same minutes. */
#include "tools/loadtest.h"
#include "tools/pace.h"

#include "base/clock.h"
#include "base/opt.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

struct options {
    const char *out;
    double seconds;
    int64_t bin_ms;
};

static const char about[] =
    "Watches how much others slow the CPUs of this host (the other half of a core, where CPUs are\n"
    "virtual), by a small product on each of them once in a while: within 1 % of their time, so\n"
    "that it can run beside sigmoe loadtest live. A simulation of that test with --pace is of the\n"
    "same minutes. Ends after --seconds, or when it is interrupted.\n"
    "\n"
    "  sigmoe loadtest pace -o pace.json --seconds 75 &\n"
    "  sigmoe loadtest live http://127.0.0.1:8000 --rate 2 --duration 60; wait\n"
    "  sigmoe loadtest simulate MODEL --calibration host.json --pace pace.json --rate 2 ...";

static int parse(int argc, char **argv, struct options *o, struct err *err)
{
    *o = (struct options){.out = "pace.json", .seconds = 60, .bin_ms = 10};
    const struct opt opts[] = {
        {"out", 'o', OPT_STR, &o->out, "FILE", "to write (pace.json)", 0, 0},
        {"seconds", 's', OPT_FLOAT, &o->seconds, "S", "to watch (60)", 0.01, 86400},
        {"bin", 0, OPT_INT, &o->bin_ms, "MS",
         "each CPU is looked at once in so long (10); longer where\nthe file would not hold "
         "--seconds",
         1, 10000},
        {.name = NULL}};
    const struct opt_command cmd = {"loadtest pace", "sigmoe loadtest pace [options]", about, opts};
    const char *none = NULL;
    int n = 1, rc = opt_parse(&cmd, argc, argv, &none, &n, err);
    if (rc == 0 && n > 0)
        rc = err_set(err, ERR_USAGE, "'%.60s': loadtest pace takes options only", none);
    return rc;
}

static void tell(const struct cost_pace *p, const char *path)
{
    printf("CPU  seconds  of them at half of the best pace or less\n");
    for (int cpu = 0; cpu < p->n_cpu; cpu++) {
        float best = p->bin[cpu][0];
        int slow = 0;
        for (int i = 0; i < p->n_bin; i++)
            best = p->bin[cpu][i] < best ? p->bin[cpu][i] : best;
        for (int i = 0; i < p->n_bin; i++)
            slow += p->bin[cpu][i] >= 2 * best;
        printf("%3d  %7.1f  %.0f %%\n", cpu, p->n_bin * ((double)p->bin_ns / (double)NS_PER_S),
               100.0 * slow / p->n_bin);
    }
    printf("written to %s\n", path);
}

int loadtest_pace(int argc, char **argv)
{
    static struct cost_pace pace;
    struct options o;
    struct err err = {0};
    const struct kernels *kernels;
    int rc = parse(argc, argv, &o, &err);
    if (rc == 1)
        return 0;
    rc = rc ? rc : kernels_open(&kernels, &err);
    if (rc == 0) {
        struct sigaction act = {.sa_handler = stop};
        sigaction(SIGINT, &act, NULL);
        sigaction(SIGTERM, &act, NULL);
        double bin_ns = (double)(o.bin_ms * NS_PER_MS), all_ns = o.seconds * (double)NS_PER_S;
        if (all_ns / bin_ns > COST_PACE_BINS)
            bin_ns = all_ns / COST_PACE_BINS;
        int n = (int)(all_ns / bin_ns);
        rc = pace_watch(kernels, (int64_t)bin_ns, n > 0 ? n : 1, &stopped, &pace, &err);
    }
    if (rc == 0 && pace.n_bin == 0)
        rc = err_set(&err, ERR_USAGE, "interrupted before anything was seen");
    rc = rc ? rc : cost_pace_save(o.out, &pace, &err);
    if (rc == 0)
        tell(&pace, o.out);
    else
        fprintf(stderr, "sigmoe loadtest pace: %s\n", err.text);
    return err_exit_code(rc);
}
