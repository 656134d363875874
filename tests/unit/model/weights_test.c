/* weights: every element of every tensor arrives in its packed place, for each dtype stored, each
 * precision and any number of threads; experts come and go one by one. */
#include "scratch.h"

struct fixture {
    char dir[64];
    struct model *model;
    struct dense_weights *dense;
};

static void fixture_open(struct fixture *f, const char *config, enum dtype stored,
                         uint64_t shard_bytes)
{
    struct err err = {0};
    scratch_make(f->dir);
    checkpoint_make(f->dir, config, stored, shard_bytes);
    if (model_open(f->dir, &f->model, &err) != 0)
        fail_msg("%s", err.text);
    f->dense = NULL;
}

static void fixture_close(struct fixture *f)
{
    weights_free_dense(f->dense);
    model_close(f->model);
    scratch_clear(f->dir);
}

/* packed_is: rows [row, row + n) of w are the tensor of the role. */
static void packed_is(const struct packed *w, int row, enum role role, int layer, int expert, int n)
{
    float out[256];
    assert_non_null(w->data);
    assert_int_equal((uintptr_t)w->data % 64, 0);
    assert_in_range(w->k, 1, 256);
    for (int r = 0; r < n; r++) {
        unpack_row(w, row + r, out);
        for (int c = 0; c < w->k; c++)
            assert_true(out[c] == value_at(role, layer, expert, (uint64_t)(r * w->k + c)));
    }
}

static void vector_is(const float *v, enum role role, int layer, int n)
{
    assert_non_null(v);
    for (int i = 0; i < n; i++)
        assert_true(v[i] == value_at(role, layer, 0, (uint64_t)i));
}

static void layer_is(const struct model_desc *d, const struct layer_weights *w, int layer)
{
    int d_q = d->n_head * d->d_head, d_kv = d->n_kv_head * d->d_head;
    vector_is(w->attn_norm, ROLE_ATTN_NORM, layer, d->d_model);
    vector_is(w->ffn_norm, ROLE_FFN_NORM, layer, d->d_model);
    assert_null(w->attn_norm_bias);
    assert_null(w->sinks);
    assert_int_equal(w->qkv.n, d_q + 2 * d_kv);
    packed_is(&w->qkv, 0, ROLE_Q, layer, 0, d_q);
    packed_is(&w->qkv, d_q, ROLE_K, layer, 0, d_kv);
    packed_is(&w->qkv, d_q + d_kv, ROLE_V, layer, 0, d_kv);
    packed_is(&w->o, 0, ROLE_O, layer, 0, d->d_model);
    assert_int_equal(w->qkv_bias != NULL, d->qkv_bias);
    if (d->qkv_bias) {
        vector_is(w->qkv_bias, ROLE_Q_BIAS, layer, d_q);
        vector_is(w->qkv_bias + d_q, ROLE_K_BIAS, layer, d_kv);
        vector_is(w->qkv_bias + d_q + d_kv, ROLE_V_BIAS, layer, d_kv);
    }
    assert_int_equal(w->o_bias != NULL, d->o_bias);
    if (d->o_bias)
        vector_is(w->o_bias, ROLE_O_BIAS, layer, d->d_model);
    assert_int_equal(w->q_norm != NULL, d->qk_norm != QK_NORM_NONE);
    if (d->qk_norm != QK_NORM_NONE) {
        vector_is(w->q_norm, ROLE_Q_NORM, layer, d->qk_norm == QK_NORM_HEAD ? d->d_head : d_q);
        vector_is(w->k_norm, ROLE_K_NORM, layer, d->qk_norm == QK_NORM_HEAD ? d->d_head : d_kv);
    }
}

static void ffn_is(const struct model_desc *d, const struct layer_weights *w, int layer)
{
    if (!d->layer[layer].sparse) {
        packed_is(&w->dense.gate, 0, ROLE_GATE_PROJ, layer, 0, d->d_ff);
        packed_is(&w->dense.up, 0, ROLE_UP_PROJ, layer, 0, d->d_ff);
        packed_is(&w->dense.down, 0, ROLE_DOWN_PROJ, layer, 0, d->d_model);
        assert_int_equal(w->dense.down_bias != NULL, d->mlp_bias);
        if (d->mlp_bias) {
            vector_is(w->dense.gate_bias, ROLE_GATE_PROJ_BIAS, layer, d->d_ff);
            vector_is(w->dense.up_bias, ROLE_UP_PROJ_BIAS, layer, d->d_ff);
            vector_is(w->dense.down_bias, ROLE_DOWN_PROJ_BIAS, layer, d->d_model);
        }
        assert_null(w->router.data);
        assert_null(w->shared.gate.data);
        return;
    }
    assert_null(w->dense.up.data);
    assert_int_equal(w->router.dtype, DTYPE_F32);
    packed_is(&w->router, 0, ROLE_ROUTER, layer, 0, d->n_expert);
    if (d->d_ff_shared) {
        packed_is(&w->shared.gate, 0, ROLE_SHARED_GATE, layer, 0, d->d_ff_shared);
        packed_is(&w->shared.up, 0, ROLE_SHARED_UP, layer, 0, d->d_ff_shared);
        packed_is(&w->shared.down, 0, ROLE_SHARED_DOWN, layer, 0, d->d_model);
        vector_is(w->shared_router, ROLE_SHARED_ROUTER, layer, d->d_model);
    }
}

static void dense_is(const struct fixture *f, enum precision precision)
{
    const struct model_desc *d = &f->model->desc;
    const struct dense_weights *w = f->dense;
    for (int i = 0; i < d->n_layer; i++) {
        layer_is(d, &w->layer[i], i);
        ffn_is(d, &w->layer[i], i);
        assert_int_equal(w->layer[i].o.dtype, precision_dtype(precision));
    }
    vector_is(w->final_norm, ROLE_FINAL_NORM, 0, d->d_model);
    packed_is(&w->lm_head[0], 0, d->tied ? ROLE_EMBED : ROLE_LM_HEAD, 0, 0, d->vocab);
    assert_ptr_equal(w->embed.data,
                     checkpoint_find(f->model->ck, "model.embed_tokens.weight")->data);
    assert_int_equal(w->bytes, weights_dense_bytes(d, precision));
}

static void every_dense_element_is_in_its_place(void **state)
{
    (void)state;
    static const char *const configs[] = {CONFIG_LLAMA, CONFIG_QWEN3, CONFIG_OLMOE,
                                          CONFIG_QWEN2_MOE};
    static const enum dtype stored[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    struct team *team = team_create(2, 0);
    assert_non_null(team);
    for (int c = 0; c < 4; c++) {
        for (int s = 0; s < 3; s++) {
            struct fixture f;
            fixture_open(&f, configs[c], stored[s], s == 0 ? 2048 : 0);
            for (int run = 0; run < 4; run++) {
                enum precision precision = run % 2 ? PRECISION_F32 : PRECISION_BF16;
                struct err err = {0};
                if (weights_load_dense(f.model, precision, run < 2 ? NULL : team, &f.dense, &err))
                    fail_msg("%s", err.text);
                dense_is(&f, precision);
                weights_free_dense(f.dense);
                f.dense = NULL;
            }
            fixture_close(&f);
        }
    }
    team_destroy(team);
}

static void expert_is(const struct expert_set *set, const struct model_desc *d, int layer,
                      int expert)
{
    const struct ffn_weights *w = expert_set_get(set, layer, expert);
    assert_non_null(w);
    packed_is(&w->gate, 0, ROLE_EXPERT_GATE, layer, expert, d->d_ff_expert);
    packed_is(&w->up, 0, ROLE_EXPERT_UP, layer, expert, d->d_ff_expert);
    packed_is(&w->down, 0, ROLE_EXPERT_DOWN, layer, expert, d->d_model);
    assert_null(w->gate_bias);
}

static void experts_load_and_drop_one_by_one(void **state)
{
    (void)state;
    struct fixture f;
    struct expert_set *set;
    struct err err = {0};
    fixture_open(&f, CONFIG_QWEN2_MOE, DTYPE_BF16, 0);
    uint64_t one = weights_expert_bytes(&f.model->desc, PRECISION_F32);
    assert_int_equal(expert_set_create(f.model, PRECISION_F32, &set, &err), 0);
    assert_int_equal(expert_set_count(set), 0);
    assert_null(expert_set_get(set, 0, 3));
    assert_int_equal(expert_set_load(set, 0, 3, &err), 0);
    assert_int_equal(expert_set_load(set, 0, 3, &err), 0);
    assert_int_equal(expert_set_load(set, 2, 0, &err), 0);
    assert_int_equal(expert_set_count(set), 2);
    assert_int_equal(expert_set_bytes(set), 2 * one);
    expert_is(set, &f.model->desc, 0, 3);
    expert_is(set, &f.model->desc, 2, 0);
    expert_set_drop(set, 0, 3);
    expert_set_drop(set, 0, 3);
    assert_null(expert_set_get(set, 0, 3));
    assert_int_equal(expert_set_count(set), 1);
    assert_int_equal(expert_set_bytes(set), one);
    assert_int_equal(expert_set_load(set, 0, 3, &err), 0);
    expert_is(set, &f.model->desc, 0, 3);
    assert_null(expert_set_get(set, 1, 0));
    assert_null(expert_set_get(set, -1, 0));
    assert_null(expert_set_get(set, 3, 0));
    assert_null(expert_set_get(set, 0, 5));
    expert_set_destroy(set);
    fixture_close(&f);
}

static void a_detached_expert_goes_piece_by_piece(void **state)
{
    (void)state;
    struct fixture f;
    struct expert_set *set;
    fixture_open(&f, CONFIG_QWEN2_MOE, DTYPE_BF16, 0);
    uint64_t one = weights_expert_bytes(&f.model->desc, PRECISION_F32);
    assert_int_equal(expert_set_create(f.model, PRECISION_F32, &set, NULL), 0);
    assert_int_equal(expert_set_load(set, 0, 3, NULL), 0);
    assert_int_equal(expert_set_load(set, 0, 4, NULL), 0);
    for (uint64_t piece = one / 3; piece <= one; piece += one - one / 3) {
        struct expert *e = expert_set_detach(set, 0, 3);
        assert_int_equal(expert_set_bytes(set), 2 * one);
        for (uint64_t n = (one + piece - 1) / piece; n > 1; n--)
            assert_int_equal(expert_free_some(set, e, piece), 1);
        assert_int_equal(expert_free_some(set, e, piece), 0);
        assert_int_equal(expert_set_bytes(set), one);
        expert_is(set, &f.model->desc, 0, 4);
        assert_int_equal(expert_set_load(set, 0, 3, NULL), 0);
        expert_is(set, &f.model->desc, 0, 3);
    }
    expert_set_destroy(set);
    fixture_close(&f);
}

/* A home in this process's memory, which counts what it has. */
struct house {
    struct expert_home home;
    int n, refuse;
    size_t bytes, room;
};

static void *house_take(void *user, const void *data, size_t bytes, struct err *err)
{
    struct house *h = user;
    if (h->refuse) {
        err_set(err, ERR_NOMEM, "the house is full");
        return NULL;
    }
    void *at = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(at);
    memcpy(at, data, bytes);
    h->n++;
    h->bytes += bytes;
    return at;
}

static void house_give(void *user, void *at, size_t bytes)
{
    struct house *h = user;
    h->n--;
    h->bytes -= bytes;
    free(at);
}

static uint64_t house_available(void *user)
{
    const struct house *h = user;
    return h->room - h->bytes;
}

static void experts_with_a_home_lie_there(void **state)
{
    (void)state;
    static const int32_t some[] = {4, 1};
    struct fixture f;
    struct expert_set *set;
    struct err err = {0};
    struct house house = {.room = SIZE_MAX};
    house.home = (struct expert_home){&house, house_take, house_give, house_available};
    fixture_open(&f, CONFIG_QWEN2_MOE, DTYPE_BF16, 0);
    size_t one = (size_t)weights_expert_bytes(&f.model->desc, PRECISION_F32);
    assert_int_equal(expert_set_create(f.model, PRECISION_F32, &set, NULL), 0);
    expert_set_home(set, &house.home);
    assert_int_equal(expert_set_load_many(set, some, 2, NULL, NULL), 0);
    assert_int_equal(house.n, 4);
    assert_int_equal(house.bytes, 4 * one);
    assert_int_equal(expert_set_bytes(set), 4 * one);
    expert_is(set, &f.model->desc, 0, 4);
    expert_is(set, &f.model->desc, 2, 1);
    struct expert *gone = expert_set_detach(set, 0, 4);
    assert_int_equal(house.n, 4);
    assert_int_equal(expert_free_some(set, gone, one / 3), 0); /* a home takes it back whole */
    assert_int_equal(house.n, 3);
    house.refuse = 1;
    assert_int_equal(expert_set_load(set, 0, 4, &err), ERR_NOMEM);
    assert_non_null(strstr(err.text, "the house is full"));
    assert_null(expert_set_get(set, 0, 4));
    house.refuse = 0;
    house.room = house.bytes + one;
    err_clear(&err);
    assert_int_equal(expert_set_load_many(set, some, 1, NULL, &err), ERR_NOMEM);
    assert_non_null(strstr(err.text, "the device has"));
    assert_int_equal(expert_set_load(set, 0, 4, NULL), 0);
    expert_is(set, &f.model->desc, 0, 4);
    expert_set_destroy(set);
    assert_int_equal(house.n, 0);
    assert_int_equal(house.bytes, 0);
    fixture_close(&f);
}

static void many_experts_load_in_every_sparse_layer(void **state)
{
    (void)state;
    static const int32_t some[] = {4, 1};
    for (int threads = 1; threads <= 2; threads++) {
        struct team *team = team_create(threads, 0);
        struct fixture f;
        struct expert_set *set;
        fixture_open(&f, CONFIG_QWEN2_MOE, DTYPE_F16, 4096);
        assert_int_equal(expert_set_create(f.model, PRECISION_BF16, &set, NULL), 0);
        assert_int_equal(expert_set_load_many(set, some, 2, team, NULL), 0);
        assert_int_equal(expert_set_count(set), 4);
        for (int layer = 0; layer < 3; layer += 2)
            for (int i = 0; i < 2; i++)
                expert_is(set, &f.model->desc, layer, some[i]);
        assert_null(expert_set_get(set, 0, 0));
        expert_set_destroy(set);
        fixture_close(&f);
        team_destroy(team);
    }
}

static void wrong_experts_are_refused_before_any_is_read(void **state)
{
    (void)state;
    static const int32_t high[] = {0, 5}, low[] = {-1};
    struct fixture f;
    struct expert_set *set;
    struct err err = {0};
    fixture_open(&f, CONFIG_QWEN2_MOE, DTYPE_BF16, 0);
    assert_int_equal(expert_set_create(f.model, PRECISION_BF16, &set, &err), 0);
    assert_int_equal(expert_set_load_many(set, high, 2, NULL, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "there is no expert 5;"));
    assert_non_null(strstr(err.text, "has experts 0-4"));
    assert_int_equal(expert_set_load_many(set, low, 1, NULL, NULL), ERR_USAGE);
    assert_int_equal(expert_set_load(set, 1, 0, NULL), ERR_USAGE);
    assert_int_equal(expert_set_count(set), 0);
    expert_set_destroy(set);
    fixture_close(&f);
    fixture_open(&f, CONFIG_LLAMA, DTYPE_BF16, 0);
    err_clear(&err);
    assert_int_equal(expert_set_create(f.model, PRECISION_BF16, &set, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "has no experts"));
    fixture_close(&f);
}

static void a_model_without_one_of_its_tensors_does_not_open(void **state)
{
    (void)state;
    char dir[64];
    struct model *model = NULL;
    struct err err = {0};
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_QWEN3, DTYPE_BF16, 0);
    static const char untied[] =
        "{\"model_type\": \"qwen3\", " CONFIG_HEAD "\"intermediate_size\": 18, \"head_dim\": 6}";
    text_put(dir, "config.json", untied);
    assert_int_equal(model_open(dir, &model, &err), ERR_MODEL);
    assert_null(model);
    assert_non_null(strstr(err.text, "tensor \"lm_head.weight\" is missing"));
    err_clear(&err);
    static const char wider[] =
        "{\"model_type\": \"qwen3\", " CONFIG_HEAD "\"intermediate_size\": 19, \"head_dim\": 6, "
        "\"tie_word_embeddings\": true}";
    text_put(dir, "config.json", wider);
    assert_int_equal(model_open(dir, &model, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "\"model.layers.0.mlp.gate_proj.weight\" is [18, 20], by "
                                     "config.json it must be [19, 20]"));
    scratch_clear(dir);
}

static long resident_kib(void)
{
    long pages = 0, skip;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &skip, &pages), 2);
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE) / 1024;
}

/* 32 experts of 1.5 MiB: loading adds their size and a little, not the file as well; dropping gives
 * it back. Sanitizers keep books of their own, so the bounds are loose beside the effect looked
 * for. */
static void resident_size_follows_the_experts_held(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\": \"olmoe\", \"num_hidden_layers\": 1, \"hidden_size\": 512, "
        "\"num_attention_heads\": 8, \"vocab_size\": 8, \"intermediate_size\": 512, "
        "\"num_experts\": 32, \"num_experts_per_tok\": 2}";
    struct fixture f;
    struct expert_set *set;
    int32_t all[32];
    fixture_open(&f, config, DTYPE_BF16, 0);
    for (int i = 0; i < 32; i++)
        all[i] = i;
    assert_int_equal(expert_set_create(f.model, PRECISION_BF16, &set, NULL), 0);
    long before = resident_kib();
    assert_int_equal(expert_set_load_many(set, all, 32, NULL, NULL), 0);
    long held = resident_kib() - before, size = (long)(expert_set_bytes(set) / 1024);
    assert_int_equal(size, 48 * 1024);
    assert_in_range(held, size - size / 10, size + size / 10);
    for (int i = 8; i < 32; i++) {
        struct expert *e = expert_set_detach(set, 0, i);
        while (expert_free_some(set, e, i % 2 ? 300000 : SIZE_MAX))
            ;
    }
    assert_in_range(resident_kib() - before, 0, size / 4 + size / 10);
    assert_non_null(expert_set_get(set, 0, 7));
    expert_set_destroy(set);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dense_element_is_in_its_place),
        cmocka_unit_test(experts_load_and_drop_one_by_one),
        cmocka_unit_test(a_detached_expert_goes_piece_by_piece),
        cmocka_unit_test(experts_with_a_home_lie_there),
        cmocka_unit_test(many_experts_load_in_every_sparse_layer),
        cmocka_unit_test(wrong_experts_are_refused_before_any_is_read),
        cmocka_unit_test(a_model_without_one_of_its_tensors_does_not_open),
        cmocka_unit_test(resident_size_follows_the_experts_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
