/* seats: threads that have a CPU each, whoever the caller meets on its way over them. */
#include "base/seats.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define N_CPU_MAX 4096

static void allowed_cpus_are_counted_and_listed_in_order(void **state)
{
    (void)state;
    int *cpu = calloc(N_CPU_MAX, sizeof(*cpu));
    assert_non_null(cpu);
    int n = cpus_allowed(NULL, 0);
    assert_in_range(n, 1, N_CPU_MAX);
    assert_int_equal(cpus_allowed(cpu, N_CPU_MAX), n);
    for (int i = 1; i < n; i++)
        assert_true(cpu[i] > cpu[i - 1]);
    free(cpu);
}

static void only_a_thread_for_every_cpu_has_a_seat(void **state)
{
    (void)state;
    int n = cpus_allowed(NULL, 0);
    static const int beside[] = {-1, 1, 7};
    struct seats seats;
    for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
        seats_init(&seats, n + beside[i]);
        assert_int_equal(seats.n, 0);
        assert_int_equal(seats_swap(&seats, 0), 0);
        seats_fini(&seats);
    }
    seats_init(&seats, n);
    assert_int_equal(seats.n, n > 1 ? n : 0);
    seats_fini(&seats);
}

static void who_meets_the_caller_takes_the_callers_seat(void **state)
{
    (void)state;
    int cpu[] = {3, 5, 8};
    struct seats seats = {.n = 3, .cpu = cpu};
    assert_int_equal(seats_swap(&seats, 3), 0);
    assert_int_equal(seats_swap(&seats, 8), 2);
    assert_int_equal(seats.cpu[0], 8);
    assert_int_equal(seats.cpu[2], 3);
    assert_int_equal(seats_swap(&seats, 8), 0);
    assert_int_equal(seats_swap(&seats, 5), 1);
    assert_int_equal(seats.cpu[1], 8);
    /* A CPU that is nobody's: the caller was let onto it later. */
    assert_int_equal(seats_swap(&seats, 6), 0);
    assert_int_equal(seats.cpu[0], 5);
}

static void *read_mask(void *arg)
{
    int *cpu = arg;
    for (int tries = 0; tries < 10000 && cpus_allowed(NULL, 0) != 1; tries++)
        sched_yield();
    *cpu = -1;
    if (cpus_allowed(NULL, 0) == 1)
        cpus_allowed(cpu, 1);
    return NULL;
}

static void a_thread_keeps_to_the_cpu_it_takes(void **state)
{
    (void)state;
    int *cpu = calloc(N_CPU_MAX, sizeof(*cpu)), got = -2;
    assert_non_null(cpu);
    int n = cpus_allowed(cpu, N_CPU_MAX);
    pthread_t id;
    assert_int_equal(pthread_create(&id, NULL, read_mask, &got), 0);
    seats_take(id, cpu[n - 1]);
    assert_int_equal(pthread_join(id, NULL), 0);
    assert_int_equal(got, cpu[n - 1]);
    free(cpu);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(allowed_cpus_are_counted_and_listed_in_order),
        cmocka_unit_test(only_a_thread_for_every_cpu_has_a_seat),
        cmocka_unit_test(who_meets_the_caller_takes_the_callers_seat),
        cmocka_unit_test(a_thread_keeps_to_the_cpu_it_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
