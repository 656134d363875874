/* pace: the piece, and threads that watch by it. */
#include "tools/pace.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

/* Rows of bf16 times a matrix of 256 KiB: within the second-level cache of all hosts. */
#define ROWS    32
#define PIECE_K 1024
#define PIECE_N 128

struct pace_piece {
    const struct kernels *kernels;
    struct packed matrix;
    uint16_t *w, *x; /* zeros */
    float *y;
};

#define W_BYTES ((size_t)PIECE_N * PIECE_K * sizeof(uint16_t))
#define X_BYTES ((size_t)ROWS * PIECE_K * sizeof(uint16_t))
#define Y_BYTES ((size_t)ROWS * PIECE_N * sizeof(float))

struct pace_piece *pace_piece_create(const struct kernels *kernels)
{
    struct pace_piece *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->kernels = kernels;
    p->w = mem_map(W_BYTES);
    p->x = mem_map(X_BYTES);
    p->y = mem_map(Y_BYTES);
    p->matrix = (struct packed){.data = p->w, .dtype = DTYPE_BF16, .n = PIECE_N, .k = PIECE_K};
    if (p->w && p->x && p->y)
        return p;
    pace_piece_destroy(p);
    return NULL;
}

void pace_piece_destroy(struct pace_piece *p)
{
    if (!p)
        return;
    mem_unmap(p->w, W_BYTES);
    mem_unmap(p->x, X_BYTES);
    mem_unmap(p->y, Y_BYTES);
    free(p);
}

static double cpu_ns(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

double pace_piece_ns(struct pace_piece *p)
{
    struct matmul m = {.x = p->x,
                       .ldx = PIECE_K,
                       .n_row = ROWS,
                       .w = &p->matrix,
                       .y = p->y,
                       .y_dtype = DTYPE_F32,
                       .ldy = PIECE_N};
    p->kernels->matmul(&m, 0, p->kernels->matmul_units(&m));
    double from = cpu_ns();
    p->kernels->matmul(&m, 0, p->kernels->matmul_units(&m));
    return cpu_ns() - from;
}

/* ---- watching ---- */

struct watcher {
    pthread_t thread;
    struct pace_piece *piece;
    int64_t from_ns, bin_ns;
    int n_bin, n, started; /* n: bins that are known */
    const volatile sig_atomic_t *stop;
    float *bin;
};

#define NAP_NS (100 * NS_PER_MS) /* who stops it waits so long at most */

static void sleep_until(int64_t at_ns, const volatile sig_atomic_t *stop)
{
    int64_t ns;
    while (!*stop && (ns = at_ns - clock_now(&clock_real)) > 0) {
        struct timespec t = {.tv_nsec = ns < NAP_NS ? ns : NAP_NS};
        nanosleep(&t, NULL);
    }
}

/* Bins in which it did not come to work had the pace of the next one that is known. */
static void *watch(void *arg)
{
    struct watcher *w = arg;
    team_flush_denormals();
    while (w->n < w->n_bin && !*w->stop) {
        float ns = (float)pace_piece_ns(w->piece);
        int64_t bin = (clock_now(&clock_real) - w->from_ns) / w->bin_ns;
        while (w->n <= bin && w->n < w->n_bin)
            w->bin[w->n++] = ns;
        sleep_until(w->from_ns + (bin + 1) * w->bin_ns + w->bin_ns / 2, w->stop);
    }
    return NULL;
}

static int watcher_start(struct watcher *w, const struct kernels *kernels, int cpu)
{
    pthread_attr_t attr;
    cpu_set_t where;
    CPU_ZERO(&where);
    CPU_SET((size_t)cpu, &where);
    w->piece = pace_piece_create(kernels);
    if (!w->piece || pthread_attr_init(&attr))
        return ERR_NOMEM;
    int bad = pthread_attr_setaffinity_np(&attr, sizeof(where), &where) ||
              pthread_create(&w->thread, &attr, watch, w);
    pthread_attr_destroy(&attr);
    w->started = !bad;
    return bad ? ERR_NOMEM : 0;
}

int pace_watch(const struct kernels *kernels, int64_t bin_ns, int n_bin,
               const volatile sig_atomic_t *stop, struct cost_pace *out, struct err *err)
{
    struct watcher watcher[COST_PACE_CPUS] = {0};
    cpu_set_t mine;
    int rc = 0, n = 0;
    *out = (struct cost_pace){.bin_ns = bin_ns};
    if (sched_getaffinity(0, sizeof(mine), &mine))
        return err_sys(err, ERR_NOMEM, "cannot tell the CPUs of this process");
    int64_t from_ns = clock_now(&clock_real);
    for (int cpu = 0; rc == 0 && cpu < CPU_SETSIZE && n < COST_PACE_CPUS; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &mine))
            continue;
        struct watcher *w = &watcher[n];
        *w = (struct watcher){.from_ns = from_ns,
                              .bin_ns = bin_ns,
                              .n_bin = n_bin < COST_PACE_BINS ? n_bin : COST_PACE_BINS,
                              .stop = stop,
                              .bin = out->bin[n]};
        rc = watcher_start(w, kernels, cpu);
        n++;
    }
    out->n_cpu = n;
    out->n_bin = COST_PACE_BINS;
    for (int i = 0; i < n; i++) {
        if (watcher[i].started)
            pthread_join(watcher[i].thread, NULL);
        out->n_bin = watcher[i].n < out->n_bin ? watcher[i].n : out->n_bin;
        pace_piece_destroy(watcher[i].piece);
    }
    return rc ? err_set(err, rc, "the system refuses threads that watch its CPUs") : 0;
}
