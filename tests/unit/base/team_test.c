/* team: every unit is computed exactly once, whatever the threads, the chunk and the spin time;
 * many short jobs in a row catch lost wake-ups and helpers that act on an old job. */
#include "base/clock.h"
#include "base/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define UNITS_MAX 1000

struct job {
    int n_unit, chunk, n_thread;
    int hits[UNITS_MAX]; /* not atomic: two threads on one unit are a race that tsan sees */
    _Atomic int wrong;
};

static void count_units(void *arg, int begin, int end, int thread)
{
    struct job *job = arg;
    if (begin >= end || end - begin > job->chunk || begin < 0 || end > job->n_unit || thread < 0 ||
        thread >= job->n_thread)
        atomic_fetch_add(&job->wrong, 1);
    for (int i = begin; i < end; i++)
        job->hits[i]++;
}

static void check_run(struct team *team, int n_unit, int chunk)
{
    static struct job job;
    memset(&job, 0, sizeof(job));
    job.n_unit = n_unit;
    job.chunk = chunk;
    job.n_thread = team_size(team);
    team_run(team, count_units, &job, n_unit, chunk);
    assert_int_equal(job.wrong, 0);
    for (int i = 0; i < UNITS_MAX; i++)
        assert_int_equal(job.hits[i], i < n_unit);
}

static void team_computes_every_unit_once(void **state)
{
    (void)state;
    static const int units[] = {0, 1, 2, 3, 7, 64, 999};
    static const int chunks[] = {1, 2, 5, 64, 2000, INT32_MAX};
    for (int n_thread = 1; n_thread <= 5; n_thread++) {
        for (int spin_us = -1; spin_us <= 1; spin_us++) {
            struct team *team = team_create(n_thread, spin_us);
            assert_non_null(team);
            assert_int_equal(team_size(team), n_thread);
            for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++)
                for (size_t c = 0; c < sizeof(chunks) / sizeof(chunks[0]); c++)
                    check_run(team, units[u], chunks[c]);
            team_destroy(team);
        }
    }
}

static int64_t my_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

#define BURN_UNITS 8

/* Each unit notes the time on a CPU that its thread had meanwhile. */
static void burn(void *arg, int begin, int end, int thread)
{
    int64_t *burnt = arg;
    for (int i = begin; i < end; i++) {
        int64_t from = my_cpu_ns();
        while (my_cpu_ns() - from < NS_PER_MS)
            ;
        burnt[i] = my_cpu_ns() - from;
    }
    (void)thread;
}

static void team_cpu_counts_what_every_thread_has_had(void **state)
{
    (void)state;
    for (int n_thread = 0; n_thread <= 3; n_thread++) {
        int64_t burnt[BURN_UNITS] = {0}, sum = 0;
        struct team *team = n_thread ? team_create(n_thread, 0) : NULL;
        int64_t from = team_cpu_ns(team);
        team_run(team, burn, burnt, BURN_UNITS, 1);
        int64_t had = team_cpu_ns(team) - from;
        for (int i = 0; i < BURN_UNITS; i++)
            sum += burnt[i];
        assert_true(sum >= BURN_UNITS * NS_PER_MS);
        assert_true(had >= sum);
        team_destroy(team);
    }
}

static void team_null_computes_in_the_caller(void **state)
{
    (void)state;
    assert_int_equal(team_size(NULL), 1);
    check_run(NULL, 10, 3);
    check_run(NULL, 0, 3);
    team_destroy(NULL);
}

static void team_survives_many_short_jobs(void **state)
{
    (void)state;
    static const int spins[] = {0, 5};
    for (int s = 0; s < 2; s++) {
        struct team *team = team_create(3, spins[s]);
        assert_non_null(team);
        for (int i = 0; i < 3000; i++)
            check_run(team, 2 + i % 40, 1 + i % 7);
        team_destroy(team);
    }
}

static void team_wakes_helpers_that_have_parked(void **state)
{
    (void)state;
    struct team *team = team_create(2, 1);
    assert_non_null(team);
    for (int i = 0; i < 20; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 2 * NS_PER_MS}, NULL);
        check_run(team, 100, 1);
    }
    team_destroy(team);
}

/* Each of two units waits until the other has begun: this ends only if two threads work at once. */
static void meet(void *arg, int begin, int end, int thread)
{
    (void)end;
    _Atomic int *seen = arg;
    atomic_fetch_or(&seen[begin], 1 << thread);
    while (!atomic_load(&seen[1 - begin]))
        nanosleep(&(struct timespec){.tv_nsec = NS_PER_US}, NULL);
}

static void team_runs_two_units_on_two_threads_at_once(void **state)
{
    (void)state;
    struct team *team = team_create(2, 0);
    assert_non_null(team);
    for (int i = 0; i < 50; i++) {
        _Atomic int seen[2] = {0, 0};
        team_run(team, meet, seen, 2, 1);
        assert_int_equal(seen[0] | seen[1], 3);
        assert_int_not_equal(seen[0], seen[1]);
    }
    team_destroy(team);
}

static void add_denormals(void *arg, int begin, int end, int thread)
{
    (void)thread;
    volatile float *sum = arg;
    volatile float tiny = 1e-39f;
    for (int i = begin; i < end; i++)
        sum[i] = tiny * 0.5f;
}

static void team_threads_flush_denormals(void **state)
{
    (void)state;
    struct team *team = team_create(4, 0);
    assert_non_null(team);
    static float sum[64];
    for (int i = 0; i < 64; i++)
        sum[i] = 1;
    team_run(team, add_denormals, sum, 64, 1);
    for (int i = 0; i < 64; i++)
        assert_true(sum[i] == 0);
    team_destroy(team);
}

static void team_create_zero_takes_the_cpus(void **state)
{
    (void)state;
    struct team *team = team_create(0, -1);
    assert_non_null(team);
    assert_int_equal(team_size(team), cpu_count());
    assert_true(cpu_count() >= 1);
    team_destroy(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(team_computes_every_unit_once),
        cmocka_unit_test(team_cpu_counts_what_every_thread_has_had),
        cmocka_unit_test(team_null_computes_in_the_caller),
        cmocka_unit_test(team_survives_many_short_jobs),
        cmocka_unit_test(team_wakes_helpers_that_have_parked),
        cmocka_unit_test(team_runs_two_units_on_two_threads_at_once),
        cmocka_unit_test(team_threads_flush_denormals),
        cmocka_unit_test(team_create_zero_takes_the_cpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
