/* wirebuf: slabs are aligned, recycled, and safe to drop on any thread (run under tsan and asan).
 */
#include "proto/frames.h"

#include "base/err.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N_THREAD 4
#define N_ROUND  3000

static void slab_is_aligned_large_enough_and_recycled(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4096, 4097, 262144, 2 << 20, (2 << 20) + 1, 40 << 20};
    struct wirebuf_pool *pool = wirebuf_pool_create();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct wirebuf *b = wirebuf_get(pool, sizes[i]);
        assert_non_null(b);
        assert_int_equal((uintptr_t)wirebuf_data(b) % 64, 0);
        assert_true(wirebuf_capacity(b) >= sizes[i]);
        memset(wirebuf_data(b), 7, sizes[i]);
        wirebuf_unref(b);
        struct wirebuf *again = wirebuf_get(pool, sizes[i]);
        assert_ptr_equal(again, b);
        wirebuf_unref(again);
    }
    assert_null(wirebuf_get(pool, (size_t)LIMIT_PAYLOAD_BYTES + 1));
    assert_null(wirebuf_get(pool, SIZE_MAX));
    wirebuf_pool_destroy(pool);
    wirebuf_unref(NULL);
}

static void last_of_several_references_gives_the_slab_back(void **state)
{
    (void)state;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    struct wirebuf *b = wirebuf_get(pool, 100);
    wirebuf_ref(b);
    wirebuf_unref(b);
    struct wirebuf *other = wirebuf_get(pool, 100);
    assert_ptr_not_equal(other, b);
    wirebuf_unref(b);
    wirebuf_unref(other);
    wirebuf_pool_destroy(pool);
}

static void slab_outlives_its_pool(void **state)
{
    (void)state;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    struct wirebuf *b = wirebuf_get(pool, 1000);
    wirebuf_unref(wirebuf_get(pool, 5000000));
    wirebuf_pool_destroy(pool);
    memset(wirebuf_data(b), 1, 1000);
    wirebuf_unref(b); /* asan's leak check says whether the pool went with it */
}

static void frame_that_does_not_fit_drops_its_reference(void **state)
{
    (void)state;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    struct frames f;
    frames_init(&f);
    struct wirebuf *b = wirebuf_get(pool, 100);
    assert_int_equal(frames_push_buf(&f, b, wirebuf_capacity(b) + 1), ERR_LIMIT);
    assert_int_equal(f.n, 0);
    for (int i = 0; i < LIMIT_FRAMES; i++)
        assert_int_equal(frames_push_copy(&f, "x", 1), 0);
    assert_int_equal(frames_push_copy(&f, "x", 1), ERR_LIMIT);
    assert_int_equal(frames_push_buf(&f, wirebuf_get(pool, 1), 1), ERR_LIMIT);
    assert_int_equal(f.n, LIMIT_FRAMES);
    frames_close(&f);
    wirebuf_pool_destroy(pool);
}

static void moved_frames_leave_nothing_behind(void **state)
{
    (void)state;
    struct wirebuf_pool *pool = wirebuf_pool_create();
    struct frames a, b;
    frames_init(&a);
    frames_init(&b);
    assert_int_equal(frames_push_copy(&a, "small", 5), 0);
    struct wirebuf *slab = wirebuf_get(pool, 9000);
    memset(wirebuf_data(slab), 3, 9000);
    assert_int_equal(frames_push_buf(&a, slab, 9000), 0);
    frames_move(&b, &a);
    assert_int_equal(a.n, 0);
    assert_int_equal(b.n, 2);
    assert_memory_equal(frames_data(&b, 0), "small", 5);
    assert_ptr_equal(frames_data(&b, 1), wirebuf_data(slab));
    frames_close(&b);
    struct wirebuf *again = wirebuf_get(pool, 9000);
    assert_ptr_equal(again, slab);
    wirebuf_unref(again);
    wirebuf_pool_destroy(pool);
}

/* One thread gets and fills, others check and drop; a slab in two hands shows as a wrong byte. */
struct relay {
    struct wirebuf_pool *pool;
    _Atomic(struct wirebuf *) slot[N_THREAD];
    int wrong[N_THREAD];
};
struct dropper {
    struct relay *relay;
    int index;
};

static void *drop_main(void *arg)
{
    struct dropper *d = arg;
    for (int i = 0; i < N_ROUND;) {
        struct wirebuf *b = atomic_exchange(&d->relay->slot[d->index], NULL);
        if (!b) {
            sched_yield();
            continue;
        }
        const unsigned char *p = wirebuf_data(b);
        for (int j = 0; j < 512; j++)
            d->relay->wrong[d->index] += p[j] != (unsigned char)(i + d->index);
        /* Each dropper also gets: the pool is open to all threads. */
        struct wirebuf *own = wirebuf_get(d->relay->pool, 512);
        memset(wirebuf_data(own), 0xee, 512);
        wirebuf_unref(b);
        wirebuf_unref(own);
        i++;
    }
    return NULL;
}

static void slabs_dropped_on_other_threads_are_never_shared(void **state)
{
    (void)state;
    struct relay relay = {.pool = wirebuf_pool_create()};
    struct dropper dropper[N_THREAD];
    pthread_t thread[N_THREAD];
    int sent[N_THREAD] = {0}, n_done = 0;
    for (int t = 0; t < N_THREAD; t++) {
        dropper[t] = (struct dropper){&relay, t};
        assert_int_equal(pthread_create(&thread[t], NULL, drop_main, &dropper[t]), 0);
    }
    while (n_done < N_THREAD) {
        n_done = 0;
        for (int t = 0; t < N_THREAD; t++) {
            if (sent[t] == N_ROUND) {
                n_done++;
                continue;
            }
            if (atomic_load(&relay.slot[t]))
                continue;
            struct wirebuf *b = wirebuf_get(relay.pool, 512);
            memset(wirebuf_data(b), (unsigned char)(sent[t] + t), 512);
            atomic_store(&relay.slot[t], b);
            sent[t]++;
        }
        sched_yield();
    }
    for (int t = 0; t < N_THREAD; t++) {
        pthread_join(thread[t], NULL);
        assert_int_equal(relay.wrong[t], 0);
    }
    wirebuf_pool_destroy(relay.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slab_is_aligned_large_enough_and_recycled),
        cmocka_unit_test(last_of_several_references_gives_the_slab_back),
        cmocka_unit_test(slab_outlives_its_pool),
        cmocka_unit_test(frame_that_does_not_fit_drops_its_reference),
        cmocka_unit_test(moved_frames_leave_nothing_behind),
        cmocka_unit_test(slabs_dropped_on_other_threads_are_never_shared),
    };
    return cmocka_run_group_tests_name("wirebuf", tests, NULL, NULL);
}
