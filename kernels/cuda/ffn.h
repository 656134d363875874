/* ffn: the grouped feed-forward of experts on a CUDA device, with the very bits of the CPU kernels
 * (kernels/kernels.h): THE SUM by fused multiply-adds of f32 in its order, THE INTEGER SUM on
 * tensor cores, whose products of bytes are exact in any order, with the few roundings in order. So
 * a request may be answered by a GPU or by a CPU and nobody can tell but by the time.
 *
 * Weights lie in device memory as packed weights lie everywhere: a slab is copied, not made anew.
 * The launcher takes the caller's memory and stream; it allocates nothing and waits for nothing.
 *
 * Tensor cores multiply integers of 16 columns x 32 k x 8 rows at once: the sixteen columns of a
 * panel and a K_BLOCK. Their bf16 products add up in an order that NVIDIA does not state, so floats
 * do not go there. */
#ifndef KERNELS_CUDA_FFN_H
#define KERNELS_CUDA_FFN_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/kernels.h"

/* One expert's matrices and biases in device memory; NULL where the model has none. */
struct cuda_expert {
    const void *gate, *up, *down;
    const float *gate_bias, *up_bias, *down_bias;
};

/* A block's rows: assignments [begin, begin + n) of one expert. */
struct cuda_tile {
    int expert; /* index into cuda_ffn.expert */
    int begin, n;
};

/* Pointers are device memory but for `like`, which says what all the experts' matrices are made of
 * (its data pointers are not read). Rows of x are [n_row, ldx] elements of row_dtype, zeros behind
 * d_model; ldx = k_padded(d_model). */
struct cuda_ffn {
    enum act act;
    float act_alpha, act_limit;
    int d_model, d_ff;
    const struct ffn_weights *like;
    const struct cuda_expert *expert;
    const struct cuda_tile *tile[2]; /* of stages up and down, as cuda_tiles cuts them */
    int n_tile[2];
    int tile_rows[2];
    int n_row, n_assign;
    const void *x;
    void *x_ints;       /* [n_row, ldx] as x; where up is int_rows */
    const int32_t *row; /* [n_assign] row of x */
    void *h, *h_ints;   /* [n_assign, k_padded(d_ff)] of row_dtype; h_ints where down is int_rows */
    void *y;            /* [n_assign, d_model] of y_dtype */
    enum dtype y_dtype;
};

/* cuda_tile_rows: how many rows a block of one stage takes, where the largest segment has n. */
int cuda_tile_rows(const struct packed *w, int n);
/* cuda_tiles cuts segments into tiles of `rows`, the expert of segment i being i; tile NULL: only
 * counts. Returns how many. */
int cuda_tiles(const struct ffn_segment *seg, int n_seg, int rows, struct cuda_tile *tile);
/* cuda_ffn_up, cuda_ffn_down put their stage into the stream (a cudaStream_t); down's tiles [begin,
 * end) only, so that the results of the first can travel while the last are computed. A
 * cudaError_t. */
int cuda_ffn_up(const struct cuda_ffn *f, void *stream);
int cuda_ffn_down(const struct cuda_ffn *f, int begin, int end, void *stream);

#ifdef __cplusplus
}
#endif
#endif
