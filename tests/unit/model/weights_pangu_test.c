/* weights of models with domains and of PanGu's block: every element of what other families lack
 * (tables, slots, position embeddings, the query layer's own q, biases of experts) arrives in its
 * place, and tables that no draw could have made are refused. */
#include "scratch.h"

struct fixture {
    char dir[64];
    struct model *model;
    struct dense_weights *dense;
};

static void fixture_open(struct fixture *f, const char *config, enum dtype stored)
{
    struct err err = {0};
    scratch_make(f->dir);
    checkpoint_make(f->dir, config, stored, 4096);
    if (model_open(f->dir, &f->model, &err) != 0 ||
        weights_load_dense(f->model, PRECISION_F32, NULL, &f->dense, &err) != 0)
        fail_msg("%s", err.text);
}

static void fixture_close(struct fixture *f)
{
    weights_free_dense(f->dense);
    model_close(f->model);
    scratch_clear(f->dir);
}

static void packed_is(const struct packed *w, int row, enum role role, int layer, int expert,
                      int from, int n)
{
    float out[256];
    assert_non_null(w->data);
    for (int r = 0; r < n; r++) {
        unpack_row(w, row + r, out);
        for (int c = 0; c < w->k; c++)
            assert_true(out[c] == value_at(role, layer, expert, (uint64_t)((from + r) * w->k + c)));
    }
}

static void vector_is(const float *v, enum role role, int layer, int expert, int n)
{
    assert_non_null(v);
    for (int i = 0; i < n; i++)
        assert_true(v[i] == value_at(role, layer, expert, (uint64_t)i));
}

static void tables_are_read_in_place(void **state)
{
    (void)state;
    static const char *const configs[] = {CONFIG_SIGMA, CONFIG_PANGU};
    for (int c = 0; c < 2; c++) {
        struct fixture f;
        fixture_open(&f, configs[c], DTYPE_BF16);
        const struct model_desc *d = &f.model->desc;
        assert_null(f.dense->layer[0].table);
        for (int layer = 1; layer < 3; layer++) {
            const uint16_t *entry = f.dense->layer[layer].table;
            assert_null(f.dense->layer[layer].router.data);
            for (int domain = 0; domain < 2; domain++)
                for (int token = 0; token < d->vocab; token++)
                    for (int j = 0; j < d->top_k; j++)
                        assert_int_equal(*entry++, table_entry(d, layer, domain, token, j));
        }
        assert_int_equal(f.dense->bytes, weights_dense_bytes(d, PRECISION_F32));
        fixture_close(&f);
    }
}

static void each_slot_has_an_lm_head(void **state)
{
    (void)state;
    static const char *const configs[] = {CONFIG_SIGMA, CONFIG_PANGU};
    for (int c = 0; c < 2; c++) {
        struct fixture f;
        fixture_open(&f, configs[c], DTYPE_F16);
        const struct model_desc *d = &f.model->desc;
        enum role role = d->tied ? ROLE_EMBED : ROLE_LM_HEAD;
        assert_int_equal(d->tied, c);
        for (int slot = 0; slot < 2; slot++)
            packed_is(&f.dense->lm_head[slot], 0, role, 0, 0, slot * d->vocab, d->vocab);
        fixture_close(&f);
    }
}

static void pangu_has_biases_positions_and_a_query_layer(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, CONFIG_PANGU, DTYPE_F32);
    const struct model_desc *d = &f.model->desc;
    const struct dense_weights *w = f.dense;
    int d_q = d->n_head * d->d_head, d_kv = d->n_kv_head * d->d_head;
    for (int i = 0; i < d->max_context * d->d_model; i++) {
        assert_true(((const float *)w->positions.data)[i] ==
                    value_at(ROLE_POS_EMBED, 0, 0, (uint64_t)i));
        assert_true(((const float *)w->queries.data)[i] ==
                    value_at(ROLE_QUERY_EMBED, 0, 0, (uint64_t)i));
    }
    vector_is(w->final_norm_bias, ROLE_FINAL_NORM_BIAS, 0, 0, d->d_model);
    for (int layer = 0; layer < 3; layer++) {
        const struct layer_weights *l = &w->layer[layer];
        int own = layer == 2 ? 0 : d_q;
        vector_is(l->attn_norm_bias, ROLE_ATTN_NORM_BIAS, layer, 0, d->d_model);
        assert_int_equal(l->qkv.n, own + 2 * d_kv);
        assert_int_equal(l->q.data != NULL, layer == 2);
        packed_is(layer == 2 ? &l->q : &l->qkv, 0, ROLE_Q, layer, 0, 0, d_q);
        vector_is(layer == 2 ? l->q_bias : l->qkv_bias, ROLE_Q_BIAS, layer, 0, d_q);
        packed_is(&l->qkv, own, ROLE_K, layer, 0, 0, d_kv);
        packed_is(&l->qkv, own + d_kv, ROLE_V, layer, 0, 0, d_kv);
        vector_is(l->qkv_bias + own, ROLE_K_BIAS, layer, 0, d_kv);
        vector_is(l->qkv_bias + own + d_kv, ROLE_V_BIAS, layer, 0, d_kv);
    }
    assert_null(w->layer[0].dense.gate.data);
    packed_is(&w->layer[0].dense.up, 0, ROLE_UP_PROJ, 0, 0, 0, d->d_ff);
    vector_is(w->layer[0].dense.up_bias, ROLE_UP_PROJ_BIAS, 0, 0, d->d_ff);
    fixture_close(&f);
}

static void experts_bring_their_biases(void **state)
{
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct fixture f;
        struct expert_set *set;
        struct err err = {0};
        fixture_open(&f, c ? CONFIG_PANGU : CONFIG_SIGMA, DTYPE_BF16);
        const struct model_desc *d = &f.model->desc;
        assert_int_equal(expert_set_create(f.model, PRECISION_F32, &set, &err), 0);
        assert_int_equal(expert_set_load(set, 2, 4, &err), 0);
        assert_int_equal(expert_set_bytes(set), weights_expert_bytes(d, PRECISION_F32));
        const struct ffn_weights *w = expert_set_get(set, 2, 4);
        packed_is(&w->up, 0, ROLE_EXPERT_UP, 2, 4, 0, d->d_ff_expert);
        packed_is(&w->down, 0, ROLE_EXPERT_DOWN, 2, 4, 0, d->d_model);
        assert_int_equal(w->gate.data != NULL, !c);
        assert_int_equal(w->up_bias != NULL, c);
        if (c) {
            vector_is(w->up_bias, ROLE_EXPERT_UP_BIAS, 2, 4, d->d_ff_expert);
            vector_is(w->down_bias, ROLE_EXPERT_DOWN_BIAS, 2, 4, d->d_model);
            assert_null(w->gate_bias);
        }
        expert_set_destroy(set);
        fixture_close(&f);
    }
}

/* table_write writes `value` over entry (domain 1, token 5) of layer 2's table, in the file. */
static void table_write(const char *dir, uint16_t value)
{
    struct checkpoint *ck;
    char path[128];
    assert_int_equal(checkpoint_open(dir, &ck, NULL), 0);
    const struct tensor *t = checkpoint_find(ck, "model.layers.2.mlp.routing_table");
    assert_non_null(t);
    uint64_t at = (37 + 5) * sizeof(value), offset = 0;
    snprintf(path, sizeof(path), "%s/%s", dir, checkpoint_shard_name(ck, t->shard));
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    /* Data follow one another to the end of the file: count back from there. */
    fseek(file, 0, SEEK_END);
    offset = (uint64_t)ftell(file);
    for (size_t i = 0; i < checkpoint_n_tensor(ck); i++) {
        const struct tensor *other = checkpoint_at(ck, i);
        if (other->shard == t->shard && (const char *)other->data >= (const char *)t->data)
            offset -= other->bytes;
    }
    fseek(file, (long)(offset + at), SEEK_SET);
    assert_int_equal(fwrite(&value, sizeof(value), 1, file), 1);
    fclose(file);
    checkpoint_close(ck);
}

static void tables_no_draw_could_have_made_are_refused(void **state)
{
    (void)state;
    struct model *model;
    struct dense_weights *dense = NULL;
    struct err err = {0};
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_SIGMA, DTYPE_BF16, 0);
    table_write(dir, 2);
    assert_int_equal(model_open(dir, &model, &err), 0);
    assert_int_equal(weights_load_dense(model, PRECISION_F32, NULL, &dense, &err), ERR_MODEL);
    assert_null(dense);
    assert_string_equal(err.text, "model.layers.2.mlp.routing_table: domain 'en' gives token 5 "
                                  "expert 2, its group has experts 0-1");
    model_close(model);
    scratch_clear(dir);
}

static void a_table_of_another_shape_or_type_does_not_open(void **state)
{
    (void)state;
    struct model *model = NULL;
    struct err err = {0};
    char dir[64];
    scratch_make(dir);
    checkpoint_make(dir, CONFIG_SIGMA, DTYPE_BF16, 0);
    /* top-2 wants three dimensions; one domain fewer, fewer rows: both are a truncated table. */
    text_put(
        dir, "config.json",
        "{\"model_type\": \"pangu_sigma\", " CONFIG_HEAD
        "\"intermediate_size\": 18, \"head_dim\": 6, \"num_experts_per_tok\": 2, " SCRATCH_DOMAINS
        "}");
    assert_int_equal(model_open(dir, &model, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "\"model.layers.1.mlp.routing_table\" is [2, 37], by "
                                     "config.json it must be [2, 37, 2]"));
    scratch_clear(dir);
    assert_null(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_read_in_place),
        cmocka_unit_test(each_slot_has_an_lm_head),
        cmocka_unit_test(pangu_has_biases_positions_and_a_query_layer),
        cmocka_unit_test(experts_bring_their_biases),
        cmocka_unit_test(tables_no_draw_could_have_made_are_refused),
        cmocka_unit_test(a_table_of_another_shape_or_type_does_not_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
