/* columns: where the results of a unit go, some columns of many rows. Each row's lie in another
 * page, so what is stored there decides by its way of storing how long the unit waits: whole lines
 * go past the caches, parts of lines are asked for before the product and are there after it. */
#ifndef KERNELS_COLUMNS_H
#define KERNELS_COLUMNS_H

#include "kernels/cpu/lanes/gemm.h"

/* The bias of n <= PANEL columns from `col` on; zero where there is none. */
INLINE vec bias_at(const float *bias, int col, int n)
{
    if (!bias)
        return v_zero();
    return n == PANEL ? v_load(bias + col) : v_load_n(bias + col, n);
}

/* PANEL values, none of them denormal, as bf16. */
INLINE void store_panel_bf16(uint16_t *p, vec v)
{
#if defined(__AVX512BF16__)
    _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh(v));
#else
    v_store_bf16(p, v);
#endif
}

/* n <= PANEL columns of one row to y + col, in y's dtype, and nothing beside them. */
INLINE void store_columns(void *y, enum dtype dtype, size_t col, vec v, int n)
{
    if (dtype == DTYPE_BF16 && n == PANEL) {
        store_panel_bf16((uint16_t *)y + col, v);
    } else if (dtype == DTYPE_BF16) {
        uint16_t h[PANEL];
        v_store_bf16(h, v);
        memcpy((uint16_t *)y + col, h, (size_t)n * sizeof *h);
    } else if (n == PANEL) {
        v_store((float *)y + col, v);
    } else {
        v_store_n((float *)y + col, v, n);
    }
}

/* Columns [col, col + n) of rows [row, row + n_row) of a result. */
struct columns {
    void *y; /* [*, ld] of dtype */
    enum dtype dtype;
    size_t ld;
    const float *bias; /* of all columns, or NULL */
    int row, n_row, col, n;
};

/* Whether a row's columns are whole lines that need not pass the caches: many rows are read back
 * long after they are gone from there, and a line that is stored to is read from memory first. */
INLINE int columns_stream(const struct columns *to)
{
    uintptr_t at = (uintptr_t)to->y | to->ld * dtype_bytes(to->dtype) |
                   (size_t)to->col * dtype_bytes(to->dtype) |
                   (size_t)to->n * dtype_bytes(to->dtype);
    return to->n_row >= PANEL && to->n % (2 * PANEL) == 0 && at % LINE_BYTES == 0;
}

/* columns_fetch: the lines of other columns are wanted soon. Each row's lie in another page, so no
 * hardware guesses them, and a store that misses waits for all of memory; asked for before the
 * product, they are in the second-level cache after it. */
INLINE void columns_fetch(const struct columns *to)
{
    size_t bytes = dtype_bytes(to->dtype), n = (size_t)to->n * bytes;
    const unsigned char *y = to->y;
    y += ((size_t)to->row * to->ld + (size_t)to->col) * bytes;
    for (int r = 0; to->n_row >= PANEL && !columns_stream(to) && r < to->n_row;
         r++, y += to->ld * bytes)
        for (size_t at = 0; at < n; at += 64)
            __builtin_prefetch(y + at, 0, 2);
}

/* Two panels of one row, whole lines, past the caches; v_stream_end before another thread reads. */
INLINE void store_stream(void *y, enum dtype dtype, vec a, vec b)
{
    if (dtype == DTYPE_BF16) {
        v_stream_bf16_2(y, a, b);
    } else {
        v_stream((float *)y, a);
        v_stream((float *)y + PANEL, b);
    }
}

/* The same as store_rows for columns_stream. */
static void stream_rows(const struct columns *to, const float *c, size_t ldc)
{
    size_t bytes = dtype_bytes(to->dtype);
    unsigned char *y =
        (unsigned char *)to->y + ((size_t)to->row * to->ld + (size_t)to->col) * bytes;
    for (int j = 0; j < to->n; j += 2 * PANEL) {
        unsigned char *at = y + (size_t)j * bytes;
        const float *from = c + j;
        for (int r = 0; r < to->n_row; r++, at += to->ld * bytes, from += ldc) {
            vec a = v_load(from), b = v_load(from + PANEL);
            if (to->bias) {
                a = v_add(a, v_load(to->bias + to->col + j));
                b = v_add(b, v_load(to->bias + to->col + j + PANEL));
            }
            store_stream(at, to->dtype, a, b);
        }
    }
}

/* store_rows: c [n_row, ldc] to them, each plus its bias; a row's columns at once, as they are
 * whole lines and the next row is far away. */
static void store_rows(const struct columns *to, const float *c, size_t ldc)
{
    enum { PAIR = 2 * PANEL };
    size_t at = (size_t)to->row * to->ld + (size_t)to->col;
    if (columns_stream(to)) {
        stream_rows(to, c, ldc);
        return;
    }
    for (int r = 0; r < to->n_row; r++, at += to->ld, c += ldc) {
        int j = 0;
        for (; to->dtype == DTYPE_BF16 && !to->bias && j + PAIR <= to->n; j += PAIR)
            v_store_bf16_2((uint16_t *)to->y + at + j, v_load(c + j), v_load(c + j + PANEL));
        for (; j < to->n; j += PANEL) {
            int n = min_int(PANEL, to->n - j);
            vec v = v_load(c + j);
            if (to->bias)
                v = v_add(v, bias_at(to->bias, to->col + j, n));
            store_columns(to->y, to->dtype, at + (size_t)j, v, n);
        }
    }
}

#endif
