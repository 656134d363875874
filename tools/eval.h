/* eval: how well a model predicts a text. Inside the tool only: a text as a stream of tokens
 * (eval_text.c), the score of such a stream (eval_score.c), the two reports (eval.c perplexity,
 * eval_matrix.c). The engine computes everything: what is measured is what serves. */
#ifndef TOOLS_EVAL_H
#define TOOLS_EVAL_H

#include "base/report.h"
#include "coordinator/host.h"
#include <stdio.h>

/* ---- a text ---- */

/* A file read in pieces of at most EVAL_PIECE_BYTES, each cut where a line ends (else where a
 * character does) and turned into tokens by itself, so that a text of any size needs the memory of
 * one piece. */
#define EVAL_PIECE_BYTES ((size_t)1 << 18)

struct eval_text {
    const char *path;
    FILE *file;
    struct tokenizer *tok;
    char *piece; /* [EVAL_PIECE_BYTES] */
    size_t n;    /* bytes in it */
    uint64_t n_byte, bytes_left, bytes_total;
};

/* eval_text_open: bytes_max 0: the whole file. */
int eval_text_open(struct eval_text *t, const char *path, struct tokenizer *tok, uint64_t bytes_max,
                   struct err *err);
/* eval_text_more appends the tokens of the next piece to ids: 1, or 0 at the end, or negative. */
int eval_text_more(struct eval_text *t, struct tok_ids *ids, struct err *err);
void eval_text_close(struct eval_text *t);

/* ---- its score ---- */

struct eval_sum {
    double nll;       /* minus the log-likelihood, in nats */
    uint64_t n_token; /* that were predicted */
    uint64_t n_byte;  /* that they stand for */
};

/* A window of `window` tokens moves over the text by `stride`; each token is predicted once, in the
 * first window that reaches it, so it has at least window - stride tokens of context but at the
 * text's beginning. A start token leads every window where the tokenizer would put one; where it
 * does not, the first token is context only. */
struct eval_windows {
    int window, stride;
};
/* eval_windows_check fills in what is 0 (window: the context, at most 1024; stride: half of it). */
int eval_windows_check(struct eval_windows *w, const struct model_desc *desc, struct err *err);

/* eval_score scores the text under each of domain[n_domain] (any value in a model without domains)
 * and fills sum [n_domain]. A text too short to predict anything is ERR_USAGE. */
int eval_score(struct host *h, struct eval_text *t, const struct eval_windows *w, const int *domain,
               int n_domain, struct eval_sum *sum, struct err *err);
/* eval_kv_tokens: positions the KV cache needs for it. */
int eval_kv_tokens(const struct eval_windows *w, int n_domain);

double eval_per_token(const struct eval_sum *sum); /* perplexity */
double eval_per_byte(const struct eval_sum *sum);

/* eval_detect cuts the text into prompts of n_prompt tokens, asks for the domain of each, and
 * counts how often each was found: found [n_domain]. At most n_max prompts, spread over the
 * beginning. */
int eval_detect(struct host *h, struct eval_text *t, int n_prompt, int n_max, uint64_t *found,
                struct err *err);

/* ---- submodels ---- */

struct eval_submodels {
    const struct model *full;
    const struct host_options *options;
    const char *folder; /* submodels lie in it, each under its domain's name */
    const struct eval_windows *windows;
    uint64_t bytes_max;
    struct {
        const char *path;
        struct eval_sum *sum; /* [n_domain], filled */
    } text[OPT_STRS_MAX];
    int n_text;
};
/* eval_submodels_score scores each text under each domain's submodel. Those that are missing are
 * extracted and stay. ERR_MODEL when one is of another model. */
int eval_submodels_score(const struct eval_submodels *s, struct err *err);

/* ---- the reports ---- */

int eval_perplexity(int argc, char **argv);
int eval_matrix(int argc, char **argv);

#endif
