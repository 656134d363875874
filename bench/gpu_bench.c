/* gpu_bench: what the experts' feed-forward reaches on a CUDA device, of what the device gives
 * (gpu_limits.h, measured in the same run): bytes of the experts that have rows over its read, or
 * multiply-adds over the products of bytes (rows of integers) or of f32 (THE SUM), whichever share
 * is larger. An expert is one of OLMoE-1B-7B, 64 of them, eight a row; each batch draws others, so
 * that few are met warm. Kernels alone, and as a worker has them, with the copies there and back.
 */
#include "base/arena.h"
#include "base/clock.h"
#include "base/opt.h"
#include "base/rng.h"
#include "base/team.h"
#include "bench/gpu_limits.h"
#include "worker/gpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define D_MODEL    2048
#define D_FF       1024
#define N_EXPERT   64
#define TOP_K      8
#define MAX_ROWS   4096
#define MAX_ROUND  101
#define SEED       7
#define READ_BYTES ((size_t)2 << 30)

static const struct kind {
    const char *name;
    enum dtype dtype;
    int group, int_rows;
} kinds[] = {{"int4:32", DTYPE_I4, 32, 1},
             {"int8:128", DTYPE_I8, 128, 1},
             {"int8:32", DTYPE_I8, 32, 1},
             {"bf16", DTYPE_BF16, 0, 0}};
static const int batch[] = {1, 4, 16, 64, 512, 2048};

struct bench {
    struct gpu *g;
    struct team *team;
    const struct kind *kind;
    size_t matrix_bytes;
    struct ffn_weights expert[N_EXPERT];
    struct ffn_segment seg[N_EXPERT];
    int32_t *row;
    uint16_t *x, *y;
    uint64_t next;
    int n_seg, n_assign;
};

static struct packed matrix_of(const struct kind *k, int n, int depth)
{
    return (struct packed){
        .dtype = k->dtype, .n = n, .k = depth, .group = k->group, .int_rows = k->int_rows};
}

static size_t bytes_of(const struct packed *w)
{
    return w->group ? packed_quant_bytes(w->dtype, w->n, w->k, w->group)
                    : packed_bytes(w->dtype, w->n, w->k);
}

/* Weights of a pattern are as slow as any; finite and not denormal is what matters. */
static int experts_make(struct bench *b, struct err *err)
{
    const struct expert_home *home = gpu_home(b->g);
    struct packed shape[3] = {matrix_of(b->kind, D_FF, D_MODEL), matrix_of(b->kind, D_FF, D_MODEL),
                              matrix_of(b->kind, D_MODEL, D_FF)};
    size_t most =
        bytes_of(&shape[0]) > bytes_of(&shape[2]) ? bytes_of(&shape[0]) : bytes_of(&shape[2]);
    uint16_t *data = mem_map(most);
    if (!data)
        return err_set(err, ERR_NOMEM, "no memory for a matrix");
    for (size_t i = 0; i < most / 2; i++)
        data[i] = (uint16_t)(0x3c00u + (i * 7919u & 0x81ffu));
    for (int e = 0; e < N_EXPERT; e++)
        for (int i = 0; i < 3; i++) {
            struct packed *w = i == 0   ? &b->expert[e].gate
                               : i == 1 ? &b->expert[e].up
                                        : &b->expert[e].down;
            *w = shape[i];
            w->data = home->take(home->user, data, bytes_of(&shape[i]), err);
            if (!w->data)
                return ERR_NOMEM;
        }
    mem_unmap(data, most);
    b->matrix_bytes = bytes_of(&shape[0]) * 2 + bytes_of(&shape[2]);
    return 0;
}

static void experts_free(struct bench *b)
{
    const struct expert_home *home = gpu_home(b->g);
    for (int e = 0; e < N_EXPERT; e++) {
        struct packed *w[3] = {&b->expert[e].gate, &b->expert[e].up, &b->expert[e].down};
        for (int i = 0; i < 3; i++)
            if (w[i]->data)
                home->give(home->user, (void *)(uintptr_t)w[i]->data, bytes_of(w[i]));
    }
    memset(b->expert, 0, sizeof(b->expert));
}

static void route(struct bench *b, int n_row)
{
    static unsigned char chosen[MAX_ROWS][N_EXPERT];
    memset(chosen, 0, sizeof(chosen));
    b->next++;
    for (int r = 0; r < n_row; r++) {
        uint64_t draw = 0;
        for (int n = 0; n < TOP_K; draw++) {
            double u = rng_uniform(SEED, b->next * MAX_ROWS + (uint64_t)r, draw);
            int e = (int)(u * N_EXPERT);
            n += !chosen[r][e];
            chosen[r][e] = 1;
        }
    }
    b->n_seg = b->n_assign = 0;
    for (int e = 0; e < N_EXPERT; e++) {
        int begin = b->n_assign;
        for (int r = 0; r < n_row; r++)
            if (chosen[r][e])
                b->row[b->n_assign++] = r;
        if (b->n_assign > begin)
            b->seg[b->n_seg++] = (struct ffn_segment){&b->expert[e], begin, b->n_assign};
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof(*v), by_value);
    return v[n / 2];
}

static int measure(struct bench *b, int n_row, int n_round, const struct gpu_limits *limits,
                   int json, struct err *err)
{
    double kernels[MAX_ROUND], whole[MAX_ROUND], bytes[MAX_ROUND];
    for (int i = -1; i < n_round; i++) {
        route(b, n_row);
        struct ffn f = {.act = ACT_SILU,
                        .d_model = D_MODEL,
                        .d_ff = D_FF,
                        .seg = b->seg,
                        .n_seg = b->n_seg,
                        .x = b->x,
                        .ldx = D_MODEL,
                        .row = b->row,
                        .y = b->y,
                        .y_dtype = DTYPE_BF16,
                        .ldy = D_MODEL};
        int64_t start = clock_now(&clock_real);
        int rc = gpu_ffn(b->g, &f, n_row, b->team, err);
        if (rc)
            return rc;
        if (i < 0)
            continue; /* makes room, and warms the clocks */
        whole[i] = (double)(clock_now(&clock_real) - start);
        kernels[i] = gpu_kernels_ns(b->g);
        bytes[i] = (double)b->n_seg * (double)b->matrix_bytes;
    }
    double us = median(kernels, n_round) / 1e3, gb_s = median(bytes, n_round) / us / 1e3;
    double top_s = 6.0 * n_row * TOP_K * D_MODEL * D_FF / us / 1e6;
    double peak = b->kind->int_rows ? limits->bytes_top_s : limits->fma_tflop_s;
    double share = fmax(gb_s / limits->read_gb_s, top_s / peak);
    printf(json ? "{\"weights\": \"%s\", \"rows\": %d, \"whole_us\": %.1f, \"kernels_us\": %.1f, "
                  "\"gb_s\": %.1f, \"top_s\": %.2f, \"of_limit\": %.3f}\n"
                : "%-9s %6d %10.1f %10.1f %9.1f %9.2f %9.2f\n",
           b->kind->name, n_row, median(whole, n_round) / 1e3, us, gb_s, top_s, share);
    return 0;
}

static int run(struct bench *b, int n_round, const char *only, int json, struct err *err)
{
    struct gpu_limits limits;
    if (gpu_limits_measure(READ_BYTES, &limits))
        return err_set(err, ERR_IO, "the device's limits cannot be measured");
    if (json)
        printf("{\"device\": \"%s\", \"read_gb_s\": %.0f, \"bytes_top_s\": %.0f, "
               "\"fma_tflop_s\": %.1f}\n",
               gpu_name(b->g), limits.read_gb_s, limits.bytes_top_s, limits.fma_tflop_s);
    else
        printf("%s: reads %.0f GB/s, products of bytes %.0f TOP/s, multiply-adds of f32 %.1f "
               "TFLOP/s\n%-9s %6s %10s %10s %9s %9s %9s\n",
               gpu_name(b->g), limits.read_gb_s, limits.bytes_top_s, limits.fma_tflop_s, "weights",
               "rows", "whole us", "kernels us", "GB/s", "TOP/s", "of limit");
    int rc = 0;
    for (int k = 0; k < (int)(sizeof(kinds) / sizeof(*kinds)) && rc == 0; k++) {
        b->kind = &kinds[k];
        if (!strstr(b->kind->name, only))
            continue;
        rc = experts_make(b, err);
        for (int i = 0; i < (int)(sizeof(batch) / sizeof(*batch)) && rc == 0; i++)
            rc = measure(b, batch[i], n_round, &limits, json, err);
        experts_free(b);
    }
    return rc;
}

int main(int argc, char **argv)
{
    int64_t rounds = 21, device = 0;
    int json = 0, n_positional = 0;
    const char *only = "";
    static struct bench b;
    const struct opt opts[] = {
        {"device", 'd', OPT_INT, &device, "N", "which device (default 0)", 0, 1023},
        {"rounds", 'r', OPT_INT, &rounds, "N", "rounds of which medians are taken (default 21)", 1,
         MAX_ROUND},
        {"only", 0, OPT_STR, &only, "TEXT", "weights whose name holds it: int8, bf16", 0, 0},
        {"json", 0, OPT_FLAG, &json, NULL, "one JSON object a line", 0, 0},
        {0},
    };
    const struct opt_command command = {
        .name = "gpu_bench",
        .usage = "gpu_bench [options]",
        .about =
            "Measures experts' feed-forward on a CUDA device against its memory's read and its\n"
            "multiply-add peaks. Needs 3 GiB there.",
        .opts = opts,
    };
    struct err err = {0};
    int rc = opt_parse(&command, argc, argv, NULL, &n_positional, &err);
    rc = rc ? rc : gpu_open((int)device, &b.g, &err);
    if (rc == 0) {
        b.team = team_create(0, -1);
        b.row = mem_map((size_t)MAX_ROWS * TOP_K * sizeof(*b.row));
        b.x = mem_map((size_t)MAX_ROWS * D_MODEL * 2);
        b.y = mem_map((size_t)MAX_ROWS * TOP_K * D_MODEL * 2);
        if (!b.team || !b.row || !b.x || !b.y)
            rc = err_set(&err, ERR_NOMEM, "no memory for %d rows", MAX_ROWS);
    }
    for (size_t i = 0; rc == 0 && i < (size_t)MAX_ROWS * D_MODEL; i++)
        b.x[i] = f32_to_bf16((float)rng_uniform(SEED, 0, i) - 0.5f);
    rc = rc ? rc : run(&b, (int)rounds, only, json, &err);
    if (rc < 0)
        fprintf(stderr, "gpu_bench: %s\n", err.text);
    gpu_close(b.g);
    return rc < 0 ? err_exit_code(rc) : 0;
}
