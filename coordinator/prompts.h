/* prompts: what a run is asked to continue: lists of token ids, from the command line, a file, or
 * text through the model's tokenizer. */
#ifndef COORDINATOR_PROMPTS_H
#define COORDINATOR_PROMPTS_H

#include "base/err.h"
#include "model/desc.h"
#include "model/tokenizer.h"
#include <stdint.h>

struct prompts {
    int n;
    struct prompt {
        int32_t *id;
        int n;
        int domain; /* index or DOMAIN_AUTO */
    } * at;
};

int prompts_from_ids(struct prompts *p, const char *list, struct err *err);
/* prompts_from_file: one list a line; empty lines are an error, in words with the line number. */
int prompts_from_file(struct prompts *p, const char *path, struct err *err);
int prompts_from_text(struct prompts *p, struct tokenizer *tok, const char *text, struct err *err);
/* prompts_domains gives every prompt its domain: `list` is one name (or auto) for all, or one a
 * prompt as zh,en,auto; NULL: auto. */
int prompts_domains(struct prompts *p, const struct model_desc *desc, const char *list,
                    struct err *err);
void prompts_fini(struct prompts *p);

#endif
