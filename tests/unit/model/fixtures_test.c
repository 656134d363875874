/* fixtures: every checkpoint under tests/fixtures/tiny, made by transformers, opens, and is
 * described to the last tensor: what the description asks for is what transformers wrote. */
#include "scratch.h"

static int count(void *arg, enum role role, int layer, int expert)
{
    (void)role, (void)layer, (void)expert;
    (*(size_t *)arg)++;
    return 0;
}

static void fixture_is_whole(const char *dir)
{
    struct model *model;
    struct dense_weights *dense;
    struct err err = {0};
    size_t n_needed = 0;
    uint64_t stored = 0;
    if (model_open(dir, &model, &err) != 0)
        fail_msg("%s: %s", dir, err.text);
    const struct model_desc *d = &model->desc;
    desc_each_tensor(d, count, &n_needed);
    assert_int_equal(checkpoint_n_tensor(model->ck), n_needed);
    for (size_t i = 0; i < n_needed; i++) {
        const struct tensor *t = checkpoint_at(model->ck, i);
        if (t->dtype != DTYPE_U16) /* a routing table has no parameters */
            stored += t->bytes / dtype_bytes(t->dtype);
    }
    assert_int_equal(stored, desc_dense_params(d) + desc_expert_params(d) * (uint64_t)d->n_expert *
                                                        (uint64_t)desc_n_sparse(d));
    if (weights_load_dense(model, PRECISION_F32, NULL, &dense, &err) != 0)
        fail_msg("%s: %s", dir, err.text);
    assert_int_equal(dense->bytes, weights_dense_bytes(d, PRECISION_F32));
    weights_free_dense(dense);
    model_close(model);
}

static void every_fixture_opens_and_is_described_to_the_last_tensor(void **state)
{
    (void)state;
    int n = 0;
    DIR *all = opendir(TESTS_DIR "/fixtures/tiny");
    assert_non_null(all);
    for (const struct dirent *e = readdir(all); e; e = readdir(all)) {
        char dir[512], path[600];
        snprintf(dir, sizeof(dir), TESTS_DIR "/fixtures/tiny/%s", e->d_name);
        snprintf(path, sizeof(path), "%s/config.json", dir);
        if (access(path, F_OK) != 0)
            continue;
        fixture_is_whole(dir);
        n++;
    }
    closedir(all);
    assert_true(n >= 17);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_fixture_opens_and_is_described_to_the_last_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
