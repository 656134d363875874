/* assign: a worker is told to hold other experts while it serves. What it says it holds, what it
 * answers and what it computes follow; plans that cannot be carried out are refused in words. */
#include "base/log.h"
#include "tests/unit/worker/client.h"

static void bit_set(uint8_t *bits, int layer, int expert)
{
    int bit = layer * 6 + expert; /* the fixture has 6 experts a layer */
    bits[bit / 8] = (uint8_t)(bits[bit / 8] | 1u << bit % 8);
}

static void send_assign(struct world *w, struct client *c, uint64_t plan, const uint8_t *held,
                        int drop)
{
    size_t bytes = ((size_t)w->model->desc.n_layer * 6 + 7) / 8;
    struct msg_assign m = {.plan = plan, .drop = drop, .held = held, .held_bytes = bytes};
    struct frames f;
    frames_init(&f);
    assert_int_equal(msg_build_assign(&f, &m), 0);
    client_send(w, c, &f);
}

/* The Assigned that ends the plan; the others on the way are of the same plan. */
static const struct msg_assigned *wait_end(struct world *w, struct client *c, uint64_t plan)
{
    int64_t end_ns = clock_now(&clock_real) + WAIT_NS;
    for (int seen = 0; clock_now(&clock_real) < end_ns; turn(w, c), usleep(20)) {
        for (; seen < c->n_inbox; seen++) {
            const struct msg *m = &c->inbox[seen].msg;
            assert_int_equal(m->kind, MSG_ASSIGNED);
            assert_int_equal(m->u.assigned.plan, plan);
            if (m->u.assigned.state != ASSIGN_LOADING) {
                assert_int_equal(seen + 1, c->n_inbox);
                return &m->u.assigned;
            }
        }
    }
    fail_msg("plan %d has no end", (int)plan);
    return NULL;
}

static void what_is_assigned_is_loaded_and_served(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    uint8_t held[LIMIT_LAYERS] = {0}, want[16] = {0}, row[6] = {0, 1, 0, 1, 1, 0};
    held[1] = 1;
    world_begin(&w, &c, "inproc://assign-load", held, 1, 0);
    bit_set(want, 0, 1);
    bit_set(want, 0, 3);
    bit_set(want, 0, 4);
    bit_set(want, 1, 2);
    send_assign(&w, &c, 3, want, 0);
    const struct msg_assigned *end = wait_end(&w, &c, 3);
    assert_int_equal(end->state, ASSIGN_DONE);
    assert_int_equal(end->total, 3);
    assert_int_equal(end->loaded, 3);
    assert_true(end->epoch > 1);
    uint64_t epoch = end->epoch;
    client_clear(&c);
    const struct msg_welcome *welcome = greet(&w, &c);
    assert_int_equal(welcome->epoch, epoch);
    assert_memory_equal(welcome->held, want, welcome->held_bytes);
    client_clear(&c);
    request_make(&w, &r, 30, 9, row);
    send_request(&w, &c, &r, 55, 0);
    assert_reply(&w, client_wait(&w, &c, 1), &r, 55, 0);
    free(r.memory);
    world_end(&w, &c);
}

static void what_is_too_much_is_dropped_only_when_asked(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    uint8_t want[16] = {0}, row[6] = {1, 0, 1, 0, 0, 1};
    world_begin(&w, &c, "inproc://assign-drop", NULL, 1, 0);
    bit_set(want, 0, 3);
    send_assign(&w, &c, 1, want, 0);
    assert_int_equal(wait_end(&w, &c, 1)->state, ASSIGN_DONE);
    client_clear(&c);
    request_make(&w, &r, 8, 1, row);
    send_request(&w, &c, &r, 7, 0);
    assert_reply(&w, client_wait(&w, &c, 1), &r, 7, 0); /* kept */
    client_clear(&c);
    send_assign(&w, &c, 2, want, 1);
    assert_int_equal(wait_end(&w, &c, 2)->state, ASSIGN_DONE);
    client_clear(&c);
    send_request(&w, &c, &r, 8, 0);
    const struct msg *m = client_wait(&w, &c, 1);
    assert_int_equal(m->kind, MSG_NOT_HELD);
    assert_int_equal(m->u.not_held.expert[0], 0);
    free(r.memory);
    world_end(&w, &c);
}

static void requests_before_a_drop_are_answered_with_rows(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct world_request r;
    uint8_t none[16] = {0};
    world_begin(&w, &c, "inproc://assign-order", NULL, 0, 0);
    request_make(&w, &r, 12, 4, NULL);
    for (uint64_t i = 0; i < 6; i++)
        send_request(&w, &c, &r, 100 + i, 0);
    send_assign(&w, &c, 4, none, 1);
    client_wait(&w, &c, 7);
    for (int i = 0; i < 6; i++)
        assert_reply(&w, &c.inbox[i].msg, &r, 100 + (uint64_t)i, 0);
    assert_int_equal(c.inbox[6].msg.kind, MSG_ASSIGNED);
    assert_int_equal(c.inbox[6].msg.u.assigned.state, ASSIGN_DONE);
    free(r.memory);
    world_end(&w, &c);
}

static void a_plan_said_twice_is_carried_out_once(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    uint8_t held[LIMIT_LAYERS] = {0}, want[16] = {0};
    held[0] = 1;
    world_begin(&w, &c, "inproc://assign-twice", held, 1, 0);
    bit_set(want, 0, 5);
    send_assign(&w, &c, 9, want, 0);
    uint64_t epoch = wait_end(&w, &c, 9)->epoch;
    client_clear(&c);
    send_assign(&w, &c, 9, want, 0);
    const struct msg_assigned *again = wait_end(&w, &c, 9);
    assert_int_equal(again->state, ASSIGN_DONE);
    assert_int_equal(again->epoch, epoch);
    world_end(&w, &c);
}

static void a_fixed_worker_refuses(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    uint8_t want[16] = {0};
    bit_set(want, 0, 5);
    world_open(&w, "inproc://assign-fixed-unused", NULL, 0, 0);
    worker_destroy(w.worker);
    w.config.fixed = 1;
    w.config.listen = "inproc://assign-fixed";
    assert_int_equal(worker_create(&w.config, w.zmq, w.loop, &w.worker, NULL), 0);
    snprintf(w.endpoint, sizeof(w.endpoint), "%s", worker_endpoint(w.worker));
    client_open(&w, &c);
    greet(&w, &c);
    client_clear(&c);
    send_assign(&w, &c, 9, want, 1);
    const struct msg_assigned *end = wait_end(&w, &c, 9);
    assert_int_equal(end->state, ASSIGN_FAILED);
    assert_non_null(strstr(end->text, "--fixed"));
    assert_int_equal(end->epoch, 1);
    world_end(&w, &c);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    uint8_t want[16] = {0}, none[LIMIT_LAYERS] = {0};
    world_open(&w, "inproc://assign-memory-unused", NULL, 0, 0);
    worker_destroy(w.worker);
    uint64_t each = weights_expert_bytes(&w.model->desc, w.config.precision);
    w.config.memory_bytes = (int64_t)(2 * each + each / 2);
    w.config.listen = "inproc://assign-memory";
    struct err err = {0};
    assert_int_equal(worker_create(&w.config, w.zmq, w.loop, &w.worker, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "--memory"));
    w.config.held = none;
    w.config.listen = "inproc://assign-memory-fits"; /* ZeroMQ frees a closed one some time later */
    assert_int_equal(worker_create(&w.config, w.zmq, w.loop, &w.worker, NULL), 0);
    snprintf(w.endpoint, sizeof(w.endpoint), "%s", worker_endpoint(w.worker));
    client_open(&w, &c);
    const struct msg_welcome *welcome = greet(&w, &c);
    assert_true(welcome->resident > 0);
    assert_int_equal(welcome->available, w.config.memory_bytes);
    client_clear(&c);
    for (int e = 0; e < 3; e++)
        bit_set(want, 0, e);
    send_assign(&w, &c, 9, want, 1);
    const struct msg_assigned *end = wait_end(&w, &c, 9);
    assert_int_equal(end->state, ASSIGN_FAILED);
    assert_non_null(strstr(end->text, "memory"));
    client_clear(&c);
    want[0] = 3;
    send_assign(&w, &c, 10, want, 1);
    assert_int_equal(wait_end(&w, &c, 10)->state, ASSIGN_DONE);
    client_clear(&c);
    assert_int_equal(greet(&w, &c)->available, each / 2);
    client_clear(&c);
    world_end(&w, &c);
}

/* What a plan drops has its memory yet when the next one asks for the same experts again: there and
 * back, faster than it goes. */
static void what_was_just_dropped_can_be_had_again(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    uint8_t none[16] = {0}, all[16] = {0};
    world_begin(&w, &c, "inproc://assign-again", NULL, 0, 0);
    int n_layer = w.model->desc.n_layer;
    for (int layer = 0; layer < n_layer; layer++)
        for (int e = 0; e < 6; e++)
            bit_set(all, layer, e);
    for (uint64_t plan = 1; plan <= 8; plan += 2) {
        send_assign(&w, &c, plan, none, 1);
        assert_int_equal(wait_end(&w, &c, plan)->state, ASSIGN_DONE);
        client_clear(&c);
        send_assign(&w, &c, plan + 1, all, 1);
        const struct msg_assigned *end = wait_end(&w, &c, plan + 1);
        assert_string_equal(end->text, "");
        assert_int_equal(end->state, ASSIGN_DONE);
        assert_int_equal(end->loaded, n_layer * 6);
        client_clear(&c);
        assert_memory_equal(greet(&w, &c)->held, all, ((size_t)n_layer * 6 + 7) / 8);
        client_clear(&c);
    }
    world_end(&w, &c);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_assigned_is_loaded_and_served),
        cmocka_unit_test(what_is_too_much_is_dropped_only_when_asked),
        cmocka_unit_test(requests_before_a_drop_are_answered_with_rows),
        cmocka_unit_test(a_plan_said_twice_is_carried_out_once),
        cmocka_unit_test(a_fixed_worker_refuses),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(what_was_just_dropped_can_be_had_again),
    };
    return cmocka_run_group_tests_name("assign", tests, NULL, NULL);
}
