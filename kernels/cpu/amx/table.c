/* table: AMX as callers see it: products on tiles, the rest as AVX-512 computes it. Compiled once
 * for each variant: `amx` where the tile unit computes THE SUM, `amx_own` where it does not and is
 * then a class of its own, `tile_sim` with simulated registers, for tests. */
#include "kernels/cpu/lanes/lanes.h"

#define REST(name) LANES_CAT(name, LANES_REST)
#define DECL(name) REST(name)
#include "kernels/cpu/lanes/names.h"
#undef DECL

const struct kernels LANES_NAME(kernels) = {
    .isa = ISA_AMX,
    .name = "amx",
    .numerics = AMX_NUMERICS,
    .matmul_units = LANES_NAME(matmul_units),
    .matmul = LANES_NAME(matmul),
    .ints = REST(ints),
    .ffn_units = LANES_NAME(ffn_units),
    .ffn = LANES_NAME(ffn),
    .attn_scratch_bytes = LANES_NAME(attn_scratch_bytes),
    .attn_units = LANES_NAME(attn_units),
    .attn = LANES_NAME(attn),
    .kv_write = REST(kv_write),
    .rmsnorm = REST(rmsnorm),
    .layernorm = REST(layernorm),
    .rope = REST(rope),
    .softmax = REST(softmax),
    .convert = REST(convert),
    .add = REST(add),
    .combine = REST(combine),
    .dot = REST(dot),
    .act_mul = REST(act_mul),
    .fp8_encode = REST(fp8_encode),
    .fp8_decode = REST(fp8_decode),
};
