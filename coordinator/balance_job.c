/* balance_job: see balance_job.h. */
#include "coordinator/balance_job.h"

#include "model/weights.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct balance_job {
    struct balancer_facts facts;
    struct balancer_ask ask;
    struct placement *now;
    struct balancer_worker *worker;
    double *load;
    uint8_t *ruled;
    pthread_t thread;
    atomic_int ended;
    int rc; /* and below: written by the thread before `ended` */
    struct balancer_answer answer;
    struct err err;
};

static void job_free(struct balance_job *job)
{
    placement_destroy(job->now);
    free(job->worker);
    free(job->load);
    free(job->ruled);
    free(job);
}

static void *job_main(void *arg)
{
    struct balance_job *job = arg;
    job->rc = balancer_plan(&job->facts, &job->ask, &job->answer, &job->err);
    atomic_store(&job->ended, 1);
    return NULL;
}

static void take_workers(struct balance_job *job, const struct pool *pool,
                         const struct load_watch *watch)
{
    struct balancer_facts *f = &job->facts;
    for (int i = 0; i < pool_n_worker(pool); i++) {
        struct pool_worker_info info;
        pool_worker_info_get(pool, i, &info);
        if (info.alive && !info.retired) {
            job->worker[f->n_worker++] =
                (struct balancer_worker){.index = i, .speed = load_watch_speed(watch, i)};
        }
    }
}

static int take_facts(struct balance_job *job, const struct pool *pool,
                      const struct model_desc *desc, const struct load_watch *watch,
                      const struct domain_rules *rules, struct err *err)
{
    struct balancer_facts *f = &job->facts;
    size_t n_expert = (size_t)desc->n_expert, n_sparse = (size_t)desc_n_sparse(desc);
    job->load = calloc(n_sparse * n_expert + 1, sizeof(*job->load));
    job->ruled = calloc(n_expert + 1, 1);
    job->worker = calloc((size_t)pool_n_worker(pool) + 1, sizeof(*job->worker));
    if (!job->load || !job->ruled || !job->worker) {
        return err_set(err, ERR_NOMEM, "no memory for the loads of %zu experts", n_expert);
    }
    int rc = placement_copy(pool_placement(pool), &job->now, err);
    if (rc) {
        return rc;
    }
    for (int e = 0; e < desc->n_expert; e++) {
        job->ruled[e] = (uint8_t)domain_rules_ruled(rules, e);
    }
    placement_set_epoch(job->now, placement_epoch(pool_placement(pool)));
    f->desc = desc;
    f->now = job->now;
    f->worker = job->worker;
    f->n_pool = pool_n_worker(pool);
    f->load = job->load;
    f->ruled = job->ruled;
    f->seconds = load_watch_loads(watch, job->load);
    take_workers(job, pool, watch);
    return 0;
}

int balance_job_start(const struct pool *pool, const struct model_desc *desc,
                      enum precision precision, const struct load_watch *watch,
                      const struct domain_rules *rules, double bytes_per_s,
                      const struct balancer_ask *ask, struct balance_job **out, struct err *err)
{
    struct balance_job *job = calloc(1, sizeof(*job));
    if (!job) {
        return err_set(err, ERR_NOMEM, "no memory to plan a placement");
    }
    job->ask = *ask;
    job->facts.expert_bytes = weights_expert_bytes(desc, precision);
    job->facts.bytes_per_s = bytes_per_s;
    int rc = take_facts(job, pool, desc, watch, rules, err);
    if (rc == 0 && pthread_create(&job->thread, NULL, job_main, job)) {
        rc = err_set(err, ERR_NOMEM, "the system refuses a thread to plan a placement");
    }
    if (rc) {
        job_free(job);
        return rc;
    }
    *out = job;
    return 0;
}

int balance_job_ended(const struct balance_job *job)
{
    return atomic_load(&job->ended);
}

int balance_job_end(struct balance_job *job, struct balancer_answer *answer, uint64_t *epoch,
                    struct err *err)
{
    pthread_join(job->thread, NULL);
    int rc = job->rc;
    if (epoch) {
        *epoch = placement_epoch(job->now);
    }
    if (rc) {
        rc = err_set(err, rc, "%s", job->err.text);
    } else if (answer) {
        *answer = job->answer;
    } else {
        placement_destroy(job->answer.target);
    }
    job_free(job);
    return rc;
}
