/* gpu: one CUDA device as a place where experts lie and are computed. A worker with a device loads
 * experts as any other does and hands each packed slab over (expert_home); a batch's rows go there
 * and its results come back, once each. Bits are those of the CPUs (kernels/cuda/ffn.h), so a
 * worker with a device may hold what others hold, and take over from them and they from it.
 *
 * gpu_cuda.c is compiled where the CUDA Toolkit is found; gpu_none.c says that it was not. */
#ifndef WORKER_GPU_H
#define WORKER_GPU_H

#include "base/err.h"
#include "kernels/kernels.h"
#include "model/weights.h"

struct gpu;
struct team;

/* gpu_open takes device `ordinal` and holds it against portable C before it is used: a device that
 * computes other bits is refused. */
int gpu_open(int ordinal, struct gpu **out, struct err *err);
/* gpu_close frees what is left there; NULL is fine. Every slab has been given back. */
void gpu_close(struct gpu *g);
/* "cuda:0 NVIDIA H100 80GB HBM3 (80 GiB)" */
const char *gpu_name(const struct gpu *g);
/* gpu_home: slabs there; take and give may be called beside gpu_ffn, by another thread. */
const struct expert_home *gpu_home(struct gpu *g);
/* gpu_available: bytes that further slabs may take now. */
uint64_t gpu_available(struct gpu *g);

/* gpu_ffn: both stages of f, whose segments' matrices lie on the device and whose rows x [n_row,
 * ldx], row, and y [n_assign, ldy] in the caller's memory; x_ints and h are not looked at. The team
 * (or NULL) copies rows to where the device reads them. By one thread at a time. ERR_NOMEM, or
 * ERR_IO when the device fails. */
int gpu_ffn(struct gpu *g, const struct ffn *f, int n_row, struct team *team, struct err *err);

/* gpu_kernels_ns: how long the kernels of the last batch took, without the copies. */
double gpu_kernels_ns(struct gpu *g);

#endif
