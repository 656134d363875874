/* route: which experts the simulated rows choose. The choice is that of a routing strategy of
 * router/strategy.h, fed with what stands in for the model: nothing (synthetic strategies draw by
 * themselves) or a recorded trace (a sequence walks through consecutive tokens of its domain). */
#ifndef TOOLS_SIM_ROUTE_H
#define TOOLS_SIM_ROUTE_H

#include "base/err.h"
#include "model/desc.h"
#include "router/strategy.h"
#include <stdint.h>

struct route_row {
    uint64_t seq;
    int32_t pos, domain;
};

struct route_config {
    const struct model_desc *desc;
    const struct strategy *strategy; /* STRATEGY_ROUTE */
    const char *trace;               /* file, or NULL */
    double zipf_exponent, hot_share, capacity_factor;
    int n_hot, n_domain;
    double domain_share; /* part of the rows that follow their domain's own draw of hot experts */
    int rows_max;
    uint64_t seed;
};

struct route_source;
/* route_source_create reads the whole trace. ERR_USAGE when the strategy needs what is not there,
 * ERR_MODEL when the trace is of another number of experts. */
int route_source_create(const struct route_config *config, struct route_source **out,
                        struct err *err);
void route_source_destroy(struct route_source *s);
/* route_fill: slot_expert [n_row, top_k] of one layer; negative: an empty slot. */
int route_fill(struct route_source *s, int layer, const struct route_row *row, int n_row,
               int32_t *slot_expert, struct route_stats *stats, struct err *err);
/* route_domains: names of the trace's domains; 0: no trace, or none named. */
int route_domains(const struct route_source *s);
const char *route_domain_name(const struct route_source *s, int domain);
/* route_load: the expected load [n_layer, n_expert] of rows of `domain` (-1: all, evenly), for a
 * placement to be planned from: the trace's counts, or those of n_row sampled rows. */
int route_load(struct route_source *s, int domain, int n_row, double *load, struct err *err);

#endif
