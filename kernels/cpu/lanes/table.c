/* table: what this instruction set provides, as callers see it. */
#include "kernels/cpu/lanes/lanes.h"

const struct kernels LANES_NAME(kernels) = {
    .isa = LANES_CAT(LANES_ID, LANES_ISA),
    .name = LANES_STR(LANES_ISA),
    .numerics = "sum32",
    .matmul_units = LANES_NAME(matmul_units),
    .matmul = LANES_NAME(matmul),
    .ffn_units = LANES_NAME(ffn_units),
    .ffn = LANES_NAME(ffn),
    .attn_scratch_bytes = LANES_NAME(attn_scratch_bytes),
    .attn_units = LANES_NAME(attn_units),
    .attn = LANES_NAME(attn),
    .kv_write = LANES_NAME(kv_write),
    .rmsnorm = LANES_NAME(rmsnorm),
    .layernorm = LANES_NAME(layernorm),
    .rope = LANES_NAME(rope),
    .softmax = LANES_NAME(softmax),
    .convert = LANES_NAME(convert),
    .add = LANES_NAME(add),
    .combine = LANES_NAME(combine),
    .dot = LANES_NAME(dot),
    .act_mul = LANES_NAME(act_mul),
    .fp8_encode = LANES_NAME(fp8_encode),
    .fp8_decode = LANES_NAME(fp8_decode),
};
