/* product_ints: THE INTEGER SUM on tensor cores (mma.m16n8k32 of bytes: PTX ISA, "Matrix Fragments
 * for mma.m16n8k32"). A warp has one panel, or a gate's and its up's, and a tile of rows; a K_BLOCK
 * of the panel is one instruction's A as it lies in memory: which of the panel's columns is which
 * row of A, and in which order k comes, is free as long as B and the result follow, so a lane takes
 * columns 2g and 2g + 1 and k 8t to 8t + 7, and reads words of 64 bits. Sums within a part are
 * exact, so their order is free as well; a part's float arithmetic is in the order of kernels.h.
 *
 * Rows come to shared memory a ROW_GROUP at a time, some ahead of the product, for the block's four
 * panels; weights go to registers, `AHEAD` groups before they are used: each is read by one warp.
 * What a warp does between two waits has no branch, so that instructions of many results overlap.
 * Roof: few rows: bytes of weights; many: products of bytes, and for groups of 32 the conversion
 * and multiply-add that each part of 32 costs a result. */
#ifndef KERNELS_CUDA_PRODUCT_INTS_CUH
#define KERNELS_CUDA_PRODUCT_INTS_CUH

#include "kernels/cuda/product.cuh"

#define INTS_WARPS  4
#define INTS_BLOCKS (ROW_GROUP / K_BLOCK)
/* Bytes from row to row in shared memory: four rows' words of 64 bits lie in different banks. */
#define INTS_STRIDE (ROW_GROUP + 32)

/* Where parts end: with each K_BLOCK (groups of 32), with each ROW_GROUP (groups that are multiples
 * of it), or as a mask says. */
enum parts { PARTS_BLOCK, PARTS_GROUP, PARTS_MASK };

static __device__ inline void mma_bytes(int d[4], const uint32_t a[4], uint2 b)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}

/* copy_16, copy_4: bytes to shared memory by and by; zeros where there is nothing to copy. */
static __device__ inline void copy_16(void *to, const void *from, bool there)
{
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}
static __device__ inline void copy_4(void *to, const void *from, bool there)
{
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from),
                 "r"(there ? 4 : 0)
                 : "memory");
}
/* copies_end closes what was begun since; copies_wait waits for all but the last LEFT of those. */
static __device__ inline void copies_end(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int LEFT> static __device__ inline void copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* A ROW_GROUP of a panel, as a lane has it: its columns' quads of each K_BLOCK, and the scales of
 * its parts, each of the two columns as bf16. */
template <int BITS, enum parts PARTS>
struct panel_part {
    uint2 word[INTS_BLOCKS][BITS / 4]; uint32_t scale[PARTS == PARTS_GROUP ? 1 : INTS_BLOCKS];
};

/* Where a lane's part of a panel begins, and how it goes on. */
template <int BITS> struct panel_at {
    const unsigned char *word, *scale;
    static const size_t block = (size_t)K_BLOCK * PANEL * BITS / 8;
};

template <int BITS>
static __device__ inline panel_at<BITS> panel_begin(const unsigned char *panel, size_t scales,
                                                    int lane)
{
    const int g = lane >> 2, t = lane & 3;
    panel_at<BITS> at;
    at.word = panel + scales + (size_t)t * (BITS / 4) * PANEL * 4 + (size_t)g * 8;
    at.scale = panel + (size_t)g * 4;
    return at;
}

/* part_load: the ROW_GROUP from k0 on; blocks beyond n_block (PARTS_MASK only) are left alone. */
template <int BITS, enum parts PARTS>
static __device__ inline void part_load(panel_part<BITS, PARTS> &w, const panel_at<BITS> &at,
                                        int k0, int n_block, int group)
{
    const unsigned char *word = at.word + (size_t)(k0 / K_BLOCK) * at.block;
#pragma unroll
    for (int b = 0; b < INTS_BLOCKS; b++) {
        if (PARTS == PARTS_MASK && b >= n_block)
            break;
#pragma unroll
        for (int i = 0; i < BITS / 4; i++)
            w.word[b][i] = __ldcs((const uint2 *)(word + (size_t)b * at.block + i * PANEL * 4));
        if (PARTS != PARTS_GROUP || b == 0) {
            size_t part = (size_t)((k0 + b * K_BLOCK) / group);
            w.scale[b] = __ldg((const uint32_t *)(at.scale + part * PANEL * 2));
        }
    }
}

/* The A of block b. i4: a nibble in the upper half of its byte counts sixteen times. */
template <int BITS, enum parts PARTS>
static __device__ inline void part_block(const panel_part<BITS, PARTS> &w, int b, uint32_t a[4])
{
    if (BITS == 8) {
        a[0] = w.word[b][0].x;
        a[1] = w.word[b][0].y;
        a[2] = w.word[b][BITS / 4 - 1].x;
        a[3] = w.word[b][BITS / 4 - 1].y;
    } else {
        a[0] = w.word[b][0].x << 4 & 0xf0f0f0f0u;
        a[1] = w.word[b][0].y << 4 & 0xf0f0f0f0u;
        a[2] = w.word[b][0].x & 0xf0f0f0f0u;
        a[3] = w.word[b][0].y & 0xf0f0f0f0u;
    }
}

/* part_ends: sum += scale d, exactly d, which begins anew. */
template <int BITS> static __device__ inline void part_ends(int d[4], uint32_t scales, float sum[4])
{
    const float s0 = __uint_as_float(scales << 16), s1 = __uint_as_float(scales & 0xffff0000u);
#pragma unroll
    for (int q = 0; q < 4; q++) {
        int exact = BITS == 8 ? d[q] : d[q] >> 4;
        sum[q] = __fmaf_rn(q < 2 ? s0 : s1, __int2float_rn(exact), sum[q]);
        d[q] = 0;
    }
}

/* group_add: one ROW_GROUP of one panel and eight rows (x: this lane's row and k; sx: the scales of
 * its results' rows) to c. */
template <int BITS, enum parts PARTS>
static __device__ inline void group_add(const panel_part<BITS, PARTS> &w, const unsigned char *x,
                                        const float *sx, int n_block, unsigned ends, float c[4])
{
    int d[4] = {0, 0, 0, 0};
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int b = 0; b < INTS_BLOCKS; b++) {
        if (PARTS == PARTS_MASK && b >= n_block)
            break;
        uint32_t a[4];
        part_block(w, b, a);
        mma_bytes(d, a, *(const uint2 *)(x + b * K_BLOCK));
        if (PARTS == PARTS_BLOCK || (PARTS == PARTS_MASK && ends >> b & 1))
            part_ends<BITS>(d, w.scale[b], sum);
    }
    if (PARTS == PARTS_GROUP)
        part_ends<BITS>(d, w.scale[0], sum);
    const float2 s = *(const float2 *)sx;
    c[0] = __fmaf_rn(s.x, sum[0], c[0]);
    c[1] = __fmaf_rn(s.y, sum[1], c[1]);
    c[2] = __fmaf_rn(s.x, sum[2], c[2]);
    c[3] = __fmaf_rn(s.y, sum[3], c[3]);
}

/* ends_of: at which blocks of the ROW_GROUP from k0 on parts end. */
static __device__ inline unsigned ends_of(int k0, int n_block, int group)
{
    unsigned ends = 1u << (n_block - 1);
    for (int b = 0; b < n_block; b++)
        if ((k0 + (b + 1) * K_BLOCK) % group == 0)
            ends |= 1u << b;
    return ends;
}

template <int BITS, enum parts PARTS, int TILES, int MATS>
static __global__ void __launch_bounds__(INTS_WARPS *WARP, TILES == 8 ? 3 : 2)
    ints_kernel(const struct product p)
{
    constexpr int ROWS = TILES * INTS_TILE, UNITS = ROWS * (ROW_GROUP / 16);
    constexpr int AHEAD = PARTS == PARTS_MASK ? 1 : TILES <= 2 ? 3 : TILES == 4 ? 2 : 1;
    constexpr int TOGETHER = TILES < 4 ? TILES : 4; /* tiles without a branch between them */
    constexpr int BUFFERS = TILES <= 2 ? 6 : 3;     /* of rows in shared memory */
    __shared__ __align__(16) unsigned char rows[BUFFERS][ROWS * INTS_STRIDE];
    __shared__ __align__(16) float row_scale[BUFFERS][ROWS];
    __shared__ const unsigned char *row_at[ROWS];
    const struct cuda_tile tile = p.tile[blockIdx.x];
    const struct cuda_expert e = p.expert[tile.expert];
    const int lane = threadIdx.x % WARP, g = lane >> 2, t = lane & 3;
    const int panel = blockIdx.y * INTS_WARPS + threadIdx.x / WARP;
    const int n_group = (p.k_pad + ROW_GROUP - 1) / ROW_GROUP;
    const bool at_work = panel < (p.n + PANEL - 1) / PANEL;
    float c[TILES][MATS][4] = {};
    panel_at<BITS> at[MATS];
    panel_part<BITS, PARTS> w[AHEAD][MATS];
#pragma unroll
    for (int m = 0; m < MATS; m++)
        at[m] =
            panel_begin<BITS>(matrix_of<MATS>(p, e, m) + (size_t)panel * p.panel, p.scales, lane);

    auto blocks_of = [&](int i) {
        int left = (p.k_pad - i * ROW_GROUP) / K_BLOCK;
        return left < INTS_BLOCKS ? left : INTS_BLOCKS;
    };
    auto weights_ask = [&](panel_part<BITS, PARTS>(&to)[MATS], int i) {
#pragma unroll
        for (int m = 0; m < MATS; m++)
            part_load(to[m], at[m], i * ROW_GROUP, blocks_of(i), p.group);
    };
    auto rows_ask = [&](int i) {
        if (i < n_group) {
            const int k0 = i * ROW_GROUP, buffer = i % BUFFERS;
            for (int u = threadIdx.x; u < UNITS; u += INTS_WARPS * WARP) {
                int r = u / (ROW_GROUP / 16), k = u % (ROW_GROUP / 16) * 16;
                bool there = r < tile.n && k0 + k < p.k_pad;
                const unsigned char *x = there ? row_at[r] + k0 + k : (const unsigned char *)p.x;
                copy_16(&rows[buffer][r * INTS_STRIDE + k], x, there);
            }
            for (int r = threadIdx.x; r < ROWS; r += INTS_WARPS * WARP)
                copy_4(&row_scale[buffer][r],
                       r < tile.n ? row_at[r] + p.k_pad + 4 * i : (const unsigned char *)p.x,
                       r < tile.n);
        }
        copies_end();
    };

#pragma unroll
    for (int a = 0; a < AHEAD; a++)
        if (at_work && a < n_group)
            weights_ask(w[a], a);
    if (threadIdx.x < ROWS && (int)threadIdx.x < tile.n)
        row_at[threadIdx.x] =
            (const unsigned char *)p.x + (size_t)row_of(p, tile.begin + (int)threadIdx.x) * p.ldx;
    __syncthreads();
    for (int i = 0; i < BUFFERS - 1; i++)
        rows_ask(i);
    for (int i0 = 0; i0 < n_group; i0 += AHEAD) {
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int i = i0 + a;
            if (i >= n_group)
                break;
            copies_wait<BUFFERS - 2>();
            __syncthreads();
            rows_ask(i + BUFFERS - 1); /* where the group before this one was */
            if (!at_work)
                continue;
            const int n_block = blocks_of(i);
            const unsigned ends =
                PARTS == PARTS_MASK ? ends_of(i * ROW_GROUP, n_block, p.group) : 0;
            const unsigned char *x = &rows[i % BUFFERS][g * INTS_STRIDE + 8 * t];
            const float *sx = &row_scale[i % BUFFERS][2 * t];
#pragma unroll
            for (int j0 = 0; j0 < TILES; j0 += TOGETHER) {
                if (j0 * INTS_TILE >= tile.n)
                    break;
#pragma unroll
                for (int j = j0; j < j0 + TOGETHER; j++)
#pragma unroll
                    for (int m = 0; m < MATS; m++)
                        group_add(w[a][m], x + j * INTS_TILE * INTS_STRIDE, sx + j * INTS_TILE,
                                  n_block, ends, c[j][m]);
            }
            if (i + AHEAD < n_group)
                weights_ask(w[a], i + AHEAD);
        }
    }
    if (!at_work)
        return;
    const int col = panel * PANEL + 2 * g;
#pragma unroll
    for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = j * INTS_TILE + 2 * t + r;
            if (row >= tile.n || col >= p.n)
                continue;
            float one = finish<MATS>(p, e, col, c[j][0][r], c[j][MATS - 1][r]), two = 0.0f;
            if (col + 1 < p.n)
                two = finish<MATS>(p, e, col + 1, c[j][0][2 + r], c[j][MATS - 1][2 + r]);
            store_two(p, tile.begin + row, col, one, two);
        }
}

template <int BITS, enum parts PARTS, int TILES>
static void ints_launch(const struct product *p, int n_tile, int mats, cudaStream_t stream)
{
    dim3 grid = grid_of(p, n_tile, INTS_WARPS);
    if (mats == 2)
        ints_kernel<BITS, PARTS, TILES, 2><<<grid, INTS_WARPS * WARP, 0, stream>>>(*p);
    else
        ints_kernel<BITS, PARTS, TILES, 1><<<grid, INTS_WARPS * WARP, 0, stream>>>(*p);
}

template <int BITS, enum parts PARTS>
static void ints_tiles(const struct product *p, int n_tile, int rows, int mats, cudaStream_t stream)
{
    switch (rows / INTS_TILE) {
    case 1:
        ints_launch<BITS, PARTS, 1>(p, n_tile, mats, stream);
        break;
    case 2:
        ints_launch<BITS, PARTS, 2>(p, n_tile, mats, stream);
        break;
    case 4:
        ints_launch<BITS, PARTS, 4>(p, n_tile, mats, stream);
        break;
    default:
        ints_launch<BITS, PARTS, INTS_TILES_MOST>(p, n_tile, mats, stream);
        break;
    }
}

/* Parts end at one place where k fills its row groups; other shapes go the general way. */
template <int BITS>
static void ints_parts(const struct product *p, int n_tile, int rows, int mats, cudaStream_t stream)
{
    if (p->k_pad % ROW_GROUP == 0 && p->group == K_BLOCK)
        ints_tiles<BITS, PARTS_BLOCK>(p, n_tile, rows, mats, stream);
    else if (p->k_pad % ROW_GROUP == 0 && p->group % ROW_GROUP == 0)
        ints_tiles<BITS, PARTS_GROUP>(p, n_tile, rows, mats, stream);
    else if (rows == INTS_TILE)
        ints_launch<BITS, PARTS_MASK, 1>(p, n_tile, mats, stream);
    else
        ints_launch<BITS, PARTS_MASK, INTS_TILES_MOST>(p, n_tile, mats, stream);
}

#endif
