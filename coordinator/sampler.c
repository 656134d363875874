/* sampler: see sampler.h. Candidates are drawn from a heap, largest first, so that top-k and top-p
 * cost O(vocab + taken log vocab) and never sort the whole vocabulary. */
#include "coordinator/sampler.h"

#include "base/rng.h"
#include <math.h>
#include <stddef.h>

int sampling_needs_history(const struct sampling *s)
{
    return s->repetition_penalty != 1.0f || s->presence_penalty != 0.0f ||
           s->frequency_penalty != 0.0f;
}

static void apply_penalties(const struct sampling *s, const struct sample_history *h, float *logits,
                            int vocab)
{
    for (int i = 0; i < vocab; i++) {
        int in_output = h->n_output != NULL ? h->n_output[i] : 0;
        int in_prompt = h->n_prompt != NULL ? h->n_prompt[i] : 0;
        if (in_output + in_prompt == 0) {
            continue;
        }
        logits[i] = logits[i] > 0.0f ? logits[i] / s->repetition_penalty
                                     : logits[i] * s->repetition_penalty;
        if (in_output > 0) {
            logits[i] -= s->presence_penalty + s->frequency_penalty * (float)in_output;
        }
    }
}

static int32_t argmax(const float *logits, int vocab)
{
    int best = -1;
    for (int i = 0; i < vocab; i++) {
        if (!isnan(logits[i]) && (best < 0 || logits[i] > logits[best])) {
            best = i;
        }
    }
    return best < 0 ? 0 : best;
}

/* Heap order: larger logit first, then lower id. */
static int before(const struct sample_candidate *a, const struct sample_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

static void sift_down(struct sample_candidate *heap, int n, int i)
{
    struct sample_candidate moving = heap[i];
    for (;;) {
        int child = 2 * i + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && before(&heap[child + 1], &heap[child])) {
            child++;
        }
        if (!before(&heap[child], &moving)) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

/* Moves the largest of heap [n] behind the heap's new end and returns n - 1. */
static int heap_pop(struct sample_candidate *heap, int n)
{
    struct sample_candidate top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    if (n > 2) {
        sift_down(heap, n - 1, 0);
    }
    return n - 1;
}

/* Fills scratch with the candidates that survive min-p; returns how many. */
static int gather(const struct sampling *s, const float *logits, int vocab, float top,
                  struct sample_candidate *scratch)
{
    float floor_logit = s->min_p > 0.0f ? top + s->temperature * logf(s->min_p) : -INFINITY;
    int n = 0;
    for (int i = 0; i < vocab; i++) {
        if (logits[i] >= floor_logit && logits[i] > -INFINITY) {
            scratch[n].logit = logits[i];
            scratch[n++].token = i;
        }
    }
    return n;
}

static double weight_of(float logit, float top, float temperature)
{
    return exp(((double)logit - (double)top) / (double)temperature);
}

int32_t sample(const struct sampling *s, const struct sample_history *history, float *logits,
               int vocab, uint64_t choice, uint64_t position, struct sample_candidate *scratch)
{
    if (history != NULL && sampling_needs_history(s)) {
        apply_penalties(s, history, logits, vocab);
    }
    for (int i = 0; i < s->n_bias; i++) {
        if (s->bias[i].token >= 0 && s->bias[i].token < vocab) {
            logits[s->bias[i].token] += s->bias[i].bias;
        }
    }
    int32_t best = argmax(logits, vocab);
    float top = logits[best];
    if (s->temperature <= 0.0f || s->top_k == 1 || isnan(top) || isinf(top)) {
        return best;
    }
    int n = gather(s, logits, vocab, top, scratch);
    int limited = (s->top_k > 0 && s->top_k < n) || s->top_p < 1.0f;
    double total = 0.0, taken_sum = 0.0;
    for (int i = 0; i < n; i++) {
        total += weight_of(scratch[i].logit, top, s->temperature);
    }
    double draw = rng_uniform(s->seed, choice, position);
    if (!limited) {
        double target = draw * total;
        for (int i = 0; i < n; i++) {
            taken_sum += weight_of(scratch[i].logit, top, s->temperature);
            if (taken_sum > target) {
                return scratch[i].token;
            }
        }
        return best;
    }
    for (int i = n / 2 - 1; i >= 0; i--) {
        sift_down(scratch, n, i);
    }
    /* top-p counts over what top-k leaves, so top-k's own sum comes first. */
    int k = s->top_k > 0 && s->top_k < n ? s->top_k : n, heap = n, taken = 0;
    if (k < n) {
        for (; taken < k; taken++) {
            heap = heap_pop(scratch, heap);
            taken_sum += weight_of(scratch[heap].logit, top, s->temperature);
        }
        total = taken_sum;
    }
    double kept_sum = 0.0;
    int kept = 0;
    for (; kept < k && (kept == 0 || kept_sum < (double)s->top_p * total); kept++) {
        if (kept >= taken) {
            heap = heap_pop(scratch, heap);
            taken++;
        }
        kept_sum += weight_of(scratch[n - 1 - kept].logit, top, s->temperature);
    }
    double target = draw * kept_sum, sum = 0.0;
    for (int i = 0; i < kept; i++) {
        sum += weight_of(scratch[n - 1 - i].logit, top, s->temperature);
        if (sum > target) {
            return scratch[n - 1 - i].token;
        }
    }
    return best;
}

double sample_logprob(const float *logits, int vocab, int32_t token)
{
    float top = logits[argmax(logits, vocab)];
    double sum = 0.0;
    for (int i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - (double)top);
    }
    return (double)logits[token] - (double)top - log(sum);
}
