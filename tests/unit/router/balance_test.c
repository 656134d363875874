/* balance: the published example to the last number, random problems against what every placement
 * must keep, ours against the published greedy on the same loads, and refusals in words. */
#include "base/rng.h"
#include "router/strategy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEED     20260
#define N_WORKER 40
#define N_CELL   (4 * 96)

struct world {
    struct balance_worker worker[N_WORKER];
    double load[N_CELL];
    struct balance_input in;
    struct balance_table table;
    struct arena mem;
    struct err err;
};

static void world_init(struct world *w, int n_layer, int n_expert, int n_worker, int n_redundant)
{
    memset(w, 0, sizeof(*w));
    for (int i = 0; i < n_worker; i++)
        w->worker[i] = (struct balance_worker){.speed = 1};
    w->in = (struct balance_input){.n_layer = n_layer,
                                   .n_expert = n_expert,
                                   .n_worker = n_worker,
                                   .load = w->load,
                                   .worker = w->worker,
                                   .n_redundant = n_redundant,
                                   .expert_bytes = 1000};
}

static int world_place(struct world *w, const char *name)
{
    const struct strategy *s = strategy_find(STRATEGY_PLACE, name);
    assert_non_null(s);
    arena_fini(&w->mem);
    err_clear(&w->err);
    assert_int_equal(arena_init(&w->mem, balance_arena_bytes(&w->in)), 0);
    return s->place(&w->in, &w->table, &w->mem, &w->err);
}

static double world_excess(const struct world *w, enum balance_split split)
{
    void *scratch = malloc(balance_excess_scratch(&w->table));
    double excess = balance_excess(&w->table, w->load, w->worker, split, NULL, scratch);
    free(scratch);
    return excess;
}

static double draw(uint64_t *at)
{
    return rng_uniform(SEED, 7, (*at)++);
}

static int draw_int(uint64_t *at, int below)
{
    return (int)(draw(at) * below);
}

/* Loads as routers make them: a few experts of a layer get many times what most get. */
static void draw_loads(struct world *w, uint64_t *at)
{
    for (int i = 0; i < w->in.n_layer * w->in.n_expert; i++)
        w->load[i] = floor(20 * pow(draw(at) + 0.02, -1.2));
}

/* The example of the published balancer's README: 12 experts, 16 slots, 8 workers on 2 hosts. */
static void eplb_gives_the_published_example(void **state)
{
    (void)state;
    static const double load[2][12] = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86},
                                       {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};
    static const int32_t published[2][16] = {{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1},
                                             {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}};
    struct world w;
    world_init(&w, 2, 12, 8, 4);
    for (int i = 0; i < 8; i++)
        w.worker[i].host = i / 4;
    w.in.n_group = 4;
    memcpy(w.load, load, sizeof(load));
    assert_int_equal(world_place(&w, "eplb"), 0);
    assert_int_equal(w.table.n_slot, 16);
    assert_memory_equal(w.table.expert, published, sizeof(published));
    arena_fini(&w.mem);
}

/* check_table: every expert is somewhere; a worker has no expert twice; slots that are left empty
 * are those beyond the copies that were asked for. */
static void check_table(const struct world *w, int may_repeat, int copies)
{
    const struct balance_table *t = &w->table;
    for (int layer = 0; layer < t->n_layer; layer++) {
        int n_copy = 0, held[96] = {0};
        for (int worker = 0; worker < t->n_worker; worker++) {
            const struct balance_worker *is = &w->worker[worker];
            int here[96] = {0}, n_slot = t->begin[worker + 1] - t->begin[worker];
            if (is->n_slot > 0)
                assert_true(n_slot <= is->n_slot);
            if (is->memory_bytes > 0)
                assert_true((uint64_t)n_slot * (uint64_t)t->n_layer * w->in.expert_bytes <=
                            is->memory_bytes);
            for (int s = t->begin[worker]; s < t->begin[worker + 1]; s++) {
                int32_t expert = t->expert[layer * t->n_slot + s];
                if (expert < 0)
                    continue;
                assert_in_range(expert, 0, t->n_expert - 1);
                assert_true(may_repeat || !here[expert]);
                here[expert] = held[expert] = 1;
                n_copy++;
            }
        }
        for (int e = 0; e < t->n_expert; e++)
            assert_int_equal(held[e], 1);
        assert_int_equal(n_copy, copies);
    }
}

static void draw_world(struct world *w, uint64_t *at)
{
    int n_worker = 1 + draw_int(at, N_WORKER), n_expert = 4 * (1 + draw_int(at, 24));
    int most = n_expert * (n_worker - 1);
    world_init(w, 1 + draw_int(at, 4), n_expert, n_worker, draw_int(at, most < 30 ? most + 1 : 30));
    draw_loads(w, at);
    for (int i = 0; i < n_worker; i++) {
        w->worker[i].speed = draw(at) < 0.5 ? 1 : 0.25 + 4 * draw(at);
        w->worker[i].host = i / 4;
        if (draw(at) < 0.3)
            w->worker[i].n_slot = 1 + draw_int(at, n_expert);
        if (draw(at) < 0.3)
            w->worker[i].memory_bytes = 1000u * (uint64_t)(w->in.n_layer * (1 + draw_int(at, 40)));
    }
}

static void random_placements_keep_what_every_placement_must(void **state)
{
    (void)state;
    static const char *const plain[] = {"contiguous", "round-robin"};
    static const char *const copying[] = {"balanced", "capacity", "fewest-active"};
    static struct world w;
    static int32_t n_slot[N_WORKER];
    uint64_t at = 0;
    int placed = 0;
    for (int round = 0; round < 400; round++) {
        draw_world(&w, &at);
        if (balance_slots(&w.in, n_slot, &w.err)) {
            assert_int_equal(world_place(&w, "capacity"), ERR_LIMIT);
            continue;
        }
        placed++;
        for (int i = 0; i < 2; i++) {
            assert_int_equal(world_place(&w, plain[i]), 0);
            check_table(&w, 0, w.in.n_expert);
        }
        for (int i = 0; i < 3; i++) {
            assert_int_equal(world_place(&w, copying[i]), 0);
            check_table(&w, 0, w.in.n_expert + w.in.n_redundant);
            int32_t *first = malloc((size_t)(w.in.n_layer * w.table.n_slot) * sizeof(*first));
            size_t bytes = (size_t)(w.in.n_layer * w.table.n_slot) * sizeof(*first);
            memcpy(first, w.table.expert, bytes);
            assert_int_equal(world_place(&w, copying[i]), 0);
            assert_memory_equal(first, w.table.expert, bytes);
            free(first);
        }
        arena_fini(&w.mem);
        w.mem = (struct arena){0};
    }
    assert_true(placed > 200);
}

static void hierarchical_keeps_an_expert_on_one_host(void **state)
{
    (void)state;
    static struct world w;
    uint64_t at = 1000000;
    for (int round = 0; round < 100; round++) {
        world_init(&w, 2, 32, 8, 8 * draw_int(&at, 4));
        draw_loads(&w, &at);
        for (int i = 0; i < 8; i++)
            w.worker[i].host = i % 2 + 10;
        w.in.n_group = round % 2 ? 8 : 0;
        assert_int_equal(world_place(&w, "hierarchical"), 0);
        check_table(&w, 0, 32 + w.in.n_redundant);
        for (int layer = 0; layer < 2; layer++) {
            int host[32] = {0};
            for (int worker = 0; worker < 8; worker++)
                for (int s = w.table.begin[worker]; s < w.table.begin[worker + 1]; s++) {
                    int32_t expert = w.table.expert[layer * w.table.n_slot + s];
                    int first = w.in.n_group ? expert / 4 * 4 : expert;
                    if (expert < 0)
                        continue;
                    assert_true(host[first] == 0 || host[first] == w.worker[worker].host);
                    host[first] = w.worker[worker].host;
                }
        }
    }
    arena_fini(&w.mem);
}

static void balanced_is_at_least_as_even_as_the_published_greedy(void **state)
{
    (void)state;
    static struct world w;
    uint64_t at = 2000000;
    for (int round = 0; round < 200; round++) {
        static const int workers[] = {2, 4, 8, 16};
        int n_worker = workers[round % 4];
        world_init(&w, 4, 64, n_worker, n_worker * (1 + round % 3));
        draw_loads(&w, &at);
        assert_int_equal(world_place(&w, "eplb"), 0);
        check_table(&w, 1, 64 + w.in.n_redundant);
        double even = world_excess(&w, SPLIT_EVEN), best = world_excess(&w, SPLIT_BEST);
        assert_true(best <= even + 1e-6);
        assert_int_equal(world_place(&w, "balanced"), 0);
        /* Balancing stops at a thousandth; below it neither is better. */
        assert_true(world_excess(&w, SPLIT_EVEN) <= fmax(even, 1e-3));
        assert_true(world_excess(&w, SPLIT_BEST) <= fmax(best, 5e-4));
    }
    arena_fini(&w.mem);
}

static void capacity_evens_out_time_on_unequal_workers(void **state)
{
    (void)state;
    static struct world w;
    static int32_t n_slot[12];
    uint64_t at = 3000000;
    world_init(&w, 4, 96, 12, 12);
    draw_loads(&w, &at);
    for (int i = 0; i < 12; i++)
        w.worker[i].speed = 1 << i % 3;
    assert_int_equal(balance_slots(&w.in, n_slot, NULL), 0);
    assert_int_equal(n_slot[0], 4); /* 108 slots: 1 / 28, 2 / 28, 4 / 28 of them each */
    assert_int_equal(n_slot[1], 8);
    assert_true(n_slot[2] == 15 || n_slot[2] == 16);
    assert_int_equal(world_place(&w, "capacity"), 0);
    assert_true(world_excess(&w, SPLIT_EVEN) < 0.02);
    assert_int_equal(world_place(&w, "balanced"), 0);
    assert_true(world_excess(&w, SPLIT_EVEN) > 0.1);
    arena_fini(&w.mem);
}

/* Twelve of 64 experts are hot; with one row a step each is read about as often as the next. */
static void fewest_active_spreads_what_a_step_wakes(void **state)
{
    (void)state;
    static struct world w, active;
    world_init(&w, 1, 64, 4, 0);
    for (int e = 0; e < 64; e++)
        w.load[e] = e < 4 ? 1000 : 60;
    active = w;
    w.in.slots_a_step = 400;
    for (int e = 0; e < 64; e++)
        active.load[e] = 1 - exp(-w.load[e] / (4 * 1000 + 60 * 60) * 400);
    w.in.load = w.load;
    active.in.load = active.load;
    active.in.worker = active.worker;
    assert_int_equal(world_place(&w, "fewest-active"), 0);
    active.table = w.table;
    double woken = world_excess(&active, SPLIT_EVEN);
    assert_true(woken < 0.01);
    assert_int_equal(world_place(&w, "contiguous"), 0);
    active.table = w.table;
    assert_true(world_excess(&active, SPLIT_EVEN) > woken);
    arena_fini(&w.mem);
}

static void domain_puts_a_domain_on_few_workers(void **state)
{
    (void)state;
    static struct world w;
    static double domain_load[4 * 16];
    world_init(&w, 1, 16, 4, 0);
    for (int e = 0; e < 16; e++)
        for (int d = 0; d < 4; d++) {
            domain_load[d * 16 + e] = e % 4 == d ? 10 : 1;
            w.load[e] += domain_load[d * 16 + e];
        }
    assert_int_equal(world_place(&w, "domain"), ERR_USAGE);
    assert_string_equal(w.err.text,
                        "domain placement needs loads by domain: a trace with domain labels");
    w.in.domain_load = domain_load;
    w.in.n_domain = 4;
    assert_int_equal(world_place(&w, "domain"), 0);
    check_table(&w, 0, 16);
    for (int s = 0; s < 16; s++)
        assert_int_equal(w.table.expert[s] % 4, s / 4);
    arena_fini(&w.mem);
}

static void bad_problems_are_refused_in_words(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1, 8, 2, 0);
    w.in.n_worker = 0;
    assert_int_equal(world_place(&w, "balanced"), ERR_USAGE);
    assert_string_equal(w.err.text, "0 workers; a placement needs 1 to 16384");
    world_init(&w, 1, 8, 2, 9);
    assert_int_equal(world_place(&w, "balanced"), ERR_USAGE);
    assert_string_equal(w.err.text, "9 redundant experts: 2 workers can hold at most 8 copies "
                                    "beyond one of each of 8 experts");
    world_init(&w, 1, 8, 2, 0);
    w.worker[1].n_slot = 9;
    assert_int_equal(world_place(&w, "balanced"), ERR_USAGE);
    assert_string_equal(w.err.text, "worker 1 has 9 slots a layer, but there are only 8 experts");
    w.worker[0].n_slot = w.worker[1].n_slot = 3;
    assert_int_equal(world_place(&w, "balanced"), ERR_LIMIT);
    assert_string_equal(w.err.text, "the workers hold 6 experts a layer together, the model has 8; "
                                    "add workers or memory");
    w.worker[0].n_slot = 6;
    w.in.n_redundant = 4;
    assert_int_equal(world_place(&w, "balanced"), ERR_LIMIT);
    assert_string_equal(w.err.text,
                        "4 redundant experts need 12 slots a layer, the workers have 9; "
                        "ask for at most 1");
    w.in.n_redundant = 0;
    assert_int_equal(world_place(&w, "eplb"), ERR_USAGE);
    assert_string_equal(w.err.text, "eplb needs the same number of slots on every worker; worker 0 "
                                    "has 6, worker 1 has 3");
    w.worker[1].speed = 0;
    assert_int_equal(world_place(&w, "capacity"), ERR_USAGE);
    assert_string_equal(w.err.text, "worker 1 has speed 0; it must be above 0");
    w.worker[1].speed = 1;
    w.load[3] = NAN;
    assert_int_equal(world_place(&w, "capacity"), ERR_USAGE);
    w.load[3] = 0;
    w.in.n_group = 3;
    assert_int_equal(world_place(&w, "hierarchical"), ERR_USAGE);
    assert_string_equal(w.err.text, "3 groups do not divide 8 experts");
    arena_fini(&w.mem);
}

static void a_full_arena_is_an_error_and_not_a_crash(void **state)
{
    (void)state;
    static struct world w;
    static const char *const names[] = {"contiguous", "balanced", "hierarchical", "eplb"};
    uint64_t at = 4000000;
    world_init(&w, 2, 16, 4, 4);
    draw_loads(&w, &at);
    for (int i = 0; i < 4; i++) {
        const struct strategy *s = strategy_find(STRATEGY_PLACE, names[i]);
        int failed = 0;
        for (size_t bytes = 64; bytes < 8192; bytes += 64) {
            struct arena small;
            struct balance_table t;
            assert_int_equal(arena_init(&small, bytes), 0);
            failed += s->place(&w.in, &t, &small, NULL) == ERR_NOMEM;
            arena_fini(&small);
        }
        assert_true(failed > 0);
    }
}

static void tables_and_placements_say_the_same(void **state)
{
    (void)state;
    static struct world w;
    uint64_t at = 5000000;
    struct placement *p;
    struct balance_table back;
    world_init(&w, 2, 16, 4, 4);
    draw_loads(&w, &at);
    assert_int_equal(world_place(&w, "balanced"), 0);
    assert_int_equal(balance_to_placement(&w.table, &p, NULL), 0);
    struct arena mem;
    assert_int_equal(arena_init(&mem, 65536), 0);
    assert_int_equal(balance_table_from(p, 4, &back, &mem, NULL), 0);
    assert_int_equal(back.n_slot, w.table.n_slot);
    for (int i = 0; i < 2 * back.n_slot; i++)
        assert_in_range(back.expert[i], 0, 15);
    struct world again = w;
    again.table = back;
    assert_true(fabs(world_excess(&again, SPLIT_EVEN) - world_excess(&w, SPLIT_EVEN)) < 1e-9);
    placement_destroy(p);
    arena_fini(&mem);
    arena_fini(&w.mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eplb_gives_the_published_example),
        cmocka_unit_test(random_placements_keep_what_every_placement_must),
        cmocka_unit_test(hierarchical_keeps_an_expert_on_one_host),
        cmocka_unit_test(balanced_is_at_least_as_even_as_the_published_greedy),
        cmocka_unit_test(capacity_evens_out_time_on_unequal_workers),
        cmocka_unit_test(fewest_active_spreads_what_a_step_wakes),
        cmocka_unit_test(domain_puts_a_domain_on_few_workers),
        cmocka_unit_test(bad_problems_are_refused_in_words),
        cmocka_unit_test(a_full_arena_is_an_error_and_not_a_crash),
        cmocka_unit_test(tables_and_placements_say_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
