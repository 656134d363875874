/* ffn: how rows are cut, made integers, and which kernel serves a stage. */
#include "kernels/cuda/ffn.h"

#include "kernels/cuda/product.cuh"
#include "kernels/pack_quant.h"

#define ROWS_WARPS 8 /* of ints_of */

static int by_ints(const struct packed *w)
{
    return w->int_rows && (w->dtype == DTYPE_I8 || w->dtype == DTYPE_I4);
}

int cuda_tile_rows(const struct packed *w, int n)
{
    if (!by_ints(w))
        return SUM_ROWS;
    int tiles = 1;
    while (tiles < INTS_TILES_MOST && tiles * INTS_TILE < n)
        tiles *= 2;
    return tiles * INTS_TILE;
}

int cuda_tiles(const struct ffn_segment *seg, int n_seg, int rows, struct cuda_tile *tile)
{
    int n = 0;
    for (int i = 0; i < n_seg; i++)
        for (int begin = seg[i].begin; begin < seg[i].end; begin += rows, n++)
            if (tile) {
                tile[n].expert = i;
                tile[n].begin = begin;
                tile[n].n = seg[i].end - begin < rows ? seg[i].end - begin : rows;
            }
    return n;
}

/* ints_of: rows of bf16 made integers as kernels.ints lays them, a warp a ROW_GROUP, a lane four k.
 */
static __global__ void ints_of(const uint16_t *x, unsigned char *out, int n_row, int k_pad)
{
    const int n_group = (k_pad + ROW_GROUP - 1) / ROW_GROUP, lane = threadIdx.x % WARP;
    const int64_t unit = (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (unit >= (int64_t)n_row * n_group)
        return;
    const int64_t r = unit / n_group;
    const int i = (int)(unit % n_group), k = i * ROW_GROUP + 4 * lane;
    const bool there = k < k_pad;
    unsigned char *row = out + (size_t)r * (size_t)k_pad * 2;
    uint2 four = make_uint2(0, 0);
    if (there)
        four = *(const uint2 *)(x + (size_t)r * (size_t)k_pad + k);
    const uint32_t v[4] = {four.x & 0xffffu, four.x >> 16, four.y & 0xffffu, four.y >> 16};
    unsigned top = 0;
    for (int q = 0; q < 4; q++)
        top = max(top, v[q] & 0x7fffu);
    top = __reduce_max_sync(0xffffffffu, top);
    const bool nothing = top < INT_TOP_LEAST, not_finite = top >= INT_TOP_INFINITE;
    const float most = __uint_as_float(top << 16);
    float scale = nothing ? 0.0f : __uint_as_float(0x7fc00000u);
    uint32_t q4 = 0;
    if (!nothing && !not_finite) {
        const float by = __fdiv_rn(127.0f, most);
        scale = __fdiv_rn(most, 127.0f);
        for (int q = 0; q < 4; q++) {
            int whole = __float2int_rn(__uint_as_float(v[q] << 16) * by);
            q4 |= ((uint32_t)whole & 0xffu) << 8 * q;
        }
    }
    if (there)
        *(uint32_t *)(row + k) = q4;
    if (lane == 0)
        ((float *)(row + k_pad))[i] = scale;
}

static void rows_ints(const void *x, void *out, int n_row, int k_pad, cudaStream_t stream)
{
    int64_t units = (int64_t)n_row * ((k_pad + ROW_GROUP - 1) / ROW_GROUP);
    unsigned blocks = (unsigned)((units + ROWS_WARPS - 1) / ROWS_WARPS);
    ints_of<<<blocks, ROWS_WARPS * WARP, 0, stream>>>((const uint16_t *)x, (unsigned char *)out,
                                                      n_row, k_pad);
}

static void product_launch(const struct product *p, const struct packed *w, int n_tile, int rows,
                           int mats, cudaStream_t stream)
{
    if (!by_ints(w))
        sum_any(p, w->dtype, n_tile, mats, stream);
    else if (w->dtype == DTYPE_I8)
        ints_i8(p, n_tile, rows, mats, stream);
    else
        ints_i4(p, n_tile, rows, mats, stream);
}

/* What both stages' products are told. */
static struct product product_of(const struct cuda_ffn *f, const struct packed *w)
{
    struct product p = {};
    p.expert = f->expert;
    p.n = w->n;
    p.k_pad = k_padded(w->k);
    p.group = w->group;
    p.panel = panel_bytes(w);
    p.scales = w->group ? quant_scales_bytes(w->k, w->group) : 0;
    p.ldx = (size_t)p.k_pad * dtype_bytes(row_dtype(w));
    p.act = f->act;
    p.alpha = f->act_alpha;
    p.limit = f->act_limit;
    return p;
}

int cuda_ffn_up(const struct cuda_ffn *f, void *stream)
{
    cudaStream_t s = (cudaStream_t)stream;
    const struct packed *up = &f->like->up, *down = &f->like->down;
    struct product p = product_of(f, up);
    /* What lies between d_ff and its padding meets zeros of the weights, and must be a number. */
    if (f->d_ff % K_BLOCK != 0) {
        size_t row = (size_t)k_padded(f->d_ff) * dtype_bytes(row_dtype(down));
        cudaError_t rc = cudaMemsetAsync(f->h, 0, row * (size_t)f->n_assign, s);
        if (rc != cudaSuccess)
            return (int)rc;
    }
    p.tile = f->tile[0];
    p.x = by_ints(up) ? f->x_ints : f->x;
    p.row = f->row;
    p.y = f->h;
    p.y_dtype = row_dtype(up);
    p.ldy = (size_t)k_padded(f->d_ff);
    if (by_ints(up))
        rows_ints(f->x, f->x_ints, f->n_row, p.k_pad, s);
    product_launch(&p, up, f->n_tile[0], f->tile_rows[0], f->like->gate.k ? 2 : 1, s);
    if (by_ints(down))
        rows_ints(f->h, f->h_ints, f->n_assign, k_padded(f->d_ff), s);
    return (int)cudaGetLastError();
}

int cuda_ffn_down(const struct cuda_ffn *f, int begin, int end, void *stream)
{
    const struct packed *down = &f->like->down;
    struct product p = product_of(f, down);
    p.stage = 1;
    p.tile = f->tile[1] + begin;
    p.x = by_ints(down) ? f->h_ints : f->h;
    p.y = f->y;
    p.y_dtype = f->y_dtype;
    p.ldy = (size_t)f->d_model;
    product_launch(&p, down, end - begin, f->tile_rows[1], 1, (cudaStream_t)stream);
    return (int)cudaGetLastError();
}
