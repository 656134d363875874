/* sim: a network, a clock and workers, all simulated from one seed, for whatever runs over the
 * pool's transport. Time passes only in wait (and a little at each look at the clock). Messages of
 * one connection keep their order; those of different links do not; any may be late, lost or
 * doubled, and workers die and come back, or forget, at any message. The same seed gives the same
 * run.
 *
 * Workers answer with a function of (layer, expert, bytes of the row) alone, so no model is needed
 * and every result can be checked bit for bit. What the pool promises about credits and call ids is
 * checked at each sending; `violation` says what was broken first. */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include "coordinator/pool.h"

#define SIM_WORKERS_MAX 8

struct sim_config {
    uint64_t seed;
    struct wire_shape shape;
    struct hash128 fingerprint;
    int n_worker, credits, row_limit;
    const uint8_t *held; /* [n_worker, n_layer * n_expert] 0/1 */
    int64_t delay_max_ns, compute_max_ns, down_max_ns;
    /* Chances in a thousand. A message: lost, doubled, refused for now; a request: answered with
     * NotHeld, an Error, never; an event: some worker dies or forgets. */
    int drop, duplicate, again, not_held, fail, hang, die, forget;
    int revive;      /* the dead come back */
    int64_t kill_at; /* worker kill_worker dies at this event; 0: never */
    int kill_worker;
};

struct sim;
struct sim *sim_create(const struct sim_config *config);
void sim_destroy(struct sim *s);
struct transport *sim_transport(struct sim *s);
const struct clock *sim_clock(struct sim *s);
/* sim_faults switches all chances off (0) or on; they begin switched on. */
void sim_faults(struct sim *s, int on);
/* sim_pass: time goes by and messages arrive, but nobody polls. */
void sim_pass(struct sim *s, int64_t ns);
void sim_kill(struct sim *s, int worker);
void sim_revive(struct sim *s, int worker);
void sim_forget(struct sim *s, int worker);
/* sim_config_of: to change one worker's ways or the chances on the way. */
struct sim_config *sim_config_of(struct sim *s);
struct sim_ways {
    struct hash128 fingerprint;
    enum dtype dtype;
    char numerics[32];
    int hang, mute_pings, credits;
    int fp8;                       /* it knows rows of that */
    int assign_fails, assign_mute; /* told to hold other experts: it cannot; it says nothing */
} * sim_ways(struct sim *s, int worker);
void sim_hold(struct sim *s, int worker, int layer, int expert, int held);
int64_t sim_events(const struct sim *s);
uint64_t sim_random(struct sim *s, uint64_t below);
const char *sim_violation(const struct sim *s); /* or NULL */
/* sim_requests: requests a worker has received; sim_batches: the micro-batches they named, in
 * order. */
int sim_requests(const struct sim *s, int worker);
const int *sim_batches(const struct sim *s, int worker);

/* sim_expert: what any worker answers. */
void sim_expert(const struct wire_shape *shape, int layer, int expert, const void *row, void *out);
/* sim_local: pool_config.local with a struct wire_shape as its user. */
int sim_local(void *shape, const struct msg_request *request, void *out, struct err *err);
/* sim_endpoint: "sim:N" */
const char *const *sim_endpoints(void);

#endif
