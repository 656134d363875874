/* advise: how many workers of which kind, whether disaggregation pays, ping-pong on or off, how
 * many copies of hot experts: each answer with the figures behind it. Found by simulation
 * (tools/sim) of the load that is expected, on costs that were measured (sigmoe calibrate) or named
 * hardware, so that what is advised is what `sigmoe loadtest simulate` shows. Called by `sigmoe
 * plan --advise`. */
#ifndef TOOLS_ADVISE_H
#define TOOLS_ADVISE_H

#include "base/opt.h"
#include "model/desc.h"
#include "model/weights.h"

#include <jansson.h>
#include <stdio.h>

/* The options' values. */
struct advise_ask {
    const char *kinds;       /* "a.json,b.json": calibrations or names of hardware */
    const char *activations; /* "int8" or "bf16": what will serve, and calibrations must be of */
    double rate, slo_ttft_ms, slo_tpot_ms;
    int64_t prompt, output, workers_max, memory_bytes, seed;
};
#define ADVISE_OPTIONS 10
/* advise_options sets defaults and writes ADVISE_OPTIONS rows to out. */
void advise_options(struct advise_ask *ask, struct opt *out);

/* advise: trace is a routes file (docs/TRACE.md) or NULL: Zipf(1.0). *out is JSON, the caller's:
 *   {"sigmoe_advice": 1, "load": {..}, "kinds": [{..}], "sentences": [{"topic": "workers" |
 * "coordinators" | "ping-pong" | "replicas" | "disaggregation", "kind": "..", "says": "..",
 * "figures": {..}}]} ERR_USAGE when no number of workers up to workers_max carries the load within
 * the SLO: then the text says what the nearest is; and where a calibration was measured with other
 * activations than asked for (cost_load). */
int advise(const struct advise_ask *ask, const struct model_desc *desc, enum precision precision,
           const char *trace, json_t **out, struct err *err);
/* advise_print: the sentences, wrapped, topic by topic. */
void advise_print(const json_t *advice, FILE *out);

/* plan_advise: the command `sigmoe plan --advise ...`, an exit status of the program.
 * plan_advise_asked: whether these arguments are it. */
int plan_advise(int argc, char **argv);
int plan_advise_asked(int argc, char **argv);

#endif
