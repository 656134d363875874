/* balance_job: one plan of the balancer on a thread of its own, so that the engine's steps do not
 * wait for it. The facts are copied when it begins; the answer is taken when it has ended. */
#ifndef COORDINATOR_BALANCE_JOB_H
#define COORDINATOR_BALANCE_JOB_H

#include "coordinator/balancer.h"
#include "coordinator/domain_rules.h"
#include "coordinator/load_watch.h"

struct balance_job;

/* balance_job_start copies what is known and begins. On the pool's thread. bytes_per_s: at which
 * workers load experts. rules may be NULL. */
int balance_job_start(const struct pool *pool, const struct model_desc *desc,
                      enum precision precision, const struct load_watch *watch,
                      const struct domain_rules *rules, double bytes_per_s,
                      const struct balancer_ask *ask, struct balance_job **out, struct err *err);
/* balance_job_ended: without waiting. */
int balance_job_ended(const struct balance_job *job);
/* balance_job_end waits for the end and frees the job. 0 and the answer (its target is the
 * caller's), or what the planning failed with. *epoch (may be NULL): of the placement it planned
 * from. answer NULL: nobody wants it. */
int balance_job_end(struct balance_job *job, struct balancer_answer *answer, uint64_t *epoch,
                    struct err *err);

#endif
