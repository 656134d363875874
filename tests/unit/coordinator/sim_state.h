/* sim_state: what the files of the simulated cluster share. One list of events ordered by time,
 * then by when they were made.
 *
 *   sim.c          life, chance, death
 *   sim_network.c  messages under way, and the transport that the pool is given
 *   sim_worker.c   what a worker answers
 *   sim_promise.c  what the pool promises, watched as its messages pass */
#ifndef TESTS_SIM_STATE_H
#define TESTS_SIM_STATE_H

#include "sim.h"

#define FLIGHT_MAX 4096
#define CALLS_MAX  (1 << 20)
#define LOOK_NS    100 /* a look at the clock takes time */

struct flight {
    int64_t at;
    uint64_t order;
    int link, worker, to_pool, revive; /* revive: no message */
    uint64_t connection, life;
    struct frames frames;
};

struct sim_link {
    int open, worker, quiet; /* quiet: its tensors end no wait */
    uint64_t connection;
    int64_t last_at[2]; /* of the last message each way: order is kept */
    uint64_t out[256];  /* calls sent and not answered */
    int n_out;
    uint64_t ping_nonce, last_call, last_call_at_ping;
};

struct sim_worker {
    int alive;
    uint64_t life, greeted /* connection */, epoch;
    struct sim_ways ways;
    uint8_t *held;
    int n_request, *batch, n_hung;
    uint64_t plan; /* the Assign at hand: loading when first told, done when told again */
};

struct inbox {
    int link;
    struct frames frames;
};

struct sim {
    struct sim_config config;
    struct transport transport;
    struct clock clock;
    int64_t now, n_event;
    uint64_t random, n_order, n_connection;
    int faults;
    struct sim_link link[SIM_WORKERS_MAX];
    struct sim_worker worker[SIM_WORKERS_MAX];
    struct flight *flight;
    int n_flight;
    struct inbox *inbox;
    int n_inbox;
    uint8_t *seen; /* [CALLS_MAX] */
    char violation[1200];
};

uint64_t sim_mix(uint64_t *state);
int sim_chance(struct sim *s, int per_thousand);
/* sim_violate notes the first promise that was broken. */
void sim_violate(struct sim *s, const char *what, uint64_t value);
/* Each message that is sent or arrives is an event: the moments at which things can go wrong. */
void sim_event(struct sim *s);
/* sim_launch sends frames (taken over) on their way, unless chance has them lost or doubled. */
void sim_launch(struct sim *s, int link, int to_pool, struct frames *f, int64_t extra);
void sim_drop_flight(struct sim *s, int i);
/* sim_next_flight: of all under way the first to arrive, -1: none; sim_deliver: it arrives. */
int sim_next_flight(const struct sim *s);
void sim_deliver(struct sim *s, int i);
/* sim_network makes the transport. */
struct transport sim_network(struct sim *s);
void sim_worker_receive(struct sim *s, int link, struct frames *f);
void sim_note_sent(struct sim *s, struct sim_link *l, const struct frames *f);
void sim_note_received(struct sim *s, struct sim_link *l, const struct frames *f);

#endif
