/* domain_probe: see domain_probe.h.
 *
 *   slot 0: dense chunk, dense chunk, ... -> x of every token
 *           sparse chunk (domains of slot 0, as many as fit), ... -> their scores
 *   slot 1: the same                                        ... until the last slot in use. */
#include "coordinator/domain_probe.h"

#include "base/arena.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PAGES_MAX ((DOMAIN_PROBE_TOKENS + KV_PAGE - 1) / KV_PAGE)

struct domain_probe {
    const struct model_desc *desc;
    int n_dense;           /* layers below the first sparse one */
    const struct seq *seq; /* NULL: none */
    int n_token;           /* looked at */
    int32_t token[DOMAIN_PROBE_TOKENS];
    int slot, n_dense_done; /* positions that are through the dense layers, in this slot */
    int next, pos;          /* domain and position where the next sparse chunk begins */
    int n_chunk;            /* domains in the chunk; 0: a dense chunk */
    double *score;          /* [n_domain] sums, then means */
    float *x;               /* [DOMAIN_PROBE_TOKENS, d_model] of the slot, before layer n_dense */
    struct seq *as;         /* [n_domain] the sequence as each domain of the chunk would have it */
    struct sched_span *span;
    int32_t *page; /* [n_domain, PAGES_MAX] own pages first, then borrowed ones */
    int n_borrowed, n_own;
};

int domain_probe_create(const struct model_desc *desc, struct domain_probe **out, struct err *err)
{
    struct domain_probe *p = calloc(1, sizeof *p);
    size_t n = (size_t)desc->n_domain;
    if (p != NULL) {
        p->desc = desc;
        p->score = calloc(n, sizeof *p->score);
        p->x = calloc((size_t)DOMAIN_PROBE_TOKENS * (size_t)desc->d_model, sizeof *p->x);
        p->as = calloc(n, sizeof *p->as);
        p->span = calloc(n, sizeof *p->span);
        p->page = calloc(n * PAGES_MAX, sizeof *p->page);
    }
    if (p == NULL || p->score == NULL || p->x == NULL || p->as == NULL || p->span == NULL ||
        p->page == NULL) {
        domain_probe_destroy(p);
        return err_set(err, ERR_NOMEM, "no memory to find out the domain of a prompt");
    }
    while (!desc->layer[p->n_dense].sparse) {
        p->n_dense++;
    }
    *out = p;
    return 0;
}

void domain_probe_destroy(struct domain_probe *p)
{
    if (p != NULL) {
        free(p->score);
        free(p->x);
        free(p->as);
        free(p->span);
        free(p->page);
        free(p);
    }
}

/* The first domain from `from` on that reads this slot; n_domain when there is none. */
static int domain_of_slot(const struct domain_probe *p, int slot, int from)
{
    while (from < p->desc->n_domain && p->desc->domain[from].slot != slot) {
        from++;
    }
    return from;
}

/* The next slot in use, from `slot` on; n_slot behind the last. */
static void enter_slot(struct domain_probe *p, int slot)
{
    int n_domain = p->desc->n_domain;
    while (slot < p->desc->n_slot && domain_of_slot(p, slot, 0) == n_domain) {
        slot++;
    }
    p->slot = slot;
    p->n_dense_done = 0;
    p->pos = 0;
    p->next = slot < p->desc->n_slot ? domain_of_slot(p, slot, 0) : n_domain;
}

/* look writes the tokens that are looked at; how many. What begins every text stands before them,
 * if it begins the prompt: they are scored as a text of their own. */
static int look(const struct domain_probe *p, const struct seq *seq,
                int32_t token[DOMAIN_PROBE_TOKENS])
{
    int from = seq->request.domain_from, n = 0;
    if (from > 1 && seq->token[0] == p->desc->bos) {
        token[n++] = seq->token[0];
    }
    while (n < DOMAIN_PROBE_TOKENS && from < seq->n_prompt) {
        token[n++] = seq->token[from++];
    }
    return n;
}

void domain_probe_begin(struct domain_probe *p, const struct seq *seq)
{
    p->seq = seq;
    p->n_token = look(p, seq, p->token);
    memset(p->score, 0, (size_t)p->desc->n_domain * sizeof *p->score);
    p->n_chunk = p->n_borrowed = 0;
    enter_slot(p, 0);
}

const struct seq *domain_probe_of(const struct domain_probe *p)
{
    return p->seq;
}

void domain_probe_drop(struct domain_probe *p)
{
    p->seq = NULL;
}

/* ---- a chunk, filled ------------------------------------------------------------------------- */

/* Domain number i of the chunk: rows [begin, begin + n_row) from position pos. */
static void add_span(struct domain_probe *p, int i, int domain, int begin, int n_row, int pos)
{
    struct seq *as = &p->as[i];
    *as = (struct seq){.id = p->seq->id,
                       .token = p->token,
                       .n_token = p->n_token,
                       .n_prompt = p->n_token,
                       .page = p->page + (size_t)i * (size_t)kv_pages_for(p->n_token)};
    as->request.domain = domain;
    p->span[i] = (struct sched_span){as, begin, begin + n_row, pos, 0};
}

/* Pages for as many as n <= n_domain domains, own ones first; returns for how many there are. */
static int pages_have(struct domain_probe *p, struct kv *kv, int n)
{
    int each = kv_pages_for(p->n_token), own = p->seq->n_page / each;
    own = own < n ? own : n;
    int more = n - own, spare = kv_available(kv) / each;
    more = more < spare ? more : spare;
    p->n_own = own * each;
    memcpy(p->page, p->seq->page, (size_t)p->n_own * sizeof *p->page);
    if (more > 0 && kv_take(kv, more * each, p->page + p->n_own) == 0) {
        p->n_borrowed = more * each;
        return own + more;
    }
    return own;
}

static void fill_dense(struct domain_probe *p, const struct forward *f, struct micro *m)
{
    int left = p->n_token - p->n_dense_done;
    int n_row = left < m->n_row_max ? left : m->n_row_max;
    p->n_chunk = 0;
    pages_have(p, f->kv, 1);
    add_span(p, 0, p->next, 0, n_row, p->n_dense_done);
    micro_fill(f, m, p->span, 1, 0, n_row);
    forward_embed(f, m);
}

/* Whole prompts of several domains where they fit into the rows, else a part of one. */
static void fill_sparse(struct domain_probe *p, const struct forward *f, struct micro *m)
{
    size_t d = (size_t)p->desc->d_model;
    int n_most = m->n_row_max / p->n_token, left = p->n_token - p->pos;
    int n_each = n_most > 0 ? p->n_token : left < m->n_row_max ? left : m->n_row_max;
    int n = 0, domain = p->next, n_left = 0;
    for (int i = domain; i < p->desc->n_domain; i = domain_of_slot(p, p->slot, i + 1)) {
        n_left++;
    }
    n_most = n_most < n_left ? n_most : n_left;
    n_most = pages_have(p, f->kv, n_most > 1 ? n_most : 1);
    for (; n < n_most && domain < p->desc->n_domain;
         domain = domain_of_slot(p, p->slot, domain + 1)) {
        add_span(p, n, domain, n * n_each, n_each, p->pos);
        n++;
    }
    p->n_chunk = n;
    micro_fill(f, m, p->span, n, 0, n * n_each);
    for (int i = 0; i < n; i++) {
        memcpy(m->x + (size_t)(i * n_each) * d, p->x + (size_t)p->pos * d,
               (size_t)n_each * d * sizeof *m->x);
    }
}

void domain_probe_fill(struct domain_probe *p, const struct forward *f, struct micro *m, int *end)
{
    int dense = p->n_dense_done < p->n_token;
    if (dense) {
        fill_dense(p, f, m);
    } else {
        fill_sparse(p, f, m);
    }
    m->layer = dense ? 0 : p->n_dense;
    *end = dense ? p->n_dense : p->desc->n_layer;
}

void domain_probe_release(struct domain_probe *p, struct kv *kv)
{
    kv_give(kv, p->n_borrowed, p->page + p->n_own);
    p->n_borrowed = 0;
}

/* ---- a chunk, read --------------------------------------------------------------------------- */

/* log softmax(z)[token]; overwrites z. The largest entry of the softmax is 1 / sum. */
static double log_likelihood(const struct kernels *k, float *z, int vocab, int32_t token)
{
    int32_t top;
    float most;
    topk(z, vocab, 1, &top, &most);
    double above = (double)z[token] - (double)most;
    k->softmax(z, vocab);
    return above + log((double)z[top]);
}

/* Rows of m, all of one slot, in order: each but a prompt's last tells how likely its next was. */
static void score_rows(struct domain_probe *p, const struct forward *f, struct micro *m,
                       float *logits, int n_logits)
{
    size_t vocab = (size_t)p->desc->vocab;
    for (int begin = 0; begin < m->n_row; begin += n_logits) {
        int n = m->n_row - begin < n_logits ? m->n_row - begin : n_logits;
        int32_t *row = m->slot_expert; /* free again: the experts have answered */
        for (int i = 0; i < n; i++) {
            row[i] = begin + i;
        }
        forward_logits(f, m, row, n, logits);
        for (int i = 0; i < n; i++) {
            int pos = m->pos[row[i]];
            if (pos + 1 < p->n_token) {
                p->score[m->domain[row[i]]] += log_likelihood(f->k, logits + (size_t)i * vocab,
                                                              p->desc->vocab, p->token[pos + 1]);
            }
        }
    }
}

/* After the last position of a chunk's domains: the next domain, or the next slot. */
static void advance(struct domain_probe *p, int n_row)
{
    p->pos += n_row / p->n_chunk;
    if (p->pos < p->n_token) {
        return;
    }
    p->pos = 0;
    for (int i = 0; i < p->n_chunk; i++) {
        p->next = domain_of_slot(p, p->slot, p->next + 1);
    }
    if (p->next == p->desc->n_domain) {
        enter_slot(p, p->slot + 1);
    }
}

int domain_probe_read(struct domain_probe *p, const struct forward *f, struct micro *m,
                      float *logits, int n_logits)
{
    if (p->n_chunk == 0) {
        size_t d = (size_t)p->desc->d_model;
        memcpy(p->x + (size_t)p->n_dense_done * d, m->x, (size_t)m->n_row * d * sizeof *p->x);
        p->n_dense_done += m->n_row;
        return 0;
    }
    score_rows(p, f, m, logits, n_logits);
    advance(p, m->n_row);
    if (p->slot < p->desc->n_slot) {
        return 0;
    }
    for (int i = 0; i < p->desc->n_domain; i++) {
        p->score[i] /= p->n_token - 1;
    }
    p->seq = NULL;
    return 1;
}

int domain_probe_result(const struct domain_probe *p, const double **score)
{
    int best = 0;
    for (int i = 1; i < p->desc->n_domain; i++) {
        if (p->score[i] > p->score[best] || isnan(p->score[best])) {
            best = i;
        }
    }
    *score = p->score;
    return best;
}

int domain_probe_same(const struct domain_probe *p, const struct seq *seq)
{
    int32_t token[DOMAIN_PROBE_TOKENS];
    int n = look(p, seq, token);
    return n == p->n_token && memcmp(p->token, token, (size_t)n * sizeof *token) == 0;
}
