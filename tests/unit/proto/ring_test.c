/* ring: messages come out as they went in, whatever their sizes and however late their rows are
 * closed; and nothing that is written into the memory from outside makes either side read or write
 * where it must not (run under asan), loop, or stop saying so. Both sides in one thread: what is
 * tested is the bookkeeping. */
#include "proto/ring.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE ((uint64_t)16384)

struct world {
    struct ring_shared *shared;
    unsigned char *data;
    struct ring_out out;
    struct ring_in in;
    int n_released;
};

static void on_released(void *owner)
{
    ((struct world *)owner)->n_released++;
}

static void world_open_size(struct world *w, uint64_t size)
{
    int fd = memfd_create("ring_test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    memset(w, 0, sizeof(*w));
    w->shared = aligned_alloc(RING_ALIGN, sizeof(*w->shared));
    memset(w->shared, 0, sizeof(*w->shared));
    w->data = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(w->data, MAP_FAILED);
    for (int i = 0; i < 2; i++)
        assert_ptr_not_equal(mmap(w->data + (uint64_t)i * size, size, PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_FIXED, fd, 0),
                             MAP_FAILED);
    close(fd);
    w->out = (struct ring_out){.shared = w->shared, .data = w->data, .size = size};
    w->in = (struct ring_in){
        .shared = w->shared, .data = w->data, .size = size, .released = on_released, .owner = w};
}

static void world_open(struct world *w)
{
    world_open_size(w, SIZE);
}

static void world_close(struct world *w)
{
    munmap(w->data, 2 * w->out.size);
    free(w->shared);
}

/* A message of frames of these sizes, filled with bytes that follow from `seed`. */
static void message_make(struct frames *f, const size_t *size, int n, unsigned seed)
{
    frames_init(f);
    for (int i = 0; i < n; i++) {
        unsigned char *at = frames_push_space(f, size[i]);
        for (size_t k = 0; k < size[i]; k++)
            at[k] = (unsigned char)(seed + 31 * (unsigned)i + (unsigned)k * 7);
    }
}

static void message_check(const struct frames *f, const size_t *size, int n, unsigned seed)
{
    assert_int_equal(f->n, n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(frames_size(f, i), size[i]);
        assert_int_equal((uintptr_t)frames_data(f, i) % 8, 0);
        const unsigned char *at = frames_data(f, i);
        for (size_t k = 0; k < size[i]; k++)
            assert_int_equal(at[k], (unsigned char)(seed + 31 * (unsigned)i + (unsigned)k * 7));
    }
}

static int push(struct world *w, const size_t *size, int n, unsigned seed)
{
    struct frames f;
    message_make(&f, size, n, seed);
    int rc = ring_push(&w->out, &f);
    frames_close(&f);
    return rc;
}

static void messages_of_all_sizes_come_out_in_order(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    for (unsigned round = 0; round < 3000; round++) {
        size_t size[2][LIMIT_FRAMES];
        int n[2];
        for (unsigned m = 0; m < 2; m++) {
            uint32_t word[4];
            rng_block(round, m, 0, word);
            n[m] = 1 + (int)(word[0] % 3);
            for (int i = 0; i < n[m]; i++)
                size[m][i] = word[1 + i] % (i == 1 ? 5000 : 200);
            assert_int_equal(push(&w, size[m], n[m], round + m), 0);
        }
        for (unsigned m = 0; m < 2; m++) {
            struct frames f;
            frames_init(&f);
            assert_int_equal(ring_pop(&w.in, &f, NULL), 1);
            message_check(&f, size[m], n[m], round + m);
            frames_close(&f);
        }
        struct frames f;
        assert_int_equal(ring_pop(&w.in, &f, NULL), 0);
        assert_int_equal(atomic_load(&w.shared->head), atomic_load(&w.shared->tail));
    }
    assert_int_equal(w.in.n_ref, 0);
    world_close(&w);
}

static void full_ring_takes_nothing_until_the_oldest_is_closed(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    const size_t size[2] = {40, 4000}, larger[2] = {40, SIZE};
    struct frames f[3];
    assert_int_equal(push(&w, larger, 2, 0), ERR_AGAIN);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(push(&w, size, 2, i), 0);
    assert_int_equal(push(&w, size, 2, 9), ERR_AGAIN);
    for (unsigned i = 0; i < 3; i++) {
        frames_init(&f[i]);
        assert_int_equal(ring_pop(&w.in, &f[i], NULL), 1);
    }
    /* The rows lie in the memory still, so their room is not given back; the newest first. */
    assert_int_equal(push(&w, size, 2, 9), ERR_AGAIN);
    frames_close(&f[2]);
    frames_close(&f[1]);
    assert_int_equal(w.n_released, 2);
    assert_int_equal(push(&w, size, 2, 9), ERR_AGAIN);
    message_check(&f[0], size, 2, 0);
    frames_close(&f[0]);
    assert_int_equal(w.n_released, 3);
    assert_int_equal(push(&w, size, 2, 9), 0);
    frames_init(&f[0]);
    assert_int_equal(ring_pop(&w.in, &f[0], NULL), 1);
    message_check(&f[0], size, 2, 9);
    frames_close(&f[0]);
    world_close(&w);
}

static void conversation_stays_at_the_beginning_of_the_memory(void **state)
{
    (void)state;
    struct world w;
    world_open_size(&w, 4 * RING_WINDOW);
    const size_t size[2] = {40, 30000}, large[2] = {40, 2 * RING_WINDOW};
    int n_beyond = 0;
    for (unsigned i = 0; i < 1000; i++) {
        struct frames f;
        const size_t *now = i % 100 == 50 ? large : size;
        frames_init(&f);
        assert_int_equal(push(&w, now, 2, i), 0);
        assert_int_equal(ring_pop(&w.in, &f, NULL), 1);
        message_check(&f, now, 2, i);
        n_beyond += (const unsigned char *)frames_data(&f, 1) >= w.data + RING_WINDOW;
        frames_close(&f);
    }
    assert_in_range(n_beyond, 0, 20); /* large ones, and what follows at once */
    world_close(&w);
}

static void sleeper_is_seen_once(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    const size_t size[1] = {8};
    struct frames f;
    frames_init(&f);
    assert_int_equal(ring_park(&w.in), 0);
    assert_int_equal(push(&w, size, 1, 0), 0);
    assert_true(ring_parked(&w.out));
    assert_false(ring_parked(&w.out));
    assert_int_equal(ring_park(&w.in), 1); /* something is there: do not sleep */
    assert_false(ring_parked(&w.out));
    assert_int_equal(ring_pop(&w.in, &f, NULL), 1);
    frames_close(&f);
    world_close(&w);
}

/* The words of the other side, one by one. */
static void words_out_of_bounds_are_refused(void **state)
{
    (void)state;
    static const uint64_t tails[] = {1, 63, SIZE + 64, SIZE * 2, UINT64_MAX, UINT64_MAX - 63};
    const size_t size[1] = {8};
    struct frames f;
    struct world w;
    for (size_t i = 0; i < sizeof(tails) / sizeof(*tails); i++) {
        struct err err = {0};
        world_open(&w);
        frames_init(&f);
        atomic_store(&w.shared->tail, tails[i]);
        assert_int_equal(ring_pop(&w.in, &f, &err), ERR_PROTO);
        assert_non_null(strstr(err.text, "its end is said to be"));
        atomic_store(&w.shared->head, tails[i] | 1);
        assert_int_equal(push(&w, size, 1, 0), ERR_PROTO);
        atomic_store(&w.shared->head, UINT64_MAX / 128 * 64);
        assert_int_equal(push(&w, size, 1, 0), ERR_PROTO);
        world_close(&w);
    }
    /* Backwards: behind what was popped, before what was given back. */
    world_open(&w);
    const size_t rows[2] = {8, 3000};
    frames_init(&f);
    assert_int_equal(push(&w, rows, 2, 0), 0);
    assert_int_equal(ring_pop(&w.in, &f, NULL), 1);
    struct frames g;
    frames_init(&g);
    atomic_store(&w.shared->tail, 64);
    assert_int_equal(ring_pop(&w.in, &g, NULL), ERR_PROTO);
    frames_close(&f);
    world_close(&w);
}

static void records_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t word[1 + LIMIT_FRAMES];
        const char *why;
    } bad[] = {{{LIMIT_FRAMES + 1}, "a record of 7 frames"},
               {{UINT32_MAX}, "a record of 4294967295 frames"},
               {{0, 0}, "a record of 0 bytes"},
               {{0, 4096}, "a record of 4096 bytes where 256 are"},
               {{1, 256}, "a record of 320 bytes where 256 are"},
               {{6, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
                "bytes where 256 are"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct world w;
        struct frames f;
        struct err err = {0};
        world_open(&w);
        frames_init(&f);
        memcpy(w.data, bad[i].word, sizeof(bad[i].word));
        atomic_store(&w.shared->tail, 256);
        assert_int_equal(ring_pop(&w.in, &f, &err), ERR_PROTO);
        if (!strstr(err.text, bad[i].why))
            fail_msg("%s instead of %s", err.text, bad[i].why);
        world_close(&w);
    }
}

/* The whole memory and all words at random, again and again, with frames kept for a while: each pop
 * ends, with a message inside the memory or with an error. */
static void garbage_never_leads_outside(void **state)
{
    (void)state;
    int n_message = 0, n_error = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct world w;
        struct frames kept[4];
        uint32_t word[4];
        world_open(&w);
        for (int i = 0; i < 4; i++)
            frames_init(&kept[i]);
        for (uint64_t step = 0; step < 40; step++) {
            for (uint64_t i = 0; i < SIZE; i += 64) {
                rng_block(seed, step, i, word);
                uint32_t head[7] = {word[0] % 9,  word[1] % 6000, word[2] % 6000, word[3] % 600,
                                    word[0] % 90, word[1],        word[2]};
                memcpy(w.data + i, head, sizeof(head));
            }
            rng_block(seed, step, SIZE, word);
            atomic_store(&w.shared->tail,
                         atomic_load(&w.shared->head) + (uint64_t)(word[0] % 300) * 64);
            struct frames *f = &kept[step % 4];
            frames_close(f);
            int rc = ring_pop(&w.in, f, NULL);
            assert_true(rc == 1 || rc == 0 || rc == ERR_PROTO);
            n_message += rc == 1;
            n_error += rc == ERR_PROTO;
            for (int i = 0; i < f->n; i++) {
                const volatile unsigned char *at = frames_data(f, i);
                for (size_t k = 0; k < frames_size(f, i); k += 61)
                    (void)at[k];
            }
            const size_t size[2] = {8, word[1] % 4000};
            rc = push(&w, size, 2, 0);
            assert_true(rc == 0 || rc == ERR_AGAIN || rc == ERR_PROTO);
        }
        for (int i = 0; i < 4; i++)
            frames_close(&kept[i]);
        assert_int_equal(w.in.n_ref, 0);
        world_close(&w);
    }
    assert_true(n_message > 100 && n_error > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_all_sizes_come_out_in_order),
        cmocka_unit_test(full_ring_takes_nothing_until_the_oldest_is_closed),
        cmocka_unit_test(conversation_stays_at_the_beginning_of_the_memory),
        cmocka_unit_test(sleeper_is_seen_once),
        cmocka_unit_test(words_out_of_bounds_are_refused),
        cmocka_unit_test(records_that_cannot_be_are_refused),
        cmocka_unit_test(garbage_never_leads_outside),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
