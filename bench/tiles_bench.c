/* tiles_bench: what a product of integers on tile registers is made of, so that a slow prefill can
 * be told from a slow host. The block is the kernel's (kernels/cpu/amx/gemm_tiles_int.h): 16 rows
 * by 128 k by two panels of 16 columns, weights kept in four registers while the rows of an expert
 * pass. It is run with nothing but its products, then with the loads of its rows, the stores of its
 * sums and the scaling added one by one: where the parts overlapped, each would cost nothing.
 * A row of the table is a part; where its least and its median are far apart, the CPU is shared
 * with somebody whose work uses the same units, and no code of ours is the reason. */
#include "base/clock.h"
#include "base/err.h"
#include "base/opt.h"
#include "base/team.h"
#include "kernels/kernels.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROUND 1000

#if defined(__x86_64__)
#include <immintrin.h>

#define DIM         16   /* rows of a tile, columns of a panel */
#define TILE_SIZE   1024 /* bytes */
#define N_BLOCK     8    /* 16 rows each, that pass one row group of weights */
#define N_GROUP     16   /* row groups of 128 k */
#define REPEATS     20   /* of all of it, in one measurement */
#define MAX_THREADS 64
#define BLOCK_OPS   (2.0 * DIM * 2 * DIM * 128)

enum part { PRODUCTS, LOADS, STORES, SCALING, SCALING_ALONE, N_PART };
static const char *const part_name[N_PART] = {"products in registers", "and rows loaded",
                                              "and sums stored", "and sums scaled: all of it",
                                              "scaling alone"};

/* One thread's operands; rows come from the second-level cache, as they do in the kernel. */
struct operands {
    _Alignas(64) unsigned char rows[N_GROUP][N_BLOCK][2][TILE_SIZE];
    unsigned char weights[N_GROUP][4][TILE_SIZE];
    int32_t sum[2][2][DIM][DIM];
    float c[N_BLOCK * DIM][2 * DIM];
    float scale[N_GROUP][2][DIM];
    float row_scale[N_GROUP][N_BLOCK * DIM];
};

#define TILE(op)        __asm__ volatile(op : : : "memory")
#define TILE_AT(op, at) __asm__ volatile(op : : "r"(at), "r"((size_t)64) : "memory")

/* The sums of 16 rows that wait to be scaled. */
struct set {
    const int32_t *sum;
    const float *row_scale;
    float *c;
};

/* Rows [row, row + 4) of it; w: the scales of two panels. */
static inline __attribute__((always_inline, target("avx512f"))) void
scale(const struct set *s, const __m512 *w, size_t row)
{
#pragma GCC unroll 4
    for (size_t r = row; r < row + 4; r++) {
        __m512 x = _mm512_set1_ps(s->row_scale[r]);
        for (size_t j = 0; j < 2; j++) {
            __m512i sum = _mm512_load_si512(s->sum + (j * DIM + r) * DIM);
            float *c = s->c + (2 * r + j) * DIM;
            __m512 g = _mm512_mul_ps(w[j], _mm512_cvtepi32_ps(sum));
            _mm512_store_ps(c, _mm512_fmadd_ps(x, g, _mm512_load_ps(c)));
        }
    }
}

/* `part` is a constant in each copy below. */
static inline __attribute__((always_inline, target("avx512f"))) void
all_blocks(struct operands *o, const enum part part)
{
    const int products = part != SCALING_ALONE, loads = products && part >= LOADS;
    const int stores = products && part >= STORES, scaling = part >= SCALING;
    int turn = 0;
    for (int g = 0; g < N_GROUP; g++) {
        TILE_AT("tileloadd (%0,%1,1), %%tmm4", o->weights[g][0]);
        TILE_AT("tileloadd (%0,%1,1), %%tmm5", o->weights[g][1]);
        TILE_AT("tileloadd (%0,%1,1), %%tmm6", o->weights[g][2]);
        TILE_AT("tileloadd (%0,%1,1), %%tmm7", o->weights[g][3]);
        TILE_AT("tileloadd (%0,%1,1), %%tmm2", o->rows[g][0][0]);
        TILE_AT("tileloadd (%0,%1,1), %%tmm3", o->rows[g][0][1]);
        const __m512 w[2] = {_mm512_load_ps(o->scale[g][0]), _mm512_load_ps(o->scale[g][1])};
        for (int i = 0; i < N_BLOCK; i++, turn ^= 1) {
            const int n = i + 1 < N_BLOCK ? i + 1 : 0;
            int32_t *sum = o->sum[turn][0][0];
            const struct set wait = {.sum = o->sum[turn ^ 1][0][0],
                                     .row_scale = o->row_scale[g] + (size_t)i * DIM,
                                     .c = o->c[i * DIM]};
            if (products) {
                TILE("tilezero %%tmm0");
                TILE("tdpbssd %%tmm4, %%tmm2, %%tmm0");
            }
            if (scaling)
                scale(&wait, w, 0);
            if (products) {
                TILE("tilezero %%tmm1");
                TILE("tdpbssd %%tmm6, %%tmm2, %%tmm1");
            }
            if (loads)
                TILE_AT("tileloadd (%0,%1,1), %%tmm2", o->rows[g][n][0]);
            if (scaling)
                scale(&wait, w, 4);
            if (products)
                TILE("tdpbssd %%tmm5, %%tmm3, %%tmm0");
            if (scaling)
                scale(&wait, w, 8);
            if (products)
                TILE("tdpbssd %%tmm7, %%tmm3, %%tmm1");
            if (loads)
                TILE_AT("tileloadd (%0,%1,1), %%tmm3", o->rows[g][n][1]);
            if (scaling)
                scale(&wait, w, 12);
            if (stores) {
                TILE_AT("tilestored %%tmm0, (%0,%1,1)", sum);
                TILE_AT("tilestored %%tmm1, (%0,%1,1)", sum + DIM * DIM);
            }
        }
    }
}

#define PART(name, part)                                                                           \
    __attribute__((target("avx512f"))) static void name(struct operands *o)                        \
    {                                                                                              \
        all_blocks(o, part);                                                                       \
    }
PART(run_products, PRODUCTS)
PART(run_loads, LOADS)
PART(run_stores, STORES)
PART(run_scaling, SCALING)
PART(run_scaling_alone, SCALING_ALONE)

struct bench {
    struct operands *operands[MAX_THREADS];
    enum part part;
    double ns[MAX_THREADS]; /* a block, of the last measurement */
};

/* One unit a thread; all run at once, as the threads of a product do. */
static void measure_unit(void *arg, int begin, int end, int thread)
{
    /* LDTILECFG's operand: palette 1, eight tiles of 16 rows of 64 bytes. */
    static const unsigned char config[64] = {
        [0] = 1,   [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64,
        [26] = 64, [28] = 64, [30] = 64, [48] = 16, [49] = 16, [50] = 16,
        [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};
    static void (*const run[N_PART])(struct operands *) = {run_products, run_loads, run_stores,
                                                           run_scaling, run_scaling_alone};
    struct bench *b = arg;
    (void)thread;
    __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
    for (int i = begin; i < end; i++) {
        run[b->part](b->operands[i]);
        int64_t start = clock_now(&clock_real);
        for (int k = 0; k < REPEATS; k++)
            run[b->part](b->operands[i]);
        b->ns[i] = (double)(clock_now(&clock_real) - start) / (REPEATS * N_GROUP * N_BLOCK);
    }
    __asm__ volatile("tilerelease" : : : "memory");
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_part(enum part part, double *ns, int n, int n_thread, int json)
{
    qsort(ns, (size_t)n, sizeof *ns, ascending);
    double least = ns[0], median = ns[n / 2], most = ns[n - 1];
    double tops = part == SCALING_ALONE ? 0.0 : n_thread * BLOCK_OPS / median / 1e3;
    if (json)
        printf("{\"part\": \"%s\", \"threads\": %d, \"ns_least\": %.1f, \"ns_median\": %.1f, "
               "\"ns_most\": %.1f, \"tops_median\": %.2f}\n",
               part_name[part], n_thread, least, median, most, tops);
    else
        printf("%-28s %8.1f %8.1f %8.1f %8.2f\n", part_name[part], least, median, most, tops);
}

static int measure(int n_round, int n_thread, int json, struct err *err)
{
    static struct bench b;
    static double ns[N_PART][MAX_ROUND * MAX_THREADS];
    for (int i = 0; i < n_thread; i++) {
        b.operands[i] = aligned_alloc(64, (sizeof(struct operands) + 63) / 64 * 64);
        if (!b.operands[i])
            return err_set(err, ERR_NOMEM, "no memory for operands of %d threads", n_thread);
        memset(b.operands[i], 0, sizeof *b.operands[i]);
    }
    struct team *team = team_create(n_thread, -1);
    if (!team)
        return err_set(err, ERR_NOMEM, "%d threads could not be started", n_thread);
    for (int round = 0; round < n_round; round++) {
        for (b.part = 0; b.part < N_PART; b.part++) {
            team_run(team, measure_unit, &b, n_thread, 1);
            memcpy(ns[b.part] + (size_t)round * (size_t)n_thread, b.ns,
                   (size_t)n_thread * sizeof *b.ns);
        }
    }
    if (!json)
        printf("ns for 16 rows x 128 k x 32 columns of bytes, %d thread%s, %d rounds\n"
               "%-28s %8s %8s %8s %8s\n",
               n_thread, n_thread == 1 ? "" : "s", n_round, "", "least", "median", "most", "TOP/s");
    for (int part = 0; part < N_PART; part++)
        print_part((enum part)part, ns[part], n_round * n_thread, n_thread, json);
    team_destroy(team);
    for (int i = 0; i < n_thread; i++)
        free(b.operands[i]);
    return 0;
}
#else
#define MAX_THREADS 64
static int measure(int n_round, int n_thread, int json, struct err *err)
{
    (void)n_round;
    (void)n_thread;
    (void)json;
    return err_set(err, ERR_USAGE, "tile registers are x86's");
}
#endif

int main(int argc, char **argv)
{
    int64_t threads = cpu_count() < MAX_THREADS ? cpu_count() : MAX_THREADS, rounds = 50;
    int json = 0, n_positional = 0;
    const struct opt opts[] = {
        {"threads", 't', OPT_INT, &threads, "N", "threads; default: all CPUs", 1, MAX_THREADS},
        {"rounds", 'r', OPT_INT, &rounds, "N", "rounds, each of every part; default 50", 1,
         MAX_ROUND},
        {"json", 0, OPT_FLAG, &json, NULL, "one JSON object a line", 0, 0},
        {0},
    };
    const struct opt_command command = {
        .name = "tiles_bench",
        .usage = "tiles_bench [options]",
        .about =
            "Measures the parts of a product of integers on tile registers (AMX): its products\n"
            "alone, then with loads, stores and scaling.",
        .opts = opts,
    };
    struct err err = {0};
    const struct kernels *k = NULL;
    int rc = opt_parse(&command, argc, argv, NULL, &n_positional, &err);
    if (rc == 0)
        rc = kernels_open(&k, &err);
    if (rc == 0 && strncmp(k->name, "amx", 3) != 0)
        rc = err_set(&err, ERR_USAGE, "this machine's kernels are %s; tile registers need amx",
                     k->name);
    rc = rc ? rc : measure((int)rounds, (int)threads, json, &err);
    if (rc < 0)
        fprintf(stderr, "tiles_bench: %s\n", err.text);
    return rc < 0 ? err_exit_code(rc) : 0;
}
