/* api_counts: what the HTTP side counts of itself, on the loop's thread: histograms and counters
 * that /metrics prints. */
#ifndef COORDINATOR_API_COUNTS_H
#define COORDINATOR_API_COUNTS_H

#include "coordinator/seq.h"
#include <stdint.h>

#define HISTOGRAM_MAX 24

/* bucket[i] counts values up to first * factor^i; the last one all others. */
struct histogram {
    double first, factor;
    int n; /* buckets with a bound, at most HISTOGRAM_MAX - 1 */
    uint64_t bucket[HISTOGRAM_MAX], count;
    double sum;
};
void histogram_add(struct histogram *h, double value);

struct api_counts {
    uint64_t refused; /* requests that were answered with an error before they began */
    uint64_t finished[FINISH_ERROR + 1]; /* choices, by reason */
    int running;                         /* jobs */
    uint64_t status[600];                /* responses, by status */
    struct histogram ttft, inter_token, duration, queue, prompt_tokens, generated_tokens;
};
void api_counts_init(struct api_counts *c);

#endif
