/* advise_trial: one cluster, simulated for long enough to see some hundred requests. Plans are
 * drawn again from a few a layer and batch size, as a search needs many trials and compares them
 * with each other. */
#include "tools/advise_state.h"

#include "base/clock.h"
#include "tools/loadtest_place.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define REQUESTS    160 /* that a trial should see */
#define SECONDS_MIN 4.0
#define BANK        4
#define SEQS        64

static int place(struct adviser *a, const struct trial *t, double *speed, struct placement **out)
{
    const struct strategy *balanced = strategy_find(STRATEGY_PLACE, "balanced");
    const struct loadtest_place how = {"balanced", balanced};
    const struct place_input in = {.desc = a->desc,
                                   .precision = a->precision,
                                   .n_worker = t->n_worker,
                                   .speed = speed,
                                   .n_redundant = t->n_redundant,
                                   .slots_a_step = 512.0 * a->desc->top_k};
    return loadtest_place_make(&how, &in, a->route, out, a->err);
}

/* On one machine the experts are computed where the rows are: no message, and one after the other.
 */
static void without_wire(struct cost_model *c)
{
    c->gather.n = c->one_way.n = 0;
    c->receive_ns = 0;
    c->link_s = 1e18;
}

static void take(struct trial *t, const struct load_result *r)
{
    double steps = r->steps > 0 ? (double)r->steps : 1;
    t->stalled = r->step_s > 0 ? r->wait_s / r->step_s : 0;
    t->coordinator_busy = r->coordinator_busy;
    t->rows_a_step = (double)r->rows / steps;
    t->step_ms = 1000 * r->step_s / steps;
}

static int simulate(struct adviser *a, struct trial *t, const struct arrivals *arrivals,
                    double duration_s)
{
    struct cost_model cost = a->kind->cost;
    struct placement *placement = NULL;
    struct load_result r;
    double *speed = malloc((size_t)t->n_worker * sizeof(*speed));
    if (!speed)
        return err_set(a->err, ERR_NOMEM, "no memory for %d workers", t->n_worker);
    for (int i = 0; i < t->n_worker; i++)
        speed[i] = 1;
    if (t->together)
        without_wire(&cost);
    struct sim_config s = {.desc = a->desc,
                           .cost = &cost,
                           .choice = REPLICA_LEAST_LOADED,
                           .split_rows = 64,
                           .route = a->route,
                           .arrivals = arrivals,
                           .n_worker = t->n_worker,
                           .speed = speed,
                           .n_coordinator = t->n_coordinator,
                           .cores = t->together ? 1 : 0,
                           .n_micro = t->n_micro,
                           .seqs_max = SEQS,
                           .waiting_max = 1 << 20,
                           .kv_tokens = (int)(SEQS * 4 * (a->ask->prompt + a->ask->output)),
                           .duration_s = duration_s,
                           .warmup_s = duration_s / 5,
                           .drain_s = 10 * duration_s,
                           .bank = BANK,
                           .seed = (uint64_t)a->ask->seed};
    int rc = place(a, t, speed, &placement);
    s.placement = placement;
    rc = rc ? rc : sim_run(&s, &r, a->err);
    if (rc == 0) {
        struct slo slo = {a->ask->slo_ttft_ms, a->ask->slo_tpot_ms};
        rc = run_figures_make(&r, &slo, &t->f, a->err);
        take(t, &r);
        load_result_free(&r);
    }
    placement_destroy(placement);
    free(speed);
    return rc;
}

int trial_run(struct adviser *a, struct trial *t)
{
    struct arrivals arrivals;
    double duration_s = REQUESTS / t->rate > SECONDS_MIN ? REQUESTS / t->rate : SECONDS_MIN;
    struct arrival_spec spec = {.kind = ARRIVAL_POISSON,
                                .rate = t->rate,
                                .prompt_mean = (int)a->ask->prompt,
                                .output_mean = (int)a->ask->output,
                                .length_cv = 0.5,
                                .prompt_max = (int)a->ask->prompt * 3,
                                .output_max = (int)a->ask->output * 3,
                                .duration_s = duration_s,
                                .seed = (uint64_t)a->ask->seed};
    int rc = arrivals_make(&spec, &arrivals, a->err);
    if (rc)
        return rc;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rtrial %d: %d coordinators, %d workers, %.3g requests/s \033[K",
                ++a->n_trial, t->n_coordinator, t->n_worker, t->rate);
    rc = simulate(a, t, &arrivals, duration_s);
    arrivals_free(&arrivals);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    return rc;
}

int trial_good(const struct trial *t)
{
    /* More in the system at the end than at the beginning is a queue that grows: the rate at which
     * requests end must keep up, but for what chance leaves at the edges of so short a run. */
    return t->f.n_good >= 0.95 * t->f.n_counted && t->f.ok_per_s >= 0.85 * t->f.offered_per_s;
}

int trial_most(struct adviser *a, struct trial t, double *rate)
{
    /* What ends in the time that counts while twice as many come; doubled until it no longer grows.
     */
    double before = 0;
    for (t.rate = a->ask->rate;; t.rate *= 2) {
        int rc = trial_run(a, &t);
        if (rc)
            return rc;
        if (t.f.ok_per_s < 0.6 * t.f.offered_per_s || t.f.ok_per_s < 1.05 * before ||
            t.rate > 1e6) {
            *rate = fmax(t.f.ok_per_s, before);
            return 0;
        }
        before = t.f.ok_per_s;
    }
}
