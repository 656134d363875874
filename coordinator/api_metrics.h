/* api_metrics: what the files that print metrics share. */
#ifndef COORDINATOR_API_METRICS_H
#define COORDINATOR_API_METRICS_H

#include "coordinator/api.h"
#include <stdio.h>

void metric_family(FILE *f, const char *name, const char *type, const char *help);
/* metric_label: a label's value: backslash, quote and line end are escaped. */
void metric_label(FILE *f, const char *text);
/* metric_histogram: model: a label model_name, or NULL for none. */
void metric_histogram(FILE *f, const char *name, const char *help, const char *model,
                      const struct histogram *h);
/* metrics_as_vllm: what vLLM counts too, by the names it has there. */
void metrics_as_vllm(FILE *f, const struct api *api, const struct engine_stats *e);

#endif
