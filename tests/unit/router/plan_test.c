/* plan: small plans to the last number, and random ones against the invariants that plan.c states.
 */
#include "base/rng.h"
#include "router/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEED 99

#define assert_ints(actual, ...)                                                                   \
    do {                                                                                           \
        static const int32_t expected_[] = {__VA_ARGS__};                                          \
        assert_memory_equal(actual, expected_, sizeof(expected_));                                 \
    } while (0)

/* Experts 0 and 1 on worker 0, 2 and 3 on worker 2; 1 also on worker 2; nobody holds 4. */
static struct placement *small_placement(void)
{
    struct placement *p;
    static const int32_t low[] = {0, 1}, high[] = {1, 2, 3};
    assert_int_equal(placement_create(1, 5, &p, NULL), 0);
    assert_int_equal(placement_add_all(p, low, 2, 0, NULL), 0);
    assert_int_equal(placement_add_all(p, high, 3, 2, NULL), 0);
    return p;
}

static const int32_t small_slots[] = {3, 0, /* */ 1, 4, /* */ 0, 1, /* */ -1, 2};

static void plan_sends_each_row_once_and_sorts_by_expert_then_row(void **state)
{
    (void)state;
    struct placement *p = small_placement();
    struct arena mem;
    assert_int_equal(arena_init(&mem, plan_arena_bytes(4, 2, 5, 3)), 0);
    struct plan plan;
    struct plan_input in = {
        .placement = p, .n_row = 4, .top_k = 2, .slot_expert = small_slots, .n_worker = 3};
    assert_int_equal(plan_build(&plan, &in, &mem, NULL), 0);
    assert_int_equal(plan.n_part, 2);
    const struct plan_part *a = &plan.part[0], *b = &plan.part[1];
    assert_int_equal(a->worker, 0);
    assert_int_equal(a->n_row, 3);
    assert_ints(a->row, 0, 1, 2);
    assert_int_equal(a->n_seg, 2);
    assert_ints(a->seg_expert, 0, 1);
    assert_ints(a->seg_count, 2, 2);
    assert_int_equal(a->n_assign, 4);
    assert_ints(a->assign_row, 0, 2, 1, 2);
    assert_ints(a->assign_slot, 1, 4, 2, 5);
    assert_int_equal(b->worker, 2);
    assert_int_equal(b->n_row, 2);
    assert_ints(b->row, 0, 3);
    assert_int_equal(b->n_seg, 2);
    assert_ints(b->seg_expert, 2, 3);
    assert_ints(b->seg_count, 1, 1);
    assert_ints(b->assign_row, 1, 0);
    assert_ints(b->assign_slot, 7, 0);
    assert_int_equal(plan.n_orphan, 1);
    assert_ints(plan.orphan_slot, 3);
    arena_fini(&mem);
    placement_destroy(p);
}

static void plan_again_takes_only_the_slots_named_in_any_order(void **state)
{
    (void)state;
    struct placement *p = small_placement();
    placement_remove(p, -1, 0, 0);
    struct arena mem;
    assert_int_equal(arena_init(&mem, plan_arena_bytes(4, 2, 5, 3)), 0);
    struct plan plan;
    static const int32_t lost[] = {5, 4, 1, 2, 5};
    struct plan_input in = {.placement = p,
                            .n_row = 4,
                            .top_k = 2,
                            .slot_expert = small_slots,
                            .only_slot = lost,
                            .n_only = 5,
                            .n_worker = 3};
    assert_int_equal(plan_build(&plan, &in, &mem, NULL), 0);
    assert_int_equal(plan.n_part, 1);
    assert_int_equal(plan.part[0].worker, 2);
    assert_int_equal(plan.part[0].n_row, 2);
    assert_ints(plan.part[0].row, 1, 2);
    assert_int_equal(plan.part[0].n_seg, 1);
    assert_ints(plan.part[0].assign_row, 0, 1);
    assert_ints(plan.part[0].assign_slot, 2, 5);
    assert_int_equal(plan.n_orphan, 2);
    assert_ints(plan.orphan_slot, 1, 4);
    arena_fini(&mem);
    placement_destroy(p);
}

static void plan_least_loaded_counts_this_plan_and_the_load_before(void **state)
{
    (void)state;
    struct placement *p;
    assert_int_equal(placement_create(1, 3, &p, NULL), 0);
    for (int worker = 0; worker < 3; worker++)
        for (int expert = 0; expert < 3; expert++)
            assert_int_equal(placement_add(p, 0, expert, worker, NULL), 0);
    struct arena mem;
    assert_int_equal(arena_init(&mem, 4 * plan_arena_bytes(6, 1, 3, 3)), 0);
    static const int32_t slots[] = {0, 0, 0, 1, 1, 2}, load[] = {2, 0, 1};
    struct plan plan;
    struct plan_input in = {.placement = p,
                            .n_row = 6,
                            .top_k = 1,
                            .slot_expert = slots,
                            .choice = REPLICA_LEAST_LOADED,
                            .load = load,
                            .n_worker = 3};
    /* Expert 0 (3 rows) goes to worker 1 (0), expert 1 (2) to worker 2 (1), expert 2 to 0 (2). */
    assert_int_equal(plan_build(&plan, &in, &mem, NULL), 0);
    assert_int_equal(plan.n_part, 3);
    for (int i = 0; i < 3; i++) {
        static const int32_t expert_of_worker[] = {2, 0, 1};
        assert_int_equal(plan.part[i].n_seg, 1);
        assert_int_equal(plan.part[i].seg_expert[0], expert_of_worker[i]);
    }
    in.load = NULL;
    /* Without it: expert 0 to 0, expert 1 to 1, expert 2 to 2; REPLICA_FIRST: all to 0. */
    assert_int_equal(plan_build(&plan, &in, &mem, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(plan.part[i].seg_expert[0], i);
    in.choice = REPLICA_FIRST;
    assert_int_equal(plan_build(&plan, &in, &mem, NULL), 0);
    assert_int_equal(plan.n_part, 1);
    assert_int_equal(plan.part[0].n_assign, 6);
    arena_fini(&mem);
    placement_destroy(p);
}

static void plan_of_nothing_is_empty(void **state)
{
    (void)state;
    struct placement *p = small_placement();
    struct arena mem;
    assert_int_equal(arena_init(&mem, plan_arena_bytes(0, 2, 5, 0)), 0);
    struct plan plan;
    struct plan_input in = {.placement = p, .n_row = 0, .top_k = 2, .n_worker = 0};
    assert_int_equal(plan_build(&plan, &in, &mem, NULL), 0);
    assert_int_equal(plan.n_part, 0);
    assert_int_equal(plan.n_orphan, 0);
    arena_fini(&mem);
    placement_destroy(p);
}

static void plan_refuses_bad_input_and_leaves_arena_and_plan(void **state)
{
    (void)state;
    struct placement *p = small_placement();
    struct arena mem;
    assert_int_equal(arena_init(&mem, plan_arena_bytes(4, 2, 5, 3)), 0);
    static const int32_t wild[] = {0, 1, 5, 0, 0, 0, 0, 0}, outside[] = {8};
    const struct plan_input good = {
        .placement = p, .n_row = 4, .top_k = 2, .slot_expert = small_slots, .n_worker = 3};
    struct plan_input cases[6];
    const char *texts[] = {"slot 2 names expert 5 of 5",
                           "a plan names slot 8 of 8",
                           "the placement names worker 2, the plan has 2",
                           "a plan for layer 1 of 1",
                           "a plan of 9000 rows x top-2; at most 8192 x 64 are possible",
                           "a plan for -1 workers; at most 16384 are possible"};
    for (int i = 0; i < 6; i++)
        cases[i] = good;
    cases[0].slot_expert = wild;
    cases[1].only_slot = outside;
    cases[1].n_only = 1;
    cases[2].n_worker = 2;
    cases[3].layer = 1;
    cases[4].n_row = 9000;
    cases[5].n_worker = -1;
    for (int i = 0; i < 6; i++) {
        struct plan plan = {.n_part = 77};
        struct err err = {0};
        assert_int_equal(plan_build(&plan, &cases[i], &mem, &err), ERR_LIMIT);
        assert_string_equal(err.text, texts[i]);
        assert_int_equal(plan.n_part, 77);
        assert_int_equal(arena_mark(&mem), 0);
    }
    struct arena small;
    for (size_t bytes = 64; bytes < plan_arena_bytes(4, 2, 5, 3) - 64; bytes += 64) {
        struct plan plan = {.n_part = 77};
        assert_int_equal(arena_init(&small, bytes), 0);
        assert_int_equal(plan_build(&plan, &good, &small, NULL), ERR_NOMEM);
        assert_int_equal(plan.n_part, 77);
        assert_int_equal(arena_mark(&small), 0);
        arena_fini(&small);
    }
    arena_fini(&mem);
    placement_destroy(p);
}

static int holds(const struct placement *p, int layer, int expert, int worker)
{
    const int32_t *holder;
    int n = placement_holders(p, layer, expert, &holder), found = 0;
    for (int i = 0; i < n; i++)
        found |= holder[i] == worker;
    return found;
}

/* check_part: ascending rows and segments, sorted assignments that point where they say; marks each
 * slot it finds. */
static void check_part(const struct plan_part *part, const struct plan_input *in, int *seen,
                       int *worker_of_expert, int *last_slot_of_expert)
{
    for (int i = 1; i < part->n_row; i++)
        assert_true(part->row[i] > part->row[i - 1]);
    int at = 0, used[512] = {0};
    for (int s = 0; s < part->n_seg; s++) {
        int32_t expert = part->seg_expert[s];
        assert_true(s == 0 || expert > part->seg_expert[s - 1]);
        assert_true(part->seg_count[s] > 0);
        /* Cut experts come in runs: a higher worker's slots are all behind a lower one's. */
        assert_true(worker_of_expert[expert] < 0 || in->split_rows > 0);
        assert_true(worker_of_expert[expert] < 0 || part->seg_count[s] >= in->split_rows);
        assert_true(part->assign_slot[at] > last_slot_of_expert[expert]);
        assert_true(holds(in->placement, in->layer, expert, part->worker));
        worker_of_expert[expert] = part->worker;
        last_slot_of_expert[expert] = part->assign_slot[at + part->seg_count[s] - 1];
        for (int i = 0; i < part->seg_count[s]; i++, at++) {
            int32_t slot = part->assign_slot[at], row = part->assign_row[at];
            assert_in_range(row, 0, part->n_row - 1);
            assert_int_equal(part->row[row], slot / in->top_k);
            assert_int_equal(in->slot_expert[slot], expert);
            assert_true(i == 0 || slot > part->assign_slot[at - 1]);
            seen[slot]++;
            used[row] = 1;
        }
    }
    assert_int_equal(at, part->n_assign);
    for (int i = 0; i < part->n_row; i++)
        assert_int_equal(used[i], 1);
}

static void check_plan(const struct plan *plan, const struct plan_input *in, const uint8_t *wanted)
{
    static int seen[4096], worker_of_expert[64], last_slot_of_expert[64];
    int n_slot = in->n_row * in->top_k;
    memset(seen, 0, sizeof(seen));
    memset(worker_of_expert, -1, sizeof(worker_of_expert));
    memset(last_slot_of_expert, -1, sizeof(last_slot_of_expert));
    for (int i = 0; i < plan->n_part; i++) {
        assert_true(i == 0 || plan->part[i].worker > plan->part[i - 1].worker);
        assert_true(plan->part[i].n_assign > 0);
        check_part(&plan->part[i], in, seen, worker_of_expert, last_slot_of_expert);
    }
    for (int i = 0; i < plan->n_orphan; i++) {
        const int32_t *holder;
        int32_t slot = plan->orphan_slot[i];
        assert_true(i == 0 || slot > plan->orphan_slot[i - 1]);
        assert_int_equal(
            placement_holders(in->placement, in->layer, in->slot_expert[slot], &holder), 0);
        seen[slot]++;
    }
    for (int slot = 0; slot < n_slot; slot++)
        assert_int_equal(seen[slot], wanted[slot] && in->slot_expert[slot] >= 0);
}

/* Three workers hold everything; 40 rows of expert 0 and 4 of expert 1. */
struct replicated {
    struct placement *p;
    struct arena mem;
    int32_t slot[44];
    struct plan_input in;
    struct plan plan;
};

static void replicated_init(struct replicated *r)
{
    memset(r, 0, sizeof(*r));
    assert_int_equal(placement_create(1, 2, &r->p, NULL), 0);
    for (int i = 0; i < 6; i++)
        assert_int_equal(placement_add(r->p, 0, i % 2, i / 2, NULL), 0);
    for (int i = 0; i < 44; i++)
        r->slot[i] = i % 11 == 10;
    assert_int_equal(arena_init(&r->mem, plan_arena_bytes(44, 1, 2, 3)), 0);
    r->in = (struct plan_input){.placement = r->p,
                                .n_row = 44,
                                .top_k = 1,
                                .slot_expert = r->slot,
                                .choice = REPLICA_LEAST_LOADED,
                                .n_worker = 3};
}

/* replicated_plan: how many of each expert's slots each worker gets. */
static void replicated_plan(struct replicated *r, int got[3][2])
{
    memset(got, 0, 3 * sizeof(got[0]));
    arena_reset(&r->mem);
    assert_int_equal(plan_build(&r->plan, &r->in, &r->mem, NULL), 0);
    for (int i = 0; i < r->plan.n_part; i++) {
        const struct plan_part *part = &r->plan.part[i];
        for (int s = 0; s < part->n_seg; s++)
            got[part->worker][part->seg_expert[s]] += part->seg_count[s];
    }
}

static void replicated_fini(struct replicated *r)
{
    arena_fini(&r->mem);
    placement_destroy(r->p);
}

static void plan_cuts_a_hot_expert_over_its_holders(void **state)
{
    (void)state;
    struct replicated r;
    int got[3][2];
    const int32_t load[] = {0, 14, 100};
    replicated_init(&r);
    replicated_plan(&r, got);
    assert_int_equal(got[0][0], 40);
    assert_int_equal(got[1][1], 4);
    r.in.split_rows = 12; /* expert 1 is on worker 1: an even filling would leave 10 rows there */
    replicated_plan(&r, got);
    assert_int_equal(got[0][0], 14);
    assert_int_equal(got[1][0], 12);
    assert_int_equal(got[2][0], 14);
    assert_int_equal(got[1][1], 4);
    r.in.load = load; /* the third is busy; 44 + 14 rows even out at 29 */
    replicated_plan(&r, got);
    assert_int_equal(got[0][0] + got[0][1], 29);
    assert_int_equal(got[1][0], 15);
    assert_int_equal(got[2][0], 0);
    r.in.split_rows = 21; /* two pieces would be too small */
    replicated_plan(&r, got);
    assert_int_equal(got[0][0], 40);
    replicated_fini(&r);
}

static void plan_cuts_by_speed(void **state)
{
    (void)state;
    struct replicated r;
    int got[3][2];
    const float speed[] = {1, 3, 1};
    replicated_init(&r);
    r.in.split_rows = 8;
    r.in.speed = speed;
    r.in.choice = REPLICA_BY_SPEED;
    replicated_plan(&r, got);
    assert_int_equal(got[0][0], 9);
    assert_int_equal(got[1][0] + got[1][1], 26);
    assert_int_equal(got[2][0], 9);
    r.in.split_rows = 0;
    replicated_plan(&r, got);
    assert_int_equal(got[1][0], 40);
    assert_int_equal(got[0][1], 4);
    r.in.choice = REPLICA_TWO_CHOICES; /* does not cut */
    r.in.split_rows = 8;
    replicated_plan(&r, got);
    assert_true(got[0][0] == 40 || got[1][0] == 40 || got[2][0] == 40);
    replicated_fini(&r);
}

static void plan_takes_turns_prefers_the_near_and_draws_by_seed(void **state)
{
    (void)state;
    struct replicated r;
    int got[3][2], seen[3] = {0}, drawn[3] = {0};
    const int32_t distance[] = {1, 0, 0}, load[] = {0, 9, 3};
    replicated_init(&r);
    r.in.choice = REPLICA_LOCAL;
    r.in.distance = distance;
    r.in.load = load;
    replicated_plan(&r, got);
    assert_int_equal(got[2][0], 40);
    assert_int_equal(got[1][1], 4);
    r.in.load = NULL;
    for (r.in.seed = 0; r.in.seed < 30; r.in.seed++) {
        r.in.choice = REPLICA_ROUND_ROBIN;
        replicated_plan(&r, got);
        assert_int_equal(got[r.in.seed % 3][0], 40);
        assert_int_equal(got[(r.in.seed + 1) % 3][1], 4);
        r.in.choice = REPLICA_TWO_CHOICES;
        replicated_plan(&r, got);
        for (int i = 0; i < 3; i++)
            seen[i] += got[i][0] == 40;
        int again[3][2];
        replicated_plan(&r, again);
        assert_memory_equal(got, again, sizeof(got));
        drawn[0] += got[0][0] && got[0][1]; /* the second goes where the first did not */
    }
    assert_true(seen[0] > 0 && seen[1] > 0); /* the lower of two equals: never the last */
    assert_int_equal(seen[2], 0);
    assert_int_equal(drawn[0], 0);
    replicated_fini(&r);
}

static uint32_t draw(uint64_t *at, uint32_t below)
{
    uint32_t r[4];
    rng_block(SEED, 1, (*at)++, r);
    return r[0] % below;
}

static void random_plans_keep_the_invariants(void **state)
{
    (void)state;
    static int32_t slots[4096], only[4096], load[16], distance[16];
    static float speed[16];
    static uint8_t wanted[4096];
    uint64_t at = 0;
    for (int round = 0; round < 400; round++) {
        int n_layer = 1 + (int)draw(&at, 3), n_expert = 1 + (int)draw(&at, 60);
        int n_worker = 1 + (int)draw(&at, 12), n_row = (int)draw(&at, 200);
        int top_k = 1 + (int)draw(&at, 8), layer = (int)draw(&at, (uint32_t)n_layer);
        struct placement *p;
        assert_int_equal(placement_create(n_layer, n_expert, &p, NULL), 0);
        for (int i = 0, n = (int)draw(&at, 150); i < n; i++)
            placement_add(p, layer, (int)draw(&at, (uint32_t)n_expert),
                          (int)draw(&at, (uint32_t)n_worker), NULL);
        int n_slot = n_row * top_k, n_only = 0, again = round % 3 == 0;
        for (int i = 0; i < n_slot; i++) {
            slots[i] = (int32_t)draw(&at, (uint32_t)n_expert + 1) - 1;
            wanted[i] = (uint8_t)(!again || draw(&at, 2));
            if (again && wanted[i])
                only[n_only++] = i;
        }
        for (int i = 0; i < n_worker; i++)
            load[i] = (int32_t)draw(&at, 100), distance[i] = (int32_t)draw(&at, 3),
            speed[i] = (float)(1 + draw(&at, 4));
        struct plan_input in = {
            .placement = p,
            .layer = layer,
            .n_row = n_row,
            .top_k = top_k,
            .slot_expert = slots,
            .only_slot = again ? only : NULL,
            .n_only = n_only,
            .choice = (enum replica_choice)(round % 6),
            .load = round % 4 == 1 ? load : NULL,
            .speed = round % 8 < 4 ? speed : NULL,
            .distance = round % 16 < 8 ? distance : NULL,
            .seed = (uint64_t)round,
            .split_rows = round % 5 > 1 ? 8 << round % 3 : 0,
            .n_worker = n_worker,
        };
        struct arena mem;
        assert_int_equal(arena_init(&mem, plan_arena_bytes(n_row, top_k, n_expert, n_worker)), 0);
        struct plan plan;
        assert_int_equal(plan_build(&plan, &in, &mem, NULL), 0);
        check_plan(&plan, &in, wanted);
        arena_fini(&mem);
        placement_destroy(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_sends_each_row_once_and_sorts_by_expert_then_row),
        cmocka_unit_test(plan_again_takes_only_the_slots_named_in_any_order),
        cmocka_unit_test(plan_least_loaded_counts_this_plan_and_the_load_before),
        cmocka_unit_test(plan_of_nothing_is_empty),
        cmocka_unit_test(plan_refuses_bad_input_and_leaves_arena_and_plan),
        cmocka_unit_test(plan_cuts_a_hot_expert_over_its_holders),
        cmocka_unit_test(plan_cuts_by_speed),
        cmocka_unit_test(plan_takes_turns_prefers_the_near_and_draws_by_seed),
        cmocka_unit_test(random_plans_keep_the_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
