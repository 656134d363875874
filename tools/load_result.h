/* load_result: what a load-test saw, simulated or live, before it is summed up: each request, the
 * gaps between tokens, the cluster over time. tools/load_report.h makes figures of it. */
#ifndef TOOLS_LOAD_RESULT_H
#define TOOLS_LOAD_RESULT_H

#include "tools/stats.h"
#include <stdint.h>

enum request_status {
    REQUEST_OK,
    REQUEST_REJECTED,   /* the server was full */
    REQUEST_UNFINISHED, /* the test ended first */
    REQUEST_FAILED
};

/* Times from the start of the test. Latencies count from due_ns, when the request should have been
 * sent: a client that falls behind does not flatter the server (no coordinated omission). */
struct load_request {
    int64_t due_ns, first_ns, last_ns; /* first and last token; 0: none came */
    int32_t n_prompt, n_output, n_got; /* tokens asked for; tokens that came */
    int32_t domain;
    enum request_status status;
};

/* One stretch of time. */
struct load_slice {
    double begin_s, end_s;
    double tokens;       /* generated */
    double mean, max;    /* sums over dispatches of the mean and the largest worker's slots */
    double running;      /* sequences, at the end of the slice */
    double waiting;      /* same */
    double busy;         /* mean over workers of the part of time they computed; -1: unknown */
    double bytes;        /* over the wire, both ways */
    double stall_s;      /* coordinators with nothing to do but wait for experts */
    double balancedness; /* live: as the server says; -1: mean / max from above */
};

/* Whose CPU time: the threads that compute, that move messages, that speak HTTP. */
enum spent_kind {
    SPENT_COORDINATOR,
    SPENT_COORDINATOR_WIRE,
    SPENT_FRONT,
    SPENT_WORKER,
    SPENT_WORKER_WIRE,
    SPENT_CLIENT,
    SPENT_KINDS
};

struct load_result {
    struct load_request *request; /* [n_request] */
    int n_request;
    struct samples gap_ms; /* between tokens of requests due after the warm-up */
    int64_t warmup_ns, duration_ns, end_ns;
    uint64_t tokens; /* generated within [warmup, duration) */
    uint64_t prompt_tokens;

    struct load_slice *slice; /* [n_slice] */
    int n_slice;
    int n_worker;
    double *worker_busy;   /* [n_worker] part of [warmup, duration) computing; NULL: unknown */
    double *worker_slots;  /* [n_worker] slots computed */
    int n_layer, n_expert; /* 0: unknown */
    double *heat;          /* [n_layer, n_expert] slots, sparse layers only */
    uint64_t steps, rows, dispatches, messages, bytes_sent, bytes_received;
    uint64_t lookup_tokens, hit_tokens; /* of prompts: looked for in the prefix cache; found */
    uint64_t dropped, moved; /* slots a routing strategy left empty, or gave to a later choice */
    double step_s, wait_s, coordinator_busy; /* sums over coordinators; part of time */
    double spent_s[SPENT_KINDS];             /* CPU time by who spent it; all 0: unknown */
    int64_t wall_ns, cpu_ns; /* what the test itself took; CPU time of this process */
    char error[256];         /* of failed requests, the first */
};
void load_result_free(struct load_result *r);

#endif
