/* route_model: what the model itself chooses: from logits by its gate, or, where only the outcome
 * is known, the slots of a trace as they are. */
#include "router/route.h"

#include <string.h>

/* check_table: what gate_select takes for granted of tokens and domains. */
static int check_table(const struct route_input *in, struct err *err)
{
    const struct gate_spec *gate = in->gate;
    int n_domain = gate->n_domain > 0 ? gate->n_domain : 1;
    int rc = route_need(in->token, "model", "token ids", err);
    if (rc == 0 && n_domain > 1)
        rc = route_need(in->domain, "model", "a domain for each row", err);
    for (int row = 0; rc == 0 && row < in->n_row; row++) {
        int domain = gate->n_domain > 0 && in->domain ? in->domain[row] : 0;
        if (in->token[row] < 0 || in->token[row] >= gate->n_table || domain < 0 ||
            domain >= n_domain)
            rc = err_set(err, ERR_USAGE,
                         "row %d: token %d of domain %d is not in the table of %d x %d", row,
                         in->token[row], domain, n_domain, gate->n_table);
    }
    return rc;
}

static int by_gate(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                   struct arena *mem, struct err *err)
{
    const struct gate_spec *gate = in->gate;
    if (gate->n_expert != in->n_expert || gate->top_k != in->top_k)
        return err_set(err, ERR_USAGE, "the gate chooses %d of %d experts, not %d of %d",
                       gate->top_k, gate->n_expert, in->top_k, in->n_expert);
    int rc = gate_check(gate, err);
    if (rc == 0 && gate->kind == GATE_TABLE)
        rc = check_table(in, err);
    if (rc)
        return rc;
    float *scratch = arena_alloc(mem, (size_t)in->n_expert * 2 * sizeof(float));
    int32_t *zero = arena_zalloc(mem, (size_t)in->n_row * sizeof(*zero));
    if (!scratch || !zero)
        return route_no_memory(in, err);
    gate_select(gate, in->logits, in->token, in->domain ? in->domain : zero, in->n_row, slot_expert,
                slot_weight, scratch);
    return 0;
}

int route_model(const struct route_input *in, int32_t *slot_expert, float *slot_weight,
                struct route_stats *stats, struct arena *mem, struct err *err)
{
    (void)stats;
    size_t n = (size_t)in->n_row * (size_t)in->top_k;
    if (in->gate && (in->logits || in->gate->kind == GATE_TABLE))
        return by_gate(in, slot_expert, slot_weight, mem, err);
    int rc = route_need(in->gate_expert, "model", "router logits or a trace", err);
    if (rc)
        return rc;
    memcpy(slot_expert, in->gate_expert, n * sizeof(*slot_expert));
    route_weights(in, slot_weight);
    return 0;
}
