/* pingpong: see pingpong.h. */
#include "coordinator/pingpong.h"

#include <stddef.h>

/* Ratios that a first opinion needs, and how far from 1 both must lie for it to be one. */
#define FIRST_CLEAR 2
#define FIRST       4
#define CLEAR       1.2
/* Steps between looks at the other kind: seldom when it is far off, for then a look costs. */
#define AGAIN       64
#define AGAIN_CLEAR 256
/* A change must promise so much. */
#define GAIN 0.97
/* What looks may cost of all time, and what the first is thought to cost, of a step. */
#define BUDGET          0.01
#define GUESSED         0.02
#define GUESSED_CROWDED 0.75

static struct pingpong_bucket *bucket_of(struct pingpong *p, int n_row)
{
    int b = 0;
    while (n_row > 1 && b < PINGPONG_BUCKETS - 1) {
        n_row /= 2;
        b++;
    }
    return &p->bucket[b];
}

static double median(const struct pingpong_bucket *b)
{
    double sorted[PINGPONG_RATIOS];
    int n = 0, n_all = b->n_ratio < PINGPONG_RATIOS ? (int)b->n_ratio : PINGPONG_RATIOS;
    for (int i = 0; i < n_all; i++) {
        int at = n++;
        for (; at > 0 && sorted[at - 1] > b->ratio[i]; at--) {
            sorted[at] = sorted[at - 1];
        }
        sorted[at] = b->ratio[i];
    }
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static int is_clear(double ratio)
{
    return ratio > CLEAR || ratio < 1 / CLEAR;
}

/* neighbour: who knows most of half as many rows and twice as many, or NULL: neither anything. */
static const struct pingpong_bucket *neighbour(const struct pingpong *p,
                                               const struct pingpong_bucket *b)
{
    const struct pingpong_bucket *below = b > p->bucket ? b - 1 : NULL;
    const struct pingpong_bucket *above = b < p->bucket + PINGPONG_BUCKETS - 1 ? b + 1 : NULL;
    const struct pingpong_bucket *most =
        !above || (below && below->n_ratio >= above->n_ratio) ? below : above;
    return most->n_ratio >= FIRST_CLEAR ? most : NULL;
}

/* extra: what a look takes longer than a step of the kind in use, of a step, as far as is known. */
static double extra(const struct pingpong *p, const struct pingpong_bucket *b)
{
    const struct pingpong_bucket *known = b->n_ratio > 0 ? b : neighbour(p, b);
    if (!known && p->last_ratio <= 0) {
        return p->crowded ? GUESSED_CROWDED : GUESSED;
    }
    double ratio = known ? median(known) : p->last_ratio,
           slower = b->n_micro == 1 ? ratio - 1 : 1 / ratio - 1;
    return slower > 0 ? slower : 0;
}

static int can_afford_look(const struct pingpong *p, const struct pingpong_bucket *b)
{
    return p->looking_ns + extra(p, b) * (double)b->last_ns <= BUDGET * p->total_ns;
}

/* Rows so alike that only the number of micro-batches tells the times apart. */
static int alike(int a, int b)
{
    int apart = a > b ? a - b : b - a, larger = a > b ? a : b;
    return apart * 8 <= larger;
}

int pingpong_choose(const struct pingpong *p, int n_row, int first)
{
    const struct pingpong_bucket *b = bucket_of((struct pingpong *)(uintptr_t)p, n_row);
    if (n_row < 2) {
        return 1;
    }
    if (b->n_micro == 0) {
        const struct pingpong_bucket *known = neighbour(p, b);
        return known ? known->n_micro : first;
    }
    if (b->last_micro != b->n_micro) {
        return b->n_micro; /* the look's other neighbour */
    }
    double ratio = b->n_ratio > 0 ? median(b) : 1;
    int settled = b->n_ratio >= FIRST || (b->n_ratio >= FIRST_CLEAR && is_clear(ratio));
    int due = !settled || b->since >= (is_clear(ratio) ? AGAIN_CLEAR : AGAIN);
    return due && alike(b->last_row, n_row) && can_afford_look(p, b) ? 3 - b->n_micro : b->n_micro;
}

void pingpong_ran(struct pingpong *p, int n_row, int n_micro, int64_t ns)
{
    struct pingpong_bucket *b = bucket_of(p, n_row);
    b->since++;
    if (n_row < 2 || ns <= 0) {
        return;
    }
    p->total_ns += (double)ns;
    if (b->n_micro == 0) {
        b->n_micro = n_micro;
    } else if (b->last_micro != n_micro && alike(b->last_row, n_row)) {
        double here = (double)ns / n_row, there = (double)b->last_ns / b->last_row;
        if (n_micro != b->n_micro && here > there) {
            p->looking_ns += (here - there) * n_row;
        }
        p->last_ratio = n_micro == 2 ? here / there : there / here;
        b->ratio[b->n_ratio++ % PINGPONG_RATIOS] = p->last_ratio;
        b->since = 0;
        double ratio = median(b), gain = b->n_micro == 1 ? ratio : 1 / ratio;
        b->n_micro = gain < GAIN ? 3 - b->n_micro : b->n_micro;
    }
    b->last_row = n_row;
    b->last_micro = n_micro;
    b->last_ns = ns;
}
