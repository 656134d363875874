/* peers and queue: the two tables of a worker. */
#include "worker/peers.h"
#include "worker/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct sock_peer id_of(int i)
{
    struct sock_peer id = {.bytes = 5};
    memcpy(id.id, &i, sizeof(i));
    return id;
}

static void peer_is_found_by_its_whole_id(void **state)
{
    (void)state;
    struct peers *peers = peers_create(1000);
    for (int i = 0; i < 700; i++) {
        struct sock_peer id = id_of(i);
        peers_add(peers, &id)->incarnation = (uint64_t)i;
    }
    assert_int_equal(peers_count(peers), 700);
    for (int i = 0; i < 700; i++) {
        struct sock_peer id = id_of(i);
        assert_int_equal(peers_find(peers, &id)->incarnation, i);
        assert_ptr_equal(peers_add(peers, &id), peers_find(peers, &id));
        id.bytes = 4; /* the same first bytes are not the same peer */
        assert_null(peers_find(peers, &id));
    }
    assert_int_equal(peers_count(peers), 700);
    peers_destroy(peers);
}

static void full_table_forgets_the_silent_never_the_owed(void **state)
{
    (void)state;
    struct peers *peers = peers_create(3);
    for (int i = 0; i < 3; i++) {
        struct sock_peer id = id_of(i);
        struct peer *p = peers_add(peers, &id);
        p->seen_ns = 10 - i; /* 2 is the oldest */
        p->outstanding = i == 2;
    }
    struct sock_peer three = id_of(3), one = id_of(1), two = id_of(2), four = id_of(4);
    assert_non_null(peers_add(peers, &three));
    assert_null(peers_find(peers, &one));
    assert_non_null(peers_find(peers, &two));
    assert_int_equal(peers_count(peers), 3);
    struct sock_peer zero = id_of(0);
    peers_find(peers, &zero)->outstanding = 1;
    peers_find(peers, &three)->outstanding = 1;
    assert_null(peers_add(peers, &four));
    peers_destroy(peers);
}

static void reaper_takes_the_silent_never_the_owed(void **state)
{
    (void)state;
    struct peers *peers = peers_create(100);
    for (int i = 0; i < 60; i++) {
        struct sock_peer id = id_of(i);
        struct peer *p = peers_add(peers, &id);
        p->seen_ns = i;
        p->outstanding = i % 3 == 0;
    }
    peers_reap(peers, 30);
    for (int i = 0; i < 60; i++) {
        struct sock_peer id = id_of(i);
        assert_int_equal(peers_find(peers, &id) != NULL, i >= 30 || i % 3 == 0);
    }
    assert_int_equal(peers_count(peers), 40);
    peers_destroy(peers);
}

static struct job *push(struct queue *q, int layer, int n_assign, int64_t arrived_ns)
{
    struct job *job = job_new(q);
    job->msg.u.request.layer = layer;
    job->msg.u.request.n_assign = n_assign;
    job->arrived_ns = arrived_ns;
    queue_push(q, job);
    return job;
}

static void assert_take(struct queue *q, int64_t max, struct job *const *want, int n)
{
    struct job *job = queue_take(q, max);
    for (int i = 0; i < n; i++) {
        assert_ptr_equal(job, want[i]);
        struct job *next = job->next;
        job_done(q, job);
        job = next;
    }
    assert_null(job);
}

static void oldest_layer_goes_first_within_the_bound(void **state)
{
    (void)state;
    struct queue *q = queue_create(4);
    assert_null(queue_take(q, 100));
    struct job *a = push(q, 2, 10, 1), *b = push(q, 0, 10, 2), *c = push(q, 2, 10, 3),
               *d = push(q, 2, 81, 4), *e = push(q, 0, 1000, 5);
    assert_int_equal(queue_count(q), 5);
    assert_take(q, 100, (struct job *[]){a, c}, 2); /* d would make it 101 */
    assert_take(q, 100, (struct job *[]){b}, 1);
    assert_take(q, 100, (struct job *[]){d}, 1);
    struct job *f = push(q, 3, 5, 6);
    assert_int_equal(queue_count(q), 2);
    assert_take(q, 100, (struct job *[]){e}, 1); /* above the bound, but alone */
    assert_take(q, 100, (struct job *[]){f}, 1);
    assert_null(queue_take(q, 100));
    assert_int_equal(queue_count(q), 0);
    push(q, 1, 1, 7); /* left for queue_destroy */
    queue_destroy(q);
    queue_destroy(NULL);
    peers_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peer_is_found_by_its_whole_id),
        cmocka_unit_test(full_table_forgets_the_silent_never_the_owed),
        cmocka_unit_test(reaper_takes_the_silent_never_the_owed),
        cmocka_unit_test(oldest_layer_goes_first_within_the_bound),
    };
    return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
