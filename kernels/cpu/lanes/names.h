/* names: what each instruction set provides, once; DECL(name) gives the symbol. No include guard: a
 * source that names two instruction sets includes this twice (kernels/cpu/amx/table.c). */
extern const struct kernels DECL(kernels);

/* matmul.c */
int DECL(matmul_units)(const struct matmul *m);
void DECL(matmul)(const struct matmul *m, int unit_begin, int unit_end);

/* ffn.c */
int DECL(ffn_units)(const struct ffn *f, int stage);
void DECL(ffn)(const struct ffn *f, int stage, int unit_begin, int unit_end);

/* attention.c */
size_t DECL(attn_scratch_bytes)(const struct attn *a);
int DECL(attn_units)(const struct attn *a, int stage);
void DECL(attn)(const struct attn *a, int stage, int unit_begin, int unit_end);
void DECL(kv_write)(const struct kv_layout *l, void *k_base, void *v_base, size_t page_stride,
                    const struct attn_span *span, const float *k, size_t ldk, const float *v,
                    size_t ldv);

/* norm.c */
void DECL(rmsnorm)(const float *x, const float *weight, float eps, int d, void *out,
                   enum dtype out_dtype, int d_pad);
void DECL(layernorm)(const float *x, const float *weight, const float *bias, float eps, int d,
                     void *out, enum dtype out_dtype, int d_pad);

/* rows.c */
void DECL(ints)(const void *x, int k_pad, void *out);
void DECL(rope)(float *x, int n_head, int d_head, int d_rot, int interleaved, const float *cos,
                const float *sin);
void DECL(softmax)(float *x, int n);
void DECL(convert)(const void *src, enum dtype src_dtype, void *dst, enum dtype dst_dtype,
                   size_t n);
void DECL(add)(float *x, const float *y, size_t n);
void DECL(combine)(float *x, const struct slots *s, size_t d);
float DECL(dot)(const float *x, const float *y, size_t n);
void DECL(act_mul)(enum act act, float alpha, float limit, const float *gate, const float *up,
                   int n, void *out, enum dtype out_dtype);

/* fp8.c */
void DECL(fp8_encode)(const uint16_t *x, size_t d, uint8_t *row);
void DECL(fp8_decode)(const uint8_t *row, size_t d, uint16_t *x);
