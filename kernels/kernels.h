/* kernels: the arithmetic, on the caller's memory. No allocation, no I/O, no log, no thread: a
 * kernel is cut into units, and the caller (base/team) decides who computes which.
 *
 * THE SUM. Every matrix product here, on every instruction set, is one and the same sequence of
 * roundings, so that a row has the same bits alone or among thousands, on one thread or many, and
 * on portable C, AVX2, AVX-512 and AMX alike. For blocks of 32 consecutive k, ascending: e = 0; o =
 * 0 for p in 0..15:  e = fma(x[2p], w[2p], e);  o = fma(x[2p+1], w[2p+1], o) c = c + (e + o) in
 * f32, round to nearest even, denormals flushed (FTZ and DAZ), c starting at 0; a bias is added at
 * the end. k is padded to 32 with zeros. Where weights are integers with a scale a group, blocks of
 * a group sum up from zero, g = g + (e + o), and then c = fma(scale, g, c): integers of 8 bits are
 * exact in bf16, so tiles compute it too. This is the operation of TDPBF16PS (Intel SDM vol. 2,
 * "TDPBF16PS": the even and the odd products of a row of pairs accumulate separately by FMA with
 * DAZ=FTZ=1, RNE, and their sum is added to the destination); a start-up check holds a real AMX
 * unit against it before it is used. Reductions other than matmul run over 16 fixed lanes (vec.h).
 *
 * THE INTEGER SUM. Where integer weights ask for it (packed.int_rows), the bf16 row that meets them
 * is made integers first, a ROW_GROUP of k at a time (the last may be short): top = max |x|, q = x
 * * (127 / top) to the nearest, ties to even, sx = top / 127, each operation one rounding of f32. A
 * top below 2^-118 gives q = 0 and sx = 0; one that is not finite q = 0 and sx = NaN. k is cut at
 * multiples of the weights' group and of ROW_GROUP into parts, and d = sum of q * w over a part is
 * exact in any order: |d| < 2^24. Within a ROW_GROUP, parts ascending, g = fma(sw, d, g) from zero,
 * sw the scale of the part's weights; then c = fma(sx, g, c), c starting at 0; a bias is added at
 * the end. Everything that rounds is in order and everything out of order is exact, so again a row
 * has the same bits on every instruction set, in any company.
 *
 * Every thread that calls a kernel has called team_flush_denormals() (base/team.h does).
 *
 * The same source (kernels/cpu/lanes) is compiled once for each instruction set; the table below is
 * how callers reach the chosen one. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include "base/dtype.h"
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

enum isa { ISA_PORTABLE, ISA_AVX2, ISA_AVX512, ISA_AMX, ISA_COUNT };

/* k is padded to this many elements in packed weights and in the rows that meet them. */
#define K_BLOCK 32
/* Columns a panel: the unit of the packed layout. */
#define PANEL 16
/* k of a row that share a scale in THE INTEGER SUM. */
#define ROW_GROUP 128
/* Rows of a product, or of all experts together, from which making them integers once
 * (kernels.ints) pays; with fewer, units that want integers make them. */
#define INTS_ROWS 12

static inline int k_padded(int k)
{
    return (k + K_BLOCK - 1) / K_BLOCK * K_BLOCK;
}

/* ---- packed weights ------------------------------------------------------------------------ */

/* packed: W [n, k] laid out for the kernels: ceil(n / PANEL) panels, each k_padded(k) deep.
 * bf16: [panel][k_pad / 2][PANEL][2], which is at once the tile AMX loads (16 pairs x 64 bytes) and
 * the line AVX-512 widens; f32: [panel][k_pad][PANEL].
 * i8, i4: a panel begins with the scales of all its groups, [quant_groups][PANEL] bf16, filled up
 * to 64 bytes; then, for each 32 k, lines of 64 bytes: i8 [8][PANEL][4], line i holding k 4i..4i+3
 * of every column; i4 [4][PANEL][4], byte t of a column in line i holding k 8i+t in its low half
 * and k 8i+4+t in its high half, two's complement. So a line is what AVX-512 VNNI multiplies by
 * four k of a row, and 64 k of i8 are the tile of AMX-INT8. The last group may be short. Padding is
 * zero. 64-byte aligned. */
struct packed {
    const void *data; /* NULL: there is no such matrix */
    enum dtype dtype; /* DTYPE_F32, DTYPE_BF16, DTYPE_I8 or DTYPE_I4 */
    int n, k;
    int group; /* elements of k a scale: a multiple of K_BLOCK up to QUANT_GROUP_MAX; floats: 0 */
    int int_rows; /* of integers: the rows that meet them are made integers, THE INTEGER SUM; 0: THE
                     SUM. How a product is computed: the layout is the same. */
};
#define QUANT_GROUP_MAX 256 /* a group's rows lie in a scratch at once */

/* row_dtype: what rows that meet these weights are made of. */
static inline enum dtype row_dtype(const struct packed *w)
{
    return w->dtype == DTYPE_F32 ? DTYPE_F32 : DTYPE_BF16;
}
static inline int quant_groups(int k, int group)
{
    return (k_padded(k) + group - 1) / group;
}

/* packed_bytes: bytes of W [n, k] of floats; 0 when the sizes overflow. packed_quant_bytes: of
 * integers; 0 also for a group that is not as packed.group says. */
size_t packed_bytes(enum dtype dtype, int n, int k);
size_t packed_quant_bytes(enum dtype dtype, int n, int k, int group);
/* Bytes from one panel to the next. */
size_t panel_bytes(const struct packed *w);
/* pack_rows writes rows [row, row + n_row) of a packed W [n, k] from src [n_row, k] row-major with
 * `ld` elements from row to row, of any float dtype. The first call for a panel's rows must be
 * preceded by zeroed memory (mem_map gives that), since padding is not written. */
void pack_rows(void *data, enum dtype dtype, int n, int k, int row, int n_row, const void *src,
               enum dtype src_dtype, size_t ld);
/* pack_quant_rows: the same for integers: q [n_row, k] with ld_q from row to row, within -127..127
 * (i8) or -8..7 (i4); scale [n_row, quant_groups(k, group)] bf16. */
struct quant_rows {
    const int8_t *q;
    size_t ld_q;
    const uint16_t *scale;
    size_t ld_scale;
};
void pack_quant_rows(void *data, enum dtype dtype, int n, int k, int group, int row, int n_row,
                     const struct quant_rows *src);
/* quantise_row: x [k] to integers, symmetric: scale = bf16(max |x| / most) of each group, most 127
 * or 7, q = x / scale to the nearest, ties to even. A group of zeros has scale 0. Writes q [k] and
 * scale [quant_groups(k, group)]; returns the sum of squared errors. */
double quantise_row(const float *x, int k, enum dtype dtype, int group, int8_t *q, uint16_t *scale);
/* unpack_row: row `row` of W as f32 [k]; exact. */
void unpack_row(const struct packed *w, int row, float *out);

/* ---- matrix product ------------------------------------------------------------------------ */

/* y [n_row, n] = x [n_row, k] W^T + bias. x is of row_dtype(w), rows 64-byte aligned, ldx >=
 * k_padded(k) elements with zeros behind k. y is f32 or bf16. */
struct matmul {
    const void *x;
    const void *x_ints; /* the rows of x made integers (kernels.ints), ldx as x; NULL: as needed */
    size_t ldx;
    int n_row;
    const struct packed *w;
    const float *bias; /* [n] or NULL */
    void *y;
    enum dtype y_dtype;
    size_t ldy;
};

/* ---- feed-forward of experts ---------------------------------------------------------------- */

enum act {
    ACT_SILU,        /* silu(g) * u */
    ACT_GELU,        /* gelu(g) * u, erf form */
    ACT_GELU_TANH,   /* gelu(g) * u, tanh form */
    ACT_RELU2,       /* relu(g)^2 * u */
    ACT_SWIGLU_CLAMP /* gpt-oss: g = min(g, limit), u = clamp(u, +-limit); g * sigmoid(alpha g) * (u
                        + 1) */
};

/* One expert: y = down(act(gate x, up x)). gate.data NULL: a plain MLP, y = down(act(up x)). gate
 * and up are of one dtype, group and int_rows; down may be of another, with the same row_dtype. */
struct ffn_weights {
    struct packed gate, up, down;                 /* [d_ff, d], [d_ff, d], [d, d_ff] */
    const float *gate_bias, *up_bias, *down_bias; /* f32 or NULL */
};

/* One expert's rows: assignments [begin, end). */
struct ffn_segment {
    const struct ffn_weights *w;
    int begin, end;
};

/* The grouped product: rows sorted by expert. Two stages; all units of stage 0 before stage 1. */
struct ffn {
    enum act act;
    float act_alpha, act_limit;
    int d_model, d_ff;
    const struct ffn_segment *seg; /* [n_seg], non-empty, ascending, contiguous */
    int n_seg;
    const void *x;      /* [*, ldx] of the weights' row_dtype, padded as in matmul */
    const void *x_ints; /* as in matmul */
    size_t ldx;
    const int32_t *row; /* [n_assign] row of x for each assignment; NULL: the identity */
    void *h;            /* scratch [n_assign, k_padded(d_ff)], the weights' row_dtype */
    void *y;            /* [n_assign, ldy] f32 or bf16 */
    enum dtype y_dtype;
    size_t ldy;
};

/* ---- attention over a paged KV cache --------------------------------------------------------- */

/* Positions a page. What a KV head keeps of one lies as packed weights do: K as W [KV_PAGE,
 * d_head], a panel being sixteen positions, and V as W [d_head, KV_PAGE], a panel being sixteen
 * columns of the head. Floats as above. i8: panels of bytes without scales between them, the even k
 * of a pair in PANEL bytes and the odd in the next, and behind the last panel f32 scales [KV_PAGE]:
 * a position's K is scale times integers, so is its V. d_head is padded to K_BLOCK with zeros. */
#define KV_PAGE 64
/* The KV range is cut at multiples of this many positions; each cut is its own softmax, merged in
 * ascending order: the same bits for any chunking of prompts and any number of threads. */
#define KV_SPLIT 512

struct kv_layout {
    enum dtype dtype; /* f32, bf16 or i8 */
    int n_kv_head, d_head;
};

/* Bytes of K (or V) of one page, layer and KV head, and of all KV heads. */
static inline size_t kv_head_bytes(const struct kv_layout *l)
{
    size_t scales = l->dtype == DTYPE_I8 ? KV_PAGE * sizeof(float) : 0;
    return (size_t)k_padded(l->d_head) * KV_PAGE * dtype_bytes(l->dtype) + scales;
}
static inline size_t kv_page_bytes(const struct kv_layout *l)
{
    return (size_t)l->n_kv_head * kv_head_bytes(l);
}

/* Consecutive rows of one sequence: rows [begin, end), the first at position `pos`. */
struct attn_span {
    int begin, end;
    int pos;
    const int32_t *page; /* page ids of the sequence, [ceil((pos + end - begin) / KV_PAGE)] */
};

struct attn {
    struct kv_layout kv;
    const void *k_base, *v_base; /* of this layer; page p at base + p * kv_page_stride bytes */
    size_t kv_page_stride;
    int n_head;
    float scale;
    int window;        /* attends to the last `window` positions, itself included; 0: all */
    float softcap;     /* 0: none; else s = cap * tanh(s / cap) */
    const float *sink; /* [n_head] a logit that takes part in the denominator only; or NULL */
    const float *q;    /* [n_row, ldq] f32, heads of d_head, rotated */
    size_t ldq;
    const struct attn_span *span;
    int n_span;
    void *out; /* [n_row, ldo], n_head * d_head, out_dtype (the next matmul's x) */
    enum dtype out_dtype;
    size_t ldo;
    void *scratch; /* attn_scratch_bytes */
};

/* ---- position encoding ----------------------------------------------------------------------- */

enum rope_scaling { ROPE_NONE, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN, ROPE_LLAMA3 };

struct rope_params {
    int d_rot;       /* rotated part of a head; partial when < d_head; even */
    int interleaved; /* pairs (2i, 2i+1) instead of (i, i + d_rot/2) */
    double theta;
    enum rope_scaling scaling;
    double factor, beta_fast, beta_slow, low_freq_factor, high_freq_factor;
    double attention_factor, mscale, mscale_all_dim; /* yarn; 0 where not given */
    int truncate; /* yarn: round the correction range; default 1 */
    int original_context, max_context;
};

/* rope_angles: cos, sin [d_rot / 2] of one position, already times the attention factor. seq_len
 * is what dynamic scaling looks at: max(position + 1, prompt length), so that it does not depend
 * on chunking. Formulas: transformers modeling_rope_utils.py; YaRN: Peng et al. 2023. */
void rope_angles(const struct rope_params *p, int pos, int seq_len, float *cos_out, float *sin_out);

/* ---- what comes back from experts ------------------------------------------------------------ */

/* The slots of one row. Rows lie where nobody has looked lately, each in a page of its own: the
 * next row's are asked for while this one's are summed. */
struct slots {
    int n;                   /* up to LIMIT_TOP_K */
    const float *weight;     /* [n] */
    const void *const *row;  /* [n] of [d] of dtype; NULL: no part of the sum */
    const void *const *next; /* [n] the same of the row that is combined next; or NULL */
    enum dtype dtype;        /* f32 or bf16 */
    const float *plus;       /* [d] or NULL */
};

/* ---- the table ------------------------------------------------------------------------------- */

struct kernels {
    enum isa isa;
    const char *name;     /* "avx512" */
    const char *numerics; /* class of bits: equal strings promise equal bits; "sum32" */

    int (*matmul_units)(const struct matmul *m);
    void (*matmul)(const struct matmul *m, int unit_begin, int unit_end);

    /* ints: one row x [k_pad] of bf16 made integers for THE INTEGER SUM, in as many bytes: q
     * [k_pad], then f32 scales, one a ROW_GROUP. Products that are told of such rows need not make
     * them again in every unit. NULL: none here asks for them. */
    void (*ints)(const void *x, int k_pad, void *out);

    int (*ffn_units)(const struct ffn *f, int stage);
    void (*ffn)(const struct ffn *f, int stage, int unit_begin, int unit_end);

    /* Two stages (splits, merge) as ffn. */
    size_t (*attn_scratch_bytes)(const struct attn *a);
    int (*attn_units)(const struct attn *a, int stage);
    void (*attn)(const struct attn *a, int stage, int unit_begin, int unit_end);
    /* kv_write stores rows [begin, end) of one span: k, v [n_row, n_kv_head * d_head] f32 with
     * strides ldk, ldv (floats). */
    void (*kv_write)(const struct kv_layout *l, void *k_base, void *v_base, size_t page_stride,
                     const struct attn_span *span, const float *k, size_t ldk, const float *v,
                     size_t ldv);

    /* Row functions. `out` of out_dtype, padded with zeros from d to ldo where ldo > d and `pad`.
     */
    void (*rmsnorm)(const float *x, const float *weight, float eps, int d, void *out,
                    enum dtype out_dtype, int d_pad);
    void (*layernorm)(const float *x, const float *weight, const float *bias, float eps, int d,
                      void *out, enum dtype out_dtype, int d_pad);
    /* rope rotates n_head heads of d_head in place. cos, sin [d_rot / 2]. */
    void (*rope)(float *x, int n_head, int d_head, int d_rot, int interleaved, const float *cos,
                 const float *sin);
    void (*softmax)(float *x, int n); /* in place, max subtracted */
    void (*convert)(const void *src, enum dtype src_dtype, void *dst, enum dtype dst_dtype,
                    size_t n);
    void (*add)(float *x, const float *y, size_t n); /* x += y */
    /* combine: x [d] += sum, by fma from zero in the order of slots, of weight times row, and
     * after that `plus`. */
    void (*combine)(float *x, const struct slots *s, size_t d);
    float (*dot)(const float *x, const float *y, size_t n); /* 16 lanes, then a fixed tree */
    /* act_mul: out[i] = act(gate[i]) * up[i]; gate NULL: act(up[i]). */
    void (*act_mul)(enum act act, float alpha, float limit, const float *gate, const float *up,
                    int n, void *out, enum dtype out_dtype);
    /* A bf16 row x [d] to and from fp8 (base/dtype.h: fp8_row_bytes(d)), of any alignment. A
     * group's scale is the smallest power of two by which its largest magnitude stays within 448
     * when rounded; codes are rounded to nearest even. */
    void (*fp8_encode)(const uint16_t *x, size_t d, uint8_t *row);
    void (*fp8_decode)(const uint8_t *row, size_t d, uint16_t *x);
};

/* kernels_open picks the best instruction set of this CPU, or the one SIGMOE_ISA names (portable,
 * avx2, avx512, amx); ERR_USAGE when that is unknown or this CPU lacks it. *out lives forever. */
int kernels_open(const struct kernels **out, struct err *err);
/* kernels_of: the table of one instruction set, NULL where this CPU (or build) lacks it. For tests.
 */
const struct kernels *kernels_of(enum isa isa);
const char *isa_name(enum isa isa);

/* topk: the k largest of x [n], descending; of equal values the lower index first. NaN counts as
 * the smallest. k <= n. */
void topk(const float *x, int n, int k, int32_t *index, float *value);

#endif
