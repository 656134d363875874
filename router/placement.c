/* placement: a cell for each (layer, expert) with its holders in ascending order. Nearly every
 * expert has one or two holders, so two fit in the cell and only more go to the heap. */
#include "router/placement.h"
#include "base/limits.h"

#include <stdlib.h>
#include <string.h>

#define N_INLINE 2

struct cell {
    int32_t n, n_max;
    union {
        int32_t few[N_INLINE];
        int32_t *many; /* when n_max > N_INLINE */
    } worker;
};

struct placement {
    int n_layer, n_expert;
    uint64_t epoch;
    struct cell *cell; /* [n_layer, n_expert] */
};

static int32_t *cell_workers(struct cell *cell)
{
    return cell->n_max > N_INLINE ? cell->worker.many : cell->worker.few;
}

static size_t n_cell(const struct placement *p)
{
    return (size_t)p->n_layer * (size_t)p->n_expert;
}

static struct cell *cell_at(const struct placement *p, int layer, int expert)
{
    return &p->cell[(size_t)layer * (size_t)p->n_expert + (size_t)expert];
}

int placement_create(int n_layer, int n_expert, struct placement **out, struct err *err)
{
    if (n_layer < 1 || n_layer > LIMIT_LAYERS || n_expert < 1 || n_expert > LIMIT_EXPERTS)
        return err_set(err, ERR_LIMIT,
                       "placement of %d layers x %d experts; at most %d x %d are possible", n_layer,
                       n_expert, LIMIT_LAYERS, LIMIT_EXPERTS);
    struct placement *p = calloc(1, sizeof(*p));
    if (p) {
        *p = (struct placement){.n_layer = n_layer, .n_expert = n_expert, .epoch = 1};
        p->cell = calloc(n_cell(p), sizeof(struct cell));
    }
    if (!p || !p->cell) {
        free(p);
        return err_set(err, ERR_NOMEM, "no memory for a placement of %d layers x %d experts",
                       n_layer, n_expert);
    }
    for (size_t i = 0; i < n_cell(p); i++)
        p->cell[i].n_max = N_INLINE;
    *out = p;
    return 0;
}

void placement_destroy(struct placement *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < n_cell(p); i++)
        if (p->cell[i].n_max > N_INLINE)
            free(p->cell[i].worker.many);
    free(p->cell);
    free(p);
}

/* cell_reserve makes room for n workers. */
static int cell_reserve(struct cell *cell, int32_t n)
{
    if (n <= cell->n_max)
        return 0;
    int32_t n_max = cell->n_max * 2 > n ? cell->n_max * 2 : n;
    int32_t *many = malloc((size_t)n_max * sizeof(int32_t));
    if (!many)
        return ERR_NOMEM;
    memcpy(many, cell_workers(cell), (size_t)cell->n * sizeof(int32_t));
    if (cell->n_max > N_INLINE)
        free(cell->worker.many);
    cell->n_max = n_max;
    cell->worker.many = many;
    return 0;
}

int placement_copy(const struct placement *p, struct placement **out, struct err *err)
{
    struct placement *copy;
    int rc = placement_create(p->n_layer, p->n_expert, &copy, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n_cell(p); i++) {
        struct cell *from = &p->cell[i], *to = &copy->cell[i];
        if (cell_reserve(to, from->n)) {
            placement_destroy(copy);
            return err_set(err, ERR_NOMEM, "no memory to copy a placement");
        }
        memcpy(cell_workers(to), cell_workers(from), (size_t)from->n * sizeof(int32_t));
        to->n = from->n;
    }
    copy->epoch = p->epoch + 1;
    *out = copy;
    return 0;
}

uint64_t placement_epoch(const struct placement *p)
{
    return p->epoch;
}

void placement_set_epoch(struct placement *p, uint64_t epoch)
{
    p->epoch = epoch;
}

int placement_n_layer(const struct placement *p)
{
    return p->n_layer;
}

int placement_n_expert(const struct placement *p)
{
    return p->n_expert;
}

/* cell_find: where worker is, or where it belongs. */
static int32_t cell_find(struct cell *cell, int worker)
{
    const int32_t *workers = cell_workers(cell);
    int32_t at = 0;
    while (at < cell->n && workers[at] < worker)
        at++;
    return at;
}

static int in_range(const struct placement *p, int layer, int expert)
{
    return layer >= 0 && layer < p->n_layer && expert >= 0 && expert < p->n_expert;
}

int placement_add(struct placement *p, int layer, int expert, int worker, struct err *err)
{
    if (!in_range(p, layer, expert))
        return err_set(err, ERR_LIMIT, "layer %d expert %d is outside the placement of %d x %d",
                       layer, expert, p->n_layer, p->n_expert);
    if (worker < 0 || worker >= LIMIT_WORKERS)
        return err_set(err, ERR_LIMIT, "worker %d; workers are numbered from 0 to %d", worker,
                       LIMIT_WORKERS - 1);
    struct cell *cell = cell_at(p, layer, expert);
    int32_t at = cell_find(cell, worker);
    if (at < cell->n && cell_workers(cell)[at] == worker)
        return 0;
    if (cell_reserve(cell, cell->n + 1))
        return err_set(err, ERR_NOMEM, "no memory for %d holders of one expert", cell->n + 1);
    int32_t *workers = cell_workers(cell);
    memmove(workers + at + 1, workers + at, (size_t)(cell->n - at) * sizeof(int32_t));
    workers[at] = worker;
    cell->n++;
    return 0;
}

int placement_add_all(struct placement *p, const int32_t *expert, int n, int worker,
                      struct err *err)
{
    for (int layer = 0; layer < p->n_layer; layer++) {
        for (int i = 0; i < n; i++) {
            int rc = placement_add(p, layer, expert[i], worker, err);
            if (rc)
                return rc;
        }
    }
    return 0;
}

static void cell_remove(struct cell *cell, int worker)
{
    int32_t at = cell_find(cell, worker);
    int32_t *workers = cell_workers(cell);
    if (at == cell->n || workers[at] != worker)
        return;
    cell->n--;
    memmove(workers + at, workers + at + 1, (size_t)(cell->n - at) * sizeof(int32_t));
}

void placement_remove(struct placement *p, int layer, int expert, int worker)
{
    if (layer < 0)
        for (size_t i = 0; i < n_cell(p); i++)
            cell_remove(&p->cell[i], worker);
    else if (in_range(p, layer, expert))
        cell_remove(cell_at(p, layer, expert), worker);
}

int placement_holders(const struct placement *p, int layer, int expert, const int32_t **out)
{
    struct cell *cell = in_range(p, layer, expert) ? cell_at(p, layer, expert) : NULL;
    *out = cell && cell->n ? cell_workers(cell) : NULL;
    return cell ? cell->n : 0;
}

int placement_has(const struct placement *p, int layer, int expert, int worker)
{
    const int32_t *holder;
    int n = placement_holders(p, layer, expert, &holder);
    for (int i = 0; i < n; i++)
        if (holder[i] == worker)
            return 1;
    return 0;
}

int placement_contiguous(int n_expert, int part, int n_part, int32_t *out)
{
    int begin = (int)((int64_t)n_expert * part / n_part);
    int end = (int)((int64_t)n_expert * (part + 1) / n_part);
    for (int expert = begin; expert < end; expert++)
        out[expert - begin] = expert;
    return end - begin;
}

int placement_round_robin(int n_expert, int part, int n_part, int32_t *out)
{
    int n = 0;
    for (int64_t expert = part; expert < n_expert; expert += n_part)
        out[n++] = (int32_t)expert;
    return n;
}
