/* step_cost: what a step of n rows has cost lately, learned as steps run. Pure: it has no clock,
 * its time is the count of steps. */
#ifndef COORDINATOR_STEP_COST_H
#define COORDINATOR_STEP_COST_H

#include <stdint.h>

/* Rows 1 to 16 have a bucket each, then four to a doubling; larger ones share the last. */
#define STEP_COST_BUCKETS 48

struct step_cost {
    double ns[STEP_COST_BUCKETS];     /* running mean; 0: never seen */
    uint64_t seen[STEP_COST_BUCKETS]; /* the step that was the last to tell */
    uint64_t step;
};

/* step_cost_add: a step of n_row >= 1 rows took ns. A mean over the last few; one step that was
 * held up counts as twice the mean at most. */
void step_cost_add(struct step_cost *c, int n_row, int64_t ns);
/* step_cost_ns: the estimate for n_row rows; 0 when nothing is known at all. Between two sizes that
 * are known it is on the line between them; above the largest it is low (a tenth more for each
 * doubling), so that a size never tried looks worth a try. A size not seen for age_max steps is not
 * known. */
double step_cost_ns(const struct step_cost *c, int n_row, uint64_t age_max);
/* step_cost_age: steps since n_row rows were seen; UINT64_MAX: never. */
uint64_t step_cost_age(const struct step_cost *c, int n_row);

#endif
