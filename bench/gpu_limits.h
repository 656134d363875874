/* gpu_limits: what a device gives, measured beside what is held against it: a plain read of its
 * memory, products of bytes on its tensor cores and multiply-adds of f32, all in registers. */
#ifndef BENCH_GPU_LIMITS_H
#define BENCH_GPU_LIMITS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gpu_limits {
    double read_gb_s, bytes_top_s, fma_tflop_s;
};

/* gpu_limits_measure: the best of a few runs each on the current device; `bytes` are read. 0 or a
 * cudaError_t. */
int gpu_limits_measure(size_t bytes, struct gpu_limits *out);

#ifdef __cplusplus
}
#endif
#endif
