/* desc: what each family reads from a config.json, what it assumes for what is not there, and how
 * it refuses what it cannot compute. Expected numbers are transformers' (4.57.1). */
#include "scratch.h"

#include <math.h>

static struct model_desc desc_of(const char *config)
{
    static struct model_desc desc;
    struct err err = {0};
    if (desc_from_config(config, strlen(config), "DIR/config.json", &desc, &err) != 0)
        fail_msg("%s", err.text);
    return desc;
}

/* LLAMA(more): a complete llama config with more keys. */
#define LLAMA(more)                                                                                \
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 32, "                  \
    "\"num_attention_heads\": 4, \"vocab_size\": 50, \"intermediate_size\": 40" more "}"
#define MODEL(type, more)                                                                          \
    "{\"model_type\": \"" type "\", \"num_hidden_layers\": 4, \"hidden_size\": 32, "               \
    "\"num_attention_heads\": 32, \"vocab_size\": 50, \"intermediate_size\": 40, "                 \
    "\"head_dim\": 8" more "}"
#define MOE(type, more)                                                                            \
    MODEL(type, ", \"num_experts\": 6, \"num_experts_per_tok\": 2, "                               \
                "\"moe_intermediate_size\": 12" more)

static void llama_takes_transformers_defaults(void **state)
{
    (void)state;
    struct model_desc d = desc_of(LLAMA(""));
    assert_string_equal(d.family, "llama");
    assert_int_equal(d.n_kv_head, 4);
    assert_int_equal(d.d_head, 8);
    assert_int_equal(d.max_context, 2048);
    assert_true(d.norm_eps == 1e-6f);
    assert_true(d.rope.theta == 1e4);
    assert_int_equal(d.rope.scaling, ROPE_NONE);
    assert_int_equal(d.rope.d_rot, 8);
    assert_int_equal(d.act, ACT_SILU);
    assert_int_equal(d.qkv_bias + d.o_bias + d.mlp_bias + d.tied, 0);
    assert_int_equal(d.bos, 1);
    assert_int_equal(d.n_eos, 1);
    assert_int_equal(d.eos[0], 2);
    assert_int_equal(d.d_ff, 40);
    assert_int_equal(d.n_expert, 0);
    assert_true(d.attn_scale == (float)(1.0 / sqrt(8.0)));
    assert_int_equal(d.layer[1].sparse, 0);
}

static void families_differ_in_their_defaults(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        int n_kv_head, max_context, n_eos, qkv_bias, o_bias;
        double theta;
        float eps;
        enum qk_norm_kind qk_norm;
    } cases[] = {
        {MODEL("qwen2", ""), 32, 32768, 0, 1, 0, 1e4, 1e-6f, QK_NORM_NONE},
        {MODEL("qwen3", ""), 32, 32768, 0, 0, 0, 1e4, 1e-6f, QK_NORM_HEAD},
        {MODEL("mixtral", ", \"num_local_experts\": 4, \"num_experts_per_tok\": 2"), 8, 131072, 1,
         0, 0, 1e6, 1e-5f, QK_NORM_NONE},
        {MOE("qwen2_moe", ", \"shared_expert_intermediate_size\": 9"), 16, 32768, 0, 1, 0, 1e4,
         1e-6f, QK_NORM_NONE},
        {MOE("qwen3_moe", ""), 4, 32768, 0, 0, 0, 1e4, 1e-6f, QK_NORM_HEAD},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_desc d = desc_of(cases[i].config);
        assert_int_equal(d.n_kv_head, cases[i].n_kv_head);
        assert_int_equal(d.max_context, cases[i].max_context);
        assert_int_equal(d.n_eos, cases[i].n_eos);
        assert_int_equal(d.qkv_bias, cases[i].qkv_bias);
        assert_int_equal(d.o_bias, cases[i].o_bias);
        assert_true(d.rope.theta == cases[i].theta);
        assert_true(d.norm_eps == cases[i].eps);
        assert_int_equal(d.qk_norm, cases[i].qk_norm);
    }
    struct model_desc olmoe = desc_of(CONFIG_OLMOE);
    assert_int_equal(olmoe.qk_norm, QK_NORM_FULL);
    assert_int_equal(olmoe.eos[0], 50279);
    assert_int_equal(olmoe.bos, -1);
    assert_true(olmoe.norm_eps == 1e-5f);
}

static void null_heads_mean_as_many_as_queries(void **state)
{
    (void)state;
    assert_int_equal(desc_of(MODEL("qwen2", ", \"num_key_value_heads\": null")).n_kv_head, 32);
    assert_int_equal(desc_of(LLAMA(", \"head_dim\": null")).d_head, 8);
}

static void mixtral_normalises_and_olmoe_does_not(void **state)
{
    (void)state;
    struct model_desc m =
        desc_of(MODEL("mixtral", ", \"num_local_experts\": 4, \"num_experts_per_tok\": 3"));
    assert_int_equal(m.gate, GATE_SOFTMAX_TOPK);
    assert_int_equal(m.gate_normalise, 1);
    assert_int_equal(m.top_k, 3);
    assert_int_equal(m.d_ff_expert, 40);
    assert_int_equal(m.d_ff, 0);
    assert_int_equal(desc_n_sparse(&m), 4);
    assert_int_equal(desc_of(CONFIG_OLMOE).gate_normalise, 0);
    assert_int_equal(desc_of(MOE("qwen3_moe", ", \"norm_topk_prob\": true")).gate_normalise, 1);
}

static void sparse_step_and_mlp_only_layers_choose_the_sparse_layers(void **state)
{
    (void)state;
    struct model_desc d =
        desc_of(MOE("qwen3_moe", ", \"decoder_sparse_step\": 2, \"mlp_only_layers\": [3, 77]"));
    for (int i = 0; i < 4; i++)
        assert_int_equal(d.layer[i].sparse, i == 1);
    assert_int_equal(d.d_ff, 40);
    d = desc_of(MOE("qwen3_moe", ", \"mlp_only_layers\": [0, 1, 2, 3]"));
    assert_int_equal(desc_n_sparse(&d), 0);
    assert_int_equal(d.n_expert + d.top_k + d.d_ff_expert, 0);
}

static void shared_expert_is_gated(void **state)
{
    (void)state;
    struct model_desc d =
        desc_of(MOE("qwen2_moe", ", \"shared_expert_intermediate_size\": 9, \"qkv_bias\": false"));
    assert_int_equal(d.d_ff_shared, 9);
    assert_int_equal(d.shared_gated, 1);
    assert_int_equal(d.qkv_bias, 0);
}

static void windows_follow_each_family(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        int window[4];
    } cases[] = {
        {MODEL("qwen2", ", \"sliding_window\": 9, \"max_window_layers\": 2"), {0, 0, 0, 0}},
        {MODEL("qwen2", ", \"sliding_window\": 9, \"max_window_layers\": 2, "
                        "\"use_sliding_window\": true"),
         {0, 0, 9, 9}},
        {MODEL("qwen3", ", \"use_sliding_window\": true, \"max_window_layers\": 3"),
         {0, 0, 0, 4096}},
        {MODEL("qwen3", ", \"use_sliding_window\": true, \"sliding_window\": null"), {0, 0, 0, 0}},
        {MODEL("qwen2", ", \"use_sliding_window\": true, \"sliding_window\": 5, \"layer_types\": "
                        "[\"sliding_attention\", \"full_attention\", \"full_attention\", "
                        "\"sliding_attention\"]"),
         {5, 0, 0, 5}},
        {MODEL("mixtral", ", \"num_local_experts\": 4, \"num_experts_per_tok\": 2, "
                          "\"sliding_window\": 7"),
         {7, 7, 7, 7}},
        {MOE("qwen3_moe", ", \"use_sliding_window\": true, \"sliding_window\": 6, "
                          "\"max_window_layers\": 3"),
         {6, 6, 6, 6}},
        {MOE("qwen2_moe", ", \"shared_expert_intermediate_size\": 9, \"use_sliding_window\": true, "
                          "\"sliding_window\": 6, \"max_window_layers\": 3"),
         {0, 0, 0, 6}},
        {MODEL("llama", ", \"sliding_window\": 7"), {0, 0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model_desc d = desc_of(cases[i].config);
        for (int k = 0; k < 4; k++)
            assert_int_equal(d.layer[k].window, cases[i].window[k]);
    }
}

static void rope_scalings_are_read_in_all_three_forms(void **state)
{
    (void)state;
    struct model_desc d =
        desc_of(LLAMA(", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}"));
    assert_int_equal(d.rope.scaling, ROPE_LINEAR);
    assert_true(d.rope.factor == 2.5);
    d = desc_of(LLAMA(", \"max_position_embeddings\": 24, \"rope_scaling\": {\"rope_type\": "
                      "\"dynamic\", \"factor\": 3, \"original_max_position_embeddings\": 8}"));
    assert_int_equal(d.rope.scaling, ROPE_DYNAMIC);
    assert_int_equal(d.rope.original_context, 24);
    d = desc_of(LLAMA(", \"rope_theta\": 7.0, \"rope_parameters\": {\"rope_type\": \"llama3\", "
                      "\"rope_theta\": 500.0, \"factor\": 8, \"low_freq_factor\": 1, "
                      "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 32}"));
    assert_int_equal(d.rope.scaling, ROPE_LLAMA3);
    assert_true(d.rope.theta == 500.0);
    assert_true(d.rope.low_freq_factor == 1.0 && d.rope.high_freq_factor == 4.0);
    assert_int_equal(d.rope.original_context, 32);
    d = desc_of(LLAMA(", \"rope_parameters\": {\"rope_theta\": 9.0}"));
    assert_int_equal(d.rope.scaling, ROPE_NONE);
    assert_true(d.rope.theta == 9.0);
}

static void yarn_takes_its_defaults(void **state)
{
    (void)state;
    struct model_desc d = desc_of(LLAMA(", \"max_position_embeddings\": 128, \"rope_scaling\": "
                                        "{\"rope_type\": \"yarn\", \"factor\": 4.0}"));
    assert_int_equal(d.rope.scaling, ROPE_YARN);
    assert_int_equal(d.rope.original_context, 128);
    assert_true(d.rope.beta_fast == 32 && d.rope.beta_slow == 1);
    assert_true(d.rope.attention_factor == 0 && d.rope.mscale == 0);
    assert_int_equal(d.rope.truncate, 1);
    d = desc_of(LLAMA(", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, "
                      "\"beta_fast\": 8, \"beta_slow\": 2, \"attention_factor\": 1.15, "
                      "\"mscale\": 0.5, \"mscale_all_dim\": 0.25, \"truncate\": false, "
                      "\"original_max_position_embeddings\": 32}"));
    assert_int_equal(d.rope.original_context, 32);
    assert_true(d.rope.beta_fast == 8 && d.rope.beta_slow == 2);
    assert_true(d.rope.attention_factor == 1.15);
    assert_true(d.rope.mscale == 0.5 && d.rope.mscale_all_dim == 0.25);
    assert_int_equal(d.rope.truncate, 0);
}

static void activations_and_tokens_are_read(void **state)
{
    (void)state;
    assert_int_equal(desc_of(LLAMA(", \"hidden_act\": \"gelu\"")).act, ACT_GELU);
    assert_int_equal(desc_of(LLAMA(", \"hidden_act\": \"gelu_pytorch_tanh\"")).act, ACT_GELU_TANH);
    assert_int_equal(desc_of(LLAMA(", \"hidden_act\": \"gelu_new\"")).act, ACT_GELU_TANH);
    assert_int_equal(desc_of(LLAMA(", \"hidden_act\": \"relu2\"")).act, ACT_RELU2);
    struct model_desc d = desc_of(
        LLAMA(", \"eos_token_id\": [5, 6, 7], \"bos_token_id\": null, \"dtype\": \"bfloat16\""));
    assert_int_equal(d.n_eos, 3);
    assert_int_equal(d.eos[2], 7);
    assert_int_equal(d.bos, -1);
    assert_int_equal(d.stored, DTYPE_BF16);
    assert_int_equal(desc_of(LLAMA(", \"eos_token_id\": null")).n_eos, 0);
    assert_int_equal(desc_of(LLAMA(", \"torch_dtype\": \"float16\"")).stored, DTYPE_F16);
    /* Nothing is rotated there, so any width will do. */
    static const char odd[] =
        "{\"model_type\": \"pangu_alpha\", \"num_hidden_layers\": 2, \"hidden_size\": 21, "
        "\"num_attention_heads\": 3, \"vocab_size\": 9, \"intermediate_size\": 4}";
    assert_int_equal(desc_of(odd).d_head, 7);
}

static void bad_configs_are_refused_in_words(void **state)
{
    (void)state;
    static const struct {
        const char *config, *says;
    } cases[] = {
        {"", "not valid JSON"},
        {"[]", "no JSON object"},
        {"{\"model_type\": \"llama\"", "not valid JSON"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"{}", "\"model_type\" is missing"},
        {"{\"model_type\": 3}", "must be a string"},
        {"{\"model_type\": \"bert\"}", "\"bert\" is not supported; supported are llama, qwen2"},
        {"{\"model_type\": \"a\\u001b[31m\"}", "\"a?[31m\""},
        {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 32}",
         "config.json: \"num_attention_heads\" is missing (DIR/config.json); is this a llama"},
        {LLAMA(", \"num_key_value_heads\": 3"), "4 attention heads cannot share 3"},
        {LLAMA(", \"num_key_value_heads\": 0"), "must be an integer in 1..4096, it is 0"},
        {LLAMA(", \"num_key_value_heads\": \"4\""), "it is \"4\""},
        {LLAMA(", \"head_dim\": 7"), "an even width"},
        {LLAMA(", \"head_dim\": 100000"), "\"head_dim\" must be an integer in 1..1024"},
        {LLAMA(", \"max_position_embeddings\": 1e300"), "must be an integer"},
        {LLAMA(", \"max_position_embeddings\": 2.5"), "must be an integer"},
        {LLAMA(", \"rms_norm_eps\": -1"), "\"rms_norm_eps\" must be a number"},
        {LLAMA(", \"attention_bias\": 1"), "must be true or false"},
        {LLAMA(", \"hidden_act\": \"mish\""), "\"hidden_act\" \"mish\" is not computed here"},
        {LLAMA(", \"partial_rotary_factor\": 0.5"), "rotates all of a head"},
        {LLAMA(", \"quantization_config\": {}"), "read are compressed-tensors' pack-quantized"},
        {LLAMA(", \"eos_token_id\": [1,2,3,4,5,6,7,8,9]"), "a list of at most 8"},
        {LLAMA(", \"rope_scaling\": 4"), "\"rope_scaling\" must be an object"},
        {LLAMA(", \"rope_scaling\": {\"rope_type\": \"longrope\"}"),
         "rope scaling \"longrope\" is not computed here; known are default, linear"},
        {LLAMA(", \"rope_scaling\": {\"rope_type\": \"linear\"}"),
         "\"rope_scaling.factor\" is missing"},
        {LLAMA(", \"rope_scaling\": {\"rope_type\": \"linear\", \"type\": \"yarn\"}"),
         "\"rope_scaling.rope_type\" is \"linear\" but \"rope_scaling.type\" is \"yarn\""},
        {LLAMA(", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
               "\"low_freq_factor\": 4, \"high_freq_factor\": 4, "
               "\"original_max_position_embeddings\": 8}"),
         "must be above"},
        {LLAMA(", \"rope_theta\": 1, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2}"),
         "above 1"},
        {LLAMA(", \"head_dim\": 2, \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}"),
         "wider than 2"},
        {MODEL("qwen2", ", \"layer_types\": [\"full_attention\"]"), "1 entries for 4 layers"},
        {MODEL("qwen2", ", \"layer_types\": [\"full_attention\", \"full_attention\", "
                        "\"sliding_attention\", \"full_attention\"]"),
         "no sliding window is in use"},
        {MODEL("qwen2", ", \"layer_types\": [\"full_attention\", \"full_attention\", "
                        "\"linear_attention\", \"full_attention\"]"),
         "\"linear_attention\" in layer 2"},
        {MOE("qwen3_moe", ", \"decoder_sparse_step\": 0"), "\"decoder_sparse_step\" must be"},
        {MODEL("qwen3_moe", ", \"num_experts\": 2, \"num_experts_per_tok\": 3, "
                            "\"moe_intermediate_size\": 4"),
         "\"num_experts_per_tok\" is 3, but \"num_experts\" is only 2"},
        {MODEL("qwen3_moe", ", \"num_experts\": 5000, \"num_experts_per_tok\": 3"),
         "\"num_experts\" must be an integer in 0..4096"},
        {MODEL("olmoe",
               ", \"num_experts\": 4, \"num_experts_per_tok\": 2, \"num_key_value_heads\": 4"),
         "do not make up the hidden size 32"},
    };
    struct model_desc desc;
    memset(&desc, 0x5a, sizeof(desc));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = {0};
        int rc = desc_from_config(cases[i].config, strlen(cases[i].config), "DIR/config.json",
                                  &desc, &err);
        assert_int_equal(rc, ERR_MODEL);
        if (!strstr(err.text, cases[i].says))
            fail_msg("expected '%s' in '%s'", cases[i].says, err.text);
        assert_null(strchr(err.text, '\n'));
    }
    assert_int_equal(desc.n_layer, 0x5a5a5a5a);
}

static void clip_qkv_is_refused(void **state)
{
    (void)state;
    struct model_desc desc;
    struct err err = {0};
    static const char config[] =
        "{\"model_type\": \"olmoe\", \"num_hidden_layers\": 2, \"hidden_size\": 24, "
        "\"num_attention_heads\": 4, \"vocab_size\": 37, \"intermediate_size\": 10, "
        "\"num_experts\": 5, \"num_experts_per_tok\": 2, \"clip_qkv\": 8.0}";
    assert_int_equal(desc_from_config(config, strlen(config), "config.json", &desc, &err),
                     ERR_MODEL);
    assert_non_null(strstr(err.text, "\"clip_qkv\" is set"));
}

static void deep_nesting_is_refused_before_it_is_parsed(void **state)
{
    (void)state;
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH + 16);
    struct model_desc desc;
    struct err err = {0};
    assert_non_null(text);
    strcpy(text, "{\"a\":");
    memset(text + 5, '[', DEPTH);
    assert_int_equal(desc_from_config(text, DEPTH + 5, "config.json", &desc, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "nested deeper than 32 levels"));
    free(text);
}

static void names_and_shapes_come_from_the_description(void **state)
{
    (void)state;
    struct model_desc d =
        desc_of(MODEL("mixtral", ", \"num_local_experts\": 4, \"num_experts_per_tok\": 2"));
    char name[LIMIT_NAME_BYTES];
    int rows, cols;
    assert_int_equal(desc_tensor_name(&d, ROLE_EXPERT_DOWN, 3, 12, name, sizeof(name)), 0);
    assert_string_equal(name, "model.layers.3.block_sparse_moe.experts.12.w2.weight");
    assert_int_equal(desc_tensor_name(&d, ROLE_EMBED, 0, 0, name, sizeof(name)), 0);
    assert_string_equal(name, "model.embed_tokens.weight");
    assert_int_equal(desc_tensor_name(&d, ROLE_SHARED_GATE, 0, 0, name, sizeof(name)), -1);
    assert_int_equal(desc_tensor_name(&d, ROLE_EMBED, 0, 0, name, 8), -1);
    assert_int_equal(desc_tensor_shape(&d, ROLE_EXPERT_DOWN, 3, &rows, &cols), 0);
    assert_int_equal(rows, 32);
    assert_int_equal(cols, 40);
    assert_int_equal(desc_tensor_shape(&d, ROLE_UP_PROJ, 3, &rows, &cols), -1);
    assert_int_equal(desc_tensor_shape(&d, ROLE_EXPERT_DOWN, 4, &rows, &cols), -1);
    assert_int_equal(desc_expert_params(&d), 3 * 32 * 40);
}

static void generation_config_names_the_end_tokens(void **state)
{
    (void)state;
    char dir[64];
    struct model_desc desc;
    struct err err = {0};
    scratch_make(dir);
    text_put(dir, "config.json", LLAMA(", \"eos_token_id\": 3"));
    assert_int_equal(desc_load(dir, &desc, &err), 0);
    assert_int_equal(desc.eos[0], 3);
    text_put(dir, "generation_config.json", "{\"eos_token_id\": [8, 9], \"bos_token_id\": 4}");
    assert_int_equal(desc_load(dir, &desc, &err), 0);
    assert_int_equal(desc.n_eos, 2);
    assert_int_equal(desc.eos[1], 9);
    assert_int_equal(desc.bos, 4);
    text_put(dir, "generation_config.json", "{\"temperature\": 0.5}");
    assert_int_equal(desc_load(dir, &desc, &err), 0);
    assert_int_equal(desc.n_eos, 1);
    assert_int_equal(desc.eos[0], 3);
    assert_int_equal(desc.bos, 1);
    text_put(dir, "generation_config.json", "{\"eos_token_id\": \"x\"}");
    assert_int_equal(desc_load(dir, &desc, &err), ERR_MODEL);
    assert_non_null(strstr(err.text, "generation_config.json: \"eos_token_id\""));
    scratch_clear(dir);
    err_clear(&err);
    assert_int_equal(desc_load(dir, &desc, &err), ERR_IO);
    assert_non_null(strstr(err.text, "is no model folder"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_takes_transformers_defaults),
        cmocka_unit_test(families_differ_in_their_defaults),
        cmocka_unit_test(null_heads_mean_as_many_as_queries),
        cmocka_unit_test(mixtral_normalises_and_olmoe_does_not),
        cmocka_unit_test(sparse_step_and_mlp_only_layers_choose_the_sparse_layers),
        cmocka_unit_test(shared_expert_is_gated),
        cmocka_unit_test(windows_follow_each_family),
        cmocka_unit_test(rope_scalings_are_read_in_all_three_forms),
        cmocka_unit_test(yarn_takes_its_defaults),
        cmocka_unit_test(activations_and_tokens_are_read),
        cmocka_unit_test(bad_configs_are_refused_in_words),
        cmocka_unit_test(clip_qkv_is_refused),
        cmocka_unit_test(deep_nesting_is_refused_before_it_is_parsed),
        cmocka_unit_test(names_and_shapes_come_from_the_description),
        cmocka_unit_test(generation_config_names_the_end_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
