/* plan: two passes over the slots. The first counts assignments an expert and chooses who computes
 * them (router/replica.c); that fixes where every worker's and every segment's assignments lie. The
 * second walks rows in ascending order and drops each slot at its share's cursor, so segments come
 * out sorted by row without sorting.
 *
 * Experts with one holder are settled first, then those with several, the most rows first, and
 * these then again in the light of the others: what can still be chosen fills what could not. On
 * real traffic the second look halves what a step waits for (bench/balancer_bench).
 *
 * Invariants, once built:
 * 1. every planned slot with an expert is in exactly one part's assign_slot or in orphan_slot;
 * 2. an expert's slots are all in one part, or (split_rows) in runs of ascending slots, one a part;
 * 3. a part's rows are ascending and each appears once. */
#include "router/plan.h"
#include "base/limits.h"
#include "router/replica.h"

#include <string.h>

#define ALIGN_BYTES 64 /* what arena_alloc rounds to */

/* The pieces a plan is carved into; one table sizes them and is carved from. */
enum piece {
    PIECE_PARTS,
    PIECE_ROWS,
    PIECE_SEG_EXPERT,
    PIECE_SEG_COUNT,
    PIECE_ASSIGN_ROW,
    PIECE_ASSIGN_SLOT,
    PIECE_ORPHANS,
    PIECE_WANTED,
    PIECE_SHARES,
    PIECE_EXPERT_COUNT,
    PIECE_EXPERT_SHARE,
    PIECE_EXPERT_N_SHARE,
    PIECE_EXPERT_NEXT,
    PIECE_WORKER_COUNT,
    PIECE_WORKER_PART,
    PIECE_COUNT
};

struct work {
    const struct plan_input *in;
    int n_expert, n_slot, n_share;
    uint8_t *wanted;         /* [n_slot] */
    struct share *share;     /* [n_share] who computes how many of an expert's slots */
    int32_t *expert_count;   /* [n_expert] planned slots */
    int32_t *expert_share;   /* [n_expert] its first share; assign_slots moves it on */
    int32_t *expert_n_share; /* [n_expert] 0: nobody holds it */
    int32_t *expert_next;    /* [n_expert] next of its list, see choose_holders */
    int32_t *worker_count;   /* [n_worker] assignments in this plan */
    int32_t *worker_part;    /* [n_worker] index of its part */
    struct plan out;
    void *piece[PIECE_COUNT];
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void piece_sizes(size_t n_slot, size_t n_expert, size_t n_worker, size_t bytes[PIECE_COUNT])
{
    size_t n_share = n_expert + n_slot / PLAN_SPLIT_ROWS_MIN;
    size_t n_part = least(n_worker, least(n_slot, n_share));
    for (int i = PIECE_ROWS; i <= PIECE_ORPHANS; i++)
        bytes[i] = n_slot * sizeof(int32_t);
    bytes[PIECE_PARTS] = n_part * sizeof(struct plan_part);
    bytes[PIECE_SEG_EXPERT] = bytes[PIECE_SEG_COUNT] = n_share * sizeof(int32_t);
    bytes[PIECE_WANTED] = n_slot;
    bytes[PIECE_SHARES] = n_share * sizeof(struct share);
    for (int i = PIECE_EXPERT_COUNT; i <= PIECE_EXPERT_NEXT; i++)
        bytes[i] = n_expert * sizeof(int32_t);
    bytes[PIECE_WORKER_COUNT] = bytes[PIECE_WORKER_PART] = n_worker * sizeof(int32_t);
}

size_t plan_arena_bytes(int n_row, int top_k, int n_expert, int n_worker)
{
    size_t bytes[PIECE_COUNT], sum = ALIGN_BYTES;
    piece_sizes((size_t)n_row * (size_t)top_k, (size_t)n_expert, (size_t)n_worker, bytes);
    for (int i = 0; i < PIECE_COUNT; i++)
        sum += (bytes[i] + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return sum;
}

static int carve(struct work *w, struct arena *mem, struct err *err)
{
    size_t bytes[PIECE_COUNT];
    size_t n_slot = (size_t)w->n_slot, n_worker = (size_t)w->in->n_worker;
    piece_sizes(n_slot, (size_t)w->n_expert, n_worker, bytes);
    for (int i = 0; i < PIECE_COUNT; i++) {
        w->piece[i] = arena_alloc(mem, bytes[i]);
        if (!w->piece[i])
            return err_set(
                err, ERR_NOMEM,
                "a plan of %d rows x top-%d for %d workers needs %zu bytes of its arena",
                w->in->n_row, w->in->top_k, w->in->n_worker,
                plan_arena_bytes(w->in->n_row, w->in->top_k, w->n_expert, w->in->n_worker));
    }
    w->out.part = w->piece[PIECE_PARTS];
    w->out.orphan_slot = w->piece[PIECE_ORPHANS];
    w->wanted = memset(w->piece[PIECE_WANTED], 0, n_slot);
    w->expert_count = memset(w->piece[PIECE_EXPERT_COUNT], 0, bytes[PIECE_EXPERT_COUNT]);
    w->share = w->piece[PIECE_SHARES];
    w->expert_share = w->piece[PIECE_EXPERT_SHARE];
    w->expert_n_share = memset(w->piece[PIECE_EXPERT_N_SHARE], 0, bytes[PIECE_EXPERT_N_SHARE]);
    w->expert_next = w->piece[PIECE_EXPERT_NEXT];
    w->worker_count = memset(w->piece[PIECE_WORKER_COUNT], 0, bytes[PIECE_WORKER_COUNT]);
    w->worker_part = w->piece[PIECE_WORKER_PART];
    return 0;
}

static int check_input(const struct plan_input *in, struct err *err)
{
    if (in->n_row < 0 || in->n_row > LIMIT_ROWS || in->top_k < 1 || in->top_k > LIMIT_TOP_K)
        return err_set(err, ERR_LIMIT, "a plan of %d rows x top-%d; at most %d x %d are possible",
                       in->n_row, in->top_k, LIMIT_ROWS, LIMIT_TOP_K);
    if (in->n_worker < 0 || in->n_worker > LIMIT_WORKERS)
        return err_set(err, ERR_LIMIT, "a plan for %d workers; at most %d are possible",
                       in->n_worker, LIMIT_WORKERS);
    if (in->layer < 0 || in->layer >= placement_n_layer(in->placement))
        return err_set(err, ERR_LIMIT, "a plan for layer %d of %d", in->layer,
                       placement_n_layer(in->placement));
    return 0;
}

/* mark_wanted: a re-plan names slots in any order; from here on they are taken ascending. */
static int mark_wanted(struct work *w, struct err *err)
{
    if (!w->in->only_slot) {
        memset(w->wanted, 1, (size_t)w->n_slot);
        return 0;
    }
    for (int i = 0; i < w->in->n_only; i++) {
        int32_t slot = w->in->only_slot[i];
        if (slot < 0 || slot >= w->n_slot)
            return err_set(err, ERR_LIMIT, "a plan names slot %d of %d", slot, w->n_slot);
        w->wanted[slot] = 1;
    }
    return 0;
}

static int count_experts(struct work *w, struct err *err)
{
    for (int slot = 0; slot < w->n_slot; slot++) {
        int32_t expert = w->in->slot_expert[slot];
        if (expert >= w->n_expert)
            return err_set(err, ERR_LIMIT, "slot %d names expert %d of %d", slot, expert,
                           w->n_expert);
        if (expert < 0)
            w->wanted[slot] = 0;
        if (w->wanted[slot])
            w->expert_count[expert]++;
    }
    return 0;
}

static int check_holders(const struct work *w, const int32_t *holder, int n, struct err *err)
{
    for (int i = 0; i < n; i++)
        if (holder[i] >= w->in->n_worker)
            return err_set(err, ERR_LIMIT, "the placement names worker %d, the plan has %d",
                           holder[i], w->in->n_worker);
    return 0;
}

/* settle decides who computes an expert: for the first time, where its shares get room of their own
 * (as many as it can ever be cut into), or again. */
static void settle(struct work *w, int expert, const int32_t *holder, int n_holder, int again)
{
    if (!again) {
        w->expert_share[expert] = w->n_share;
        w->n_share += replica_ways(w->in, w->expert_count[expert], n_holder);
    }
    struct share *share = w->share + w->expert_share[expert];
    for (int i = 0; again && i < w->expert_n_share[expert]; i++)
        w->worker_count[share[i].worker] -= share[i].count;
    int n = replica_share(w->in, expert, w->expert_count[expert], holder, n_holder, w->worker_count,
                          share);
    w->expert_n_share[expert] = n;
    for (int i = 0; i < n; i++)
        w->worker_count[share[i].worker] += share[i].count;
}

static int log2_floor(uint32_t x)
{
    return 31 - __builtin_clz(x);
}

/* settle_passes: the first expert to choose did not know what the others would; choices that look
 * at load are made again twice, each time among the others' latest. */
static int settle_passes(const struct plan_input *in)
{
    return in->choice == REPLICA_LEAST_LOADED || in->choice == REPLICA_BY_SPEED ? 3 : 1;
}

/* choose_holders: experts with a choice wait in a list for each power of two of their rows, which
 * is order enough to settle the largest first without sorting. */
static int choose_holders(struct work *w, struct err *err)
{
    int32_t waiting[32];
    const int32_t *holder;
    memset(waiting, -1, sizeof(waiting));
    for (int expert = w->n_expert - 1; expert >= 0; expert--) {
        if (w->expert_count[expert] == 0)
            continue;
        int n = placement_holders(w->in->placement, w->in->layer, expert, &holder);
        int rc = check_holders(w, holder, n, err);
        if (rc)
            return rc;
        if (n == 1)
            settle(w, expert, holder, n, 0);
        if (n < 2)
            continue;
        int32_t *list = &waiting[log2_floor((uint32_t)w->expert_count[expert])];
        w->expert_next[expert] = *list;
        *list = expert;
    }
    for (int pass = 0; pass < settle_passes(w->in); pass++)
        for (int i = 31; i >= 0; i--)
            for (int32_t expert = waiting[i]; expert >= 0; expert = w->expert_next[expert]) {
                int n = placement_holders(w->in->placement, w->in->layer, expert, &holder);
                settle(w, expert, holder, n, pass > 0);
            }
    return 0;
}

/* lay_parts cuts the shared arrays into one stretch a worker; a worker never has more rows than
 * assignments, nor more segments. */
static void lay_parts(struct work *w)
{
    int32_t *rows = w->piece[PIECE_ROWS];
    int32_t *assign_row = w->piece[PIECE_ASSIGN_ROW], *assign_slot = w->piece[PIECE_ASSIGN_SLOT];
    int at = 0;
    for (int worker = 0; worker < w->in->n_worker; worker++) {
        int n = w->worker_count[worker];
        if (n == 0)
            continue;
        w->worker_part[worker] = w->out.n_part;
        w->out.part[w->out.n_part++] = (struct plan_part){
            .worker = worker,
            .row = rows + at,
            .n_assign = n,
            .assign_row = assign_row + at,
            .assign_slot = assign_slot + at,
        };
        at += n;
    }
}

static struct plan_part *part_of(struct work *w, int32_t worker)
{
    return &w->out.part[w->worker_part[worker]];
}

/* lay_segments: count a worker's segments, cut the arrays, then fill in ascending order of expert;
 * a segment's assignments begin where those of its worker end so far. */
static void lay_segments(struct work *w)
{
    int32_t *seg_expert = w->piece[PIECE_SEG_EXPERT], *seg_count = w->piece[PIECE_SEG_COUNT];
    for (int expert = 0; expert < w->n_expert; expert++)
        for (int i = 0; i < w->expert_n_share[expert]; i++)
            part_of(w, w->share[w->expert_share[expert] + i].worker)->n_seg++;
    int at = 0;
    for (int i = 0; i < w->out.n_part; i++) {
        struct plan_part *part = &w->out.part[i];
        part->seg_expert = seg_expert + at;
        part->seg_count = seg_count + at;
        at += part->n_seg;
        part->n_seg = 0;
        w->worker_count[part->worker] = 0;
    }
    for (int expert = 0; expert < w->n_expert; expert++) {
        for (int i = 0; i < w->expert_n_share[expert]; i++) {
            struct share *share = &w->share[w->expert_share[expert] + i];
            struct plan_part *part = part_of(w, share->worker);
            part->seg_expert[part->n_seg] = expert;
            part->seg_count[part->n_seg++] = share->count;
            share->cursor = w->worker_count[share->worker];
            w->worker_count[share->worker] += share->count;
        }
    }
}

/* next_share: the share that an expert's next slot belongs to; full ones are left behind. */
static struct share *next_share(struct work *w, int32_t expert)
{
    struct share *share = &w->share[w->expert_share[expert]];
    if (share->count == 0)
        share = &w->share[++w->expert_share[expert]];
    share->count--;
    return share;
}

static void assign_slots(struct work *w)
{
    for (int slot = 0; slot < w->n_slot; slot++) {
        if (!w->wanted[slot])
            continue;
        int32_t expert = w->in->slot_expert[slot];
        if (w->expert_n_share[expert] == 0) {
            w->out.orphan_slot[w->out.n_orphan++] = slot;
            continue;
        }
        struct share *share = next_share(w, expert);
        struct plan_part *part = part_of(w, share->worker);
        int32_t row = slot / w->in->top_k, at = share->cursor++;
        if (part->n_row == 0 || part->row[part->n_row - 1] != row)
            part->row[part->n_row++] = row;
        part->assign_row[at] = part->n_row - 1;
        part->assign_slot[at] = slot;
    }
}

static int build(struct work *w, struct err *err)
{
    int rc = mark_wanted(w, err);
    if (rc == 0)
        rc = count_experts(w, err);
    if (rc == 0)
        rc = choose_holders(w, err);
    if (rc)
        return rc;
    lay_parts(w);
    lay_segments(w);
    assign_slots(w);
    return 0;
}

int plan_build(struct plan *plan, const struct plan_input *in, struct arena *mem, struct err *err)
{
    int rc = check_input(in, err);
    if (rc)
        return rc;
    struct work w = {.in = in};
    w.n_expert = placement_n_expert(in->placement);
    w.n_slot = in->n_row * in->top_k;
    size_t mark = arena_mark(mem);
    rc = carve(&w, mem, err);
    if (rc == 0)
        rc = build(&w, err);
    if (rc) {
        arena_release(mem, mark);
        return rc;
    }
    *plan = w.out;
    return 0;
}
