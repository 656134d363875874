/* attention (internal): what the walk over spans and splits (attention.c) and the pass over one
 * split (attention_split.c) agree on. */
#ifndef KERNELS_CPU_LANES_ATTENTION_H
#define KERNELS_CPU_LANES_ATTENTION_H

#include "kernels/cpu/lanes/lanes.h"
#include "kernels/kernels.h"

/* Items that go through a split together, at most. */
#define ATTN_GROUP  128
#define SPLIT_PAGES (KV_SPLIT / KV_PAGE)

/* Items [0, n) of one KV head: an item is a query head of a row. Their lo and hi do not descend.
 * What the split gives for each: the largest score, the sum of e^(s - m), and the sum of those
 * times v; m is -inf and l 0 where an item sees none of the split, and o anything. With tiles the
 * queries lie as tiles, [n / 16][d_pad / 32] of 16 rows of 32 bf16, and what follows the n-th up to
 * the next multiple of 16 is memory that may be read, of o fifteen rows that may be written. */
struct attn_group {
    int n;
    int tiles;          /* q is for the tile unit */
    const void *q;      /* [n, ldq] f32 padded to k_padded(d_head) with zeros; or tiles of bf16 */
    size_t ldq;         /* of f32 */
    const int *lo, *hi; /* [n] it attends to positions [lo, hi) */
    float *m, *l;       /* [n] */
    float *o;           /* [n, ldo] */
    size_t ldo;         /* at least k_padded(d_head) */
};

/* The pages of a split that a group sees, as their KV head sees them. */
struct attn_split {
    int pos; /* of the first page's first position */
    int n_page;
    const unsigned char *k[SPLIT_PAGES], *v[SPLIT_PAGES];
};

void LANES_NAME(attn_split)(const struct attn *a, const struct attn_split *s,
                            const struct attn_group *g);

/* The page and KV head of position `pos`: byte offset from the layer's base. */
static inline size_t kv_offset(const struct kv_layout *l, size_t page_stride, const int32_t *page,
                               int pos, int kv_head)
{
    return (size_t)page[pos / KV_PAGE] * page_stride + (size_t)kv_head * kv_head_bytes(l);
}

/* The scales of an i8 page and KV head. */
static inline size_t kv_scale_at(const struct kv_layout *l)
{
    return (size_t)k_padded(l->d_head) * KV_PAGE;
}

/* Element (row, k) of a matrix of panels `depth` deep: index from its start. */
static inline size_t kv_element(enum dtype dtype, int depth, int row, int k)
{
    size_t panel = (size_t)(row / PANEL) * (size_t)depth * PANEL, col = (size_t)(row % PANEL);
    if (dtype == DTYPE_BF16) {
        return panel + (size_t)(k / 2) * 2 * PANEL + 2 * col + (size_t)(k % 2);
    }
    return panel + (size_t)k * PANEL + col;
}

#endif
