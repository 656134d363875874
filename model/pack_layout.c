/* pack_layout: a hash of what packing does, so that no version number has to be raised, or is
 * forgotten, when a layout changes: a few odd-sized rows of every kind go through the very jobs
 * that pack a model, and their bytes are hashed. */
#include "base/arena.h"
#include "model/pack_job.h"

#include <stdlib.h>
#include <string.h>

/* Odd: a panel and a bit, groups and a bit. */
#define PROBE_N     (PANEL + 3)
#define PROBE_K     301
#define PROBE_GROUP 128

struct probe {
    uint16_t floats[PROBE_N * PROBE_K];
    uint32_t word[PROBE_N * PROBE_K];
    uint16_t scale[PROBE_N * PROBE_K];
    uint64_t hash;
};

static void probe_fill(struct probe *p, enum dtype dtype)
{
    int8_t q[PROBE_K];
    int most = dtype == DTYPE_I4 ? 7 : 127, words = quant_words(dtype, PROBE_K);
    for (int i = 0; i < PROBE_N * PROBE_K; i++) {
        p->floats[i] = f32_to_bf16((float)(i % 509 - 254));
        p->scale[i] = f32_to_bf16((float)(i % 251 + 1));
    }
    for (int r = 0; r < PROBE_N && most; r++) {
        for (int i = 0; i < PROBE_K; i++)
            q[i] = (int8_t)((r * 37 + i * 11) % (2 * most + 1) - most);
        quant_pack_row(q, PROBE_K, dtype, p->word + (size_t)r * (size_t)words);
    }
}

static int probe_run(struct probe *p, enum dtype dtype, int group)
{
    int integer = dtype == DTYPE_I8 || dtype == DTYPE_I4;
    size_t bytes = integer ? packed_quant_bytes(dtype, PROBE_N, PROBE_K, group)
                           : packed_bytes(dtype, PROBE_N, PROBE_K);
    void *data = bytes ? mem_map(bytes) : NULL;
    struct tensor src = {.dtype = DTYPE_BF16, .data = p->floats};
    struct tensor packed = {.dtype = DTYPE_I32, .data = p->word};
    struct tensor scale = {.dtype = DTYPE_BF16,
                           .dim = {PROBE_N, (uint64_t)quant_groups(PROBE_K, group ? group : 32)},
                           .data = p->scale};
    struct pack_job job = {
        .src = &src, .data = data, .dtype = dtype, .n = PROBE_N, .k = PROBE_K, .n_row = PROBE_N};
    if (integer) {
        probe_fill(p, dtype);
        job.quant = (struct quant_source){&packed, &scale, dtype, PROBE_N, PROBE_K, group};
    }
    int rc = data ? pack_jobs_run(&job, 1, NULL, NULL, NULL, NULL) : -1;
    if (rc == 0)
        p->hash = hash_bytes64(data, bytes, p->hash);
    mem_unmap(data, bytes);
    return rc;
}

uint64_t pack_layout_hash(void)
{
    struct probe *p = calloc(1, sizeof(*p));
    if (!p)
        return 0;
    probe_fill(p, DTYPE_I8);
    int rc = probe_run(p, DTYPE_F32, 0);
    rc = rc ? rc : probe_run(p, DTYPE_BF16, 0);
    rc = rc ? rc : probe_run(p, DTYPE_I8, PROBE_GROUP);
    rc = rc ? rc : probe_run(p, DTYPE_I8, K_BLOCK);
    rc = rc ? rc : probe_run(p, DTYPE_I4, PROBE_GROUP);
    rc = rc ? rc : probe_run(p, DTYPE_I4, K_BLOCK);
    uint64_t hash = rc ? 0 : p->hash;
    free(p);
    return hash;
}

uint64_t pack_jobs_hash(const struct pack_job *job, int n_job, const void *base, uint64_t layout)
{
    if (layout == 0)
        return 0;
    for (int i = 0; i < n_job; i++) {
        const struct pack_job *j = &job[i];
        int64_t place[] = {(const unsigned char *)j->data - (const unsigned char *)base,
                           j->dtype,
                           j->n,
                           j->k,
                           j->row,
                           j->n_row,
                           j->src_row,
                           j->quant.group};
        layout = hash_bytes64(place, sizeof(place), layout);
        layout = hash_bytes64(j->src->name, strlen(j->src->name), layout);
    }
    return layout;
}
