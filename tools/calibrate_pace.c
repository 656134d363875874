/* calibrate_pace: how the pace of this host's CPUs (tools/pace.h) changes: bins of some seconds, in
 * their order, since what others take comes in stretches, and these make tails of latency. A
 * simulated host repeats them. */
#include "tools/calibrate.h"

#define BUDGETS  75 /* so many budgets of a point is it watched */
#define BINS_MIN 20

int calibrate_pace(struct calibrate *c, struct err *err)
{
    static const volatile sig_atomic_t never = 0;
    struct cost_pace *pace = &c->cost.pace;
    int64_t bins = c->budget_ns * BUDGETS / COST_PACE_NS;
    *pace = (struct cost_pace){.bin_ns = COST_PACE_NS};
    if (bins < BINS_MIN)
        return 0;
    int n = bins < COST_PACE_BINS ? (int)bins : COST_PACE_BINS;
    int rc = pace_watch(c->kernels, COST_PACE_NS, n, &never, pace, err);
    for (int i = 0; i < pace->n_cpu * pace->n_bin; i++) {
        float *bin = &pace->bin[i / pace->n_bin][i % pace->n_bin];
        *bin = *bin > 0 ? (float)c->cost.piece_ns / *bin : 1;
    }
    return rc;
}
