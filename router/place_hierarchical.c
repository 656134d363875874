/* place_hierarchical: groups of experts to hosts first, then each host's experts, with its part of
 * the copies, to its own workers (pack.h). An expert's copies all lie on one host, so a gate that
 * is limited to a few groups (DeepSeek-V3) sends a row to few hosts. Without groups each expert is
 * one. Hosts may differ in workers, slots and speed. */
#include "router/balance_table.h"
#include "router/pack.h"
#include "router/place.h"

#include <string.h>

struct hosts {
    int n_host, n_group, n_each; /* n_each: experts a group */
    int32_t *of_worker;          /* [n_worker] index of its host */
    int32_t *bin;                /* [n_worker] workers, host by host */
    int32_t *bin_begin;          /* [n_host + 1] */
    int32_t *n_slot;             /* [n_host] */
    int32_t *n_item;             /* [n_host] experts of this layer */
    double *speed, *work;        /* [n_host] */
    int32_t *group_host;         /* [n_group] */
    double *group_load;          /* [n_group] */
    int32_t *item;               /* [n_expert] the experts of one host */
};

static int hosts_carve(struct hosts *h, const struct balance_input *in, struct arena *mem)
{
    size_t w = (size_t)in->n_worker, g = (size_t)h->n_group;
    h->of_worker = arena_alloc(mem, w * 4);
    h->bin = arena_alloc(mem, w * 4);
    h->bin_begin = arena_alloc(mem, (w + 1) * 4);
    h->n_slot = arena_zalloc(mem, w * 4);
    h->n_item = arena_alloc(mem, w * 4);
    h->speed = arena_zalloc(mem, w * 8);
    h->work = arena_alloc(mem, w * 8);
    h->group_host = arena_alloc(mem, g * 4);
    h->group_load = arena_alloc(mem, g * 8);
    h->item = arena_alloc(mem, (size_t)in->n_expert * 4);
    return h->of_worker && h->bin && h->bin_begin && h->n_slot && h->n_item && h->speed &&
           h->work && h->group_host && h->group_load && h->item;
}

/* hosts_number: hosts get indices in the order in which they first appear. */
static void hosts_number(struct hosts *h, const struct balance_input *in,
                         const struct balance_table *table)
{
    int n = 0;
    for (int w = 0; w < in->n_worker; w++) {
        int same = 0;
        while (same < w && in->worker[same].host != in->worker[w].host)
            same++;
        h->of_worker[w] = same < w ? h->of_worker[same] : h->n_host++;
        h->n_slot[h->of_worker[w]] += table->begin[w + 1] - table->begin[w];
        h->speed[h->of_worker[w]] += in->worker[w].speed;
    }
    for (int host = 0; host < h->n_host; host++) {
        h->bin_begin[host] = n;
        for (int w = 0; w < in->n_worker; w++)
            if (h->of_worker[w] == host)
                h->bin[n++] = w;
    }
    h->bin_begin[h->n_host] = n;
}

/* next_group: the heaviest that has no host yet. */
static int next_group(const struct hosts *h)
{
    int best = -1;
    for (int g = 0; g < h->n_group; g++)
        if (h->group_host[g] < 0 && (best < 0 || h->group_load[g] > h->group_load[best]))
            best = g;
    return best;
}

static int groups_place(struct hosts *h, const double *load, int layer, struct err *err)
{
    memset(h->n_item, 0, (size_t)h->n_host * 4);
    memset(h->work, 0, (size_t)h->n_host * 8);
    for (int g = 0; g < h->n_group; g++) {
        h->group_host[g] = -1;
        h->group_load[g] = 0;
        for (int i = 0; i < h->n_each; i++)
            h->group_load[g] += load[g * h->n_each + i];
    }
    for (int left = h->n_group; left > 0; left--) {
        int g = next_group(h), best = -1;
        double best_end = 0;
        for (int host = 0; host < h->n_host; host++) {
            double end = (h->work[host] + h->group_load[g]) / h->speed[host];
            if (h->n_item[host] + h->n_each <= h->n_slot[host] && (best < 0 || end < best_end)) {
                best = host;
                best_end = end;
            }
        }
        if (best < 0)
            return err_set(err, ERR_USAGE,
                           "layer %d: no host has %d slots left for a group of experts; use more "
                           "slots, or more groups",
                           layer, h->n_each);
        h->group_host[g] = best;
        h->work[best] += h->group_load[g];
        h->n_item[best] += h->n_each;
    }
    return 0;
}

/* host_copies: the host's part of the copies beyond one of each, in proportion to its free slots.
 */
static int host_copies(const struct hosts *h, int host, int n_extra, int n_free)
{
    int free_slots = h->n_slot[host] - h->n_item[host], n_bin;
    int64_t extra = n_free > 0 ? ((int64_t)n_extra * free_slots + n_free - 1) / n_free : 0;
    n_bin = h->bin_begin[host + 1] - h->bin_begin[host];
    int64_t most = (int64_t)h->n_item[host] * (n_bin - 1);
    extra = extra < free_slots ? extra : free_slots;
    return h->n_item[host] + (int)(extra < most ? extra : most);
}

static void place_layer(struct hosts *h, const struct balance_input *in,
                        const struct balance_table *table, int layer, struct pack_space *space)
{
    int n_extra = balance_n_copy(in, table) - in->n_expert, n_free = table->n_slot - in->n_expert;
    for (int host = 0; host < h->n_host; host++) {
        int n = 0, n_copy = host_copies(h, host, n_extra, n_free);
        for (int e = 0; e < in->n_expert; e++)
            if (h->group_host[e / h->n_each] == host)
                h->item[n++] = e;
        int left = n_free - (h->n_slot[host] - n);
        struct pack p = {.n_item = n,
                         .item = h->item,
                         .weight = in->load + (size_t)layer * (size_t)in->n_expert,
                         .n_bin = h->bin_begin[host + 1] - h->bin_begin[host],
                         .bin = h->bin + h->bin_begin[host],
                         .worker = in->worker,
                         .table = table,
                         .n_copy = n_copy,
                         .slot = balance_row(table, layer)};
        if (n > 0)
            pack_solve(&p, space);
        n_extra -= n_copy - n;
        n_free = left;
    }
}

int place_hierarchical(const struct balance_input *in, struct balance_table *out, struct arena *mem,
                       struct err *err)
{
    struct balance_table table;
    struct hosts h = {.n_group = in->n_group > 0 ? in->n_group : in->n_expert};
    if (in->n_group > in->n_expert || in->n_expert % h.n_group != 0)
        return err_set(err, ERR_USAGE, "%d groups do not divide %d experts", in->n_group,
                       in->n_expert);
    h.n_each = in->n_expert / h.n_group;
    int rc = balance_table_carve(in, &table, mem, err);
    if (rc)
        return rc;
    size_t mark = arena_mark(mem);
    struct pack_space *space = pack_space_carve(in->n_expert, in->n_worker, table.n_slot, mem);
    if (!space || !hosts_carve(&h, in, mem)) {
        arena_release(mem, mark);
        return err_set(err, ERR_NOMEM, "no memory to balance %d experts over %d workers",
                       in->n_expert, in->n_worker);
    }
    hosts_number(&h, in, &table);
    for (int layer = 0; rc == 0 && layer < in->n_layer; layer++) {
        rc = groups_place(&h, in->load + (size_t)layer * (size_t)in->n_expert, layer, err);
        if (rc == 0)
            place_layer(&h, in, &table, layer, space);
    }
    arena_release(mem, mark);
    if (rc == 0)
        *out = table;
    return rc;
}
