/* The simulator keeps what any simulator must: every token is served once, time in the system is
 * what queueing theory says, a request alone takes the sum of its parts, and a seed is one run. The
 * cluster is small and its costs are round numbers, so that answers can be written down. */
#include "tests/unit/tools/sim_world.h"

/* ---- conservation ---- */

/* Every way of running: micro-batches, coordinators, a shared machine, chunks. */
static void every_token_is_served_once(void **state)
{
    (void)state;
    static const struct {
        int n_micro, n_coordinator, cores, rows_max, chunk, bank;
    } ways[] = {{1, 1, 0, 0, 0, 0}, {2, 1, 0, 0, 0, 0},   {0, 3, 0, 0, 0, 0},
                {2, 2, 2, 0, 0, 0}, {0, 1, 0, 40, 16, 0}, {0, 2, 1, 64, 0, 0}};
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct world w;
        struct load_result r;
        world_open(&w, 3, 12, 3, 4);
        arrive(&w, "poisson", 60, 30, 12, 0.7, 4, 3);
        w.config.n_micro = ways[i].n_micro;
        w.config.n_coordinator = ways[i].n_coordinator;
        w.config.cores = ways[i].cores;
        w.config.rows_max = ways[i].rows_max;
        w.config.prefill_chunk = ways[i].chunk;
        /* All of it counts, the end too. */
        w.config.duration_s = 200;
        run(&w, &r);
        check_all_served(&w, &r);
        load_result_free(&r);
        world_close(&w);
    }
}

static void what_does_not_fit_the_queue_is_rejected_not_lost(void **state)
{
    (void)state;
    struct world w;
    struct load_result r;
    world_open(&w, 3, 12, 3, 4);
    arrive(&w, "poisson", 500, 30, 40, 0, 1, 3);
    w.config.seqs_max = 2;
    w.config.waiting_max = 5;
    run(&w, &r);
    int n[4] = {0};
    for (int i = 0; i < r.n_request; i++)
        n[r.request[i].status]++;
    assert_true(n[REQUEST_REJECTED] > 0 && n[REQUEST_OK] > 0);
    assert_int_equal(n[REQUEST_OK] + n[REQUEST_REJECTED], r.n_request);
    assert_non_null(strstr(r.error, "waiting already"));
    load_result_free(&r);
    world_close(&w);
}

/* ---- zero load ---- */

/* One prompt of one row, two layers, four experts on two workers, top-2: each worker gets one
 * message of one or two experts. Attention and gate 11, two messages built 3 + 3 (the slower is the
 * second, sent at 6), wire 50, batch 4 + 5 a segment, wire 50, combine 2 and a microsecond a reply.
 * In layer l, row 0 of sequence 1 goes to experts 1 + l, 2 + l: layer 0 to experts 1 (worker 0) and
 * 2 (worker 1); layer 1 to experts 2, 3, both of worker 1: one message of two segments. */
static void a_request_alone_takes_the_sum_of_its_parts(void **state)
{
    (void)state;
    struct world w;
    struct load_result r;
    world_open(&w, 2, 4, 2, 2);
    arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
    run(&w, &r);
    assert_int_equal(r.n_request, 1);
    double layer0 = 11 + 6 + 50 + (4 + 5) + 50 + 2 + 2;
    double layer1 = 11 + 3 + 50 + (4 + 2 * 5) + 50 + 2 + 1;
    double expected_ns = (layer0 + layer1 + 20) * US;
    assert_int_equal(r.request[0].first_ns - r.request[0].due_ns, (int64_t)expected_ns);
    assert_int_equal(r.messages, 3);
    load_result_free(&r);
    world_close(&w);
}

/* The same through a narrow port: bytes / rate on top, each way. */
static void a_narrow_link_adds_its_bytes(void **state)
{
    (void)state;
    struct world w;
    struct load_result wide, narrow;
    world_open(&w, 1, 4, 1, 2);
    arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
    run(&w, &wide);
    w.cost.link_s = 1e6; /* a byte a microsecond */
    run(&w, &narrow);
    int64_t more = (narrow.request[0].first_ns - wide.request[0].first_ns) / NS_PER_US;
    /* 64 values of 2 bytes each way, 4 of the assignment, 200 of the header. */
    assert_int_equal(more, 128 + 4 + 200 + 128);
    load_result_free(&wide);
    load_result_free(&narrow);
    world_close(&w);
}

static void sloped(struct cost_curve *c, double ns_a_row)
{
    c->n = 0;
    assert_int_equal(cost_curve_add(c, 0, 0), 0);
    assert_int_equal(cost_curve_add(c, 512, 512 * ns_a_row), 0);
}

static void two_micro_batches_hide_the_wire(void **state)
{
    (void)state;
    struct world w;
    struct load_result one, two;
    world_open(&w, 8, 12, 3, 4);
    sloped(&w.cost.attn, 2 * US);
    sloped(&w.cost.expert, 2 * US);
    flat(&w.cost.one_way, 100 * US);
    arrive(&w, "uniform", 1, 128, 1, 0, 1.5, 1);
    w.config.n_micro = 1;
    run(&w, &one);
    w.config.n_micro = 2;
    run(&w, &two);
    assert_true(two.request[0].first_ns < one.request[0].first_ns);
    assert_true(two.wait_s < one.wait_s);
    load_result_free(&one);
    load_result_free(&two);
    world_close(&w);
}

/* ---- queueing theory ---- */

/* One row at a time through one expert: service is a constant S, arrivals Poisson: M/D/1, whose
 * mean time in the system is S + rho S / (2 (1 - rho)) (Pollaczek, Khinchine). */
static void mean_wait_is_that_of_m_d_1(void **state)
{
    (void)state;
    struct world w;
    struct load_result r;
    const double service_s = (11 + 3 + 50 + 9 + 50 + 3 + 20) * 1e-6, rho = 0.7;
    world_open(&w, 1, 1, 1, 1);
    arrive(&w, "poisson", rho / service_s, 1, 1, 0, 30, 11);
    w.config.seqs_max = 1;
    w.config.waiting_max = 100000;
    run(&w, &r);
    double sum = 0;
    for (int i = 0; i < r.n_request; i++)
        sum += (double)(r.request[i].last_ns - r.request[i].due_ns) / 1e9;
    double theory = service_s * (1 + rho / (2 * (1 - rho)));
    double found = sum / r.n_request;
    if (fabs(found / theory - 1) > 0.03)
        fail_msg("mean %.3g s, theory %.3g s", found, theory);
    load_result_free(&r);
    world_close(&w);
}

/* Lengths that vary: M/G/1 with E[S^2] from the very lengths that were drawn. */
static void mean_wait_is_that_of_m_g_1(void **state)
{
    (void)state;
    struct world w;
    struct load_result r;
    const double step_s = (11 + 3 + 50 + 9 + 50 + 3 + 20) * 1e-6;
    world_open(&w, 1, 1, 1, 1);
    arrive(&w, "poisson", 0.6 / (step_s * 8), 1, 8, 0.6, 100, 5);
    w.config.seqs_max = 1;
    w.config.waiting_max = 100000;
    run(&w, &r);
    double sum = 0, s1 = 0, s2 = 0;
    for (int i = 0; i < r.n_request; i++) {
        double s = step_s * r.request[i].n_output;
        s1 += s / r.n_request;
        s2 += s * s / r.n_request;
        sum += (double)(r.request[i].last_ns - r.request[i].due_ns) / 1e9;
    }
    double rate = r.n_request / 100.0, theory = s1 + rate * s2 / (2 * (1 - rate * s1));
    double found = sum / r.n_request;
    if (fabs(found / theory - 1) > 0.05)
        fail_msg("mean %.3g s, theory %.3g s", found, theory);
    load_result_free(&r);
    world_close(&w);
}

/* Little: the mean number in the system is the rate times the mean time in it, whatever happens
 * inside. Counted over the time in which requests arrive, where it is steady. */
static void littles_law_holds_on_a_steady_run(void **state)
{
    (void)state;
    struct world w;
    struct load_result r;
    world_open(&w, 2, 12, 3, 4);
    arrive(&w, "poisson", 100, 20, 10, 0.5, 60, 2);
    w.config.n_coordinator = 2;
    w.config.n_slice = 6000; /* the number running is sampled at the end of each slice */
    run(&w, &r);
    double time_s = 0, number = 0;
    int n = 0, n_slice = 0;
    for (int i = 0; i < r.n_request; i++) {
        if (r.request[i].due_ns < 10 * NS_PER_S || r.request[i].due_ns >= 50 * NS_PER_S)
            continue;
        time_s += (double)(r.request[i].last_ns - r.request[i].due_ns) / 1e9;
        n++;
    }
    for (int i = 0; i < r.n_slice; i++)
        if (r.slice[i].begin_s >= 10 && r.slice[i].begin_s < 50) {
            number += r.slice[i].running + r.slice[i].waiting;
            n_slice++;
        }
    double expected = n / 40.0 * (time_s / n);
    if (fabs(number / n_slice / expected - 1) > 0.05)
        fail_msg("%g in the system, %g expected", number / n_slice, expected);
    load_result_free(&r);
    world_close(&w);
}

/* ---- the prefix cache ---- */

#define BEGINNING (4 * KV_PAGE) /* tokens that a group's prompts have in common */

/* Prompts a second apart; group[i] says which beginning prompt i has, of n. */
static void arrive_in_groups(struct world *w, const int *group, int n)
{
    w->arrivals.at = calloc((size_t)n, sizeof(*w->arrivals.at));
    w->arrivals.block = calloc(8, sizeof(*w->arrivals.block));
    assert_true(w->arrivals.at && w->arrivals.block);
    w->arrivals.n = n;
    w->arrivals.n_block = 8;
    w->arrivals.block_tokens = BEGINNING;
    for (int i = 0; i < 8; i++)
        w->arrivals.block[i] = i;
    for (int i = 0; i < n; i++)
        w->arrivals.at[i] = (struct arrival){.at_ns = i * NS_PER_S,
                                             .n_prompt = BEGINNING + 10,
                                             .n_output = 2,
                                             .first_block = group[i],
                                             .n_block = 1};
}

static void what_others_computed_is_found(void **state)
{
    (void)state;
    static const int group[] = {0, 1, 0, 0, 1, 2};
    for (int off = 0; off < 2; off++) {
        struct world w;
        struct load_result r;
        world_open(&w, 1, 2, 1, 1);
        arrive_in_groups(&w, group, 6);
        w.config.no_prefix_cache = off;
        run(&w, &r);
        assert_int_equal(r.lookup_tokens, off ? 0 : 6 * (BEGINNING + 10));
        assert_int_equal(r.hit_tokens, off ? 0 : 3 * BEGINNING);
        /* What is found is not computed. */
        assert_int_equal(r.prompt_tokens, 6 * (BEGINNING + 10) - (off ? 0 : 3 * BEGINNING));
        load_result_free(&r);
        world_close(&w);
    }
}

/* Eight pages: the second prompt's five take the place of the last ones of the first. */
static void what_was_given_up_is_not_found(void **state)
{
    (void)state;
    static const int group[] = {0, 1, 0};
    struct world w;
    struct load_result r;
    world_open(&w, 1, 2, 1, 1);
    arrive_in_groups(&w, group, 3);
    w.config.kv_tokens = 8 * KV_PAGE;
    run(&w, &r);
    assert_true(r.hit_tokens > 0 && r.hit_tokens < BEGINNING);
    assert_int_equal(r.hit_tokens % KV_PAGE, 0);
    load_result_free(&r);
    world_close(&w);
}

static void a_seed_is_one_run(void **state)
{
    (void)state;
    struct world w;
    struct load_result a, b;
    world_open(&w, 3, 12, 3, 4);
    arrive(&w, "poisson", 200, 40, 12, 0.7, 3, 9);
    w.config.n_coordinator = 3;
    w.config.cores = 3;
    run(&w, &a);
    run(&w, &b);
    assert_int_equal(a.n_request, b.n_request);
    assert_memory_equal(a.request, b.request, (size_t)a.n_request * sizeof(*a.request));
    assert_memory_equal(a.heat, b.heat, (size_t)(a.n_layer * a.n_expert) * sizeof(*a.heat));
    load_result_free(&a);
    load_result_free(&b);
    world_close(&w);
}

/* Plans that are drawn again carry the same load: throughput and times within a few per cent. */
static void plans_drawn_again_come_to_the_same(void **state)
{
    (void)state;
    struct world w;
    struct load_result exact, drawn;
    world_open(&w, 3, 12, 3, 4);
    arrive(&w, "poisson", 150, 40, 12, 0.7, 5, 9);
    run(&w, &exact);
    w.config.bank = 8;
    run(&w, &drawn);
    double sum[2] = {0};
    for (int i = 0; i < exact.n_request; i++) {
        sum[0] += (double)(exact.request[i].last_ns - exact.request[i].due_ns);
        sum[1] += (double)(drawn.request[i].last_ns - drawn.request[i].due_ns);
    }
    assert_true(fabs(sum[1] / sum[0] - 1) < 0.05);
    load_result_free(&exact);
    load_result_free(&drawn);
    world_close(&w);
}

/* ---- refusals ---- */

static void impossible_clusters_are_refused(void **state)
{
    (void)state;
    struct world w;
    struct load_result r;
    struct err err = {0};
    world_open(&w, 2, 4, 2, 2);
    arrive(&w, "uniform", 1, 1, 1, 0, 1.5, 1);
    w.config.n_worker = 0;
    assert_int_equal(sim_run(&w.config, &r, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "0 workers"));
    w.config.n_worker = 1;
    err = (struct err){0};
    assert_int_equal(sim_run(&w.config, &r, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "worker 1, the cluster has 1"));
    w.config.n_worker = 2;
    placement_remove(w.placement, 1, 3, 1);
    err = (struct err){0};
    assert_int_equal(sim_run(&w.config, &r, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "expert 3 of layer 1 is held by no worker"));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_is_served_once),
        cmocka_unit_test(what_does_not_fit_the_queue_is_rejected_not_lost),
        cmocka_unit_test(a_request_alone_takes_the_sum_of_its_parts),
        cmocka_unit_test(a_narrow_link_adds_its_bytes),
        cmocka_unit_test(two_micro_batches_hide_the_wire),
        cmocka_unit_test(mean_wait_is_that_of_m_d_1),
        cmocka_unit_test(mean_wait_is_that_of_m_g_1),
        cmocka_unit_test(littles_law_holds_on_a_steady_run),
        cmocka_unit_test(what_others_computed_is_found),
        cmocka_unit_test(what_was_given_up_is_not_found),
        cmocka_unit_test(a_seed_is_one_run),
        cmocka_unit_test(plans_drawn_again_come_to_the_same),
        cmocka_unit_test(impossible_clusters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
