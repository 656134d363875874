/* desc: from config.json to hyper-parameters. The keys that all families share are read here, the
 * family adds what is particular, and a last pass checks what only the whole can tell. Defaults for
 * absent keys are the family's own (model/families). The result is written only when all is well.
 */
#include "model/desc.h"
#include "model/config.h"
#include "model/families/families.h"
#include "model/json.h"
#include "model/quant.h"
#include "model/rope_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Far above any config.json that was ever published; vocabularies do not live in it. */
#define CONFIG_BYTES_MAX ((size_t)4 << 20)

static const struct model_family *const families[] = {
    &family_llama,     &family_qwen2,     &family_qwen3,       &family_mixtral,     &family_olmoe,
    &family_qwen2_moe, &family_qwen3_moe, &family_pangu_alpha, &family_pangu_sigma,
};
#define N_FAMILY (sizeof(families) / sizeof(families[0]))

static const struct model_family *family_find(const char *model_type)
{
    for (size_t i = 0; i < N_FAMILY; i++)
        if (strcmp(families[i]->model_type, model_type) == 0)
            return families[i];
    return NULL;
}

const struct model_family *desc_family(const struct model_desc *desc)
{
    return family_find(desc->family);
}

static int family_read(const struct config *config, const struct model_family **out,
                       struct err *err)
{
    const char *type;
    int rc = config_string_or(config, "model_type", NULL, &type, err);
    if (rc)
        return rc;
    if (!type)
        return err_set(err, ERR_MODEL,
                       "%s: \"model_type\" is missing; is this the config.json of a model?",
                       config->path);
    *out = family_find(type);
    if (*out)
        return 0;
    char known[256] = "", quoted[JSON_QUOTE];
    for (size_t i = 0; i < N_FAMILY; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "",
                 families[i]->model_type);
    }
    return err_set(err, ERR_MODEL, "%s: model_type \"%s\" is not supported; supported are %s",
                   config->path, json_quote(type, quoted), known);
}

/* block_read: the family whose block the layers have. */
static int block_read(const struct config *config, const struct model_family *family,
                      const struct model_family **out, struct err *err)
{
    *out = family;
    if (!family->block)
        return 0;
    const char *name;
    int rc = config_string_or(config, "block", family->block[0]->model_type, &name, err);
    if (rc)
        return rc;
    char known[128] = "", quoted[JSON_QUOTE];
    for (int i = 0; family->block[i]; i++) {
        if (strcmp(family->block[i]->model_type, name) == 0) {
            *out = family->block[i];
            return 0;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "",
                 family->block[i]->model_type);
    }
    return err_set(err, ERR_MODEL, "%s: \"block\" \"%s\" is none of %s", config->path,
                   json_quote(name, quoted), known);
}

static int act_read(struct model_desc *desc, const struct config *config,
                    const struct family_defaults *absent, struct err *err)
{
    static const struct {
        const char *name;
        enum act act;
    } acts[] = {{"silu", ACT_SILU},          {"swish", ACT_SILU},
                {"gelu", ACT_GELU},          {"gelu_python", ACT_GELU},
                {"gelu_new", ACT_GELU_TANH}, {"gelu_pytorch_tanh", ACT_GELU_TANH},
                {"relu2", ACT_RELU2}};
    const char *name;
    int rc = config_string_or(config, "hidden_act", absent->act ? absent->act : "silu", &name, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        if (strcmp(acts[i].name, name) == 0) {
            desc->act = acts[i].act;
            return 0;
        }
    }
    char quoted[JSON_QUOTE];
    return err_set(err, ERR_MODEL,
                   "%s: \"hidden_act\" \"%s\" is not computed here; known are silu, gelu, "
                   "gelu_pytorch_tanh, gelu_new and relu2",
                   config->path, json_quote(name, quoted));
}

static int heads_read(struct model_desc *desc, const struct config *config,
                      const struct family_defaults *absent, struct err *err)
{
    /* null means n_head in every family; an absent key means the class default. */
    int n_kv_absent = absent->n_kv_head;
    if (n_kv_absent == 0 || json_object_get(config->root, "num_key_value_heads"))
        n_kv_absent = desc->n_head;
    int rc = config_int_or(config, "num_key_value_heads", n_kv_absent, 1, LIMIT_HEADS,
                           &desc->n_kv_head, err);
    int derived = desc->d_model / desc->n_head;
    if (rc == 0)
        rc = config_int_or(config, "head_dim", absent->d_head ? absent->d_head : derived, 1,
                           LIMIT_D_HEAD, &desc->d_head, err);
    if (rc)
        return rc;
    if (desc->n_head % desc->n_kv_head != 0)
        return err_set(err, ERR_MODEL,
                       "%s: %d attention heads cannot share %d key/value heads evenly",
                       config->path, desc->n_head, desc->n_kv_head);
    if (desc->d_head < 1 || desc->d_head > LIMIT_D_HEAD)
        return err_set(err, ERR_MODEL, "%s: heads are %d wide; 1..%d are possible", config->path,
                       desc->d_head, LIMIT_D_HEAD);
    desc->attn_scale = (float)(1.0 / sqrt(desc->d_head));
    return 0;
}

/* tokens_read: ids that begin and end a text; an absent or negative id is none. */
static int tokens_read(struct model_desc *desc, const struct config *config, int bos_absent,
                       int eos_absent, struct err *err)
{
    int32_t eos[8];
    int n = 8, bos;
    int absent = json_object_get(config->root, "bos_token_id") ? -1 : bos_absent;
    int rc = config_int_or(config, "bos_token_id", absent, -1, LIMIT_VOCAB, &bos, err);
    if (rc == 0)
        rc = config_ints(config, "eos_token_id", -1, LIMIT_VOCAB, eos, &n, err);
    if (rc)
        return rc;
    if (!json_object_get(config->root, "eos_token_id")) {
        eos[0] = eos_absent;
        n = 1;
    }
    desc->bos = bos;
    desc->n_eos = 0;
    for (int i = 0; i < n; i++)
        if (eos[i] >= 0)
            desc->eos[desc->n_eos++] = eos[i];
    return 0;
}

static int stored_read(struct model_desc *desc, const struct config *config, struct err *err)
{
    const char *name;
    int rc = config_string_or(config, "dtype", NULL, &name, err);
    if (rc == 0 && !name)
        rc = config_string_or(config, "torch_dtype", NULL, &name, err);
    if (rc == 0 && name)
        desc->stored = strcmp(name, "bfloat16") == 0  ? DTYPE_BF16
                       : strcmp(name, "float16") == 0 ? DTYPE_F16
                       : strcmp(name, "float32") == 0 ? DTYPE_F32
                                                      : DTYPE_NONE;
    return rc;
}

static int common_read(struct model_desc *desc, const struct config *config,
                       const struct family_defaults *absent, struct err *err)
{
    double eps = 0;
    int rc = config_int(config, "num_hidden_layers", 1, LIMIT_LAYERS, &desc->n_layer, err);
    if (rc == 0)
        rc = config_int(config, "hidden_size", 1, LIMIT_D_MODEL, &desc->d_model, err);
    if (rc == 0)
        rc = config_int(config, "num_attention_heads", 1, LIMIT_HEADS, &desc->n_head, err);
    if (rc == 0)
        rc = config_int(config, "vocab_size", 1, LIMIT_VOCAB, &desc->vocab, err);
    if (rc == 0)
        rc = heads_read(desc, config, absent, err);
    if (rc == 0)
        rc = config_int_or(config, "max_position_embeddings", absent->max_context, 1, LIMIT_CONTEXT,
                           &desc->max_context, err);
    if (rc == 0)
        rc = config_real_or(config, "rms_norm_eps", absent->norm_eps, 0, 1, &eps, err);
    desc->norm_eps = (float)eps;
    if (rc == 0)
        rc = rope_from_config(desc, config, absent->rope_theta, err);
    if (rc == 0)
        rc = act_read(desc, config, absent, err);
    if (rc == 0)
        rc = config_bool_or(config, "tie_word_embeddings", absent->tied, &desc->tied, err);
    if (rc == 0)
        rc = tokens_read(desc, config, absent->bos, absent->eos, err);
    return rc ? rc : stored_read(desc, config, err);
}

/* finish: the width of dense layers is asked for only where there are such layers, and a model
 * without a sparse layer has no experts whatever its config counts. A family without rotation has
 * said so by now. */
static int finish(struct model_desc *desc, const struct config *config, struct err *err)
{
    if (desc->rope.d_rot % 2 != 0)
        return err_set(err, ERR_MODEL,
                       "%s: heads are %d wide; rotation needs an even width of 2..%d", config->path,
                       desc->rope.d_rot, LIMIT_D_HEAD);
    int n_sparse = desc_n_sparse(desc);
    if (n_sparse == 0) {
        desc->n_expert = desc->top_k = desc->d_ff_expert = desc->d_ff_shared = 0;
        desc->shared_gated = desc->gate_normalise = desc->expert_bias = 0;
    }
    desc->d_ff = 0;
    if (n_sparse == desc->n_layer)
        return 0;
    return config_int(config, "intermediate_size", 1, LIMIT_D_FF, &desc->d_ff, err);
}

static int config_read(struct config *config, struct model_desc *out, struct err *err)
{
    const struct model_family *family, *block;
    int rc = family_read(config, &family, err);
    if (rc == 0)
        rc = block_read(config, family, &block, err);
    if (rc)
        return rc;
    config->family = family->model_type;
    struct model_desc *desc = calloc(1, sizeof(*desc));
    if (!desc)
        return err_set(err, ERR_NOMEM, "no memory to read %s", config->path);
    snprintf(desc->family, sizeof(desc->family), "%s", family->model_type);
    desc->block = block->model_type;
    desc->norm = NORM_RMS;
    desc->gate_scale = 1.0f;
    desc->n_slot = 1;
    rc = quant_config_read(desc, config, err);
    if (rc == 0)
        rc = common_read(desc, config, &block->absent, err);
    if (rc == 0)
        rc = block->configure(desc, config, err);
    if (rc == 0 && block != family)
        rc = family->configure(desc, config, err);
    if (rc == 0)
        rc = finish(desc, config, err);
    if (rc == 0)
        *out = *desc;
    free(desc);
    return rc;
}

int desc_from_config(const char *text, size_t bytes, const char *path, struct model_desc *desc,
                     struct err *err)
{
    struct config config;
    int rc = config_parse(text, bytes, path, &config, err);
    if (rc)
        return rc;
    rc = config_read(&config, desc, err);
    config_free(&config);
    return rc;
}

static int config_file(const char *path, struct model_desc *desc, struct err *err)
{
    char *text;
    size_t bytes;
    int rc = file_read(path, CONFIG_BYTES_MAX, &text, &bytes, err);
    if (rc)
        return rc;
    rc = desc_from_config(text, bytes, path, desc, err);
    free(text);
    return rc;
}

/* generation_file: what a model publishes for generation names its end tokens more completely. */
static int generation_file(const char *path, struct model_desc *desc, struct err *err)
{
    char *text;
    size_t bytes;
    struct config config;
    int rc = file_read(path, CONFIG_BYTES_MAX, &text, &bytes, err);
    if (rc)
        return rc;
    rc = config_parse(text, bytes, path, &config, err);
    free(text);
    if (rc)
        return rc;
    int32_t eos[8];
    int n_eos = desc->n_eos;
    memcpy(eos, desc->eos, sizeof(eos));
    rc = tokens_read(desc, &config, desc->bos, -1, err);
    if (rc == 0 && desc->n_eos == 0) {
        memcpy(desc->eos, eos, sizeof(eos));
        desc->n_eos = n_eos;
    }
    config_free(&config);
    return rc;
}

int desc_load(const char *dir, struct model_desc *desc, struct err *err)
{
    char path[4352];
    struct model_desc *read = malloc(sizeof(*read));
    if (!read)
        return err_set(err, ERR_NOMEM, "no memory to read %s", dir);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    int rc = access(path, F_OK) == 0
                 ? config_file(path, read, err)
                 : err_sys(err, ERR_IO, "%s is no model folder: cannot open %s", dir, path);
    snprintf(path, sizeof(path), "%s/generation_config.json", dir);
    if (rc == 0 && access(path, F_OK) == 0)
        rc = generation_file(path, read, err);
    if (rc == 0)
        *desc = *read;
    free(read);
    return rc;
}
