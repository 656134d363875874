/* calibrate: what `sigmoe calibrate` measures, by part. Each part runs the code that serves and
 * fills curves of the cost model; private to tools/calibrate*.c. */
#ifndef TOOLS_CALIBRATE_H
#define TOOLS_CALIBRATE_H

#include "base/team.h"
#include "tools/pace.h"
#include "tools/sim/cost.h"

#define CALIBRATE_PASSES  16
#define CALIBRATE_SAMPLES 96 /* of a point, in all passes */
#define CALIBRATE_POINTS  512
#define CALIBRATE_THREADS 16 /* of a team whose pace is looked at */

struct calibrate {
    const struct model *model;
    const struct kernels *kernels;
    enum precision precision;
    struct team *team, *worker_team, *all_cpus;
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
    struct pace_piece *piece[CALIBRATE_THREADS];
    struct calibrate_point *point; /* [CALIBRATE_POINTS] */
    int next_point;                /* of this pass; each pass meets the same ones in one order */
    double feel;                   /* the last that was known, over undisturbed time */
    struct cost_model cost;
};

/* What a piece of work takes where nobody slows the CPU, and how much of that stretches with the
 * pace (tools/pace.h). ns < 0: it failed. */
struct measured {
    double ns, felt_ns;
};
typedef double measure_fn(void *arg);
/* measure: the next point. fn(arg), which returns nanoseconds of work on this team, is run until
 * the budget of a pass is spent, at least twice after one that does not count; caches are swept
 * before each run, or before each `cold` of them where so many in turn meet other weights. Returns
 * what all passes so far say: curves are right after the last one. */
struct measured measure(struct calibrate *c, struct team *team, int cold, measure_fn *fn,
                        void *arg);
/* calibrate_fit: of n samples [<= CALIBRATE_SAMPLES], each with what the pace's piece took beyond
 * undisturbed, over that. *feel is felt over undisturbed: of the point before, then of this one.
 * Not for several threads at once. */
struct measured calibrate_fit(const double *ns, const double *more, int n, double *feel);
/* calibrate_more: what the pace's piece takes now beyond undisturbed, over that. */
double calibrate_more(struct calibrate *c, struct team *team);
int calibrate_points_begin(struct calibrate *c, struct err *err);
void calibrate_points_end(struct calibrate *c);
void calibrate_sweep(const struct calibrate *c);
double calibrate_middle(const double *x, int n); /* the median */
/* calibrate_rows: numbers of rows to measure, as the kernels cut them into tiles, up to `max`, and
 * `max`; returns how many, at most COST_POINTS. */
int calibrate_rows(int max, int *rows);
/* calibrate_rows_few: the same where tiles do not matter. */
int calibrate_rows_few(int max, int *rows);

int calibrate_dense(struct calibrate *c, struct err *err);  /* the coordinator's curves */
int calibrate_expert(struct calibrate *c, struct err *err); /* a worker's */
int calibrate_wire(struct calibrate *c, struct err *err);   /* gather, one_way, link, hop */
int calibrate_memory(struct calibrate *c, struct err *err); /* what threads read together */
int calibrate_pace(struct calibrate *c, struct err *err);   /* how evenly CPUs work */
int calibrate_front(struct calibrate *c, struct err *err);  /* HTTP threads, if it can be served */
/* calibrate_hardware: rates that a roofline of another shape can use, from the curves. */
void calibrate_hardware(struct calibrate *c);

#endif
