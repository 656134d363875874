/* pace: how much others slow a CPU. A virtual CPU is often one half of a core whose other half
 * works for somebody else: what both need, multiply-add units and tiles above all, then takes up to
 * three times as long, in stretches of a tenth of a second to many seconds; a read of memory takes
 * a third more. No counter of the guest tells. So one small product that lies in a cache near the
 * core is timed again and again: its time undisturbed over its time now is the CPU's pace. Stages
 * are calibrated beside it (tools/calibrate_point.c), which says how much of each stretches with
 * it. */
#ifndef TOOLS_PACE_H
#define TOOLS_PACE_H

#include "kernels/kernels.h"
#include "tools/sim/cost.h"

#include <signal.h>

struct pace_piece;
/* pace_piece_create: NULL when there is no memory. One thread at a time uses it. */
struct pace_piece *pace_piece_create(const struct kernels *kernels);
void pace_piece_destroy(struct pace_piece *piece);
/* pace_piece_ns: CPU time of the calling thread for one product, some 10 to 50 us; called twice as
 * long, since caches are filled first. */
double pace_piece_ns(struct pace_piece *piece);

/* pace_watch: a thread on each CPU, up to COST_PACE_CPUS, does the piece once in bin_ns and sleeps:
 * within 1 % of the CPU's time, so that it can run beside what is measured. out: what the piece
 * took (ns) in consecutive bins, until there are n_bin (at most COST_PACE_BINS) or *stop. ERR_NOMEM
 * when the system refuses threads. */
int pace_watch(const struct kernels *kernels, int64_t bin_ns, int n_bin,
               const volatile sig_atomic_t *stop, struct cost_pace *out, struct err *err);

#endif
