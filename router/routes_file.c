/* routes_file: route files on disk. A file being written has ".part" behind its name until it is
 * whole; a recorder that was killed leaves that one, and --recover reads it. */
#include "router/routes.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
    int fd;
    char path[PATH_MAX], part[PATH_MAX + 8];
};

static int file_read_at(void *self, uint64_t offset, void *out, size_t n, struct err *err)
{
    struct file *f = self;
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(f->fd, (char *)out + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(err, ERR_IO, "%s", f->path);
        if (got == 0)
            return err_set(err, ERR_IO, "%s: the file became shorter while it was read", f->path);
        done += (size_t)got;
    }
    return 0;
}

static void file_close(void *self)
{
    struct file *f = self;
    close(f->fd);
    free(f);
}

static int file_write(void *self, const void *bytes, size_t n, struct err *err)
{
    struct file *f = self;
    for (size_t done = 0; done < n;) {
        ssize_t put = write(f->fd, (const char *)bytes + done, n - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_sys(err, ERR_IO, "%s", f->part);
        done += (size_t)put;
    }
    return 0;
}

static int file_end(void *self, int whole, struct err *err)
{
    struct file *f = self;
    int rc = close(f->fd) && whole ? err_sys(err, ERR_IO, "%s", f->part) : 0;
    if (rc == 0 && whole && rename(f->part, f->path))
        rc = err_sys(err, ERR_IO, "cannot rename %s to %s", f->part, f->path);
    if (!whole)
        unlink(f->part);
    free(f);
    return rc;
}

static struct file *file_new(const char *path, struct err *err)
{
    struct file *f = calloc(1, sizeof(*f));
    if (!f)
        (void)err_set(err, ERR_NOMEM, "no memory to open %s", path);
    else if (strlen(path) >= sizeof(f->path))
        (void)err_set(err, ERR_IO, "a path of %zu bytes is too long", strlen(path));
    else {
        strcpy(f->path, path);
        snprintf(f->part, sizeof(f->part), "%s.part", path);
        return f;
    }
    free(f);
    return NULL;
}

static int open_with(const char *path,
                     int (*create)(const struct routes_source *, const char *,
                                   struct routes_reader **, struct err *),
                     struct routes_reader **out, struct err *err)
{
    struct err why = {0};
    struct file *f = file_new(path, &why);
    struct stat st;
    if (!f)
        return err_set(err, why.code, "%s", why.text);
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0) {
        free(f);
        return err_sys(err, ERR_IO, "%s", path);
    }
    int rc = fstat(f->fd, &st) ? err_sys(err, ERR_IO, "%s", path) : 0;
    if (rc == 0 && !S_ISREG(st.st_mode))
        rc = err_set(err, ERR_IO, "%s is not a file", path);
    struct routes_source source = {.self = f, .read_at = file_read_at, .close = file_close};
    if (rc == 0) {
        source.size = (uint64_t)st.st_size;
        rc = create(&source, path, out, err);
    }
    if (rc)
        file_close(f);
    return rc;
}

int routes_open(const char *path, struct routes_reader **out, struct err *err)
{
    return open_with(path, routes_reader_create, out, err);
}

int routes_open_cut_off(const char *path, struct routes_reader **out, struct err *err)
{
    return open_with(path, routes_reader_recover, out, err);
}

int routes_create(const char *path, const struct routes_spec *spec, struct routes_writer **out,
                  struct err *err)
{
    struct err why = {0};
    struct file *f = file_new(path, &why);
    if (!f)
        return err_set(err, why.code, "%s", why.text);
    f->fd = open(f->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (f->fd < 0) {
        int rc = err_sys(err, ERR_IO, "cannot write %s", f->part);
        free(f);
        return rc;
    }
    struct routes_sink sink = {.self = f, .write = file_write, .end = file_end};
    int rc = routes_writer_create(&sink, spec, out, err);
    if (rc)
        file_end(f, 0, NULL);
    return rc;
}
