/* attention_bench: what attention reaches of what this machine gives, in decode (the bytes of KV
 * that a step reads) and in prefill (FLOP). Both limits are measured in the same run, turn by turn
 * with the kernels; a case's limit is the larger of bytes / bandwidth and FLOP / peak, and its
 * figure the share of that limit it reaches. KV is far larger than the caches and met in turn, as
 * the layers of a model are. Medians over the rounds. SIGMOE_ISA picks the instruction set. */
#include "base/arena.h"
#include "base/clock.h"
#include "base/opt.h"
#include "base/team.h"
#include "bench/limits.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define D_HEAD    128
#define N_HEAD    16
#define MAX_ROWS  2048
#define MAX_BATCH 8
#define MAX_DEPTH 16384
#define MAX_ROUND 64
/* Of K, and of V: eight sequences at the greatest depth, 16 heads of bf16. */
#define POOL_BYTES ((size_t)MAX_BATCH * MAX_DEPTH * N_HEAD * D_HEAD * 2)
/* A case of less is repeated with other KV until it has read as much, or computed long enough. */
#define CASE_BYTES 1.5e8
#define CASE_FLOP  4e9

/* OLMoE-1B-7B has as many KV heads as heads, Qwen3-MoE four heads to one. */
static const struct line {
    int n_kv_head, batch, depth, n_row;
} lines[] = {
    {16, 1, 512, 1}, {16, 1, 4096, 1}, {16, 1, 16384, 1}, {16, 8, 512, 1}, {16, 8, 4096, 1},
    {4, 1, 512, 1},  {4, 1, 4096, 1},  {4, 1, 16384, 1},  {4, 8, 4096, 1}, {1, 1, 4096, 1},
    {16, 1, 0, 512}, {16, 1, 0, 2048}, {4, 1, 0, 512},    {4, 1, 0, 2048}, {4, 1, 4096, 512},
};
#define N_LINE ((int)(sizeof lines / sizeof *lines))

struct bench {
    const struct kernels *k;
    struct team *team;
    enum dtype dtype; /* of KV */
    unsigned char *pool_k, *pool_v;
    size_t next; /* the page of the pool that comes next */
    float *q;
    uint16_t *out;
    void *scratch;
    size_t scratch_bytes;
    int32_t page[MAX_BATCH][MAX_DEPTH / KV_PAGE];
};

struct attn_job {
    const struct kernels *k;
    const struct attn *a;
    int stage;
};

static void attn_units(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct attn_job *job = arg;
    job->k->attn(job->a, job->stage, begin, end);
}

/* What a case moves and computes, or did. */
struct work {
    double bytes, flop, ns;
};

static struct work line_work(const struct line *l, enum dtype dtype)
{
    struct kv_layout kv = {dtype, l->n_kv_head, D_HEAD};
    double keys = l->n_row * (double)l->depth + 0.5 * l->n_row * (l->n_row + 1.0);
    double pages = (l->depth + l->n_row + KV_PAGE - 1) / KV_PAGE;
    return (struct work){.bytes = 2.0 * l->batch * pages * (double)kv_page_bytes(&kv),
                         .flop = 4.0 * l->batch * keys * N_HEAD * D_HEAD};
}

static int times_of(const struct line *l, enum dtype dtype)
{
    struct work w = line_work(l, dtype);
    double share = fmax(w.bytes / CASE_BYTES, w.flop / CASE_FLOP);
    return share >= 1.0 ? 1 : (int)ceil(1.0 / share);
}

/* Pages that have not been met for long. */
static void take_pages(struct bench *b, const struct line *l, size_t page_bytes,
                       struct attn_span *span)
{
    size_t n_pool = POOL_BYTES / page_bytes,
           n = (size_t)(l->depth + l->n_row + KV_PAGE - 1) / KV_PAGE;
    for (int s = 0; s < l->batch; s++) {
        for (size_t i = 0; i < n; i++) {
            b->page[s][i] = (int32_t)(b->next++ % n_pool);
        }
        span[s] = (struct attn_span){s * l->n_row, (s + 1) * l->n_row, l->depth, b->page[s]};
    }
}

/* Room for the scratch of a call; -1 where there is none. */
static int scratch_grow(struct bench *b, size_t bytes)
{
    if (bytes <= b->scratch_bytes) {
        return 0;
    }
    free(b->scratch);
    b->scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    b->scratch_bytes = b->scratch ? bytes : 0;
    return b->scratch ? 0 : -1;
}

static struct work run_line(struct bench *b, const struct line *l)
{
    struct attn_span span[MAX_BATCH];
    struct attn a = {.kv = {b->dtype, l->n_kv_head, D_HEAD},
                     .k_base = b->pool_k,
                     .v_base = b->pool_v,
                     .n_head = N_HEAD,
                     .scale = 0.088f,
                     .q = b->q,
                     .ldq = N_HEAD * D_HEAD,
                     .span = span,
                     .n_span = l->batch,
                     .out = b->out,
                     .out_dtype = DTYPE_BF16,
                     .ldo = N_HEAD * D_HEAD};
    struct work one = line_work(l, b->dtype), sum = {0};
    a.kv_page_stride = kv_page_bytes(&a.kv);
    for (int i = times_of(l, b->dtype); i > 0; i--) {
        take_pages(b, l, a.kv_page_stride, span);
        if (scratch_grow(b, b->k->attn_scratch_bytes(&a))) {
            fprintf(stderr, "attention_bench: no memory for scratch\n");
            exit(1);
        }
        a.scratch = b->scratch;
        struct attn_job job = {.k = b->k, .a = &a};
        int64_t start = clock_now(&clock_real);
        for (job.stage = 0; job.stage < 2; job.stage++) {
            team_run(b->team, attn_units, &job, b->k->attn_units(&a, job.stage), 1);
        }
        sum.ns += (double)(clock_now(&clock_real) - start);
        sum.bytes += one.bytes;
        sum.flop += one.flop;
    }
    return sum;
}

/* ---- limits ---- */

static struct work run_read(const struct bench *b)
{
    struct probe probe = {.data = b->pool_k, .isa = b->k->isa};
    int n = (int)(POOL_BYTES / 2 / READ_UNIT);
    int64_t start = clock_now(&clock_real);
    team_run(b->team, read_units, &probe, n, 1);
    return (struct work){.bytes = (double)n * READ_UNIT,
                         .ns = (double)(clock_now(&clock_real) - start)};
}

static struct work run_fma(const struct bench *b, enum isa isa)
{
    struct probe probe = {.isa = isa};
    int n = 2 * team_size(b->team);
    int64_t start = clock_now(&clock_real);
    team_run(b->team, fma_units, &probe, n, 1);
    return (struct work){.flop = n * probe_flop(&probe),
                         .ns = (double)(clock_now(&clock_real) - start)};
}

/* ---- figures ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

static void name_of(const struct line *l, char *out, size_t size)
{
    if (l->n_row == 1) {
        snprintf(out, size, "decode  heads %d/%-2d batch %d depth %5d", N_HEAD, l->n_kv_head,
                 l->batch, l->depth);
    } else {
        snprintf(out, size, "prefill heads %d/%-2d %4d at depth %5d", N_HEAD, l->n_kv_head,
                 l->n_row, l->depth);
    }
}

static void print_line(const struct bench *b, const struct line *l, double ns, double read,
                       double peak, int json)
{
    char name[80];
    struct work w = line_work(l, b->dtype);
    double gb = w.bytes / ns, gflop = w.flop / ns, share = fmax(gb / read, gflop / peak);
    name_of(l, name, sizeof name);
    if (json) {
        printf("{\"isa\": \"%s\", \"kv\": \"%s\", \"threads\": %d, \"case\": \"%s\", \"us\": %.1f, "
               "\"gb_s\": %.2f, \"gflop_s\": %.1f, \"of_limit\": %.3f}\n",
               b->k->name, dtype_name(b->dtype), team_size(b->team), name, ns / 1e3, gb, gflop,
               share);
    } else {
        printf("%-40s %9.1f %7.2f %5.0f%% %9.1f %5.0f%% %8.0f%%\n", name, ns / 1e3, gb,
               100.0 * gb / read, gflop, 100.0 * gflop / peak, 100.0 * share);
    }
}

/* One round measures everything once, so that slow minutes of the machine touch all alike. */
static void measure(struct bench *b, int n_round, const char *only, int json)
{
    static double read[MAX_ROUND], fma[MAX_ROUND], peak[MAX_ROUND], ns[N_LINE][MAX_ROUND];
    enum isa vectors = b->k->isa == ISA_AMX ? ISA_AVX512 : b->k->isa;
    for (int round = -1; round < n_round; round++) {
        int at = round < 0 ? 0 : round; /* the first warms up pages and clocks */
        struct work r = run_read(b), f = run_fma(b, vectors), p = run_fma(b, b->k->isa);
        read[at] = r.bytes / r.ns;
        fma[at] = f.flop / f.ns;
        peak[at] = p.flop / p.ns;
        for (int i = 0; i < N_LINE; i++) {
            char name[80];
            name_of(&lines[i], name, sizeof name);
            if (strstr(name, only)) {
                ns[i][at] = run_line(b, &lines[i]).ns / times_of(&lines[i], b->dtype);
            }
        }
    }
    double best_read = median(read, n_round), best_fma = median(fma, n_round);
    double best = median(peak, n_round);
    if (json) {
        printf("{\"isa\": \"%s\", \"threads\": %d, \"read_gb_s\": %.2f, \"fma_gflop_s\": %.1f, "
               "\"peak_gflop_s\": %.1f}\n",
               b->k->name, team_size(b->team), best_read, best_fma, best);
    } else {
        printf("%s, %s KV, %d thread%s: read %.1f GB/s, f32 multiply-add %.0f GFLOP/s, peak %.0f\n"
               "%-40s %9s %7s %6s %9s %6s %9s\n",
               b->k->name, dtype_name(b->dtype), team_size(b->team),
               team_size(b->team) == 1 ? "" : "s", best_read, best_fma, best, "", "us", "GB/s",
               "read", "GFLOP/s", "peak", "of limit");
    }
    for (int i = 0; i < N_LINE; i++) {
        char name[80];
        name_of(&lines[i], name, sizeof name);
        if (strstr(name, only)) {
            print_line(b, &lines[i], median(ns[i], n_round), best_read, best, json);
        }
    }
}

/* Finite values, and finite scales where KV is i8, that are not denormal. */
static int bench_init(struct bench *b)
{
    size_t n_q = (size_t)MAX_ROWS * N_HEAD * D_HEAD;
    b->pool_k = mem_map(POOL_BYTES);
    b->pool_v = mem_map(POOL_BYTES);
    b->q = mem_map(n_q * sizeof *b->q);
    b->out = mem_map(n_q * sizeof *b->out);
    if (!b->pool_k || !b->pool_v || !b->q || !b->out) {
        return -1;
    }
    for (size_t i = 0; i < POOL_BYTES / 2; i++) {
        uint16_t x = (uint16_t)(0x3c00u + (i * 7919u & 0x81ffu));
        ((uint16_t *)(void *)b->pool_k)[i] = x;
        ((uint16_t *)(void *)b->pool_v)[i] = x;
    }
    for (size_t i = 0; i < n_q; i++) {
        b->q[i] = (float)(i * 2654435761u >> 8 & 1023) / 512.0f - 1.0f;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int64_t threads = 0, rounds = 5;
    int json = 0, n_positional = 0;
    const char *kv = "bf16", *only = "";
    static struct bench b;
    const struct opt opts[] = {
        {"threads", 't', OPT_INT, &threads, "N", "threads; default: 1, then all CPUs", 0, 1024},
        {"rounds", 'r', OPT_INT, &rounds, "N", "rounds of which medians are taken, default 5", 1,
         MAX_ROUND},
        {"kv", 'k', OPT_STR, &kv, "KIND", "bf16 (default), int8 or f32", 0, 0},
        {"only", 'o', OPT_STR, &only, "TEXT", "cases whose name holds TEXT: decode, prefill, 16/4",
         0, 0},
        {"json", 0, OPT_FLAG, &json, NULL, "one JSON object a line", 0, 0},
        {0},
    };
    const struct opt_command command = {
        .name = "attention_bench",
        .usage = "attention_bench [options]",
        .about =
            "Measures attention against the memory bandwidth and the multiply-add peak of this\n"
            "machine, heads of 128. Needs 1.1 GiB.",
        .opts = opts,
    };
    struct err err = {0};
    int rc = opt_parse(&command, argc, argv, NULL, &n_positional, &err);
    b.dtype = strcmp(kv, "int8") == 0 ? DTYPE_I8 : strcmp(kv, "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    if (rc == 0 && b.dtype == DTYPE_BF16 && strcmp(kv, "bf16") != 0) {
        rc = err_set(&err, ERR_USAGE, "--kv '%s': give bf16, int8 or f32", kv);
    }
    if (rc == 0) {
        rc = kernels_open(&b.k, &err);
    }
    if (rc == 0 && bench_init(&b)) {
        rc = err_set(&err, ERR_NOMEM, "no memory for %zu MiB of KV", 2 * POOL_BYTES >> 20);
    }
    if (rc != 0) {
        if (rc < 0) {
            fprintf(stderr, "attention_bench: %s\n", err.text);
        }
        return rc < 0 ? err_exit_code(rc) : 0;
    }
    int n_cpu = cpu_count(), first = threads > 0 ? (int)threads : 1;
    for (int n = first; n <= (threads > 0 ? first : n_cpu); n = n < n_cpu ? n_cpu : n_cpu + 1) {
        b.team = team_create(n, -1);
        if (!b.team) {
            return 1;
        }
        measure(&b, (int)rounds, only, json);
        team_destroy(b.team);
        if (threads > 0) {
            break;
        }
    }
    return 0;
}
