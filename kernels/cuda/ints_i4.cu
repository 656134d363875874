/* ints_i4: THE INTEGER SUM of weights of 4 bits. */
#include "kernels/cuda/product_ints.cuh"

void ints_i4(const struct product *p, int n_tile, int rows, int mats, cudaStream_t stream)
{
    ints_parts<4>(p, n_tile, rows, mats, stream);
}
