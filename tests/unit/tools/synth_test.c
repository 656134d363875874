/* synth and inspect, as a user calls them: what synth writes opens, is the same for the same seed,
 * has the spread asked for, and inspect says of it what the loaders will find. */
#include "model/rre_table.h"
#include "model/weights.h"
#include "tools/commands.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_ARG 16

/* run calls a command with what it prints going to `log`; returns its exit status. */
static int run(int (*cmd)(int, char **), const char *log, const char *line)
{
    char copy[512], *argv[MAX_ARG + 1] = {0};
    int argc = 0;
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word = strtok(copy, " "); word && argc < MAX_ARG; word = strtok(NULL, " "))
        argv[argc++] = word;
    fflush(stdout);
    fflush(stderr);
    int out = dup(1), err = dup(2), fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(out >= 0 && err >= 0 && fd >= 0);
    dup2(fd, 1);
    dup2(fd, 2);
    int status = cmd(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    close(fd);
    return status;
}

struct place {
    char root[64], log[80], a[80], b[80];
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    if (!p)
        return -1;
    strcpy(p->root, "/tmp/sigmoe-test-XXXXXX");
    if (!mkdtemp(p->root))
        return -1;
    snprintf(p->log, sizeof(p->log), "%s/log", p->root);
    snprintf(p->a, sizeof(p->a), "%s/a", p->root);
    snprintf(p->b, sizeof(p->b), "%s/b", p->root);
    *state = p;
    return 0;
}

static void clear(const char *dir)
{
    DIR *d = opendir(dir);
    for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(dir);
}

static int teardown(void **state)
{
    struct place *p = *state;
    clear(p->a);
    clear(p->b);
    clear(p->root);
    free(p);
    return 0;
}

static int synth(const struct place *p, const char *format, const char *dir)
{
    char line[512];
    snprintf(line, sizeof(line), format, dir);
    return run(cmd_synth, p->log, line);
}

static struct model *opened(const char *dir)
{
    struct model *model = NULL;
    struct err err = {0};
    if (model_open(dir, &model, &err) != 0)
        fail_msg("%s", err.text);
    return model;
}

static void logged(const struct place *p, const char *says)
{
    char text[16384] = "";
    FILE *f = fopen(p->log, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    assert_true(n > 0);
    if (!strstr(text, says))
        fail_msg("expected '%s' in '%s'", says, text);
}

static void one_seed_gives_one_model(void **state)
{
    struct place *p = *state;
    assert_int_equal(synth(p, "synth tiny-moe --seed 7 -o %s", p->a), 0);
    assert_int_equal(synth(p, "synth tiny-moe --seed 7 -o %s", p->b), 0);
    struct model *a = opened(p->a), *b = opened(p->b);
    assert_true(hash_equal(a->fingerprint, b->fingerprint));
    for (size_t i = 0; i < checkpoint_n_tensor(a->ck); i++) {
        const struct tensor *x = checkpoint_at(a->ck, i), *y = checkpoint_at(b->ck, i);
        assert_string_equal(x->name, y->name);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->data, y->data, x->bytes);
    }
    model_close(b);
    clear(p->b);
    assert_int_equal(synth(p, "synth tiny-moe --seed 8 -o %s", p->b), 0);
    b = opened(p->b);
    assert_false(hash_equal(a->fingerprint, b->fingerprint));
    model_close(a);
    model_close(b);
}

static void weights_have_the_spread_asked_for_and_norms_are_one(void **state)
{
    struct place *p = *state;
    assert_int_equal(synth(p, "synth tiny-moe --std 0.5 --dtype f32 -o %s", p->a), 0);
    struct model *m = opened(p->a);
    const struct tensor *t = checkpoint_find(m->ck, "model.embed_tokens.weight");
    assert_non_null(t);
    double sum = 0, square = 0, n = (double)(t->bytes / 4);
    for (uint64_t i = 0; i < t->bytes / 4; i++) {
        double x = (double)((const float *)t->data)[i];
        sum += x;
        square += x * x;
    }
    /* 32768 draws: five standard errors of the mean and of the deviation. */
    assert_true(fabs(sum / n) < 5 * 0.5 / sqrt(n));
    assert_true(fabs(sqrt(square / n) - 0.5) < 5 * 0.5 / sqrt(2 * n));
    t = checkpoint_find(m->ck, "model.layers.1.self_attn.q_norm.weight");
    assert_non_null(t);
    for (uint64_t i = 0; i < t->bytes / 4; i++)
        assert_true(((const float *)t->data)[i] == 1.0f);
    const struct tensor *x = checkpoint_find(m->ck, "model.layers.1.mlp.experts.0.up_proj.weight");
    const struct tensor *y = checkpoint_find(m->ck, "model.layers.1.mlp.experts.1.up_proj.weight");
    assert_memory_not_equal(x->data, y->data, x->bytes);
    model_close(m);
}

static void layers_and_shards_are_as_asked(void **state)
{
    struct place *p = *state;
    assert_int_equal(synth(p, "synth tiny-llama --layers 1 --shard-size 64K -o %s", p->a), 0);
    struct model *m = opened(p->a);
    assert_int_equal(m->desc.n_layer, 1);
    assert_true(checkpoint_n_shard(m->ck) > 2);
    assert_int_equal(m->desc.stored, DTYPE_BF16);
    model_close(m);
}

static void wrong_calls_are_refused_with_their_exit_status(void **state)
{
    struct place *p = *state;
    assert_int_equal(synth(p, "synth tiny-moe%.0s", ""), 2);
    logged(p, "sigmoe synth: -o DIR is missing");
    assert_int_equal(synth(p, "synth -o %s", p->a), 2);
    assert_int_equal(synth(p, "synth tiny-moe --dtype int4 -o %s", p->a), 2);
    logged(p, "--dtype must be bf16 or f32");
    assert_int_equal(synth(p, "synth tiny-mo -o %s", p->a), 2);
    logged(p, "did you mean 'tiny-moe'?");
    assert_int_equal(synth(p, "synth tiny-moe --layers 0 -o %s", p->a), 2);
    assert_int_equal(synth(p, "synth %s", "/proc/self/cmdline -o /tmp/never"), 3);
    assert_int_equal(access(p->a, F_OK), -1);
    assert_int_equal(synth(p, "synth tiny-moe -o %s", p->a), 0);
    assert_int_equal(synth(p, "synth tiny-moe -o %s", p->a), 2);
    logged(p, "is not empty; remove it or choose another folder");
    assert_int_equal(run(cmd_inspect, p->log, "inspect"), 2);
    assert_int_equal(run(cmd_inspect, p->log, "inspect nothing"), 2);
    assert_int_equal(run(cmd_inspect, p->log, "inspect tiny-moe --precision f16"), 2);
    assert_int_equal(run(cmd_inspect, p->log, "inspect /tmp"), 3);
    logged(p, "sigmoe inspect: /tmp is no model folder");
    assert_int_equal(run(cmd_inspect, p->log, "inspect --help"), 0);
    logged(p, "usage: sigmoe inspect MODEL");
}

static void inspect_counts_what_the_loaders_map(void **state)
{
    struct place *p = *state;
    char line[256];
    static const int32_t some[] = {2, 3, 4};
    assert_int_equal(synth(p, "synth tiny-moe -o %s", p->a), 0);
    snprintf(line, sizeof(line), "inspect %s --json --split 3 --precision f32", p->a);
    assert_int_equal(run(cmd_inspect, p->log, line), 0);
    json_t *root = json_load_file(p->log, 0, NULL);
    assert_non_null(root);
    struct model *m = opened(p->a);
    struct expert_set *set;
    struct dense_weights *dense;
    assert_int_equal(expert_set_create(m, PRECISION_F32, &set, NULL), 0);
    assert_int_equal(expert_set_load_many(set, some, 3, NULL, NULL), 0);
    assert_int_equal(weights_load_dense(m, PRECISION_F32, NULL, &dense, NULL), 0);
    json_t *holds = json_object_get(json_array_get(json_object_get(root, "splits"), 0), "holds");
    json_t *second = json_array_get(holds, 1);
    assert_int_equal(json_array_size(holds), 3);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(second, "experts"), 0)), 2);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(second, "experts"), 1)), 5);
    assert_int_equal(json_integer_value(json_object_get(second, "bytes")), expert_set_bytes(set));
    assert_int_equal(json_integer_value(json_object_get(second, "count")), expert_set_count(set));
    assert_int_equal(json_integer_value(json_object_get(root, "dense_bytes")), dense->bytes);
    assert_int_equal(json_integer_value(json_object_get(root, "tensors_ignored")), 0);
    char hex[33];
    hash_hex(m->fingerprint, hex);
    assert_string_equal(json_string_value(json_object_get(root, "fingerprint")), hex);
    weights_free_dense(dense);
    expert_set_destroy(set);
    model_close(m);
    json_decref(root);
}

static void tables_are_drawn_from_the_shape_s_seed(void **state)
{
    struct place *p = *state;
    uint16_t row[512 * 2];
    assert_int_equal(synth(p, "synth tiny-pangu --domains zh,code -o %s", p->a), 0);
    struct model *m = opened(p->a);
    assert_int_equal(m->desc.n_domain, 2);
    assert_int_equal(m->desc.n_expert, 6);
    for (int layer = 2; layer < 4; layer++) {
        const struct tensor *t;
        assert_int_equal(checkpoint_role(m->ck, &m->desc, ROLE_ROUTING_TABLE, layer, 0, &t, NULL),
                         0);
        assert_int_equal(t->bytes, 2 * sizeof(row));
        for (int d = 0; d < 2; d++) {
            const struct rre_table draw = {
                "tiny-pangu", d ? "code" : "zh", layer, 512, d ? 2 : 4, 2, NULL};
            assert_int_equal(rre_table_draw(&draw, row, NULL), 0);
            assert_memory_equal((const char *)t->data + (size_t)d * sizeof(row), row, sizeof(row));
        }
    }
    model_close(m);
    assert_int_equal(synth(p, "synth tiny-sigma --domains zh,cod -o %s", p->b), 2);
    logged(p, "there is no domain 'cod'; did you mean 'code'?");
    assert_int_equal(synth(p, "synth tiny-moe --domains zh -o %s", p->b), 2);
    logged(p, "there is no domain 'zh': qwen3_moe models have none");
    assert_int_equal(synth(p, "synth tiny-sigma --layers 1 -o %s", p->b), 0);
    m = opened(p->b);
    assert_int_equal(desc_n_sparse(&m->desc), 1);
    model_close(m);
}

static void inspect_counts_each_domain_s_submodel(void **state)
{
    struct place *p = *state;
    assert_int_equal(run(cmd_inspect, p->log, "inspect pangu-sigma-1t --split 64"), 0);
    logged(p, "family       pangu_sigma, blocks of pangu_alpha, a query layer on top");
    logged(p, "parameters   1.08 T, 12.80 B active a token");
    logged(p, "  poetry                           624-639       0    37.97 B  70.7 GiB\n");
    logged(p, "       64       0  0-9             80  31.3 GiB");

    /* What inspect counts for a domain is what a checkpoint of that domain alone has. */
    char line[256];
    assert_int_equal(run(cmd_inspect, p->log, "inspect tiny-pangu --json"), 0);
    json_t *root = json_load_file(p->log, 0, NULL);
    json_t *code = json_array_get(json_object_get(root, "domains"), 2);
    assert_string_equal(json_string_value(json_object_get(code, "name")), "code");
    assert_int_equal(synth(p, "synth tiny-pangu --domains code -o %s", p->a), 0);
    snprintf(line, sizeof(line), "%s/config.json", p->a);
    json_t *config = json_load_file(line, 0, NULL);
    json_object_set_new(config, "num_embedding_slots", json_integer(1));
    snprintf(line, sizeof(line), "%s/one.json", p->a);
    assert_int_equal(json_dump_file(config, line, 0), 0);
    snprintf(line, sizeof(line), "inspect %s/one.json --json", p->a);
    assert_int_equal(run(cmd_inspect, p->log, line), 0);
    json_t *alone = json_load_file(p->log, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(alone, "parameters")),
                     json_integer_value(json_object_get(code, "submodel_parameters")));
    assert_int_equal(json_integer_value(json_object_get(alone, "total_bytes")),
                     json_integer_value(json_object_get(code, "submodel_bytes")));
    json_decref(root);
    json_decref(config);
    json_decref(alone);
}

static void inspect_reads_configs_and_shapes_without_weights(void **state)
{
    struct place *p = *state;
    assert_int_equal(run(cmd_inspect, p->log, "inspect olmoe-1b-7b"), 0);
    logged(p, "parameters   6.92 B, 1.28 B active a token");
    logged(p, "        2       0  0-31           512  6.0 GiB");
    assert_int_equal(
        run(cmd_inspect, p->log, "inspect " TESTS_DIR "/fixtures/tiny/qwen2_moe/config.json"), 0);
    logged(p, "layers       4: 2 sparse, 2 dense");
    assert_int_equal(
        run(cmd_inspect, p->log, "inspect " TESTS_DIR "/fixtures/tiny/mixtral_sliding"), 0);
    logged(p, "2 with a window of 7");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_seed_gives_one_model),
        TEST(weights_have_the_spread_asked_for_and_norms_are_one),
        TEST(layers_and_shards_are_as_asked),
        TEST(wrong_calls_are_refused_with_their_exit_status),
        TEST(inspect_counts_what_the_loaders_map),
        TEST(tables_are_drawn_from_the_shape_s_seed),
        TEST(inspect_counts_each_domain_s_submodel),
        TEST(inspect_reads_configs_and_shapes_without_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
