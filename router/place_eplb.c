/* place_eplb: the published greedy balancer of DeepSeek (EPLB, github.com/deepseek-ai/EPLB), for
 * comparison, after its description: groups are packed to hosts; within a host the expert with the
 * most load a copy gets the next copy until the slots are full; the copies, heaviest first, go to
 * the worker with the least load that has a slot left. Where the groups do not divide over the
 * hosts all workers are one host (its global mode). It takes workers for alike, wants the same
 * number of slots on each, and may put two copies of an expert on one worker. Loads are 32-bit
 * floats, as in the publication, so that ties fall the same way. */
#include "router/balance_table.h"
#include "router/place.h"

struct eplb {
    int n_node, n_group, n_each; /* hosts, groups, experts a group */
    int gpu_a_node, slot_a_gpu;
    int32_t *order;       /* [most] items by falling weight */
    float *weight;        /* [most] what is packed */
    int32_t *pack, *rank; /* [most] where each item went, and its place there */
    float *pack_weight;   /* [n_worker] */
    int32_t *pack_n;      /* [n_worker] */
    int32_t *near;        /* [n_expert] experts, node by node */
    int32_t *copy;        /* [slots of a node] index into the node's experts */
    int32_t *n_copy;      /* [n_expert] copies of each of the node's experts */
};

static int carve(struct eplb *b, const struct balance_input *in, int n_slot, struct arena *mem)
{
    size_t most = (size_t)(n_slot > in->n_expert ? n_slot : in->n_expert);
    b->order = arena_alloc(mem, most * 4);
    b->weight = arena_alloc(mem, most * 4);
    b->pack = arena_alloc(mem, most * 4);
    b->rank = arena_alloc(mem, most * 4);
    b->pack_weight = arena_alloc(mem, (size_t)in->n_worker * 4);
    b->pack_n = arena_alloc(mem, (size_t)in->n_worker * 4);
    b->near = arena_alloc(mem, (size_t)in->n_expert * 4);
    b->copy = arena_alloc(mem, most * 4);
    b->n_copy = arena_alloc(mem, (size_t)in->n_expert * 4);
    return b->order && b->weight && b->pack && b->rank && b->pack_weight && b->pack_n && b->near &&
           b->copy && b->n_copy;
}

/* sort_falling: by insertion; equal weights keep their order. */
static void sort_falling(const float *weight, int32_t *order, int n)
{
    for (int i = 0; i < n; i++) {
        int k = i;
        for (; k > 0 && weight[order[k - 1]] < weight[i]; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
}

/* pack_balanced: n items of b->weight into n_pack packs of n / n_pack items each. */
static void pack_balanced(struct eplb *b, int n, int n_pack)
{
    int each = n / n_pack;
    sort_falling(b->weight, b->order, n);
    for (int i = 0; i < n_pack; i++) {
        b->pack_weight[i] = 0;
        b->pack_n[i] = 0;
    }
    for (int i = 0; i < n; i++) {
        int32_t item = each == 1 ? i : b->order[i];
        int best = each == 1 ? i : -1;
        for (int k = 0; each > 1 && k < n_pack; k++)
            if (b->pack_n[k] < each && (best < 0 || b->pack_weight[k] < b->pack_weight[best]))
                best = k;
        b->pack[item] = best;
        b->rank[item] = b->pack_n[best]++;
        b->pack_weight[best] += b->weight[item];
    }
}

/* order_by_node: which expert stands where once groups are packed to nodes. */
static void order_by_node(struct eplb *b, const double *load)
{
    for (int g = 0; g < b->n_group; g++) {
        b->weight[g] = 0;
        for (int i = 0; i < b->n_each; i++)
            b->weight[g] += (float)load[g * b->n_each + i];
    }
    pack_balanced(b, b->n_group, b->n_node);
    for (int g = 0; g < b->n_group; g++) {
        int first = (b->pack[g] * (b->n_group / b->n_node) + b->rank[g]) * b->n_each;
        for (int i = 0; i < b->n_each; i++)
            b->near[first + i] = g * b->n_each + i;
    }
}

/* replicate: copies of the n experts `near` of a node until there are n_slot. */
static void replicate(struct eplb *b, const double *load, const int32_t *near, int n, int n_slot)
{
    for (int i = 0; i < n; i++) {
        b->copy[i] = i;
        b->n_copy[i] = 1;
    }
    for (int s = n; s < n_slot; s++) {
        int most = 0;
        for (int i = 1; i < n; i++)
            if ((float)load[near[i]] / (float)b->n_copy[i] >
                (float)load[near[most]] / (float)b->n_copy[most])
                most = i;
        b->copy[s] = most;
        b->n_copy[most]++;
    }
}

static void place_layer(struct eplb *b, const double *load, int n_expert, int32_t *row)
{
    int n = n_expert / b->n_node, n_slot = b->gpu_a_node * b->slot_a_gpu;
    order_by_node(b, load);
    for (int node = 0; node < b->n_node; node++) {
        const int32_t *near = b->near + node * n;
        replicate(b, load, near, n, n_slot);
        for (int s = 0; s < n_slot; s++)
            b->weight[s] = (float)load[near[b->copy[s]]] / (float)b->n_copy[b->copy[s]];
        pack_balanced(b, n_slot, b->gpu_a_node);
        for (int s = 0; s < n_slot; s++)
            row[node * n_slot + b->pack[s] * b->slot_a_gpu + b->rank[s]] = near[b->copy[s]];
    }
}

/* count_nodes: hosts, if each has the same number of workers side by side; else 1. */
static int count_nodes(const struct balance_input *in)
{
    int n_host = 1, each;
    for (int w = 1; w < in->n_worker; w++)
        n_host += in->worker[w].host != in->worker[w - 1].host;
    if (in->n_worker % n_host != 0)
        return 1;
    each = in->n_worker / n_host;
    for (int w = 0; w < in->n_worker; w++)
        if (in->worker[w].host != in->worker[w / each * each].host)
            return 1;
    return n_host;
}

static int check(const struct balance_input *in, const struct balance_table *table, struct err *err)
{
    for (int w = 0; w < in->n_worker; w++)
        if (table->begin[w + 1] - table->begin[w] != table->begin[1])
            return err_set(err, ERR_USAGE,
                           "eplb needs the same number of slots on every worker; worker 0 has %d, "
                           "worker %d has %d",
                           table->begin[1], w, table->begin[w + 1] - table->begin[w]);
    if (in->n_group > 0 && in->n_expert % in->n_group != 0)
        return err_set(err, ERR_USAGE, "%d groups do not divide %d experts", in->n_group,
                       in->n_expert);
    return 0;
}

int place_eplb(const struct balance_input *in, struct balance_table *out, struct arena *mem,
               struct err *err)
{
    struct balance_table table;
    int rc = balance_table_carve(in, &table, mem, err);
    if (rc || (rc = check(in, &table, err)) != 0)
        return rc;
    struct eplb b = {.n_node = count_nodes(in), .n_group = in->n_group};
    if (b.n_group < 1 || b.n_group % b.n_node != 0)
        b.n_group = b.n_node = 1;
    b.n_each = in->n_expert / b.n_group;
    b.gpu_a_node = in->n_worker / b.n_node;
    b.slot_a_gpu = table.begin[1];
    size_t mark = arena_mark(mem);
    if (!carve(&b, in, table.n_slot, mem)) {
        arena_release(mem, mark);
        return err_set(err, ERR_NOMEM, "no memory to balance %d experts over %d workers",
                       in->n_expert, in->n_worker);
    }
    for (int layer = 0; layer < in->n_layer; layer++)
        place_layer(&b, in->load + (size_t)layer * (size_t)in->n_expert, in->n_expert,
                    balance_row(&table, layer));
    arena_release(mem, mark);
    *out = table;
    return 0;
}
