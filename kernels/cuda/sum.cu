/* sum: THE SUM of every kind of weights. */
#include "kernels/cuda/product_sum.cuh"

template <enum dtype DTYPE>
static void sum_launch(const struct product *p, int n_tile, int mats, cudaStream_t stream)
{
    if (mats == 2)
        sum_kernel<DTYPE, true><<<grid_of(p, n_tile, SUM_PANELS), SUM_THREADS, 0, stream>>>(*p);
    else
        sum_kernel<DTYPE, false>
            <<<grid_of(p, n_tile, 2 * SUM_PANELS), SUM_THREADS, 0, stream>>>(*p);
}

void sum_any(const struct product *p, enum dtype dtype, int n_tile, int mats, cudaStream_t stream)
{
    switch (dtype) {
    case DTYPE_F32:
        sum_launch<DTYPE_F32>(p, n_tile, mats, stream);
        break;
    case DTYPE_BF16:
        sum_launch<DTYPE_BF16>(p, n_tile, mats, stream);
        break;
    case DTYPE_I8:
        sum_launch<DTYPE_I8>(p, n_tile, mats, stream);
        break;
    default:
        sum_launch<DTYPE_I4>(p, n_tile, mats, stream);
        break;
    }
}
