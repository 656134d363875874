/* plan_loads: what a planner knows of traffic: how many slots chose each expert, for a window of a
 * recording, and the same by domain. Anything that `sigmoe trace convert` reads will do. */
#ifndef TOOLS_PLAN_LOADS_H
#define TOOLS_PLAN_LOADS_H

#include "router/routes.h"

struct plan_loads {
    struct routes_reader *reader; /* NULL: no recording */
    int n_layer, n_expert, top_k;
    int32_t layer[LIMIT_LAYERS]; /* [n_layer] of the model */
    int n_domain;
    double *load;        /* [n_layer, n_expert] of the window asked for */
    double *domain_load; /* [n_domain, n_layer, n_expert], or NULL */
    int64_t n_token;     /* in that window; 0: no recording, loads are made up even */
};

/* plan_loads_open reads the recording at `path` (loads->reader and the shape). A window is
 * "[LABEL][@FIRST-[END]]": tokens of that label, of them those from FIRST up to before END.
 * plan_loads_sum adds a window's slots into load [n_layer, n_expert] (zeroed by the callee) and
 * says how many tokens it has; an empty one is refused. domain >= 0: only runs of that domain,
 * whatever the window's label. */
int plan_loads_open(struct plan_loads *loads, const char *path, struct err *err);
int plan_loads_sum(struct plan_loads *loads, const char *window, int domain, double *load,
                   int64_t *n_token, struct err *err);
void plan_loads_close(struct plan_loads *loads);

#endif
