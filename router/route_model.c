/* route_model: what the model itself chooses: from logits by its gate, or, where only the outcome
 * is known, the slots of a trace as they are. */
#include "router/route.h"

#include <string.h>

int route_model(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats;
    size_t n = (size_t)in->n_row * (size_t)in->top_k;
    if (in->gate && (in->logits || (in->gate->kind == GATE_TABLE && in->token))) {
        float *scratch = arena_alloc(mem, (size_t)in->n_expert * 2 * sizeof(float));
        if (in->gate->n_expert != in->n_expert || in->gate->top_k != in->top_k)
            return err_set(err, ERR_USAGE, "the gate chooses %d of %d experts, not %d of %d",
                           in->gate->top_k, in->gate->n_expert, in->top_k, in->n_expert);
        if (!scratch)
            return route_no_memory(in, err);
        int rc = gate_check(in->gate, err);
        if (rc == 0)
            gate_select(in->gate, in->logits, in->token, in->n_row, slot_expert, slot_weight,
                        scratch);
        return rc;
    }
    int rc = route_need(in->gate_expert, "model", "router logits or a trace", err);
    if (rc)
        return rc;
    memcpy(slot_expert, in->gate_expert, n * sizeof(*slot_expert));
    route_weights(in, slot_weight);
    return 0;
}
