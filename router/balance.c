/* balance: what a table is and what flows over it. The strategies that make tables are the
 * place_*.c. */
#include "base/limits.h"
#include "router/balance_table.h"
#include "router/load.h"
#include "router/pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_BYTES 64

static int check_numbers(const struct balance_input *in, struct err *err)
{
    for (int64_t i = 0; i < (int64_t)in->n_layer * in->n_expert; i++)
        if (!(in->load[i] >= 0) || !isfinite(in->load[i]))
            return err_set(err, ERR_USAGE, "layer %d expert %d has load %g, which is no count",
                           (int)(i / in->n_expert), (int)(i % in->n_expert), in->load[i]);
    for (int w = 0; w < in->n_worker; w++) {
        const struct balance_worker *worker = &in->worker[w];
        if (!(worker->speed > 0) || !isfinite(worker->speed))
            return err_set(err, ERR_USAGE, "worker %d has speed %g; it must be above 0", w,
                           worker->speed);
        if (worker->n_slot > in->n_expert)
            return err_set(err, ERR_USAGE,
                           "worker %d has %d slots a layer, but there are only %d experts", w,
                           worker->n_slot, in->n_expert);
    }
    return 0;
}

int balance_check(const struct balance_input *in, struct err *err)
{
    if (in->n_layer < 1 || in->n_layer > LIMIT_LAYERS || in->n_expert < 1 ||
        in->n_expert > LIMIT_EXPERTS)
        return err_set(err, ERR_LIMIT, "%d layers x %d experts; at most %d x %d are possible",
                       in->n_layer, in->n_expert, LIMIT_LAYERS, LIMIT_EXPERTS);
    if (in->n_worker < 1 || in->n_worker > LIMIT_WORKERS)
        return err_set(err, ERR_USAGE, "%d workers; a placement needs 1 to %d", in->n_worker,
                       LIMIT_WORKERS);
    if (in->n_redundant > (int64_t)in->n_expert * (in->n_worker - 1))
        return err_set(err, ERR_USAGE,
                       "%d redundant experts: %d workers can hold at most %lld copies beyond one "
                       "of each of %d experts",
                       in->n_redundant, in->n_worker, (long long)in->n_expert * (in->n_worker - 1),
                       in->n_expert);
    return check_numbers(in, err);
}

int balance_redundant_parse(const char *text, int n_expert, int *out, struct err *err)
{
    char *end;
    double value = strtod(text, &end);
    if (strcmp(text, "all") == 0) {
        *out = -1;
        return 0;
    }
    if (end != text && strcmp(end, "%") == 0)
        value = round(value / 100 * n_expert);
    else if (end == text || *end)
        value = -1;
    if (!(value >= 0) || value > (double)LIMIT_EXPERTS * LIMIT_WORKERS / 16 ||
        value != floor(value))
        return err_set(err, ERR_USAGE, "--redundant %.40s: write a number a layer, 12.5%% or all",
                       text);
    *out = (int)value;
    return 0;
}

/* slots_max: what a worker can hold a layer. */
static int slots_max(const struct balance_input *in, int worker)
{
    const struct balance_worker *w = &in->worker[worker];
    int most = w->n_slot > 0 ? w->n_slot : in->n_expert;
    if (w->memory_bytes > 0 && in->expert_bytes > 0) {
        uint64_t fits = w->memory_bytes / in->expert_bytes / (uint64_t)in->n_layer;
        most = fits < (uint64_t)most ? (int)fits : most;
    }
    return most;
}

/* A worker's slots are its own number where one was asked for, and where all that fits is wanted.
 */
static int has_own(const struct balance_input *in, int worker)
{
    const struct balance_worker *w = &in->worker[worker];
    return w->n_slot > 0 || (in->n_redundant < 0 && w->memory_bytes > 0);
}

static int is_open(const struct balance_input *in, const int32_t *n_slot, int worker)
{
    return !has_own(in, worker) && n_slot[worker] < slots_max(in, worker);
}

/* give_next: the slot goes to the open worker that would still have the fewest for its speed. */
static void give_next(const struct balance_input *in, int32_t *n_slot)
{
    int best = -1;
    for (int w = 0; w < in->n_worker; w++)
        if (is_open(in, n_slot, w) && (best < 0 || (n_slot[w] + 1) / in->worker[w].speed <
                                                       (n_slot[best] + 1) / in->worker[best].speed))
            best = w;
    if (best >= 0)
        n_slot[best]++;
}

/* share_out gives slots in proportion to speed to workers that have room and no number of their
 * own; what rounding leaves over goes one by one. */
static void share_out(const struct balance_input *in, int32_t *n_slot, int64_t left)
{
    for (int given = 1; given && left > 0;) {
        double power = 0;
        int64_t round = left;
        given = 0;
        for (int w = 0; w < in->n_worker; w++)
            power += is_open(in, n_slot, w) ? in->worker[w].speed : 0;
        for (int w = 0; w < in->n_worker; w++) {
            if (!is_open(in, n_slot, w))
                continue;
            int64_t part = (int64_t)((double)round * in->worker[w].speed / power);
            int64_t room = slots_max(in, w) - n_slot[w];
            part = part < room ? part : room;
            n_slot[w] += (int32_t)part;
            left -= part;
            given |= part > 0;
        }
    }
    for (; left > 0; left--)
        give_next(in, n_slot);
}

int balance_slots(const struct balance_input *in, int32_t *n_slot, struct err *err)
{
    int redundant = in->n_redundant > 0 ? in->n_redundant : 0;
    int64_t wanted = (int64_t)in->n_expert + redundant, fixed = 0, most = 0;
    for (int w = 0; w < in->n_worker; w++) {
        n_slot[w] = has_own(in, w) ? slots_max(in, w) : 0;
        fixed += n_slot[w];
        most += slots_max(in, w);
    }
    if (most < in->n_expert)
        return err_set(err, ERR_LIMIT,
                       "the workers hold %lld experts a layer together, the model has %d; add "
                       "workers or memory",
                       (long long)most, in->n_expert);
    if (most < wanted)
        return err_set(err, ERR_LIMIT,
                       "%d redundant experts need %lld slots a layer, the workers have %lld; ask "
                       "for at most %lld",
                       redundant, (long long)wanted, (long long)most,
                       (long long)(most - in->n_expert));
    if (fixed < wanted)
        share_out(in, n_slot, wanted - fixed);
    return 0;
}

/* The workers' slots together are at most their own numbers plus what is wanted. */
static size_t n_slot_bound(const struct balance_input *in)
{
    size_t n = (size_t)in->n_expert + (size_t)(in->n_redundant > 0 ? in->n_redundant : 0);
    for (int w = 0; w < in->n_worker; w++)
        n += (size_t)(has_own(in, w) ? slots_max(in, w) : 0);
    return n;
}

size_t balance_arena_bytes(const struct balance_input *in)
{
    size_t n_slot = n_slot_bound(in), e = (size_t)in->n_expert, w = (size_t)in->n_worker;
    size_t table = n_slot * (size_t)in->n_layer * 4 + (w + 1) * 4;
    /* What the hungriest strategy carves beside the table, rounded up. */
    size_t work = e * 64 + w * (64 + sizeof(struct balance_worker)) + n_slot * 24 +
                  (size_t)(in->n_domain > 0 ? in->n_domain : 0) * sizeof(double);
    return table + work + pack_space_bytes(in->n_expert, in->n_worker, (int)n_slot) +
           64 * ALIGN_BYTES;
}

int balance_table_carve(const struct balance_input *in, struct balance_table *out,
                        struct arena *mem, struct err *err)
{
    int rc = balance_check(in, err);
    if (rc)
        return rc;
    int32_t *begin = arena_alloc(mem, ((size_t)in->n_worker + 1) * 4);
    if (!begin)
        return err_set(err, ERR_NOMEM, "no memory for a table of %d workers", in->n_worker);
    rc = balance_slots(in, begin, err);
    if (rc)
        return rc;
    int32_t n_slot = 0;
    for (int w = 0; w <= in->n_worker; w++) {
        int32_t n = w < in->n_worker ? begin[w] : 0;
        begin[w] = n_slot;
        n_slot += n;
    }
    size_t cells = (size_t)n_slot * (size_t)in->n_layer;
    int32_t *expert = arena_alloc(mem, cells * 4);
    if (!expert)
        return err_set(err, ERR_NOMEM, "no memory for a table of %d layers x %d slots", in->n_layer,
                       n_slot);
    memset(expert, -1, cells * 4);
    *out = (struct balance_table){.n_layer = in->n_layer,
                                  .n_expert = in->n_expert,
                                  .n_worker = in->n_worker,
                                  .n_slot = n_slot,
                                  .begin = begin,
                                  .expert = expert};
    return 0;
}

int32_t *balance_row(const struct balance_table *table, int layer)
{
    return table->expert + (size_t)layer * (size_t)table->n_slot;
}

int balance_n_copy(const struct balance_input *in, const struct balance_table *table)
{
    int64_t wanted = in->n_redundant < 0 ? table->n_slot : (int64_t)in->n_expert + in->n_redundant;
    return wanted < table->n_slot ? (int)wanted : table->n_slot;
}

static int longest_run(const struct placement *p, int worker)
{
    int most = 0;
    const int32_t *holder;
    for (int layer = 0; layer < placement_n_layer(p); layer++) {
        int n = 0;
        for (int e = 0; e < placement_n_expert(p); e++)
            for (int i = 0, k = placement_holders(p, layer, e, &holder); i < k; i++)
                n += holder[i] == worker;
        most = n > most ? n : most;
    }
    return most;
}

/* table_fill: `filled` [n_worker] counts a layer's slots as they are taken. */
static int table_fill(const struct placement *p, struct balance_table *t, int32_t *filled,
                      struct err *err)
{
    const int32_t *holder;
    for (int layer = 0; layer < t->n_layer; layer++) {
        memset(filled, 0, (size_t)t->n_worker * 4);
        for (int e = 0; e < t->n_expert; e++)
            for (int i = 0, k = placement_holders(p, layer, e, &holder); i < k; i++) {
                if (holder[i] >= t->n_worker)
                    return err_set(err, ERR_USAGE, "the placement names worker %d of %d", holder[i],
                                   t->n_worker);
                int32_t w = holder[i], at = t->begin[w] + filled[w]++;
                if (at >= t->begin[w + 1])
                    return err_set(err, ERR_USAGE,
                                   "worker %d holds %d experts in layer %d, more than its %d slots",
                                   w, filled[w], layer, t->begin[w + 1] - t->begin[w]);
                balance_row(t, layer)[at] = e;
            }
    }
    return 0;
}

int balance_table_from(const struct placement *p, int n_worker, struct balance_table *out,
                       struct arena *mem, struct err *err)
{
    struct balance_table t = {
        .n_layer = placement_n_layer(p), .n_expert = placement_n_expert(p), .n_worker = n_worker};
    if (n_worker < 1 || n_worker > LIMIT_WORKERS)
        return err_set(err, ERR_USAGE, "%d workers; a placement needs 1 to %d", n_worker,
                       LIMIT_WORKERS);
    t.begin = arena_alloc(mem, ((size_t)n_worker + 1) * 4);
    int32_t *filled = arena_alloc(mem, (size_t)n_worker * 4);
    if (!t.begin || !filled)
        return err_set(err, ERR_NOMEM, "no memory for a table of %d workers", n_worker);
    for (int w = 0; w < n_worker; w++) {
        t.begin[w] = t.n_slot;
        t.n_slot += longest_run(p, w);
    }
    t.begin[n_worker] = t.n_slot;
    size_t cells = (size_t)t.n_slot * (size_t)t.n_layer;
    t.expert = arena_alloc(mem, cells * 4);
    if (!t.expert)
        return err_set(err, ERR_NOMEM, "no memory for a table of %d layers x %d slots", t.n_layer,
                       t.n_slot);
    memset(t.expert, -1, cells * 4);
    int rc = table_fill(p, &t, filled, err);
    if (rc == 0)
        *out = t;
    return rc;
}

int balance_to_placement(const struct balance_table *table, struct placement **out, struct err *err)
{
    struct placement *p;
    int rc = placement_create(table->n_layer, table->n_expert, &p, err);
    for (int layer = 0; rc == 0 && layer < table->n_layer; layer++)
        for (int w = 0; rc == 0 && w < table->n_worker; w++)
            for (int s = table->begin[w]; rc == 0 && s < table->begin[w + 1]; s++) {
                int32_t expert = balance_row(table, layer)[s];
                if (expert >= 0 && (rc = placement_add(p, layer, expert, w, err)) != 0)
                    placement_destroy(p);
            }
    if (rc == 0)
        *out = p;
    return rc;
}
