/* json: bounds first, then jansson. The depth is counted over the raw text before the parser
 * recurses; brackets inside strings do not count. */
#include "model/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* depth_exceeded returns the byte at which nesting passes the limit, or -1. */
static ptrdiff_t depth_exceeded(const char *text, size_t bytes)
{
    int depth = 0, in_string = 0;
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = 0;
        } else if (c == '"') {
            in_string = 1;
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_DEPTH_MAX)
                return (ptrdiff_t)i;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return -1;
}

int json_parse_object(const char *text, size_t bytes, size_t bytes_max, const char *path,
                      json_t **out, struct err *err)
{
    if (bytes > bytes_max)
        return err_set(err, ERR_MODEL, "%s: %zu bytes of JSON, at most %zu are accepted", path,
                       bytes, bytes_max);
    ptrdiff_t deep = depth_exceeded(text, bytes);
    if (deep >= 0)
        return err_set(err, ERR_MODEL, "%s: nested deeper than %d levels at byte %td", path,
                       JSON_DEPTH_MAX, deep);
    json_error_t fault;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &fault);
    if (!root) {
        char quoted[JSON_QUOTE];
        return err_set(err, ERR_MODEL, "%s: not valid JSON at line %d, column %d: %s", path,
                       fault.line, fault.column, json_quote(fault.text, quoted));
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, ERR_MODEL, "%s: the top of the file is no JSON object", path);
    }
    *out = root;
    return 0;
}

const char *json_quote(const char *text, char out[JSON_QUOTE])
{
    size_t n = strlen(text), keep = n < JSON_QUOTE ? n : JSON_QUOTE - 4;
    for (size_t i = 0; i < keep; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    strcpy(out + keep, n < JSON_QUOTE ? "" : "...");
    return out;
}

/* read_all reads exactly `bytes`; -1 with errno when the file ends early or cannot be read. */
static int read_all(int fd, char *text, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = read(fd, text + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

int file_read(const char *path, size_t bytes_max, char **text, size_t *bytes, struct err *err)
{
    int rc = 0;
    char *buffer = NULL;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, ERR_IO, "cannot open %s", path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        rc = err_set(err, ERR_IO, "%s is no regular file", path);
        goto out;
    }
    size_t size = (size_t)st.st_size;
    if (size > bytes_max) {
        rc = err_set(err, ERR_MODEL, "%s: %zu bytes, at most %zu are accepted", path, size,
                     bytes_max);
        goto out;
    }
    buffer = malloc(size + 1);
    if (!buffer) {
        rc = err_set(err, ERR_NOMEM, "%s: no memory for %zu bytes", path, size);
        goto out;
    }
    if (read_all(fd, buffer, size) != 0) {
        rc = err_sys(err, ERR_IO, "cannot read %s", path);
        goto out;
    }
    buffer[size] = '\0';
    *text = buffer;
    *bytes = size;
    buffer = NULL;
out:
    free(buffer);
    close(fd);
    return rc;
}
