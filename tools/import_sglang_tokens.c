/* import_sglang_tokens: SGLang's recorder in mode per_token. A record is one forward pass of one
 * rank:
 *
 *   input_ids, positions  lists, one entry a token
 *   extend_seq_lens       of a prefill: how many tokens each sequence has in it; None in decoding,
 *                         where each token is of another sequence
 *   topk_ids_of_layer     [layers, tokens, slots] copies; -1 beyond the model's top-k and where a
 *                         layer has no experts
 *
 * Requests are not named, so what a sequence had in one pass is a sequence of its own here. Two
 * readings: the first learns the shape, the second writes. */
#include "base/limits.h"
#include "tools/import_sglang.h"

#include <stdlib.h>

struct tokens {
    struct import *import;
    const struct sglang_records *r;
    struct routes_spec spec;
    uint8_t seen[LIMIT_LAYERS];
    uint64_t n_seq;
};

/* One record, checked. */
struct pass {
    struct torch_tensor id;
    const struct pickle_node *token, *position, *length;
    int n_token;
};

static const struct pickle_node *list_of(const struct pickle_node *record, const char *key, int n)
{
    const struct pickle_node *list = pickle_get(record, key);
    if (!list || list->kind != PICKLE_LIST || (n >= 0 && list->n_item != n))
        return NULL;
    for (int i = 0; i < list->n_item; i++)
        if (list->item[i]->kind != PICKLE_INT || list->item[i]->number < 0 ||
            list->item[i]->number > INT32_MAX)
            return NULL;
    return list;
}

static int pass_read(const struct tokens *t, int i, struct pass *p, struct err *err)
{
    const struct pickle_node *record = t->r->list->item[i];
    const struct torch_tensor *map = &t->r->map;
    int rc = torch_file_tensor(t->r->file, record, "topk_ids_of_layer", &p->id, err);
    if (rc)
        return rc;
    const struct torch_tensor *id = &p->id;
    p->n_token = id->n_dim == 3 && id->dim[1] <= LIMIT_CONTEXT ? (int)id->dim[1] : -1;
    p->token = list_of(record, "input_ids", p->n_token);
    p->position = list_of(record, "positions", p->n_token);
    p->length = list_of(record, "extend_seq_lens", -1);
    if (p->n_token < 0 || id->dim[0] != map->dim[0] || id->dim[2] < 1 || id->dim[2] > LIMIT_TOP_K ||
        !p->token || !p->position)
        return err_set(err, ERR_MODEL,
                       "%s: record %d does not hold [layers, tokens, slots] with a token id and a "
                       "position each",
                       t->import->from, i);
    for (int64_t k = 0; k < id->dim[0] * id->dim[1] * id->dim[2]; k++)
        if (!(id->value[k] >= -1) || id->value[k] >= (double)map->dim[1])
            return err_set(err, ERR_MODEL, "%s: record %d names copy %g of %lld", t->import->from,
                           i, id->value[k], (long long)map->dim[1]);
    return 0;
}

static void learn(struct tokens *t, const struct pass *p)
{
    int64_t n = p->id.dim[1], k = p->id.dim[2];
    for (int64_t i = 0; i < p->id.dim[0] * n * k; i++) {
        if (p->id.value[i] < 0)
            continue;
        t->seen[i / (n * k)] = 1;
        t->spec.top_k = i % k >= t->spec.top_k ? (int)(i % k) + 1 : t->spec.top_k;
    }
}

/* write_runs: sequence by sequence; expert [n_layer, n_token, top_k] of the sparse layers. */
static int write_runs(struct tokens *t, const struct pass *p, const int32_t *token,
                      const int32_t *expert, int label, struct err *err)
{
    size_t k = (size_t)t->spec.top_k, ld = (size_t)p->n_token * k;
    int rc = 0;
    for (int at = 0, i = 0; at < p->n_token && !rc; i++) {
        int64_t n = 1;
        if (p->length && p->length->n_item > 0)
            n = i < p->length->n_item ? p->length->item[i]->number : p->n_token - at;
        if (n < 1)
            continue; /* a sequence without tokens in this pass */
        n = n < p->n_token - at ? n : p->n_token - at;
        struct routes_run run = {.seq = t->n_seq++,
                                 .domain = label,
                                 .first_pos = (int32_t)p->position->item[at]->number,
                                 .n_token = (int32_t)n,
                                 .begins = 1,
                                 .ends = 1};
        rc = import_put(t->import, &run, token + at, expert + (size_t)at * k, NULL, ld, err);
        at += (int)n;
    }
    return rc;
}

static int write_pass(struct tokens *t, const struct pass *p, int label, struct err *err)
{
    size_t n = (size_t)p->n_token, k = (size_t)t->spec.top_k, wide = (size_t)p->id.dim[2];
    int32_t *token = malloc((n + 1) * sizeof(*token));
    int32_t *expert = malloc(((size_t)t->spec.n_layer * n * k + 1) * sizeof(*expert));
    int rc = token && expert ? 0 : err_set(err, ERR_NOMEM, "no memory for %zu tokens", n);
    for (size_t i = 0; i < n && !rc; i++)
        token[i] = (int32_t)p->token->item[i]->number;
    for (size_t l = 0; l < (size_t)t->spec.n_layer && !rc; l++) {
        size_t layer = (size_t)t->spec.layer[l];
        const double *of = t->r->map.value + layer * (size_t)t->r->map.dim[1];
        for (size_t i = 0; i < n * k; i++) {
            double copy = i % k < wide ? p->id.value[layer * n * wide + i / k * wide + i % k] : -1;
            expert[l * n * k + i] = copy < 0 ? -1 : (int32_t)of[(size_t)copy];
        }
    }
    rc = rc ? rc : write_runs(t, p, token, expert, label, err);
    free(token);
    free(expert);
    return rc;
}

/* each_pass reads every record, to learn from it or to write it. */
static int each_pass(struct tokens *t, int writes, int label, struct err *err)
{
    int rc = 0;
    for (int i = 0; i < t->r->list->n_item && !rc; i++) {
        struct pass p = {0};
        rc = pass_read(t, i, &p, err);
        if (rc == 0 && writes)
            rc = write_pass(t, &p, label, err);
        else if (rc == 0)
            learn(t, &p);
        free(p.id.value);
    }
    return rc;
}

int import_sglang_tokens(struct import *import, const struct sglang_records *records,
                         struct err *err)
{
    struct tokens t = {.import = import, .r = records};
    t.spec.n_expert = records->n_expert;
    t.spec.has_token = 1;
    int label, rc = each_pass(&t, 0, -1, err);
    for (int l = 0; l < LIMIT_LAYERS; l++)
        if (t.seen[l])
            t.spec.layer[t.spec.n_layer++] = l;
    if (rc == 0 && t.spec.n_layer == 0)
        rc = err_set(err, ERR_MODEL, "%s: its records chose no experts", import->from);
    rc = rc ? rc : import_begin(import, &t.spec, err);
    rc = rc ? rc : import_label(import, import->domain, &label, err);
    return rc ? rc : each_pass(&t, 1, label, err);
}
