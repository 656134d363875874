/* place_simple: placements that do not look at loads, and make no copies: what a cluster has before
 * it has seen any traffic. Workers with more slots get more experts. */
#include "router/balance_table.h"
#include "router/place.h"

/* Bounds go with the slots, rounded down: with no more experts than slots, a part is never larger
 * than its worker's slots. */
int place_contiguous(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                     struct err *err)
{
    int rc = balance_table_carve(in, out, mem, err);
    for (int layer = 0; rc == 0 && layer < in->n_layer; layer++) {
        int32_t *row = balance_row(out, layer);
        for (int w = 0; w < in->n_worker; w++) {
            int64_t first = (int64_t)in->n_expert * out->begin[w] / out->n_slot;
            int64_t end = (int64_t)in->n_expert * out->begin[w + 1] / out->n_slot;
            for (int64_t e = first; e < end; e++)
                row[out->begin[w] + e - first] = (int32_t)e;
        }
    }
    return rc;
}

int place_round_robin(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                      struct err *err)
{
    int rc = balance_table_carve(in, out, mem, err);
    for (int layer = 0; rc == 0 && layer < in->n_layer; layer++) {
        int32_t *row = balance_row(out, layer);
        int expert = 0;
        for (int turn = 0; expert < in->n_expert; turn++)
            for (int w = 0; w < in->n_worker && expert < in->n_expert; w++)
                if (out->begin[w] + turn < out->begin[w + 1])
                    row[out->begin[w] + turn] = expert++;
    }
    return rc;
}
