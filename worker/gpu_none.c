/* gpu_none: see gpu.h; of a build without the CUDA Toolkit. */
#include "worker/gpu.h"

int gpu_open(int ordinal, struct gpu **out, struct err *err)
{
    *out = NULL;
    return err_set(err, ERR_USAGE,
                   "--device cuda:%d: this sigmoe was built without CUDA; build it where the CUDA "
                   "Toolkit is (nvcc), see sigmoe --version",
                   ordinal);
}

void gpu_close(struct gpu *g)
{
    (void)g;
}

const char *gpu_name(const struct gpu *g)
{
    (void)g;
    return "none";
}

const struct expert_home *gpu_home(struct gpu *g)
{
    (void)g;
    return NULL;
}

uint64_t gpu_available(struct gpu *g)
{
    (void)g;
    return 0;
}

int gpu_ffn(struct gpu *g, const struct ffn *f, int n_row, struct team *team, struct err *err)
{
    (void)g;
    (void)f;
    (void)n_row;
    (void)team;
    return err_set(err, ERR_USAGE, "this sigmoe was built without CUDA");
}

double gpu_kernels_ns(struct gpu *g)
{
    (void)g;
    return 0.0;
}
