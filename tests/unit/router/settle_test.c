/* settle: moving from one table to another counts what it moves, keeps what may stay, and does not
 * move when it does not pay. */
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

#define SEED     77
#define N_EXPERT 32
#define N_LAYER  4

struct move {
    struct balance_worker worker[8];
    double before[N_LAYER * N_EXPERT], after[N_LAYER * N_EXPERT];
    struct balance_input in;
    struct balance_table current, next;
    struct balance_moves moves;
    struct balance_cost cost;
    uint8_t refused[N_LAYER];
    struct arena mem;
    struct err err;
};

/* Loads of which a part changed: current was balanced for `before`, next is for `after`. */
static void move_init(struct move *m, double change, int n_redundant)
{
    const struct strategy *s = strategy_find(STRATEGY_PLACE, "balanced");
    memset(m, 0, sizeof(*m));
    for (int i = 0; i < N_LAYER * N_EXPERT; i++) {
        double u = rng_uniform(SEED, 1, (uint64_t)i), v = rng_uniform(SEED, 2, (uint64_t)i);
        m->before[i] = 10 * pow(u + 0.02, -1.2);
        m->after[i] = (1 - change) * m->before[i] + change * 10 * pow(v + 0.02, -1.2);
    }
    for (int i = 0; i < 8; i++)
        m->worker[i] = (struct balance_worker){.speed = 1};
    m->in = (struct balance_input){.n_layer = N_LAYER,
                                   .n_expert = N_EXPERT,
                                   .n_worker = 8,
                                   .load = m->before,
                                   .worker = m->worker,
                                   .n_redundant = n_redundant,
                                   .expert_bytes = 1000000};
    m->cost = (struct balance_cost){.expert_bytes = 1000000,
                                    .bytes_per_s = 1e9,
                                    .row_s = 1e-6,
                                    .window_slots = 1000,
                                    .horizon_slots = 1e6,
                                    .slowdown = 0.5};
    assert_int_equal(arena_init(&m->mem, 1 << 20), 0);
    assert_int_equal(s->place(&m->in, &m->current, &m->mem, NULL), 0);
    m->in.load = m->after;
    assert_int_equal(s->place(&m->in, &m->next, &m->mem, NULL), 0);
}

static int move_settle(struct move *m, int with_cost)
{
    return balance_settle(&m->current, &m->next, &m->in, with_cost ? &m->cost : NULL, m->refused,
                          &m->moves, &m->mem, &m->err);
}

static double excess_of(const struct move *m, const struct balance_table *t)
{
    void *scratch = malloc(balance_excess_scratch(t));
    double excess = balance_excess(t, m->after, m->worker, SPLIT_BEST, NULL, scratch);
    free(scratch);
    return excess;
}

static int count_moves(const struct move *m)
{
    const struct balance_table *a = &m->current, *b = &m->next;
    int n = 0;
    for (int layer = 0; layer < N_LAYER; layer++)
        for (int w = 0; w < 8; w++)
            for (int s = b->begin[w]; s < b->begin[w + 1]; s++) {
                int there = b->expert[layer * b->n_slot + s] < 0;
                for (int c = a->begin[w]; c < a->begin[w + 1]; c++)
                    there |= a->expert[layer * a->n_slot + c] == b->expert[layer * b->n_slot + s];
                n += !there;
            }
    return n;
}

static void the_same_sets_on_other_workers_are_no_move(void **state)
{
    (void)state;
    struct move m;
    move_init(&m, 0, 8);
    /* next: current with all workers turned by three. */
    int each = m.current.begin[1];
    for (int layer = 0; layer < N_LAYER; layer++)
        for (int w = 0; w < 8; w++)
            memcpy(m.next.expert + layer * m.next.n_slot + w * each,
                   m.current.expert + layer * m.next.n_slot + (w + 3) % 8 * each,
                   (size_t)each * sizeof(int32_t));
    assert_int_equal(count_moves(&m) > 0, 1);
    assert_int_equal(move_settle(&m, 0), 0);
    assert_int_equal(m.moves.n_move, 0);
    assert_int_equal(m.moves.bytes, 0);
    assert_memory_equal(m.next.expert, m.current.expert,
                        (size_t)(N_LAYER * m.next.n_slot) * sizeof(int32_t));
    arena_fini(&m.mem);
}

static void unlike_workers_do_not_trade_places(void **state)
{
    (void)state;
    struct move m;
    move_init(&m, 0, 8);
    for (int w = 0; w < 8; w++)
        m.worker[w].host = w;
    int32_t *expert = m.next.expert, first[16];
    int each = m.current.begin[1];
    memcpy(first, expert, (size_t)each * sizeof(int32_t));
    memmove(expert, expert + each, (size_t)each * sizeof(int32_t));
    memcpy(expert + each, first, (size_t)each * sizeof(int32_t));
    assert_int_equal(move_settle(&m, 0), 0);
    assert_true(m.moves.n_move > 0);
    assert_int_equal(m.moves.n_move, count_moves(&m));
    arena_fini(&m.mem);
}

static void a_long_horizon_moves_and_counts_what_it_moves(void **state)
{
    (void)state;
    struct move m;
    move_init(&m, 1, 8);
    double stay = excess_of(&m, &m.current);
    assert_int_equal(move_settle(&m, 1), 0);
    assert_int_equal(m.moves.n_changed, N_LAYER);
    assert_int_equal(m.moves.n_refused, 0);
    assert_int_equal(m.moves.n_move, count_moves(&m));
    assert_int_equal(m.moves.bytes, (uint64_t)m.moves.n_move * 1000000);
    assert_true(m.moves.bytes_worker_max >= m.moves.bytes / 8);
    assert_true(m.moves.gain_s > m.moves.cost_s);
    assert_true(excess_of(&m, &m.next) < stay / 2);
    arena_fini(&m.mem);
}

static void what_does_not_pay_back_is_refused(void **state)
{
    (void)state;
    struct move m;
    move_init(&m, 1, 8);
    m.cost.horizon_slots = 1;
    assert_int_equal(move_settle(&m, 1), 0);
    assert_int_equal(m.moves.n_changed, 0);
    assert_int_equal(m.moves.n_refused, N_LAYER);
    assert_int_equal(m.refused[0], 1);
    assert_int_equal(m.moves.n_move, 0);
    assert_memory_equal(m.next.expert, m.current.expert,
                        (size_t)(N_LAYER * m.next.n_slot) * sizeof(int32_t));
    arena_fini(&m.mem);
}

static void few_changes_that_help_most_are_preferred_to_a_new_table(void **state)
{
    (void)state;
    struct move few, many;
    move_init(&few, 0.3, 8);
    move_init(&many, 0.3, 8);
    double stay = excess_of(&few, &few.current);
    assert_int_equal(move_settle(&many, 0), 0);
    assert_int_equal(move_settle(&few, 1), 0);
    assert_true(few.moves.n_move > 0);
    assert_true(few.moves.n_move < many.moves.n_move * 2 / 3);
    assert_true(excess_of(&few, &few.next) < stay / 2);
    arena_fini(&few.mem);
    arena_fini(&many.mem);
}

static void a_layer_with_a_lost_expert_is_never_kept(void **state)
{
    (void)state;
    struct move m;
    move_init(&m, 0, 0);
    for (int s = 0; s < m.current.n_slot; s++)
        if (m.current.expert[s] == 5)
            m.current.expert[s] = -1;
    m.cost.horizon_slots = 0;
    assert_int_equal(move_settle(&m, 1), 0);
    int found = 0;
    for (int s = 0; s < m.next.n_slot; s++)
        found |= m.next.expert[s] == 5;
    assert_int_equal(found, 1);
    assert_true(m.moves.n_move >= 1);
    assert_int_equal(m.moves.n_broken, 1);
    arena_fini(&m.mem);
}

static void unlike_tables_and_absurd_prices_are_refused(void **state)
{
    (void)state;
    struct move m;
    move_init(&m, 1, 8);
    m.next.n_slot--;
    assert_int_equal(move_settle(&m, 1), ERR_USAGE);
    m.next.n_slot++;
    err_clear(&m.err);
    m.cost.bytes_per_s = 0;
    assert_int_equal(move_settle(&m, 1), ERR_USAGE);
    assert_string_equal(m.err.text,
                        "the price of moving needs rates above 0 and a horizon of 0 or more");
    arena_fini(&m.mem);
}

static void settling_fits_its_memory(void **state)
{
    (void)state;
    struct move m;
    struct arena exact;
    move_init(&m, 1, 8);
    assert_int_equal(arena_init(&exact, balance_settle_bytes(&m.next)), 0);
    assert_int_equal(
        balance_settle(&m.current, &m.next, &m.in, &m.cost, NULL, &m.moves, &exact, &m.err), 0);
    assert_int_equal(arena_mark(&exact), 0);
    arena_fini(&exact);
    arena_fini(&m.mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_sets_on_other_workers_are_no_move),
        cmocka_unit_test(unlike_workers_do_not_trade_places),
        cmocka_unit_test(a_long_horizon_moves_and_counts_what_it_moves),
        cmocka_unit_test(what_does_not_pay_back_is_refused),
        cmocka_unit_test(few_changes_that_help_most_are_preferred_to_a_new_table),
        cmocka_unit_test(a_layer_with_a_lost_expert_is_never_kept),
        cmocka_unit_test(unlike_tables_and_absurd_prices_are_refused),
        cmocka_unit_test(settling_fits_its_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
