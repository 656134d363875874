/* npy: see npy.h. A file is a magic of eight bytes, the length of a header, the header (a Python
 * dictionary, padded with spaces and a line end so that the data begins at a multiple of 64), and
 * the data (NumPy's NEP 1). */
#include "coordinator/npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static char *base64(const unsigned char *p, size_t n)
{
    char *out = malloc((n + 2) / 3 * 4 + 1), *to = out;
    for (size_t i = 0; out != NULL && i < n; i += 3) {
        unsigned b = i + 1 < n ? p[i + 1] : 0, c = i + 2 < n ? p[i + 2] : 0;
        unsigned v = (unsigned)p[i] << 16 | b << 8 | c;
        *to++ = DIGITS[v >> 18];
        *to++ = DIGITS[v >> 12 & 63];
        *to++ = i + 1 < n ? DIGITS[v >> 6 & 63] : '=';
        *to++ = i + 2 < n ? DIGITS[v & 63] : '=';
    }
    if (out != NULL) {
        *to = 0;
    }
    return out;
}

char *npy_base64(const void *data, int n, int n_layer, int top_k, int bytes)
{
    char head[192] = "\x93NUMPY\x01";
    const char *type = bytes == 1 ? "|u1" : bytes == 2 ? "<u2" : "<i4";
    int at = 10 + snprintf(head + 10, sizeof head - 10,
                           "{'descr': '%s', 'fortran_order': False, 'shape': (%d, %d, %d), }", type,
                           n, n_layer, top_k);
    int size = (at + 1 + 63) / 64 * 64;
    memset(head + at, ' ', (size_t)(size - at));
    head[size - 1] = '\n';
    head[8] = (char)((size - 10) & 0xff);
    head[9] = (char)((size - 10) >> 8);
    size_t n_data = (size_t)n * (size_t)n_layer * (size_t)top_k * (size_t)bytes;
    unsigned char *file = malloc((size_t)size + n_data + 1);
    if (file == NULL) {
        return NULL;
    }
    memcpy(file, head, (size_t)size);
    memcpy(file + size, data, n_data);
    char *text = base64(file, (size_t)size + n_data);
    free(file);
    return text;
}
