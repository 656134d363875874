/* arrivals: when requests come, how long they are and of which domain. A list made before anything
 * runs, so that the simulator and the live load-tester offer the very same load and a seed names
 * it. */
#ifndef TOOLS_SIM_ARRIVALS_H
#define TOOLS_SIM_ARRIVALS_H

#include "base/err.h"
#include <stdint.h>

struct arrival {
    int64_t at_ns; /* from the start */
    int32_t n_prompt, n_output;
    int32_t domain;
    int32_t first_block, n_block; /* of arrivals' block[]: what its prompt begins with */
};

enum arrival_kind { ARRIVAL_POISSON, ARRIVAL_UNIFORM, ARRIVAL_BURSTS, ARRIVAL_FILE };

/* A domain mix that changes: from `at_s` on, the domains' weights are weight[n_domain]; between two
 * points they move linearly. */
#define MIX_POINTS_MAX  16
#define MIX_DOMAINS_MAX 16
struct domain_mix {
    int n_point, n_domain;
    double at_s[MIX_POINTS_MAX], weight[MIX_POINTS_MAX][MIX_DOMAINS_MAX];
};

struct arrival_spec {
    enum arrival_kind kind;
    double rate;       /* requests a second; of a file: 0: as recorded, else scaled to this */
    double burst;      /* ARRIVAL_BURSTS: rate in a burst, times the mean rate */
    double burst_s;    /* mean length of a burst */
    double burst_part; /* part of the time that is burst */
    const char *path;  /* ARRIVAL_FILE: Azure CSV or Mooncake JSON lines */
    int prompt_mean, output_mean; /* not of files */
    double length_cv;             /* standard deviation / mean of lengths, log-normal; 0: fixed */
    int prompt_max, output_max;   /* longer ones are cut; 0: no bound */
    int block_tokens;             /* of a file: tokens that a hash id stands for */
    int n_group, group_tokens; /* not of files: as many beginnings are shared, so long; 0: none */
    double duration_s;         /* arrivals in [0, duration) */
    struct domain_mix mix;     /* n_domain 0: all of domain 0 */
    uint64_t seed;
};

/* Blocks are names: where two prompts have the same one, they have the same tokens. */
struct arrivals {
    struct arrival *at; /* [n] ascending */
    int n;
    int64_t *block; /* [n_block] names; the first block_tokens tokens of a prompt are its first
                       block, and so on; tokens behind its blocks are its own */
    int n_block, block_tokens;
    int n_cut; /* of a file: requests whose lengths were cut to the bounds */
};

/* arrival_parse reads what users write: "poisson", "uniform", "bursts" or "bursts:4,2,0.1" (rate in
 * a burst over the mean, mean seconds, part of the time), or a file's path. */
int arrival_parse(const char *text, struct arrival_spec *spec, struct err *err);
/* shared_parse: "4,128": prompts begin with one of 4 texts of 128 tokens. */
int shared_parse(const char *text, struct arrival_spec *spec, struct err *err);
/* domain_mix_parse: "1,1,2" or "0:1,0/60:0,1": weights, or points of seconds:weights joined by /.
 */
int domain_mix_parse(const char *text, struct domain_mix *mix, struct err *err);
/* arrivals_make: the list, the caller's to free with arrivals_free. A file that is cut short,
 * compressed or out of order is ERR_MODEL with the line. */
int arrivals_make(const struct arrival_spec *spec, struct arrivals *out, struct err *err);
void arrivals_free(struct arrivals *a);

#endif
