/* rre_table: the draw is the one docs/PANGU_SIGMA.md states, tables are balanced, and what no draw
 * could have made is refused. The golden rows come from a separate implementation of the page in
 * Python over libxxhash. */
#include "model/rre_table.h"

#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VOCAB 5003

static void draws_are_those_of_the_documentation(void **state)
{
    (void)state;
    static const uint16_t zh[24] = {0, 3, 1, 1, 3, 0, 1, 0, 3, 1, 2, 2,
                                    2, 1, 3, 0, 3, 1, 0, 3, 0, 2, 2, 2};
    static const uint16_t code[36] = {3, 4, 5, 1, 2, 3, 4, 3, 2, 3, 2, 1, 0, 1, 2, 4, 5, 0,
                                      5, 4, 3, 5, 0, 1, 1, 0, 5, 2, 1, 0, 2, 1, 0, 0, 1, 2};
    static const uint16_t en[16] = {0, 1, 2, 1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 2, 2, 2};
    static const uint64_t count[16] = {100, 50, 0, 0, 7, 7, 7, 1, 1, 1, 0, 0, 30, 20, 0, 2};
    uint16_t row[36];
    const struct rre_table a = {"sigma", "zh", 5, 24, 4, 1, NULL};
    assert_int_equal(rre_table_draw(&a, row, NULL), 0);
    assert_memory_equal(row, zh, sizeof(zh));
    const struct rre_table b = {"sigma", "code", 6, 12, 6, 3, NULL};
    assert_int_equal(rre_table_draw(&b, row, NULL), 0);
    assert_memory_equal(row, code, sizeof(code));
    const struct rre_table c = {"", "en", 4, 16, 3, 1, count};
    assert_int_equal(rre_table_draw(&c, row, NULL), 0);
    assert_memory_equal(row, en, sizeof(en));
}

/* The smallest and the largest load of the first entries; loads weigh counts, or tokens. */
static void loads_of(const struct rre_table *t, const uint16_t *row, uint64_t *low, uint64_t *high)
{
    uint64_t load[64] = {0};
    for (int i = 0; i < t->vocab; i++)
        load[row[i * t->top_k]] += t->count ? t->count[i] : 1;
    *low = *high = load[0];
    for (int e = 1; e < t->n_expert; e++) {
        *low = load[e] < *low ? load[e] : *low;
        *high = load[e] > *high ? load[e] : *high;
    }
}

static void every_entry_is_balanced_and_passes_the_check(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {2, 1}, {2, 2}, {7, 3}, {16, 1}, {16, 16}, {60, 4}};
    static uint16_t row[VOCAB * 16];
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const struct rre_table t = {"a seed", "zh", 3, VOCAB, sizes[i][0], sizes[i][1], NULL};
        uint64_t low, high;
        assert_int_equal(rre_table_draw(&t, row, NULL), 0);
        assert_int_equal(rre_table_check(row, VOCAB, t.n_expert, t.top_k, "t", "zh", NULL), 0);
        loads_of(&t, row, &low, &high);
        assert_true(high - low <= 1);
    }
}

static void counts_balance_by_frequency(void **state)
{
    (void)state;
    static uint64_t count[VOCAB];
    static uint16_t by_count[VOCAB], by_token[VOCAB];
    uint64_t sum = 0, low, high;
    for (int i = 0; i < VOCAB; i++)
        sum += count[i] = (uint64_t)(1000000 / (i + 20)); /* as words of a language are spread */
    struct rre_table t = {"s", "en", 3, VOCAB, 16, 1, NULL};
    assert_int_equal(rre_table_draw(&t, by_token, NULL), 0);
    t.count = count;
    assert_int_equal(rre_table_draw(&t, by_count, NULL), 0);
    loads_of(&t, by_count, &low, &high);
    assert_true((double)(high - low) < 0.002 * (double)sum / 16);
    uint64_t token_low, token_high;
    loads_of(&t, by_token, &token_low, &token_high);
    assert_true(token_high - token_low > 100 * (high - low));
    assert_int_equal(rre_table_check(by_count, VOCAB, 16, 1, "t", "en", NULL), 0);

    /* Tokens never seen are spread as well. */
    memset(count, 0, sizeof(count));
    count[7] = 1000;
    assert_int_equal(rre_table_draw(&t, by_count, NULL), 0);
    assert_int_equal(rre_table_check(by_count, VOCAB, 16, 1, "t", "en", NULL), 0);
}

static void a_row_depends_on_seed_layer_and_name(void **state)
{
    (void)state;
    static uint16_t row[4][VOCAB];
    const struct rre_table t[4] = {{"s", "zh", 3, VOCAB, 8, 1, NULL},
                                   {"t", "zh", 3, VOCAB, 8, 1, NULL},
                                   {"s", "zh", 4, VOCAB, 8, 1, NULL},
                                   {"s", "en", 3, VOCAB, 8, 1, NULL}};
    for (int i = 0; i < 4; i++)
        assert_int_equal(rre_table_draw(&t[i], row[i], NULL), 0);
    for (int i = 1; i < 4; i++) {
        int n_same = 0;
        for (int k = 0; k < VOCAB; k++)
            n_same += row[i][k] == row[0][k];
        assert_in_range(n_same, VOCAB / 8 - 200, VOCAB / 8 + 200);
    }
}

static void bad_rows_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint16_t row[8];
        int n_expert, top_k;
        const char *says;
    } cases[] = {
        {{0, 1, 2, 3, 0, 1, 4, 3},
         4,
         1,
         "T: domain 'zh' gives token 6 expert 4, its group has experts 0-3"},
        {{0, 1, 2, 3, 1, 1, 2, 3}, 4, 2, "T: domain 'zh' gives token 2 the same expert twice"},
    };
    for (size_t i = 0; i < 2; i++) {
        struct err err = {0};
        assert_int_equal(rre_table_check(cases[i].row, 8 / cases[i].top_k, cases[i].n_expert,
                                         cases[i].top_k, "T", "zh", &err),
                         ERR_MODEL);
        assert_string_equal(err.text, cases[i].says);
    }
    /* 32 tokens for each of 4 experts, and one expert idle; with a token fewer it may be. */
    uint16_t idle[128];
    struct err err = {0};
    for (int i = 0; i < 128; i++)
        idle[i] = (uint16_t)(i % 3 == 2 ? 3 : i % 3);
    assert_int_equal(rre_table_check(idle, 128, 4, 1, "T", "zh", &err), ERR_MODEL);
    assert_string_equal(err.text,
                        "T: the table is unbalanced: domain 'zh' gives none of 128 tokens "
                        "to expert 2, and uses 3 of its group of 4");
    assert_int_equal(rre_table_check(idle, 127, 4, 1, "T", "zh", NULL), 0);
    uint16_t row[4];
    const struct rre_table impossible = {"s", "zh", 0, 4, 1, 2, NULL};
    assert_int_equal(rre_table_draw(&impossible, row, NULL), ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_are_those_of_the_documentation),
        cmocka_unit_test(every_entry_is_balanced_and_passes_the_check),
        cmocka_unit_test(counts_balance_by_frequency),
        cmocka_unit_test(a_row_depends_on_seed_layer_and_name),
        cmocka_unit_test(bad_rows_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
