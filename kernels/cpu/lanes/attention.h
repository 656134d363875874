/* attention (internal): what the walk over spans and splits (attention.c) and the pass over one
 * page (attention_page.c) agree on. */
#ifndef KERNELS_CPU_LANES_ATTENTION_H
#define KERNELS_CPU_LANES_ATTENTION_H

#include "kernels/cpu/lanes/lanes.h"
#include "kernels/kernels.h"

/* An item: one query head of one row, and the state of its online softmax over a split. */
struct attn_item {
    const float *q; /* [d_head] */
    float *o;       /* [d_head] sum of e^(s - m) v */
    float m, l;     /* largest score so far; sum of e^(s - m) */
    int lo, hi;     /* it attends to positions [lo, hi) */
};

/* One page as one KV head sees it. */
struct attn_page {
    const void *k;      /* [d_head][KV_PAGE] */
    const void *v;      /* [KV_PAGE][d_head] */
    const void *next_k; /* of the page that follows, to be fetched meanwhile; or NULL */
    int pos;            /* of its first position */
};

/* attn_page folds one page into items [0, n), which share the KV head and whose lo and hi do not
 * descend. An item that sees none of the page is left as it is. */
void LANES_NAME(attn_page)(const struct attn *a, const struct attn_page *page,
                           struct attn_item *item, int n);

/* The page and KV head of position `pos`: byte offset from the layer's base. */
static inline size_t kv_offset(const struct kv_layout *l, size_t page_stride, const int32_t *page,
                               int pos, int kv_head)
{
    size_t head_bytes = (size_t)l->d_head * KV_PAGE * dtype_bytes(l->dtype);
    return (size_t)page[pos / KV_PAGE] * page_stride + (size_t)kv_head * head_bytes;
}

#endif
