/* attention_pass: one group of items at one split, as the products and the softmax between them
 * share it. The items are cut into parts of 32, two tiles of rows where there are tiles: each part
 * meets only those pages of the split that some item of it sees, and a panel of K or V meets all
 * parts while it is in the first cache. */
#ifndef KERNELS_CPU_LANES_ATTENTION_PASS_H
#define KERNELS_CPU_LANES_ATTENTION_PASS_H

#include "kernels/cpu/lanes/attention.h"

#define PART_ITEMS 32
#define PART_MAX   (ATTN_GROUP / PART_ITEMS)
/* Rows of scores are not a power of two apart: they would share the sets of the cache. */
#define LD_SCORE (KV_SPLIT + LANES)
/* Weights of bf16 lie where their row's scores did. */
#define LD_P (2 * LD_SCORE)

/* Items [item, item + n) see pages [page, page + n_page) of the split; n_page may be 0. */
struct part {
    int item, n;
    int page, n_page;
};

struct pass {
    const struct attn *a;
    const struct attn_split *s;
    const struct attn_group *g;
    enum dtype dtype;
    int d_pad, n_panel; /* panels of V's columns */
    float *score;       /* [n, LD_SCORE]; then p in place: f32 or, for tiles, bf16 [n, LD_P] */
    int n_part;
    struct part part[PART_MAX];
};

/* What meets of V: o of the parts (+)= p times their pages. v[i] points at panel `panel` of page i.
 */
struct values {
    const struct part *part;
    int n_part;
    int panel, n_panel;
    const unsigned char *const *v; /* [n_page] */
    int first;                     /* o starts at zero */
};

static inline size_t v_panel_bytes(const struct pass *p)
{
    return KV_PAGE * PANEL * dtype_bytes(p->dtype);
}

static inline size_t k_panel_bytes(const struct pass *p)
{
    return (size_t)p->d_pad * PANEL * dtype_bytes(p->dtype);
}

#endif
