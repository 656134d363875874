/* seats: which CPU each thread of a team keeps to, where the team has a thread for every CPU. Left
 * to itself the system wakes a team's threads where there is room at that moment, often two of them
 * on one CPU; when the other CPU falls idle a moment later nobody is moved there for milliseconds,
 * and a team that shares its CPUs with another (workers of one host) then computes on one of two.
 * So the helpers keep to a CPU each, and the one that is left over is the caller's, which stays
 * free: when it is found on a helper's CPU the two change places. */
#ifndef BASE_SEATS_H
#define BASE_SEATS_H

#include <pthread.h>

struct seats {
    int n;    /* threads; 0: they sit where they like */
    int *cpu; /* [n] of each thread; [0]: where the caller was last */
};

/* seats_init gives n threads a CPU each when this process may use exactly n > 1; else, or without
 * memory, n stays 0. */
void seats_init(struct seats *seats, int n);
void seats_fini(struct seats *seats);
/* seats_swap: the caller is on `cpu` now. The thread (from 1) that had it and takes the caller's
 * old one, or 0: nobody has to move. */
int seats_swap(struct seats *seats, int cpu);
/* seats_take: the thread `id` keeps to `cpu` from now on, if the system allows it. */
void seats_take(pthread_t id, int cpu);

/* cpus_allowed: how many CPUs this process may run on; the first n of them into cpu[n]. */
int cpus_allowed(int *cpu, int n);

#endif
