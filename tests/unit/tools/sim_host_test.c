/* Who shares a host shares its CPUs, their pace and its memory; who is on none has a machine alone.
 */
#include "tests/unit/tools/sim_world.h"

/* Two workers' batches at the same time on one core take twice as long; on two cores not. */
static void a_shared_machine_slows_down(void **state)
{
    (void)state;
    int64_t first[3];
    for (int cores = 0; cores < 3; cores++) {
        struct world w;
        struct load_result r;
        world_open(&w, 1, 2, 2, 2);
        flat(&w.cost.expert, 1000 * US);
        arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
        w.config.cores = cores;
        run(&w, &r);
        first[cores] = (r.request[0].first_ns - r.request[0].due_ns) / NS_PER_US;
        load_result_free(&r);
        world_close(&w);
    }
    assert_in_range(first[2], first[0] - 2, first[0] + 2); /* replies are taken one by one */
    /* Both batches of 1004: while they overlap at half speed, about another 1000. */
    assert_in_range(first[1] - first[2], 990, 1010);
}

/* What sharing a host costs, in round numbers; everybody is on host 0. */
static const int everybody[8];

static void share(struct world *w, const int *cpus)
{
    struct cost_model *c = &w->cost;
    flat(&c->hop, 7 * US);
    c->wake_ns = 100 * US;
    cost_curve_add(&c->send, 0, 11 * US);
    cost_curve_add(&c->take, 0, 13 * US);
    cost_curve_add(&c->answer, 0, 17 * US);
    c->server = (struct front_cost){1000 * US, 30 * US};
    c->client = (struct front_cost){2000 * US, 40 * US};
    w->config.n_host = 1;
    w->config.host_cpus = cpus;
    w->config.worker_host = w->config.coord_host = everybody;
    w->config.client_host = 1;
}

/* On a host with CPUs enough: each thread's time, and as many wakes as threads were asleep. */
static void on_a_host_a_request_meets_every_thread(void **state)
{
    (void)state;
    static const int cpus = 16;
    struct world w;
    struct load_result r;
    world_open(&w, 1, 2, 1, 1);
    arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
    share(&w, &cpus);
    run(&w, &r);
    /* Client, front, coordinator, its porter, the worker's, the worker; back by both porters to the
     * coordinator; front, client. */
    int64_t wakes = 11 * 100, front = 1000 + 2000 + 30 + 40;
    int64_t out = 10 + 1 + 3 + 11 + 7 + 7, computed = 4 + 17 + 5, back = 7 + 7 + 13;
    int64_t want = wakes + front + out + computed + back + 2 + 20;
    int64_t got = (r.request[0].first_ns - r.request[0].due_ns) / NS_PER_US;
    assert_in_range(got, want - 1, want + 1);
    load_result_free(&r);
    world_close(&w);
}

static int64_t first_on(int n_cpu, double bytes_of_two)
{
    struct world w;
    struct load_result r;
    world_open(&w, 1, 2, 2, 2);
    flat(&w.cost.expert, 10000 * US);
    arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
    share(&w, &n_cpu);
    w.cost.memory.n = 0;
    assert_int_equal(cost_curve_add(&w.cost.memory, 1, 1e9), 0);
    assert_int_equal(cost_curve_add(&w.cost.memory, 2, bytes_of_two), 0);
    run(&w, &r);
    int64_t first = (r.request[0].first_ns - r.request[0].due_ns) / NS_PER_US;
    load_result_free(&r);
    world_close(&w);
    return first;
}

/* Two workers that read weights: with a CPU each they are as fast as the memory that they share. */
static void workers_of_a_host_share_its_memory(void **state)
{
    (void)state;
    int64_t apart = first_on(8, 2e9), shared = first_on(8, 1e9), one_cpu = first_on(1, 2e9);
    assert_in_range(shared - apart, 9700, 10100);
    assert_in_range(one_cpu - apart, 9000, 10300);
}

static void tokens_are_not_lost_on_hosts(void **state)
{
    (void)state;
    static const int cpus[] = {1, 2, 5};
    for (int i = 0; i < 3; i++) {
        struct world w;
        struct load_result r;
        world_open(&w, 3, 12, 3, 4);
        arrive(&w, "poisson", 20, 30, 12, 0.7, 4, 3);
        share(&w, &cpus[i]);
        w.config.n_micro = 1 + i % 2;
        w.config.n_coordinator = 1 + i;
        w.config.worker_threads = 1 + i;
        w.config.duration_s = 200;
        run(&w, &r);
        check_all_served(&w, &r);
        load_result_free(&r);
        world_close(&w);
    }
}

static void a_slow_worker_takes_its_time(void **state)
{
    (void)state;
    struct world w;
    struct load_result even, slow;
    const double speed[2] = {1, 0.5};
    world_open(&w, 1, 2, 2, 2);
    arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
    run(&w, &even);
    w.config.speed = speed;
    run(&w, &slow);
    /* The second worker's batch of 4 + 5 takes as long again. */
    assert_int_equal((slow.request[0].first_ns - even.request[0].first_ns) / NS_PER_US, 9);
    load_result_free(&even);
    load_result_free(&slow);
    world_close(&w);
}

/* CPUs at half their pace take twice as long, at any time; at half of it in every second bin, as
 * long as both together; and where half of the work feels it, half as long again. */
static void a_hosts_pace_is_its_cpus(void **state)
{
    (void)state;
    static const int cpus = 16;
    double took[4];
    for (int i = 0; i < 4; i++) {
        struct world w;
        struct load_result r;
        world_open(&w, 1, 2, 1, 1);
        arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
        share(&w, &cpus);
        w.cost.client.request_ns = 300 * NS_PER_MS; /* many bins */
        struct cost_pace *p = &w.cost.pace;
        p->n_cpu = i > 0;
        p->n_bin = i < 3 ? i : 1;
        p->bin_ns = COST_PACE_NS;
        w.cost.other_feel = i < 3 ? 1 : 0.5;
        p->bin[0][0] = 0.5F;
        p->bin[0][1] = 1.0F;
        run(&w, &r);
        took[i] = (double)(r.request[0].first_ns - r.request[0].due_ns);
        load_result_free(&r);
        world_close(&w);
    }
    assert_true(fabs(took[1] / took[0] - 2) < 1e-3);
    assert_true(fabs(took[2] / took[0] - 4.0 / 3) < 0.05);
    assert_true(fabs(took[3] / took[0] - 1.5) < 0.01);
}

/* Who is on no host has the pace's mean: all work at half of it takes twice as long, the wire's
 * ways do not. */
static void the_mean_pace_holds_elsewhere(void **state)
{
    (void)state;
    double took[2], wire_ns = 2 * 50 * US;
    for (int i = 0; i < 2; i++) {
        struct world w;
        struct load_result r;
        world_open(&w, 1, 2, 1, 1);
        arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
        struct cost_pace *p = &w.cost.pace;
        *p = (struct cost_pace){.n_cpu = i, .n_bin = 2, .bin_ns = COST_PACE_NS};
        p->bin[0][0] = 0.25F;
        p->bin[0][1] = 0.75F;
        run(&w, &r);
        took[i] = (double)(r.request[0].first_ns - r.request[0].due_ns);
        load_result_free(&r);
        world_close(&w);
    }
    assert_true(fabs((took[1] - wire_ns) / (took[0] - wire_ns) - 2) < 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shared_machine_slows_down),
        cmocka_unit_test(on_a_host_a_request_meets_every_thread),
        cmocka_unit_test(workers_of_a_host_share_its_memory),
        cmocka_unit_test(tokens_are_not_lost_on_hosts),
        cmocka_unit_test(a_slow_worker_takes_its_time),
        cmocka_unit_test(a_hosts_pace_is_its_cpus),
        cmocka_unit_test(the_mean_pace_holds_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
