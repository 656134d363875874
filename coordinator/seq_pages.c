/* seq_pages: see seq_pages.h. */
#include "coordinator/seq_pages.h"

#include <string.h>

/* What keys and values depend on besides tokens and positions: the domain (its embedding and its
 * experts), and the length of the prompt where that scales the rotation. */
static uint64_t kind_of(const struct seq *seq)
{
    return (uint64_t)(uint32_t)seq->request.domain << 32 | (uint32_t)seq->rope_length;
}

static int told_of_all(const struct seq *seq)
{
    return seq->request.all_logits || seq->request.on_route != NULL;
}

int seq_pages_may_skip(const struct kv *kv, const struct seq *seq)
{
    return kv->prefix != NULL && !told_of_all(seq);
}

int seq_pages_grow(struct kv *kv, struct seq *seq, int n_page)
{
    if (n_page <= seq->n_page) {
        return 0;
    }
    int rc = kv_take(kv, n_page - seq->n_page, seq->page + seq->n_page);
    seq->n_page = rc == 0 ? n_page : seq->n_page;
    return rc;
}

static int32_t last_shared(const struct seq *seq, int n)
{
    return n > 0 ? seq->page[n - 1] : PREFIX_NONE;
}

void seq_pages_share(struct kv *kv, struct seq *seq)
{
    while (kv->prefix != NULL && (seq->n_shared + 1) * KV_PAGE <= seq->n_done) {
        int n = seq->n_shared;
        int32_t own = seq->page[n];
        seq->page[n] = prefix_insert(kv->prefix, last_shared(seq, n), kind_of(seq),
                                     seq->token + (size_t)n * KV_PAGE, own);
        if (seq->page[n] != own) {
            kv_give(kv, 1, &own);
        }
        seq->n_shared++;
    }
}

/* The page of the tree behind page `after`, which holds positions up to n * KV_PAGE. */
static int32_t next_page(const struct kv *kv, const struct seq *seq, int32_t after, int n)
{
    int known = seq->n_token - 1; /* one is computed: its logits are wanted */
    if (told_of_all(seq) && seq->n_told < known) {
        known = seq->n_told;
    }
    return kv->prefix == NULL || seq->held || (n + 1) * KV_PAGE > known
               ? PREFIX_NONE
               : prefix_find(kv->prefix, after, kind_of(seq), seq->token + (size_t)n * KV_PAGE);
}

int seq_pages_adopt(struct kv *kv, struct seq *seq)
{
    int from = seq->n_done, n = seq->n_shared;
    int32_t page;
    while ((page = next_page(kv, seq, last_shared(seq, n), n)) != PREFIX_NONE) {
        prefix_use(kv->prefix, page);
        if (seq->n_page > n) {
            kv_give(kv, 1, &seq->page[n]);
        } else {
            seq->n_page++;
        }
        seq->page[n++] = page;
        seq->n_shared = n;
        seq->n_done = n * KV_PAGE;
    }
    return seq->n_done - from;
}

int seq_pages_in_use(const struct kv *kv, const struct seq *seq)
{
    int used = 0, n = seq->n_shared;
    int32_t page = last_shared(seq, n);
    while ((page = next_page(kv, seq, page, n++)) != PREFIX_NONE) {
        used += kv->prefix->node[page].n_user > 0;
    }
    return used;
}

int seq_pages_alike(const struct seq *a, const struct seq *b)
{
    int n = a->n_shared;
    size_t at = (size_t)n * KV_PAGE;
    return n == b->n_shared && last_shared(a, n) == last_shared(b, n) && kind_of(a) == kind_of(b) &&
           memcmp(a->token + at, b->token + at, KV_PAGE * sizeof *a->token) == 0;
}

void seq_pages_release(struct kv *kv, struct seq *seq)
{
    seq_pages_share(kv, seq);
    kv_give(kv, seq->n_page - seq->n_shared, seq->page + seq->n_shared);
    while (seq->n_shared > 0) {
        prefix_leave(kv->prefix, seq->page[--seq->n_shared]);
    }
    seq->n_page = 0;
}
