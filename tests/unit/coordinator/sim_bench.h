/* sim_bench: a pool over the simulation, and micro-batches of random rows whose every result row is
 * known. */
#ifndef TESTS_SIM_BENCH_H
#define TESTS_SIM_BENCH_H

#include "sim.h"

struct bench_config {
    struct sim_config sim; /* shape, fingerprint and held may be left to the bench */
    int n_layer, n_expert, top_k, d_model, replicas; /* 0: 2, 6, 2, 5, 1 */
    int local;                                       /* compute here what nobody holds */
    enum replica_choice choice;
    int64_t call_timeout_ns; /* 0: 2 s */
    enum wire_rows rows;     /* fp8: worker 0 knows it, the others do not */
};

struct bench {
    struct sim *sim;
    struct pool *pool;
    struct model *model;
    struct wire_shape shape;
    enum wire_rows rows;
    struct err err;
    int rc; /* of pool_connect */
};
/* bench_open: pool_connect is done, without faults; b->rc says how it went. */
struct bench *bench_open(const struct bench_config *config);
void bench_close(struct bench *b);

/* One micro-batch and what is known of it. */
struct work {
    struct dispatch d;
    int32_t *slot_expert;
    unsigned char *rows, *expected;
    const void **slot_row;
    int begun, told; /* told: its end was counted */
};
void work_make(struct bench *b, struct work *w, int layer, int n_row, int batch);
/* work_spoil overwrites and frees the rows, as an engine may once the dispatch is done. */
void work_spoil(struct bench *b, struct work *w);
/* work_right: every slot has its row, bit for bit, empty ones NULL. */
int work_right(const struct bench *b, const struct work *w);
void work_free(struct bench *b, struct work *w);
/* bench_run waits until `w` is done, at most an hour of simulated time; how many dispatches ended.
 */
int bench_run(struct bench *b, struct work *w);
/* bench_do: a whole micro-batch, its status; `right` tells whether every row was. */
int bench_do(struct bench *b, int layer, int n_row, int *right, struct err *err);
struct pool_stats bench_stats(const struct bench *b);

#endif
