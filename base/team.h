/* team: a fixed set of threads that run one function together and then park. Work is cut into
 * units whose results do not depend on who computes them; threads take units from a shared counter,
 * so that they finish together, and the bits do not change with the number of threads. Waiting
 * threads spin for a short, configurable time, then park on a futex: a parked thread costs its
 * neighbours nothing (a spinning third thread on two cores cost a peer four fifths of its speed).
 * Every thread runs with denormals flushed (FTZ, DAZ), as the matrix units do. A team with a thread
 * for every CPU keeps its helpers to a CPU each (base/seats.h). */
#ifndef BASE_TEAM_H
#define BASE_TEAM_H

#include <stdint.h>

struct team;

/* A unit function computes units [begin, end). `thread` < team_size picks per-thread scratch. */
typedef void team_fn(void *arg, int begin, int end, int thread);

/* team_create starts n_thread - 1 threads (the caller is the first). n_thread 0: one a CPU this
 * process may use. spin_us < 0: the default. NULL when threads are refused. */
struct team *team_create(int n_thread, int spin_us);
void team_destroy(struct team *team);
int team_size(const struct team *team);
/* team_cpu_ns: time on a CPU that its threads have had since they began, ns; what the host took
 * from this machine's CPUs, and says so, does not count. Called as team_run is; NULL: the caller's.
 */
int64_t team_cpu_ns(const struct team *team);
/* team_run computes units [0, n_unit) in chunks of `chunk` and returns when all are done. Called by
 * the thread that created the team, not reentrant. `team` NULL: the caller computes all. */
void team_run(struct team *team, team_fn *fn, void *arg, int n_unit, int chunk);
/* team_flush_denormals sets FTZ and DAZ for the calling thread (team_create does it too). */
void team_flush_denormals(void);
/* cpu_count: CPUs this process may run on. */
int cpu_count(void);

#endif
