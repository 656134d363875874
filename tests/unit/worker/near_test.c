/* near: a worker and a coordinator that share memory. Results have the bits of compute_run and the
 * order of what was said holds over both ways; and what a peer writes into the memory from outside
 * costs that peer its memory, and the worker nothing. The worker is turned by the test. */
#include "proto/ring.h"
#include "proto/shm.h"
#include "tests/unit/worker/client.h"

#include <inttypes.h>

struct near_client {
    struct client c;
    struct shm_link *link;
};

/* The page of the rings' words: the first of the memory, found where it is mapped. */
static struct ring_shared *words_of(void)
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    struct ring_shared *found = NULL;
    while (!found && fgets(line, sizeof(line), maps)) {
        uintptr_t begin, end;
        if (strstr(line, "memfd:sigmoe") &&
            sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) == 2 && end - begin == 4096)
            found = (struct ring_shared *)begin;
    }
    fclose(maps);
    assert_non_null(found);
    return found;
}

static void come_in(struct world *w, struct near_client *n)
{
    struct err err = {0};
    client_open(w, &n->c);
    const struct msg_welcome *m = greet(w, &n->c);
    assert_int_not_equal(m->offer.name[0], 0);
    if (shm_connect(&m->offer, 1 << 18, 1 << 18, &n->link, &err))
        fail_msg("%s", err.text);
    client_clear(&n->c);
    int64_t end_ns = clock_now(&clock_real) + WAIT_NS;
    while (shm_wake(n->link) != SHM_UP && clock_now(&clock_real) < end_ns)
        turn(w, &n->c);
}

static void leave(struct near_client *n)
{
    shm_close(n->link, 1);
    client_close(&n->c);
}

static void push(struct near_client *n, struct world *w, const struct world_request *r,
                 uint64_t call, int layer)
{
    struct frames f;
    frames_request(w, &f, r, call, layer, 0);
    assert_int_equal(shm_send(n->link, &f), 0);
}

/* What comes by either way, into the same box; memory first, as a coordinator must. */
static const struct msg *wait_for(struct world *w, struct near_client *n, int n_message)
{
    int64_t end_ns = clock_now(&clock_real) + WAIT_NS;
    while (n->c.n_inbox < n_message && clock_now(&clock_real) < end_ns) {
        struct frames f;
        turn(w, NULL);
        frames_init(&f);
        while (shm_recv(n->link, &f, NULL) == 1)
            on_message(&n->c, NULL, NULL, &f);
        ev_run(n->c.loop, EVRUN_NOWAIT);
    }
    assert_int_equal(n->c.n_inbox, n_message);
    return &n->c.inbox[n_message - 1].msg;
}

static void rows_come_back_through_memory_to_the_bit(void **state)
{
    (void)state;
    struct world w;
    struct near_client n;
    struct world_request r;
    struct shm_stats s;
    world_open(&w, "tcp://127.0.0.1:0", NULL, 0, 0);
    come_in(&w, &n);
    for (int i = 0; i < 20; i++) {
        int layer = i % w.model->desc.n_layer;
        client_clear(&n.c);
        request_make(&w, &r, 1 + i * 2, (uint64_t)i, NULL);
        push(&n, &w, &r, (uint64_t)(1000 + i), layer);
        assert_reply(&w, wait_for(&w, &n, 1), &r, (uint64_t)(1000 + i), layer);
        free(r.memory);
    }
    shm_stats_get(n.link, &s);
    assert_int_equal(s.messages_sent, 20);
    assert_int_equal(s.messages_received, 20);
    leave(&n);
    world_close(&w);
}

/* A Ping by ZeroMQ after requests through memory: its answer must count them. */
static void what_was_pushed_first_is_taken_first(void **state)
{
    (void)state;
    struct world w;
    struct near_client n;
    struct world_request r;
    world_open(&w, "tcp://127.0.0.1:0", NULL, 0, 0);
    come_in(&w, &n);
    request_make(&w, &r, 3, 1, NULL);
    push(&n, &w, &r, 1, 0);
    push(&n, &w, &r, 2, 0);
    struct msg_ping ping = {.nonce = 9};
    struct frames f;
    frames_init(&f);
    assert_int_equal(msg_build_ping(&f, &ping), 0);
    client_send(&w, &n.c, &f);
    wait_for(&w, &n, 3);
    int at_ping = -1, n_before = 0;
    for (int i = 0; i < 3; i++) {
        if (n.c.inbox[i].msg.kind == MSG_PING)
            at_ping = i;
        else
            n_before += at_ping < 0;
    }
    assert_true(at_ping >= 0);
    assert_true(n_before + n.c.inbox[at_ping].msg.u.ping.queued >= 2);
    free(r.memory);
    leave(&n);
    world_close(&w);
}

static void malformed_message_is_answered_as_one_from_a_socket(void **state)
{
    (void)state;
    struct world w;
    struct near_client n;
    struct frames f;
    world_open(&w, "tcp://127.0.0.1:0", NULL, 0, 0);
    come_in(&w, &n);
    frames_init(&f);
    assert_int_equal(frames_push_copy(&f, "\xff\xff garbage", 10), 0);
    assert_int_equal(frames_push_copy(&f, "more", 4), 0);
    assert_int_equal(shm_send(n.link, &f), 0);
    assert_error(wait_for(&w, &n, 1), 0, WIRE_MALFORMED, "");
    struct world_request r;
    request_make(&w, &r, 3, 1, NULL);
    push(&n, &w, &r, 5, 0);
    assert_reply(&w, wait_for(&w, &n, 2), &r, 5, 0);
    free(r.memory);
    leave(&n);
    world_close(&w);
}

static void spoil(int what, struct ring_shared *words)
{
    if (what == 0)
        atomic_store(&words[0].tail, UINT64_MAX); /* where the requests end */
    else if (what == 1)
        atomic_store(&words[0].tail, atomic_load(&words[0].tail) + 64); /* a record of nothing */
    else
        atomic_store(&words[1].head, 12345); /* how much of the replies was taken */
}

static void peer_that_spoils_its_memory_loses_it_and_is_served_by_zeromq(void **state)
{
    (void)state;
    for (int what = 0; what < 3; what++) {
        struct world w;
        struct near_client n;
        struct world_request r;
        world_open(&w, "tcp://127.0.0.1:0", NULL, 0, 0);
        come_in(&w, &n);
        request_make(&w, &r, 3, 1, NULL);
        push(&n, &w, &r, 1, 0);
        assert_reply(&w, wait_for(&w, &n, 1), &r, 1, 0);
        spoil(what, words_of());
        if (what == 2)
            push(&n, &w, &r, 2, 0); /* its answer finds no way through the memory */
        enum shm_event event = SHM_NOTHING;
        int64_t end_ns = clock_now(&clock_real) + WAIT_NS;
        while (event != SHM_BYE && clock_now(&clock_real) < end_ns) {
            turn(&w, &n.c);
            event = shm_wake(n.link);
        }
        assert_int_equal(event, SHM_BYE);
        if (what == 2)
            assert_reply(&w, client_wait(&w, &n.c, 2), &r, 2, 0);
        client_clear(&n.c);
        send_request(&w, &n.c, &r, 7, 1);
        assert_reply(&w, client_wait(&w, &n.c, 1), &r, 7, 1);
        /* It is not offered memory again; a new connection is. */
        client_clear(&n.c);
        assert_int_equal(greet(&w, &n.c)->offer.name[0], 0);
        free(r.memory);
        leave(&n);
        come_in(&w, &n);
        leave(&n);
        world_close(&w);
    }
}

static void dead_peer_is_forgotten_with_what_it_asked(void **state)
{
    (void)state;
    struct world w;
    struct near_client n, other;
    struct world_request r;
    world_open(&w, "tcp://127.0.0.1:0", NULL, 0, 0);
    come_in(&w, &n);
    come_in(&w, &other);
    request_make(&w, &r, 3, 1, NULL);
    for (uint64_t call = 1; call < 5; call++)
        push(&n, &w, &r, call, 0);
    shm_close(n.link, 0);
    client_close(&n.c);
    push(&other, &w, &r, 8, 0);
    assert_reply(&w, wait_for(&w, &other, 1), &r, 8, 0);
    free(r.memory);
    leave(&other);
    world_close(&w);
}

static void nothing_is_offered_where_it_is_not_wanted(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_open(&w, "inproc://near", NULL, 0, 0);
    client_open(&w, &c);
    assert_int_equal(greet(&w, &c)->offer.name[0], 0);
    client_close(&c);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back_through_memory_to_the_bit),
        cmocka_unit_test(what_was_pushed_first_is_taken_first),
        cmocka_unit_test(malformed_message_is_answered_as_one_from_a_socket),
        cmocka_unit_test(peer_that_spoils_its_memory_loses_it_and_is_served_by_zeromq),
        cmocka_unit_test(dead_peer_is_forgotten_with_what_it_asked),
        cmocka_unit_test(nothing_is_offered_where_it_is_not_wanted),
    };
    return cmocka_run_group_tests_name("near", tests, NULL, NULL);
}
