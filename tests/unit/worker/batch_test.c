/* batch: what one worker makes of what is in its queue. The test turns the worker's loop, so that
 * what waits before a batch is exact. */
#include "base/log.h"
#include "proto/sigmoe.pb-c.h"
#include "tests/unit/worker/client.h"

static void send_header(struct world *w, struct client *c, const Sigmoe__Header *h)
{
    uint8_t bytes[512];
    struct frames f;
    frames_init(&f);
    assert_int_equal(frames_push_copy(&f, bytes, sigmoe__header__pack(h, bytes)), 0);
    client_send(w, c, &f);
}

static void other_version_is_refused_in_words(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_open(&w, "inproc://version", NULL, 0, 0);
    client_open(&w, &c);
    Sigmoe__Hello hello = SIGMOE__HELLO__INIT;
    Sigmoe__Header h = SIGMOE__HEADER__INIT;
    hello.version = 99;
    h.kind_case = SIGMOE__HEADER__KIND_HELLO;
    h.hello = &hello;
    send_header(&w, &c, &h);
    assert_error(client_wait(&w, &c, 1), 0, WIRE_VERSION_BAD, "version is 99");
    world_end(&w, &c);
}

static void what_is_not_for_workers_is_refused_but_errors_are_not_answered(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct frames f;
    struct worker_stats stats;
    world_begin(&w, &c, "inproc://kinds", NULL, 0, 0);
    frames_init(&f);
    assert_int_equal(msg_build_error(&f, 0, WIRE_INTERNAL, "an error"), 0);
    client_send(&w, &c, &f);
    struct msg_ping pong = {.nonce = 3, .reply = 1};
    assert_int_equal(msg_build_ping(&f, &pong), 0);
    client_send(&w, &c, &f);
    struct msg_not_held not_held = {.call = 1, .n_expert = 1, .expert = (uint32_t[]){0}};
    assert_int_equal(msg_build_not_held(&f, &not_held), 0);
    client_send(&w, &c, &f);
    assert_error(client_wait(&w, &c, 1), 0, WIRE_MALFORMED, "a worker takes Hello");
    worker_stats_get(w.worker, &stats);
    assert_int_equal(stats.errors, 1);
    world_end(&w, &c);
}

static void ping_is_answered_with_the_queue(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct frames f;
    struct world_request r;
    world_begin(&w, &c, "inproc://ping", NULL, 0, 0);
    request_make(&w, &r, 3, 1, NULL);
    send_request(&w, &c, &r, 1, 0);
    send_request(&w, &c, &r, 2, 1);
    frames_init(&f);
    struct msg_ping ping = {.nonce = 1234567890123};
    assert_int_equal(msg_build_ping(&f, &ping), 0);
    client_send(&w, &c, &f);
    const struct msg *m = client_wait(&w, &c, 3);
    assert_int_equal(c.inbox[0].msg.kind, MSG_PING); /* at once, before the batch */
    m = &c.inbox[0].msg;
    assert_int_equal(m->u.ping.nonce, 1234567890123);
    assert_int_equal(m->u.ping.reply, 1);
    assert_int_equal(m->u.ping.queued, 2);
    assert_int_equal(m->u.ping.epoch, 1);
    free(r.memory);
    world_end(&w, &c);
}

static void requests_of_one_layer_are_one_batch(void **state)
{
    (void)state;
    struct world w;
    struct client c[2];
    static struct world_request r[2][4];
    struct worker_stats stats;
    world_open(&w, "inproc://batch", NULL, 0, 4);
    for (int i = 0; i < 2; i++) {
        client_open(&w, &c[i]);
        greet(&w, &c[i]);
        client_clear(&c[i]);
    }
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 2; i++) {
            request_make(&w, &r[i][j], 5, (uint64_t)(i * 4 + j), NULL);
            send_request(&w, &c[i], &r[i][j], (uint64_t)(j + 1), j == 2 ? 1 : 0);
        }
    for (int i = 0; i < 2; i++) {
        client_wait(&w, &c[i], 4);
        static const int order[4] = {0, 1, 3, 2}; /* layer 0 first: its request is the oldest */
        for (int j = 0; j < 4; j++)
            assert_reply(&w, &c[i].inbox[j].msg, &r[i][order[j]], (uint64_t)(order[j] + 1),
                         order[j] == 2);
    }
    worker_stats_get(w.worker, &stats);
    assert_int_equal(stats.batches, 2);
    assert_int_equal(stats.requests, 8);
    assert_int_equal(stats.rows, 40);
    assert_int_equal(stats.assignments, 40 * w.model->desc.top_k);
    assert_int_equal(stats.peers, 2);
    assert_int_equal(stats.queued, 0);
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 4; j++)
            free(r[i][j].memory);
        client_close(&c[i]);
    }
    world_close(&w);
}

static void requests_beyond_the_credits_are_busy(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    world_begin(&w, &c, "inproc://credits", NULL, 0, 2);
    request_make(&w, &r, 3, 1, NULL);
    for (uint64_t call = 1; call <= 4; call++)
        send_request(&w, &c, &r, call, 0);
    client_wait(&w, &c, 4);
    assert_error(&c.inbox[0].msg, 3, WIRE_BUSY, "credits of Welcome are 2");
    assert_error(&c.inbox[1].msg, 4, WIRE_BUSY, "credits");
    assert_reply(&w, &c.inbox[2].msg, &r, 1, 0);
    assert_reply(&w, &c.inbox[3].msg, &r, 2, 0);
    send_request(&w, &c, &r, 5, 0); /* answered requests are credits again */
    assert_reply(&w, client_wait(&w, &c, 5), &r, 5, 0);
    free(r.memory);
    world_end(&w, &c);
}

static void bad_request_names_its_call(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    struct frames f;
    world_begin(&w, &c, "inproc://bad", NULL, 0, 0);
    request_make(&w, &r, 3, 1, NULL);
    r.row_index[1] = 3;
    send_request(&w, &c, &r, 31, 0);
    assert_error(client_wait(&w, &c, 1), 31, WIRE_MALFORMED, "row index 3 of assignment 1");
    r.row_index[1] = -1;
    send_request(&w, &c, &r, 32, 0);
    assert_error(client_wait(&w, &c, 2), 32, WIRE_MALFORMED, "row index -1");
    frames_request(&w, &f, &r, 33, 0, 0);
    f.n--;
    zmq_msg_close(&f.part[f.n]);
    client_send(&w, &c, &f);
    assert_error(client_wait(&w, &c, 3), 33, WIRE_MALFORMED, "has 2 frames");
    free(r.memory);
    world_end(&w, &c);
}

static void request_whose_budget_passed_is_not_computed(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r, big;
    struct frames f;
    struct worker_stats stats;
    world_begin(&w, &c, "inproc://budget", NULL, 0, 0);
    request_make(&w, &r, 3, 1, NULL);
    request_make(&w, &big, 40, 2, NULL);
    send_request(&w, &c, &big, 1, 0); /* computed first: the other waits more than 1 us */
    frames_request(&w, &f, &r, 2, 1, 1);
    client_send(&w, &c, &f);
    client_wait(&w, &c, 2);
    assert_reply(&w, &c.inbox[0].msg, &big, 1, 0);
    assert_error(&c.inbox[1].msg, 2, WIRE_BUSY, "budget passed");
    worker_stats_get(w.worker, &stats);
    assert_int_equal(stats.rows, 40);
    free(r.memory);
    free(big.memory);
    world_end(&w, &c);
}

static void finish_answers_what_has_arrived(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    world_begin(&w, &c, "inproc://finish", NULL, 0, 0);
    request_make(&w, &r, 3, 1, NULL);
    send_request(&w, &c, &r, 1, 0);
    send_request(&w, &c, &r, 2, 1);
    worker_finish(w.worker);
    worker_destroy(w.worker);
    w.worker = NULL;
    for (int i = 0; i < 1000 && c.n_inbox < 2; i++)
        ev_run(c.loop, EVRUN_NOWAIT);
    assert_int_equal(c.n_inbox, 2);
    assert_reply(&w, &c.inbox[0].msg, &r, 1, 0);
    assert_reply(&w, &c.inbox[1].msg, &r, 2, 1);
    free(r.memory);
    world_end(&w, &c);
}

/* A worker ended with requests in its queue frees them: asan's leak check is the judge. */
static void destroy_forgets_what_is_queued(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    world_begin(&w, &c, "inproc://forget", NULL, 0, 0);
    request_make(&w, &r, 3, 1, NULL);
    for (int i = 0; i < 3; i++)
        send_request(&w, &c, &r, (uint64_t)(1 + i), i % 2);
    ev_run(w.loop, EVRUN_NOWAIT); /* one batch: layer 0 */
    struct worker_stats stats;
    worker_stats_get(w.worker, &stats);
    assert_int_equal(stats.queued, 1);
    free(r.memory);
    world_end(&w, &c);
}

static void settings_that_cannot_work_are_refused_in_words(void **state)
{
    (void)state;
    struct world w;
    struct worker_thread *t = NULL;
    world_open(&w, "tcp://127.0.0.1:0", NULL, 1, 0);
    struct worker_config config = w.config;
    struct err err = {0};
    config.listen = w.endpoint;
    assert_int_equal(worker_thread_start(&config, w.zmq, &t, &err), ERR_NET);
    assert_non_null(strstr(err.text, "in use"));
    config = w.config;
    config.row_limit = LIMIT_ROWS + 1;
    err_clear(&err);
    assert_int_equal(worker_thread_start(&config, w.zmq, &t, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "row limit"));
    config = w.config;
    config.credits = -1;
    err_clear(&err);
    assert_int_equal(worker_thread_start(&config, w.zmq, &t, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "credits"));
    struct model *dense = world_model("llama");
    config = w.config;
    config.model = dense;
    err_clear(&err);
    assert_int_equal(worker_thread_start(&config, w.zmq, &t, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "dense model"));
    assert_null(t);
    model_close(dense);
    world_close(&w);
}

int main(void)
{
    log_set_level(LOG_ERROR); /* refusals are what is tested here */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_version_is_refused_in_words),
        cmocka_unit_test(what_is_not_for_workers_is_refused_but_errors_are_not_answered),
        cmocka_unit_test(ping_is_answered_with_the_queue),
        cmocka_unit_test(requests_of_one_layer_are_one_batch),
        cmocka_unit_test(requests_beyond_the_credits_are_busy),
        cmocka_unit_test(bad_request_names_its_call),
        cmocka_unit_test(request_whose_budget_passed_is_not_computed),
        cmocka_unit_test(finish_answers_what_has_arrived),
        cmocka_unit_test(destroy_forgets_what_is_queued),
        cmocka_unit_test(settings_that_cannot_work_are_refused_in_words),
    };
    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
