/* gemm_tiles_int: rows of integers times panels of integers on tile registers: THE INTEGER SUM.
 * Rows lie as tiles of 16 rows by 64 k; 64 k of a panel of i8 are a tile as they lie, i4 is made
 * bytes a chunk of k at a time, once for all rows. A part of k (kernels.h) is one sum of tiles: of
 * tiles 64 deep, or of half as deep ones where a group is no multiple of 64.
 *
 * What a tile unit cannot do is scale, so each part's sums leave it through memory, and that is
 * most of the work: 16 x 16 sums take 16 cycles to be computed 64 k deep, 14 to be stored, and 32
 * vector operations to be scaled. The unit stores one pair of registers while it multiplies into
 * the other, and the scaling of a set (the parts of one row group, for 16 rows and two panels) is
 * dealt out over the parts of the set after it, so all three run side by side.
 *
 * Sums start not at zero but at the bits of the float 1.5 * 2^23: since |d| < 2^22, they then are
 * the bits of that float plus d. So d needs no conversion: d = sum - 1.5 * 2^23, and for the first
 * part of a row group, where g is still zero, fma(sw, sum, -sw * 1.5 * 2^23) is sw * d rounded
 * once, as fma(sw, d, 0) is. sw has 8 bits and the constant 2, so their product is exact, if it
 * does not overflow: scales beyond 2^100 go the longer way. Included by gemm_tiles.h. */
#ifndef KERNELS_GEMM_TILES_INT_H
#define KERNELS_GEMM_TILES_INT_H

#define BYTE_K     512 /* of a chunk: the bytes of two panels fill a third of the first-level cache */
#define BYTE_DEEP  64 /* k of a tile of bytes */
#define BYTE_PARTS (ROW_GROUP / K_BLOCK)
/* 1.5 * 2^23, its bits, and the largest scale times it that is surely finite. */
#define BYTE_ZERO      0x1.8p23f
#define BYTE_ZERO_BITS 0x4b400000
#define BYTE_SCALE_MAX 0x1p100f

/* Bytes of 16 rows, and of one row with its scales. */
INLINE size_t byte_block_bytes(int k_pad)
{
    return (size_t)((k_pad + BYTE_DEEP - 1) / BYTE_DEEP) * TILE_SIZE;
}
INLINE size_t byte_row_bytes(int k_pad)
{
    int n_group = (k_pad + ROW_GROUP - 1) / ROW_GROUP;
    return byte_block_bytes(k_pad) / TILE_DIM + (size_t)n_group * sizeof(float);
}

/* Rows [n_row, k) made integers: a: tiles [n_row / 16][k / 64][16][64]; sx [k / 128][ld]. */
struct byte_tiles {
    const unsigned char *a;
    size_t block; /* bytes from 16 rows to the next */
    const float *sx;
    size_t ld;
};

/* One part of a chunk: where it lies in a block of rows and in the tiles of a panel, and how many
 * tiles deep it is. */
struct byte_part {
    size_t a, b;
    int n_tile;
};

/* One chunk of k of two panels (or one). scale [n_part][TILES_PANELS][PANEL]: sw; bias [row groups]
 * [TILES_PANELS][PANEL]: -sw * BYTE_ZERO of each row group's first part. */
struct byte_chunk {
    const unsigned char *b[TILES_PANELS];
    struct byte_part part[BYTE_K / K_BLOCK];
    int first[BYTE_K / ROW_GROUP + 1]; /* part of each row group */
    int n_group, n_part;
    int half, huge;
    _Alignas(64) float scale[BYTE_K / K_BLOCK][TILES_PANELS][PANEL];
    _Alignas(64) float bias[BYTE_K / ROW_GROUP][TILES_PANELS][PANEL];
};

/* Sums of one row group for 16 rows that wait to be scaled. */
struct byte_set {
    float (*sum)[TILE_DIM][TILES_PANELS][PANEL]; /* of each part */
    const float (*scale)[TILES_PANELS][PANEL];
    const float (*bias)[PANEL]; /* NULL: the longer way */
    const float *sx;            /* of each row */
    float *c;
    size_t ldc;
    int n_part, n_row;
};

/* Sets in turn: one is being scaled, its rows from `row` on (ready), one is complete but for its
 * last part, and one begins. They are never copied: a wide load of what was just stored in pieces
 * would wait for those stores, and they for the tiles stored before them. */
struct byte_pipe {
    _Alignas(64) float sum[2][BYTE_PARTS][TILE_DIM][TILES_PANELS][PANEL];
    struct byte_set set[3];
    const struct byte_set *ready;
    int row, turn; /* turn: the next set's number */
};

/* Rows [begin, end) of a set. What the set says is read once: stores to c might be to it. */
TILE_CODE void byte_scale_rows(const struct byte_set *s, int begin, int end, const int n_part,
                               const int cols)
{
    float(*sum)[TILE_DIM][TILES_PANELS][PANEL] = s->sum;
    const float(*scale)[TILES_PANELS][PANEL] = s->scale, (*bias)[PANEL] = s->bias, *sx = s->sx;
    const vec minus_zero = v_set1(-BYTE_ZERO);
    size_t ldc = s->ldc;
    float *c = s->c + (size_t)begin * ldc;
    for (int r = begin; r < end; r++, c += ldc) {
        const vec x = v_set1(sx[r]);
#pragma GCC unroll 2
        for (int j = 0; j < cols; j++) {
            vec g, first = v_load(sum[0][r][j]);
            if (bias)
                g = v_fma(v_load(scale[0][j]), first, v_load(bias[j]));
            else
                g = v_fma(v_load(scale[0][j]), v_add(first, minus_zero), v_zero());
#pragma GCC unroll 4
            for (int p = 1; p < n_part; p++)
                g = v_fma(v_load(scale[p][j]), v_add(v_load(sum[p][r][j]), minus_zero), g);
            v_store(c + j * PANEL, v_fma(x, g, v_load(c + j * PANEL)));
        }
    }
}

/* The next n rows of the set that is ready, or what is left of it. */
TILE_CODE void byte_scale(struct byte_pipe *pipe, int n, const int cols)
{
    const struct byte_set *s = pipe->ready;
    int begin = pipe->row, end = min_int(begin + n, s->n_row);
    if (s->n_part == 1)
        byte_scale_rows(s, begin, end, 1, cols);
    else if (s->n_part == 4)
        byte_scale_rows(s, begin, end, 4, cols);
    else
        byte_scale_rows(s, begin, end, s->n_part, cols);
    pipe->row = end;
}

/* All of the set before has been scaled when a set is ready: its memory is the next one's. */
INLINE void byte_ready(struct byte_pipe *pipe, const struct byte_set *set, const int cols)
{
    byte_scale(pipe, TILE_DIM, cols);
    pipe->ready = set;
    pipe->row = 0;
}

static const _Alignas(64) int32_t byte_zero_bits[PANEL] = {
    BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS,
    BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS,
    BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS, BYTE_ZERO_BITS};

#define BYTE_LOAD_A(t, from)                                                                       \
    do {                                                                                           \
        if (half)                                                                                  \
            tile_load_half_rows(t, from, TILE_BYTES);                                              \
        else                                                                                       \
            tile_load(t, from, TILE_BYTES);                                                        \
    } while (0)
#define BYTE_LOAD_B(t, from)                                                                       \
    do {                                                                                           \
        if (half)                                                                                  \
            tile_load_half_depth(t, from, TILE_BYTES);                                             \
        else                                                                                       \
            tile_load(t, from, TILE_BYTES);                                                        \
    } while (0)

/* One part into registers x and y, while the part before leaves px and py for `out` (NULL: there is
 * none), and `rows` rows of the set that is ready are scaled. */
#define BYTE_PART(x, y, px, py)                                                                    \
    do {                                                                                           \
        tile_load(x, byte_zero_bits, 0);                                                           \
        BYTE_LOAD_A(4, a);                                                                         \
        BYTE_LOAD_B(6, b0);                                                                        \
        tile_dp_i8(x, 4, 6);                                                                       \
        if (out)                                                                                   \
            tile_store(px, out, row_bytes);                                                        \
        byte_scale(pipe, (rows + 1) / 2, cols);                                                    \
        if (cols == 2) {                                                                           \
            tile_load(y, byte_zero_bits, 0);                                                       \
            BYTE_LOAD_B(7, b1);                                                                    \
            tile_dp_i8(y, 4, 7);                                                                   \
            if (out)                                                                               \
                tile_store(py, out + PANEL, row_bytes);                                            \
        }                                                                                          \
        for (int i = 1; i < piece->n_tile; i++) {                                                  \
            size_t at = (size_t)i * (half ? TILE_SIZE / 2 : TILE_SIZE);                            \
            /* Half a tile of rows is 32 bytes on, then a whole tile less those. */                \
            const unsigned char *ai =                                                              \
                half ? a_block + byte_row_at(piece->a, i) : a + (size_t)i * TILE_SIZE;             \
            BYTE_LOAD_A(4, ai);                                                                    \
            BYTE_LOAD_B(6, b0 + at);                                                               \
            tile_dp_i8(x, 4, 6);                                                                   \
            if (cols == 2) {                                                                       \
                BYTE_LOAD_B(7, b1 + at);                                                           \
                tile_dp_i8(y, 4, 7);                                                               \
            }                                                                                      \
        }                                                                                          \
        byte_scale(pipe, rows / 2, cols);                                                          \
    } while (0)

/* Where in a block of rows 32 k lie that are i times 32 k behind those at `a`. */
INLINE size_t byte_row_at(size_t a, int i)
{
    size_t k32 = a / TILE_SIZE * 2 + a % TILE_SIZE / K_BLOCK + (size_t)i;
    return k32 / 2 * TILE_SIZE + k32 % 2 * K_BLOCK;
}

/* One chunk for all rows; c [n_row, ldc]. */
TILE_CODE void byte_chunk_run(struct byte_pipe *pipe, const struct byte_chunk *chunk,
                              const struct byte_tiles *x, int n_row, float *c, size_t ldc,
                              const int half, const int cols)
{
    TILE_REGISTERS;
    const size_t row_bytes = TILES_PANELS * PANEL * sizeof(float);
    struct byte_set *set = NULL; /* of the part in registers */
    float *out = NULL;           /* where that goes */
    int last = 0, turn = 0;      /* whether it is its set's last, and in which registers */
    for (int r0 = 0; r0 < n_row; r0 += TILE_DIM) {
        const unsigned char *a_block = x->a + (size_t)(r0 / TILE_DIM) * x->block;
        for (int g = 0; g < chunk->n_group; g++) {
            int first = chunk->first[g], n_part = chunk->first[g + 1] - first;
            int rows = (TILE_DIM + n_part - 1) / n_part;
            struct byte_set *next = &pipe->set[pipe->turn % 3];
            next->sum = pipe->sum[pipe->turn % 2];
            next->scale = chunk->scale + first;
            next->bias = chunk->huge ? NULL : chunk->bias[g];
            next->sx = x->sx + (size_t)g * x->ld + r0;
            next->c = c + (size_t)r0 * ldc;
            next->ldc = ldc;
            next->n_part = n_part;
            next->n_row = min_int(TILE_DIM, n_row - r0);
            pipe->turn = (pipe->turn + 1) % 6;
            for (int p = 0; p < n_part; p++) {
                const struct byte_part *piece = &chunk->part[first + p];
                const unsigned char *a = a_block + piece->a;
                const unsigned char *b0 = chunk->b[0] + piece->b, *b1 = chunk->b[1] + piece->b;
                if (turn)
                    BYTE_PART(2, 3, 0, 1);
                else
                    BYTE_PART(0, 1, 2, 3);
                if (last)
                    byte_ready(pipe, set, cols);
                turn ^= 1;
                last = p + 1 == n_part;
                out = next->sum[p][0][0];
                set = next;
            }
        }
    }
    if (turn) {
        tile_store(0, out, row_bytes);
        if (cols == 2)
            tile_store(1, out + PANEL, row_bytes);
    } else {
        tile_store(2, out, row_bytes);
        if (cols == 2)
            tile_store(3, out + PANEL, row_bytes);
    }
    byte_ready(pipe, set, cols);
}

/* The parts of k [k0, k0 + n_k), k0 a multiple of ROW_GROUP. */
static void byte_parts(struct byte_chunk *chunk, const struct packed *w, int k0, int n_k)
{
    chunk->n_part = chunk->n_group = 0;
    for (int k = 0; k < n_k;) {
        if (k % ROW_GROUP == 0)
            chunk->first[chunk->n_group++] = chunk->n_part;
        int end = min_int(n_k, (k / ROW_GROUP + 1) * ROW_GROUP);
        end = min_int(end, ((k0 + k) / w->group + 1) * w->group - k0);
        size_t depth = chunk->half ? K_BLOCK : BYTE_DEEP;
        chunk->part[chunk->n_part++] =
            (struct byte_part){.a = (size_t)(k / BYTE_DEEP) * TILE_SIZE + (size_t)(k % BYTE_DEEP),
                               .b = (size_t)k * TILE_DIM,
                               .n_tile = (int)(((size_t)(end - k) + depth - 1) / depth)};
        k = end;
    }
    chunk->first[chunk->n_group] = chunk->n_part;
}

/* The scales of panel `col` of the chunk, and whether one is too large for the short way. */
static void byte_scales(struct byte_chunk *chunk, const struct packed *w,
                        const unsigned char *panel, int k0, int col)
{
    vec most = v_set1(BYTE_SCALE_MAX), above = v_zero();
    for (int g = 0; g < chunk->n_group; g++) {
        for (int p = chunk->first[g]; p < chunk->first[g + 1]; p++) {
            int k = k0 + (int)(chunk->part[p].b / TILE_DIM);
            vec s = v_load_bf16((const uint16_t *)(const void *)(panel + quant_scale_at(w, k)));
            v_store(chunk->scale[p][col], s);
            /* Not a number is above, too. */
            above = v_select_gt(most, v_abs(s), above, v_set1(1.0f));
            if (p == chunk->first[g])
                v_store(chunk->bias[g][col], v_mul(s, v_set1(-BYTE_ZERO)));
        }
    }
    chunk->huge |= v_max_lane(above) > 0.0f;
}

/* n_block times 32 k of a panel of i4 as bytes: each line of 8 k is two lines of 4. */
static void byte_bytes(const unsigned char *w, int n_block, unsigned char *out)
{
    for (size_t i = 0; i < (size_t)n_block * 4; i++, w += LINE_BYTES, out += 2 * LINE_BYTES) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
        const __m512i low = _mm512_set1_epi8(15), sign = _mm512_set1_epi8(8);
        __m512i q = _mm512_loadu_si512(w), even = _mm512_and_si512(q, low);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi16(q, 4), low);
        even = _mm512_sub_epi8(_mm512_xor_si512(even, sign), sign);
        odd = _mm512_sub_epi8(_mm512_xor_si512(odd, sign), sign);
        _mm512_storeu_si512(out, even);
        _mm512_storeu_si512(out + LINE_BYTES, odd);
#else
        for (size_t j = 0; j < LINE_BYTES; j++) {
            out[j] = (unsigned char)(((w[j] & 15) ^ 8) - 8);
            out[LINE_BYTES + j] = (unsigned char)(((w[j] >> 4) ^ 8) - 8);
        }
#endif
    }
}

/* A chunk's integers of one panel, where tiles can be loaded from: i8 as it lies, unless its last
 * tile is half full. */
INLINE const unsigned char *byte_panel(const struct packed *w, const unsigned char *panel, int k0,
                                       int n_k, int half, unsigned char *scratch)
{
    const unsigned char *from = panel + quant_block_at(w, k0);
    int half_full = !half && n_k % BYTE_DEEP != 0;
    if (w->dtype == DTYPE_I4)
        byte_bytes(from, n_k / K_BLOCK, scratch);
    else if (half_full)
        memcpy(scratch, from, (size_t)n_k * PANEL);
    else
        return from;
    if (half_full)
        memset(scratch + (size_t)n_k * PANEL, 0, K_BLOCK * PANEL);
    return scratch;
}

static void byte_run(struct byte_pipe *pipe, const struct byte_chunk *chunk,
                     const struct byte_tiles *x, int n_row, float *c, size_t ldc, int cols)
{
    if (chunk->half && cols == 2)
        byte_chunk_run(pipe, chunk, x, n_row, c, ldc, 1, 2);
    else if (cols == 2)
        byte_chunk_run(pipe, chunk, x, n_row, c, ldc, 0, 2);
    else if (chunk->half)
        byte_chunk_run(pipe, chunk, x, n_row, c, ldc, 1, 1);
    else
        byte_chunk_run(pipe, chunk, x, n_row, c, ldc, 0, 1);
}

/* Rows that fit the scratch at full depth; 0: not even a tile's. */
INLINE int byte_fit(int k_pad)
{
    size_t fit = TILES_SCRATCH / byte_row_bytes(k_pad) / TILE_DIM * TILE_DIM;
    return fit < TILES_MAX ? (int)fit : TILES_MAX;
}

/* k [k0, k0 + n_k) of a row that was made integers before; what is behind n_k meets zeros. */
INLINE void byte_row_copy(const int8_t *row, int k_pad, int k0, int n_k, unsigned char *out,
                          float *sx, size_t ld)
{
    const float *scale = (const float *)(const void *)(row + k_pad) + k0 / ROW_GROUP;
    for (int k = 0; k < n_k; k += BYTE_DEEP, out += TILE_SIZE)
        memcpy(out, row + k0 + k, TILE_BYTES);
    for (int g = 0; g * ROW_GROUP < n_k; g++)
        sx[(size_t)g * ld] = scale[g];
}

/* k [k0, k0 + n_k) of rows as tiles, their scales behind them; rows that are not there are zero. */
static void byte_gather(const struct gemm_rows *rows, int k_pad, int k0, int n_k, unsigned char *a,
                        float *sx, size_t ld)
{
    size_t block = byte_block_bytes(n_k);
    int end = (rows->n + TILE_DIM - 1) / TILE_DIM * TILE_DIM;
    for (int r = 0; r < end; r++) {
        unsigned char *out =
            a + (size_t)(r / TILE_DIM) * block + (size_t)(r % TILE_DIM) * TILE_BYTES;
        if (r >= rows->n) {
            for (size_t at = 0; at < block; at += TILE_SIZE)
                memset(out + at, 0, TILE_BYTES);
            continue;
        }
        size_t index = (size_t)(rows->row ? rows->row[r] : r);
        const uint16_t *x = (const uint16_t *)rows->x + index * rows->ld;
        if (rows->made) {
            byte_row_copy((const int8_t *)x, k_pad, k0, n_k, out, sx + r, ld);
            continue;
        }
        x += k0;
        for (int k = 0; k < n_k; k += ROW_GROUP, out += 2 * TILE_SIZE) {
            _Alignas(64) int8_t q[ROW_GROUP];
            int n = min_int(ROW_GROUP, n_k - k);
            sx[(size_t)(k / ROW_GROUP) * ld + (size_t)r] = int_row_group(x + k, n, q);
            memcpy(out, q, TILE_BYTES);
            if (n > BYTE_DEEP)
                memcpy(out + TILE_SIZE, q + BYTE_DEEP, TILE_BYTES);
        }
    }
}

static float *byte_scales_at(const struct gemm_rows *rows, int n_k, size_t *ld)
{
    *ld = (size_t)(rows->n + TILE_DIM - 1) / TILE_DIM * TILE_DIM;
    return (float *)(void *)(rows->scratch + *ld / TILE_DIM * byte_block_bytes(n_k));
}

static void byte_arrange(struct gemm_rows *rows, const struct packed *w)
{
    int k_pad = k_padded(w->k);
    size_t ld;
    rows->arranged = byte_fit(k_pad) > 0;
    if (rows->arranged) {
        float *sx = byte_scales_at(rows, k_pad, &ld);
        byte_gather(rows, k_pad, 0, k_pad, rows->scratch, sx, ld);
    }
}

/* The rows' tiles from k0 on: as they were arranged, or made now. */
static struct byte_tiles byte_tiles_of(const struct gemm_rows *rows, int k_pad, int k0, int n_k)
{
    size_t ld, block = byte_block_bytes(rows->arranged ? k_pad : n_k);
    float *sx = byte_scales_at(rows, rows->arranged ? k_pad : n_k, &ld);
    struct byte_tiles x = {.a = rows->scratch, .block = block, .sx = sx, .ld = ld};
    if (rows->arranged) {
        x.a += (size_t)(k0 / BYTE_DEEP) * TILE_SIZE;
        x.sx += (size_t)(k0 / ROW_GROUP) * ld;
    } else {
        byte_gather(rows, k_pad, k0, n_k, rows->scratch, sx, ld);
    }
    return x;
}

/* Two chunks in turn: the last set of one is scaled while the next is multiplied. */
static void gemm_tiles_int(const struct gemm_rows *rows, const struct packed *w,
                           const unsigned char *const *panel, int n_panel, float *c, size_t ldc)
{
    _Alignas(64) unsigned char b[TILES_PANELS][BYTE_K * PANEL];
    struct byte_chunk chunk[2];
    struct byte_pipe pipe;
    int k_pad = k_padded(w->k), half = w->group % BYTE_DEEP != 0;
    pipe.set[2].n_row = pipe.row = pipe.turn = 0;
    pipe.ready = &pipe.set[2];
    if (half)
        tile_open_half();
    for (int r = 0; r < rows->n; r++)
        memset(c + (size_t)r * ldc, 0, (size_t)n_panel * PANEL * sizeof *c);
    for (int k0 = 0, turn = 0; k0 < k_pad; k0 += BYTE_K, turn ^= 1) {
        struct byte_chunk *now = &chunk[turn];
        int n_k = min_int(BYTE_K, k_pad - k0);
        now->half = half;
        now->huge = 0;
        byte_parts(now, w, k0, n_k);
        for (int j = 0; j < n_panel; j++) {
            now->b[j] = byte_panel(w, panel[j], k0, n_k, half, b[j]);
            byte_scales(now, w, panel[j], k0, j);
        }
        now->b[1] = now->b[n_panel - 1];
        if (!rows->arranged) /* the set that waits reads the scales of rows */
            byte_scale(&pipe, TILE_DIM, n_panel);
        struct byte_tiles x = byte_tiles_of(rows, k_pad, k0, n_k);
        byte_run(&pipe, now, &x, rows->n, c, ldc, n_panel);
    }
    byte_scale(&pipe, TILE_DIM, n_panel);
    if (half)
        tile_open();
}

#endif
