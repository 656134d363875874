/* sim: see sim.h and sim_state.h: life, chance and death. */
#include "sim_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). */
uint64_t sim_mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t sim_random(struct sim *s, uint64_t below)
{
    return sim_mix(&s->random) % below;
}

int sim_chance(struct sim *s, int per_thousand)
{
    return s->faults && per_thousand && sim_random(s, 1000) < (uint64_t)per_thousand;
}

void sim_violate(struct sim *s, const char *what, uint64_t value)
{
    if (!s->violation[0]) {
        snprintf(s->violation, sizeof(s->violation), "%s (%llu) at event %lld", what,
                 (unsigned long long)value, (long long)s->n_event);
    }
}

/* ---- death ---- */

void sim_forget(struct sim *s, int worker)
{
    s->worker[worker].life++;
    s->worker[worker].greeted = 0;
    s->worker[worker].n_hung = 0;
}

void sim_kill(struct sim *s, int worker)
{
    if (!s->worker[worker].alive) {
        return;
    }
    sim_forget(s, worker);
    s->worker[worker].alive = 0;
    /* What it had sent may still arrive, or not. */
    for (int i = 0; i < s->n_flight;) {
        if (s->flight[i].worker == worker && s->flight[i].to_pool && sim_random(s, 2)) {
            sim_drop_flight(s, i);
        } else {
            i++;
        }
    }
    if (s->config.revive && s->n_flight < FLIGHT_MAX) {
        s->flight[s->n_flight++] = (struct flight){
            .at = s->now + (int64_t)sim_random(s, (uint64_t)s->config.down_max_ns + 1),
            .order = s->n_order++,
            .worker = worker,
            .revive = 1};
    }
}

void sim_revive(struct sim *s, int worker)
{
    s->worker[worker].alive = 1;
}

/* Each message that is sent or arrives is an event: the moments at which things can go wrong. */
void sim_event(struct sim *s)
{
    s->n_event++;
    if (s->config.kill_at == s->n_event) {
        sim_kill(s, s->config.kill_worker);
    }
    if (sim_chance(s, s->config.die)) {
        sim_kill(s, (int)sim_random(s, (uint64_t)s->config.n_worker));
    }
    if (sim_chance(s, s->config.forget)) {
        sim_forget(s, (int)sim_random(s, (uint64_t)s->config.n_worker));
    }
}

static int64_t sim_now(void *self)
{
    return ((struct sim *)self)->now += LOOK_NS;
}

/* ---- life ---- */

struct sim *sim_create(const struct sim_config *config)
{
    struct sim *s = calloc(1, sizeof(*s));
    size_t n = (size_t)config->shape.n_layer * (size_t)config->shape.n_expert;
    s->config = *config;
    s->random = config->seed;
    s->now = NS_PER_S;
    s->faults = 1;
    s->flight = calloc(FLIGHT_MAX, sizeof(*s->flight));
    s->inbox = calloc(FLIGHT_MAX, sizeof(*s->inbox));
    s->seen = calloc(CALLS_MAX, 1);
    s->seen[0] = 1;
    for (int i = 0; i < config->n_worker; i++) {
        struct sim_worker *w = &s->worker[i];
        w->alive = 1;
        w->ways = (struct sim_ways){.fingerprint = config->fingerprint,
                                    .dtype = config->shape.dtype,
                                    .numerics = "sim",
                                    .credits = config->credits};
        w->held = malloc(n);
        memcpy(w->held, config->held + (size_t)i * n, n);
    }
    s->transport = sim_network(s);
    s->clock = (struct clock){sim_now, s};
    return s;
}

void sim_destroy(struct sim *s)
{
    for (int i = 0; i < s->n_flight; i++) {
        frames_close(&s->flight[i].frames);
    }
    for (int i = 0; i < s->n_inbox; i++) {
        frames_close(&s->inbox[i].frames);
    }
    for (int i = 0; i < s->config.n_worker; i++) {
        free(s->worker[i].held);
        free(s->worker[i].batch);
    }
    free(s->flight);
    free(s->inbox);
    free(s->seen);
    free(s);
}

struct transport *sim_transport(struct sim *s)
{
    return &s->transport;
}

const struct clock *sim_clock(struct sim *s)
{
    return &s->clock;
}

void sim_faults(struct sim *s, int on)
{
    s->faults = on;
}

void sim_pass(struct sim *s, int64_t ns)
{
    int64_t until = s->now + ns;
    for (int i; (i = sim_next_flight(s)) >= 0 && s->flight[i].at <= until;) {
        s->now = s->flight[i].at > s->now ? s->flight[i].at : s->now;
        sim_deliver(s, i);
    }
    s->now = until;
}

struct sim_config *sim_config_of(struct sim *s)
{
    return &s->config;
}

struct sim_ways *sim_ways(struct sim *s, int worker)
{
    return &s->worker[worker].ways;
}

void sim_hold(struct sim *s, int worker, int layer, int expert, int held)
{
    s->worker[worker].held[layer * s->config.shape.n_expert + expert] = (uint8_t)held;
    s->worker[worker].epoch++;
}

int64_t sim_events(const struct sim *s)
{
    return s->n_event;
}

const char *sim_violation(const struct sim *s)
{
    return s->violation[0] ? s->violation : NULL;
}

int sim_requests(const struct sim *s, int worker)
{
    return s->worker[worker].n_request;
}

const int *sim_batches(const struct sim *s, int worker)
{
    return s->worker[worker].batch;
}

const char *const *sim_endpoints(void)
{
    static const char *const endpoint[SIM_WORKERS_MAX] = {"sim:0", "sim:1", "sim:2", "sim:3",
                                                          "sim:4", "sim:5", "sim:6", "sim:7"};
    return endpoint;
}
