/* pingpong: see pingpong.h. */
#include "coordinator/pingpong.h"

/* Ratios that a first opinion needs, and how far from 1 both must lie for it to be one. */
#define FIRST_CLEAR 2
#define FIRST       4
#define CLEAR       1.2
/* Steps between looks at the other kind: seldom when it is far off, for then a look costs. */
#define AGAIN       64
#define AGAIN_CLEAR 256
/* A change must promise so much. */
#define GAIN 0.97

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

int pingpong_choose(const struct pingpong *p, int n_row, int first)
{
    const struct pingpong_bucket *b = bucket_of((struct pingpong *)(uintptr_t)p, n_row);
    if (n_row < 2) {
        return 1;
    }
    if (b->n_micro == 0) {
        return first;
    }
    double ratio = b->n_ratio > 0 ? median(b) : 1;
    int other = 3 - b->n_micro;
    if (b->n_ratio < FIRST_CLEAR || (b->n_ratio < FIRST && !is_clear(ratio))) {
        return 3 - b->last_micro;
    }
    return b->since >= (is_clear(ratio) ? AGAIN_CLEAR : AGAIN) ? other : b->n_micro;
}

/* Rows so alike that only the number of micro-batches tells the times apart. */
static int alike(int a, int b)
{
    int apart = a > b ? a - b : b - a, larger = a > b ? a : b;
    return apart * 8 <= larger;
}

void pingpong_ran(struct pingpong *p, int n_row, int n_micro, int64_t ns)
{
    struct pingpong_bucket *b = bucket_of(p, n_row);
    b->since++;
    if (n_row < 2 || ns <= 0) {
        return;
    }
    if (b->n_micro == 0) {
        b->n_micro = n_micro;
    } else if (b->last_micro != n_micro && alike(b->last_row, n_row)) {
        double here = (double)ns / n_row, there = (double)b->last_ns / b->last_row;
        b->ratio[b->n_ratio++ % PINGPONG_RATIOS] = n_micro == 2 ? here / there : there / here;
        b->since = 0;
        double ratio = median(b), gain = b->n_micro == 1 ? ratio : 1 / ratio;
        b->n_micro = gain < GAIN ? 3 - b->n_micro : b->n_micro;
    }
    b->last_row = n_row;
    b->last_micro = n_micro;
    b->last_ns = ns;
}
