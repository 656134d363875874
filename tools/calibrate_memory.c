/* calibrate_memory: what 1, 2, 4, ... threads read from memory together: who shares a host shares
 * that. Needs the memory that is swept between samples; a model too small to have any is in caches
 * and shares nothing. */
#include "tools/calibrate.h"

#include "base/clock.h"

#include <stdatomic.h>

#define CHUNK ((size_t)1 << 20)
#define LINE  64
#define RUNS  12 /* of which the best counts: all CPUs undisturbed at once are rare */

static _Atomic unsigned char seen; /* so that the reading is not optimised away */

static void read_chunks(void *arg, int begin, int end, int thread)
{
    const unsigned char *memory = arg;
    unsigned char sum = 0;
    (void)thread;
    for (size_t i = (size_t)begin * CHUNK; i < (size_t)end * CHUNK; i += LINE)
        sum = (unsigned char)(sum + memory[i]);
    atomic_store_explicit(&seen, sum, memory_order_relaxed);
}

static double best_rate(const struct calibrate *c, struct team *team)
{
    double best = 0;
    for (int i = 0; i < RUNS; i++) {
        int64_t from = clock_now(&clock_real);
        team_run(team, read_chunks, (void *)(uintptr_t)c->sweep, (int)(c->sweep_bytes / CHUNK), 1);
        double rate = (double)c->sweep_bytes / (double)(clock_now(&clock_real) - from) * 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

int calibrate_memory(struct calibrate *c, struct err *err)
{
    struct cost_curve *memory = &c->cost.memory;
    int n_cpu = cpu_count();
    memory->n = 0;
    for (int n = 1; c->sweep && n <= n_cpu && memory->n < COST_POINTS; n *= 2) {
        struct team *team = team_create(n, -1);
        if (!team)
            return err_set(err, ERR_NOMEM, "the system refuses %d threads", n);
        cost_curve_add(memory, n, best_rate(c, team));
        team_destroy(team);
    }
    return 0;
}
