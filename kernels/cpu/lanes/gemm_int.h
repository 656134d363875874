/* gemm_int: rows made integers times panels of integer weights, THE INTEGER SUM of kernels.h. A
 * quad of a row, broadcast, meets a line of the panel: sixteen exact sums of four products an
 * instruction (VNNI). Where bytes multiply with a sign on one side only, the weights get an offset
 * that makes them unsigned, and the sums start at what that adds too much, known from the row.
 *
 * Memory gives more the more places it is asked at: one row that meets eight panels line by line
 * gets 1.4 times what it gets of one panel after the other (33 and 24 GB/s of two threads where a
 * read of two streams a thread gets 27; 2 KiB of each in turn are no better than one panel). So a
 * micro-tile of few rows meets many panels, one of more rows fewer, for its sums' registers. Rows
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
/* Bytes ahead of the line in hand that each stream from memory is asked for. */
#define INT_AHEAD(n_part) ((n_part) == 1 ? 4096 : 1024)
#define SCALE_AHEAD       256 /* the same of a panel's scales */
/* Parts that a micro-tile meets at once, at most. */
#define INT_PARTS_MAX 8

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

/* int_width: parts that a micro-tile of n_row rows meets at once. A sanitizer has enough to check
 * in one. */
INLINE int int_width(int n_row)
{
    (void)n_row;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 1;
#elif TILE_ROWS == 6 && PART_LANES == 16
    return n_row <= 2 ? 8 : n_row <= 4 ? 4 : 2;
#elif TILE_ROWS == 6
    return n_row == 1 ? 4 : n_row == 2 ? 2 : 1;
#else
    return 1;
#endif
}

/* What is asked for ahead beyond a part's lines and scales, which end so many bytes from line[j]
 * and sw[j]: those of the part that is met after it, so many bytes further on than they would lie;
 * or what lies there. */
struct int_next {
    size_t lines, scales;
    size_t lines_on, scales_on;
};

/* Rows and columns of n_part parts, over [k0, k0 + n_k) of k; q, sx and start are the first row's
 * at k0, line[j] is part j's there and sw[j] its scales; its columns of c lie behind part j - 1's.
 * Up to int_width there are parts that may be read, whose results are dropped. */
struct int_tile {
    const int8_t *q;
    const float *sx;
    const int32_t *start;
    size_t ldq, ld_scale, ld_start;
    const unsigned char *line[INT_PARTS_MAX], *sw[INT_PARTS_MAX];
    struct int_next next;
    int k0, n_k, group, n_part;
    float *c;
    size_t ldc;
};

/* Sums a row and part, so that some are in flight whatever their number. */
#define INT_SUMS(n) ((n) == 1 ? 4 : (n) <= 3 ? 2 : 1)

/* Where a micro-tile is: rows and, of every part, bytes from line[j] to the line of k. */
struct int_at {
    const int8_t *q[INT_ROWS];
    const int32_t *start;
    size_t ld_start, line;
};

/* d: the sums over k [k, stop) of every row and part, which share a scale. */
INLINE void int_sums(const struct int_tile *t, struct int_at *at, enum dtype dtype, size_t k,
                     size_t stop, ints d[][INT_PARTS_MAX], const int n_row, const int n_part)
{
    const int n_sum = INT_SUMS(n_row * n_part), line_k = quant_line_k(dtype);
    /* A few at a time: a compiler takes minutes for more. */
    const int n_line = n_row * n_part >= 8 ? 2 : 4;
    size_t line = at->line;
    ints s[INT_ROWS][INT_PARTS_MAX]; /* n_part of each sum */
#pragma GCC unroll 8
    for (int r = 0; r < n_row; r++) {
        ints first =
            int_set(INT_OFFSET(dtype) != 0 ? at->start[(size_t)r * at->ld_start + k / K_BLOCK] : 0);
#pragma GCC unroll 8
        for (int j = 0; j < n_part * n_sum; j++)
            s[r][j] = j < n_part ? first : int_set(0);
    }
    for (; k < stop; k += (size_t)(n_line * line_k)) {
        size_t ahead = INT_AHEAD(n_part);
        ahead += line + ahead >= t->next.lines ? t->next.lines_on : 0;
#pragma GCC unroll 4
        for (int i = 0; i < n_line; i++, line += LINE_BYTES) {
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++) {
                const unsigned char *from = t->line[j] + line;
                __builtin_prefetch((const void *)((uintptr_t)from + ahead));
                struct lines w = int_lines(from, dtype);
#pragma GCC unroll 8
                for (int r = 0; r < n_row; r++) {
                    ints *sum = &s[r][i % n_sum * n_part + j];
                    *sum = int_dot(*sum, &w, dtype, at->q[r] + k + (size_t)(i * line_k));
                }
            }
        }
    }
    at->line = line;
#pragma GCC unroll 8
    for (int r = 0; r < n_row; r++) {
#pragma GCC unroll 8
        for (int j = 0; j < n_part; j++) {
            d[r][j] = s[r][j];
#pragma GCC unroll 4
            for (int i = 1; i < n_sum; i++)
                d[r][j] = int_add(d[r][j], s[r][i * n_part + j]);
        }
    }
}

/* c += rows times columns. */
INLINE void int_tile(const struct int_tile *t, enum dtype dtype, const int n_row, const int n_part)
{
    struct int_at at = {.start = t->start, .ld_start = t->ld_start};
    size_t sw = 0, n_k = (size_t)t->n_k, group = (size_t)t->group;
    size_t group_end = group - (size_t)t->k0 % group;
    const float *sx = t->sx;
#pragma GCC unroll 8
    for (int r = 0; r < n_row; r++)
        at.q[r] = t->q + (size_t)r * t->ldq;
    for (size_t k = 0; k < n_k;) {
        size_t end = k + ROW_GROUP < n_k ? k + ROW_GROUP : n_k;
        part g[INT_ROWS][INT_PARTS_MAX];
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++)
                g[r][j] = p_zero();
        }
        while (k < end) {
            size_t stop = group_end < end ? group_end : end;
            ints d[INT_ROWS][INT_PARTS_MAX];
            int_sums(t, &at, dtype, k, stop, d, n_row, n_part);
            size_t ahead = SCALE_AHEAD;
            ahead += sw + ahead >= t->next.scales ? t->next.scales_on : 0;
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++) {
                const unsigned char *from = t->sw[j] + sw;
                __builtin_prefetch((const void *)((uintptr_t)from + ahead));
                part scale = load_scale(from);
#pragma GCC unroll 8
                for (int r = 0; r < n_row; r++)
                    g[r][j] = p_fma(scale, int_float(d[r][j]), g[r][j]);
            }
            k = stop;
            if (k == group_end) {
                sw += SCALE_BYTES;
                group_end += group;
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < n_row; r++) {
            part scale = p_set1(sx[(size_t)r * t->ld_scale]);
#pragma GCC unroll 8
            for (int j = 0; j < n_part; j++) {
                float *c = t->c + (size_t)r * t->ldc + (size_t)j * PART_LANES;
                if (j < t->n_part)
                    p_store(c, p_fma(scale, g[r][j], p_load(c)));
            }
        }
        sx++;
    }
}

/* A function of its own for each shape: a compiler gives a loop its registers only so. */
#define INT_SHAPE(rows)                                                                            \
    __attribute__((noinline)) static void int_tile_i8_##rows(const struct int_tile *t)             \
    {                                                                                              \
        int_tile(t, DTYPE_I8, rows, int_width(rows));                                              \
    }                                                                                              \
    __attribute__((noinline)) static void int_tile_i4_##rows(const struct int_tile *t)             \
    {                                                                                              \
        int_tile(t, DTYPE_I4, rows, int_width(rows));                                              \
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

/* What some panels are met with: integers of rows from k `base` on, over [k0, k0 + n_k); c: of
 * panel 0. */
struct int_meet {
    const struct packed *w;
    const unsigned char *const *panel;
    struct int_rows rows;
    int n_row, base, k0, n_k;
    float *c;
    size_t ldc;
    const unsigned char
        *after; /* panel 0 of what is met next, laid out as this is; NULL: unknown */
};

/* From the part `first`, all of k of which is met once, on to the one met after it. */
INLINE struct int_next int_next_of(const struct int_meet *m, int first, int n_part, int wide)
{
    struct int_next next = {SIZE_MAX, SIZE_MAX, 0, 0};
    int more = first + wide < n_part;
    const unsigned char *to = more ? m->panel[(first + wide) / PARTS] : m->after;
    if (m->n_row > INT_ROWS || m->n_k < k_padded(m->w->k) || !to)
        return next;
    size_t on = (size_t)(to - m->panel[first / PARTS]);
    next.scales = (size_t)quant_groups(m->w->k, m->w->group) * SCALE_BYTES;
    next.lines = panel_bytes(m->w) - quant_block_at(m->w, 0);
    next.lines_on = on - next.lines;
    next.scales_on = on - next.scales;
    return next;
}

/* Rows [r, r + n) and parts [first, first + n_part), n_part <= int_width(n). */
INLINE void int_some(const struct int_meet *m, int r, int n, int first, int n_part,
                     const struct int_next *next)
{
    const struct int_rows *from = &m->rows;
    size_t row = (size_t)r, at = (size_t)(m->k0 - m->base);
    struct int_tile t = {.q = from->q + row * from->ldq + at,
                         .sx = from->scale + row * from->ld_scale + at / ROW_GROUP,
                         .start = from->start + row * from->ld_start + at / K_BLOCK,
                         .ldq = from->ldq,
                         .ld_scale = from->ld_scale,
                         .ld_start = from->ld_start,
                         .next = *next,
                         .k0 = m->k0,
                         .n_k = m->n_k,
                         .group = m->w->group,
                         .n_part = n_part,
                         .c = m->c + row * m->ldc + first * PART_LANES,
                         .ldc = m->ldc};
    for (int j = 0; j < int_width(n); j++) {
        int of = first + min_int(j, n_part - 1);
        const unsigned char *panel = m->panel[of / PARTS];
        t.line[j] = panel + quant_block_at(m->w, m->k0) + PART_BYTE(of);
        t.sw[j] = panel + quant_scale_at(m->w, m->k0) + PART_SCALE(of);
    }
    int_tile_of(&t, m->w->dtype, n);
}

/* Rows are split evenly into micro-tiles; those meet as many parts in turn as the widest meets at
 * once, which the others find in the cache. */
INLINE void int_all(const struct int_meet *m, int n_part)
{
    int n_tile = (m->n_row + INT_ROWS - 1) / INT_ROWS, least = m->n_row / n_tile;
    int wide = int_width(least);
    for (int j0 = 0; j0 < n_part; j0 += wide) {
        int end = min_int(j0 + wide, n_part);
        struct int_next next = int_next_of(m, j0, n_part, wide);
        for (int i = 0, r = 0, n; i < n_tile; i++, r += n) {
            n = (m->n_row - r + n_tile - i - 1) / (n_tile - i);
            for (int j = j0; j < end; j += int_width(n))
                int_some(m, r, n, j, min_int(int_width(n), end - j), &next);
        }
    }
}

/* As gemm_lanes. */
INLINE void gemm_int(const struct gemm_rows *rows, const struct packed *w,
                     const unsigned char *const *panel, int n_panel, float *c, size_t ldc)
{
    int k_pad = k_padded(w->k);
    int whole = rows->arranged && rows->n <= INT_ROWS && int_width(rows->n) % PARTS == 0;
    int chunk = whole ? k_pad : INT_CHUNK;
    struct int_meet meet = {
        .w = w, .panel = panel, .n_row = rows->n, .c = c, .ldc = ldc, .after = rows->after};
    for (int r = 0; r < rows->n; r++)
        memset(c + (size_t)r * ldc, 0, (size_t)n_panel * PANEL * sizeof *c);
    for (int k0 = 0; k0 < k_pad; k0 += chunk) {
        int n_k = min_int(chunk, k_pad - k0);
        if (!rows->arranged)
            ints_make(rows, w, k0, n_k);
        meet.rows = int_rows_at(rows->scratch, rows->n, rows->arranged ? k_pad : n_k);
        meet.base = rows->arranged ? 0 : k0;
        meet.k0 = k0;
        meet.n_k = n_k;
        int_all(&meet, n_panel * PARTS);
    }
}

#endif
