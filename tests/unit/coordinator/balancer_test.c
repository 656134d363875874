/* balancer, and load_watch, which feeds it: what is planned from a window of loads, what is refused
 * and why, that slow workers get less, that experts under a rule stay where they are. */
#include "coordinator/balancer.h"
#include "coordinator/load_watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_LAYER  3 /* the first is dense */
#define N_SPARSE 2
#define N_EXPERT 12
#define N_POOL   4 /* worker 1 is down */

static const struct balancer_worker alike[3] = {{0, 1000}, {2, 1000}, {3, 1100}};

struct world {
    struct model_desc desc;
    struct placement *now;
    double load[N_SPARSE * N_EXPERT];
    uint8_t ruled[N_EXPERT];
    struct balancer_facts facts;
    struct balancer_ask ask;
};

/* Everything evenly loaded; worker 0 holds eight experts, workers 2 and 3 two each. */
static struct world *world_open(void)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->desc.n_layer = N_LAYER;
    w->desc.n_expert = N_EXPERT;
    assert_int_equal(placement_create(N_LAYER, N_EXPERT, &w->now, NULL), 0);
    for (int l = 1; l < N_LAYER; l++) {
        w->desc.layer[l].sparse = 1;
        for (int e = 0; e < N_EXPERT; e++)
            assert_int_equal(placement_add(w->now, l, e, e < 8 ? 0 : e < 10 ? 2 : 3, NULL), 0);
    }
    for (int i = 0; i < N_SPARSE * N_EXPERT; i++)
        w->load[i] = 1000;
    w->facts = (struct balancer_facts){.desc = &w->desc,
                                       .now = w->now,
                                       .worker = (struct balancer_worker *)(uintptr_t)alike,
                                       .n_worker = 3,
                                       .n_pool = N_POOL,
                                       .load = w->load,
                                       .seconds = 60,
                                       .expert_bytes = 1 << 20,
                                       .bytes_per_s = 1e9,
                                       .ruled = w->ruled};
    w->ask = (struct balancer_ask){.place = strategy_find(STRATEGY_PLACE, "capacity"),
                                   .n_redundant = BALANCER_AS_NOW,
                                   .horizon_s = 600};
    return w;
}

static void world_close(struct world *w)
{
    placement_destroy(w->now);
    free(w);
}

static void held(const struct placement *p, int layer, int n[N_POOL])
{
    memset(n, 0, N_POOL * sizeof(*n));
    for (int e = 0; e < N_EXPERT; e++)
        for (int w = 0; w < N_POOL; w++)
            n[w] += placement_has(p, layer, e, w);
}

static void test_an_uneven_placement_is_evened_out(void **state)
{
    (void)state;
    struct world *w = world_open();
    struct balancer_answer a;
    int n[N_POOL];
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    assert_true(a.pays && a.target && a.before > 0.9 && a.after < 0.01);
    assert_int_equal(a.moves.n_move, 8); /* four a layer, and no more */
    assert_true(a.moves.bytes == (uint64_t)8 << 20 && a.payback_s > 0 && a.gain_s > a.cost_s);
    for (int l = 1; l < N_LAYER; l++) {
        held(a.target, l, n);
        assert_true(n[0] == 4 && n[1] == 0 && n[2] == 4 && n[3] == 4);
    }
    held(a.target, 0, n);
    assert_int_equal(n[0] + n[2] + n[3], 0);
    placement_destroy(a.target);
    world_close(w);
}

static void test_what_does_not_pay_back_is_left_alone_unless_forced(void **state)
{
    (void)state;
    struct world *w = world_open();
    struct balancer_answer a;
    w->facts.bytes_per_s = 1000; /* seventeen minutes an expert */
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    assert_true(!a.pays && !a.target && strstr(a.reason, "pay back"));
    w->ask.force = 1;
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    assert_true(a.pays && a.target && a.cost_s > a.gain_s && strcmp(a.reason, "forced") == 0);
    placement_destroy(a.target);
    world_close(w);
}

static void test_an_even_placement_and_no_traffic_say_so(void **state)
{
    (void)state;
    struct world *w = world_open();
    struct balancer_answer a;
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    w->facts.now = a.target;
    struct balancer_answer again;
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &again, NULL), 0);
    assert_true(!again.pays && !again.target && strstr(again.reason, "as even as"));
    placement_destroy(a.target);
    w->facts.now = w->now;
    for (int i = 0; i < N_SPARSE * N_EXPERT; i++)
        w->load[i] = 1;
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    assert_true(!a.pays && !a.target && strstr(a.reason, "too little traffic"));
    world_close(w);
}

static void test_a_slow_worker_gets_less_and_copies_are_made(void **state)
{
    (void)state;
    struct world *w = world_open();
    struct balancer_answer a;
    int n[N_POOL];
    const struct balancer_worker unequal[3] = {{0, 1000}, {2, 1000}, {3, 250}};
    w->facts.worker = (struct balancer_worker *)(uintptr_t)unequal;
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    held(a.target, 1, n);
    assert_true(n[3] < n[0] && n[3] < n[2]);
    placement_destroy(a.target);
    w->ask.n_redundant = 3;
    w->ask.force = 1;
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    held(a.target, 2, n);
    assert_int_equal(n[0] + n[2] + n[3], N_EXPERT + 3);
    placement_destroy(a.target);
    w->ask.n_redundant = 2 * N_EXPERT + 1; /* more than two more workers can hold */
    assert_true(balancer_plan(&w->facts, &w->ask, &a, NULL) < 0);
    world_close(w);
}

static void test_ruled_experts_stay_and_their_work_counts(void **state)
{
    (void)state;
    struct world *w = world_open();
    struct balancer_answer a;
    int n[N_POOL];
    for (int e = 0; e < 4; e++) /* four of worker 0's: all that it should compute */
        w->ruled[e] = 1;
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    assert_true(a.pays && a.target);
    for (int l = 1; l < N_LAYER; l++) {
        for (int e = 0; e < 4; e++)
            assert_true(placement_has(a.target, l, e, 0));
        held(a.target, l, n);
        assert_true(n[0] <= 5 && n[2] >= 3 && n[3] >= 3);
    }
    placement_destroy(a.target);
    memset(w->ruled, 1, N_EXPERT);
    assert_int_equal(balancer_plan(&w->facts, &w->ask, &a, NULL), 0);
    assert_true(!a.pays && !a.target && a.reason[0]);
    world_close(w);
}

/* What lies a half-life back counts half. */
static void test_counts_fade(void **state)
{
    (void)state;
    struct world *w = world_open();
    struct load_watch *watch;
    uint64_t count[N_SPARSE * N_EXPERT] = {[3] = 5};
    double load[N_SPARSE * N_EXPERT];
    assert_int_equal(load_watch_create(&w->desc, 10 * NS_PER_S, &watch, NULL), 0);
    load_watch_tick(watch, count, NULL, 7 * NS_PER_S);
    count[3] = 105;
    load_watch_tick(watch, count, NULL, 7 * NS_PER_S + NS_PER_S / 2); /* too soon */
    load_watch_loads(watch, load);
    assert_true(load[3] > 4.99 && load[3] < 5.01);
    load_watch_tick(watch, count, NULL, 17 * NS_PER_S);
    double seconds = load_watch_loads(watch, load);
    assert_true(load[3] > 102.4 && load[3] < 102.6 && seconds > 9.9 && seconds < 10.1);
    count[4] = 7;
    load_watch_sample(watch, count, NULL, 27 * NS_PER_S);
    seconds = load_watch_loads(watch, load);
    assert_true(load[3] > 51.2 && load[3] < 51.3 && load[4] > 6.9 && seconds < 15.1);
    assert_true(load_watch_speed(watch, 0) == 0);
    load_watch_destroy(watch);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_uneven_placement_is_evened_out),
        cmocka_unit_test(test_what_does_not_pay_back_is_left_alone_unless_forced),
        cmocka_unit_test(test_an_even_placement_and_no_traffic_say_so),
        cmocka_unit_test(test_a_slow_worker_gets_less_and_copies_are_made),
        cmocka_unit_test(test_ruled_experts_stay_and_their_work_counts),
        cmocka_unit_test(test_counts_fade),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
