/* product: what both products on a device share: where a block's rows and matrices are, and what
 * becomes of a sum when it is whole. */
#ifndef KERNELS_CUDA_PRODUCT_CUH
#define KERNELS_CUDA_PRODUCT_CUH

#include "kernels/cuda/ffn.h"
#include "kernels/cuda/math.cuh"
#include <cuda_runtime.h>

/* Rows of one instruction of the tensor cores, and how many such tiles a warp has at most; rows of
 * a block of THE SUM. */
#define INTS_TILE       8
#define INTS_TILES_MOST 8
#define SUM_ROWS        16

/* One stage of the feed-forward: y = act(gate x, up x) of d_ff columns, or y = down h. */
struct product {
    const struct cuda_expert *expert;
    const struct cuda_tile *tile;
    int stage;            /* 0: gate and up, 1: down */
    int n, k_pad, group;  /* of the matrices */
    size_t panel, scales; /* bytes of one, and of the scales it begins with */
    const void *x;        /* the rows as the product reads them */
    size_t ldx;           /* bytes from row to row */
    const int32_t *row;   /* NULL: the identity */
    void *y;
    enum dtype y_dtype;
    size_t ldy; /* elements */
    enum act act;
    float alpha, limit;
};

#define WARP 32

/* Blocks of (tile, so many panels): tiles of one expert are neighbours, and share what the cache
 * has of its panels. */
static inline dim3 grid_of(const struct product *p, int n_tile, int panels)
{
    int n_panel = (p->n + PANEL - 1) / PANEL;
    return dim3((unsigned)n_tile, (unsigned)((n_panel + panels - 1) / panels));
}

/* The launchers, a file each (ints_i8.cu, ints_i4.cu, sum.cu): n_tile tiles of at most `rows` rows;
 * mats 2: a gate and an up. */
void ints_i8(const struct product *p, int n_tile, int rows, int mats, cudaStream_t stream);
void ints_i4(const struct product *p, int n_tile, int rows, int mats, cudaStream_t stream);
void sum_any(const struct product *p, enum dtype dtype, int n_tile, int mats, cudaStream_t stream);

/* Matrix m of a stage: of a pair the gate is the first. */
template <int MATS>
static __device__ inline const unsigned char *matrix_of(const struct product &p,
                                                        const struct cuda_expert &e, int m)
{
    const void *w = p.stage ? e.down : MATS == 2 && m == 0 ? e.gate : e.up;
    return (const unsigned char *)w;
}

static __device__ inline int row_of(const struct product &p, int assignment)
{
    return p.row ? p.row[assignment] : assignment;
}

static __device__ inline uint32_t bf16_bits(float f)
{
    uint32_t u = __float_as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return u >> 16 | 0x40u;
    return (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
}

/* finish: the sum (gate's and up's, or one) of a column with its bias and activation. */
template <int MATS>
static __device__ inline float finish(const struct product &p, const struct cuda_expert &e, int col,
                                      float first, float second)
{
    if (p.stage)
        return e.down_bias ? first + e.down_bias[col] : first;
    float u = MATS == 2 ? second : first;
    if (e.up_bias)
        u = u + e.up_bias[col];
    if (MATS == 1)
        return d_act(p.act, p.alpha, p.limit, u);
    float g = e.gate_bias ? first + e.gate_bias[col] : first;
    return d_act_mul(p.act, p.alpha, p.limit, g, u);
}

static __device__ inline void store(const struct product &p, int assignment, int col, float v)
{
    size_t at = (size_t)assignment * p.ldy + (size_t)col;
    if (p.y_dtype == DTYPE_F32)
        ((float *)p.y)[at] = v;
    else
        ((uint16_t *)p.y)[at] = (uint16_t)bf16_bits(v);
}

/* Two columns that lie side by side, col even. */
static __device__ inline void store_two(const struct product &p, int assignment, int col, float a,
                                        float b)
{
    size_t at = (size_t)assignment * p.ldy + (size_t)col;
    if (col + 1 < p.n && p.ldy % 2 == 0 && p.y_dtype == DTYPE_BF16) {
        *(uint32_t *)((uint16_t *)p.y + at) = bf16_bits(a) | bf16_bits(b) << 16;
        return;
    }
    if (col < p.n)
        store(p, assignment, col, a);
    if (col + 1 < p.n)
        store(p, assignment, col + 1, b);
}

#endif
