/* shapes: the table. The numbers are those of the models' published config.json files; names that
 * begin with bench- or tiny- are our own, for measurements and tests. */
#include "tools/shapes.h"
#include "base/opt.h"
#include "model/json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_BYTES_MAX ((size_t)4 << 20)

struct shape {
    const char *name, *about, *model_type, *architecture;
    int n_layer, d_model, n_head, n_kv_head, d_head; /* d_head 0: d_model / n_head */
    int d_ff;                                        /* of dense layers; 0: none */
    int n_expert, top_k, d_ff_expert, d_ff_shared;   /* n_expert 0: dense */
    int vocab, context;
    double theta, eps;
    int normalise, tied, bos, eos; /* bos -1: none */
    const char *block;             /* of a pangu_sigma */
    const char *domains; /* "zh:16,en:16": name, experts; "zh:16/1": in embedding slot 1 */
    int n_dense, n_slot; /* dense layers below the sparse ones */
};

/* clang-format off */
#define OLMOE     .model_type = "olmoe", .architecture = "OlmoeForCausalLM"
#define MIXTRAL   .model_type = "mixtral", .architecture = "MixtralForCausalLM"
#define QWEN2     .model_type = "qwen2", .architecture = "Qwen2ForCausalLM"
#define QWEN3     .model_type = "qwen3", .architecture = "Qwen3ForCausalLM"
#define QWEN2_MOE .model_type = "qwen2_moe", .architecture = "Qwen2MoeForCausalLM"
#define QWEN3_MOE .model_type = "qwen3_moe", .architecture = "Qwen3MoeForCausalLM"
#define LLAMA     .model_type = "llama", .architecture = "LlamaForCausalLM"
#define ALPHA     .model_type = "pangu_alpha", .architecture = "PanguAlphaForCausalLM"
#define SIGMA     .model_type = "pangu_sigma", .architecture = "PanguSigmaForCausalLM"
#define QWEN_IDS  .bos = 151643, .eos = 151645

/* The paper names four main domains, counts 26 more languages, and 6 programming languages, and
 * names four further ones; which languages they are is our guess. 16 experts each. */
#define PANGU_DOMAINS                                                                              \
    "zh:16,en:16,bilingual:16,code:16,"                                                            \
    "ar:16,bg:16,bn:16,cs:16,da:16,de:16,el:16,es:16,fa:16,fi:16,fr:16,he:16,hi:16,hu:16,id:16,"   \
    "it:16,ja:16,ko:16,nl:16,pl:16,pt:16,ro:16,ru:16,th:16,tr:16,vi:16,"                           \
    "c:16,cpp:16,go:16,java:16,javascript:16,python:16,"                                           \
    "finance:16,health:16,law:16,poetry:16"

static const struct shape shapes[] = {
    {.name = "olmoe-1b-7b", .about = "OLMoE-1B-7B", OLMOE,
     .n_layer = 16, .d_model = 2048, .n_head = 16, .n_kv_head = 16,
     .n_expert = 64, .top_k = 8, .d_ff_expert = 1024,
     .vocab = 50304, .context = 4096, .theta = 1e4, .eps = 1e-5, .bos = -1, .eos = 50279},
    {.name = "mixtral-8x7b", .about = "Mixtral-8x7B-v0.1", MIXTRAL,
     .n_layer = 32, .d_model = 4096, .n_head = 32, .n_kv_head = 8,
     .n_expert = 8, .top_k = 2, .d_ff_expert = 14336,
     .vocab = 32000, .context = 32768, .theta = 1e6, .eps = 1e-5, .bos = 1, .eos = 2},
    {.name = "qwen3-30b-a3b", .about = "Qwen3-30B-A3B", QWEN3_MOE,
     .n_layer = 48, .d_model = 2048, .n_head = 32, .n_kv_head = 4, .d_head = 128, .d_ff = 6144,
     .n_expert = 128, .top_k = 8, .d_ff_expert = 768, .normalise = 1,
     .vocab = 151936, .context = 40960, .theta = 1e6, .eps = 1e-6, QWEN_IDS},
    {.name = "qwen3-235b-a22b", .about = "Qwen3-235B-A22B", QWEN3_MOE,
     .n_layer = 94, .d_model = 4096, .n_head = 64, .n_kv_head = 4, .d_head = 128, .d_ff = 12288,
     .n_expert = 128, .top_k = 8, .d_ff_expert = 1536, .normalise = 1,
     .vocab = 151936, .context = 40960, .theta = 1e6, .eps = 1e-6, QWEN_IDS},
    {.name = "qwen1.5-moe-a2.7b", .about = "Qwen1.5-MoE-A2.7B", QWEN2_MOE,
     .n_layer = 24, .d_model = 2048, .n_head = 16, .n_kv_head = 16, .d_ff = 5632,
     .n_expert = 60, .top_k = 4, .d_ff_expert = 1408, .d_ff_shared = 5632,
     .vocab = 151936, .context = 8192, .theta = 1e6, .eps = 1e-6, .bos = -1, .eos = 151643},
    {.name = "qwen2-57b-a14b", .about = "Qwen2-57B-A14B", QWEN2_MOE,
     .n_layer = 28, .d_model = 3584, .n_head = 28, .n_kv_head = 4, .d_ff = 18944,
     .n_expert = 64, .top_k = 8, .d_ff_expert = 2560, .d_ff_shared = 20480,
     .vocab = 151936, .context = 131072, .theta = 1e6, .eps = 1e-6, .bos = 151643, .eos = 151643},
    {.name = "llama-3-8b", .about = "Meta-Llama-3-8B (dense)", LLAMA,
     .n_layer = 32, .d_model = 4096, .n_head = 32, .n_kv_head = 8, .d_ff = 14336,
     .vocab = 128256, .context = 8192, .theta = 5e5, .eps = 1e-5, .bos = 128000, .eos = 128001},
    {.name = "qwen2.5-7b", .about = "Qwen2.5-7B (dense)", QWEN2,
     .n_layer = 28, .d_model = 3584, .n_head = 28, .n_kv_head = 4, .d_ff = 18944,
     .vocab = 152064, .context = 131072, .theta = 1e6, .eps = 1e-6, .bos = 151643, .eos = 151643},
    {.name = "qwen3-0.6b", .about = "Qwen3-0.6B (dense)", QWEN3,
     .n_layer = 28, .d_model = 1024, .n_head = 16, .n_kv_head = 8, .d_head = 128, .d_ff = 3072,
     .vocab = 151936, .context = 40960, .theta = 1e6, .eps = 1e-6, .tied = 1, QWEN_IDS},
    {.name = "qwen3-8b", .about = "Qwen3-8B (dense)", QWEN3,
     .n_layer = 36, .d_model = 4096, .n_head = 32, .n_kv_head = 8, .d_head = 128, .d_ff = 12288,
     .vocab = 151936, .context = 40960, .theta = 1e6, .eps = 1e-6, QWEN_IDS},
    {.name = "pangu-alpha-13b", .about = "PanGu-alpha 13B (dense)", ALPHA,
     .n_layer = 40, .d_model = 5120, .n_head = 40, .n_kv_head = 40, .d_ff = 20480,
     .vocab = 40000, .context = 1024, .eps = 1e-5, .tied = 1, .bos = -1, .eos = 9},
    {.name = "pangu-sigma-1t", .about = "PanGu-Sigma: 1.085 T parameters, 40 domains", SIGMA,
     .n_layer = 40, .d_model = 5120, .n_head = 40, .n_kv_head = 40, .d_ff = 20480,
     .top_k = 1, .d_ff_expert = 20480, .block = "pangu_alpha", .domains = PANGU_DOMAINS,
     .n_dense = 32, .n_slot = 1,
     .vocab = 40000, .context = 1024, .eps = 1e-5, .tied = 1, .bos = -1, .eos = 9},
    {.name = "bench-m2", .about = "for measurements: 1.4 B parameters, 32 experts", QWEN3_MOE,
     .n_layer = 24, .d_model = 1024, .n_head = 16, .n_kv_head = 4, .d_head = 128, .d_ff = 3072,
     .n_expert = 32, .top_k = 4, .d_ff_expert = 512, .normalise = 1,
     .vocab = 32000, .context = 8192, .theta = 1e6, .eps = 1e-6, .bos = 1, .eos = 2},
    {.name = "tiny-moe", .about = "for tests: 8 experts, loads at once", QWEN3_MOE,
     .n_layer = 3, .d_model = 64, .n_head = 4, .n_kv_head = 2, .d_head = 16, .d_ff = 96,
     .n_expert = 8, .top_k = 2, .d_ff_expert = 48, .normalise = 1,
     .vocab = 512, .context = 1024, .theta = 1e4, .eps = 1e-6, .bos = 1, .eos = 2},
    {.name = "tiny-sigma", .about = "for tests: 3 domains of 9 experts, 2 embedding slots", SIGMA,
     .n_layer = 4, .d_model = 64, .n_head = 4, .n_kv_head = 2, .d_ff = 96,
     .top_k = 1, .d_ff_expert = 48, .block = "llama", .domains = "zh:4,en:3/1,code:2",
     .n_dense = 2, .n_slot = 2,
     .vocab = 512, .context = 1024, .theta = 1e4, .eps = 1e-5, .bos = 1, .eos = 2},
    {.name = "tiny-pangu", .about = "for tests: the same in PanGu's own block, top-2", SIGMA,
     .n_layer = 4, .d_model = 64, .n_head = 4, .n_kv_head = 4, .d_ff = 96,
     .top_k = 2, .d_ff_expert = 48, .block = "pangu_alpha", .domains = "zh:4,en:3/1,code:2",
     .n_dense = 2, .n_slot = 2,
     .vocab = 512, .context = 1024, .eps = 1e-5, .tied = 1, .bos = 1, .eos = 2},
    {.name = "tiny-llama", .about = "for tests: dense, loads at once", LLAMA,
     .n_layer = 3, .d_model = 64, .n_head = 4, .n_kv_head = 2, .d_ff = 96,
     .vocab = 512, .context = 1024, .theta = 1e4, .eps = 1e-5, .bos = 1, .eos = 2},
};
/* clang-format on */

#define N_SHAPE (sizeof(shapes) / sizeof(shapes[0]))

const struct shape *shape_at(size_t i)
{
    return i < N_SHAPE ? &shapes[i] : NULL;
}

const struct shape *shape_find(const char *name)
{
    for (size_t i = 0; i < N_SHAPE; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}

const char *shape_name(const struct shape *shape)
{
    return shape->name;
}

void shape_list(char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < N_SHAPE && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "  %-18s %s\n", shapes[i].name,
                                 shapes[i].about);
}

static void put_int(json_t *config, const char *key, int value)
{
    json_object_set_new(config, key, json_integer(value));
}

/* put_experts: each family has names of its own for the same numbers. */
static void put_experts(json_t *config, const struct shape *s)
{
    int mixtral = strcmp(s->model_type, "mixtral") == 0;
    int own_width = strncmp(s->model_type, "qwen", 4) == 0;
    put_int(config, mixtral ? "num_local_experts" : "num_experts", s->n_expert);
    put_int(config, "num_experts_per_tok", s->top_k);
    put_int(config, own_width ? "moe_intermediate_size" : "intermediate_size", s->d_ff_expert);
    if (!mixtral)
        json_object_set_new(config, "norm_topk_prob", json_boolean(s->normalise));
    if (s->d_ff_shared)
        put_int(config, "shared_expert_intermediate_size", s->d_ff_shared);
    if (own_width) {
        put_int(config, "decoder_sparse_step", 1);
        json_object_set_new(config, "mlp_only_layers", json_array());
    }
}

/* put_domains: the keys of docs/PANGU_SIGMA.md. */
static void put_domains(json_t *config, const struct shape *s)
{
    char name[32];
    int n_expert, slot, used;
    json_t *list = json_array();
    for (const char *p = s->domains; *p; p += *p == ',') {
        if (sscanf(p, "%31[^:]:%d%n", name, &n_expert, &used) != 2)
            break;
        p += used;
        slot = *p == '/' ? (int)strtol(p + 1, NULL, 10) : 0;
        p += strcspn(p, ",");
        json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "name", name, "num_experts",
                                              n_expert, "embedding_slot", slot));
    }
    json_object_set_new(config, "block", json_string(s->block));
    put_int(config, "num_dense_layers", s->n_dense);
    put_int(config, "expert_intermediate_size", s->d_ff_expert);
    put_int(config, "num_experts_per_tok", s->top_k);
    json_object_set_new(config, "domains", list);
    put_int(config, "num_embedding_slots", s->n_slot);
    json_object_set_new(config, "routing_seed", json_string(s->name));
}

static int is_pangu(const struct shape *s)
{
    return strcmp(s->block ? s->block : s->model_type, "pangu_alpha") == 0;
}

static json_t *shape_json(const struct shape *s)
{
    json_t *config = json_pack(
        "{s:[s], s:s, s:s, s:s}", "architectures", s->architecture, "model_type", s->model_type,
        "hidden_act", is_pangu(s) ? "gelu_pytorch_tanh" : "silu", "torch_dtype", "bfloat16");
    put_int(config, "num_hidden_layers", s->n_layer);
    put_int(config, "hidden_size", s->d_model);
    put_int(config, "num_attention_heads", s->n_head);
    put_int(config, "num_key_value_heads", s->n_kv_head);
    if (s->d_head)
        put_int(config, "head_dim", s->d_head);
    if (s->d_ff)
        put_int(config, "intermediate_size", s->d_ff);
    if (s->n_expert)
        put_experts(config, s);
    if (s->domains)
        put_domains(config, s);
    put_int(config, "vocab_size", s->vocab);
    put_int(config, "max_position_embeddings", s->context);
    if (!is_pangu(s))
        json_object_set_new(config, "rope_theta", json_real(s->theta));
    json_object_set_new(config, is_pangu(s) ? "layer_norm_eps" : "rms_norm_eps", json_real(s->eps));
    json_object_set_new(config, "tie_word_embeddings", json_boolean(s->tied));
    json_object_set_new(config, "bos_token_id", s->bos < 0 ? json_null() : json_integer(s->bos));
    put_int(config, "eos_token_id", s->eos);
    return config;
}

int shape_config(const struct shape *shape, char **text, struct err *err)
{
    json_t *config = shape_json(shape);
    char *out = config ? json_dumps(config, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(config);
    if (!out)
        return err_set(err, ERR_NOMEM, "no memory for the config of %s", shape->name);
    *text = out;
    return 0;
}

int shape_or_file(const char *what, char **text, struct err *err)
{
    struct stat st;
    size_t bytes;
    const struct shape *shape = shape_find(what);
    if (shape)
        return shape_config(shape, text, err);
    if (stat(what, &st) == 0)
        return file_read(what, CONFIG_BYTES_MAX, text, &bytes, err);
    const char *names[N_SHAPE + 1] = {0};
    char all[512] = "";
    for (size_t i = 0; i < N_SHAPE; i++) {
        names[i] = shapes[i].name;
        size_t used = strlen(all);
        snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "", shapes[i].name);
    }
    const char *near = opt_nearest(what, names);
    char quoted[JSON_QUOTE];
    json_quote(what, quoted);
    if (near)
        return err_set(err, ERR_USAGE, "there is no shape or file '%s'; did you mean '%s'?", quoted,
                       near);
    return err_set(err, ERR_USAGE, "there is no shape or file '%s'; shapes are %s", quoted, all);
}
