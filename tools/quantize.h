/* quantize: what quantize.c (command, writing) and quantize_config.c (config, report) share. */
#ifndef TOOLS_QUANTIZE_H
#define TOOLS_QUANTIZE_H

#include "model/quant.h"
#include "model/weights.h"
#include "tools/copy.h"

/* The classes that are quantised by themselves, in the order of the report. */
enum quantize_class { CLASS_EXPERTS, CLASS_DENSE, CLASS_HEAD, CLASS_COUNT };

/* What was lost in a class: sums over its elements. */
struct quantize_loss {
    double error, energy; /* of squares */
    uint64_t n_element, bytes_before, bytes_after;
};

struct quantize {
    const char *in, *out, *experts, *dense, *head, *text, *activations;
    int64_t shard_bytes;
    int json;
    struct quant_kind kind[CLASS_COUNT];
    struct model *model;
    struct copy copy;
    struct quantize_loss loss[CLASS_COUNT];
    float *row; /* scratch of the widest row */
    int8_t *q;
    uint16_t *scale;
    uint32_t *word;
    double perplexity[2];              /* before, after; 0: not measured */
    int (*finish)(struct quantize *z); /* writes more files beside the weights; or NULL */
    struct err *err;
};

/* quantize_kind reads "int8", "int4", "int4:128" or "none" of an option. */
int quantize_kind(const char *option, const char *text, struct quant_kind *out, struct err *err);
/* quantize_run makes z->out from z->in, kinds, shard_bytes, finish and err given; fills loss.
 * Nothing is left of z->out on failure. z->model stays open for the reports: the caller's to close.
 */
int quantize_run(struct quantize *z);

/* quantize_class_of: CLASS_COUNT where a role is never quantised. */
enum quantize_class quantize_class_of(const struct quantize *z, enum role role);
/* quantize_config writes config.json: the source's, with a quantization_config. */
int quantize_config(struct quantize *z);
/* quantize_report prints what was lost, as a table or as JSON. */
void quantize_report(const struct quantize *z);
/* quantize_perplexity measures the two models on the text. */
int quantize_perplexity(struct quantize *z);

#endif
