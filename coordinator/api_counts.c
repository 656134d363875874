/* api_counts: see api_counts.h. */
#include "coordinator/api_counts.h"

#include <string.h>

void histogram_add(struct histogram *h, double value)
{
    double bound = h->first;
    int b = 0;
    for (; b < h->n && value > bound; b++) {
        bound *= h->factor;
    }
    h->bucket[b]++;
    h->count++;
    h->sum += value;
}

static struct histogram geometric(double first, double factor, int n)
{
    return (struct histogram){.first = first, .factor = factor, .n = n};
}

void api_counts_init(struct api_counts *c)
{
    memset(c, 0, sizeof *c);
    c->ttft = geometric(0.001, 2, 20);
    c->inter_token = geometric(0.001, 2, 16);
    c->duration = geometric(0.01, 2, 20);
    c->queue = geometric(0.001, 2, 20);
    c->prompt_tokens = geometric(1, 2, 20);
    c->generated_tokens = geometric(1, 2, 20);
}
