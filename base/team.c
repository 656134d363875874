/* team: a job is published as one 64-bit word, (generation, next unit), from which threads take
 * chunks by compare-and-swap. The caller waits for units, not for threads: a thread that wakes late
 * finds nothing to take and parks again, so a short job costs nothing when its helpers sleep.
 *
 * 1. The job's fields are written only while every unit of the job before is done; a thread that
 * read fields of the wrong generation therefore loses its compare-and-swap and reads again.
 * 2. `epoch` counts jobs and is the word helpers park on; `n_done` is the word the caller parks on.
 * 3. Parking is announced (n_parked, caller_parked) before the futex re-checks its word, and the
 * other side changes the word before it looks for the announcement; both sequentially consistent,
 * so no wake-up is lost. */
#include "base/team.h"
#include "base/clock.h"
#include "base/seats.h"
#include "base/spin.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Longer than what one thread does alone between two jobs of a decoded token's layer, 25 us. */
#define SPIN_US_DEFAULT 50
#define LINE_BYTES      64
#define UNIT_CLOSED     UINT32_MAX /* above any unit: no job is published */

struct team_thread {
    struct team *team;
    pthread_t id;
    int index;
};

struct team {
    int n_thread;
    int64_t spin_ns;
    struct spin caller;
    _Atomic(team_fn *) fn;
    _Atomic(void *) arg;
    _Atomic int n_unit, chunk;
    _Alignas(LINE_BYTES) _Atomic uint64_t next; /* generation << 32 | first unit not taken */
    _Alignas(LINE_BYTES) _Atomic uint32_t n_done;
    _Atomic uint32_t caller_parked;
    _Alignas(LINE_BYTES) _Atomic uint32_t epoch;
    _Atomic uint32_t n_parked;
    _Atomic int stopping;
    struct seats seats;
    struct team_thread threads[];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n_thread)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n_thread, NULL, NULL, 0);
}

/* poll_for returns 1 when whether the word is `value` became `wanted` in that time. */
static int poll_for(_Atomic uint32_t *word, uint32_t value, int wanted, int64_t ns)
{
    int64_t end_ns = clock_now(&clock_real) + ns;
    do {
        for (int i = 0; i < 32; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) == value) == wanted)
                return 1;
            spin_relax();
        }
    } while (clock_now(&clock_real) < end_ns);
    return 0;
}

/* spin_until is poll_for as long as that pays; a wait that is over at once tells nothing. */
static int spin_until(struct spin *spin, _Atomic uint32_t *word, uint32_t value, int wanted)
{
    if ((atomic_load_explicit(word, memory_order_acquire) == value) == wanted)
        return 1;
    int64_t ns = spin_begin(spin);
    if (ns <= 0)
        return 0;
    int paid = poll_for(word, value, wanted, ns);
    spin_end(spin, paid);
    return paid;
}

/* team_take claims one chunk and computes it; 0 when none is left. */
static int team_take(struct team *team, int thread)
{
    uint64_t state = atomic_load_explicit(&team->next, memory_order_acquire);
    for (;;) {
        team_fn *fn = atomic_load_explicit(&team->fn, memory_order_acquire);
        void *arg = atomic_load_explicit(&team->arg, memory_order_acquire);
        int n_unit = atomic_load_explicit(&team->n_unit, memory_order_acquire);
        int chunk = atomic_load_explicit(&team->chunk, memory_order_acquire);
        if ((uint32_t)state >= (uint32_t)n_unit)
            return 0;
        int begin = (int)(uint32_t)state;
        int end = chunk < n_unit - begin ? begin + chunk : n_unit;
        uint64_t taken = (state & ~(uint64_t)UINT32_MAX) | (uint32_t)end;
        if (!atomic_compare_exchange_weak_explicit(&team->next, &state, taken, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        fn(arg, begin, end, thread);
        uint32_t n = (uint32_t)(end - begin);
        /* The caller may already be on to its next job when this wakes it: it checks its count. */
        uint32_t done = atomic_fetch_add(&team->n_done, n) + n;
        if (done == (uint32_t)n_unit && atomic_load(&team->caller_parked))
            futex_wake(&team->n_done, 1);
        return 1;
    }
}

static void *helper_main(void *arg)
{
    struct team_thread *self = arg;
    struct team *team = self->team;
    team_flush_denormals();
    struct spin spin = {.ns = team->spin_ns};
    uint32_t seen = 0;
    for (;;) {
        if (!spin_until(&spin, &team->epoch, seen, 0)) {
            atomic_fetch_add(&team->n_parked, 1);
            while (atomic_load(&team->epoch) == seen)
                futex_wait(&team->epoch, seen);
            atomic_fetch_sub(&team->n_parked, 1);
        }
        seen = atomic_load(&team->epoch);
        if (atomic_load(&team->stopping))
            return NULL;
        while (team_take(team, self->index))
            ;
    }
}

static void team_wake(struct team *team, int n_thread)
{
    atomic_fetch_add(&team->epoch, 1);
    if (n_thread > 0 && atomic_load(&team->n_parked) > 0)
        futex_wake(&team->epoch, n_thread);
}

/* team_start leaves signals to the threads that the program chose for them. */
static int team_start(struct team *team, int n_thread)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (int i = 1; i < n_thread && rc == 0; i++) {
        team->threads[i] = (struct team_thread){.team = team, .index = i};
        rc = pthread_create(&team->threads[i].id, NULL, helper_main, &team->threads[i]);
        if (rc == 0)
            team->n_thread = i + 1;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

struct team *team_create(int n_thread, int spin_us)
{
    int n_cpu = cpu_count();
    if (n_thread <= 0)
        n_thread = n_cpu;
    if (spin_us < 0)
        spin_us = n_thread > n_cpu ? 0 : SPIN_US_DEFAULT;
    size_t bytes = sizeof(struct team) + (size_t)n_thread * sizeof(struct team_thread);
    struct team *team =
        aligned_alloc(LINE_BYTES, (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES);
    if (!team)
        return NULL;
    *team = (struct team){
        .n_thread = 1, .spin_ns = spin_us * NS_PER_US, .caller = {.ns = spin_us * NS_PER_US}};
    team_flush_denormals();
    if (team_start(team, n_thread)) {
        team_destroy(team);
        return NULL;
    }
    seats_init(&team->seats, n_thread);
    for (int i = 1; i < team->seats.n; i++)
        seats_take(team->threads[i].id, team->seats.cpu[i]);
    return team;
}

void team_destroy(struct team *team)
{
    if (!team)
        return;
    atomic_store(&team->stopping, 1);
    team_wake(team, team->n_thread);
    for (int i = 1; i < team->n_thread; i++)
        pthread_join(team->threads[i].id, NULL);
    seats_fini(&team->seats);
    free(team);
}

int team_size(const struct team *team)
{
    return team ? team->n_thread : 1;
}

static int64_t read_ns(clockid_t id)
{
    struct timespec t;
    return clock_gettime(id, &t) == 0 ? (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec : 0;
}

int64_t team_cpu_ns(const struct team *team)
{
    int64_t sum = read_ns(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 1; i < team_size(team); i++) {
        clockid_t id;
        if (pthread_getcpuclockid(team->threads[i].id, &id) == 0)
            sum += read_ns(id);
    }
    return sum;
}

static void run_alone(team_fn *fn, void *arg, int n_unit, int chunk)
{
    for (int begin = 0; begin < n_unit;) {
        int end = chunk < n_unit - begin ? begin + chunk : n_unit;
        fn(arg, begin, end, 0);
        begin = end;
    }
}

static void wait_for_units(struct team *team, uint32_t n_unit)
{
    if (spin_until(&team->caller, &team->n_done, n_unit, 1))
        return;
    while (atomic_load_explicit(&team->n_done, memory_order_acquire) != n_unit) {
        atomic_store(&team->caller_parked, 1);
        uint32_t done = atomic_load(&team->n_done);
        if (done != n_unit)
            futex_wait(&team->n_done, done);
    }
    atomic_store(&team->caller_parked, 0);
}

/* team_sit: a helper that sat where the caller is now goes where the caller was. */
static void team_sit(struct team *team)
{
    int moved = seats_swap(&team->seats, sched_getcpu());
    if (moved > 0)
        seats_take(team->threads[moved].id, team->seats.cpu[moved]);
}

static void team_publish(struct team *team, team_fn *fn, void *arg, int n_unit, int chunk)
{
    uint64_t generation = atomic_load_explicit(&team->next, memory_order_relaxed) >> 32;
    atomic_store_explicit(&team->next, generation << 32 | UNIT_CLOSED, memory_order_relaxed);
    atomic_store_explicit(&team->fn, fn, memory_order_release);
    atomic_store_explicit(&team->arg, arg, memory_order_release);
    atomic_store_explicit(&team->n_unit, n_unit, memory_order_release);
    atomic_store_explicit(&team->chunk, chunk, memory_order_release);
    atomic_store_explicit(&team->n_done, 0, memory_order_relaxed);
    atomic_store_explicit(&team->next, (generation + 1) << 32, memory_order_release);
}

void team_run(struct team *team, team_fn *fn, void *arg, int n_unit, int chunk)
{
    if (n_unit <= 0)
        return;
    if (chunk < 1)
        chunk = 1;
    if (team_size(team) == 1 || n_unit <= chunk) {
        run_alone(fn, arg, n_unit, chunk);
        return;
    }
    team_sit(team);
    team_publish(team, fn, arg, n_unit, chunk);
    int n_chunk = n_unit / chunk + (n_unit % chunk != 0);
    team_wake(team, n_chunk < team->n_thread ? n_chunk - 1 : team->n_thread - 1);
    while (team_take(team, 0))
        ;
    wait_for_units(team, (uint32_t)n_unit);
}

void team_flush_denormals(void)
{
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040u); /* FTZ bit 15, DAZ bit 6 */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | (1ull << 24)));
#endif
}

int cpu_count(void)
{
    return cpus_allowed(NULL, 0);
}
