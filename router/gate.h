/* gate: from router logits to slots. Pure functions of a row: no state, no clock, no memory. A slot
 * is one (token, k): an expert id and a weight. Slots are ordered by selection score, descending,
 * ties by the lower expert id, so that "slot order", in which the coordinator sums, is defined by
 * the token alone. */
#ifndef ROUTER_GATE_H
#define ROUTER_GATE_H

#include "base/err.h"
#include "model/desc.h"
#include <stdint.h>

struct gate_spec {
    enum gate_kind kind;
    int n_expert, top_k;
    int normalise;           /* divide the slots' weights by their sum */
    float scale;             /* then times this */
    int n_group, topk_group; /* group-limited choice; 0 or 1: no groups */
    const float *bias;       /* [n_expert] selection bias, or NULL */
    const uint16_t *table;   /* GATE_TABLE: [n_domain, n_table, top_k] experts within a group */
    int n_table;             /* vocab of the table */
    int n_domain;            /* rows of the table; 0 is one row whose group is all experts */
    const struct domain_desc *domain; /* [n_domain] the groups */
};

/* gate_spec_from fills a spec from a description, which must outlive it, without bias and table:
 * the caller, who owns their memory, sets them afterwards. */
void gate_spec_from(struct gate_spec *spec, const struct model_desc *desc);
/* gate_check refuses a spec whose numbers cannot work (top_k > n_expert, groups that do not divide,
 * table ids out of range, a bias or groups on a gate that has none). gate_select relies on it. */
int gate_check(const struct gate_spec *spec, struct err *err);

/* gate_select: logits [n_row, n_expert] (not used by GATE_TABLE, may be NULL there), token [n_row]
 * and domain [n_row] (GATE_TABLE only; domain not where there are none) -> slot_expert, slot_weight
 * [n_row, top_k]. scratch: [n_expert * 2] floats. Formulas: SOFTMAX_TOPK  p = softmax(z); T =
 * topk(p); w = p_T            (Mixtral, OLMoE, Qwen-MoE) TOPK_SOFTMAX  T = topk(z); w =
 * softmax(z_T)                   (gpt-oss, Granite) SIGMOID       s = sigmoid(z); c = s + bias; a
 * group's score is the sum of its two best c; only the topk_group best groups compete; T = topk(c);
 * w = s_T   (DeepSeek-V3, GLM-4.5) TABLE         T = first expert of the domain's group +
 * table[domain, token]; w = 1 / top_k   (random routed experts; without domains: hash layers,
 * DeepSeek-V4's first layers) then, if normalise, w /= sum(w) (+ 1e-20 for SIGMOID, as published
 * code has it); then w *= scale. */
void gate_select(const struct gate_spec *spec, const float *logits, const int32_t *token,
                 const int32_t *domain, int n_row, int32_t *slot_expert, float *slot_weight,
                 float *scratch);

#endif
