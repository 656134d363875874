/* checkpoint: a set of shards as one table of tensors, ordered by name. The index file of a sharded
 * checkpoint must agree with the shards in both directions: a tensor that it places elsewhere, or
 * does not know, would be another tensor to another reader. */
#include "model/checkpoint.h"
#include "model/json.h"
#include "model/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SINGLE "model.safetensors"
#define INDEX  "model.safetensors.index.json"
#define SUFFIX ".safetensors"

static int by_name(const void *a, const void *b)
{
    const struct tensor *x = *(const struct tensor *const *)a,
                        *y = *(const struct tensor *const *)b;
    return strcmp(x->name, y->name);
}

/* table_build orders the tensors of all shards; a name in two shards is refused. */
static int table_build(struct checkpoint *ck, struct err *err)
{
    size_t n = 0;
    for (int s = 0; s < ck->n_shard; s++)
        n += ck->shard[s].n_tensor;
    if (n > LIMIT_ST_TENSORS)
        return err_set(err, ERR_MODEL, "%zu tensors in %d shards, at most %d are accepted", n,
                       ck->n_shard, LIMIT_ST_TENSORS);
    ck->tensor = calloc(n + 1, sizeof(*ck->tensor));
    if (!ck->tensor)
        return err_set(err, ERR_NOMEM, "no memory for %zu tensors", n);
    for (int s = 0; s < ck->n_shard; s++)
        for (size_t i = 0; i < ck->shard[s].n_tensor; i++)
            ck->tensor[ck->n_tensor++] = &ck->shard[s].tensor[i];
    qsort(ck->tensor, n, sizeof(*ck->tensor), by_name);
    for (size_t i = 1; i < n; i++) {
        const struct tensor *a = ck->tensor[i - 1], *b = ck->tensor[i];
        char quoted[JSON_QUOTE];
        if (strcmp(a->name, b->name) == 0)
            return err_set(err, ERR_MODEL, "tensor \"%s\" is in both %s and %s",
                           json_quote(a->name, quoted), ck->shard[a->shard].name,
                           ck->shard[b->shard].name);
    }
    return 0;
}

/* shard_name_check: a name from the index stays inside the folder. */
static int shard_name_check(const char *name, struct err *err)
{
    size_t n = strlen(name), suffix = strlen(SUFFIX);
    char quoted[JSON_QUOTE];
    if (n > 255 || n <= suffix || strcmp(name + n - suffix, SUFFIX) != 0 || name[0] == '.' ||
        strpbrk(name, "/\\"))
        return err_set(err, ERR_MODEL, INDEX ": \"%s\" is no plain file name that ends in " SUFFIX,
                       json_quote(name, quoted));
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* names_collect: the distinct shard names of the map, sorted; they live as long as `set`. */
static int names_collect(json_t *map, json_t *set, const char ***out, struct err *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        const char *name = json_string_value(value);
        char quoted[JSON_QUOTE];
        if (!name)
            return err_set(err, ERR_MODEL, INDEX ": the shard of \"%s\" must be a string",
                           json_quote(key, quoted));
        if (json_object_get(set, name))
            continue;
        int rc = shard_name_check(name, err);
        if (rc)
            return rc;
        if (json_object_size(set) >= LIMIT_SHARDS)
            return err_set(err, ERR_MODEL, INDEX ": more than %d shards", LIMIT_SHARDS);
        if (json_object_set_new(set, name, json_true()) != 0)
            return err_set(err, ERR_NOMEM, "no memory for the shard names");
    }
    size_t n = json_object_size(set);
    const char **names = calloc(n + 1, sizeof(*names));
    if (!names)
        return err_set(err, ERR_NOMEM, "no memory for the shard names");
    size_t i = 0;
    json_object_foreach(set, key, value)
    {
        names[i++] = key;
    }
    qsort(names, n, sizeof(*names), by_text);
    *out = names;
    return 0;
}

static int shards_open(struct checkpoint *ck, const char *dir, const char *const *names, int n,
                       struct err *err)
{
    ck->shard = calloc((size_t)n + 1, sizeof(*ck->shard));
    if (!ck->shard)
        return err_set(err, ERR_NOMEM, "no memory for %d shards", n);
    for (int i = 0; i < n; i++) {
        int rc = shard_open(dir, names[i], i, &ck->shard[i], err);
        if (rc)
            return rc;
        ck->n_shard++;
    }
    return table_build(ck, err);
}

static int index_agrees(const struct checkpoint *ck, json_t *map, struct err *err)
{
    const char *key;
    json_t *value;
    char quoted[JSON_QUOTE];
    json_object_foreach(map, key, value)
    {
        const struct tensor *t = checkpoint_find(ck, key);
        const char *place = json_string_value(value);
        if (!t || strcmp(ck->shard[t->shard].name, place) != 0)
            return err_set(err, ERR_MODEL, INDEX ": places tensor \"%s\" in %s, where it is not",
                           json_quote(key, quoted), place);
    }
    for (size_t i = 0; i < ck->n_tensor; i++)
        if (!json_object_get(map, ck->tensor[i]->name))
            return err_set(err, ERR_MODEL, INDEX ": does not list tensor \"%s\" of %s",
                           json_quote(ck->tensor[i]->name, quoted),
                           ck->shard[ck->tensor[i]->shard].name);
    return 0;
}

static int map_open(struct checkpoint *ck, const char *dir, json_t *root, struct err *err)
{
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return err_set(err, ERR_MODEL, "%s/" INDEX ": \"weight_map\" must be an object of names",
                       dir);
    const char **names = NULL;
    json_t *set = json_object();
    int rc = set ? names_collect(map, set, &names, err) : err_set(err, ERR_NOMEM, "no memory");
    if (rc == 0)
        rc = shards_open(ck, dir, names, (int)json_object_size(set), err);
    if (rc == 0)
        rc = index_agrees(ck, map, err);
    free(names);
    json_decref(set);
    return rc;
}

static int sharded_open(struct checkpoint *ck, const char *dir, const char *path, struct err *err)
{
    char *text;
    size_t bytes;
    json_t *root = NULL;
    int rc = file_read(path, LIMIT_JSON_BYTES, &text, &bytes, err);
    if (rc)
        return rc;
    rc = json_parse_object(text, bytes, LIMIT_JSON_BYTES, path, &root, err);
    free(text);
    if (rc == 0)
        rc = map_open(ck, dir, root, err);
    json_decref(root);
    return rc;
}

int checkpoint_open(const char *dir, struct checkpoint **out, struct err *err)
{
    static const char *const single[] = {SINGLE};
    char path[4352];
    int rc;
    struct checkpoint *ck = calloc(1, sizeof(*ck));
    if (!ck)
        return err_set(err, ERR_NOMEM, "no memory to open %s", dir);
    snprintf(path, sizeof(path), "%s/" SINGLE, dir);
    int has_single = access(path, F_OK) == 0;
    snprintf(path, sizeof(path), "%s/" INDEX, dir);
    if (has_single)
        rc = shards_open(ck, dir, single, 1, err);
    else if (access(path, F_OK) == 0)
        rc = sharded_open(ck, dir, path, err);
    else
        rc = err_set(err, ERR_IO,
                     "%s holds neither " SINGLE " nor " INDEX "; give the folder of a "
                     "safetensors checkpoint",
                     dir);
    if (rc)
        checkpoint_close(ck);
    else
        *out = ck;
    return rc;
}

void checkpoint_close(struct checkpoint *ck)
{
    if (!ck)
        return;
    for (int i = 0; i < ck->n_shard; i++)
        shard_close(&ck->shard[i]);
    free(ck->shard);
    free(ck->tensor);
    free(ck);
}

size_t checkpoint_n_tensor(const struct checkpoint *ck)
{
    return ck->n_tensor;
}

const struct tensor *checkpoint_at(const struct checkpoint *ck, size_t i)
{
    return ck->tensor[i];
}

const struct tensor *checkpoint_find(const struct checkpoint *ck, const char *name)
{
    const struct tensor key = {.name = name}, *p = &key;
    const struct tensor **found =
        bsearch(&p, ck->tensor, ck->n_tensor, sizeof(*ck->tensor), by_name);
    return found ? *found : NULL;
}

int checkpoint_n_shard(const struct checkpoint *ck)
{
    return ck->n_shard;
}

const char *checkpoint_shard_name(const struct checkpoint *ck, int shard)
{
    return ck->shard[shard].name;
}

uint64_t checkpoint_bytes(const struct checkpoint *ck)
{
    uint64_t sum = 0;
    for (int i = 0; i < ck->n_shard; i++)
        sum += ck->shard[i].bytes;
    return sum;
}

/* A fault on a file's page maps its neighbours too, within an aligned window of this size (Linux,
 * fault_around_bytes). */
#define FAULT_AROUND ((size_t)65536)

/* advise rounds outward to whole windows, since what was faulted in with a tensor's ends would stay
 * resident for good; a clean page of a neighbour given back too early only costs a fault. */
static void advise(const struct checkpoint *ck, const struct tensor *t, int advice)
{
    const struct shard *shard = &ck->shard[t->shard];
    size_t begin = (size_t)((const unsigned char *)t->data - shard->map);
    size_t end = begin + (size_t)t->bytes;
    uintptr_t base = (uintptr_t)shard->map, low = (base + begin) / FAULT_AROUND * FAULT_AROUND;
    if (low < base)
        low = base;
    size_t rest = shard->bytes - end, up = FAULT_AROUND - 1 - (base + end - 1) % FAULT_AROUND;
    uintptr_t high = base + end + (up < rest ? up : rest);
    if (t->bytes > 0)
        madvise((void *)low, (size_t)(high - low), advice);
}

void checkpoint_want(const struct checkpoint *ck, const struct tensor *t)
{
    advise(ck, t, MADV_WILLNEED);
}

void checkpoint_done(const struct checkpoint *ck, const struct tensor *t)
{
    advise(ck, t, MADV_DONTNEED);
}

static void shape_text(const uint64_t *dim, int n_dim, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < n_dim && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%llu", i ? ", " : "",
                                 (unsigned long long)dim[i]);
    if (used < size)
        snprintf(out + used, size - used, "]");
}

static int tensor_check(const struct checkpoint *ck, const struct tensor *t, enum role role,
                        const uint64_t *want, int n_dim, struct err *err)
{
    const char *file = ck->shard[t->shard].name;
    if (t->n_dim != n_dim || memcmp(t->dim, want, (size_t)n_dim * sizeof(*want)) != 0) {
        char is[192], must[64];
        shape_text(t->dim, t->n_dim, is, sizeof(is));
        shape_text(want, n_dim, must, sizeof(must));
        return err_set(err, ERR_MODEL, "%s: tensor \"%s\" is %s, by config.json it must be %s",
                       file, t->name, is, must);
    }
    if (role_is_table(role) && t->dtype != DTYPE_U16)
        return err_set(err, ERR_MODEL, "%s: tensor \"%s\" is stored as %s; a table must be U16",
                       file, t->name, t->dtype_name);
    int is_float = t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16 || t->dtype == DTYPE_F16;
    if (!role_is_table(role) && !is_float)
        return err_set(err, ERR_MODEL,
                       "%s: tensor \"%s\" is stored as %s; weights must be BF16, F16 or F32", file,
                       t->name, t->dtype_name);
    size_t offset = (size_t)((const unsigned char *)t->data - ck->shard[t->shard].map);
    if (offset % dtype_bytes(t->dtype) != 0)
        return err_set(
            err, ERR_MODEL,
            "%s: tensor \"%s\" begins at byte %zu, which is not aligned for %s; save the "
            "file again with a current safetensors library",
            file, t->name, offset, t->dtype_name);
    return 0;
}

int checkpoint_role(const struct checkpoint *ck, const struct model_desc *desc, enum role role,
                    int layer, int expert, const struct tensor **out, struct err *err)
{
    char name[LIMIT_NAME_BYTES];
    uint64_t want[LIMIT_ST_DIMS];
    int n_dim = desc_tensor_dims(desc, role, layer, want);
    if (n_dim < 0 || desc_tensor_name(desc, role, layer, expert, name, sizeof(name)) != 0)
        return err_set(err, ERR_MODEL, "a %s model has no tensor of role %d in layer %d",
                       desc->family, (int)role, layer);
    const struct tensor *t = checkpoint_find(ck, name);
    if (!t)
        return err_set(err, ERR_MODEL, "%s: tensor \"%s\" is missing; config.json says %s",
                       ck->n_shard == 1 ? ck->shard[0].name : INDEX, name, desc->family);
    int rc = tensor_check(ck, t, role, want, n_dim, err);
    if (rc == 0)
        *out = t;
    return rc;
}
