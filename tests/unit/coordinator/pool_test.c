/* pool, claim by claim, over the simulation without chance: what connecting refuses, how the
 * placement and its epoch move, when a worker counts as dead, and what becomes of its calls. */
#include "sim_bench.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct bench *open_quiet(int n_worker, int replicas, int local)
{
    struct bench_config config = {.sim = {.seed = 7,
                                          .n_worker = n_worker,
                                          .delay_max_ns = NS_PER_MS,
                                          .compute_max_ns = NS_PER_MS},
                                  .replicas = replicas,
                                  .local = local};
    return bench_open(&config);
}

static uint64_t epoch(const struct bench *b)
{
    return placement_epoch(pool_placement(b->pool));
}

static int alive(const struct bench *b, int worker)
{
    struct pool_worker_info info;
    pool_worker_info_get(b->pool, worker, &info);
    return info.alive;
}

/* The engine goes on waiting for so long, with nothing to do. */
static void idle(struct bench *b, int64_t ns)
{
    int64_t until = clock_now(sim_clock(b->sim)) + ns;
    while (clock_now(sim_clock(b->sim)) < until) {
        pool_wait(b->pool, until);
    }
}

static void do_right(struct bench *b)
{
    struct err err = {0};
    int right;
    assert_int_equal(bench_do(b, 1, 20, &right, &err), 0);
    assert_true(right);
    if (sim_violation(b->sim)) {
        fail_msg("%s", sim_violation(b->sim));
    }
}

/* ---- connecting ---- */

static void pool_connect_builds_epoch_1_from_what_workers_hold(void **state)
{
    (void)state;
    struct bench *b = open_quiet(3, 2, 0);
    const int32_t *holder;
    struct pool_worker_info info;
    assert_int_equal(b->rc, 0);
    assert_int_equal(epoch(b), 1);
    assert_int_equal(pool_uncovered(b->pool), 0);
    assert_int_equal(pool_n_worker(b->pool), 3);
    assert_int_equal(placement_holders(pool_placement(b->pool), 1, 4, &holder), 2);
    assert_int_equal(holder[0], 1);
    assert_int_equal(holder[1], 2);
    pool_worker_info_get(b->pool, 1, &info);
    assert_string_equal(info.name, "w1");
    assert_string_equal(info.endpoint, "sim:1");
    assert_string_equal(info.numerics, "sim");
    assert_int_equal(info.n_held, 8); /* 2 of 3 replicas' shares of 12 */
    assert_int_equal(info.alive, 1);
    do_right(b);
    bench_close(b);
}

/* Of the workers one knows fp8 and two do not, and what one of these held is computed here. */
static void fp8_rows_are_rounded_alike_whoever_computes(void **state)
{
    (void)state;
    for (enum wire_rows rows = WIRE_ROWS_FP8; rows <= WIRE_ROWS_FP8_BOTH; rows++) {
        struct bench_config config = {.sim = {.seed = 8, .n_worker = 3}, .local = 1, .rows = rows};
        struct bench *b = bench_open(&config);
        struct pool_worker_info knows, other;
        assert_int_equal(b->rc, 0);
        do_right(b);
        sim_kill(b->sim, 2);
        do_right(b);
        do_right(b);
        pool_worker_info_get(b->pool, 0, &knows);
        pool_worker_info_get(b->pool, 1, &other);
        assert_true(bench_stats(b).local_slots > 0);
        assert_true(knows.bytes_sent > 0 && knows.bytes_sent < other.bytes_sent);
        bench_close(b);
    }
}

/* A second pool over workers that one of them was told to be different. */
static struct bench *reopen(struct bench *b, void (*change)(struct sim_ways *))
{
    struct pool_config config = {.model = b->model,
                                 .precision = PRECISION_BF16,
                                 .numerics = "sim",
                                 .clock = sim_clock(b->sim),
                                 .transport = sim_transport(b->sim),
                                 .connect_timeout_ns = 3 * NS_PER_S,
                                 .seed = 2};
    pool_destroy(b->pool);
    change(sim_ways(b->sim, 1));
    assert_int_equal(pool_create(&config, &b->pool, &b->err), 0);
    b->rc = pool_connect(b->pool, sim_endpoints(), 2, &b->err);
    return b;
}

static void change_model(struct sim_ways *w)
{
    w->fingerprint = (struct hash128){0x91ac, 1};
}

static void change_dtype(struct sim_ways *w)
{
    w->dtype = DTYPE_F32;
}

static void change_numerics(struct sim_ways *w)
{
    strcpy(w->numerics, "other");
}

static void change_activations(struct sim_ways *w)
{
    strcpy(w->numerics, "sim+int8");
}

static void pool_connect_refuses_other_activations_in_words(void **state)
{
    (void)state;
    struct bench *b = reopen(open_quiet(2, 1, 0), change_activations);
    assert_int_equal(b->rc, ERR_MODEL);
    assert_non_null(
        strstr(b->err.text, "worker w1 at sim:1 makes activations int8, expected bf16"));
    assert_non_null(strstr(b->err.text, "--activations"));
    bench_close(b);
}

static void pool_connect_refuses_another_model_in_words(void **state)
{
    (void)state;
    struct bench *b = reopen(open_quiet(2, 1, 0), change_model);
    assert_int_equal(b->rc, ERR_MODEL);
    assert_non_null(strstr(b->err.text, "worker w1 at sim:1 holds model 00000000"));
    assert_non_null(strstr(b->err.text, "--model /models/tiny"));
    bench_close(b);
}

static void pool_connect_refuses_another_precision_in_words(void **state)
{
    (void)state;
    struct bench *b = reopen(open_quiet(2, 1, 0), change_dtype);
    assert_int_equal(b->rc, ERR_MODEL);
    assert_non_null(strstr(b->err.text, "worker w1 at sim:1 computes in f32, expected bf16"));
    bench_close(b);
}

static void pool_connect_gives_up_on_a_worker_that_is_not_there(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    sim_kill(b->sim, 1);
    reopen(b, change_numerics);
    assert_int_equal(b->rc, ERR_NET);
    assert_non_null(strstr(b->err.text, "no worker answers at sim:1 within 3000 ms"));
    bench_close(b);
}

static void pool_connect_refuses_an_endpoint_the_transport_refuses(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    const char *bad = "sim:nowhere";
    struct err err = {0};
    assert_int_equal(pool_connect(b->pool, &bad, 1, &err), ERR_NET);
    assert_string_equal(err.text, "no simulated worker at sim:nowhere");
    bench_close(b);
}

static void pool_connect_again_adds_workers(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 2, 0);
    struct err err = {0};
    assert_int_equal(pool_connect(b->pool, sim_endpoints() + 1, 1, &err), 0);
    assert_int_equal(pool_n_worker(b->pool), 3);
    assert_int_equal(epoch(b), 2);
    do_right(b);
    bench_close(b);
}

/* Two holders of each expert, of which worker 1 computes other bits: only worker 0 is listed, until
 * it is gone. */
static void pool_keeps_replicas_within_one_numerics_class(void **state)
{
    (void)state;
    struct bench *b = reopen(open_quiet(2, 2, 0), change_numerics);
    const int32_t *holder;
    assert_int_equal(b->rc, 0);
    assert_int_equal(placement_holders(pool_placement(b->pool), 0, 3, &holder), 1);
    assert_int_equal(holder[0], 0);
    sim_kill(b->sim, 0);
    idle(b, 30 * NS_PER_S);
    assert_int_equal(placement_holders(pool_placement(b->pool), 0, 3, &holder), 1);
    assert_int_equal(holder[0], 1);
    assert_int_equal(pool_uncovered(b->pool), 0);
    bench_close(b);
}

/* ---- dispatching ---- */

static void pool_dispatch_refuses_what_it_cannot_mean(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    struct work w;
    struct err err = {0};
    work_make(b, &w, 0, 3, 0);
    w.d.layer = 2;
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), ERR_LIMIT);
    w.d.layer = 0;
    w.d.ld_row = 4;
    assert_int_equal(pool_dispatch(b->pool, &w.d, NULL), ERR_LIMIT);
    w.d.ld_row = 8;
    w.slot_expert[5] = 6;
    err_clear(&err);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), ERR_LIMIT);
    assert_string_equal(err.text, "slot 5 wants expert 6 of 6");
    assert_null(w.d.state);
    work_free(b, &w);
    bench_close(b);
}

static void pool_dispatch_of_empty_slots_is_done_at_once(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    struct work w;
    struct err err = {0};
    work_make(b, &w, 0, 2, 0);
    for (int i = 0; i < 4; i++) {
        w.slot_expert[i] = -1;
    }
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    assert_int_equal(w.d.done, 1);
    assert_int_equal(w.d.status, 0);
    assert_int_equal(pool_wait(b->pool, INT64_MAX), 1); /* told once, without waiting */
    assert_int_equal(pool_poll(b->pool), 0);
    assert_true(work_right(b, &w));
    work_free(b, &w);
    bench_close(b);
}

static void pool_cuts_a_part_to_the_rows_a_worker_takes(void **state)
{
    (void)state;
    struct bench_config config = {
        .sim = {.seed = 3, .n_worker = 1, .row_limit = 4, .credits = 3, .delay_max_ns = 1000}};
    struct bench *b = bench_open(&config);
    struct work w;
    struct err err = {0};
    work_make(b, &w, 0, 21, 0);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    assert_int_equal(bench_run(b, &w), 1);
    int n_row = 0; /* that have an expert at all */
    for (int i = 0; i < 42; i += 2) {
        n_row += w.slot_expert[i] >= 0 || w.slot_expert[i + 1] >= 0;
    }
    assert_true(n_row > 16);
    assert_int_equal(w.d.time.calls, (n_row + 3) / 4);
    assert_int_equal(sim_requests(b->sim, 0), (n_row + 3) / 4);
    assert_true(work_right(b, &w));
    assert_null(sim_violation(b->sim));
    work_free(b, &w);
    bench_close(b);
}

static void pool_sends_what_waits_for_credit_in_order(void **state)
{
    (void)state;
    struct bench_config config = {
        .sim = {.seed = 3, .n_worker = 1, .credits = 1, .delay_max_ns = NS_PER_MS}};
    struct bench *b = bench_open(&config);
    struct work w[5];
    struct err err = {0};
    for (int i = 0; i < 5; i++) {
        work_make(b, &w[i], 0, 2, i);
        assert_int_equal(pool_dispatch(b->pool, &w[i].d, &err), 0);
    }
    for (int i = 0; i < 5; i++) {
        bench_run(b, &w[i]);
        assert_int_equal(sim_batches(b->sim, 0)[i], i);
        assert_true(work_right(b, &w[i]));
    }
    assert_null(sim_violation(b->sim));
    for (int i = 0; i < 5; i++) {
        work_free(b, &w[i]);
    }
    bench_close(b);
}

static void pool_accounts_for_bytes_calls_and_time(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    struct work w;
    struct err err = {0};
    work_make(b, &w, 0, 30, 0);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    bench_run(b, &w);
    size_t n_assign = 0;
    for (int i = 0; i < 60; i++) {
        n_assign += w.slot_expert[i] >= 0;
    }
    assert_int_equal(w.d.time.calls, 2);
    assert_true(w.d.time.bytes_received > n_assign * 10);
    assert_true(w.d.time.bytes_received < n_assign * 10 + 200);
    assert_true(w.d.time.bytes_sent > 30 * 10 + n_assign * 4);
    assert_true(w.d.time.serialise_ns > 0 && w.d.time.wire_ns > 0);
    assert_true(w.d.time.compute_ns > 0 && w.d.done_ns > w.d.sent_ns);
    work_free(b, &w);
    bench_close(b);
}

/* Given up before it is done: late answers give the credits back and touch nothing. */
static void pool_drops_late_answers_of_a_released_dispatch(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    struct pool_worker_info info;
    struct work w;
    struct err err = {0};
    work_make(b, &w, 0, 10, 0);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    work_free(b, &w); /* under ASan a late write would be seen */
    pool_worker_info_get(b->pool, 0, &info);
    assert_int_equal(info.outstanding, 1);
    idle(b, 50 * NS_PER_MS);
    pool_worker_info_get(b->pool, 0, &info);
    assert_int_equal(info.outstanding, 0);
    do_right(b);
    bench_close(b);
}

/* ---- workers that fail ---- */

static void pool_fails_in_words_when_the_only_holder_is_killed(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    struct work w;
    struct err err = {0};
    int right;
    work_make(b, &w, 1, 20, 0);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    sim_kill(b->sim, 0);
    assert_int_equal(bench_run(b, &w), 1);
    assert_int_equal(w.d.status, ERR_NET);
    assert_non_null(strstr(w.d.err.text, "layer 1: expert "));
    assert_non_null(strstr(w.d.err.text, "is held by no worker that is there; start one"));
    assert_int_equal(epoch(b), 2);
    assert_int_equal(pool_uncovered(b->pool), 6);
    work_free(b, &w);
    /* The next is refused at once, with nothing begun. */
    assert_int_equal(bench_do(b, 1, 20, &right, &err), ERR_NET);
    assert_non_null(strstr(err.text, "is held by no worker that is there"));
    bench_close(b);
}

static void pool_computes_here_what_nobody_holds(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 1);
    sim_kill(b->sim, 0);
    do_right(b);
    assert_true(bench_stats(b).local_slots > 0);
    sim_kill(b->sim, 1);
    do_right(b);
    assert_int_equal(bench_stats(b).workers_lost, 2);
    bench_close(b);
}

static void pool_takes_a_worker_back_with_a_new_epoch(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 1);
    sim_kill(b->sim, 0);
    idle(b, 5 * NS_PER_S);
    assert_int_equal(alive(b, 0), 0);
    assert_int_equal(epoch(b), 2);
    sim_revive(b->sim, 0);
    idle(b, 10 * NS_PER_S);
    assert_int_equal(alive(b, 0), 1);
    assert_int_equal(epoch(b), 3);
    uint64_t before = bench_stats(b).local_slots;
    do_right(b);
    assert_int_equal(bench_stats(b).local_slots, before);
    bench_close(b);
}

/* What a worker had to do when it died is no load on it when it is back. */
static void pool_shares_out_anew_when_a_worker_is_back(void **state)
{
    (void)state;
    struct bench_config config = {
        .sim = {.seed = 7, .n_worker = 2, .delay_max_ns = NS_PER_MS, .compute_max_ns = NS_PER_MS},
        .replicas = 2,
        .choice = REPLICA_LEAST_LOADED};
    struct bench *b = bench_open(&config);
    struct work w;
    struct err err = {0};
    work_make(b, &w, 1, 40, 0);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    sim_kill(b->sim, 0);
    bench_run(b, &w);
    assert_int_equal(w.d.status, 0);
    work_free(b, &w);
    sim_revive(b->sim, 0);
    idle(b, 10 * NS_PER_S);
    int before = sim_requests(b->sim, 0);
    do_right(b);
    assert_int_equal(sim_requests(b->sim, 0), before + 1);
    bench_close(b);
}

static void pool_says_hello_again_to_a_worker_that_forgot_and_sends_again(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    do_right(b);
    sim_forget(b->sim, 0);
    do_right(b);
    sim_forget(b->sim, 1);
    idle(b, NS_PER_S); /* a Ping finds out */
    do_right(b);
    assert_int_equal(epoch(b), 1);
    assert_int_equal(bench_stats(b).workers_lost, 0);
    bench_close(b);
}

/* A call that the old process took with it is found by the Ping that the new one does not
 * understand. */
static void pool_sends_again_what_a_restarted_worker_lost(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    struct work w;
    struct err err = {0};
    work_make(b, &w, 1, 20, 0);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    sim_forget(b->sim, 0); /* the request is in flight and lost */
    bench_run(b, &w);
    assert_int_equal(w.d.status, 0);
    assert_true(work_right(b, &w));
    assert_true(w.d.done_ns - w.d.sent_ns < NS_PER_S); /* long before the call's deadline */
    work_free(b, &w);
    bench_close(b);
}

static void pool_plans_again_what_a_worker_does_not_hold(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 2, 0);
    const int32_t *holder;
    for (int expert = 0; expert < 3; expert++) {
        sim_hold(b->sim, 0, 1, expert, 0);
    }
    sim_ways(b->sim, 0)->mute_pings = 1; /* or the new table would come with a Welcome */
    do_right(b);
    assert_true(bench_stats(b).not_held >= 1);
    assert_int_equal(epoch(b), 1 + bench_stats(b).not_held);
    assert_int_equal(placement_holders(pool_placement(b->pool), 1, 2, &holder), 1);
    assert_int_equal(holder[0], 1);
    assert_int_equal(placement_holders(pool_placement(b->pool), 0, 2, &holder), 2);
    do_right(b);
    bench_close(b);
}

static void pool_learns_from_a_ping_that_a_worker_loaded_experts(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    const int32_t *holder;
    assert_int_equal(placement_holders(pool_placement(b->pool), 0, 1, &holder), 1);
    sim_hold(b->sim, 0, 0, 1, 1);
    idle(b, NS_PER_S);
    assert_int_equal(placement_holders(pool_placement(b->pool), 0, 1, &holder), 2);
    assert_int_equal(epoch(b), 2);
    bench_close(b);
}

/* It answers pings, but never a request: found by the deadline, and not asked again. */
static void pool_gives_a_hung_call_to_a_replica_after_its_deadline(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 2, 0);
    struct work w;
    struct err err = {0};
    sim_ways(b->sim, 0)->hang = 1;
    work_make(b, &w, 1, 20, 0);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    bench_run(b, &w);
    assert_int_equal(w.d.status, 0);
    assert_true(work_right(b, &w));
    assert_true(w.d.done_ns - w.d.sent_ns > 2 * NS_PER_S);
    assert_true(w.d.done_ns - w.d.sent_ns < 3 * NS_PER_S);
    assert_int_equal(bench_stats(b).timeouts, 1);
    work_free(b, &w);
    bench_close(b);
}

static void pool_does_not_ask_a_worker_again_that_failed_the_dispatch(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 2, 1);
    sim_config_of(b->sim)->fail = 1000; /* each request is answered with an Error */
    do_right(b);                        /* by local computing, when both have failed it */
    assert_int_equal(sim_requests(b->sim, 0) + sim_requests(b->sim, 1), 2);
    assert_int_equal(alive(b, 0) + alive(b, 1), 2);
    sim_config_of(b->sim)->fail = 0;
    uint64_t before = bench_stats(b).local_slots;
    do_right(b); /* the next dispatch trusts them again */
    assert_int_equal(bench_stats(b).local_slots, before);
    sim_ways(b->sim, 0)->hang = 1;
    do_right(b); /* and one that only worker 0 fails is for worker 1 */
    assert_int_equal(bench_stats(b).timeouts, 1);
    assert_int_equal(bench_stats(b).local_slots, before);
    bench_close(b);
}

static void pool_finds_a_silent_worker_though_nothing_is_asked_of_it(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    sim_ways(b->sim, 1)->mute_pings = 1;
    idle(b, 3 * NS_PER_S);
    assert_true(bench_stats(b).workers_lost >= 1);
    assert_true(bench_stats(b).timeouts >= 1);
    assert_int_equal(alive(b, 0), 1);
    bench_close(b);
}

/* An engine with no requests for an hour does not poll; that is nobody's silence. */
static void pool_does_not_mistake_its_own_absence_for_death(void **state)
{
    (void)state;
    struct bench *b = open_quiet(2, 1, 0);
    struct work w;
    struct err err = {0};
    idle(b, 50 * NS_PER_MS);
    sim_pass(b->sim, 3600 * NS_PER_S);
    do_right(b);
    work_make(b, &w, 1, 20, 0);
    assert_int_equal(pool_dispatch(b->pool, &w.d, &err), 0);
    sim_pass(b->sim, 3600 * NS_PER_S); /* the replies come, and lie there */
    bench_run(b, &w);
    assert_int_equal(w.d.status, 0);
    assert_true(work_right(b, &w));
    assert_int_equal(bench_stats(b).workers_lost, 0);
    work_free(b, &w);
    bench_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_connect_builds_epoch_1_from_what_workers_hold),
        cmocka_unit_test(fp8_rows_are_rounded_alike_whoever_computes),
        cmocka_unit_test(pool_connect_refuses_another_model_in_words),
        cmocka_unit_test(pool_connect_refuses_other_activations_in_words),
        cmocka_unit_test(pool_connect_refuses_another_precision_in_words),
        cmocka_unit_test(pool_connect_gives_up_on_a_worker_that_is_not_there),
        cmocka_unit_test(pool_connect_refuses_an_endpoint_the_transport_refuses),
        cmocka_unit_test(pool_connect_again_adds_workers),
        cmocka_unit_test(pool_keeps_replicas_within_one_numerics_class),
        cmocka_unit_test(pool_dispatch_refuses_what_it_cannot_mean),
        cmocka_unit_test(pool_dispatch_of_empty_slots_is_done_at_once),
        cmocka_unit_test(pool_cuts_a_part_to_the_rows_a_worker_takes),
        cmocka_unit_test(pool_sends_what_waits_for_credit_in_order),
        cmocka_unit_test(pool_accounts_for_bytes_calls_and_time),
        cmocka_unit_test(pool_drops_late_answers_of_a_released_dispatch),
        cmocka_unit_test(pool_fails_in_words_when_the_only_holder_is_killed),
        cmocka_unit_test(pool_computes_here_what_nobody_holds),
        cmocka_unit_test(pool_takes_a_worker_back_with_a_new_epoch),
        cmocka_unit_test(pool_shares_out_anew_when_a_worker_is_back),
        cmocka_unit_test(pool_says_hello_again_to_a_worker_that_forgot_and_sends_again),
        cmocka_unit_test(pool_sends_again_what_a_restarted_worker_lost),
        cmocka_unit_test(pool_plans_again_what_a_worker_does_not_hold),
        cmocka_unit_test(pool_learns_from_a_ping_that_a_worker_loaded_experts),
        cmocka_unit_test(pool_gives_a_hung_call_to_a_replica_after_its_deadline),
        cmocka_unit_test(pool_does_not_ask_a_worker_again_that_failed_the_dispatch),
        cmocka_unit_test(pool_finds_a_silent_worker_though_nothing_is_asked_of_it),
        cmocka_unit_test(pool_does_not_mistake_its_own_absence_for_death),
    };
    log_set_level(LOG_ERROR); /* failures are what these tests are made of */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
