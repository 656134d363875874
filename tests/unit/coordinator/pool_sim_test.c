/* pool under a simulated network: over hundreds of seeds and over the death of a worker at every
 * single message, each dispatch ends exactly once, every row is right bit for bit, call ids are
 * used once and credits kept. A failing seed is printed; the same seed fails again. */
#include "sim_bench.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define N_WORK    10
#define N_FLYING  3
#define LOOPS_MAX 200000

/* The small runs that are killed at every event. */
#define N_KILL_WORK 5
#define N_KILL_ROWS 12

struct outcome {
    int n_right, n_failed;
    int64_t connected, events; /* events when connected, and in all */
    struct pool_stats stats;
};

#define claim(seed, what, condition)                                                               \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail_msg("seed %llu: %s: %s", (unsigned long long)(seed), what, #condition);           \
        }                                                                                          \
    } while (0)

/* N_WORK micro-batches, at most N_FLYING at once, released a while after they are done. */
struct run {
    struct bench *b;
    uint64_t seed;
    struct work work[N_WORK];
    int first, next; /* [first, next) begun and not yet released */
    int n_ended, n_told;
    struct outcome out;
};

static void begin_next(struct run *r, int n_row_max)
{
    struct work *w = &r->work[r->next];
    struct err err = {0};
    work_make(r->b, w, (int)sim_random(r->b->sim, (uint64_t)r->b->shape.n_layer),
              1 + (int)sim_random(r->b->sim, (uint64_t)n_row_max), r->next);
    r->next++;
    w->begun = pool_dispatch(r->b->pool, &w->d, &err) == 0;
    if (!w->begun) {
        claim(r->seed, "a refused dispatch says why", err.text[0] != 0);
        claim(r->seed, "a refused dispatch was not begun", !w->d.done && !w->d.state);
        r->out.n_failed++;
    }
}

static void look(struct run *r)
{
    for (int i = r->first; i < r->next; i++) {
        struct work *w = &r->work[i];
        if (!w->begun || !w->d.done || w->told) {
            continue;
        }
        w->told = 1;
        r->n_ended++;
        if (w->d.status == 0) {
            claim(r->seed, "rows are right when done", work_right(r->b, w));
            claim(r->seed, "time goes forward", w->d.done_ns >= w->d.sent_ns);
            r->out.n_right++;
        } else {
            claim(r->seed, "a failed dispatch says why", w->d.err.text[0] != 0);
            r->out.n_failed++;
        }
        work_spoil(r->b, w);
    }
}

static void release_some(struct run *r)
{
    while (r->first < r->next && (!r->work[r->first].begun || r->work[r->first].told) &&
           sim_random(r->b->sim, 3) == 0) {
        struct work *w = &r->work[r->first++];
        claim(r->seed, "rows stay until release", !w->begun || w->d.status || work_right(r->b, w));
        work_free(r->b, w);
    }
}

static struct outcome run_scenario(const struct bench_config *config, uint64_t seed, int n_work,
                                   int n_row_max)
{
    struct run r = {.seed = seed};
    r.b = bench_open(config);
    claim(seed, r.b->err.text, r.b->rc == 0);
    r.out.connected = sim_events(r.b->sim);
    for (int loop = 0; r.first < n_work; loop++) {
        claim(seed, "the run ends", loop < LOOPS_MAX);
        if (r.next < n_work && r.next - r.first < N_FLYING) {
            begin_next(&r, n_row_max);
        }
        int64_t now = clock_now(sim_clock(r.b->sim));
        r.n_told += pool_wait(r.b->pool, now + (int64_t)sim_random(r.b->sim, 50) * NS_PER_MS);
        look(&r);
        claim(seed, "poll and wait tell every end once", r.n_told == r.n_ended);
        release_some(&r);
        claim(seed, sim_violation(r.b->sim) ? sim_violation(r.b->sim) : "",
              !sim_violation(r.b->sim));
    }
    r.out.events = sim_events(r.b->sim);
    r.out.stats = bench_stats(r.b);
    claim(seed, "every micro-batch ended once", r.out.n_right + r.out.n_failed == n_work);
    bench_close(r.b);
    return r.out;
}

/* A network and a cluster that a seed stands for. */
static struct bench_config random_config(uint64_t seed)
{
    uint64_t s = seed * 0x9e3779b97f4a7c15u;
    int n_worker = 1 + (int)(s >> 8 & 7), worst = (int)(s >> 16 & 3);
    return (struct bench_config){.sim = {.seed = seed,
                                         .n_worker = n_worker,
                                         .credits = 1 + (int)(s >> 24 & 3),
                                         .row_limit = 1 + (int)(s >> 32 & 7),
                                         .delay_max_ns = (int64_t)(1 + (s >> 40 & 31)) * NS_PER_MS,
                                         .compute_max_ns = 20 * NS_PER_MS,
                                         .down_max_ns = 3 * NS_PER_S,
                                         .drop = worst > 1 ? 10 : 0,
                                         .duplicate = worst ? 50 : 0,
                                         .again = worst ? 50 : 0,
                                         .not_held = worst > 2 ? 20 : 0,
                                         .fail = worst > 2 ? 20 : 0,
                                         .hang = worst > 2 ? 10 : 0,
                                         .die = worst ? 15 : 0,
                                         .forget = worst > 1 ? 10 : 0,
                                         .revive = (s >> 48 & 3) != 0},
                                 .replicas = 1 + (int)(s >> 52 & 3) % 3 % n_worker,
                                 .choice = s >> 56 & 1 ? REPLICA_FIRST : REPLICA_LEAST_LOADED};
}

static void pool_is_right_under_any_faults_with_local_computing(void **state)
{
    struct pool_stats sum = {0};
    (void)state;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct bench_config config = random_config(seed);
        config.local = 1;
        struct outcome out = run_scenario(&config, seed, N_WORK, 12);
        claim(seed, "nothing fails that can be computed here", out.n_failed == 0);
        sum.replans += out.stats.replans;
        sum.not_held += out.stats.not_held;
        sum.timeouts += out.stats.timeouts;
        sum.duplicates += out.stats.duplicates;
        sum.local_slots += out.stats.local_slots;
        sum.workers_lost += out.stats.workers_lost;
    }
    /* The runs have been through every kind of trouble. */
    assert_true(sum.replans > 500 && sum.not_held > 50 && sum.timeouts > 50);
    assert_true(sum.duplicates > 500 && sum.local_slots > 500 && sum.workers_lost > 500);
}

static void pool_is_right_or_says_why_under_any_faults_without_local_computing(void **state)
{
    int n_right = 0, n_failed = 0;
    (void)state;
    for (uint64_t seed = 10001; seed <= 11000; seed++) {
        struct bench_config config = random_config(seed);
        struct outcome out = run_scenario(&config, seed, N_WORK, 12);
        n_right += out.n_right;
        n_failed += out.n_failed;
    }
    assert_true(n_right > 3000 && n_failed > 300);
}

static void pool_without_faults_never_plans_again(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct bench_config config = random_config(4 * seed);
        struct sim_config *c = &config.sim;
        c->drop = c->duplicate = c->again = c->not_held = c->fail = c->hang = c->die = 0;
        c->forget = 0;
        struct outcome out = run_scenario(&config, seed, N_WORK, 40);
        claim(seed, "all are right", out.n_right == N_WORK);
        claim(seed, "nobody was lost", out.stats.workers_lost == 0 && out.stats.replans == 0);
        claim(seed, "nothing was answered twice", out.stats.duplicates == 0);
    }
}

static void pool_is_the_same_run_for_the_same_seed(void **state)
{
    (void)state;
    for (uint64_t seed = 3; seed <= 23; seed += 4) {
        struct bench_config config = random_config(seed);
        config.local = 1;
        struct outcome a = run_scenario(&config, seed, N_WORK, 12),
                       b = run_scenario(&config, seed, N_WORK, 12);
        claim(seed, "two runs are one", a.events == b.events);
        claim(seed, "two runs are one", memcmp(&a.stats, &b.stats, sizeof(a.stats)) == 0);
    }
}

/* Kills each worker at every event of a small run, and goes on with whoever is left. Returns how
 * many micro-batches failed. */
static int kill_at_every_event_of(struct bench_config config)
{
    struct outcome calm = run_scenario(&config, 42, N_KILL_WORK, N_KILL_ROWS);
    int n_failed = 0;
    assert_true(calm.events - calm.connected > 2 * N_KILL_WORK);
    /* A death while connecting is waited out, so there the dead must come back. */
    for (int64_t k = config.sim.revive ? 1 : calm.connected + 1; k <= calm.events; k++) {
        for (int victim = 0; victim < config.sim.n_worker; victim++) {
            config.sim.kill_at = k;
            config.sim.kill_worker = victim;
            uint64_t seed = (uint64_t)(k * 10 + victim);
            n_failed += run_scenario(&config, seed, N_KILL_WORK, N_KILL_ROWS).n_failed;
        }
    }
    return n_failed;
}

static int kill_at_every_event(int replicas, int local, int revive)
{
    struct bench_config config = {.sim = {.seed = 42,
                                          .n_worker = 3,
                                          .credits = 1,
                                          .row_limit = 3,
                                          .delay_max_ns = NS_PER_MS,
                                          .compute_max_ns = NS_PER_MS,
                                          .down_max_ns = 400 * NS_PER_MS,
                                          .revive = revive},
                                  .replicas = replicas,
                                  .local = local,
                                  .choice = REPLICA_FIRST};
    int n_failed = kill_at_every_event_of(config);
    config.choice = REPLICA_LEAST_LOADED;
    return n_failed + kill_at_every_event_of(config);
}

static void pool_outlives_a_death_at_every_message_by_replicas(void **state)
{
    (void)state;
    assert_int_equal(kill_at_every_event(2, 0, 0), 0);
    assert_int_equal(kill_at_every_event(2, 0, 1), 0);
    assert_int_equal(kill_at_every_event(3, 0, 0), 0);
}

static void pool_outlives_a_death_at_every_message_by_local_computing(void **state)
{
    (void)state;
    assert_int_equal(kill_at_every_event(1, 1, 0), 0);
    assert_int_equal(kill_at_every_event(1, 1, 1), 0);
}

static void pool_says_why_when_the_only_holder_dies_at_any_message(void **state)
{
    (void)state;
    assert_true(kill_at_every_event(1, 0, 0) > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_is_right_under_any_faults_with_local_computing),
        cmocka_unit_test(pool_is_right_or_says_why_under_any_faults_without_local_computing),
        cmocka_unit_test(pool_without_faults_never_plans_again),
        cmocka_unit_test(pool_is_the_same_run_for_the_same_seed),
        cmocka_unit_test(pool_outlives_a_death_at_every_message_by_replicas),
        cmocka_unit_test(pool_outlives_a_death_at_every_message_by_local_computing),
        cmocka_unit_test(pool_says_why_when_the_only_holder_dies_at_any_message),
    };
    log_set_level(LOG_ERROR); /* deaths are what these runs are made of */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
