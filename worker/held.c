/* held: from a table of who holds what to experts in memory. Most workers hold the same experts in
 * every layer; those load with the whole team at once. A placement file may say otherwise. */
#include "worker/worker.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t *row_of(const uint8_t *held, const struct model_desc *desc, int layer)
{
    return held + (size_t)layer * (size_t)desc->n_expert;
}

/* same_in_all: the one row that every sparse layer has, or NULL. */
static const uint8_t *same_in_all(const uint8_t *held, const struct model_desc *desc)
{
    const uint8_t *first = NULL;
    for (int layer = 0; layer < desc->n_layer; layer++) {
        const uint8_t *row = row_of(held, desc, layer);
        if (!desc->layer[layer].sparse)
            continue;
        if (first && memcmp(first, row, (size_t)desc->n_expert) != 0)
            return NULL;
        if (!first)
            first = row;
    }
    return first;
}

/* load_row loads one row's experts in every layer; row NULL: all experts. */
static int load_row(struct expert_set *set, const struct model_desc *desc, const uint8_t *row,
                    struct team *team, struct err *err)
{
    int32_t *experts = calloc((size_t)desc->n_expert, sizeof(*experts));
    if (!experts)
        return err_set(err, ERR_NOMEM, "no memory for a list of %d experts", desc->n_expert);
    int n = 0;
    for (int e = 0; e < desc->n_expert; e++)
        if (!row || row[e])
            experts[n++] = e;
    int rc = expert_set_load_many(set, experts, n, team, err);
    free(experts);
    return rc;
}

int held_load(struct expert_set *set, const struct model_desc *desc, const uint8_t *held,
              struct team *team, struct err *err)
{
    const uint8_t *row = held ? same_in_all(held, desc) : NULL;
    if (!held || row)
        return load_row(set, desc, row, team, err);
    for (int layer = 0; layer < desc->n_layer; layer++)
        for (int e = 0; e < desc->n_expert && desc->layer[layer].sparse; e++) {
            int rc = row_of(held, desc, layer)[e] ? expert_set_load(set, layer, e, err) : 0;
            if (rc)
                return rc;
        }
    return 0;
}
