/* pack: copies, and the heaviest first to whoever would end first (Graham's longest processing time
 * rule, with speeds and a limit of slots). Bins of one speed are a class with a heap by work: the
 * best bin of a class is its top, so a copy costs a look at each class, not at each bin. */
#include "router/pack_space.h"

#include <string.h>

#define ALIGN_BYTES  64
#define CLOSE_ENOUGH 1e-3 /* over the mean: not worth another swap */

size_t pack_space_bytes(int n_expert, int n_worker, int n_slot)
{
    size_t e = (size_t)n_expert, w = (size_t)n_worker, s = (size_t)n_slot;
    return sizeof(struct pack_space) + (2 * e + s + 6 * w) * 4 + (e + 2 * w) * 8 + 16 * ALIGN_BYTES;
}

struct pack_space *pack_space_carve(int n_expert, int n_worker, int n_slot, struct arena *mem)
{
    size_t e = (size_t)n_expert, w = (size_t)n_worker, s = (size_t)n_slot;
    struct pack_space *space = arena_zalloc(mem, sizeof(*space));
    if (!space)
        return NULL;
    space->copies = arena_alloc(mem, e * 4);
    space->order = arena_alloc(mem, s * 4);
    space->heap = arena_alloc(mem, (e > w ? e : w) * 4);
    space->taken = arena_alloc(mem, w * 4);
    space->filled = arena_alloc(mem, w * 4);
    space->class_of = arena_alloc(mem, w * 4);
    space->class_begin = arena_alloc(mem, w * 4);
    space->class_n = arena_alloc(mem, w * 4);
    space->each = arena_alloc(mem, e * 8);
    space->work = arena_alloc(mem, w * 8);
    space->pace = arena_alloc(mem, w * 8);
    /* An arena that is full stays full for pieces as large, not for smaller ones: look at all. */
    int whole = space->copies && space->order && space->heap && space->taken && space->filled &&
                space->class_of && space->class_begin && space->class_n && space->each &&
                space->work && space->pace;
    return whole ? space : NULL;
}

/* A heap of items with the greatest key at its top; equal keys: the lower id. */

static int above(const double *key, int32_t a, int32_t b)
{
    return key[a] > key[b] || (key[a] == key[b] && a < b);
}

static void sink(int32_t *heap, int n, int at, const double *key)
{
    int32_t moved = heap[at];
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && above(key, heap[child + 1], heap[child]))
            child++;
        if (!above(key, heap[child], moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void heapify(int32_t *heap, int n, const double *key)
{
    for (int i = n / 2 - 1; i >= 0; i--)
        sink(heap, n, i, key);
}

/* copies_choose: an expert that every bin holds already gets no further copy: its key falls below
 * all others. */
static void copies_choose(const struct pack *p, struct pack_space *space)
{
    int32_t *heap = space->heap;
    for (int i = 0; i < p->n_item; i++) {
        heap[i] = p->item[i];
        space->copies[p->item[i]] = 1;
        space->each[p->item[i]] = p->weight[p->item[i]];
    }
    heapify(heap, p->n_item, space->each);
    for (int left = p->n_copy - p->n_item; left > 0; left--) {
        int32_t expert = heap[0];
        if (space->each[expert] < 0)
            break;
        int n = ++space->copies[expert];
        space->each[expert] = n < p->n_bin ? p->weight[expert] / n : -1;
        sink(heap, p->n_item, 0, space->each);
    }
    for (int i = 0; i < p->n_item; i++)
        space->each[p->item[i]] = p->weight[p->item[i]] / space->copies[p->item[i]];
}

/* falling: a key that is smaller the larger a load is. The bits of a float that is not negative
 * order as its value does; 24 of them tell loads apart to one in 32768, which is enough here. */
static uint32_t falling(double load)
{
    float narrow = (float)load;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof(bits));
    return ~bits >> 7 & 0xFFFFFF;
}

/* order_items: heaviest copy first, equal ones in the items' order, into order [n_item]: a radix
 * sort, three bytes of the key from the lowest up. */
static void order_items(const struct pack *p, struct pack_space *space)
{
    int32_t *from = space->heap, *to = space->order;
    memcpy(from, p->item, (size_t)p->n_item * sizeof(*from));
    for (int shift = 0; shift < 24; shift += 8) {
        int32_t at[257] = {0};
        for (int i = 0; i < p->n_item; i++)
            at[(falling(space->each[from[i]]) >> shift & 255) + 1]++;
        for (int i = 0; i < 256; i++)
            at[i + 1] += at[i];
        for (int i = 0; i < p->n_item; i++)
            to[at[falling(space->each[from[i]]) >> shift & 255]++] = from[i];
        int32_t *swap = from;
        from = to;
        to = swap;
    }
}

/* lighter: the order of a class's heap; less work first, then the lower bin. */
static int lighter(const struct pack_space *space, int32_t a, int32_t b)
{
    return space->work[a] < space->work[b] || (space->work[a] == space->work[b] && a < b);
}

/* class_sink puts the bin at a class's top where it belongs. */
static void class_sink(struct pack_space *space, int class)
{
    int32_t *heap = space->heap + space->class_begin[class], moved = heap[0];
    int n = space->class_n[class], at = 0;
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && lighter(space, heap[child + 1], heap[child]))
            child++;
        if (!lighter(space, heap[child], moved))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* class_pop takes the top off. */
static void class_pop(struct pack_space *space, int class)
{
    int32_t *heap = space->heap + space->class_begin[class];
    heap[0] = heap[--space->class_n[class]];
    class_sink(space, class);
}

static void class_push(struct pack_space *space, int32_t bin)
{
    int class = space->class_of[bin], at = space->class_n[class]++;
    int32_t *heap = space->heap + space->class_begin[class];
    for (; at > 0 && lighter(space, bin, heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = bin;
}

/* classes_make sorts bins by speed (by insertion: there are few speeds, mostly in order) and cuts
 * them into classes; a bin without slots is in none. Returns how many classes there are. */
static int classes_make(const struct pack *p, struct pack_space *space)
{
    int n_class = 0, n = 0;
    for (int bin = 0; bin < p->n_bin; bin++) {
        int n_slot, at = n;
        pack_slots(p, bin, &n_slot);
        if (n_slot == 0)
            continue;
        for (; at > 0 && space->pace[space->heap[at - 1]] > space->pace[bin]; at--)
            space->heap[at] = space->heap[at - 1];
        space->heap[at] = bin;
        n++;
    }
    for (int i = 0; i < n; i++) {
        if (i == 0 || space->pace[space->heap[i]] != space->pace[space->heap[i - 1]]) {
            space->class_begin[n_class] = i;
            space->class_n[n_class++] = 0;
        }
        space->class_of[space->heap[i]] = n_class - 1;
        space->class_n[n_class - 1]++; /* all work is 0: ascending ids are a heap */
    }
    return n_class;
}

static void bins_clear(const struct pack *p, struct pack_space *space)
{
    for (int bin = 0; bin < p->n_bin; bin++) {
        int n;
        int32_t *slot = pack_slots(p, bin, &n);
        for (int i = 0; i < n; i++)
            slot[i] = -1;
        space->filled[bin] = 0;
        space->work[bin] = 0;
        space->pace[bin] = 1 / p->worker[p->bin[bin]].speed;
    }
}

/* first_class: the one whose lightest bin would end first with one more copy; -1: all are full. */
static int first_class(const struct pack_space *space, int n_class, double load)
{
    int best = -1;
    double best_end = 0;
    for (int class = 0; class < n_class; class ++) {
        if (space->class_n[class] == 0)
            continue;
        int32_t bin = space->heap[space->class_begin[class]];
        double end = (space->work[bin] + load) * space->pace[bin];
        if (best < 0 || end < best_end) {
            best = class;
            best_end = end;
        }
    }
    return best;
}

/* put_copy: into the next slot of a bin; returns whether the bin has room for more. */
static int put_copy(const struct pack *p, struct pack_space *space, int32_t bin, int32_t expert)
{
    int n;
    int32_t *slot = pack_slots(p, bin, &n);
    slot[space->filled[bin]++] = expert;
    space->work[bin] += space->each[expert];
    return space->filled[bin] < n;
}

/* place_expert: each copy to the bin that would end first. Bins that have one stay off the heaps
 * until the last copy is placed; copies for which no bin is left are given up. */
static void place_expert(const struct pack *p, struct pack_space *space, int n_class,
                         int32_t expert)
{
    int n_taken = 0, n_copy = space->copies[expert];
    for (int copy = 0; copy < n_copy; copy++) {
        int class = first_class(space, n_class, space->each[expert]);
        if (class < 0)
            break;
        int32_t bin = space->heap[space->class_begin[class]];
        int more = put_copy(p, space, bin, expert);
        if (more && n_copy == 1) {
            class_sink(space, class);
            return;
        }
        class_pop(space, class);
        if (more)
            space->taken[n_taken++] = bin;
    }
    for (int i = 0; i < n_taken; i++)
        class_push(space, space->taken[i]);
}

void pack_weigh(const struct pack *p, struct pack_space *space)
{
    for (int i = 0; i < p->n_item; i++)
        space->copies[p->item[i]] = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int bin = 0; bin < p->n_bin; bin++) {
            int n;
            const int32_t *slot = pack_slots(p, bin, &n);
            space->work[bin] = 0;
            space->pace[bin] = 1 / p->worker[p->bin[bin]].speed;
            for (int i = 0; i < n; i++) {
                if (slot[i] < 0)
                    continue;
                if (pass == 0)
                    space->copies[slot[i]]++;
                else
                    space->work[bin] += space->each[slot[i]];
            }
        }
        for (int i = 0; pass == 0 && i < p->n_item; i++) {
            int32_t expert = p->item[i];
            int n = space->copies[expert] > 0 ? space->copies[expert] : 1;
            space->each[expert] = p->weight[expert] / n;
        }
    }
}

/* fill_gaps: a copy that was given up leaves a slot, which whoever has most load a copy and is not
 * there yet gets. */
static void fill_gaps(const struct pack *p, struct pack_space *space, int n_gap)
{
    for (int bin = 0; bin < p->n_bin && n_gap > 0; bin++) {
        int n;
        int32_t *slot = pack_slots(p, bin, &n);
        for (; space->filled[bin] < n && n_gap > 0; n_gap--) {
            int32_t best = -1;
            for (int i = 0; i < p->n_item; i++) {
                int32_t expert = p->item[i];
                if ((best < 0 || space->each[expert] > space->each[best]) &&
                    !pack_holds(slot, space->filled[bin], expert))
                    best = expert;
            }
            if (best < 0)
                break;
            slot[space->filled[bin]++] = best;
            space->each[best] = p->weight[best] / ++space->copies[best];
        }
    }
}

void pack_solve(const struct pack *p, struct pack_space *space)
{
    int n_placed = 0;
    copies_choose(p, space);
    order_items(p, space);
    bins_clear(p, space);
    int n_class = classes_make(p, space);
    for (int i = 0; i < p->n_item; i++)
        place_expert(p, space, n_class, space->order[i]);
    for (int bin = 0; bin < p->n_bin; bin++)
        n_placed += space->filled[bin];
    if (n_placed < p->n_copy) {
        pack_weigh(p, space);
        fill_gaps(p, space, p->n_copy - n_placed);
    }
    pack_weigh(p, space);
    pack_refine(p, space, CLOSE_ENOUGH);
}
