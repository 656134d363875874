/* seats: see seats.h. Nothing here fails: a thread that may not keep to a CPU is only slower. */
#include "base/seats.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The kernel refuses a mask shorter than its own; machines above 1024 CPUs exist. */
#define BITS_MIN 1024
#define BITS_MAX (1 << 20)

static int list(const cpu_set_t *set, size_t bytes, int *cpu, int n)
{
    int found = 0;
    for (int i = 0; i < (int)bytes * 8 && found < n; i++)
        if (CPU_ISSET_S((size_t)i, bytes, set))
            cpu[found++] = i;
    return CPU_COUNT_S(bytes, set);
}

int cpus_allowed(int *cpu, int n)
{
    for (int n_bit = BITS_MIN; n_bit <= BITS_MAX; n_bit *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)n_bit);
        if (!set)
            break;
        size_t bytes = CPU_ALLOC_SIZE((size_t)n_bit);
        CPU_ZERO_S(bytes, set);
        int ok = sched_getaffinity(0, bytes, set) == 0;
        int n_cpu = ok ? list(set, bytes, cpu, n) : 0;
        CPU_FREE(set);
        if (n_cpu > 0)
            return n_cpu;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int n_cpu = online > 0 ? (int)online : 1;
    for (int i = 0; i < n && i < n_cpu; i++)
        cpu[i] = i;
    return n_cpu;
}

void seats_init(struct seats *seats, int n)
{
    *seats = (struct seats){0};
    if (n < 2)
        return;
    int *cpu = calloc((size_t)n, sizeof(*cpu));
    if (!cpu || cpus_allowed(cpu, n) != n) {
        free(cpu);
        return;
    }
    *seats = (struct seats){.n = n, .cpu = cpu};
}

void seats_fini(struct seats *seats)
{
    free(seats->cpu);
    *seats = (struct seats){0};
}

int seats_swap(struct seats *seats, int cpu)
{
    if (seats->n == 0 || cpu == seats->cpu[0])
        return 0;
    for (int i = 1; i < seats->n; i++) {
        if (seats->cpu[i] == cpu) {
            seats->cpu[i] = seats->cpu[0];
            seats->cpu[0] = cpu;
            return i;
        }
    }
    return 0;
}

void seats_take(pthread_t id, int cpu)
{
    size_t bytes = CPU_ALLOC_SIZE((size_t)cpu + 1);
    cpu_set_t *set = CPU_ALLOC((size_t)cpu + 1);
    if (!set)
        return;
    CPU_ZERO_S(bytes, set);
    CPU_SET_S((size_t)cpu, bytes, set);
    pthread_setaffinity_np(id, bytes, set);
    CPU_FREE(set);
}
