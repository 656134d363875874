/* slabs: see slabs.h. */
#include "model/slabs.h"
#include "base/arena.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct slabs {
    unsigned char *base; /* NULL: pieces are mappings of their own */
    size_t n, bytes, stride;
    atomic_flag taken[]; /* [n] */
};

struct slabs *slabs_create(size_t n, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), wide, all;
    struct slabs *s = calloc(1, sizeof(*s) + n * sizeof(*s->taken));
    if (!s)
        return NULL;
    s->n = n;
    s->bytes = bytes;
    for (size_t i = 0; i < n; i++)
        atomic_flag_clear(&s->taken[i]);
    if (add_size(bytes, page - 1, &wide) == 0) {
        s->stride = wide & ~(page - 1);
        if (mul_size(s->stride, n, &all) == 0)
            s->base = mem_map(all);
    }
    return s;
}

void slabs_destroy(struct slabs *s)
{
    if (!s)
        return;
    if (s->base)
        mem_unmap(s->base, s->stride * s->n);
    free(s);
}

void *slabs_take(struct slabs *s)
{
    if (!s->base)
        return mem_map(s->bytes);
    for (size_t i = 0; i < s->n; i++)
        if (!atomic_flag_test_and_set(&s->taken[i]))
            return s->base + i * s->stride;
    return NULL;
}

void slabs_give(struct slabs *s, void *piece)
{
    if (!piece)
        return;
    if (!s->base) {
        mem_unmap(piece, s->bytes);
        return;
    }
    madvise(piece, s->stride, MADV_DONTNEED);
    atomic_flag_clear(&s->taken[(size_t)((unsigned char *)piece - s->base) / s->stride]);
}
