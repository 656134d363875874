/* shard: the reader of one safetensors file. Sizes are checked before anything is allocated or
 * dereferenced, and every sum of numbers from the file is checked for overflow. */
#include "model/shard.h"
#include "base/arena.h"
#include "model/json.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define METADATA "__metadata__"

/* Types of the format; those without a dtype of ours can be listed but not computed with. */
static const struct {
    const char *name;
    unsigned bits;
    enum dtype dtype;
} types[] = {
    {"F32", 32, DTYPE_F32},     {"BF16", 16, DTYPE_BF16},   {"F16", 16, DTYPE_F16},
    {"F64", 64, DTYPE_NONE},    {"I64", 64, DTYPE_I64},     {"U64", 64, DTYPE_NONE},
    {"C64", 64, DTYPE_NONE},    {"I32", 32, DTYPE_I32},     {"U32", 32, DTYPE_NONE},
    {"I16", 16, DTYPE_NONE},    {"U16", 16, DTYPE_U16},     {"I8", 8, DTYPE_NONE},
    {"U8", 8, DTYPE_NONE},      {"BOOL", 8, DTYPE_NONE},    {"F8_E4M3", 8, DTYPE_NONE},
    {"F8_E5M2", 8, DTYPE_NONE}, {"F8_E8M0", 8, DTYPE_NONE}, {"F6_E2M3", 6, DTYPE_NONE},
    {"F6_E3M2", 6, DTYPE_NONE}, {"F4", 4, DTYPE_NONE},
};

static int fail(const struct shard *shard, const char *tensor, struct err *err, const char *what)
{
    char quoted[JSON_QUOTE];
    return err_set(err, ERR_MODEL, "%s: tensor \"%s\": %s", shard->name, json_quote(tensor, quoted),
                   what);
}

static int type_read(const struct shard *shard, const char *name, const json_t *value,
                     struct tensor *t, unsigned *bits, struct err *err)
{
    const char *type = json_string_value(value);
    if (!type)
        return fail(shard, name, err, "\"dtype\" must be a string");
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].name, type) == 0) {
            t->dtype = types[i].dtype;
            t->dtype_name = types[i].name;
            *bits = types[i].bits;
            return 0;
        }
    }
    return fail(shard, name, err, "its \"dtype\" is none that safetensors knows");
}

static int shape_read(const struct shard *shard, const char *name, const json_t *value,
                      struct tensor *t, uint64_t *n_element, struct err *err)
{
    if (!json_is_array(value) || json_array_size(value) > LIMIT_ST_DIMS)
        return fail(shard, name, err, "\"shape\" must be a list of at most 8 sizes");
    t->n_dim = (int)json_array_size(value);
    *n_element = 1;
    for (int i = 0; i < t->n_dim; i++) {
        const json_t *size = json_array_get(value, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return fail(shard, name, err, "\"shape\" must hold non-negative integers");
        t->dim[i] = (uint64_t)json_integer_value(size);
        if (__builtin_mul_overflow(*n_element, t->dim[i], n_element))
            return fail(shard, name, err, "the product of its \"shape\" overflows 64 bits");
    }
    return 0;
}

static int offsets_read(const struct shard *shard, const char *name, const json_t *value,
                        struct tensor *t, uint64_t bytes, struct err *err)
{
    const json_t *b = json_array_get(value, 0), *e = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
        json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
        return fail(shard, name, err,
                    "\"data_offsets\" must be [begin, end] with 0 <= begin <= end");
    uint64_t begin = (uint64_t)json_integer_value(b), end = (uint64_t)json_integer_value(e);
    uint64_t data_bytes = shard->bytes - shard->data_begin;
    char text[192];
    if (end > data_bytes) {
        snprintf(text, sizeof(text),
                 "ends at byte %llu of the data, but the file holds %llu; it is truncated",
                 (unsigned long long)end, (unsigned long long)data_bytes);
        return fail(shard, name, err, text);
    }
    if (end - begin != bytes) {
        snprintf(text, sizeof(text),
                 "\"data_offsets\" span %llu bytes at %llu, its shape needs %llu",
                 (unsigned long long)(end - begin), (unsigned long long)begin,
                 (unsigned long long)bytes);
        return fail(shard, name, err, text);
    }
    t->data = shard->map + shard->data_begin + begin;
    t->bytes = bytes;
    return 0;
}

static int tensor_read(const struct shard *shard, const char *name, const json_t *entry,
                       struct tensor *t, struct err *err)
{
    const json_t *type = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_object(entry) || !type || !shape || !offsets || json_object_size(entry) != 3)
        return fail(shard, name, err,
                    "its entry must be an object of \"dtype\", \"shape\" and \"data_offsets\"");
    unsigned bits = 0;
    uint64_t n_element = 0, n_bit;
    int rc = type_read(shard, name, type, t, &bits, err);
    if (rc == 0)
        rc = shape_read(shard, name, shape, t, &n_element, err);
    if (rc)
        return rc;
    if (__builtin_mul_overflow(n_element, (uint64_t)bits, &n_bit) || n_bit % 8 != 0)
        return fail(shard, name, err, "its size in bytes is no whole number below 2^61");
    return offsets_read(shard, name, offsets, t, n_bit / 8, err);
}

static int metadata_check(const struct shard *shard, json_t *metadata, struct err *err)
{
    if (!json_is_object(metadata))
        return err_set(err, ERR_MODEL, "%s: \"" METADATA "\" must be an object", shard->name);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return err_set(err, ERR_MODEL, "%s: \"" METADATA "\" must hold strings only",
                           shard->name);
    }
    return 0;
}

/* by_place orders tensors by where they lie; an empty one comes before the one that begins there.
 */
static int by_place(const void *a, const void *b)
{
    const struct tensor *x = *(const struct tensor *const *)a,
                        *y = *(const struct tensor *const *)b;
    uintptr_t px = (uintptr_t)x->data, py = (uintptr_t)y->data;
    if (px != py)
        return px < py ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int misplaced(const struct shard *shard, const char *name, uint64_t begin, uint64_t reached,
                     struct err *err)
{
    char text[128];
    snprintf(text, sizeof(text), "begins at byte %llu of the data and %s %llu",
             (unsigned long long)begin,
             begin < reached ? "overlaps one that ends at" : "leaves a gap after",
             (unsigned long long)reached);
    return fail(shard, name, err, text);
}

/* coverage_check: the tensors lie side by side over the whole of the data. */
static int coverage_check(const struct shard *shard, struct err *err)
{
    const struct tensor **order = malloc((shard->n_tensor + 1) * sizeof(*order));
    if (!order)
        return err_set(err, ERR_NOMEM, "no memory for the %zu tensors of %s", shard->n_tensor,
                       shard->name);
    for (size_t i = 0; i < shard->n_tensor; i++)
        order[i] = &shard->tensor[i];
    qsort(order, shard->n_tensor, sizeof(*order), by_place);
    const unsigned char *data = shard->map + shard->data_begin;
    uint64_t reached = 0, all = shard->bytes - shard->data_begin;
    int rc = 0;
    for (size_t i = 0; i < shard->n_tensor && rc == 0; i++) {
        uint64_t begin = (uint64_t)((const unsigned char *)order[i]->data - data);
        if (begin != reached)
            rc = misplaced(shard, order[i]->name, begin, reached, err);
        reached = begin + order[i]->bytes;
    }
    free(order);
    if (rc == 0 && reached != all)
        rc = err_set(err, ERR_MODEL,
                     "%s: tensors end at byte %llu of the data, but the file goes on to %llu",
                     shard->name, (unsigned long long)reached, (unsigned long long)all);
    return rc;
}

/* storage allocates the tensor table and one block for all names. */
static int storage_create(struct shard *shard, json_t *root, struct err *err)
{
    size_t n = json_object_size(root), names_bytes = 1;
    if (n > LIMIT_ST_TENSORS)
        return err_set(err, ERR_MODEL, "%s: %zu tensors, at most %d are accepted", shard->name, n,
                       LIMIT_ST_TENSORS);
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        names_bytes += strlen(key) + 1;
    }
    shard->tensor = calloc(n + 1, sizeof(*shard->tensor));
    shard->names = malloc(names_bytes);
    if (!shard->tensor || !shard->names)
        return err_set(err, ERR_NOMEM, "no memory for the %zu tensors of %s", n, shard->name);
    return 0;
}

static int tensors_read(struct shard *shard, json_t *root, int index, struct err *err)
{
    int rc = storage_create(shard, root, err);
    if (rc)
        return rc;
    char *name = shard->names;
    const char *key;
    json_t *entry;
    json_object_foreach(root, key, entry)
    {
        if (strcmp(key, METADATA) == 0) {
            rc = metadata_check(shard, entry, err);
        } else {
            struct tensor *t = &shard->tensor[shard->n_tensor++];
            rc = tensor_read(shard, key, entry, t, err);
            t->shard = index;
            t->name = name;
            name = stpcpy(name, key) + 1;
        }
        if (rc)
            return rc;
    }
    return coverage_check(shard, err);
}

/* header_find: how long the header is, by the first 8 bytes, and whether that can be. */
static int header_find(struct shard *shard, struct err *err)
{
    static const char lfs[] = "version https://git-lfs";
    if (shard->bytes >= sizeof(lfs) && memcmp(shard->map, lfs, sizeof(lfs) - 1) == 0)
        return err_set(err, ERR_MODEL,
                       "%s is a Git LFS pointer, not the weights; fetch them with `git lfs pull`",
                       shard->name);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | shard->map[i];
    if (n > LIMIT_ST_HEADER_BYTES)
        return err_set(err, ERR_MODEL,
                       "%s: its first 8 bytes announce a header of %llu bytes, at most %d are "
                       "accepted; is this a safetensors file?",
                       shard->name, (unsigned long long)n, LIMIT_ST_HEADER_BYTES);
    if (n > shard->bytes - 8)
        return err_set(err, ERR_MODEL,
                       "%s: the header should be %llu bytes, but the file ends after %zu; it is "
                       "truncated",
                       shard->name, (unsigned long long)n, shard->bytes);
    if (n < 2 || shard->map[8] != '{')
        return err_set(err, ERR_MODEL, "%s: the header at byte 8 does not begin with '{'",
                       shard->name);
    shard->data_begin = 8 + (size_t)n;
    return 0;
}

static int file_map(const char *path, struct shard *shard, struct err *err)
{
    struct stat st;
    shard->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (shard->fd < 0)
        return err_sys(err, ERR_IO, "cannot open %s", path);
    if (fstat(shard->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return err_set(err, ERR_IO, "%s is no regular file", path);
    if (st.st_size < 8)
        return err_set(err, ERR_MODEL, "%s has %lld bytes; a safetensors file has at least 8", path,
                       (long long)st.st_size);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, shard->fd, 0);
    if (map == MAP_FAILED)
        return err_sys(err, ERR_IO, "cannot map %s", path);
    shard->map = map;
    shard->bytes = (size_t)st.st_size;
    return 0;
}

int shard_open(const char *dir, const char *name, int index, struct shard *out, struct err *err)
{
    struct shard shard = {.fd = -1};
    char path[4608];
    snprintf(shard.name, sizeof(shard.name), "%s", name);
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    int rc = file_map(path, &shard, err);
    if (rc == 0)
        rc = header_find(&shard, err);
    json_t *root = NULL;
    if (rc == 0)
        rc = json_parse_object((const char *)shard.map + 8, shard.data_begin - 8,
                               LIMIT_ST_HEADER_BYTES, name, &root, err);
    if (rc == 0)
        rc = tensors_read(&shard, root, index, err);
    json_decref(root);
    if (rc)
        shard_close(&shard);
    else
        *out = shard;
    return rc;
}

void shard_close(struct shard *shard)
{
    if (shard->map)
        munmap((void *)(uintptr_t)shard->map, shard->bytes);
    if (shard->fd >= 0)
        close(shard->fd);
    free(shard->tensor);
    free(shard->names);
    *shard = (struct shard){.fd = -1};
}
