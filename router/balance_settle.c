/* balance_settle: from the table in use to a new one at a price that pays. Time is seconds of the
 * worker that ends last: that is what a step waits for, so it is what evenness gains and what
 * loading costs (a worker that loads experts serves slower for as long). */
#include "router/balance_table.h"
#include "router/pack.h"

#include <math.h>
#include <string.h>

#define WORTH_TELLING 1e-3 /* a layer that could gain less was not refused anything */
#define CLOSE_ENOUGH  0.02 /* a copy costs a load: the last hundredths are not worth theirs */

struct settling {
    const struct balance_table *current;
    const struct balance_input *in;
    const struct balance_cost *cost;
    struct pack_space *space;
    int32_t *all;         /* [max(n_expert, n_worker)] 0, 1, 2, ... */
    uint8_t *marked;      /* [n_expert] */
    int32_t *row, *other; /* [n_slot] a candidate, a relabelled one */
    int32_t *label;       /* [n_worker] */
    int64_t *gained;      /* [n_worker] copies each worker loads, all layers */
    double *work;         /* [n_worker] */
    void *scratch;        /* of balance_worker_load */
};

struct candidate {
    double end_s, cost_s; /* of this layer within the horizon */
    int n_move;
};

static int row_whole(const struct settling *s, const int32_t *row)
{
    int n = 0;
    memset(s->marked, 0, (size_t)s->current->n_expert);
    for (int i = 0; i < s->current->n_slot; i++)
        if (row[i] >= 0 && !s->marked[row[i]]) {
            s->marked[row[i]] = 1;
            n++;
        }
    return n == s->current->n_expert;
}

/* moves_of: copies that worker w gains from `from` to `to`. */
static int moves_of(struct settling *s, const int32_t *from, const int32_t *to, int w)
{
    const struct balance_table *t = s->current;
    int n = 0;
    for (int i = t->begin[w]; i < t->begin[w + 1]; i++)
        if (from[i] >= 0)
            s->marked[from[i]] = 1;
    for (int i = t->begin[w]; i < t->begin[w + 1]; i++)
        n += to[i] >= 0 && !s->marked[to[i]];
    for (int i = t->begin[w]; i < t->begin[w + 1]; i++)
        if (from[i] >= 0)
            s->marked[from[i]] = 0;
    return n;
}

static struct candidate weigh(struct settling *s, int layer, const int32_t *from, int32_t *row)
{
    const struct balance_table *t = s->current;
    struct balance_table one = *t;
    struct candidate c = {0};
    double end = 0;
    int most = 0;
    one.expert = row;
    balance_worker_load(&one, 0, s->in->load + (size_t)layer * (size_t)t->n_expert, s->in->worker,
                        SPLIT_BEST, s->work, s->scratch);
    memset(s->marked, 0, (size_t)t->n_expert);
    for (int w = 0; w < t->n_worker; w++) {
        int n = moves_of(s, from, row, w);
        most = n > most ? n : most;
        c.n_move += n;
        end = fmax(end, s->work[w] / s->in->worker[w].speed);
    }
    if (s->cost) {
        c.end_s = end * s->cost->row_s * s->cost->horizon_slots / s->cost->window_slots;
        c.cost_s = most * (double)s->cost->expert_bytes / s->cost->bytes_per_s * s->cost->slowdown;
    }
    return c;
}

static int alike(const struct settling *s, int a, int b)
{
    const struct balance_worker *x = &s->in->worker[a], *y = &s->in->worker[b];
    const int32_t *begin = s->current->begin;
    return x->speed == y->speed && x->host == y->host &&
           begin[a + 1] - begin[a] == begin[b + 1] - begin[b];
}

/* relabel: each worker in turn takes, of the sets meant for workers like it that nobody took yet,
 * the one that shares most with what it holds. */
static void relabel(struct settling *s, const int32_t *from, int32_t *row)
{
    const struct balance_table *t = s->current;
    for (int w = 0; w < t->n_worker; w++)
        s->label[w] = -1;
    memset(s->marked, 0, (size_t)t->n_expert);
    for (int w = 0; w < t->n_worker; w++) {
        int best = -1, best_same = -1, n_slot = t->begin[w + 1] - t->begin[w];
        for (int i = t->begin[w]; i < t->begin[w + 1]; i++)
            if (from[i] >= 0)
                s->marked[from[i]] = 1;
        for (int x = 0; x < t->n_worker; x++) {
            int same = 0;
            if (s->label[x] >= 0 || !alike(s, w, x))
                continue;
            for (int i = t->begin[x]; i < t->begin[x + 1]; i++)
                same += row[i] >= 0 && s->marked[row[i]];
            if (same > best_same) {
                best = x;
                best_same = same;
            }
        }
        for (int i = t->begin[w]; i < t->begin[w + 1]; i++)
            if (from[i] >= 0)
                s->marked[from[i]] = 0;
        s->label[best] = w;
        memcpy(s->other + t->begin[w], row + t->begin[best], (size_t)n_slot * sizeof(*row));
    }
    memcpy(row, s->other, (size_t)t->n_slot * sizeof(*row));
}

static void improve(struct settling *s, int layer, int32_t *row)
{
    struct pack p = {.n_item = s->current->n_expert,
                     .item = s->all,
                     .weight = s->in->load + (size_t)layer * (size_t)s->current->n_expert,
                     .n_bin = s->current->n_worker,
                     .bin = s->all,
                     .worker = s->in->worker,
                     .table = s->current,
                     .slot = row};
    pack_improve(&p, s->space, CLOSE_ENOUGH);
}

static void account(struct settling *s, const int32_t *from, const int32_t *row,
                    struct balance_moves *out)
{
    int n = 0;
    memset(s->marked, 0, (size_t)s->current->n_expert);
    for (int w = 0; w < s->current->n_worker; w++) {
        int moves = moves_of(s, from, row, w);
        s->gained[w] += moves;
        n += moves;
    }
    out->n_move += n;
    out->n_changed += n > 0;
}

/* settle_layer leaves the chosen candidate in next_row. */
static void settle_layer(struct settling *s, int layer, int32_t *next_row, uint8_t *refused,
                         struct balance_moves *out)
{
    const int32_t *from = balance_row(s->current, layer);
    size_t bytes = (size_t)s->current->n_slot * sizeof(*from);
    relabel(s, from, next_row);
    if (!s->cost) {
        account(s, from, next_row, out);
        return;
    }
    struct candidate full = weigh(s, layer, from, next_row), few, stay = {.end_s = INFINITY};
    memcpy(s->row, from, bytes);
    if (row_whole(s, s->row))
        stay = weigh(s, layer, from, s->row);
    improve(s, layer, s->row);
    few = weigh(s, layer, from, s->row);
    int few_whole = row_whole(s, s->row);
    double best = full.end_s + full.cost_s;
    struct candidate taken = full;
    if (few_whole && few.end_s + few.cost_s <= best) {
        best = few.end_s + few.cost_s;
        taken = few;
        memcpy(next_row, s->row, bytes);
    }
    if (stay.end_s <= best) {
        double end_s = few_whole && few.end_s < full.end_s ? few.end_s : full.end_s;
        int better = end_s < stay.end_s * (1 - WORTH_TELLING);
        out->n_refused += better;
        if (refused)
            refused[layer] = (uint8_t)better;
        memcpy(next_row, from, bytes);
        return;
    }
    if (isfinite(stay.end_s))
        out->gain_s += stay.end_s - taken.end_s;
    else
        out->n_broken++;
    out->cost_s += taken.cost_s;
    account(s, from, next_row, out);
}

size_t balance_settle_bytes(const struct balance_table *t)
{
    size_t e = (size_t)t->n_expert, w = (size_t)t->n_worker, n = (size_t)t->n_slot;
    return pack_space_bytes(t->n_expert, t->n_worker, t->n_slot) + balance_load_scratch(t) +
           (e > w ? e : w) * 4 + e + n * 8 + w * 24 + 16 * 64;
}

static int settling_carve(struct settling *s, struct arena *mem)
{
    const struct balance_table *t = s->current;
    size_t e = (size_t)t->n_expert, w = (size_t)t->n_worker, n = (size_t)t->n_slot;
    s->space = pack_space_carve(t->n_expert, t->n_worker, t->n_slot, mem);
    s->all = arena_alloc(mem, (e > w ? e : w) * 4);
    s->marked = arena_alloc(mem, e);
    s->row = arena_alloc(mem, n * 4);
    s->other = arena_alloc(mem, n * 4);
    s->label = arena_alloc(mem, w * 4);
    s->gained = arena_zalloc(mem, w * 8);
    s->work = arena_alloc(mem, w * 8);
    s->scratch = arena_alloc(mem, balance_load_scratch(t));
    if (!s->space || !s->all || !s->marked || !s->row || !s->other || !s->label || !s->gained ||
        !s->work || !s->scratch)
        return -1;
    for (size_t i = 0; i < (e > w ? e : w); i++)
        s->all[i] = (int32_t)i;
    return 0;
}

static int check(const struct balance_table *current, const struct balance_table *next,
                 const struct balance_cost *cost, struct err *err)
{
    int same = current->n_layer == next->n_layer && current->n_expert == next->n_expert &&
               current->n_worker == next->n_worker && current->n_slot == next->n_slot;
    for (int w = 0; same && w <= current->n_worker; w++)
        same = current->begin[w] == next->begin[w];
    if (!same)
        return err_set(err, ERR_USAGE,
                       "the placement in use and the new one differ in layers, experts, workers or "
                       "slots a worker; moves can only be counted between like tables");
    if (cost && (!(cost->bytes_per_s > 0) || !(cost->row_s > 0) || !(cost->window_slots > 0) ||
                 !(cost->horizon_slots >= 0) || !(cost->slowdown >= 0)))
        return err_set(err, ERR_USAGE,
                       "the price of moving needs rates above 0 and a horizon of 0 or more");
    return 0;
}

int balance_settle(const struct balance_table *current, struct balance_table *next,
                   const struct balance_input *in, const struct balance_cost *cost,
                   uint8_t *refused, struct balance_moves *out, struct arena *mem, struct err *err)
{
    int rc = check(current, next, cost, err);
    if (rc)
        return rc;
    struct settling s = {.current = current, .in = in, .cost = cost};
    size_t mark = arena_mark(mem);
    if (settling_carve(&s, mem)) {
        arena_release(mem, mark);
        return err_set(err, ERR_NOMEM, "no memory to settle a table of %d slots", next->n_slot);
    }
    *out = (struct balance_moves){0};
    if (refused)
        memset(refused, 0, (size_t)current->n_layer);
    for (int layer = 0; layer < current->n_layer; layer++)
        settle_layer(&s, layer, balance_row(next, layer), refused, out);
    int64_t most = 0;
    for (int w = 0; w < current->n_worker; w++)
        most = s.gained[w] > most ? s.gained[w] : most;
    out->bytes = (uint64_t)out->n_move * in->expert_bytes;
    out->bytes_worker_max = (uint64_t)most * in->expert_bytes;
    if (cost)
        out->load_s = (double)out->bytes_worker_max / cost->bytes_per_s;
    arena_release(mem, mark);
    return 0;
}
