/* product_sum: THE SUM on a device, for floats and for integers that meet rows of bf16: a thread
 * has two columns and all rows of the tile. Two chains of fused multiply-adds a K_BLOCK, which
 * tensor cores do not promise. A block of weights is made floats once and meets every row; the rows
 * lie in shared memory, and all threads of a warp read the same word. Roof: few rows: bytes of
 * weights; many: multiply-adds of f32. */
#ifndef KERNELS_CUDA_PRODUCT_SUM_CUH
#define KERNELS_CUDA_PRODUCT_SUM_CUH

#include "kernels/cuda/product.cuh"

#define SUM_THREADS 128
#define SUM_PANELS  (SUM_THREADS / PANEL)
#define SUM_DEEP    256 /* k of the rows that are in shared memory at a time */

static __device__ inline float low_half(uint32_t u)
{
    return __uint_as_float(u << 16);
}
static __device__ inline float high_half(uint32_t u)
{
    return __uint_as_float(u & 0xffff0000u);
}

/* block_load: K_BLOCK k from k0 on (a multiple of it) of one column of a panel, as floats. */
template <enum dtype DTYPE>
static __device__ inline void block_load(const unsigned char *panel, size_t scales, int k0, int col,
                                         float w[K_BLOCK])
{
    if (DTYPE == DTYPE_F32) {
        const float *at = (const float *)panel + (size_t)k0 * PANEL + col;
#pragma unroll
        for (int i = 0; i < K_BLOCK; i++)
            w[i] = __ldcs(at + i * PANEL);
    } else if (DTYPE == DTYPE_BF16) {
        const uint32_t *at = (const uint32_t *)panel + (size_t)(k0 / 2) * PANEL + col;
#pragma unroll
        for (int i = 0; i < K_BLOCK / 2; i++) {
            uint32_t two = __ldcs(at + i * PANEL);
            w[2 * i] = low_half(two);
            w[2 * i + 1] = high_half(two);
        }
    } else if (DTYPE == DTYPE_I8) {
        const uint32_t *at = (const uint32_t *)(panel + scales) + (size_t)(k0 / 4) * PANEL + col;
#pragma unroll
        for (int i = 0; i < K_BLOCK / 4; i++) {
            uint32_t four = __ldcs(at + i * PANEL);
#pragma unroll
            for (int q = 0; q < 4; q++)
                w[4 * i + q] = (float)(int8_t)(four >> 8 * q & 0xffu);
        }
    } else {
        const uint32_t *at = (const uint32_t *)(panel + scales) + (size_t)(k0 / 8) * PANEL + col;
#pragma unroll
        for (int i = 0; i < K_BLOCK / 8; i++) {
            uint32_t eight = __ldcs(at + i * PANEL);
#pragma unroll
            for (int q = 0; q < 4; q++) {
                w[8 * i + q] = (float)((int32_t)(eight << (28 - 8 * q)) >> 28);
                w[8 * i + 4 + q] = (float)((int32_t)(eight << (24 - 8 * q)) >> 28);
            }
        }
    }
}

/* A thread has two columns, so that a word of a row serves two: the gate's and the up's of one
 * panel (PAIR), or those of two neighbouring panels. Rows are met in fours without a branch between
 * them; what is behind the tile's last is computed and dropped. */
template <enum dtype DTYPE, bool PAIR>
static __global__ void __launch_bounds__(SUM_THREADS) sum_kernel(const struct product p)
{
    constexpr bool scaled = DTYPE == DTYPE_I8 || DTYPE == DTYPE_I4;
    constexpr int MATS = PAIR ? 2 : 1;
    __shared__ __align__(16) float rows[SUM_ROWS][SUM_DEEP];
    const struct cuda_tile tile = p.tile[blockIdx.x];
    const struct cuda_expert e = p.expert[tile.expert];
    const int lane = threadIdx.x % PANEL, n_panel = (p.n + PANEL - 1) / PANEL;
    const int panel = (blockIdx.y * SUM_PANELS + threadIdx.x / PANEL) * (PAIR ? 1 : 2);
    const int n_four = (tile.n + 3) / 4;
    const bool at_work = panel < n_panel;
    const unsigned char *at[2];
    float c[SUM_ROWS][2] = {}, group[SUM_ROWS][2] = {};
    at[0] = matrix_of<MATS>(p, e, 0) + (size_t)panel * p.panel;
    at[1] = PAIR                  ? matrix_of<MATS>(p, e, 1) + (size_t)panel * p.panel
            : panel + 1 < n_panel ? at[0] + p.panel
                                  : at[0];

    for (int k0 = 0; k0 < p.k_pad; k0 += SUM_DEEP) {
        const int deep = p.k_pad - k0 < SUM_DEEP ? p.k_pad - k0 : SUM_DEEP;
        __syncthreads();
        for (int u = threadIdx.x; u < n_four * deep; u += SUM_THREADS) { /* 4 k each */
            const int r = u / (deep / 4), k = u % (deep / 4) * 4;
            float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (r < tile.n) {
                const unsigned char *x =
                    (const unsigned char *)p.x + (size_t)row_of(p, tile.begin + r) * p.ldx;
                if (DTYPE == DTYPE_F32) {
                    four = *(const float4 *)((const float *)x + k0 + k);
                } else {
                    uint2 v = *(const uint2 *)((const uint16_t *)x + k0 + k);
                    four =
                        make_float4(low_half(v.x), high_half(v.x), low_half(v.y), high_half(v.y));
                }
            }
            *(float4 *)&rows[r][k] = four;
        }
        __syncthreads();
        if (!at_work)
            continue;
        for (int k = 0; k < deep; k += K_BLOCK) {
            const bool group_ends =
                scaled && ((k0 + k + K_BLOCK) % p.group == 0 || k0 + k + K_BLOCK == p.k_pad);
            float w[2][K_BLOCK], scale[2] = {0.0f, 0.0f};
#pragma unroll
            for (int m = 0; m < 2; m++) {
                block_load<DTYPE>(at[m], p.scales, k0 + k, lane, w[m]);
                if (group_ends)
                    scale[m] = low_half(
                        ((const uint16_t *)at[m])[(size_t)((k0 + k) / p.group) * PANEL + lane]);
            }
#pragma unroll
            for (int r0 = 0; r0 < SUM_ROWS; r0 += 4) {
                if (r0 >= tile.n)
                    break;
#pragma unroll
                for (int r = r0; r < r0 + 4; r++) {
                    float even[2] = {0.0f, 0.0f}, odd[2] = {0.0f, 0.0f};
                    const float4 *x = (const float4 *)&rows[r][k];
#pragma unroll
                    for (int i = 0; i < K_BLOCK / 4; i++) {
                        const float4 four = x[i];
#pragma unroll
                        for (int m = 0; m < 2; m++) {
                            even[m] = __fmaf_rn(four.x, w[m][4 * i], even[m]);
                            odd[m] = __fmaf_rn(four.y, w[m][4 * i + 1], odd[m]);
                            even[m] = __fmaf_rn(four.z, w[m][4 * i + 2], even[m]);
                            odd[m] = __fmaf_rn(four.w, w[m][4 * i + 3], odd[m]);
                        }
                    }
#pragma unroll
                    for (int m = 0; m < 2; m++) {
                        if (!scaled) {
                            c[r][m] = c[r][m] + (even[m] + odd[m]);
                            continue;
                        }
                        group[r][m] = group[r][m] + (even[m] + odd[m]);
                        if (group_ends) {
                            c[r][m] = __fmaf_rn(scale[m], group[r][m], c[r][m]);
                            group[r][m] = 0.0f;
                        }
                    }
                }
            }
        }
    }
    const int col = panel * PANEL + lane;
#pragma unroll
    for (int r = 0; r < SUM_ROWS; r++) {
        if (!at_work || r >= tile.n)
            break;
#pragma unroll
        for (int m = 0; m < (PAIR ? 1 : 2); m++) {
            int at_col = col + m * PANEL;
            if (at_col < p.n)
                store(p, tile.begin + r, at_col,
                      finish<MATS>(p, e, at_col, c[r][m], c[r][PAIR ? 1 : m]));
        }
    }
}

#endif
