/* plan: `sigmoe plan` in parts: what is to be placed (the model, its loads, the workers), the table
 * that a strategy makes of it, what moving there costs, and how that is shown and written. */
#ifndef TOOLS_PLAN_H
#define TOOLS_PLAN_H

#include "base/opt.h"
#include "model/desc.h"
#include "model/weights.h"
#include "router/balance.h"
#include "router/strategy.h"
#include "tools/plan_loads.h"

#include <jansson.h>
#include <stdio.h>

#define PLAN_NAME_MAX 128

struct plan_worker {
    char name[PLAN_NAME_MAX], host[PLAN_NAME_MAX];
};

/* What the command line says. */
struct plan_ask {
    const char *model, *loads, *window, *place, *redundant, *precision, *hosts, *workers_file;
    const char *current, *out;
    struct opt_strs worker, against;
    int64_t n_worker, n_host, n_group, step_rows, expert_bytes;
    double horizon_tokens, load_rate, row_us, slowdown;
    int json;
};

/* Imbalance of one window of traffic, before and after. */
struct plan_figures {
    const char *window; /* as it was asked for; "" all */
    int64_t n_token;
    double before, before_worst, after, after_worst; /* mean over layers, worst layer */
    double *excess_before, *excess_after;            /* [n_layer] */
};

struct plan_job {
    struct plan_ask ask;
    struct model_desc desc; /* n_expert 0: no model was named */
    const struct strategy *strategy;
    struct plan_loads loads;
    int n_layer_model; /* layers of the model, for the placement file */
    struct balance_worker *worker;
    struct plan_worker *named; /* [in.n_worker] */
    struct balance_input in;
    struct arena mem;
    struct balance_table table, before;
    const char *before_name; /* "contiguous", or the file of the placement in use */
    int has_current;
    int64_t current_epoch;
    struct balance_cost cost;
    struct balance_moves moves;
    uint8_t *refused; /* [n_layer] */
    struct plan_figures *figures;
    int n_figures;
};

/* plan_workers_read fills job->worker and job->named from --worker, --workers-file or --workers. */
int plan_workers_read(struct plan_job *job, struct err *err);
/* plan_current_read: the placement in use, as a table with the slots that the workers have. */
int plan_current_read(struct plan_job *job, struct err *err);
/* plan_file_write: the table as a placement file (router/placement.h). */
int plan_file_write(const struct plan_job *job, const char *path, struct err *err);
/* plan_bytes: of experts that worker w holds in a table, all layers. */
uint64_t plan_bytes(const struct plan_job *job, const struct balance_table *table, int w);
void plan_print(const struct plan_job *job);
int plan_print_json(const struct plan_job *job, struct err *err);

#endif
