/* lanes: the names of what each instruction set provides. The sources beside this header are
 * compiled once for each, with -DLANES_ISA=avx2 and the like, and every symbol carries that suffix,
 * so that all versions live in one program. table.c gathers them into a struct kernels. */
#ifndef KERNELS_LANES_H
#define KERNELS_LANES_H

#include "kernels/kernels.h"

#define LANES_CAT2(a, b) a##_##b
#define LANES_CAT(a, b)  LANES_CAT2(a, b)
#define LANES_STR2(a)    #a
#define LANES_STR(a)     LANES_STR2(a)
/* LANES_NAME(matmul) is matmul_avx2. */
#define LANES_NAME(name) LANES_CAT(name, LANES_ISA)

/* LANES_CAT(LANES_ID, LANES_ISA) is the enum isa of these symbols. */
#define LANES_ID_portable ISA_PORTABLE
#define LANES_ID_avx2     ISA_AVX2
#define LANES_ID_avx512   ISA_AVX512

extern const struct kernels LANES_NAME(kernels);

/* matmul.c */
int LANES_NAME(matmul_units)(const struct matmul *m);
void LANES_NAME(matmul)(const struct matmul *m, int unit_begin, int unit_end);

/* ffn.c */
int LANES_NAME(ffn_units)(const struct ffn *f, int stage);
void LANES_NAME(ffn)(const struct ffn *f, int stage, int unit_begin, int unit_end);

/* attention.c */
size_t LANES_NAME(attn_scratch_bytes)(const struct attn *a);
int LANES_NAME(attn_units)(const struct attn *a, int stage);
void LANES_NAME(attn)(const struct attn *a, int stage, int unit_begin, int unit_end);
void LANES_NAME(kv_write)(const struct kv_layout *l, void *k_base, void *v_base, size_t page_stride,
                          const struct attn_span *span, const float *k, size_t ldk, const float *v,
                          size_t ldv);

/* norm.c */
void LANES_NAME(rmsnorm)(const float *x, const float *weight, float eps, int d, void *out,
                         enum dtype out_dtype, int d_pad);
void LANES_NAME(layernorm)(const float *x, const float *weight, const float *bias, float eps, int d,
                           void *out, enum dtype out_dtype, int d_pad);

/* rows.c */
void LANES_NAME(rope)(float *x, int n_head, int d_head, int d_rot, int interleaved,
                      const float *cos, const float *sin);
void LANES_NAME(softmax)(float *x, int n);
void LANES_NAME(convert)(const void *src, enum dtype src_dtype, void *dst, enum dtype dst_dtype,
                         size_t n);
void LANES_NAME(add)(float *x, const float *y, size_t n);
void LANES_NAME(axpy)(float *x, float a, const void *y, enum dtype y_dtype, size_t n);
float LANES_NAME(dot)(const float *x, const float *y, size_t n);
void LANES_NAME(act_mul)(enum act act, float alpha, float limit, const float *gate, const float *up,
                         int n, void *out, enum dtype out_dtype);

#endif
