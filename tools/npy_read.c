/* npy_read: see npy_read.h. The format is NumPy's own (numpy.lib.format): a magic, a version, the
 * length of a header, the header as the text of a Python dictionary, then the data. */
#include "tools/npy_read.h"
#include "base/arena.h"
#include "base/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX 4096

struct layout {
    char kind;
    int width, n, n_layer, top_k;
};

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* unbase64: out has room for length / 4 * 3 bytes. -1: this is no base64. */
static int64_t unbase64(const char *text, size_t length, uint8_t *out)
{
    int64_t n = 0;
    if (length % 4 != 0)
        return -1;
    for (size_t i = 0; i < length; i += 4) {
        int pad = i + 4 == length ? (text[i + 3] == '=') + (text[i + 2] == '=') : 0;
        uint32_t bits = 0;
        for (int k = 0; k < 4; k++) {
            int v = k >= 4 - pad ? 0 : value_of(text[i + (size_t)k]);
            if (v < 0)
                return -1;
            bits = bits << 6 | (uint32_t)v;
        }
        for (int k = 0; k < 3 - pad; k++)
            out[n++] = (uint8_t)(bits >> (16 - 8 * k));
    }
    return n;
}

/* after: the text behind `key` in the header, blanks skipped; NULL: it is not there. */
static const char *after(const char *header, const char *key)
{
    const char *at = strstr(header, key);
    if (!at)
        return NULL;
    at += strlen(key);
    while (*at == ' ' || *at == ':')
        at++;
    return at;
}

static int parse_header(const char *header, struct layout *l)
{
    const char *descr = after(header, "'descr'"), *order = after(header, "'fortran_order'");
    const char *shape = after(header, "'shape'");
    char endian;
    int end = 0;
    if (!descr || !order || !shape || strncmp(order, "False", 5) != 0)
        return -1;
    if (sscanf(descr, "'%c%c%1d'", &endian, &l->kind, &l->width) != 3 ||
        (l->kind != 'i' && l->kind != 'u') || (endian != '<' && endian != '|') ||
        (endian == '|' && l->width != 1))
        return -1;
    if (sscanf(shape, "( %9d , %9d , %9d %n", &l->n, &l->n_layer, &l->top_k, &end) != 3 || !end)
        return -1;
    return (shape[end] == ')' || (shape[end] == ',' && strchr(shape + end, ')'))) &&
                   (l->width == 1 || l->width == 2 || l->width == 4 || l->width == 8)
               ? 0
               : -1;
}

/* open_file finds the data behind the header; -1: this is no such file. */
static int open_file(const uint8_t *file, size_t n, struct layout *l, size_t *data)
{
    char header[HEADER_MAX];
    size_t start, length;
    if (n < 12 || memcmp(file, "\x93NUMPY", 6) != 0 || file[6] < 1 || file[6] > 3)
        return -1;
    start = file[6] == 1 ? 10 : 12;
    length = file[8] | (size_t)file[9] << 8;
    if (file[6] > 1)
        length |= (size_t)file[10] << 16 | (size_t)file[11] << 24;
    if (length >= HEADER_MAX || length > n - start)
        return -1;
    memcpy(header, file + start, length);
    header[length] = '\0';
    *data = start + length;
    return parse_header(header, l);
}

static int64_t number_at(const uint8_t *p, const struct layout *l)
{
    uint64_t v = 0;
    for (int i = 0; i < l->width; i++)
        v |= (uint64_t)p[i] << (8 * i);
    int unused = 64 - 8 * l->width;
    return l->kind == 'i' ? (int64_t)(v << unused) >> unused : (int64_t)v;
}

static int read_ids(const uint8_t *data, size_t n, const struct layout *l, int limit,
                    const char *what, struct npy *out, struct err *err)
{
    size_t count;
    if (l->n < 1 || l->n > LIMIT_CONTEXT || l->n_layer < 1 || l->n_layer > LIMIT_LAYERS ||
        l->top_k < 1 || l->top_k > LIMIT_TOP_K)
        return err_set(err, ERR_MODEL,
                       "%s: an array of %d x %d x %d; expected tokens x layers (at most %d) x k "
                       "(at most %d)",
                       what, l->n, l->n_layer, l->top_k, LIMIT_LAYERS, LIMIT_TOP_K);
    count = (size_t)l->n * (size_t)l->n_layer * (size_t)l->top_k;
    if (count * (size_t)l->width != n)
        return err_set(err, ERR_MODEL, "%s: %zu bytes of data, the shape says %zu", what, n,
                       count * (size_t)l->width);
    int32_t *id = malloc(count * sizeof(*id));
    if (!id)
        return err_set(err, ERR_NOMEM, "%s: no memory for %zu ids", what, count);
    for (size_t i = 0; i < count; i++) {
        int64_t v = number_at(data + i * (size_t)l->width, l);
        if (v < 0 || v >= limit) {
            free(id);
            return err_set(err, ERR_MODEL, "%s: token %zu names expert %lld; experts run to %d",
                           what, i / (size_t)(l->n_layer * l->top_k), (long long)v, limit - 1);
        }
        id[i] = (int32_t)v;
    }
    *out = (struct npy){l->n, l->n_layer, l->top_k, id};
    return 0;
}

int npy_read(const char *base64, size_t length, int limit, const char *what, struct npy *out,
             struct err *err)
{
    struct layout l = {0};
    size_t data;
    uint8_t *file = malloc(length / 4 * 3 + 3);
    if (!file)
        return err_set(err, ERR_NOMEM, "%s: no memory for %zu bytes of base64", what, length);
    int64_t n = unbase64(base64, length, file);
    int rc;
    if (n < 0)
        rc = err_set(err, ERR_MODEL, "%s: this is no base64", what);
    else if (open_file(file, (size_t)n, &l, &data))
        rc = err_set(err, ERR_MODEL,
                     "%s: this is no NumPy file of whole numbers with three dimensions", what);
    else
        rc = read_ids(file + data, (size_t)n - data, &l, limit, what, out, err);
    free(file);
    return rc;
}
