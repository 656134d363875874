/* topk: the k largest of n values, by insertion into a sorted list of k. Gates ask for 8 of 128:
 * after the first values an insertion is rare (about k ln(n / k) in all), so the pass is n compares
 * that the CPU predicts. A heap or a selection network would win only where k approaches n.
 *
 * The order is total, so that equal gates give equal slots on every machine: larger first, of equal
 * values (+0 and -0 are equal) the lower index, NaN behind everything. */
#include "kernels/kernels.h"

static int is_nan(float x)
{
    return x != x;
}

/* a comes before b, where b has the lower index. */
static int before(float a, float b)
{
    return a > b || (is_nan(b) && !is_nan(a));
}

/* Moves the tail of the sorted list up and puts x in; the last of `used` values falls out when the
 * list is full. */
static void insert(float x, int32_t i, int used, int32_t *index, float *value)
{
    int at = used;
    while (at > 0 && before(x, value[at - 1])) {
        value[at] = value[at - 1];
        index[at] = index[at - 1];
        at--;
    }
    value[at] = x;
    index[at] = i;
}

void topk(const float *x, int n, int k, int32_t *index, float *value)
{
    if (k <= 0) {
        return;
    }
    for (int i = 0; i < k; i++) {
        insert(x[i], i, i, index, value);
    }
    for (int i = k; i < n; i++) {
        if (before(x[i], value[k - 1])) {
            insert(x[i], i, k - 1, index, value);
        }
    }
}
