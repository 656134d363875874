/* sim: a discrete-event simulation of a cluster. Events are messages, batches at workers and
 * arrows of a coordinator's step; what decides between them is the code that serves: sched_plan
 * (coordinator/sched.c), queue_take (worker/queue.c), plan_build and the strategies of router/.
 * Time comes from cost curves. Approximations are listed in docs/LOADTEST.md. One thread;
 * deterministic by seed. */
#ifndef TOOLS_SIM_SIM_H
#define TOOLS_SIM_SIM_H

#include "router/placement.h"
#include "router/plan.h"
#include "tools/load_result.h"
#include "tools/sim/arrivals.h"
#include "tools/sim/cost.h"
#include "tools/sim/route.h"

struct sim_config {
    const struct model_desc *desc;
    const struct cost_model *cost;
    const struct placement *placement;
    enum replica_choice choice;
    int split_rows; /* as plan_input has it; 0: an expert's rows stay together */
    struct route_source *route;
    const struct arrivals *arrivals;

    int n_worker;
    const double *speed; /* [n_worker] relative; NULL: all 1 */
    int n_coordinator;   /* requests go to them in turn */
    /* Where they run. Who is on no host has a machine of its own, with as many CPUs as threads.
     * Coordinators' fronts are where their coordinators are. cores > 0: all coordinators and
     * workers share one host of that many CPUs, whatever is said below. */
    int cores, threads, worker_threads;
    int n_host;
    const int *host_cpus;   /* [n_host] */
    const int *worker_host; /* [n_worker] index, or -1; NULL: none is on one */
    const int *coord_host;  /* [n_coordinator] the same */
    int client_host;        /* index + 1 of who sends all requests; 0: on none */

    /* Of each coordinator, as of engine_config. 0: its defaults. */
    int rows_max, prefill_chunk, seqs_max, waiting_max, kv_tokens, n_micro, micro_rows_min;

    double duration_s, warmup_s; /* arrivals within [0, duration); figures from warmup on */
    double drain_s;              /* after the last arrival, at most */
    int no_prefix_cache; /* prompts that begin alike are computed from their beginning all the same
                          */
    int bank; /* plans kept for each layer and number of rows, and drawn again; 0: every plan is
                 made from its own rows */
    int n_slice;
    uint64_t seed;
    uint64_t pace_seed;  /* where in the calibrated stretches of its CPUs a host begins */
    int pace_from_start; /* at their beginning, whatever the seed */
    int progress;        /* a line on a terminal */
};

/* sim_run: fills out, the caller's to free with load_result_free. Experts that no worker holds are
 * ERR_USAGE with their number. */
int sim_run(const struct sim_config *config, struct load_result *out, struct err *err);

#endif
