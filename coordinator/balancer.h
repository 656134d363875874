/* balancer: from what a coordinator has seen to a placement that it could go to, with what that
 * would gain and cost. `sigmoe plan` on the live cluster: the same strategies (router/strategy.h)
 * and the same weighing (balance_settle). A function of a copy of the facts, so it runs on any
 * thread. Experts under a rule (router/placement_rules.h) are not the balancer's to move: they are
 * taken out of the problem, and the work they make is taken off the speed of their workers. */
#ifndef COORDINATOR_BALANCER_H
#define COORDINATOR_BALANCER_H

#include "model/desc.h"
#include "router/placement_rules.h"
#include "router/strategy.h"

#define BALANCER_AS_NOW (-2) /* n_redundant: as many copies as there are now */

struct balancer_worker {
    int index;    /* the pool's */
    double speed; /* slots a second of computing; 0: not seen yet */
};

struct balancer_facts {
    const struct model_desc *desc;
    const struct placement *now;    /* workers are the pool's indices */
    struct balancer_worker *worker; /* [n_worker] those that can hold experts */
    int n_worker, n_pool;           /* n_pool: of the pool, holders are below it */
    const double *load;             /* [n_sparse, n_expert] slots seen */
    double seconds;                 /* that they were seen over */
    uint64_t expert_bytes;
    double bytes_per_s;   /* at which a worker loads experts */
    const uint8_t *ruled; /* [n_expert] 1: a rule says where it lies */
};

struct balancer_ask {
    const struct strategy *place;
    int n_redundant;  /* copies a layer beyond one of each; -1: all that fit; BALANCER_AS_NOW */
    double horizon_s; /* for which the load is taken to stay as it was */
    int force;        /* moves that do not pay back too */
};

struct balancer_answer {
    struct placement *target; /* the caller's to destroy; NULL: nothing would change */
    /* (max - mean) / mean of the workers' work relative to speed: mean over layers, worst layer. */
    double before, before_worst, after, after_worst;
    double slots; /* seen, of one layer */
    double seconds, horizon_s;
    double gain_s, cost_s; /* of computing, within the horizon; of loading */
    double payback_s;      /* until the gain has made up for the cost; 0: it never does */
    struct balance_moves moves;
    int pays;
    char reason[200]; /* why it does not pay, or that it was forced */
};

/* balancer_plan: 0 also where nothing pays (out->pays 0, with the reason). ERR_USAGE: what was
 * asked for cannot be placed. */
int balancer_plan(const struct balancer_facts *facts, const struct balancer_ask *ask,
                  struct balancer_answer *out, struct err *err);

#endif
