/* scratch: a folder for one test and what tests put into it: raw files, safetensors made from a
 * header text and a data size, and small checkpoints of any config with values that name their
 * place. */
#ifndef TESTS_MODEL_SCRATCH_H
#define TESTS_MODEL_SCRATCH_H

#include "model/checkpoint.h"
#include "model/desc.h"
#include "model/weights.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static inline void scratch_make(char dir[64])
{
    strcpy(dir, "/tmp/sigmoe-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

/* scratch_clear empties and removes a folder of plain files; fine when it is not there. */
static inline void scratch_clear(const char *dir)
{
    DIR *d = opendir(dir);
    for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(dir);
}

static inline void file_put(const char *dir, const char *name, const void *data, size_t bytes)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static inline void text_put(const char *dir, const char *name, const char *text)
{
    file_put(dir, name, text, strlen(text));
}

/* safetensors_put writes a file with this header and data_bytes of data, byte i being i mod 251. */
static inline void safetensors_put(const char *dir, const char *name, const char *header,
                                   size_t data_bytes)
{
    size_t n = strlen(header);
    unsigned char *file = malloc(8 + n + data_bytes);
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)n >> (8 * i) & 0xff);
    memcpy(file + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++)
        file[8 + n + i] = (unsigned char)(i % 251);
    file_put(dir, name, file, 8 + n + data_bytes);
    free(file);
}

/* value_at: element i of the tensor of (role, layer, expert); small integers over 256 are exact in
 * f32, bf16 and f16 alike, and 127 * 2 + 1 of them tell places apart. */
static inline float value_at(enum role role, int layer, int expert, uint64_t i)
{
    uint64_t h =
        (i * 31 + (uint64_t)role * 7919 + (uint64_t)layer * 104729 + (uint64_t)expert * 1299709);
    return (float)((int)(h % 255) - 127) / 256.0f;
}

struct checkpoint_make {
    struct ck_writer *writer;
    const struct model_desc *desc;
    enum dtype dtype;
};

static inline int make_declare(void *arg, enum role role, int layer, int expert)
{
    struct checkpoint_make *m = arg;
    char name[LIMIT_NAME_BYTES];
    uint64_t dim[LIMIT_ST_DIMS];
    int n_dim = desc_tensor_dims(m->desc, role, layer, dim);
    assert_int_equal(desc_tensor_name(m->desc, role, layer, expert, name, sizeof(name)), 0);
    assert_in_range(n_dim, 1, 3);
    return ck_writer_declare(m->writer, name, role_is_table(role) ? DTYPE_U16 : m->dtype, n_dim,
                             dim, NULL);
}

/* table_entry: balanced tables that differ from layer to layer. */
static inline uint16_t table_entry(const struct model_desc *d, int layer, int domain, int token,
                                   int j)
{
    return (uint16_t)((token + layer + j) % d->domain[domain].n_expert);
}

static inline int make_table(const struct checkpoint_make *m, int layer)
{
    const struct model_desc *d = m->desc;
    int rc = 0;
    for (int domain = 0; domain < d->n_domain; domain++)
        for (int token = 0; token < d->vocab; token++)
            for (int j = 0; j < d->top_k && rc == 0; j++) {
                uint16_t entry = table_entry(d, layer, domain, token, j);
                rc = ck_writer_data(m->writer, &entry, sizeof(entry), NULL);
            }
    return rc;
}

/* Exact for value_at: multiples of 1/256 below 1/2, normal in half precision, or zero. */
static inline uint16_t small_to_f16(float value)
{
    union {
        float f;
        uint32_t u;
    } bits = {.f = value};
    if (value == 0.0f)
        return 0;
    uint32_t exponent = (bits.u >> 23 & 255) - 112;
    return (uint16_t)((bits.u >> 16 & 0x8000u) | exponent << 10 | (bits.u >> 13 & 0x3ffu));
}

static inline int make_fill(void *arg, enum role role, int layer, int expert)
{
    struct checkpoint_make *m = arg;
    int rows = 0, cols = 0;
    if (role_is_table(role))
        return make_table(m, layer);
    desc_tensor_shape(m->desc, role, layer, &rows, &cols);
    uint64_t n = (uint64_t)rows * (uint64_t)(cols ? cols : 1);
    size_t width = dtype_bytes(m->dtype);
    unsigned char *data = malloc(n * width);
    assert_non_null(data);
    for (uint64_t i = 0; i < n; i++) {
        float value = value_at(role, layer, expert, i);
        uint16_t half = m->dtype == DTYPE_F16 ? small_to_f16(value) : f32_to_bf16(value);
        memcpy(data + i * width, m->dtype == DTYPE_F32 ? (void *)&value : (void *)&half, width);
    }
    int rc = ck_writer_data(m->writer, data, n * width, NULL);
    free(data);
    return rc;
}

/* checkpoint_make writes a whole checkpoint of this config into DIR (which may exist, empty). */
static inline void checkpoint_make(const char *dir, const char *config, enum dtype dtype,
                                   uint64_t shard_bytes)
{
    struct err err = {0};
    struct model_desc *desc = malloc(sizeof(*desc));
    assert_non_null(desc);
    if (desc_from_config(config, strlen(config), "config.json", desc, &err) != 0)
        fail_msg("%s", err.text);
    struct checkpoint_make m = {NULL, desc, dtype};
    assert_int_equal(ck_writer_open(dir, shard_bytes, &m.writer, &err), 0);
    assert_int_equal(desc_each_tensor(desc, make_declare, &m), 0);
    assert_int_equal(ck_writer_begin(m.writer, &err), 0);
    assert_int_equal(desc_each_tensor(desc, make_fill, &m), 0);
    assert_int_equal(ck_writer_file(m.writer, "config.json", config, strlen(config), &err), 0);
    assert_int_equal(ck_writer_commit(m.writer, &err), 0);
    free(desc);
}

/* Configs that between them have every kind of tensor a family of ours has. */
#define CONFIG_HEAD                                                                                \
    "\"num_hidden_layers\": 3, \"hidden_size\": 20, \"num_attention_heads\": 4, "                  \
    "\"num_key_value_heads\": 2, \"vocab_size\": 37, \"max_position_embeddings\": 64, "
#define CONFIG_LLAMA                                                                               \
    "{\"model_type\": \"llama\", " CONFIG_HEAD                                                     \
    "\"intermediate_size\": 18, \"head_dim\": 6, \"attention_bias\": true, \"mlp_bias\": true}"
#define CONFIG_QWEN3                                                                               \
    "{\"model_type\": \"qwen3\", " CONFIG_HEAD                                                     \
    "\"intermediate_size\": 18, \"head_dim\": 6, \"tie_word_embeddings\": true}"
#define CONFIG_OLMOE                                                                               \
    "{\"model_type\": \"olmoe\", \"num_hidden_layers\": 2, \"hidden_size\": 24, "                  \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 37, "                 \
    "\"intermediate_size\": 10, \"num_experts\": 5, \"num_experts_per_tok\": 2}"
#define CONFIG_QWEN2_MOE                                                                           \
    "{\"model_type\": \"qwen2_moe\", " CONFIG_HEAD                                                 \
    "\"head_dim\": 6, \"intermediate_size\": 18, \"moe_intermediate_size\": 7, "                   \
    "\"shared_expert_intermediate_size\": 9, \"num_experts\": 5, \"num_experts_per_tok\": 2, "     \
    "\"mlp_only_layers\": [1]}"
#define SCRATCH_DOMAINS                                                                            \
    "\"num_dense_layers\": 1, \"expert_intermediate_size\": 7, \"num_embedding_slots\": 2, "       \
    "\"domains\": [{\"name\": \"zh\", \"num_experts\": 3}, "                                       \
    "{\"name\": \"en\", \"num_experts\": 2, \"embedding_slot\": 1}]"
#define CONFIG_SIGMA                                                                               \
    "{\"model_type\": \"pangu_sigma\", " CONFIG_HEAD                                               \
    "\"intermediate_size\": 18, \"head_dim\": 6, " SCRATCH_DOMAINS "}"
#define CONFIG_PANGU                                                                               \
    "{\"model_type\": \"pangu_sigma\", \"block\": \"pangu_alpha\", " CONFIG_HEAD                   \
    "\"intermediate_size\": 18, \"head_dim\": 6, \"num_experts_per_tok\": 2, " SCRATCH_DOMAINS "}"

#endif
