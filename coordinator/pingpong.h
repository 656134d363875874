/* pingpong: one micro-batch or two, by what steps have cost. Two let one compute while the other's
 * rows are at the experts; they also read weights twice and make twice the messages. Which wins
 * depends on the hosts, the network and the number of rows, so it is measured: now and then a step
 * of the other kind is made, and is compared with its neighbours in time only, so that slow drifts
 * (longer contexts, a busy host) do not matter. Such looks cost what the other kind takes longer,
 * so they have a budget: a hundredth of the time of all steps. A look is made when what it will
 * probably cost is in it, by the ratios known, by those of other numbers of rows, or else by a
 * guess that depends on whether two could gain at all. Pure; no clock. */
#ifndef COORDINATOR_PINGPONG_H
#define COORDINATOR_PINGPONG_H

#include <stdint.h>

/* Steps of 2^b to 2^(b+1) - 1 rows share bucket b. */
#define PINGPONG_BUCKETS 16
#define PINGPONG_RATIOS  9

struct pingpong_bucket {
    double ratio[PINGPONG_RATIOS]; /* the last: time in two over time in one, of neighbours */
    uint64_t n_ratio;              /* ever */
    int n_micro;                   /* what is used; 0: nothing has run yet */
    int since;                     /* steps since the last ratio */
    int last_row, last_micro;      /* of the last step */
    int64_t last_ns;
};

/* Zeroed: nothing is known. */
struct pingpong {
    int crowded;       /* workers compute on our own CPUs: two would gain by chance only */
    double last_ratio; /* of any number of rows; 0: none yet */
    double total_ns;   /* of all steps of more than one row */
    double looking_ns; /* of those, what looks took longer than their neighbours */
    struct pingpong_bucket bucket[PINGPONG_BUCKETS];
};

/* pingpong_choose: 1 or 2 micro-batches for n_row rows (1: always one). first: what to begin with.
 */
int pingpong_choose(const struct pingpong *p, int n_row, int first);
/* pingpong_ran: a step of n_row rows in n_micro micro-batches took ns. */
void pingpong_ran(struct pingpong *p, int n_row, int n_micro, int64_t ns);

#endif
