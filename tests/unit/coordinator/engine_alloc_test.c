/* A decoding step allocates nothing on the engine's thread: every allocation of the program goes
 * through the counters below, and the steps between warm and the end must not move the thread's.
 * With experts on a worker, what is left is the transport's: as much as is said here, no more. */
#include "base/sanitizer.h"
#include "coordinator/cluster.h"
#include "coordinator/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNTS (!SANITIZER) /* the sanitizers have allocators of their own */

static _Thread_local uint64_t n_alloc;

#if COUNTS
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);

void *malloc(size_t size)
{
    n_alloc++;
    return __libc_malloc(size);
}
void *calloc(size_t n, size_t size)
{
    n_alloc++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t size)
{
    n_alloc++;
    return __libc_realloc(p, size);
}
void *aligned_alloc(size_t align, size_t size)
{
    n_alloc++;
    return __libc_memalign(align, size);
}
#endif

#define N_SEQ     3
#define MAX_TOKEN 200
#define WARM      4
/* ZeroMQ keeps a frame of more than 33 bytes outside of its 64, so one each for the three frames of
 * a request; and the reply's parsed header is one block. The worker is on this thread too: the
 * request's parsed header, the frame of its rows. */
#define ALLOCS_A_CALL 6

struct outcome {
    int n_token, n_done;
};

static int on_token(void *user, int32_t token)
{
    struct outcome *o = user;
    (void)token;
    o->n_token++;
    return 0;
}

static void on_done(void *user, enum finish reason, const struct err *err)
{
    struct outcome *o = user;
    (void)reason;
    assert_null(err);
    o->n_done++;
}

static void submit(struct engine *e, int i, struct outcome *o)
{
    const int32_t prompt[] = {3, 4 + i, 5, 3, 4 + i};
    struct request r = {.prompt = prompt,
                        .n_prompt = 5,
                        .max_tokens = MAX_TOKEN,
                        .sampling = SAMPLING_DEFAULT,
                        .ignore_eos = 1,
                        .user = o,
                        .on_token = on_token,
                        .on_done = on_done};
    r.sampling.temperature = i == 1 ? 0.5f : 0.0f;
    r.sampling.top_p = 0.9f;
    r.sampling.repetition_penalty = 1.1f;
    uint64_t id;
    assert_int_equal(engine_submit(e, &r, &id, NULL), 0);
}

/* Allocations of this thread in decoding steps of N_SEQ sequences, the first WARM left out: the
 * most, and what half of the steps are not above; *calls: sparse layers called in such a step. */
struct counts {
    uint64_t most, half;
};

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static struct counts count_steps(const char *dir, enum speculate_mode speculate, int *calls)
{
    struct err err = {0};
    const struct kernels *k;
    struct model *model;
    struct dense_weights *weights;
    struct cluster *cluster = NULL;
    struct engine *engine;
    struct outcome out[N_SEQ] = {{0}};
    struct engine_stats stats;
    assert_int_equal(kernels_open(&k, &err), 0);
    assert_int_equal(model_open(dir, &model, &err), 0);
    assert_int_equal(weights_load_dense(model, PRECISION_BF16, NULL, &weights, &err), 0);
    struct cluster_config cc = {.model = model,
                                .precision = PRECISION_BF16,
                                .kernels = k,
                                .clock = &clock_real,
                                .n_worker = 1,
                                .choice = REPLICA_LEAST_LOADED,
                                .worker_threads = 1};
    if (desc_n_sparse(&model->desc) > 0) {
        assert_int_equal(cluster_start(&cc, &cluster, &err), 0);
    }
    struct engine_config ec = {.model = model,
                               .weights = weights,
                               .kernels = k,
                               .precision = PRECISION_BF16,
                               .pool = cluster != NULL ? cluster_pool(cluster) : NULL,
                               .clock = &clock_real,
                               .kv_tokens = 1024,
                               .n_micro = 1,
                               .speculate = speculate};
    assert_int_equal(engine_create(&ec, &engine, &err), 0);
    for (int i = 0; i < N_SEQ; i++) {
        submit(engine, i, &out[i]);
    }
    uint64_t count[MAX_TOKEN] = {0}, before = n_alloc;
    size_t n = 0;
    for (int step = 0; engine_step(engine, &err) > 0; step++, before = n_alloc) {
        int running = out[0].n_done + out[1].n_done + out[2].n_done == 0;
        if (step >= WARM && running) {
            count[n++] = n_alloc - before;
        }
    }
    engine_stats_get(engine, &stats);
    *calls = (int)(stats.dispatches / stats.steps);
    assert_int_equal(out[0].n_done + out[1].n_done + out[2].n_done, N_SEQ);
    engine_destroy(engine);
    cluster_stop(cluster);
    weights_free_dense(weights);
    model_close(model);
    assert_true(n > 0);
    qsort(count, n, sizeof *count, by_number);
    return (struct counts){count[n - 1], count[n / 2]};
}

static void a_step_without_experts_allocates_nothing(void **state)
{
    (void)state;
    int calls;
    assert_int_equal(count_steps(TESTS_DIR "/fixtures/tiny/qwen3", SPECULATE_OFF, &calls).most, 0);
    assert_int_equal(count_steps(TESTS_DIR "/fixtures/tiny/qwen3", SPECULATE_ALWAYS, &calls).most,
                     0);
    assert_int_equal(calls, 0);
}

static void a_step_with_experts_allocates_its_messages_alone(void **state)
{
    (void)state;
    int calls;
    /* Now and then a ping is sent, and ZeroMQ's queue grows by a block: not in half of the steps.
     */
    struct counts c = count_steps(TESTS_DIR "/fixtures/tiny/qwen2_moe", SPECULATE_OFF, &calls);
    assert_true(calls > 0);
    assert_in_range(c.half, 0, calls * ALLOCS_A_CALL);
}

static void the_counters_count(void **state)
{
    (void)state;
    uint64_t before = n_alloc;
    void *volatile p = malloc(100);
    p = realloc(p, 200);
    assert_int_equal(n_alloc - before, COUNTS ? 2 : 0);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_counters_count),
        cmocka_unit_test(a_step_without_experts_allocates_nothing),
        cmocka_unit_test(a_step_with_experts_allocates_its_messages_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
