/* attention_bench: one thread of attention in decode (how fast KV is read) and in prefill (how fast
 * it computes), for each instruction set. Times are CPU time of the thread, the best of five, with
 * KV far larger than the caches in decode; compare GB/s with a streaming read of the same machine.
 */
#include "base/team.h"
#include "kernels/kernels.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct shape {
    int n_head, n_kv_head, d_head, pos, n_row;
};

static const struct shape shapes[] = {
    {16, 16, 128, 8191, 1}, {32, 8, 128, 16383, 1}, {32, 4, 128, 16383, 1}, {32, 8, 64, 16383, 1},
    {32, 8, 80, 16383, 1},  {16, 1, 576, 16383, 1}, {16, 16, 128, 0, 512},  {32, 8, 128, 2048, 256},
};

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *memory(size_t bytes)
{
    void *p = aligned_alloc(4096, (bytes + 4096) / 4096 * 4096);
    if (p == NULL) {
        fprintf(stderr, "attention_bench: no memory for %zu MiB\n", bytes >> 20);
        exit(1);
    }
    return p;
}

/* Values in (-1, 1) of f32 or bf16, cheap to make. */
static void *filled(size_t n, enum dtype dtype)
{
    void *p = memory(n * dtype_bytes(dtype));
    for (size_t i = 0; i < n; i++) {
        float x = (float)(i * 2654435761u >> 8 & 1023) / 512.0f - 1.0f;
        if (dtype == DTYPE_BF16) {
            ((uint16_t *)p)[i] = f32_to_bf16(x);
        } else {
            ((float *)p)[i] = x;
        }
    }
    return p;
}

static double best_of_five(const struct kernels *f, const struct attn *a)
{
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        double start = cpu_seconds();
        f->attn(a, 0, 0, f->attn_units(a, 0));
        f->attn(a, 1, 0, f->attn_units(a, 1));
        double took = cpu_seconds() - start;
        best = took < best ? took : best;
    }
    return best;
}

static void report(const struct kernels *f, const struct shape *s, enum dtype dtype, double seconds)
{
    double keys = 0, n_pos = s->pos + s->n_row;
    for (int r = 0; r < s->n_row; r++) {
        keys += s->pos + r + 1;
    }
    double flop = 4.0 * keys * s->n_head * s->d_head;
    double bytes = 2.0 * n_pos * s->n_kv_head * s->d_head * (double)dtype_bytes(dtype);
    printf("%-8s %-4s heads %2d/%-2d d_head %3d position %5d rows %3d: %8.3f ms %6.1f GB/s of KV "
           "%6.1f GFLOP/s\n",
           f->name, dtype_name(dtype), s->n_head, s->n_kv_head, s->d_head, s->pos, s->n_row,
           seconds * 1e3, bytes / seconds * 1e-9, flop / seconds * 1e-9);
}

static void run(const struct kernels *f, const struct shape *s, enum dtype dtype)
{
    struct kv_layout kv = {dtype, s->n_kv_head, s->d_head};
    int n_page = (s->pos + s->n_row + KV_PAGE - 1) / KV_PAGE;
    size_t n = kv_page_bytes(&kv) / dtype_bytes(dtype) * (size_t)n_page;
    size_t width = (size_t)(s->n_head * s->d_head), n_q = width * (size_t)s->n_row;
    void *k = filled(n, dtype), *v = filled(n, dtype), *q = filled(n_q, DTYPE_F32);
    void *out = memory(n_q * sizeof(float));
    int32_t *page = memory((size_t)n_page * sizeof *page);
    for (int i = 0; i < n_page; i++) {
        page[i] = i;
    }
    struct attn_span span = {0, s->n_row, s->pos, page};
    struct attn a = {.kv = kv,
                     .k_base = k,
                     .v_base = v,
                     .kv_page_stride = kv_page_bytes(&kv),
                     .n_head = s->n_head,
                     .scale = 0.1f,
                     .q = q,
                     .ldq = width,
                     .span = &span,
                     .n_span = 1,
                     .out = out,
                     .out_dtype = DTYPE_F32,
                     .ldo = width};
    a.scratch = memory(f->attn_scratch_bytes(&a));
    report(f, s, dtype, best_of_five(f, &a));
    free(a.scratch);
    free(page);
    free(out);
    free(q);
    free(v);
    free(k);
}

int main(void)
{
    team_flush_denormals();
    for (int isa = ISA_AVX2; isa < ISA_COUNT; isa++) {
        const struct kernels *f = kernels_of((enum isa)isa);
        for (size_t i = 0; f && i < sizeof shapes / sizeof *shapes; i++) {
            run(f, &shapes[i], DTYPE_F32);
            run(f, &shapes[i], DTYPE_BF16);
        }
    }
    return 0;
}
