/* run_options: the command line of `sigmoe run` as one checked struct. */
#ifndef COORDINATOR_RUN_OPTIONS_H
#define COORDINATOR_RUN_OPTIONS_H

#include "coordinator/host.h"
#include "coordinator/sampler.h"

struct run_options {
    const char *dir;
    const char *prompt, *token_ids, *token_ids_file;
    const char *dump_logits;
    const char *domain; /* NULL: auto */
    int json, ignore_eos, max_tokens;
    struct sampling sampling;
    struct host_options host;
};

/* run_options_parse: 0, 1 (help was printed), or ERR_USAGE. */
int run_options_parse(int argc, char **argv, struct run_options *o, struct err *err);

#endif
