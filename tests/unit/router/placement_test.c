/* placement: holders stay ordered and unique, copies are apart and newer, splits cover every expert
 * once, and a placement file says what it says or is refused in words. */
#include "base/rng.h"
#include "router/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SEED 7

static void assert_holders(const struct placement *p, int layer, int expert, int n,
                           const int32_t *expected)
{
    const int32_t *holder;
    assert_int_equal(placement_holders(p, layer, expert, &holder), n);
    if (n)
        assert_memory_equal(holder, expected, (size_t)n * sizeof(int32_t));
    else
        assert_null(holder);
}

static void placement_keeps_holders_ascending_and_once(void **state)
{
    (void)state;
    struct placement *p;
    assert_int_equal(placement_create(2, 3, &p, NULL), 0);
    static const int32_t adds[] = {5, 1, 9, 5, 3, 1, 0}, expected[] = {0, 1, 3, 5, 9};
    for (int i = 0; i < 7; i++)
        assert_int_equal(placement_add(p, 1, 2, adds[i], NULL), 0);
    assert_holders(p, 1, 2, 5, expected);
    assert_holders(p, 0, 2, 0, NULL);
    assert_holders(p, 1, 1, 0, NULL);
    placement_remove(p, 1, 2, 1);
    placement_remove(p, 1, 2, 4);
    static const int32_t rest[] = {0, 3, 5, 9};
    assert_holders(p, 1, 2, 4, rest);
    assert_int_equal(placement_n_layer(p), 2);
    assert_int_equal(placement_n_expert(p), 3);
    placement_destroy(p);
    placement_destroy(NULL);
}

static void placement_remove_all_takes_a_worker_out_everywhere(void **state)
{
    (void)state;
    struct placement *p;
    assert_int_equal(placement_create(3, 4, &p, NULL), 0);
    static const int32_t low[] = {0, 1}, high[] = {1, 2, 3}, zero = 0, one = 1;
    assert_int_equal(placement_add_all(p, low, 2, 0, NULL), 0);
    assert_int_equal(placement_add_all(p, high, 3, 1, NULL), 0);
    placement_remove(p, -1, 0, 1);
    for (int layer = 0; layer < 3; layer++) {
        assert_holders(p, layer, 0, 1, &zero);
        assert_holders(p, layer, 1, 1, &zero);
        assert_holders(p, layer, 2, 0, NULL);
    }
    assert_int_equal(placement_add(p, 0, 2, 1, NULL), 0);
    assert_holders(p, 0, 2, 1, &one);
    placement_destroy(p);
}

static void placement_copy_is_apart_and_one_epoch_newer(void **state)
{
    (void)state;
    struct placement *p, *copy;
    assert_int_equal(placement_create(1, 2, &p, NULL), 0);
    assert_int_equal(placement_epoch(p), 1);
    for (int worker = 0; worker < 7; worker++)
        assert_int_equal(placement_add(p, 0, 1, worker, NULL), 0);
    placement_set_epoch(p, 41);
    assert_int_equal(placement_copy(p, &copy, NULL), 0);
    assert_int_equal(placement_epoch(copy), 42);
    placement_remove(p, -1, 0, 3);
    static const int32_t all[] = {0, 1, 2, 3, 4, 5, 6}, less[] = {0, 1, 2, 4, 5, 6};
    assert_holders(copy, 0, 1, 7, all);
    assert_holders(p, 0, 1, 6, less);
    placement_destroy(p);
    placement_destroy(copy);
}

static void placement_refuses_ids_outside(void **state)
{
    (void)state;
    struct placement *p = NULL;
    struct err err = {0};
    assert_int_equal(placement_create(0, 4, &p, &err), ERR_LIMIT);
    assert_int_equal(placement_create(4, 4097, &p, NULL), ERR_LIMIT);
    assert_null(p);
    assert_int_equal(placement_create(2, 4, &p, NULL), 0);
    assert_int_equal(placement_add(p, 2, 0, 0, NULL), ERR_LIMIT);
    assert_int_equal(placement_add(p, 0, 4, 0, NULL), ERR_LIMIT);
    assert_int_equal(placement_add(p, 0, -1, 0, NULL), ERR_LIMIT);
    assert_int_equal(placement_add(p, 0, 0, -1, NULL), ERR_LIMIT);
    assert_int_equal(placement_add(p, 0, 0, 16384, NULL), ERR_LIMIT);
    assert_holders(p, 5, 0, 0, NULL);
    assert_holders(p, 0, -1, 0, NULL);
    placement_remove(p, 7, 0, 0);
    placement_destroy(p);
}

/* A table of bytes is the model of the placement: random changes to both, then equality. */
static void placement_agrees_with_a_plain_table(void **state)
{
    (void)state;
    enum { L = 3, E = 5, W = 12 };
    uint8_t model[L][E][W] = {0};
    struct placement *p;
    assert_int_equal(placement_create(L, E, &p, NULL), 0);
    for (uint64_t step = 0; step < 4000; step++) {
        uint32_t r[4];
        rng_block(SEED, 0, step, r);
        int layer = (int)(r[0] % L), expert = (int)(r[1] % E), worker = (int)(r[2] % W);
        if (r[3] % 100 < 55) {
            assert_int_equal(placement_add(p, layer, expert, worker, NULL), 0);
            model[layer][expert][worker] = 1;
        } else if (r[3] % 100 < 97) {
            placement_remove(p, layer, expert, worker);
            model[layer][expert][worker] = 0;
        } else {
            placement_remove(p, -1, 0, worker);
            for (int i = 0; i < L * E; i++)
                model[i / E][i % E][worker] = 0;
        }
    }
    for (int i = 0; i < L * E; i++) {
        int32_t expected[W];
        int n = 0;
        for (int w = 0; w < W; w++)
            if (model[i / E][i % E][w])
                expected[n++] = w;
        assert_holders(p, i / E, i % E, n, expected);
    }
    placement_destroy(p);
}

static void splits_cover_every_expert_once_and_evenly(void **state)
{
    (void)state;
    int (*const splits[])(int, int, int, int32_t *) = {placement_contiguous, placement_round_robin};
    for (int s = 0; s < 2; s++) {
        for (int n_expert = 1; n_expert <= 40; n_expert++) {
            for (int n_part = 1; n_part <= 45; n_part++) {
                int32_t part[40];
                int seen[40] = {0};
                for (int i = 0; i < n_part; i++) {
                    int n = splits[s](n_expert, i, n_part, part);
                    assert_in_range(n, n_expert / n_part, n_expert / n_part + 1);
                    for (int j = 0; j < n; j++) {
                        assert_in_range(part[j], 0, n_expert - 1);
                        assert_true(j == 0 || part[j] > part[j - 1]);
                        seen[part[j]]++;
                    }
                }
                for (int e = 0; e < n_expert; e++)
                    assert_int_equal(seen[e], 1);
            }
        }
    }
    int32_t out[4];
    static const int32_t second[] = {3, 4, 5}, odd[] = {1, 3, 5};
    assert_int_equal(placement_contiguous(6, 1, 2, out), 3);
    assert_memory_equal(out, second, sizeof(second));
    assert_int_equal(placement_round_robin(6, 1, 2, out), 3);
    assert_memory_equal(out, odd, sizeof(odd));
}

static void write_file(char *path, const char *text)
{
    strcpy(path, "/tmp/sigmoe-placement-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void placement_file_reads_every_form(void **state)
{
    (void)state;
    char path[64];
    write_file(path, "{\"epoch\": 3, \"workers\": {\"a\": \"0-1,4\", \"b\": [3, 2],"
                     " \"c\": {\"0,2\": \"0\", \"*\": [4]}, \"d\": {\"1\": []}}}");
    static const struct {
        const char *worker;
        uint8_t held[15];
    } cases[] = {
        {"a", {1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1}},
        {"b", {0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0}},
        {"c", {1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0}},
        {"d", {0}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t held[15];
        struct err err = {0};
        memset(held, 7, sizeof(held));
        assert_int_equal(placement_file_worker(path, cases[i].worker, 3, 5, held, &err), 0);
        assert_memory_equal(held, cases[i].held, sizeof(held));
    }
    unlink(path);
}

static void placement_file_refuses_mistakes_and_writes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int code;
        const char *text;
    } cases[] = {
        {"", ERR_MODEL, ":1:0: '[' or '{' expected near end of file"},
        {"[]", ERR_MODEL, ": no object \"workers\" at the top"},
        {"{\"workers\": 3}", ERR_MODEL, ": no object \"workers\" at the top"},
        {"{\"workers\": {\"b\": \"0\"}}", ERR_USAGE, ": names no worker \"a\""},
        {"{\"worker\": {\"a\": \"0\"}}", ERR_MODEL,
         ": unknown key \"worker\"; expected epoch, workers"},
        {"{\"epoch\": -1, \"workers\": {\"a\": \"0\"}}", ERR_MODEL, ": \"epoch\" is no count"},
        {"{\"epoch\": 1.5, \"workers\": {\"a\": \"0\"}}", ERR_MODEL, ": \"epoch\" is no count"},
        {"{\"workers\": {\"a\": \"0-9\"}}", ERR_MODEL,
         ": worker \"a\": id 9 in '0-9' is too large; ids run from 0 to 4"},
        {"{\"workers\": {\"a\": 3}}", ERR_MODEL,
         ": worker \"a\": experts are neither a string nor a list; write \"0-15,32\", [0, 1] or "
         "{\"LAYER\": \"0-3\"}"},
        {"{\"workers\": {\"a\": [0, 5]}}", ERR_MODEL,
         ": worker \"a\": entry 1 is no expert from 0 to 4"},
        {"{\"workers\": {\"a\": [0, 1, 2, 3, 4, 0]}}", ERR_MODEL,
         ": worker \"a\": more entries than experts; write \"0-15,32\", [0, 1] or {\"LAYER\": "
         "\"0-3\"}"},
        {"{\"workers\": {\"a\": {\"0-1\": \"0\", \"1\": \"1\"}}}", ERR_MODEL,
         ": worker \"a\": two keys name one layer; write \"0-15,32\", [0, 1] or {\"LAYER\": "
         "\"0-3\"}"},
        {"{\"workers\": {\"a\": {\"3\": \"0\"}}}", ERR_MODEL,
         ": worker \"a\": id 3 in '3' is too large; ids run from 0 to 2"},
        {"{\"workers\": {\"a\": \"0\", \"a\": \"1\"}}", ERR_MODEL, "duplicate object key"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[64];
        uint8_t held[15], before[15];
        struct err err = {0};
        write_file(path, cases[i].file);
        memset(held, 7, sizeof(held));
        memset(before, 7, sizeof(before));
        assert_int_equal(placement_file_worker(path, "a", 3, 5, held, &err), cases[i].code);
        assert_memory_equal(held, before, sizeof(held));
        assert_int_equal(strncmp(err.text, path, strlen(path)), 0);
        assert_non_null(strstr(err.text, cases[i].text));
        unlink(path);
    }
    struct err err = {0};
    uint8_t held[15];
    assert_int_equal(placement_file_worker("/nonexistent", "a", 3, 5, held, &err), ERR_IO);
    assert_string_equal(err.text, "placement file /nonexistent: No such file or directory");
    assert_int_equal(placement_file_worker("/dev/null", "a", 3, 5, held, NULL), ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placement_keeps_holders_ascending_and_once),
        cmocka_unit_test(placement_remove_all_takes_a_worker_out_everywhere),
        cmocka_unit_test(placement_copy_is_apart_and_one_epoch_newer),
        cmocka_unit_test(placement_refuses_ids_outside),
        cmocka_unit_test(placement_agrees_with_a_plain_table),
        cmocka_unit_test(splits_cover_every_expert_once_and_evenly),
        cmocka_unit_test(placement_file_reads_every_form),
        cmocka_unit_test(placement_file_refuses_mistakes_and_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
