/* calibrate_pace: how evenly the host lets its CPUs work. All of them do the same small piece of
 * work again and again, and what each has done is counted in bins of time. It is work of the kind
 * that is served, a matrix from memory for few rows and once more for many: what a neighbour on the
 * other half of a core takes are multiply-add units, tiles and bandwidth, which a loop of additions
 * would not miss. A bin's pace is its count over the usual one: 1 is as usual, 0 nothing. What a
 * hypervisor or other machines on the host take away comes in stretches, and these make tails of
 * latency; so the bins are kept in their order. Stages' curves are of the usual pace.
 *
 * Time in which another process had the CPU is left out, where the system tells: who always works
 * shares a CPU evenly with others, but a thread of a cluster sleeps often and mostly displaces
 * them. */
#include "tools/calibrate.h"

#include "base/arena.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

/* A matrix [PIECE_N, PIECE_K] of bf16: 2 MiB. */
#define PIECE_N     512
#define PIECE_K     2048
#define PIECE_BYTES ((size_t)PIECE_N * PIECE_K * 2)
#define FEW_ROWS    4
#define MANY_ROWS   32
#define BUDGETS     75 /* so many budgets of a point is it watched */
#define BINS_MIN    20
#define HAD_LEAST   0.3 /* of a bin: one in which others had the CPU for longer tells nothing */

struct watch {
    const struct calibrate *c;
    unsigned char *own;       /* a matrix, where there is no memory to sweep */
    uint16_t *x;              /* [MANY_ROWS, PIECE_K] zeros */
    float *y[COST_PACE_CPUS]; /* [MANY_ROWS, PIECE_N] */
    int64_t from_ns;
    int n_bin;
    int count[COST_PACE_CPUS][COST_PACE_BINS];
    double waited_ns[COST_PACE_CPUS][COST_PACE_BINS];
};

static void product(const struct watch *w, const struct packed *matrix, int n_row, int thread)
{
    const struct kernels *k = w->c->kernels;
    struct matmul m = {.x = w->x,
                       .ldx = PIECE_K,
                       .n_row = n_row,
                       .w = matrix,
                       .y = w->y[thread],
                       .y_dtype = DTYPE_F32,
                       .ldy = PIECE_N};
    k->matmul(&m, 0, k->matmul_units(&m));
}

static void piece(const struct watch *w, int thread, int turn)
{
    size_t n_piece = w->c->sweep_bytes / PIECE_BYTES;
    const unsigned char *at = w->own;
    if (n_piece > 0)
        at =
            w->c->sweep + ((size_t)turn * 7 + (size_t)thread * n_piece / 2) % n_piece * PIECE_BYTES;
    const struct packed matrix = {.data = at, .dtype = DTYPE_BF16, .n = PIECE_N, .k = PIECE_K};
    product(w, &matrix, FEW_ROWS, thread);
    product(w, &matrix, MANY_ROWS, thread);
}

/* How long this thread has waited for a CPU that others had; 0 where the system does not tell. */
static double waited_ns(void)
{
    double ran, waited = 0;
    FILE *f = fopen("/proc/thread-self/schedstat", "r");
    if (f && fscanf(f, "%lf %lf", &ran, &waited) != 2)
        waited = 0;
    if (f)
        fclose(f);
    return waited;
}

static void watch_cpu(void *arg, int begin, int end, int thread)
{
    struct watch *w = arg;
    (void)thread;
    for (int cpu = begin; cpu < end; cpu++) {
        double waited = waited_ns();
        int64_t last = 0;
        for (int turn = 0; last < w->n_bin; turn++) {
            piece(w, cpu, turn);
            int64_t bin = (clock_now(&clock_real) - w->from_ns) / COST_PACE_NS;
            if (bin > last) {
                double now = waited_ns(), each = (now - waited) / (double)(bin - last);
                for (int64_t i = last; i < bin && i < w->n_bin; i++)
                    w->waited_ns[cpu][i] = each;
                waited = now;
                last = bin;
            }
            if (bin < w->n_bin)
                w->count[cpu][bin]++;
        }
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void pace_of(const struct watch *w, int cpu, float *pace)
{
    double rate[COST_PACE_BINS], sorted[COST_PACE_BINS];
    int n = 0;
    for (int i = 0; i < w->n_bin; i++) { /* of the time it had */
        double had = 1 - w->waited_ns[cpu][i] / (double)COST_PACE_NS;
        rate[i] = had >= HAD_LEAST ? w->count[cpu][i] / had : -1;
        if (rate[i] >= 0)
            sorted[n++] = rate[i];
    }
    qsort(sorted, (size_t)n, sizeof(*sorted), by_value);
    double usual = n > 0 ? sorted[n / 2] : 0;
    for (int i = 0; i < w->n_bin; i++)
        pace[i] = usual > 0 && rate[i] >= 0 ? (float)(rate[i] / usual) : 1;
}

static void watch_destroy(struct watch *w)
{
    if (!w)
        return;
    for (int i = 0; i < COST_PACE_CPUS; i++)
        mem_unmap(w->y[i], (size_t)MANY_ROWS * PIECE_N * sizeof(float));
    mem_unmap(w->x, (size_t)MANY_ROWS * PIECE_K * sizeof(*w->x));
    mem_unmap(w->own, PIECE_BYTES);
    free(w);
}

static struct watch *watch_create(const struct calibrate *c, int n_cpu)
{
    struct watch *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->c = c;
    w->own = mem_map(PIECE_BYTES);
    w->x = mem_map((size_t)MANY_ROWS * PIECE_K * sizeof(*w->x));
    int whole = w->own && w->x;
    for (int i = 0; i < n_cpu; i++) {
        w->y[i] = mem_map((size_t)MANY_ROWS * PIECE_N * sizeof(float));
        whole = whole && w->y[i];
    }
    if (whole)
        return w;
    watch_destroy(w);
    return NULL;
}

int calibrate_pace(struct calibrate *c, struct err *err)
{
    struct cost_pace *pace = &c->cost.pace;
    int n_cpu = cpu_count() < COST_PACE_CPUS ? cpu_count() : COST_PACE_CPUS;
    int64_t bins = c->budget_ns * BUDGETS / COST_PACE_NS;
    *pace = (struct cost_pace){0};
    if (bins < BINS_MIN)
        return 0;
    struct team *team = team_create(n_cpu, -1);
    struct watch *w = watch_create(c, n_cpu);
    if (team && w) {
        w->n_bin = bins < COST_PACE_BINS ? (int)bins : COST_PACE_BINS;
        w->from_ns = clock_now(&clock_real);
        team_run(team, watch_cpu, w, n_cpu, 1);
        pace->n_cpu = n_cpu;
        pace->n_bin = w->n_bin;
        for (int i = 0; i < n_cpu; i++)
            pace_of(w, i, pace->bin[i]);
    }
    int rc = team && w ? 0 : err_set(err, ERR_NOMEM, "the system refuses %d threads", n_cpu);
    team_destroy(team);
    watch_destroy(w);
    return rc;
}
