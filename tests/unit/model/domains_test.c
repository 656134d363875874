/* domains: the list of domains as config.json has it, what is refused in it, and looking names up.
 */
#include "scratch.h"

#define SIGMA(more)                                                                                \
    "{\"model_type\": \"pangu_sigma\", \"num_hidden_layers\": 4, \"hidden_size\": 32, "            \
    "\"num_attention_heads\": 4, \"vocab_size\": 50, \"intermediate_size\": 40, "                  \
    "\"num_dense_layers\": 2" more "}"
#define DOMAINS(list) ", \"domains\": [" list "]"
#define ZH_EN_CODE                                                                                 \
    DOMAINS("{\"name\": \"zh\", \"num_experts\": 3}, {\"name\": \"en\", \"num_experts\": 5, "      \
            "\"embedding_slot\": 1}, {\"name\": \"code\", \"num_experts\": 2}")

static struct model_desc desc_of(const char *config)
{
    static struct model_desc desc;
    struct err err = {0};
    if (desc_from_config(config, strlen(config), "DIR/config.json", &desc, &err) != 0)
        fail_msg("%s", err.text);
    return desc;
}

static void groups_lie_one_behind_the_other(void **state)
{
    (void)state;
    struct model_desc d = desc_of(SIGMA(", \"num_embedding_slots\": 2" ZH_EN_CODE));
    static const int first[] = {0, 3, 8}, slot[] = {0, 1, 0};
    assert_int_equal(d.n_domain, 3);
    assert_int_equal(d.n_expert, 10);
    assert_int_equal(d.top_k, 1);
    assert_int_equal(d.n_slot, 2);
    assert_int_equal(d.default_domain, 0);
    assert_int_equal(d.gate, GATE_TABLE);
    assert_int_equal(desc_n_sparse(&d), 2);
    assert_int_equal(d.d_ff_expert, 40);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(d.domain[i].first, first[i]);
        assert_int_equal(d.domain[i].slot, slot[i]);
    }
    static const int owner[10] = {0, 0, 0, 1, 1, 1, 1, 1, 2, 2};
    for (int e = 0; e < 10; e++)
        assert_int_equal(desc_expert_domain(&d, e), owner[e]);
}

static void the_block_brings_its_defaults(void **state)
{
    (void)state;
    struct model_desc d =
        desc_of(SIGMA(", \"block\": \"qwen3\"" ZH_EN_CODE
                      ", \"num_key_value_heads\": 4, \"num_embedding_slots\": 2"));
    assert_string_equal(d.block, "qwen3");
    assert_string_equal(d.family, "pangu_sigma");
    assert_int_equal(d.qk_norm, QK_NORM_HEAD);
    assert_int_equal(d.d_head, 128);
    d = desc_of(SIGMA(", \"block\": \"pangu_alpha\", \"num_embedding_slots\": 2" ZH_EN_CODE));
    assert_int_equal(d.norm, NORM_LAYER);
    assert_true(d.norm_eps == 1e-5f);
    assert_int_equal(d.query_layer + d.learned_pos + d.ffn_plain + d.expert_bias + d.tied, 5);
    assert_int_equal(d.act, ACT_GELU_TANH);
    assert_int_equal(d.rope.d_rot, 0);
    assert_int_equal(desc_expert_params(&d), 2 * 40 * 32 + 40 + 32);
    d = desc_of(SIGMA(ZH_EN_CODE ", \"num_embedding_slots\": 2"));
    assert_string_equal(d.block, "llama");
}

static void tensors_are_those_of_the_documentation(void **state)
{
    (void)state;
    struct model_desc d =
        desc_of(SIGMA(", \"block\": \"pangu_alpha\", \"num_experts_per_tok\": 2, "
                      "\"num_embedding_slots\": 2, \"max_position_embeddings\": 70" ZH_EN_CODE));
    char name[LIMIT_NAME_BYTES];
    uint64_t dim[LIMIT_ST_DIMS];
    int rows, cols;
    assert_int_equal(desc_tensor_name(&d, ROLE_ROUTING_TABLE, 3, 0, name, sizeof(name)), 0);
    assert_string_equal(name, "model.layers.3.mlp.routing_table");
    assert_int_equal(desc_tensor_dims(&d, ROLE_ROUTING_TABLE, 3, dim), 3);
    assert_true(dim[0] == 3 && dim[1] == 50 && dim[2] == 2);
    assert_int_equal(desc_tensor_dims(&d, ROLE_ROUTING_TABLE, 1, dim), -1);
    assert_int_equal(desc_tensor_dims(&d, ROLE_ROUTER, 3, dim), -1);
    assert_int_equal(desc_tensor_dims(&d, ROLE_EXPERT_GATE, 3, dim), -1);
    desc_tensor_name(&d, ROLE_EXPERT_DOWN_BIAS, 2, 9, name, sizeof(name));
    assert_string_equal(name, "model.layers.2.mlp.experts.9.down_proj.bias");
    assert_int_equal(desc_tensor_shape(&d, ROLE_EXPERT_DOWN_BIAS, 2, &rows, &cols), 0);
    assert_true(rows == 32 && cols == 0);
    assert_int_equal(desc_tensor_shape(&d, ROLE_EMBED, 0, &rows, &cols), 0);
    assert_true(rows == 100 && cols == 32);
    assert_int_equal(desc_tensor_shape(&d, ROLE_QUERY_EMBED, 0, &rows, &cols), 0);
    assert_true(rows == 70 && cols == 32);
    desc_tensor_name(&d, ROLE_QUERY_EMBED, 0, 0, name, sizeof(name));
    assert_string_equal(name, "model.query_positions.weight");
}

static void names_are_found_or_the_nearest_is_told(void **state)
{
    (void)state;
    struct model_desc d =
        desc_of(SIGMA(", \"num_embedding_slots\": 2" ZH_EN_CODE ", \"default_domain\": \"code\""));
    struct err err = {0};
    int domain = 7;
    assert_int_equal(d.default_domain, 2);
    assert_int_equal(desc_domain_find(&d, "en", NULL), 1);
    assert_int_equal(desc_domain_find(&d, "cod", &err), ERR_USAGE);
    assert_string_equal(err.text, "there is no domain 'cod'; did you mean 'code'? Domains are zh, "
                                  "en, code");
    assert_int_equal(desc_domain_read(&d, "auto", &domain, NULL), 0);
    assert_int_equal(domain, DOMAIN_AUTO);
    assert_int_equal(desc_domain_read(&d, "zh", &domain, NULL), 0);
    assert_int_equal(domain, 0);
    assert_int_equal(desc_domain_read(&d, "poetry", &domain, NULL), ERR_USAGE);
    assert_int_equal(domain, 0);
    d.n_domain = 0;
    assert_int_equal(desc_domain_read(&d, "auto", &domain, NULL), ERR_USAGE);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *says;
    } cases[] = {
        {SIGMA(""), "\"domains\" must be a list of 1 to 1024"},
        {SIGMA(DOMAINS("")), "\"domains\" must be a list of 1 to 1024"},
        {SIGMA(DOMAINS("7")), "\"domains[0]\" must be an object"},
        {SIGMA(DOMAINS("{\"name\": \"a\"}")), "domains[0].num_experts"},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 0}")), "domains[0].num_experts"},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 5000}")), "domains[0].num_experts"},
        {SIGMA(DOMAINS("{\"name\": \"auto\", \"num_experts\": 1}")), "\"domains[0].name\" is"},
        {SIGMA(DOMAINS("{\"name\": \"Zh\", \"num_experts\": 1}")), "\"domains[0].name\" is"},
        {SIGMA(DOMAINS("{\"num_experts\": 1}")), "\"domains[0].name\" is"},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 1}, {\"name\": \"a\", "
                       "\"num_experts\": 1}")),
         "two domains are named \"a\""},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 1, \"embedding_slot\": 1}")),
         "domains[0].embedding_slot"},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 2048}, {\"name\": \"b\", "
                       "\"num_experts\": 2049}")),
         "at most 4096 are possible"},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 1}") ", \"default_domain\": \"b\""),
         "\"default_domain\": there is no domain 'b'"},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 1}") ", \"num_experts_per_tok\": 2"),
         "domains[0].num_experts"},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 1}") ", \"block\": \"olmoe\""),
         "is none of llama, qwen2, qwen3, pangu_alpha"},
        {SIGMA(DOMAINS("{\"name\": \"a\", \"num_experts\": 1}") ", \"num_dense_layers\": 4"),
         "\"num_dense_layers\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct model_desc desc;
        struct err err = {0};
        const char *config = cases[i].config;
        assert_int_equal(desc_from_config(config, strlen(config), "DIR/config.json", &desc, &err),
                         ERR_MODEL);
        if (strstr(err.text, cases[i].says) == NULL)
            fail_msg("case %zu: '%s' does not say '%s'", i, err.text, cases[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_lie_one_behind_the_other),
        cmocka_unit_test(the_block_brings_its_defaults),
        cmocka_unit_test(tensors_are_those_of_the_documentation),
        cmocka_unit_test(names_are_found_or_the_nearest_is_told),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
