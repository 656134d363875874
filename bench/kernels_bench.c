/* kernels_bench: what the products reach of what this machine gives. Two limits are measured in the
 * same run, turn by turn with the kernels, since a shared machine's bandwidth moves by half from
 * hour to hour: a plain read (two streams a thread) and multiply-adds in registers, with the
 * widest instructions of the chosen set: f32, or bf16 products of tiles where the set is AMX, or of
 * bytes where rows are made integers. A kernel's limit is the larger of bytes / bandwidth and FLOP
 * / peak, and its figure the share of that limit it reaches. Weights are far larger than the caches
 * and met in turn, as a model's layers are. Medians over the rounds. SIGMOE_ISA picks the
 * instruction set. */
#include "base/arena.h"
#include "base/clock.h"
#include "base/opt.h"
#include "base/rng.h"
#include "base/team.h"
#include "bench/limits.h"
#include "kernels/kernels.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One expert of OLMoE-1B-7B; dense products of the same width. */
#define D_MODEL   2048
#define D_FF      1024
#define N_EXPERT  64
#define TOP_K     8
#define MAX_ROWS  2048
#define MAX_ROUND 64
#define SEED      7

/* ---- the work ------------------------------------------------------------------------------- */

struct bench {
    const struct kernels *k;
    struct team *team;
    unsigned char *weights; /* the experts, and the dense matrices over the same bytes */
    size_t weights_bytes, matrix_bytes;
    struct ffn_weights expert[N_EXPERT];
    uint16_t *x, *h;
    void *x_ints; /* where rows of x made integers go */
    float *y;
    int32_t *row;
    struct ffn_segment seg[N_EXPERT];
    int cpu_time;
    enum dtype dtype; /* of the weights */
    int group, int_rows;
    const char *only;
    int best;
    int next; /* the matrix or expert that comes next, so that none is met warm */
};

struct matmul_job {
    const struct kernels *k;
    struct matmul m;
};

static void matmul_unit(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct matmul_job *job = arg;
    job->k->matmul(&job->m, begin, end);
}

struct ffn_job {
    const struct kernels *k;
    struct ffn f;
    int stage;
};

static void ffn_unit(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct ffn_job *job = arg;
    job->k->ffn(&job->f, job->stage, begin, end);
}

static void ints_rows(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct bench *b = arg;
    for (int r = begin; r < end; r++) {
        size_t at = (size_t)r * D_MODEL;
        b->k->ints(b->x + at, D_MODEL, (uint16_t *)b->x_ints + at);
    }
}

/* The rows made integers, as the engine does once a layer; NULL: few, or not wanted. */
static const void *ints_of(struct bench *b, int n_row)
{
    if (!b->int_rows || !b->k->ints || n_row < INTS_ROWS)
        return NULL;
    team_run(b->team, ints_rows, b, n_row, 16);
    return b->x_ints;
}

/* With --cpu-time the calling thread's own time, which a busy machine does not stretch so much. */
static int64_t bench_now(const struct bench *b)
{
    if (!b->cpu_time)
        return clock_now(&clock_real);
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static struct packed weights_at(const struct bench *b, const void *data, int n, int k)
{
    return (struct packed){.data = data,
                           .dtype = b->dtype,
                           .n = n,
                           .k = k,
                           .group = b->group,
                           .int_rows = b->int_rows};
}

static size_t weights_bytes(const struct bench *b, int n, int k)
{
    return b->group ? packed_quant_bytes(b->dtype, n, k, b->group) : packed_bytes(b->dtype, n, k);
}

/* Weights drawn from a pattern are as slow as any; finite and not denormal is what matters. */
static int bench_init(struct bench *b)
{
    b->matrix_bytes = weights_bytes(b, D_MODEL, D_MODEL);
    size_t expert_bytes = 2 * weights_bytes(b, D_FF, D_MODEL) + weights_bytes(b, D_MODEL, D_FF);
    b->weights_bytes = N_EXPERT * expert_bytes;
    b->weights = mem_map(b->weights_bytes);
    b->x = mem_map((size_t)MAX_ROWS * D_MODEL * 2);
    b->x_ints = mem_map((size_t)MAX_ROWS * D_MODEL * 2);
    b->h = mem_map((size_t)MAX_ROWS * TOP_K * D_FF * 2);
    b->y = mem_map((size_t)MAX_ROWS * TOP_K * D_MODEL * 4);
    b->row = mem_map((size_t)MAX_ROWS * TOP_K * sizeof *b->row);
    if (!b->weights || !b->x || !b->x_ints || !b->h || !b->y || !b->row)
        return -1;
    for (size_t i = 0; i < b->weights_bytes / 2; i++)
        ((uint16_t *)(void *)b->weights)[i] = (uint16_t)(0x3c00u + (i * 7919u & 0x81ffu));
    for (size_t i = 0; i < (size_t)MAX_ROWS * D_MODEL; i++)
        b->x[i] = f32_to_bf16((float)rng_uniform(SEED, 0, i) - 0.5f);
    size_t part = weights_bytes(b, D_FF, D_MODEL);
    for (int e = 0; e < N_EXPERT; e++) {
        const unsigned char *w = b->weights + (size_t)e * expert_bytes;
        b->expert[e].gate = weights_at(b, w, D_FF, D_MODEL);
        b->expert[e].up = weights_at(b, w + part, D_FF, D_MODEL);
        b->expert[e].down = weights_at(b, w + 2 * part, D_MODEL, D_FF);
    }
    return 0;
}

/* What one measured run moved and computed. */
struct work {
    double bytes, flop, ns;
};

static struct work run_matmul(struct bench *b, int n_row, int n_matrix)
{
    size_t n_all = b->weights_bytes / b->matrix_bytes;
    int64_t start = bench_now(b);
    for (int i = 0; i < n_matrix; i++) {
        size_t at = (size_t)b->next++ % n_all;
        struct packed w = weights_at(b, b->weights + at * b->matrix_bytes, D_MODEL, D_MODEL);
        struct matmul_job job = {.k = b->k,
                                 .m = {.x = b->x,
                                       .x_ints = ints_of(b, n_row),
                                       .ldx = D_MODEL,
                                       .n_row = n_row,
                                       .w = &w,
                                       .y = b->y,
                                       .y_dtype = DTYPE_F32,
                                       .ldy = D_MODEL}};
        team_run(b->team, matmul_unit, &job, b->k->matmul_units(&job.m), 1);
    }
    int64_t ns = bench_now(b) - start;
    return (struct work){.bytes = (double)n_matrix * (double)b->matrix_bytes,
                         .flop = 2.0 * n_matrix * n_row * D_MODEL * D_MODEL,
                         .ns = (double)ns};
}

/* n_row tokens, TOP_K different experts each, sorted by expert. */
static int route(struct bench *b, int n_row, int layer)
{
    static unsigned char chosen[MAX_ROWS][N_EXPERT];
    memset(chosen, 0, sizeof chosen);
    for (int r = 0; r < n_row; r++) {
        uint64_t draw = 0;
        for (int n = 0; n < TOP_K; draw++) {
            double u = rng_uniform(SEED, (uint64_t)layer * MAX_ROWS + (uint64_t)r, draw);
            int e = (int)(u * N_EXPERT);
            n += !chosen[r][e];
            chosen[r][e] = 1;
        }
    }
    int n_seg = 0, n = 0;
    for (int e = 0; e < N_EXPERT; e++) {
        int begin = n;
        for (int r = 0; r < n_row; r++) {
            if (chosen[r][e])
                b->row[n++] = r;
        }
        if (n > begin)
            b->seg[n_seg++] = (struct ffn_segment){&b->expert[e], begin, n};
    }
    return n_seg;
}

static struct work run_ffn(struct bench *b, int n_row, int n_layer)
{
    struct work work = {0};
    for (int i = 0; i < n_layer; i++) {
        int n_seg = route(b, n_row, b->next++);
        struct ffn_job job = {.k = b->k,
                              .f = {.act = ACT_SILU,
                                    .d_model = D_MODEL,
                                    .d_ff = D_FF,
                                    .seg = b->seg,
                                    .n_seg = n_seg,
                                    .x = b->x,
                                    .ldx = D_MODEL,
                                    .row = b->row,
                                    .h = b->h,
                                    .y = b->y,
                                    .y_dtype = DTYPE_BF16,
                                    .ldy = D_MODEL}};
        int64_t start = bench_now(b);
        job.f.x_ints = ints_of(b, n_row);
        for (job.stage = 0; job.stage < 2; job.stage++)
            team_run(b->team, ffn_unit, &job, b->k->ffn_units(&job.f, job.stage), 1);
        work.ns += (double)(bench_now(b) - start);
        work.bytes += (double)n_seg * (double)(b->weights_bytes / N_EXPERT);
        work.flop += 6.0 * n_row * TOP_K * D_MODEL * D_FF;
    }
    return work;
}

static struct work run_read(struct bench *b)
{
    struct probe probe = {.data = b->weights, .isa = b->k->isa};
    int n_unit = (int)(b->weights_bytes / READ_UNIT);
    int64_t start = bench_now(b);
    team_run(b->team, read_units, &probe, n_unit, 1);
    return (struct work){.bytes = (double)n_unit * READ_UNIT, .ns = (double)(bench_now(b) - start)};
}

static struct work run_fma(struct bench *b)
{
    struct probe probe = {.isa = b->k->isa, .bytes = b->int_rows};
    int n_unit = 4 * team_size(b->team);
    int64_t start = bench_now(b);
    team_run(b->team, fma_units, &probe, n_unit, 1);
    return (struct work){.flop = n_unit * probe_flop(&probe), .ns = (double)(bench_now(b) - start)};
}

/* ---- figures -------------------------------------------------------------------------------- */

enum kind { READ, FMA, MATMUL, FFN };

/* Figures, in the order of a round. n_time: matrices or layers, so that a run is long enough. */
static const struct line {
    const char *name;
    enum kind kind;
    int n_row, n_time;
} lines[] = {
    {"read", READ, 0, 0},        {"fma", FMA, 0, 0},           {"matmul 1", MATMUL, 1, 48},
    {"matmul 4", MATMUL, 4, 48}, {"matmul 16", MATMUL, 16, 8}, {"matmul 512", MATMUL, 512, 1},
    {"ffn 1", FFN, 1, 8},        {"ffn 8", FFN, 8, 2},         {"ffn 16", FFN, 16, 1},
    {"ffn 32", FFN, 32, 1},      {"ffn 64", FFN, 64, 1},       {"ffn 512", FFN, 512, 1},
    {"ffn 2048", FFN, 2048, 1},
};
#define N_LINE ((int)(sizeof lines / sizeof *lines))

struct samples {
    double rate_bytes[MAX_ROUND], rate_flop[MAX_ROUND], per_s[MAX_ROUND];
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median, or with --best the largest: what a shared machine gives in its quiet moments. */
static double typical(const struct bench *b, double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return b->best ? v[n - 1] : v[n / 2];
}

static struct work run_line(struct bench *b, const struct line *line)
{
    switch (line->kind) {
    case READ:
        return run_read(b);
    case FMA:
        return run_fma(b);
    case MATMUL:
        return run_matmul(b, line->n_row, line->n_time);
    default:
        return run_ffn(b, line->n_row, line->n_time);
    }
}

/* Limits are always measured. */
static int chosen(const struct bench *b, const struct line *line)
{
    return line->kind == READ || line->kind == FMA || strstr(line->name, b->only) != NULL;
}

static void print_figures(const struct bench *b, struct samples *s, int n_round, int json)
{
    double read = typical(b, s[READ].rate_bytes, n_round);
    double fma = typical(b, s[FMA].rate_flop, n_round);
    if (!json)
        printf("%s, %s weights, %s rows, %d thread%s\n%-12s %10s %8s %10s %9s\n", b->k->name,
               dtype_name(b->dtype), b->int_rows ? "int8" : "bf16", team_size(b->team),
               team_size(b->team) == 1 ? "" : "s", "", "us", "GB/s", "GFLOP/s", "of limit");
    for (int i = 0; i < N_LINE; i++) {
        if (!chosen(b, &lines[i]))
            continue;
        double bytes = typical(b, s[i].rate_bytes, n_round);
        double flop = typical(b, s[i].rate_flop, n_round);
        double us = 1e6 / typical(b, s[i].per_s, n_round);
        double share = fmax(bytes / read, flop / fma);
        if (json)
            printf("{\"isa\": \"%s\", \"weights\": \"%s\", \"rows\": \"%s\", \"threads\": %d, "
                   "\"case\": \"%s\", "
                   "\"us\": %.1f, "
                   "\"gb_s\": %.2f, \"gflop_s\": %.1f, \"of_limit\": %.3f}\n",
                   b->k->name, dtype_name(b->dtype), b->int_rows ? "int8" : "bf16",
                   team_size(b->team), lines[i].name, us, bytes, flop, share);
        else
            printf("%-12s %10.1f %8.2f %10.1f %8.0f%%\n", lines[i].name, us, bytes, flop,
                   100.0 * share);
    }
}

/* One round measures every line once, so that slow minutes of the machine touch all alike. */
static void measure(struct bench *b, int n_round, int json)
{
    static struct samples samples[N_LINE];
    for (int round = -1; round < n_round; round++) {
        for (int i = 0; i < N_LINE; i++) {
            if (!chosen(b, &lines[i]))
                continue;
            struct work w = run_line(b, &lines[i]);
            if (round < 0)
                continue; /* warms up pages and clocks */
            samples[i].rate_bytes[round] = w.bytes / w.ns;
            samples[i].rate_flop[round] = w.flop / w.ns;
            samples[i].per_s[round] = (lines[i].n_time > 0 ? lines[i].n_time : 1) * 1e9 / w.ns;
        }
    }
    print_figures(b, samples, n_round, json);
}

int main(int argc, char **argv)
{
    int64_t threads = 0, rounds = 5;
    int json = 0, n_positional = 0;
    const char *weights = "bf16", *rows = "int8";
    static struct bench b = {.only = ""};
    const struct opt opts[] = {
        {"threads", 't', OPT_INT, &threads, "N", "threads; default: 1, then all CPUs", 0, 1024},
        {"rounds", 'r', OPT_INT, &rounds, "N", "rounds of which medians are taken, default 5", 1,
         MAX_ROUND},
        {"weights", 'w', OPT_STR, &weights, "KIND",
         "bf16 (default), int8 (groups of 128), int4 (of 32)", 0, 0},
        {"rows", 0, OPT_STR, &rows, "KIND",
         "rows that meet int8 and int4: int8 (default) or bf16, as they come", 0, 0},
        {"only", 0, OPT_STR, &b.only, "TEXT", "cases whose name holds it: 'ffn', 'matmul 16'", 0,
         0},
        {"best", 0, OPT_FLAG, &b.best, NULL, "the best of the rounds instead of the median", 0, 0},
        {"cpu-time", 0, OPT_FLAG, &b.cpu_time, NULL,
         "time of the thread instead of the clock; one thread, for a busy machine", 0, 0},
        {"json", 0, OPT_FLAG, &json, NULL, "one JSON object a line", 0, 0},
        {0},
    };
    const struct opt_command command = {
        .name = "kernels_bench",
        .usage = "kernels_bench [options]",
        .about = "Measures matrix products and expert FFNs against the memory bandwidth and the\n"
                 "multiply-add peak of this machine. Needs 0.8 GiB.",
        .opts = opts,
    };
    struct err err = {0};
    int rc = opt_parse(&command, argc, argv, NULL, &n_positional, &err);
    b.dtype = strcmp(weights, "int8") == 0   ? DTYPE_I8
              : strcmp(weights, "int4") == 0 ? DTYPE_I4
                                             : DTYPE_BF16;
    b.group = b.dtype == DTYPE_I8 ? 128 : b.dtype == DTYPE_I4 ? 32 : 0;
    if (rc == 0 && b.group == 0 && strcmp(weights, "bf16") != 0)
        rc = err_set(&err, ERR_USAGE, "--weights '%s': give bf16, int8 or int4", weights);
    if (rc == 0 && strcmp(rows, "int8") != 0 && strcmp(rows, "bf16") != 0)
        rc = err_set(&err, ERR_USAGE, "--rows '%s': give int8 or bf16", rows);
    b.int_rows = b.group && strcmp(rows, "int8") == 0;
    if (rc == 0)
        rc = kernels_open(&b.k, &err);
    if (rc == 0 && bench_init(&b))
        rc = err_set(&err, ERR_NOMEM, "no memory for %d experts of weights", N_EXPERT);
    if (rc != 0) {
        if (rc < 0)
            fprintf(stderr, "kernels_bench: %s\n", err.text);
        return rc < 0 ? err_exit_code(rc) : 0;
    }
    if (b.cpu_time)
        threads = 1;
    int n_cpu = cpu_count(), first = threads > 0 ? (int)threads : 1;
    for (int n = first; n <= (threads > 0 ? first : n_cpu); n = n < n_cpu ? n_cpu : n_cpu + 1) {
        b.team = team_create(n, -1);
        if (!b.team)
            return 1;
        measure(&b, (int)rounds, json);
        team_destroy(b.team);
        if (threads > 0)
            break;
    }
    return 0;
}
