/* gemm_tiles_quant: integer weights on tile registers. A chunk of k of two panels is made bf16 once
 * and lies in the first-level cache while all rows meet it; a group's sums leave the tiles for a
 * scratch, from where one fused multiplication adds them to c. Included by gemm_tiles.h. */
#ifndef KERNELS_GEMM_TILES_QUANT_H
#define KERNELS_GEMM_TILES_QUANT_H

/* As many k of two panels, made bf16, stay in the first-level cache. */
#define TILES_QUANT_K 256

/* Two k of a line, `shift` bits into each column's four bytes and the next, as a row of a tile: 16
 * x (even, odd) in bf16, exact. */
INLINE void quant_pair(const unsigned char *line, enum dtype dtype, const int shift, uint16_t *out)
{
#if defined(__AVX512F__) && defined(__AVX512BW__)
    __m512i q = _mm512_loadu_si512(line), pair;
    if (dtype == DTYPE_I8) {
        __m512i even = _mm512_castps_si512(quant_value(q, dtype, shift));
        __m512i odd = _mm512_castps_si512(quant_value(q, dtype, shift + 8));
        pair = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(even, 16), odd);
    } else {
        /* bf16 of 0..7, -8..-1, for the low half of a lane and for the high one. */
        const __m512i low =
            _mm512_setr_epi32(0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100,
                              0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80);
        __m512i even = _mm512_permutexvar_epi32(_mm512_srli_epi32(q, (unsigned)shift), low);
        __m512i odd = _mm512_permutexvar_epi32(_mm512_srli_epi32(q, (unsigned)(shift + 8)), low);
        pair = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
    }
    _mm512_storeu_si512(out, pair);
#else
    float e[PANEL], o[PANEL];
    for (size_t j = 0; j < PARTS; j++) {
        quad q = load_quads(line + PART_BYTE(j));
        p_store(e + j * PART_LANES, quant_value(q, dtype, shift));
        p_store(o + j * PART_LANES, quant_value(q, dtype, shift + 8));
    }
    for (int i = 0; i < PANEL; i++) {
        uint32_t even, odd;
        memcpy(&even, &e[i], 4);
        memcpy(&odd, &o[i], 4);
        out[2 * i] = (uint16_t)(even >> 16);
        out[2 * i + 1] = (uint16_t)(odd >> 16);
    }
#endif
}

/* k [k0, k0 + n_k) of one panel as tiles: b [n_k / 32][16][32]. */
static void quant_tiles(const unsigned char *panel, const struct packed *w, enum dtype dtype,
                        int k0, int n_k, uint16_t *b)
{
    const int line_k = quant_line_k(dtype);
    const unsigned char *line = panel + quant_block_at(w, k0);
    for (int k = 0; k < n_k; k += line_k, line += LINE_BYTES) {
#pragma GCC unroll 4
        for (int i = 0; i < line_k; i += 2, b += 2 * PANEL)
            quant_pair(line, dtype, quant_shift(dtype, i), b);
    }
}

/* c += scale * sum of one group, n_row rows of one panel. sum [*, 2 * PANEL]. */
INLINE void quant_scale_add(const unsigned char *scale, const float *sum, int n_row, float *c,
                            size_t ldc)
{
    vec s = v_load_bf16((const uint16_t *)(const void *)scale);
    for (int r = 0; r < n_row; r++)
        v_store(c + (size_t)r * ldc,
                v_fma(s, v_load(sum + (size_t)r * 2 * PANEL), v_load(c + (size_t)r * ldc)));
}

/* One chunk of k of two panels (or one), as integers and made bf16. */
struct quant_panels {
    const unsigned char *panel[TILES_PANELS];
    const uint16_t *b[TILES_PANELS];
    int n;
};

/* Up to 32 rows, one chunk of k; a: the rows' tiles of the chunk. */
INLINE void quant_chunk(const struct quant_panels *q, const struct packed *w, int k0, int n_k,
                        const unsigned char *a, int n_row, float *c, size_t ldc)
{
    _Alignas(64) float sum[TILES_ROWS * TILES_PANELS * PANEL];
    for (int k = 0; k < n_k; k += w->group) {
        size_t at = (size_t)(k / K_BLOCK) * TILE_SIZE;
        struct tiles t = {.n_block = min_int(w->group, n_k - k) / K_BLOCK,
                          .first = 1,
                          .c = sum,
                          .ldc = TILES_PANELS * PANEL};
        t.a = a + 2 * at;
        t.w[0] = (const unsigned char *)q->b[0] + at;
        t.w[1] = (const unsigned char *)q->b[1] + at;
        tiles_some(&t, n_row, q->n);
        for (int j = 0; j < q->n; j++)
            quant_scale_add(q->panel[j] + quant_scale_at(w, k0 + k), sum + j * PANEL, n_row,
                            c + j * PANEL, ldc);
    }
}

static void gemm_tiles_quant(const struct gemm_rows *rows, const struct packed *w,
                             const unsigned char *const *panel, int n_panel, float *c, size_t ldc,
                             enum dtype dtype)
{
    _Alignas(64) uint16_t b[TILES_PANELS][TILES_QUANT_K * PANEL];
    int chunk = TILES_QUANT_K / w->group * w->group, k_pad = k_padded(w->k);
    struct quant_panels q = {.b = {b[0], b[1]}, .n = n_panel};
    for (int r = 0; r < rows->n; r++)
        memset(c + (size_t)r * ldc, 0, (size_t)n_panel * PANEL * sizeof *c);
    for (int k0 = 0; k0 < k_pad; k0 += chunk) {
        int n_k = min_int(chunk, k_pad - k0);
        size_t step;
        const unsigned char *at = tiles_of(rows, k_pad, k0, n_k, &step);
        for (int j = 0; j < n_panel; j++) {
            q.panel[j] = panel[j];
            quant_tiles(panel[j], w, dtype, k0, n_k, b[j]);
        }
        for (int r0 = 0; r0 < rows->n; r0 += TILES_ROWS, at += step)
            quant_chunk(&q, w, k0, n_k, at, min_int(TILES_ROWS, rows->n - r0), c + (size_t)r0 * ldc,
                        ldc);
    }
}

#endif
