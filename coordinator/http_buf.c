/* http_buf: bytes that wait, at one end of a connection or the other. Grows by doubling; gives its
 * memory back when it is empty, because most connections are idle most of the time. */
#include "coordinator/http_conn.h"

#include <stdlib.h>
#include <string.h>

#define CAP_MIN 4096

char *http_buf_room(struct http_buf *b, size_t n)
{
    if (b->at > 0 && b->n + n > b->cap) {
        memmove(b->p, b->p + b->at, b->n - b->at);
        b->n -= b->at;
        b->at = 0;
    }
    if (n > SIZE_MAX / 2 - b->n)
        return NULL;
    if (b->n + n > b->cap) {
        size_t cap = 2 * b->cap > b->n + n ? 2 * b->cap : b->n + n;
        cap = cap > CAP_MIN ? cap : CAP_MIN;
        char *grown = realloc(b->p, cap);
        if (grown == NULL)
            return NULL;
        b->p = grown;
        b->cap = cap;
    }
    return b->p + b->n;
}

int http_buf_add(struct http_buf *b, const void *data, size_t n)
{
    char *to = http_buf_room(b, n);
    if (to == NULL)
        return ERR_NOMEM;
    if (n > 0)
        memcpy(to, data, n);
    b->n += n;
    return 0;
}

void http_buf_free(struct http_buf *b)
{
    free(b->p);
    memset(b, 0, sizeof(*b));
}
