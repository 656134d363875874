/* strategy: routing strategies against what each promises, on small batches with known answers and
 * on random ones; what each refuses; and the tables of names. */
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

#define SEED     4
#define N_ROW    256
#define N_EXPERT 32
#define TOP_K    4

struct batch {
    float logits[N_ROW * N_EXPERT], weight[N_ROW * TOP_K];
    int32_t token[N_ROW], domain[N_ROW], slot[N_ROW * TOP_K];
    struct route_input in;
    struct route_stats stats;
    struct arena mem;
    struct err err;
};

static void batch_init(struct batch *b)
{
    memset(b, 0, sizeof(*b));
    rng_normal_fill(SEED, 1, 0, b->logits, N_ROW * N_EXPERT);
    for (int i = 0; i < N_ROW; i++) {
        b->token[i] = i % 50;
        b->domain[i] = i % 4;
        b->logits[i * N_EXPERT] += 3; /* expert 0 is hot */
    }
    b->in = (struct route_input){.n_expert = N_EXPERT,
                                 .top_k = TOP_K,
                                 .n_row = N_ROW,
                                 .layer = 3,
                                 .seed = 11,
                                 .logits = b->logits,
                                 .token = b->token,
                                 .domain = b->domain};
    assert_int_equal(arena_init(&b->mem, strategy_route_bytes(N_ROW, TOP_K, N_EXPERT)), 0);
}

static int batch_route(struct batch *b, const char *name)
{
    const struct strategy *s = strategy_find(STRATEGY_ROUTE, name);
    assert_non_null(s);
    err_clear(&b->err);
    return strategy_route(s, &b->in, b->slot, b->weight, &b->stats, &b->mem, &b->err);
}

static void count(const struct batch *b, int out[N_EXPERT])
{
    memset(out, 0, N_EXPERT * sizeof(*out));
    for (int i = 0; i < b->in.n_row * TOP_K; i++)
        if (b->slot[i] >= 0)
            out[b->slot[i]]++;
}

static struct gate_spec softmax_gate(void)
{
    return (struct gate_spec){
        .kind = GATE_SOFTMAX_TOPK, .n_expert = N_EXPERT, .top_k = TOP_K, .scale = 1};
}

/* Every strategy: ids within range, a row's experts all different, the same again by seed, whatever
 * rows stand beside it (where a strategy does not look at the batch). */
static void strategies_choose_different_experts_the_same_way_each_time(void **state)
{
    (void)state;
    static struct batch b, again;
    struct gate_spec gate = softmax_gate();
    const struct strategy *s;
    batch_init(&b);
    batch_init(&again);
    b.in.gate = again.in.gate = &gate;
    b.in.n_domain = again.in.n_domain = 4;
    for (size_t i = 0; (s = strategy_at(STRATEGY_ROUTE, i)) != NULL; i++) {
        assert_int_equal(batch_route(&b, s->name), 0);
        for (int row = 0; row < N_ROW; row++)
            for (int k = 0; k < TOP_K; k++) {
                int32_t expert = b.slot[row * TOP_K + k];
                assert_in_range(expert + 1, 0, N_EXPERT);
                assert_true(expert >= 0 || b.weight[row * TOP_K + k] == 0);
                for (int j = 0; j < k; j++)
                    assert_true(expert < 0 || b.slot[row * TOP_K + j] != expert);
            }
        assert_int_equal(batch_route(&again, s->name), 0);
        assert_memory_equal(b.slot, again.slot, sizeof(b.slot));
        assert_memory_equal(b.weight, again.weight, sizeof(b.weight));
        assert_int_equal(s->changes_output, strcmp(s->name, "model") != 0);
    }
    arena_fini(&b.mem);
    arena_fini(&again.mem);
}

static void draws_depend_on_the_row_and_not_on_its_batch(void **state)
{
    (void)state;
    static struct batch b, part;
    static const char *const names[] = {"uniform", "hash", "rre", "zipf", "k-hot"};
    static uint64_t id[N_ROW];
    batch_init(&b);
    batch_init(&part);
    for (int i = 0; i < N_ROW; i++)
        id[i] = (uint64_t)i * 1000003;
    b.in.row_id = id;
    part.in.row_id = id + 100;
    part.in.token = b.token + 100;
    part.in.domain = b.domain + 100;
    part.in.n_row = 20;
    b.in.n_domain = part.in.n_domain = 4;
    b.in.domain_share = part.in.domain_share = 0.5;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(batch_route(&b, names[i]), 0);
        assert_int_equal(batch_route(&part, names[i]), 0);
        assert_memory_equal(b.slot + 100 * TOP_K, part.slot, 20 * TOP_K * sizeof(int32_t));
        part.in.seed++;
        assert_int_equal(batch_route(&part, names[i]), 0);
        assert_memory_not_equal(b.slot + 100 * TOP_K, part.slot, 20 * TOP_K * sizeof(int32_t));
        part.in.seed--;
    }
    arena_fini(&b.mem);
    arena_fini(&part.mem);
}

static void model_is_the_gate_or_the_trace(void **state)
{
    (void)state;
    static struct batch b;
    static int32_t expert[N_ROW * TOP_K];
    static float weight[N_ROW * TOP_K], scratch[2 * N_EXPERT];
    struct gate_spec gate = softmax_gate();
    batch_init(&b);
    b.in.gate = &gate;
    gate_select(&gate, b.logits, NULL, NULL, N_ROW, expert, weight, scratch);
    assert_int_equal(batch_route(&b, "model"), 0);
    assert_memory_equal(b.slot, expert, sizeof(expert));
    assert_memory_equal(b.weight, weight, sizeof(weight));
    b.in.gate = NULL;
    b.in.logits = NULL;
    assert_int_equal(batch_route(&b, "model"), ERR_USAGE);
    assert_string_equal(
        b.err.text,
        "routing 'model' needs router logits or a trace, which this input does not have");
    expert[5] = -1;
    b.in.gate_expert = expert;
    b.in.gate_weight = weight;
    assert_int_equal(batch_route(&b, "model"), 0);
    assert_memory_equal(b.slot, expert, sizeof(expert));
    expert[9] = N_EXPERT;
    assert_int_equal(batch_route(&b, "model"), ERR_LIMIT);
    assert_string_equal(b.err.text, "row 2 names expert 32 of 32");
    arena_fini(&b.mem);
}

static void uniform_is_even_and_zipf_and_k_hot_are_as_skewed_as_asked(void **state)
{
    (void)state;
    static struct batch b;
    int n[N_EXPERT], most = 0, sorted_first = 0;
    batch_init(&b);
    assert_int_equal(batch_route(&b, "uniform"), 0);
    count(&b, n);
    for (int e = 0; e < N_EXPERT; e++)
        assert_in_range(n[e], 14, 54); /* 32 expected, standard deviation 5.3 */
    b.in.hot_share = 0.9;
    b.in.n_hot = 8;
    assert_int_equal(batch_route(&b, "k-hot"), 0);
    count(&b, n);
    for (int e = 0; e < N_EXPERT; e++)
        sorted_first += n[e] > 60 ? n[e] : 0;
    assert_in_range(sorted_first, 870, 970); /* 0.9 of 1024 */
    b.in.top_k = 1;
    b.in.zipf_exponent = 1;
    assert_int_equal(batch_route(&b, "zipf"), 0);
    memset(n, 0, sizeof(n));
    for (int i = 0; i < N_ROW; i++)
        n[b.slot[i]]++;
    for (int e = 0; e < N_EXPERT; e++)
        most = n[e] > most ? n[e] : most;
    assert_in_range(most, 42, 84); /* 1 / H(32) = 0.246 of 256 */
    arena_fini(&b.mem);
}

static void domains_have_hot_experts_of_their_own(void **state)
{
    (void)state;
    static struct batch b;
    int n[4][N_EXPERT] = {{0}}, hottest[4] = {0};
    batch_init(&b);
    b.in.domain_share = 1;
    b.in.zipf_exponent = 2;
    assert_int_equal(batch_route(&b, "zipf"), 0);
    for (int i = 0; i < N_ROW * TOP_K; i++)
        n[b.domain[i / TOP_K]][b.slot[i]]++;
    for (int d = 0; d < 4; d++)
        for (int e = 0; e < N_EXPERT; e++)
            hottest[d] = n[d][e] > n[d][hottest[d]] ? e : hottest[d];
    assert_true(hottest[0] != hottest[1] && hottest[1] != hottest[2] && hottest[2] != hottest[3]);
    arena_fini(&b.mem);
}

static void rre_stays_within_the_domain_and_hash_within_the_token(void **state)
{
    (void)state;
    static struct batch b;
    static uint16_t table[4 * 50 * TOP_K];
    batch_init(&b);
    b.in.n_domain = 4;
    assert_int_equal(batch_route(&b, "rre"), 0);
    for (int i = 0; i < N_ROW * TOP_K; i++)
        assert_int_equal(b.slot[i] / 8, b.domain[i / TOP_K]);
    assert_int_equal(batch_route(&b, "hash"), 0);
    assert_memory_equal(b.slot, b.slot + 50 * TOP_K, TOP_K * sizeof(int32_t));
    for (int i = 0; i < 4 * 50 * TOP_K; i++)
        table[i] = (uint16_t)(i % TOP_K + i / (50 * TOP_K) * 8);
    b.in.domain_table = table;
    b.in.n_table = 50;
    assert_int_equal(batch_route(&b, "rre"), 0);
    assert_int_equal(b.slot[5 * TOP_K + 2], 8 + 2);
    b.in.n_table = 49;
    assert_int_equal(batch_route(&b, "rre"), ERR_USAGE);
    assert_string_equal(b.err.text, "token 49 is not in the table of 49 tokens");
    b.in.n_domain = 3;
    assert_int_equal(batch_route(&b, "rre"), ERR_USAGE);
    assert_string_equal(b.err.text, "row 3 is of domain 3 of 3");
    arena_fini(&b.mem);
}

static void capacity_is_kept_and_what_drops_is_counted(void **state)
{
    (void)state;
    static struct batch b;
    struct gate_spec gate = softmax_gate();
    int n[N_EXPERT], empty = 0;
    batch_init(&b);
    b.in.gate = &gate;
    b.in.capacity_factor = 1;
    assert_int_equal(batch_route(&b, "capacity-drop"), 0);
    count(&b, n);
    for (int e = 0; e < N_EXPERT; e++)
        assert_in_range(n[e], 0, 32);
    for (int i = 0; i < N_ROW * TOP_K; i++)
        empty += b.slot[i] < 0;
    assert_true(empty > 0);
    assert_int_equal(b.stats.n_dropped, empty);
    assert_int_equal(batch_route(&b, "capacity-overflow"), 0);
    count(&b, n);
    int64_t total = 0;
    for (int e = 0; e < N_EXPERT; e++) {
        assert_in_range(n[e], 0, 32);
        total += n[e];
    }
    assert_true(b.stats.n_moved > 0);
    assert_int_equal(total + b.stats.n_dropped, N_ROW * TOP_K);
    b.in.capacity_factor = 100;
    assert_int_equal(batch_route(&b, "capacity-drop"), 0);
    assert_int_equal(b.stats.n_dropped, 0);
    arena_fini(&b.mem);
}

static void experts_choose_their_best_rows(void **state)
{
    (void)state;
    static struct batch b;
    int n[N_EXPERT];
    batch_init(&b);
    b.in.capacity_factor = 0.5; /* 16 rows an expert */
    assert_int_equal(batch_route(&b, "expert-choice"), 0);
    count(&b, n);
    for (int e = 0; e < N_EXPERT; e++)
        assert_in_range(n[e], 8, 16);
    for (int row = 0; row < N_ROW; row++)
        for (int k = 1; k < TOP_K; k++)
            assert_true(b.weight[row * TOP_K + k] <= b.weight[row * TOP_K + k - 1]);
    arena_fini(&b.mem);
}

static void groups_limit_where_a_row_goes(void **state)
{
    (void)state;
    static struct batch b;
    batch_init(&b);
    b.in.n_group = 8;
    b.in.topk_group = 2;
    assert_int_equal(batch_route(&b, "group-limited"), 0);
    for (int row = 0; row < N_ROW; row++) {
        int used[8] = {0}, n = 0;
        for (int k = 0; k < TOP_K; k++)
            used[b.slot[row * TOP_K + k] / 4] = 1;
        for (int g = 0; g < 8; g++)
            n += used[g];
        assert_in_range(n, 1, 2);
    }
    assert_int_equal(batch_route(&b, "one-per-group"), 0);
    for (int row = 0; row < N_ROW; row++) {
        int used[TOP_K] = {0};
        for (int k = 0; k < TOP_K; k++)
            used[b.slot[row * TOP_K + k] / (N_EXPERT / TOP_K)]++;
        for (int g = 0; g < TOP_K; g++)
            assert_int_equal(used[g], 1);
    }
    b.in.n_group = 5;
    assert_int_equal(batch_route(&b, "group-limited"), ERR_MODEL);
    b.in.top_k = 3;
    assert_int_equal(batch_route(&b, "one-per-group"), ERR_USAGE);
    assert_string_equal(b.err.text, "one-per-group: 32 experts do not divide into 3 groups");
    arena_fini(&b.mem);
}

static void missing_inputs_are_refused_in_words(void **state)
{
    (void)state;
    static struct batch b;
    static const char *const by_logits[] = {"expert-choice", "capacity-overflow", "group-limited",
                                            "one-per-group"};
    batch_init(&b);
    b.in.logits = NULL;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(batch_route(&b, by_logits[i]), ERR_USAGE);
        assert_non_null(strstr(b.err.text, "needs router logits, which this input does not have"));
    }
    b.in.token = NULL;
    assert_int_equal(batch_route(&b, "hash"), ERR_USAGE);
    assert_int_equal(batch_route(&b, "rre"), ERR_USAGE);
    b.in.n_hot = 33;
    assert_int_equal(batch_route(&b, "k-hot"), ERR_USAGE);
    b.in.top_k = 33;
    assert_int_equal(batch_route(&b, "uniform"), ERR_LIMIT);
    assert_string_equal(b.err.text, "routing to the top 33 of 32 experts is impossible");
    arena_fini(&b.mem);
}

static void names_are_found_and_misspelt_ones_are_helped(void **state)
{
    (void)state;
    const struct strategy *s;
    struct err err = {0};
    char list[2048];
    assert_null(strategy_find(STRATEGY_PLACE, "zipf"));
    assert_int_equal(strategy_find(STRATEGY_REPLICA, "speed")->choice, REPLICA_BY_SPEED);
    assert_int_equal(strategy_get(STRATEGY_PLACE, "--place", "balanced", &s, &err), 0);
    assert_string_equal(s->name, "balanced");
    assert_int_equal(strategy_get(STRATEGY_PLACE, "--place", "balancd", &s, &err), ERR_USAGE);
    assert_string_equal(err.text, "--place: no strategy 'balancd'; did you mean 'balanced'?");
    err_clear(&err);
    assert_int_equal(strategy_get(STRATEGY_REPLICA, "--replicas-by", "?", &s, &err), ERR_USAGE);
    assert_string_equal(err.text, "--replicas-by: no strategy '?'; there are fixed, "
                                  "least-outstanding, round-robin, two-choices, speed, local");
    strategy_list(STRATEGY_ROUTE, list, sizeof(list));
    assert_non_null(strstr(list, "expert-choice"));
    assert_non_null(strstr(list, "changes the output"));
    strategy_list(STRATEGY_ROUTE, list, 10);
    assert_int_equal(strlen(list), 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strategies_choose_different_experts_the_same_way_each_time),
        cmocka_unit_test(draws_depend_on_the_row_and_not_on_its_batch),
        cmocka_unit_test(model_is_the_gate_or_the_trace),
        cmocka_unit_test(uniform_is_even_and_zipf_and_k_hot_are_as_skewed_as_asked),
        cmocka_unit_test(domains_have_hot_experts_of_their_own),
        cmocka_unit_test(rre_stays_within_the_domain_and_hash_within_the_token),
        cmocka_unit_test(capacity_is_kept_and_what_drops_is_counted),
        cmocka_unit_test(experts_choose_their_best_rows),
        cmocka_unit_test(groups_limit_where_a_row_goes),
        cmocka_unit_test(missing_inputs_are_refused_in_words),
        cmocka_unit_test(names_are_found_and_misspelt_ones_are_helped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
