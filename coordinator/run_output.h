/* run_output: what a run writes while and after it generates: streamed text, logits, and the
 * summary for a person or for a program. */
#ifndef COORDINATOR_RUN_OUTPUT_H
#define COORDINATOR_RUN_OUTPUT_H

#include "base/clock.h"
#include "base/hash.h"
#include "coordinator/engine.h"
#include "coordinator/prompts.h"
#include "coordinator/run_options.h"
#include "model/tokenizer.h"
#include <stdio.h>

struct run_seq {
    struct run_output *out;
    int index, n_prompt;
    int32_t *token; /* generated, [max_tokens] */
    int n_token;
    enum finish finish;
    int done;
    const char *domain; /* NULL in models without domains */
    double *score;      /* [n_domain] when the domain was found out; else NULL */
    int64_t first_ns, last_ns;
    struct hash128 last_logits;
    FILE *logits;        /* a temporary file, when logits are dumped */
    struct detok *detok; /* when text is streamed */
    int failed;          /* a write failed */
    struct err err;
};

struct run_output {
    const struct run_options *options;
    const struct model_desc *desc;
    const struct tokenizer *tok; /* NULL: ids are printed */
    const struct clock *clock;
    struct run_seq *seq; /* [n] */
    int n, n_done;
    int n_token, n_begun; /* tokens of all; sequences that have one */
    int n_token_begun;    /* n_token when the last of them had begun */
    int64_t start_ns, end_ns;
};

int run_output_init(struct run_output *o, const struct run_options *options,
                    const struct model_desc *desc, const struct tokenizer *tok,
                    const struct clock *clock, const struct prompts *p, struct err *err);
void run_output_fini(struct run_output *o);
/* run_request fills the callbacks of prompt i's request. */
void run_request(struct run_output *o, int i, const struct prompts *p, struct request *request);

/* What the summary needs beside the sequences. */
struct run_facts {
    const struct model *model;
    const struct kernels *kernels;
    const char *numerics;
    struct engine_stats engine;
    struct pool_stats pool;
    uint64_t bytes_sent, bytes_received;
    int n_worker;
    int64_t load_ns;
};
/* run_output_end writes the logits file, then text and summary or the JSON object. */
int run_output_end(struct run_output *o, const struct run_facts *facts, struct err *err);

#endif
