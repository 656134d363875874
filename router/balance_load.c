/* balance_load: what each worker gets when a layer's load flows over a table. An even split gives
 * every copy the same. The best split is found by giving each replicated expert's load in turn to
 * its holders as water fills a vessel, until nothing moves: each step is the best for that expert,
 * and the sum of squared ends, which all steps lower, has one minimum. */
#include "router/balance_table.h"
#include "router/load.h"

#include <math.h>
#include <string.h>

#define PASSES_MAX 64
#define STILL      1e-9 /* of the layer's load: less than this moved is nothing */

struct flow {
    const struct balance_table *table;
    const struct balance_worker *worker;
    const int32_t *row; /* [n_slot] */
    double *work;       /* [n_worker] */
    int32_t *n_copy;    /* [n_expert] */
    int32_t *first;     /* [n_expert] where its copies begin in `copy` */
    int32_t *copy;      /* [n_slot] workers of each expert's copies */
    double *part;       /* [n_slot] load of each */
    int once;           /* a worker is a holder once, however many copies it has */
};

size_t balance_load_scratch(const struct balance_table *table)
{
    size_t e = (size_t)table->n_expert, s = (size_t)table->n_slot;
    return s * sizeof(double) + (2 * e + s) * sizeof(int32_t);
}

/* Two copies of an expert on one worker (eplb makes some) are one holder when the split is best. */
static int is_twin(const struct flow *f, const int32_t *row, int begin, int slot)
{
    for (int s = begin; s < slot; s++)
        if (row[s] == row[slot])
            return f->once;
    return 0;
}

static void flow_init(struct flow *f, void *scratch)
{
    const struct balance_table *t = f->table;
    f->part = scratch;
    f->n_copy = (int32_t *)(f->part + t->n_slot);
    f->first = f->n_copy + t->n_expert;
    f->copy = f->first + t->n_expert;
    memset(f->n_copy, 0, (size_t)t->n_expert * sizeof(int32_t));
    for (int s = 0; s < t->n_slot; s++)
        if (f->row[s] >= 0)
            f->n_copy[f->row[s]]++; /* twins too: room enough */
    int32_t at = 0;
    for (int e = 0; e < t->n_expert; e++) {
        f->first[e] = at;
        at += f->n_copy[e];
        f->n_copy[e] = 0;
    }
    for (int w = 0; w < t->n_worker; w++)
        for (int s = t->begin[w]; s < t->begin[w + 1]; s++)
            if (f->row[s] >= 0 && !is_twin(f, f->row, t->begin[w], s))
                f->copy[f->first[f->row[s]] + f->n_copy[f->row[s]]++] = w;
}

static void spread_evenly(struct flow *f, const double *load)
{
    memset(f->work, 0, (size_t)f->table->n_worker * sizeof(double));
    for (int e = 0; e < f->table->n_expert; e++)
        for (int i = 0; i < f->n_copy[e]; i++) {
            f->part[f->first[e] + i] = load[e] / f->n_copy[e];
            f->work[f->copy[f->first[e] + i]] += load[e] / f->n_copy[e];
        }
}

static double end_of(const struct flow *f, int32_t worker)
{
    return f->work[worker] / f->worker[worker].speed;
}

/* sort_copies by the end of their workers, ascending; n is small. */
static void sort_copies(struct flow *f, int32_t *copy, int n)
{
    for (int i = 1; i < n; i++) {
        int32_t moved = copy[i];
        int k = i;
        for (; k > 0 && end_of(f, copy[k - 1]) > end_of(f, moved); k--)
            copy[k] = copy[k - 1];
        copy[k] = moved;
    }
}

/* pour takes one expert's load off its holders and gives it back as evenly as it goes; returns how
 * far the highest share moved. */
static double pour(struct flow *f, int expert, double load)
{
    int32_t *copy = f->copy + f->first[expert];
    double *part = f->part + f->first[expert], most = 0;
    int n = f->n_copy[expert];
    for (int i = 0; i < n; i++) {
        f->work[copy[i]] -= part[i];
        most = part[i] > most ? part[i] : most;
    }
    sort_copies(f, copy, n);
    double water = load, power = 0, level = 0;
    int n_wet = 0;
    while (n_wet < n) {
        water += f->work[copy[n_wet]];
        power += f->worker[copy[n_wet]].speed;
        level = water / power;
        n_wet++;
        if (n_wet < n && level <= end_of(f, copy[n_wet]))
            break;
    }
    double now = 0;
    for (int i = 0; i < n; i++) {
        double take = i < n_wet ? level * f->worker[copy[i]].speed - f->work[copy[i]] : 0;
        part[i] = take > 0 ? take : 0;
        f->work[copy[i]] += part[i];
        now = part[i] > now ? part[i] : now;
    }
    return fabs(now - most);
}

static void spread_best(struct flow *f, const double *load)
{
    double sum = 0;
    for (int e = 0; e < f->table->n_expert; e++)
        sum += load[e];
    for (int pass = 0; pass < PASSES_MAX; pass++) {
        double moved = 0;
        for (int e = 0; e < f->table->n_expert; e++)
            if (f->n_copy[e] > 1 && load[e] > 0)
                moved += pour(f, e, load[e]);
        if (moved <= STILL * sum)
            return;
    }
}

void balance_worker_load(const struct balance_table *table, int layer, const double *load,
                         const struct balance_worker *worker, enum balance_split split,
                         double *work, void *scratch)
{
    struct flow f = {.table = table,
                     .worker = worker,
                     .row = balance_row(table, layer),
                     .work = work,
                     .once = split == SPLIT_BEST};
    flow_init(&f, scratch);
    spread_evenly(&f, load);
    if (split == SPLIT_BEST)
        spread_best(&f, load);
}

double balance_excess(const struct balance_table *table, const double *load,
                      const struct balance_worker *worker, enum balance_split split, double *excess,
                      void *scratch)
{
    double *work = scratch, *speed = work + table->n_worker, sum = 0;
    for (int w = 0; w < table->n_worker; w++)
        speed[w] = worker[w].speed;
    for (int layer = 0; layer < table->n_layer; layer++) {
        struct load_figures figures;
        balance_worker_load(table, layer, load + (size_t)layer * (size_t)table->n_expert, worker,
                            split, work, speed + table->n_worker);
        load_figures(work, speed, table->n_worker, &figures);
        if (excess)
            excess[layer] = figures.excess;
        sum += figures.excess;
    }
    return sum / table->n_layer;
}

size_t balance_excess_scratch(const struct balance_table *table)
{
    return balance_load_scratch(table) + 2 * (size_t)table->n_worker * sizeof(double);
}
