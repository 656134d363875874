/* sampler: from one row of logits to a token. A pure function of the logits, the parameters and
 * (seed, choice, position): the same request gives the same text in any batch. Order of steps, as
 * vLLM has it: penalties, logit bias, temperature, min-p, top-k, top-p, draw. */
#ifndef COORDINATOR_SAMPLER_H
#define COORDINATOR_SAMPLER_H

#include <stdint.h>

struct logit_bias {
    int32_t token;
    float bias;
};

struct sampling {
    float temperature;        /* 0: greedy */
    int top_k;                /* 0: off */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off; relative to the likeliest token (arXiv 2407.01082) */
    float repetition_penalty; /* 1: off; over prompt and output (CTRL, arXiv 1909.05858) */
    float presence_penalty, frequency_penalty; /* 0: off; over the output */
    uint64_t seed;
    const struct logit_bias *bias; /* [n_bias] */
    int n_bias;
};

#define SAMPLING_DEFAULT                                                                           \
    {                                                                                              \
        .temperature = 0.0f, .top_p = 1.0f, .repetition_penalty = 1.0f                             \
    }

/* What a penalty looks at: how often each token has occurred. Either may be NULL (no occurrences).
 */
struct sample_history {
    const uint16_t *n_prompt; /* [vocab] */
    const uint16_t *n_output; /* [vocab] */
};

/* sampling_needs_history: whether any penalty is on. */
int sampling_needs_history(const struct sampling *s);

/* sample picks a token. logits [vocab] are changed in place by penalties and bias. choice and
 * position make the draw (rng_uniform(seed, choice, position)). scratch: [vocab] of
 * struct sample_candidate. Ties go to the lower id. NaN logits never win; if all are NaN, token 0.
 */
struct sample_candidate {
    float logit;
    int32_t token;
};
int32_t sample(const struct sampling *s, const struct sample_history *history, float *logits,
               int vocab, uint64_t choice, uint64_t position, struct sample_candidate *scratch);

/* sample_logprob: log softmax of token in logits [vocab] (double sum, ascending order). */
double sample_logprob(const float *logits, int vocab, int32_t token);

#endif
