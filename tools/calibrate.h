/* calibrate: what `sigmoe calibrate` measures, by part. Each part runs the code that serves and
 * fills curves of the cost model; private to tools/calibrate*.c. */
#ifndef TOOLS_CALIBRATE_H
#define TOOLS_CALIBRATE_H

#include "base/team.h"
#include "tools/sim/cost.h"

struct calibrate {
    const struct model *model;
    const struct kernels *kernels;
    enum precision precision;
    struct team *team, *worker_team;
    int rows_max;
    int64_t budget_ns; /* for one point of a curve */
    const char *transport;
    int worker_threads;
    int sparse; /* a sparse layer */
    /* What else a step reads between two uses of the same weights [sweep_bytes], which is read
     * before each sample: a cache that holds the few weights that are measured does not hold a
     * model's. NULL: nothing. */
    const unsigned char *sweep;
    size_t sweep_bytes;
    struct cost_model cost;
};

/* One point: fn(arg) is run until the budget of a pass is spent, at least twice after one that does
 * not count. Returns the mean of what fn returns (nanoseconds), negative when fn failed. All points
 * are met again in CALIBRATE_PASSES passes, so that a host that was slow for a second is not taken
 * for a slow stage: of each point's values the middle ones count. */
#define CALIBRATE_PASSES 4
/* calibrate_middle: of [CALIBRATE_PASSES] values, which it sorts, the mean of the middle ones:
 * steps are sums, but not of what the host did now and then. */
double calibrate_middle(double *x);
typedef double measure_fn(void *arg);
double measure(const struct calibrate *c, measure_fn *fn, void *arg);
/* calibrate_rows: numbers of rows to measure, as the kernels cut them into tiles, up to `max`, and
 * `max`; returns how many, at most COST_POINTS. */
int calibrate_rows(int max, int *rows);

int calibrate_dense(struct calibrate *c, struct err *err);  /* the coordinator's curves */
int calibrate_expert(struct calibrate *c, struct err *err); /* a worker's */
int calibrate_wire(struct calibrate *c, struct err *err);   /* gather, one_way, link, hop */
int calibrate_memory(struct calibrate *c, struct err *err); /* what threads read together */
int calibrate_pace(struct calibrate *c, struct err *err);   /* how evenly CPUs work */
int calibrate_front(struct calibrate *c, struct err *err);  /* HTTP threads, if it can be served */
/* calibrate_hardware: rates that a roofline of another shape can use, from the curves. */
void calibrate_hardware(struct calibrate *c);

#endif
