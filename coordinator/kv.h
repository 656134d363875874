/* kv: the paged KV cache. A page holds the keys and values of KV_PAGE positions in every layer, so
 * that one free list serves all. It is free, or one sequence's own, or, once it is full and pages
 * are shared, in the prefix tree (coordinator/prefix.h), where it stays when nobody uses it any
 * more until somebody needs a page. */
#ifndef COORDINATOR_KV_H
#define COORDINATOR_KV_H

#include "base/err.h"
#include "coordinator/prefix.h"
#include "kernels/kernels.h"
#include "model/desc.h"
#include <stddef.h>
#include <stdint.h>

struct team;

struct kv {
    struct kv_layout layout;
    int n_layer, n_page, n_free;
    size_t page_bytes; /* K (or V) of one page and layer */
    size_t bytes;
    int n_met; /* pages below it have been handed out, or lie beside one on a huge page */
    unsigned char *memory; /* [n_layer][2][n_page][page_bytes]; NULL in a simulation */
    int32_t *free_page;    /* stack of [n_free] */
    struct prefix *prefix; /* NULL: pages are not shared */
};

/* kv_init reserves n_page pages. ERR_NOMEM with the size in words. */
int kv_init(struct kv *kv, const struct model_desc *desc, enum dtype dtype, int n_page,
            struct err *err);
void kv_fini(struct kv *kv);
/* kv_touch: the pages that the first n_position positions will get, up to bytes_max of them, are
 * there when this returns: the first prompts do not wait for memory to be cleared. */
void kv_touch(struct kv *kv, int n_position, size_t bytes_max, struct team *team);
/* kv_share: full pages are shared from now on. ERR_NOMEM. */
int kv_share(struct kv *kv, struct err *err);
/* kv_available: pages that kv_take can give: free, or in the tree without a user. */
int kv_available(const struct kv *kv);
/* kv_pages_for: pages that hold n_position positions. */
int kv_pages_for(int64_t n_position);
/* kv_take moves n pages into page[0..n), free ones first, then the least recently used of the tree:
 * 0, or ERR_AGAIN with nothing taken. */
int kv_take(struct kv *kv, int n, int32_t *page);
void kv_give(struct kv *kv, int n, const int32_t *page);
void *kv_k(const struct kv *kv, int layer);
void *kv_v(const struct kv *kv, int layer);

#endif
