/* writer: a checkpoint written as a stream. All tensors are known before the first byte, so every
 * header and every place is fixed at once and memory stays constant. Within a shard the f32 tensors
 * lie first, then the 16-bit ones, each kind in the order declared: then all are aligned, which the
 * format (no gaps) could not give otherwise. One shard is open at a time.
 *
 * Files go to a folder beside the target that is renamed at the end, so what stands under the
 * target's name is whole. Data is not forced to the disk: a checkpoint that a tool wrote can be
 * written again. */
#include "base/report.h"
#include "model/checkpoint.h"
#include "model/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define INDEX        "model.safetensors.index.json"
#define HEADER_ALIGN ((size_t)8)

struct entry {
    char *name;
    enum dtype dtype;
    int n_dim;
    uint64_t dim[LIMIT_ST_DIMS];
    uint64_t bytes, begin; /* begin: in the data of its shard */
    int shard;
};

struct ck_writer {
    char dir[PATH_MAX], temp[PATH_MAX + 32];
    uint64_t shard_bytes, total;
    struct entry *entry;
    size_t n_entry, room;
    json_t *names; /* name -> shard file: the weight map, and the check for duplicates */
    int n_shard;
    /* The stream: `done` bytes of tensor `at` are written; `fd` is its shard, or -1. */
    size_t at;
    uint64_t done, data_begin;
    int fd, open_shard;
    int finished;
};

/* target_check: nothing, or an empty folder, is in the way. */
static int target_check(const char *dir, struct err *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? 0 : err_sys(err, ERR_USAGE, "cannot write to %s", dir);
    int n = 0;
    for (const struct dirent *e = readdir(d); e; e = readdir(d))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n ? err_set(err, ERR_USAGE, "%s is not empty; remove it or choose another folder", dir)
             : 0;
}

int ck_writer_open(const char *dir, uint64_t shard_bytes, struct ck_writer **out, struct err *err)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (n == 0 || n >= PATH_MAX)
        return err_set(err, ERR_USAGE, "the folder to write to needs a name below %d bytes",
                       PATH_MAX);
    int rc = target_check(dir, err);
    if (rc)
        return rc;
    struct ck_writer *w = calloc(1, sizeof(*w));
    if (!w || !(w->names = json_object())) {
        free(w);
        return err_set(err, ERR_NOMEM, "no memory to write %s", dir);
    }
    w->shard_bytes = shard_bytes ? shard_bytes : UINT64_MAX;
    w->fd = w->open_shard = -1;
    snprintf(w->dir, sizeof(w->dir), "%.*s", (int)n, dir);
    snprintf(w->temp, sizeof(w->temp), "%s.tmp-%ld", w->dir, (long)getpid());
    if (mkdir(w->temp, 0777) != 0) {
        rc = err_sys(err, ERR_IO, "cannot create the folder %s", w->temp);
        json_decref(w->names);
        free(w);
        return rc;
    }
    *out = w;
    return 0;
}

static int entry_grow(struct ck_writer *w)
{
    if (w->n_entry < w->room)
        return 0;
    size_t room = w->room ? 2 * w->room : 256;
    struct entry *grown = realloc(w->entry, room * sizeof(*grown));
    if (!grown)
        return -1;
    w->entry = grown;
    w->room = room;
    return 0;
}

int ck_writer_declare(struct ck_writer *w, const char *name, enum dtype dtype, int n_dim,
                      const uint64_t *dim, struct err *err)
{
    uint64_t bytes = dtype_bytes(dtype);
    if (bytes == 0 || dtype == DTYPE_I8 || n_dim < 0 || n_dim > LIMIT_ST_DIMS || w->n_shard)
        return err_set(err, ERR_USAGE, "tensor \"%s\" cannot be declared: dtype %s, %d dimensions",
                       name, dtype_name(dtype), n_dim);
    for (int i = 0; i < n_dim; i++)
        if (__builtin_mul_overflow(bytes, dim[i], &bytes))
            return err_set(err, ERR_LIMIT, "tensor \"%s\" is larger than 2^64 bytes", name);
    if (__builtin_add_overflow(w->total, bytes, &w->total))
        return err_set(err, ERR_LIMIT, "the checkpoint is larger than 2^64 bytes");
    if (json_object_get(w->names, name))
        return err_set(err, ERR_USAGE, "tensor \"%s\" is declared twice", name);
    char *copy = strdup(name);
    if (!copy || entry_grow(w) != 0 || json_object_set_new(w->names, name, json_null()) != 0) {
        free(copy);
        return err_set(err, ERR_NOMEM, "tensor \"%s\": no memory, or its name is no UTF-8", name);
    }
    struct entry *e = &w->entry[w->n_entry++];
    *e = (struct entry){.name = copy, .dtype = dtype, .n_dim = n_dim, .bytes = bytes};
    memcpy(e->dim, dim, (size_t)n_dim * sizeof(*dim));
    return 0;
}

static void shard_file(const struct ck_writer *w, int shard, char *out, size_t size)
{
    if (w->n_shard == 1)
        snprintf(out, size, "model.safetensors");
    else
        snprintf(out, size, "model-%05d-of-%05d.safetensors", shard + 1, w->n_shard);
}

/* places_fix cuts the declared order into shards and gives each tensor its place. */
static void places_fix(struct ck_writer *w)
{
    uint64_t used = 0;
    int shard = 0;
    for (size_t i = 0; i < w->n_entry; i++) {
        struct entry *e = &w->entry[i];
        if (used > 0 && (e->bytes > w->shard_bytes || used > w->shard_bytes - e->bytes)) {
            shard++;
            used = 0;
        }
        e->shard = shard;
        used += e->bytes;
    }
    w->n_shard = shard + 1;
    for (size_t first = 0; first < w->n_entry;) {
        uint64_t begin = 0;
        size_t end = first;
        while (end < w->n_entry && w->entry[end].shard == w->entry[first].shard)
            end++;
        for (size_t width = 8; width >= 2; width /= 2) {
            for (size_t i = first; i < end; i++) {
                if (dtype_bytes(w->entry[i].dtype) != width)
                    continue;
                w->entry[i].begin = begin;
                begin += w->entry[i].bytes;
            }
        }
        first = end;
    }
}

int ck_writer_begin(struct ck_writer *w, struct err *err)
{
    struct statvfs fs;
    if (w->n_shard || w->n_entry == 0)
        return err_set(err, ERR_USAGE, "%s: nothing to write", w->dir);
    places_fix(w);
    if (w->n_shard > LIMIT_SHARDS)
        return err_set(err, ERR_LIMIT, "%s: %d shards, at most %d; use larger ones", w->dir,
                       w->n_shard, LIMIT_SHARDS);
    if (statvfs(w->temp, &fs) == 0 && w->total / fs.f_frsize >= fs.f_bavail) {
        char need[32], free_bytes[32];
        return err_set(
            err, ERR_IO, "%s needs %s, its file system has %s free", w->dir,
            human_bytes((double)w->total, need, sizeof(need)),
            human_bytes((double)fs.f_bavail * (double)fs.f_frsize, free_bytes, sizeof(free_bytes)));
    }
    for (size_t i = 0; i < w->n_entry; i++) {
        char file[64];
        shard_file(w, w->entry[i].shard, file, sizeof(file));
        if (json_object_set_new(w->names, w->entry[i].name, json_string(file)) != 0)
            return err_set(err, ERR_NOMEM, "no memory for the index of %s", w->dir);
    }
    return 0;
}

static json_t *entry_json(const struct entry *e)
{
    static const char *const names[DTYPE_COUNT] = {
        [DTYPE_F32] = "F32", [DTYPE_BF16] = "BF16", [DTYPE_F16] = "F16",
        [DTYPE_U16] = "U16", [DTYPE_I32] = "I32",   [DTYPE_I64] = "I64"};
    json_t *shape = json_array();
    for (int i = 0; i < e->n_dim; i++)
        json_array_append_new(shape, json_integer((json_int_t)e->dim[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", names[e->dtype], "shape", shape,
                     "data_offsets", (json_int_t)e->begin, (json_int_t)(e->begin + e->bytes));
}

/* shard_header: the JSON of one shard, padded with spaces so that the data begins aligned. */
static char *shard_header(const struct ck_writer *w, int shard, size_t *bytes)
{
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    for (size_t i = 0; i < w->n_entry; i++)
        if (w->entry[i].shard == shard)
            json_object_set_new(root, w->entry[i].name, entry_json(&w->entry[i]));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    size_t n = text ? strlen(text) : 0;
    size_t padded = (n + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
    char *out = text ? malloc(8 + padded + 1) : NULL;
    if (out) {
        for (int i = 0; i < 8; i++)
            out[i] = (char)(padded >> (8 * i) & 0xff);
        memcpy(out + 8, text, n);
        memset(out + 8 + n, ' ', padded - n);
        *bytes = 8 + padded;
    }
    free(text);
    return out;
}

static int write_at(int fd, const char *data, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t n = pwrite(fd, data, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int file_close(struct ck_writer *w, struct err *err)
{
    int rc = w->fd >= 0 && close(w->fd) != 0
                 ? err_sys(err, ERR_IO, "cannot finish a file of %s", w->temp)
                 : 0;
    w->fd = -1;
    return rc;
}

static int file_create(const struct ck_writer *w, const char *name, struct err *err)
{
    char path[PATH_MAX + 352];
    snprintf(path, sizeof(path), "%s/%s", w->temp, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return fd >= 0 ? fd : err_sys(err, ERR_IO, "cannot create %s", path);
}

/* shard_start closes the shard before and opens the one of the tensor that comes next. */
static int shard_start(struct ck_writer *w, int shard, struct err *err)
{
    char file[64];
    size_t bytes = 0;
    int rc = file_close(w, err);
    if (rc)
        return rc;
    shard_file(w, shard, file, sizeof(file));
    char *header = shard_header(w, shard, &bytes);
    if (!header)
        return err_set(err, ERR_NOMEM, "no memory for the header of %s", file);
    w->fd = file_create(w, file, err);
    rc = w->fd < 0 ? w->fd : 0;
    if (rc == 0 && write_at(w->fd, header, bytes, 0) != 0)
        rc = err_sys(err, ERR_IO, "cannot write %s/%s", w->temp, file);
    free(header);
    w->data_begin = bytes;
    w->open_shard = shard;
    return rc;
}

/* pass_complete steps over finished (or empty) tensors and opens the shard of the next one. */
static int pass_complete(struct ck_writer *w, struct err *err)
{
    while (w->at < w->n_entry) {
        int shard = w->entry[w->at].shard;
        int rc = shard == w->open_shard ? 0 : shard_start(w, shard, err);
        if (rc || w->done < w->entry[w->at].bytes)
            return rc;
        w->at++;
        w->done = 0;
    }
    return 0;
}

int ck_writer_data(struct ck_writer *w, const void *data, size_t bytes, struct err *err)
{
    const char *rest = data;
    int rc = pass_complete(w, err);
    while (rc == 0 && bytes > 0) {
        if (w->at == w->n_entry)
            return err_set(err, ERR_USAGE, "%s: more bytes than the declared tensors have", w->dir);
        const struct entry *e = &w->entry[w->at];
        uint64_t left = e->bytes - w->done;
        size_t n = left < bytes ? (size_t)left : bytes;
        if (write_at(w->fd, rest, n, w->data_begin + e->begin + w->done) != 0)
            return err_sys(err, ERR_IO, "cannot write tensor \"%s\" to %s", e->name, w->temp);
        rest += n;
        bytes -= n;
        w->done += n;
        rc = pass_complete(w, err);
    }
    return rc;
}

int ck_writer_file(struct ck_writer *w, const char *name, const void *data, size_t bytes,
                   struct err *err)
{
    int fd = file_create(w, name, err);
    if (fd < 0)
        return fd;
    int failed = write_at(fd, data, bytes, 0) != 0;
    failed |= close(fd) != 0;
    return failed ? err_sys(err, ERR_IO, "cannot write %s/%s", w->temp, name) : 0;
}

static int index_write(struct ck_writer *w, struct err *err)
{
    json_t *root = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)w->total,
                             "weight_map", w->names);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    int rc = text ? ck_writer_file(w, INDEX, text, strlen(text), err)
                  : err_set(err, ERR_NOMEM, "no memory for the index of %s", w->dir);
    free(text);
    return rc;
}

static void writer_free(struct ck_writer *w)
{
    file_close(w, NULL);
    for (size_t i = 0; i < w->n_entry; i++)
        free(w->entry[i].name);
    free(w->entry);
    json_decref(w->names);
    free(w);
}

int ck_writer_finish(struct ck_writer *w, struct err *err)
{
    int rc = w->n_shard ? pass_complete(w, err)
                        : err_set(err, ERR_USAGE, "%s: nothing was written", w->dir);
    if (rc == 0 && w->at < w->n_entry)
        rc = err_set(err, ERR_USAGE, "%s: tensor \"%s\" is incomplete", w->dir,
                     w->entry[w->at].name);
    if (rc == 0)
        rc = file_close(w, err);
    if (rc == 0 && w->n_shard > 1 && !w->finished)
        rc = index_write(w, err);
    w->finished = rc == 0;
    return rc;
}

const char *ck_writer_path(const struct ck_writer *w)
{
    return w->temp;
}

int ck_writer_commit(struct ck_writer *w, struct err *err)
{
    int rc = ck_writer_finish(w, err);
    if (rc == 0 && rename(w->temp, w->dir) != 0)
        rc = err_sys(err, ERR_IO, "cannot rename %s to %s", w->temp, w->dir);
    if (rc)
        ck_writer_abort(w);
    else
        writer_free(w);
    return rc;
}

void ck_writer_abort(struct ck_writer *w)
{
    if (!w)
        return;
    DIR *d = opendir(w->temp);
    for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(w->temp);
    writer_free(w);
}
