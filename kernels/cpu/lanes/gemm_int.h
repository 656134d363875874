/* gemm_int: rows made integers times panels of integer weights, THE INTEGER SUM of kernels.h. A
 * quad of a row, broadcast, meets a line of the panel: sixteen exact sums of four products an
 * instruction (VNNI). Where bytes multiply with a sign on one side only, the weights get an offset
 * that makes them unsigned, and the sums start at what that adds too much, known from the row.
 *
 * A micro-tile is one panel, so one stream from memory, met from end to end: the next panel begins
 * where it ends. Several sums for one row hide the latency; several rows share the unpacking. Rows
 * are arranged once a unit, in its scratch. Included by gemm.h. */
#ifndef KERNELS_GEMM_INT_H
#define KERNELS_GEMM_INT_H

#include "kernels/cpu/lanes/int_rows.h"

/* 8 rows' (d, g) are 16 of AVX-512's 32 registers; 4 x (d, g) 8 of AVX2's 16. A sanitizer takes a
 * minute to compile what it checks of 8. */
#if TILE_ROWS == 6 && PART_LANES == 16 && !defined(__SANITIZE_ADDRESS__) &&                        \
    !defined(__SANITIZE_THREAD__)
#define INT_ROWS 8
#else
#define INT_ROWS 4
#endif
/* k of a panel that several row tiles find in L1. */
#define INT_CHUNK 1024
/* Bytes ahead of the line in hand that a stream from memory is asked for: more than the scales in
 * front of a panel of int4, so that what follows them is asked for in time too. */
#define INT_AHEAD 4096

/* Rows as integers; the stretch of k that is held begins at a multiple of ROW_GROUP. */
struct int_rows {
    int8_t *q;      /* [n][ldq] */
    float *scale;   /* [n][ld_scale], one a ROW_GROUP */
    int32_t *start; /* [n][ld_start], at a part's first 32 k: what its sum starts with */
    size_t ldq, ld_scale, ld_start;
};

/* ---- sums of products ---- */

/* ints: the sums of one part's columns. lines: weights ready to multiply, INT_OFFSET(dtype) more
 * than they are; a: the quad of the lower k, b: of i4, of the higher. int_dot adds a line times the
 * row's q. */
#if defined(__AVX512VNNI__) && PART_LANES == 16
#define INT_OFFSET(dtype) ((dtype) == DTYPE_I8 ? 128 : 8)
typedef __m512i ints;
struct lines {
    quad a, b;
};
INLINE ints int_set(int32_t v)
{
    return _mm512_set1_epi32(v);
}
INLINE ints int_add(ints a, ints b)
{
    return _mm512_add_epi32(a, b);
}
INLINE part int_float(ints a)
{
    return _mm512_cvtepi32_ps(a);
}
INLINE struct lines int_lines(const unsigned char *at, enum dtype dtype)
{
    quad w = load_quads(at);
    if (dtype == DTYPE_I8)
        return (struct lines){.a = _mm512_xor_si512(w, _mm512_set1_epi8(-128))};
    /* (w ^ 8) & 15 */
    const quad eight = _mm512_set1_epi8(8), half = _mm512_set1_epi8(15);
    return (struct lines){_mm512_ternarylogic_epi32(w, eight, half, 0x28),
                          _mm512_ternarylogic_epi32(_mm512_srli_epi16(w, 4), eight, half, 0x28)};
}
INLINE ints int_quad(ints d, quad w, const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm512_dpbusd_epi32(d, w, _mm512_set1_epi32(four));
}
INLINE ints int_dot(ints d, const struct lines *w, enum dtype dtype, const int8_t *q)
{
    d = int_quad(d, w->a, q);
    return dtype == DTYPE_I8 ? d : int_quad(d, w->b, q + QUAD);
}
#elif PART_LANES == 8
/* Words are enough: 255 of i4 with their offset, and 2 * 128 * 127 of i8. */
#define INT_OFFSET(dtype) ((dtype) == DTYPE_I8 ? 0 : 8)
typedef __m256i ints;
struct lines {
    quad a, b;
};
INLINE ints int_set(int32_t v)
{
    return _mm256_set1_epi32(v);
}
INLINE ints int_add(ints a, ints b)
{
    return _mm256_add_epi32(a, b);
}
INLINE part int_float(ints a)
{
    return _mm256_cvtepi32_ps(a);
}
/* i8: a the weights, b their magnitudes. */
INLINE struct lines int_lines(const unsigned char *at, enum dtype dtype)
{
    quad w = load_quads(at);
    if (dtype == DTYPE_I8)
        return (struct lines){w, _mm256_abs_epi8(w)};
    const quad half = _mm256_set1_epi8(15);
    w = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x88));
    return (struct lines){_mm256_and_si256(w, half),
                          _mm256_and_si256(_mm256_srli_epi16(w, 4), half)};
}
INLINE quad int_four(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return _mm256_set1_epi32(four);
}
INLINE ints int_dot(ints d, const struct lines *w, enum dtype dtype, const int8_t *q)
{
    quad words;
    if (dtype == DTYPE_I8)
        words = _mm256_maddubs_epi16(w->b, _mm256_sign_epi8(int_four(q), w->a));
    else
        words = _mm256_add_epi16(_mm256_maddubs_epi16(w->a, int_four(q)),
                                 _mm256_maddubs_epi16(w->b, int_four(q + QUAD)));
    return _mm256_add_epi32(d, _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
}
#else
/* Floats hold the integers exactly. */
#define INT_OFFSET(dtype) 0
typedef part ints;
struct lines {
    quad a;
};
INLINE ints int_set(int32_t v)
{
    return p_set1((float)v);
}
INLINE ints int_add(ints a, ints b)
{
    return p_add(a, b);
}
INLINE part int_float(ints a)
{
    return a;
}
INLINE struct lines int_lines(const unsigned char *at, enum dtype dtype)
{
    (void)dtype;
    return (struct lines){load_quads(at)};
}
INLINE ints int_dot(ints d, const struct lines *w, enum dtype dtype, const int8_t *q)
{
    const int line_k = quant_line_k(dtype);
#pragma GCC unroll 8
    for (int k = 0; k < line_k; k++)
        d = v_add(d, v_mul(quant_value(w->a, dtype, quant_shift(dtype, k)), p_set1((float)q[k])));
    return d;
}
#endif

/* ---- a micro-tile ---- */

/* Rows and one part's columns of a panel, over [k0, k0 + n_k) of k; q, sx and start are the first
 * row's at k0, line is the panel's and sw its scales. */
struct int_tile {
    const int8_t *q;
    const float *sx;
    const int32_t *start;
    size_t ldq, ld_scale, ld_start;
    const unsigned char *line, *sw;
    int k0, n_k, group;
    float *c;
    size_t ldc;
};

/* Sums a row, so that eight are in flight whatever the number of rows. */
#define INT_SUMS(n_row) ((n_row) == 1 ? 4 : (n_row) <= 3 ? 2 : 1)

/* Where a micro-tile is: rows and the line of k. */
struct int_at {
    const int8_t *q[INT_ROWS];
    const int32_t *start;
    size_t ld_start;
    const unsigned char *line;
};

/* g += sw * d over one part, k [k, stop). */
INLINE void int_part(struct int_at *at, enum dtype dtype, size_t k, size_t stop, part scale,
                     part *g, const int n_row)
{
    const int n_sum = INT_SUMS(n_row), line_k = quant_line_k(dtype);
    const int n_line = K_BLOCK / line_k;
    const unsigned char *line = at->line;
    ints d[INT_ROWS][4];
#pragma GCC unroll 8
    for (int r = 0; r < n_row; r++) {
        d[r][0] =
            int_set(INT_OFFSET(dtype) != 0 ? at->start[(size_t)r * at->ld_start + k / K_BLOCK] : 0);
#pragma GCC unroll 4
        for (int s = 1; s < n_sum; s++)
            d[r][s] = int_set(0);
    }
    do {
#pragma GCC unroll 8
        for (int i = 0; i < n_line; i++) {
            __builtin_prefetch((const void *)((uintptr_t)line + INT_AHEAD));
            struct lines w = int_lines(line, dtype);
            line += LINE_BYTES;
#pragma GCC unroll 8
            for (int r = 0; r < n_row; r++)
                d[r][i % n_sum] =
                    int_dot(d[r][i % n_sum], &w, dtype, at->q[r] + k + (size_t)(i * line_k));
        }
        k += K_BLOCK;
    } while (k < stop);
    at->line = line;
#pragma GCC unroll 8
    for (int r = 0; r < n_row; r++) {
#pragma GCC unroll 4
        for (int s = 1; s < n_sum; s++)
            d[r][0] = int_add(d[r][0], d[r][s]);
        g[r] = p_fma(scale, int_float(d[r][0]), g[r]);
    }
}

/* c += rows times columns. */
INLINE void int_tile(const struct int_tile *t, enum dtype dtype, const int n_row)
{
    struct int_at at = {.start = t->start, .ld_start = t->ld_start, .line = t->line};
    const unsigned char *sw = t->sw;
    const float *sx = t->sx;
    size_t n_k = (size_t)t->n_k, group = (size_t)t->group;
    size_t group_end = group - (size_t)t->k0 % group;
#pragma GCC unroll 8
    for (int r = 0; r < n_row; r++)
        at.q[r] = t->q + (size_t)r * t->ldq;
    for (size_t k = 0; k < n_k;) {
        size_t end = k + ROW_GROUP < n_k ? k + ROW_GROUP : n_k;
        part g[INT_ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++)
            g[r] = p_zero();
        while (k < end) {
            size_t stop = group_end < end ? group_end : end;
            int_part(&at, dtype, k, stop, load_scale(sw), g, n_row);
            k = stop;
            if (k == group_end) {
                sw += SCALE_BYTES;
                group_end += group;
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
            float *c = t->c + (size_t)r * t->ldc;
            p_store(c, p_fma(p_set1(sx[(size_t)r * t->ld_scale]), g[r], p_load(c)));
        }
        sx++;
    }
}

/* A function of its own for each shape: a compiler gives a loop its registers only so. */
#define INT_SHAPE(rows)                                                                            \
    __attribute__((noinline)) static void int_tile_i8_##rows(const struct int_tile *t)             \
    {                                                                                              \
        int_tile(t, DTYPE_I8, rows);                                                               \
    }                                                                                              \
    __attribute__((noinline)) static void int_tile_i4_##rows(const struct int_tile *t)             \
    {                                                                                              \
        int_tile(t, DTYPE_I4, rows);                                                               \
    }
#define INT_CASE(rows)                                                                             \
    case rows:                                                                                     \
        (dtype == DTYPE_I8 ? int_tile_i8_##rows : int_tile_i4_##rows)(t);                          \
        break

INT_SHAPE(1)
INT_SHAPE(2)
INT_SHAPE(3)
INT_SHAPE(4)
#if INT_ROWS == 8
INT_SHAPE(5)
INT_SHAPE(6)
INT_SHAPE(7)
INT_SHAPE(8)
#endif

static void int_tile_of(const struct int_tile *t, enum dtype dtype, int n_row)
{
    switch (n_row) {
        INT_CASE(1);
        INT_CASE(2);
        INT_CASE(3);
        INT_CASE(4);
#if INT_ROWS == 8
        INT_CASE(5);
        INT_CASE(6);
        INT_CASE(7);
        INT_CASE(8);
#endif
    default:
        break;
    }
}

/* ---- rows and panels ---- */

/* Sums of q over each 32 k of [k0, k0 + n_k) become what the parts start with. */
INLINE void int_starts(int k0, int n_k, int group, int offset, int32_t *sum)
{
    int group_end = (k0 / group + 1) * group - k0;
    for (int k = 0; k < n_k;) {
        int first = k / K_BLOCK;
        int stop = min_int(min_int((k / ROW_GROUP + 1) * ROW_GROUP, n_k), group_end);
        for (k += K_BLOCK; k < stop; k += K_BLOCK)
            sum[first] += sum[k / K_BLOCK];
        sum[first] *= -offset;
        group_end += k == group_end ? group : 0;
    }
}

/* Bytes of one row of n_k; a line more, so that rows do not meet in one set of the cache. */
INLINE size_t int_row_bytes(int n_k)
{
    size_t q = ((size_t)n_k + 127) / 64 * 64;
    return q + (size_t)(n_k + ROW_GROUP - 1) / ROW_GROUP * sizeof(float) +
           (size_t)(n_k / K_BLOCK) * sizeof(int32_t);
}

INLINE struct int_rows int_rows_at(unsigned char *scratch, int n_row, int n_k)
{
    struct int_rows r = {.q = (int8_t *)scratch};
    r.ldq = ((size_t)n_k + 127) / 64 * 64;
    r.ld_scale = (size_t)(n_k + ROW_GROUP - 1) / ROW_GROUP;
    r.ld_start = (size_t)(n_k / K_BLOCK);
    r.scale = (float *)(void *)(scratch + (size_t)n_row * r.ldq);
    r.start = (int32_t *)(void *)(r.scale + (size_t)n_row * r.ld_scale);
    return r;
}

/* Elements [k0, k0 + n_k) of every row as integers into the scratch. */
INLINE void ints_make(const struct gemm_rows *rows, const struct packed *w, int k0, int n_k)
{
    const int offset = INT_OFFSET(w->dtype);
    struct int_rows out = int_rows_at(rows->scratch, rows->n, n_k);
    for (int i = 0; i < rows->n; i++) {
        size_t index = (size_t)(rows->row ? rows->row[i] : i);
        const uint16_t *x = (const uint16_t *)rows->x + index * rows->ld + (size_t)k0;
        int8_t *q = out.q + (size_t)i * out.ldq;
        int32_t *start = out.start + (size_t)i * out.ld_start;
        int_row(x, n_k, q, out.scale + (size_t)i * out.ld_scale);
        if (offset) {
            int_row_sums(q, n_k, start);
            int_starts(k0, n_k, w->group, offset, start);
        }
    }
}

/* Rows that fit the scratch at full depth; 0: not even one. */
INLINE int ints_fit(int k_pad)
{
    return (int)(INT_SCRATCH / int_row_bytes(k_pad));
}

INLINE void ints_arrange(struct gemm_rows *rows, const struct packed *w)
{
    int k_pad = k_padded(w->k);
    rows->arranged = ints_fit(k_pad) >= rows->n;
    if (rows->arranged)
        ints_make(rows, w, 0, k_pad);
}

/* One panel against every row over [k0, k0 + n_k); base: where the rows' integers begin. */
INLINE void int_panel(const struct gemm_rows *rows, const struct int_rows *from, int base,
                      const struct packed *w, const unsigned char *panel, int k0, int n_k, float *c,
                      size_t ldc)
{
    struct int_tile t = {.ldq = from->ldq,
                         .ld_scale = from->ld_scale,
                         .ld_start = from->ld_start,
                         .k0 = k0,
                         .n_k = n_k,
                         .group = w->group,
                         .ldc = ldc};
    int n_tile = (rows->n + INT_ROWS - 1) / INT_ROWS;
    size_t at = (size_t)(k0 - base);
    for (int j = 0; j < PARTS; j++) {
        t.line = panel + quant_block_at(w, k0) + PART_BYTE(j);
        t.sw = panel + quant_scale_at(w, k0) + PART_SCALE(j);
        for (int i = 0, r = 0; i < n_tile; i++) {
            int n = (rows->n - r + n_tile - i - 1) / (n_tile - i);
            t.q = from->q + (size_t)r * from->ldq + at;
            t.sx = from->scale + (size_t)r * from->ld_scale + at / ROW_GROUP;
            t.start = from->start + (size_t)r * from->ld_start + at / K_BLOCK;
            t.c = c + (size_t)r * ldc + j * PART_LANES;
            int_tile_of(&t, w->dtype, n);
            r += n;
        }
    }
}

/* As gemm_lanes. */
INLINE void gemm_int(const struct gemm_rows *rows, const struct packed *w,
                     const unsigned char *const *panel, int n_panel, float *c, size_t ldc)
{
    int k_pad = k_padded(w->k);
    int chunk = rows->arranged && rows->n <= INT_ROWS && PARTS == 1 ? k_pad : INT_CHUNK;
    for (int r = 0; r < rows->n; r++)
        memset(c + (size_t)r * ldc, 0, (size_t)n_panel * PANEL * sizeof *c);
    for (int k0 = 0; k0 < k_pad; k0 += chunk) {
        int n_k = min_int(chunk, k_pad - k0);
        if (!rows->arranged)
            ints_make(rows, w, k0, n_k);
        struct int_rows held = int_rows_at(rows->scratch, rows->n, rows->arranged ? k_pad : n_k);
        for (int j = 0; j < n_panel; j++)
            int_panel(rows, &held, rows->arranged ? 0 : k0, w, panel[j], k0, n_k, c + j * PANEL,
                      ldc);
    }
}

#endif
