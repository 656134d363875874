# A device is computed on where it was compiled for.
sigmoe_cuda_choice(worker gpu_cuda.c gpu_none.c)
