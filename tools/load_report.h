/* load_report: what a load-test says. Each run (one strategy, one load, one seed) becomes a JSON
 * object; a report is a file of runs (docs/LOADTEST.md, version 1), which becomes a table on a
 * terminal or one HTML page. Simulated and live runs make the same report. */
#ifndef TOOLS_LOAD_REPORT_H
#define TOOLS_LOAD_REPORT_H

#include "base/err.h"
#include "tools/load_result.h"

#include <jansson.h>
#include <stdio.h>

#define REPORT_VERSION 1

struct slo {
    double ttft_ms, tpot_ms; /* 0: no bound */
};

/* What was run. */
struct run_label {
    const char *route, *placement, *replica; /* NULL: not known (live) */
    int changes_output;                      /* the routing strategy is an experiment */
    double rate;                             /* requests a second offered */
    uint64_t seed;
};

/* What one run comes to. */
struct run_figures {
    int n_counted, n_ok, n_rejected, n_unfinished, n_failed; /* due after the warm-up */
    int n_good;                                              /* of them within the SLO */
    double offered_per_s, ok_per_s, good_per_s, tokens_per_s;
    struct summary ttft_ms, tpot_ms, gap_ms, total_ms;
    double balancedness; /* mean / max of the workers' slots, over all dispatches; 1 is even */
    double busy_mean, busy_max;
};
/* run_figures_make sorts r->gap_ms. TPOT of a request: from its first to its last token, over its
 * tokens less one. */
int run_figures_make(struct load_result *r, const struct slo *slo, struct run_figures *out,
                     struct err *err);

/* report_create: an empty report of a kind ("simulate", "live"). settings is taken over. */
json_t *report_create(const char *kind, const char *title, const struct slo *slo, json_t *settings);
/* report_add appends a run. detail: with its slices, workers and heat map (large). */
int report_add(json_t *report, const struct run_label *label, struct load_result *r, int detail,
               struct err *err);
/* report_table: one line a label and rate, means over seeds with half a confidence interval. */
void report_table(const json_t *report, FILE *out);
/* report_write_json, report_write_html: path "-" is stdout. */
int report_write_json(const json_t *report, const char *path, struct err *err);
int report_write_html(const json_t *report, const char *path, struct err *err);
/* report_read: a report of this version with runs that have what tables and comparisons use. */
int report_read(const char *path, json_t **out, struct err *err);

/* A number of a run by a path of keys joined by '.', such as "latency_ms.ttft.p95"; NAN when it is
 * not there. */
double run_number(const json_t *run, const char *path);
/* run_name: "route / placement / replica" of a run, or its label. */
const char *run_name(const json_t *run);

#endif
