/* world: what the tests of the worker share: a tiny checkpoint of the tree, random rows, and
 * requests as the router would plan them (experts ascending, rows ascending within each). */
#ifndef TESTS_WORKER_WORLD_H
#define TESTS_WORKER_WORLD_H

#include "base/rng.h"
#include "model/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WORLD_ROWS_MAX    40
#define WORLD_EXPERTS_MAX 64

static inline struct model *world_model(const char *name)
{
    char dir[512];
    struct model *model = NULL;
    struct err err = {0};
    snprintf(dir, sizeof(dir), "%s/fixtures/tiny/%s", TESTS_DIR, name);
    if (model_open(dir, &model, &err) != 0)
        fail_msg("%s", err.text);
    return model;
}

static inline const struct kernels *world_kernels(void)
{
    const struct kernels *k = NULL;
    struct err err = {0};
    if (kernels_open(&k, &err) != 0)
        fail_msg("%s", err.text);
    return k;
}

struct world_request {
    int n_row, n_seg, n_assign;
    uint32_t seg_expert[WORLD_EXPERTS_MAX], seg_count[WORLD_EXPERTS_MAX];
    int32_t row_index[WORLD_ROWS_MAX * WORLD_EXPERTS_MAX];
    unsigned char *rows; /* [n_row, d] of dtype, in `memory` */
    unsigned char *memory;
    size_t rows_bytes;
};

/* world_rows fills n values of dtype with normal numbers that depend on the seed alone. */
static inline void world_rows(uint64_t seed, enum dtype dtype, void *out, size_t n)
{
    float *f = calloc(n, sizeof(*f));
    assert_non_null(f);
    rng_normal_fill(seed, 1, 0, f, n);
    for (size_t i = 0; i < n; i++) {
        uint16_t h = f32_to_bf16(f[i]);
        if (dtype == DTYPE_F32)
            memcpy((unsigned char *)out + i * 4, &f[i], 4);
        else
            memcpy((unsigned char *)out + i * 2, &h, 2);
    }
    free(f);
}

/* world_request_make: n_row rows, each with top_k experts of `held` [n_expert] (NULL: any). `skew`
 * bytes move the rows off their alignment, as the network does. */
static inline void world_request_make(struct world_request *r, const struct model_desc *desc,
                                      enum dtype dtype, int n_row, uint64_t seed,
                                      const uint8_t *held, size_t skew)
{
    uint8_t chosen[WORLD_ROWS_MAX][WORLD_EXPERTS_MAX] = {0};
    memset(r, 0, sizeof(*r));
    r->n_row = n_row;
    for (int i = 0; i < n_row; i++)
        for (int k = 0; k < desc->top_k; k++) {
            double u = rng_uniform(seed, 2, (uint64_t)(i * desc->top_k + k));
            int e = (int)(u * desc->n_expert);
            while (chosen[i][e] || (held && !held[e]))
                e = (e + 1) % desc->n_expert;
            chosen[i][e] = 1;
        }
    for (int e = 0; e < desc->n_expert; e++) {
        uint32_t count = 0;
        for (int i = 0; i < n_row; i++)
            if (chosen[i][e]) {
                r->row_index[r->n_assign++] = i;
                count++;
            }
        if (count) {
            r->seg_expert[r->n_seg] = (uint32_t)e;
            r->seg_count[r->n_seg++] = count;
        }
    }
    size_t n = (size_t)n_row * (size_t)desc->d_model;
    r->rows_bytes = n * dtype_bytes(dtype);
    r->memory = aligned_alloc(64, (r->rows_bytes + 64 + 63) / 64 * 64);
    assert_non_null(r->memory);
    r->rows = r->memory + skew;
    world_rows(seed, dtype, r->rows, n);
}

#endif
