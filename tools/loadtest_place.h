/* loadtest_place: where experts lie in a simulated cluster: a placement strategy over expected
 * loads, or a placement file as workers and `sigmoe plan` know it. */
#ifndef TOOLS_LOADTEST_PLACE_H
#define TOOLS_LOADTEST_PLACE_H

#include "model/weights.h"
#include "router/placement.h"
#include "tools/sim/route.h"

/* One choice: a strategy or a file. name: of the strategy, or the path. */
struct loadtest_place {
    const char *name;
    const struct strategy *strategy; /* NULL: a file */
};
/* loadtest_place_get: a word with a '/' or ending in .json is a file. It must outlive *out. */
int loadtest_place_get(const char *word, struct loadtest_place *out, struct err *err);

struct place_input {
    const struct model_desc *desc;
    enum precision precision;
    int n_worker;
    const double *speed; /* [n_worker] */
    int n_redundant, n_domain;
    double slots_a_step;
};
/* loadtest_place_make: strategies plan from loads of rows that no request serves, so that no
 * placement knows the future. Workers of a file are numbered in its order; more than n_worker are
 * refused. *out is the caller's. */
int loadtest_place_make(const struct loadtest_place *place, const struct place_input *in,
                        struct route_source *route, struct placement **out, struct err *err);

#endif
