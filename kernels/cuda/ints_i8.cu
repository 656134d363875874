/* ints_i8: THE INTEGER SUM of weights of 8 bits. */
#include "kernels/cuda/product_ints.cuh"

void ints_i8(const struct product *p, int n_tile, int rows, int mats, cudaStream_t stream)
{
    ints_parts<8>(p, n_tile, rows, mats, stream);
}
