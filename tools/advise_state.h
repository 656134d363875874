/* advise_state: a trial is one simulated cluster; private to tools/advise*.c. */
#ifndef TOOLS_ADVISE_STATE_H
#define TOOLS_ADVISE_STATE_H

#include "tools/advise.h"
#include "tools/load_report.h"
#include "tools/sim/sim.h"

struct kind {
    char name[160];
    struct cost_model cost;
};

struct trial {
    int n_worker, n_coordinator, n_micro, n_redundant;
    int together; /* no wire: the coordinator's machine computes the experts too */
    double rate;
    /* What came of it. */
    struct run_figures f;
    double stalled, coordinator_busy, rows_a_step, step_ms;
};

struct adviser {
    const struct advise_ask *ask;
    const struct model_desc *desc;
    enum precision precision;
    const char *trace;
    const struct kind *kind;
    struct route_source *route;
    int n_trial;
    json_t *sentences;
    struct err *err;
};

/* trial_run simulates t and fills in what came of it. */
int trial_run(struct adviser *a, struct trial *t);
/* trial_good: 95 of 100 requests within the SLO, as many ended as came. */
int trial_good(const struct trial *t);
/* trial_most: requests a second that the cluster of t can end, found by offering more. */
int trial_most(struct adviser *a, struct trial t, double *rate);
/* say appends a sentence with its figures (taken over). */
void say(struct adviser *a, const char *topic, json_t *figures, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
