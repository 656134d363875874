/* compute: a request's rows are, bit for bit, what one expert and one row at a time give, whatever
 * is merged with it, however many threads there are and wherever the rows lie. */
#include "worker/worker.h"

#include "tests/unit/worker/world.h"

#define N_ITEM 5

struct bench {
    struct model *model;
    const struct kernels *kernels;
    enum precision precision;
    enum dtype dtype;
    struct expert_set *set;
    int layer; /* a sparse one */
    size_t row_bytes;
};

static void bench_open(struct bench *b, const char *name, enum precision precision)
{
    struct err err = {0};
    *b = (struct bench){.model = world_model(name),
                        .kernels = world_kernels(),
                        .precision = precision,
                        .dtype = precision_dtype(precision)};
    const struct model_desc *desc = &b->model->desc;
    while (!desc->layer[b->layer].sparse)
        b->layer++;
    b->row_bytes = (size_t)desc->d_model * dtype_bytes(b->dtype);
    if (expert_set_create(b->model, precision, &b->set, &err) != 0 ||
        held_load(b->set, desc, NULL, NULL, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(expert_set_count(b->set), desc->n_expert * desc_n_sparse(desc));
}

static void bench_close(struct bench *b)
{
    expert_set_destroy(b->set);
    model_close(b->model);
}

static struct compute_item item_of(const struct bench *b, const struct world_request *r, void *out)
{
    return (struct compute_item){.layer = b->layer,
                                 .n_seg = r->n_seg,
                                 .seg_expert = r->seg_expert,
                                 .seg_count = r->seg_count,
                                 .rows = r->rows,
                                 .n_row = r->n_row,
                                 .row_index = r->row_index,
                                 .out = out};
}

/* direct: one row through one expert by the kernel alone. */
static void direct(const struct bench *b, int expert, const void *row, void *out)
{
    const struct model_desc *desc = &b->model->desc;
    size_t es = dtype_bytes(b->dtype);
    size_t x_bytes = ((size_t)k_padded(desc->d_model) * es + 63) / 64 * 64;
    size_t h_bytes = ((size_t)k_padded(desc->d_ff_expert) * es + 63) / 64 * 64;
    void *x = aligned_alloc(64, x_bytes), *h = aligned_alloc(64, h_bytes);
    memset(x, 0, x_bytes);
    memset(h, 0xff, h_bytes);
    memcpy(x, row, b->row_bytes);
    struct ffn_segment seg = {expert_set_get(b->set, b->layer, expert), 0, 1};
    struct ffn f = {.act = desc->act,
                    .act_alpha = desc->act_alpha,
                    .act_limit = desc->act_limit,
                    .d_model = desc->d_model,
                    .d_ff = desc->d_ff_expert,
                    .seg = &seg,
                    .n_seg = 1,
                    .x = x,
                    .ldx = (size_t)k_padded(desc->d_model),
                    .h = h,
                    .y = out,
                    .y_dtype = b->dtype,
                    .ldy = (size_t)desc->d_model};
    for (int stage = 0; stage < 2; stage++)
        b->kernels->ffn(&f, stage, 0, b->kernels->ffn_units(&f, stage));
    free(x);
    free(h);
}

static void assert_direct(const struct bench *b, const struct world_request *r, const void *out)
{
    unsigned char *want = malloc(b->row_bytes);
    int a = 0;
    for (int s = 0; s < r->n_seg; s++)
        for (uint32_t j = 0; j < r->seg_count[s]; j++, a++) {
            direct(b, (int)r->seg_expert[s], r->rows + (size_t)r->row_index[a] * b->row_bytes,
                   want);
            assert_memory_equal((const unsigned char *)out + (size_t)a * b->row_bytes, want,
                                b->row_bytes);
        }
    assert_int_equal(a, r->n_assign);
    free(want);
}

/* guarded memory for a result: bytes behind it must stay as they are. */
static unsigned char *result_new(size_t bytes)
{
    unsigned char *p = malloc(bytes + 64);
    assert_non_null(p);
    memset(p, 0xab, bytes + 64);
    return p;
}

static void assert_guard(const unsigned char *p, size_t bytes)
{
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(p[bytes + i], 0xab);
}

static void check_model(const char *name, enum precision precision, int n_thread)
{
    struct bench b;
    bench_open(&b, name, precision);
    struct team *team = n_thread > 1 ? team_create(n_thread, 0) : NULL;
    struct compute *c = NULL;
    struct err err = {0};
    assert_int_equal(compute_create(b.model, precision, b.kernels, team, &c, &err), 0);
    static const int n_row[N_ITEM] = {1, 17, 3, 40, 1};
    static const size_t skew[N_ITEM] = {0, 8, 40, 0, 24};
    static struct world_request r[N_ITEM];
    unsigned char *alone[N_ITEM], *merged[N_ITEM];
    struct compute_item item[N_ITEM];
    for (int i = 0; i < N_ITEM; i++) {
        world_request_make(&r[i], &b.model->desc, b.dtype, n_row[i], (uint64_t)(100 + i), NULL,
                           skew[i]);
        size_t bytes = (size_t)r[i].n_assign * b.row_bytes;
        alone[i] = result_new(bytes);
        merged[i] = result_new(bytes);
        item[i] = item_of(&b, &r[i], alone[i]);
        assert_int_equal(compute_run(c, b.set, &item[i], 1, &err), 0);
        assert_direct(&b, &r[i], alone[i]);
        item[i].out = merged[i];
    }
    assert_int_equal(compute_run(c, b.set, item, N_ITEM, &err), 0);
    for (int i = 0; i < N_ITEM; i++) {
        size_t bytes = (size_t)r[i].n_assign * b.row_bytes;
        assert_memory_equal(merged[i], alone[i], bytes);
        assert_guard(alone[i], bytes);
        assert_guard(merged[i], bytes);
        free(alone[i]);
        free(merged[i]);
        free(r[i].memory);
    }
    assert_int_equal(compute_run(c, b.set, item, 0, &err), 0);
    compute_destroy(c);
    team_destroy(team);
    bench_close(&b);
}

static void rows_are_those_of_one_row_at_a_time(void **state)
{
    (void)state;
    static const char *const models[] = {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe"};
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
        for (int n_thread = 1; n_thread <= 3; n_thread += 2) {
            check_model(models[i], PRECISION_F32, n_thread);
            check_model(models[i], PRECISION_BF16, n_thread);
        }
}

static void held_table_loads_what_it_names(void **state)
{
    (void)state;
    struct model *model = world_model("olmoe");
    const struct model_desc *desc = &model->desc;
    struct expert_set *set = NULL;
    struct err err = {0};
    uint8_t *held = calloc((size_t)desc->n_layer, (size_t)desc->n_expert);
    int n = 0;
    for (int layer = 0; layer < desc->n_layer; layer++)
        for (int e = layer % 2; e < desc->n_expert; e += 2 + layer, n++)
            held[layer * desc->n_expert + e] = 1;
    assert_int_equal(expert_set_create(model, PRECISION_F32, &set, &err), 0);
    assert_int_equal(held_load(set, desc, held, NULL, &err), 0);
    assert_int_equal(expert_set_count(set), n);
    for (int layer = 0; layer < desc->n_layer; layer++)
        for (int e = 0; e < desc->n_expert; e++)
            assert_int_equal(expert_set_get(set, layer, e) != NULL,
                             held[layer * desc->n_expert + e]);
    expert_set_destroy(set);
    free(held);
    model_close(model);
}

static void dense_model_has_nothing_to_compute(void **state)
{
    (void)state;
    struct model *model = world_model("llama");
    struct compute *c = NULL;
    struct err err = {0};
    int rc = compute_create(model, PRECISION_F32, world_kernels(), NULL, &c, &err);
    assert_int_equal(rc, ERR_MODEL);
    assert_non_null(strstr(err.text, "dense model"));
    assert_null(c);
    model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_those_of_one_row_at_a_time),
        cmocka_unit_test(held_table_loads_what_it_names),
        cmocka_unit_test(dense_model_has_nothing_to_compute),
    };
    return cmocka_run_group_tests_name("compute", tests, NULL, NULL);
}
