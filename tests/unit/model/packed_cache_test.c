/* packed_cache: what is mapped has the bytes that were packed; files that are damaged, cut short or
 * of something else are packed and written again; verify finds what the quick look does not. */
#include "model/packed_cache.h"
#include "scratch.h"

#include <fcntl.h>

struct fixture {
    char dir[64], cache[64];
    struct model *model;
};

static void fixture_open(struct fixture *f)
{
    struct err err = {0};
    scratch_make(f->dir);
    scratch_make(f->cache);
    checkpoint_make(f->dir, CONFIG_OLMOE, DTYPE_BF16, 1 << 20);
    if (model_open(f->dir, &f->model, &err) != 0 ||
        model_packed_cache(f->model, f->cache, &err) != 0)
        fail_msg("%s", err.text);
}

static void fixture_close(struct fixture *f)
{
    char path[4400];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", f->model->packed_dir, i ? "f32" : "bf16");
        scratch_clear(path);
    }
    scratch_clear(f->model->packed_dir);
    scratch_clear(f->cache);
    model_close(f->model);
    scratch_clear(f->dir);
}

static void file_of(const struct fixture *f, const char *name, char path[4400])
{
    snprintf(path, 4400, "%s/bf16/%s", f->model->packed_dir, name);
}

/* All experts and the dense weights, compared with those of a run without a cache. Returns how many
 * experts were mapped. */
static int load_and_compare(struct fixture *f, enum precision precision)
{
    struct err err = {0};
    struct expert_set *set, *plain;
    struct dense_weights *dense, *plain_dense;
    struct model *m = f->model, bare = *m;
    const int32_t all[5] = {0, 1, 2, 3, 4};
    bare.packed_dir[0] = '\0';
    assert_int_equal(expert_set_create(m, precision, &set, &err), 0);
    assert_int_equal(expert_set_create(&bare, precision, &plain, &err), 0);
    assert_int_equal(expert_set_load_many(set, all, 5, NULL, &err), 0);
    assert_int_equal(expert_set_load_many(plain, all, 5, NULL, &err), 0);
    assert_int_equal(expert_set_mapped(plain), 0);
    for (int layer = 0; layer < 2; layer++)
        for (int e = 0; e < 5; e++) {
            const struct ffn_weights *a = expert_set_get(set, layer, e);
            const struct ffn_weights *b = expert_set_get(plain, layer, e);
            size_t n = packed_bytes(precision_dtype(precision), a->down.n, a->down.k);
            assert_memory_equal(a->down.data, b->down.data, n);
            n = packed_bytes(precision_dtype(precision), a->gate.n, a->gate.k);
            assert_memory_equal(a->gate.data, b->gate.data, n);
            assert_memory_equal(a->up.data, b->up.data, n);
        }
    assert_int_equal(weights_load_dense(m, precision, NULL, &dense, &err), 0);
    assert_int_equal(weights_load_dense(&bare, precision, NULL, &plain_dense, &err), 0);
    size_t n = packed_bytes(precision_dtype(precision), m->desc.vocab, m->desc.d_model);
    assert_memory_equal(dense->lm_head[0].data, plain_dense->lm_head[0].data, n);
    assert_memory_equal(dense->layer[1].router.data, plain_dense->layer[1].router.data,
                        packed_bytes(DTYPE_F32, 5, 24));
    int mapped = expert_set_mapped(set);
    assert_int_equal(expert_set_count(set), 10);
    weights_free_dense(dense);
    weights_free_dense(plain_dense);
    expert_set_drop(set, 1, 3);
    assert_in_range(mapped - expert_set_mapped(set), 0, 1);
    expert_set_destroy(set);
    expert_set_destroy(plain);
    return mapped;
}

static void byte_flip(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int c = fgetc(file);
    assert_int_not_equal(c, EOF);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    assert_int_equal(fputc(c ^ 1, file), c ^ 1);
    assert_int_equal(fclose(file), 0);
}

static int damaged(struct fixture *f)
{
    struct packed_check check;
    struct err err = {0};
    assert_int_equal(packed_cache_verify(f->model, &check, &err), 0);
    assert_int_equal(check.n_file, 11);
    return check.n_damaged;
}

static ino_t inode(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static void mapped_is_what_was_packed(void **state)
{
    (void)state;
    struct fixture f;
    char path[4400];
    fixture_open(&f);
    file_of(&f, "001-0004.pack", path);
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
    ino_t first = inode(path);
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
    assert_true(inode(path) == first); /* mapped, not written again */
    assert_int_equal(damaged(&f), 0);
    assert_int_equal(load_and_compare(&f, PRECISION_F32), 10);
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
    assert_true(inode(path) == first);
    fixture_close(&f);
}

static void bad_files_are_packed_again(void **state)
{
    (void)state;
    struct fixture f;
    char path[4400];
    fixture_open(&f);
    file_of(&f, "000-0002.pack", path);
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
    const long at[] = {0, 9, 20, 30, 60, 4096, -1};
    for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++) {
        byte_flip(path, at[i]);
        ino_t bad = inode(path);
        assert_int_equal(damaged(&f), 1);
        assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
        assert_false(inode(path) == bad && damaged(&f));
        assert_int_equal(damaged(&f), 0);
    }
    const long size[] = {0, 10, 4096, 4097, 5000};
    for (size_t i = 0; i < sizeof(size) / sizeof(*size); i++) {
        assert_int_equal(truncate(path, size[i]), 0);
        assert_int_equal(damaged(&f), 1);
        assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
        assert_int_equal(damaged(&f), 0);
    }
    fixture_close(&f);
}

static void another_model_is_stale(void **state)
{
    (void)state;
    struct fixture f;
    char path[4400];
    fixture_open(&f);
    file_of(&f, "dense.pack", path);
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
    ino_t first = inode(path);
    f.model->fingerprint.lo ^= 1;
    struct packed_check check;
    struct err err = {0};
    assert_int_equal(packed_cache_verify(f.model, &check, &err), 0);
    assert_int_equal(check.n_stale, 11);
    int held = open(path, O_RDONLY); /* or its number might be given away again */
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
    assert_false(inode(path) == first);
    close(held);
    assert_int_equal(packed_cache_verify(f.model, &check, &err), 0);
    assert_int_equal(check.n_stale, 0);
    fixture_close(&f);
}

/* A byte in the middle of a large slab is not looked at when a process starts. */
static void verify_reads_all_bytes(void **state)
{
    (void)state;
    struct fixture f;
    char path[4400];
    struct stat st;
    fixture_open(&f);
    file_of(&f, "dense.pack", path);
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 10);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size > 4096 * 4);
    assert_int_equal(damaged(&f), 0);
    byte_flip(path, st.st_size / 2);
    assert_int_equal(damaged(&f), 1);
    fixture_close(&f);
}

static void names_of_places(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    char want[4200], keep[4160];
    fixture_open(&f);
    struct model *m = f.model;
    snprintf(keep, sizeof(keep), "%s", m->packed_dir);
    assert_int_equal(model_packed_cache(m, "off", &err), 0);
    assert_string_equal(m->packed_dir, "");
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 0);
    assert_int_equal(model_packed_cache(m, "auto", &err), 0);
    snprintf(want, sizeof(want), "%s/packed", f.dir);
    assert_string_equal(m->packed_dir, want);
    assert_int_equal(model_packed_cache(m, "", &err), ERR_USAGE);
    /* A file where a folder should be: nothing is kept, everything works. */
    text_put(f.cache, "file", "x");
    snprintf(want, sizeof(want), "%s/file", f.cache);
    assert_int_equal(model_packed_cache(m, want, &err), 0);
    assert_int_equal(load_and_compare(&f, PRECISION_BF16), 0);
    snprintf(m->packed_dir, sizeof(m->packed_dir), "%s", keep);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mapped_is_what_was_packed), cmocka_unit_test(bad_files_are_packed_again),
        cmocka_unit_test(another_model_is_stale),    cmocka_unit_test(verify_reads_all_bytes),
        cmocka_unit_test(names_of_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
