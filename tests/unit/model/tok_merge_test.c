/* Very long words are merged in windows: the ids are those of the plain rule, the pair of the
 * lowest rank first and the leftmost among equals, whatever the table. Tables of published models
 * are tame (a pair's rank is above those that made its halves); these are random, with ranks in no
 * order and ties, so that merges run on and cuts between windows fail. */
#include "base/rng.h"
#include "model/tok_merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define N_SYMBOL 9500 /* more than two windows */
#define N_TABLE  24

static uint32_t draw(uint64_t *state, uint32_t below)
{
    uint32_t word[4];
    rng_block(7, 0, (*state)++, word);
    return word[0] % below;
}

static void table_init(struct tok_bpe *bpe, const struct tok_vocab *vocab, uint64_t *state,
                       int n_base, int n_merge, uint32_t n_rank)
{
    struct err err = {0};
    assert_int_equal(tok_bpe_init(bpe, vocab, (size_t)n_merge, &err), 0);
    for (int i = 0; i < n_merge; i++) {
        uint32_t n_id = (uint32_t)(n_base + i);
        int32_t left = (int32_t)draw(state, n_id), right = (int32_t)draw(state, n_id);
        uint32_t rank = n_rank ? draw(state, n_rank) : (uint32_t)i;
        assert_int_equal(tok_bpe_merge(bpe, left, right, n_base + i, rank, &err), 0);
    }
}

/* The rule, word for word. Returns how many are left. */
static size_t merge_plainly(const struct tok_bpe *bpe, int32_t *id, size_t n)
{
    uint32_t *rank = malloc(n * sizeof *rank);
    int32_t merged = -1;
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = tok_rank_of(bpe, id[i], id[i + 1], &merged);
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (n < 2 || rank[best] == TOK_NO_RANK)
            break;
        tok_rank_of(bpe, id[best], id[best + 1], &merged);
        id[best] = merged;
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        n--;
        if (best + 1 < n)
            rank[best] = tok_rank_of(bpe, id[best], id[best + 1], &merged);
        if (best > 0)
            rank[best - 1] = tok_rank_of(bpe, id[best - 1], id[best], &merged);
    }
    free(rank);
    return n;
}

static void check_word(const struct tok_bpe *bpe, const struct tok_ids *word)
{
    struct tok_ids got = {0};
    int32_t *want = malloc(word->n * sizeof *want);
    memcpy(want, word->id, word->n * sizeof *want);
    size_t n = merge_plainly(bpe, want, word->n);
    assert_int_equal(tok_merge_long(bpe, word, &got), 0);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.id, want, n * sizeof *want);
    free(want);
    tok_ids_fini(&got);
}

static void random_words(struct tok_ids *word, uint64_t *state, int n_base)
{
    word->n = 0;
    for (int i = 0; i < N_SYMBOL; i++)
        assert_int_equal(tok_ids_add(word, (int32_t)draw(state, (uint32_t)n_base)), 0);
}

static void windows_change_no_id(void **unused)
{
    struct tok_vocab vocab = {0};
    struct tok_ids word = {0};
    uint64_t state = 0;
    (void)unused;
    for (int t = 0; t < N_TABLE; t++) {
        struct tok_bpe bpe;
        int n_base = 2 + t % 4;
        uint32_t n_rank = t % 3 == 0 ? 0 : t % 3 == 1 ? 5 : 1000; /* in order; ties; neither */
        table_init(&bpe, &vocab, &state, n_base, 20 + 30 * (t % 5), n_rank);
        random_words(&word, &state, n_base);
        check_word(&bpe, &word);
        tok_bpe_fini(&bpe);
    }
    tok_ids_fini(&word);
}

static void one_table(struct tok_bpe *bpe, const struct tok_vocab *vocab, const int32_t (*merge)[3],
                      int n_merge, const struct tok_ids *word)
{
    struct err err = {0};
    assert_int_equal(tok_bpe_init(bpe, vocab, 16, &err), 0);
    for (int i = 0; i < n_merge; i++)
        assert_int_equal(
            tok_bpe_merge(bpe, merge[i][0], merge[i][1], merge[i][2], (uint32_t)i, &err), 0);
    check_word(bpe, word);
    tok_bpe_fini(bpe);
}

/* Pairs that become one of ever more; a first symbol that swallows all behind it; a last one that
 * swallows all before it, so that whatever cut was made there fails. */
static void what_is_far_away_counts(void **unused)
{
    static const int32_t twice[][3] = {{0, 0, 2}, {2, 2, 3}, {3, 3, 4}, {4, 4, 5}, {5, 5, 6}};
    static const int32_t behind[][3] = {{0, 0, 2}, {2, 0, 2}}, before[][3] = {{0, 1, 1}};
    struct tok_vocab vocab = {0};
    struct tok_ids word = {0};
    struct tok_bpe bpe;
    (void)unused;
    for (int i = 0; i < N_SYMBOL; i++)
        assert_int_equal(tok_ids_add(&word, 0), 0);
    one_table(&bpe, &vocab, twice, 5, &word);
    one_table(&bpe, &vocab, behind, 2, &word);
    for (int at = 4000; at < N_SYMBOL; at += 1000) {
        word.id[at] = 1;
        one_table(&bpe, &vocab, before, 1, &word);
        word.id[at] = at % 3 == 0 ? 1 : 0;
    }
    tok_ids_fini(&word);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_change_no_id),
        cmocka_unit_test(what_is_far_away_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
