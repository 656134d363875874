/* gpu_limits: see gpu_limits.h. */
#include "bench/gpu_limits.h"

#include <cuda_runtime.h>
#include <stdint.h>

#define THREADS 256
#define STEPS   4096
#define CHAINS  8
#define RUNS    5

static __global__ void read_all(const uint4 *data, size_t n, unsigned *sink)
{
    unsigned s = 0;
    size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += 4 * step) {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (i + (size_t)j * step < n) {
                uint4 v = __ldcs(data + i + (size_t)j * step);
                s ^= v.x ^ v.y ^ v.z ^ v.w;
            }
    }
    if (s == 0x12345678u)
        *sink = s;
}

static __global__ void multiply_bytes(unsigned *sink)
{
    int d[CHAINS][4] = {};
    unsigned a = threadIdx.x, b = blockIdx.x;
    for (int i = 0; i < STEPS; i++)
#pragma unroll
        for (int c = 0; c < CHAINS; c++)
            asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
                         "{%4,%4,%4,%4}, {%5,%5}, {%0,%1,%2,%3};"
                         : "+r"(d[c][0]), "+r"(d[c][1]), "+r"(d[c][2]), "+r"(d[c][3])
                         : "r"(a), "r"(b));
    int s = 0;
    for (int c = 0; c < CHAINS; c++)
        s ^= d[c][0] ^ d[c][1] ^ d[c][2] ^ d[c][3];
    if (s == 0x12345678)
        *sink = (unsigned)s;
}

static __global__ void multiply_floats(unsigned *sink)
{
    float f[CHAINS];
    for (int c = 0; c < CHAINS; c++)
        f[c] = (float)(threadIdx.x + (unsigned)c);
    for (int i = 0; i < STEPS; i++)
#pragma unroll
        for (int c = 0; c < CHAINS; c++)
            f[c] = __fmaf_rn(f[c], 0.999f, 0.5f);
    float s = 0.0f;
    for (int c = 0; c < CHAINS; c++)
        s += f[c];
    if (s == 1.25f)
        *sink = 1;
}

static double best_ms(int which, const uint4 *data, size_t n, unsigned *sink, int n_sm)
{
    cudaEvent_t begun, ended;
    double best = 1e30;
    cudaEventCreate(&begun);
    cudaEventCreate(&ended);
    for (int i = 0; i < RUNS; i++) {
        float ms = 0.0f;
        unsigned blocks = (unsigned)n_sm * 8;
        cudaEventRecord(begun);
        if (which == 0)
            read_all<<<blocks, THREADS>>>(data, n, sink);
        else if (which == 1)
            multiply_bytes<<<blocks, THREADS>>>(sink);
        else
            multiply_floats<<<blocks, THREADS>>>(sink);
        cudaEventRecord(ended);
        cudaEventSynchronize(ended);
        cudaEventElapsedTime(&ms, begun, ended);
        best = ms < best ? ms : best;
    }
    cudaEventDestroy(begun);
    cudaEventDestroy(ended);
    return best;
}

int gpu_limits_measure(size_t bytes, struct gpu_limits *out)
{
    void *data = NULL;
    unsigned *sink = NULL;
    int device = 0, n_sm = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, device);
    cudaError_t rc = cudaMalloc(&data, bytes);
    rc = rc ? rc : cudaMalloc((void **)&sink, sizeof(*sink));
    rc = rc ? rc : cudaMemset(data, 1, bytes);
    if (rc == cudaSuccess) {
        double threads = (double)n_sm * 8 * THREADS;
        size_t n = bytes / sizeof(uint4);
        out->read_gb_s = (double)bytes / 1e6 / best_ms(0, (const uint4 *)data, n, sink, n_sm);
        out->bytes_top_s = 2.0 * 16 * 8 * 32 * threads / 32 * STEPS * CHAINS / 1e9 /
                           best_ms(1, NULL, 0, sink, n_sm);
        out->fma_tflop_s = 2.0 * threads * STEPS * CHAINS / 1e9 / best_ms(2, NULL, 0, sink, n_sm);
        rc = cudaGetLastError();
    }
    cudaFree(data);
    cudaFree(sink);
    return (int)rc;
}
