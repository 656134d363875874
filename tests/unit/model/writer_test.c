/* writer: what is declared is what is read back; nothing stands under the target's name before all
 * of it does, and nothing is left beside it after a failure. */
#include "scratch.h"

static int entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

struct place {
    char root[64], dir[96];
};

static void place_make(struct place *p)
{
    scratch_make(p->root);
    snprintf(p->dir, sizeof(p->dir), "%s/model", p->root);
}

static void place_clear(struct place *p)
{
    scratch_clear(p->dir);
    scratch_clear(p->root);
    assert_int_not_equal(access(p->root, F_OK), 0);
}

static const uint64_t three[] = {3}, two_by_two[] = {2, 2}, none[] = {0, 5};

static struct ck_writer *mixed(const struct place *p, uint64_t shard_bytes)
{
    struct ck_writer *w;
    assert_int_equal(ck_writer_open(p->dir, shard_bytes, &w, NULL), 0);
    assert_int_equal(ck_writer_declare(w, "half", DTYPE_BF16, 1, three, NULL), 0);
    assert_int_equal(ck_writer_declare(w, "empty", DTYPE_F16, 2, none, NULL), 0);
    assert_int_equal(ck_writer_declare(w, "full", DTYPE_F32, 2, two_by_two, NULL), 0);
    assert_int_equal(ck_writer_declare(w, "last", DTYPE_F16, 1, three, NULL), 0);
    assert_int_equal(ck_writer_begin(w, NULL), 0);
    return w;
}

/* The stream is bytes 0..27 in declared order, in pieces that respect no tensor's end. */
static void mixed_stream(struct ck_writer *w, size_t piece)
{
    unsigned char bytes[28];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)i;
    for (size_t i = 0; i < sizeof(bytes); i += piece)
        assert_int_equal(ck_writer_data(w, bytes + i, piece < 28 - i ? piece : 28 - i, NULL), 0);
}

static void mixed_check(const struct place *p, int n_shard)
{
    static const struct {
        const char *name;
        unsigned char first;
        size_t align;
    } want[] = {{"half", 0, 2}, {"full", 6, 4}, {"last", 22, 2}};
    struct checkpoint *ck;
    struct err err = {0};
    if (checkpoint_open(p->dir, &ck, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(checkpoint_n_tensor(ck), 4);
    assert_int_equal(checkpoint_n_shard(ck), n_shard);
    for (size_t i = 0; i < 3; i++) {
        const struct tensor *t = checkpoint_find(ck, want[i].name);
        assert_non_null(t);
        assert_int_equal((uintptr_t)t->data % want[i].align, 0);
        for (uint64_t k = 0; k < t->bytes; k++)
            assert_int_equal(((const unsigned char *)t->data)[k], want[i].first + k);
    }
    assert_int_equal(checkpoint_find(ck, "empty")->bytes, 0);
    checkpoint_close(ck);
}

static void mixed_types_come_back_aligned_whatever_the_pieces(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 5, 28};
    static const struct {
        uint64_t shard_bytes;
        int n_shard;
    } cuts[] = {{0, 1}, {1, 3}, {6, 3}, {22, 2}, {28, 1}};
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < sizeof(cuts) / sizeof(cuts[0]); k++) {
            struct place p;
            place_make(&p);
            struct ck_writer *w = mixed(&p, cuts[k].shard_bytes);
            mixed_stream(w, pieces[i]);
            assert_int_not_equal(access(p.dir, F_OK), 0);
            assert_int_equal(ck_writer_commit(w, NULL), 0);
            mixed_check(&p, cuts[k].n_shard);
            assert_int_equal(entries(p.dir), cuts[k].n_shard + (cuts[k].n_shard > 1));
            place_clear(&p);
        }
    }
}

static void an_empty_folder_is_taken_and_a_full_one_refused(void **state)
{
    (void)state;
    struct place p;
    struct ck_writer *w;
    struct err err = {0};
    place_make(&p);
    assert_int_equal(mkdir(p.dir, 0777), 0);
    w = mixed(&p, 0);
    mixed_stream(w, 28);
    assert_int_equal(ck_writer_commit(w, &err), 0);
    mixed_check(&p, 1);
    assert_int_equal(ck_writer_open(p.dir, 0, &w, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "is not empty"));
    err_clear(&err);
    assert_int_equal(ck_writer_open("/nowhere/at/all", 0, &w, &err), ERR_IO);
    assert_non_null(strstr(err.text, "cannot create the folder /nowhere/at/all"));
    place_clear(&p);
}

static void an_incomplete_stream_leaves_nothing(void **state)
{
    (void)state;
    static const char bytes[27];
    struct place p;
    struct err err = {0};
    place_make(&p);
    struct ck_writer *w = mixed(&p, 6);
    assert_int_equal(ck_writer_data(w, bytes, sizeof(bytes), &err), 0);
    assert_int_equal(ck_writer_commit(w, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "tensor \"last\" is incomplete"));
    assert_int_equal(entries(p.root), 0);
    w = mixed(&p, 0);
    ck_writer_abort(w);
    assert_int_equal(entries(p.root), 0);
    place_clear(&p);
}

static void surplus_bytes_and_wrong_declarations_are_refused(void **state)
{
    (void)state;
    static const uint64_t huge[] = {UINT64_C(1) << 62, 4};
    struct place p;
    struct err err = {0};
    struct ck_writer *w;
    place_make(&p);
    w = mixed(&p, 0);
    mixed_stream(w, 28);
    assert_int_equal(ck_writer_data(w, "x", 1, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "more bytes than the declared tensors have"));
    ck_writer_abort(w);
    assert_int_equal(ck_writer_open(p.dir, 0, &w, NULL), 0);
    assert_int_equal(ck_writer_declare(w, "a", DTYPE_F32, 1, three, NULL), 0);
    assert_int_equal(ck_writer_declare(w, "a", DTYPE_F32, 1, three, NULL), ERR_USAGE);
    assert_int_equal(ck_writer_declare(w, "b", DTYPE_NONE, 1, three, NULL), ERR_USAGE);
    assert_int_equal(ck_writer_declare(w, "b", DTYPE_F32, 9, three, NULL), ERR_USAGE);
    assert_int_equal(ck_writer_declare(w, "b", DTYPE_F32, 2, huge, NULL), ERR_LIMIT);
    assert_int_equal(ck_writer_declare(w, "\xff", DTYPE_F32, 1, three, NULL), ERR_NOMEM);
    ck_writer_abort(w);
    place_clear(&p);
}

static void more_than_the_disk_holds_is_refused_before_writing(void **state)
{
    (void)state;
    static const uint64_t exabyte[] = {UINT64_C(1) << 58};
    struct place p;
    struct err err = {0};
    struct ck_writer *w;
    place_make(&p);
    assert_int_equal(ck_writer_open(p.dir, 0, &w, &err), 0);
    assert_int_equal(ck_writer_declare(w, "a", DTYPE_F32, 1, exabyte, &err), 0);
    assert_int_equal(ck_writer_begin(w, &err), ERR_IO);
    assert_non_null(strstr(err.text, "needs 1024.0 PiB, its file system has"));
    ck_writer_abort(w);
    place_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixed_types_come_back_aligned_whatever_the_pieces),
        cmocka_unit_test(an_empty_folder_is_taken_and_a_full_one_refused),
        cmocka_unit_test(an_incomplete_stream_leaves_nothing),
        cmocka_unit_test(surplus_bytes_and_wrong_declarations_are_refused),
        cmocka_unit_test(more_than_the_disk_holds_is_refused_before_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
