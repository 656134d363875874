/* torch_file: see torch_file.h. A tensor in such a file is a call of
 * torch._utils._rebuild_tensor_v2 with a storage, an offset, sizes and strides; the storage is a
 * persistent id ("storage", its type, its key, its device, its count), and its data is the
 * archive's entry data/KEY. */
#include "tools/torch_file.h"
#include "base/arena.h"
#include "model/json.h"
#include "tools/pickle.h"
#include "tools/zip_stored.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)1 << 31)
#define VALUES_MAX     ((int64_t)1 << 27)
#define REBUILD        "torch._utils _rebuild_tensor_v2"

struct storage {
    char kind; /* 'i' or 'f' */
    int width;
    const uint8_t *data;
    size_t bytes;
};

static const struct pickle_node *item(const struct pickle_node *n, int i, enum pickle_kind kind)
{
    return n && i < n->n_item && n->item[i]->kind == kind ? n->item[i] : NULL;
}

static int type_of(const char *name, struct storage *s)
{
    static const struct {
        const char *name;
        char kind;
        int width;
    } types[] = {{"torch LongStorage", 'i', 8},
                 {"torch IntStorage", 'i', 4},
                 {"torch ShortStorage", 'i', 2},
                 {"torch FloatStorage", 'f', 4},
                 {"torch DoubleStorage", 'f', 8}};
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        if (strcmp(types[i].name, name) == 0) {
            s->kind = types[i].kind;
            s->width = types[i].width;
            return 0;
        }
    return -1;
}

/* storage_find: the storage that a persistent id names. */
static int storage_find(const struct pickle_node *id, const uint8_t *zip, size_t n,
                        const char *path, struct storage *s, struct err *err)
{
    const struct pickle_node *list = item(id, 0, PICKLE_LIST);
    const struct pickle_node *type = item(list, 1, PICKLE_GLOBAL),
                             *key = item(list, 2, PICKLE_TEXT);
    char name[64];
    if (!type || !key || !type->text || strlen(key->text) > 32 || type_of(type->text, s))
        return err_set(err, ERR_MODEL, "%s: a tensor is of a type that is not read here", path);
    snprintf(name, sizeof(name), "/data/%s", key->text);
    return zip_stored_find(zip, n, name, path, &s->data, &s->bytes, err);
}

static double value_at(const struct storage *s, int64_t i)
{
    const uint8_t *p = s->data + (size_t)i * (size_t)s->width;
    int64_t whole;
    int32_t four;
    int16_t two;
    float narrow;
    double wide;
    if (s->kind == 'f' && s->width == 4) {
        memcpy(&narrow, p, 4);
        return (double)narrow;
    }
    if (s->kind == 'f') {
        memcpy(&wide, p, 8);
        return wide;
    }
    if (s->width == 8) {
        memcpy(&whole, p, 8);
        return (double)whole;
    }
    if (s->width == 4) {
        memcpy(&four, p, 4);
        return four;
    }
    memcpy(&two, p, 2);
    return two;
}

/* shape_read: sizes into out; the tensor must lie row by row without gaps. Returns how many values,
 * or -1. */
static int64_t shape_read(const struct pickle_node *sizes, const struct pickle_node *strides,
                          struct torch_tensor *out)
{
    int64_t n = 1;
    if (!sizes || !strides || sizes->n_item != strides->n_item || sizes->n_item > TORCH_DIMS_MAX)
        return -1;
    out->n_dim = sizes->n_item;
    for (int i = out->n_dim - 1; i >= 0; i--) {
        const struct pickle_node *size = item(sizes, i, PICKLE_INT);
        const struct pickle_node *stride = item(strides, i, PICKLE_INT);
        if (!size || !stride || size->number < 0 || size->number > VALUES_MAX ||
            (stride->number != n && size->number > 1))
            return -1;
        out->dim[i] = size->number;
        n *= size->number;
        if (n > VALUES_MAX)
            return -1;
    }
    return n;
}

static int tensor_read(const struct pickle_node *call, const uint8_t *zip, size_t n_zip,
                       const char *path, const char *key, struct torch_tensor *out, struct err *err)
{
    const struct pickle_node *callable = item(call, 0, PICKLE_GLOBAL);
    const struct pickle_node *args = item(call, 1, PICKLE_LIST),
                             *offset = item(args, 1, PICKLE_INT);
    struct storage s;
    if (!call || call->kind != PICKLE_CALL || !callable || !callable->text ||
        strcmp(callable->text, REBUILD) != 0 || !offset)
        return err_set(err, ERR_MODEL, "%s: \"%s\" is no plain tensor", path, key);
    int rc = storage_find(item(args, 0, PICKLE_PERSID), zip, n_zip, path, &s, err);
    if (rc)
        return rc;
    int64_t n = shape_read(item(args, 2, PICKLE_LIST), item(args, 3, PICKLE_LIST), out);
    int64_t there = (int64_t)(s.bytes / (size_t)s.width);
    if (n < 0 || offset->number < 0 || offset->number > there || n > there - offset->number)
        return err_set(err, ERR_MODEL, "%s: tensor \"%s\" does not fit its data", path, key);
    out->value = malloc(((size_t)n + 1) * sizeof(*out->value));
    if (!out->value)
        return err_set(err, ERR_NOMEM, "%s: no memory for %lld values", path, (long long)n);
    for (int64_t i = 0; i < n; i++)
        out->value[i] = value_at(&s, offset->number + i);
    return 0;
}

static int tensor_of(const struct pickle_node *dict, const uint8_t *zip, size_t n, const char *path,
                     const char *key, struct torch_tensor *out, struct err *err)
{
    const struct pickle_node *value = pickle_get(dict, key);
    return value ? tensor_read(value, zip, n, path, key, out, err)
                 : err_set(err, ERR_MODEL, "%s: has no \"%s\"", path, key);
}

static int pickle_of(const uint8_t *zip, size_t n, const char *path, struct pickle **out,
                     struct err *err)
{
    size_t bytes;
    const uint8_t *data;
    int rc = zip_stored_find(zip, n, "/data.pkl", path, &data, &bytes, err);
    return rc ? rc : pickle_parse(data, bytes, path, out, err);
}

int torch_bytes_tensor(const uint8_t *zip, size_t n, const char *path, const char *key,
                       struct torch_tensor *out, struct err *err)
{
    struct pickle *pickle = NULL;
    int rc = pickle_of(zip, n, path, &pickle, err);
    rc = rc ? rc : tensor_of(pickle_root(pickle), zip, n, path, key, out, err);
    pickle_destroy(pickle);
    return rc;
}

struct torch_file {
    const char *path;
    char *bytes;
    size_t n;
    struct pickle *pickle;
};

int torch_file_open(const char *path, struct torch_file **out, struct err *err)
{
    struct torch_file *f = calloc(1, sizeof(*f));
    if (!f)
        return err_set(err, ERR_NOMEM, "%s: no memory to read it", path);
    f->path = path;
    int rc = file_read(path, FILE_BYTES_MAX, &f->bytes, &f->n, err);
    rc = rc ? rc : pickle_of((const uint8_t *)f->bytes, f->n, path, &f->pickle, err);
    if (rc) {
        torch_file_close(f);
        return rc;
    }
    *out = f;
    return 0;
}

void torch_file_close(struct torch_file *f)
{
    if (!f)
        return;
    pickle_destroy(f->pickle);
    free(f->bytes);
    free(f);
}

const struct pickle_node *torch_file_root(const struct torch_file *f)
{
    return pickle_root(f->pickle);
}

int torch_file_tensor(const struct torch_file *f, const struct pickle_node *dict, const char *key,
                      struct torch_tensor *out, struct err *err)
{
    return tensor_of(dict, (const uint8_t *)f->bytes, f->n, f->path, key, out, err);
}
