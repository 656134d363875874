/* gpu_check: holds a device against portable C. The order of roundings is what we wrote, but who
 * compiled it, for which device, under which driver, is not ours to know: a difference in one bit
 * would break the promise that every worker gives the same tokens, and show up as nothing else. */
#ifndef WORKER_GPU_CHECK_H
#define WORKER_GPU_CHECK_H

#include "worker/gpu.h"

/* A made-up feed-forward. */
struct gpu_case {
    enum dtype up, down; /* of gate and up, and of down: floats alike, or integers */
    int group, int_rows;
    enum dtype y;
    enum act act;
    int plain;  /* no gate */
    int biased; /* all three have a bias */
    int tiny;   /* numbers about the smallest that are not flushed */
    int d_model, d_ff, n_expert, n_row, top_k;
};

/* gpu_agrees computes the case on the device and by portable C: 0, or ERR_MODEL with where the
 * first bits differ, or why it could not be computed. */
int gpu_agrees(struct gpu *g, const struct gpu_case *c, struct err *err);
/* gpu_check: a few small cases, of each kind of weights. */
int gpu_check(struct gpu *g, struct err *err);

#endif
