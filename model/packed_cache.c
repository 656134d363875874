/* packed_cache: see packed_cache.h. What is checked at every start is cheap: sizes, the header's
 * own hash, and the slab's first and last 4 KiB, where a write that a crash cut short shows. All
 * bytes are compared by packed_cache_verify alone: reading them costs as much as packing them. */
#include "model/packed_cache.h"
#include "base/log.h"
#include "base/pages.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define HEAD_BYTES   ((size_t)4096)
#define SAMPLE_BYTES ((size_t)4096)
#define MAGIC        "sigmoepk"
#define VERSION      1u
#define PATH_BYTES   (sizeof(((struct model *)0)->packed_dir) + 64)

struct head {
    char magic[8];
    uint32_t version, precision;
    int32_t layer, expert;
    struct hash128 model; /* the checkpoint's fingerprint */
    uint64_t layout, bytes;
    uint64_t sample;      /* of the first and the last SAMPLE_BYTES */
    struct hash128 whole; /* of all */
    uint64_t self;        /* of this header up to here */
};
_Static_assert(sizeof(struct head) <= 4096, "the header is a page");

static atomic_flag said_stale = ATOMIC_FLAG_INIT, said_unwritten = ATOMIC_FLAG_INIT;

int model_packed_cache(struct model *model, const char *where, struct err *err)
{
    char hex[33];
    static const struct hash128 none;
    size_t size = sizeof(model->packed_dir);
    int n = 0;
    model->packed_dir[0] = '\0';
    if (strcmp(where, "off") == 0 || hash_equal(model->fingerprint, none))
        return 0;
    if (!where[0])
        return err_set(err, ERR_USAGE, "--packed-cache is off, auto or a folder, not nothing");
    hash_hex(model->fingerprint, hex);
    if (strcmp(where, "auto") == 0)
        n = snprintf(model->packed_dir, size, "%s/packed", model->dir);
    else
        n = snprintf(model->packed_dir, size, "%s/%.16s", where, hex);
    if (n > 0 && (size_t)n < size)
        return 0;
    model->packed_dir[0] = '\0';
    return err_set(err, ERR_USAGE, "--packed-cache: the folder's path is too long");
}

static uint64_t sample_of(const unsigned char *slab, uint64_t bytes)
{
    size_t n = bytes < SAMPLE_BYTES ? (size_t)bytes : SAMPLE_BYTES;
    return hash_bytes64(slab + bytes - n, n, hash_bytes64(slab, n, 0));
}

static uint64_t self_of(const struct head *h)
{
    return hash_bytes64(h, offsetof(struct head, self), 0);
}

static struct head head_of(const struct packed_key *key)
{
    struct head h = {.magic = MAGIC, .version = VERSION};
    h.precision = (uint32_t)key->precision;
    h.layer = key->layer;
    h.expert = key->expert;
    h.model = key->model->fingerprint;
    h.layout = key->layout;
    h.bytes = key->bytes;
    return h;
}

static const char *precision_folder(enum precision p)
{
    return p == PRECISION_F32 ? "f32" : "bf16";
}

static void path_of(const struct packed_key *key, char path[PATH_BYTES])
{
    const char *dir = key->model->packed_dir, *folder = precision_folder(key->precision);
    if (key->expert < 0)
        snprintf(path, PATH_BYTES, "%s/%s/dense.pack", dir, folder);
    else
        snprintf(path, PATH_BYTES, "%s/%s/%03d-%04d.pack", dir, folder, key->layer, key->expert);
}

/* ---- reading ---- */

/* What is wrong with a mapped file of `size` bytes, in words; NULL: nothing. */
static const char *fault_of(const unsigned char *map, uint64_t size)
{
    struct head h;
    memcpy(&h, map, sizeof(h));
    if (memcmp(h.magic, MAGIC, sizeof(h.magic)) != 0)
        return "is no packed slab";
    if (h.version != VERSION)
        return "is of another version";
    if (h.self != self_of(&h))
        return "has a damaged header";
    if (h.bytes != size - HEAD_BYTES)
        return "is cut short";
    return sample_of(map + HEAD_BYTES, h.bytes) == h.sample ? NULL : "is damaged";
}

/* A stale file is as good as one of another key: what it holds is right, for something else. */
static int is_for(const unsigned char *map, const struct packed_key *key)
{
    struct head want = head_of(key), h;
    memcpy(&h, map, sizeof(h));
    return h.precision == want.precision && h.layer == want.layer && h.expert == want.expert &&
           hash_equal(h.model, want.model) && h.layout == want.layout && h.bytes == want.bytes;
}

/* Maps a whole file. NULL where it is not there (errno ENOENT) or is no file of more than a header.
 */
static unsigned char *file_map(const char *path, uint64_t *size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *map = MAP_FAILED;
    errno = EINVAL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > (off_t)HEAD_BYTES) {
        *size = (uint64_t)st.st_size;
        map = mmap(NULL, (size_t)*size, PROT_READ, MAP_SHARED, fd, 0);
    }
    close(fd);
    if (map == MAP_FAILED)
        return NULL;
    pages_small(map, (size_t)*size, 0);
    return map;
}

static void say_stale(const char *path, const char *what)
{
    if (!atomic_flag_test_and_set(&said_stale))
        log_warn("model", "%s %s; it and others like it are packed again", path, what);
}

void *packed_cache_get(const struct packed_key *key)
{
    char path[PATH_BYTES];
    uint64_t size = 0;
    if (!key->model->packed_dir[0])
        return NULL;
    path_of(key, path);
    unsigned char *map = file_map(path, &size);
    if (!map) {
        if (errno != ENOENT)
            say_stale(path, "cannot be read");
        return NULL;
    }
    const char *fault = fault_of(map, size);
    if (!fault && !is_for(map, key))
        fault = "is of another model or layout";
    if (fault) {
        say_stale(path, fault);
        munmap(map, (size_t)size);
        return NULL;
    }
    pages_read(map, (size_t)size);
    return map + HEAD_BYTES;
}

void packed_cache_unmap(void *slab, uint64_t bytes)
{
    if (slab)
        munmap((unsigned char *)slab - HEAD_BYTES, (size_t)bytes + HEAD_BYTES);
}

/* ---- writing ---- */

/* The header and the slab in one call: a file system that keeps files in large pages begins one
 * where a write begins, so a header of its own would leave the slab's first megabytes on small
 * ones. */
static int all_write(int fd, const unsigned char *head, const unsigned char *slab, uint64_t bytes)
{
    for (uint64_t done = 0; done < HEAD_BYTES + bytes;) {
        size_t of_head = done < HEAD_BYTES ? (size_t)done : HEAD_BYTES;
        size_t of_slab = (size_t)done - of_head;
        struct iovec part[2] = {{(void *)(uintptr_t)(head + of_head), HEAD_BYTES - of_head},
                                {(void *)(uintptr_t)(slab + of_slab), (size_t)bytes - of_slab}};
        ssize_t n = writev(fd, part, 2);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        done += (uint64_t)n;
    }
    return 0;
}

/* Every folder on the way to a file; those that cannot be made show when the file is opened. */
static void folders_make(const char *path)
{
    char part[PATH_BYTES];
    for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
        mkdir(part, 0777);
    }
}

/* file_write makes the folders on the way. A failure leaves nothing but them. */
static int file_write(const struct packed_key *key, const char *path, const void *slab)
{
    unsigned char page[HEAD_BYTES] = {0};
    char part[PATH_BYTES + 32];
    struct head h = head_of(key);
    h.sample = sample_of(slab, key->bytes);
    h.whole = hash_bytes(slab, (size_t)key->bytes);
    h.self = self_of(&h);
    memcpy(page, &h, sizeof(h));
    folders_make(path);
    snprintf(part, sizeof(part), "%s.%ld.tmp", path, (long)getpid());
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return -1;
    int rc = all_write(fd, page, slab, key->bytes);
    rc = rc ? rc : fdatasync(fd);
    int saved = errno;
    rc = close(fd) != 0 && rc == 0 ? -1 : rc;
    rc = rc ? rc : rename(part, path);
    if (rc) {
        saved = saved ? saved : errno;
        unlink(part);
        errno = saved;
    }
    return rc;
}

void *packed_cache_put(const struct packed_key *key, const void *slab)
{
    char path[PATH_BYTES];
    if (!key->model->packed_dir[0])
        return NULL;
    path_of(key, path);
    errno = 0;
    if (file_write(key, path, slab) == 0)
        return packed_cache_get(key);
    if (!atomic_flag_test_and_set(&said_unwritten))
        log_warn("model", "%s: %s; packed weights are not kept on disk", path, strerror(errno));
    return NULL;
}

/* ---- verifying ---- */

static void file_verify(const struct model *model, const char *path, struct packed_check *out)
{
    uint64_t size = 0;
    struct head h;
    unsigned char *map = file_map(path, &size);
    const char *fault = map ? fault_of(map, size) : "cannot be read";
    out->n_file++;
    out->bytes += size;
    if (!fault) {
        memcpy(&h, map, sizeof(h));
        madvise(map, (size_t)size, MADV_SEQUENTIAL);
        if (!hash_equal(hash_bytes(map + HEAD_BYTES, (size_t)h.bytes), h.whole))
            fault = "is damaged";
        else if (!hash_equal(h.model, model->fingerprint))
            out->n_stale++;
    }
    if (fault) {
        out->n_damaged++;
        printf("%s %s\n", path, fault);
    }
    if (map)
        munmap(map, (size_t)size);
}

static int folder_verify(const struct model *model, enum precision precision,
                         struct packed_check *out, struct err *err)
{
    char folder[PATH_BYTES], path[PATH_BYTES + 256];
    snprintf(folder, sizeof(folder), "%s/%s", model->packed_dir, precision_folder(precision));
    DIR *d = opendir(folder);
    if (!d)
        return errno == ENOENT ? 0 : err_sys(err, ERR_IO, "cannot list %s", folder);
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 5, ".pack") != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
        file_verify(model, path, out);
    }
    closedir(d);
    return 0;
}

int packed_cache_verify(const struct model *model, struct packed_check *out, struct err *err)
{
    *out = (struct packed_check){0};
    int rc = folder_verify(model, PRECISION_BF16, out, err);
    return rc ? rc : folder_verify(model, PRECISION_F32, out, err);
}
