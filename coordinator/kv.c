/* kv: the paged KV cache; see kv.h. */
#include "coordinator/kv.h"

#include "base/arena.h"
#include "base/pages.h"
#include "base/team.h"
#include <stdlib.h>
#include <string.h>

int kv_pages_for(int64_t n_position)
{
    return (int)((n_position + KV_PAGE - 1) / KV_PAGE);
}

int kv_init(struct kv *kv, const struct model_desc *desc, enum dtype dtype, int n_page,
            struct err *err)
{
    struct kv made = {.layout = {dtype, desc->n_kv_head, desc->d_head},
                      .n_layer = desc->n_layer,
                      .n_page = n_page,
                      .n_free = n_page};
    made.page_bytes = kv_page_bytes(&made.layout);
    size_t per_layer, per_side;
    if (n_page <= 0 || mul_size(made.page_bytes, (size_t)n_page, &per_side) ||
        mul_size(per_side, 2, &per_layer) ||
        mul_size(per_layer, (size_t)made.n_layer, &made.bytes)) {
        return err_set(err, ERR_LIMIT, "KV cache of %d pages is too large to address", n_page);
    }
    made.memory = mem_map(made.bytes);
    made.free_page = malloc((size_t)n_page * sizeof *made.free_page);
    if (made.memory == NULL || made.free_page == NULL) {
        if (made.memory != NULL) {
            mem_unmap(made.memory, made.bytes);
        }
        free(made.free_page);
        return err_set(err, ERR_NOMEM,
                       "no memory for a KV cache of %zu MiB (%d pages of %d positions); lower "
                       "--kv-tokens",
                       made.bytes >> 20, n_page, KV_PAGE);
    }
    pages_small(made.memory, made.bytes, 1); /* until they are met */
    /* Taken from the end: low pages first. */
    for (int i = 0; i < n_page; i++) {
        made.free_page[i] = n_page - 1 - i;
    }
    *kv = made;
    return 0;
}

void kv_fini(struct kv *kv)
{
    if (kv->memory != NULL) {
        mem_unmap(kv->memory, kv->bytes);
    }
    free(kv->free_page);
    prefix_destroy(kv->prefix);
    memset(kv, 0, sizeof *kv);
}

int kv_share(struct kv *kv, struct err *err)
{
    return prefix_create(kv->n_page, &kv->prefix, err);
}

int kv_available(const struct kv *kv)
{
    return kv->n_free + (kv->prefix != NULL ? kv->prefix->n_idle : 0);
}

/* Attention reads huge pages faster by a tenth, so they are used where they lie ready; all
 * sequences wait for the step that first touches one, twice a layer, so none is made for us. */
static void meet(struct kv *kv)
{
    size_t beside = (HUGE_PAGE_BYTES - 1) / kv->page_bytes + 1,
           side = kv->page_bytes * (size_t)kv->n_page;
    size_t begin = kv->page_bytes * (size_t)kv->n_met, end = begin + beside * kv->page_bytes;
    size_t n_side = (size_t)kv->n_layer * 2;
    int ready = pages_huge_ready() >= HUGE_SPARE_BYTES + n_side * 2 * HUGE_PAGE_BYTES;
    end = end < side ? end : side;
    for (size_t i = 0; ready && i < n_side; i++) {
        size_t low = (i * side + begin) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        size_t high = ((i * side + end - 1) / HUGE_PAGE_BYTES + 1) * HUGE_PAGE_BYTES;
        high = high < kv->bytes ? high : kv->bytes;
        pages_small(kv->memory + low, high - low, 0);
    }
    kv->n_met = (int)(end / kv->page_bytes);
}

struct touch_job {
    const struct kv *kv;
    int n_page;
};

static void touch_sides(void *arg, int begin, int end, int thread)
{
    (void)thread;
    const struct touch_job *j = arg;
    size_t side = j->kv->page_bytes * (size_t)j->kv->n_page;
    for (int i = begin; i < end; i++) {
        pages_touch(j->kv->memory + (size_t)i * side, j->kv->page_bytes * (size_t)j->n_page);
    }
}

void kv_touch(struct kv *kv, int n_position, size_t bytes_max, struct team *team)
{
    size_t page_bytes = kv->page_bytes * 2 * (size_t)kv->n_layer, n = bytes_max / page_bytes;
    struct touch_job job = {kv, kv_pages_for(n_position)};
    job.n_page = job.n_page < kv->n_page ? job.n_page : kv->n_page;
    job.n_page = (size_t)job.n_page < n ? job.n_page : (int)n;
    while (kv->n_met < job.n_page) {
        meet(kv);
    }
    team_run(team, touch_sides, &job, kv->n_layer * 2, 1);
}

int kv_take(struct kv *kv, int n, int32_t *page)
{
    if (n > kv_available(kv)) {
        return ERR_AGAIN;
    }
    for (int i = 0; i < n; i++) {
        page[i] = kv->n_free > 0 ? kv->free_page[--kv->n_free] : prefix_evict(kv->prefix);
        while (kv->memory != NULL && page[i] >= kv->n_met) {
            meet(kv);
        }
    }
    return 0;
}

void kv_give(struct kv *kv, int n, const int32_t *page)
{
    for (int i = n - 1; i >= 0; i--) {
        kv->free_page[kv->n_free++] = page[i];
    }
}

void *kv_k(const struct kv *kv, int layer)
{
    return kv->memory + (size_t)layer * 2 * (size_t)kv->n_page * kv->page_bytes;
}

void *kv_v(const struct kv *kv, int layer)
{
    return kv->memory + ((size_t)layer * 2 + 1) * (size_t)kv->n_page * kv->page_bytes;
}
