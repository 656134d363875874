/* Arrivals have the rate, the burstiness and the mix that were asked for, depend on the seed alone,
 * and files that are not what they should be are refused in one line. */
#include "tools/sim/arrivals.h"
#include "tools/sim/prompt.h"

#include "base/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct arrival_spec spec_of(const char *kind)
{
    struct arrival_spec s = {.rate = 20,
                             .prompt_mean = 200,
                             .output_mean = 50,
                             .length_cv = 0.5,
                             .duration_s = 2000,
                             .seed = 7};
    struct err err = {0};
    assert_int_equal(arrival_parse(kind, &s, &err), 0);
    return s;
}

/* Variance over mean of the counts in stretches of 5 s: 1 for Poisson. */
static double dispersion(const struct arrivals *a, double duration_s)
{
    int n = (int)(duration_s / 5);
    double *count = calloc((size_t)n, sizeof(*count)), mean = 0, square = 0;
    for (int i = 0; i < a->n; i++) {
        int k = (int)((double)a->at[i].at_ns / 5e9);
        count[k < n ? k : n - 1]++;
    }
    for (int i = 0; i < n; i++)
        mean += count[i] / n;
    for (int i = 0; i < n; i++)
        square += (count[i] - mean) * (count[i] - mean) / n;
    free(count);
    return square / mean;
}

static void poisson_has_its_rate_and_dispersion(void **state)
{
    (void)state;
    struct arrival_spec s = spec_of("poisson");
    struct arrivals a;
    struct err err = {0};
    assert_int_equal(arrivals_make(&s, &a, &err), 0);
    assert_true(fabs(a.n / s.duration_s - 20) < 0.5); /* 5 standard deviations */
    assert_true(fabs(dispersion(&a, s.duration_s) - 1) < 0.3);
    double prompt = 0;
    for (int i = 0; i < a.n; i++)
        prompt += (double)a.at[i].n_prompt / a.n;
    assert_true(fabs(prompt - 200) < 5);
    arrivals_free(&a);
}

static void bursts_keep_the_rate_and_clump(void **state)
{
    (void)state;
    struct arrival_spec s = spec_of("bursts:4,2,0.1");
    struct arrivals a;
    struct err err = {0};
    s.duration_s = 20000;
    assert_int_equal(arrivals_make(&s, &a, &err), 0);
    assert_true(fabs(a.n / s.duration_s - 20) < 1);
    assert_true(dispersion(&a, s.duration_s) > 4);
    for (int i = 1; i < a.n; i++)
        assert_true(a.at[i].at_ns >= a.at[i - 1].at_ns);
    arrivals_free(&a);
}

static void uniform_is_a_metronome(void **state)
{
    (void)state;
    struct arrival_spec s = spec_of("uniform");
    struct arrivals a;
    struct err err = {0};
    s.duration_s = 1.01;
    assert_int_equal(arrivals_make(&s, &a, &err), 0);
    assert_int_equal(a.n, 20);
    for (int i = 1; i < a.n; i++)
        assert_true(llabs(a.at[i].at_ns - a.at[i - 1].at_ns - 50 * NS_PER_MS) <= 1);
    arrivals_free(&a);
}

static int same(const struct arrival *a, const struct arrival *b)
{
    return a->at_ns == b->at_ns && a->n_prompt == b->n_prompt && a->n_output == b->n_output &&
           a->domain == b->domain;
}

static void a_seed_is_one_list_and_another_seed_another(void **state)
{
    (void)state;
    struct arrival_spec s = spec_of("poisson");
    struct arrivals a, b, c;
    struct err err = {0};
    s.duration_s = 10;
    assert_int_equal(arrivals_make(&s, &a, &err), 0);
    assert_int_equal(arrivals_make(&s, &b, &err), 0);
    assert_int_equal(a.n, b.n);
    for (int i = 0; i < a.n; i++)
        assert_true(same(&a.at[i], &b.at[i]));
    s.seed++;
    assert_int_equal(arrivals_make(&s, &c, &err), 0);
    assert_false(same(&a.at[0], &c.at[0]));
    arrivals_free(&a);
    arrivals_free(&b);
    arrivals_free(&c);
}

static void a_mix_moves_from_one_domain_to_another(void **state)
{
    (void)state;
    struct arrival_spec s = spec_of("poisson");
    struct arrivals a;
    struct err err = {0};
    assert_int_equal(domain_mix_parse("0:1,0/2000:0,1", &s.mix, &err), 0);
    assert_int_equal(arrivals_make(&s, &a, &err), 0);
    double second[2] = {0}, n[2] = {0};
    for (int i = 0; i < a.n; i++) {
        int half = a.at[i].at_ns >= 1000 * NS_PER_S;
        second[half] += a.at[i].domain;
        n[half]++;
    }
    assert_true(fabs(second[0] / n[0] - 0.25) < 0.03 && fabs(second[1] / n[1] - 0.75) < 0.03);
    arrivals_free(&a);
}

/* ---- files ---- */

static const char *file_of(const char *text, size_t bytes)
{
    static char path[64];
    snprintf(path, sizeof(path), "/tmp/sigmoe-arrivals-%d", (int)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    return path;
}

static int read_text(const char *text, struct arrivals *a, struct err *err)
{
    struct arrival_spec s = spec_of(file_of(text, strlen(text)));
    s.rate = 0;
    *err = (struct err){0};
    int rc = arrivals_make(&s, a, err);
    unlink(s.path);
    return rc;
}

#define CSV "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"

static void azure_and_mooncake_are_read(void **state)
{
    (void)state;
    struct arrivals a;
    struct err err;
    assert_int_equal(read_text(CSV "2023-11-16 23:59:59.500000,374,44\r\n"
                                   "2023-11-17 00:00:01.0000000,396,109\r\n",
                               &a, &err),
                     0);
    assert_int_equal(a.n, 2);
    assert_true(a.at[0].at_ns == 0 && a.at[1].at_ns == 1500 * NS_PER_MS);
    assert_true(a.at[1].n_prompt == 396 && a.at[1].n_output == 109);
    arrivals_free(&a);
    assert_int_equal(
        read_text("{\"timestamp\": 3000, \"input_length\": 6758, \"output_length\": 500, "
                  "\"hash_ids\": [0, 1]}\n"
                  "{\"timestamp\": 4000, \"input_length\": 1, \"output_length\": 2}\n",
                  &a, &err),
        0);
    assert_true(a.n == 2 && a.at[1].at_ns == NS_PER_S && a.at[0].n_prompt == 6758);
    assert_true(a.at[0].n_block == 2 && a.block[a.at[0].first_block + 1] == 1);
    assert_int_equal(a.at[1].n_block, 0);
    arrivals_free(&a);
}

/* Where names are the same tokens are, and nowhere else. */
static void prompts_begin_alike_where_their_blocks_do(void **state)
{
    (void)state;
    int64_t block[] = {7, 8, 7, 9};
    struct arrival at[] = {{.n_prompt = 20, .first_block = 0, .n_block = 2},
                           {.n_prompt = 20, .first_block = 2, .n_block = 2},
                           {.n_prompt = 20}};
    struct arrivals a = {.at = at, .n = 3, .block = block, .n_block = 4, .block_tokens = 8};
    int32_t token[3][20];
    for (int i = 0; i < 3; i++) {
        prompt_fill(&a, i, 1, 1000000, token[i]);
        for (int k = 0; k < 20; k++)
            assert_in_range(token[i][k], 0, 999999);
    }
    assert_memory_equal(token[0], token[1], 8 * sizeof(int32_t));
    for (int k = 8; k < 20; k++)
        assert_int_not_equal(token[0][k], token[1][k]);
    assert_int_not_equal(token[0][0], token[2][0]);
    prompt_fill(&a, 0, 2, 1000000, token[1]);
    assert_int_not_equal(token[0][0], token[1][0]);
}

static void a_file_is_stretched_to_a_rate(void **state)
{
    (void)state;
    const char *text = "{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 1}\n"
                       "{\"timestamp\": 1000, \"input_length\": 9, \"output_length\": 1}\n";
    struct arrival_spec s = spec_of(file_of(text, strlen(text)));
    struct arrivals a;
    struct err err = {0};
    s.rate = 0.5; /* recorded: 2 in 1 s */
    assert_int_equal(arrivals_make(&s, &a, &err), 0);
    unlink(s.path);
    assert_true(a.at[1].at_ns == 4 * NS_PER_S);
    arrivals_free(&a);
}

static void bad_files_are_one_clear_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {CSV "2023-11-16 18:15:46.6,374,44\n2023-11-16 18:15:50.9,39", "cut short"},
        {CSV "2023-11-16 18:15:46.6,374\n", "line 2: not TIMESTAMP"},
        {CSV "2023-11-16 18:15:46.6,374,44\n2023-11-16 18:15:40.0,1,1\n", "earlier than the line"},
        {CSV, "holds no arrivals"},
        {"a,b\n", "line 1: neither the header"},
        {"{\"timestamp\": 0}\n", "needs timestamp"},
        {"{\"timestamp\": 0, \"input_length\": -4, \"output_length\": 1}\n", "out of range"},
        {"{\"timestamp\": 0, \"inp\n", "line 1: not a JSON object"},
        {"\xfd"
         "7zXZ\n",
         "compressed"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct arrivals a;
        struct err err;
        assert_int_equal(read_text(bad[i].text, &a, &err), ERR_MODEL);
        if (!strstr(err.text, bad[i].says) || strchr(err.text, '\n'))
            fail_msg("%zu: %s", i, err.text);
    }
}

static void bad_words_are_refused(void **state)
{
    (void)state;
    struct arrival_spec s = {0};
    struct err err = {0};
    assert_int_equal(arrival_parse("bursts:4,2", &s, &err), ERR_USAGE);
    static const char *const mixes[] = {
        "", "1,", "a", "0,0", "0:1,0/0:1,1", "5:1,0/3:0,1", "0:1/1:1,2", "-1,2", "1,1/2"};
    for (size_t i = 0; i < sizeof(mixes) / sizeof(mixes[0]); i++) {
        err = (struct err){0};
        if (domain_mix_parse(mixes[i], &s.mix, &err) != ERR_USAGE)
            fail_msg("'%s' passed", mixes[i]);
    }
    s = spec_of("bursts:20,2,0.1"); /* 20 x 0.1 of the mean is more than all of it */
    struct arrivals a;
    err = (struct err){0};
    assert_int_equal(arrivals_make(&s, &a, &err), ERR_USAGE);
    s = spec_of("/nonexistent/file");
    err = (struct err){0};
    assert_int_equal(arrivals_make(&s, &a, &err), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poisson_has_its_rate_and_dispersion),
        cmocka_unit_test(bursts_keep_the_rate_and_clump),
        cmocka_unit_test(uniform_is_a_metronome),
        cmocka_unit_test(a_seed_is_one_list_and_another_seed_another),
        cmocka_unit_test(a_mix_moves_from_one_domain_to_another),
        cmocka_unit_test(azure_and_mooncake_are_read),
        cmocka_unit_test(prompts_begin_alike_where_their_blocks_do),
        cmocka_unit_test(a_file_is_stretched_to_a_rate),
        cmocka_unit_test(bad_files_are_one_clear_line),
        cmocka_unit_test(bad_words_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
