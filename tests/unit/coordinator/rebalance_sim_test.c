/* rebalance over the simulated network: the placement changes while micro-batches run, every row
 * stays right bit for bit, and whatever a worker does the machine comes back to idle. */
#include "sim_bench.h"

#include "base/log.h"
#include "coordinator/rebalance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_LAYER  2
#define N_EXPERT 6

struct world {
    struct bench *b;
    struct rebalance *r;
};

static void open_world(struct world *w, const struct sim_config *sim, int local)
{
    struct bench_config config = {.sim = *sim, .replicas = 1, .local = local};
    struct err err = {0};
    w->b = bench_open(&config);
    assert_int_equal(w->b->rc, 0);
    struct rebalance_config rc = {.pool = w->b->pool,
                                  .clock = sim_clock(w->b->sim),
                                  .load_timeout_ns = 4 * NS_PER_S,
                                  .switch_timeout_ns = 5 * NS_PER_S,
                                  .drop_timeout_ns = 5 * NS_PER_S};
    assert_int_equal(rebalance_create(&rc, &w->r, &err), 0);
}

static void open_quiet(struct world *w)
{
    struct sim_config sim = {
        .seed = 7, .n_worker = 3, .delay_max_ns = NS_PER_MS, .compute_max_ns = NS_PER_MS};
    open_world(w, &sim, 0);
}

static void close_world(struct world *w)
{
    if (sim_violation(w->b->sim)) {
        fail_msg("%s", sim_violation(w->b->sim));
    }
    rebalance_destroy(w->r);
    bench_close(w->b);
}

static enum rebalance_state state_of(const struct world *w)
{
    struct rebalance_info info;
    rebalance_info_get(w->r, &info);
    return info.state;
}

static int holds_now(const struct world *w, int worker, int layer, int expert)
{
    const int32_t *holder;
    int n = placement_holders(pool_placement(w->b->pool), layer, expert, &holder);
    for (int i = 0; i < n; i++) {
        if (holder[i] == worker) {
            return 1;
        }
    }
    return 0;
}

/* Everything one worker further than the bench has it: expert e at (e + 1) mod n. */
static struct placement *turned(int n_worker, int by)
{
    struct placement *p;
    assert_int_equal(placement_create(N_LAYER, N_EXPERT, &p, NULL), 0);
    for (int l = 0; l < N_LAYER; l++) {
        for (int e = 0; e < N_EXPERT; e++) {
            assert_int_equal(placement_add(p, l, e, (e + by) % n_worker, NULL), 0);
        }
    }
    return p;
}

static void start(struct world *w, int by)
{
    struct placement *p = turned(3, by);
    struct err err = {0};
    int rc = rebalance_start(w->r, p, NULL, 0, "a test", &err);
    placement_destroy(p);
    if (rc) {
        fail_msg("%s", err.text);
    }
}

static void do_right(struct world *w, int layer)
{
    struct err err = {0};
    int right;
    if (bench_do(w->b, layer, 9, &right, &err)) {
        fail_msg("%s", err.text);
    }
    assert_true(right);
}

static void tick_after(struct world *w, int64_t ns)
{
    int64_t until = clock_now(sim_clock(w->b->sim)) + ns;
    pool_wait(w->b->pool, until);
    rebalance_tick(w->r);
}

/* Micro-batches run until the machine is idle again, at most `steps`. */
static void run_to_idle(struct world *w, int steps)
{
    for (int i = 0; i < steps && state_of(w) != REBALANCE_IDLE; i++) {
        do_right(w, i % N_LAYER);
        rebalance_tick(w->r);
        tick_after(w, 20 * NS_PER_MS);
    }
    assert_int_equal(state_of(w), REBALANCE_IDLE);
}

static void a_placement_changes_while_rows_flow(void **state)
{
    (void)state;
    struct world w;
    struct rebalance_info info;
    open_quiet(&w);
    start(&w, 1);
    do_right(&w, 0);
    assert_int_equal(state_of(&w), REBALANCE_LOADING);
    assert_true(holds_now(&w, 0, 0, 0)); /* the old placement serves */
    run_to_idle(&w, 2000);
    rebalance_info_get(w.r, &info);
    assert_int_equal(info.done, 1);
    assert_int_equal(info.moves, 0); /* nothing was lacking when the last state told */
    for (int e = 0; e < N_EXPERT; e++) {
        for (int worker = 0; worker < 3; worker++) {
            assert_int_equal(holds_now(&w, worker, 1, e), worker == (e + 1) % 3);
        }
    }
    for (int e = 0; e < N_EXPERT; e++) {
        for (int worker = 0; worker < 3; worker++) {
            assert_int_equal(pool_held(w.b->pool, worker, 1, e), worker == (e + 1) % 3);
        }
    }
    assert_int_equal(bench_stats(w.b).not_held, 0);
    assert_int_equal(bench_stats(w.b).replans, 0);
    close_world(&w);
}

static void a_second_change_waits_its_turn(void **state)
{
    (void)state;
    struct world w;
    struct err err = {0};
    open_quiet(&w);
    start(&w, 1);
    struct placement *p = turned(3, 2);
    assert_int_equal(rebalance_start(w.r, p, NULL, 0, "another", &err), ERR_AGAIN);
    assert_non_null(strstr(err.text, "loading"));
    placement_destroy(p);
    run_to_idle(&w, 2000);
    start(&w, 2);
    run_to_idle(&w, 2000);
    assert_true(holds_now(&w, 2, 0, 0));
    close_world(&w);
}

/* The next change reads from the workers' tables what is lacking, so the one before is not over
 * until they show what went: else what was just dropped counts as held, and rows are sent for it.
 */
static void a_change_begins_the_moment_another_ends(void **state)
{
    (void)state;
    struct world w;
    struct rebalance_info info;
    open_quiet(&w);
    for (int change = 1; change <= 20; change++) {
        start(&w, change % 3);
        rebalance_info_get(w.r, &info);
        assert_int_equal(info.moves, N_LAYER * N_EXPERT);
        for (int i = 0; i < 100000 && state_of(&w) != REBALANCE_IDLE; i++) {
            do_right(&w, i % N_LAYER);
            rebalance_tick(w.r);
        }
        rebalance_info_get(w.r, &info);
        assert_int_equal(info.state, REBALANCE_IDLE);
        assert_int_equal(info.done, change);
    }
    assert_int_equal(bench_stats(w.b).not_held, 0);
    assert_int_equal(bench_stats(w.b).replans, 0);
    close_world(&w);
}

/* A Hello or Welcome that gets lost after a load or a drop is asked for again, long before the
 * deadline. */
static void a_lost_table_is_asked_for_again(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct world w;
        struct sim_config sim = {.seed = seed,
                                 .n_worker = 3,
                                 .delay_max_ns = NS_PER_MS,
                                 .compute_max_ns = NS_PER_MS,
                                 .drop = 100};
        struct rebalance_info info;
        open_world(&w, &sim, 1);
        start(&w, 1);
        run_to_idle(&w, 5000);
        rebalance_info_get(w.r, &info);
        assert_int_equal(info.done, 1);
        for (int worker = 0; worker < 3; worker++) {
            assert_true(pool_held(w.b->pool, worker, 0, (worker + 2) % 3));
            assert_false(pool_held(w.b->pool, worker, 0, worker));
        }
        close_world(&w);
    }
}

static void expect_undone(struct world *w, const char *words)
{
    struct rebalance_info info;
    run_to_idle(w, 5000);
    rebalance_info_get(w->r, &info);
    assert_int_equal(info.failed, 1);
    assert_int_equal(info.done, 0);
    if (!strstr(info.outcome.text, words)) {
        fail_msg("'%s' lacks '%s'", info.outcome.text, words);
    }
    for (int e = 0; e < N_EXPERT; e++) {
        assert_true(holds_now(w, e % 3, 0, e));
    }
}

static void a_worker_that_cannot_load_undoes_the_change(void **state)
{
    (void)state;
    struct world w;
    open_quiet(&w);
    sim_ways(w.b->sim, 1)->assign_fails = 1;
    start(&w, 1);
    expect_undone(&w, "no room");
    close_world(&w);
}

static void a_worker_that_says_nothing_undoes_it_in_time(void **state)
{
    (void)state;
    struct world w;
    open_quiet(&w);
    sim_ways(w.b->sim, 1)->assign_mute = 1;
    start(&w, 1);
    expect_undone(&w, "in time");
    close_world(&w);
}

static void cancelling_goes_back(void **state)
{
    (void)state;
    struct world w;
    struct err err = {0};
    open_quiet(&w);
    assert_int_equal(rebalance_cancel(w.r, &err), ERR_USAGE);
    start(&w, 1);
    assert_int_equal(rebalance_cancel(w.r, &err), 0);
    expect_undone(&w, "cancelled");
    start(&w, 1); /* and it can be had later */
    run_to_idle(&w, 2000);
    assert_true(holds_now(&w, 1, 0, 0));
    close_world(&w);
}

static void a_drained_worker_is_not_needed_and_not_called(void **state)
{
    (void)state;
    struct world w;
    struct err err = {0};
    struct pool_worker_info info;
    open_quiet(&w);
    if (rebalance_drain(w.r, 0, &err)) {
        fail_msg("%s", err.text);
    }
    run_to_idle(&w, 2000);
    pool_worker_info_get(w.b->pool, 0, &info);
    assert_int_equal(info.retired, 1);
    assert_int_equal(info.alive, 0);
    assert_int_equal(pool_uncovered(w.b->pool), 0);
    int before = sim_requests(w.b->sim, 0);
    for (int i = 0; i < 20; i++) {
        do_right(&w, i % N_LAYER);
        tick_after(&w, NS_PER_S);
    }
    assert_int_equal(sim_requests(w.b->sim, 0), before);
    assert_int_equal(rebalance_drain(w.r, 0, &err), ERR_USAGE);
    assert_int_equal(rebalance_drain(w.r, 9, &err), ERR_USAGE);
    close_world(&w);
}

static void the_last_worker_cannot_be_drained(void **state)
{
    (void)state;
    struct world w;
    struct err err = {0};
    open_quiet(&w);
    for (int worker = 0; worker < 2; worker++) {
        assert_int_equal(rebalance_drain(w.r, worker, &err), 0);
        run_to_idle(&w, 2000);
    }
    assert_int_equal(rebalance_drain(w.r, 2, &err), ERR_USAGE);
    do_right(&w, 0);
    close_world(&w);
}

static void a_drained_worker_can_be_added_again(void **state)
{
    (void)state;
    struct world w;
    struct err err = {0};
    int worker = -1;
    open_quiet(&w);
    assert_int_equal(pool_add(w.b->pool, "sim:0", &worker, &err), ERR_USAGE);
    assert_int_equal(rebalance_drain(w.r, 0, &err), 0);
    run_to_idle(&w, 2000);
    assert_int_equal(pool_add(w.b->pool, "sim:0", &worker, &err), 0);
    assert_int_equal(worker, 0);
    for (int i = 0; i < 20; i++) {
        tick_after(&w, 50 * NS_PER_MS);
    }
    start(&w, 0);
    run_to_idle(&w, 2000);
    assert_true(holds_now(&w, 0, 0, 0));
    do_right(&w, 0);
    close_world(&w);
}

static void bad_targets_are_refused(void **state)
{
    (void)state;
    struct world w;
    struct err err = {0};
    open_quiet(&w);
    struct placement *p = turned(3, 1);
    placement_remove(p, 1, 4, 2);
    assert_int_equal(rebalance_start(w.r, p, NULL, 0, "a test", &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "expert 4 of layer 1 to nobody"));
    assert_int_equal(placement_add(p, 1, 4, 5, NULL), 0);
    err_clear(&err);
    assert_int_equal(rebalance_start(w.r, p, NULL, 0, "a test", &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "worker 5 of 3"));
    placement_destroy(p);
    p = turned(3, 1);
    err_clear(&err);
    int32_t retire = 1;
    assert_int_equal(rebalance_start(w.r, p, &retire, 1, "a test", &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "to be drained"));
    placement_destroy(p);
    assert_int_equal(state_of(&w), REBALANCE_IDLE);
    do_right(&w, 0);
    close_world(&w);
}

/* A worker dies at each event in turn: rows stay right (what nobody holds is computed here), the
 * machine comes to rest, and the dead come back to a pool that can be changed again. */
static void deaths_at_every_event_leave_it_idle_and_right(void **state)
{
    (void)state;
    for (int64_t at = 1; at < 400; at += 7) {
        struct world w;
        struct sim_config sim = {.seed = (uint64_t)at,
                                 .n_worker = 3,
                                 .delay_max_ns = NS_PER_MS,
                                 .compute_max_ns = NS_PER_MS,
                                 .down_max_ns = NS_PER_S,
                                 .revive = 1};
        open_world(&w, &sim, 1);
        sim_config_of(w.b->sim)->kill_at = sim_events(w.b->sim) + at;
        sim_config_of(w.b->sim)->kill_worker = (int)(at % 3);
        start(&w, 1);
        run_to_idle(&w, 5000);
        for (int i = 0; i < 100; i++) {
            do_right(&w, i % N_LAYER);
            tick_after(&w, 50 * NS_PER_MS);
        }
        start(&w, 2);
        run_to_idle(&w, 5000);
        close_world(&w);
    }
}

/* Messages are late, lost, doubled, refused; workers forget. */
static void storms_leave_it_idle_and_right(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct world w;
        struct sim_config sim = {.seed = seed,
                                 .n_worker = 3,
                                 .delay_max_ns = 20 * NS_PER_MS,
                                 .compute_max_ns = 5 * NS_PER_MS,
                                 .down_max_ns = NS_PER_S,
                                 .drop = 20,
                                 .duplicate = 20,
                                 .again = 20,
                                 .forget = 2,
                                 .die = 1,
                                 .revive = 1};
        open_world(&w, &sim, 1);
        struct placement *p = turned(3, 1);
        struct err err = {0};
        int rc = rebalance_start(w.r, p, NULL, 0, "a test", &err);
        assert_true(rc == 0 || rc == ERR_USAGE); /* a worker may be down just now */
        placement_destroy(p);
        run_to_idle(&w, 20000);
        close_world(&w);
    }
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_placement_changes_while_rows_flow),
        cmocka_unit_test(a_second_change_waits_its_turn),
        cmocka_unit_test(a_change_begins_the_moment_another_ends),
        cmocka_unit_test(a_lost_table_is_asked_for_again),
        cmocka_unit_test(a_worker_that_cannot_load_undoes_the_change),
        cmocka_unit_test(a_worker_that_says_nothing_undoes_it_in_time),
        cmocka_unit_test(cancelling_goes_back),
        cmocka_unit_test(a_drained_worker_is_not_needed_and_not_called),
        cmocka_unit_test(the_last_worker_cannot_be_drained),
        cmocka_unit_test(a_drained_worker_can_be_added_again),
        cmocka_unit_test(bad_targets_are_refused),
        cmocka_unit_test(deaths_at_every_event_leave_it_idle_and_right),
        cmocka_unit_test(storms_leave_it_idle_and_right),
    };
    return cmocka_run_group_tests_name("rebalance_sim", tests, NULL, NULL);
}
