/* seq: see seq.h. */
#include "coordinator/seq.h"

#include "model/desc.h"
#include <stdlib.h>
#include <string.h>

const char *finish_name(enum finish f)
{
    static const char *const name[] = {"stop", "length", "abort", "error"};
    return name[f];
}

int request_check(const struct request *request, const struct model_desc *desc, struct err *err)
{
    if (request->n_prompt < 1 || request->max_tokens < 0) {
        return err_set(err, ERR_USAGE, "a prompt needs at least one token");
    }
    int64_t total = (int64_t)request->n_prompt + request->max_tokens;
    /* The last token that is generated takes no position: it is never fed back. */
    if (total - (request->max_tokens > 0) > desc->max_context) {
        return err_set(err, ERR_LIMIT,
                       "a prompt of %d tokens with up to %d more is past the model's context of %d",
                       request->n_prompt, request->max_tokens, desc->max_context);
    }
    if (desc->n_domain > 0 &&
        (request->domain < DOMAIN_AUTO || request->domain >= desc->n_domain)) {
        return err_set(err, ERR_USAGE, "there is no domain %d, the model has %d", request->domain,
                       desc->n_domain);
    }
    if (request->domain_from < 0 || request->domain_from >= request->n_prompt) {
        return err_set(err, ERR_USAGE, "a domain cannot be found out from token %d of %d",
                       request->domain_from, request->n_prompt);
    }
    for (int i = 0; i < request->n_prompt; i++) {
        if (request->prompt[i] < 0 || request->prompt[i] >= desc->vocab) {
            return err_set(err, ERR_USAGE, "token id %d at %d is outside the vocabulary of %d",
                           request->prompt[i], i, desc->vocab);
        }
    }
    return 0;
}

static int counts_create(struct seq *seq, int vocab)
{
    seq->n_in_prompt = calloc((size_t)vocab, sizeof *seq->n_in_prompt);
    seq->n_in_output = calloc((size_t)vocab, sizeof *seq->n_in_output);
    if (seq->n_in_prompt == NULL || seq->n_in_output == NULL) {
        return -1;
    }
    for (int i = 0; i < seq->n_prompt; i++) {
        uint16_t *n = &seq->n_in_prompt[seq->token[i]];
        *n = (uint16_t)(*n + (*n < UINT16_MAX));
    }
    return 0;
}

struct seq *seq_create(const struct request *request, uint64_t id, int vocab)
{
    struct seq *seq = calloc(1, sizeof *seq);
    if (seq == NULL) {
        return NULL;
    }
    seq->id = id;
    seq->request = *request;
    seq->n_prompt = seq->n_token = request->n_prompt;
    size_t n = (size_t)request->n_prompt + (size_t)request->max_tokens;
    seq->token = malloc((n + 1) * sizeof *seq->token);
    int n_bias = request->sampling.n_bias;
    seq->bias = n_bias > 0 ? malloc((size_t)n_bias * sizeof *seq->bias) : NULL;
    if (seq->token == NULL || (n_bias > 0 && seq->bias == NULL)) {
        seq_destroy(seq);
        return NULL;
    }
    memcpy(seq->token, request->prompt, (size_t)seq->n_prompt * sizeof *seq->token);
    if (n_bias > 0) {
        memcpy(seq->bias, request->sampling.bias, (size_t)n_bias * sizeof *seq->bias);
    }
    seq->request.sampling.bias = seq->bias;
    seq->request.prompt = seq->token;
    if (sampling_needs_history(&request->sampling) && counts_create(seq, vocab) != 0) {
        seq_destroy(seq);
        return NULL;
    }
    return seq;
}

void seq_destroy(struct seq *seq)
{
    if (seq == NULL) {
        return;
    }
    free(seq->token);
    free(seq->bias);
    free(seq->page);
    free(seq->n_in_prompt);
    free(seq->n_in_output);
    free(seq);
}

void seq_append(struct seq *seq, int32_t token)
{
    seq->token[seq->n_token++] = token;
    if (seq->n_in_output != NULL && seq->n_in_output[token] < UINT16_MAX) {
        seq->n_in_output[token]++;
    }
}

int seq_positions(const struct seq *seq)
{
    /* The last generated token is never fed back. */
    int n = seq->n_prompt + seq->request.max_tokens;
    return seq->request.max_tokens > 0 ? n - 1 : n;
}
