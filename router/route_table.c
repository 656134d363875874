/* route_table: choices that the token alone decides, or nothing does.
 *   uniform  any top_k different experts (drawing each slot by itself would draw some twice);
 *   hash     a fixed random choice for each token id (Roller et al., "Hash layers", 2021);
 *   rre      random routed experts (PanGu-Sigma): the domain names a group of experts, and within
 * it a fixed random map from token ids; from the model's table, or by hash. */
#include "router/route.h"

/* A sample of k of n without replacement is drawn by Floyd's method: one draw a slot, whatever k.
 */
static int chosen(const int32_t *slot, int n, int32_t id)
{
    for (int i = 0; i < n; i++)
        if (slot[i] == id)
            return 1;
    return 0;
}

int route_uniform(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                  struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats, (void)mem, (void)err;
    for (int row = 0; row < in->n_row; row++) {
        int32_t *slot = slot_expert + (size_t)row * (size_t)in->top_k;
        for (int k = 0; k < in->top_k; k++) {
            int last = in->n_expert - in->top_k + k;
            int32_t id = (int32_t)(route_draw(in, row, (uint32_t)k) * (last + 1));
            slot[k] = chosen(slot, k, id) ? last : id;
        }
    }
    route_weights(in, slot_weight);
    return 0;
}

/* by_token: top_k of the experts [first, first + n), by hash of the token id. */
static void by_token(const struct route_input *in, int32_t token, int first, int n, int32_t *slot)
{
    for (int k = 0; k < in->top_k; k++) {
        int last = n - in->top_k + k;
        double u = route_draw_id(in, ROUTE_DRAW_TOKEN, (uint64_t)(uint32_t)token, (uint32_t)k);
        int32_t id = first + (int32_t)(u * (last + 1));
        slot[k] = chosen(slot, k, id) ? first + last : id;
    }
}

int route_hash(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
               struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats, (void)mem;
    int rc = route_need(in->token, "hash", "token ids", err);
    for (int row = 0; rc == 0 && row < in->n_row; row++)
        by_token(in, in->token[row], 0, in->n_expert,
                 slot_expert + (size_t)row * (size_t)in->top_k);
    if (rc == 0)
        route_weights(in, slot_weight);
    return rc;
}

static int from_table(const struct route_input *in, int n_domain, int domain, int32_t token,
                      int32_t *slot, struct err *err)
{
    if (token < 0 || token >= in->n_table)
        return err_set(err, ERR_USAGE, "token %d is not in the table of %d tokens", token,
                       in->n_table);
    size_t at = ((size_t)domain * (size_t)in->n_table + (size_t)token) * (size_t)in->top_k;
    for (int k = 0; k < in->top_k; k++) {
        slot[k] = in->domain_table[at + (size_t)k];
        if (slot[k] >= in->n_expert)
            return err_set(err, ERR_USAGE,
                           "the table of %d domains names expert %d of %d for token %d", n_domain,
                           slot[k], in->n_expert, token);
    }
    return 0;
}

int route_rre(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
              struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats, (void)mem;
    int n_domain = in->n_domain > 1 ? in->n_domain : 1;
    int rc = route_need(in->token, "rre", "token ids", err);
    if (rc == 0 && n_domain > 1)
        rc = route_need(in->domain, "rre", "a domain for each row", err);
    if (rc == 0 && in->n_expert / n_domain < in->top_k)
        rc = err_set(err, ERR_USAGE, "%d domains of %d experts have fewer than top-%d each",
                     n_domain, in->n_expert, in->top_k);
    for (int row = 0; rc == 0 && row < in->n_row; row++) {
        int32_t *slot = slot_expert + (size_t)row * (size_t)in->top_k;
        int domain = in->domain ? in->domain[row] : 0;
        if (domain < 0 || domain >= n_domain)
            return err_set(err, ERR_USAGE, "row %d is of domain %d of %d", row, domain, n_domain);
        int first = (int)((int64_t)in->n_expert * domain / n_domain);
        int end = (int)((int64_t)in->n_expert * (domain + 1) / n_domain);
        if (in->domain_table)
            rc = from_table(in, n_domain, domain, in->token[row], slot, err);
        else
            by_token(in, in->token[row], first, end - first, slot);
    }
    if (rc == 0)
        route_weights(in, slot_weight);
    return rc;
}
