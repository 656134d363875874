/* gemm_tiles_int: rows of integers times panels of integers on tile registers: THE INTEGER SUM.
 *
 * A tile unit cannot scale, so the sums of every part leave it through memory, and none outlives
 * 128 k (a row group). So the weights stay: four registers hold those of one row group while all
 * rows pass, 16 at a time in two tiles of 64 k, and each load of rows serves two products.
 *   BYTE_TWO   a row group is one part: two panels, two tiles each; i8 loaded from where it lies
 *   BYTE_ONE   the same for one panel, the last of an odd number
 *   BYTE_FOUR  parts of 32 k: one panel; each 32 k are a tile of 64 whose other half is zero, so
 *              that the tiles of rows are the same
 *   BYTE_MIXED other parts: as BYTE_FOUR, and the sums of one part are added up when scaled
 * i4 is made bytes a row group at a time, once for all rows.
 *
 * The sums of 16 rows (a set) are scaled by vector operations dealt out between the tile operations
 * of the next 16, whose rows are loaded during those before them: nothing is asked for right after
 * it was given. Where a neighbour uses the other half of the core this counts double: tile
 * operations that follow each other closely then take several times as long, with vector operations
 * between them less. Loads of tiles are dear there, and a load from one line sixteen times (to set
 * all sums to a constant that makes them floats) the dearest: so sums begin at zero.
 *
 * Rows lie as [row group][16 rows][2][16][64], in the order they are met: a stream from the second
 * cache. The weights' next lines are asked for ahead. Included by gemm_tiles.h. */
#ifndef KERNELS_GEMM_TILES_INT_H
#define KERNELS_GEMM_TILES_INT_H

#define BYTE_DEEP  64                    /* k of a tile of bytes */
#define BYTE_BLOCK (2 * TILE_SIZE)       /* 16 rows of a row group */
#define BYTE_PARTS (ROW_GROUP / K_BLOCK) /* of a row group, at most */
#define BYTE_AHEAD 2                     /* row groups ahead that weights are asked for */
#define BYTE_K     (4 * ROW_GROUP)       /* of rows too deep to be arranged whole */

enum byte_shape { BYTE_TWO, BYTE_ONE, BYTE_FOUR, BYTE_MIXED };

/* Rows [n_row, k) made integers: a: [k / 128][n_block][2][16][64], n_block times 16 rows; sx [k /
 * 128][n_block * 16]. */
struct byte_tiles {
    const unsigned char *a;
    const float *sx;
    int n_block;
};

/* Four tiles of weights of one row group. ends: BYTE_MIXED: bit i: a part ends with the tile i.
 * scale: of each part (its last tile), or of each panel. */
struct byte_weights {
    const unsigned char *b[BYTE_PARTS];
    const float (*scale)[PANEL];
    unsigned ends;
    uintptr_t
        ahead[TILES_PANELS]; /* what comes BYTE_AHEAD row groups later, or is behind the last */
    int n_ahead;             /* lines */
};

/* Sums of 16 rows that wait to be scaled: [tile or panel][16][PANEL]. */
struct byte_set {
    const int32_t *sum;
    const float (*scale)[PANEL];
    unsigned ends;
    const float *sx;
    float *c;
};

/* What passes from one row group to the next: the set that waits, in one half of `sum` with its
 * scales in one of `scale`. The first set of all goes `nowhere`. */
struct byte_pipe {
    _Alignas(64) int32_t sum[2][BYTE_PARTS][TILE_DIM][PANEL];
    _Alignas(64) float scale[2][BYTE_PARTS][PANEL];
    _Alignas(64) float nowhere[TILE_DIM][TILES_PANELS][PANEL];
    struct byte_set wait;
    size_t ldc;
    int sum_turn, scale_turn; /* the halves that come next */
};

/* Rows [row, row + 4) of a set; w: its scales. */
TILE_CODE void byte_scale(const struct byte_set *s, const vec *w, size_t ldc, int row,
                          const enum byte_shape shape)
{
    const size_t next = (size_t)TILE_DIM * PANEL;
#pragma GCC unroll 4
    for (int r = row; r < row + 4; r++) {
        const int32_t *sum = s->sum + r * PANEL;
        float *c = s->c + (size_t)r * ldc;
        const vec x = v_set1(s->sx[r]);
        vec g = v_zero();
        if (shape == BYTE_TWO) {
            vec second = v_fma(w[1], v_load_int(sum + next), v_zero());
            v_store(c + PANEL, v_fma(x, second, v_load(c + PANEL)));
        }
        if (shape == BYTE_TWO || shape == BYTE_ONE) {
            g = v_fma(w[0], v_load_int(sum), g);
        } else if (shape == BYTE_FOUR) {
#pragma GCC unroll 4
            for (size_t i = 0; i < BYTE_PARTS; i++)
                g = v_fma(w[i], v_load_int(sum + i * next), g);
        } else {
            vec d = v_zero(); /* sums of integers below 2^24 are exact */
            for (size_t i = 0; i < BYTE_PARTS; i++) {
                d = v_add(d, v_load_int(sum + i * next));
                if (s->ends >> i & 1) {
                    g = v_fma(w[i], d, g);
                    d = v_zero();
                }
            }
        }
        v_store(c, v_fma(x, g, v_load(c)));
    }
}

TILE_CODE void byte_load_scales(const struct byte_set *s, vec *w)
{
#pragma GCC unroll 4
    for (int i = 0; i < BYTE_PARTS; i++)
        w[i] = v_load(s->scale[i]);
}

/* The next n lines ahead, of each panel. */
TILE_CODE void byte_prefetch(const struct byte_weights *b, size_t *at, int n, int n_panel)
{
    for (int i = 0; i < n; i++, *at += LINE_BYTES) {
        __builtin_prefetch((const void *)(b->ahead[0] + *at));
        if (n_panel == 2)
            __builtin_prefetch((const void *)(b->ahead[1] + *at));
    }
}

/* One row group of all rows: their tiles from a on, their scales, and the first of their results.
 */
TILE_CODE void byte_rows(struct byte_pipe *pipe, const struct byte_weights *b,
                         const unsigned char *a, const float *sx, int n_block, float *c,
                         const enum byte_shape shape)
{
    TILE_REGISTERS;
    const int whole = shape == BYTE_TWO || shape == BYTE_ONE;
    const size_t ldc = pipe->ldc, step = TILE_DIM * ldc;
    const int n_panel = shape == BYTE_TWO ? 2 : 1;
    const int lines = (b->n_ahead + 2 * n_block - 1) / (2 * n_block);
    size_t ahead = 0;
    struct byte_set wait = pipe->wait;
    int turn = pipe->sum_turn;
    tile_load(4, b->b[0], TILE_BYTES);
    tile_load(5, b->b[1], TILE_BYTES);
    if (shape != BYTE_ONE) {
        tile_load(6, b->b[2], TILE_BYTES);
        tile_load(7, b->b[3], TILE_BYTES);
    }
    tile_load(2, a, TILE_BYTES);
    tile_load(3, a + TILE_SIZE, TILE_BYTES);
    for (int i = 0; i < n_block; i++, a += BYTE_BLOCK, sx += TILE_DIM, c += step, turn ^= 1) {
        int32_t *sum = pipe->sum[turn][0][0];
        vec w[BYTE_PARTS];
        byte_load_scales(&wait, w);
        const unsigned char *next = i + 1 < n_block ? a + BYTE_BLOCK : a;
        tile_zero(0);
        tile_dp_i8(0, 2, 4);
        byte_prefetch(b, &ahead, lines, n_panel);
        byte_scale(&wait, w, ldc, 0, shape);
        if (whole) {
            tile_zero(1);
            if (shape == BYTE_TWO)
                tile_dp_i8(1, 2, 6);
            tile_load(2, next, TILE_BYTES);
            byte_scale(&wait, w, ldc, 4, shape);
            tile_dp_i8(0, 3, 5);
            byte_prefetch(b, &ahead, lines, n_panel);
            byte_scale(&wait, w, ldc, 8, shape);
            if (shape == BYTE_TWO)
                tile_dp_i8(1, 3, 7);
            tile_load(3, next + TILE_SIZE, TILE_BYTES);
            byte_scale(&wait, w, ldc, 12, shape);
            tile_store(0, sum, TILE_BYTES);
            if (shape == BYTE_TWO)
                tile_store(1, sum + TILE_DIM * PANEL, TILE_BYTES);
        } else {
            tile_zero(1);
            tile_dp_i8(1, 2, 5);
            tile_load(2, next, TILE_BYTES);
            byte_scale(&wait, w, ldc, 4, shape);
            tile_store(0, sum, TILE_BYTES);
            tile_zero(0);
            tile_dp_i8(0, 3, 6);
            byte_prefetch(b, &ahead, lines, n_panel);
            byte_scale(&wait, w, ldc, 8, shape);
            tile_store(1, sum + TILE_DIM * PANEL, TILE_BYTES);
            tile_zero(1);
            tile_dp_i8(1, 3, 7);
            tile_load(3, next + TILE_SIZE, TILE_BYTES);
            byte_scale(&wait, w, ldc, 12, shape);
            tile_store(0, sum + 2 * TILE_DIM * PANEL, TILE_BYTES);
            tile_store(1, sum + 3 * TILE_DIM * PANEL, TILE_BYTES);
        }
        wait = (struct byte_set){.sum = sum, .scale = b->scale, .ends = b->ends, .sx = sx, .c = c};
    }
    pipe->wait = wait;
    pipe->sum_turn = turn;
}

static void byte_rows_of(struct byte_pipe *pipe, const struct byte_weights *b,
                         const unsigned char *a, const float *sx, int n_block, float *c,
                         enum byte_shape shape)
{
    if (shape == BYTE_TWO)
        byte_rows(pipe, b, a, sx, n_block, c, BYTE_TWO);
    else if (shape == BYTE_ONE)
        byte_rows(pipe, b, a, sx, n_block, c, BYTE_ONE);
    else if (shape == BYTE_FOUR)
        byte_rows(pipe, b, a, sx, n_block, c, BYTE_FOUR);
    else
        byte_rows(pipe, b, a, sx, n_block, c, BYTE_MIXED);
}

/* No set waits any more: nothing is added to nowhere. */
static void byte_begin(struct byte_pipe *pipe)
{
    static const _Alignas(64) int32_t no_sum[BYTE_PARTS * TILE_DIM * PANEL];
    static const _Alignas(64) float no_scale[BYTE_PARTS][PANEL];
    memset(pipe->nowhere, 0, sizeof pipe->nowhere);
    pipe->sum_turn = pipe->scale_turn = 0;
    pipe->wait = (struct byte_set){
        .sum = no_sum, .scale = no_scale, .sx = no_scale[0], .c = pipe->nowhere[0][0]};
}

/* The set that waits is scaled. */
static void byte_end(struct byte_pipe *pipe, enum byte_shape shape)
{
    vec w[BYTE_PARTS];
    byte_load_scales(&pipe->wait, w);
    for (int r = 0; r < TILE_DIM; r += 4) {
        if (shape == BYTE_TWO)
            byte_scale(&pipe->wait, w, pipe->ldc, r, BYTE_TWO);
        else if (shape == BYTE_ONE)
            byte_scale(&pipe->wait, w, pipe->ldc, r, BYTE_ONE);
        else
            byte_scale(&pipe->wait, w, pipe->ldc, r, BYTE_MIXED);
    }
}

/* ---- weights ---- */

/* The shape of a row group of n_k: a short one of parts of 32 k, the last, is BYTE_MIXED. Scaling
 * a set of BYTE_FOUR so gives the same. */
INLINE enum byte_shape byte_shape_of(const struct packed *w, int n_panel, int n_k)
{
    if (w->group % ROW_GROUP == 0)
        return n_panel == 2 ? BYTE_TWO : BYTE_ONE;
    return w->group == K_BLOCK && n_k == ROW_GROUP ? BYTE_FOUR : BYTE_MIXED;
}

/* n_block times 32 k of a panel as bytes: of i4 each line of 8 k is two lines of 4. */
static void byte_bytes(const unsigned char *w, enum dtype dtype, int n_block, unsigned char *out)
{
    if (dtype == DTYPE_I8) {
        memcpy(out, w, (size_t)n_block * K_BLOCK * PANEL);
        return;
    }
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

INLINE void byte_store_scale(const unsigned char *scale, float *out)
{
    v_store(out, v_load_bf16((const uint16_t *)(const void *)scale));
}

/* Where k0 of a panel lies: the blocks from there on, and their scales, SCALE_BYTES for each part.
 * Found once a row group: it takes divisions. */
struct byte_at {
    size_t block, scale;
};

INLINE struct byte_at byte_at_of(const struct packed *w, int k0)
{
    return (struct byte_at){.block = quant_block_at(w, k0), .scale = quant_scale_at(w, k0)};
}

/* n_k of a panel from `from` on, of one part: tiles b[0] and b[1], where they lie if that can be.
 */
static void byte_whole(const struct packed *w, const unsigned char *from, int n_k,
                       unsigned char (*scratch)[TILE_SIZE], const unsigned char **b)
{
    if (w->dtype == DTYPE_I4 || n_k < ROW_GROUP) {
        byte_bytes(from, w->dtype, n_k / K_BLOCK, scratch[0]);
        memset(scratch[0] + (size_t)n_k * PANEL, 0, (size_t)(ROW_GROUP - n_k) * PANEL);
        from = scratch[0];
    }
    b[0] = from;
    b[1] = from + TILE_SIZE;
}

/* The same of several parts: each 32 k a tile, in the half where the rows have them; scratch is
 * zero in the other. A whole row group of parts of 32 k. */
INLINE void byte_four(const struct packed *w, const unsigned char *panel, const struct byte_at *at,
                      unsigned char (*scratch)[TILE_SIZE], float (*scale)[PANEL],
                      struct byte_weights *to)
{
    const unsigned char *from = panel + at->block, *from_scale = panel + at->scale;
    const size_t step = quant_block_bytes(w->dtype);
    for (size_t i = 0; i < BYTE_PARTS; i++, from += step, from_scale += SCALE_BYTES) {
        byte_bytes(from, w->dtype, 1, scratch[i] + i % 2 * (TILE_SIZE / 2));
        byte_store_scale(from_scale, scale[i]);
        to->b[i] = scratch[i];
    }
    to->ends = (1u << BYTE_PARTS) - 1;
}

/* Other parts, or k [k0, k0 + n_k) that are no whole row group. */
static void byte_mixed(const struct packed *w, const unsigned char *panel, int k0, int n_k,
                       unsigned char (*scratch)[TILE_SIZE], float (*scale)[PANEL],
                       struct byte_weights *to)
{
    to->ends = 0;
    for (int i = 0, k = k0; i < BYTE_PARTS; i++, k += K_BLOCK) {
        unsigned char *half = scratch[i] + (size_t)(i % 2) * (TILE_SIZE / 2);
        int last = i == BYTE_PARTS - 1 || k + K_BLOCK == k0 + n_k;
        to->b[i] = scratch[i];
        if (k < k0 + n_k) {
            byte_bytes(panel + quant_block_at(w, k), w->dtype, 1, half);
            byte_store_scale(panel + quant_scale_at(w, k), scale[i]);
            to->ends |= (unsigned)(last || (k + K_BLOCK) % w->group == 0) << i;
        } else {
            memset(half, 0, TILE_SIZE / 2);
            memset(scale[i], 0, sizeof scale[i]);
        }
    }
}

/* ---- rows ---- */

/* Bytes of one row with its scales. */
INLINE size_t byte_row_bytes(int k_pad)
{
    size_t n_group = (size_t)(k_pad + ROW_GROUP - 1) / ROW_GROUP;
    return n_group * (ROW_GROUP + sizeof(float));
}

/* Rows that fit the scratch at full depth; 0: not even a tile's. */
INLINE int byte_fit(int k_pad)
{
    size_t fit = TILES_SCRATCH / byte_row_bytes(k_pad) / TILE_DIM * TILE_DIM;
    return fit < TILES_MAX ? (int)fit : TILES_MAX;
}

/* Row r as it lies. */
INLINE const void *byte_row_at(const struct gemm_rows *rows, int r)
{
    size_t index = (size_t)(rows->row ? rows->row[r] : r);
    return (const uint16_t *)rows->x + index * rows->ld;
}

/* Rows that are integers: eight at a time, row group by row group, so that what is written is one
 * stream; those after them are asked for meanwhile, which no hardware guesses. */
static void byte_copy(const struct gemm_rows *rows, int k_pad, int k0, int n_k,
                      struct byte_tiles to, unsigned char *a, float *sx)
{
    enum { AT_ONCE = TILE_DIM / 2 };
    const size_t step = (size_t)to.n_block * BYTE_BLOCK, ld = (size_t)to.n_block * TILE_DIM;
    const int8_t *from[2 * AT_ONCE] = {0};
    for (int r = 0; r < AT_ONCE && r < rows->n; r++)
        from[r] = byte_row_at(rows, r);
    for (int r0 = 0; r0 < to.n_block * TILE_DIM; r0 += AT_ONCE) {
        for (int r = 0; r < AT_ONCE; r++) {
            int next = r0 + AT_ONCE + r;
            from[AT_ONCE + r] = next < rows->n ? byte_row_at(rows, next) : NULL;
        }
        unsigned char *out =
            a + (size_t)(r0 / TILE_DIM) * BYTE_BLOCK + (size_t)(r0 % TILE_DIM) * TILE_BYTES;
        for (int k = 0; k < n_k; k += ROW_GROUP, out += step) {
            int second = min_int(BYTE_DEEP, n_k - k - BYTE_DEEP);
            for (int r = 0; r < AT_ONCE; r++) {
                unsigned char *to_row = out + (size_t)r * TILE_BYTES;
                const int8_t *row = from[r], *next = from[AT_ONCE + r];
                float scale = 0.0f;
                if (next) {
                    __builtin_prefetch(next + k0 + k);
                    __builtin_prefetch(next + k0 + k + BYTE_DEEP);
                }
                if (row && second == BYTE_DEEP) {
                    memcpy(to_row, row + k0 + k, BYTE_DEEP);
                    memcpy(to_row + TILE_SIZE, row + k0 + k + BYTE_DEEP, BYTE_DEEP);
                } else {
                    memset(to_row, 0, BYTE_DEEP);
                    memset(to_row + TILE_SIZE, 0, BYTE_DEEP);
                    if (row) {
                        memcpy(to_row, row + k0 + k, (size_t)min_int(BYTE_DEEP, n_k - k));
                        memcpy(to_row + TILE_SIZE, row + k0 + k + BYTE_DEEP,
                               (size_t)(second > 0 ? second : 0));
                    }
                }
                if (row)
                    memcpy(&scale, row + k_pad + (size_t)((k0 + k) / ROW_GROUP) * sizeof scale,
                           sizeof scale);
                sx[(size_t)(k / ROW_GROUP) * ld + (size_t)(r0 + r)] = scale;
            }
        }
        memcpy(from, from + AT_ONCE, AT_ONCE * sizeof *from);
    }
}

/* Rows of bf16. */
static void byte_make(const struct gemm_rows *rows, int k0, int n_k, struct byte_tiles to,
                      unsigned char *a, float *sx)
{
    const size_t step = (size_t)to.n_block * BYTE_BLOCK, ld = (size_t)to.n_block * TILE_DIM;
    for (int r = 0; r < to.n_block * TILE_DIM; r++) {
        unsigned char *out =
            a + (size_t)(r / TILE_DIM) * BYTE_BLOCK + (size_t)(r % TILE_DIM) * TILE_BYTES;
        for (int k = 0; k < n_k; k += BYTE_K) {
            _Alignas(64) int8_t q[BYTE_K] = {0};
            float scale[BYTE_K / ROW_GROUP] = {0};
            if (r < rows->n)
                int_row((const uint16_t *)byte_row_at(rows, r) + k0 + k, min_int(BYTE_K, n_k - k),
                        q, scale);
            for (int g = 0; g < BYTE_K / ROW_GROUP && k + g * ROW_GROUP < n_k; g++, out += step) {
                sx[(size_t)(k / ROW_GROUP + g) * ld + (size_t)r] = scale[g];
                memcpy(out, q + g * ROW_GROUP, BYTE_DEEP);
                memcpy(out + TILE_SIZE, q + g * ROW_GROUP + BYTE_DEEP, BYTE_DEEP);
            }
        }
    }
}

/* k [k0, k0 + n_k) of rows of the whole depth k_pad into the scratch; what is not there is zero. */
static struct byte_tiles byte_gather(const struct gemm_rows *rows, int k_pad, int k0, int n_k)
{
    int n_block = (rows->n + TILE_DIM - 1) / TILE_DIM, n_group = (n_k + ROW_GROUP - 1) / ROW_GROUP;
    float *sx = (float *)(void *)(rows->scratch + (size_t)n_group * (size_t)n_block * BYTE_BLOCK);
    struct byte_tiles to = {.a = rows->scratch, .sx = sx, .n_block = n_block};
    if (rows->made)
        byte_copy(rows, k_pad, k0, n_k, to, rows->scratch, sx);
    else
        byte_make(rows, k0, n_k, to, rows->scratch, sx);
    return to;
}

static void byte_arrange(struct gemm_rows *rows, const struct packed *w)
{
    int k_pad = k_padded(w->k);
    rows->arranged = byte_fit(k_pad) > 0;
    if (rows->arranged)
        byte_gather(rows, k_pad, 0, k_pad);
}

/* Where arranged rows are. */
static struct byte_tiles byte_arranged(const struct gemm_rows *rows, int k_pad)
{
    int n_block = (rows->n + TILE_DIM - 1) / TILE_DIM,
        n_group = (k_pad + ROW_GROUP - 1) / ROW_GROUP;
    const unsigned char *end = rows->scratch + (size_t)n_group * (size_t)n_block * BYTE_BLOCK;
    return (struct byte_tiles){
        .a = rows->scratch, .sx = (const float *)(const void *)end, .n_block = n_block};
}

/* ---- the product ---- */

/* k [k0, k0 + n_k) of one or two panels, n_k up to ROW_GROUP, times rows x from there on. */
static void byte_group(struct byte_pipe *pipe, const struct byte_tiles *x, const struct packed *w,
                       const unsigned char *const *panel, int n_panel, int k0, int n_k, float *c,
                       unsigned char (*scratch)[TILE_SIZE])
{
    const enum byte_shape shape = byte_shape_of(w, n_panel, n_k);
    const int whole = shape == BYTE_TWO || shape == BYTE_ONE;
    const struct byte_at at = byte_at_of(w, k0);
    const size_t block = quant_block_bytes(w->dtype),
                 ahead = at.block + BYTE_AHEAD * BYTE_PARTS * block;
    for (int j = 0; j < n_panel; j += whole ? n_panel : 1) {
        float(*scale)[PANEL] = pipe->scale[pipe->scale_turn];
        struct byte_weights b = {.scale = (const float(*)[PANEL])scale};
        pipe->scale_turn ^= 1;
        b.n_ahead = (int)(block / LINE_BYTES) * BYTE_PARTS;
        for (int i = 0; i < n_panel; i++)
            b.ahead[i] = (uintptr_t)panel[whole ? i : j] + ahead;
        if (whole) {
            for (int i = 0; i < n_panel; i++) {
                byte_whole(w, panel[i] + at.block, n_k, scratch + 2 * i, b.b + 2 * i);
                byte_store_scale(panel[i] + at.scale, scale[i]);
            }
        } else if (shape == BYTE_FOUR && w->dtype == DTYPE_I4) {
            byte_four(w, panel[j], &at, scratch, scale, &b);
        } else {
            byte_mixed(w, panel[j], k0, n_k, scratch, scale, &b);
        }
        byte_rows_of(pipe, &b, x->a, x->sx, x->n_block, c + j * PANEL, shape);
    }
}

/* c has room for whole tiles of rows. */
static void gemm_tiles_int(const struct gemm_rows *rows, const struct packed *w,
                           const unsigned char *const *panel, int n_panel, float *c, size_t ldc)
{
    _Alignas(64) unsigned char scratch[BYTE_PARTS][TILE_SIZE];
    struct byte_pipe pipe;
    int k_pad = k_padded(w->k), chunk = rows->arranged ? k_pad : BYTE_K;
    size_t n_c = (size_t)(rows->n + TILE_DIM - 1) / TILE_DIM * TILE_DIM * ldc;
    memset(c, 0, n_c * sizeof *c);
    if (w->group % ROW_GROUP != 0) /* the halves that stay so */
        memset(scratch, 0, sizeof scratch);
    pipe.ldc = ldc;
    for (int k0 = 0; k0 < k_pad; k0 += chunk) {
        int end = min_int(k0 + chunk, k_pad), n_k = 0;
        struct byte_tiles x =
            rows->arranged ? byte_arranged(rows, k_pad) : byte_gather(rows, k_pad, k0, end - k0);
        byte_begin(&pipe);
        for (int k = k0; k < end; k += n_k) {
            n_k = min_int(ROW_GROUP, end - k);
            byte_group(&pipe, &x, w, panel, n_panel, k, n_k, c, scratch);
            x.a += (size_t)x.n_block * BYTE_BLOCK;
            x.sx += (size_t)x.n_block * TILE_DIM;
        }
        byte_end(&pipe, byte_shape_of(w, n_panel, n_k));
    }
}

#endif
