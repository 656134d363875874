/* sim_bank: plans that are used again. For each layer and each number of rows (to within an eighth)
 * the first n_variant dispatches make their plans from their own rows; later ones draw one of
 * these. What is lost: plans of one layer repeat, follow neither the mix of domains as it changes
 * later nor the load that workers have at that moment. What is kept: the distribution of segments
 * over workers, and the cost. For clusters whose every row would take longer than the cluster. */
#include "base/rng.h"
#include "tools/sim/sim_state.h"

#include <math.h>
#include <stdlib.h>

#define N_SIZE                                                                                     \
    112 /* sizes of batches told apart: 1..16 exactly, then eight an octave up to 8192             \
         */

struct variants {
    int n;
    struct sim_plan *plan; /* [n_variant] */
};

struct bank {
    int n_layer, n_variant;
    uint64_t seed, n_draw;
    struct variants *at; /* [n_layer, N_SIZE] */
};

struct bank *bank_create(int n_layer, int n_variant, uint64_t seed)
{
    struct bank *b = calloc(1, sizeof(*b));
    if (!b)
        return NULL;
    *b = (struct bank){.n_layer = n_layer, .n_variant = n_variant, .seed = seed};
    b->at = calloc((size_t)n_layer * N_SIZE, sizeof(*b->at));
    if (!b->at) {
        free(b);
        return NULL;
    }
    return b;
}

void bank_destroy(struct bank *b)
{
    if (!b)
        return;
    for (int i = 0; i < b->n_layer * N_SIZE; i++) {
        for (int k = 0; k < b->at[i].n; k++)
            sim_plan_free(&b->at[i].plan[k]);
        free(b->at[i].plan);
    }
    free(b->at);
    free(b);
}

static int size_of(int n_row)
{
    if (n_row <= 16)
        return n_row;
    int i = 16 + (int)lround(8 * log2(n_row / 16.0));
    return i < N_SIZE ? i : N_SIZE - 1;
}

const struct sim_plan *bank_draw(struct bank *b, int layer, int n_row, struct sim_plan **fresh)
{
    struct variants *v = &b->at[layer * N_SIZE + size_of(n_row)];
    if (!v->plan)
        v->plan = calloc((size_t)b->n_variant, sizeof(*v->plan));
    if (!v->plan) {
        *fresh = NULL;
        return NULL;
    }
    if (v->n < b->n_variant) {
        *fresh = &v->plan[v->n++];
        return NULL;
    }
    double u = rng_uniform(b->seed, 0x62616e6b, b->n_draw++);
    return &v->plan[(int)(u * v->n)];
}
