/* experiment: another way to route than the model's own gate, while the cluster serves: the very
 * strategies that the load-tester compares (router/strategy.h), so that a simulated load can be put
 * on live workers. The model then says nothing of worth, and every place that reports says so.
 *
 * Draws go by a row's token and position, not by its place in a batch, so that with strategies that
 * look at one row at a time the same request still has the same bits alone, in a batch and on any
 * number of workers. */
#ifndef COORDINATOR_EXPERIMENT_H
#define COORDINATOR_EXPERIMENT_H

#include "model/desc.h"
#include "router/strategy.h"

struct experiment;
/* experiment_create reads "NAME[,key=value...]" for steps of at most rows_max rows: zipf=1.1,
 * hot-share, hot-experts, domain-share, capacity, groups, topk-groups, seed, as router/strategy.h
 * has them. *out is NULL for "model". ERR_USAGE names what is wrong, also what this model's gate
 * cannot give the strategy. */
int experiment_create(const char *text, const struct model_desc *desc, int rows_max,
                      struct experiment **out, struct err *err);
void experiment_destroy(struct experiment *x);
const char *experiment_text(const struct experiment *x); /* as it was given */

/* The rows of a micro-batch whose slots the gate has chosen. */
struct experiment_rows {
    int n_row, layer;
    const float *logits;                 /* [n_row, n_expert], or NULL where the gate has none */
    const int32_t *token, *pos, *domain; /* [n_row]; domain NULL: none */
};
/* experiment_route writes over slot_expert, slot_weight [n_row, top_k]. */
void experiment_route(struct experiment *x, const struct experiment_rows *rows,
                      int32_t *slot_expert, float *slot_weight);

#endif
